//! Reads bodies: by length, in chunks, or until the connection ends. Memory grows with what was received.

use bytes::buf::Limit;
use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{MAX_HEAD_BYTES, Malformed, READ_BYTES};

/// The longest line before a chunk: its size, and extensions that nobody reads.
const MAX_CHUNK_LINE_BYTES: usize = 1024;

/// What is allocated for a body of which nothing has arrived yet, at most.
const FIRST_BYTES: usize = 64 * 1024;

/// How a body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    Exact(u64),
    Chunked,
    /// Replies only.
    #[cfg_attr(not(feature = "client"), expect(dead_code))]
    UntilClose,
}

/// Takes the framing off a body, piece by piece.
#[derive(Debug)]
pub(crate) struct Decoder(State);

#[derive(Debug)]
enum State {
    Exact { left: u64 },
    UntilClose,
    ChunkLine,
    Chunk { left: u64 },
    ChunkEnd,
    Trailers { seen: usize },
    Done,
}

/// What comes next in the input.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// This many bytes of the body follow without framing between them, or all until the connection ends.
    Data(u64),
    /// The input ends within the framing.
    More,
    /// The body is whole.
    End,
}

impl Decoder {
    pub(crate) fn new(framing: Framing) -> Self {
        Self(match framing {
            Framing::Exact(left) => State::Exact { left },
            Framing::Chunked => State::ChunkLine,
            Framing::UntilClose => State::UntilClose,
        })
    }

    /// Removes framing from the front of `input` and tells what follows. Bytes of the body are the caller's to remove,
    /// who tells so with [`Decoder::took`].
    pub(crate) fn next(&mut self, input: &mut BytesMut) -> Result<Next, Malformed> {
        loop {
            self.0 = match self.0 {
                State::Exact { left: 0 } | State::Done => return Ok(Next::End),
                State::Exact { left } => return Ok(Next::Data(left)),
                State::UntilClose => return Ok(Next::Data(u64::MAX)),
                State::Chunk { left: 0 } => State::ChunkEnd,
                State::Chunk { left } => return Ok(Next::Data(left)),
                State::ChunkLine => match take_line(input, MAX_CHUNK_LINE_BYTES, chunk_size)? {
                    None => return Ok(Next::More),
                    Some(0) => State::Trailers { seen: 0 },
                    Some(left) => State::Chunk { left },
                },
                State::ChunkEnd => match take_line(input, 2, |line| Ok(line.is_empty()))? {
                    None => return Ok(Next::More),
                    Some(true) => State::ChunkLine,
                    Some(false) => return Malformed::because("a chunk is longer than its size"),
                },
                State::Trailers { seen } => match take_line(input, MAX_HEAD_BYTES - seen, |line| Ok(line.len()))? {
                    None => return Ok(Next::More),
                    Some(0) => State::Done,
                    Some(length) => State::Trailers { seen: seen + length + 2 },
                },
            }
        }
    }

    /// `count` bytes of the body, at most what [`Decoder::next`] announced, were taken from the stream.
    pub(crate) fn took(&mut self, count: usize) {
        if let State::Exact { left } | State::Chunk { left } = &mut self.0 {
            *left = left.saturating_sub(count as u64);
        }
    }

    /// Whether the end of the connection is the end of this body.
    pub(crate) fn ends_with_connection(&self) -> bool {
        matches!(self.0, State::UntilClose)
    }

    /// Bytes of the body that follow for sure without framing between them.
    fn run(&self) -> u64 {
        match self.0 {
            State::Exact { left } | State::Chunk { left } => left,
            State::UntilClose => u64::MAX,
            State::ChunkLine | State::ChunkEnd | State::Trailers { .. } | State::Done => 0,
        }
    }
}

/// Removes one line and its CR LF from `input` and reads it; `None` if it is not whole yet.
fn take_line<T>(
    input: &mut BytesMut,
    limit: usize,
    read: impl FnOnce(&[u8]) -> Result<T, Malformed>,
) -> Result<Option<T>, Malformed> {
    let within = &input[..input.len().min(limit)];
    let Some(end) = within.iter().position(|byte| *byte == b'\n') else {
        return if input.len() < limit { Ok(None) } else { Malformed::because("a line of a chunked body is too long") };
    };
    let Some(line) = within[..end].strip_suffix(b"\r") else {
        return Malformed::because("a line of a chunked body ends in a bare line feed");
    };
    let value = read(line)?;
    input.advance(end + 1);
    Ok(Some(value))
}

