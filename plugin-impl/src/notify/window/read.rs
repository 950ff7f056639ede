//! The reading half of a window: who attaches, and what each stream is given next.

use std::time::Duration;

use bytes::Bytes;
use goplug_pconf_schema::wire::event::{Class, MAX_SUBSCRIPTIONS};
use goplug_pconf_schema::{Code, Fault};

use super::{MAX_OBSERVERS, Subscription, Window};

/// Where a stream begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// A subscription's stream: behind its last acknowledgement; of class `state` with every key.
    Subscribed,
    /// A v0 poll: behind its last acknowledgement in every class, as each poll is a stream of its own.
    Poll,
    /// An observer: with the next message; of class `state` with every key.
    Now,
    /// An observer: behind this message.
    After(u64),
    /// An observer that knew another process: with everything that is kept.
    Kept,
}

/// What a stream is given.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// A message.
    Message {
        /// Its number.
        seq: u64,
        /// Class `state`: its key.
        key: Option<String>,
        /// Class `lossy`: how many were dropped just before it.
        dropped: u64,
        /// The payload.
        data: Bytes,
    },
    /// The messages of these numbers, both included, will never come.
    Gap(u64, u64),
    /// The subscription has a later stream, or was forgotten: this one is over.
    Replaced,
    /// The plugin leaves: every stream is over.
    End,
    /// Nothing, until the window changes.
    Wait,
}

impl Window {
    /// Opens a stream of the subscription `name`, which ends its earlier one, and returns the stream's number.
    pub(crate) fn attach(
        &mut self,
        now: Duration,
        name: &str,
        caller: Option<String>,
        start: Start,
    ) -> Result<u64, Fault> {
        self.expire(now);
        self.streams += 1;
        let stream = self.streams;
        if !self.subscriptions.contains_key(name) {
            if self.subscriptions.len() >= MAX_SUBSCRIPTIONS {
                let text = format!("callback `{}` has {MAX_SUBSCRIPTIONS} subscriptions, the limit", self.name);
                return Err(Fault::new(Code::Overloaded, text));
            }
            let new = self.new_subscription(name, stream);
            self.subscriptions.insert(name.to_owned(), new);
        }
        let class = self.class;
        if let Some(subscription) = self.subscriptions.get_mut(name) {
            subscription.stream = Ok(stream);
            subscription.caller = caller;
            subscription.gap_told = false;
            subscription.next = match class {
                Class::State if start == Start::Subscribed => 1,
                Class::Event | Class::State | Class::Lossy => subscription.through(class) + 1,
            };
        }
        self.settle();
        Ok(stream)
    }

    /// Tells that a stream is over; the subscription holds its place for [`super::RETAIN`].
    pub(crate) fn detach(&mut self, now: Duration, name: &str, stream: u64) {
        if let Some(subscription) = self.subscriptions.get_mut(name).filter(|s| s.stream == Ok(stream)) {
            subscription.stream = Err(now);
        }
        self.expire(now);
    }

    /// Adds a reader that acknowledges nothing and holds nothing back.
    pub(crate) fn observe(&mut self, now: Duration, from: Start) -> Result<u64, Fault> {
        self.expire(now);
        if self.observers.len() >= MAX_OBSERVERS {
            let text = format!("callback `{}` has {MAX_OBSERVERS} observers, the limit", self.name);
            return Err(Fault::new(Code::Overloaded, text));
        }
        let next = match from {
            Start::After(seq) if seq > self.last => {
                let text =
                    format!("position {seq} of callback `{}` does not exist yet, the last is {}", self.name, self.last);
                return Err(Fault::new(Code::InvalidArgument, text));
            }
            Start::After(seq) => seq + 1,
            Start::Now if self.class != Class::State => self.last + 1,
            // Whoever knew another process has seen nothing of this one: what is not kept any more is a gap.
            Start::Kept if self.class != Class::State => 1,
            Start::Subscribed | Start::Poll | Start::Now | Start::Kept => self.oldest(),
        };
        self.streams += 1;
        self.observers.insert(self.streams, next);
        Ok(self.streams)
    }

    /// Takes an observer away.
    pub(crate) fn leave(&mut self, observer: u64) {
        self.observers.remove(&observer);
    }

    /// What stream `stream` of the subscription `name` is given next.
    pub(crate) fn next_for(&mut self, name: &str, stream: u64) -> Next {
        if self.ended {
            return Next::End;
        }
        let (class, oldest) = (self.class, self.oldest());
        let Some(subscription) = self.subscriptions.get_mut(name).filter(|s| s.stream == Ok(stream)) else {
            return Next::Replaced;
        };
        if let Some((from, to)) = subscription.gap.filter(|_| !subscription.gap_told) {
            subscription.gap_told = true;
            return Next::Gap(from, to);
        }
        let Some((&seq, kept)) = self.kept.range(subscription.next..).next() else { return Next::Wait };
        let dropped = if class == Class::Lossy { oldest.saturating_sub(subscription.next) } else { 0 };
        subscription.next = seq + 1;
        subscription.sent = subscription.sent.max(seq);
        let key = kept.key.as_deref().map(str::to_owned);
        let message = Next::Message { seq, key, dropped, data: kept.data.clone() };
        if class == Class::Lossy {
            self.settle();
        }
        message
    }

    /// What `observer` is given next.
    pub(crate) fn next_for_observer(&mut self, observer: u64) -> Next {
        if self.ended {
            return Next::End;
        }
        let oldest = self.oldest();
        let Some(next) = self.observers.get_mut(&observer) else { return Next::Replaced };
        if self.class != Class::State && *next < oldest {
            let from = std::mem::replace(next, oldest);
            return Next::Gap(from, oldest - 1);
        }
        let Some((&seq, kept)) = self.kept.range(*next..).next() else { return Next::Wait };
        *next = seq + 1;
        Next::Message { seq, key: kept.key.as_deref().map(str::to_owned), dropped: 0, data: kept.data.clone() }
    }

    /// A subscription that begins with the oldest message that not every other one is through with.
    fn new_subscription(&mut self, name: &str, generation: u64) -> Subscription {
        let late = self.forgotten.iter().position(|(forgotten, _)| forgotten == name);
        let cursor_before = late.and_then(|at| self.forgotten.remove(at)).map(|(_, cursor)| cursor);
        let start = match self.class {
            Class::Event => self.released.max(self.oldest() - 1),
            Class::Lossy => self.released,
            Class::State => 0,
        };
        let missed_from = cursor_before.unwrap_or(start).min(self.released) + 1;
        Subscription {
            generation,
            acknowledged: start,
            next: start + 1,
            sent: start,
            gap: (self.class == Class::Event && missed_from <= start).then_some((missed_from, start)),
            gap_told: false,
            stream: Ok(generation),
            caller: None,
        }
    }
}
