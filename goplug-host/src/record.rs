//! What stays of a plugin on disk, and where its host listens.

use std::fs::DirBuilder;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use goplug_pconf_schema::wire::host::{HostSpec, ProcessId, Record, control_path, plugin_path, record_path};
use goplug_pconf_schema::{Code, Fault};
use goplug_transport::pidfd_inode;
use rustix::fs::Mode;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::{Pid, PidfdFlags};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;

/// Makes the folder if it is missing, and refuses one in which others could replace what is written.
pub(crate) fn prepare(folder: &Path) -> Result<(), Fault> {
    let failed = |error: io::Error| {
        Fault::new(crate::spawn::code_of(&error), format!("cannot use the folder {}: {error}", folder.display()))
    };
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
    let status = std::fs::symlink_metadata(folder).map_err(failed)?;
    let own = rustix::process::geteuid().as_raw();
    if !status.is_dir() || status.uid() != own || status.mode() & 0o077 != 0 {
        let text = format!(
            "the folder {} (uid {}, mode {:04o}) must be a folder of uid {own} with mode 0700: others could take the place of what is in it",
            folder.display(),
            status.uid(),
            status.mode() & 0o7777
        );
        return Err(Fault::new(Code::Denied, text));
    }
    Ok(())
}

/// Listens where the registry will look for it, without blocking.
pub(crate) fn listen(path: &Path) -> Result<UnixListener, Fault> {
    let failed = |error: rustix::io::Errno| {
        let code = if error == rustix::io::Errno::ADDRINUSE { Code::Conflict } else { Code::Internal };
        Fault::new(code, format!("cannot listen at {}: {}", path.display(), io::Error::from(error)))
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).map_err(failed)?;
    // Before `bind`, so that the file never has another mode.
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR).map_err(failed)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path).map_err(failed)?).map_err(failed)?;
    rustix::net::listen(&socket, BACKLOG).map_err(|error| {
        // The name is ours since `bind`, and nobody else would take it away.
        let _ = std::fs::remove_file(path);
        failed(error)
    })?;
    Ok(socket.into())
}

/// The record of a plugin that was just started.
pub(crate) fn record(spec: &HostSpec, plugin: Pid, pidfd: &OwnedFd) -> Result<Record, Fault> {
    let failed = |error: io::Error| Fault::new(Code::Internal, format!("cannot tell who I am: {error}"));
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map_err(failed)?;
    let own = rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty());
    let own = own.map_err(|error| failed(error.into()))?;
    Ok(Record {
        instance: spec.instance.clone(),
        boot_id: boot_id.trim().to_owned(),
        host: ProcessId { pid: std::process::id(), inode: pidfd_inode(&own) },
        plugin: ProcessId { pid: plugin.as_raw_nonzero().get().unsigned_abs(), inode: pidfd_inode(pidfd) },
        program: spec.program.clone(),
        socket: spec.socket.clone(),
        labels: spec.labels.clone(),
        started_at_ms: wall_ms(),
        exit: None,
    })
}

/// Writes the record: whoever reads sees the old one or the new one, whole. It is not synced: after a crash of the machine
/// there is no process that it could speak of.
pub(crate) fn write(folder: &Path, record: &Record) -> io::Result<()> {
    let path = record_path(folder, &record.instance);
    let draft = folder.join(format!(".{}.json", record.instance));
    let mut json = serde_json::to_vec(record)?;
    json.push(b'\n');
    let mut options = std::fs::OpenOptions::new();
    let written = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&draft)
        .and_then(|mut file| io::Write::write_all(&mut file, &json))
        .and_then(|()| std::fs::rename(&draft, &path));
    if written.is_err() {
        // It may not even be there.
        let _ = std::fs::remove_file(&draft);
    }
    written
}

/// Removes the control socket, and the socket of a plugin that was killed; with `all` the record, too.
pub(crate) fn remove(folder: &Path, instance: &str, all: bool) {
    let mut files: Vec<PathBuf> = vec![control_path(folder, instance), plugin_path(folder, instance)];
    files.extend(all.then(|| record_path(folder, instance)));
    for file in files {
        // Somebody may have cleared up already.
        let _ = std::fs::remove_file(file);
    }
}

/// Milliseconds since 1970.
pub(crate) fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// How many processes the kernel has ended for lack of memory since the boot.
pub(crate) fn out_of_memory_kills() -> u64 {
    let text = std::fs::read_to_string("/proc/vmstat").unwrap_or_default();
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_folder_that_others_reach_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("a/b");
        prepare(&folder).unwrap();
        prepare(&folder).unwrap();
        for mode in [0o770, 0o701, 0o755] {
            std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(prepare(&folder).unwrap_err().code, Code::Denied, "{mode:o}");
        }
        std::os::unix::fs::symlink(dir.path(), dir.path().join("link")).unwrap();
        assert_eq!(prepare(&dir.path().join("link")).unwrap_err().code, Code::Denied);
        std::fs::write(dir.path().join("file"), "").unwrap();
        assert!(prepare(&dir.path().join("file")).is_err());
    }

    #[test]
    fn a_record_is_written_whole_and_the_socket_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let spec = HostSpec::new("x", Path::new("/bin/true"), Path::new("/s"), dir.path());
        let own = rustix::process::getpid();
        let pidfd = rustix::process::pidfd_open(own, PidfdFlags::empty()).unwrap();
        let record = record(&spec, own, &pidfd).unwrap();
        assert_eq!(record.host, record.plugin);
        write(dir.path(), &record).unwrap();
        let path = record_path(dir.path(), "x");
        assert_eq!(Record::read(&std::fs::read(&path).unwrap()), Some(record));
        let _listener = listen(&control_path(dir.path(), "x")).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&control_path(dir.path(), "x"))), (0o600, 0o600));
        assert_eq!(listen(&control_path(dir.path(), "x")).unwrap_err().code, Code::Conflict);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
        remove(dir.path(), "x", true);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
