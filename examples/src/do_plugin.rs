//! The plugin of the original GoPlug's README: a method `Do` on bytes, an activator, a stopper.

use std::path::Path;

use goplug_plugin_impl::{Error, Plugin};

/// Runs until a signal or a `stop`.
///
/// # Errors
/// When the plugin cannot be built or cannot listen.
pub fn run(dir: &Path) -> Result<(), Error> {
    Plugin::builder(dir)
        .namespace("Test")
        .name("Do")
        .activator(|_settings| Ok("activated"))
        .stopper(|| "stopped")
        .method("Do", |_cx, body| {
            let text = String::from_utf8_lossy(&body);
            Ok(format!("Do: {text}"))
        })
        .build()?
        .run_blocking()
}
