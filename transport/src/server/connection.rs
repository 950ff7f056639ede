//! One connection: request, answer, request, answer.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

use super::reply::{self, Reply};
use super::{Handler, ServerBody, ServerHead, ServerLimits, ServerRequest, ServerResponse, stopped};
use crate::http::body::{Collector, Decoder, Refused};
use crate::http::head::{self, Fields, HeadEnd, Length};
use crate::http::write::{Announce, response_head};
use crate::http::{self, MAX_HEAD_BYTES, Malformed, READ_BYTES};
use crate::peer::Peer;

/// After an answer to a request that was not read whole, this much of the rest is read for at most this long, so that
/// a caller that is still writing gets to read the answer instead of an error.
const LINGER_BYTES: usize = 1024 * 1024;
pub(super) const LINGER: Duration = Duration::from_secs(1);

/// The connection is to be closed, and there is nothing left to say.
pub(super) struct Over;

pub(super) struct Connection<H: Handler> {
    pub(super) stream: UnixStream,
    /// Bytes that were read and are not used yet; at the end of a request, the beginning of the next.
    pub(super) input: BytesMut,
    /// The buffer for heads of replies, kept from one to the next.
    pub(super) output: Vec<u8>,
    peer: Peer,
    number: u64,
    pub(super) handler: Arc<H>,
    pub(super) limits: ServerLimits,
    pub(super) stop: watch::Receiver<bool>,
}

pub(super) async fn run<H: Handler>(
    stream: UnixStream,
    peer: Peer,
    number: u64,
    handler: Arc<H>,
    limits: ServerLimits,
    stop: watch::Receiver<bool>,
) {
    let input = BytesMut::with_capacity(READ_BYTES);
    let mut connection = Connection { stream, input, output: Vec::new(), peer, number, handler, limits, stop };
    while let Ok(()) = connection.serve_one().await {}
}

impl<H: Handler> Drop for Connection<H> {
    fn drop(&mut self) {
        self.handler.finished(&self.peer, self.number);
    }
}

impl<H: Handler> Connection<H> {
    /// Answers one request; an error when there is not to be another.
    async fn serve_one(&mut self) -> Result<(), Over> {
        let (head, length, expects_continue, close) = match self.read_head().await? {
            Ok(parsed) => self.split(parsed),
            Err(Malformed(why)) => return self.refuse(self.handler.bad_request(None, why), false).await,
        };
        let (http10, bodiless) = (head.http10, head.method == "HEAD");
        if !bodiless && self.handler.is_streamed(&head) {
            return self.serve_streamed(head, length, expects_continue, close).await;
        }
        let request = match self.read_body(head, length, expects_continue).await? {
            Ok(request) => request,
            Err(response) => return self.refuse(response, bodiless).await,
        };

        let handler = Arc::clone(&self.handler);
        let response = tokio::select! {
            biased;
            response = handler.handle(request) => response,
            () = caller_left(&self.stream, &mut self.input) => return Err(Over),
        };
        if matches!(response.body, ServerBody::Upgrade(_)) {
            return self.upgrade(response).await;
        }
        let close = close || http10 || response.close || *self.stop.borrow();
        self.reply(response, Reply { http10, bodiless, close }).await.map_err(|_| Over)?;
        if close { Err(Over) } else { Ok(()) }
    }

    /// Waits for ever for the first byte of a head, and for `head_timeout` for the rest.
    async fn read_head(&mut self) -> Result<Result<head::RequestHead, Malformed>, Over> {
        let mut end = HeadEnd::default();
        let (mut deadline, mut skipped) = (None, false);
        loop {
            if !skipped && self.input.starts_with(b"\r\n") {
                // One empty line before a request is what some clients put after a body.
                self.input.advance(2);
                (skipped, deadline, end) = (true, None, HeadEnd::default());
            }
            match end.find(&self.input) {
                Ok(None) => {}
                Ok(Some(length)) => {
                    let parsed = head::parse_request(&self.input[..length]);
                    self.input.advance(length);
                    return Ok(parsed);
                }
                Err(malformed) => return Ok(Err(malformed)),
            }
            let count = if self.input.is_empty() {
                tokio::select! {
                    biased;
                    count = read(&mut self.stream, &mut self.input) => count,
                    () = stopped(&mut self.stop) => return Err(Over),
                }
            } else {
                let deadline = *deadline.get_or_insert_with(|| Instant::now() + self.limits.head_timeout);
                match timeout_at(deadline, read(&mut self.stream, &mut self.input)).await {
                    Ok(count) => count,
                    Err(_) => {
                        let why = format!("the head took longer than {:?}", self.limits.head_timeout);
                        return Ok(Err(Malformed(why)));
                    }
                }
            };
            if !matches!(count, Ok(1..)) {
                return Err(Over);
            }
        }
    }

