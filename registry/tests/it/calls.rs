//! Calls whose plugin misbehaves.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use goplug_registry::{CallOptions, Code, Ran, Registry};
use serde_json::json;

use crate::fake::{Done, Fake, SOON};

const FAKE: &str = "Test/Fake";

async fn loaded(dir: &std::path::Path) -> Registry {
    let registry = Registry::open(dir).await.unwrap();
    registry.load(FAKE).await.unwrap();
    registry
}

#[tokio::test]
async fn a_method_that_ran_and_says_wrong_state_does_not_unload_its_plugin() {
    let dir = tempfile::tempdir().unwrap();
    let _fake = Fake::published(dir.path(), 'a', |asked| match asked.line.as_str() {
        "POST /_goplug/methods/do" => asked.problem(409, &json!({"code": "wrong_state", "ran": "yes"})),
        _ => Done::No,
    });
    let registry = loaded(dir.path()).await;
    for _ in 0..3 {
        let fault = registry.execute(FAKE, "do", "").await.unwrap_err();
        assert_eq!((fault.code, fault.ran), (Code::WrongState, Ran::Yes));
    }
    assert_eq!(registry.execute(FAKE, "again", "").await.unwrap(), "done");
}

#[tokio::test]
async fn an_idempotent_method_is_repeated_on_a_process_that_only_lost_its_connection() {
    let dir = tempfile::tempdir().unwrap();
    let calls = AtomicUsize::new(0);
    let _fake = Fake::published(dir.path(), 'a', move |asked| match asked.line.as_str() {
        "POST /_goplug/methods/again" if calls.fetch_add(1, Ordering::AcqRel) == 0 => Done::Close,
        "POST /_goplug/methods/do" => Done::Close,
        _ => Done::No,
    });
    let registry = loaded(dir.path()).await;
    assert_eq!(registry.execute(FAKE, "again", "").await.unwrap(), "done");
    let fault = registry.execute(FAKE, "do", "").await.unwrap_err();
    assert_eq!((fault.code, fault.ran), (Code::PluginGone, Ran::Unknown));
}

/// At most two further attempts, and none of what may have run unless it may run twice.
#[tokio::test]
async fn a_call_is_made_three_times_at_most() {
    let dir = tempfile::tempdir().unwrap();
    let answer = Arc::new(std::sync::Mutex::new(None));
    let next = Arc::clone(&answer);
    let fake = Fake::published(dir.path(), 'a', move |asked| {
        if !asked.line.starts_with("POST /_goplug/methods/") {
            return Done::No;
        }
        let document = next.lock().unwrap().clone();
        document.map_or(Done::Close, |document| asked.problem(503, &document))
    });
    let registry = loaded(dir.path()).await;
    let now = |code: &str, ran: &str| Some(json!({"code": code, "ran": ran, "retryAfterMs": 0}));
    for (method, document, attempts) in [
        ("do", now("overloaded", "no"), 3),
        ("do", now("unavailable", "no"), 3),
        ("again", now("unavailable", "no"), 3),
        ("again", now("unavailable", "yes"), 1),
        ("again", now("overloaded", "unknown"), 1),
        ("again", now("deadline_exceeded", "no"), 1),
        ("again", now("method_failed", "no"), 1),
        ("again", now("internal", "unknown"), 1),
        ("do", now("plugin_gone", "unknown"), 1),
        ("again", now("plugin_gone", "unknown"), 3),
        ("do", None, 1),
        ("again", None, 3),
    ] {
        answer.lock().unwrap().clone_from(&document);
        let line = format!("POST /_goplug/methods/{method}");
        let before = fake.count(&line);
        registry.execute(FAKE, method, "").await.unwrap_err();
        assert_eq!(fake.count(&line) - before, attempts, "{method} {document:?}");
    }
}

#[tokio::test]
async fn a_connection_that_answered_another_call_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let _fake = Fake::published(dir.path(), 'a', |asked| match asked.line.as_str() {
        "POST /_goplug/ping" => {
            asked.write("HTTP/1.1 200 OK\r\nGoplug-Call-Id: other\r\nContent-Length: 9\r\n\r\nTest Data");
            // A call that came on this connection would never be answered.
            asked.until_closed()
        }
        _ => Done::No,
    });
    let registry = loaded(dir.path()).await;
    assert_eq!(registry.ping(FAKE).await.unwrap_err().code, Code::ProtocolError);
    let limit = CallOptions { deadline: Some(Duration::from_secs(2)), ..CallOptions::default() };
    assert_eq!(registry.execute_with(FAKE, "do", "", limit).await.unwrap().body, "done");
}

