//! Child processes that end with their owner and are signalled only through their pidfd.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::LONG;

/// When a process that was started counts as up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ready {
    /// At once.
    Now,
    /// When it has written this line to its standard output.
    Line(&'static str),
}

/// A child process. Dropping kills and reaps it.
#[derive(Debug)]
pub struct Process {
    child: Child,
    pidfd: OwnedFd,
    stdin: Option<ChildStdin>,
    lines: mpsc::Receiver<String>,
}

/// Starts `command`. A program that was copied a moment ago may be open for writing in a child that another thread has forked
/// and that has not become its program yet; nothing tells when it has.
#[track_caller]
fn spawn(command: &mut Command) -> Child {
    for _ in 0..500 {
        match command.spawn() {
            Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => {
                std::thread::sleep(Duration::from_millis(10));
            }
            child => return child.unwrap_or_else(|error| panic!("{command:?}: {error}")),
        }
    }
    panic!("{command:?}: it is open for writing for 5 s");
}

impl Process {
    /// Starts `command` and waits until it is up.
    ///
    /// # Panics
    /// When it cannot be started, ends before it is up, or is not up in time.
    #[track_caller]
    pub fn start(command: &mut Command, ready: Ready) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = spawn(command);
        let pid = Pid::from_child(&child);
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).expect("a pidfd of a child that nobody reaped yet");
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take().expect("a piped output"));
        let (send, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        let mut process = Self { child, pidfd, stdin, lines };
        if let Ready::Line(expected) = ready {
            let line = process.line();
            assert!(line.starts_with(expected), "{command:?} wrote `{line}` instead of `{expected}`");
        }
        process
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line of its standard output.
    ///
    /// # Panics
    /// When it ends, or says nothing in time.
    #[track_caller]
    pub fn line(&mut self) -> String {
        match self.lines.recv_timeout(LONG) {
            Ok(line) => line,
            Err(error) => panic!("process {} says nothing: {error}, {:?}", self.pid(), self.child.try_wait()),
        }
    }

    /// A line of its standard output that is there already, or comes within `limit`.
    pub fn line_within(&mut self, limit: Duration) -> Option<String> {
        self.lines.recv_timeout(limit).ok()
    }

    /// Writes a line to its standard input.
    ///
    /// # Panics
    /// When the process does not read.
    #[track_caller]
    pub fn say(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("a piped input");
        writeln!(stdin, "{line}").expect("a process that reads its input");
    }

    /// Writes a line and returns the line that answers it.
    #[track_caller]
    pub fn ask(&mut self, line: &str) -> String {
        self.say(line);
        self.line()
    }

    /// A field of its `/proc/PID/status`, such as `VmRSS:`, in bytes; 0 when it has ended.
    pub fn memory_bytes(&self, field: &str) -> u64 {
        crate::baseline::status_bytes(self.pid(), field)
    }

    /// Sends a signal, through the pidfd: a pid that was given to another process is never hit.
    pub fn signal(&self, signal: Signal) {
        let _ = pidfd_send_signal(&self.pidfd, signal);
    }

    /// SIGKILL, and waits until the process is gone.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        let _ = self.child.wait();
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Panics
    /// When it does not end in time.
    #[track_caller]
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait(LONG)
    }

    /// Whether it still runs.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Whether every thread of it is stopped: a signal is on its way for a while.
    pub fn is_stopped(&self) -> bool {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid())).into_iter().flatten().flatten();
        let mut states = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("status")).ok());
        states.all(|status| status.contains("State:\tT"))
    }

    /// Waits for the end.
    ///
    /// # Panics
    /// When it does not end within `limit`.
    #[track_caller]
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let end = Instant::now() + limit;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let timeout =
                rustix::event::Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
            match poll(&mut [PollFd::new(&self.pidfd, PollFlags::IN)], Some(&timeout)) {
                Ok(0) => panic!("process {} still runs after {limit:?}", self.pid()),
                Ok(_) => return self.child.wait().expect("the state of our own child"),
                Err(_) => {}
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A stopped process dies of SIGKILL too; nothing is left behind.
        self.kill();
    }
}
