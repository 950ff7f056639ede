//! Who is at the other end of a Unix socket, and whether that process still lives.

mod lease;
mod program;

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::sync::{Arc, OnceLock};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::UnixStream;

pub use lease::hold_off_writers;
pub use program::Program;

/// `f_type` of the file system of pidfds, on which an inode number names one process for as long as the system runs.
const PIDFS_MAGIC: u64 = 0x5049_4446;

/// The process at the other end, pinned: neither its pid nor its identity can pass to another process.
///
/// The kernel answers for the process that called `listen` (seen from a client) or `connect` (seen from a server).
/// Clones are the same peer and share its descriptor.
#[derive(Clone)]
pub struct Peer(Arc<Inner>);

struct Inner {
    pid: u32,
    uid: u32,
    gid: u32,
    process: Process,
    /// The same descriptor, registered with the runtime by the first call of [`Peer::exited`]; `None` if that failed.
    watch: OnceLock<Option<AsyncFd<Arc<OwnedFd>>>>,
}

enum Process {
    /// Pinned by a descriptor. `inode` is there if it is an identity, which it is from Linux 6.9 on.
    Pinned { pidfd: Arc<OwnedFd>, inode: Option<u64> },
    /// It had exited and been reaped before we could ask.
    Gone,
    /// The kernel gives no descriptor: all we have is a number.
    Unpinned,
}

impl Peer {
    /// Asks the kernel who is at the other end of `stream`.
    ///
    /// # Errors
    /// When the credentials cannot be read, or no file descriptor is left for the process.
    pub fn of(stream: &UnixStream) -> io::Result<Self> {
        let credentials = stream.peer_cred()?;
        let pid = credentials.pid().unwrap_or(0).cast_unsigned();
        let process = pin(stream, pid)?;
        let (uid, gid) = (credentials.uid(), credentials.gid());
        Ok(Self(Arc::new(Inner { pid, uid, gid, process, watch: OnceLock::new() })))
    }

    /// The process id at the time of the connection; 0 if it is not visible in our pid namespace.
    pub fn pid(&self) -> u32 {
        self.0.pid
    }

    /// The user id at the time of the connection.
    pub fn uid(&self) -> u32 {
        self.0.uid
    }

    /// The group id at the time of the connection.
    pub fn gid(&self) -> u32 {
        self.0.gid
    }

    /// A number that no other process of this boot ever has; `None` before Linux 6.9.
    pub fn inode(&self) -> Option<u64> {
        match self.0.process {
            Process::Pinned { inode, .. } => inode,
            Process::Gone | Process::Unpinned => None,
        }
    }

    /// Whether both are the same process: by inode, else by pid while both live.
    pub fn same_process(&self, other: &Self) -> bool {
        match (self.inode(), other.inode()) {
            (Some(ours), Some(theirs)) => ours == theirs,
            _ => self.pid() == other.pid() && self.is_alive() && other.is_alive(),
        }
    }

    /// Whether the process runs. One that has exited but was not reaped yet does not.
    pub fn is_alive(&self) -> bool {
        match &self.0.process {
            Process::Pinned { pidfd, .. } => {
                let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
                let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
                // A poll that fails (interrupted, no memory) says nothing about the process.
                !matches!(rustix::event::poll(&mut fds, Some(&at_once)), Ok(1..))
            }
            Process::Gone => false,
            Process::Unpinned => pid_of(self.0.pid)
                .is_none_or(|pid| rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH)),
        }
    }

    /// Returns when the process has exited. Never returns where the kernel gives no pidfd, or when the runtime that was
    /// asked first could not watch it: the end of file of the connection must do then.
    ///
    /// # Cancel safety
    /// Cancel safe, and any number of callers may wait at once.
    pub async fn exited(&self) {
        match &self.0.process {
            Process::Gone => return,
            Process::Unpinned => {}
            Process::Pinned { pidfd, .. } => {
                if let Some(watch) = self.watch(pidfd)
                    && watch.readable().await.is_ok()
                {
                    return;
                }
            }
        }
        std::future::pending().await
    }

    fn watch(&self, pidfd: &Arc<OwnedFd>) -> Option<&AsyncFd<Arc<OwnedFd>>> {
        // Once for all callers: a number can be registered with epoll only once.
        self.0.watch.get_or_init(|| watch_readable(pidfd)).as_ref()
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Peer");
        debug.field("pid", &self.pid()).field("uid", &self.uid()).field("gid", &self.gid());
        debug.field("inode", &self.inode()).finish()
    }
}

/// Registers a pidfd with the runtime.
#[allow(unsafe_code)]
fn watch_readable(pidfd: &Arc<OwnedFd>) -> Option<AsyncFd<Arc<OwnedFd>>> {
    // SAFETY: the `AsyncFd` holds a reference to the descriptor, which keeps it open and its number the same until it is
    // dropped; an `Arc` gives the same descriptor whenever it is asked, and nobody takes it out of the `AsyncFd` again.
    unsafe { AsyncFd::register_with_interest(Arc::clone(pidfd), Interest::READABLE) }.ok()
}

