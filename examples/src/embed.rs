//! An application that lives with its plugins: it loads them as they appear, hears from one, and shows what happens.

use std::path::Path;
use std::time::Duration;

use goplug_registry::{Error, Registry, Subscribe, Wait};

/// How long the application waits for the notifier.
const PATIENCE: Duration = Duration::from_secs(30);

/// Ends after three notifications of `Example/teller`.
///
/// # Errors
/// When the notifier does not come, or cannot be called.
#[tokio::main]
pub async fn run(dir: &Path) -> Result<(), Error> {
    // Each plugin takes descriptors: this is worth more than the usual 1,024. If it is refused, they may do.
    _ = goplug_registry::raise_open_files();
    let registry = Registry::builder(dir).auto_discover(true).open().await?;
    registry.wait_for("Example/teller", Wait::Loaded, PATIENCE).await?;

    // The handler's return is the acknowledgement: the plugin keeps a message until then.
    let (heard, mut news) = tokio::sync::mpsc::channel(16);
    let subscribe = Subscribe { name: Some("embed".into()) };
    let subscription = registry
        .register_callback("Example/teller", "news", subscribe, move |notice| {
            let heard = heard.clone();
            async move { heard.send(notice.data).await.map_err(|_| "nobody listens any more".to_owned()) }
        })
        .await?;

    for text in ["one", "two", "three"] {
        registry.execute("Example/teller", "announce", text).await?;
        if let Some(data) = news.recv().await {
            println!("heard {}", String::from_utf8_lossy(&data));
        }
    }
    subscription.close().await;
    registry.close().await;
    Ok(())
}
