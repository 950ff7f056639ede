//! The registry's side: many calls at once over one connection, without a task behind it.
//!
//! Whoever waits for a reply and has nothing left to write may be the *reader*: it reads the socket itself and hands the
//! others their replies. It looks again and again for a while before it sleeps (see [`Latency`]), and the socket is
//! registered with the runtime only while it sleeps. When it has its own reply, another caller reads on; when nobody
//! waits, after a while, the *keeper* does, a task that sees the end of an idle connection. It also ends the calls whose time
//! is up, so that a call needs no timer of its own.

mod blocking;
mod call;
mod exchange;
mod keeper;
mod listening;
mod reader;
mod state;
mod streams;
mod subscriptions;
mod take;

use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use goplug_pconf_schema::wire::frame::Meta;
use rustix::fd::OwnedFd;
use tokio::sync::Notify;

pub use call::Call;
pub use exchange::{FrameExchange, FrameReplyBody, FrameRequestBody, ReplyEnd};
pub use subscriptions::{Acknowledger, FrameAttach, FrameNotice, FrameRefusal, FrameSubscription};

use super::SEND_BUFFER_BYTES;
use super::patience::{Latency, Patience};
use super::pipe::Pipe;
use crate::error::{Error, ErrorKind};
use crate::shm::{self, Lender, Offer, Rings, Segment, View};
use reader::Seat;
use state::State;

/// A connection to one plugin process that carries any number of calls at once.
///
/// Dropping it closes the connection; calls under way fail.
#[derive(Debug)]
pub struct FrameConnection {
    shared: Arc<Shared>,
}

/// What to call, and how.
#[derive(Debug, Clone)]
pub struct FrameRequest<'a> {
    /// The place of the method in the hello.
    pub index: u16,
    /// What is left of the caller's time, in milliseconds, as the plugin is told.
    pub deadline_ms: u64,
    /// When the call ends with [`ErrorKind::Deadline`], if it has no reply then.
    pub deadline: Instant,
    /// What the caller says besides the body.
    pub meta: Meta<'a>,
    /// The body; a long one is not copied.
    pub body: &'a Bytes,
    /// How many bytes the reply may have.
    pub max_reply_bytes: usize,
}

/// What a plugin answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FrameReply {
    /// The method's bytes.
    Bytes(Bytes),
    /// The method's bytes where the plugin has written them.
    View(View),
    /// A problem document.
    Problem(Bytes),
}

/// How far a write came.
#[derive(Debug, PartialEq, Eq)]
enum Wrote {
    /// Nothing is left, or somebody else goes on.
    All,
    /// The socket takes no more now.
    TillFull,
    /// As either, and somebody who waits to send was told that there is room.
    Told,
}

#[derive(Debug)]
struct Shared {
    pipe: Pipe,
    state: Mutex<State>,
    /// Taken by the reader alone.
    seat: Mutex<Seat>,
    /// Somebody has left what is to be written to the reader's promise. Set under the lock of the state; the reader looks at it
    /// without.
    is_relied_on: AtomicBool,
    /// Wakes a reader that sleeps on a thread of its own; made when there is one.
    bell: OnceLock<OwnedFd>,
    /// Tells the keeper that a call ends earlier than all before.
    earlier: Arc<Notify>,
}

impl FrameConnection {
    /// Takes over a socket after the upgrade; `first` came behind its reply. To be called within a tokio runtime with
    /// I/O and time, where the keeper runs; it calls `on_end` within 320 ms after the connection has ended of itself. The
    /// descriptor is closed when the connection is dropped. `lends`: whether both sides have said that they know of segments.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] when the socket cannot be made non-blocking.
    pub fn new(
        stream: UnixStream,
        first: &[u8],
        latency: Latency,
        lends: bool,
        on_end: impl FnOnce() + Send + 'static,
    ) -> Result<Self, Error> {
        let stream = non_blocking(stream)?;
        // What does not fit waits for the plugin to read; a smaller buffer only costs time.
        _ = rustix::net::sockopt::set_socket_send_buffer_size(&stream, SEND_BUFFER_BYTES);
        Ok(Self::over(stream, None, first, latency, lends, on_end))
    }

    /// As [`FrameConnection::new`], for a plugin that offers shared memory: frames travel through it, if the plugin takes it
    /// in earnest, else through the socket ([`FrameConnection::is_shared`]).
    ///
    /// # Errors
    /// As [`FrameConnection::new`], and when the plugin closes, or answers with anything else.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection.
    pub async fn shared(
        stream: UnixStream,
        first: &[u8],
        latency: Latency,
        lends: bool,
        on_end: impl FnOnce() + Send + 'static,
    ) -> Result<Self, Error> {
        let stream = non_blocking(stream)?;
        let offered = if first.is_empty() { shm::offer(&stream).await } else { Ok(Offer::Refused) };
        match offered.map_err(|error| Error::from_io(&error, false, "agree on shared memory"))? {
            Offer::Taken(rings) => Ok(Self::over(stream, Some(rings), first, latency, lends, on_end)),
            Offer::Refused => {
                _ = rustix::net::sockopt::set_socket_send_buffer_size(&stream, SEND_BUFFER_BYTES);
                Ok(Self::over(stream, None, first, latency, lends, on_end))
            }
        }
    }

    pub(super) fn over(
        stream: Arc<UnixStream>,
        rings: Option<Rings>,
        first: &[u8],
        latency: Latency,
        lends: bool,
        on_end: impl FnOnce() + Send + 'static,
    ) -> Self {
        let shared = Arc::new(Shared {
            pipe: Pipe::new(stream, rings),
            state: Mutex::new(State::new(lends)),
            seat: Mutex::new(Seat::new(first, Patience::new(latency))),
            is_relied_on: AtomicBool::new(false),
            bell: OnceLock::new(),
            earlier: Arc::default(),
        });
        keeper::spawn(&shared, on_end);
        Self { shared }
    }

