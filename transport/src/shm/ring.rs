//! One direction of two rings in shared memory: bytes in, the same bytes out. PURE, over any slice of words.
//!
//! Whoever is at the other end may write to the memory whatever it likes at any time. So nothing in it is believed: each side
//! keeps its own position for itself, reads the other's once per step and checks it, and takes bytes out before anybody
//! looks at what they say. A word is read and written at once, as an atomic, so that there is no race to speak of; that a
//! peer overwrites what it has already handed over only changes what it has said.

use std::mem::MaybeUninit;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use goplug_pconf_schema::wire::frame::Broken;
use goplug_pconf_schema::wire::shm::{ASLEEP_WORD, HEAD_WORD, RING_HEADER_WORDS, TAIL_WORD, WANTS_ROOM_WORD};

const WORD: usize = size_of::<u64>();
/// A word's bytes, as a position counts them.
const WORD_BYTES: u64 = 8;

/// A word that others write too.
pub(crate) trait Word {
    fn load(&self, ordering: Ordering) -> u64;
    fn store(&self, value: u64, ordering: Ordering);
    /// Sequentially consistent.
    fn fence();
}

impl Word for AtomicU64 {
    #[inline]
    fn load(&self, ordering: Ordering) -> u64 {
        self.load(ordering)
    }

    #[inline]
    fn store(&self, value: u64, ordering: Ordering) {
        self.store(value, ordering);
    }

    #[inline]
    fn fence() {
        fence(Ordering::SeqCst);
    }
}

/// Where one direction is in the memory that both sides see.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    /// The first word of its header, which has [`RING_HEADER_WORDS`].
    pub(crate) header: usize,
    /// The first word of its bytes.
    pub(crate) data: usize,
    /// How many words there are: a power of two.
    pub(crate) words: usize,
}

#[derive(Debug)]
struct Ring<M> {
    memory: M,
    place: Place,
}

impl<W: Word, M: Deref<Target = [W]>> Ring<M> {
    fn header(&self) -> &[W] {
        &self.memory[self.place.header..][..RING_HEADER_WORDS]
    }

    fn data(&self) -> &[W] {
        &self.memory[self.place.data..][..self.place.words]
    }

    /// In bytes.
    fn capacity(&self) -> u64 {
        self.place.words as u64 * WORD_BYTES
    }

    /// How many bytes are between two positions of which one may be anything.
    fn between(&self, head: u64, tail: u64) -> Result<u64, Broken> {
        let used = tail.wrapping_sub(head);
        if used > self.capacity() {
            let text = format!("a ring of {} bytes has {used} bytes between its positions", self.capacity());
            return Err(Broken(text));
        }
        Ok(used)
    }

    /// The words from a position on: those up to the end of the memory, and those that follow at its beginning.
    fn runs(&self, position: u64) -> (&[W], &[W]) {
        let data = self.data();
        let (before, after) = data.split_at(self.index(position));
        (after, before)
    }

    #[allow(clippy::cast_possible_truncation, reason = "what is cut off is masked anyway")]
    fn index(&self, position: u64) -> usize {
        (position / WORD_BYTES) as usize & (self.place.words - 1)
    }

    /// Whether so much is free that it is worth while to wake somebody.
    fn is_roomy(&self, used: u64) -> bool {
        self.capacity() - used >= self.capacity() / 4
    }
}

/// The end that bytes go into.
#[derive(Debug)]
pub(crate) struct Producer<M> {
    ring: Ring<M>,
    /// Where the next byte goes, counted from the first byte ever.
    tail: u64,
    /// How far the other side had read when it was last asked.
    head: u64,
    /// The word that the next byte goes into, as far as it was written.
    partial: [u8; WORD],
}

impl<W: Word, M: Deref<Target = [W]>> Producer<M> {
    pub(crate) fn new(memory: M, place: Place) -> Self {
        Self { ring: Ring { memory, place }, tail: 0, head: 0, partial: [0; WORD] }
    }

