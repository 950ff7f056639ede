//! Bytes on their way in, cut into frames.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;

use bytes::Bytes;
use goplug_pconf_schema::wire::frame::{Broken, HEADER_BYTES, Header, Kind};

use super::pipe::Pipe;

/// One read: many small frames, or a part of a large one.
const READ_BYTES: usize = 64 * 1024;
/// One read behind a large payload: the next one is likely to be large too, and what of it came here would be copied.
const HEAD_BYTES: usize = 1024;
/// One read where descriptors may come: what is read to has to be written with zeros first.
const LENDER_READ_BYTES: usize = 16 * 1024;
/// From here on a payload gets a buffer of its own, into which it is read directly.
const LARGE_BYTES: usize = 8 * 1024;

/// At most so much room is made for a body because its sender says that it will come.
const TRUSTED_BYTES: usize = 4 * 1024 * 1024;

/// What came.
#[derive(Debug)]
pub(crate) enum Next {
    Frame(Frame),
    /// A part of a body is beginning to come: whoever collects the body lends what it has, so that the part is read where
    /// it belongs ([`Input::lend`]); or it does not, and the part comes as a frame.
    Part(Header),
}

/// A frame.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) header: Header,
    /// Only requests, subscriptions and events have any.
    pub(super) meta: Bytes,
    pub(crate) payload: Bytes,
    /// Of a body that goes on: all that came of it, if this part was read where it is collected ([`Input::lend`]) or is a
    /// large beginning. The payload itself is empty then.
    pub(super) body: Option<Vec<u8>>,
    /// Of a SEGMENT: its descriptor.
    pub(super) fd: Option<OwnedFd>,
}

/// What came and was not cut yet.
#[derive(Debug)]
pub(crate) struct Input {
    buffer: Vec<u8>,
    /// Where in the buffer the next frame begins.
    start: usize,
    /// A frame whose payload is being read into a buffer of its own.
    large: Option<Large>,
    /// Whether the last frame was such a one.
    was_large: bool,
    /// Whether descriptors may come: until then they are not even looked for, which would cost each read a little.
    takes_descriptors: bool,
    /// Those whose frames have not been taken.
    descriptors: VecDeque<OwnedFd>,
    /// A frame is there whose descriptor is not.
    misses_descriptor: bool,
}

#[derive(Debug)]
struct Large {
    header: Header,
    meta: Bytes,
    /// Somebody's body, or nothing, and what came of the payload.
    into: Vec<u8>,
    /// The length of `into` when the payload is whole.
    whole: usize,
    is_lent: bool,
    /// Whether a body could still be lent: nothing was read from the socket yet.
    is_new: bool,
}

/// What a read found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Read {
    Some,
    /// Nothing is there now.
    Empty,
    /// The other side has closed.
    End,
}

impl Input {
    /// `first` came behind the reply to the upgrade.
    pub(crate) fn new(first: &[u8]) -> Self {
        Self {
            buffer: first.to_vec(),
            start: 0,
            large: None,
            was_large: false,
            takes_descriptors: false,
            descriptors: VecDeque::new(),
            misses_descriptor: false,
        }
    }

    /// Descriptors may come from now on.
    pub(super) fn take_descriptors(&mut self) {
        self.takes_descriptors = true;
    }

