//! The demo's own plugin: this executable, started with a hidden first argument.

use std::ffi::OsString;
use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;

use bytes::Bytes;
use goplug_plugin_impl::{Callback, Code, Context, Error, Method, Plugin};
use rustix::process::{Signal, getpid, kill_process};

/// The argument that turns this executable into the plugin.
pub(super) const HIDDEN: &str = "__demo-plugin";
/// The argument after the folder: leave when standard input ends, that is, when the demo does.
pub(super) const LIFELINE: &str = "lifeline";

/// Runs the plugin `Test/Do` if the command line asks for it.
pub(crate) fn run_if_asked(words: &[OsString]) -> Option<ExitCode> {
    let [_, first, folder, rest @ ..] = words else { return None };
    if first != HIDDEN {
        return None;
    }
    if rest.first().is_some_and(|word| word == LIFELINE) {
        std::thread::spawn(leave_with_the_demo);
    }
    Some(match plugin(folder.into()).and_then(Plugin::run_blocking) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    })
}

fn plugin(folder: PathBuf) -> Result<Plugin, Error> {
    Plugin::builder(folder)
        .namespace("Test")
        .name("Do")
        .version("1.0.0")
        .description("the plugin of the demo")
        .activator(|_settings| Ok::<_, Error>("ready"))
        .stopper(|| "bye")
        .method(Method::new("Do").description("answers in capital letters").idempotent(), shout)
        .method(Method::new("Panic").description("panics"), |_: &Context, _: Bytes| -> Result<Bytes, Error> {
            broken()
        })
        .method_async(Method::new("Count").description("notifies `tick` three times"), count)
        .callback(Callback::event("tick").description("a number"))
        .build()
}

fn shout(_: &Context, body: Bytes) -> Result<String, Error> {
    match std::str::from_utf8(&body) {
        Ok(text) => Ok(text.to_uppercase()),
        Err(_) => Err(Error::new(Code::InvalidArgument, "the body is no UTF-8")),
    }
}

#[expect(clippy::panic, reason = "the demo shows that a method's panic harms nobody else")]
fn broken() -> ! {
    panic!("this method always panics")
}

async fn count(cx: Context, _: Bytes) -> Result<Bytes, Error> {
    for number in ["one", "two", "three"] {
        cx.notifier().notify("tick", number).await?;
    }
    Ok(Bytes::from_static(b"counted"))
}

/// Waits for the end of standard input, then ends this process as SIGTERM does.
fn leave_with_the_demo() {
    let mut byte = [0];
    while std::io::stdin().read(&mut byte).is_ok_and(|count| count > 0) {}
    let _ = kill_process(getpid(), Signal::TERM);
}
