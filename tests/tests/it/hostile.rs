//! Everything that comes from the other side is hostile until checked.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use goplug_pconf_schema::Fault;
use goplug_pconf_schema::wire::event::CallbackStatus;
use goplug_pconf_schema::wire::frame::{HEADER_BYTES, Header, Kind};
use goplug_registry::admin::EventKind;
use goplug_registry::{CallOptions, Code, FeedItem, Ran, Registry};
use goplug_tests::http::Wire;
use goplug_tests::{
    LONG, PluginDir, Process, Random, Ready, bound, deep, figure, isolated, peak_memory_reset, peak_memory_since,
    scaled, seed,
};

use crate::support::{
    FIXTURE, builder, command, event_of, evil, fault, fixture, loaded, quiet, row, socket_in, text, watching,
};

/// No single malformed input may hold anything up for longer; a short run guards against hangs only.
fn no_hang() -> Duration {
    Duration::from_secs(if deep() { 1 } else { 20 })
}

fn short() -> CallOptions {
    CallOptions { deadline: Some(Duration::from_millis(500)), ..CallOptions::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_broken_reply_is_a_fault_with_a_code() {
    let dir = PluginDir::new();
    let _plugin = evil(&dir, "x", "good", None);
    let registry = quiet(&dir).await;
    registry.load("Evil/x").await.unwrap();
    use Code::{DeadlineExceeded, Internal, PluginGone, ProtocolError};
    for (method, codes) in [
        ("wrong-id", &[ProtocolError][..]),
        ("no-id", &[ProtocolError]),
        ("truncated", &[PluginGone]),
        ("truncated-chunks", &[PluginGone]),
        ("status-302", &[ProtocolError]),
        ("status-204", &[ProtocolError]),
        ("status-201", &[ProtocolError]),
        ("status-599", &[ProtocolError]),
        ("problem-without-code", &[ProtocolError]),
        ("problem-unknown-code", &[Internal]),
        ("problem-huge", &[ProtocolError, Code::TooLarge]),
        ("problem-deep", &[ProtocolError]),
        ("endless-head", &[ProtocolError]),
        ("many-fields", &[ProtocolError]),
        ("bare-lf", &[ProtocolError]),
        ("two-lengths", &[ProtocolError]),
        ("length-and-chunked", &[ProtocolError]),
        ("gzip", &[ProtocolError]),
        ("eof", &[PluginGone]),
        ("half-head", &[PluginGone]),
        ("not-http", &[ProtocolError]),
        ("length-negative", &[ProtocolError]),
        ("chunk-size-bad", &[ProtocolError]),
        ("silence", &[DeadlineExceeded]),
    ] {
        let begin = Instant::now();
        let error = fault(registry.execute_with("Evil/x", method, "body", short()).await);
        assert!(codes.contains(&error.code), "{method}: {error:?} instead of {codes:?}");
        assert!(begin.elapsed() < no_hang(), "{method} took {:?}", begin.elapsed());
        assert!(!error.message.contains('\u{1b}'), "{method}");
        assert_ne!(error.ran, Ran::No, "{method}: the request was sent: {error:?}");
        assert_eq!(text(registry.execute("Evil/x", "good", method).await.unwrap()), method, "after {method}");
    }
    registry.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_replies_that_are_allowed_are_taken_and_never_smuggle() {
    let dir = PluginDir::new();
    let _plugin = evil(&dir, "x", "good", None);
    let registry = quiet(&dir).await;
    registry.load("Evil/x").await.unwrap();
    for round in 0..20 {
        let body = format!("body {round}");
        let call = |method: &'static str| registry.execute("Evil/x", method, body.clone());
        for method in ["good", "byte-by-byte", "continue-first"] {
            assert_eq!(text(call(method).await.unwrap()), body, "{method}");
        }
        // The bytes behind these replies must not become the answer to the next call.
        assert_eq!(text(call("two-replies").await.unwrap()), "first");
        assert_eq!(text(call("good").await.unwrap()), body);
        // It ends with its connection: one that a crash cut off would look just like it.
        let error = fault(call("close-delimited").await);
        assert_eq!((error.code, error.ran), (Code::ProtocolError, Ran::Unknown), "{error:?}");
        assert_eq!(text(call("trailing").await.unwrap()), "good");
        assert_eq!(text(call("good").await.unwrap()), body);
        assert_eq!(text(registry.execute("Evil/x", "early-reply", vec![b'x'; 4 << 20]).await.unwrap()), "early");
        assert_eq!(text(call("good").await.unwrap()), body);
    }
    registry.close().await;
}

/// A plugin must say `Connection: close` before it closes. One that does not may take the next request with it: then that
/// call is told so, and the one after it works.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_closes_by_itself_costs_at_most_one_call() {
    let dir = PluginDir::new();
    let _plugin = evil(&dir, "x", "good", None);
    let registry = quiet(&dir).await;
    registry.load("Evil/x").await.unwrap();
    let mut lost = 0;
    for round in 0..200 {
        let body = round.to_string();
        assert_eq!(text(registry.execute("Evil/x", "close-after", body.clone()).await.unwrap()), body);
        match registry.execute("Evil/x", "good", body.clone()).await {
            Ok(reply) => assert_eq!(text(reply), body),
            Err(error) => {
                assert_eq!((error.code, error.ran), (Code::PluginGone, Ran::Unknown), "{error:?}");
                lost += 1;
                assert_eq!(text(registry.execute("Evil/x", "good", body.clone()).await.unwrap()), body);
            }
        }
    }
    goplug_tests::note("calls_lost_of_200_to_unannounced_closes", lost);
    registry.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_broken_hello_is_refused_and_says_why() {
    let dir = PluginDir::new();
    let _healthy = fixture(&dir, &["Test/Do"]);
    let cases = [
        ("garbage", Code::ProtocolError),
        ("not-json", Code::ProtocolError),
        ("404", Code::ProtocolError),
        ("500", Code::ProtocolError),
        ("deep", Code::ProtocolError),
        ("huge", Code::ProtocolError),
        ("wrong-namespace", Code::InvalidArgument),
        ("wrong-name", Code::InvalidArgument),
        ("no-epoch", Code::ProtocolError),
        ("bad-epoch", Code::ProtocolError),
        ("version-7", Code::Conflict),
        ("many-methods", Code::ProtocolError),
        ("bad-method-name", Code::ProtocolError),
        ("double-method", Code::ProtocolError),
        ("silence", Code::Unavailable),
        ("eof", Code::Unavailable),
        ("activate-eof", Code::PluginGone),
        ("activate-garbage", Code::ProtocolError),
        ("activate-fails", Code::MethodFailed),
        ("v0-404", Code::ProtocolError),
    ];
    let plugins: Vec<_> = cases.iter().map(|(hello, _)| evil(&dir, hello, hello, None)).collect();
    let registry = watching(&dir).await;
    loaded(&registry, "Test/Do").await;
    let (mut wrong, mut slowest) = (Vec::new(), Duration::ZERO);
    for (hello, code) in cases {
        let plugin = format!("Evil/{hello}");
        let begin = Instant::now();
        let error = fault(registry.load(&plugin).await);
        slowest = slowest.max(begin.elapsed());
        wrong.extend((error.code != code).then(|| format!("{hello}: {error:?} instead of {code}")));
        let row = row(&registry, &plugin).unwrap();
        let why = row.last_error.clone().unwrap_or_default();
        assert!(!why.is_empty(), "{hello}: {row:?}");
        assert_eq!(text(registry.execute("Test/Do", "echo", hello).await.unwrap()), hello, "the healthy one goes on");
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    // A plugin has 2 s to say hello.
    bound("slowest_broken_hello", slowest, Duration::from_secs(3));
    drop(plugins);
    registry.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_epochs_the_hello_counts() {
    let dir = PluginDir::new();
    let _plugin = evil(&dir, "x", "other-epoch", None);
    let registry = quiet(&dir).await;
    registry.load("Evil/x").await.unwrap();
    assert_eq!(registry.inspect("Evil/x").await.unwrap().epoch.as_deref(), Some("f".repeat(32).as_str()));
    registry.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_streams_are_opened_again_and_disturb_no_call() {
    let dir = PluginDir::new();
    let _plugin = evil(&dir, "x", "good", None);
    let registry = quiet(&dir).await;
    registry.load("Evil/x").await.unwrap();
    let broken = [
        "no-position",
        "other-epoch",
        "backwards",
        "twice",
        "bad-base64",
        "not-json",
        "endless-line",
        "closes",
        "garbage",
        "wrong-type",
        "status-500",
        "huge-gap",
    ];
    for callback in broken {
        let mut feed = registry.subscribe("Evil/x", callback, "reader").await.unwrap();
        let mut items = Vec::new();
        // A stream that goes on without end or error is left after a while; what matters is that nothing else suffers.
        while let Ok(Some(item)) = tokio::time::timeout(Duration::from_millis(300), feed.next()).await {
            let lost = matches!(item, FeedItem::Lost(_));
            items.push(item);
            if lost || items.len() == 10 {
                break;
            }
        }
        let seqs: Vec<_> = items
            .iter()
            .filter_map(|item| match item {
                FeedItem::Message(notice) => notice.position.as_ref().map(|position| position.seq),
                _ => None,
            })
            .collect();
        assert!(seqs.is_sorted() && seqs.windows(2).all(|two| two[0] != two[1]), "{callback}: {seqs:?}");
        assert_eq!(text(registry.execute("Evil/x", "good", callback).await.unwrap()), callback);
    }
    let mut feed = registry.subscribe("Evil/x", "good", "reader").await.unwrap();
    assert!(matches!(tokio::time::timeout(LONG, feed.next()).await.unwrap(), Some(FeedItem::Message(_))));
    registry.close().await;
}

#[test]
fn a_reply_beyond_the_limit_costs_no_more_than_the_limit() {
    isolated("hostile::a_reply_beyond_the_limit_costs_no_more_than_the_limit", || {
        let limit = 4 << 20;
        measured(limit, async |registry: &Registry| {
            for method in ["chunked-100mb", "declared-100mb"] {
                let before = peak_memory_reset();
                let error = fault(registry.execute("Evil/x", method, "").await);
                assert_eq!((error.code, error.ran), (Code::TooLarge, Ran::Yes), "{method}: {error:?}");
                let peak = peak_memory_since(before);
                figure(&format!("memory_of_{method}"), format_args!("{} KiB", peak / 1024), "4 MiB + 8 MiB");
                assert!(peak <= limit as u64 + (8 << 20), "{method}: {peak} bytes");
            }
        });
    });
}

#[test]
fn a_declared_length_costs_nothing() {
    isolated("hostile::a_declared_length_costs_nothing", || {
        // Even where such a reply would be allowed, memory grows only with what was received.
        measured(5 << 30, async |registry: &Registry| {
            registry.execute("Evil/x", "good", "warm").await.unwrap();
            let before = peak_memory_reset();
            let error = fault(registry.execute_with("Evil/x", "declared-4gb", "", short()).await);
            assert_eq!(error.code, Code::DeadlineExceeded, "{error:?}");
            let peak = peak_memory_since(before);
            figure("memory_of_declared_4gb", format_args!("{} KiB", peak / 1024), "1 MiB");
            assert!(peak <= 1 << 20, "{peak} bytes");
        });
    });
}

fn measured(limit: usize, body: impl AsyncFnOnce(&Registry)) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let dir = PluginDir::new();
        let _plugin = evil(&dir, "x", "good", None);
        let registry = builder(dir.path()).max_reply_bytes(limit).open().await.unwrap();
        registry.load("Evil/x").await.unwrap();
        body(&registry).await;
        registry.close().await;
    });
}

static PANICS: AtomicU64 = AtomicU64::new(0);

/// Runs `body` in a process of its own in which no thread may panic: a task that does takes only itself along, and nobody
/// would be told.
fn without_a_panic(test: &str, body: impl AsyncFnOnce()) {
    isolated(test, || {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANICS.fetch_add(1, Ordering::Relaxed);
            before(panic);
        }));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(body());
        // Whatever still runs ends here, and may panic too.
        drop(runtime);
        assert_eq!(PANICS.load(Ordering::Relaxed), 0, "panics");
    });
}

