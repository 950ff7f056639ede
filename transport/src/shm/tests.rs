use std::thread;

use rustix::event::{PollFd, PollFlags};

use super::*;

/// Sleeps as whoever uses the rings does; false when there was no need to.
fn sleep(rings: &Rings, socket: &UnixStream, for_bytes: bool, for_room: bool) -> bool {
    if !rings.may_sleep(for_bytes, for_room).unwrap() {
        return false;
    }
    let limit = rustix::event::Timespec { tv_sec: 30, tv_nsec: 0 };
    let woken = rustix::event::poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&limit)).unwrap();
    assert_eq!(woken, 1, "nobody woke this side");
    rings.hear(socket);
    true
}

/// Many times what the rings hold, both ways at once, and both sides sleep whenever they have nothing to do.
#[test]
fn two_sides_that_sleep_wake_each_other() {
    const TOTAL: usize = 64 << 20;
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (registry, plugin) = pair();
    let side = |rings: Rings, socket: UnixStream| {
        move || {
            let (mut sent, mut received, mut sleeps) = (0_usize, 0_usize, 0_u64);
            let mut into = Vec::with_capacity(100_000);
            let out: Vec<u8> = (0..251).cycle().take(251 * 1000).collect();
            while sent < TOTAL || received < TOTAL {
                let piece = &out[sent % 251..][..(TOTAL - sent).min(50_000 + sent % 1000)];
                let wrote = if piece.is_empty() { Some(0) } else { rings.send(&socket, &[IoSlice::new(piece)]).unwrap() };
                sent += wrote.unwrap_or(0);
                into.clear();
                let read = rings.receive(&socket, &mut into, 100_000).unwrap();
                for byte in &into {
                    assert_eq!(usize::from(*byte), received % 251);
                    received += 1;
                }
                let has_rest = sent < TOTAL;
                if read.is_none() && if has_rest { wrote.is_none() } else { received < TOTAL } {
                    sleeps += u64::from(sleep(&rings, &socket, true, has_rest));
                }
            }
            (rings, socket, sleeps)
        }
    };
    let other = thread::spawn(side(plugin, theirs));
    let (registry, ours, slept) = side(registry, ours)();
    let (plugin, theirs, too) = other.join().unwrap();
    assert!(slept > 10 && too > 10, "{slept} and {too} sleeps");

    // The end wakes a sleeper, after everything that was written before.
    plugin.send(&theirs, &[IoSlice::new(b"last")]).unwrap();
    drop((plugin, theirs));
    let mut into = Vec::with_capacity(10);
    registry.hear(&ours);
    assert_eq!(registry.receive(&ours, &mut into, 10).unwrap(), Some(4));
    assert!(!registry.may_sleep(true, false).unwrap(), "it has ended");
    assert_eq!(registry.receive(&ours, &mut into, 6).unwrap(), Some(0));
    assert_eq!(registry.send(&ours, &[IoSlice::new(b"x")]).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
}

/// What is written to a side that died in its sleep was not sent: its caller may ask another one.
#[test]
fn a_side_that_died_asleep_has_seen_nothing() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (registry, plugin) = pair();
    assert!(plugin.may_sleep(true, false).unwrap());
    drop((plugin, theirs));
    let error = registry.send(&ours, &[IoSlice::new(b"are you there")]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
}

/// A side that has closed takes nothing of what is there.
#[test]
fn a_side_that_has_closed_reads_and_writes_no_more() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (registry, plugin) = pair();
    registry.send(&ours, &[IoSlice::new(b"too late")]).unwrap();
    plugin.close();
    let mut into = Vec::with_capacity(10);
    assert_eq!(plugin.receive(&theirs, &mut into, 10).unwrap(), Some(0));
    assert!(plugin.send(&theirs, &[IoSlice::new(b"x")]).is_err() && !plugin.may_sleep(true, false).unwrap());
}