/// Registers a socket with the runtime that is also read and written without it.
#[cfg(feature = "client")]
#[allow(unsafe_code)]
pub(crate) fn watch_socket(
    stream: &Arc<std::os::unix::net::UnixStream>,
    interest: Interest,
) -> io::Result<AsyncFd<Arc<std::os::unix::net::UnixStream>>> {
    // SAFETY: the `AsyncFd` holds a reference to the socket, which keeps its descriptor open and its number the same until
    // it is dropped; an `Arc` gives the same socket whenever it is asked, and nobody takes it out of the `AsyncFd` again.
    unsafe { AsyncFd::register_with_interest(Arc::clone(stream), interest) }.map_err(io::Error::from)
}

/// Reads what is there now behind what `into` holds: at most `most` bytes, and no more than it has room for.
///
/// # Errors
/// As `recv`; [`rustix::io::Errno::AGAIN`] when nothing is there.
#[cfg(any(feature = "client", feature = "server"))]
#[allow(unsafe_code)]
pub(crate) fn receive(
    stream: &std::os::unix::net::UnixStream,
    into: &mut Vec<u8>,
    most: usize,
) -> rustix::io::Result<usize> {
    let room = into.spare_capacity_mut();
    let most = most.min(room.len());
    let room = &mut room[..most];
    let flags = rustix::net::RecvFlags::DONTWAIT;
    let count =
        rustix::io::retry_on_intr(|| rustix::net::recv(stream, &mut *room, flags).map(|((new, _), _)| new.len()))?;
    // SAFETY: the kernel has written `count` bytes, as many as `recv` calls initialized, from the vector's length on; they
    // lie within its capacity, because `room` does.
    unsafe { into.set_len(into.len() + count) };
    Ok(count)
}

fn pid_of(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw)
}

fn pin(stream: &UnixStream, pid: u32) -> io::Result<Process> {
    let pidfd = match peer_pidfd(stream) {
        // Before Linux 6.5. Between the credentials and here the number may have passed to another process; there is
        // nothing better on such a kernel.
        Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => match pid_of(pid) {
            Some(pid) => rustix::process::pidfd_open(pid, PidfdFlags::empty()).map_err(io::Error::from),
            None => return Ok(Process::Unpinned),
        },
        answer => answer,
    };
    match pidfd {
        Ok(pidfd) => {
            let inode = pidfd_inode(&pidfd);
            Ok(Process::Pinned { pidfd: Arc::new(pidfd), inode })
        }
        Err(error) => match error.raw_os_error() {
            Some(libc::ESRCH) => Ok(Process::Gone),
            // ENODATA and EINVAL: a peer without a process of its own (a socket pair, another namespace).
            Some(libc::ENOSYS | libc::EPERM | libc::ENODATA | libc::EINVAL) => Ok(Process::Unpinned),
            _ => Err(error),
        },
    }
}

/// The number of the process behind a pidfd that no other process of this boot ever has; `None` before Linux 6.9, where all
/// pidfds share one inode.
pub fn pidfd_inode(pidfd: impl AsFd) -> Option<u64> {
    let pidfd = pidfd.as_fd();
    let on_pidfs = rustix::fs::fstatfs(pidfd).is_ok_and(|fs| u64::try_from(fs.f_type) == Ok(PIDFS_MAGIC));
    if on_pidfs { rustix::fs::fstat(pidfd).ok().map(|stat| stat.st_ino) } else { None }
}

/// Keeps every descriptor from `first` on from the programs that this process turns into or starts later, whoever opened
/// it. They stay open in this process.
///
/// # Errors
/// As the kernel says; before Linux 5.11 it knows no such thing.
#[allow(unsafe_code)]
pub fn close_on_exec(first: u32) -> io::Result<()> {
    let flags = libc::c_int::try_from(libc::CLOSE_RANGE_CLOEXEC).expect("a flag is a small number");
    // SAFETY: nothing is closed and no memory is touched: with this flag the call sets close-on-exec, which changes
    // nothing for whoever owns or uses a descriptor in this process.
    if unsafe { libc::close_range(first, libc::c_uint::MAX, flags) } == 0 {
        return Ok(());
    }
    Err(io::Error::last_os_error())
}

/// `getsockopt(SO_PEERPIDFD)`, which no crate of ours wraps. The kernel makes the descriptor close-on-exec.
#[allow(unsafe_code)]
fn peer_pidfd(stream: &UnixStream) -> io::Result<OwnedFd> {
    let mut fd: libc::c_int = -1;
    let mut length = libc::socklen_t::try_from(size_of::<libc::c_int>()).expect("an int is a few bytes");
    // SAFETY: `stream` is open for as long as it is borrowed; `fd` and `length` are live, writable and aligned, and
    // `length` says exactly how many bytes the kernel may write to `fd`.
    let status = unsafe {
        libc::getsockopt(
            stream.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERPIDFD,
            (&raw mut fd).cast(),
            &raw mut length,
        )
    };
    if status != 0 {
        return Err(io::Error::last_os_error());
    }
    if fd < 0 {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    // SAFETY: on success the kernel has installed a new descriptor in this process and told its number to us alone, so
    // that we are its only owner.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests;