/// Feeds `count` inputs and makes a healthy call after each 100.
async fn storm(name: &str, registry: &Registry, mut input: impl AsyncFnMut(&mut Random)) {
    let (count, seed) = (scaled(400, 2_000), seed(name));
    let mut random = Random::new(seed);
    let (mut slowest, mut healthy) = (Duration::ZERO, Duration::ZERO);
    for n in 1..=count {
        let begin = Instant::now();
        input(&mut random).await;
        slowest = slowest.max(begin.elapsed());
        assert!(begin.elapsed() < no_hang(), "seed {seed}, input {n}: {:?}", begin.elapsed());
        if n % 100 == 0 {
            let begin = Instant::now();
            assert_eq!(
                text(registry.execute("Test/Do", "echo", "healthy").await.unwrap()),
                "healthy",
                "seed {seed}, after {n}"
            );
            healthy = healthy.max(begin.elapsed());
        }
    }
    bound(&format!("slowest_healthy_call_during_{name}"), healthy, Duration::from_millis(50));
    let panics = PANICS.load(Ordering::Relaxed);
    figure(name, format_args!("{count} inputs, {panics} panics, slowest {slowest:.0?}"), "0 panics, 0 hangs over 1 s");
}

#[test]
fn malformed_files() {
    without_a_panic("hostile::malformed_files", async || {
        let dir = PluginDir::new();
        let _plugin = fixture(&dir, &["Test/Do"]);
        let registry = watching(&dir).await;
        loaded(&registry, "Test/Do").await;
        let valid = br#"{ "Name": "NameOfPlugin", /* c */ "NameSpace": "Space", "Url": "unix://PluginUrl", // d
      "sock": "x.sock", "LazyLoad": true, "Protocol": 1, "Epoch": "0123456789abcdef0123456789abcdef", "Version": "1.2.3", "Pid": 7, "x": [1, {}], }"#;
        let mut n = 0;
        storm("malformed_files", &registry, async |random| {
            n += 1;
            dir.write(&format!("bad{}.pconf", n % 50), random.mutate(valid));
            if n % 10 == 0 {
                registry.rescan().await.unwrap();
            }
        })
        .await;
        // What still stands when nobody can be writing it any more is told of, and disturbs nobody.
        event_of(&mut registry.events(), EventKind::Invalid).await;
        registry.rescan().await.unwrap();
        assert_eq!(text(registry.execute("Test/Do", "echo", "healthy").await.unwrap()), "healthy");
        registry.close().await;
    });
}

