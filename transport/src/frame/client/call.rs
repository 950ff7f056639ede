//! One call, as its caller sees it: a future.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use super::reader::Sleep;
use super::state::Reader;
use super::{FrameReply, FrameRequest, Shared};
use crate::error::Error;

/// A call under way.
///
/// # Cancel safety
/// Dropping it cancels the call: the plugin is told, and the connection goes on.
#[derive(Debug)]
#[must_use = "a call that is not awaited is never made"]
pub struct Call<'a> {
    shared: &'a Arc<Shared>,
    stage: Stage<'a>,
}

#[derive(Debug)]
enum Stage<'a> {
    New(FrameRequest<'a>),
    Waiting(u64),
    Over,
}

impl<'a> Call<'a> {
    pub(super) fn new(shared: &'a Arc<Shared>, request: FrameRequest<'a>) -> Self {
        Self { shared, stage: Stage::New(request) }
    }

    /// One step further: begins the call, takes its reply, or reads for everybody.
    pub(super) fn advance(&mut self, sleep: &mut Sleep<'_, '_>) -> Poll<Result<FrameReply, Error>> {
        let polled = self.step(sleep);
        if let Poll::Ready(Ok(FrameReply::View(view))) = polled {
            let lender: Weak<Shared> = Arc::downgrade(self.shared);
            return Poll::Ready(Ok(FrameReply::View(view.lease(lender))));
        }
        polled
    }

    fn step(&mut self, sleep: &mut Sleep<'_, '_>) -> Poll<Result<FrameReply, Error>> {
        let mut state = self.shared.lock();
        let is_new = matches!(self.stage, Stage::New(_));
        let id = match &mut self.stage {
            // A thread looks at the clock by itself.
            Stage::New(request) => match state.begin(request, matches!(sleep, Sleep::Task(_))) {
                Ok((id, is_earlier)) => {
                    self.stage = Stage::Waiting(id);
                    if is_earlier {
                        self.shared.earlier.notify_one();
                    }
                    id
                }
                Err(error) => {
                    self.stage = Stage::Over;
                    return Poll::Ready(Err(error));
                }
            },
            Stage::Waiting(id) => *id,
            Stage::Over => {
                let text = "the call was polled after its end";
                return Poll::Ready(Err(Error::new(crate::error::ErrorKind::Closed, true, text)));
            }
        };
        if !is_new && let Some(done) = state.collect(id) {
            self.stage = Stage::Over;
            if state.reader == Reader::Call(id)
                && let Some(next) = self.shared.resign(state)
            {
                next.wake();
            }
            return Poll::Ready(done);
        }
        if matches!(state.reader, Reader::Call(reader) if reader != id) {
            // Somebody else reads.
            if let Some(entry) = state.entry(id) {
                sleep.remember(&mut entry.waker);
            }
            let writes = self.shared.has_to_write(&state);
            drop(state);
            if writes {
                self.shared.flush();
            }
            return Poll::Pending;
        }
        if state.reader == Reader::Keeper
            && let Some(keeper) = state.keeper.take()
        {
            keeper.wake();
        }
        state.reader = Reader::Call(id);
        drop(state);
        let polled = self.shared.read(id, sleep);
        if polled.is_ready() {
            self.stage = Stage::Over;
        }
        polled
    }
}

impl Future for Call<'_> {
    type Output = Result<FrameReply, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.advance(&mut Sleep::Task(cx))
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        let Stage::Waiting(id) = self.stage else { return };
        let mut state = self.shared.lock();
        state.abandon(id);
        // Also when nobody reads: this may have been the one that was woken to do so.
        let next = if matches!(state.reader, Reader::Nobody) || state.reader == Reader::Call(id) {
            state.resign()
        } else {
            None
        };
        drop(state);
        self.shared.flush();
        if let Some(next) = next {
            next.wake();
        }
    }
}
