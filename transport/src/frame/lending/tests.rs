use super::*;

const MIB: u64 = 1024 * 1024;

fn grant(segments: u16, bytes: u64) -> Header {
    Header { index: segments, arg: bytes, ..Header::new(Kind::Borrow, 0) }
}

fn release(number: u64, count: u64) -> Header {
    Header { arg: count, ..Header::new(Kind::Release, number) }
}

fn body() -> Bytes {
    Bytes::from_static(&[7; 100])
}

/// One that may lend so much.
fn lent(segments: u16, bytes: u64) -> Lent {
    let mut lent = Lent::new(true);
    assert_eq!(lent.lend(&body(), (1, MIB, 0), |_| true), Way::CopiedAndAsked);
    assert_eq!(lent.lend(&body(), (1, MIB, 0), |_| true), Way::Copied, "nobody has answered yet");
    lent.granted(&grant(segments, bytes)).unwrap();
    lent
}

/// How a body in a segment of that key goes, in short: the numbers that are forgotten, of the segment that is passed, and the
/// segment in which the body is.
fn way(lent: &mut Lent, key: u64, bytes: u64, stands: &[u64]) -> Option<(Vec<u64>, Option<u64>, u64)> {
    match lent.lend(&body(), (key, bytes, 8), |key| stands.contains(&key)) {
        Way::Placed { before, segment, place } => {
            assert!(before.iter().all(|header| header.kind == Kind::Forget));
            assert!(segment.is_none_or(|header| header.fd && header.arg == bytes && header.kind == Kind::Segment));
            assert_eq!((place.offset, place.length), (8, 100));
            let before = before.iter().map(|header| header.id).collect();
            Some((before, segment.map(|header| header.id), place.segment))
        }
        _ => None,
    }
}

#[test]
fn nothing_is_lent_to_one_that_takes_nothing() {
    assert_eq!(Lent::new(false).lend(&body(), (1, MIB, 0), |_| true), Way::Copied);
    assert_eq!(way(&mut lent(0, 0), 1, MIB, &[1]), None);
    assert_eq!(way(&mut lent(1, MIB - 1), 1, MIB, &[1]), None);
    for mut nobody_asked in [Lent::new(false), Lent::new(true), lent(1, MIB)] {
        assert!(nobody_asked.granted(&grant(1, MIB)).is_err());
    }
}

/// What a lender does in turn: `(key, bytes, what must come of it)`, or what it is given back.
#[test]
fn a_segment_is_passed_once_and_forgotten_when_it_has_to_be() {
    let mut lent = lent(2, 3 * MIB);
    let all = [1, 2, 3, 4];
    assert_eq!(way(&mut lent, 1, MIB, &all), Some((vec![], Some(1), 1)));
    assert_eq!(way(&mut lent, 1, MIB, &all), Some((vec![], None, 1)), "the same once more");
    assert_eq!(way(&mut lent, 2, MIB, &all), Some((vec![], Some(2), 2)));
    assert_eq!(way(&mut lent, 3, MIB, &all), None, "two are in use");
    lent.released(&release(1, 1)).unwrap();
    assert_eq!(way(&mut lent, 3, MIB, &all), None, "a body is still in each");
    lent.released(&release(1, 1)).unwrap();
    assert_eq!(way(&mut lent, 4, 3 * MIB, &all), None, "too many bytes beside the one in use");
    assert_eq!(way(&mut lent, 3, 2 * MIB, &all), Some((vec![1], Some(3), 3)), "an idle one makes room");
    lent.released(&release(2, 1)).unwrap();
    lent.released(&release(3, 1)).unwrap();
    assert_eq!(way(&mut lent, 4, MIB, &[2, 4]), Some((vec![2, 3], Some(4), 4)), "one for room, one that is no more");
    assert_eq!(way(&mut lent, 2, MIB, &all), Some((vec![], Some(5), 5)), "passed anew, with a new number");
}

/// The memory is held as long as the other side reads one body in it.
#[test]
fn a_body_is_held_until_it_is_given_back() {
    let mut lent = lent(4, MIB);
    let body = Bytes::from(vec![1; 100]);
    for _ in 0..3 {
        lent.lend(&body, (1, MIB, 0), |_| true);
    }
    for (count, is_unique) in [(2, false), (1, true)] {
        lent.released(&release(1, count)).unwrap();
        assert_eq!(body.is_unique(), is_unique, "{count}");
    }
}

#[test]
fn what_was_not_lent_cannot_be_given_back() {
    for (number, count) in [(1, 0), (1, 3), (1, u64::MAX), (0, 1), (2, 1), (u64::MAX, 1)] {
        let mut lent = lent(4, MIB);
        way(&mut lent, 1, MIB, &[1]);
        way(&mut lent, 1, MIB, &[1]);
        assert!(lent.released(&release(number, count)).is_err(), "{number} {count}");
    }
    let mut twice = lent(4, MIB);
    way(&mut twice, 1, MIB, &[1]);
    twice.released(&release(1, 1)).unwrap();
    assert!(twice.released(&release(1, 1)).is_err(), "twice");
}

fn segment(number: u64, bytes: u64) -> Header {
    Header { fd: true, arg: bytes, ..Header::new(Kind::Segment, number) }
}

fn place(segment: u64, offset: u64, length: u64) -> [u8; 24] {
    Place { segment, offset, length }.encode()
}

fn mapped(_bytes: u64) -> Result<(), String> {
    Ok(())
}