#[test]
fn malformed_replies() {
    without_a_panic("hostile::malformed_replies", async || {
        let dir = PluginDir::new();
        let _plugin = fixture(&dir, &["Test/Do"]);
        let _evil = evil(&dir, "x", "good", None);
        let registry = watching(&dir).await;
        loaded(&registry, "Test/Do").await;
        loaded(&registry, "Evil/x").await;
        let valid: [&[u8]; 3] = [
            b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nGoplug-Call-Id: CALLID\r\nContent-Length: 5\r\n\r\nhello",
            b"HTTP/1.1 200 OK\r\nGoplug-Call-Id: CALLID\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n3\r\nabc\r\n0\r\nT: x\r\n\r\n",
            b"HTTP/1.1 422 No\r\nContent-Type: application/problem+json\r\nGoplug-Call-Id: CALLID\r\nContent-Length: 52\r\n\r\n{\"code\":\"method_failed\",\"ran\":\"yes\",\"data\":[1,\"x\"]}\n",
        ];
        storm("malformed_replies", &registry, async |random| {
            let reply = random.mutate(valid[random.clone().below(3)]);
            if let Ok(answer) = registry.execute_with("Evil/x", "raw", reply.clone(), short()).await {
                assert!(answer.body.len() <= reply.len());
            }
        })
        .await;
        registry.close().await;
    });
}

