//! What happened: a bounded log that any number of readers follow at their own speed.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use goplug_pconf_schema::admin::{EventKind, RegistryEvent, State};
use goplug_pconf_schema::{Code, Fault, PluginId, printable};
use tokio::sync::watch;

/// Events that are remembered for readers that are slow or come back.
const REMEMBERED: usize = 4_096;

/// The log; its version counts the events and only grows.
#[derive(Debug)]
pub(crate) struct EventLog {
    ring: Mutex<VecDeque<RegistryEvent>>,
    version: watch::Sender<u64>,
    closed: AtomicBool,
}

impl EventLog {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { ring: Mutex::default(), version: watch::Sender::new(0), closed: AtomicBool::new(false) })
    }

    /// Appends an event; the oldest is forgotten when the log is full.
    pub(crate) fn record(
        &self,
        kind: EventKind,
        plugin: Option<&PluginId>,
        state: Option<State>,
        detail: Option<String>,
    ) {
        tracing::debug!(?kind, plugin = plugin.map(PluginId::as_str), ?state, detail = detail.as_deref(), "event");
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let seq = *self.version.borrow() + 1;
        if ring.len() == REMEMBERED {
            ring.pop_front();
        }
        let detail = detail.map(|text| printable(&text));
        ring.push_back(RegistryEvent { seq, time: now_text(), kind, plugin: plugin.cloned(), state, detail });
        // Still under the lock: the version and the ring never disagree.
        self.version.send_replace(seq);
    }

    /// Readers that have read everything end.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        // Wakes the readers; the version stays.
        self.version.send_modify(|_| {});
    }

    pub(crate) fn version(&self) -> u64 {
        *self.version.borrow()
    }

    /// A reader of everything from now on.
    pub(crate) fn follow(self: &Arc<Self>) -> Events {
        Events { next: self.version() + 1, changed: self.version.subscribe(), log: Arc::clone(self) }
    }

    /// A reader of everything after `seq`.
    pub(crate) fn follow_after(self: &Arc<Self>, seq: u64) -> Result<Events, Fault> {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let oldest = ring.front().map_or(self.version() + 1, |event| event.seq);
        if seq.saturating_add(1) < oldest {
            let text = format!(
                "event {} is no longer remembered, the oldest is {oldest}: list the plugins and follow from now",
                seq + 1
            );
            return Err(Fault::new(Code::NotFound, text));
        }
        drop(ring);
        let next = seq.min(self.version()) + 1;
        Ok(Events { next, changed: self.version.subscribe(), log: Arc::clone(self) })
    }

    fn read(&self, seq: u64) -> Read {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(oldest) = ring.front().map(|event| event.seq) else { return Read::NotYet };
        match seq.checked_sub(oldest) {
            None => Read::Forgotten { oldest },
            Some(index) => usize::try_from(index)
                .ok()
                .and_then(|index| ring.get(index))
                .map_or(Read::NotYet, |event| Read::Event(event.clone())),
        }
    }
}

enum Read {
    Event(RegistryEvent),
    NotYet,
    Forgotten { oldest: u64 },
}

/// Everything that happens in a registry, in order.
///
/// A reader that falls more than 4,096 events behind gets one [`EventKind::Lagged`] in place of what it missed.
#[derive(Debug)]
pub struct Events {
    log: Arc<EventLog>,
    changed: watch::Receiver<u64>,
    next: u64,
}

impl Events {
    /// The next event; `None` once the registry is closed and everything was read.
    ///
    /// # Cancel safety
    /// Dropping the future loses no event.
    pub async fn next(&mut self) -> Option<RegistryEvent> {
        loop {
            self.changed.borrow_and_update();
            if let Some(event) = self.try_next() {
                return Some(event);
            }
            if self.log.closed.load(Ordering::Acquire) {
                return None;
            }
            // The log, which this reader holds, holds the sender: this cannot fail.
            _ = self.changed.changed().await;
        }
    }

    /// The next event if it has happened already.
    pub fn try_next(&mut self) -> Option<RegistryEvent> {
        match self.log.read(self.next) {
            Read::Event(event) => {
                self.next += 1;
                Some(event)
            }
            Read::NotYet => None,
            Read::Forgotten { oldest } => {
                let detail = format!("{} events were missed: list the plugins again", oldest - self.next);
                self.next = oldest;
                let (kind, time) = (EventKind::Lagged, now_text());
                Some(RegistryEvent { seq: oldest - 1, time, kind, plugin: None, state: None, detail: Some(detail) })
            }
        }
    }
}

/// The wall clock, for people: RFC 3339 with milliseconds. No decision is made on it.
pub(crate) fn now_text() -> String {
    humantime::format_rfc3339_millis(std::time::SystemTime::now()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_slow_reader_is_told_what_it_missed_and_an_old_place_is_refused() {
        let log = EventLog::new();
        let mut slow = log.follow();
        for n in 0..REMEMBERED + 10 {
            log.record(EventKind::Changed, None, None, Some(n.to_string()));
        }
        let first = slow.next().await.unwrap();
        assert_eq!((first.kind, first.seq), (EventKind::Lagged, 10));
        assert_eq!(slow.next().await.unwrap().detail.as_deref(), Some("10"));
        assert_eq!(log.follow_after(9).unwrap_err().code, Code::NotFound);
        let mut back = log.follow_after(10).unwrap();
        assert_eq!(back.next().await.unwrap().seq, 11);
        let mut last = log.follow_after(REMEMBERED as u64 + 9).unwrap();
        log.close();
        assert_eq!(last.next().await.unwrap().seq, REMEMBERED as u64 + 10);
        assert_eq!(last.next().await, None);
    }
}
