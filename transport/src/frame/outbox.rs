//! Frames on their way out: appended by whoever has something to say, written by one at a time, many in one system call.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use goplug_pconf_schema::wire::frame::{HEADER_BYTES, Header, Meta, NoticeMeta};

use super::pipe::Pipe;

/// Payloads up to this size are copied behind their headers; longer ones are written from where they are.
const COPIED_BYTES: usize = 8 * 1024;
/// Pieces in one system call.
const MAX_PIECES: usize = 64;
/// A buffer that grew beyond this in a burst is not kept.
const KEPT_BYTES: usize = 256 * 1024;

#[derive(Debug)]
enum Piece {
    /// Frames one behind the other, and how much of them was written.
    Small(Vec<u8>, usize),
    Large(Bytes),
    /// A frame whose first byte goes with a descriptor.
    WithDescriptor(Vec<u8>, Arc<OwnedFd>),
}

impl Piece {
    fn rest(&self) -> &[u8] {
        match self {
            Self::Small(bytes, written) => &bytes[*written..],
            Self::Large(bytes) => bytes,
            Self::WithDescriptor(frame, _) => frame,
        }
    }

    fn advance(&mut self, count: usize) {
        match self {
            Self::Small(_, written) => *written += count,
            Self::Large(bytes) => bytes.advance(count),
            // Not reached: it is a small one when a byte of it was sent.
            Self::WithDescriptor(..) => {}
        }
    }
}

/// A queue of bytes in the order in which they will be written.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    pieces: VecDeque<Piece>,
    /// An empty buffer, kept for the next small frame.
    spare: Vec<u8>,
    length: usize,
}

impl Outbox {
    pub(super) fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Bytes that wait.
    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// Appends a frame; the lengths in `header` are filled in here.
    pub(crate) fn push(&mut self, header: Header, meta: &Meta<'_>, payload: Bytes) {
        self.push_with(header, |to| meta.encode(to), payload);
    }

    /// As [`Outbox::push`], with metadata of a notification.
    pub(super) fn push_notice(&mut self, header: Header, meta: &NoticeMeta<'_>, payload: Bytes) {
        self.push_with(header, |to| meta.encode(to), payload);
    }

    /// As [`Outbox::push`], of a payload that somebody else keeps.
    #[cfg(feature = "client")]
    pub(super) fn push_shared(&mut self, header: Header, meta: &Meta<'_>, payload: &Bytes) {
        if payload.len() <= COPIED_BYTES {
            return self.push_copied(header, |to| meta.encode(to), payload);
        }
        self.push(header, meta, payload.clone());
    }

    /// Appends a frame of nothing but its header, with a descriptor.
    pub(super) fn push_with_descriptor(&mut self, header: Header, fd: Arc<OwnedFd>) {
        self.length += HEADER_BYTES;
        self.pieces.push_back(Piece::WithDescriptor(header.encode().to_vec(), fd));
    }

    fn push_with(&mut self, header: Header, meta: impl FnOnce(&mut Vec<u8>) -> usize, payload: Bytes) {
        if payload.len() <= COPIED_BYTES {
            return self.push_copied(header, meta, &payload);
        }
        self.push_head(header, meta, payload.len());
        self.length += payload.len();
        self.pieces.push_back(Piece::Large(payload));
    }

    fn push_copied(&mut self, header: Header, meta: impl FnOnce(&mut Vec<u8>) -> usize, payload: &[u8]) {
        self.push_head(header, meta, payload.len()).extend_from_slice(payload);
        self.length += payload.len();
    }

    /// Appends all of a frame but its payload; answers where a short one goes.
    fn push_head(
        &mut self,
        mut header: Header,
        meta: impl FnOnce(&mut Vec<u8>) -> usize,
        payload_bytes: usize,
    ) -> &mut Vec<u8> {
        header.payload_bytes = payload_bytes;
        let small = self.small();
        let start = small.len();
        small.extend_from_slice(&[0; HEADER_BYTES]);
        header.meta_bytes = meta(small);
        let end = start + HEADER_BYTES;
        small[start..end].copy_from_slice(&header.encode());
        let length = small.len() - start;
        self.length += length;
        self.small()
    }

    /// Writes as much as the pipe takes now; `Ok` with what was taken, which is less than all when it is full.
    ///
    /// # Errors
    /// As the operating system says; the connection is of no use any more. A full socket is no error.
    pub(crate) fn write_to(&mut self, pipe: &Pipe) -> io::Result<usize> {
        let mut total = 0;
        while self.length > 0 {
            let Some(sent) = self.send(pipe)? else { break };
            total += sent;
            self.took(sent);
        }
        Ok(total)
    }

