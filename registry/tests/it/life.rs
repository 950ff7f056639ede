//! Starts, successors, ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use goplug_pconf_schema::wire::call::HELLO_MS;
use goplug_pconf_schema::wire::life::STOP_GRACE_MS;
use goplug_registry::admin::{EventKind, State};
use goplug_registry::{Code, Error, Ran, Registry, Unload, Wait};
use serde_json::json;

use crate::fake::{Done, Fake, SOON, epoch, write_file};

const FAKE: &str = "Test/Fake";

async fn watching(dir: &std::path::Path) -> Registry {
    let interval = Duration::from_millis(50);
    Registry::builder(dir).auto_discover(true).rescan_interval(interval).open().await.unwrap()
}

#[tokio::test]
async fn a_plugin_that_closes_after_every_reply_is_loaded_and_unloaded() {
    let dir = tempfile::tempdir().unwrap();
    let inner = dir.path().to_owned();
    let hello = json!({"protocols": [1], "namespace": "Test", "name": "Fake", "epoch": epoch('a'), "methods": [{"name": "do"}]});
    let _fake = Fake::published(&inner, 'a', move |asked| {
        let body = match asked.line.as_str() {
            "GET /_goplug/hello" => hello.to_string(),
            "POST /_goplug/deactivate" => r#"{"cancelled":0,"unacknowledged":0}"#.to_owned(),
            _ => "bytes".to_owned(),
        };
        asked.say(200, "Connection: close\r\n", "application/octet-stream", &body);
        Done::Close
    });
    let registry = Registry::open(dir.path()).await.unwrap();
    registry.load(FAKE).await.unwrap();
    for _ in 0..3 {
        assert_eq!(registry.execute(FAKE, "do", "").await.unwrap(), "bytes");
    }
    registry.unload(FAKE, Unload::default()).await.unwrap();
    assert!(!registry.is_loaded(FAKE));
}

#[tokio::test]
async fn a_process_that_writes_its_file_anew_is_not_told_to_stop() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::start(dir.path(), 'a', |_| Done::No);
    fake.publish(dir.path(), json!({"Epoch": null}));
    let registry = watching(dir.path()).await;
    registry.wait_for(FAKE, Wait::Loaded, SOON).await.unwrap();
    let mut events = registry.events();
    fake.publish(dir.path(), json!({}));
    let replaced = async { while events.next().await.is_some_and(|event| event.kind != EventKind::Replaced) {} };
    tokio::time::timeout(SOON, replaced).await.unwrap();
    assert!(!fake.sees("POST /_goplug/stop", 1, Duration::from_millis(300)).await, "the process in use was stopped");
    assert_eq!(registry.execute(FAKE, "do", "").await.unwrap(), "done");
}

#[tokio::test]
async fn a_predecessor_is_told_to_stop() {
    let dir = tempfile::tempdir().unwrap();
    let old = Fake::published(dir.path(), 'a', |_| Done::No);
    let registry = watching(dir.path()).await;
    registry.wait_for(FAKE, Wait::Loaded, SOON).await.unwrap();
    let _new = Fake::published(dir.path(), 'b', |_| Done::No);
    assert!(old.sees("POST /_goplug/stop", 1, SOON).await);
    assert_eq!(registry.execute(FAKE, "do", "").await.unwrap(), "done");
}

/// To try again would not make it shorter.
#[tokio::test]
async fn an_activation_whose_output_is_too_long_is_told_and_not_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::published(dir.path(), 'a', |asked| match asked.line.as_str() {
        "POST /_goplug/activate" => asked.reply(&"x".repeat((4 << 20) + 1)),
        _ => Done::No,
    });
    let registry = Registry::open(dir.path()).await.unwrap();
    let fault = registry.load(FAKE).await.unwrap_err();
    assert_eq!((fault.code, fault.ran), (Code::TooLarge, Ran::Yes), "{fault:?}");
    assert_eq!(registry.inspect(FAKE).await.unwrap().summary.state, State::Failed);
    assert_eq!(fake.count("POST /_goplug/activate"), 1);
}

#[tokio::test]
async fn why_keeps_the_reason_of_a_failed_activation() {
    let dir = tempfile::tempdir().unwrap();
    let _fake = Fake::published(dir.path(), 'a', |asked| match asked.line.as_str() {
        "POST /_goplug/activate" => asked.problem(422, &json!({"code": "method_failed", "detail": "no licence"})),
        _ => Done::No,
    });
    let registry = Registry::open(dir.path()).await.unwrap();
    assert_eq!(registry.load(FAKE).await.unwrap_err().code, Code::MethodFailed);
    for _ in 0..2 {
        registry.look_at(FAKE).await.unwrap();
        let row = &registry.plugins()[0];
        assert!(row.last_error.as_deref().is_some_and(|why| why.contains("no licence")), "{row:?}");
    }
}

