//! A request whose body goes piece by piece, and its reply: two halves, each for one direction. The connection serves nothing
//! else and ends with them.

use std::future::poll_fn;
use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use super::{Connection, MAX_INTERIM_REPLIES, ReplyHead, Request};
use crate::error::{Error, ErrorKind};
use crate::http::head::{self, HeadEnd};
use crate::http::pieces::{Piece, Pieces};
use crate::http::write::{chunk_line, chunked_request_head};
use crate::http::{Malformed, make_room};
use crate::send::poll_send;

/// The way out: the body of a request. Dropping it before [`RequestBody::finish`] closes this direction, which cancels the
/// request.
#[derive(Debug)]
pub struct RequestBody {
    /// Taken by the drop alone.
    socket: Option<OwnedWriteHalf>,
    line: Vec<u8>,
    /// The other side reads no more: what is sent is dropped, and the reply tells why.
    is_broken: bool,
    /// A piece is partly written.
    is_torn: bool,
    is_finished: bool,
}

/// The way back: the reply. Dropping it ends both directions.
#[derive(Debug)]
pub struct ReplyBody {
    socket: OwnedReadHalf,
    input: BytesMut,
    method: String,
    pieces: Option<Pieces>,
}

impl Connection {
    /// Sends the head of a request whose body follows in chunks; [`Request::body`] is not used.
    ///
    /// # Errors
    /// Any [`ErrorKind`] but those of connecting.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection; the request has not run, because its body never came.
    pub async fn stream(self, request: &Request<'_>) -> Result<(RequestBody, ReplyBody), Error> {
        if !self.reusable || !self.input.is_empty() {
            return Err(Error::new(ErrorKind::Closed, false, "the connection cannot take another request"));
        }
        let mut line = Vec::new();
        if let Err(Malformed(why)) = chunked_request_head(&mut line, request) {
            return Err(Error::new(ErrorKind::Protocol, false, format!("request cannot be sent: {why}")));
        }
        let (read, socket) = self.stream.into_split();
        let mut sending = RequestBody {
            socket: Some(socket),
            line: Vec::new(),
            is_broken: false,
            is_torn: false,
            is_finished: false,
        };
        if let Err(error) = sending.write([&line, &[], &[]]).await {
            return Err(Error { sent: false, ..error });
        }
        let method = request.method.to_owned();
        Ok((sending, ReplyBody { socket: read, input: self.input, method, pieces: None }))
    }
}

impl RequestBody {
    /// Sends the next piece; waits while the other side does not read. A side that reads no more may have answered: that is no
    /// error here, and the piece is dropped.
    ///
    /// # Errors
    /// [`ErrorKind::Io`], and [`ErrorKind::Closed`] after a future was dropped.
    ///
    /// # Cancel safety
    /// Not cancel safe: dropping the future leaves a request that can only be dropped.
    pub async fn send(&mut self, piece: &[u8]) -> Result<(), Error> {
        if piece.is_empty() {
            return Ok(());
        }
        let mut line = std::mem::take(&mut self.line);
        chunk_line(&mut line, piece.len());
        let written = self.write([&line, piece, b"\r\n"]).await;
        self.line = line;
        written
    }

    /// The body is whole. This direction stays open: closing it would cancel the request.
    ///
    /// # Errors
    /// As [`RequestBody::send`].
    ///
    /// # Cancel safety
    /// As [`RequestBody::send`].
    pub async fn finish(&mut self) -> Result<(), Error> {
        self.write([b"0\r\n\r\n", &[], &[]]).await?;
        self.is_finished = true;
        Ok(())
    }

    async fn write(&mut self, parts: [&[u8]; 3]) -> Result<(), Error> {
        if std::mem::replace(&mut self.is_torn, true) {
            return Err(Error::new(ErrorKind::Closed, true, "a piece before this one was given up"));
        }
        let mut slices = parts.map(IoSlice::new);
        let mut rest = &mut slices[..];
        // Drops the empty parts, so that nothing left means nothing to write.
        IoSlice::advance_slices(&mut rest, 0);
        let Some(socket) = &self.socket else { return Ok(()) };
        while !rest.is_empty() && !self.is_broken {
            match poll_fn(|cx| poll_send(socket.as_ref(), cx, rest)).await {
                Ok(0) => self.is_broken = true,
                Ok(count) => IoSlice::advance_slices(&mut rest, count),
                Err(error) => match error.raw_os_error() {
                    Some(libc::EPIPE | libc::ECONNRESET) => self.is_broken = true,
                    _ => return Err(Error::from_io(&error, true, "write to the plugin")),
                },
            }
        }
        self.is_torn = false;
        Ok(())
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if let Some(socket) = self.socket.take_if(|_| self.is_finished) {
            // Without the end of this direction, which would cancel the request.
            socket.forget();
        }
    }
}