#[test]
fn malformed_hellos() {
    without_a_panic("hostile::malformed_hellos", async || {
        let dir = PluginDir::new();
        let _plugin = fixture(&dir, &["Test/Do"]);
        let registry = watching(&dir).await;
        loaded(&registry, "Test/Do").await;
        let (bad, file) = (PluginDir::new(), dir.join("hello"));
        std::fs::write(&file, "").unwrap();
        let _evil = evil(&bad, "x", "file", Some(&file));
        let looker = quiet(&bad).await;
        looker.rescan().await.unwrap();
        let body = r#"{"protocols":[1],"protocol":1,"features":[],"namespace":"Evil","name":"x","epoch":"0123456789abcdef0123456789abcdef","pid":3,"methods":[{"name":"a","deadlineMs":5,"serial":true}],"callbacks":[{"name":"c","class":"state"}],"limits":{"maxRequestBytes":9}}"#;
        let valid = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        storm("malformed_hellos", &registry, async |random| {
            // Half of the wounds hit the document alone, with a length that is right.
            let answer = if random.percent(50) {
                let body = random.mutate(body.as_bytes());
                [format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes(), &body].concat()
            } else {
                random.mutate(valid.as_bytes())
            };
            std::fs::write(&file, answer).unwrap();
            looker.look().await;
        })
        .await;
        looker.close().await;
        registry.close().await;
    });
}