    fn send(&mut self, pipe: &Pipe) -> io::Result<Option<usize>> {
        if let Some(Piece::WithDescriptor(frame, fd)) = self.pieces.front_mut() {
            let sent = pipe.send_descriptor(frame, fd)?;
            if sent.is_some() {
                let frame = std::mem::take(frame);
                self.pieces[0] = Piece::Small(frame, 0);
            }
            return Ok(sent);
        }
        // Most often: a small frame or several, for which a kilobyte of slices would be laid out in vain.
        if let (Some(piece), 1) = (self.pieces.front(), self.pieces.len()) {
            return pipe.send(&[IoSlice::new(piece.rest())]);
        }
        let mut slices = [IoSlice::new(&[]); MAX_PIECES];
        let mut count = 0;
        let first = self.pieces.iter().take_while(|piece| !matches!(piece, Piece::WithDescriptor(..)));
        for (slice, piece) in slices.iter_mut().zip(first) {
            *slice = IoSlice::new(piece.rest());
            count += 1;
        }
        pipe.send(&slices[..count])
    }

    /// Puts what is left of `earlier` in front of what was appended since.
    pub(super) fn put_back(&mut self, mut earlier: Self) {
        if earlier.is_empty() {
            if self.spare.capacity() == 0 {
                self.spare = earlier.spare;
            }
            return;
        }
        earlier.pieces.append(&mut self.pieces);
        self.pieces = earlier.pieces;
        self.length += earlier.length;
    }

    /// The buffer to which a small frame is appended.
    fn small(&mut self) -> &mut Vec<u8> {
        if !matches!(self.pieces.back(), Some(Piece::Small(..))) {
            self.pieces.push_back(Piece::Small(std::mem::take(&mut self.spare), 0));
        }
        match self.pieces.back_mut() {
            Some(Piece::Small(bytes, _)) => bytes,
            // Not reached: it was pushed above.
            _ => &mut self.spare,
        }
    }

    fn took(&mut self, mut count: usize) {
        self.length -= count;
        while let Some(piece) = self.pieces.front_mut() {
            let rest = piece.rest().len();
            if count < rest {
                piece.advance(count);
                return;
            }
            count -= rest;
            if let Some(Piece::Small(mut bytes, _)) = self.pieces.pop_front()
                && self.spare.capacity() == 0
                && bytes.capacity() <= KEPT_BYTES
            {
                bytes.clear();
                self.spare = bytes;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;

    use goplug_pconf_schema::wire::frame::{HEADER_BYTES, Kind};

    use super::*;

    /// Whatever the sizes and however little the socket takes, the bytes come out whole and in order.
    #[test]
    fn frames_leave_in_order_whatever_the_socket_takes() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let ours = Pipe::new(Arc::new(ours), None);
        theirs.set_nonblocking(true).unwrap();
        let mut outbox = Outbox::default();
        let (mut expected, mut read) = (Vec::new(), Vec::new());
        for n in 0..400_usize {
            let payload = vec![u8::try_from(n % 251).unwrap(); [0, 64, 9_000, 100_000][n % 4]];
            let header = Header { payload_bytes: payload.len(), ..Header::new(Kind::Data, n as u64) };
            expected.extend_from_slice(&header.encode());
            expected.extend_from_slice(&payload);
            outbox.push(header, &Meta::default(), payload.into());
            let mut batch = std::mem::take(&mut outbox);
            batch.write_to(&ours).unwrap();
            outbox.push(Header::new(Kind::Cancel, n as u64), &Meta::default(), Bytes::new());
            expected.extend_from_slice(&Header::new(Kind::Cancel, n as u64).encode());
            outbox.put_back(batch);
            let mut some = [0; 30_000];
            if let Ok(count) = theirs.read(&mut some) {
                read.extend_from_slice(&some[..count]);
            }
        }
        assert_eq!(outbox.len(), expected.len() - read.len() - in_flight(&mut theirs, &mut read));
        while !outbox.is_empty() {
            outbox.write_to(&ours).unwrap();
            in_flight(&mut theirs, &mut read);
        }
        in_flight(&mut theirs, &mut read);
        assert_eq!(read.len(), expected.len());
        assert!(read == expected);
        assert_eq!(HEADER_BYTES, 32);
    }

    fn in_flight(from: &mut UnixStream, read: &mut Vec<u8>) -> usize {
        let before = read.len();
        let mut some = [0; 64 * 1024];
        while let Ok(count @ 1..) = from.read(&mut some) {
            read.extend_from_slice(&some[..count]);
        }
        read.len() - before
    }
}
