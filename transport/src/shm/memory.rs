//! Segments: memory of ours into which bodies are written where another process reads them.
//!
//! A segment belongs to one connection, so that nobody reads in it what was meant for somebody else, and is used again and
//! again: memory that is new to a process is dear. It stands as long as its connection. The kernel sees to it that nobody but
//! we can write to it (`F_SEAL_FUTURE_WRITE`), so that here it is memory as any other.

use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use goplug_pconf_schema::wire::memfd::ALIGNMENT;
use rustix::fs::SealFlags;
use rustix::mm::ProtFlags;

use super::mapping::{Mapping, SEALS, new_memfd};
use super::shelf::{Choice, Shelf};

/// All segments of this process: what each is, and those that nobody uses.
static ALL: Mutex<All> = Mutex::new(All { shelf: Shelf::new(), idle: Vec::new() });

struct All {
    shelf: Shelf,
    idle: Vec<Memory>,
}

/// One segment. Nobody has it but whoever holds this.
struct Memory {
    key: u64,
    mapping: Mapping,
}

/// Bytes to be written and then sent: a body that is produced where the other side reads it.
///
/// It becomes [`Bytes`], which a method returns or a call sends like any other. When the last of these is dropped, and the other
/// side has read the body, the memory is used for the next one. What it holds at first is anything: what was sent before to the
/// same process, or zeros.
///
/// It is ordinary memory where the other side cannot read what we write: over HTTP, or when the connection has enough segments.
pub struct Segment {
    place: Place,
    length: usize,
}

enum Place {
    /// `None` never, but while it is being dropped.
    Shared(Option<Memory>),
    Ordinary(Vec<u8>),
}

/// The connection that segments belong to; when it is dropped, those that nobody uses are given back, and the others when that
/// is so.
#[derive(Debug)]
pub(crate) struct Owner {
    number: u64,
}

/// Where a body lies.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    /// Of the segment; no other of this process ever has it.
    pub(crate) key: u64,
    /// The length of the segment.
    pub(crate) bytes: u64,
    /// Where in it the body begins.
    pub(crate) offset: u64,
    pub(crate) memfd: Arc<OwnedFd>,
}

impl Owner {
    pub(crate) fn new() -> Self {
        Self { number: all().shelf.open() }
    }

    /// What [`Segment::of`] is told.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Where `body` lies, if it does in a segment of this connection.
    pub(crate) fn find(&self, body: &Bytes) -> Option<Found> {
        let start = body.as_ptr().addr();
        let all = all();
        let entry = all.shelf.find(start, body.len()).filter(|entry| entry.owner == self.number)?;
        let offset = (start - entry.start) as u64;
        let found = Found { key: entry.key, bytes: entry.bytes as u64, offset, memfd: Arc::clone(&entry.memfd) };
        offset.is_multiple_of(ALIGNMENT).then_some(found)
    }

    /// Whether there is a segment of this key.
    pub(crate) fn knows(key: u64) -> bool {
        all().shelf.knows(key)
    }

    /// Nothing is sent any more: gives back what nobody uses.
    pub(crate) fn close(&self) {
        let gone = {
            let mut all = all();
            all.shelf.close(self.number);
            all.take_gone()
        };
        drop(gone);
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.close();
    }
}

impl Segment {
    /// `length` bytes for a body that is sent over the connection of that number; ordinary ones for any other.
    pub(crate) fn of(owner: u64, length: usize) -> Self {
        let shared = Memory::take(owner, length);
        Self { place: shared.map_or_else(|| ordinary(length), |memory| Place::Shared(Some(memory))), length }
    }

    /// Ordinary memory.
    pub fn ordinary(length: usize) -> Self {
        Self { place: ordinary(length), length }
    }

    /// Whether it is memory that the other side reads.
    pub fn is_shared(&self) -> bool {
        matches!(self.place, Place::Shared(_))
    }

    /// Leaves the first `length` bytes of it; no more than there are.
    pub fn truncate(&mut self, length: usize) {
        self.length = self.length.min(length);
    }
}

fn ordinary(length: usize) -> Place {
    Place::Ordinary(vec![0; length])
}

impl Memory {
    fn take(owner: u64, length: usize) -> Option<Self> {
        let (choice, gone) = {
            let mut all = all();
            let choice = all.shelf.choose(owner, length);
            if let Choice::Idle(key) = choice {
                let at = all.idle.iter().position(|memory| memory.key == key)?;
                return Some(all.idle.swap_remove(at));
            }
            (choice, all.take_gone())
        };
        drop(gone);
        let Choice::New(bytes) = choice else { return None };
        // Without memory, or seals that the kernel does not know, bodies are copied.
        let (mapping, memfd) = make(bytes).ok()?;
        let start = mapping.start().addr().get();
        let key = all().shelf.add(owner, start, bytes, Arc::new(memfd))?;
        Some(Self { key, mapping })
    }

