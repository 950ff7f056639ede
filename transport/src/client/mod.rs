//! The registry's side of a connection: one request at a time, no task behind it.

mod connect;
mod message;
mod outgoing;
mod streaming;

use std::path::Path;

use bytes::{Buf, Bytes, BytesMut};
use rustix::net::RecvFlags;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::time::Instant;

pub use message::{Reply, ReplyHead, Request};
pub use streaming::{ReplyBody, RequestBody};

use crate::error::{Error, ErrorKind};
use crate::http::body::{Collector, Decoder, Framing, Next, Refused};
use crate::http::head::{self, HeadEnd};
use crate::http::{self, Malformed, READ_BYTES};
use crate::peer::Peer;
use outgoing::{Outgoing, receive};

/// How many 1xx replies may come before the real one.
const MAX_INTERIM_REPLIES: usize = 16;

/// A connection to a plugin, on which one request follows the other.
///
/// It has no deadlines of its own but for [`Connection::connect`]: the caller drops the future of a request that takes
/// too long, and the connection with it, because only a reply that was read whole leaves it [reusable].
///
/// [reusable]: Connection::is_reusable
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    peer: Peer,
    input: BytesMut,
    /// The buffer for heads of requests, kept from one to the next.
    buffer: Vec<u8>,
    /// False from the first byte of a request until its reply was read whole and nothing speaks against another one.
    reusable: bool,
    /// Whether the reply that is being read lets the connection live on.
    keeps: bool,
    /// Whether the kernel took a byte of the last request.
    sent: bool,
    body: Body,
    /// Whether a reply 101 is asked for.
    upgrading: bool,
}

/// What became of [`Connection::upgrade`].
#[derive(Debug)]
pub enum Upgrade {
    /// The socket speaks the other protocol now.
    Done {
        /// The reply.
        head: ReplyHead,
        /// The socket, non-blocking.
        stream: std::os::unix::net::UnixStream,
        /// What came behind the reply.
        first: Bytes,
    },
    /// The plugin goes on with HTTP.
    Refused(ReplyHead, Connection),
}

/// The streamed body between [`Connection::open`] and its end.
#[derive(Debug)]
enum Body {
    None,
    Open(Decoder),
    Failed(Error),
}

impl Connection {
    /// Connects to the socket at `path` and asks the kernel who listens there. A full backlog is tried again until
    /// `deadline`.
    ///
    /// # Errors
    /// [`ErrorKind::Missing`], [`ErrorKind::Refused`], [`ErrorKind::Denied`], [`ErrorKind::Busy`],
    /// [`ErrorKind::Exhausted`], [`ErrorKind::Deadline`] or [`ErrorKind::Io`]; `sent` is always false.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection if there is one.
    pub async fn connect(path: &Path, deadline: Instant) -> Result<Self, Error> {
        let stream = connect::connect(path, deadline).await?;
        let peer = Peer::of(&stream).map_err(|error| Error::from_io(&error, false, "ask who listens"))?;
        Ok(Self {
            stream,
            peer,
            input: BytesMut::with_capacity(READ_BYTES),
            buffer: Vec::new(),
            reusable: true,
            keeps: false,
            sent: false,
            body: Body::None,
            upgrading: false,
        })
    }

    /// The process that listens, as the kernel named it before the first byte was sent.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Whether another request may be sent. False after an error, a dropped future, a reply that came before the
    /// request was written out, bytes beyond a reply, `Connection: close`, a reply in HTTP/1.0 or without a length.
    pub fn is_reusable(&self) -> bool {
        self.reusable
    }

    /// Whether nothing waits to be read: neither the end of the stream nor bytes that nobody asked for. To be asked
    /// before an idle connection is used again.
    pub fn is_quiet(&self) -> bool {
        let mut byte = [0; 1];
        let waiting = rustix::net::recv(&self.stream, &mut byte[..], RecvFlags::PEEK | RecvFlags::DONTWAIT);
        self.input.is_empty() && waiting == Err(rustix::io::Errno::AGAIN)
    }

