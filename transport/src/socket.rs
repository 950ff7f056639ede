//! Socket files: private from the first instant, never taken from a live process, never blocked by a dead one.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use goplug_pconf_schema::{Code, Fault, MAX_SOCKET_PATH_BYTES};
use rustix::fs::{FlockOperation, Mode};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::net::UnixListener;

/// How many connections may wait to be accepted.
const BACKLOG: i32 = 1024;

/// How often, and after which pause, the lock of a folder is tried before it is done without.
const LOCK_TRIES: u32 = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(5);

/// A socket that listens, with the file that leads to it.
#[derive(Debug)]
pub struct BoundSocket {
    /// Listens already, so that the path may be published.
    pub listener: UnixListener,
    /// Stays with whoever removes the file in the end.
    pub file: SocketFile,
}

/// The file that we bound, recognised by device and inode rather than by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

/// Listens at `path`, with a file of mode 0600 and a backlog of 1,024.
///
/// The file of a dead predecessor (nobody accepts) is replaced, that of a live one never. Of several processes that do
/// this at the same time one wins.
///
/// # Errors
/// [`Code::InvalidArgument`] for a path that cannot be a socket or whose folder does not exist, [`Code::Conflict`] when
/// something lives there, [`Code::Denied`] for lack of permission, [`Code::Internal`] for any other failure of the
/// operating system.
///
/// # Panics
/// Outside a tokio runtime with I/O enabled, as [`UnixListener`] does.
pub fn bind(path: &Path) -> Result<BoundSocket, Fault> {
    check_path(path).map_err(|why| Fault::new(Code::InvalidArgument, why))?;
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !folder.is_dir() {
        let why = format!("socket folder {} does not exist; create it first", folder.display());
        return Err(Fault::new(Code::InvalidArgument, why));
    }
    let failed = |error: Errno| {
        let code =
            if matches!(error, Errno::ACCESS | Errno::PERM | Errno::ROFS) { Code::Denied } else { Code::Internal };
        Fault::new(code, format!("cannot listen at {}: {}", path.display(), io::Error::from(error)))
    };

    // Held until we listen: a socket between `bind` and `listen` looks dead to a process that probes it.
    let _lock = lock(folder);
    let socket = listener_socket().map_err(failed)?;
    let address = SocketAddrUnix::new(path).map_err(failed)?;
    match rustix::net::bind(&socket, &address) {
        Err(Errno::ADDRINUSE) => {
            remove_dead(path, &address)?;
            rustix::net::bind(&socket, &address).map_err(failed)?;
        }
        bound => bound.map_err(failed)?,
    }
    rustix::net::listen(&socket, BACKLOG).map_err(failed)?;

    let internal =
        |error: io::Error| Fault::new(Code::Internal, format!("cannot listen at {}: {error}", path.display()));
    let file = SocketFile::at(path).map_err(internal)?;
    let listener = UnixListener::from_std(socket.into()).map_err(internal)?;
    Ok(BoundSocket { listener, file })
}

impl BoundSocket {
    /// As [`SocketFile::remove_if_ours`].
    ///
    /// # Errors
    /// When the file is ours and cannot be removed.
    pub fn remove_if_ours(&self) -> io::Result<bool> {
        self.file.remove_if_ours()
    }
}

impl SocketFile {
    /// The path as it was bound.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the file if it is still the one that was bound; false if a successor's file, or nothing, is there.
    ///
    /// # Errors
    /// When the file is ours and cannot be removed.
    pub fn remove_if_ours(&self) -> io::Result<bool> {
        match Self::at(&self.path) {
            Ok(now) if now == *self => fs::remove_file(&self.path).map(|()| true),
            Ok(_) => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn at(path: &Path) -> io::Result<Self> {
        let found = fs::symlink_metadata(path)?;
        Ok(Self { path: path.to_owned(), device: found.dev(), inode: found.ino() })
    }
}

/// Refuses what the address of a Unix socket cannot hold.
pub(crate) fn check_path(path: &Path) -> Result<(), String> {
    let bytes = path.as_os_str().as_bytes();
    match bytes.len() {
        0 => Err("socket path is empty".to_owned()),
        _ if bytes.contains(&0) => Err("socket path has a NUL byte".to_owned()),
        length if length > MAX_SOCKET_PATH_BYTES => Err(format!(
            "socket path is {length} bytes, the limit is {MAX_SOCKET_PATH_BYTES}: {}; use a shorter folder",
            path.display()
        )),
        _ => Ok(()),
    }
}

fn listener_socket() -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // Before `bind`, so that the file never has another mode. The umask would do it too, but belongs to all threads.
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    Ok(socket)
}

/// Removes the socket at `path` if nobody listens there any more.
fn remove_dead(path: &Path, address: &SocketAddrUnix) -> Result<(), Fault> {
    let conflict = |why: &str| Err(Fault::new(Code::Conflict, format!("{} {why}", path.display())));
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => {}
        Ok(_) => return conflict("exists and is not a socket; remove it or choose another path"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return conflict(&format!("cannot be looked at: {error}")),
    }
    let probe = listener_socket().and_then(|probe| rustix::net::connect(&probe, address));
    match probe {
        Err(Errno::CONNREFUSED) => match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                conflict(&format!("was left by a dead process and cannot be removed: {error}"))
            }
            _ => Ok(()),
        },
        Err(Errno::NOENT) => Ok(()),
        // Connected, or refused for any other reason (a full backlog, another type of socket): somebody is there.
        _ => conflict("belongs to a process that listens; stop that process or choose another path"),
    }
}

/// Locks a folder against other processes that are about to listen in it. Done without when it cannot be had: in a
/// folder that others may read, anybody could hold the lock for ever.
fn lock(folder: &Path) -> Option<File> {
    let folder = File::open(folder).ok()?;
    for _ in 0..LOCK_TRIES {
        match rustix::fs::flock(&folder, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Some(folder),
            Err(Errno::WOULDBLOCK) => std::thread::sleep(LOCK_PAUSE),
            Err(_) => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests;
