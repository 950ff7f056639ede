//! The two ends in every order in which two processors can run them, stores that arrive late and in another order included.
//!
//! The code is the ring's own. What it does to memory goes through [`Word`], here a [`Probe`]: an end runs until its next
//! access, which is then one step of the search; to go on, it runs again from its beginning and is given what it read before.
//! A store waits in its processor's buffer; a later one may overtake it, unless that is a release, or has the same place, or
//! both are bytes of the ring. A fence waits until the buffer is empty. (Loads are not reordered here: miri's threads do that.)

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;

use super::super::*;

/// A ring of four words, through which more pass: it is full, and empty, and begins anew.
const PLACE: Place = Place { header: 0, data: RING_HEADER_WORDS, words: 4 };
const MESSAGES: [&[u8]; 2] = [b"twenty-eight bytes to fill it", b"and fourteen m"];
/// Beyond this something is wrong with the search.
const MAX_STATES: usize = 3_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Access {
    Load(usize),
    Store {
        place: usize,
        value: u64,
        is_release: bool,
    },
    Fence,
    /// Wakes the other end.
    Ring,
    Sleep,
    Done,
}

/// Thrown out of an end at its next access.
struct Stopped;

thread_local! {
    /// What the accesses of this end found so far, how many of them were made, and the next.
    static RUN: RefCell<(Vec<u64>, usize, Access)> = const { RefCell::new((Vec::new(), 0, Access::Done)) };
}

fn access(next: Access) -> u64 {
    let found = RUN.with_borrow_mut(|(found, made, access)| {
        *made += 1;
        *access = next;
        found.get(*made - 1).copied()
    });
    found.unwrap_or_else(|| resume_unwind(Box::new(Stopped)))
}

/// The word at this place.
struct Probe(usize);

impl Word for Probe {
    fn load(&self, _: Ordering) -> u64 {
        access(Access::Load(self.0))
    }

    fn store(&self, value: u64, ordering: Ordering) {
        access(Access::Store { place: self.0, value, is_release: ordering == Ordering::Release });
    }

    fn fence() {
        access(Access::Fence);
    }
}

type Memory = Rc<[Probe]>;

fn memory() -> Memory {
    (0..PLACE.data + PLACE.words).map(Probe).collect()
}

fn produce() {
    let mut producer = Producer::new(memory(), PLACE);
    for message in MESSAGES {
        let mut rest = message;
        while !rest.is_empty() {
            let count = producer.put(rest).unwrap();
            rest = &rest[count..];
            if count > 0 {
                if producer.publish() {
                    access(Access::Ring);
                }
            } else if !producer.wants_room().unwrap() {
                access(Access::Sleep);
            }
        }
    }
}

#[allow(unsafe_code)]
fn consume() {
    let mut consumer = Consumer::new(memory(), PLACE);
    let expected = MESSAGES.concat();
    let mut taken: Vec<u8> = Vec::with_capacity(expected.len());
    while taken.len() < expected.len() {
        let count = consumer.take(taken.spare_capacity_mut()).unwrap();
        // SAFETY: as many bytes as it says were written.
        unsafe { taken.set_len(taken.len() + count) };
        assert!(expected.starts_with(&taken), "{:?}", String::from_utf8_lossy(&taken));
        if count > 0 {
            if consumer.release() {
                access(Access::Ring);
            }
        } else if !consumer.falls_asleep().unwrap() {
            access(Access::Sleep);
            consumer.is_awake();
        }
    }
}

/// The next access of an end that has made these.
fn next(end: usize, found: &[u64]) -> Access {
    RUN.set((found.to_vec(), 0, Access::Done));
    match catch_unwind(AssertUnwindSafe(|| if end == 0 { produce() } else { consume() })) {
        Ok(()) => Access::Done,
        Err(thrown) if thrown.is::<Stopped>() => RUN.with_borrow(|run| run.2),
        Err(thrown) => resume_unwind(thrown),
    }
}

/// What an end found so far, and what it does next.
type Past = Rc<(Vec<u64>, Access)>;

