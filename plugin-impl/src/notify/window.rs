//! What one callback keeps, for whom, and until when. PURE: no lock, no clock, no task; the time is a parameter.
//!
//! A message is **held** while a subscription of a callback of class `event` has not acknowledged it: it then counts
//! against the window's bounds and is never dropped. What is not held any more stays as history for observers, and for
//! whoever subscribes first, as long as it fits and is younger than [`RETAIN`].

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use goplug_pconf_schema::wire::event::{
    Class, MAX_STATE_KEYS, MAX_SUBSCRIPTIONS, Position, RETAIN_MS, SubscriptionStatus, WINDOW_BYTES, WINDOW_MESSAGES,
};
use goplug_pconf_schema::{Code, Fault};

mod read;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

pub(crate) use read::{Next, Start};

/// How long a detached subscription holds its place, and a message that nobody holds is kept.
pub(crate) const RETAIN: Duration = Duration::from_millis(RETAIN_MS);
/// The most readers without a subscription of one callback; beyond it `overloaded`.
pub(crate) const MAX_OBSERVERS: usize = 256;
/// The longest key of a `state` message, in bytes.
pub(crate) const MAX_KEY_BYTES: usize = 1024;
/// All values of one `state` callback together, in bytes.
pub(crate) const MAX_STATE_BYTES: usize = 64 * 1024 * 1024;

/// How much a callback keeps for its subscriptions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Messages of class `event` or `lossy`.
    pub(crate) messages: usize,
    /// Bytes of these messages; also the largest message of every class.
    pub(crate) bytes: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { messages: WINDOW_MESSAGES, bytes: WINDOW_BYTES }
    }
}

/// What was given up, and so never reached a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Losses {
    /// Messages that were dropped: beyond the window or too old while nobody subscribed, or of class `lossy`.
    pub dropped: u64,
    /// Detached subscriptions that were forgotten because they did not come back in time.
    pub forgotten: u64,
}

/// Why a message was not taken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The window is full of messages that a subscription has not acknowledged: wait, or come back.
    Full,
    /// It will never be taken.
    Never(Fault),
}

/// The messages, subscriptions and observers of one callback.
#[derive(Debug)]
pub(crate) struct Window {
    name: Arc<str>,
    epoch: Arc<str>,
    class: Class,
    bounds: Bounds,
    /// The number of the newest message; 0 before the first.
    last: u64,
    /// Every subscription that there was is through with the messages up to here; never decreases.
    released: u64,
    kept: BTreeMap<u64, Kept>,
    kept_bytes: usize,
    /// Class `state` only: where the value of each key is in `kept`.
    keys: HashMap<Arc<str>, u64>,
    subscriptions: BTreeMap<String, Subscription>,
    observers: BTreeMap<u64, u64>,
    /// Names and cursors of subscriptions that were forgotten, so that one that comes back late is told what it missed.
    forgotten: VecDeque<(String, u64)>,
    streams: u64,
    losses: Losses,
    ended: bool,
}

#[derive(Debug)]
struct Kept {
    key: Option<Arc<str>>,
    data: Bytes,
    at: Duration,
}

#[derive(Debug)]
struct Subscription {
    /// Tells a subscription from a later one of the same name.
    generation: u64,
    /// Its cursor: everything up to here was handled.
    acknowledged: u64,
    /// The next message for the open stream.
    next: u64,
    /// The newest message that any of its streams was given.
    sent: u64,
    /// What was lost before it began; told to each stream until an acknowledgement passes it.
    gap: Option<(u64, u64)>,
    gap_told: bool,
    /// The open stream, or since when there is none.
    stream: Result<u64, Duration>,
    caller: Option<String>,
}

impl Subscription {
    /// It needs nothing up to here any more.
    fn through(&self, class: Class) -> u64 {
        match class {
            Class::Event | Class::State => self.acknowledged,
            Class::Lossy => self.acknowledged.max(self.sent),
        }
    }
}

impl Window {
    /// An empty window of the callback `name` in the process `epoch`.
    pub(crate) fn new(name: Arc<str>, epoch: Arc<str>, class: Class, bounds: Bounds) -> Self {
        Self {
            name,
            epoch,
            class,
            bounds,
            last: 0,
            released: 0,
            kept: BTreeMap::new(),
            kept_bytes: 0,
            keys: HashMap::new(),
            subscriptions: BTreeMap::new(),
            observers: BTreeMap::new(),
            forgotten: VecDeque::new(),
            streams: 0,
            losses: Losses::default(),
            ended: false,
        }
    }

