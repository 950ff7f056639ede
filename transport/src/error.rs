//! Why a call over a connection failed, and whether the other side can have seen anything of it.

use std::{fmt, io};

/// A failed connect or exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// What went wrong.
    pub kind: ErrorKind,
    /// Whether the kernel took at least one byte of the request. If not, the request cannot have run.
    pub sent: bool,
    /// A lowercase fragment for people, without a dot.
    pub message: String,
}

/// What went wrong with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// There is no socket file (`ENOENT`).
    Missing,
    /// There is a socket file but nobody listens (`ECONNREFUSED`).
    Refused,
    /// The file system does not let us connect (`EACCES`, `EPERM`).
    Denied,
    /// The listener's backlog was full until the deadline (`EAGAIN`).
    Busy,
    /// Any other failure of the operating system.
    Io,
    /// The other side closed the connection before its reply was whole.
    Closed,
    /// What the other side sent, or what we were asked to send, is not HTTP as this crate takes it.
    Protocol,
    /// The body of the reply is longer than the caller takes; the request did run.
    TooLarge,
    /// This process or the system has no file descriptor left (`EMFILE`, `ENFILE`).
    Exhausted,
    /// The deadline had passed before anything could be tried.
    Deadline,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, sent: bool, message: impl Into<String>) -> Self {
        Self { kind, sent, message: message.into() }
    }

    /// Sorts a failure of the operating system into its kind; `doing` completes "failed to …".
    pub(crate) fn from_io(error: &io::Error, sent: bool, doing: &str) -> Self {
        Self { kind: ErrorKind::of(error), sent, message: format!("failed to {doing}: {error}") }
    }
}

impl ErrorKind {
    fn of(error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR) => Self::Missing,
            Some(libc::ECONNREFUSED) => Self::Refused,
            Some(libc::EACCES | libc::EPERM) => Self::Denied,
            Some(libc::EAGAIN) => Self::Busy,
            Some(libc::EMFILE | libc::ENFILE) => Self::Exhausted,
            Some(libc::EPIPE | libc::ECONNRESET) => Self::Closed,
            _ => Self::Io,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}
