//! What a call means does not depend on how its bytes travel.

use std::time::{Duration, Instant};

use goplug_registry::admin::{RegistryEvent, Transport};
use goplug_registry::{CallOptions, Code, Latency, Ran, Registry, Subscribe, Unload};
use goplug_tests::{Baseline, LONG, PluginDir, bound, deep, isolated, say_again, scaled, wait_until};
use rustix::process::Signal;

use crate::support::{app, builder, event, evil, fixture, loaded, quiet, text};

/// The modules whose tests make calls or listen through a registry.
const MODULES: [&str; 8] =
    ["bodies::", "calls::", "hostile::", "identity::", "leaks::", "life::", "notifications::", "segments::"];

/// Those tests run once more, in a process of their own, with every call and every notification on HTTP.
#[test]
fn everything_holds_over_http_too() {
    run_again_over("http");
}

/// And once more through memory that registry and plugin share; with the tests of this module, too.
#[test]
fn everything_holds_over_shared_memory_too() {
    run_again_over("shm");
}

fn run_again_over(transport: &str) {
    if std::env::var_os("GOPLUG_TRANSPORT").is_some() {
        // This is such a process.
        return;
    }
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(MODULES)
        .args(if transport == "shm" { &["transports::"][..] } else { &[] })
        .args(["--skip", "cli::"])
        // Figures that are asserted are of a machine on which nothing else runs.
        .args(deep().then_some("--test-threads=1"))
        .env("GOPLUG_TRANSPORT", transport)
        .output()
        .unwrap();
    say_again(&output.stderr, &format!(", over {transport}"));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "over {transport}: {text}\n{}", String::from_utf8_lossy(&output.stderr));
    let summary = text.lines().find(|line| line.starts_with("test result: ok.")).unwrap_or_default();
    let passed: u32 = summary.split(' ').nth(3).and_then(|count| count.parse().ok()).unwrap_or(0);
    assert!(passed > 30, "the tests ran: {summary}");
}

/// Calls go over frames where both sides offer them, and over HTTP where one was told not to: the plugin's threads tell.
#[tokio::test(flavor = "multi_thread")]
async fn calls_go_over_frames_where_both_sides_offer_them() {
    for fast in [true, false] {
        let dir = PluginDir::new();
        let plugin = fixture(&dir, &["Test/Do"]);
        let registry = Registry::builder(dir.path()).fast_paths(fast).open().await.unwrap();
        registry.load("Test/Do").await.unwrap();
        assert_eq!(text(registry.execute("Test/Do", "echo", "x").await.unwrap()), "x");
        let transport = registry.inspect("Test/Do").await.unwrap().transport;
        assert_eq!(transport, Some(if fast { Transport::Frames } else { Transport::Http }));
        let tasks = std::fs::read_dir(format!("/proc/{}/task", plugin.pid())).unwrap().flatten();
        let names: Vec<_> = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok()).collect();
        assert_eq!(names.iter().any(|name| name.trim() == "goplug-frames"), fast, "{names:?}");
        registry.close().await;
    }
}

/// Memory is shared when the registry's latency is low and the plugin offers it, and not otherwise.
#[tokio::test(flavor = "multi_thread")]
async fn memory_is_shared_where_both_sides_want_to() {
    for (latency, arguments, expected) in [
        (Latency::Low, &["Test/Do"][..], Transport::Shm),
        (Latency::Balanced, &["Test/Do"], Transport::Frames),
        (Latency::Low, &["Test/Do", "--no-shared-memory"], Transport::Frames),
    ] {
        let dir = PluginDir::new();
        let plugin = fixture(&dir, arguments);
        let registry = Registry::builder(dir.path()).latency(latency).open().await.unwrap();
        registry.load("Test/Do").await.unwrap();
        for size in [0, 1, 1000, 3 << 20] {
            let body = vec![7; size];
            assert!(
                registry.execute("Test/Do", "echo", body.clone()).await.unwrap() == body,
                "{latency:?}, {size} bytes"
            );
        }
        assert_eq!(registry.inspect("Test/Do").await.unwrap().transport, Some(expected), "{latency:?}");
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", plugin.pid())).unwrap();
        assert_eq!(maps.contains("memfd:goplug-rings"), expected == Transport::Shm, "{latency:?}");
        registry.close().await;
    }
}