/// The answer to a look that began before the load would say that the plugin is not active: nobody waits for it any more.
#[tokio::test]
async fn a_look_that_began_before_a_load_is_given_up() {
    let mut seen = Vec::new();
    for _ in 0..5 {
        match look_beside_a_load().await {
            Ok(after) if after < Duration::from_millis(HELLO_MS) => return,
            // The look's own time was up: nobody gave it up, or the machine is too busy to see it.
            other => seen.push(other),
        }
    }
    panic!("{seen:?}");
}

/// How long after the beginning a look ended that is not answered; why not, when the load was too slow itself.
async fn look_beside_a_load() -> Result<Duration, Error> {
    let dir = tempfile::tempdir().unwrap();
    let is_first = AtomicBool::new(true);
    let (ended, mut has_ended) = tokio::sync::mpsc::unbounded_channel();
    let began = Instant::now();
    let fake = Fake::start(dir.path(), 'a', move |asked| {
        if asked.line != "GET /_goplug/hello" || !is_first.swap(false, Ordering::AcqRel) {
            return Done::No;
        }
        let done = asked.until_closed();
        _ = ended.send(began.elapsed());
        done
    });
    fake.publish(dir.path(), json!({"LazyLoad": true}));
    let registry = watching(dir.path()).await;
    assert!(fake.sees("GET /_goplug/hello", 1, SOON).await);
    registry.load(FAKE).await?;
    let after = tokio::time::timeout(SOON, has_ended.recv()).await.unwrap().unwrap();
    assert_eq!(registry.execute(FAKE, "do", "").await.unwrap(), "done");
    Ok(after)
}

/// The drain, and five seconds more.
#[tokio::test]
async fn a_stop_that_nobody_answers_is_waited_for_and_told() {
    let dir = tempfile::tempdir().unwrap();
    let _fake = Fake::published(dir.path(), 'a', |asked| match asked.line.as_str() {
        "POST /_goplug/stop" => asked.until_closed(),
        _ => Done::No,
    });
    let registry = Registry::open(dir.path()).await.unwrap();
    registry.load(FAKE).await.unwrap();
    let began = Instant::now();
    let how = Unload { drain: Some(Duration::from_millis(100)), stop: true };
    let fault = registry.unload(FAKE, how).await.unwrap_err();
    assert_eq!(fault.code, Code::DeadlineExceeded, "{fault:?}");
    assert!(began.elapsed() >= Duration::from_millis(STOP_GRACE_MS), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_reload_whose_deactivation_failed_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let _fake = Fake::published(dir.path(), 'a', |asked| match asked.line.as_str() {
        "POST /_goplug/deactivate" => asked.problem(500, &json!({"code": "internal", "detail": "not today"})),
        _ => Done::No,
    });
    let registry = Registry::open(dir.path()).await.unwrap();
    registry.load(FAKE).await.unwrap();
    let fault = registry.reload(FAKE).await.unwrap_err();
    assert!(fault.message.contains("not today"), "{fault:?}");
    registry.wait_for(FAKE, Wait::Loaded, SOON).await.unwrap();
}

#[tokio::test]
async fn a_reload_survives_a_successor_that_comes_during_its_drain() {
    let dir = tempfile::tempdir().unwrap();
    let (began, go) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (begun, may_go) = (Arc::clone(&began), Arc::clone(&go));
    let old = Fake::start(dir.path(), 'a', move |asked| {
        if asked.line == "POST /_goplug/deactivate" {
            begun.store(true, Ordering::Release);
            while !may_go.load(Ordering::Acquire) {
                std::thread::yield_now();
            }
        }
        Done::No
    });
    old.publish(dir.path(), json!({"LazyLoad": true}));
    let registry = watching(dir.path()).await;
    registry.load(FAKE).await.unwrap();
    let reload = tokio::spawn({
        let registry = registry.clone();
        async move { registry.reload(FAKE).await }
    });
    assert!(old.sees("POST /_goplug/deactivate", 1, SOON).await);
    let new = Fake::start(dir.path(), 'b', |_| Done::No);
    new.publish(dir.path(), json!({"LazyLoad": true}));
    registry.rescan().await.unwrap();
    go.store(true, Ordering::Release);
    tokio::time::timeout(SOON, reload).await.unwrap().unwrap().unwrap();
    assert_eq!(new.count("POST /_goplug/activate"), 1);
}

#[tokio::test]
async fn a_failed_plugin_is_tried_again_when_its_file_changes() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::start(dir.path(), 'a', |_| Done::No);
    fake.set_hello("protocols", json!([7]));
    fake.publish(dir.path(), json!({}));
    let registry = watching(dir.path()).await;
    let failed = async {
        let mut events = registry.events();
        while registry.get(FAKE).unwrap().state() != State::Failed {
            events.next().await;
        }
    };
    tokio::time::timeout(SOON, failed).await.unwrap();
    fake.set_hello("protocols", json!([1]));
    fake.publish(dir.path(), json!({"Description": "mended"}));
    registry.wait_for(FAKE, Wait::Loaded, SOON).await.unwrap();
}

