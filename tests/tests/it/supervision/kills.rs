//! Plugins that are killed all the time, under calls and notifications: no wrong reply, no call that hangs, nothing that was
//! acknowledged and not heard.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use goplug_registry::{CallOptions, Registry, Subscribe};
use goplug_tests::{LONG, Random, figure, scaled, seed};
use serde_json::json;

use super::Home;
use crate::support::{loaded, text};

const PLUGINS: usize = 8;
const CALLERS: usize = 16;
const LISTENERS: usize = 4;
/// What a call may take; later it hangs.
const DEADLINE: Duration = Duration::from_secs(5);

#[derive(Default)]
struct Tally {
    good: AtomicU64,
    failed: AtomicU64,
    slowest_ms: AtomicU64,
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_wrong_hung_or_lost_while_plugins_are_killed() {
    let kills = scaled(16, 1_000);
    let seed = seed("killed_plugins");
    let home = Home::new();
    let names: Arc<Vec<String>> = Arc::new((0..PLUGINS).map(|n| format!("Test/p{n}")).collect());
    // As often as it takes: here every death is somebody else's doing.
    let restart = json!({"restart": {"policy": "always", "max": 1000, "window": "1s",
        "backoff": {"first": "100ms", "longest": "100ms"}}});
    for name in names.iter() {
        home.install(name, &[], &restart);
    }
    let registry = Arc::new(home.watching().await);
    for name in names.iter() {
        loaded(&registry, name).await;
    }
    let (over, tally) = (Arc::new(AtomicBool::new(false)), Arc::new(Tally::default()));
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let (registry, names) = (Arc::clone(&registry), Arc::clone(&names));
            let (over, tally) = (Arc::clone(&over), Arc::clone(&tally));
            tokio::spawn(async move {
                let mut n = 0_u64;
                while !over.load(Ordering::Relaxed) {
                    n += 1;
                    let name = &names[(caller + n as usize) % PLUGINS];
                    let body = format!("{caller} {n}");
                    let began = Instant::now();
                    let options = CallOptions { deadline: Some(DEADLINE), ..CallOptions::default() };
                    let reply = registry.execute_with(name, "echo", body.clone(), options).await;
                    let took = u64::try_from(began.elapsed().as_millis()).unwrap();
                    tally.slowest_ms.fetch_max(took, Ordering::Relaxed);
                    match reply {
                        Ok(answer) => {
                            assert_eq!(text(answer.body), body, "seed {seed}: a wrong reply");
                            tally.good.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(_) => _ = tally.failed.fetch_add(1, Ordering::Relaxed),
                    }
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            })
        })
        .collect();
    let heard: Vec<_> = (0..LISTENERS).map(|_| Arc::new(Mutex::new(HashSet::<String>::new()))).collect();
    let mut subscriptions = Vec::new();
    for (n, heard) in heard.iter().enumerate() {
        let heard = Arc::clone(heard);
        let handler = move |notice: goplug_registry::Notice| {
            heard.lock().unwrap().extend(notice.position.map(|position| position.to_string()));
            async { Ok(()) }
        };
        let how = Subscribe { name: Some(format!("listener-{n}")) };
        subscriptions.push(registry.register_callback(&names[n], "events", how, handler).await.unwrap());
    }
    let notifiers: Vec<_> = (0..LISTENERS)
        .map(|n| tokio::spawn(acknowledged(Arc::clone(&registry), names[n].clone(), Arc::clone(&over))))
        .collect();

    let mut random = Random::new(seed);
    for _ in 0..kills {
        let name = &names[random.below(PLUGINS)];
        loaded(&registry, name).await;
        let options = CallOptions { deadline: Some(DEADLINE), ..CallOptions::default() };
        if let Ok(answer) = registry.execute_with(name, "pid", "", options).await {
            crate::hosts::kill(text(answer.body).parse().unwrap());
        }
    }
    for name in names.iter() {
        // The last death may not have been seen yet.
        let answers = async || registry.execute(name, "pid", "").await.ok();
        goplug_tests::wait_for("every plugin is back", LONG, answers).await;
    }
    over.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await.expect("no wrong reply");
    }
    let mut acknowledgements = 0;
    for (notifier, heard) in notifiers.into_iter().zip(&heard) {
        let acknowledged = notifier.await.unwrap();
        let heard = heard.lock().unwrap();
        acknowledgements += acknowledged.len();
        let lost: Vec<_> = acknowledged.iter().filter(|position| is_lost(position, &heard)).collect();
        assert!(lost.is_empty(), "seed {seed}: acknowledged and not heard: {lost:?}");
    }
    let slowest = Duration::from_millis(tally.slowest_ms.load(Ordering::Relaxed));
    assert!(slowest < DEADLINE + LONG, "seed {seed}: a call hung for {slowest:?}");
    let (good, failed) = (tally.good.load(Ordering::Relaxed), tally.failed.load(Ordering::Relaxed));
    assert!(good > kills && acknowledgements > 0, "{good} calls, {acknowledgements} acknowledgements");
    figure(
        "killed_plugins",
        format_args!(
            "{kills} kills, {good} good calls, {failed} failed, slowest {slowest:?}, {acknowledgements} acknowledged"
        ),
        "0 wrong, 0 hung, 0 lost",
    );
    registry.close().await;
}

/// Whether an acknowledged notification was not heard, although its process had the subscription by then: a process that has just
/// been started has none until the registry attaches it again, and waits for nobody.
fn is_lost(position: &str, heard: &HashSet<String>) -> bool {
    let parts = |position: &str| {
        let (epoch, seq) = position.split_once(':').unwrap();
        (epoch.to_owned(), seq.parse::<u64>().unwrap())
    };
    let (epoch, seq) = parts(position);
    let first = heard.iter().map(|heard| parts(heard)).filter(|heard| heard.0 == epoch).map(|heard| heard.1).min();
    !heard.contains(position) && first.is_some_and(|first| seq >= first)
}

/// The positions that the plugin's `notify_acked` has returned.
async fn acknowledged(registry: Arc<Registry>, plugin: String, over: Arc<AtomicBool>) -> Vec<String> {
    let mut positions = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let options = CallOptions { deadline: Some(DEADLINE), ..CallOptions::default() };
        match registry.execute_with(&plugin, "notify-acked", "events", options).await {
            Ok(answer) => positions.push(text(answer.body)),
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    positions
}
