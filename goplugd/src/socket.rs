//! The address of the API: a socket that only its owner can connect to, or one that systemd hands over.

use std::fs::DirBuilder;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use goplug_pconf_schema::MAX_SOCKET_PATH_BYTES;
use goplug_registry::{Code, Error};
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::{PidfdFlags, PidfdGetfdFlags};
use tokio::net::UnixListener;

/// Connections that wait to be accepted; beyond it a client's connect waits.
const BACKLOG: i32 = 128;

/// A listening socket, and the file to remove at the end if we made it.
#[derive(Debug)]
pub(crate) struct Listening {
    /// Where connections come from.
    pub(crate) listener: UnixListener,
    /// `None` for a socket that was handed over: its file belongs to whoever made it.
    pub(crate) file: Option<SocketFile>,
}

/// A socket file that we made.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    device_and_inode: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Whoever took the path over after us keeps its file.
        if identity(&self.path) == Some(self.device_and_inode) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Takes over the first socket that systemd hands to this process, if there is one.
///
/// # Errors
/// `invalid_argument` when what was handed over is not one listening Unix stream socket.
pub(crate) fn handed_over() -> Result<Option<Listening>, Error> {
    let wrong = |why: String| Error::new(Code::InvalidArgument, format!("socket activation: {why}"));
    let mut fds = sd_notify::listen_fds().map_err(|error| wrong(error.to_string()))?;
    let count = fds.len();
    let Some(fd) = fds.next() else { return Ok(None) };
    if count > 1 {
        return Err(wrong(format!("{count} sockets were handed over, the limit is 1: use one ListenStream=")));
    }
    // The number of a descriptor becomes an owned one without unsafe code by way of our own pidfd.
    let owned: OwnedFd = rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty())
        .and_then(|own| rustix::process::pidfd_getfd(own, fd, PidfdGetfdFlags::empty()))
        .map_err(|error| wrong(format!("descriptor {fd}: {error}")))?;
    let listens = rustix::net::sockopt::socket_acceptconn(&owned).unwrap_or(false);
    let is_unix = rustix::net::sockopt::socket_domain(&owned).is_ok_and(|family| family == AddressFamily::UNIX);
    let is_stream = rustix::net::sockopt::socket_type(&owned).is_ok_and(|kind| kind == SocketType::STREAM);
    if !(listens && is_unix && is_stream) {
        return Err(wrong(format!(
            "descriptor {fd} is no listening Unix stream socket: use ListenStream= with a path"
        )));
    }
    Ok(Some(Listening { listener: listener(owned).map_err(|error| wrong(error.to_string()))?, file: None }))
}

/// Binds `path` with mode 0600. Its folder is made (mode 0700) if it is missing. A socket file that nobody listens on is
/// replaced, one that answers never.
///
/// # Errors
/// `invalid_argument` for a path that is too long; `denied` for a folder in which others could replace the socket;
/// `conflict` when something else answers there or lies there.
pub(crate) fn bind(path: &Path) -> Result<Listening, Error> {
    let length = path.as_os_str().len();
    if length > MAX_SOCKET_PATH_BYTES {
        let text = format!("socket path is {length} bytes, the limit is {MAX_SOCKET_PATH_BYTES}: {}", path.display());
        return Err(Error::new(Code::InvalidArgument, text));
    }
    let failed = |what: &str, error: std::io::Error| {
        Error::new(Code::Internal, format!("cannot {what} {}: {error}", path.display()))
    };
    prepare_folder(path)?;
    clear_dead(path)?;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .map_err(|error| failed("make a socket for", error.into()))?;
    // Before bind: the file gets this mode the moment it exists, and the process-wide umask stays alone.
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR).map_err(|error| failed("set the mode of", error.into()))?;
    let address = SocketAddrUnix::new(path).map_err(|error| failed("use the socket path", error.into()))?;
    rustix::net::bind(&socket, &address).map_err(|error| failed("bind", error.into()))?;
    let device_and_inode = identity(path).unwrap_or_default();
    let file = SocketFile { path: path.to_owned(), device_and_inode };
    rustix::net::listen(&socket, BACKLOG).map_err(|error| failed("listen on", error.into()))?;
    Ok(Listening { listener: listener(socket).map_err(|error| failed("listen on", error))?, file: Some(file) })
}

fn listener(socket: OwnedFd) -> std::io::Result<UnixListener> {
    let listener = std::os::unix::net::UnixListener::from(socket);
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

fn prepare_folder(path: &Path) -> Result<(), Error> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let failed = |error: std::io::Error| {
        Error::new(Code::Internal, format!("cannot use the socket's folder {}: {error}", folder.display()))
    };
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
    let meta = std::fs::metadata(folder).map_err(failed)?;
    let own = rustix::process::geteuid().as_raw();
    let (mode, sticky) = (meta.mode() & 0o7777, meta.mode() & 0o1000 != 0);
    if ![own, 0].contains(&meta.uid()) || (mode & 0o022 != 0 && !sticky) {
        let text = format!(
            "the socket's folder {} belongs to uid {} with mode {mode:04o}: others could replace the socket; use a folder of your own with mode 0700",
            folder.display(),
            meta.uid()
        );
        return Err(Error::new(Code::Denied, text));
    }
    Ok(())
}

/// Removes the socket file of a daemon that is gone. Only one daemon of this state folder gets here at a time; a daemon of
/// another state folder with the same socket answers the connect.
fn clear_dead(path: &Path) -> Result<(), Error> {
    let conflict = |why: &str| Err(Error::new(Code::Conflict, format!("{} {why}", path.display())));
    let Ok(meta) = std::fs::symlink_metadata(path) else { return Ok(()) };
    if !meta.file_type().is_socket() {
        return conflict("is there and is no socket: remove it, or give another --socket");
    }
    // Without blocking: a live socket whose backlog is full says EAGAIN, and must not hold the start up.
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let tried = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
        .and_then(|probe| rustix::net::connect(probe, &SocketAddrUnix::new(path)?));
    match tried {
        Err(Errno::CONNREFUSED) => {}
        Err(Errno::NOENT) => return Ok(()),
        Ok(()) | Err(Errno::AGAIN) => {
            return conflict("answers: another process listens there; stop it, or give another --socket");
        }
        Err(error) => return conflict(&format!("cannot be tried: {error}")),
    }
    std::fs::remove_file(path).or_else(|error| conflict(&format!("is dead and cannot be removed: {error}")))
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::symlink_metadata(path).ok().map(|meta| (meta.dev(), meta.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[tokio::test]
    async fn the_socket_is_its_owners_alone_and_leaves_with_us() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/goplugd.sock");
        let listening = bind(&path).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        drop(listening);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_dead_socket_is_replaced_and_a_live_one_never() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let ours = bind(&path).unwrap();
        assert_eq!(bind(&path).unwrap_err().code, Code::Conflict);
        std::fs::remove_file(&path).unwrap();
        let successor = bind(&path).unwrap();
        drop(ours);
        assert!(path.exists(), "the file of the successor was removed");
        drop(successor);
    }

    #[tokio::test]
    async fn a_path_that_cannot_be_safe_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), "").unwrap();
        assert_eq!(bind(&dir.path().join("file")).unwrap_err().code, Code::Conflict);
        assert_eq!(bind(&dir.path().join("x".repeat(108))).unwrap_err().code, Code::InvalidArgument);
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o770)).unwrap();
        assert_eq!(bind(&dir.path().join("s")).unwrap_err().code, Code::Denied);
    }
}
