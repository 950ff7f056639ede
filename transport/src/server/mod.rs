//! The plugin's side: accepts connections and turns requests into calls of a [`Handler`].

mod connection;
mod message;
mod reply;
mod streaming;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::peer::Peer;

pub use streaming::IncomingBody;

pub use message::{ServerBody, ServerHead, ServerRequest, ServerResponse, ServerUpgrade, Written};

/// How long accepting pauses after it failed, which is when no file descriptor is left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Answers requests. Everything about the bytes is done; everything about their meaning is up to the handler.
pub trait Handler: Send + Sync + 'static {
    /// How many bytes the body of this request may have. Asked before the body is read.
    fn max_body(&self, head: &ServerHead) -> usize;

    /// The answer to a body of more than [`Handler::max_body`] bytes. `declared` is the length that the head declares,
    /// or for a chunked body what its chunks had declared when they went beyond. The connection is closed afterwards.
    fn too_large(&self, head: &ServerHead, declared: u64) -> ServerResponse;

    /// The answer to bytes that are not HTTP as this crate takes it, or that came too slowly; `why` is a lowercase
    /// fragment. `head` is that of the request, if only its body is wrong. The connection is closed afterwards.
    fn bad_request(&self, head: Option<&ServerHead>, why: String) -> ServerResponse;

    /// Answers one request.
    ///
    /// # Cancel safety
    /// The future is dropped as soon as the caller's end of file is seen, also when only its writing half was closed:
    /// that is how a call is cancelled. A caller that sends more than [`MAX_HEAD_BYTES`](crate::MAX_HEAD_BYTES) of
    /// further requests before this one is answered is not heard before that.
    fn handle(&self, request: ServerRequest) -> impl Future<Output = ServerResponse> + Send;

    /// Whether this request is answered by [`Handler::handle_streamed`], before its body was read.
    fn is_streamed(&self, head: &ServerHead) -> bool {
        let _ = head;
        false
    }

    /// Answers one request whose body is read while it comes.
    ///
    /// # Cancel safety
    /// The future is dropped as soon as the caller's end of file is seen before the body is whole, or its writing half is
    /// closed after that; and when the body is not HTTP as this crate takes it, comes too slowly or is longer than
    /// [`Handler::max_body`], which its caller is told.
    fn handle_streamed(&self, head: ServerHead, body: IncomingBody) -> impl Future<Output = ServerResponse> + Send {
        let _ = body;
        self.handle(head.with_body(bytes::Bytes::new()))
    }

    /// A connection has ended, for whatever reason. Called once for each that was accepted.
    fn finished(&self, peer: &Peer, connection: u64) {
        let _ = (peer, connection);
    }
}

/// How long the server waits, and for how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerLimits {
    /// From the first byte of a head to its last. A connection without a byte of a request waits for ever: only the
    /// caller closes an idle connection.
    pub head_timeout: Duration,
    /// The longest time without a further byte of a body.
    pub body_timeout: Duration,
    /// The longest time in which the caller takes no byte of a reply, but for [`ServerBody::Endless`].
    pub write_timeout: Duration,
    /// Further connections wait in the listener's backlog.
    pub max_connections: usize,
}

impl Default for ServerLimits {
    /// 30 seconds each, 1,024 connections.
    fn default() -> Self {
        let patience = Duration::from_secs(30);
        Self { head_timeout: patience, body_timeout: patience, write_timeout: patience, max_connections: 1024 }
    }
}

/// Serves every connection to `listener` until `stop` is true or its sender is gone; returns when all have ended.
///
/// From then on nobody is accepted, idle connections are closed, and a request under way is answered with
/// `Connection: close`. A streamed body has one second to end by itself and is then aborted. How long a handler takes
/// is its own affair: whoever cannot wait drops this future, which closes all connections.
///
/// # Cancel safety
/// Dropping the future drops every handler under way.
pub async fn serve<H: Handler>(
    listener: UnixListener,
    handler: Arc<H>,
    limits: ServerLimits,
    mut stop: watch::Receiver<bool>,
) {
    static NUMBER: AtomicU64 = AtomicU64::new(1);
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stopped(&mut stop) => break,
            // A panic of a handler ends its connection only; the panic hook has reported it.
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept(), if connections.len() < limits.max_connections => accepted,
        };
        let opened = accepted.and_then(|(stream, _)| Peer::of(&stream).map(|peer| (stream, peer)));
        match opened {
            Ok((stream, peer)) => {
                let number = NUMBER.fetch_add(1, Ordering::Relaxed);
                let handler = Arc::clone(&handler);
                connections.spawn(connection::run(stream, peer, number, handler, limits, stop.clone()));
            }
            // The listener is as good as before; without a pause this loop would spin until a descriptor is free.
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Returns when the server is to stop.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error says that the sender is gone: nobody could ever stop the server then.
    let _ = stop.wait_for(|stop| *stop).await;
}

#[cfg(test)]
#[cfg(feature = "client")]
mod tests;
