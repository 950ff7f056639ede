//! Bodies that go piece by piece: in bounded memory, without standing in anybody's way, and with the endings of every call.

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use goplug_registry::{CallOptions, Code, Error, Exchange, Ran, Registry};
use goplug_tests::{
    LONG, PluginDir, bound, fast_paths, figure, isolated, peak_memory_reset, peak_memory_since, wait_for, wait_until,
};
use rustix::process::Signal;

use crate::support::{builder, fault, fixture, loaded, quiet, text, v0_plugin};

const PIECE: usize = 256 * 1024;

async fn start(dir: &PluginDir) -> Registry {
    let registry = quiet(dir).await;
    registry.load("Test/Do").await.unwrap();
    registry
}

async fn open(registry: &Registry, method: &str) -> Exchange {
    registry.exchange("Test/Do", method, CallOptions::default()).await.unwrap()
}

fn within(deadline: Duration) -> CallOptions {
    CallOptions { deadline: Some(deadline), ..CallOptions::default() }
}

/// Bytes that tell where in the body they are.
fn piece(at: usize, length: usize) -> Bytes {
    (at..at + length).map(|n| n.wrapping_mul(31).to_le_bytes()[1]).collect::<Vec<_>>().into()
}

/// Whether the method that was told to write there has ended without its caller.
fn is_cancelled(file: &Path) -> bool {
    std::fs::read_to_string(file).is_ok_and(|text| text.ends_with("cancelled\n"))
}

async fn rest(call: &mut Exchange) -> Result<Vec<u8>, Error> {
    let mut all = Vec::new();
    while let Some(piece) = call.next().await? {
        all.extend_from_slice(&piece);
    }
    Ok(all)
}

