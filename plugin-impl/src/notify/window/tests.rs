use super::*;

const EPOCH: &str = "0123456789abcdef0123456789abcdef";

fn window(class: Class) -> Window {
    bounded(class, 4, 100)
}

fn bounded(class: Class, messages: usize, bytes: usize) -> Window {
    Window::new("x".into(), EPOCH.into(), class, Bounds { messages, bytes })
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn position(seq: u64) -> Position {
    Position { epoch: EPOCH.into(), seq }
}

fn offer(window: &mut Window, now: u64, text: &str) -> Result<u64, Refusal> {
    window.offer(at(now), None, Bytes::copy_from_slice(text.as_bytes()))
}

fn offer_all(window: &mut Window, now: u64, count: u64) {
    for _ in 0..count {
        offer(window, now, "m").unwrap();
    }
}

fn attach(window: &mut Window, now: u64, name: &str) -> u64 {
    window.attach(at(now), name, None, Start::Subscribed).unwrap()
}

/// Everything that a stream is given until it has to wait, in short form.
fn drain(mut next: impl FnMut() -> Next) -> Vec<String> {
    let mut seen = Vec::new();
    loop {
        seen.push(match next() {
            Next::Message { seq, key, dropped, .. } => {
                let key = key.map(|key| format!("{key}=")).unwrap_or_default();
                let dropped = if dropped > 0 { format!("-{dropped}") } else { String::new() };
                format!("{key}{seq}{dropped}")
            }
            Next::Gap(from, to) => format!("gap {from}..{to}"),
            Next::Replaced => "replaced".into(),
            Next::End => "end".into(),
            Next::Wait => return seen,
        });
        if seen.last().is_some_and(|last| last == "replaced" || last == "end") {
            return seen;
        }
    }
}

fn read(window: &mut Window, name: &str, stream: u64) -> Vec<String> {
    drain(|| window.next_for(name, stream))
}

#[test]
fn a_full_event_window_refuses_until_the_slowest_subscription_acknowledges() {
    let mut w = window(Class::Event);
    let (a, b) = (attach(&mut w, 0, "a"), attach(&mut w, 0, "b"));
    offer_all(&mut w, 0, 4);
    assert_eq!(offer(&mut w, 0, "m"), Err(Refusal::Full));
    assert_eq!(read(&mut w, "a", a), ["1", "2", "3", "4"]);
    w.acknowledge(at(0), "a", &position(4)).unwrap();
    assert_eq!(offer(&mut w, 0, "m"), Err(Refusal::Full), "b has acknowledged nothing");
    assert_eq!(read(&mut w, "b", b), ["1", "2", "3", "4"]);
    w.acknowledge(at(0), "b", &position(2)).unwrap();
    assert_eq!((offer(&mut w, 0, "m"), offer(&mut w, 0, "m")), (Ok(5), Ok(6)));
    assert_eq!(offer(&mut w, 0, "m"), Err(Refusal::Full));
    assert_eq!(w.unacknowledged(), 2 + 4);
    assert_eq!(w.losses(), Losses::default());
}

#[test]
fn bytes_fill_a_window_too_and_one_message_larger_than_it_is_never_taken() {
    let mut w = bounded(Class::Event, 100, 10);
    attach(&mut w, 0, "a");
    assert_eq!(offer(&mut w, 0, "123456"), Ok(1));
    assert_eq!(offer(&mut w, 0, "12345"), Err(Refusal::Full));
    assert_eq!(offer(&mut w, 0, "1234"), Ok(2));
    let Err(Refusal::Never(fault)) = offer(&mut w, 0, "12345678901") else { panic!("taken") };
    assert_eq!(fault.code, Code::TooLarge);
    assert!(fault.message.contains("11 bytes") && fault.message.contains("10"), "{fault}");
}

#[test]
fn acknowledgements_have_one_answer_each() {
    let mut w = window(Class::Event);
    let a = attach(&mut w, 0, "a");
    offer_all(&mut w, 0, 3);
    assert_eq!(w.next_for("a", a), Next::Message { seq: 1, key: None, dropped: 0, data: "m".into() });
    assert!(matches!(w.next_for("a", a), Next::Message { seq: 2, .. }));
    let other = Position { epoch: EPOCH.replace('0', "f"), seq: 1 };
    for (name, position, code) in [
        ("a", position(3), Some(Code::InvalidArgument)),
        ("a", position(u64::MAX), Some(Code::InvalidArgument)),
        ("b", position(1), Some(Code::NotFound)),
        ("a", other.clone(), Some(Code::Conflict)),
        ("b", other, Some(Code::Conflict)),
        ("a", position(2), None),
        ("a", position(1), None),
        ("a", position(0), None),
    ] {
        let answer = w.acknowledge(at(0), name, &position).err().map(|fault| fault.code);
        assert_eq!(answer, code, "{name} {position}");
    }
    assert_eq!(w.status().0[0].acknowledged, 2, "an acknowledgement behind the cursor has no effect");
}

#[test]
fn a_subscription_resumes_after_its_last_acknowledgement_and_ends_its_earlier_stream() {
    let mut w = window(Class::Event);
    let first = attach(&mut w, 0, "a");
    offer_all(&mut w, 0, 3);
    assert_eq!(read(&mut w, "a", first), ["1", "2", "3"]);
    w.acknowledge(at(0), "a", &position(1)).unwrap();
    let second = attach(&mut w, 1, "a");
    assert_eq!(read(&mut w, "a", first), ["replaced"]);
    w.detach(at(1), "a", first);
    assert_eq!(read(&mut w, "a", second), ["2", "3"], "the end of a replaced stream detaches nothing");
    w.acknowledge(at(1), "a", &position(3)).expect("what the first stream sent may be acknowledged");
}

#[test]
fn a_detached_subscription_holds_back_for_a_minute_and_is_then_forgotten_and_told() {
    let mut w = window(Class::Event);
    let (a, b) = (attach(&mut w, 0, "a"), attach(&mut w, 0, "b"));
    offer_all(&mut w, 0, 2);
    assert_eq!(
        (read(&mut w, "a", a), read(&mut w, "b", b)),
        (vec!["1".into(), "2".into()], vec!["1".into(), "2".into()])
    );
    w.acknowledge(at(0), "a", &position(1)).unwrap();
    w.detach(at(10), "a", a);
    offer_all(&mut w, 10, 2);
    w.next_for("b", b);
    w.next_for("b", b);
    w.acknowledge(at(11), "b", &position(4)).unwrap();
    assert_eq!(offer(&mut w, 69, "m"), Ok(5), "three are held, one place is free");
    assert_eq!(offer(&mut w, 69, "m"), Err(Refusal::Full));
    assert_eq!(w.next_expiry(), Some(at(70)));
    assert_eq!(offer(&mut w, 70, "m"), Ok(6));
    assert_eq!(w.losses().forgotten, 1);
    assert_eq!(w.acknowledge(at(70), "a", &position(2)).unwrap_err().code, Code::NotFound);
    let again = attach(&mut w, 71, "a");
    assert_eq!(read(&mut w, "a", again), ["gap 2..4", "5", "6"], "what it missed is told");
}

#[test]
fn without_subscription_nothing_waits_and_what_is_dropped_is_counted_and_told() {
    let mut w = window(Class::Event);
    offer_all(&mut w, 0, 6);
    assert_eq!(w.losses().dropped, 2);
    let a = attach(&mut w, 1, "a");
    assert_eq!(read(&mut w, "a", a), ["gap 1..2", "3", "4", "5", "6"]);
    let again = attach(&mut w, 2, "a");
    assert_eq!(read(&mut w, "a", again)[0], "gap 1..2", "told again until an acknowledgement passes it");
    w.acknowledge(at(2), "a", &position(3)).unwrap();
    let last = attach(&mut w, 2, "a");
    assert_eq!(read(&mut w, "a", last), ["4", "5", "6"]);

    let mut old = window(Class::Event);
    offer_all(&mut old, 0, 2);
    offer_all(&mut old, 30, 1);
    let a = attach(&mut old, 60, "a");
    assert_eq!(read(&mut old, "a", a), ["gap 1..2", "3"], "a minute old, and nobody held them");
}

#[test]
fn a_new_subscription_begins_with_the_oldest_message_that_is_not_released() {
    let mut w = window(Class::Event);
    let a = attach(&mut w, 0, "a");
    offer_all(&mut w, 0, 3);
    read(&mut w, "a", a);
    w.acknowledge(at(0), "a", &position(2)).unwrap();
    let b = attach(&mut w, 0, "b");
    assert_eq!(read(&mut w, "b", b), ["3"]);
}

#[test]
fn observers_hold_nothing_back_and_are_told_what_they_missed() {
    let mut w = window(Class::Event);
    offer_all(&mut w, 0, 2);
    let now = w.observe(at(0), Start::Now).unwrap();
    let after = w.observe(at(0), Start::After(1)).unwrap();
    let kept = w.observe(at(0), Start::Kept).unwrap();
    assert_eq!(w.observe(at(0), Start::After(3)).unwrap_err().code, Code::InvalidArgument);
    assert_eq!(drain(|| w.next_for_observer(now)), Vec::<String>::new());
    assert_eq!(drain(|| w.next_for_observer(after)), ["2"]);
    assert_eq!(drain(|| w.next_for_observer(kept)), ["1", "2"]);
    offer_all(&mut w, 0, 5);
    assert_eq!(drain(|| w.next_for_observer(now)), ["gap 3..3", "4", "5", "6", "7"]);
    assert_eq!(w.status().1, 3);
    let late = w.observe(at(0), Start::Kept).unwrap();
    assert_eq!(drain(|| w.next_for_observer(late)), ["gap 1..3", "4", "5", "6", "7"], "it missed them of this process");
    w.leave(late);
    w.leave(kept);
    assert_eq!(w.status().1, 2);
}

#[test]
fn an_observer_sees_what_a_fast_subscription_has_released() {
    let mut w = window(Class::Event);
    let (a, observer) = (attach(&mut w, 0, "a"), w.observe(at(0), Start::Now).unwrap());
    offer_all(&mut w, 0, 2);
    read(&mut w, "a", a);
    w.acknowledge(at(0), "a", &position(2)).unwrap();
    assert_eq!(drain(|| w.next_for_observer(observer)), ["1", "2"]);
}

#[test]
fn state_keeps_the_last_value_of_every_key_for_whoever_attaches() {
    let mut w = window(Class::State);
    let mut set = |now, key, value: &str| w.offer(at(now), key, Bytes::copy_from_slice(value.as_bytes())).unwrap();
    set(0, Some("a"), "1");
    set(0, Some("b"), "1");
    set(0, Some("a"), "2");
    set(0, None, "x");
    let a = attach(&mut w, 1000, "s");
    assert_eq!(read(&mut w, "s", a), ["b=2", "a=3", "4"], "values in between are merged, age does not matter");
    w.acknowledge(at(1000), "s", &position(4)).unwrap();
    let again = attach(&mut w, 1001, "s");
    assert_eq!(read(&mut w, "s", again), ["b=2", "a=3", "4"], "every key first, acknowledged or not");
    let observer = w.observe(at(1001), Start::Now).unwrap();
    assert_eq!(drain(|| w.next_for_observer(observer)), ["b=2", "a=3", "4"]);
    let after = w.observe(at(1001), Start::After(2)).unwrap();
    assert_eq!(drain(|| w.next_for_observer(after)), ["a=3", "4"]);
    let poll = w.attach(at(1001), "v0", None, Start::Poll).unwrap();
    w.next_for("v0", poll);
    w.acknowledge(at(1001), "v0", &position(2)).unwrap();
    let poll = w.attach(at(1002), "v0", None, Start::Poll).unwrap();
    assert_eq!(read(&mut w, "v0", poll), ["a=3", "4"], "a poll goes on where the one before it ended");
}

#[test]
fn state_is_bounded_in_keys_and_bytes() {
    let mut w = bounded(Class::State, 1, MAX_STATE_BYTES);
    for n in 0..MAX_STATE_KEYS {
        w.offer(at(0), Some(&n.to_string()), "v".into()).unwrap();
    }
    let refused = |result| match result {
        Err(Refusal::Never(fault)) => fault.code,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(w.offer(at(0), Some("new"), "v".into())), Code::Overloaded);
    assert!(w.offer(at(0), Some("7"), "w".into()).is_ok(), "a known key is replaced");
    let rest = MAX_STATE_BYTES - MAX_STATE_KEYS;
    assert!(w.offer(at(0), Some("7"), vec![0; rest + 1].into()).is_ok(), "the old value makes room for the new one");
    assert_eq!(refused(w.offer(at(0), Some("8"), vec![0; 2].into())), Code::Overloaded);
    assert_eq!(refused(w.offer(at(0), Some(&"k".repeat(MAX_KEY_BYTES + 1)), "v".into())), Code::InvalidArgument);
    let mut events = window(Class::Event);
    assert_eq!(refused(events.offer(at(0), Some("k"), "v".into())), Code::InvalidArgument);
}

#[test]
fn lossy_drops_the_oldest_and_the_next_one_says_how_many() {
    let mut w = window(Class::Lossy);
    let a = attach(&mut w, 0, "a");
    offer_all(&mut w, 0, 2);
    assert_eq!(read(&mut w, "a", a), ["1", "2"]);
    offer_all(&mut w, 0, 7);
    assert_eq!(read(&mut w, "a", a), ["6-3", "7", "8", "9"]);
    assert_eq!(w.losses().dropped, 3);
    let again = attach(&mut w, 0, "a");
    assert_eq!(read(&mut w, "a", again), Vec::<String>::new(), "at most once: what was sent is not sent again");
    assert_eq!(w.unacknowledged(), 0);
}

#[test]
fn subscriptions_and_observers_are_bounded() {
    let mut w = window(Class::Event);
    for n in 0..MAX_SUBSCRIPTIONS {
        attach(&mut w, 0, &n.to_string());
    }
    assert_eq!(w.attach(at(0), "one more", None, Start::Subscribed).unwrap_err().code, Code::Overloaded);
    attach(&mut w, 0, "7");
    for _ in 0..MAX_OBSERVERS {
        w.observe(at(0), Start::Now).unwrap();
    }
    assert_eq!(w.observe(at(0), Start::Now).unwrap_err().code, Code::Overloaded);
}

#[test]
fn the_end_ends_every_stream_and_refuses_messages() {
    let mut w = window(Class::Event);
    let (a, observer) = (attach(&mut w, 0, "a"), w.observe(at(0), Start::Now).unwrap());
    w.end();
    assert_eq!(read(&mut w, "a", a), ["end"]);
    assert_eq!(drain(|| w.next_for_observer(observer)), ["end"]);
    assert!(matches!(offer(&mut w, 0, "m"), Err(Refusal::Never(fault)) if fault.code == Code::Unavailable));
}

#[test]
fn marks_tell_a_subscription_from_its_namesake() {
    let mut w = window(Class::Event);
    let a = attach(&mut w, 0, "a");
    offer_all(&mut w, 0, 1);
    let marks = w.subscribers();
    assert_eq!(w.has_acknowledged(&marks[0], 1), Some(false));
    w.detach(at(0), "a", a);
    let again = attach(&mut w, 61, "a");
    assert_eq!(w.has_acknowledged(&marks[0], 1), None, "forgotten, and another one now has its name");
    read(&mut w, "a", again);
    let marks = w.subscribers();
    assert_eq!(w.has_acknowledged(&marks[0], 1), Some(true), "it begins behind what was dropped");
}
