//! The application of the original GoPlug's README: loads `Test/Do`, lists its methods, calls, pings, unloads.

use std::path::Path;

use goplug_registry::{Error, Registry, Unload};

/// Runs once.
///
/// # Errors
/// When the plugin is not there or a call fails.
#[tokio::main]
pub async fn run(dir: &Path) -> Result<(), Error> {
    let registry = Registry::open(dir).await?;
    registry.load("Test/Do").await?;
    for method in registry.methods("Test/Do")?.methods {
        println!("method {}", method.name);
    }
    let reply = registry.execute("Test/Do", "Do", "hello").await?;
    println!("{}", String::from_utf8_lossy(&reply));
    registry.ping("Test/Do").await?;
    registry.unload("Test/Do", Unload::default()).await?;
    registry.close().await;
    Ok(())
}
