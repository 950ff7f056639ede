//! A process of the demo's plugin.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::plugin;
use crate::pidfd;

/// A process of the plugin; dropped, it is killed and reaped.
pub(super) struct Process {
    child: Option<Child>,
}

impl Process {
    /// Starts the plugin on `folder`; unless it is to be kept, it leaves when the demo does, however the demo ends.
    pub(super) fn start(folder: &Path, keep: bool) -> io::Result<Self> {
        let mut command = Command::new("/proc/self/exe");
        command.arg(plugin::HIDDEN).arg(folder).env_remove("GOPLUG_PLUGIN_SOCKET");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // Not ours alone to end: Ctrl-C in the terminal reaches the demo, which then ends its plugin itself.
        command.process_group(0);
        if !keep {
            command.arg(plugin::LIFELINE).stdin(Stdio::piped());
        }
        Ok(Self { child: Some(command.spawn()?) })
    }

    /// The number of the process.
    pub(super) fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// Kills it with SIGKILL and reaps it.
    pub(super) fn kill(mut self) -> io::Result<ExitStatus> {
        let mut child = self.child.take().ok_or(io::ErrorKind::NotFound)?;
        child.kill()?;
        child.wait()
    }

    /// Waits until it has ended by itself, at most `limit`.
    pub(super) async fn ended(mut self, limit: Duration) -> io::Result<ExitStatus> {
        let mut child = self.child.take().ok_or(io::ErrorKind::NotFound)?;
        let waiting = tokio::task::spawn_blocking(move || {
            let pid = Pid::from_child(&child);
            let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
            if !pidfd::ended(&pidfd, limit) {
                child.kill()?;
                child.wait()?;
                return Err(io::Error::from(io::ErrorKind::TimedOut));
            }
            child.wait()
        });
        waiting.await.map_err(io::Error::other)?
    }

    /// Lets it go on without us.
    pub(super) fn leave(mut self) {
        self.child = None;
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
