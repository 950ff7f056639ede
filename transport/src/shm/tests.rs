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
                let wrote =
                    if piece.is_empty() { Some(0) } else { rings.send(&socket, &[IoSlice::new(piece)]).unwrap() };
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

/// Of the payload behind it; what a payload in these tests begins with.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

/// A peer that writes to all of the memory what it likes, positions, flags and bytes, while frames come through it.
///
/// Each payload begins with the checksum of the rest. What was received is checked where it was copied to; if it is right, the
/// payload counts as delivered, and is checked once more later: what is copied out cannot change any more. What is wrong was
/// overwritten before, and is what the peer said. An access outside the memory would be a panic: it is a slice.
#[test]
fn whatever_a_peer_writes_nothing_panics_and_what_was_taken_stays() {
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use goplug_pconf_schema::wire::frame::{Header, Kind, Meta};

    use crate::frame::testing::{Input, Outbox, Pipe, Read};

    let long = std::env::var_os("GOPLUG_DEEP").is_some();
    let limit = Instant::now() + Duration::from_secs(if long { 60 } else { 2 });
    let (mut delivered, mut overwritten, mut lost, mut writes, mut stale) = (0_u64, 0_u64, 0_u64, 0_u64, 0_u64);
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    println!("seed {random:#x}");
    while Instant::now() < limit {
        let (memory, memfd) = Region::create(4096).unwrap();
        let hostile = Region::open(&memfd, 4096).unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let near = Pipe::new(Arc::new(ours), Some(Rings::new(memory.clone(), Side::Registry)));
        let far = Pipe::new(Arc::new(theirs), Some(Rings::new(memory, Side::Plugin)));
        let is_over = Arc::new(AtomicBool::new(false));
        let mut next = {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let mut state = random | 1;
            move || {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state
            }
        };
        let peer = thread::spawn({
            let is_over = Arc::clone(&is_over);
            move || {
                let mut count = 0_u64;
                while !is_over.load(Ordering::Relaxed) {
                    // At first seldom, so that much comes through; then without a pause.
                    for _ in 0..next() % 4_096 {
                        std::hint::spin_loop();
                    }
                    let among = if next() % 64 == 0 { 128 } else { hostile.len() as u64 };
                    let at = usize::try_from(next() % among).unwrap();
                    let value = match next() % 4 {
                        0 => next(),
                        1 => next() % 10_000,
                        2 => hostile[at].load(Ordering::Relaxed).wrapping_add(next() % 64),
                        _ => hostile[at].load(Ordering::Relaxed) ^ 1 << (next() % 64),
                    };
                    hostile[at].store(value, Ordering::Relaxed);
                    count += 1;
                }
                count
            }
        });
        let (mut input, mut outbox, mut id) = (Input::new(&[]), Outbox::default(), 0);
        let mut kept: Vec<bytes::Bytes> = Vec::new();
        let round = Instant::now() + Duration::from_millis(20);
        'round: while Instant::now() < round {
            id += 1;
            let mut payload = vec![0_u8; [8, 72, 1_000, 9_000][usize::try_from(id % 4).unwrap()]];
            payload[8..].fill(u8::try_from(id % 251).unwrap());
            let sum = checksum(&payload[8..]);
            payload[..8].copy_from_slice(&sum.to_ne_bytes());
            outbox.push(Header { end: true, ..Header::new(Kind::Reply, id) }, &Meta::default(), payload.into());
            for _ in 0..8 {
                let mut is_lost = outbox.write_to(&far).is_err();
                is_lost |= near.may_sleep(true, true).is_err() | far.may_sleep(true, true).is_err();
                is_lost |= !matches!(input.read_from(&near), Ok(Read::Some | Read::Empty));
                while !is_lost {
                    match input.next_frame() {
                        Ok(Some(frame)) if frame.payload.len() >= 8 => {
                            let (sum, rest) = frame.payload.split_first_chunk::<8>().unwrap();
                            if checksum(rest) == u64::from_ne_bytes(*sum) {
                                delivered += 1;
                                kept.push(frame.payload);
                            } else {
                                overwritten += 1;
                            }
                        }
                        Ok(Some(_)) => overwritten += 1,
                        Ok(None) => break,
                        Err(_) => is_lost = true,
                    }
                }
                if is_lost {
                    lost += 1;
                    break 'round;
                }
            }
        }
        for payload in kept {
            let (sum, rest) = payload.split_first_chunk::<8>().unwrap();
            stale += u64::from(checksum(rest) != u64::from_ne_bytes(*sum));
        }
        is_over.store(true, Ordering::Relaxed);
        writes += peer.join().unwrap();
    }
    eprintln!(
        "figure: {writes} hostile writes: {delivered} payloads delivered, {stale} of them wrong; {overwritten} overwritten \
         before they were taken, {lost} connections lost"
    );
    assert!(delivered > 0 && lost > 0 && stale == 0, "{delivered} {lost} {stale}");
}