    fn split(&self, parsed: head::RequestHead) -> (ServerHead, Length, bool, bool) {
        let head::RequestHead { method, target, http10, fields } = parsed;
        let Fields { list: headers, length, close, expects_continue } = fields;
        let (peer, connection) = (self.peer.clone(), self.number);
        let head = ServerHead { method, target, http10, headers, peer, connection, received: Instant::now() };
        (head, length, expects_continue && !http10, close)
    }

    /// The whole request, or the answer to one whose body is refused.
    async fn read_body(
        &mut self,
        head: ServerHead,
        length: Length,
        mut expects_continue: bool,
    ) -> Result<Result<ServerRequest, ServerResponse>, Over> {
        let mut collector = Collector::new(Decoder::new(length.of_request()), self.handler.max_body(&head));
        loop {
            match collector.absorb(&mut self.input) {
                Ok(true) => return Ok(Ok(head.with_body(collector.finish()))),
                Ok(false) => {}
                Err(Refused::TooLarge(declared)) => return Ok(Err(self.handler.too_large(&head, declared))),
                Err(Refused::Malformed(Malformed(why))) => return Ok(Err(self.handler.bad_request(Some(&head), why))),
            }
            if std::mem::take(&mut expects_continue) {
                let go_on = [&b"HTTP/1.1 100 Continue\r\n\r\n"[..], &[], &[]];
                reply::write_all(&self.stream, go_on, self.limits.write_timeout).await.map_err(|_| Over)?;
            }
            let patience = self.limits.body_timeout;
            let count = if let Some(mut room) = collector.room() {
                let count = timeout(patience, self.stream.read_buf(&mut room)).await;
                if let Ok(Ok(count)) = count {
                    collector.filled(count);
                }
                count
            } else {
                timeout(patience, read(&mut self.stream, &mut self.input)).await
            };
            match count {
                Ok(Ok(1..)) => {}
                Ok(_) => return Err(Over),
                Err(_) => {
                    let why = format!("no byte of the body came for {patience:?}");
                    return Ok(Err(self.handler.bad_request(Some(&head), why)));
                }
            }
        }
    }

    async fn reply(&mut self, mut response: ServerResponse, how: Reply) -> io::Result<()> {
        let written = response.written.take();
        let Self { stream, input, output, limits, stop, .. } = self;
        let left = caller_left(stream, input);
        reply::write(stream, left, output, response, how, limits.write_timeout, stop).await?;
        if let Some(written) = written {
            written.call();
        }
        Ok(())
    }

    /// Answers, and hands the socket over.
    async fn upgrade(&mut self, mut response: ServerResponse) -> Result<(), Over> {
        let body = std::mem::replace(&mut response.body, ServerBody::Full(Bytes::new()));
        let ServerBody::Upgrade(upgrade) = body else { return Err(Over) };
        response_head(&mut self.output, &response, Announce::Nothing, false);
        reply::write_all(&self.stream, [&self.output, &[], &[]], self.limits.write_timeout).await.map_err(|_| Over)?;
        // Another descriptor of the same socket: ours leaves the runtime when this connection is dropped.
        if let Ok(socket) = self.stream.as_fd().try_clone_to_owned() {
            upgrade.call(socket.into(), self.input.to_vec(), self.peer.clone());
        }
        Err(Over)
    }

    /// Answers a request that was not read whole, and closes.
    pub(super) async fn refuse(&mut self, response: ServerResponse, bodiless: bool) -> Result<(), Over> {
        let how = Reply { http10: false, bodiless, close: true };
        if self.reply(response, how).await.is_ok() && self.stream.shutdown().await.is_ok() {
            let _ = timeout(LINGER, self.linger()).await;
        }
        Err(Over)
    }

    pub(super) async fn linger(&mut self) {
        let mut drained = 0;
        while drained < LINGER_BYTES {
            self.input.clear();
            match read(&mut self.stream, &mut self.input).await {
                Ok(count @ 1..) => drained += count,
                _ => return,
            }
        }
    }
}

/// Reads once. 0 is the end of the stream.
async fn read(stream: &mut UnixStream, input: &mut BytesMut) -> io::Result<usize> {
    http::make_room(input);
    stream.read_buf(input).await
}

/// Returns when the caller has closed the connection or its writing half. Bytes of a next request are kept, up to a
/// bound behind which nobody looks.
pub(super) async fn caller_left(stream: &UnixStream, input: &mut BytesMut) {
    while input.len() < MAX_HEAD_BYTES {
        http::make_room(input);
        match stream.try_read_buf(input) {
            Ok(1..) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if stream.readable().await.is_err() {
                    return;
                }
            }
            _ => return,
        }
    }
    std::future::pending().await
}
