//! Descriptors with bytes of frames, from one process to another.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use goplug_pconf_schema::wire::frame::HEADER_BYTES;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};

/// Room for one descriptor and for no other.
const SPACE: usize = rustix::cmsg_space!(ScmRights(1));

/// Sends a frame with a descriptor on its first byte, on a socket that has room for it.
#[cfg(feature = "client")]
pub(super) fn send(stream: &UnixStream, frame: &[u8; HEADER_BYTES], fd: &OwnedFd) -> io::Result<()> {
    let sent = send_some(stream, frame, fd)?;
    if sent == frame.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// Sends the beginning of `bytes` with a descriptor on the first of them; answers how much of it.
pub(crate) fn send_some(stream: &UnixStream, bytes: &[u8], fd: &OwnedFd) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); SPACE];
    let mut with = SendAncillaryBuffer::new(&mut space);
    let fds = [fd.as_fd()];
    if !with.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    Ok(rustix::io::retry_on_intr(|| rustix::net::sendmsg(stream, &[IoSlice::new(bytes)], &mut with, flags))?)
}

/// How many descriptors may have come whose frames have not: one for a frame that is cut, and one that came with its rest.
const MAX_AHEAD: usize = 2;

/// Receives what is there into `into`, and the descriptor that came with it, if any, behind the others in `fds`; answers how
/// much there was, 0 at the end.
///
/// # Errors
/// As `recvmsg`; [`io::ErrorKind::InvalidData`] when more descriptors came than frames can have, or several at once.
pub(crate) fn receive_some(stream: &UnixStream, into: &mut [u8], fds: &mut VecDeque<OwnedFd>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); SPACE];
    let mut with = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let received =
        rustix::io::retry_on_intr(|| rustix::net::recvmsg(stream, &mut [IoSliceMut::new(into)], &mut with, flags))?;
    for message in with.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    if received.flags.contains(ReturnFlags::CTRUNC) || fds.len() > MAX_AHEAD {
        let text = format!("{} descriptors or more without a frame", fds.len());
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    Ok(received.bytes)
}

/// Receives a header that is there, with its descriptor if one came with it.
///
/// # Errors
/// [`io::ErrorKind::InvalidData`] when more than one descriptor came, of which none is kept, or less than a header.
#[cfg(feature = "server")]
pub(super) fn receive(stream: &UnixStream) -> io::Result<([u8; HEADER_BYTES], Option<OwnedFd>)> {
    let mut frame = [0; HEADER_BYTES];
    let mut space = [MaybeUninit::uninit(); SPACE];
    let mut with = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let received = rustix::io::retry_on_intr(|| {
        rustix::net::recvmsg(stream, &mut [IoSliceMut::new(&mut frame)], &mut with, flags)
    })?;
    // Whatever came is closed when it is dropped.
    let mut fds: Vec<OwnedFd> = Vec::new();
    for message in with.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    if received.flags.contains(ReturnFlags::CTRUNC) || fds.len() > 1 || received.bytes < frame.len() {
        let text = format!("{} bytes of a frame with {} descriptors or more", received.bytes, fds.len());
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    Ok((frame, fds.pop()))
}
