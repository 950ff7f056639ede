//! Segments between the two sides of a connection: what was lent to the other, what was borrowed from it. PURE.
//!
//! A segment stands: its descriptor is passed once, and then any number of bodies lie in it, one after the other. The owner
//! counts the bodies that the other side has not given back; the memory is not written to before all of them are.

use bytes::Bytes;
use goplug_pconf_schema::wire::frame::{Broken, Header, Kind};
use goplug_pconf_schema::wire::memfd::{MAX_SEGMENT_BYTES, MAX_SEGMENTS, PAGE_BYTES, Place};

use super::ids::ById;

/// What this side has lent.
#[derive(Debug)]
pub(super) struct Lent {
    terms: Terms,
    /// The number of the last segment.
    last: u64,
    segments: Vec<Segment>,
}

/// What the other side takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Terms {
    /// It does not know of segments.
    Never,
    Unasked,
    Asked,
    UpTo {
        segments: u16,
        bytes: u64,
    },
}

#[derive(Debug)]
struct Segment {
    number: u64,
    /// What it is in this process.
    key: u64,
    bytes: u64,
    /// The bodies in it that are being read: while one of them is here, nobody writes.
    bodies: Vec<Bytes>,
}

/// How a body goes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// As any other.
    Copied,
    /// As any other, and the other side is to be asked whether it takes segments.
    CopiedAndAsked,
    /// It stays where it is; before it go the frames of segments that are lent no more, and the one of its own, whose descriptor
    /// goes with it, if the other side has not got that.
    Placed { before: Vec<Header>, segment: Option<Header>, place: Place },
}

impl Lent {
    /// `speaks`: whether the other side knows of segments.
    pub(super) fn new(speaks: bool) -> Self {
        let terms = if speaks { Terms::Unasked } else { Terms::Never };
        Self { terms, last: 0, segments: Vec::new() }
    }

    /// How `body` goes, which lies at `offset` in the segment of that key and length; `stands` tells which segments there still
    /// are in this process.
    pub(super) fn lend(
        &mut self,
        body: &Bytes,
        (key, bytes, offset): (u64, u64, u64),
        stands: impl Fn(u64) -> bool,
    ) -> Way {
        let (segments, all_bytes) = match self.terms {
            Terms::Never | Terms::Asked => return Way::Copied,
            Terms::Unasked => {
                self.terms = Terms::Asked;
                return Way::CopiedAndAsked;
            }
            Terms::UpTo { segments, bytes } => (usize::from(segments), bytes),
        };
        let length = body.len() as u64;
        let place = |segment| Place { segment, offset, length };
        if let Some(segment) = self.segments.iter_mut().find(|segment| segment.key == key) {
            segment.bodies.push(body.clone());
            return Way::Placed { before: Vec::new(), segment: None, place: place(segment.number) };
        }
        let busy = self.segments.iter().filter(|segment| !segment.bodies.is_empty());
        let (count, sum) = busy.fold((0, 0), |(count, sum), segment| (count + 1, sum + segment.bytes));
        if count >= segments || sum + bytes > all_bytes {
            return Way::Copied;
        }
        // What is here no more goes first, and then others that no body is in, until it is not too much.
        let (mut count, mut sum) =
            (self.segments.len() + 1, bytes + self.segments.iter().map(|segment| segment.bytes).sum::<u64>());
        let gone = self.segments.extract_if(.., |segment| {
            let is_too_much = count > segments || sum > all_bytes;
            let goes = segment.bodies.is_empty() && (is_too_much || !stands(segment.key));
            (count, sum) = if goes { (count - 1, sum - segment.bytes) } else { (count, sum) };
            goes
        });
        let before = gone.map(|segment| Header::new(Kind::Forget, segment.number)).collect();
        self.last += 1;
        let number = self.last;
        self.segments.push(Segment { number, key, bytes, bodies: vec![body.clone()] });
        let header = Header { fd: true, arg: bytes, ..Header::new(Kind::Segment, number) };
        Way::Placed { before, segment: Some(header), place: place(number) }
    }

    /// The other side has answered what it takes.
    ///
    /// # Errors
    /// When nobody asked.
    pub(super) fn granted(&mut self, header: &Header) -> Result<(), Broken> {
        if self.terms != Terms::Asked {
            return Err(Broken("it takes segments that nobody has offered".into()));
        }
        self.terms = match header.index {
            0 => Terms::Never,
            segments => Terms::UpTo { segments, bytes: header.arg },
        };
        Ok(())
    }