fn chunk_size(line: &[u8]) -> Result<u64, Malformed> {
    let digits = line.iter().position(|byte| !byte.is_ascii_hexdigit()).unwrap_or(line.len());
    let (size, rest) = line.split_at(digits);
    let extension = rest.trim_ascii_start();
    if !(extension.is_empty() && rest.is_empty() || extension.starts_with(b";")) || rest.contains(&b'\r') {
        return Malformed::because("a chunk size that is not a hexadecimal number");
    }
    let size = std::str::from_utf8(size).ok().filter(|size| size.len() <= 16);
    let size = size.and_then(|size| u64::from_str_radix(size, 16).ok());
    size.ok_or_else(|| Malformed("a chunk size that is not a hexadecimal number of 1 to 16 digits".to_owned()))
}

/// Why a body was refused.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    Malformed(Malformed),
    /// It has, or has declared, this many bytes, which is more than the limit.
    TooLarge(u64),
}

impl From<Malformed> for Refused {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

/// Gathers a whole body of at most `max` bytes in one buffer.
#[derive(Debug)]
pub(crate) struct Collector {
    decoder: Decoder,
    bytes: Vec<u8>,
    max: usize,
}

impl Collector {
    pub(crate) fn new(decoder: Decoder, max: usize) -> Self {
        Self { decoder, bytes: Vec::new(), max }
    }

    /// Moves what it can from `input` into the body; true when the body is whole.
    pub(crate) fn absorb(&mut self, input: &mut BytesMut) -> Result<bool, Refused> {
        loop {
            let run = match self.decoder.next(input)? {
                Next::End => return Ok(true),
                Next::More => return Ok(false),
                Next::Data(run) => run,
            };
            let piece = input.len().min(usize::try_from(run).unwrap_or(usize::MAX));
            self.refuse_beyond_max(if self.decoder.ends_with_connection() { piece as u64 } else { run })?;
            if piece == 0 {
                return Ok(false);
            }
            if self.bytes.is_empty() && !matches!(self.decoder.0, State::Exact { .. }) {
                // A reply in one small chunk is the usual case.
                self.bytes.reserve_exact(piece);
            }
            self.grow(piece);
            self.bytes.extend_from_slice(&input[..piece]);
            input.advance(piece);
            self.decoder.took(piece);
        }
    }

    /// Where the next bytes of the stream can be read to directly, if many of them belong to the body for sure and
    /// `absorb` has emptied the input. Tell [`Collector::filled`] how many were read.
    pub(crate) fn room(&mut self) -> Option<Limit<&mut Vec<u8>>> {
        let left = usize::try_from(self.decoder.run()).unwrap_or(usize::MAX).min(self.max - self.bytes.len());
        if left < READ_BYTES {
            return None;
        }
        self.grow(1);
        let spare = self.bytes.capacity() - self.bytes.len();
        Some((&mut self.bytes).limit(left.min(spare)))
    }

    pub(crate) fn filled(&mut self, count: usize) {
        self.decoder.took(count);
    }

    #[cfg(feature = "client")]
    pub(crate) fn max(&self) -> usize {
        self.max
    }

    /// Whether the end of the connection makes the body whole.
    #[cfg(feature = "client")]
    pub(crate) fn ends_with_connection(&self) -> bool {
        self.decoder.ends_with_connection()
    }

    pub(crate) fn finish(mut self) -> Bytes {
        self.bytes.shrink_to_fit();
        Bytes::from(self.bytes)
    }

    fn refuse_beyond_max(&self, coming: u64) -> Result<(), Refused> {
        let total = (self.bytes.len() as u64).saturating_add(coming);
        if total > self.max as u64 { Err(Refused::TooLarge(total)) } else { Ok(()) }
    }

    fn grow(&mut self, wanted: usize) {
        let received = self.bytes.len();
        if self.bytes.capacity() - received >= wanted {
            return;
        }
        let total = match self.decoder.0 {
            State::Exact { left } => usize::try_from(left).unwrap_or(usize::MAX).saturating_add(received),
            _ => self.max,
        };
        let capacity = next_capacity(received, total).max(received + wanted);
        self.bytes.reserve_exact(capacity - received);
    }
}

/// How large the buffer of a body of up to `total` bytes should become when `received` have arrived.
///
/// The steps are `total` divided by powers of 16. So the last copy is of a sixteenth of the body, and body and copy
/// together stay close to `total`, where doubling would need half as much again; what is allocated and not yet received
/// is never touched and costs no memory.
fn next_capacity(received: usize, total: usize) -> usize {
    let mut capacity = total;
    while capacity > FIRST_BYTES && capacity / 16 > received {
        capacity /= 16;
    }
    capacity.max(FIRST_BYTES.min(total))
}

#[cfg(test)]
#[cfg(feature = "client")]
mod tests;
