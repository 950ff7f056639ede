//! How a connection comes to its memory: the registry makes it and offers it in the first frame; the plugin maps it and
//! says so, or goes on over the socket.

use std::io;
use std::os::unix::net::UnixStream;
#[cfg(feature = "client")]
use std::sync::Arc;

#[cfg(feature = "client")]
use goplug_pconf_schema::wire::fault::MAX_PROBLEM_BYTES;
use goplug_pconf_schema::wire::frame::{HEADER_BYTES, Header, Kind};
#[cfg(feature = "server")]
use goplug_pconf_schema::{Code, Fault};
use rustix::io::Errno;
use rustix::net::RecvFlags;
#[cfg(feature = "server")]
use rustix::net::SendFlags;

use super::region::Region;
use super::{Rings, Side, descriptor};

/// What became of an offer.
#[cfg(feature = "client")]
#[derive(Debug)]
pub(crate) enum Offer {
    /// Frames travel through these from now on.
    Taken(Rings),
    /// There is no memory here, or the plugin does not take it: everything stays on the socket.
    Refused,
}

/// Offers the plugin shared memory, before anything else was sent on this connection.
///
/// # Errors
/// As the operating system says; [`io::ErrorKind::InvalidData`] for an answer that is none,
/// [`io::ErrorKind::UnexpectedEof`] when the plugin closed. The connection is of no use any more.
///
/// # Cancel safety
/// A connection whose offer was dropped is of no use any more.
#[cfg(feature = "client")]
pub(crate) async fn offer(stream: &Arc<UnixStream>) -> io::Result<Offer> {
    use tokio::io::Interest;

    let Ok((region, memfd)) = Region::create(super::RING_BYTES) else { return Ok(Offer::Refused) };
    let header = Header { fd: true, arg: super::RING_BYTES, ..Header::new(Kind::Rings, 0) };
    descriptor::send(stream, &header.encode(), &memfd)?;
    drop(memfd);
    let socket = crate::peer::watch_socket(stream, Interest::READABLE)?;
    let (mut bytes, mut wanted) = (Vec::new(), HEADER_BYTES);
    loop {
        let mut ready = socket.readable().await?;
        match some(stream, &mut bytes, wanted) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
            read => read?,
        }
        let Some(head) = bytes.first_chunk::<HEADER_BYTES>() else { continue };
        let wrong = |text: String| Err(io::Error::new(io::ErrorKind::InvalidData, text));
        let header = match Header::decode(head) {
            Ok(header) => header,
            Err(broken) => return wrong(broken.0),
        };
        match header.kind {
            Kind::Rings if !header.fd && header.arg == super::RING_BYTES && header.payload_bytes == 0 => {
                return Ok(Offer::Taken(Rings::new(region, Side::Registry)));
            }
            Kind::Error if header.meta_bytes == 0 && header.payload_bytes <= MAX_PROBLEM_BYTES => {
                wanted = HEADER_BYTES + header.payload_bytes;
                if bytes.len() == wanted {
                    return Ok(Offer::Refused);
                }
            }
            kind => return wrong(format!("a frame of type {} is no answer to shared memory", kind as u8)),
        }
    }
}

/// Reads something, up to a length in all.
#[cfg(feature = "client")]
fn some(stream: &UnixStream, bytes: &mut Vec<u8>, wanted: usize) -> io::Result<()> {
    bytes.reserve(wanted - bytes.len());
    match crate::peer::receive(stream, bytes, wanted - bytes.len())? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

/// What the beginning of a connection is.
#[cfg(feature = "server")]
#[derive(Debug)]
pub(crate) enum Greeting {
    /// Nothing has come.
    NotYet,
    /// Frames travel through the socket.
    Socket,
    /// Frames travel through these, and the registry has been told.
    Rings(Rings),
}

/// Looks at the first bytes of a connection, and takes shared memory if it is offered and `takes`.
///
/// # Errors
/// As the operating system says; the connection is of no use any more.
#[cfg(feature = "server")]
pub(crate) fn greet(stream: &UnixStream, takes: bool) -> io::Result<Greeting> {
    let mut head = [0; HEADER_BYTES];
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    let count = match rustix::io::retry_on_intr(|| rustix::net::recv(stream, &mut head, flags)) {
        Ok((_, count)) => count,
        Err(Errno::AGAIN) => return Ok(Greeting::NotYet),
        Err(error) => return Err(error.into()),
    };
    // An offer is sent in one piece. What it is not, the reader finds out.
    let is_offer = count == HEADER_BYTES && Header::decode(&head).is_ok_and(|header| header.kind == Kind::Rings);
    if !is_offer {
        return Ok(Greeting::Socket);
    }
    match take(stream, takes) {
        Ok((rings, ring_bytes)) => {
            answer(stream, Header { arg: ring_bytes, ..Header::new(Kind::Rings, 0) }, &[])?;
            Ok(Greeting::Rings(rings))
        }
        Err(why) => {
            let problem = Fault::new(Code::InvalidArgument, format!("no shared memory: {why}")).to_problem();
            answer(stream, Header { end: true, ..Header::new(Kind::Error, 0) }, &problem)?;
            Ok(Greeting::Socket)
        }
    }
}

#[cfg(feature = "server")]
fn take(stream: &UnixStream, takes: bool) -> io::Result<(Rings, u64)> {
    let wrong = |text: &str| io::Error::new(io::ErrorKind::InvalidData, text);
    let (frame, memfd) = descriptor::receive(stream)?;
    let header = Header::decode(&frame).map_err(|broken| wrong(&broken.0))?;
    let (true, Some(memfd), 0, 0) = (header.fd, memfd, header.meta_bytes, header.payload_bytes) else {
        return Err(wrong("the frame has no descriptor, or more than that"));
    };
    if !takes {
        return Err(wrong("it was not offered"));
    }
    Ok((Rings::new(Region::open(&memfd, header.arg)?, Side::Plugin), header.arg))
}

#[cfg(feature = "server")]
fn answer(stream: &UnixStream, mut header: Header, payload: &[u8]) -> io::Result<()> {
    header.payload_bytes = payload.len();
    let frame = [&header.encode()[..], payload].concat();
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    // Nothing was sent before: there is room.
    match rustix::io::retry_on_intr(|| rustix::net::send(stream, &frame, flags))? {
        sent if sent == frame.len() => Ok(()),
        _ => Err(io::ErrorKind::WriteZero.into()),
    }
}