    /// The other side gives bodies back.
    ///
    /// # Errors
    /// When it has not got so many.
    pub(super) fn released(&mut self, header: &Header) -> Result<(), Broken> {
        let segment = self.segments.iter_mut().find(|segment| segment.number == header.id);
        let there = segment.as_ref().map_or(0, |segment| segment.bodies.len());
        match (segment, usize::try_from(header.arg)) {
            (Some(segment), Ok(count @ 1..)) if count <= there => {
                // All hold the same memory.
                segment.bodies.truncate(there - count);
                Ok(())
            }
            _ => Err(Broken(format!("{} bodies in segment {} given back of {there}", header.arg, header.id))),
        }
    }
}

/// What this side has borrowed; `M` is a segment as it is mapped here.
#[derive(Debug)]
pub(super) struct Borrowed<M> {
    speaks: bool,
    /// The other side has been told that it may lend.
    is_open: bool,
    last: u64,
    segments: ById<Lot<M>>,
    bytes: u64,
}

#[derive(Debug)]
struct Lot<M> {
    memory: M,
    bytes: u64,
    /// Bodies in it that were not given back.
    bodies: u64,
}

impl<M: Clone> Borrowed<M> {
    /// `speaks`: whether both sides know of segments.
    pub(super) fn new(speaks: bool) -> Self {
        Self { speaks, is_open: false, last: 0, segments: ById::default(), bytes: 0 }
    }

    /// Whether descriptors may come.
    pub(super) fn is_open(&self) -> bool {
        self.is_open
    }

    /// The other side asks whether it may lend: the answer.
    ///
    /// # Errors
    /// When it does so twice, or was not told that we know of it.
    pub(super) fn asked(&mut self) -> Result<Header, Broken> {
        if !self.speaks || std::mem::replace(&mut self.is_open, true) {
            return Err(Broken("segments were offered twice, or to one that knows of none".into()));
        }
        Ok(Header { index: MAX_SEGMENTS, arg: MAX_SEGMENT_BYTES, ..Header::new(Kind::Borrow, 0) })
    }

    /// A segment has come, which `map` maps.
    ///
    /// # Errors
    /// When it is one too many, or none at all.
    pub(super) fn take(&mut self, header: &Header, map: impl FnOnce(u64) -> Result<M, String>) -> Result<(), Broken> {
        let (number, bytes) = (header.id, header.arg);
        if !self.is_open || number <= self.last {
            return Err(Broken(format!("segment {number} after {}: numbers count up, when it was asked", self.last)));
        }
        let sum = self.bytes.checked_add(bytes).filter(|sum| *sum <= MAX_SEGMENT_BYTES);
        let (true, Some(sum)) = (self.segments.len() < usize::from(MAX_SEGMENTS), sum) else {
            let there = self.segments.len();
            let text = format!("a segment of {bytes} bytes beside {there} of {} bytes, the limits are", self.bytes);
            return Err(Broken(format!("{text} {MAX_SEGMENTS} and {MAX_SEGMENT_BYTES}")));
        };
        if bytes == 0 || !bytes.is_multiple_of(PAGE_BYTES) {
            return Err(Broken(format!("a segment of {bytes} bytes, which are no pages")));
        }
        let memory = map(bytes).map_err(|why| Broken(format!("segment {number}: {why}")))?;
        (self.last, self.bytes) = (number, sum);
        self.segments.insert(number, Lot { memory, bytes, bodies: 0 });
        Ok(())
    }

    /// A body lies in a segment: where.
    ///
    /// # Errors
    /// When it does not.
    pub(super) fn place(&mut self, payload: &[u8]) -> Result<(M, Place), Broken> {
        let place = Place::decode(payload, |number| self.segments.get(&number).map(|lot| lot.bytes))?;
        match self.segments.get_mut(&place.segment) {
            Some(lot) => {
                lot.bodies += 1;
                Ok((lot.memory.clone(), place))
            }
            None => Err(Broken(format!("a body in segment {}, which is not lent", place.segment))),
        }
    }

    /// A body is not read any more: what to tell its owner.
    pub(super) fn give_back(&mut self, number: u64) -> Option<Header> {
        let lot = self.segments.get_mut(&number)?;
        lot.bodies = lot.bodies.checked_sub(1)?;
        Some(Header { arg: 1, ..Header::new(Kind::Release, number) })
    }

    /// The owner lends it no more.
    ///
    /// # Errors
    /// When it never did, or a body in it is being read.
    pub(super) fn forget(&mut self, number: u64) -> Result<(), Broken> {
        match self.segments.remove(&number) {
            Some(lot) if lot.bodies == 0 => {
                self.bytes -= lot.bytes;
                Ok(())
            }
            Some(lot) => Err(Broken(format!("segment {number} is taken away with {} bodies in it", lot.bodies))),
            None => Err(Broken(format!("segment {number} is taken away, which is not lent"))),
        }
    }
}

#[cfg(test)]
mod tests;
