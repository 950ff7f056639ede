//! A body where another process has written it.

use std::fmt;
use std::io::{self, Read};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use goplug_pconf_schema::wire::memfd::Place;

use super::mapping::Mapping;

const WORD: usize = size_of::<u64>();

/// A body that was received, wherever it lies: in memory of our own, or in memory that whoever produced it has shared with us.
///
/// Of shared memory nobody can promise that it stays as it is: its owner could write to it while we read. So it is read
/// by copying, into a buffer of ours ([`View::copy_to`], [`View::reader`]) or word by word ([`View::words`], as fast as
/// memory can be read), and never as a slice. **What matters is to be copied first and checked then.** [`View::into_bytes`]
/// copies all of it.
///
/// Dropping the last clone gives the memory back to its owner, who uses it for another body; until then it counts against
/// what the owner may lend.
#[derive(Clone)]
pub struct View {
    body: Body,
}

#[derive(Clone)]
enum Body {
    Bytes(Bytes),
    Shared(Shared),
}

/// A place in memory that is another's.
#[derive(Clone)]
struct Shared {
    memory: Arc<Window>,
    /// Of the body's first word.
    first: usize,
    length: usize,
    /// The number of the segment.
    segment: u64,
    /// Missing while it is on its way to whoever called.
    lease: Option<Arc<Lease>>,
}

/// A segment of another process's, mapped for reading.
#[derive(Debug)]
pub(crate) struct Window(Mapping);

/// Whoever has to be told that a body was read.
pub(crate) trait Lender: Send + Sync {
    /// A body in this segment is not read any more. No lock of the lender's is held by whoever calls.
    fn give_back(&self, segment: u64);
}

struct Lease {
    to: Weak<dyn Lender>,
    segment: u64,
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(lender) = self.to.upgrade() {
            lender.give_back(self.segment);
        }
    }
}

impl Window {
    /// Maps a segment that came.
    ///
    /// # Errors
    /// Why it cannot be one.
    pub(crate) fn open(memfd: &std::os::fd::OwnedFd, bytes: u64) -> io::Result<Self> {
        Mapping::of_others(memfd, bytes).map(Self)
    }
}

impl View {
    /// What lies in `memory`, at a place that was checked. Nobody is told when it is dropped, before [`View::lease`].
    pub(crate) fn of(memory: Arc<Window>, place: Place) -> Self {
        let at = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        let (first, length) = (at(place.offset) / WORD, at(place.length));
        let segment = place.segment;
        Self { body: Body::Shared(Shared { memory, first, length, segment, lease: None }) }
    }

    /// Has `to` told when the last clone is dropped.
    pub(crate) fn lease(mut self, to: Weak<dyn Lender>) -> Self {
        if let Body::Shared(shared) = &mut self.body {
            shared.lease = Some(Arc::new(Lease { to, segment: shared.segment }));
        }
        self
    }

    /// The segment in which it lies, if it is not leased: nobody is told when it is dropped.
    pub(crate) fn unleased(&self) -> Option<u64> {
        match &self.body {
            Body::Shared(shared) if shared.lease.is_none() => Some(shared.segment),
            _ => None,
        }
    }

