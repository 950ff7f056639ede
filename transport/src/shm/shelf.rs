//! Which segments there are, whose they are, and which of them a body gets. PURE.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use goplug_pconf_schema::wire::memfd::{MAX_SEGMENT_BYTES, MAX_SEGMENTS};

/// Shorter bodies are copied, which is as quick.
pub(crate) const MIN_BODY_BYTES: usize = 64 * 1024;
/// A body does not take a segment so many times as long as it needs: a longer one would have to go without.
const MAX_WASTE: usize = 4;

#[derive(Debug)]
pub(super) struct Shelf {
    /// The last number of a connection, and the last key.
    last: u64,
    /// Connections that may have segments.
    open: Vec<u64>,
    entries: Vec<Entry>,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: u64,
    /// The connection that it belongs to.
    pub(super) owner: u64,
    /// Where it is in this process.
    pub(super) start: usize,
    pub(super) bytes: usize,
    pub(super) memfd: Arc<OwnedFd>,
    is_idle: bool,
}

/// What a body gets.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// The segment of this key.
    Idle(u64),
    /// One that is to be made, of so many bytes.
    New(usize),
    /// None.
    Ordinary,
}

impl Shelf {
    pub(super) const fn new() -> Self {
        Self { last: 0, open: Vec::new(), entries: Vec::new() }
    }

    /// A connection begins: its number.
    pub(super) fn open(&mut self) -> u64 {
        self.last += 1;
        self.open.push(self.last);
        self.last
    }

    /// A connection has ended: its segments are forgotten, now or when they come back.
    pub(super) fn close(&mut self, owner: u64) {
        self.open.retain(|open| *open != owner);
        self.entries.retain(|entry| entry.owner != owner || !entry.is_idle);
    }

    /// What a body of `length` bytes gets. Idle ones may be forgotten for it.
    pub(super) fn choose(&mut self, owner: u64, length: usize) -> Choice {
        let bytes = length.next_power_of_two();
        if length < MIN_BODY_BYTES || bytes as u64 > MAX_SEGMENT_BYTES || !self.open.contains(&owner) {
            return Choice::Ordinary;
        }
        let fits = |entry: &&mut Entry| {
            entry.is_idle && entry.owner == owner && (bytes..=bytes.saturating_mul(MAX_WASTE)).contains(&entry.bytes)
        };
        if let Some(entry) = self.entries.iter_mut().filter(fits).min_by_key(|entry| entry.bytes) {
            entry.is_idle = false;
            return Choice::Idle(entry.key);
        }
        while self.is_full(owner, bytes) {
            let Some(idle) = self.entries.iter().position(|entry| entry.is_idle && entry.owner == owner) else {
                return Choice::Ordinary;
            };
            self.entries.remove(idle);
        }
        Choice::New(bytes)
    }

    /// Takes note of a new one, which is used from now on; answers its key, unless its connection has ended meanwhile, or has
    /// enough.
    pub(super) fn add(&mut self, owner: u64, start: usize, bytes: usize, memfd: Arc<OwnedFd>) -> Option<u64> {
        if !self.open.contains(&owner) || self.is_full(owner, bytes) {
            return None;
        }
        self.last += 1;
        self.entries.push(Entry { key: self.last, owner, start, bytes, memfd, is_idle: false });
        Some(self.last)
    }

    /// Nobody uses it any more; it is forgotten if its connection has ended.
    pub(super) fn came_back(&mut self, key: u64) {
        let open = &self.open;
        self.entries.retain_mut(|entry| {
            entry.is_idle |= entry.key == key;
            entry.key != key || open.contains(&entry.owner)
        });
    }

    /// The segment in which these bytes are.
    pub(super) fn find(&self, start: usize, length: usize) -> Option<&Entry> {
        self.entries.iter().find(|entry| {
            start.checked_sub(entry.start).is_some_and(|offset| length <= entry.bytes && offset <= entry.bytes - length)
        })
    }

    pub(super) fn knows(&self, key: u64) -> bool {
        self.entries.iter().any(|entry| entry.key == key)
    }