#[test]
fn malformed_names() {
    without_a_panic("hostile::malformed_names", async || {
        let dir = PluginDir::new();
        let errors = dir.join("errors");
        let mut run = command(FIXTURE);
        run.arg(dir.path()).arg("Test/Do").stderr(std::fs::File::create(&errors).unwrap());
        let plugin = Process::start(&mut run, Ready::Line("ready"));
        let registry = watching(&dir).await;
        loaded(&registry, "Test/Do").await;
        let socket = socket_in(&dir.join("TestDo.pconf"));
        storm("malformed_names", &registry, async |random| {
            let name = random.mutate(b"/_goplug/methods/a%20b%2Fc%2Bd%25%C3%BC");
            let (lossy, request) =
                (text(&name), [b"POST ", &name[..], b" HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"].concat());
            let _ = registry.execute_with("Test/Do", &lossy, "", short()).await;
            let _ = registry.get(&lossy);
            let _ = registry.search(&lossy);
            // The plugin's side is as careful: whatever the request, an answer or the end, within the second.
            let mut wire = Wire::connect(&socket).unwrap();
            wire.read_timeout(no_hang()).unwrap();
            wire.send(&request).unwrap();
            wire.half_close().unwrap();
            if let Err(error) = wire.reply() {
                assert!(
                    !matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut),
                    "{lossy:?}: {error}"
                );
            }
        })
        .await;
        drop(plugin);
        let errors = std::fs::read_to_string(errors).unwrap();
        assert!(!errors.contains("panicked"), "the plugin: {errors}");
        registry.close().await;
    });
}

#[test]
fn malformed_events() {
    without_a_panic("hostile::malformed_events", async || {
        let dir = PluginDir::new();
        let _plugin = fixture(&dir, &["Test/Do"]);
        let file = dir.join("events");
        let _evil = evil(&dir, "x", "good", Some(&file));
        let registry = watching(&dir).await;
        loaded(&registry, "Test/Do").await;
        loaded(&registry, "Evil/x").await;
        let epoch = "0123456789abcdef0123456789abcdef";
        let valid = format!(
            ": hi\n\nid: {epoch}:1\nevent: message\ndata: {{\"dataBase64\":\"eA==\",\"key\":\"k\",\"dropped\":2}}\n\nevent: gap\ndata: {{\"from\":\"{epoch}:2\",\"to\":\"{epoch}:3\"}}\n\nevent: epoch\ndata: {{\"epoch\":\"{epoch}\",\"previous\":\"{epoch}\"}}\n\nid: {epoch}:4\nevent: message\ndata: {{\"dataBase64\":\"\"}}\n\n"
        );
        storm("malformed_events", &registry, async |random| {
            std::fs::write(&file, random.mutate(valid.as_bytes())).unwrap();
            let mut feed = registry.observe("Evil/x", "file", None).await.unwrap();
            // The stream ends by itself; the feed says so before it opens it again.
            while let Some(item) = tokio::time::timeout(no_hang(), feed.next()).await.expect("the end is told") {
                if matches!(item, FeedItem::Lost(_)) {
                    break;
                }
            }
        })
        .await;
        registry.close().await;
    });
}

