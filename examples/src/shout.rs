//! A plugin for bodies of any length: it reads while they come and answers meanwhile, in a few hundred KiB of memory.

use std::path::Path;

use goplug_plugin_impl::{Error, Method, Plugin};

/// Runs until a signal or a `stop`.
///
/// # Errors
/// When the plugin cannot be built or cannot listen.
pub fn run(dir: &Path) -> Result<(), Error> {
    Plugin::builder(dir)
        .namespace("Example")
        .name("shout")
        .max_request_bytes(1 << 40)
        .method_duplex(Method::new("shout").description("upper case"), |_cx, mut body, out| async move {
            while let Some(piece) = body.next().await? {
                out.send(piece.to_ascii_uppercase()).await?;
            }
            Ok(())
        })
        .build()?
        .run_blocking()
}