impl Drop for ReplyBody {
    fn drop(&mut self) {
        // A failure means that it is closed already.
        _ = rustix::net::shutdown(self.socket.as_ref(), rustix::net::Shutdown::Both);
    }
}

impl ReplyBody {
    /// Waits for the head of the reply, which may come before the request is whole. To be called once, before
    /// [`ReplyBody::next`].
    ///
    /// # Errors
    /// [`ErrorKind::Closed`], [`ErrorKind::Protocol`] or [`ErrorKind::Io`].
    ///
    /// # Cancel safety
    /// Cancel safe: no byte is lost.
    pub async fn head(&mut self) -> Result<ReplyHead, Error> {
        for _ in 0..=MAX_INTERIM_REPLIES {
            let mut end = HeadEnd::default();
            let length = loop {
                head::check_start_of_reply(&self.input).map_err(refuse)?;
                if let Some(length) = end.find(&self.input).map_err(refuse)? {
                    break length;
                }
                if self.fill().await? == 0 {
                    return Err(closed(if self.input.is_empty() { "before its reply" } else { "within a head" }));
                }
            };
            let parsed = head::parse_reply(&self.input[..length]).map_err(refuse)?;
            self.input.advance(length);
            if parsed.status == 101 {
                return Err(refuse(Malformed("a switch of protocols that nobody asked for".to_owned())));
            }
            if parsed.status >= 200 {
                self.pieces = Some(Pieces::new(parsed.fields.length.of_reply(&self.method, parsed.status)));
                let head::ReplyHead { status, reason, fields, .. } = parsed;
                return Ok(ReplyHead { status, reason, headers: fields.list });
            }
        }
        Err(refuse(Malformed(format!("more than {MAX_INTERIM_REPLIES} interim replies"))))
    }

    /// The next piece of the reply, as it came; `None` when it is whole.
    ///
    /// # Errors
    /// As [`ReplyBody::head`].
    ///
    /// # Cancel safety
    /// Cancel safe: no byte is lost.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let Some(pieces) = &mut self.pieces else { return Ok(None) };
        let failed = |error| Error::from_io(&error, true, "read from the plugin");
        match pieces.next(self.socket.as_ref(), &mut self.input).await.map_err(failed)? {
            Piece::Bytes(piece) => Ok(Some(piece)),
            Piece::End => Ok(None),
            Piece::Cut => Err(closed("within the body of its reply")),
            Piece::Malformed(malformed) => Err(refuse(malformed)),
        }
    }

    /// The rest of the reply, at most `max` bytes of it.
    ///
    /// # Errors
    /// As [`ReplyBody::head`], and [`ErrorKind::TooLarge`].
    ///
    /// # Cancel safety
    /// Not cancel safe: what was read is lost.
    pub async fn rest(&mut self, max: usize) -> Result<Bytes, Error> {
        let mut all = BytesMut::new();
        while let Some(piece) = self.next().await? {
            if all.len() + piece.len() > max {
                return Err(Error::new(ErrorKind::TooLarge, true, format!("reply is longer than {max} bytes")));
            }
            all.extend_from_slice(&piece);
        }
        Ok(all.freeze())
    }

    async fn fill(&mut self) -> Result<usize, Error> {
        let failed = |error| Error::from_io(&error, true, "read from the plugin");
        loop {
            make_room(&mut self.input);
            match self.socket.try_read_buf(&mut self.input) {
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                read => return read.map_err(failed),
            }
            self.socket.readable().await.map_err(failed)?;
        }
    }
}

fn closed(when: &str) -> Error {
    Error::new(ErrorKind::Closed, true, format!("the plugin closed the connection {when}"))
}

fn refuse(Malformed(why): Malformed) -> Error {
    Error::new(ErrorKind::Protocol, true, format!("reply is not valid HTTP/1.1: {why}"))
}
