//! Starting a host, so that it outlives this process and leaves no zombie while this process lives.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Seek, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use goplug_pconf_schema::wire::host::{
    Answer, HostSpec, MAX_HOST_ANSWER_BYTES, MAX_SPEC_BYTES, control_path, record_path,
};
use goplug_pconf_schema::{Code, Fault};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::MemfdFlags;
use tokio::net::unix::pipe;

use super::hosted::Hosted;
use super::talk::Talk;

/// How long a host may take to start its plugin's program.
const LAUNCH_LIMIT: Duration = Duration::from_secs(10);
/// How long the end of a process that was killed is waited for.
const DEATH_LIMIT: Duration = Duration::from_millis(200);

/// Variables of this process that a plugin gets; besides them `LC_*`.
const ALLOWED: [&str; 9] = ["HOME", "LANG", "LANGUAGE", "LOGNAME", "PATH", "TMPDIR", "TZ", "USER", "XDG_RUNTIME_DIR"];

/// Hosts that this process started and has not reaped. A child that was not waited for stays as a zombie.
static CHILDREN: Mutex<Vec<Child>> = Mutex::new(Vec::new());

/// The part of this process's environment that plugins may see: `HOME`, `LANG`, `LANGUAGE`, `LC_*`, `LOGNAME`, `PATH`,
/// `TMPDIR`, `TZ`, `USER` and `XDG_RUNTIME_DIR`, as far as they are UTF-8.
pub fn allowed_environment() -> BTreeMap<String, String> {
    let text =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    text.filter(|(name, _)| is_allowed(name)).collect()
}

fn is_allowed(name: &str) -> bool {
    ALLOWED.contains(&name) || name.starts_with("LC_")
}

/// Starts a plugin under the host `program` (see [`super::find`]); returns when its program runs.
///
/// The host is in a session of its own: neither the end of this process nor of the thread that called ends it, nor a signal
/// from the terminal.
///
/// # Errors
/// `not_found`, `denied`, `invalid_argument`, `conflict`, `unavailable` or `overloaded` with the reason, of the host or of
/// the plugin's program.
///
/// # Cancel safety
/// Dropping the future ends the host, and its plugin with it.
pub async fn launch(program: &Path, spec: &HostSpec) -> Result<Hosted, Fault> {
    if spec.opened {
        return Err(Fault::new(Code::InvalidArgument, "`opened` takes the file that is open"));
    }
    launch_with(program, spec, None).await
}

/// As [`launch`]; `opened` is executed instead of what lies at the path of the plugin's program. It is kept until it runs.
pub(crate) async fn launch_opened(program: &Path, mut spec: HostSpec, opened: Option<File>) -> Result<Hosted, Fault> {
    spec.opened = opened.is_some();
    launch_with(program, &spec, opened).await
}

async fn launch_with(program: &Path, spec: &HostSpec, opened: Option<File>) -> Result<Hosted, Fault> {
    spec.check().map_err(|why| Fault::new(Code::InvalidArgument, why))?;
    let json = serde_json::to_vec(spec).map_err(|error| {
        Fault::new(Code::InvalidArgument, format!("program, folder, socket and workdir must be UTF-8: {error}"))
    })?;
    if json.len() > MAX_SPEC_BYTES {
        let text = format!("arguments and environment take {} bytes, the limit is {MAX_SPEC_BYTES}", json.len());
        return Err(Fault::new(Code::InvalidArgument, text));
    }
    reap();
    let program = program.to_owned();
    let traces = [record_path(&spec.folder, &spec.instance), control_path(&spec.folder, &spec.instance)];
    let spawned = crate::tasks::on_a_thread(move || spawn(&program, &json, opened, traces)).await;
    let (mut guard, report) = spawned.map_err(|error| failed("start a host", std::io::Error::other(error)))??;
    let answer = tokio::time::timeout(LAUNCH_LIMIT, first_line(&report)).await;
    let late =
        || Fault::new(Code::Unavailable, format!("goplug-host did not start the plugin within {LAUNCH_LIMIT:?}"));
    let Answer::Status(status) = answer.map_err(|_| late())?? else {
        return Err(Fault::new(Code::ProtocolError, "goplug-host answered with something else than a status"));
    };
    let talk = Talk::connect(&control_path(&spec.folder, &spec.instance)).await?;
    if Some(talk.peer.pid()) != guard.child.as_ref().map(Child::id) {
        return Err(Fault::new(Code::Conflict, "another process listens on the host's control socket"));
    }
    let hosted = Hosted::new(spec.folder.clone(), status.record, talk.peer.clone());
    if let Some(child) = guard.child.take() {
        lock().push(child);
    }
    let peer = talk.peer;
    tokio::spawn(async move {
        peer.exited().await;
        reap();
    });
    Ok(hosted)
}

/// A host that nobody knows yet: dropped, it is ended, and what it may have written down is removed.
struct Guard {
    child: Option<Child>,
    /// Its record and its control socket.
    traces: [PathBuf; 2],
}

