//! A plugin that is expensive to activate: registries find it and leave it alone until somebody loads it.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use goplug_plugin_impl::{Code, Error, Plugin};

/// Runs until a signal or a `stop`.
///
/// # Errors
/// When the plugin cannot be built or cannot listen.
pub fn run(dir: &Path) -> Result<(), Error> {
    let table = Arc::new(OnceLock::new());
    let filled = Arc::clone(&table);
    Plugin::builder(dir)
        .namespace("Example")
        .name("lazy")
        .lazy_load(true)
        .activator(move |_settings| {
            let squares = filled.get_or_init(|| (0..1_000_u64).map(|n| n * n).collect::<Vec<_>>());
            Ok(format!("{} squares", squares.len()))
        })
        .method("square", move |_cx, body: Bytes| {
            let at = std::str::from_utf8(&body).ok().and_then(|text| text.trim().parse::<usize>().ok());
            let square = at.and_then(|at| table.get()?.get(at));
            let square = square.ok_or_else(|| Error::new(Code::InvalidArgument, "not a number below 1000"))?;
            Ok(square.to_string())
        })
        .build()?
        .run_blocking()
}