/// Sends `total` bytes and reads as many back, both at once; checks each of them.
async fn echo(call: Exchange, total: usize) {
    let (mut request, mut reply) = call.split();
    let send = async {
        for at in (0..total).step_by(PIECE) {
            request.send(piece(at, PIECE.min(total - at))).await.unwrap();
        }
        request.finish().await.unwrap();
    };
    let receive = async {
        let mut at = 0;
        while let Some(part) = reply.next().await.unwrap() {
            assert!(part == piece(at, part.len()), "other bytes at {at}");
            at += part.len();
        }
        assert_eq!(at, total);
    };
    tokio::join!(send, receive);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_and_a_reply_go_piece_by_piece() {
    let dir = PluginDir::new();
    let _plugin = fixture(&dir, &["Test/Do"]);
    let registry = start(&dir).await;
    for method in ["sum", "sum-blocking"] {
        for total in [0, 1, 100_000, 3 << 20] {
            let mut call = open(&registry, method).await;
            let mut sum = 0;
            for at in (0..total).step_by(PIECE) {
                let piece = piece(at, PIECE.min(total - at));
                sum += piece.iter().map(|byte| u64::from(*byte)).sum::<u64>();
                call.send(piece).await.unwrap();
            }
            call.finish().await.unwrap();
            assert_eq!(text(rest(&mut call).await.unwrap()), format!("{total} {sum}"), "{method}");
            assert!(call.next().await.unwrap().is_none(), "told again");
        }
        // Whoever has it whole calls it as any other.
        assert_eq!(text(registry.execute("Test/Do", method, vec![1; 1 << 20]).await.unwrap()), "1048576 1048576");
    }
    // Nor need a method know of it.
    let mut call = open(&registry, "echo").await;
    for word in ["one ", "two ", "three"] {
        call.send(word).await.unwrap();
    }
    call.finish().await.unwrap();
    assert_eq!(text(rest(&mut call).await.unwrap()), "one two three");
    let mut call = open(&registry, "pour").await;
    call.send("40").await.unwrap();
    call.finish().await.unwrap();
    assert!(rest(&mut call).await.unwrap() == vec![7; 40 * PIECE]);
    // A plugin may answer before it has heard everything, piece by piece, too.
    let mut call = open(&registry, "echo-pieces").await;
    for word in ["ping", "pong"] {
        call.send(word).await.unwrap();
        assert_eq!(call.next().await.unwrap().unwrap(), word);
    }
    call.finish().await.unwrap();
    assert!(call.next().await.unwrap().is_none());
    let mut call = open(&registry, "answer-early").await;
    for _ in 0..64 {
        call.send(vec![0; PIECE]).await.unwrap();
    }
    call.finish().await.unwrap();
    assert_eq!(text(rest(&mut call).await.unwrap()), "enough");
    registry.close().await;
}

/// Nothing tells its caller that a method answers while it reads.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_the_body_whole_calls_a_method_that_answers_while_it_reads() {
    let dir = PluginDir::new();
    let _plugin = fixture(&dir, &["Test/Do"]);
    for fast_paths in [false, fast_paths()] {
        let registry = builder(dir.path()).fast_paths(fast_paths).open().await.unwrap();
        registry.load("Test/Do").await.unwrap();
        for length in [0, 1, 100_000, 8 << 20] {
            let sent = piece(0, length);
            let answer = registry.execute_with("Test/Do", "echo-pieces", sent.clone(), within(LONG)).await.unwrap();
            assert!(answer.body == sent, "{length} bytes");
        }
        assert_eq!(text(registry.execute("Test/Do", "answer-early", vec![0; 8 << 20]).await.unwrap()), "enough");
        registry.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_is_told_as_of_any_call() {
    let dir = PluginDir::new();
    let _plugin = fixture(&dir, &["--max-request", "1000000", "Test/Do"]);
    let _old = v0_plugin(&dir, "Old", "Do", &[]);
    let registry = start(&dir).await;
    let nothing = registry.exchange("Test/Do", "nothing", CallOptions::default()).await;
    assert_eq!(fault(nothing).code, Code::NotFound);
    registry.load("Old/Do").await.unwrap();
    let method = registry.methods("Old/Do").unwrap().methods[0].name.clone();
    let whole = fault(registry.exchange("Old/Do", &method, CallOptions::default()).await);
    assert_eq!((whole.code, whole.ran), (Code::InvalidArgument, Ran::No), "{whole}");

    let mut call = open(&registry, "fail").await;
    call.send("no account 7").await.unwrap();
    call.finish().await.unwrap();
    let failed = fault(rest(&mut call).await);
    assert_eq!((failed.code, failed.ran, failed.message.as_str()), (Code::MethodFailed, Ran::Yes, "no account 7"));
    assert_eq!(fault(call.next().await).code, Code::MethodFailed, "told again");
    assert_eq!(fault(call.finish().await).code, Code::WrongState);

    // Too much, of which the method has read the beginning; and of one that is given it whole.
    for (method, ran) in [("sum", Ran::Yes), ("echo-pieces", Ran::Yes), ("echo", Ran::No)] {
        let (mut request, mut reply) = open(&registry, method).await.split();
        let send = async {
            for _ in 0..8 {
                _ = request.send(vec![0; PIECE]).await;
            }
            _ = request.finish().await;
        };
        let receive = async {
            loop {
                match reply.next().await {
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("{method} answered"),
                    Err(error) => return error,
                }
            }
        };
        let ((), error) = tokio::join!(send, receive);
        if method == "echo-pieces" && !fast_paths() {
            // Its reply has begun: that it is not whole is all that HTTP can say.
            assert_eq!((error.code, error.ran), (Code::PluginGone, Ran::Yes), "{error}");
        } else {
            assert_eq!((error.code, error.ran), (Code::TooLarge, ran), "{method}: {error}");
        }
    }
    assert_eq!(text(registry.execute("Test/Do", "echo", "x").await.unwrap()), "x");
    registry.close().await;
}

/// 64 MiB go to the plugin and come back in a few MiB of memory on either side.
#[test]
fn memory_is_bounded_by_credit() {
    isolated("bodies::memory_is_bounded_by_credit", || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let dir = PluginDir::new();
            let plugin = fixture(&dir, &["Test/Do"]);
            let registry = start(&dir).await;
            echo(open(&registry, "echo-pieces").await, 1 << 20).await;
            std::fs::write(format!("/proc/{}/clear_refs", plugin.pid()), "5").unwrap();
            let theirs = plugin.memory_bytes("VmRSS:");
            let before = peak_memory_reset();
            echo(open(&registry, "echo-pieces").await, 64 << 20).await;
            let (ours, theirs) = (peak_memory_since(before), plugin.memory_bytes("VmHWM:").saturating_sub(theirs));
            figure(
                "memory_of_64_mib_echoed",
                format_args!("{} KiB, plugin {} KiB", ours / 1024, theirs / 1024),
                "8 MiB",
            );
            assert!(ours <= 8 << 20 && theirs <= 8 << 20, "{ours} and {theirs} bytes");
            registry.close().await;
        });
    });
}

