//! Calls: bytes in, bytes out, at most once, always ended, never mixed up.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use goplug_registry::{CallOptions, Code, Ran};
use goplug_tests::{
    LONG, PluginDir, Proxy, Random, Weather, bound, deep, figure, live_tasks, scaled, seed, tasks_are_back, wait_until,
};
use rustix::process::Signal;

use crate::support::{fault, fixture, loaded, quiet, republish, socket_in, text, watching};

fn within(ms: u64) -> CallOptions {
    CallOptions { deadline: Some(Duration::from_millis(ms)), ..CallOptions::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_go_in_and_come_out() {
    let dir = PluginDir::new();
    let _plugin = fixture(&dir, &["Test/Do"]);
    let registry = quiet(&dir).await;
    registry.load("Test/Do").await.unwrap();
    for size in [0, 1, 4096, 1_000_000, 8 << 20] {
        let body = Random::new(size as u64).bytes(size);
        assert_eq!(registry.execute("Test/Do", "echo", body.clone()).await.unwrap(), body, "{size} bytes");
    }
    assert_eq!(text(registry.execute("Do", "a b/c+d%ü", "odd name").await.unwrap()), "odd name");
    assert_eq!(registry.execute("Test/Do", "stream", "1000").await.unwrap().len(), 3890);
    assert_eq!(text(registry.execute("Test/Do", "add", r#"{"a":2,"b":3}"#).await.unwrap()), r#"{"total":5}"#);
    let handle = registry.get("Test/Do").unwrap();
    assert_eq!(text(handle.execute("echo", "by handle").await.unwrap()), "by handle");
    let methods = registry.methods("Test/Do").unwrap();
    let add = methods.methods.iter().find(|method| method.name == "add").unwrap();
    assert!(add.input.as_ref().unwrap().to_string().contains("\"a\""), "the schema is published: {add:?}");
    registry.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_failure_says_what_and_whether_it_ran() {
    let dir = PluginDir::new();
    let mut plugin = fixture(&dir, &["--max-request", "1000", "Test/Do"]);
    let registry = quiet(&dir).await;
    let call = |method: &'static str, body: &'static str| registry.execute("Test/Do", method, body);

    assert_eq!(fault(call("echo", "").await).code, Code::NotFound, "nobody looked into the directory yet");
    registry.rescan().await.unwrap();
    let error = fault(call("echo", "").await);
    assert_eq!((error.code, error.ran), (Code::WrongState, Ran::No), "{error:?}");
    registry.load("Test/Do").await.unwrap();

    for (method, body, code, ran, words) in [
        ("nothing", "", Code::NotFound, Ran::No, "nothing"),
        ("", "", Code::InvalidArgument, Ran::No, "method"),
        ("..", "", Code::InvalidArgument, Ran::No, ".."),
        ("fail", "the reason", Code::MethodFailed, Ran::Yes, "the reason"),
        ("panic", "at the disco", Code::Panicked, Ran::Yes, ""),
        ("sleep", "no number", Code::InvalidArgument, Ran::Yes, "number"),
        ("add", r#"{"a":"x"}"#, Code::InvalidArgument, Ran::No, ""),
        ("stream-fails", "", Code::PluginGone, Ran::Yes, ""),
    ] {
        let error = fault(call(method, body).await);
        assert_eq!((error.code, error.ran), (code, ran), "{method}: {error:?}");
        assert!(error.message.contains(words), "{method}: {error:?}");
    }
    let error = fault(call("fail-with-data", r#"{"reason":[1,2]}"#).await);
    assert_eq!(error.data.as_deref(), Some(&serde_json::json!({"reason": [1, 2]})));
    let error = fault(registry.execute("Test/Do", "echo", vec![0; 1001]).await);
    assert_eq!((error.code, error.ran), (Code::TooLarge, Ran::No), "{error:?}");
    assert_eq!(text(call("echo", "still here").await.unwrap()), "still here");

    let error = fault(call("exit", "3").await);
    assert_eq!((error.code, error.ran), (Code::PluginGone, Ran::Unknown), "{error:?}");
    assert_eq!(plugin.wait(LONG).code(), Some(3));
    let error = fault(call("echo", "").await);
    assert!(matches!(error.code, Code::Unavailable | Code::WrongState), "{error:?}");
    assert_eq!(error.ran, Ran::No);
    registry.close().await;
}

/// A reply of one piece begins and ends at once; both are seen at the same moment every so often.
#[tokio::test(flavor = "multi_thread")]
async fn a_streamed_reply_that_ends_as_soon_as_it_begins_is_whole() {
    let dir = PluginDir::new();
    let _plugin = fixture(&dir, &["Test/Do"]);
    let registry = quiet(&dir).await;
    registry.load("Test/Do").await.unwrap();
    let callers = (0..16).map(|_| {
        let registry = registry.clone();
        tokio::spawn(async move {
            for _ in 0..scaled(500, 10_000) {
                assert_eq!(text(registry.execute("Test/Do", "stream", "1").await.unwrap()), "0\n");
                let error = fault(registry.execute("Test/Do", "stream-fails", "").await);
                assert_eq!((error.code, error.ran), (Code::PluginGone, Ran::Yes), "{error:?}");
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.unwrap();
    }
    registry.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_call_carries_arrives() {
    let dir = PluginDir::new();
    let _plugin = fixture(&dir, &["Test/Do"]);
    let registry = quiet(&dir).await;
    registry.load("Test/Do").await.unwrap();
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let options = CallOptions { caller: Some("me".into()), traceparent: Some(trace.into()), ..within(5_000) };
    let answer = |method: &'static str| registry.execute_with("Test/Do", method, "", options.clone());
    assert_eq!(text(answer("caller").await.unwrap().body), "me");
    assert_eq!(text(answer("trace").await.unwrap().body), trace);
    let left: u64 = text(answer("remaining").await.unwrap().body).parse().unwrap();
    assert!((1..=5_000).contains(&left), "{left} ms left of 5000");
    let content_type = registry.execute_with("Test/Do", "add", r#"{"a":1,"b":1}"#, options).await.unwrap().content_type;
    assert_eq!(content_type.as_deref(), Some("application/json"));
    registry.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_ends_at_its_deadline() {
    let dir = PluginDir::new();
    let plugin = fixture(&dir, &["--max-calls", "2", "Test/Do"]);
    let registry = quiet(&dir).await;
    registry.load("Test/Do").await.unwrap();
    let late = async |method: &'static str, ms: u64| {
        let begin = Instant::now();
        let error = fault(registry.execute_with("Test/Do", method, "60000", within(ms)).await);
        assert_eq!(error.code, Code::DeadlineExceeded, "{method}: {error:?}");
        begin.elapsed().saturating_sub(Duration::from_millis(ms))
    };
    bound("deadline_of_a_sleeping_method_late_by", late("sleep", 100).await, Duration::from_millis(50));
    bound("deadline_of_a_blocking_method_late_by", late("block", 100).await, Duration::from_millis(50));
    // A stopped process answers nothing at all; the registry is the judge.
    plugin.signal(Signal::STOP);
    wait_until("every thread of it is stopped", LONG, || plugin.is_stopped());
    bound("deadline_of_a_stopped_process_late_by", late("echo", 200).await, Duration::from_millis(50));
    plugin.signal(Signal::CONT);
    registry.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_ends_when_its_plugin_dies() {
    let dir = PluginDir::new();
    let mut plugin = fixture(&dir, &["Test/Do"]);
    let registry = quiet(&dir).await;
    registry.load("Test/Do").await.unwrap();
    let file = dir.join("began");
    let calls: Vec<_> = (0..16)
        .map(|_| {
            let (registry, file) = (registry.clone(), file.clone());
            tokio::spawn(async move {
                registry.execute("Test/Do", "append", format!("{} began", file.display())).await.unwrap();
                let error = fault(registry.execute("Test/Do", "sleep", "60000").await);
                (error, Instant::now())
            })
        })
        .collect();
    wait_until("all calls began", LONG, || std::fs::read_to_string(&file).is_ok_and(|text| text.lines().count() == 16));
    goplug_tests::wait_for("the calls are under way", LONG, || async {
        (registry.inspect("Test/Do").await.unwrap().in_flight == 16).then_some(())
    })
    .await;
    let killed = Instant::now();
    plugin.kill();
    let mut worst = Duration::ZERO;
    for call in calls {
        let (error, ended) = call.await.unwrap();
        assert_eq!((error.code, error.ran), (Code::PluginGone, Ran::Unknown), "{error:?}");
        worst = worst.max(ended.saturating_duration_since(killed));
    }
    bound("calls_end_after_death", worst, Duration::from_millis(50));
    registry.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_call_is_cancelled_in_the_plugin() {
    let dir = PluginDir::new();
    let _plugin = fixture(&dir, &["Test/Do"]);
    let registry = quiet(&dir).await;
    registry.load("Test/Do").await.unwrap();
    let file = dir.join("note");
    let told = |text: &str| std::fs::read_to_string(&file).is_ok_and(|note| note == text);
    let (caller, body) = (registry.clone(), file.display().to_string());
    let call = tokio::spawn(async move { caller.execute("Test/Do", "read-one-and-wait", body).await });
    wait_until("the method has begun", LONG, || told("begun\n"));
    call.abort();
    wait_until("the method was cancelled", LONG, || told("begun\ncancelled\n"));
    registry.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_serial_method_runs_one_at_a_time_in_call_order() {
    let dir = PluginDir::new();
    let _plugin = fixture(&dir, &["Test/Do"]);
    let registry = quiet(&dir).await;
    registry.load("Test/Do").await.unwrap();
    let calls = (0..50).map(|n: u32| {
        let registry = registry.clone();
        tokio::spawn(async move { registry.execute("Test/Do", "serial", n.to_string()).await })
    });
    for (n, call) in calls.collect::<Vec<_>>().into_iter().enumerate() {
        assert_eq!(text(call.await.unwrap().unwrap()), n.to_string());
    }
    registry.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_calls_than_the_plugin_takes_wait_their_turn() {
    let dir = PluginDir::new();
    let _plugin = fixture(&dir, &["--max-calls", "4", "Test/Do"]);
    let registry = quiet(&dir).await;
    registry.load("Test/Do").await.unwrap();
    let calls = (0..64).map(|_| {
        let registry = registry.clone();
        tokio::spawn(async move { registry.execute("Test/Do", "sleep", "5").await })
    });
    for call in calls.collect::<Vec<_>>() {
        assert_eq!(text(call.await.unwrap().unwrap()), "slept");
    }
    registry.close().await;
}

/// The first process aborts in the call; the second attempt must meet its successor and nobody else.
#[tokio::test(flavor = "multi_thread")]
async fn only_an_idempotent_method_is_repeated_after_a_death() {
    for (method, repeated) in [("die-once", true), ("abort", false)] {
        let dir = PluginDir::new();
        let mut first = fixture(&dir, &["Test/Do"]);
        let registry = watching(&dir).await;
        loaded(&registry, "Test/Do").await;
        let note = dir.join("note");
        let call = {
            let (registry, note) = (registry.clone(), note.clone());
            tokio::spawn(async move {
                registry.execute_with("Test/Do", method, note.display().to_string(), within(15_000)).await
            })
        };
        first.wait(LONG);
        let mut second = fixture(&dir, &["Test/Do"]);
        let result = call.await.unwrap();
        if repeated {
            assert_eq!(text(result.unwrap().body), second.pid().to_string());
        } else {
            let error = fault(result);
            assert_eq!((error.code, error.ran), (Code::PluginGone, Ran::Unknown), "{error:?}");
            // Had it been repeated, the successor would have aborted too.
            loaded(&registry, "Test/Do").await;
            assert!(second.is_alive(), "a method that is not idempotent was repeated");
        }
        registry.close().await;
    }
}

/// Every call has its own body; whoever gets another body's bytes has somebody else's reply.
#[test]
fn a_reply_never_reaches_another_call_in_bad_weather() {
    goplug_tests::isolated("calls::a_reply_never_reaches_another_call_in_bad_weather", || {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let builder = builder.worker_threads(2).thread_keep_alive(Duration::from_millis(200)).enable_all();
        let runtime = builder.build().unwrap();
        runtime.block_on(calls_in_bad_weather());
    });
}

async fn calls_in_bad_weather() {
    let total = scaled(20_000, 1_000_000);
    let seed = seed("calls_in_bad_weather");
    let (behind, front) = (PluginDir::new(), PluginDir::new());
    let _plugin = fixture(&behind, &["Test/Do"]);
    let weather = Weather { seed, slice: 7, delay_percent: 1, delay: Duration::from_millis(2), ..Weather::default() };
    let proxy = Proxy::start(&front.join("proxy.sock"), &socket_in(&behind.join("TestDo.pconf")), weather);
    republish(&behind, front.path(), "TestDo.pconf", proxy.socket());
    let registry = quiet(&front).await;
    registry.load("Test/Do").await.unwrap();

    let baseline = goplug_tests::Baseline::now();
    let tasks = live_tasks();
    let next = Arc::new(AtomicU64::new(0));
    let tally = Arc::new([const { AtomicU64::new(0) }; 5]);
    let callers = (0..32_u64).map(|caller| {
        let (registry, next, tally) = (registry.clone(), Arc::clone(&next), Arc::clone(&tally));
        tokio::spawn(async move {
            let mut random = Random::new(seed ^ caller);
            while next.fetch_add(1, Ordering::Relaxed) < total {
                one_call(&registry, &mut random, &tally).await;
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.unwrap();
    }
    let [good, cancelled, late, hung, wrong] = [Fate::Good, Fate::Cancelled, Fate::Late, Fate::Hung, Fate::Wrong]
        .map(|fate| tally[fate as usize].load(Ordering::Relaxed));
    figure(
        "bad_weather_calls",
        format_args!("good {good} cancelled {cancelled} timed out {late} hung {hung} wrong {wrong}"),
        "0 hung, 0 wrong",
    );
    assert_eq!(good + cancelled + late + hung + wrong, total);
    assert_eq!((hung, wrong), (0, 0), "seed {seed}");
    // A tenth and a twentieth, less what chance takes off.
    assert!(cancelled > total * 9 / 100 && late > total * 4 / 100, "the weather was too good");
    assert_eq!(registry.inspect("Test/Do").await.unwrap().in_flight, 0, "a call that ended keeps its place");
    // The connections that the pool keeps are closed after a second without calls. The one that stays may be another one
    // than before the calls, and the pidfd of the first is kept: it names the process.
    baseline.with_descriptors(1).is_back();
    tasks_are_back(tasks).await;
    registry.close().await;
}

/// What became of a call.
#[derive(Clone, Copy)]
enum Fate {
    Good,
    Cancelled,
    /// It ended at its deadline, as it was meant to.
    Late,
    /// It ended, if at all, long after it should have.
    Hung,
    /// It was given bytes that are not its own.
    Wrong,
}

/// A tenth of the calls are cancelled for certain, a twentieth end at their deadline.
async fn one_call(registry: &goplug_registry::Registry, random: &mut Random, tally: &[AtomicU64; 5]) {
    let size = random.below(200);
    let body = random.bytes(16 + size);
    let what = random.below(100);
    let begin = Instant::now();
    // A hang is 20 times as late as a call may be.
    let hangs_after = Duration::from_secs(if deep() { 1 } else { 20 });
    let fate = if what < 12 {
        let pause = Duration::from_micros(random.below(3_000) as u64);
        // The last ones may have their reply by then. `once` is not idempotent: a cancelled one must not be seen again either.
        let (method, sent) = if what < 10 { ("sleep", "60000".into()) } else { ("once", body.clone()) };
        match tokio::time::timeout(pause, registry.execute("Test/Do", method, sent)).await {
            Ok(reply) if reply.as_ref().unwrap() == &body => Fate::Good,
            Ok(_) => Fate::Wrong,
            Err(_) => Fate::Cancelled,
        }
    } else if what < 17 {
        let deadline = Duration::from_millis(1 + random.below(5) as u64);
        let options = CallOptions { deadline: Some(deadline), ..CallOptions::default() };
        match registry.execute_with("Test/Do", "sleep", "60000", options).await {
            Ok(_) => Fate::Wrong,
            Err(error) => {
                assert_eq!(error.code, Code::DeadlineExceeded, "{error:?}");
                if begin.elapsed() > deadline + hangs_after { Fate::Hung } else { Fate::Late }
            }
        }
    } else {
        match registry.execute("Test/Do", "echo", body.clone()).await.unwrap() == body {
            true if begin.elapsed() > Duration::from_secs(30) => Fate::Hung,
            true => Fate::Good,
            false => Fate::Wrong,
        }
    };
    tally[fate as usize].fetch_add(1, Ordering::Relaxed);
}