/// A registry that subscribes to everything and nothing, and takes none of what it asked for, costs the plugin little and
/// its other callers no time.
#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_subscriber_over_frames_is_refused_and_bounded() {
    use goplug_registry::Code::{InvalidArgument, NotFound, Overloaded};
    let dir = PluginDir::new();
    let plugin = fixture(&dir, &["Test/Do"]);
    let registry = quiet(&dir).await;
    registry.load("Test/Do").await.unwrap();
    let mut wire = FrameWire::connect(&socket_in(&dir.join("TestDo.pconf")));
    let refused = |frame: &(Header, Vec<u8>)| Fault::from_problem(&frame.1).map(|fault| fault.code);
    wire.send(Header { index: 999, ..Header::new(Kind::Subscribe, 1) }, b"x");
    assert_eq!(refused(&wire.next()), Some(NotFound), "a callback that does not exist");
    wire.send(Header::new(Kind::Subscribe, 2), b"no spaces");
    assert_eq!(refused(&wire.next()), Some(InvalidArgument));
    wire.send(Header::new(Kind::Subscribe, 3), b"greedy");
    assert_eq!(wire.next().0.kind, Kind::Subscribe);
    wire.send(Header { arg: 5, ..Header::new(Kind::Ack, 3) }, b"");
    assert_eq!(refused(&wire.next()), Some(InvalidArgument), "what was never sent");
    let total = scaled(20_000, 100_000);
    let (mut attached, mut overloaded) = (1, 0);
    for id in 4..4 + total {
        wire.send(Header::new(Kind::Subscribe, id), format!("s{id}").as_bytes());
        let answer = wire.next();
        attached += u64::from(answer.0.kind == Kind::Subscribe);
        overloaded += u64::from(refused(&answer) == Some(Overloaded));
    }
    assert_eq!((attached, overloaded), (64, total - 63), "at most 64 for each callback");
    // It also listens to what nobody is waited for, and reads nothing of it.
    for observer in 0..200 {
        wire.send(Header { index: 3, ..Header::new(Kind::Subscribe, total + 4 + observer) }, b"");
        assert_eq!(wire.next().0.kind, Kind::Subscribe);
    }
    let begin = Instant::now();
    registry.execute("Test/Do", "notify", "lossy 1 20000").await.unwrap();
    bound("20000_notifications_to_200_that_do_not_read", begin.elapsed(), Duration::from_secs(15));
    let status = std::fs::read_to_string(format!("/proc/{}/status", plugin.pid())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    figure("plugin_memory_with_a_hostile_subscriber", format_args!("{} MiB", peak >> 10), "128 MiB");
    assert!(peak >> 10 < 128, "{peak} KiB");
    drop(wire);
    goplug_tests::wait_for("they are gone", LONG, || async {
        let list = registry.callbacks("Test/Do").await.unwrap().callbacks;
        let none = |callback: &CallbackStatus| {
            callback.observers == 0 && callback.subscriptions.iter().all(|subscription| !subscription.attached)
        };
        list.iter().all(none).then_some(())
    })
    .await;
    registry.close().await;
}

/// A frame connection by hand.
struct FrameWire(UnixStream);

impl FrameWire {
    fn connect(socket: &Path) -> Self {
        let mut stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream.set_write_timeout(Some(LONG)).unwrap();
        let upgrade = "GET /_goplug/frames HTTP/1.1\r\nHost: goplug\r\nConnection: Upgrade\r\nUpgrade: goplug-frames/1\r\n\
                       Goplug-Call-Id: 1\r\n\r\n";
        stream.write_all(upgrade.as_bytes()).unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", text(&head));
        Self(stream)
    }

    fn send(&mut self, header: Header, payload: &[u8]) {
        let header = Header { payload_bytes: payload.len(), ..header };
        self.0.write_all(&[&header.encode()[..], payload].concat()).unwrap();
    }

    fn next(&mut self) -> (Header, Vec<u8>) {
        let mut head = [0; HEADER_BYTES];
        self.0.read_exact(&mut head).unwrap();
        let header = Header::decode(&head).unwrap();
        let mut rest = vec![0; header.meta_bytes + header.payload_bytes];
        self.0.read_exact(&mut rest).unwrap();
        (header, rest.split_off(header.meta_bytes))
    }
}
