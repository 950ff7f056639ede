//! A subscription or an observer, as the registry has it: what it is sent, and its acknowledgements.

use std::future::poll_fn;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use super::listening::Over;
pub(super) use super::listening::take;
use super::state::Reader;
use super::{FrameConnection, Shared};
use crate::error::{Error, ErrorKind};

/// What to attach to, and from where.
#[derive(Debug, Clone, Copy)]
pub struct FrameAttach<'a> {
    /// The place of the callback in the hello.
    pub index: u16,
    /// The name of the subscription; `None` for an observer.
    pub name: Option<&'a str>,
    /// The position, epoch and number, that the reader has behind it. Without one an observer begins now.
    pub after: Option<(&'a str, u64)>,
    /// How many bytes a notification may have.
    pub max_message_bytes: usize,
}

/// What a subscription is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FrameNotice {
    /// A notification.
    Message {
        /// Its number, in the epoch of the connection.
        seq: u64,
        /// The key of a `state` message.
        key: Option<String>,
        /// How many `lossy` messages were dropped just before.
        dropped: u64,
        /// The payload.
        data: Bytes,
    },
    /// The messages of these numbers, both included, will not come.
    Gap(u64, u64),
    /// Somebody else has attached the name. Nothing comes after it.
    Replaced,
}

/// Why something of a subscription did not go well.
#[derive(Debug, Clone)]
pub enum FrameRefusal {
    /// The plugin says why, in a problem document.
    Problem(Bytes),
    /// The subscription is over.
    Lost(Error),
}

/// An attached reader. What comes for it waits here, bounded by what the plugin was granted, until it is taken.
///
/// Dropping it detaches; the plugin is told.
#[derive(Debug)]
pub struct FrameSubscription {
    shared: Arc<Shared>,
    id: u64,
}

/// Acknowledges what came to a subscription, from wherever. Keeps neither the subscription nor the connection alive.
#[derive(Debug, Clone)]
pub struct Acknowledger {
    shared: Weak<Shared>,
    id: u64,
}

impl FrameConnection {
    /// Attaches to a callback; returns when the plugin has said that it is attached. Needs the runtime on which the
    /// connection was made.
    ///
    /// # Errors
    /// [`FrameRefusal::Problem`] when the plugin refuses; [`FrameRefusal::Lost`] when the connection has ended, with
    /// [`Error::sent`] as for calls.
    ///
    /// # Cancel safety
    /// A dropped future detaches.
    pub async fn subscribe(&self, to: FrameAttach<'_>) -> Result<FrameSubscription, FrameRefusal> {
        let id = self.shared.lock().attach(&to).map_err(FrameRefusal::Lost)?;
        let subscription = FrameSubscription { shared: Arc::clone(&self.shared), id };
        self.shared.send();
        poll_fn(|cx| subscription.poll_attached(cx)).await?;
        Ok(subscription)
    }
}

impl FrameSubscription {
    /// The next thing that the plugin sent.
    ///
    /// # Errors
    /// [`FrameRefusal::Lost`] when nothing comes any more: the connection or the subscription has ended.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn next(&mut self) -> Result<FrameNotice, FrameRefusal> {
        let (notice, must_write) = poll_fn(|cx| self.poll_next(cx)).await?;
        if must_write {
            self.shared.send();
        }
        Ok(notice)
    }

    /// For acknowledgements beside [`FrameSubscription::next`].
    pub fn acknowledger(&self) -> Acknowledger {
        Acknowledger { shared: Arc::downgrade(&self.shared), id: self.id }
    }

    fn poll_attached(&self, cx: &Context<'_>) -> Poll<Result<(), FrameRefusal>> {
        let mut state = self.shared.lock();
        let Some(entry) = state.listening.entry(self.id) else { return Poll::Ready(Err(forgotten())) };
        if let Some(over) = &entry.over {
            return Poll::Ready(Err(refusal(over.clone())));
        }
        if entry.is_attached {
            return Poll::Ready(Ok(()));
        }
        remember(&mut entry.waker, cx);
        Poll::Pending
    }

    /// The next thing, and whether there is something to write.
    fn poll_next(&self, cx: &Context<'_>) -> Poll<Result<(FrameNotice, bool), FrameRefusal>> {
        let mut state = self.shared.lock();
        if let Some(notice) = state.next_notice(self.id) {
            return Poll::Ready(Ok((notice, self.shared.has_to_write(&state))));
        }
        let Some(entry) = state.listening.entry(self.id) else { return Poll::Ready(Err(forgotten())) };
        match &entry.over {
            Some(Over::Replaced) => Poll::Ready(Ok((FrameNotice::Replaced, false))),
            Some(over) => Poll::Ready(Err(refusal(over.clone()))),
            None => {
                remember(&mut entry.waker, cx);
                Poll::Pending
            }
        }
    }
}