fn borrowed() -> Borrowed<()> {
    let mut borrowed = Borrowed::new(true);
    let answer = borrowed.asked().unwrap();
    assert_eq!((answer.kind, answer.index, answer.arg), (Kind::Borrow, MAX_SEGMENTS, MAX_SEGMENT_BYTES));
    borrowed
}

#[test]
fn nothing_is_borrowed_unasked() {
    let mut borrowed = Borrowed::new(true);
    assert!(!borrowed.is_open() && borrowed.take(&segment(1, 4096), mapped).is_err());
    assert!(Borrowed::<()>::new(false).asked().is_err());
    borrowed.asked().unwrap();
    assert!(borrowed.is_open() && borrowed.asked().is_err());
}

#[test]
fn segments_are_of_pages_counted_up_and_no_more_than_may_be() {
    for (number, bytes, is_taken) in [
        (1, 4096, true),
        (7, MAX_SEGMENT_BYTES, true),
        (0, 4096, false),
        (1, 0, false),
        (1, 4095, false),
        (1, 4097, false),
        (1, MAX_SEGMENT_BYTES + 4096, false),
        (1, u64::MAX, false),
    ] {
        assert_eq!(borrowed().take(&segment(number, bytes), mapped).is_ok(), is_taken, "{number} {bytes}");
    }
    let mut many = borrowed();
    for number in 1..=u64::from(MAX_SEGMENTS) {
        many.take(&segment(number, 4096), mapped).unwrap();
    }
    assert!(many.take(&segment(17, 4096), mapped).unwrap_err().0.contains("the limits are 16"));
    let mut large = borrowed();
    large.take(&segment(2, MAX_SEGMENT_BYTES - 4096), mapped).unwrap();
    assert!(large.take(&segment(3, 8192), mapped).is_err());
    assert!(large.take(&segment(2, 4096), mapped).unwrap_err().0.contains("count up"));
    large.take(&segment(3, 4096), mapped).unwrap();
    large.forget(2).unwrap();
    large.take(&segment(4, MAX_SEGMENT_BYTES - 4096), mapped).unwrap();
    let why = borrowed().take(&segment(1, 4096), |_| Err("it is not sealed".into())).unwrap_err();
    assert_eq!(why.0, "segment 1: it is not sealed");
}

#[test]
fn a_body_lies_in_a_segment_that_is_lent() {
    for (number, offset, length, is_there) in [
        (1, 0, 4096, true),
        (1, 4088, 8, true),
        (1, 0, 4097, false),
        (1, 4, 8, false),
        (1, 0, 0, false),
        (1, u64::MAX - 7, 16, false),
        (0, 0, 8, false),
        (2, 0, 8, false),
    ] {
        let mut borrowed = borrowed();
        borrowed.take(&segment(1, 4096), mapped).unwrap();
        let found = borrowed.place(&place(number, offset, length));
        assert_eq!(found.is_ok(), is_there, "{number} {offset} {length}");
        assert_eq!(borrowed.give_back(number).is_some(), is_there, "only what is there is given back");
    }
}

#[test]
fn a_segment_in_which_a_body_is_read_stays() {
    let mut borrowed = borrowed();
    borrowed.take(&segment(1, 4096), mapped).unwrap();
    for _ in 0..2 {
        borrowed.place(&place(1, 0, 8)).unwrap();
    }
    let back = borrowed.give_back(1).unwrap();
    assert_eq!((back.kind, back.id, back.arg), (Kind::Release, 1, 1));
    borrowed.give_back(1).unwrap();
    assert!(borrowed.give_back(1).is_none(), "nothing is given back twice");
    assert_eq!(borrowed.forget(1), Ok(()));
    assert!(borrowed.forget(1).is_err() && borrowed.place(&place(1, 0, 8)).is_err());
    borrowed.take(&segment(2, 4096), mapped).unwrap();
    borrowed.place(&place(2, 0, 8)).unwrap();
    assert!(borrowed.forget(2).unwrap_err().0.contains("bodies in it"));
}

/// Whatever two sides do that keep to the rules, both count the same, and no more is lent than may be.
#[test]
fn both_sides_count_the_same() {
    let mut state = 0x5eed_u64;
    let mut random = move |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) % below
    };
    let (mut lent, mut borrowed) = (lent(MAX_SEGMENTS, MAX_SEGMENT_BYTES), borrowed());
    let (mut reading, mut placed, mut passed) = (Vec::new(), 0, 0);
    let turns = if cfg!(miri) { 200 } else { 20_000 };
    for _ in 0..turns {
        if random(2) == 0 {
            let key = random(40) + 1;
            let gone = random(40) + 1;
            let bytes = (key % 8 + 1) * 8 * MIB;
            match lent.lend(&body(), (key, bytes, 0), |key| key != gone) {
                Way::Placed { before, segment, place } => {
                    before.iter().for_each(|header| borrowed.forget(header.id).unwrap());
                    if let Some(header) = segment {
                        borrowed.take(&header, mapped).unwrap();
                        passed += 1;
                    }
                    borrowed.place(&place.encode()).unwrap();
                    reading.push(place.segment);
                    placed += 1;
                }
                way => assert_eq!(way, Way::Copied),
            }
        } else if !reading.is_empty() {
            let number = reading.swap_remove(usize::try_from(random(reading.len() as u64)).unwrap());
            lent.released(&borrowed.give_back(number).unwrap()).unwrap();
        }
    }
    assert!(placed > turns / 20 && passed > turns / 200, "{placed} {passed}");
}
