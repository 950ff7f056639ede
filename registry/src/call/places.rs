//! Places of which so many may be taken at once: of the calls of a plugin, of a serial method.
//!
//! All that there is to know is in one word, which is changed in one step: how many places are taken, how many callers wait,
//! whether there are new places at all. Whoever finds a place free takes it with that step and gives it back with another.
//! Only when all are taken there is a queue; who leaves hands the place to its first, so that nobody overtakes.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

#[cfg(test)]
mod tests;

/// See the module.
#[derive(Debug)]
pub(crate) struct Places {
    word: AtomicU64,
    limit: u32,
    /// Changed only together with the count of those who wait, under this lock.
    queue: Mutex<VecDeque<Arc<Waiter>>>,
    /// Told when nothing is taken any more after [`Places::close`].
    idle: Notify,
}

/// A place; given back when dropped.
#[derive(Debug)]
pub(crate) struct Taken<'a>(&'a Places);

/// A caller in the queue.
#[derive(Debug, Default)]
struct Waiter {
    has_place: AtomicBool,
    wake: Notify,
}

/// A caller's hold on its place in the queue.
struct Queued<'a> {
    places: &'a Places,
    waiter: Arc<Waiter>,
    is_over: bool,
}

/// Why there is no place now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoPlace {
    /// All are taken, or others wait.
    Full,
    /// There are none any more.
    Closed,
}

/// The word. PURE: each answers what it becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Word(u64);

impl Word {
    const CLOSED: u64 = 1 << 63;
    const WAITING: u64 = 1 << 32;

    fn taken(self) -> u32 {
        // The lower half.
        (self.0 & (Self::WAITING - 1)) as u32
    }

    fn has_waiting(self) -> bool {
        self.0 & !Self::CLOSED >= Self::WAITING
    }

    fn is_closed(self) -> bool {
        self.0 & Self::CLOSED != 0
    }

    /// A caller comes.
    fn enter(self, limit: u32) -> Result<Self, NoPlace> {
        if self.is_closed() {
            return Err(NoPlace::Closed);
        }
        if self.taken() >= limit || self.has_waiting() {
            return Err(NoPlace::Full);
        }
        Ok(Self(self.0 + 1))
    }

    /// One leaves; `None`: somebody waits, to whom the place goes.
    fn leave(self) -> Option<Self> {
        (!self.has_waiting()).then(|| Self(self.0 - 1))
    }

    /// One more waits.
    fn wait(self) -> Self {
        Self(self.0 + Self::WAITING)
    }

    /// One less waits: it has got the place of somebody who left, or has gone.
    fn waits_no_more(self) -> Self {
        Self(self.0 - Self::WAITING)
    }
}

impl Places {
    /// All are free.
    pub(crate) fn new(limit: u32) -> Self {
        Self { word: AtomicU64::new(0), limit, queue: Mutex::default(), idle: Notify::new() }
    }

    /// A place, if one is free and nobody waits for it.
    pub(crate) fn try_take(&self) -> Result<Taken<'_>, NoPlace> {
        self.change(|word| word.enter(self.limit)).map(|()| Taken(self))
    }

    /// Waits for a place behind all who wait already. Those who wait when the places are closed still get theirs.
    ///
    /// # Cancel safety
    /// Dropping the future gives up the place in the queue.
    pub(crate) async fn take(&self) -> Result<Taken<'_>, NoPlace> {
        match self.enqueue()? {
            Ok(taken) => Ok(taken),
            Err(queued) => Ok(queued.wait().await),
        }
    }

    /// How many are taken.
    pub(crate) fn taken(&self) -> u32 {
        self.load().taken()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.load().is_closed()
    }

    /// From here on nobody comes in who does not wait already.
    pub(crate) fn close(&self) {
        self.word.fetch_or(Word::CLOSED, Ordering::AcqRel);
    }

    /// Returns once nothing is taken, and nobody waits, after [`Places::close`]. Cancel safe.
    pub(crate) async fn wait_idle(&self) {
        loop {
            let idle = self.idle.notified();
            tokio::pin!(idle);
            idle.as_mut().enable();
            if self.taken() == 0 {
                return;
            }
            idle.await;
        }
    }

    fn leave(&self) {
        loop {
            let left = self.change(|word| word.leave().ok_or(()));
            if left.is_ok() || self.hand_over() {
                return;
            }
        }
    }

    /// Gives a place that was taken to the first who waits, if there is one.
    fn hand_over(&self) -> bool {
        let mut queue = self.queue();
        let Some(first) = queue.pop_front() else { return false };
        self.count(Word::waits_no_more);
        first.has_place.store(true, Ordering::Release);
        drop(queue);
        first.wake.notify_one();
        true
    }

    /// A place that has become free meanwhile, else one in the queue.
    fn enqueue(&self) -> Result<Result<Taken<'_>, Queued<'_>>, NoPlace> {
        let mut queue = self.queue();
        let mut has_place = false;
        self.change(|word| {
            let entered = word.enter(self.limit);
            has_place = entered.is_ok();
            match entered {
                Err(NoPlace::Full) => Ok(word.wait()),
                other => other,
            }
        })?;
        if has_place {
            return Ok(Ok(Taken(self)));
        }
        let waiter = Arc::<Waiter>::default();
        queue.push_back(Arc::clone(&waiter));
        Ok(Err(Queued { places: self, waiter, is_over: false }))
    }

    /// One step: what was before happened before, what follows sees what others did before theirs.
    fn change<E>(&self, mut next: impl FnMut(Word) -> Result<Word, E>) -> Result<(), E> {
        let mut before = self.load();
        loop {
            let after = next(before)?;
            match self.word.compare_exchange_weak(before.0, after.0, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => {
                    if after.is_closed() && after.taken() == 0 {
                        self.idle.notify_waiters();
                    }
                    return Ok(());
                }
                Err(other) => before = Word(other),
            }
        }
    }

    fn count(&self, next: impl Fn(Word) -> Word) {
        _ = self.change(|word| Ok::<_, ()>(next(word)));
    }

    fn load(&self) -> Word {
        Word(self.word.load(Ordering::Acquire))
    }

    fn queue(&self) -> MutexGuard<'_, VecDeque<Arc<Waiter>>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.0.leave();
    }
}

impl<'a> Queued<'a> {
    async fn wait(mut self) -> Taken<'a> {
        while !self.waiter.has_place.load(Ordering::Acquire) {
            // A permit that came in between is kept.
            self.waiter.wake.notified().await;
        }
        self.is_over = true;
        Taken(self.places)
    }
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let mut queue = self.places.queue();
        if let Some(at) = queue.iter().position(|waiter| Arc::ptr_eq(waiter, &self.waiter)) {
            queue.remove(at);
            self.places.count(Word::waits_no_more);
            return;
        }
        // It has got a place and does not want it any more.
        drop(queue);
        self.places.leave();
    }
}