/// Every past of each end, made once.
#[derive(Default)]
struct Pasts(HashMap<(usize, Vec<u64>), (usize, Past)>);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    /// The words of the header that are used, and those of the ring.
    memory: [u64; 4 + PLACE.words],
    ends: [End; 2],
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct End {
    past: usize,
    /// Stores that have not arrived: to which slot, what, and whether each is a release.
    buffer: Vec<(usize, u64, bool)>,
    is_rung: bool,
}

/// Where the word of a place is in [`State::memory`].
fn slot(place: usize) -> usize {
    if place < PLACE.data { place / HEAD_WORD } else { 4 + place - PLACE.data }
}

impl Pasts {
    fn of(&mut self, end: usize, found: Vec<u64>) -> (usize, Past) {
        let number = self.0.len();
        let past = self
            .0
            .entry((end, found))
            .or_insert_with_key(|(end, found)| (number, Rc::new((found.clone(), next(*end, found)))));
        (past.0, Rc::clone(&past.1))
    }
}

impl State {
    /// Every state that may follow.
    fn followers(&self, of: &[Past; 2], pasts: &mut Pasts, all: &mut Vec<Past>) -> Vec<Self> {
        let mut followers = Vec::new();
        for (end, past) in of.iter().enumerate() {
            let End { buffer, is_rung, .. } = &self.ends[end];
            for (at, &(slot, value, is_release)) in buffer.iter().enumerate() {
                let waits = |other: &(usize, u64, bool)| is_release || other.0 == slot || other.0 >= 4 && slot >= 4;
                if buffer[..at].iter().any(waits) {
                    continue;
                }
                let mut state = self.clone();
                state.memory[slot] = value;
                state.ends[end].buffer.remove(at);
                followers.push(state);
            }
            let (found, access) = &**past;
            let mut state = self.clone();
            let new = match *access {
                Access::Load(place) => {
                    let own = buffer.iter().rev().find(|store| store.0 == slot(place)).map(|store| store.1);
                    own.unwrap_or(self.memory[slot(place)])
                }
                Access::Store { place, value, is_release } => {
                    state.ends[end].buffer.push((slot(place), value, is_release));
                    0
                }
                Access::Fence if buffer.is_empty() => 0,
                Access::Sleep if *is_rung => {
                    state.ends[end].is_rung = false;
                    0
                }
                Access::Ring => {
                    state.ends[1 - end].is_rung = true;
                    0
                }
                Access::Fence | Access::Sleep | Access::Done => continue,
            };
            let (number, past) = pasts.of(end, [&found[..], &[new]].concat());
            if number == all.len() {
                all.push(past);
            }
            state.ends[end].past = number;
            followers.push(state);
        }
        followers
    }
}

/// Nobody sleeps while there is something to do, and no byte is lost or another, however the two are interleaved.
#[test]
fn in_every_order_all_bytes_arrive_and_nobody_sleeps_on() {
    let mut pasts = Pasts::default();
    let mut all = Vec::new();
    let ends = [0, 1].map(|end| {
        let (past, first) = pasts.of(end, Vec::new());
        all.push(first);
        End { past, ..End::default() }
    });
    let first = State { memory: [0; 4 + PLACE.words], ends };
    let (mut seen, mut open) = (HashSet::from([first.clone()]), vec![first]);
    let (mut ended, mut slept) = (0, 0_u64);
    while let Some(state) = open.pop() {
        let of = [0, 1].map(|end| Rc::clone(&all[state.ends[end].past]));
        let followers = state.followers(&of, &mut pasts, &mut all);
        if followers.is_empty() {
            assert!(of.iter().all(|past| past.1 == Access::Done), "an end sleeps for ever: {state:?} {of:?}");
            ended += 1;
        }
        slept += u64::from(of.iter().any(|past| past.1 == Access::Sleep));
        for follower in followers {
            if seen.insert(follower.clone()) {
                open.push(follower);
            }
        }
        assert!(seen.len() < MAX_STATES, "{} states", seen.len());
    }
    eprintln!("figure: {} states of two ends of a ring, {ended} of them last ones, {slept} with a sleeper", seen.len());
    assert!(ended > 0 && slept > 0);
}