    /// Takes a message and returns its number.
    pub(crate) fn offer(&mut self, now: Duration, key: Option<&str>, data: Bytes) -> Result<u64, Refusal> {
        self.check(key, &data)?;
        self.expire(now);
        if self.class == Class::State {
            self.replace(key.unwrap_or_default(), data.len())?;
        } else {
            self.make_room(data.len())?;
        }
        self.last += 1;
        self.kept_bytes += data.len();
        let key = key.map(Arc::<str>::from);
        if self.class == Class::State {
            self.keys.insert(key.clone().unwrap_or_default(), self.last);
        }
        self.kept.insert(self.last, Kept { key, data, at: now });
        Ok(self.last)
    }

    /// Takes the acknowledgement of everything up to `position` by the subscription `name`.
    pub(crate) fn acknowledge(&mut self, now: Duration, name: &str, position: &Position) -> Result<(), Fault> {
        self.expire(now);
        if *position.epoch != *self.epoch {
            let ours = &self.epoch;
            return Err(Fault::new(Code::Conflict, format!("position is of another epoch, this process is {ours}")));
        }
        let Some(subscription) = self.subscriptions.get_mut(name) else {
            let text = format!("no subscription `{name}` of callback `{}`; attach it first", self.name);
            return Err(Fault::new(Code::NotFound, text));
        };
        let reached = subscription.sent.max(subscription.acknowledged);
        if position.seq > reached {
            let text =
                format!("position {} was not sent to subscription `{name}` yet, it was sent {reached}", position.seq);
            return Err(Fault::new(Code::InvalidArgument, text));
        }
        subscription.acknowledged = subscription.acknowledged.max(position.seq);
        if self.class != Class::State {
            subscription.next = subscription.next.max(subscription.acknowledged + 1);
        }
        if subscription.gap.is_some_and(|(_, to)| to < subscription.acknowledged) {
            subscription.gap = None;
        }
        self.settle();
        Ok(())
    }

    /// Forgets detached subscriptions and drops messages that nobody holds, once each is older than [`RETAIN`].
    pub(crate) fn expire(&mut self, now: Duration) {
        let is_stale = |s: &Subscription| s.stream.is_err_and(|since| now.saturating_sub(since) >= RETAIN);
        let stale: Vec<_> =
            self.subscriptions.iter().filter(|(_, s)| is_stale(s)).map(|(name, _)| name.clone()).collect();
        for name in stale {
            let Some(subscription) = self.subscriptions.remove(&name) else { continue };
            self.losses.forgotten += 1;
            if self.forgotten.len() == MAX_SUBSCRIPTIONS {
                self.forgotten.pop_front();
            }
            self.forgotten.push_back((name, subscription.through(self.class)));
        }
        self.settle();
        while self.class != Class::State
            && self
                .kept
                .first_key_value()
                .is_some_and(|(seq, kept)| !self.is_held(*seq) && now.saturating_sub(kept.at) >= RETAIN)
        {
            self.drop_oldest();
        }
    }

    /// When [`Window::expire`] will next forget a subscription, so that a full window may have room again.
    pub(crate) fn next_expiry(&self) -> Option<Duration> {
        self.subscriptions.values().filter_map(|s| s.stream.err()).min().map(|since| since + RETAIN)
    }

    /// The subscriptions that there are, as marks for [`Window::has_acknowledged`].
    pub(crate) fn subscribers(&self) -> Vec<(String, u64)> {
        self.subscriptions.iter().map(|(name, s)| (name.clone(), s.generation)).collect()
    }

    /// Whether the marked subscription handled everything up to `seq`; `None` when it was forgotten.
    pub(crate) fn has_acknowledged(&self, (name, generation): &(String, u64), seq: u64) -> Option<bool> {
        let subscription = self.subscriptions.get(name).filter(|s| s.generation == *generation)?;
        Some(subscription.acknowledged >= seq)
    }

    /// Messages that attached subscriptions have not acknowledged, each counted once per subscription.
    pub(crate) fn unacknowledged(&self) -> u64 {
        let attached = self.subscriptions.values().filter(|s| s.stream.is_ok() && self.class == Class::Event);
        attached.map(|s| self.last - s.acknowledged).sum()
    }