    /// The next whole frame, if it has come.
    ///
    /// # Errors
    /// Names the rule that was broken; nothing after it can be understood.
    pub(super) fn next(&mut self) -> Result<Option<Next>, Broken> {
        if let Some(mut large) = self.large.take() {
            if large.into.len() < large.whole {
                let ask = std::mem::replace(&mut large.is_new, false) && large.header.kind == Kind::Data;
                let header = large.header;
                self.large = Some(large);
                return Ok(ask.then_some(Next::Part(header)));
            }
            self.was_large = true;
            let Large { header, meta, into, is_lent, .. } = large;
            let begins = !header.end && matches!(header.kind, Kind::Request | Kind::Reply);
            let (payload, body) = if is_lent || begins { (Bytes::new(), Some(into)) } else { (into.into(), None) };
            return Ok(Some(Next::Frame(Frame { header, meta, payload, body, fd: None })));
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
        let fd = if header.fd && header.kind == Kind::Segment {
            let fd = self.descriptors.pop_front();
            if fd.is_none() && !self.takes_descriptors {
                return Err(Broken("a segment that nobody has asked for".into()));
            }
            // Beside the rings it is fetched, and elsewhere it should have come.
            self.misses_descriptor = fd.is_none();
            if self.misses_descriptor {
                return Ok(None);
            }
            fd
        } else {
            None
        };
        let meta = Bytes::copy_from_slice(&rest[HEADER_BYTES..beginning]);
        if !is_large {
            let payload = Bytes::copy_from_slice(&rest[beginning..whole]);
            self.start += whole;
            self.was_large = false;
            return Ok(Some(Next::Frame(Frame { header, meta, payload, body: None, fd })));
        }
        let there = rest.len().min(whole);
        let more = usize::try_from(header.rest_bytes).unwrap_or(usize::MAX).min(TRUSTED_BYTES);
        // A part may be lent a body; room for one that is not is made when it is read.
        let room = if header.kind == Kind::Data { there - beginning } else { header.payload_bytes + more };
        let mut into = Vec::with_capacity(room);
        into.extend_from_slice(&rest[beginning..there]);
        self.start += there;
        let whole = header.payload_bytes;
        self.large = Some(Large { header, meta, into, whole, is_lent: false, is_new: true });
        self.next()
    }

    /// Reads the part that [`Input::next`] told of behind `body`.
    pub(super) fn lend(&mut self, mut body: Vec<u8>) {
        let Some(large) = &mut self.large else { return };
        // At least doubled, as it would be otherwise: parts come many times.
        body.reserve(large.header.payload_bytes);
        large.whole = body.len() + large.header.payload_bytes;
        body.append(&mut large.into);
        (large.into, large.is_lent) = (body, true);
    }

    /// Reads once what is there now.
    pub(crate) fn read_from(&mut self, pipe: &Pipe) -> io::Result<Read> {
        if std::mem::take(&mut self.misses_descriptor) {
            let missing = || io::Error::new(io::ErrorKind::InvalidData, "a segment without a descriptor");
            self.descriptors.push_back(pipe.descriptor().ok_or_else(missing)?);
            return Ok(Read::Some);
        }
        if self.start > 0 {
            // What is left of a frame is short: longer ones have a buffer of their own.
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        let read = match &mut self.large {
            // No further than the payload: behind it, in this buffer, more of the same body will be.
            Some(large) => {
                let missing = large.whole - large.into.len();
                large.into.reserve_exact(missing);
                pipe.receive(&mut large.into, missing)?
            }
            // Within a payload no descriptor is taken: the next frame begins behind it.
            None if self.takes_descriptors && pipe.rings().is_none() => {
                pipe.receive_with(&mut self.buffer, LENDER_READ_BYTES, &mut self.descriptors)?
            }
            None if self.was_large => {
                self.buffer.reserve(HEAD_BYTES);
                pipe.receive(&mut self.buffer, HEAD_BYTES)?
            }
            None => {
                self.buffer.reserve(READ_BYTES);
                let room = self.buffer.capacity() - self.buffer.len();
                pipe.receive(&mut self.buffer, room)?
            }
        };
        Ok(match read {
            None => Read::Empty,
            Some(0) => Read::End,
            Some(_) => Read::Some,
        })
    }

    /// As [`Input::next`], for whoever lends nothing.
    #[cfg(test)]
    pub(crate) fn next_frame(&mut self) -> Result<Option<Frame>, Broken> {
        match self.next()? {
            Some(Next::Part(_)) => self.next_frame(),
            Some(Next::Frame(Frame { body: Some(body), header, meta, fd, .. })) => {
                Ok(Some(Frame { header, meta, payload: body.into(), body: None, fd }))
            }
            Some(Next::Frame(frame)) => Ok(Some(frame)),
            None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;

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
            let ours = Pipe::new(Arc::new(ours), None);
            let (mut input, mut found) = (Input::new(&[]), Vec::new());
            for piece in stream.chunks(step) {
                theirs.write_all(piece).unwrap();
                while input.read_from(&ours).unwrap() == Read::Some {
                    while let Some(frame) = input.next_frame().unwrap() {
                        found.push(frame);
                    }
                }
            }
            assert_eq!(found.len(), bodies.len(), "step {step}");
            for (id, (frame, body)) in found.iter().zip(&bodies).enumerate() {
                assert_eq!((frame.header.id, &frame.meta[..]), (id as u64, &[200, 0, 0, 0][..]));
                assert!(frame.payload == body[..], "step {step}, frame {id}");
            }
            assert!(input.next_frame().unwrap().is_none());
            drop(theirs);
            assert_eq!(input.read_from(&ours).unwrap(), Read::End);
        }
    }

    /// Wherever it is cut, a body that is lent for each of its parts comes back whole.
    #[test]
    fn parts_are_read_behind_the_body_that_is_lent() {
        let body: Vec<_> = (0..200_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        let parts: Vec<_> = body.chunks(70_000).collect();
        let stream: Vec<_> =
            parts.iter().flat_map(|part| [frame(1, &[], part), frame(2, &[], b"x")].concat()).collect();
        for step in [1, 31, 1_000, 70_001, stream.len()] {
            let (mut theirs, ours) = UnixStream::pair().unwrap();
            let ours = Pipe::new(Arc::new(ours), None);
            let (mut input, mut collected, mut others) = (Input::new(&[]), Vec::with_capacity(300_000), 0);
            for piece in stream.chunks(step) {
                theirs.write_all(piece).unwrap();
                while input.read_from(&ours).unwrap() == Read::Some {
                    while let Some(next) = input.next().unwrap() {
                        match next {
                            Next::Part(header) => {
                                assert_eq!((header.id, header.kind), (1, Kind::Data));
                                input.lend(std::mem::take(&mut collected));
                            }
                            Next::Frame(Frame { body: Some(body), .. }) => collected = body,
                            Next::Frame(Frame { payload, .. }) => others += payload.len(),
                        }
                    }
                }
            }
            assert!(collected == body, "step {step}");
            assert_eq!(others, parts.len());
        }
    }

    #[test]
    fn what_came_with_the_upgrade_counts() {
        let mut input = Input::new(&[frame(1, &[], b"a"), frame(2, &[], b"b")].concat());
        assert_eq!(input.next_frame().unwrap().unwrap().payload, "a");
        assert_eq!(input.next_frame().unwrap().unwrap().header.id, 2);
        assert!(input.next_frame().unwrap().is_none());
    }
}
