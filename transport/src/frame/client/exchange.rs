//! A call whose bodies go piece by piece, as its caller sees it: two halves, each for one direction.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use goplug_pconf_schema::wire::frame::{Header, Kind, Meta};

use super::blocking::this_thread;
use super::reader::Sleep;
use super::state::{Reader, State};
use super::streams::{self, Next, Outcome};
use super::{FrameConnection, Shared};
use crate::error::{Error, ErrorKind};

/// What to call, of a call whose body follows.
#[derive(Debug, Clone)]
pub struct FrameExchange<'a> {
    /// The place of the method in the hello.
    pub index: u16,
    /// What is left of the caller's time, in milliseconds, as the plugin is told.
    pub deadline_ms: u64,
    /// When the call ends with [`ErrorKind::Deadline`], if its reply is not whole then.
    pub deadline: Instant,
    /// What the caller says besides the body.
    pub meta: Meta<'a>,
}

/// The way out of a streamed call: its request. Dropping it before [`FrameRequestBody::finish`] cancels the call.
#[derive(Debug)]
pub struct FrameRequestBody {
    stream: Arc<Handle>,
    is_finished: bool,
}

/// The way back of a streamed call: its reply. Dropping it before the end cancels the call.
#[derive(Debug)]
pub struct FrameReplyBody {
    stream: Arc<Handle>,
}

/// How a reply ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplyEnd {
    /// It is whole.
    Whole,
    /// The call failed; this is the problem document. Whether pieces came before it.
    Problem(Bytes, bool),
    /// The call failed on the way. Whether pieces came before.
    Failed(Error, bool),
}

/// The stream itself; it is forgotten when both halves are gone.
#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
    id: u64,
    deadline: Instant,
}

impl FrameConnection {
    /// Begins a call whose body follows.
    ///
    /// # Errors
    /// When the connection cannot be used any more; nothing was sent then.
    pub fn exchange(&self, request: &FrameExchange<'_>) -> Result<(FrameRequestBody, FrameReplyBody), Error> {
        let header = Header { index: request.index, arg: request.deadline_ms, ..Header::new(Kind::Request, 0) };
        let (id, is_earlier) = self.shared.lock().begin_stream(header, &request.meta, request.deadline)?;
        if is_earlier {
            self.shared.earlier.notify_one();
        }
        let shared = Arc::clone(&self.shared);
        let stream = Arc::new(Handle { shared, id, deadline: request.deadline });
        stream.push();
        Ok((FrameRequestBody { stream: Arc::clone(&stream), is_finished: false }, FrameReplyBody { stream }))
    }
}

impl FrameRequestBody {
    /// Sends the next piece of the request; waits while the plugin is slow and 256 KiB wait already. What is sent to a
    /// plugin that has answered is dropped.
    ///
    /// # Errors
    /// Why the call ended.
    ///
    /// # Cancel safety
    /// A dropped future has sent nothing.
    pub async fn send(&self, piece: &Bytes) -> Result<(), Error> {
        let mut wait = self.wait();
        poll_fn(|cx: &mut Context<'_>| {
            wait.poll(&mut Sleep::Task(cx), |state, id| state.append(id, piece).transpose())
        })
        .await?;
        self.stream.push();
        Ok(())
    }

    /// As [`FrameRequestBody::send`], on a thread without a runtime.
    ///
    /// # Errors
    /// As there.
    pub fn send_blocking(&self, piece: &Bytes) -> Result<(), Error> {
        let mut wait = self.wait();
        wait.block(|state, id| state.append(id, piece).transpose())
            .unwrap_or_else(|| Err(streams::late_error(true)))?;
        self.stream.push();
        Ok(())
    }

    /// The problem document that the call has ended with: what is sent from then on is dropped.
    pub fn problem(&self) -> Option<Bytes> {
        self.stream.shared.lock().problem_of(self.stream.id)
    }

    /// The request is whole.
    pub fn finish(mut self) {
        self.is_finished = true;
        self.stream.shared.lock().finish_request(self.stream.id);
        self.stream.push();
    }

    fn wait(&self) -> Wait<'_> {
        Wait { stream: &self.stream, key: streams::sends(self.stream.id), is_waiting: false }
    }
}

impl Drop for FrameRequestBody {
    fn drop(&mut self) {
        if !self.is_finished {
            self.stream.give_up("the request was given up before its end");
        }
    }
}