    /// Ends every stream, and takes no further message.
    pub(crate) fn end(&mut self) {
        self.ended = true;
    }

    /// Whether [`Window::end`] was called.
    pub(crate) fn is_ended(&self) -> bool {
        self.ended
    }

    /// What was given up so far.
    pub(crate) fn losses(&self) -> Losses {
        self.losses
    }

    /// The position of message `seq`.
    pub(crate) fn position(&self, seq: u64) -> Position {
        Position { epoch: self.epoch.to_string(), seq }
    }

    /// The subscriptions and the number of observers, for people.
    pub(crate) fn status(&self) -> (Vec<SubscriptionStatus>, u64) {
        let status = |(name, s): (&String, &Subscription)| SubscriptionStatus {
            name: name.clone(),
            attached: s.stream.is_ok(),
            acknowledged: s.acknowledged,
            pending: match self.class {
                Class::Event => self.last - s.acknowledged,
                Class::State | Class::Lossy => self.kept.range(s.next..).count() as u64,
            },
            caller: s.caller.clone(),
        };
        (self.subscriptions.iter().map(status).collect(), self.observers.len() as u64)
    }

    fn check(&self, key: Option<&str>, data: &Bytes) -> Result<(), Refusal> {
        let never = |code, text| Err(Refusal::Never(Fault::new(code, text)));
        let name = &self.name;
        if self.ended {
            return never(Code::Unavailable, format!("callback `{name}` takes no more: the plugin is stopping"));
        }
        if data.len() > self.bounds.bytes {
            let (len, limit) = (data.len(), self.bounds.bytes);
            return never(
                Code::TooLarge,
                format!("notification of `{name}` is {len} bytes, its window holds {limit}; make the window larger"),
            );
        }
        match key {
            Some(_) if self.class != Class::State => {
                never(Code::InvalidArgument, format!("callback `{name}` has no keys: only class state has"))
            }
            Some(key) if key.len() > MAX_KEY_BYTES => {
                let len = key.len();
                never(Code::InvalidArgument, format!("key of `{name}` is {len} bytes, the limit is {MAX_KEY_BYTES}"))
            }
            _ => Ok(()),
        }
    }

    /// Takes the old value of `key` away, if the new one fits.
    fn replace(&mut self, key: &str, new_bytes: usize) -> Result<(), Refusal> {
        let old = self.keys.get(key).copied();
        let old_bytes = old.and_then(|seq| self.kept.get(&seq)).map_or(0, |kept| kept.data.len());
        let full = |text| Err(Refusal::Never(Fault::new(Code::Overloaded, text)));
        if old.is_none() && self.keys.len() >= MAX_STATE_KEYS {
            return full(format!("callback `{}` holds {MAX_STATE_KEYS} keys, the limit; use fewer keys", self.name));
        }
        let most = MAX_STATE_BYTES.max(self.bounds.bytes);
        if self.kept_bytes - old_bytes + new_bytes > most {
            return full(format!("callback `{}` would hold more than {most} bytes in all its keys", self.name));
        }
        if let Some(seq) = old {
            self.kept.remove(&seq);
            self.kept_bytes -= old_bytes;
        }
        Ok(())
    }

    /// Drops the oldest messages that nobody holds until one of `bytes` fits.
    fn make_room(&mut self, bytes: usize) -> Result<(), Refusal> {
        while self.kept.len() >= self.bounds.messages || self.kept_bytes + bytes > self.bounds.bytes {
            match self.kept.first_key_value() {
                Some((seq, _)) if !self.is_held(*seq) => self.drop_oldest(),
                _ => return Err(Refusal::Full),
            }
        }
        Ok(())
    }

    fn drop_oldest(&mut self) {
        if let Some((seq, kept)) = self.kept.pop_first() {
            self.kept_bytes -= kept.data.len();
            self.losses.dropped += u64::from(seq > self.released);
        }
    }

    fn is_held(&self, seq: u64) -> bool {
        self.class == Class::Event && !self.subscriptions.is_empty() && seq > self.released
    }

    /// Moves `released` on to what every subscription is through with.
    fn settle(&mut self) {
        let through = self.subscriptions.values().map(|s| s.through(self.class)).min();
        self.released = self.released.max(through.unwrap_or_default());
    }

    /// The number of the oldest message that is kept, or of the next one if there is none.
    fn oldest(&self) -> u64 {
        self.kept.first_key_value().map_or(self.last + 1, |(seq, _)| *seq)
    }
}