#[tokio::test]
async fn a_head_that_no_plugin_may_take_is_the_callers_fault() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::published(dir.path(), 'a', |_| Done::No);
    let registry = loaded(dir.path()).await;
    let options = CallOptions { tracestate: Some("x".repeat(20_000)), ..CallOptions::default() };
    let fault = registry.execute_with(FAKE, "do", "", options).await.unwrap_err();
    assert_eq!((fault.code, fault.ran), (Code::InvalidArgument, Ran::No), "{fault:?}");
    assert_eq!(fake.count("POST /_goplug/methods/"), 0);
}

#[tokio::test]
async fn a_default_deadline_beyond_the_limit_is_no_fault_of_the_caller() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::start(dir.path(), 'a', |_| Done::No);
    fake.set_hello("methods", json!([{"name": "do", "deadlineMs": u64::MAX}]));
    fake.publish(dir.path(), json!({}));
    let registry = loaded(dir.path()).await;
    assert_eq!(registry.execute(FAKE, "do", "").await.unwrap(), "done");
}

#[tokio::test]
async fn a_pause_that_the_plugin_asks_for_never_outlasts_the_deadline() {
    let dir = tempfile::tempdir().unwrap();
    let _fake = Fake::published(dir.path(), 'a', |asked| match asked.line.as_str() {
        "POST /_goplug/methods/do" => {
            asked.problem(503, &json!({"code": "overloaded", "ran": "no", "retryAfterMs": 400}))
        }
        _ => Done::No,
    });
    let registry = loaded(dir.path()).await;
    let began = Instant::now();
    let options = CallOptions { deadline: Some(Duration::from_millis(600)), ..CallOptions::default() };
    let fault = registry.execute_with(FAKE, "do", "", options).await.unwrap_err();
    assert_eq!((fault.code, fault.ran), (Code::Overloaded, Ran::No));
    assert!(began.elapsed() < Duration::from_millis(650), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_process_that_answers_no_ping_hangs_and_one_that_does_is_merely_slow() {
    let dir = tempfile::tempdir().unwrap();
    let hangs = Arc::new(AtomicBool::new(false));
    let stuck = Arc::clone(&hangs);
    let fake = Fake::published(dir.path(), 'a', move |asked| match asked.line.as_str() {
        "POST /_goplug/methods/do" => asked.until_closed(),
        "POST /_goplug/ping" if stuck.load(Ordering::Acquire) => asked.until_closed(),
        _ => Done::No,
    });
    let registry = loaded(dir.path()).await;
    let soon = CallOptions { deadline: Some(Duration::from_millis(20)), ..CallOptions::default() };

    let fault = registry.execute_with(FAKE, "do", "", soon.clone()).await.unwrap_err();
    assert_eq!((fault.code, fault.ran), (Code::DeadlineExceeded, Ran::Unknown));
    assert!(fake.sees("POST /_goplug/ping", 1, SOON).await, "an answer that did not come is followed up");
    assert_eq!(registry.execute(FAKE, "again", "").await.unwrap(), "done");

    hangs.store(true, Ordering::Release);
    let mut events = registry.events();
    _ = registry.execute_with(FAKE, "do", "", soon.clone()).await;
    let waits = registry.execute(FAKE, "do", "");
    let lost = async {
        loop {
            let event = events.next().await.unwrap();
            if event.detail.as_deref().is_some_and(|detail| detail.contains("answers no ping")) {
                return event;
            }
        }
    };
    let (fault, event) = tokio::time::timeout(SOON, async { tokio::join!(waits, lost) }).await.unwrap();
    assert_eq!(event.plugin.map(|id| id.to_string()).as_deref(), Some(FAKE));
    assert_eq!(fault.unwrap_err().code, Code::PluginGone, "nobody waits for a process that hangs");
    assert_eq!(fake.count("POST /_goplug/ping"), 1 + 3);
}
