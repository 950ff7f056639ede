//! Random subscribers, messages, acknowledgements and time against a window of class `event`, with an oracle that knows
//! only the promise: each subscriber sees every message in order, none is released before all acknowledged it, and the
//! bounds hold.

use super::*;

const SUBSCRIBERS: usize = 4;
const BOUNDS: Bounds = Bounds { messages: 16, bytes: 200 };

/// xorshift64*: the seed printed by a failure repeats the run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % sides
    }
}

/// What a subscriber knows of itself.
#[derive(Default)]
struct Reader {
    stream: Option<u64>,
    detached_at: Option<Duration>,
    /// The last message seen on this stream, and the last acknowledged.
    seen: u64,
    acknowledged: u64,
    /// The window knows the name.
    is_known: bool,
}

struct World {
    window: Window,
    now: Duration,
    readers: Vec<Reader>,
    observer: u64,
    observed: u64,
    taken: u64,
}

fn name(reader: usize) -> String {
    format!("r{reader}")
}

impl World {
    fn new() -> Self {
        let mut window = Window::new("x".into(), "0".repeat(32).into(), Class::Event, BOUNDS);
        let observer = window.observe(Duration::ZERO, Start::Now).unwrap();
        let readers = (0..SUBSCRIBERS).map(|_| Reader::default()).collect();
        Self { window, now: Duration::ZERO, readers, observer, observed: 0, taken: 0 }
    }

    /// Forgets, in the oracle, whoever was away too long.
    fn age(&mut self) {
        for reader in &mut self.readers {
            if reader.detached_at.is_some_and(|since| self.now - since >= RETAIN) {
                *reader = Reader { seen: reader.seen, acknowledged: reader.acknowledged, ..Reader::default() };
            }
        }
    }

    fn slowest(&self) -> Option<u64> {
        self.readers.iter().filter(|r| r.is_known).map(|r| r.acknowledged).min()
    }

    fn notify(&mut self, bytes: usize) {
        match self.window.offer(self.now, None, vec![b'x'; bytes].into()) {
            Ok(seq) => {
                assert_eq!(seq, self.taken + 1);
                self.taken = seq;
            }
            Err(refusal) => {
                assert_eq!(refusal, Refusal::Full);
                let held = self.taken - self.slowest().expect("nobody subscribes, and it is full");
                assert!(held > 0, "full, and nothing is held back");
            }
        }
    }

    fn attach(&mut self, n: usize) {
        let stream = self.window.attach(self.now, &name(n), None, Start::Subscribed).unwrap();
        let status = self.window.status().0.into_iter().find(|s| s.name == name(n)).unwrap();
        let reader = &mut self.readers[n];
        if reader.is_known {
            assert_eq!(status.acknowledged, reader.acknowledged, "it holds its place");
        }
        reader.stream = Some(stream);
        reader.detached_at = None;
        reader.is_known = true;
        reader.acknowledged = status.acknowledged;
        reader.seen = status.acknowledged;
    }

    fn read(&mut self, n: usize) {
        let Some(stream) = self.readers[n].stream else { return };
        match self.window.next_for(&name(n), stream) {
            Next::Message { seq, .. } => {
                assert_eq!(seq, self.readers[n].seen + 1, "a message is missing or repeated on one stream");
                self.readers[n].seen = seq;
            }
            Next::Gap(_, to) => assert_eq!(to, self.readers[n].seen, "a gap ends where the stream begins"),
            Next::Wait => assert_eq!(self.readers[n].seen, self.taken, "it waits although there is more"),
            other => panic!("{other:?}"),
        }
    }

    fn acknowledge(&mut self, n: usize, dice: &mut Dice) {
        let reader = &mut self.readers[n];
        if !reader.is_known || reader.seen == 0 {
            return;
        }
        let seq = dice.roll(reader.seen + 1);
        let position = self.window.position(seq);
        self.window.acknowledge(self.now, &name(n), &position).unwrap();
        reader.acknowledged = reader.acknowledged.max(seq);
    }

    fn observe(&mut self) {
        match self.window.next_for_observer(self.observer) {
            Next::Message { seq, .. } => {
                assert_eq!(seq, self.observed + 1);
                self.observed = seq;
            }
            Next::Gap(from, to) => {
                assert!(from == self.observed + 1 && to >= from, "a gap is told exactly");
                self.observed = to;
            }
            Next::Wait => assert_eq!(self.observed, self.taken),
            other => panic!("{other:?}"),
        }
    }

    fn check(&self) {
        let w = &self.window;
        assert!(w.kept.len() <= BOUNDS.messages && w.kept_bytes <= BOUNDS.bytes, "a bound is broken");
        assert_eq!(w.kept_bytes, w.kept.values().map(|kept| kept.data.len()).sum::<usize>());
        if let Some(slowest) = self.slowest() {
            assert!(w.released <= slowest, "released before all acknowledged");
            assert!((slowest + 1..=self.taken).all(|seq| w.kept.contains_key(&seq)), "a held message is gone");
        }
        let known = self.readers.iter().filter(|r| r.is_known).count();
        assert_eq!(w.status().0.len(), known);
    }
}

fn run(seed: u64, steps: usize) {
    let (mut world, mut dice) = (World::new(), Dice(seed));
    for _ in 0..steps {
        let n = dice.roll(SUBSCRIBERS as u64) as usize;
        match dice.roll(100) {
            0..30 => world.notify(dice.roll(30) as usize),
            30..60 => world.read(n),
            60..75 => world.acknowledge(n, &mut dice),
            75..85 => world.observe(),
            85..91 => world.attach(n),
            91..95 => {
                if let Some(stream) = world.readers[n].stream.take() {
                    world.readers[n].detached_at = Some(world.now);
                    world.window.detach(world.now, &name(n), stream);
                }
            }
            95..99 => world.now += Duration::from_millis(dice.roll(5_000)),
            _ => world.now += Duration::from_millis(dice.roll(70_000)),
        }
        world.age();
        world.window.expire(world.now);
        world.check();
    }
    assert!(world.taken > 0, "nothing happened");
}

#[test]
fn no_history_breaks_the_promise() {
    for seed in 1..=300u64 {
        println!("seed {seed}");
        run(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15), 1_000);
    }
}
