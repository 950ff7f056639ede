//! The small program under which every plugin runs that a registry starts, and which outlives the registry.
//!
//! It keeps what the plugin writes, applies its limits, knows how it ended, and ends everything that it started. In reading
//! order: `host` (the one loop), `ladder` (how a plugin ends; pure), `ring` (what is kept of its output; pure), `spawn` (how
//! its process comes to be), `tree` (everything that it started), `client` (who asks), `record` (what stays on disk). What
//! is said is `goplug_pconf_schema::wire::host`. `shared_object` is another life of the same program: the process of a plugin that is
//! a library, which a host starts as any other.
//!
//! A host has one thread and no runtime: the plugin dies with the thread that started it, and every plugin costs one of these.

mod client;
mod host;
mod ladder;
mod record;
mod ring;
mod shared_object;
mod spawn;
mod tree;

use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use goplug_pconf_schema::wire::host::{Answer, HostSpec, MAX_SPEC_BYTES};
use goplug_pconf_schema::{Code, Fault};

/// The first argument of a host that has been freed of inherited descriptors.
const AGAIN: &str = "--again";

const HELP: &str =
    "goplug-host runs one plugin for a registry, which starts it by itself: there is nothing to type here.

It reads a specification (JSON) from its standard input and writes its status, or the problem, as one line.
It is looked for beside the program that needs it, then in PATH; GOPLUG_HOST names another one.

  --version   the version
  --help      this text
";

/// Runs the program with this process's arguments.
///
/// Exit codes: 0 the plugin has ended; 1 it could not be started; 2 usage; 127 the process that was to become the plugin
/// could not.
pub fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    let first = args.next();
    match first.as_ref().map(|first| first.to_str().unwrap_or_default()) {
        None => run(true),
        Some(AGAIN) => run(false),
        Some(spawn::EXEC) => spawn::become_plugin(args),
        Some(shared_object::SHARED_OBJECT) => shared_object::run(args.next()),
        Some("--version" | "-V") => say(&format!("goplug-host {}\n", env!("CARGO_PKG_VERSION"))),
        Some("--help" | "-h") => say(HELP),
        Some(_) => {
            eprint!("error: goplug-host takes no argument {first:?}\n\n{HELP}");
            ExitCode::from(2)
        }
    }
}

fn say(text: &str) -> ExitCode {
    // Nobody is left to tell when the output is closed.
    let _ = std::io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

fn run(check_descriptors: bool) -> ExitCode {
    if check_descriptors && has_inherited() {
        let fault = again();
        return report(&Answer::problem(&fault), ExitCode::FAILURE);
    }
    // Refused to the leader of a process group, who is nobody's to be ended by a terminal's signal either.
    let _ = rustix::process::setsid();
    let started = read_spec().and_then(host::Host::start);
    match started {
        Ok(host) => {
            report(&host.status(), ExitCode::SUCCESS);
            host::detach();
            host.run();
            ExitCode::SUCCESS
        }
        Err(fault) => report(&Answer::problem(&fault), ExitCode::FAILURE),
    }
}

fn report(answer: &Answer, code: ExitCode) -> ExitCode {
    let mut out = std::io::stdout();
    // The registry may be gone; the record tells the next one.
    let _ = out.write_all(&answer.to_line()).and_then(|()| out.flush());
    code
}

fn read_spec() -> Result<HostSpec, Fault> {
    let mut bytes = Vec::new();
    let most = u64::try_from(MAX_SPEC_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    std::io::stdin().take(most).read_to_end(&mut bytes).map_err(|error| {
        Fault::new(Code::InvalidArgument, format!("the host's specification cannot be read: {error}"))
    })?;
    HostSpec::read(&bytes)
}

/// Whether this process was left more than standard input, output and error. The socket or lock of an application that is
/// careless with its descriptors would stay open for as long as the plugin runs.
fn has_inherited() -> bool {
    let open = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let numbers = open.filter_map(|fd| fd.file_name().to_str()?.parse::<u32>().ok()).filter(|number| *number > 2);
    // The folder itself was one of them, and is closed by now.
    let numbers: Vec<_> = numbers.collect();
    numbers.iter().any(|number| std::fs::symlink_metadata(format!("/proc/self/fd/{number}")).is_ok())
}

/// Becomes this program once more: what is open now is closed by that.
fn again() -> Fault {
    let error = match goplug_transport::close_on_exec(3) {
        Ok(()) => Command::new("/proc/self/exe").arg0("goplug-host").arg(AGAIN).exec(),
        Err(error) => error,
    };
    Fault::new(Code::Internal, format!("the host cannot close what it inherited: {error}"))
}
