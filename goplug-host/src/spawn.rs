//! How the plugin's process comes to be: by way of this program itself, which confines itself and then becomes the plugin.
//!
//! What has to happen between `fork` and `exec` happens in a program of its own, `goplug-host --exec`, where ordinary code
//! may run: limits, the working directory, descriptors, and the wish to die with the host.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use goplug_pconf_schema::wire::host::{Answer, HostSpec, ProcessLimits};
use goplug_pconf_schema::{Code, Fault};
use goplug_transport::close_on_exec;
use rustix::io::{Errno, FdFlags};
use rustix::process::{Pid, PidfdFlags, Resource, Rlimit, Signal};

/// The first argument of the program that becomes the plugin.
pub(crate) const EXEC: &str = "--exec";
/// How that program finds the plugin's: its standard input is the file, or by the path.
const OPENED: &str = "opened";
const BY_PATH: &str = "path";
/// How a program begins that the kernel runs without an interpreter that reads it.
const ELF: [u8; 4] = *b"\x7fELF";

/// How often, and after which pause, a program that somebody is writing is tried again; nothing tells when they are done.
const BUSY_TRIES: u32 = 10;
const BUSY_PAUSE: Duration = Duration::from_millis(20);
/// The largest reason that is read from the program that could not become the plugin.
const MAX_REASON_BYTES: u64 = 16 * 1024;

/// A plugin's process that runs.
#[derive(Debug)]
pub(crate) struct Spawned {
    pub(crate) pid: Pid,
    pub(crate) pidfd: OwnedFd,
    /// What it writes, without blocking.
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
}

/// Starts the plugin and waits until its program runs. To be called from the thread that ends last: the plugin dies with it.
///
/// # Errors
/// `not_found`, `denied`, `invalid_argument`, `unavailable` or `overloaded`, with the program and the system's reason.
pub(crate) fn spawn(spec: &HostSpec) -> Result<Spawned, Fault> {
    let failed = |what: &str, error: io::Error| Fault::new(code_of(&error), format!("cannot {what}: {error}"));
    let pipe = || {
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|error| failed("make a pipe", error.into()))
    };
    let (reason, reason_end) = pipe()?;
    // Passed on by its number: nobody else starts anything in this process meanwhile.
    rustix::io::fcntl_setfd(&reason_end, FdFlags::empty()).map_err(|error| failed("make a pipe", error.into()))?;
    let (stdout, stdout_end) = pipe()?;
    let (stderr, stderr_end) = pipe()?;
    let limits = serde_json::to_string(&spec.limits).unwrap_or_default();
    let mut command = Command::new("/proc/self/exe");
    command.arg0("goplug-host").arg(EXEC).arg(std::process::id().to_string());
    // Where it says why it cannot become the plugin; closed without a word, it has.
    command.arg(reason_end.as_raw_fd().to_string()).arg(limits);
    command.arg(if spec.opened { OPENED } else { BY_PATH });
    command.arg(&spec.workdir).arg(&spec.program).args(&spec.args);
    command.env_clear().envs(&spec.env).process_group(0);
    let program = match spec.opened {
        true => Stdio::from(
            rustix::io::dup(rustix::stdio::stderr()).map_err(|error| failed("pass the program on", error.into()))?,
        ),
        false => Stdio::null(),
    };
    command.stdin(program).stdout(stdout_end).stderr(stderr_end);
    let child = command.spawn().map_err(|error| failed("start a process", error))?;
    // Else the ends that only the plugin may hold stay open here.
    drop((command, reason_end));
    let pid = Pid::from_child(&child);
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty());
    let mut why = Vec::new();
    File::from(reason)
        .take(MAX_REASON_BYTES)
        .read_to_end(&mut why)
        .map_err(|error| failed("start a process", error))?;
    if !why.is_empty() {
        let unknown = || Fault::new(Code::Internal, format!("cannot run {}", spec.program.display()));
        return Err(Answer::read(why.trim_ascii_end()).err().unwrap_or_else(unknown));
    }
    for end in [&stdout, &stderr] {
        rustix::io::ioctl_fionbio(end, true).map_err(|error| failed("read without blocking", error.into()))?;
    }
    let pidfd = pidfd.map_err(|error| failed("hold on to the plugin's process", error.into()))?;
    Ok(Spawned { pid, pidfd, stdout, stderr })
}

/// `goplug-host --exec HOST REASON LIMITS HOW WORKDIR PROGRAM ARGUMENT…`: becomes the plugin, or says why not.
pub(crate) fn become_plugin(mut args: impl Iterator<Item = OsString>) -> ExitCode {
    let mut next = || args.next()?.into_string().ok();
    let (host, reason) = (next(), next().and_then(|number| number.parse::<u32>().ok()));
    let (Some(host), Some(reason)) = (host, reason) else { return ExitCode::from(127) };
    let reason = File::options().write(true).open(format!("/proc/self/fd/{reason}"));
    let Ok(mut reason) = reason else { return ExitCode::from(127) };
    let Err(fault) = try_to_become(&host, args);
    // The host may be gone; then nobody asks why.
    let _ = reason.write_all(&Answer::problem(&fault).to_line());
    ExitCode::from(127)
}

