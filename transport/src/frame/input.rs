//! Bytes on their way in, cut into frames.

use std::io;
use std::os::unix::net::UnixStream;

use bytes::Bytes;
use goplug_pconf_schema::wire::frame::{Broken, HEADER_BYTES, Header};
use rustix::net::RecvFlags;

/// One read: many small frames, or a part of a large one.
const READ_BYTES: usize = 64 * 1024;
/// One read behind a large payload: the next one is likely to be large too, and what of it came here would be copied.
const HEAD_BYTES: usize = 1024;
/// From here on a payload gets a buffer of its own, into which it is read directly.
const LARGE_BYTES: usize = 8 * 1024;

/// A frame.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) header: Header,
    /// Only requests, subscriptions and events have any.
    pub(super) meta: Bytes,
    pub(super) payload: Bytes,
}

/// What came and was not cut yet.
#[derive(Debug)]
pub(super) struct Input {
    buffer: Vec<u8>,
    /// Where in the buffer the next frame begins.
    start: usize,
    /// A frame whose payload is being read into a buffer of its own.
    large: Option<(Header, Bytes, Vec<u8>)>,
    /// Whether the last frame was such a one.
    was_large: bool,
}

/// What a read found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Read {
    Some,
    /// Nothing is there now.
    Empty,
    /// The other side has closed.
    End,
}

impl Input {
    /// `first` came behind the reply to the upgrade.
    pub(super) fn new(first: &[u8]) -> Self {
        Self { buffer: first.to_vec(), start: 0, large: None, was_large: false }
    }

    /// The next whole frame, if it has come.
    ///
    /// # Errors
    /// Names the rule that was broken; nothing after it can be understood.
    pub(super) fn next(&mut self) -> Result<Option<Frame>, Broken> {
        if let Some((header, meta, payload)) = self.large.take() {
            if payload.len() < header.payload_bytes {
                self.large = Some((header, meta, payload));
                return Ok(None);
            }
            self.was_large = true;
            return Ok(Some(Frame { header, meta, payload: payload.into() }));
        }
        let rest = &self.buffer[self.start..];
        let Some(head) = rest.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let header = Header::decode(head)?;
        let beginning = HEADER_BYTES + header.meta_bytes;
        let whole = beginning + header.payload_bytes;
        let is_large = header.payload_bytes >= LARGE_BYTES;
        if rest.len() < if is_large { beginning } else { whole } {
            return Ok(None);
        }
        let meta = Bytes::copy_from_slice(&rest[HEADER_BYTES..beginning]);
        if !is_large {
            let payload = Bytes::copy_from_slice(&rest[beginning..whole]);
            self.start += whole;
            self.was_large = false;
            return Ok(Some(Frame { header, meta, payload }));
        }
        let there = rest.len().min(whole);
        let mut payload = Vec::with_capacity(header.payload_bytes);
        payload.extend_from_slice(&rest[beginning..there]);
        self.start += there;
        self.large = Some((header, meta, payload));
        self.next()
    }

    /// Reads once what is there now.
    pub(super) fn read_from(&mut self, stream: &UnixStream) -> io::Result<Read> {
        if self.start > 0 {
            // What is left of a frame is short: longer ones have a buffer of their own.
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        let into = match &mut self.large {
            Some((_, _, payload)) => payload,
            None if self.was_large => {
                let mut head = [0; HEAD_BYTES];
                let read = receive(stream, &mut head[..])?;
                self.buffer.extend_from_slice(&head[..read.unwrap_or(0)]);
                return Ok(outcome(read));
            }
            None => {
                self.buffer.reserve(READ_BYTES);
                &mut self.buffer
            }
        };
        let receive = || rustix::net::recv(stream, rustix::buffer::spare_capacity(into), RecvFlags::DONTWAIT);
        let read = match rustix::io::retry_on_intr(receive) {
            Ok((count, _)) => Some(count),
            Err(errno) => nothing(errno)?,
        };
        if let Some((header, _, payload)) = &mut self.large
            && payload.len() > header.payload_bytes
        {
            // The allocator gave more room than was asked for.
            self.buffer = payload.split_off(header.payload_bytes);
        }
        Ok(outcome(read))
    }
}

fn receive(stream: &UnixStream, into: &mut [u8]) -> io::Result<Option<usize>> {
    match rustix::io::retry_on_intr(|| rustix::net::recv(stream, &mut *into, RecvFlags::DONTWAIT)) {
        Ok((count, _)) => Ok(Some(count)),
        Err(errno) => nothing(errno),
    }
}

/// Why a read brought nothing.
fn nothing(errno: rustix::io::Errno) -> io::Result<Option<usize>> {
    match errno {
        rustix::io::Errno::AGAIN => Ok(None),
        // What had been sent before was read.
        rustix::io::Errno::CONNRESET => Ok(Some(0)),
        error => Err(error.into()),
    }
}

fn outcome(read: Option<usize>) -> Read {
    match read {
        None => Read::Empty,
        Some(0) => Read::End,
        Some(_) => Read::Some,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use goplug_pconf_schema::wire::frame::Kind;

    use super::*;

    fn frame(id: u64, meta: &[u8], payload: &[u8]) -> Vec<u8> {
        let sizes = Header { meta_bytes: meta.len(), payload_bytes: payload.len(), ..Header::new(Kind::Data, id) };
        [&sizes.encode()[..], meta, payload].concat()
    }

    /// Wherever a stream of frames is cut, the same frames come out.
    #[test]
    fn frames_are_found_wherever_the_stream_is_cut() {
        let payloads = [0, 1, 64, LARGE_BYTES - 1, LARGE_BYTES, LARGE_BYTES + 1, 100_000, 3];
        let bodies: Vec<_> = payloads.iter().map(|length| vec![7; *length]).collect();
        let stream: Vec<_> =
            bodies.iter().enumerate().flat_map(|(id, body)| frame(id as u64, &[200, 0, 0, 0], body)).collect();
        for step in [1, 2, 31, 32, 33, 4_096, 65_536, stream.len()] {
            let (mut theirs, ours) = UnixStream::pair().unwrap();
            let (mut input, mut found) = (Input::new(&[]), Vec::new());
            for piece in stream.chunks(step) {
                theirs.write_all(piece).unwrap();
                while input.read_from(&ours).unwrap() == Read::Some {
                    while let Some(frame) = input.next().unwrap() {
                        found.push(frame);
                    }
                }
            }
            assert_eq!(found.len(), bodies.len(), "step {step}");
            for (id, (frame, body)) in found.iter().zip(&bodies).enumerate() {
                assert_eq!((frame.header.id, &frame.meta[..]), (id as u64, &[200, 0, 0, 0][..]));
                assert!(frame.payload == body[..], "step {step}, frame {id}");
            }
            assert!(input.next().unwrap().is_none());
            drop(theirs);
            assert_eq!(input.read_from(&ours).unwrap(), Read::End);
        }
    }

    #[test]
    fn what_came_with_the_upgrade_counts() {
        let mut input = Input::new(&[frame(1, &[], b"a"), frame(2, &[], b"b")].concat());
        assert_eq!(input.next().unwrap().unwrap().payload, "a");
        assert_eq!(input.next().unwrap().unwrap().header.id, 2);
        assert!(input.next().unwrap().is_none());
    }
}
