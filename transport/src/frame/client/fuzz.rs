//! Whatever a plugin sends: no panic, no memory that grows with what it declares, no answer to a call that has none.

use std::task::Waker;
use std::time::Instant;

use bytes::Bytes;
use goplug_pconf_schema::wire::frame::{
    HEADER_BYTES, Header, Kind, MAX_META_BYTES, MAX_PAYLOAD_BYTES, Meta, SUBSCRIPTION_CREDIT,
};

use super::state::State;
use super::{FrameAttach, FrameRequest, take};
use crate::frame::input::Input;

const MAX_REPLY_BYTES: usize = 100_000;

/// xorshift64*: the same frames on every run of a seed.
struct Random {
    state: u64,
    /// The number of the last notification.
    seq: u64,
}

impl Random {
    fn next(&mut self) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// One of `choices`.
    fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[usize::try_from(self.below(choices.len() as u64)).unwrap()]
    }

    fn rarely(&mut self, one_in: u64) -> bool {
        self.below(one_in) == 0
    }

    fn frame(&mut self) -> Vec<u8> {
        let usual = [Kind::Reply, Kind::Data, Kind::Error, Kind::Credit, Kind::Ping, Kind::Pong];
        let notices = [Kind::Subscribe, Kind::Event, Kind::Event, Kind::Event, Kind::Event, Kind::Gap, Kind::Ack];
        let last = [Kind::Close, Kind::Cancel, Kind::Request, Kind::Unsubscribe, Kind::Drain];
        let is_notice = self.rarely(2);
        let kind =
            if self.rarely(50) { self.pick(&last) } else { self.pick(if is_notice { &notices } else { &usual }) };
        self.seq += self.below(3);
        let arg = match kind {
            Kind::Event | Kind::Gap | Kind::Ack => self.seq,
            _ if self.rarely(20) => self.next(),
            _ => self.below(300_000),
        };
        let payload_bytes = if self.rarely(10) { self.pick(&[5_000, 9_000, 70_000]) } else { self.pick(&[0, 1, 64]) };
        let meta_bytes = if self.rarely(10) { self.pick(&[4, 100, MAX_META_BYTES]) } else { 0 };
        // Mostly for what it can be for: nonsense ends the connection at once.
        let id = match kind {
            _ if self.rarely(40) => self.below(16),
            _ if is_notice => 9 + self.below(4),
            _ => 1 + self.below(8),
        };
        let header = Header { end: self.rarely(2), index: 0, arg, meta_bytes, payload_bytes, ..Header::new(kind, id) };
        let mut frame = header.encode().to_vec();
        frame.resize(HEADER_BYTES + meta_bytes + payload_bytes, 7);
        if self.rarely(40) {
            frame.truncate(usize::try_from(self.below(frame.len() as u64)).unwrap());
        } else if self.rarely(40) {
            let bit = usize::try_from(self.below(HEADER_BYTES as u64 * 8)).unwrap();
            frame[bit / 8] ^= 1 << (bit % 8);
        }
        frame
    }
}