/// Never returns when it works.
fn try_to_become(host: &str, mut args: impl Iterator<Item = OsString>) -> Result<std::convert::Infallible, Fault> {
    let usage = || Fault::new(Code::InvalidArgument, "`--exec` is for goplug-host itself");
    let mut next = || args.next().ok_or_else(usage);
    let host: u32 = host.parse().map_err(|_| usage())?;
    let limits: ProcessLimits = next()?.to_str().and_then(|text| serde_json::from_str(text).ok()).ok_or_else(usage)?;
    let is_opened = next()? == OPENED;
    let (workdir, program) = (PathBuf::from(next()?), PathBuf::from(next()?));
    let failed = |what: &str, error: io::Error| Fault::new(code_of(&error), format!("cannot {what}: {error}"));

    let own = |what: &'static str| move |error: Errno| failed(what, error.into());
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(own("be ended with the host"))?;
    // It may have died before it could be asked to take us with it.
    let parent = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get().unsigned_abs());
    if parent != Some(host) {
        return Err(Fault::new(Code::Unavailable, "the host has died"));
    }
    let opened = match is_opened {
        true => Some(rustix::io::fcntl_dupfd_cloexec(io::stdin(), 3).map_err(own("hold on to the program"))?),
        false => None,
    };
    std::env::set_current_dir(&workdir).map_err(|error| failed(&format!("enter {}", workdir.display()), error))?;
    let null = File::open("/dev/null").map_err(|error| failed("open /dev/null", error))?;
    rustix::stdio::dup2_stdin(&null).map_err(own("read from /dev/null"))?;
    limit(&limits)?;
    // Last: whatever was inherited from an application that is careless with its descriptors ends here.
    close_on_exec(3).map_err(|error| failed("keep descriptors to myself", error))?;

    let mut command = match &opened {
        Some(file) => by_descriptor(file).map_err(own("hold on to the program"))?,
        None => Command::new(&program),
    };
    command.arg0(&program).args(args);
    for _ in 0..BUSY_TRIES {
        let error = command.exec();
        if error.raw_os_error() != Some(Errno::TXTBSY.raw_os_error()) {
            return Err(not_run(&program, error));
        }
        std::thread::sleep(BUSY_PAUSE);
    }
    Err(not_run(&program, Errno::TXTBSY.into()))
}

/// The very file that is open, whatever lies at its path by now.
fn by_descriptor(file: &OwnedFd) -> Result<Command, Errno> {
    let mut begin = [0; ELF.len()];
    // A script is read by its interpreter, by the name that the kernel gives it: that of this descriptor.
    if rustix::io::pread(file, &mut begin, 0)? != ELF.len() || begin != ELF {
        rustix::io::fcntl_setfd(file, FdFlags::empty())?;
    }
    Ok(Command::new(format!("/proc/self/fd/{}", file.as_raw_fd())))
}

/// Soft and hard limit alike, so that the plugin cannot raise it again.
fn limit(limits: &ProcessLimits) -> Result<(), Fault> {
    for (what, resource, value) in [
        ("openFiles", Resource::Nofile, limits.open_files),
        ("coreBytes", Resource::Core, limits.core_bytes),
        ("fileBytes", Resource::Fsize, limits.file_bytes),
        ("memoryBytes", Resource::As, limits.memory_bytes),
        ("processes", Resource::Nproc, limits.processes),
        ("cpuSeconds", Resource::Cpu, limits.cpu_seconds),
    ] {
        let Some(value) = value else { continue };
        rustix::process::setrlimit(resource, Rlimit { current: Some(value), maximum: Some(value) }).map_err(
            |error| {
                let may = rustix::process::getrlimit(resource).maximum;
                let may = may.map_or_else(|| "unlimited".to_owned(), |may| may.to_string());
                let error = io::Error::from(error);
                Fault::new(
                    code_of(&error),
                    format!("cannot limit `{what}` to {value} (the hard limit here is {may}): {error}"),
                )
            },
        )?;
    }
    Ok(())
}

fn not_run(program: &Path, error: io::Error) -> Fault {
    let shown = program.display();
    let more = match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOENT) if program.exists() => {
            ": the interpreter that its first line or its header names is missing"
        }
        Some(Errno::ACCESS) if program.is_dir() => ": it is a folder",
        Some(Errno::ACCESS) => ": it must be a file that may be executed, in folders that may be entered",
        Some(Errno::TXTBSY) => ": somebody is writing it",
        _ => "",
    };
    Fault::new(code_of(&error), format!("cannot run {shown}: {error}{more}"))
}

/// What a failure of the system means for who wants to start a plugin.
pub(crate) fn code_of(error: &io::Error) -> Code {
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOENT) => Code::NotFound,
        Some(Errno::ACCESS | Errno::PERM | Errno::ROFS) => Code::Denied,
        Some(Errno::NOEXEC | Errno::TOOBIG | Errno::NAMETOOLONG | Errno::NOTDIR | Errno::LOOP | Errno::INVAL) => {
            Code::InvalidArgument
        }
        Some(Errno::TXTBSY) => Code::Unavailable,
        Some(Errno::AGAIN | Errno::NOMEM | Errno::MFILE | Errno::NFILE) => Code::Overloaded,
        _ => Code::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_start_names_the_program_and_the_reason() {
        let missing = not_run(Path::new("/nowhere/x"), Errno::NOENT.into());
        assert_eq!(missing.code, Code::NotFound);
        assert!(missing.message.contains("cannot run /nowhere/x: No such file"), "{missing}");
        let interpreter = not_run(Path::new("/proc/self/exe"), Errno::NOENT.into());
        assert!(interpreter.message.contains("interpreter"), "{interpreter}");
        for (errno, code) in [
            (Errno::ACCESS, Code::Denied),
            (Errno::NOEXEC, Code::InvalidArgument),
            (Errno::TOOBIG, Code::InvalidArgument),
            (Errno::TXTBSY, Code::Unavailable),
            (Errno::AGAIN, Code::Overloaded),
            (Errno::IO, Code::Internal),
        ] {
            assert_eq!(not_run(Path::new("/x"), errno.into()).code, code);
        }
    }
}
