//! Plugins that a registry starts: they outlive it, are found again by proof only, and end with everything that they started.

mod adoption;
mod confinement;
mod control;
mod cost;
mod endings;
mod started;

use std::path::{Path, PathBuf};
use std::time::Duration;

use goplug_registry::host::{HostSpec, Hosted, LogLine, launch};
use goplug_tests::{LONG, PluginDir, wait_until};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::support::GOPLUG_HOST;

/// How to run `program` under a host whose files lie in `dir`.
fn spec(dir: &PluginDir, instance: &str, program: &str, args: &[&str]) -> HostSpec {
    let mut spec = HostSpec::new(instance, Path::new(program), &dir.join("plugin.sock"), &folder(dir));
    spec.args = args.iter().map(|&arg| arg.to_owned()).collect();
    spec.env.insert("PATH".to_owned(), "/usr/local/bin:/usr/bin:/bin".to_owned());
    spec
}

/// A shell that runs `script`.
fn shell(dir: &PluginDir, instance: &str, script: &str) -> HostSpec {
    spec(dir, instance, "/bin/sh", &["-c", script])
}

fn folder(dir: &PluginDir) -> PathBuf {
    dir.join("hosts")
}

async fn run(spec: &HostSpec) -> Running {
    Running(launch(Path::new(GOPLUG_HOST), spec).await.unwrap())
}

/// A hosted plugin that does not outlive its test.
struct Running(Hosted);

impl std::ops::Deref for Running {
    type Target = Hosted;

    fn deref(&self) -> &Hosted {
        &self.0
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        end_host(&self.0);
    }
}

/// Kills the host if it is still that one, and the plugin with it.
fn end_host(hosted: &Hosted) {
    let host = hosted.record().host;
    if hosted.is_hosted() {
        kill(host.pid);
    }
}

pub(crate) fn kill(pid: u32) {
    let pid = Pid::from_raw(pid.cast_signed()).unwrap();
    if let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) {
        let _ = pidfd_send_signal(pidfd, Signal::KILL);
    }
}

/// What it has written so far.
async fn text(hosted: &Hosted) -> Vec<String> {
    hosted.logs(0).await.unwrap().into_iter().map(|line| line.text).collect()
}

/// Its output until it has ended.
async fn output(hosted: &Hosted) -> Vec<LogLine> {
    let mut follow = hosted.follow(0).await.unwrap();
    let mut lines = Vec::new();
    let read = async {
        while let Some(line) = follow.next().await.unwrap() {
            lines.push(line);
        }
    };
    tokio::time::timeout(LONG, read).await.expect("its end in time");
    lines
}

/// Processes that carry `mark` in their environment and have not ended.
fn marked(mark: &str) -> Vec<u32> {
    let mark = format!("MARK={mark}");
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = processes.filter_map(|process| process.file_name().to_str()?.parse::<u32>().ok());
    let carries = |pid: &u32| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|&byte| byte == 0).any(|variable| variable == mark.as_bytes())
    };
    pids.filter(carries).collect()
}

fn is_alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit_once(')').unwrap().1.starts_with(" Z"))
}

#[track_caller]
fn gone(pid: u32) -> Duration {
    wait_until(&format!("process {pid} is gone"), LONG, || !is_alive(pid))
}

/// A line of `/proc/PID/status`, in KiB.
pub(crate) fn kib(pid: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
