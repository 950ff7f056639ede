use serde_json::json;

use super::*;

#[derive(Debug, Clone, Copy, PartialEq)]
enum At {
    Inactive,
    Activating,
    Active,
    Draining,
    Stopping,
    Stopped,
}

const EVERY: [At; 6] = [At::Inactive, At::Activating, At::Active, At::Draining, At::Stopping, At::Stopped];

fn life(at: At) -> Lifecycle {
    let life = Lifecycle::new(2);
    if matches!(at, At::Activating | At::Active | At::Draining | At::Stopping | At::Stopped) {
        assert_eq!(life.activate(&json!({"a": 1})), Activate::Run);
    }
    if matches!(at, At::Active | At::Draining | At::Stopping | At::Stopped) {
        life.activated(&Ok("first".into()));
    }
    match at {
        At::Draining => assert_eq!(life.drain(false), Drain::Begin { was_active: true }),
        At::Stopping | At::Stopped => assert_eq!(life.drain(true), Drain::Begin { was_active: true }),
        At::Inactive | At::Activating | At::Active => {}
    }
    if at == At::Stopped {
        life.drained();
    }
    life
}

#[test]
fn every_state_has_one_answer_to_an_activation() {
    for (at, same, other) in [
        (At::Inactive, "run", "run"),
        (At::Activating, "wait", "wrong_state"),
        (At::Active, "first", "wrong_state"),
        (At::Draining, "unavailable", "unavailable"),
        (At::Stopping, "unavailable", "unavailable"),
        (At::Stopped, "unavailable", "unavailable"),
    ] {
        let answer = |settings| match life(at).activate(&settings) {
            Activate::Run => "run".to_owned(),
            Activate::Wait => "wait".to_owned(),
            Activate::Done(reply) => String::from_utf8(reply.to_vec()).unwrap(),
            Activate::Refuse(fault) => fault.code.to_string(),
        };
        assert_eq!(answer(json!({"a": 1})), same, "{at:?}");
        assert_eq!(answer(json!({"a": 2})), other, "{at:?}");
    }
}

#[test]
fn every_state_has_one_answer_to_a_call() {
    for (at, code) in [
        (At::Inactive, Some(Code::WrongState)),
        (At::Activating, Some(Code::Unavailable)),
        (At::Active, None),
        (At::Draining, Some(Code::Unavailable)),
        (At::Stopping, Some(Code::Unavailable)),
        (At::Stopped, Some(Code::Unavailable)),
    ] {
        assert_eq!(life(at).admit().err().map(|fault| fault.code), code, "{at:?}");
    }
}

#[test]
fn every_state_has_one_answer_to_its_end() {
    for (at, deactivate, stop) in [
        (At::Inactive, Drain::Nothing, Drain::Begin { was_active: false }),
        (At::Activating, Drain::Wait, Drain::Wait),
        (At::Active, Drain::Begin { was_active: true }, Drain::Begin { was_active: true }),
        (At::Draining, Drain::Wait, Drain::Wait),
        (At::Stopping, Drain::Wait, Drain::Wait),
        (At::Stopped, Drain::Nothing, Drain::Nothing),
    ] {
        assert_eq!(life(at).drain(false), deactivate, "{at:?}");
        assert_eq!(life(at).drain(true), stop, "{at:?}");
    }
}

#[test]
fn a_late_word_changes_nothing() {
    for at in EVERY {
        let late = life(at);
        if at != At::Activating {
            let before = late.state().clone();
            late.activated(&Ok("late".into()));
            assert_eq!(*late.state(), before, "{at:?}");
        }
        let late = life(at);
        if !matches!(at, At::Draining | At::Stopping) {
            let before = late.state().clone();
            late.drained();
            assert_eq!(*late.state(), before, "{at:?}");
        }
    }
}

#[test]
fn a_failed_activation_leaves_the_plugin_inactive_and_may_be_tried_again() {
    let life = life(At::Activating);
    life.activated(&Err(Fault::new(Code::MethodFailed, "no")));
    assert!(!life.is_active());
    assert_eq!(life.activate(&json!({"a": 2})), Activate::Run);
}

#[test]
fn a_drained_plugin_can_be_activated_with_other_settings() {
    let life = life(At::Draining);
    life.drained();
    assert_eq!(life.activate(&json!({"a": 2})), Activate::Run);
}

#[test]
fn calls_are_counted_against_the_limit() {
    let life = life(At::Active);
    assert!(life.admit().is_ok() && life.admit().is_ok());
    let fault = life.admit().unwrap_err();
    assert_eq!((fault.code, fault.message.starts_with("2 calls")), (Code::Overloaded, true));
    assert!(!life.release());
    assert!(life.admit().is_ok());
    assert!(!life.release() && life.release());
    assert_eq!(life.in_flight(), 0);
}

/// The gate is open in one state only, and whoever is inside when it is shut is counted until it leaves.
#[test]
fn every_state_has_its_gate() {
    for at in EVERY {
        assert_eq!(life(at).is_active(), at == At::Active, "{at:?}");
    }
    let life = life(At::Active);
    life.admit().unwrap();
    assert_eq!(life.drain(false), Drain::Begin { was_active: true });
    assert_eq!((life.in_flight(), life.admit().unwrap_err().code), (1, Code::Unavailable));
    assert!(life.release());
    life.drained();
    assert_eq!(life.admit().unwrap_err().code, Code::WrongState);
    assert_eq!(life.activate(&json!({})), Activate::Run);
    life.activated(&Ok("again".into()));
    assert!(life.admit().is_ok());
}

/// Threads that come and go while the gate opens and shuts: never more inside than may be, and none once a drain has seen
/// that none is.
#[test]
fn nobody_is_inside_after_a_drain() {
    let life = Lifecycle::new(2);
    let (inside, is_over) = (AtomicU64::new(0), std::sync::atomic::AtomicBool::new(false));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    if life.admit().is_ok() {
                        assert!(inside.fetch_add(1, Ordering::SeqCst) < 2);
                        std::thread::yield_now();
                        inside.fetch_sub(1, Ordering::SeqCst);
                        life.release();
                    }
                }
            });
        }
        for _ in 0..300 {
            assert_eq!(life.activate(&json!({})), Activate::Run);
            life.activated(&Ok("first".into()));
            std::thread::yield_now();
            assert_eq!(life.drain(false), Drain::Begin { was_active: true });
            while life.in_flight() > 0 {
                std::thread::yield_now();
            }
            assert_eq!(inside.load(Ordering::SeqCst), 0);
            life.drained();
        }
        is_over.store(true, Ordering::Relaxed);
    });
}