impl Drop for Guard {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        // Not reaped yet, so that its number is still its own. A host that could not start its plugin is gone already.
        _ = child.kill();
        // Here, for it takes a moment, and whoever is interrupted ends before any task would have its turn.
        if ends_soon(&child) {
            _ = child.wait();
        } else {
            lock().push(child);
        }
        for trace in &self.traces {
            _ = std::fs::remove_file(trace);
        }
    }
}

/// Whether the killed process has ended within [`DEATH_LIMIT`]; one in an uninterruptible wait has not.
fn ends_soon(child: &Child) -> bool {
    let pid = rustix::process::Pid::from_child(child);
    let Ok(pidfd) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) else { return false };
    let limit = Timespec { tv_sec: 0, tv_nsec: DEATH_LIMIT.subsec_nanos().into() };
    poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&limit)).is_ok_and(|ready| ready > 0)
}

fn spawn(
    program: &Path,
    json: &[u8],
    opened: Option<File>,
    traces: [PathBuf; 2],
) -> Result<(Guard, pipe::Receiver), Fault> {
    // A file in memory takes all of it at once, whether it is read or not.
    let input = rustix::fs::memfd_create("goplug-host", MemfdFlags::CLOEXEC);
    let mut input = File::from(input.map_err(|error| failed("hand over a specification", error.into()))?);
    let written = input.write_all(json).and_then(|()| input.rewind());
    written.map_err(|error| failed("hand over a specification", error))?;
    let (reader, writer) = std::io::pipe().map_err(|error| failed("make a pipe", error))?;
    let mut command = Command::new(program);
    command
        .arg0("goplug-host")
        .env_clear()
        .stdin(input)
        .stdout(writer)
        .stderr(opened.map_or_else(Stdio::null, Stdio::from));
    let child = command.spawn().map_err(|error| {
        let code = if error.kind() == std::io::ErrorKind::PermissionDenied { Code::Denied } else { code_of(&error) };
        Fault::new(code, format!("cannot run {}: {error}", program.display()))
    })?;
    let guard = Guard { child: Some(child), traces };
    let report = pipe::Receiver::from_owned_fd(reader.into()).map_err(|error| failed("hear from the host", error))?;
    Ok((guard, report))
}

fn code_of(error: &std::io::Error) -> Code {
    match error.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
        Some(rustix::io::Errno::NOENT) => Code::NotFound,
        Some(
            rustix::io::Errno::AGAIN | rustix::io::Errno::NOMEM | rustix::io::Errno::MFILE | rustix::io::Errno::NFILE,
        ) => Code::Overloaded,
        Some(rustix::io::Errno::TXTBSY) => Code::Unavailable,
        _ => Code::Internal,
    }
}

fn failed(what: &str, error: std::io::Error) -> Fault {
    Fault::new(code_of(&error), format!("cannot {what}: {error}"))
}

async fn first_line(report: &pipe::Receiver) -> Result<Answer, Fault> {
    let mut line = Vec::new();
    let mut buffer = [0; 4096];
    while !line.contains(&b'\n') && line.len() <= MAX_HOST_ANSWER_BYTES {
        report.readable().await.map_err(|error| failed("hear from the host", error))?;
        match report.try_read(&mut buffer) {
            Ok(0) => return Err(Fault::new(Code::Unavailable, "goplug-host ended without a word")),
            Ok(count) => line.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(failed("hear from the host", error)),
        }
    }
    Answer::read(line.trim_ascii_end())
}

/// Takes the status of hosts that have ended, so that none stays as a zombie.
fn reap() {
    lock().retain_mut(|child| matches!(child.try_wait(), Ok(None)));
}

fn lock() -> std::sync::MutexGuard<'static, Vec<Child>> {
    CHILDREN.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_start_that_was_given_up_nothing_stays() {
        let dir = tempfile::tempdir().unwrap();
        let traces = [record_path(dir.path(), "given-up"), control_path(dir.path(), "given-up")];
        for trace in &traces {
            std::fs::write(trace, "").unwrap();
        }
        let child = Command::new("sleep").arg("1000").spawn().unwrap();
        let process = rustix::process::Pid::from_child(&child);
        drop(Guard { child: Some(child), traces: traces.clone() });
        assert_eq!(rustix::process::test_kill_process(process), Err(rustix::io::Errno::SRCH));
        assert!(!traces.iter().any(|trace| trace.exists()), "{traces:?}");
    }

    #[test]
    fn only_what_every_program_needs_is_passed_on() {
        for name in ["PATH", "HOME", "LANG", "LC_ALL", "LC_TIME", "TZ", "TMPDIR", "XDG_RUNTIME_DIR"] {
            assert!(is_allowed(name), "{name}");
        }
        for name in ["LD_PRELOAD", "AWS_SECRET_ACCESS_KEY", "GOPLUG_SOCKET", "XLC_ALL", "path", "SSH_AUTH_SOCK", ""] {
            assert!(!is_allowed(name), "{name}");
        }
        assert!(allowed_environment().keys().all(|name| is_allowed(name)));
    }
}
