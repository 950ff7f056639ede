//! Request bodies: bounded one by one and all together, and never waited for without an end.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use bytes::BytesMut;
use goplug_registry::{Code, Error, Ran};
use http_body_util::BodyExt as _;
use hyper::body::Body as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

/// The largest body of a call.
pub(crate) const MAX_CALL_BYTES: usize = 64 * 1024 * 1024;
/// The largest body of everything else.
pub(crate) const MAX_DOCUMENT_BYTES: usize = 64 * 1024;
/// Bytes of all bodies that are being received or wait for their plugin; beyond it `overloaded`.
const MAX_TOTAL_BYTES: usize = 256 * 1024 * 1024;
/// Without one byte of a body received, and for the first of them.
const PROGRESS: Duration = Duration::from_secs(30);
/// What a body that takes longer has to bring per second since it began: a byte now and then would hold a connection for ever.
const MIN_BYTES_PER_SECOND: usize = 1024;

/// The memory that request bodies may take together.
#[derive(Debug)]
pub(crate) struct Budget(Arc<Semaphore>);

impl Default for Budget {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_TOTAL_BYTES)))
    }
}

/// A body that was received whole, and its share of the [`Budget`].
#[derive(Debug)]
pub(crate) struct Received {
    /// The bytes.
    pub(crate) bytes: Bytes,
    /// To be kept as long as the bytes are.
    pub(crate) share: Option<OwnedSemaphorePermit>,
}

impl Budget {
    /// Receives `body`, at most `max` bytes of it. Memory grows with what arrived, never with what was declared.
    ///
    /// # Errors
    /// `too_large`, `overloaded` when all bodies together are too large, `deadline_exceeded` when nothing arrives for 30 s, or
    /// less than 1 KiB per second, `cancelled` when the client breaks off: of none of them did anything run.
    pub(crate) async fn receive(&self, mut body: Body, max: usize) -> Result<Received, Error> {
        if body.size_hint().lower() > max as u64 {
            return Err(too_large(max));
        }
        let mut received = Received { bytes: Bytes::new(), share: None };
        let mut joined = BytesMut::new();
        let begun = Instant::now();
        loop {
            let count = joined.len() + received.bytes.len();
            let until = (Instant::now() + PROGRESS).min(begun + patience(count));
            let next = timeout_at(until, body.frame()).await.map_err(|_| stalled(count, begun.elapsed()))?;
            let Some(frame) = next else { break };
            let frame = frame.map_err(|error| {
                Error::new(Code::Cancelled, format!("the request body broke off: {error}")).with_ran(Ran::No)
            })?;
            let Ok(piece) = frame.into_data() else { continue };
            if joined.len() + received.bytes.len() + piece.len() > max {
                return Err(too_large(max));
            }
            self.charge(&mut received.share, piece.len())?;
            if received.bytes.is_empty() && joined.is_empty() {
                received.bytes = piece;
            } else {
                joined.extend_from_slice(&std::mem::take(&mut received.bytes));
                joined.extend_from_slice(&piece);
            }
        }
        if !joined.is_empty() {
            received.bytes = joined.freeze();
        }
        Ok(received)
    }

    fn charge(&self, share: &mut Option<OwnedSemaphorePermit>, bytes: usize) -> Result<(), Error> {
        let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
        let more = Arc::clone(&self.0).try_acquire_many_owned(permits).map_err(|_| {
            let text = format!("the bodies of all requests exceed {MAX_TOTAL_BYTES} bytes together: try again");
            Error::new(Code::Overloaded, text).with_retry_after_ms(100)
        })?;
        match share {
            Some(share) => share.merge(more),
            None => *share = Some(more),
        }
        Ok(())
    }
}

fn too_large(max: usize) -> Error {
    Error::new(Code::TooLarge, format!("the request body exceeds the limit of {max} bytes"))
}

/// How long a body may take of which `count` bytes have arrived.
fn patience(count: usize) -> Duration {
    PROGRESS + Duration::from_secs((count / MIN_BYTES_PER_SECOND) as u64)
}

fn stalled(count: usize, after: Duration) -> Error {
    let text = format!(
        "{count} bytes of the request body arrived within {} s: after {} s without one, or with less than {MIN_BYTES_PER_SECOND} per second, it is given up",
        after.as_secs(),
        PROGRESS.as_secs()
    );
    Error::new(Code::DeadlineExceeded, text).with_ran(Ran::No)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::stream::{self, StreamExt as _};

    fn pieces(pieces: &[&'static str]) -> Body {
        Body::from_stream(stream::iter(pieces.iter().map(|piece| Ok::<_, std::io::Error>(*piece)).collect::<Vec<_>>()))
    }

    #[tokio::test]
    async fn pieces_are_joined_up_to_the_limit() {
        let budget = Budget::default();
        for (body, expected) in [
            (vec![], Some("")),
            (vec!["ab"], Some("ab")),
            (vec!["ab", "", "cd", "e"], Some("abcde")),
            (vec!["ab", "cd", "ef"], None),
        ] {
            let received = budget.receive(pieces(&body), 5).await;
            match expected {
                Some(text) => assert_eq!(received.unwrap().bytes, text),
                None => assert_eq!(received.unwrap_err().code, Code::TooLarge),
            }
        }
        assert_eq!(budget.receive(Body::from("declared"), 5).await.unwrap_err().code, Code::TooLarge);
    }

    #[tokio::test]
    async fn all_bodies_together_are_bounded_and_a_share_comes_back() {
        let budget = Budget(Arc::new(Semaphore::new(6)));
        let first = budget.receive(Body::from("abcd"), 100).await.unwrap();
        assert_eq!(budget.receive(Body::from("abcd"), 100).await.unwrap_err().code, Code::Overloaded);
        drop(first);
        assert!(budget.receive(Body::from("abcd"), 100).await.is_ok());
    }

    /// As many seconds between bytes as given: what becomes of the body, and after how many seconds.
    async fn dripped(pieces: usize, bytes: usize, pause: u64) -> (Result<usize, Code>, u64) {
        let begun = Instant::now();
        let drip = stream::iter(0..pieces).then(move |_| async move {
            tokio::time::sleep(Duration::from_secs(pause)).await;
            Ok::<_, std::io::Error>(vec![0; bytes])
        });
        let received = Budget::default().receive(Body::from_stream(drip), MAX_CALL_BYTES).await;
        (received.map(|body| body.bytes.len()).map_err(|error| error.code), begun.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_comes_too_slowly_is_given_up() {
        for (pieces, bytes, received, seconds) in [
            (1_000, 1, Err(Code::DeadlineExceeded), 29..=31),
            (20, 1, Ok(20), 20..=20),
            (100, 2_048, Ok(204_800), 100..=100),
            (100, 512, Err(Code::DeadlineExceeded), 57..=61),
        ] {
            let (end, after) = dripped(pieces, bytes, 1).await;
            assert!(end == received && seconds.contains(&after), "{pieces} of {bytes}: {end:?} after {after} s");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stops_coming_is_given_up_and_nothing_ran() {
        let endless = Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>());
        let error = Budget::default().receive(endless, 10).await.unwrap_err();
        assert_eq!((error.code, error.ran), (Code::DeadlineExceeded, Ran::No));
    }
}
