//! Reads a body piece by piece from a socket, each into a buffer that is used again.

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use goplug_pconf_schema::wire::frame::MAX_PAYLOAD_BYTES;
use tokio::net::UnixStream;

use super::body::{Decoder, Framing, Next};
use super::{Malformed, make_room};
use crate::pool::Pool;

/// One read for the framing between two pieces: what of a piece came with it is copied.
const HEAD_BYTES: usize = 1024;
/// From here on a piece is read into a buffer of its own.
const LARGE_BYTES: u64 = 8 * 1024;

/// A body on its way in.
#[derive(Debug)]
pub(crate) struct Pieces {
    decoder: Decoder,
    pool: Pool,
}

/// What was read.
#[derive(Debug)]
pub(crate) enum Piece {
    Bytes(Bytes),
    /// The body is whole.
    End,
    /// The stream has ended, and the body is not whole.
    Cut,
    Malformed(Malformed),
}

impl Pieces {
    pub(crate) fn new(framing: Framing) -> Self {
        Self { decoder: Decoder::new(framing), pool: Pool::default() }
    }

    /// The next piece, as soon as there is one; `input` is what was read before.
    ///
    /// # Cancel safety
    /// Cancel safe: no byte is lost.
    pub(crate) async fn next(&mut self, stream: &UnixStream, input: &mut BytesMut) -> io::Result<Piece> {
        loop {
            let run = match self.decoder.next(input) {
                Err(malformed) => return Ok(Piece::Malformed(malformed)),
                Ok(Next::End) => return Ok(Piece::End),
                Ok(Next::More) => 0,
                Ok(Next::Data(run)) => run,
            };
            let there = input.len().min(usize::try_from(run).unwrap_or(usize::MAX)).min(MAX_PAYLOAD_BYTES);
            if run >= LARGE_BYTES {
                if let Some(piece) = self.large(stream, input, there, run)? {
                    return Ok(piece);
                }
            } else if there > 0 {
                let piece = Bytes::copy_from_slice(&input[..there]);
                input.advance(there);
                self.decoder.took(there);
                return Ok(Piece::Bytes(piece));
            } else {
                if run == 0 {
                    input.reserve(HEAD_BYTES)
                } else {
                    make_room(input)
                }
                let mut room = (&mut *input).limit(HEAD_BYTES.max(usize::try_from(run).unwrap_or(0)));
                match stream.try_read_buf(&mut room) {
                    Ok(0) => return Ok(self.cut()),
                    Ok(_) => continue,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
            stream.readable().await?;
        }
    }

    /// A piece of a long run: what of it is in `input`, and what the socket has now behind that. `None` when that is nothing.
    fn large(
        &mut self,
        stream: &UnixStream,
        input: &mut BytesMut,
        there: usize,
        run: u64,
    ) -> io::Result<Option<Piece>> {
        let mut buffer = self.pool.buffer();
        buffer.extend_from_slice(&input[..there]);
        input.advance(there);
        self.decoder.took(there);
        let more = usize::try_from(run).unwrap_or(usize::MAX).min(MAX_PAYLOAD_BYTES) - there;
        if more > 0 && input.is_empty() {
            match stream.try_read_buf(&mut (&mut buffer).limit(more)) {
                // The next read says so again.
                Ok(0) if there > 0 => {}
                Ok(0) => return Ok(Some(self.cut())),
                Ok(count) => self.decoder.took(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // What came before is still good; the next read fails again.
                Err(_) if there > 0 => {}
                Err(error) => return Err(error),
            }
        }
        let piece = self.pool.wrap(buffer);
        Ok((!piece.is_empty()).then_some(Piece::Bytes(piece)))
    }

    fn cut(&self) -> Piece {
        if self.decoder.ends_with_connection() { Piece::End } else { Piece::Cut }
    }
}