    /// Waits, while no request is under way, until something can be read: the end of the stream, or bytes that nobody
    /// asked for. That is how the death of a process that is only held on to is seen.
    ///
    /// # Cancel safety
    /// Cancel safe: nothing is read.
    pub async fn disturbed(&self) {
        let peek = || match rustix::net::recv(&self.stream, &mut [0; 1][..], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
            Err(rustix::io::Errno::AGAIN) => Err(std::io::ErrorKind::WouldBlock.into()),
            _ => Ok(()),
        };
        // A readiness left over from earlier is cleared by `try_io`, so that the next wait is a real one.
        while self.input.is_empty() && self.stream.readable().await.is_ok() {
            if self.stream.try_io(Interest::READABLE, peek).is_ok() {
                return;
            }
        }
    }

    /// Sends a request and reads the whole reply, whose body may have `max_reply_bytes`.
    ///
    /// When the other side stops reading, what it has written is read on to its end, and a whole reply counts; so does
    /// one that comes before the request is written out. Interim replies (1xx) are skipped.
    ///
    /// # Errors
    /// Any [`ErrorKind`] but those of connecting. A request that cannot be written as HTTP is [`ErrorKind::Protocol`]
    /// with `sent` false and leaves the connection as it was.
    ///
    /// # Cancel safety
    /// Not cancel safe: dropping the future leaves the connection not reusable, and the request may have run.
    pub async fn exchange(&mut self, request: &Request<'_>, max_reply_bytes: usize) -> Result<Reply, Error> {
        let mut outgoing = self.begin(request)?;
        let (head, framing) = self.read_head(&mut outgoing, request.method).await?;
        let body = self.finish(outgoing, framing, max_reply_bytes).await?;
        Ok(Reply { head, body })
    }

    /// As [`Connection::exchange`]; `limit` says how many bytes the body may have once its head has come. With `None` none of it
    /// is read, no more of the request is sent, and the connection takes no other.
    ///
    /// # Errors
    /// As [`Connection::exchange`], if no head came; what went wrong behind the head is with the head.
    ///
    /// # Cancel safety
    /// Not cancel safe: dropping the future leaves the connection not reusable, and the request may have run.
    pub async fn exchange_within(
        &mut self,
        request: &Request<'_>,
        limit: impl FnOnce(&ReplyHead) -> Option<usize>,
    ) -> Result<(ReplyHead, Option<Result<Bytes, Error>>), Error> {
        let mut outgoing = self.begin(request)?;
        let (head, framing) = self.read_head(&mut outgoing, request.method).await?;
        let Some(max) = limit(&head) else { return Ok((head, None)) };
        let body = self.finish(outgoing, framing, max).await;
        Ok((head, Some(body)))
    }

    /// Sends a request and reads the head of the reply; the body follows with [`Connection::chunk`] or
    /// [`Connection::read_body`]. If the head comes before the request is written out, the rest is never sent.
    ///
    /// # Errors
    /// As [`Connection::exchange`].
    ///
    /// # Cancel safety
    /// Not cancel safe: dropping the future leaves the connection not reusable, and the request may have run.
    pub async fn open(&mut self, request: &Request<'_>) -> Result<ReplyHead, Error> {
        let mut outgoing = self.begin(request)?;
        let (head, framing) = self.read_head(&mut outgoing, request.method).await?;
        self.keeps &= outgoing.is_whole();
        self.buffer = outgoing.into_buffer();
        self.body = Body::Open(Decoder::new(framing));
        Ok(head)
    }

