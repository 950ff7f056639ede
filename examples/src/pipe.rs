//! An application that sends a long request and reads its reply at the same time, piece by piece.

use std::path::Path;

use goplug_registry::{CallOptions, Error, Registry};

/// How much is sent.
const PIECES: usize = 64;

/// Runs once, with the plugin of [`crate::shout`].
///
/// # Errors
/// When the plugin is not there or the call fails.
#[tokio::main]
pub async fn run(dir: &Path) -> Result<(), Error> {
    let registry = Registry::open(dir).await?;
    registry.load("Example/shout").await?;
    let (mut request, mut reply) = registry.exchange("shout", "shout", CallOptions::default()).await?.split();
    let send = async {
        for _ in 0..PIECES {
            // Waits when the plugin is slower than we are.
            request.send(vec![b'a'; 256 * 1024]).await?;
        }
        request.finish().await
    };
    let receive = async {
        let mut shouted = 0;
        while let Some(piece) = reply.next().await? {
            shouted += piece.iter().filter(|byte| **byte == b'A').count();
        }
        Ok(shouted)
    };
    let ((), shouted) = tokio::try_join!(send, receive)?;
    println!("{} MiB shouted", shouted >> 20);
    registry.close().await;
    Ok(())
}
