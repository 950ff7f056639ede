//! Requests that are answered while their bodies come: the handler reads, and the connection reads one piece ahead.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::connection::{Connection, LINGER, Over, caller_left};
use super::reply::{self, Reply};
use super::{Handler, ServerHead};
use crate::frame::Closed;
use crate::http::Malformed;
use crate::http::body::Framing;
use crate::http::head::Length;
use crate::http::pieces::{Piece, Pieces};

/// The body of a request, as its handler reads it. Dropping it takes no more of it.
#[derive(Debug)]
pub struct IncomingBody {
    pieces: mpsc::Receiver<Bytes>,
    is_whole: Arc<AtomicBool>,
}

impl IncomingBody {
    /// The next piece, as it came; `None` when the body is whole.
    ///
    /// # Errors
    /// When no more will come although it is not whole: the caller has gone.
    ///
    /// # Cancel safety
    /// A dropped future has taken nothing.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Closed> {
        match self.pieces.recv().await {
            None if !self.is_whole.load(Ordering::Acquire) => Err(Closed),
            piece => Ok(piece),
        }
    }
}

impl<H: Handler> Connection<H> {
    /// Answers a request while its body comes; an error when there is not to be another.
    pub(super) async fn serve_streamed(
        &mut self,
        head: ServerHead,
        length: Length,
        expects_continue: bool,
        close: bool,
    ) -> Result<(), Over> {
        let (handler, framing, http10) = (Arc::clone(&self.handler), length.of_request(), head.http10);
        let max = handler.max_body(&head) as u64;
        if let Framing::Exact(declared) = framing
            && declared > max
        {
            return self.refuse(handler.too_large(&head, declared), false).await;
        }
        if expects_continue {
            let go_on = [&b"HTTP/1.1 100 Continue\r\n\r\n"[..], &[], &[]];
            reply::write_all(&self.stream, go_on, self.limits.write_timeout).await.map_err(|_| Over)?;
        }
        let (pieces, incoming) = mpsc::channel(1);
        let (is_whole, has_begun) = (Arc::new(AtomicBool::new(false)), AtomicBool::new(false));
        let body = IncomingBody { pieces: incoming, is_whole: Arc::clone(&is_whole) };
        let Self { stream, input, output, limits, stop, .. } = self;
        let (stream, asked) = (&*stream, head.clone());
        let answer = async {
            let response = handler.handle_streamed(asked, body).await;
            has_begun.store(true, Ordering::Relaxed);
            // Who answers before the body is whole will not find the next request behind it.
            let close = close || http10 || response.close || *stop.borrow() || !is_whole.load(Ordering::Acquire);
            let how = Reply { http10, bodiless: false, close };
            let written = reply::write(stream, pending(), output, response, how, limits.write_timeout, stop).await;
            written.map(|()| close).map_err(|_| Over)
        };
        let feed = async {
            match feed(stream, input, Pieces::new(framing), max, pieces, &is_whole).await {
                End::Gone => None,
                End::TooLarge(length) => Some(handler.too_large(&head, length)),
                End::Malformed(why) => Some(handler.bad_request(Some(&head), why)),
            }
        };
        let refused = tokio::select! {
            biased;
            answered = answer => match answered? {
                false => return Ok(()),
                true => None,
            },
            refused = feed => Some(refused.filter(|_| !has_begun.load(Ordering::Relaxed)).ok_or(Over)?),
        };
        match refused {
            Some(response) => self.refuse(response, false).await,
            None if is_whole.load(Ordering::Acquire) => Err(Over),
            None => {
                // As after a refusal: a caller that is still writing gets to read the answer.
                if self.stream.shutdown().await.is_ok() {
                    let _ = timeout(LINGER, self.linger()).await;
                }
                Err(Over)
            }
        }
    }
}

/// Why a body is not read any further.
enum End {
    /// The caller has gone, or nothing can be read.
    Gone,
    TooLarge(u64),
    Malformed(String),
}

/// Hands the body on, piece by piece, and then watches for the caller to leave. How long that takes is up to the handler, whose
/// answer ends it.
async fn feed(
    stream: &UnixStream,
    input: &mut BytesMut,
    mut body: Pieces,
    max: u64,
    pieces: mpsc::Sender<Bytes>,
    is_whole: &AtomicBool,
) -> End {
    let mut length = 0;
    loop {
        let piece = match body.next(stream, input).await {
            Ok(Piece::Bytes(piece)) => piece,
            Ok(Piece::End) => break,
            Ok(Piece::Cut) | Err(_) => return End::Gone,
            Ok(Piece::Malformed(Malformed(why))) => return End::Malformed(why),
        };
        length += piece.len() as u64;
        if length > max {
            return End::TooLarge(length);
        }
        if pieces.send(piece).await.is_err() {
            // The handler takes no more. What is left is seen to when it has answered.
            return pending().await;
        }
    }
    is_whole.store(true, Ordering::Release);
    drop(pieces);
    caller_left(stream, input).await;
    End::Gone
}