    #[allow(unsafe_code)]
    fn bytes(&self) -> &[u8] {
        // SAFETY: the mapping is that long, readable, and stays as long as `self`. Nobody writes to it while this borrow
        // lasts: others cannot, because the file was sealed against every later mapping for writing and every `write` before
        // its descriptor was passed on, and this process does so through `bytes_mut` alone, which wants `self` for itself.
        unsafe { std::slice::from_raw_parts(self.mapping.start().as_ptr(), self.mapping.len()) }
    }

    #[allow(unsafe_code)]
    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`, and the mapping is writable; `self` is borrowed for this alone. Others may read meanwhile, in
        // another process, which no program here can tell.
        unsafe { std::slice::from_raw_parts_mut(self.mapping.start().as_ptr(), self.mapping.len()) }
    }
}

/// Memory that only this mapping can change.
fn make(bytes: usize) -> io::Result<(Mapping, OwnedFd)> {
    let memfd = new_memfd("goplug-segment", bytes as u64)?;
    let mapping = Mapping::new(memfd.as_fd(), bytes as u64, ProtFlags::READ | ProtFlags::WRITE)?;
    // Behind the mapping, which this seal lets be.
    rustix::fs::fcntl_add_seals(&memfd, SEALS | SealFlags::FUTURE_WRITE | SealFlags::SEAL)?;
    Ok((mapping, memfd))
}

impl All {
    /// Those that the shelf does not know any more; to be dropped without the lock. Until then no other memory is where they are.
    fn take_gone(&mut self) -> Vec<Memory> {
        let shelf = &self.shelf;
        self.idle.extract_if(.., |memory| !shelf.knows(memory.key)).collect()
    }
}

fn all() -> MutexGuard<'static, All> {
    ALL.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Deref for Segment {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.place {
            Place::Shared(memory) => memory.as_ref().map_or(&[], |memory| &memory.bytes()[..self.length]),
            Place::Ordinary(bytes) => &bytes[..self.length],
        }
    }
}

impl DerefMut for Segment {
    fn deref_mut(&mut self) -> &mut [u8] {
        match &mut self.place {
            Place::Shared(memory) => memory.as_mut().map_or(&mut [], |memory| &mut memory.bytes_mut()[..self.length]),
            Place::Ordinary(bytes) => &mut bytes[..self.length],
        }
    }
}

impl AsRef<[u8]> for Segment {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl From<Segment> for Bytes {
    fn from(segment: Segment) -> Self {
        Self::from_owner(segment)
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        let Place::Shared(memory) = &mut self.place else { return };
        let Some(memory) = memory.take() else { return };
        let gone = {
            let mut all = all();
            all.shelf.came_back(memory.key);
            all.idle.push(memory);
            all.take_gone()
        };
        drop(gone);
    }
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shared = self.is_shared();
        f.debug_struct("Segment").field("length", &self.length).field("is_shared", &shared).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Only we write to it: whoever has the descriptor can neither map it for writing nor write to it.
    #[test]
    fn nobody_else_can_write() {
        let owner = Owner::new();
        let mut segment = Segment::of(owner.number(), 100_000);
        assert!(segment.is_shared());
        segment.fill(7);
        let body = Bytes::from(segment);
        let found = owner.find(&body).unwrap();
        assert!(Mapping::new(found.memfd.as_fd(), found.bytes, ProtFlags::READ | ProtFlags::WRITE).is_err());
        assert!(rustix::io::pwrite(&*found.memfd, b"x", 0).is_err());
        assert!(rustix::fs::ftruncate(&*found.memfd, 0).is_err());
        let theirs = Mapping::of_others(&found.memfd, found.bytes).unwrap();
        assert_eq!(theirs.words()[0].load(std::sync::atomic::Ordering::Relaxed), 0x0707_0707_0707_0707);
        assert!(body.iter().all(|byte| *byte == 7));
    }

    /// The same memory again, for the same connection, when nobody has it any more; for another one never.
    #[test]
    fn a_segment_is_used_again_by_its_own_connection_alone() {
        let (owner, other) = (Owner::new(), Owner::new());
        let segment = Segment::of(owner.number(), 1 << 20);
        let place = segment.as_ptr();
        let body = Bytes::from(segment);
        let part = body.slice(8..100);
        assert_eq!(owner.find(&part).map(|found| found.offset), Some(8));
        assert!(owner.find(&body.slice(3..)).is_none(), "not at a word");
        assert!(other.find(&body).is_none() && owner.find(&Bytes::from_static(b"x")).is_none());
        let key = owner.find(&body).unwrap().key;
        drop(body);
        assert_ne!(Segment::of(owner.number(), 1 << 20).as_ptr(), place, "a part of it is still read");
        drop(part);
        assert!(Owner::knows(key));
        assert_ne!(Segment::of(other.number(), 1 << 20).as_ptr(), place);
        drop(owner);
        assert!(!Owner::knows(key), "it goes with its connection");
        let late = Segment::of(other.number() + 1_000_000, 1 << 20);
        assert!(!late.is_shared(), "of no connection");
        assert!(!Segment::of(other.number(), 100).is_shared(), "too short to be worth while");
    }
}