/// A method that does not read, and an application that does not, hold up their own calls and no others.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_holds_up_nobody_else() {
    let dir = PluginDir::new();
    let _plugin = fixture(&dir, &["Test/Do"]);
    let registry = start(&dir).await;
    registry.execute("Test/Do", "echo", "the connection is there").await.unwrap();
    let mut slow = Vec::new();
    for n in 0..32 {
        // More of them than the credit of a connection has room for.
        let mut call = open(&registry, "read-one-and-wait").await;
        call.send(dir.join(&format!("slow{n}")).to_str().unwrap().to_owned()).await.unwrap();
        let mut sent = 0;
        while let Ok(done) = tokio::time::timeout(Duration::from_millis(20), call.send(vec![0; PIECE])).await {
            done.unwrap();
            sent += PIECE;
        }
        assert!(sent <= 4 << 20, "{sent} bytes to a method that does not read");
        let mut pour = open(&registry, "pour").await;
        pour.send("100").await.unwrap();
        pour.finish().await.unwrap();
        let first = pour.next().await.unwrap().unwrap().len();
        slow.push((call, pour, first));
    }
    let mut slowest = Duration::ZERO;
    for n in 0..20 {
        let body = piece(n, 1 << 20);
        let began = Instant::now();
        assert!(registry.execute("Test/Do", "echo", body.clone()).await.unwrap() == body);
        slowest = slowest.max(began.elapsed());
    }
    bound("a_call_beside_32_that_nobody_reads", slowest, Duration::from_millis(50));
    echo(open(&registry, "echo-pieces").await, 4 << 20).await;
    // What was held up goes on.
    let (_call, mut pour, first) = slow.pop().unwrap();
    assert_eq!(first + rest(&mut pour).await.unwrap().len(), 100 * PIECE);
    registry.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_drops_a_call_in_the_middle_cancels_it() {
    let dir = PluginDir::new();
    let _plugin = fixture(&dir, &["Test/Do"]);
    let registry = start(&dir).await;
    for (n, which) in ["all", "request", "reply", "waiting"].iter().enumerate() {
        let file = dir.join(&format!("cancelled{n}"));
        let mut call = open(&registry, "read-one-and-wait").await;
        call.send(file.to_str().unwrap().to_owned()).await.unwrap();
        wait_until("the call is under way", LONG, || file.exists());
        assert_eq!(registry.inspect("Test/Do").await.unwrap().in_flight, 1);
        match *which {
            "all" => drop(call),
            "request" => {
                let (request, mut reply) = call.split();
                drop(request);
                let error = fault(reply.next().await);
                assert_eq!((error.code, error.ran), (Code::Cancelled, Ran::Unknown), "{error}");
            }
            "reply" => {
                let (mut request, reply) = call.split();
                drop(reply);
                wait_until("the method is told", LONG, || is_cancelled(&file));
                _ = request.send("x").await;
            }
            _ => {
                assert!(tokio::time::timeout(Duration::from_millis(20), call.next()).await.is_err());
                assert!(!is_cancelled(&file), "whoever only stops to wait may wait again");
                drop(call);
            }
        }
        wait_until("the method is told", LONG, || is_cancelled(&file));
        wait_for("its place is free", LONG, || async {
            (registry.inspect("Test/Do").await.unwrap().in_flight == 0).then_some(())
        })
        .await;
        echo(open(&registry, "echo-pieces").await, 1 << 20).await;
    }
    registry.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_ends_a_body_in_its_middle() {
    let dir = PluginDir::new();
    let _plugin = fixture(&dir, &["Test/Do"]);
    let registry = start(&dir).await;
    let began = Instant::now();
    let file = dir.join("late");
    let options = within(Duration::from_millis(200));
    let mut call = registry.exchange("Test/Do", "read-one-and-wait", options.clone()).await.unwrap();
    call.send(file.to_str().unwrap().to_owned()).await.unwrap();
    let late = loop {
        if let Err(error) = call.send(vec![0; PIECE]).await {
            break error;
        }
    };
    assert_eq!((late.code, late.ran), (Code::DeadlineExceeded, Ran::Unknown));
    assert_eq!(fault(call.next().await).code, Code::DeadlineExceeded);
    wait_until("the method is told", LONG, || is_cancelled(&file));
    // The other way round: one that is read for ever.
    let mut call = registry.exchange("Test/Do", "pour", options).await.unwrap();
    call.send("1000000000").await.unwrap();
    call.finish().await.unwrap();
    let late = fault(rest(&mut call).await);
    assert!(matches!(late.code, Code::DeadlineExceeded | Code::PluginGone), "{late}");
    assert_eq!(late.ran, Ran::Yes);
    bound("two_bodies_of_200_ms", began.elapsed(), Duration::from_millis(600));
    echo(open(&registry, "echo-pieces").await, 1 << 20).await;
    registry.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_plugin_dies_in_the_middle() {
    let dir = PluginDir::new();
    let plugin = fixture(&dir, &["Test/Do"]);
    let registry = builder(dir.path()).auto_discover(true).open().await.unwrap();
    loaded(&registry, "Test/Do").await;
    let mut unanswered = open(&registry, "read-one-and-wait").await;
    let mut answered = open(&registry, "echo-pieces").await;
    unanswered.send(dir.join("x").to_str().unwrap().to_owned()).await.unwrap();
    answered.send("x").await.unwrap();
    assert_eq!(answered.next().await.unwrap().unwrap(), "x");
    let began = Instant::now();
    let sending = tokio::spawn(async move {
        loop {
            if let Err(error) = unanswered.send(vec![0; PIECE]).await {
                return (error, fault(unanswered.next().await));
            }
        }
    });
    plugin.signal(Signal::KILL);
    let gone = fault(answered.next().await);
    assert_eq!((gone.code, gone.ran), (Code::PluginGone, Ran::Yes), "{gone}");
    let (sent, read) = tokio::time::timeout(LONG, sending).await.unwrap().unwrap();
    assert_eq!((sent.code, sent.ran), (Code::PluginGone, Ran::Unknown), "{sent}");
    assert_eq!((read.code, read.ran), (Code::PluginGone, Ran::Unknown), "{read}");
    bound("the_end_of_two_bodies", began.elapsed(), Duration::from_millis(50));
    drop(plugin);
    let _plugin = fixture(&dir, &["Test/Do"]);
    wait_for("another one serves", LONG, || async { registry.execute("Test/Do", "echo", "x").await.ok() }).await;
    echo(open(&registry, "echo-pieces").await, 1 << 20).await;
    registry.close().await;
}

/// Both sides have more to write than the sockets take, in pieces, and neither waits for the other to read first.
#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_callers_with_pieces_both_ways_do_not_lock_up() {
    let dir = PluginDir::new();
    let _plugin = fixture(&dir, &["Test/Do"]);
    let registry = start(&dir).await;
    let callers: Vec<_> = (0..64)
        .map(|_| {
            let registry = registry.clone();
            tokio::spawn(async move {
                for _ in 0..4 {
                    echo(open(&registry, "echo-pieces").await, 1 << 20).await;
                }
            })
        })
        .collect();
    for caller in callers {
        tokio::time::timeout(LONG * 3, caller).await.expect("it locks up").unwrap();
    }
    registry.close().await;
}

/// An application that does something else between two pieces loses nothing, and what it has sent arrives.
#[tokio::test(flavor = "multi_thread")]
async fn an_application_may_take_its_time() {
    let dir = PluginDir::new();
    let _plugin = fixture(&dir, &["Test/Do"]);
    let registry = start(&dir).await;
    let file = dir.join("arrived");
    let mut call = open(&registry, "echo-pieces").await;
    call.send("one").await.unwrap();
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(call.next().await.unwrap().unwrap(), "one", "the connection was not idle");
    call.finish().await.unwrap();
    assert!(call.next().await.unwrap().is_none());
    let mut call = open(&registry, "append").await;
    call.send(format!("{} ", file.display())).await.unwrap();
    call.send(vec![b'x'; 2 << 20]).await.unwrap();
    call.finish().await.unwrap();
    // Nobody waits for the reply: what is left to send is sent all the same.
    tokio::task::spawn_blocking(move || wait_until("it arrived", LONG, || file.exists())).await.unwrap();
    call.next().await.unwrap();
    registry.close().await;
}

/// The same from threads without a runtime.
#[test]
fn threads_send_and_read_pieces() {
    let dir = PluginDir::new();
    let plugin = fixture(&dir, &["Test/Do"]);
    let registry = builder(dir.path()).open_blocking().unwrap();
    registry.load("Test/Do").unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let call = registry.exchange("Test/Do", "echo-pieces", CallOptions::default()).unwrap();
            let (mut request, mut reply) = call.split();
            scope.spawn(move || {
                for at in (0..8 << 20).step_by(PIECE) {
                    request.send(piece(at, PIECE)).unwrap();
                }
                request.finish().unwrap();
            });
            scope.spawn(move || {
                let mut at = 0;
                while let Some(part) = reply.next_piece().unwrap() {
                    assert!(part == piece(at, part.len()), "other bytes at {at}");
                    at += part.len();
                }
                assert_eq!(at, 8 << 20);
            });
        }
    });
    let options = within(Duration::from_millis(50));
    let mut call = registry.exchange("Test/Do", "read-one-and-wait", options).unwrap();
    call.send(dir.join("late").to_str().unwrap().to_owned()).unwrap();
    let late = call.next_piece().unwrap_err();
    assert_eq!((late.code, late.ran), (Code::DeadlineExceeded, Ran::Unknown));
    let mut call = registry.exchange("Test/Do", "read-one-and-wait", CallOptions::default()).unwrap();
    call.send(dir.join("gone").to_str().unwrap().to_owned()).unwrap();
    let waits = std::thread::spawn(move || call.next_piece().unwrap_err());
    plugin.signal(Signal::KILL);
    assert_eq!(waits.join().unwrap().code, Code::PluginGone);
    registry.close();
}