/// Whichever side is killed, the other knows at once and nothing is left: no descriptor, no memory.
#[test]
fn a_killed_side_leaves_no_memory_behind() {
    isolated("transports::a_killed_side_leaves_no_memory_behind", || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let mut baseline = None;
            for n in 0..scaled(5, 100) {
                if n == 1 {
                    baseline = Some(Baseline::now());
                }
                let dir = PluginDir::new();
                let plugin = fixture(&dir, &["Test/Do"]);
                let registry = Registry::builder(dir.path()).latency(Latency::Low).open().await.unwrap();
                registry.load("Test/Do").await.unwrap();
                registry.execute("Test/Do", "echo", vec![1; 2 << 20]).await.unwrap();
                assert_eq!(registry.inspect("Test/Do").await.unwrap().transport, Some(Transport::Shm));
                let sleeper = {
                    let registry = registry.clone();
                    tokio::spawn(async move { registry.execute("Test/Do", "sleep", "30000").await })
                };
                goplug_tests::wait_for("the call is under way", LONG, || async {
                    (registry.inspect("Test/Do").await.unwrap().in_flight == 1).then_some(())
                })
                .await;
                let began = Instant::now();
                plugin.signal(Signal::KILL);
                let gone = tokio::time::timeout(LONG, sleeper).await.expect("it hangs").unwrap().unwrap_err();
                assert_eq!((gone.code, gone.ran), (Code::PluginGone, Ran::Unknown));
                bound("killed_with_shared_memory", began.elapsed(), Duration::from_millis(100));
                registry.close().await;
            }
            baseline.expect("more than one round").is_back();
        });
        // The other way round: a plugin whose registry is killed gives the memory back.
        let dir = PluginDir::new();
        let plugin = fixture(&dir, &["Test/Do"]);
        let shared = || {
            let maps = std::fs::read_to_string(format!("/proc/{}/maps", plugin.pid())).unwrap();
            maps.lines().filter(|line| line.contains("memfd:goplug-rings")).count()
        };
        let mut app = app(&dir, &["--low"]);
        assert_eq!(app.ask("loaded Test/Do"), "ok");
        assert_eq!(app.ask("execute Test/Do echo x"), "x");
        assert_eq!(shared(), 1);
        app.kill();
        wait_until("the memory is given back", LONG, || shared() == 0);
    });
}

/// What is offered and then refused is not what calls go over, and `inspect` says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_refuses_the_frames_it_offers_is_called_over_http() {
    let dir = PluginDir::new();
    let _plugin = evil(&dir, "x", "no-frames", None);
    let registry = Registry::builder(dir.path()).fast_paths(true).open().await.unwrap();
    registry.load("Evil/x").await.unwrap();
    assert_eq!(registry.inspect("Evil/x").await.unwrap().transport, Some(Transport::Frames), "nobody has asked yet");
    for _ in 0..2 {
        registry.execute("Evil/x", "good", "x").await.unwrap();
        assert_eq!(registry.inspect("Evil/x").await.unwrap().transport, Some(Transport::Http));
    }
    registry.close().await;
}

/// A method that blocks for long, on its first call, holds up nobody who asks the same plugin.
#[tokio::test(flavor = "multi_thread")]
async fn a_method_that_sleeps_holds_up_nobody() {
    let dir = PluginDir::new();
    let _plugin = fixture(&dir, &["Test/Do"]);
    let registry = quiet(&dir).await;
    registry.load("Test/Do").await.unwrap();
    registry.execute("Test/Do", "echo", "the connection is there").await.unwrap();
    let goal = Duration::from_millis(50);
    for method in ["block", "block"] {
        let sleeper = {
            let registry = registry.clone();
            tokio::spawn(async move { registry.execute("Test/Do", method, "30000").await })
        };
        goplug_tests::wait_for("the call is under way", LONG, || async {
            (registry.inspect("Test/Do").await.unwrap().in_flight == 1).then_some(())
        })
        .await;
        let began = Instant::now();
        assert_eq!(text(registry.execute("Test/Do", "echo", "x").await.unwrap()), "x");
        bound("another_method_while_one_sleeps", began.elapsed(), goal);
        let began = Instant::now();
        registry.ping("Test/Do").await.unwrap();
        bound("ping_while_a_method_sleeps", began.elapsed(), goal);
        let began = Instant::now();
        let short = CallOptions { deadline: Some(Duration::from_millis(10)), ..CallOptions::default() };
        let late = registry.execute_with("Test/Do", "block", "30000", short).await.unwrap_err();
        assert_eq!((late.code, late.ran), (Code::DeadlineExceeded, Ran::Unknown));
        bound("deadline_while_a_method_sleeps", began.elapsed(), goal);
        sleeper.abort();
    }
    registry.close().await;
}