/// One connection with calls under way, fed until it ends; answers how many frames it took.
fn connection(random: &mut Random) -> u64 {
    let mut state = State::new(true);
    let mut open = Vec::new();
    for _ in 0..8 {
        let body = vec![1; if random.rarely(4) { 600_000 } else { 10 }].into();
        let request = FrameRequest {
            index: 0,
            deadline_ms: 1_000,
            deadline: Instant::now(),
            meta: Meta::default(),
            body: &body,
            max_reply_bytes: MAX_REPLY_BYTES,
        };
        open.push(state.begin(&request, true).unwrap().0);
    }
    let to = FrameAttach { index: 0, name: Some("x"), after: None, max_message_bytes: MAX_REPLY_BYTES };
    let listening: Vec<_> = (0..4).map(|_| state.attach(&to).unwrap()).collect();
    let mut frames = 0;
    let mut wakers: Vec<Waker> = Vec::new();
    loop {
        let mut bytes = Vec::new();
        for _ in 0..8 {
            bytes.extend(random.frame());
        }
        frames += 8;
        let taken = take::take_all(&mut state, &mut Input::new(&bytes), &mut wakers);
        open.retain(|id| match state.collect(*id) {
            Some(Ok(reply)) => {
                let bytes = match reply {
                    super::FrameReply::Bytes(bytes) | super::FrameReply::Problem(bytes) => bytes,
                    super::FrameReply::View(view) => view.into_bytes(),
                };
                assert!(bytes.len() <= MAX_REPLY_BYTES.max(MAX_PAYLOAD_BYTES));
                false
            }
            Some(Err(_)) => false,
            None => true,
        });
        assert_eq!(state.uncollected, 0, "what was collected is not owed");
        for id in &open {
            let entry = state.entry(*id).unwrap();
            assert!(entry.reply.len() <= MAX_REPLY_BYTES);
        }
        for id in &listening {
            let entry = state.listening.entry(*id).unwrap();
            let held = entry.held_bytes();
            assert!(held <= SUBSCRIPTION_CREDIT as usize + MAX_REPLY_BYTES, "a subscription holds {held} bytes");
            if random.rarely(8) {
                while state.next_notice(*id).is_some() {}
            } else if random.rarely(8) {
                let _ = state.acknowledge(*id, random.seq);
            }
        }
        assert!(state.outbox.len() < 64 << 20, "what we have to say is bounded: {}", state.outbox.len());
        if let Err(error) = taken {
            assert!(!error.message.is_empty());
            state.end(&error);
            assert!(open.iter().all(|id| state.collect(*id).is_some_and(|done| done.is_err())), "every call ends");
            assert!(
                listening.iter().all(|id| state.listening.entry(*id).unwrap().over.is_some()),
                "so do subscriptions"
            );
            return frames;
        }
        // The socket takes what waits.
        state.outbox = crate::frame::outbox::Outbox::default();
        if open.is_empty() || frames > 4_000 {
            return frames;
        }
    }
}

#[test]
fn random_frames_end_calls_or_the_connection_and_nothing_else() {
    let deep = std::env::var_os("GOPLUG_DEEP").is_some();
    // Miri looks at every access to memory, and takes a thousand times as long.
    let goal: u64 = if cfg!(miri) { 16 } else { 100_000 };
    let goal = if deep { goal * 1_000 } else { goal };
    let mut random = Random { state: 0x5eed_0123_4567_89ab, seq: 0 };
    let (mut frames, mut connections) = (0, 0_u64);
    while frames < goal {
        frames += connection(&mut random);
        connections += 1;
    }
    eprintln!("figure: {frames} random frames on {connections} connections");
}

/// Of each documented frame every beginning and every flipped bit.
#[test]
fn every_prefix_and_every_flipped_bit_of_the_golden_frames() {
    let golden = include_str!("../../../../pconf-schema/golden/frames.hex");
    let mut tried = 0;
    for text in golden.split("# ").filter(|text| !text.is_empty()) {
        let (_, hex) = text.split_once('\n').unwrap();
        let frame: Vec<u8> = hex.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
        let prefixes = (0..frame.len()).map(|length| frame[..length].to_vec());
        let flips = (0..frame.len() * 8).map(|bit| {
            let mut flipped = frame.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            flipped
        });
        for bytes in prefixes.chain(flips).step_by(if cfg!(miri) { 61 } else { 1 }) {
            let mut state = State::new(true);
            for _ in 0..4 {
                let request = FrameRequest {
                    index: 0,
                    deadline_ms: 1,
                    deadline: Instant::now(),
                    meta: Meta::default(),
                    body: &Bytes::new(),
                    max_reply_bytes: MAX_REPLY_BYTES,
                };
                state.begin(&request, true).unwrap();
            }
            let to = FrameAttach { index: 0, name: None, after: None, max_message_bytes: MAX_REPLY_BYTES };
            let id = state.attach(&to).unwrap();
            state.listening.entry(id).unwrap().is_attached = true;
            state.acknowledge(id, 45).unwrap();
            let is_prefix = bytes.len() < frame.len();
            let taken = take::take_all(&mut state, &mut Input::new(&bytes), &mut Vec::new());
            assert!(!is_prefix || (taken.is_ok() && state.uncollected == 0), "a part of a frame is none");
            tried += 1;
        }
    }
    assert!(tried > if cfg!(miri) { 40 } else { 10_000 }, "{tried}");
}