    /// How many bytes it has.
    pub fn len(&self) -> usize {
        match &self.body {
            Body::Bytes(bytes) => bytes.len(),
            Body::Shared(shared) => shared.length,
        }
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether it lies in memory of the process that produced it.
    pub fn is_shared(&self) -> bool {
        matches!(self.body, Body::Shared(_))
    }

    /// Copies the bytes from `offset` on to the beginning of `into`; answers how many there were, which is less than `into`
    /// takes only at the end.
    pub fn copy_to(&self, offset: usize, into: &mut [u8]) -> usize {
        let count = self.len().saturating_sub(offset).min(into.len());
        let into = &mut into[..count];
        match &self.body {
            Body::Bytes(bytes) => into.copy_from_slice(&bytes[offset.min(bytes.len())..][..count]),
            Body::Shared(shared) => copy_words(shared.words(), offset, into),
        }
        count
    }

    /// The body as words of eight bytes in the machine's order, the last one filled with zeros: the fastest way to read all
    /// of it.
    ///
    /// # Example: a sum
    /// ```
    /// # use goplug_transport::View;
    /// let view = View::from(bytes::Bytes::from_static(&[1, 0, 0, 0, 0, 0, 0, 0, 2]));
    /// assert_eq!(view.words().map(u64::from_le).sum::<u64>(), 3);
    /// ```
    pub fn words(&self) -> Words<'_> {
        match &self.body {
            Body::Bytes(bytes) => {
                let (whole, rest) = bytes.as_chunks::<WORD>();
                let mut last = [0; WORD];
                last[..rest.len()].copy_from_slice(rest);
                let last = (!rest.is_empty()).then(|| u64::from_ne_bytes(last));
                Words { ours: whole.iter(), theirs: [].iter(), last }
            }
            Body::Shared(shared) => {
                let (whole, rest) = (shared.length / WORD, shared.length % WORD);
                let (whole, last) = shared.words().split_at(whole);
                // What is behind the body is none of ours.
                let last = last.first().filter(|_| rest > 0).map(|word| {
                    let mut bytes = word.load(Ordering::Relaxed).to_ne_bytes();
                    bytes[rest..].fill(0);
                    u64::from_ne_bytes(bytes)
                });
                Words { ours: [].iter(), theirs: whole.iter(), last }
            }
        }
    }

    /// The body as [`Read`].
    pub fn reader(&self) -> ViewReader<'_> {
        ViewReader { view: self, offset: 0 }
    }

    /// The body as bytes that nobody else changes: shared memory is copied, and given back when this was the last clone.
    pub fn into_bytes(self) -> Bytes {
        match self.body {
            Body::Bytes(bytes) => bytes,
            Body::Shared(ref shared) => {
                let mut bytes = Vec::with_capacity(shared.length);
                // Through a block that stays in the nearest cache: to fill the vector with zeros first would cost more.
                let mut block = [0; 4096];
                for words in shared.words().chunks(block.len() / WORD) {
                    let count = (shared.length - bytes.len()).min(block.len());
                    copy_words(words, 0, &mut block[..count]);
                    bytes.extend_from_slice(&block[..count]);
                }
                bytes.into()
            }
        }
    }
}

impl Shared {
    /// The words that the body touches.
    fn words(&self) -> &[AtomicU64] {
        &self.memory.0.words()[self.first..][..self.length.div_ceil(WORD)]
    }
}

fn copy_words(words: &[AtomicU64], offset: usize, into: &mut [u8]) {
    let begun = offset % WORD;
    let mut words = words[(offset / WORD).min(words.len())..].iter().map(|word| word.load(Ordering::Relaxed));
    let (first, rest) = into.split_at_mut(if begun == 0 { 0 } else { into.len().min(WORD - begun) });
    if !first.is_empty()
        && let Some(word) = words.next()
    {
        first.copy_from_slice(&word.to_ne_bytes()[begun..begun + first.len()]);
    }
    let (whole, last) = rest.as_chunks_mut::<WORD>();
    for (chunk, word) in whole.iter_mut().zip(&mut words) {
        *chunk = word.to_ne_bytes();
    }
    if !last.is_empty()
        && let Some(word) = words.next()
    {
        last.copy_from_slice(&word.to_ne_bytes()[..last.len()]);
    }
}

/// The words of a [`View`].
#[derive(Debug, Clone)]
pub struct Words<'a> {
    ours: std::slice::Iter<'a, [u8; WORD]>,
    theirs: std::slice::Iter<'a, AtomicU64>,
    last: Option<u64>,
}

impl Iterator for Words<'_> {
    type Item = u64;

    #[inline]
    fn next(&mut self) -> Option<u64> {
        if let Some(word) = self.theirs.next() {
            return Some(word.load(Ordering::Relaxed));
        }
        if let Some(word) = self.ours.next() {
            return Some(u64::from_ne_bytes(*word));
        }
        self.last.take()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let count = self.ours.len() + self.theirs.len() + usize::from(self.last.is_some());
        (count, Some(count))
    }

    // What `sum` and most others are made of: one loop for each kind of memory.
    #[inline]
    fn fold<B, F: FnMut(B, u64) -> B>(self, first: B, mut step: F) -> B {
        let mut value = first;
        for word in self.theirs {
            value = step(value, word.load(Ordering::Relaxed));
        }
        for word in self.ours {
            value = step(value, u64::from_ne_bytes(*word));
        }
        match self.last {
            Some(word) => step(value, word),
            None => value,
        }
    }
}