    /// A call; nothing happens before it is polled.
    pub fn call<'a>(&'a self, request: FrameRequest<'a>) -> Call<'a> {
        Call::new(&self.shared, request)
    }

    /// Whether calls can still be made.
    pub fn is_open(&self) -> bool {
        self.shared.lock().ended().is_none()
    }

    /// Whether frames travel through shared memory.
    pub fn is_shared(&self) -> bool {
        self.shared.pipe.rings().is_some()
    }

    /// Memory for a body of `length` bytes that is to be written where the plugin reads it. Ordinary memory if it is short, if
    /// the plugin knows of nothing else, or has much of it already.
    pub fn segment(&self, length: usize) -> Segment {
        match self.shared.lock().segments.lender() {
            Some(number) => Segment::of(number, length),
            None => Segment::ordinary(length),
        }
    }

    /// Whether a call waits for its reply, or its bodies go piece by piece.
    pub fn is_busy(&self) -> bool {
        let state = self.shared.lock();
        state.has_waiting() || !state.streams.is_empty()
    }

    /// Ends the connection: calls under way fail with [`ErrorKind::Closed`] and this text.
    pub fn close(&self, why: &str) {
        self.shared.end(&Error::new(ErrorKind::Closed, false, why));
    }
}

fn non_blocking(stream: UnixStream) -> Result<Arc<UnixStream>, Error> {
    let failed = |error| Error::from_io(&error, false, "prepare the connection for frames");
    stream.set_nonblocking(true).map_err(failed)?;
    Ok(Arc::new(stream))
}

impl Drop for FrameConnection {
    fn drop(&mut self) {
        self.close("the connection was closed on this side");
    }
}

impl Lender for Shared {
    fn give_back(&self, segment: u64) {
        self.lock().give_back(segment);
        self.flush();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that is done under the lock can panic half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seat(&self) -> MutexGuard<'_, Seat> {
        self.seat.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing goes over the connection any more: every call that waits ends with `why`.
    fn end(&self, why: &Error) {
        let wakers = self.lock().end(why);
        self.pipe.close();
        self.ring();
        wakers.into_iter().for_each(std::task::Waker::wake);
    }

    /// Whether there is something to write that nobody else will: if the reader has promised to, it is left to the reader.
    fn has_to_write(&self, state: &State) -> bool {
        if state.outbox.is_empty() || state.writing {
            return false;
        }
        if state.promised {
            self.is_relied_on.store(true, Ordering::Relaxed);
        }
        !state.promised
    }

    /// Whether the reader is relied on, which it takes note of: to be asked before it writes. What is said after that is seen the
    /// next time, because the flag is set under the lock that writing takes.
    fn takes_note(&self) -> bool {
        let is_relied_on = self.is_relied_on.load(Ordering::Relaxed);
        if is_relied_on {
            self.is_relied_on.store(false, Ordering::Relaxed);
        }
        is_relied_on
    }

    /// The reader leaves its seat; whoever is woken by the answer reads on, and writes first. If there is nobody, what was left to
    /// the reader is written here.
    fn resign(&self, mut state: MutexGuard<'_, State>) -> Option<std::task::Waker> {
        let next = state.resign();
        drop(state);
        if next.is_none() && self.takes_note() {
            self.flush();
        }
        next
    }

    /// Writes what waits to be written, unless somebody else is about it; for callers that are not the reader. What the
    /// socket does not take is left to the reader, who alone waits for room.
    fn flush(&self) {
        if self.write(None) != Wrote::All {
            self.ring();
            // It may not have known that anybody would need room.
            let waker = self.lock().reader_waker();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    /// As [`Shared::flush`], for the reader, who sees for itself what is left. With `promise` it also says whether it will
    /// write again before it sleeps.
    fn write(&self, promise: Option<bool>) -> Wrote {
        let mut state = self.lock();
        state.promised = promise.unwrap_or(state.promised);
        if state.writing || state.outbox.is_empty() {
            return Wrote::All;
        }
        state.writing = true;
        let mut told = Vec::new();
        loop {
            let mut batch = std::mem::take(&mut state.outbox);
            drop(state);
            let written = batch.write_to(&self.pipe);
            state = self.lock();
            state.written(written.as_ref().map_or(0, |count| *count as u64));
            let is_full = written.is_ok() && !batch.is_empty();
            if written.is_ok() {
                state.outbox.put_back(batch);
                state.feed();
                if !state.streams.is_empty() {
                    state.tell_senders(&mut told);
                }
            } else {
                // What the plugin had written before is still to be read: the reader sees the end.
                state.stop_writing();
            }
            if is_full || state.outbox.is_empty() {
                state.writing = false;
                drop(state);
                let wrote = match told.is_empty() {
                    true if is_full => Wrote::TillFull,
                    true => Wrote::All,
                    false => Wrote::Told,
                };
                told.into_iter().for_each(std::task::Waker::wake);
                return wrote;
            }
        }
    }

    /// Wakes a reader that sleeps on a thread of its own.
    fn ring(&self) {
        if let Some(bell) = self.bell.get() {
            // It can only be full of rings.
            _ = rustix::io::write(bell, &1_u64.to_ne_bytes());
        }
    }
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
#[cfg(all(feature = "client", feature = "server"))]
mod tests;
#[cfg(test)]
#[cfg(all(feature = "client", feature = "server"))]
#[path = "tests.rs"]
#[allow(clippy::duplicate_mod, reason = "the same tests over another pipe")]
mod tests_over_rings;
