//! The daemon as a process: one instance, its signals, its address.
#![allow(clippy::unwrap_used, clippy::panic)] // All of it is test code, the helpers too.

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use serde_json::Value;

/// Every wait in here ends; far above what is usual, for a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(30);

/// A daemon that says when it is ready, and is killed when a test forgets it.
struct Daemon {
    child: Child,
    notices: UnixDatagram,
}

/// Where a daemon works.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Self { folder: tempfile::tempdir().unwrap() };
        std::fs::create_dir(place.path("plugins")).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn socket(&self) -> PathBuf {
        self.path("run/goplugd.sock")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_goplugd"));
        command.env_clear().current_dir(self.folder.path()).arg("--socket").arg(self.socket()).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn start(&self, arguments: &[&str]) -> Daemon {
        Daemon::start(self.command(arguments), &self.path(&format!("notify{}", arguments.len())))
    }

    /// Starts a daemon that is expected to refuse.
    fn refused(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn get(&self, path: &str) -> (u16, Value) {
        get(&self.socket(), path)
    }
}

impl Daemon {
    fn start(mut command: Command, notify: &Path) -> Self {
        let _ = std::fs::remove_file(notify);
        let notices = UnixDatagram::bind(notify).unwrap();
        notices.set_read_timeout(Some(PATIENCE)).unwrap();
        let child = command.env("NOTIFY_SOCKET", notify).stderr(Stdio::inherit()).spawn().unwrap();
        let daemon = Self { child, notices };
        daemon.hear("READY=1");
        daemon
    }

    /// Waits until systemd would have been told `what`.
    fn hear(&self, what: &str) {
        let mut buffer = [0; 1024];
        loop {
            let length = self.notices.recv(&mut buffer).unwrap_or_else(|error| panic!("no {what}: {error}"));
            if String::from_utf8_lossy(&buffer[..length]).lines().any(|line| line == what) {
                return;
            }
        }
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    fn signal(&self, signal: Signal) {
        rustix::process::kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn ended(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the daemon does not end");
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn get(socket: &Path, path: &str) -> (u16, Value) {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: goplug\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), serde_json::from_str(body).unwrap())
}

#[test]
fn a_daemon_starts_ends_on_sigterm_and_leaves_nothing() {
    let place = Place::new();
    let mut daemon = place.start(&["--plugin-dir=plugins"]);
    let (status, health) = place.get("/healthz");
    assert_eq!((status, health["pid"].as_u64()), (200, Some(daemon.pid().into())));
    assert_eq!(health["directories"], serde_json::json!([place.path("plugins")]));
    assert_eq!(place.get("/readyz").0, 200);
    assert_eq!(place.get("/v1/plugins").1, serde_json::json!([]));
    daemon.signal(Signal::TERM);
    daemon.hear("STOPPING=1");
    assert_eq!(daemon.ended().code(), Some(0));
    assert!(!place.socket().exists());
    let mut said = String::new();
    daemon.child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(said, "", "stdout is for what is asked");
}

#[test]
fn the_second_daemon_names_the_first_and_a_killed_one_is_followed() {
    let place = Place::new();
    let mut first = place.start(&["--plugin-dir=plugins"]);
    let second = place.refused(&["--plugin-dir=plugins"]);
    let message = String::from_utf8_lossy(&second.stderr).into_owned();
    assert_eq!(second.status.code(), Some(9), "{message}");
    assert!(message.contains(&format!("pid {}", first.pid())), "{message}");
    let elsewhere = place.refused(&["--plugin-dir=plugins", "--state-dir=other"]);
    let message = String::from_utf8_lossy(&elsewhere.stderr).into_owned();
    assert_eq!(elsewhere.status.code(), Some(9), "a live socket was taken over: {message}");

    first.signal(Signal::KILL);
    first.ended();
    assert!(place.socket().exists());
    let successor = place.start(&["--plugin-dir=plugins"]);
    assert_eq!(place.get("/healthz").1["pid"].as_u64(), Some(successor.pid().into()));
}

#[test]
fn sighup_applies_the_difference_and_a_bad_file_changes_nothing() {
    let place = Place::new();
    let config = place.path("goplugd.toml");
    std::fs::write(&config, "plugin_dirs = ['plugins', 'gone']\n").unwrap();
    let daemon = place.start(&["--config=goplugd.toml"]);
    let reload = |text: &str| {
        std::fs::write(&config, text).unwrap();
        daemon.signal(Signal::HUP);
        daemon.hear("RELOADING=1");
        daemon.hear("READY=1");
        place.get("/healthz").1
    };
    let directories = |names: &[&str]| serde_json::json!(names.iter().map(|name| place.path(name)).collect::<Vec<_>>());

    let health = reload("plugin_dirs = ['plugins', 'new']\nauto_discover = false\n");
    assert_eq!((&health["directories"], &health["autoDiscover"]), (&directories(&["plugins", "new"]), &false.into()));
    let health = reload("plugin_dirs = ['plugins']\nauto_discover = 'perhaps'\n");
    assert_eq!((&health["directories"], &health["autoDiscover"]), (&directories(&["plugins", "new"]), &false.into()));
    let health = reload("plugin_dirs = ['new']\n");
    assert_eq!((&health["directories"], &health["autoDiscover"]), (&directories(&["new"]), &true.into()));
    assert_eq!(health["pid"].as_u64(), Some(daemon.pid().into()));
}

#[test]
fn every_problem_of_the_configuration_is_told_with_its_place() {
    let place = Place::new();
    std::fs::write(place.path("goplugd.toml"), "plugin_dirs = 'plugins'\n[limits]\nmax_plugin = 1\n").unwrap();
    let refused = place.refused(&["--config=goplugd.toml"]);
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(10), "{message}");
    assert!(message.contains("goplugd.toml:1:") && message.contains("goplugd.toml:3:"), "{message}");
    assert_eq!(place.refused(&["--no-such-flag"]).status.code(), Some(2));
    assert_eq!(place.refused(&["--plugin-dir=plugins", "--log=a=b=c"]).status.code(), Some(10));
}

#[test]
fn a_socket_that_is_handed_over_is_used_and_left_alone() {
    let place = Place::new();
    let path = place.path("handed.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let mut command = Command::new("/bin/sh");
    command.env_clear().current_dir(place.folder.path()).stdin(Stdio::from(std::os::fd::OwnedFd::from(listener)));
    command.args([
        "-c",
        "exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" --plugin-dir=plugins --state-dir=state",
    ]);
    command.arg(env!("CARGO_BIN_EXE_goplugd"));
    let mut daemon = Daemon::start(command, &place.path("notify"));
    assert_eq!(get(&path, "/healthz").0, 200);
    daemon.signal(Signal::INT);
    assert_eq!(daemon.ended().code(), Some(0));
    assert!(path.exists(), "somebody else's socket file was removed");
}