    /// Writes the beginning of `bytes`, as far as there is room; answers how much of it. The other side does not see it
    /// before [`Producer::publish`].
    pub(crate) fn put(&mut self, bytes: &[u8]) -> Result<usize, Broken> {
        let mut room = self.room()?;
        if room < bytes.len() {
            self.look()?;
            room = self.room()?;
        }
        let bytes = &bytes[..bytes.len().min(room)];
        let begun = usize::try_from(self.tail % WORD_BYTES).unwrap_or(0);
        let (first, rest) = bytes.split_at(if begun == 0 { 0 } else { bytes.len().min(WORD - begun) });
        let (data, mask) = (self.ring.data(), self.ring.place.words - 1);
        let mut index = self.ring.index(self.tail);
        if begun > 0 {
            self.partial[begun..begun + first.len()].copy_from_slice(first);
            data[index].store(u64::from_ne_bytes(self.partial), Ordering::Relaxed);
            index = (index + usize::from(begun + first.len() == WORD)) & mask;
        }
        let (whole, last) = rest.as_chunks::<WORD>();
        let (before, after) = data.split_at(index);
        let (here, wrapped) = whole.split_at(whole.len().min(after.len()));
        for (word, chunk) in after.iter().zip(here).chain(before.iter().zip(wrapped)) {
            word.store(u64::from_ne_bytes(*chunk), Ordering::Relaxed);
        }
        if !last.is_empty() {
            self.partial = [0; WORD];
            self.partial[..last.len()].copy_from_slice(last);
            data[(index + whole.len()) & mask].store(u64::from_ne_bytes(self.partial), Ordering::Relaxed);
        }
        self.tail += bytes.len() as u64;
        Ok(bytes.len())
    }

    /// Lets the other side see what was put; answers whether it sleeps and has to be woken.
    pub(crate) fn publish(&mut self) -> bool {
        let header = self.ring.header();
        header[TAIL_WORD].store(self.tail, Ordering::Release);
        // Either the other side, which has said that it will sleep, looks once more and sees the position; or we see what
        // it has said.
        W::fence();
        let sleeps = header[ASLEEP_WORD].load(Ordering::Relaxed) != 0;
        if sleeps {
            // Once is enough. It must have arrived when the other side is woken: it may fall asleep again at once, and that
            // must not be taken back. Before that it may be: whoever falls asleep just now is woken all the same.
            header[ASLEEP_WORD].store(0, Ordering::Relaxed);
            W::fence();
        }
        sleeps
    }

    /// To be called before this side sleeps until there is room: answers whether there is some already. If not, the other
    /// side wakes it.
    pub(crate) fn wants_room(&mut self) -> Result<bool, Broken> {
        self.ring.header()[WANTS_ROOM_WORD].store(1, Ordering::Relaxed);
        W::fence();
        self.look()?;
        Ok(self.ring.is_roomy(self.tail - self.head))
    }

    /// The word in which the reader is counts as read to its beginning only: its bytes are written at once.
    fn room(&self) -> Result<usize, Broken> {
        let used = self.ring.between(self.head - self.head % WORD_BYTES, self.tail)?;
        Ok(usize::try_from(self.ring.capacity() - used).unwrap_or(usize::MAX))
    }

    fn look(&mut self) -> Result<(), Broken> {
        let head = self.ring.header()[HEAD_WORD].load(Ordering::Acquire);
        // Neither back, nor beyond what was written.
        if head.wrapping_sub(self.head) > self.tail - self.head {
            let text = format!("the reader of a ring was at {} of {} bytes and is at {head}", self.head, self.tail);
            return Err(Broken(text));
        }
        self.head = head;
        Ok(())
    }
}

/// The end that bytes come out of.
#[derive(Debug)]
pub(crate) struct Consumer<M> {
    ring: Ring<M>,
    /// Where the next byte comes from, counted from the first byte ever.
    head: u64,
    /// What the other side knows of `head`.
    released: u64,
}