impl ExactSizeIterator for Words<'_> {}

/// Reads a [`View`] from its beginning to its end.
#[derive(Debug, Clone)]
pub struct ViewReader<'a> {
    view: &'a View,
    offset: usize,
}

impl Read for ViewReader<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.view.copy_to(self.offset, into);
        self.offset += count;
        Ok(count)
    }
}

impl From<Bytes> for View {
    fn from(bytes: Bytes) -> Self {
        Self { body: Body::Bytes(bytes) }
    }
}

impl PartialEq for View {
    /// Whether both have the same bytes at this moment.
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.words().eq(other.words())
    }
}

impl Eq for View {}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View").field("len", &self.len()).field("is_shared", &self.is_shared()).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[cfg(all(feature = "client", feature = "server"))]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::shm::memory::{Owner, Segment};

    #[derive(Default)]
    struct Told(Mutex<Vec<u64>>);

    impl Lender for Told {
        fn give_back(&self, segment: u64) {
            self.0.lock().unwrap().push(segment);
        }
    }

    /// Wherever it lies, a body reads the same.
    #[test]
    fn shared_memory_reads_as_any_other() {
        let owner = Owner::new();
        let mut segment = Segment::of(owner.number(), 100_000);
        segment.iter_mut().zip(0_u32..).for_each(|(byte, n)| *byte = (n % 251) as u8);
        let body = Bytes::from(segment);
        let found = owner.find(&body).unwrap();
        let window = Arc::new(Window::open(&found.memfd, found.bytes).unwrap());
        for (offset, length) in [(0, 100_000), (0, 1), (8, 99_992), (16, 7), (24, 8), (99_992, 8), (32, 12_345)] {
            let ours = body.slice(offset..offset + length);
            let place = Place { segment: 1, offset: offset as u64, length: length as u64 };
            let view = View::of(Arc::clone(&window), place);
            assert_eq!((view.len(), view.is_empty()), (length, false));
            assert_eq!(view, View::from(ours.clone()));
            assert!(view.words().eq(View::from(ours.clone()).words()) && view.words().len() == length.div_ceil(8));
            let sum = |view: &View| view.words().fold(0_u64, u64::wrapping_add);
            assert_eq!(sum(&view), sum(&View::from(ours.clone())));
            for at in [0, 1, 7, 8, 9, 1000, length - 1, length, length + 9] {
                let mut buffer = [1; 777];
                let count = view.copy_to(at, &mut buffer);
                assert_eq!(buffer[..count], ours[at.min(length)..][..count], "{at} of {length}");
                assert_eq!(count, length.saturating_sub(at).min(777));
            }
            let mut read = Vec::new();
            view.reader().read_to_end(&mut read).unwrap();
            assert!(read == ours && view.into_bytes() == ours);
        }
    }

    #[test]
    fn the_last_clone_gives_back() {
        let owner = Owner::new();
        let body = Bytes::from(Segment::of(owner.number(), 100_000));
        let found = owner.find(&body).unwrap();
        let window = Arc::new(Window::open(&found.memfd, found.bytes).unwrap());
        let told = Arc::new(Told::default());
        let place = Place { segment: 3, offset: 0, length: 8 };
        let to: Weak<dyn Lender> = Arc::downgrade(&(Arc::clone(&told) as Arc<dyn Lender>));
        let view = View::of(Arc::clone(&window), place).lease(Weak::clone(&to));
        let other = view.clone();
        drop(view);
        assert!(told.0.lock().unwrap().is_empty());
        _ = other.into_bytes();
        assert_eq!(*told.0.lock().unwrap(), [3]);
        drop(View::of(Arc::clone(&window), place));
        assert_eq!(*told.0.lock().unwrap(), [3], "one that was never leased");
        let view = View::of(window, place).lease(to);
        drop(told);
        drop(view);
    }
}
