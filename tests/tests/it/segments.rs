//! Bodies that stay where they were written.

use goplug_registry::{CallOptions, Code, Plugin, Registry};
use goplug_tests::{Baseline, LONG, PluginDir, Process, isolated, scaled, wait_until};
use rustix::process::Signal;

use crate::support::{app, fault, fixture, quiet, text};

const MIB: usize = 1 << 20;

/// Segments that are mapped in a process.
fn mapped(pid: u32) -> usize {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    maps.lines().filter(|line| line.contains("memfd:goplug-segment")).count()
}

fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

async fn started(dir: &PluginDir, arguments: &[&str]) -> (Process, Registry, Plugin) {
    let process = fixture(dir, arguments);
    let registry = quiet(dir).await;
    registry.load("Test/Do").await.unwrap();
    let plugin = registry.get("Test/Do").unwrap();
    (process, registry, plugin)
}

/// A reply of so many bytes, and whether it was read where the plugin wrote it.
async fn reply(plugin: &Plugin, length: usize, byte: u8) -> bool {
    let view = plugin.execute_view("segment", format!("{length} {byte}"), CallOptions::default()).await.unwrap();
    assert_eq!(view.len(), length);
    assert!(view.words().take(length / 8).all(|word| word == u64::from_ne_bytes([byte; 8])), "{length} {byte}");
    let mut end = [0; 9];
    assert_eq!(view.copy_to(length - 9, &mut end), 9);
    assert_eq!(end, [byte; 9]);
    view.is_shared()
}

/// The first reply of a connection asks; all others are read where they were written, and whoever wants bytes gets them.
#[tokio::test(flavor = "multi_thread")]
async fn a_reply_is_read_where_it_was_written() {
    let dir = PluginDir::new();
    let (_process, registry, plugin) = started(&dir, &["Test/Do"]).await;
    assert!(!reply(&plugin, 64 * MIB, 1).await, "nobody was asked");
    for byte in 2..5 {
        assert_eq!(reply(&plugin, 64 * MIB, byte).await, goplug_tests::fast_paths());
    }
    for length in [9, 1000, 65_535, 65_536, 65_537, MIB + 3] {
        assert_eq!(reply(&plugin, length, 6).await, length >= 65_536 && goplug_tests::fast_paths(), "{length}");
        let bytes = registry.execute("Test/Do", "segment", format!("{length} 8")).await.unwrap();
        assert!(bytes == vec![8; length], "{length}");
    }
    let options = CallOptions::default();
    let small = Registry::builder(dir.path()).fast_paths(goplug_tests::fast_paths()).max_reply_bytes(MIB - 1);
    let small = small.open().await.unwrap();
    small.load("Test/Do").await.unwrap();
    for _ in 0..3 {
        let long = small.execute_with("Test/Do", "segment", MIB.to_string(), options.clone()).await;
        assert_eq!(fault(long).code, Code::TooLarge);
        assert_eq!(text(small.execute("Test/Do", "echo", "x").await.unwrap()), "x", "and it goes on");
    }
    small.close().await;
    registry.close().await;
}

/// So does a request, to a method that reads it there, to one that wants bytes, and to one that takes pieces.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_read_where_it_was_written() {
    let dir = PluginDir::new();
    let (process, registry, plugin) = started(&dir, &["Test/Do"]).await;
    assert!(!plugin.segment(MIB).is_shared(), "there is no connection");
    plugin.execute("echo", "x").await.unwrap();
    for turn in 0..4_u64 {
        let mut segment = plugin.segment(MIB + 5);
        assert_eq!(segment.is_shared(), goplug_tests::fast_paths());
        segment.fill(3);
        segment.truncate(MIB + 1);
        let body = bytes::Bytes::from(segment);
        let kind = if turn > 0 && goplug_tests::fast_paths() { "shared" } else { "ours" };
        let sum = text(plugin.execute("sum-view", body.clone()).await.unwrap());
        assert_eq!(sum, format!("{} {} {kind}", MIB + 1, 3 * (MIB + 1)), "{turn}");
        assert!(plugin.execute("echo", body.clone()).await.unwrap() == body);
        for method in ["sum", "sum-blocking"] {
            let sum = text(plugin.execute(method, body.clone()).await.unwrap());
            assert_eq!(sum, format!("{} {}", MIB + 1, 3 * (MIB + 1)), "{method}");
        }
        let part = body.slice(8..MIB);
        assert!(plugin.execute("echo", part.clone()).await.unwrap() == part, "a part of it");
        assert!(plugin.execute("echo", body.slice(5..MIB)).await.unwrap() == body.slice(5..MIB), "not at a word");
    }
    if goplug_tests::fast_paths() {
        assert_eq!(mapped(process.pid()), 1, "the same segment each time");
    }
    registry.close().await;
}

