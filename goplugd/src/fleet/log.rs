//! What happens in all directories, as one growing sequence that readers follow at their own speed.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use goplug_registry::admin::{EventKind, RegistryEvent};
use goplug_registry::{Code, Error};
use tokio::sync::watch;

/// Events that are kept for readers that are slow or come back; older ones are gone (HTTP 410).
pub(crate) const KEPT: usize = 4_096;

/// The log. Its sequence goes on from the daemon's start time in microseconds, so that the place of a reader in the log of
/// an earlier daemon is known to be old and never mistaken for one in this log.
#[derive(Debug)]
pub(crate) struct EventLog {
    ring: Mutex<VecDeque<RegistryEvent>>,
    version: watch::Sender<u64>,
}

impl EventLog {
    /// An empty log whose first event will have the sequence number `start + 1`.
    pub(crate) fn new(start: u64) -> Self {
        Self { ring: Mutex::default(), version: watch::Sender::new(start) }
    }

    /// The sequence number of the newest event; it only grows.
    pub(crate) fn version(&self) -> u64 {
        *self.version.borrow()
    }

    /// Appends `event` under the next number of this log.
    pub(crate) fn append(&self, mut event: RegistryEvent) {
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        event.seq = self.version() + 1;
        let version = event.seq;
        if ring.len() == KEPT {
            ring.pop_front();
        }
        ring.push_back(event);
        // Under the lock, so that the version and the ring never disagree.
        self.version.send_replace(version);
    }

    /// A reader of everything after `after`; of everything kept when it is 0; of what comes when it is `None`.
    ///
    /// # Errors
    /// `not_found` when events after `after` are gone, or when it is ahead of this log.
    pub(crate) fn follow(self: &Arc<Self>, after: Option<u64>) -> Result<Reader, Error> {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let version = self.version();
        let oldest = ring.front().map_or(version + 1, |event| event.seq);
        let next = match after {
            None => version + 1,
            Some(0) => oldest,
            Some(seq) if seq <= version && seq >= oldest - 1 => seq + 1,
            Some(seq) => {
                let text = format!(
                    "events after {seq} are not kept, those from {oldest} to {version} are: list the plugins and follow from there"
                );
                return Err(Error::new(Code::NotFound, text));
            }
        };
        Ok(Reader { next, changed: self.version.subscribe(), log: Arc::clone(self) })
    }
}

/// One reader of the log; it costs the log nothing, however slow it is.
#[derive(Debug)]
pub(crate) struct Reader {
    log: Arc<EventLog>,
    changed: watch::Receiver<u64>,
    next: u64,
}

impl Reader {
    /// The number of the event that comes next, if it is still kept then.
    pub(crate) fn place(&self) -> u64 {
        self.next
    }

    /// Waits for the next event. What was overwritten before it was read is told as one [`EventKind::Lagged`].
    ///
    /// # Cancel safety
    /// Dropping the future loses no event.
    pub(crate) async fn next(&mut self) -> RegistryEvent {
        // The log lives as long as this reader, so the wait cannot fail.
        let _ = self.changed.wait_for(|version| *version >= self.next).await;
        let ring = self.log.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let oldest = ring.front().map_or(self.next, |event| event.seq);
        if self.next < oldest {
            let detail = format!("{} events were missed: list the plugins again", oldest - self.next);
            self.next = oldest;
            let time = super::now_text();
            return RegistryEvent {
                seq: oldest - 1,
                time,
                kind: EventKind::Lagged,
                plugin: None,
                state: None,
                detail: Some(detail),
            };
        }
        let index = usize::try_from(self.next - oldest).expect("the ring is short");
        self.next += 1;
        ring.get(index).cloned().expect("an event up to the version is in the ring")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 1_000_000;

    fn log_with(events: usize) -> Arc<EventLog> {
        let log = Arc::new(EventLog::new(START));
        for n in 0..events {
            log.append(event(&n.to_string()));
        }
        log
    }

    fn event(detail: &str) -> RegistryEvent {
        RegistryEvent {
            seq: 7,
            time: String::new(),
            kind: EventKind::Changed,
            plugin: None,
            state: None,
            detail: Some(detail.into()),
        }
    }

    #[tokio::test]
    async fn a_reader_begins_where_it_says_and_a_place_outside_the_log_is_refused() {
        let kept = KEPT as u64;
        for (events, after, first) in [
            (0, Some(START), Some("new")),
            (3, None, Some("new")),
            (3, Some(0), Some("0")),
            (3, Some(START + 1), Some("1")),
            (3, Some(START + 4), None),
            (3, Some(12), None),
            (KEPT + 5, Some(START + 5), Some("5")),
            (KEPT + 5, Some(START + 4), None),
            (KEPT + 5, Some(START + kept + 5), Some("new")),
        ] {
            let log = log_with(events);
            let reader = log.follow(after);
            log.append(event("new"));
            match (reader, first) {
                (Ok(mut reader), Some(first)) => {
                    // Appending to a full log pushed the oldest event out.
                    let read = reader.next().await;
                    let lagged = read.kind == EventKind::Lagged;
                    let read = if lagged { reader.next().await } else { read };
                    let expected = if lagged { "6" } else { first };
                    assert_eq!(read.detail.as_deref(), Some(expected), "{events} events, after {after:?}");
                }
                (Err(error), None) => assert_eq!(error.code, Code::NotFound),
                (reader, first) => panic!("{events} events, after {after:?}: {reader:?} instead of {first:?}"),
            }
        }
    }

    #[tokio::test]
    async fn the_sequence_is_the_logs_own_and_a_slow_reader_is_told_what_it_missed() {
        let log = log_with(0);
        let mut reader = log.follow(None).unwrap();
        for n in 0..KEPT + 10 {
            log.append(event(&n.to_string()));
        }
        let lagged = reader.next().await;
        assert_eq!((lagged.kind, lagged.seq), (EventKind::Lagged, START + 10));
        assert_eq!(reader.next().await.seq, START + 11);
        assert_eq!(log.version(), START + KEPT as u64 + 10);
    }
}
