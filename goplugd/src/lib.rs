//! The GoPlug daemon: the registry of one or more plugin directories behind an HTTP API on a Unix socket.
//!
//! It starts no process and keeps no state: it turns HTTP into calls of `goplug-registry` and the answers into HTTP.
//! In reading order: [`Args`] and `settings` (what it is told), `lock` and `socket` (one instance, one address),
//! `daemon` (its life, and what each signal does), `accept` and `connection` (who may speak, and for how long),
//! `fleet` (several directories as one view), `api` (the routes).

mod accept;
mod api;
mod args;
mod connection;
mod daemon;
mod fleet;
mod lock;
mod runtime;
mod settings;
mod socket;

use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::Parser as _;
use clap::error::ErrorKind;
use goplug_registry::{Code, Error};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

pub use args::Args;
pub use runtime::runtime;

/// Runs the daemon with this process's arguments until a signal ends it.
pub fn main() -> ExitCode {
    main_with(std::env::args_os())
}

/// Runs the daemon with `args` (the first is the program's name) until a signal ends it.
///
/// Exit codes: 0 ended by SIGTERM or SIGINT, 1 unexpected, 2 usage, 8 the socket's folder is open to others, 9 another
/// daemon holds the state folder or the socket, 10 the configuration has problems, 130 a second signal cut the end short.
pub fn main_with(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args = match Args::try_parse_from(args) {
        Ok(args) => args,
        Err(error) => {
            let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            // Nobody is left to tell when even the terminal is gone.
            let _ = error.print();
            return ExitCode::from(if asked { 0 } else { 2 });
        }
    };
    match run(args) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: goplugd: {}", error.message);
            ExitCode::from(exit_code(error.code))
        }
    }
}

fn run(args: Args) -> Result<ExitCode, Error> {
    let layers = settings::Layers::new(args, std::env::vars_os());
    let settings = layers.load().map_err(|problems| Error::new(Code::InvalidArgument, problems.join("\n")))?;
    log_to_stderr(settings.log.as_deref())?;
    match goplug_registry::raise_open_files() {
        Ok(limit) => tracing::debug!(limit, "open files"),
        Err(error) => tracing::warn!(%error, "the soft limit of open files stays as it is"),
    }
    // Before the runtime: a loser of the race for the state folder has touched nothing.
    let lock = lock::Lock::take(&layers.state_dir(&settings))?;
    let runtime = runtime()?;
    let ended = runtime.block_on(daemon::run(layers, settings));
    // What is still running at the end of the drain, such as a blocked thread, does not hold the exit back.
    runtime.shutdown_background();
    drop(lock);
    ended
}

fn log_to_stderr(filter: Option<&str>) -> Result<(), Error> {
    let text = filter.unwrap_or("info");
    let filter: Targets = text.parse().map_err(|error| {
        Error::new(Code::InvalidArgument, format!("log `{text}`: {error}: use error, warn, info, debug or trace"))
    })?;
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    // A second daemon in one process, as tests run them, keeps the first one's log.
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(colour);
    let _ = tracing_subscriber::registry().with(lines).with(filter).try_init();
    Ok(())
}

/// The one place where a failure to start becomes an exit code.
fn exit_code(code: Code) -> u8 {
    match code {
        Code::InvalidArgument | Code::TooLarge => 10,
        Code::NotFound => 4,
        Code::WrongState => 3,
        Code::Conflict => 9,
        Code::Denied => 8,
        Code::MethodFailed | Code::Panicked => 5,
        Code::Overloaded | Code::Unavailable => 6,
        Code::DeadlineExceeded => 7,
        Code::PluginGone => 12,
        Code::Cancelled => 130,
        Code::ProtocolError | Code::Internal => 1,
    }
}
