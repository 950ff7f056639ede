//! What a handler is given and what it gives back.

use std::borrow::Cow;
use std::os::unix::net::UnixStream;

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::http;
use crate::peer::Peer;

/// A request before its body was read.
#[derive(Debug, Clone)]
pub struct ServerHead {
    /// The method as it was sent, such as `POST`.
    pub method: String,
    /// The request target as it was sent, still percent-encoded.
    pub target: String,
    /// Whether the caller speaks HTTP/1.0: it gets no chunks and no second request.
    pub http10: bool,
    /// The fields in their order, names in lower case; bytes that are not UTF-8 are replaced.
    pub headers: Vec<(String, String)>,
    /// Who is at the other end.
    pub peer: Peer,
    /// The number of the connection, unique in this process.
    pub connection: u64,
    /// When the head had been read to its end: a plugin counts deadlines from here.
    pub received: tokio::time::Instant,
}

/// A whole request.
#[derive(Debug, Clone)]
pub struct ServerRequest {
    /// The method as it was sent, such as `POST`.
    pub method: String,
    /// The request target as it was sent, still percent-encoded.
    pub target: String,
    /// Whether the caller speaks HTTP/1.0: it gets no chunks and no second request.
    pub http10: bool,
    /// The fields in their order, names in lower case; bytes that are not UTF-8 are replaced.
    pub headers: Vec<(String, String)>,
    /// The body, without its framing.
    pub body: Bytes,
    /// Who is at the other end.
    pub peer: Peer,
    /// The number of the connection, unique in this process.
    pub connection: u64,
    /// When the head had been read to its end: a plugin counts deadlines from here.
    pub received: tokio::time::Instant,
}

/// The body of an answer.
#[derive(Debug)]
pub enum ServerBody {
    /// All of it at once, with its length.
    Full(Bytes),
    /// Piece by piece, each written and flushed as it comes, until the sender is dropped. `Err(())` aborts: the
    /// connection is closed without the last chunk, so that the reader sees that something is missing.
    Stream(mpsc::Receiver<Result<Bytes, ()>>),
    /// As [`ServerBody::Stream`], to a reader that may take its time: one that takes no byte is waited for until it leaves.
    Endless(mpsc::Receiver<Result<Bytes, ()>>),
    /// None: with status 101 the connection passes to another protocol once the head was written.
    Upgrade(ServerUpgrade),
}

/// An answer.
#[derive(Debug)]
pub struct ServerResponse {
    /// The status, such as 200.
    pub status: u16,
    /// The reason phrase, such as `OK`; v0 clients compare it.
    pub reason: &'static str,
    /// Further fields. One that holds a line break or another control character is left out.
    pub headers: Vec<(&'static str, String)>,
    /// The value of `Content-Type`, if one is to be sent.
    pub content_type: Option<Cow<'static, str>>,
    /// The body; not sent in answer to HEAD.
    pub body: ServerBody,
    /// Whether to say `Connection: close` and to close the connection after the answer.
    pub close: bool,
    /// Called when the socket has taken the whole answer, before the connection's next request is read; dropped without
    /// a call when it has not.
    pub written: Option<Written>,
}

/// What to do once an answer was written whole: a long poll's reply is its acknowledgement.
pub struct Written(Box<dyn FnOnce() + Send>);

impl Written {
    /// Runs `act` when the answer was written whole.
    pub fn new(act: impl FnOnce() + Send + 'static) -> Self {
        Self(Box::new(act))
    }

    /// Runs it.
    pub(crate) fn call(self) {
        (self.0)();
    }
}

/// Who goes on with a connection under another protocol.
pub struct ServerUpgrade(Box<Take>);

type Take = dyn FnOnce(UnixStream, Vec<u8>, Peer) + Send;

impl ServerUpgrade {
    /// `take` is given the socket, which does not block, and what was read behind the request. It must not wait; it is
    /// dropped without a call when the head could not be written.
    pub fn new(take: impl FnOnce(UnixStream, Vec<u8>, Peer) + Send + 'static) -> Self {
        Self(Box::new(take))
    }

    /// Hands the connection over.
    pub(crate) fn call(self, stream: UnixStream, first: Vec<u8>, peer: Peer) {
        (self.0)(stream, first, peer);
    }
}

impl std::fmt::Debug for ServerUpgrade {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ServerUpgrade")
    }
}

impl std::fmt::Debug for Written {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Written")
    }
}

impl ServerHead {
    /// The value of the first field of this name, which is given in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        http::find(&self.headers, name)
    }

    pub(crate) fn with_body(self, body: Bytes) -> ServerRequest {
        let Self { method, target, http10, headers, peer, connection, received } = self;
        ServerRequest { method, target, http10, headers, body, peer, connection, received }
    }
}

impl ServerRequest {
    /// The value of the first field of this name, which is given in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        http::find(&self.headers, name)
    }
}
