//! The machine: limits, the runtime folder, the kernel.

use std::os::unix::fs::MetadataExt;

use goplug_pconf_schema::admin::Link;
use rustix::process::{PidfdFlags, Resource};

use super::{ok, warning};
use crate::discovery::runtime_folder;
use crate::words::{show, word};

/// Open files of a registry without plugins, with room for an application's own.
const BASE_FILES: u64 = 256;
/// Open files per plugin: its standing connection, two for its process, a few for calls and event streams.
const FILES_PER_PLUGIN: u64 = 8;

/// Every check of the machine but [`identity`], for that many plugins.
pub(super) fn check(plugins: usize) -> Vec<Link> {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let plugins = u64::try_from(plugins).unwrap_or(u64::MAX);
    vec![runtime(), judge_open_files(limit.current, limit.maximum, plugins), host(), kernel(), pidfd()]
}

fn runtime() -> Link {
    let folder = runtime_folder();
    let shown = show(&folder);
    let us = rustix::process::geteuid().as_raw();
    match std::fs::metadata(&folder) {
        Err(error) => {
            let text = format!("{shown}: {error}: mkdir -m 0700 {} or unset XDG_RUNTIME_DIR", word(&folder));
            warning("runtime", text)
        }
        Ok(status) if !status.is_dir() => {
            warning("runtime", format!("{shown} is not a directory: set XDG_RUNTIME_DIR"))
        }
        Ok(status) if status.uid() != us && us != 0 => {
            let text = format!("{shown} belongs to uid {}: the daemon cannot listen there", status.uid());
            warning("runtime", format!("{text}: export XDG_RUNTIME_DIR=/run/user/{us}"))
        }
        Ok(status) if status.mode() & 0o022 != 0 && status.mode() & 0o1000 == 0 => {
            warning("runtime", format!("others may write to {shown}: chmod go-w {}", word(&folder)))
        }
        Ok(_) => ok("runtime", shown),
    }
}

/// `None` is no limit.
pub(super) fn judge_open_files(soft: Option<u64>, hard: Option<u64>, plugins: u64) -> Link {
    let Some(soft) = soft else { return ok("open files", "no limit") };
    let needed = BASE_FILES + FILES_PER_PLUGIN * plugins;
    if soft >= needed {
        return ok("open files", format!("limit {soft}, {plugins} plugins need about {needed}"));
    }
    let command = match hard {
        Some(hard) if hard < needed => {
            format!("LimitNOFILE={needed} in the service file, or as root: ulimit -Hn {needed}")
        }
        _ => format!("ulimit -n {needed}"),
    };
    warning("open files", format!("limit {soft}, {plugins} plugins need about {needed}: {command}"))
}

/// Only plugins that are installed need it.
fn host() -> Link {
    match crate::host::find() {
        Ok(path) => ok("goplug-host", show(&path)),
        Err(fault) => warning("goplug-host", fault.message),
    }
}

fn kernel() -> Link {
    match std::fs::read_to_string("/proc/sys/kernel/osrelease") {
        Ok(release) => ok("kernel", format!("Linux {}", goplug_pconf_schema::printable(release.trim()))),
        Err(error) => warning("kernel", format!("/proc is not readable ({error}): mount -t proc proc /proc")),
    }
}

fn pidfd() -> Link {
    match rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty()) {
        Ok(_) => ok("pidfd", "the death of a plugin is seen at once"),
        Err(error) => {
            let text =
                format!("not available ({error}): the death of a plugin is seen by the end of its connection only");
            warning("pidfd", format!("{text}: use Linux 5.3 or later, or allow pidfd_open in the container"))
        }
    }
}

/// Asks the kernel about our own end of a socket; needs a runtime.
pub(super) fn identity() -> Link {
    let peer = tokio::net::UnixStream::pair().and_then(|(stream, _other)| goplug_transport::Peer::of(&stream));
    match peer {
        Ok(peer) if peer.inode().is_some() => {
            ok("identity", "a plugin's connections are known to lead to one process (SO_PEERPIDFD, pidfs)")
        }
        Ok(_) => {
            let text = "processes are told apart by pid only, and a pid may be used again: use Linux 6.9 or later";
            warning("identity", text)
        }
        Err(error) => warning("identity", format!("the kernel does not say who is at a socket's other end: {error}")),
    }
}