#[tokio::test]
async fn other_keys_of_the_file_do_not_undo_an_unload() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::published(dir.path(), 'a', |_| Done::No);
    let registry = watching(dir.path()).await;
    registry.wait_for(FAKE, Wait::Loaded, SOON).await.unwrap();
    registry.unload(FAKE, Unload::default()).await.unwrap();
    fake.publish(dir.path(), json!({"Description": "other words"}));
    registry.rescan().await.unwrap();
    assert_eq!(registry.get(FAKE).unwrap().state(), State::Discovered);
    assert_eq!(fake.count("POST /_goplug/activate"), 1);
}

#[tokio::test]
async fn whoever_waits_for_a_load_hears_that_the_file_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::published(dir.path(), 'a', |asked| match asked.line.as_str() {
        "GET /_goplug/hello" => asked.until_closed(),
        _ => Done::No,
    });
    let registry = Registry::open(dir.path()).await.unwrap();
    let load = tokio::spawn({
        let registry = registry.clone();
        async move { registry.load(FAKE).await }
    });
    assert!(fake.sees("GET /_goplug/hello", 1, SOON).await);
    std::fs::remove_file(dir.path().join("Fake.pconf")).unwrap();
    registry.rescan().await.unwrap();
    let fault = tokio::time::timeout(Duration::from_secs(1), load).await.unwrap().unwrap().unwrap_err();
    assert_eq!(fault.code, Code::NotFound, "{fault:?}");
}

#[tokio::test]
async fn dropping_the_last_handle_ends_every_feed_and_reader() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::published(dir.path(), 'a', |_| Done::No);
    let registry = Registry::open(dir.path()).await.unwrap();
    registry.load(FAKE).await.unwrap();
    let mut feed = registry.subscribe(FAKE, "news", "s").await.unwrap();
    let mut events = registry.events();
    assert!(fake.sees("GET /_goplug/events/news", 1, SOON).await);
    drop(registry);
    let feed_ends = async { while feed.next().await.is_some() {} };
    tokio::time::timeout(SOON, feed_ends).await.expect("the feed outlives its registry");
    let events_end = async { while events.next().await.is_some() {} };
    tokio::time::timeout(SOON, events_end).await.expect("the reader of events outlives its registry");
    assert_eq!(fake.count("POST /_goplug/deactivate"), 0);
}

#[tokio::test]
async fn closing_does_not_wait_for_a_predecessor_that_never_stops() {
    let dir = tempfile::tempdir().unwrap();
    let old = Fake::published(dir.path(), 'a', |asked| match asked.line.as_str() {
        "POST /_goplug/stop" => asked.until_closed(),
        _ => Done::No,
    });
    let registry = watching(dir.path()).await;
    registry.wait_for(FAKE, Wait::Loaded, SOON).await.unwrap();
    let _new = Fake::published(dir.path(), 'b', |_| Done::No);
    assert!(old.sees("POST /_goplug/stop", 1, SOON).await);
    tokio::time::timeout(Duration::from_secs(1), registry.close()).await.expect("close waits for the predecessor");
}

#[tokio::test]
async fn plugins_that_fail_do_not_put_the_periodic_scan_off() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second, link) = (dir.path().join("first"), dir.path().join("second"), dir.path().join("link"));
    for folder in [&first, &second] {
        std::fs::create_dir(folder).unwrap();
    }
    for n in 0..200 {
        let file = json!({"Name": format!("dead{n}"), "Sock": format!("dead{n}.sock"), "Protocol": 1});
        std::fs::write(first.join(format!("dead{n}.pconf")), file.to_string()).unwrap();
    }
    write_file(&second, r#"{"Name":"late","Sock":"late.sock"}"#);
    std::os::unix::fs::symlink(&first, &link).unwrap();
    let interval = Duration::from_millis(1_200);
    let registry = Registry::builder(&link).auto_discover(true).rescan_interval(interval).open().await.unwrap();
    let mut events = registry.events_after(0).unwrap();
    let all_failed = async {
        let mut failed = 0;
        while failed < 200 {
            failed += usize::from(events.next().await.unwrap().state == Some(State::Backoff));
        }
    };
    tokio::time::timeout(SOON, all_failed).await.unwrap();
    // No watch sees that: the folder that is watched does not change. Only the periodic scan tells, and the starts that
    // fail in the meantime, each after another pause, wake the task that scans more often than that.
    std::fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink(&second, &link).unwrap();
    registry.wait_for("-/late", Wait::Discovered, Duration::from_millis(3_500)).await.unwrap();
}
