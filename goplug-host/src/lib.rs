//! The small program under which every plugin runs that a registry starts, and which outlives the registry.
//!
//! It keeps what the plugin writes, applies its limits, knows how it ended, and ends everything that it started. In reading
//! order: `host` (the one loop), `ladder` (how a plugin ends; pure), `ring` (what is kept of its output; pure), `spawn` (how
//! its process comes to be), `tree` (everything that it started), `client` (who asks), `record` (what stays on disk). What
//! is said is `goplug_pconf_schema::wire::host`. `shared_object` is a program of its own, `goplug-so`: the process of a plugin that is a
//! library, which a host starts as any other. A host does not hold what that needs, because there is one for each plugin.
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

use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use goplug_pconf_schema::wire::host::{Answer, HostSpec, MAX_SPEC_BYTES};
use goplug_pconf_schema::{Code, Fault};

/// The first argument of the process of a shared object.
const SHARED_OBJECT: &str = "--shared-object";

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
        Some(SHARED_OBJECT) => open_shared_object(args),
        Some("--version" | "-V") => say(&format!("goplug-host {}\n", env!("CARGO_PKG_VERSION"))),
        Some("--help" | "-h") => say(HELP),
        Some(_) => {
            eprint!("error: goplug-host takes no argument {first:?}\n\n{HELP}");
            ExitCode::from(2)
        }
    }
}

/// Runs the program `goplug-so` with this process's arguments: `--shared-object FOLDER`.
///
/// Exit codes: 0 the plugin was stopped; 1 it could not be opened or served; 2 usage.
pub fn shared_object_main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    match args.next().as_ref().and_then(|first| first.to_str()) {
        Some(SHARED_OBJECT) => shared_object::run(args.next()),
        Some("--version" | "-V") => say(&format!("goplug-so {}\n", env!("CARGO_PKG_VERSION"))),
        _ => {
            eprintln!("error: goplug-so is run by goplug-host: goplug-so {SHARED_OBJECT} FOLDER");
            ExitCode::from(2)
        }
    }
}

/// `goplug-host --shared-object FOLDER`: becomes `goplug-so`, which lies beside this program.
fn open_shared_object(args: impl Iterator<Item = OsString>) -> ExitCode {
    let failed = |why: String| {
        eprintln!(
            "error: the program goplug-so, which opens shared objects, {why}; `cargo install --path goplug-host` brings both"
        );
        ExitCode::FAILURE
    };
    let own = match std::env::current_exe() {
        Ok(own) => own,
        Err(error) => return failed(format!("cannot be looked for: {error}")),
    };
    // As the host is called: the tests have both under other names.
    let name = own.file_name().unwrap_or_default().to_string_lossy().replace("goplug-host", "goplug-so");
    let beside = own.with_file_name(name);
    if beside == own {
        return failed(format!("cannot be told from {}: name that goplug-host", own.display()));
    }
    let error = Command::new(&beside).arg0("goplug-so").arg(SHARED_OBJECT).args(args).exec();
    failed(format!("cannot be run as {}: {error}", beside.display()))
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