impl FrameReplyBody {
    /// The next piece of the reply, or how it ended; again and again the same then.
    ///
    /// # Cancel safety
    /// A dropped future has taken nothing.
    pub async fn next(&mut self) -> Result<Bytes, ReplyEnd> {
        let mut wait = self.wait();
        let next = poll_fn(|cx: &mut Context<'_>| wait.poll(&mut Sleep::Task(cx), State::next_of)).await;
        self.took(Some(next))
    }

    /// As [`FrameReplyBody::next`], on a thread without a runtime.
    ///
    /// # Errors
    /// As there.
    pub fn next_blocking(&mut self) -> Result<Bytes, ReplyEnd> {
        let next = self.wait().block(State::next_of);
        self.took(next)
    }

    fn took(&self, next: Option<Next>) -> Result<Bytes, ReplyEnd> {
        match next {
            Some(Next::Piece(piece)) => {
                // Credit, which the plugin may wait for.
                self.stream.push();
                Ok(piece)
            }
            Some(Next::Over(Outcome::Whole, _)) => Err(ReplyEnd::Whole),
            Some(Next::Over(Outcome::Problem(document), has_begun)) => Err(ReplyEnd::Problem(document, has_begun)),
            Some(Next::Over(Outcome::Failed(error), has_begun)) => Err(ReplyEnd::Failed(error, has_begun)),
            None => Err(ReplyEnd::Failed(streams::late_error(true), false)),
        }
    }

    fn wait(&self) -> Wait<'_> {
        Wait { stream: &self.stream, key: streams::reads(self.stream.id), is_waiting: false }
    }
}

impl Drop for FrameReplyBody {
    fn drop(&mut self) {
        self.stream.give_up("nobody reads the reply any more");
    }
}

impl Handle {
    /// Writes what waits, unless somebody else does; if nobody reads, has the keeper see to what is left.
    fn push(&self) {
        let state = self.shared.lock();
        let writes = self.shared.has_to_write(&state);
        drop(state);
        if writes {
            self.shared.flush();
        }
        let state = self.shared.lock();
        if state.reader == Reader::Nobody && state.has_unsent() {
            state.listening.wanted.notify_one();
        }
    }

    fn give_up(&self, why: &str) {
        let mut wakers = Vec::new();
        self.shared.lock().give_up(self.id, |sent| Error::new(ErrorKind::Closed, sent, why), &mut wakers);
        self.shared.flush();
        wakers.into_iter().for_each(std::task::Waker::wake);
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.lock().forget_stream(self.id);
        self.shared.flush();
    }
}

/// Somebody who waits for one direction of a stream, and reads for everybody if nobody else does.
struct Wait<'a> {
    stream: &'a Handle,
    key: u64,
    /// Whether it is known as one that waits.
    is_waiting: bool,
}

impl Wait<'_> {
    /// One step further: `ready` is asked whether it is there.
    fn poll<T>(&mut self, sleep: &mut Sleep<'_, '_>, mut ready: impl FnMut(&mut State, u64) -> Option<T>) -> Poll<T> {
        let shared = &*self.stream.shared;
        loop {
            let mut state = shared.lock();
            if let Some(value) = ready(&mut state, self.stream.id) {
                drop(state);
                self.leave();
                return Poll::Ready(value);
            }
            if self.is_waiting && state.collect(self.key).is_some() {
                self.is_waiting = false;
            }
            if !std::mem::replace(&mut self.is_waiting, true) {
                state.wait_for_stream(self.key, self.stream.deadline);
            }
            if matches!(state.reader, Reader::Call(reader) if reader != self.key) {
                // Somebody else reads.
                if let Some(entry) = state.entry(self.key) {
                    sleep.remember(&mut entry.waker);
                }
                let writes = shared.has_to_write(&state);
                drop(state);
                if writes {
                    shared.flush();
                }
                return Poll::Pending;
            }
            if state.reader == Reader::Keeper
                && let Some(keeper) = state.keeper.take()
            {
                keeper.wake();
            }
            state.reader = Reader::Call(self.key);
            drop(state);
            if shared.read(self.key, sleep).is_pending() {
                return Poll::Pending;
            }
            // It was told to look again, and has left the seat.
            self.is_waiting = false;
        }
    }

    /// The same on a thread of its own; `None` when the time is up.
    fn block<T>(&mut self, mut ready: impl FnMut(&mut State, u64) -> Option<T>) -> Option<T> {
        let (waker, until) = (this_thread(), self.stream.deadline);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if let Poll::Ready(value) = self.poll(&mut Sleep::Thread { waker: &waker, until }, &mut ready) {
                return Some(value);
            }
            if left == Duration::ZERO {
                let mut wakers = Vec::new();
                self.stream.shared.lock().give_up(self.stream.id, streams::late_error, &mut wakers);
                self.stream.shared.flush();
                wakers.into_iter().for_each(std::task::Waker::wake);
                return None;
            }
            std::thread::park_timeout(left);
        }
    }

    /// Waits no longer; if this was the one that reads, somebody else does from now on.
    fn leave(&mut self) {
        if !std::mem::replace(&mut self.is_waiting, false) {
            return;
        }
        let shared = &*self.stream.shared;
        let mut state = shared.lock();
        state.stop_waiting(self.key);
        if (matches!(state.reader, Reader::Nobody) || state.reader == Reader::Call(self.key))
            && let Some(next) = shared.resign(state)
        {
            next.wake();
        }
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        self.leave();
    }
}
