//! `daemon run`, `status` and `stop`.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use goplug_pconf_schema::admin::DaemonStatus;
use goplug_pconf_schema::{Code, Fault};
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::args::{DaemonRunArgs, Global, unshielded};
use crate::failure::Failure;
use crate::output::{Out, escape};
use crate::pidfd;
use crate::target::{Daemon, Place, Target, choose};

/// How long the daemon may take to drain and leave when nothing is said.
const STOP_PATIENCE: Duration = Duration::from_secs(60);

/// Runs the daemon in this process; `--socket` and `--dir` before `run` mean the daemon's own flags.
pub(crate) fn run(global: &Global, args: &DaemonRunArgs) -> ExitCode {
    let mut all = vec![OsString::from("goplugd")];
    if let Some(socket) = &global.socket {
        all.extend(["--socket".into(), socket.clone().into_os_string()]);
    }
    if let Some(directory) = &global.dir {
        all.extend(["--plugin-dir".into(), directory.clone().into_os_string()]);
    }
    all.extend(args.arguments.iter().map(|word| unshielded(word).to_owned()));
    goplugd::main_with(all)
}

/// Shows what the daemon says of itself.
///
/// # Errors
/// No daemon answers, or the output cannot be written.
pub(crate) async fn status(global: &Global) -> Result<(), Failure> {
    let socket = socket(global)?;
    let failed =
        |fault| Failure::new("cannot tell the daemon's status", fault).hint("goplugctl daemon run --plugin-dir DIR");
    let status = ask(&socket).await.map_err(failed)?;
    let text = || {
        let mut out = format!(
            "goplugd {} runs at {}, pid {}, since {}\n",
            escape(&status.version),
            shown(&socket),
            status.pid,
            escape(&status.since)
        );
        out.push_str(if status.auto_discover {
            "loads plugins as they appear\n"
        } else {
            "loads plugins when asked\n"
        });
        status.directories.iter().for_each(|directory| out.push_str(&format!("directory {}\n", escape(directory))));
        status.plugins.iter().for_each(|(state, count)| out.push_str(&format!("{count} {state}\n")));
        out
    };
    let mut out = Out::stdout(global.output, global.quiet, global.color);
    Ok(out.show(std::slice::from_ref(&status), true, || vec![shown(&socket)], |_, _| text())?)
}

/// Ends the daemon and waits until it is gone.
///
/// # Errors
/// No daemon answers, it may not be signalled, or it is still there when the time is over.
pub(crate) async fn stop(global: &Global) -> Result<(), Failure> {
    let socket = socket(global)?;
    let patience = global.timeout.unwrap_or(STOP_PATIENCE);
    let failed = |fault| Failure::new(format!("cannot stop the daemon at `{}`", shown(&socket)), fault);
    let status = ask(&socket).await.map_err(failed)?;
    let process = listener(&socket, status.pid).map_err(failed)?;
    pidfd_send_signal(&process, Signal::TERM).map_err(|error| failed(denied(&error.into())))?;
    // Its socket is gone with it at the latest.
    let left = tokio::task::spawn_blocking(move || pidfd::ended(&process, patience)).await;
    if !left.is_ok_and(|left| left) {
        let text = format!("it is still draining after {} ms", patience.as_millis());
        return Err(failed(Fault::new(Code::DeadlineExceeded, text)));
    }
    if UnixStream::connect(&socket).is_ok() {
        return Err(failed(Fault::new(Code::Conflict, "it ended, and somebody else listens on its socket now")));
    }
    let name = shown(&socket);
    let report = serde_json::json!({ "socket": name, "pid": status.pid });
    Ok(Out::stdout(global.output, global.quiet, global.color).changed(&[report], true, &[name])?)
}

fn socket(global: &Global) -> Result<PathBuf, Failure> {
    match choose(global.dir.clone(), global.socket.clone())? {
        Place::Socket(path) => Ok(path),
        Place::Directory(_) => Err(Failure::usage(
            "cannot tell which daemon",
            "--dir or GOPLUG_DIR names a directory, which has none: name a socket with --socket",
        )),
    }
}

async fn ask(socket: &Path) -> Result<DaemonStatus, Fault> {
    let status = Daemon::new(socket.to_owned()).status().await?;
    status.ok_or_else(|| Fault::new(Code::Internal, "the daemon has no status"))
}

/// The process that listens, as the kernel tells: pinned, so that no other one can be hit.
fn listener(socket: &Path, told: u32) -> Result<OwnedFd, Fault> {
    let unreachable = |error: std::io::Error| Fault::new(Code::Unavailable, format!("cannot connect: {error}"));
    let stream = UnixStream::connect(socket).map_err(unreachable)?;
    let pid = rustix::net::sockopt::socket_peercred(&stream).map_err(|error| unreachable(error.into()))?.pid;
    let kernel = pid.as_raw_nonzero().get().unsigned_abs();
    if kernel != told {
        let text = format!(
            "process {kernel} listens there and not goplugd ({told}): a service manager holds the socket, stop the service there"
        );
        return Err(Fault::new(Code::Conflict, text));
    }
    let process = pidfd_open(pid, PidfdFlags::NONBLOCK).map_err(|error| unreachable(error.into()))?;
    // The number still belongs to the listener if it listens on: only then is the descriptor surely its own.
    let again = UnixStream::connect(socket).map_err(unreachable)?;
    let pid_again = rustix::net::sockopt::socket_peercred(&again).map_err(|error| unreachable(error.into()))?.pid;
    if pid_again != pid {
        return Err(Fault::new(Code::Conflict, "another process took the socket just now: try again"));
    }
    Ok(process)
}

fn denied(error: &std::io::Error) -> Fault {
    match error.kind() {
        std::io::ErrorKind::PermissionDenied => Fault::new(Code::Denied, "its process belongs to another user"),
        _ => Fault::new(Code::Unavailable, error.to_string()),
    }
}

fn shown(path: &Path) -> String {
    escape(&path.display().to_string())
}