/// Both sides have more to write than the sockets take, and neither waits for the other to read first.
#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_callers_with_large_bodies_both_ways_do_not_lock_up() {
    let dir = PluginDir::new();
    let _plugin = fixture(&dir, &["Test/Do"]);
    let registry = quiet(&dir).await;
    registry.load("Test/Do").await.unwrap();
    let callers: Vec<_> = (0..64_u8)
        .map(|caller| {
            let registry = registry.clone();
            tokio::spawn(async move {
                for turn in 0..4_u8 {
                    let body = vec![caller.wrapping_mul(4).wrapping_add(turn); 1 << 20];
                    assert!(
                        registry.execute("Test/Do", "echo", body.clone()).await.unwrap() == body,
                        "caller {caller}"
                    );
                }
            })
        })
        .collect();
    for caller in callers {
        tokio::time::timeout(LONG * 3, caller).await.expect("it locks up").unwrap();
    }
    registry.close().await;
}

/// The same registry, from threads without a runtime.
#[test]
fn an_application_without_async_does_everything() {
    let dir = PluginDir::new();
    let plugin = fixture(&dir, &["Test/Do"]);
    let registry = builder(dir.path()).open_blocking().unwrap();
    registry.load("Test/Do").unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let registry = registry.clone();
            scope.spawn(move || {
                for n in 0..200 {
                    let body = format!("{thread}/{n}");
                    assert_eq!(registry.execute("Test/Do", "echo", body.clone()).unwrap(), body);
                }
            });
        }
    });
    let short = CallOptions { deadline: Some(Duration::from_millis(200)), ..CallOptions::default() };
    let late = registry.execute_with("Test/Do", "sleep", "10000", short).unwrap_err();
    assert_eq!((late.code, late.ran), (Code::DeadlineExceeded, Ran::Unknown));
    assert_eq!(registry.execute("Test/Do", "nothing", "").unwrap_err().code, Code::NotFound);

    let (heard, hears) = std::sync::mpsc::channel();
    let handler =
        move |notice: goplug_registry::Notice| heard.send(text(notice.data)).map_err(|error| error.to_string());
    let subscription = registry.register_callback("Test/Do", "events", Subscribe::default(), handler).unwrap();
    registry.execute("Test/Do", "notify", "events 1 3").unwrap();
    let all: Vec<_> = (0..3).map(|_| hears.recv_timeout(LONG).unwrap()).collect();
    assert_eq!(all, ["1", "2", "3"]);
    registry.wait_on(subscription.close());

    // A thread that waits for a process that dies is told at once.
    let dead = std::thread::spawn({
        let registry = registry.clone();
        move || registry.execute("Test/Do", "abort", "").unwrap_err()
    });
    assert_eq!(dead.join().unwrap().code, Code::PluginGone);
    drop(plugin);
    let _plugin = fixture(&dir, &["Test/Do"]);
    registry.wait_on(async {
        _ = registry.inner().rescan().await;
        loaded(registry.inner(), "Test/Do").await;
    });
    assert_eq!(registry.execute("Test/Do", "echo", "again").unwrap(), "again");
    registry.unload("Test/Do", Unload::default()).unwrap();
    registry.close();
}

/// What a task that waits in vain has done, a thread has done, too: the process is asked whether it lives.
#[test]
fn a_thread_that_waits_in_vain_has_the_process_pinged() {
    let dir = PluginDir::new();
    let plugin = fixture(&dir, &["Test/Do"]);
    let registry = builder(dir.path()).open_blocking().unwrap();
    registry.load("Test/Do").unwrap();
    registry.execute("Test/Do", "echo", "the connection is there").unwrap();
    let mut events = registry.inner().events();
    plugin.signal(Signal::STOP);
    wait_until("every thread of it is stopped", LONG, || plugin.is_stopped());
    let short = CallOptions { deadline: Some(Duration::from_millis(20)), ..CallOptions::default() };
    let late = registry.execute_with("Test/Do", "echo", "x", short).unwrap_err();
    assert_eq!(late.code, Code::DeadlineExceeded);
    let hangs = |event: &RegistryEvent| event.detail.as_deref().is_some_and(|why| why.contains("answers no ping"));
    registry.wait_on(event(&mut events, "the process hangs", hangs));
    registry.close();
}
