//! A plugin that notifies: `news` keeps every message until its subscribers have handled it, `progress` the last value
//! per key.

use std::path::Path;

use bytes::Bytes;
use goplug_plugin_impl::{Callback, Error, Plugin};

/// Runs until a signal or a `stop`.
///
/// # Errors
/// When the plugin cannot be built or cannot listen.
pub fn run(dir: &Path) -> Result<(), Error> {
    Plugin::builder(dir)
        .namespace("Example")
        .name("teller")
        .callback(Callback::event("news").description("everything that was announced"))
        .callback(Callback::state("progress").description("how far each job is"))
        .method_async("announce", |cx, body: Bytes| async move {
            let position = cx.notifier().notify("news", body).await?;
            Ok(position.to_string())
        })
        .method("advance", |cx, job: Bytes| {
            for percent in [0, 50, 100] {
                cx.notifier().notify_key("progress", &String::from_utf8_lossy(&job), format!("{percent} %"))?;
            }
            Ok("done")
        })
        .build()?
        .run_blocking()
}