impl<W: Word, M: Deref<Target = [W]>> Consumer<M> {
    pub(crate) fn new(memory: M, place: Place) -> Self {
        Self { ring: Ring { memory, place }, head: 0, released: 0 }
    }

    /// Takes what is there into the beginning of `into`; answers how much of that it has filled.
    pub(crate) fn take(&mut self, into: &mut [MaybeUninit<u8>]) -> Result<usize, Broken> {
        let count = self.available()?.min(into.len());
        let into = &mut into[..count];
        let begun = usize::try_from(self.head % WORD_BYTES).unwrap_or(0);
        let (first, rest) = into.split_at_mut(if begun == 0 { 0 } else { count.min(WORD - begun) });
        let (mut after, mut before) = self.ring.runs(self.head);
        if begun > 0 {
            let Some((word, more)) = after.split_first() else { return Ok(0) };
            let bytes = word.load(Ordering::Relaxed).to_ne_bytes();
            first.write_copy_of_slice(&bytes[begun..begun + first.len()]);
            if begun + first.len() == WORD {
                after = more;
            }
        }
        let (whole, last) = rest.as_chunks_mut::<WORD>();
        let (here, wrapped) = whole.split_at_mut(whole.len().min(after.len()));
        for (word, chunk) in after.iter().zip(&mut *here).chain(before.iter().zip(&mut *wrapped)) {
            chunk.write_copy_of_slice(&word.load(Ordering::Relaxed).to_ne_bytes());
        }
        if !last.is_empty() {
            (after, before) = (&after[here.len()..], &before[wrapped.len()..]);
            let Some(word) = after.first().or(before.first()) else { return Ok(0) };
            last.write_copy_of_slice(&word.load(Ordering::Relaxed).to_ne_bytes()[..last.len()]);
        }
        self.head += count as u64;
        Ok(count)
    }

    /// Gives back the room of what was taken, when it has become an eighth of all; answers whether the other side waits for
    /// it and has to be woken. To give back every little frame would cost a fence, and a line of memory that goes to and fro.
    /// Nobody waits in vain: who waits has filled three quarters, so that several eighths are still to be taken.
    pub(crate) fn release(&mut self) -> bool {
        if self.head - self.released < self.ring.capacity() / 8 {
            return false;
        }
        self.released = self.head;
        let header = self.ring.header();
        header[HEAD_WORD].store(self.head, Ordering::Release);
        W::fence();
        if header[WANTS_ROOM_WORD].load(Ordering::Relaxed) == 0 {
            return false;
        }
        let tail = header[TAIL_WORD].load(Ordering::Relaxed);
        let is_roomy = self.ring.between(self.head, tail).is_ok_and(|used| self.ring.is_roomy(used));
        if is_roomy {
            header[WANTS_ROOM_WORD].store(0, Ordering::Relaxed);
            // As in `publish`.
            W::fence();
        }
        is_roomy
    }

    /// To be called before this side sleeps until there is something: answers whether there is already. If not, the other
    /// side wakes it.
    pub(crate) fn falls_asleep(&mut self) -> Result<bool, Broken> {
        self.ring.header()[ASLEEP_WORD].store(1, Ordering::Relaxed);
        W::fence();
        Ok(self.available()? > 0)
    }

    /// To be called when this side looks again: nobody needs to wake it.
    pub(crate) fn is_awake(&mut self) {
        self.ring.header()[ASLEEP_WORD].store(0, Ordering::Relaxed);
    }

    /// Whether there is something, or something is wrong.
    pub(crate) fn has_news(&self) -> bool {
        self.ring.header()[TAIL_WORD].load(Ordering::Relaxed) != self.head
    }

    fn available(&self) -> Result<usize, Broken> {
        let tail = self.ring.header()[TAIL_WORD].load(Ordering::Acquire);
        self.ring.between(self.head, tail).map(|used| usize::try_from(used).unwrap_or(usize::MAX))
    }
}

#[cfg(test)]
mod tests;
