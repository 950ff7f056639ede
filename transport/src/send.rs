//! Writing to a socket whose reader may have gone.

use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};

use rustix::net::{SendAncillaryBuffer, SendFlags};
use tokio::io::Interest;
use tokio::net::UnixStream;

/// Writes what the socket takes now, gathered.
///
/// Unlike `write`, this never raises SIGPIPE: a host that left the signal at its default must not die with a plugin.
pub(crate) fn poll_send(stream: &UnixStream, cx: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
    loop {
        ready!(stream.poll_write_ready(cx))?;
        let sent = stream.try_io(Interest::WRITABLE, || {
            let no_descriptors = &mut SendAncillaryBuffer::default();
            Ok(rustix::net::sendmsg(stream, parts, no_descriptors, SendFlags::NOSIGNAL)?)
        });
        match sent {
            // `try_io` has noted that the socket is full, so that the next turn of the loop waits.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            sent => return Poll::Ready(sent),
        }
    }
}
