use std::rc::Rc;

use super::*;

mod interleavings;

const PLACE: Place = Place { header: 0, data: RING_HEADER_WORDS, words: 8 };
const CAPACITY: usize = 64;

type Memory = Rc<[AtomicU64]>;

fn ring(place: Place) -> (Memory, Producer<Memory>, Consumer<Memory>) {
    let memory: Memory = (0..place.data + place.words).map(|_| AtomicU64::new(0)).collect();
    (Rc::clone(&memory), Producer::new(Rc::clone(&memory), place), Consumer::new(memory, place))
}

#[allow(unsafe_code)]
fn take(consumer: &mut Consumer<Memory>, most: usize) -> Result<Vec<u8>, Broken> {
    let mut into = Vec::with_capacity(most);
    let count = consumer.take(&mut into.spare_capacity_mut()[..most])?;
    // SAFETY: as many bytes as it says were written. Miri looks whether they were.
    unsafe { into.set_len(count) };
    Ok(into)
}

/// Whatever is put in pieces of any length comes out in pieces of any length, the same and in order.
#[test]
fn bytes_come_out_as_they_went_in() {
    let mut random = 0x5eed_u64;
    let mut below = |limit: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(random >> 33).unwrap() % limit
    };
    let (_, mut producer, mut consumer) = ring(PLACE);
    let (mut next, mut expected, mut full) = (0_u8, 0_u8, 0);
    for _ in 0..if cfg!(miri) { 300 } else { 100_000 } {
        let piece: Vec<u8> = (0..below(CAPACITY + 9)).map(|n| next.wrapping_add(n.to_le_bytes()[0])).collect();
        let count = producer.put(&piece).unwrap();
        full += u32::from(count < piece.len());
        next = next.wrapping_add(count.to_le_bytes()[0]);
        if below(3) > 0 {
            producer.publish();
        }
        for byte in take(&mut consumer, below(CAPACITY + 9)).unwrap() {
            assert_eq!(byte, expected);
            expected = expected.wrapping_add(1);
        }
        consumer.release();
    }
    assert!(full > 10, "it was full now and then");
}

/// Neither side sees or gives up anything before it is told so.
#[test]
fn a_ring_takes_as_much_as_it_is_long() {
    let (_, mut producer, mut consumer) = ring(PLACE);
    assert_eq!(producer.put(&[1; CAPACITY + 1]), Ok(CAPACITY));
    assert_eq!(take(&mut consumer, 100).unwrap(), b"");
    assert!(!producer.publish(), "nobody sleeps");
    assert_eq!(take(&mut consumer, 3).unwrap(), [1; 3]);
    consumer.release();
    assert_eq!(producer.put(&[2; 9]), Ok(0), "the word that is being read is not written");
    assert_eq!(take(&mut consumer, 5).unwrap(), [1; 5]);
    assert_eq!(producer.put(&[2; 9]), Ok(0), "not released");
    consumer.release();
    assert_eq!(producer.put(&[2; 9]), Ok(8));
}

/// Whoever says that it sleeps is woken once; whoever waits for room, when a quarter is free.
#[test]
fn sleepers_are_woken_and_others_are_not() {
    let (_, mut producer, mut consumer) = ring(PLACE);
    assert_eq!(consumer.falls_asleep(), Ok(false));
    producer.put(&[1; CAPACITY]).unwrap();
    assert_eq!((producer.publish(), producer.publish()), (true, false));
    assert_eq!(consumer.falls_asleep(), Ok(true), "there is something");
    consumer.is_awake();
    assert!(!producer.publish());
    assert_eq!(producer.wants_room(), Ok(false));
    for (bytes, wakes) in [(8, false), (7, false), (1, true), (8, false)] {
        take(&mut consumer, bytes).unwrap();
        assert_eq!(consumer.release(), wakes, "{bytes}");
    }
    assert_eq!(producer.wants_room(), Ok(true));
}

/// What the other side writes to the memory is one of three things: a position that can be, bytes, or a rule broken.
#[test]
fn positions_that_cannot_be_are_refused() {
    for tail in [41, u64::MAX, 1 << 63, CAPACITY as u64 + 32 + 1, 31] {
        let (memory, mut producer, mut consumer) = ring(PLACE);
        producer.put(&[1; 40]).unwrap();
        producer.publish();
        take(&mut consumer, 32).unwrap();
        memory[TAIL_WORD].store(tail, Ordering::Relaxed);
        let can_be = (32..=32 + CAPACITY as u64).contains(&tail);
        assert_eq!(take(&mut consumer, 1000).is_ok(), can_be, "{tail}");
        assert_eq!(consumer.falls_asleep().is_ok(), can_be, "{tail}");
    }
    for head in [0, 31, 41, u64::MAX, 1 << 63] {
        let (memory, mut producer, mut consumer) = ring(PLACE);
        producer.put(&[1; 40]).unwrap();
        producer.publish();
        take(&mut consumer, 32).unwrap();
        consumer.release();
        assert_eq!(producer.wants_room(), Ok(true));
        memory[HEAD_WORD].store(head, Ordering::Relaxed);
        assert!(producer.wants_room().is_err() && producer.put(&[1; CAPACITY + 1]).is_err(), "{head}");
    }
}

/// Positions count on for ever, and the place in the memory is a part of them.
#[test]
fn positions_beyond_any_length_are_places() {
    let (_, mut producer, mut consumer) = ring(PLACE);
    let far = u64::MAX / 2 / 64 * 64 + 60;
    (producer.tail, producer.head, consumer.head) = (far, far, far);
    producer.put(b"across the end").unwrap();
    producer.publish();
    assert_eq!(take(&mut consumer, 100).unwrap(), b"across the end");
}

/// Two threads, as miri interleaves them, with loads and stores in the orders that the language allows.
#[test]
fn threads_see_each_other_s_bytes() {
    use std::sync::Arc;

    let memory: Arc<[AtomicU64]> = (0..PLACE.data + PLACE.words).map(|_| AtomicU64::new(0)).collect();
    let count = if cfg!(miri) { 600_u32 } else { 300_000 };
    let mut producer = Producer::new(Arc::clone(&memory), PLACE);
    let mut consumer = Consumer::new(memory, PLACE);
    let writer = std::thread::spawn(move || {
        let mut next = 0_u32;
        while next < count {
            let piece: Vec<u8> = (next..count.min(next + 13)).map(|n| n.to_le_bytes()[0]).collect();
            next += u32::try_from(producer.put(&piece).unwrap()).unwrap();
            producer.publish();
            std::thread::yield_now();
        }
    });
    let mut expected = 0_u32;
    while expected < count {
        let mut into = [MaybeUninit::new(0xee_u8); 20];
        let taken = consumer.take(&mut into).unwrap();
        for byte in &into[..taken] {
            assert_eq!(byte_of(*byte), expected.to_le_bytes()[0]);
            expected += 1;
        }
        consumer.release();
        std::thread::yield_now();
    }
    writer.join().unwrap();
}

#[allow(unsafe_code)]
fn byte_of(byte: MaybeUninit<u8>) -> u8 {
    // SAFETY: all of the array was initialized.
    unsafe { byte.assume_init() }
}
