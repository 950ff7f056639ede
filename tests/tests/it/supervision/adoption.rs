//! Processes outlive the registry, and the next one finds them again.

use std::time::{Duration, Instant};

use goplug_tests::{LONG, bound, scaled, wait_until};
use serde_json::json;

use super::{Home, pid, runs};
use crate::support::{event, loaded, row};

#[tokio::test(flavor = "multi_thread")]
async fn the_next_registry_finds_them_and_starts_none() {
    let home = Home::new();
    let names: Vec<_> = (0..8).map(|n| format!("Test/p{n}")).collect();
    for name in &names {
        home.install(name, &["--chatter"], &json!({}));
    }
    let registry = home.watching().await;
    let mut pids = Vec::new();
    for name in &names {
        loaded(&registry, name).await;
        pids.push(pid(&registry, name).await);
    }
    registry.close().await;
    for round in 0..scaled(2, 20) {
        let began = Instant::now();
        let registry = home.watching().await;
        for (name, before) in names.iter().zip(&pids) {
            loaded(&registry, name).await;
            assert_eq!(pid(&registry, name).await, *before, "round {round}: started again");
        }
        bound("adopted_8", began.elapsed(), Duration::from_millis(500));
        registry.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_died_meanwhile_is_told_and_started_once() {
    let home = Home::new();
    home.install("Test/Do", &[], &json!({}));
    let registry = home.watching().await;
    loaded(&registry, "Test/Do").await;
    let before = pid(&registry, "Test/Do").await;
    registry.close().await;
    crate::hosts::kill(before);
    wait_until("it has ended", LONG, || !runs(before));
    let registry = home.watching().await;
    loaded(&registry, "Test/Do").await;
    assert_ne!(pid(&registry, "Test/Do").await, before);
    let mut events = registry.events_after(0).unwrap();
    // Its host may have been asked before it knew.
    let told =
        event(&mut events, "its end", |event| event.detail.as_ref().is_some_and(|text| text.contains("signal 9")));
    assert!(told.await.detail.unwrap().contains(&before.to_string()));
    registry.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_whose_manifest_was_taken_away_meanwhile_is_ended() {
    let home = Home::new();
    home.install("Test/Do", &[], &json!({}));
    let registry = home.watching().await;
    loaded(&registry, "Test/Do").await;
    let before = pid(&registry, "Test/Do").await;
    registry.close().await;
    std::fs::remove_dir_all(home.dir.join("Test/Do")).unwrap();
    let registry = home.watching().await;
    wait_until("it has ended", LONG, || !runs(before));
    // What it published may name it for a moment longer.
    assert!(row(&registry, "Test/Do").is_none_or(|row| row.manifest.is_none()));
    registry.close().await;
}

/// One folder of hosts serves every plugin directory of a user.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_of_another_directory_is_left_to_it() {
    let (home, other) = (Home::new(), Home::new());
    for home in [&home, &other] {
        home.install("Test/Do", &[], &json!({}));
    }
    let registry = home.watching().await;
    loaded(&registry, "Test/Do").await;
    let ours = pid(&registry, "Test/Do").await;
    registry.close().await;
    let registry = other.builder().hosts_dir(home.hosts()).auto_discover(true).open().await.unwrap();
    loaded(&registry, "Test/Do").await;
    let theirs = pid(&registry, "Test/Do").await;
    assert!(theirs != ours && runs(ours), "{ours} of another directory was taken");
    registry.close().await;
    // Nor is one taken for a plugin whose manifest is gone.
    std::fs::remove_dir_all(other.dir.join("Test/Do")).unwrap();
    let registry = other.builder().hosts_dir(home.hosts()).auto_discover(true).open().await.unwrap();
    wait_until("its own is ended", LONG, || !runs(theirs));
    assert!(runs(ours));
    registry.close().await;
    let registry = home.watching().await;
    loaded(&registry, "Test/Do").await;
    assert_eq!(pid(&registry, "Test/Do").await, ours);
    registry.close().await;
}