/// However many bodies go, few segments do; and replies that are kept do not keep others from coming.
#[test]
fn a_thousand_round_trips_need_few_segments() {
    isolated("segments::a_thousand_round_trips_need_few_segments", || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let dir = PluginDir::new();
            let (process, registry, plugin) = started(&dir, &["Test/Do"]).await;
            reply(&plugin, MIB, 1).await;
            reply(&plugin, MIB, 1).await;
            let (before, ours, theirs) = (Baseline::now(), mapped(std::process::id()), descriptors(process.pid()));
            for turn in 0..scaled(1_000, 100_000) {
                assert_eq!(reply(&plugin, 100_000, turn as u8).await, goplug_tests::fast_paths(), "{turn}");
                let mut segment = plugin.segment(100_000);
                segment.fill(1);
                assert_eq!(text(plugin.execute("count-view", segment).await.unwrap()), "100000");
            }
            assert!(mapped(std::process::id()) <= ours + 2 && mapped(process.pid()) <= 4);
            assert!(descriptors(process.pid()) <= theirs + 2);
            before.with_descriptors(2).with_shared(2).is_back();

            // Twenty that are kept are more than sixteen.
            let mut kept = Vec::new();
            for byte in 0..20_u8 {
                let body = format!("{} {byte}", 100_000);
                kept.push(plugin.execute_view("segment", body, CallOptions::default()).await.unwrap());
            }
            let shared = kept.iter().filter(|view| view.is_shared()).count();
            assert_eq!(shared, if goplug_tests::fast_paths() { 16 } else { 0 });
            for (view, byte) in kept.iter().zip(0_u8..) {
                assert!(view.clone().into_bytes() == vec![byte; 100_000], "{byte}");
            }
            drop(kept);
            for length in [MIB, 4 * MIB, 16 * MIB, 64 * MIB, 100_000] {
                assert_eq!(reply(&plugin, length, 9).await, goplug_tests::fast_paths(), "{length}");
            }
            registry.close().await;
        });
    });
}

/// Whichever side ends, what was lent is given back; what is being read stays as it is.
#[test]
fn a_killed_side_leaves_no_segment_behind() {
    isolated("segments::a_killed_side_leaves_no_segment_behind", || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let mut baseline = None;
            for turn in 0..scaled(4, 50) {
                if turn == 1 {
                    baseline = Some(Baseline::now());
                }
                let dir = PluginDir::new();
                let (process, registry, plugin) = started(&dir, &["Test/Do"]).await;
                for _ in 0..2 {
                    reply(&plugin, MIB, 1).await;
                    plugin.execute("sum-view", plugin.segment(MIB)).await.unwrap();
                }
                let body = format!("{MIB} 5");
                let view = plugin.execute_view("segment", body, CallOptions::default()).await.unwrap();
                let unsent = plugin.segment(MIB);
                process.signal(Signal::KILL);
                // Whether the call had begun.
                let code = fault(plugin.execute("echo", "x").await).code;
                assert!(matches!(code, Code::PluginGone | Code::Unavailable), "{code:?}");
                assert!(view.words().all(|word| word == u64::from_ne_bytes([5; 8])), "it stays readable");
                registry.close().await;
                drop((view, unsent));
            }
            baseline.expect("more than one round").is_back();
        });
        if !goplug_tests::fast_paths() {
            return;
        }
        let dir = PluginDir::new();
        let plugin = fixture(&dir, &["Test/Do"]);
        let mut app = app(&dir, &[]);
        assert_eq!(app.ask("loaded Test/Do"), "ok");
        for _ in 0..2 {
            assert_eq!(app.ask("execute Test/Do segment 100000 65").len(), 100_000);
        }
        assert_eq!((mapped(plugin.pid()), mapped(app.pid())), (1, 1));
        app.kill();
        wait_until("the memory is given back", LONG, || mapped(plugin.pid()) == 0);
    });
}

/// Only where both sides offer it.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lent_to_one_that_was_told_not_to() {
    let dir = PluginDir::new();
    let (process, registry, plugin) = started(&dir, &["Test/Do", "--no-shared-memory"]).await;
    for _ in 0..3 {
        assert!(!reply(&plugin, MIB, 1).await && !plugin.segment(MIB).is_shared());
    }
    assert_eq!(mapped(process.pid()), 0);
    registry.close().await;
}

/// A connection that nobody uses is closed, and its segments with it.
#[test]
fn what_nobody_uses_is_given_back() {
    isolated("segments::what_nobody_uses_is_given_back", || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let dir = PluginDir::new();
            let (process, registry, plugin) = started(&dir, &["Test/Do"]).await;
            for _ in 0..2 {
                reply(&plugin, MIB, 1).await;
                plugin.execute("sum-view", plugin.segment(MIB)).await.unwrap();
            }
            wait_until("a second has passed", LONG, || mapped(process.pid()) == 0 && mapped(std::process::id()) == 0);
            reply(&plugin, MIB, 2).await;
            assert_eq!(reply(&plugin, MIB, 3).await, goplug_tests::fast_paths(), "and all begins anew");
            registry.close().await;
        });
    });
}
