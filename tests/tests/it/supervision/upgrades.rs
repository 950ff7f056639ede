//! A manifest that changes in place: the new process takes the place of the old one, or the old one goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use goplug_registry::{CallOptions, Registry};
use goplug_tests::{LONG, Samples, bound, figure, scaled, wait_for, wait_until};
use serde_json::json;

use super::{Home, pid, runs};
use crate::support::{event, loaded, text};

/// A call at the time that it was to begin: when it ended, and the version and the pid that answered.
type Answered = (Instant, Result<(String, u32), goplug_registry::Error>, Duration);

/// Calls that begin when they are due, whether those before are done or not, until `over`. What is late is late from then on.
async fn open_loop(registry: Arc<Registry>, each_second: u32, over: Arc<AtomicBool>) -> Vec<Answered> {
    let (began, mut calls) = (Instant::now(), tokio::task::JoinSet::new());
    let mut answers = Vec::new();
    for n in 0.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let due = began + Duration::from_secs(1) * n / each_second;
        tokio::time::sleep_until(due.into()).await;
        let registry = Arc::clone(&registry);
        calls.spawn(async move {
            // Never repeated once it may have run: it is not declared idempotent.
            let reply = registry.execute("Test/Do", "version", "").await;
            let reply = reply.map(|bytes| {
                let words = text(bytes);
                let (version, pid) = words.split_once(' ').unwrap();
                (version.to_owned(), pid.parse().unwrap())
            });
            (due, reply, due.elapsed())
        });
        while let Some(answer) = calls.try_join_next() {
            answers.push(answer.unwrap());
        }
    }
    answers.extend(calls.join_all().await);
    answers
}

#[tokio::test(flavor = "multi_thread")]
async fn no_call_fails_while_new_versions_take_over() {
    let (upgrades, each_second) = (scaled(3, 50), scaled(500, 2_000) as u32);
    let home = Home::new();
    let version = |n: u64| {
        let version = format!("1.0.{n}");
        home.install("Test/Do", &["--version", &version], &json!({"version": version}));
    };
    version(0);
    let registry = Arc::new(home.watching().await);
    loaded(&registry, "Test/Do").await;
    let over = Arc::new(AtomicBool::new(false));
    let calls = tokio::spawn(open_loop(Arc::clone(&registry), each_second, Arc::clone(&over)));
    let (mut pids, mut most, mut around) = (vec![pid(&registry, "Test/Do").await], 0, Vec::new());
    for n in 1..=upgrades {
        // As long again without an upgrade, to compare with.
        tokio::time::sleep(Duration::from_millis(scaled(100, 300))).await;
        let (begun, before) = (Instant::now(), *pids.last().unwrap());
        version(n);
        loop {
            let now = pid(&registry, "Test/Do").await;
            if !pids.contains(&now) {
                pids.push(now);
            }
            most = most.max(home.hosts.recorded().iter().filter(|(_, plugin)| runs(*plugin)).count());
            if now != before && !runs(before) {
                break;
            }
            assert!(begun.elapsed() < LONG, "upgrade {n}: {:#?}", registry.why("Do").await);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        around.push((begun, Instant::now()));
        let shown = registry.inspect("Do").await.unwrap().summary.version;
        assert_eq!(shown, Some(format!("1.0.{n}")));
    }
    over.store(true, Ordering::Relaxed);
    let answers = calls.await.unwrap();
    let failed: Vec<_> = answers.iter().filter_map(|(_, reply, _)| reply.as_ref().err()).collect();
    assert!(failed.is_empty(), "{} of {} calls failed: {:?}", failed.len(), answers.len(), failed[0]);
    assert!(most <= 2, "{most} processes at once");
    // Each version answered, by one process; and none but those.
    let mut made: Vec<_> = answers.iter().map(|(_, reply, _)| reply.clone().unwrap()).collect();
    made.sort();
    made.dedup();
    let mut expected: Vec<_> = pids.iter().zip(0..).map(|(pid, n)| (format!("1.0.{n}"), *pid)).collect();
    expected.sort();
    assert_eq!(made, expected);
    let (mut quiet, mut busy) = (Samples::default(), Samples::default());
    for (due, _, took) in &answers {
        let is_around = around.iter().any(|(from, to)| from <= due && due <= to);
        if is_around { &mut busy } else { &mut quiet }.push(*took);
    }
    let (without, with) = (quiet.percentile(99), busy.percentile(99));
    figure(
        "hot_upgrades",
        format_args!(
            "{upgrades} under {each_second} calls/s: {} calls, 0 failed, {most} versions at once, p99 {without:.2?} without, {with:.2?} around",
            answers.len()
        ),
        "0 failed, at most 2",
    );
    bound("added_by_upgrades_p99", with.saturating_sub(without), Duration::from_millis(20));
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
