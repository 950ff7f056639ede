//! What frames travel through: the socket, or the rings in shared memory beside it.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, OnceLock};

use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags};

use crate::peer;
use crate::shm::{Rings, descriptor};

/// Bytes both ways, and their end. One thread reads at a time, and one writes; nobody waits here.
#[derive(Debug)]
pub(crate) struct Pipe {
    /// Whoever sleeps, sleeps on it: through the rings, too, it is what wakes.
    pub(super) socket: Arc<UnixStream>,
    rings: OnceLock<Rings>,
}

impl Pipe {
    pub(crate) fn new(socket: Arc<UnixStream>, rings: Option<Rings>) -> Self {
        Self { socket, rings: rings.map_or_else(OnceLock::new, OnceLock::from) }
    }

    /// The rings, if frames go through them.
    #[inline]
    pub(super) fn rings(&self) -> Option<&Rings> {
        self.rings.get()
    }

    /// Everything goes through these from now on.
    #[cfg(feature = "server")]
    pub(super) fn use_rings(&self, rings: Rings) {
        // Nobody else does this, and it is done once.
        _ = self.rings.set(rings);
    }

    /// Reads once what is there now behind what `into` holds: at most `most` bytes, and no more than it has room for. `None`
    /// when nothing is there, 0 at the end.
    ///
    /// # Errors
    /// As the operating system says, and [`io::ErrorKind::InvalidData`] of rings that cannot be.
    pub(super) fn receive(&self, into: &mut Vec<u8>, most: usize) -> io::Result<Option<usize>> {
        if let Some(rings) = self.rings() {
            return rings.receive(&self.socket, into, most);
        }
        match peer::receive(&self.socket, into, most) {
            Ok(count) => Ok(Some(count)),
            Err(Errno::AGAIN) => Ok(None),
            // What had been sent before was read.
            Err(Errno::CONNRESET) => Ok(Some(0)),
            Err(error) => Err(error.into()),
        }
    }

    /// As [`Pipe::receive`], where descriptors may come with the bytes, which go behind the others in `fds`.
    ///
    /// # Errors
    /// As there, and [`io::ErrorKind::InvalidData`] for more of them than frames can have.
    pub(super) fn receive_with(
        &self,
        into: &mut Vec<u8>,
        most: usize,
        fds: &mut VecDeque<OwnedFd>,
    ) -> io::Result<Option<usize>> {
        let before = into.len();
        into.resize(before + most, 0);
        let received = descriptor::receive_some(&self.socket, &mut into[before..], fds);
        into.truncate(before + received.as_ref().map_or(0, |count| *count));
        match received {
            Ok(count) => Ok(Some(count)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(Some(0)),
            Err(error) => Err(error),
        }
    }

    /// The descriptor of a frame that has come, if it did not come with its bytes.
    pub(super) fn descriptor(&self) -> Option<OwnedFd> {
        self.rings()?.descriptor(&self.socket)
    }

    /// Sends a descriptor: on the socket with the beginning of `frame`, of which it answers how much was sent; beside the
    /// rings before it. `None` when there is no room.
    ///
    /// # Errors
    /// As [`Pipe::send`].
    pub(super) fn send_descriptor(&self, frame: &[u8], fd: &OwnedFd) -> io::Result<Option<usize>> {
        if let Some(rings) = self.rings() {
            return rings.send_descriptor(&self.socket, fd).map(|()| Some(0));
        }
        match descriptor::send_some(&self.socket, frame, fd) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            sent => sent.map(Some),
        }
    }

    /// Between two looks: lets others run, who may be what is waited for, if this is their core too. In rings the rest of the
    /// pause is spent looking.
    pub(super) fn pause(&self) {
        std::thread::yield_now();
        if let Some(rings) = self.rings() {
            rings.spin();
        }
    }

    /// Writes once as much as there is room for now; `None` when there is none.
    ///
    /// # Errors
    /// As the operating system says; the pipe is of no use any more.
    pub(super) fn send(&self, slices: &[IoSlice<'_>]) -> io::Result<Option<usize>> {
        if let Some(rings) = self.rings() {
            return rings.send(&self.socket, slices);
        }
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        let with = &mut SendAncillaryBuffer::default();
        match rustix::io::retry_on_intr(|| rustix::net::sendmsg(&self.socket, slices, with, flags)) {
            Ok(0) => Err(io::ErrorKind::WriteZero.into()),
            Ok(sent) => Ok(Some(sent)),
            Err(Errno::AGAIN) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// To be called by the reader before it sleeps on the socket until there are bytes, or room: answers whether it may.
    /// If not, there is something already.
    ///
    /// # Errors
    /// As [`Pipe::receive`].
    pub(crate) fn may_sleep(&self, for_bytes: bool, for_room: bool) -> io::Result<bool> {
        self.rings().map_or(Ok(true), |rings| rings.may_sleep(for_bytes, for_room))
    }

    /// To be called by the reader when the socket has woken it, before it reads.
    pub(crate) fn hear(&self) {
        if let Some(rings) = self.rings() {
            rings.hear(&self.socket);
        }
    }

    /// Whether room is what the socket tells: of rings it tells like everything else, by a byte to read.
    pub(super) fn socket_tells_of_room(&self) -> bool {
        self.rings().is_none()
    }

    /// Nothing is read or written any more, here or there.
    pub(super) fn close(&self) {
        if let Some(rings) = self.rings() {
            rings.close();
        }
        // It may have been closed by the other side.
        _ = self.socket.shutdown(Shutdown::Both);
    }
}
