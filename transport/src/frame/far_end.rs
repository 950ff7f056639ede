//! The other end of a connection under test, over the socket or over rings, as a stream that blocks.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};

use super::pipe::Pipe;
use crate::shm::Rings;

/// How long a test waits for anything.
const PATIENCE: Duration = Duration::from_secs(30);

/// Whether the tests of this module run over rings: each of them is there twice, from one file.
pub(super) fn is_over_rings(module_path: &str) -> bool {
    module_path.contains("over_rings")
}

pub(super) struct FarEnd {
    pub(super) pipe: Pipe,
    write_timeout: Duration,
}

impl FarEnd {
    pub(super) fn new(stream: UnixStream, rings: Option<Rings>) -> Self {
        stream.set_nonblocking(true).unwrap();
        Self { pipe: Pipe::new(Arc::new(stream), rings), write_timeout: PATIENCE }
    }

    pub(super) fn set_write_timeout(&mut self, timeout: Duration) {
        self.write_timeout = timeout;
    }

    pub(super) fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.pipe.socket.shutdown(how)
    }

    /// Sleeps until there is something to read, or room; false when time is up.
    pub(super) fn sleep(&self, for_bytes: bool, for_room: bool, limit: Duration) -> io::Result<bool> {
        if !self.pipe.may_sleep(for_bytes, for_room)? {
            return Ok(true);
        }
        let mut events = PollFlags::empty();
        events.set(PollFlags::IN, for_bytes || !self.pipe.socket_tells_of_room());
        events.set(PollFlags::OUT, for_room && self.pipe.socket_tells_of_room());
        let limit = Timespec::try_from(limit).unwrap();
        let woken = rustix::event::poll(&mut [PollFd::new(&*self.pipe.socket, events)], Some(&limit))?;
        self.pipe.hear();
        Ok(woken > 0)
    }
}

impl Read for FarEnd {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut bytes = Vec::with_capacity(into.len());
        loop {
            if let Some(count) = self.pipe.receive(&mut bytes, into.len())? {
                into[..count].copy_from_slice(&bytes);
                return Ok(count);
            }
            if !self.sleep(true, false, PATIENCE)? {
                return Err(ErrorKind::WouldBlock.into());
            }
        }
    }
}

impl Write for FarEnd {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            if let Some(count) = self.pipe.send(&[IoSlice::new(bytes)])? {
                return Ok(count);
            }
            if !self.sleep(false, true, self.write_timeout)? {
                return Err(ErrorKind::WouldBlock.into());
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