    /// The next piece of the body after [`Connection::open`], as it came; `None` when the body is whole.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`], [`ErrorKind::Protocol`] or [`ErrorKind::Io`]; further calls fail in the same way.
    ///
    /// # Cancel safety
    /// Cancel safe: no byte is lost.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        match &self.body {
            Body::None => return Ok(None),
            Body::Failed(error) => return Err(error.clone()),
            Body::Open(_) => {}
        }
        let piece = self.next_piece().await;
        match &piece {
            Ok(Some(_)) => {}
            Ok(None) => {
                self.body = Body::None;
                self.end(true, 0);
            }
            Err(error) => self.body = Body::Failed(error.clone()),
        }
        piece
    }

    /// The rest of the body after [`Connection::open`], at most `max` bytes of it; empty if there is none.
    ///
    /// # Errors
    /// As [`Connection::chunk`], and [`ErrorKind::TooLarge`].
    ///
    /// # Cancel safety
    /// Not cancel safe: dropping the future leaves the connection not reusable and the rest of the body lost.
    pub async fn read_body(&mut self, max: usize) -> Result<Bytes, Error> {
        let lost = Error::new(ErrorKind::Closed, self.sent, "the reply was abandoned before it was whole");
        match std::mem::replace(&mut self.body, Body::Failed(lost)) {
            Body::None => {
                self.body = Body::None;
                Ok(Bytes::new())
            }
            Body::Failed(error) => Err(error),
            Body::Open(decoder) => {
                let body = self.collect(&mut Outgoing::default(), Collector::new(decoder, max)).await?;
                self.body = Body::None;
                self.end(true, body.len());
                Ok(body)
            }
        }
    }

    /// Asks for another protocol on this connection: with the reply 101 the socket is taken out, and what came behind the
    /// reply with it. With any other reply the connection goes on, and its body is read as after [`Connection::open`].
    ///
    /// # Errors
    /// As [`Connection::open`].
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection.
    pub async fn upgrade(mut self, request: &Request<'_>) -> Result<Upgrade, Error> {
        let mut outgoing = self.begin(request)?;
        self.upgrading = true;
        let (head, framing) = self.read_head(&mut outgoing, request.method).await?;
        self.upgrading = false;
        self.keeps &= outgoing.is_whole();
        self.buffer = outgoing.into_buffer();
        if head.status != 101 {
            self.body = Body::Open(Decoder::new(framing));
            return Ok(Upgrade::Refused(head, self));
        }
        let failed = |error| Error::from_io(&error, true, "take the socket out of the runtime");
        let stream = self.stream.into_std().map_err(failed)?;
        Ok(Upgrade::Done { head, stream, first: self.input.freeze() })
    }

    fn begin<'a>(&mut self, request: &Request<'a>) -> Result<Outgoing<'a>, Error> {
        if !self.reusable || !self.input.is_empty() {
            let why = "the connection cannot take another request: the reply before was not read whole, or ended it";
            return Err(Error::new(ErrorKind::Closed, false, why));
        }
        if let Err(Malformed(why)) = http::write::request_head(&mut self.buffer, request) {
            return Err(Error::new(ErrorKind::Protocol, false, format!("request cannot be sent: {why}")));
        }
        self.reusable = false;
        self.sent = false;
        self.body = Body::None;
        Ok(Outgoing::new(std::mem::take(&mut self.buffer), request.body))
    }

    /// Reads the body behind a head, and meanwhile sends what is left of the request: whoever answers while it reads would
    /// otherwise wait for the rest.
    async fn finish(&mut self, mut outgoing: Outgoing<'_>, framing: Framing, max: usize) -> Result<Bytes, Error> {
        let body = self.collect(&mut outgoing, Collector::new(Decoder::new(framing), max)).await?;
        self.end(outgoing.is_whole(), body.len());
        self.buffer = outgoing.into_buffer();
        Ok(body)
    }

    fn end(&mut self, written: bool, body_bytes: usize) {
        self.reusable = self.keeps && written && self.input.is_empty();
        // A long body was read to its last byte and not beyond, so that what follows it is still in the socket.
        if self.reusable && body_bytes >= READ_BYTES {
            self.reusable = self.is_quiet();
        }
    }

    async fn read_head(&mut self, outgoing: &mut Outgoing<'_>, method: &str) -> Result<(ReplyHead, Framing), Error> {
        for _ in 0..=MAX_INTERIM_REPLIES {
            let mut end = HeadEnd::default();
            let length = loop {
                head::check_start_of_reply(&self.input).map_err(|malformed| self.refuse(malformed))?;
                if let Some(length) = end.find(&self.input).map_err(|malformed| self.refuse(malformed))? {
                    break length;
                }
                if self.fill(outgoing).await? == 0 {
                    return Err(self.closed(if self.input.is_empty() { "before its reply" } else { "within a head" }));
                }
            };
            let parsed = head::parse_reply(&self.input[..length]).map_err(|malformed| self.refuse(malformed))?;
            self.input.advance(length);
            if parsed.status == 101 && !self.upgrading {
                return Err(self.refuse(Malformed("a switch of protocols that nobody asked for".to_owned())));
            }
            if parsed.status >= 200 || parsed.status == 101 {
                let framing = parsed.fields.length.of_reply(method, parsed.status);
                self.keeps = !parsed.http10 && !parsed.fields.close && framing != Framing::UntilClose;
                let head::ReplyHead { status, reason, fields, .. } = parsed;
                return Ok((ReplyHead { status, reason, headers: fields.list }, framing));
            }
        }
        Err(self.refuse(Malformed(format!("more than {MAX_INTERIM_REPLIES} interim replies"))))
    }

    async fn collect(&mut self, outgoing: &mut Outgoing<'_>, mut collector: Collector) -> Result<Bytes, Error> {
        loop {
            match collector.absorb(&mut self.input) {
                Ok(true) => return Ok(collector.finish()),
                Ok(false) => {}
                Err(Refused::Malformed(malformed)) => return Err(self.refuse(malformed)),
                Err(Refused::TooLarge(length)) => return Err(self.too_large(length, collector.max())),
            }
            let count = if let Some(mut room) = collector.room() {
                let count = receive(&mut self.stream, outgoing, &mut room).await;
                let count = self.received(outgoing, count)?;
                collector.filled(count);
                count
            } else {
                self.fill(outgoing).await?
            };
            if count == 0 {
                return if collector.ends_with_connection() {
                    Ok(collector.finish())
                } else {
                    Err(self.closed("within the body of its reply"))
                };
            }
        }
    }

    async fn next_piece(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            let Body::Open(decoder) = &mut self.body else { return Ok(None) };
            match decoder.next(&mut self.input) {
                Ok(Next::End) => return Ok(None),
                Ok(Next::Data(run)) if !self.input.is_empty() => {
                    let length = self.input.len().min(usize::try_from(run).unwrap_or(usize::MAX));
                    decoder.took(length);
                    // Copied, so that a piece that is kept does not keep the whole buffer.
                    let piece = Bytes::copy_from_slice(&self.input[..length]);
                    self.input.advance(length);
                    return Ok(Some(piece));
                }
                Ok(Next::Data(_) | Next::More) => {}
                Err(malformed) => return Err(self.refuse(malformed)),
            }
            let ends = decoder.ends_with_connection();
            if self.fill(&mut Outgoing::default()).await? == 0 {
                return if ends { Ok(None) } else { Err(self.closed("within the body of its reply")) };
            }
        }
    }

    async fn fill(&mut self, outgoing: &mut Outgoing<'_>) -> Result<usize, Error> {
        http::make_room(&mut self.input);
        let count = receive(&mut self.stream, outgoing, &mut self.input).await;
        self.received(outgoing, count)
    }

    fn received(&mut self, outgoing: &Outgoing<'_>, count: std::io::Result<usize>) -> Result<usize, Error> {
        self.sent |= outgoing.has_sent();
        count.map_err(|error| Error::from_io(&error, self.sent, "exchange bytes with the plugin"))
    }

    fn closed(&self, when: &str) -> Error {
        Error::new(ErrorKind::Closed, self.sent, format!("the plugin closed the connection {when}"))
    }

    fn refuse(&self, Malformed(why): Malformed) -> Error {
        Error::new(ErrorKind::Protocol, self.sent, format!("reply is not valid HTTP/1.1: {why}"))
    }

    fn too_large(&self, length: u64, limit: usize) -> Error {
        let why = format!("reply has at least {length} bytes, the limit is {limit}");
        Error::new(ErrorKind::TooLarge, self.sent, why)
    }
}

#[cfg(test)]
#[cfg(feature = "server")]
mod tests;
