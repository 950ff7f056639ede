//! How processes end, and what follows.

use std::time::{Duration, Instant};

use goplug_registry::Code;
use goplug_registry::admin::State;
use goplug_registry::host::{Adopted, adopt};
use goplug_tests::{LONG, bound, scaled, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use super::{Home, pid, runs};
use crate::support::{event, fault, loaded, row, state_of};

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_killed_comes_back_soon() {
    let home = Home::new();
    home.install("Test/Do", &[], &json!({}));
    let registry = home.watching().await;
    loaded(&registry, "Test/Do").await;
    let mut waits = Vec::new();
    for _ in 0..scaled(5, 50) {
        let before = pid(&registry, "Test/Do").await;
        // Somebody asks for it: five deaths within ten seconds would be a crash loop.
        registry.restart_plugin("Do").await.unwrap();
        let victim = pid(&registry, "Test/Do").await;
        assert_ne!(before, victim);
        crate::hosts::kill(victim);
        let died = Instant::now();
        while registry.execute("Test/Do", "echo", "x").await.is_err() {
            assert!(died.elapsed() < LONG, "{:#?}", registry.why("Do").await);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        waits.push(died.elapsed());
        assert_ne!(pid(&registry, "Test/Do").await, victim);
    }
    waits.sort();
    let p99 = waits[waits.len() * 99 / 100];
    bound("killed_to_callable_p99", p99, Duration::from_millis(250));
    registry.close().await;
}

/// At most 5 starts in 10 s, then `failed`, with its last lines.
#[tokio::test(flavor = "multi_thread")]
async fn a_crash_loop_ends_in_failed_with_its_last_words() {
    let home = Home::new();
    let count = home.dir.join("count");
    let script = format!("echo x >> {}; echo 'no such table: users' >&2; exit 3", count.display());
    home.install_script("Test/Broken", &script, &json!({}));
    let registry = home.watching().await;
    let mut events = registry.events();
    state_of(&mut events, "Test/Broken", State::Failed).await;
    let shown = row(&registry, "Test/Broken").unwrap();
    assert_eq!(shown.state, State::Failed);
    let why = shown.last_error.unwrap();
    assert!(why.contains("no such table: users") && why.contains("limit is 5 starts"), "{why}");
    assert_eq!(std::fs::read_to_string(&count).unwrap().lines().count(), 5);
    // Whoever asks gets another try, with the same answer.
    let again = fault(registry.start_plugin("Broken").await);
    assert!(again.message.contains("no such table: users"), "{again:?}");
    registry.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_run_is_told_at_once_and_not_tried_again() {
    let home = Home::new();
    home.install("Test/None", &[], &json!({"exec": {"command": "/no/such/program"}, "lazy_load": true}));
    let registry = home.watching().await;
    let missing = fault(registry.start_plugin("None").await);
    assert_eq!(missing.code, Code::NotFound, "{missing:?}");
    assert!(missing.message.contains("/no/such/program"), "{missing:?}");
    assert_eq!(row(&registry, "Test/None").unwrap().state, State::Failed);
    registry.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_means_to_end_stays_stopped() {
    let home = Home::new();
    home.install("Test/Do", &[], &json!({}));
    let registry = home.watching().await;
    loaded(&registry, "Test/Do").await;
    let mut events = registry.events();
    let _ = registry.execute("Test/Do", "exit", "0").await;
    state_of(&mut events, "Test/Do", State::Stopped).await;
    registry.close().await;
}

/// Another registry, or a command, that ends the process by way of its host means it, however the process takes it.
#[tokio::test(flavor = "multi_thread")]
async fn one_that_somebody_else_stops_stays_stopped() {
    let home = Home::new();
    home.install("Test/Do", &[], &json!({}));
    let registry = home.watching().await;
    loaded(&registry, "Test/Do").await;
    let before = pid(&registry, "Test/Do").await;
    let mut events = registry.events();
    for adopted in adopt(&home.hosts()).await.unwrap() {
        let Adopted::Lives(hosted) = adopted else { panic!("{adopted:?}") };
        // At once by SIGKILL, which is a failure if nobody asked for it.
        hosted.stop(Duration::ZERO, Duration::ZERO).await.unwrap();
    }
    state_of(&mut events, "Test/Do", State::Stopped).await;
    assert!(!runs(before));
    let error = fault(registry.execute("Test/Do", "echo", "x").await);
    assert_eq!(error.code, Code::WrongState, "{error:?}");
    registry.start_plugin("Do").await.unwrap();
    assert_ne!(pid(&registry, "Test/Do").await, before);
    registry.close().await;
}

/// A process that is stopped by a signal answers nobody: found within 3.5 s, and replaced.
#[tokio::test(flavor = "multi_thread")]
async fn one_that_hangs_is_found_and_replaced() {
    let home = Home::new();
    home.install("Test/Do", &[], &json!({}));
    let registry = home.watching().await;
    loaded(&registry, "Test/Do").await;
    let frozen = pid(&registry, "Test/Do").await;
    let mut events = registry.events();
    kill_process(Pid::from_raw(frozen.cast_signed()).unwrap(), Signal::STOP).unwrap();
    let stopped = Instant::now();
    event(&mut events, "it hung", |event| event.detail.as_ref().is_some_and(|text| text.contains("hung"))).await;
    let found = stopped.elapsed();
    bound("hang_found", found, Duration::from_millis(3_500));
    loaded(&registry, "Test/Do").await;
    assert!(!runs(frozen));
    registry.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_what_detached_itself() {
    let home = Home::new();
    home.install("Test/Do", &[], &json!({}));
    let left = home.dir.join("left");
    let registry = home.watching().await;
    loaded(&registry, "Test/Do").await;
    registry.stop_plugin("Do").await.unwrap();
    // The same program, behind a shell that leaves a grandchild which detaches itself.
    let script = format!(
        "(setsid sh -c 'echo $$ > {}; while :; do sleep 1; done' &) ; exec {} {} Test/Do",
        left.display(),
        crate::support::FIXTURE,
        home.dir.text()
    );
    home.install_script("Test/Do", &script, &json!({}));
    registry.rescan().await.unwrap();
    registry.start_plugin("Do").await.unwrap();
    wait_until("the grandchild tells its number", LONG, || left.exists());
    let read = || std::fs::read_to_string(&left).unwrap_or_default().trim().parse::<u32>().ok();
    wait_until("the grandchild's number is whole", LONG, || read().is_some());
    let grandchild = read().unwrap();
    assert!(runs(grandchild));
    registry.stop_plugin("Do").await.unwrap();
    assert!(!runs(grandchild), "{grandchild} goes on");
    registry.close().await;
}
