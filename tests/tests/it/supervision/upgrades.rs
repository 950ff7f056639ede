//! A manifest that changes in place: the new process takes the place of the old one, or the old one goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use goplug_registry::CallOptions;
use goplug_tests::{LONG, wait_for, wait_until};
use serde_json::json;

use super::{Home, pid, runs};
use crate::support::{event, loaded};

#[tokio::test(flavor = "multi_thread")]
async fn no_call_fails_while_a_new_version_takes_over() {
    let home = Home::new();
    let version = |n: u64| {
        let version = format!("1.0.{n}");
        home.install("Test/Do", &["--version", &version], &json!({"version": version}));
    };
    version(0);
    let registry = Arc::new(home.watching().await);
    loaded(&registry, "Test/Do").await;
    let over = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let (registry, over) = (Arc::clone(&registry), Arc::clone(&over));
            tokio::spawn(async move {
                let mut calls = 0_u64;
                while !over.load(Ordering::Relaxed) {
                    let reply = registry.execute("Test/Do", "echo", "x").await.unwrap();
                    assert_eq!(reply, "x");
                    calls += 1;
                    tokio::time::sleep(std::time::Duration::from_millis(2)).await;
                }
                calls
            })
        })
        .collect();
    let mut before = pid(&registry, "Test/Do").await;
    for n in 1..=goplug_tests::scaled(3, 50) {
        version(n);
        let follows = async {
            loop {
                let now = pid(&registry, "Test/Do").await;
                if now != before {
                    return now;
                }
                tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            }
        };
        let now = tokio::time::timeout(LONG, follows).await.expect("a successor");
        let shown = registry.inspect("Do").await.unwrap().summary.version;
        assert_eq!(shown, Some(format!("1.0.{n}")));
        wait_until("the predecessor has ended", LONG, || !runs(before));
        before = now;
    }
    over.store(true, Ordering::Relaxed);
    let mut calls = 0;
    for caller in callers {
        calls += caller.await.expect("no call failed");
    }
    assert!(calls > 10, "{calls}");
    registry.close().await;
}

/// Somebody edits the manifest: what cannot be read stops nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_is_broken_for_a_while_stops_nothing() {
    let home = Home::new();
    home.install("Test/Do", &[], &json!({}));
    let registry = home.watching().await;
    loaded(&registry, "Test/Do").await;
    let before = pid(&registry, "Test/Do").await;
    let mut events = registry.events();
    home.write("Test/Do", "{\"name\": \"Do\", ");
    event(&mut events, "it is told", |event| event.kind == goplug_registry::admin::EventKind::Invalid).await;
    assert_eq!(pid(&registry, "Test/Do").await, before);
    home.install("Test/Do", &[], &json!({"version": "1.0.1"}));
    goplug_tests::wait_for("the new version", LONG, || async {
        let now = pid(&registry, "Test/Do").await;
        (now != before).then_some(())
    })
    .await;
    registry.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_does_not_come_up_changes_nothing() {
    let home = Home::new();
    home.install("Test/Do", &[], &json!({}));
    let registry = home.watching().await;
    loaded(&registry, "Test/Do").await;
    let before = pid(&registry, "Test/Do").await;
    let mut events = registry.events();
    home.install_script("Test/Do", "exit 1", &json!({"version": "1.0.1"}));
    registry.rescan().await.unwrap();
    event(&mut events, "the failure", |event| {
        event.detail.as_ref().is_some_and(|text| text.contains("the process before goes on"))
    })
    .await;
    assert_eq!(pid(&registry, "Test/Do").await, before);

    // One that comes up and cannot be activated is ended again.
    let fails = home.dir.join("fails");
    std::fs::write(&fails, "").unwrap();
    home.install("Test/Do", &["--activator-fails", fails.to_str().unwrap()], &json!({"version": "1.0.2"}));
    registry.rescan().await.unwrap();
    event(&mut events, "the failed activation", |event| {
        event.detail.as_ref().is_some_and(|text| text.contains("the one before goes on"))
    })
    .await;
    assert_eq!(pid(&registry, "Test/Do").await, before);

    // One that dies of its activation takes nothing with it, whether the cut connection or the exit is seen first.
    home.install("Test/Do", &["--activator-exits"], &json!({"version": "1.0.3"}));
    registry.rescan().await.unwrap();
    event(&mut events, "its death", |event| {
        event.detail.as_ref().is_some_and(|text| text.contains("the one before goes on"))
    })
    .await;
    assert_eq!(pid(&registry, "Test/Do").await, before);
    // The one that goes on is still kept.
    registry.stop_plugin("Do").await.unwrap();
    assert!(!runs(before));
    registry.close().await;
}

/// The process before is not ended under a call that it has begun; its successor answers the next ones meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_under_way_is_finished_by_the_process_before() {
    let home = Home::new();
    home.install("Test/Do", &[], &json!({}));
    let registry = home.watching().await;
    loaded(&registry, "Test/Do").await;
    let before = pid(&registry, "Test/Do").await;
    let file = home.dir.join("begun");
    let mut call = registry.exchange("Test/Do", "name-and-rest", CallOptions::default()).await.unwrap();
    call.send(file.to_str().unwrap().to_owned()).await.unwrap();
    wait_until("the call is under way", LONG, || file.exists());
    home.install("Test/Do", &[], &json!({"version": "1.0.1"}));
    let successor = wait_for("a successor", LONG, || async {
        let now = pid(&registry, "Test/Do").await;
        (now != before).then_some(now)
    });
    let successor = successor.await;
    assert!(runs(before) && runs(successor));
    call.send("the rest").await.unwrap();
    call.finish().await.unwrap();
    assert_eq!(call.next().await.unwrap().unwrap(), "the rest");
    assert!(call.next().await.unwrap().is_none());
    wait_until("the predecessor has ended", LONG, || !runs(before));
    registry.close().await;
}
