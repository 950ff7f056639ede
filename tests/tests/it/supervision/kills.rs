//! Plugins that are killed all the time, under calls and notifications: no wrong reply, no call that hangs, nothing that was
//! acknowledged and not heard.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use goplug_registry::{CallOptions, Subscribe};
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
    let published = |n: usize| home.dir.join(&format!("published-{n}"));
    for (n, name) in names.iter().enumerate() {
        let file = published(n);
        let args: &[&str] = if n < LISTENERS { &["--publish", file.to_str().unwrap()] } else { &[] };
        home.install(name, args, &restart);
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
    // What was published before there was a subscription is promised to nobody; it comes all the same.
    for (n, heard) in heard.iter().enumerate() {
        let all_heard = || lines(&published(n)).iter().all(|position| heard.lock().unwrap().contains(position));
        goplug_tests::wait_until("the history is heard", LONG, all_heard);
    }

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
    let (mut acknowledgements, mut epochs) = (0, HashSet::new());
    for (n, heard) in heard.iter().enumerate() {
        let log = lines(&published(n));
        let heard = heard.lock().unwrap();
        acknowledgements += log.len();
        epochs.extend(log.iter().map(|position| position.split(':').next().unwrap().to_owned()));
        let lost: Vec<_> = log.iter().filter(|position| !heard.contains(*position)).collect();
        assert!(lost.is_empty(), "seed {seed}: acknowledged and not heard by listener {n}: {lost:?}");
    }
    let slowest = Duration::from_millis(tally.slowest_ms.load(Ordering::Relaxed));
    assert!(slowest < DEADLINE + LONG, "seed {seed}: a call hung for {slowest:?}");
    let (good, failed) = (tally.good.load(Ordering::Relaxed), tally.failed.load(Ordering::Relaxed));
    assert!(
        good > kills && acknowledgements > epochs.len() && epochs.len() > LISTENERS,
        "{good} calls, {acknowledgements} acknowledgements of {} processes",
        epochs.len()
    );
    figure(
        "killed_plugins",
        format_args!(
            "{kills} kills, {good} good calls, {failed} failed, slowest {slowest:?}, {acknowledgements} acknowledged by {} processes",
            epochs.len()
        ),
        "0 wrong, 0 hung, 0 lost",
    );
    registry.close().await;
}

/// A process that dies of the first thing that was acknowledged, again and again: whoever subscribed to the first has it all.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_new_process_says_first_is_heard_by_those_of_the_one_before() {
    let home = Home::new();
    let (log, brief) = (home.dir.join("log"), home.dir.join("brief"));
    let restart = json!({"restart": {"policy": "always", "max": 1000, "window": "1s",
        "backoff": {"first": "100ms", "longest": "100ms"}}});
    let args = ["--publish", log.to_str().unwrap(), "--brief", brief.to_str().unwrap()];
    home.install("Test/Do", &args, &restart);
    let registry = home.watching().await;
    loaded(&registry, "Test/Do").await;
    let heard = Arc::new(Mutex::new(HashSet::<String>::new()));
    let hears = Arc::clone(&heard);
    let handler = move |notice: goplug_registry::Notice| {
        hears.lock().unwrap().extend(notice.position.map(|position| position.to_string()));
        async { Ok(()) }
    };
    let subscription = registry.register_callback("Test/Do", "events", Subscribe::default(), handler).await.unwrap();
    let epochs = || lines(&log).iter().map(|position| position[..32].to_owned()).collect::<HashSet<_>>().len();
    goplug_tests::wait_until("something is heard", LONG, || !heard.lock().unwrap().is_empty());
    std::fs::write(&brief, "").unwrap();
    goplug_tests::wait_until("six processes have spoken", LONG, || epochs() >= 6);
    std::fs::remove_file(&brief).unwrap();
    let lost: Vec<_> = lines(&log).into_iter().filter(|position| !heard.lock().unwrap().contains(position)).collect();
    assert!(lost.is_empty(), "acknowledged and not heard: {lost:?}");
    drop(subscription);
    registry.close().await;
}

/// The whole lines of a file: its process goes on writing.
fn lines(file: &std::path::Path) -> Vec<String> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')).map(str::to_owned).collect()
}
