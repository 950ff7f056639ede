//! The examples, built for the tests: `example NAME DIR`.

use std::path::PathBuf;

use goplug_examples::{do_app, do_plugin, embed, lazy, notifier, pipe, shout, typed};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let (name, dir) = (args.next().unwrap_or_default(), PathBuf::from(args.next().unwrap_or_default()));
    match name.as_str() {
        "do_plugin" => do_plugin::run(&dir)?,
        "typed" => typed::run(&dir)?,
        "notifier" => notifier::run(&dir)?,
        "lazy" => lazy::run(&dir)?,
        "shout" => shout::run(&dir)?,
        "pipe" => pipe::run(&dir)?,
        "do_app" => do_app::run(&dir)?,
        "embed" => embed::run(&dir)?,
        other => return Err(format!("no example `{other}`").into()),
    }
    Ok(())
}