    fn is_full(&self, owner: u64, more: usize) -> bool {
        let ours = self.entries.iter().filter(|entry| entry.owner == owner);
        let (count, bytes) = ours.fold((1, more), |(count, bytes), entry| (count + 1, bytes + entry.bytes));
        count > usize::from(MAX_SEGMENTS) || bytes as u64 > MAX_SEGMENT_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: usize = 1024;
    const MIB: usize = 1024 * 1024;

    fn memfd() -> Arc<OwnedFd> {
        Arc::new(std::fs::File::open("/dev/null").unwrap().into())
    }

    /// A shelf with one connection and idle segments of these lengths, the keys from 2 on.
    fn shelf(lengths: &[usize]) -> Shelf {
        let mut shelf = Shelf::new();
        assert_eq!(shelf.open(), 1);
        for (place, bytes) in lengths.iter().enumerate() {
            let key = shelf.add(1, (place + 1) << 40, *bytes, memfd()).unwrap();
            assert_eq!(key, place as u64 + 2);
        }
        (2..).zip(lengths).for_each(|(key, _)| shelf.came_back(key));
        shelf
    }

    #[test]
    fn what_a_body_gets() {
        let sixteen = [64 * KIB; 16];
        for (idle, length, expected) in [
            (&[][..], 0, Choice::Ordinary),
            (&[], 64 * KIB - 1, Choice::Ordinary),
            (&[], 64 * KIB, Choice::New(64 * KIB)),
            (&[], 64 * KIB + 1, Choice::New(128 * KIB)),
            (&[], 64 * MIB, Choice::New(64 * MIB)),
            (&[], 256 * MIB, Choice::New(256 * MIB)),
            (&[], 256 * MIB + 1, Choice::Ordinary),
            (&[64 * KIB], 64 * KIB, Choice::Idle(2)),
            (&[64 * KIB], 65 * KIB, Choice::New(128 * KIB)),
            (&[256 * KIB, 128 * KIB, 64 * KIB], 100 * KIB, Choice::Idle(3)),
            (&[256 * KIB], 64 * KIB, Choice::Idle(2)),
            (&[512 * KIB], 64 * KIB, Choice::New(64 * KIB)),
            (&sixteen, MIB, Choice::New(MIB)),
            (&[128 * MIB, 64 * MIB, 64 * MIB], 256 * MIB, Choice::New(256 * MIB)),
        ] {
            let mut shelf = shelf(idle);
            assert_eq!(shelf.choose(1, length), expected, "{length} with {idle:?}");
            assert_eq!(shelf.choose(9, 64 * KIB), Choice::Ordinary, "no such connection");
        }
    }

    /// Idle ones go for one that is needed, those in use never, and never are there more than may be.
    #[test]
    fn there_are_never_more_than_may_be() {
        let mut shelf = shelf(&[64 * KIB; 16]);
        assert_eq!(shelf.choose(1, 64 * KIB), Choice::Idle(2));
        assert_eq!(shelf.choose(1, MIB), Choice::New(MIB));
        assert!(shelf.knows(2) && !shelf.knows(3), "the first idle one has gone");
        assert_eq!(shelf.add(1, 99 << 40, MIB, memfd()), Some(18));
        assert_eq!(shelf.add(1, 98 << 40, MIB, memfd()), None, "a seventeenth");
        let mut full = self::shelf(&[]);
        let keys: Vec<_> = (1..=4).map(|place| full.add(1, place << 40, 64 * MIB, memfd()).unwrap()).collect();
        assert_eq!(full.choose(1, 64 * KIB), Choice::Ordinary, "all are used");
        full.came_back(keys[2]);
        assert_eq!(full.choose(1, 64 * KIB), Choice::New(64 * KIB));
        assert_eq!(full.open(), 6);
        assert_eq!(full.choose(6, 64 * MIB), Choice::New(64 * MIB), "each connection for itself");
    }

    #[test]
    fn a_connection_that_ends_takes_its_segments_along() {
        let mut shelf = shelf(&[MIB, MIB, MIB]);
        assert_eq!(shelf.choose(1, MIB), Choice::Idle(2));
        shelf.close(1);
        assert_eq!([2, 3, 4].map(|key| shelf.knows(key)), [true, false, false]);
        assert_eq!(shelf.choose(1, MIB), Choice::Ordinary);
        assert_eq!(shelf.add(1, 99 << 40, MIB, memfd()), None);
        shelf.came_back(2);
        assert!(!shelf.knows(2));
    }

    #[test]
    fn bytes_are_found_where_they_are() {
        let mut shelf = shelf(&[]);
        let key = shelf.add(1, 1 << 40, MIB, memfd());
        for (offset, length, is_in) in
            [(0, MIB, true), (0, 1, true), (MIB - 1, 1, true), (MIB, 0, true), (MIB, 1, false), (1, MIB, false)]
        {
            let found = shelf.find((1 << 40) + offset, length).map(|entry| entry.key);
            assert_eq!(found, key.filter(|_| is_in), "{offset} {length}");
        }
        assert!(shelf.find((1 << 40) - 1, 2).is_none());
    }
}