impl Drop for FrameSubscription {
    fn drop(&mut self) {
        let Self { shared, id } = self;
        let mut state = shared.lock();
        state.detach(*id);
        // With nobody left that listens the keeper keeps other hours.
        let keeper = if state.listening.is_empty() { state.keeper.take() } else { None };
        drop(state);
        if let Some(keeper) = keeper {
            keeper.wake();
        }
        shared.send();
    }
}

impl Acknowledger {
    /// Says that everything up to `seq` was handled, and waits for the plugin's answer.
    ///
    /// # Errors
    /// [`FrameRefusal::Problem`] when the plugin refuses; [`FrameRefusal::Lost`] when the subscription has ended.
    ///
    /// # Cancel safety
    /// A dropped future may have acknowledged.
    pub async fn acknowledge(&self, seq: u64) -> Result<(), FrameRefusal> {
        let shared = self.shared.upgrade().ok_or_else(forgotten)?;
        let number = shared.lock().acknowledge(self.id, seq).map_err(refusal)?;
        let wait = AckWait { shared: &shared, id: self.id, number };
        shared.send();
        poll_fn(|cx| wait.poll(cx)).await
    }
}

/// Somebody who waits for the answer to an acknowledgement.
struct AckWait<'a> {
    shared: &'a Shared,
    id: u64,
    number: u64,
}

impl AckWait<'_> {
    fn poll(&self, cx: &Context<'_>) -> Poll<Result<(), FrameRefusal>> {
        let mut state = self.shared.lock();
        let Some(entry) = state.listening.entry(self.id) else { return Poll::Ready(Err(forgotten())) };
        let over = entry.over.clone();
        let Some(ack) = entry.ack(self.number) else { return Poll::Ready(Err(forgotten())) };
        match (&ack.answer, over) {
            (Some(answer), _) if answer.is_empty() => Poll::Ready(Ok(())),
            (Some(problem), _) => Poll::Ready(Err(FrameRefusal::Problem(problem.clone()))),
            (None, Some(over)) => Poll::Ready(Err(refusal(over))),
            (None, None) => {
                remember(&mut ack.waker, cx);
                Poll::Pending
            }
        }
    }
}

impl Drop for AckWait<'_> {
    fn drop(&mut self) {
        if let Some(entry) = self.shared.lock().listening.entry(self.id) {
            entry.forget_ack(self.number);
        }
    }
}

impl Shared {
    /// Writes what waits; somebody who reads is found if nobody does.
    fn send(&self) {
        self.flush();
        let state = self.lock();
        if state.reader == Reader::Nobody {
            state.listening.want_reader();
        }
    }
}

fn remember(place: &mut Option<Waker>, cx: &Context<'_>) {
    match place {
        Some(known) => known.clone_from(cx.waker()),
        None => *place = Some(cx.waker().clone()),
    }
}

fn refusal(over: Over) -> FrameRefusal {
    match over {
        Over::Refused(problem) => FrameRefusal::Problem(problem),
        Over::Lost(error) => FrameRefusal::Lost(error),
        Over::Replaced => {
            FrameRefusal::Lost(Error::new(ErrorKind::Closed, true, "the subscription was attached elsewhere"))
        }
    }
}

fn forgotten() -> FrameRefusal {
    FrameRefusal::Lost(Error::new(ErrorKind::Closed, true, "the subscription is over"))
}

#[cfg(test)]
#[cfg(all(feature = "client", feature = "server"))]
mod tests;
#[cfg(test)]
#[cfg(all(feature = "client", feature = "server"))]
#[path = "subscriptions/tests.rs"]
#[allow(clippy::duplicate_mod, reason = "the same tests over another pipe")]
mod tests_over_rings;
