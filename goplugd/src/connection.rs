//! The time limits of one connection: a begun head, an idle connection, a reader that takes nothing.
//!
//! hyper has one limit for two things, the time to send a head and the time between two requests. Here hyper's own limit
//! is the longer one ([`IDLE`]), and a [`Watch`] beside the connection ends it sooner when a head that was begun is not
//! finished, or when a reply is not taken.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::sync::watch;

/// From the first byte of a head, and from the start of a connection, until the head is whole.
pub(crate) const HEAD: Duration = Duration::from_secs(5);
/// Between two requests; longer than the usual client pool keeps a connection (90 s), so that the client closes it.
pub(crate) const IDLE: Duration = Duration::from_secs(120);
/// Without one byte of a reply or of an event stream taken, but for a [`Slow`] reader.
pub(crate) const STALL: Duration = Duration::from_secs(30);

/// What a connection is waiting for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Activity {
    phase: Phase,
    /// The socket took nothing at the last try to write.
    stalled: bool,
    /// The reader may take its time.
    slow: bool,
}

/// Of a reply, as an extension: its reader may take nothing for as long as it likes. A subscription holds its plugin back
/// when its handler is slow; cut off, it would be forgotten, and lose what it has not seen.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slow;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Head,
    Busy,
    Idle,
}

/// The activity of one connection; its stream, its requests and its [`Watch`] share it.
#[derive(Debug, Clone)]
pub(crate) struct Pulse(watch::Sender<Activity>);

impl Pulse {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(Activity { phase: Phase::Head, stalled: false, slow: false }))
    }

    /// Says that a request is being answered, until the guard is dropped with the last of the reply.
    pub(crate) fn busy(&self) -> Busy {
        self.enter(Phase::Busy);
        Busy(self.clone())
    }

    fn enter(&self, phase: Phase) {
        self.0.send_if_modified(|now| std::mem::replace(&mut now.phase, phase) != phase);
    }

    fn received(&self) {
        self.0.send_if_modified(|now| {
            let begins = now.phase == Phase::Idle;
            if begins {
                now.phase = Phase::Head;
            }
            begins
        });
    }

    fn wrote(&self, stalled: bool) {
        self.0.send_if_modified(|now| std::mem::replace(&mut now.stalled, stalled) != stalled);
    }

    /// Returns once the connection has been waiting for its peer too long, with the reason.
    pub(crate) async fn too_long(&self) -> &'static str {
        let mut changes = self.0.subscribe();
        loop {
            let (limit, reason) = match *changes.borrow_and_update() {
                Activity { stalled: true, slow: false, .. } => (STALL, "it takes no reply"),
                Activity { phase: Phase::Head, .. } => (HEAD, "its request head is not whole"),
                // hyper's own limit for the one, the limits of bodies, calls and keep-alives for the other.
                Activity { phase: Phase::Idle | Phase::Busy, .. } => (Duration::MAX, ""),
            };
            if tokio::time::timeout(limit, changes.changed()).await.is_err() {
                return reason;
            }
        }
    }
}

/// A request is being answered.
#[derive(Debug)]
pub(crate) struct Busy(Pulse);

impl Busy {
    /// Whoever reads this reply may take its time.
    pub(crate) fn be_patient(&self) {
        self.0.0.send_modify(|now| now.slow = true);
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.0.send_modify(|now| now.slow = false);
        self.0.enter(Phase::Idle);
    }
}

/// A stream that tells its [`Pulse`] what it sees.
#[derive(Debug)]
pub(crate) struct Watched {
    stream: UnixStream,
    pulse: Pulse,
}

impl Watched {
    pub(crate) fn new(stream: UnixStream, pulse: Pulse) -> Self {
        Self { stream, pulse }
    }

    fn wrote(&self, result: Poll<std::io::Result<usize>>) -> Poll<std::io::Result<usize>> {
        self.pulse.wrote(result.is_pending());
        result
    }
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let before = buf.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.pulse.received();
        }
        result
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.wrote(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.wrote(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// The body of a reply; while it lives, its connection is busy.
#[derive(Debug)]
pub(crate) struct ReplyBody<B> {
    body: B,
    _busy: Busy,
}

impl<B> ReplyBody<B> {
    pub(crate) fn new(body: B, busy: Busy) -> Self {
        Self { body, _busy: busy }
    }
}

impl<B: Body + Unpin> Body for ReplyBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn only_a_begun_head_and_an_untaken_reply_are_too_long() {
        let pulse = Pulse::new();
        let begun = Instant::now();
        assert_eq!((pulse.too_long().await, begun.elapsed()), ("its request head is not whole", HEAD));

        let busy = pulse.busy();
        let hour = Duration::from_secs(3600);
        assert!(tokio::time::timeout(hour, pulse.too_long()).await.is_err(), "a long call is no fault of the client");
        pulse.wrote(true);
        let begun = Instant::now();
        assert_eq!((pulse.too_long().await, begun.elapsed()), ("it takes no reply", STALL));
        busy.be_patient();
        assert!(tokio::time::timeout(hour, pulse.too_long()).await.is_err(), "a subscription's handler takes its time");

        drop(busy);
        let begun = Instant::now();
        assert_eq!((pulse.too_long().await, begun.elapsed()), ("it takes no reply", STALL), "only for one reply");
        pulse.wrote(false);
        assert!(tokio::time::timeout(hour, pulse.too_long()).await.is_err(), "an idle connection is hyper's to end");
        pulse.received();
        let begun = Instant::now();
        assert_eq!((pulse.too_long().await, begun.elapsed()), ("its request head is not whole", HEAD));
    }
}
