use std::collections::HashMap;
use std::future::Future;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use super::{FrameConnection, FrameReply, FrameRequest, non_blocking};
use crate::error::{Error, ErrorKind};
use crate::frame::Latency;
use crate::frame::far_end::{FarEnd, is_over_rings};
use crate::frame::input::{Input, Read};
use crate::frame::outbox::Outbox;
use bytes::Bytes;
use goplug_pconf_schema::wire::frame::{CALL_CREDIT, Header, Kind, MAX_PAYLOAD_BYTES, Meta};

const SOON: Duration = Duration::from_secs(10);
/// Of each task among many: every size of a body twice.
const CALLS: u64 = 16;
/// Methods of the peer.
const ECHO: u16 = 0;
const NEVER: u16 = 1;
const FAIL: u16 = 2;

#[derive(Default)]
struct Seen {
    requests: AtomicU64,
    cancels: AtomicU64,
}

/// What the peer still has to say to one call.
struct Answer {
    body: Bytes,
    credit: u64,
    begun: bool,
}

/// A plugin that echoes, grants what it took, and keeps to what it was granted.
fn peer(far: FarEnd) -> Arc<Seen> {
    let seen = Arc::new(Seen::default());
    let shared = Arc::clone(&seen);
    std::thread::spawn(move || {
        let (mut input, mut outbox) = (Input::new(&[]), Outbox::default());
        let mut bodies: HashMap<u64, (u16, Vec<u8>)> = HashMap::new();
        let mut answers: HashMap<u64, Answer> = HashMap::new();
        loop {
            while let Some(frame) = input.next_frame().unwrap() {
                let Header { id, end, arg, index, kind, .. } = frame.header;
                let push = |outbox: &mut Outbox, header| outbox.push(header, &Meta::default(), Bytes::new());
                match kind {
                    Kind::Request | Kind::Data => {
                        let body = bodies.entry(id).or_insert((index, Vec::new()));
                        body.1.extend_from_slice(&frame.payload);
                        for id in [id, 0] {
                            push(
                                &mut outbox,
                                Header { arg: frame.payload.len() as u64, ..Header::new(Kind::Credit, id) },
                            );
                        }
                        if end {
                            let (index, body) = bodies.remove(&id).unwrap();
                            shared.requests.fetch_add(1, Ordering::Relaxed);
                            match index {
                                ECHO => {
                                    _ = answers
                                        .insert(id, Answer { body: body.into(), credit: CALL_CREDIT, begun: false })
                                }
                                FAIL => outbox.push(
                                    Header { end: true, ..Header::new(Kind::Error, id) },
                                    &Meta::default(),
                                    body.into(),
                                ),
                                _ => {}
                            }
                        }
                    }
                    Kind::Credit if id > 0 => _ = answers.get_mut(&id).map(|answer| answer.credit += arg),
                    Kind::Cancel => {
                        shared.cancels.fetch_add(1, Ordering::Relaxed);
                        bodies.remove(&id);
                        answers.remove(&id);
                    }
                    _ => {}
                }
            }
            answers.retain(|id, answer| {
                loop {
                    let most = (MAX_PAYLOAD_BYTES as u64).min(answer.credit);
                    let part = answer.body.split_to(answer.body.len().min(usize::try_from(most).unwrap()));
                    let end = answer.body.is_empty();
                    if part.is_empty() && !end {
                        return true;
                    }
                    answer.credit -= part.len() as u64;
                    let kind = if answer.begun { Kind::Data } else { Kind::Reply };
                    answer.begun = true;
                    outbox.push(Header { end, ..Header::new(kind, *id) }, &Meta::default(), part);
                    if end {
                        return false;
                    }
                }
            });
            if outbox.write_to(&far.pipe).is_err() {
                return;
            }
            // However long it takes: nobody waits for this thread.
            far.sleep(true, !outbox.is_empty(), Duration::from_secs(3600)).unwrap();
            if !matches!(input.read_from(&far.pipe), Ok(Read::Some | Read::Empty)) {
                return;
            }
        }
    });
    seen
}

fn connected(latency: Latency) -> (Arc<FrameConnection>, Arc<Seen>) {
    let (connection, far) = pair(latency, || ());
    (Arc::new(connection), peer(far))
}

fn pair(latency: Latency, on_end: impl FnOnce() + Send + 'static) -> (FrameConnection, FarEnd) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    if !is_over_rings(module_path!()) {
        return (FrameConnection::new(ours, &[], latency, false, on_end).unwrap(), FarEnd::new(theirs, None));
    }
    let (near, far) = crate::shm::pair();
    let ours = non_blocking(ours).unwrap();
    (FrameConnection::over(ours, Some(near), &[], latency, false, on_end), FarEnd::new(theirs, Some(far)))
}

fn request(index: u16, body: impl Into<Bytes>) -> FrameRequest<'static> {
    // A test is short: what it leaks is little.
    let body = Box::leak(Box::new(body.into()));
    let deadline = Instant::now() + SOON;
    FrameRequest { index, deadline_ms: 1_000, deadline, meta: Meta::default(), body, max_reply_bytes: 64 << 20 }
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, what).await.expect("it hangs")
}

/// A body that says whose it is, of a size that depends on `n`.
fn body(task: u64, n: u64) -> Vec<u8> {
    let sizes = [0, 1, 64, 4_096, 9_000, 70_000, 300_000, 1 << 20];
    let mut body = format!("{task}/{n}/").into_bytes();
    let size = sizes[usize::try_from((task * 7 + n) % 8).unwrap()];
    body.resize(body.len() + size, u8::try_from((task + n) % 251).unwrap());
    body
}

async fn many_tasks(latency: Latency) {
    let (connection, seen) = connected(latency);
    let tasks: Vec<_> = (0..64)
        .map(|task| {
            let connection = Arc::clone(&connection);
            tokio::spawn(async move {
                for n in 0..CALLS {
                    let body = body(task, n);
                    let reply = soon(connection.call(request(ECHO, body.clone()))).await.unwrap();
                    assert!(reply == FrameReply::Bytes(body.into()), "task {task}, call {n}");
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(seen.requests.load(Ordering::Relaxed), 64 * CALLS);
}

#[tokio::test]
async fn many_calls_at_once_on_one_thread() {
    for latency in [Latency::Balanced, Latency::Low, Latency::Frugal] {
        many_tasks(latency).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_calls_at_once_on_several_threads() {
    for latency in [Latency::Balanced, Latency::Low, Latency::Frugal] {
        many_tasks(latency).await;
    }
}

/// Threads without a runtime and tasks share one connection; none waits for ever for another to read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocking_callers_and_tasks_share_a_connection() {
    let (connection, _) = connected(Latency::Balanced);
    let threads: Vec<_> = (0..4)
        .map(|thread| {
            let connection = Arc::clone(&connection);
            std::thread::spawn(move || {
                for n in 0..300 {
                    let body = body(thread, n);
                    let reply = connection.call_blocking(request(ECHO, body.clone())).unwrap();
                    assert!(reply == FrameReply::Bytes(body.into()), "thread {thread}, call {n}");
                }
            })
        })
        .collect();
    for n in 0..300 {
        let body = body(99, n);
        let reply = soon(connection.call(request(ECHO, body.clone()))).await.unwrap();
        assert!(reply == FrameReply::Bytes(body.into()));
    }
    for thread in threads {
        thread.join().unwrap();
    }
}

/// Calls are dropped at every stage, readers among them; whoever stays gets its own reply.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropped_calls_disturb_nobody() {
    let (connection, seen) = connected(Latency::Balanced);
    let tasks: Vec<_> = (0..16)
        .map(|task| {
            let connection = Arc::clone(&connection);
            tokio::spawn(async move {
                for n in 0..200 {
                    let body = body(task, n);
                    if (task + n) % 3 == 0 {
                        let mut call = Box::pin(connection.call(request(ECHO, body)));
                        let polls = n % 4;
                        std::future::poll_fn(|cx| {
                            _ = (0..polls).any(|_| call.as_mut().poll(cx).is_ready());
                            Poll::Ready(())
                        })
                        .await;
                        continue;
                    }
                    let reply = soon(connection.call(request(ECHO, body.clone()))).await.unwrap();
                    assert!(reply == FrameReply::Bytes(body.into()), "task {task}, call {n}");
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    for _ in 0..3 {
        assert!(tokio::time::timeout(Duration::from_millis(5), connection.call(request(NEVER, "x"))).await.is_err());
    }
    soon(connection.call(request(ECHO, ""))).await.unwrap();
    assert!(seen.cancels.load(Ordering::Relaxed) >= 3);
    let short = || FrameRequest { deadline: Instant::now() + Duration::from_millis(20), ..request(NEVER, "x") };
    let fault = connection.call_blocking(short()).unwrap_err();
    assert_eq!(fault.kind, ErrorKind::Deadline);
    // Long before the deadline of a call that began earlier.
    let ended = tokio::time::timeout(SOON / 4, async {
        tokio::select! {
            biased;
            done = connection.call(request(NEVER, "y")) => panic!("{done:?}"),
            done = connection.call(short()) => done.unwrap_err(),
        }
    });
    let fault = ended.await.unwrap();
    assert_eq!((fault.kind, fault.sent), (ErrorKind::Deadline, true));
}

#[tokio::test]
async fn a_problem_and_a_reply_beyond_the_limit_end_their_call_alone() {
    let (connection, seen) = connected(Latency::Balanced);
    let problem = soon(connection.call(request(FAIL, "{}"))).await.unwrap();
    assert_eq!(problem, FrameReply::Problem("{}".into()));
    let small = FrameRequest { max_reply_bytes: 500_000, ..request(ECHO, vec![1; 600_000]) };
    let fault = soon(connection.call(small)).await.unwrap_err();
    assert_eq!((fault.kind, fault.sent), (ErrorKind::TooLarge, true));
    soon(connection.call(request(ECHO, "x"))).await.unwrap();
    assert!(seen.cancels.load(Ordering::Relaxed) >= 1, "the plugin need not send the rest");
}

/// What the peer says, with what becomes of the call that waits; nothing else is ever answered on this connection.
#[tokio::test]
async fn whatever_breaks_the_rules_ends_the_connection_with_its_reason() {
    let frame = |header: Header| header.encode().to_vec();
    let end = |kind, id| frame(Header { end: true, ..Header::new(kind, id) });
    let cases: [(Vec<u8>, &str); 8] = [
        (end(Kind::Reply, 7), "call 7, which was never made"),
        (end(Kind::Data, 0), "call 0, which was never made"),
        (end(Kind::Request, 1), "for the registry alone"),
        (frame(Header::new(Kind::Cancel, 1)), "for the registry alone"),
        (frame(Header { arg: u64::MAX, ..Header::new(Kind::Credit, 0) }), "a grant of"),
        (frame(Header { arg: 1, ..Header::new(Kind::Credit, 5) }), "a grant of"),
        (vec![0xff; 64], "the rules of frames"),
        (
            [&frame(Header { payload_bytes: 4, ..Header::new(Kind::Close, 0) })[..], b"why\n"].concat(),
            "closed the connection: why",
        ),
    ];
    for (bytes, reason) in cases {
        let (connection, mut theirs) = pair(Latency::Balanced, || ());
        std::io::Write::write_all(&mut theirs, &bytes).unwrap();
        let fault = soon(connection.call(request(ECHO, "x"))).await.unwrap_err();
        assert_eq!((fault.kind, fault.sent), (ErrorKind::Protocol, true), "{reason}");
        assert!(fault.message.contains(reason), "{reason}: {fault}");
        assert!(!connection.is_open());
        let fault = soon(connection.call(request(ECHO, "x"))).await.unwrap_err();
        assert!(!fault.sent, "{reason}: what was not sent did not run");
    }
}

#[tokio::test]
async fn the_end_of_the_plugin_ends_every_call_and_says_what_was_sent() {
    let (connection, theirs) = pair(Latency::Balanced, || ());
    let connection = Arc::new(connection);
    rustix::net::sockopt::set_socket_send_buffer_size(&connection.shared.pipe.socket, 64 * 1024).unwrap();
    // More than the socket and the credit of a call take: what comes behind it is never sent.
    let tasks: Vec<_> = (0..40)
        .map(|_| {
            let connection = Arc::clone(&connection);
            tokio::spawn(async move { connection.call(request(ECHO, vec![0; 1 << 20])).await.unwrap_err() })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(50)).await;
    drop(theirs);
    let mut sent = [0; 2];
    for task in tasks {
        let fault: Error = soon(task).await.unwrap();
        assert!(matches!(fault.kind, ErrorKind::Closed | ErrorKind::Io), "{fault}");
        sent[usize::from(fault.sent)] += 1;
    }
    assert!(sent[0] > 0 && sent[1] > 0, "{sent:?}");
}

/// The keeper sees the end of a connection that nobody uses, and answers a ping on it.
#[tokio::test]
async fn an_idle_connection_is_still_read() {
    let (ended, end) = tokio::sync::oneshot::channel();
    let (connection, mut theirs) = pair(Latency::Balanced, move || ended.send(()).unwrap());
    let ping = Header { payload_bytes: 2, ..Header::new(Kind::Ping, 3) };
    std::io::Write::write_all(&mut theirs, &[&ping.encode()[..], b"hi"].concat()).unwrap();
    let pong = tokio::task::spawn_blocking(move || {
        let mut pong = [0; 34];
        std::io::Read::read_exact(&mut theirs, &mut pong).unwrap();
        pong
    });
    let pong = soon(pong).await.unwrap();
    assert_eq!((&pong[..32], &pong[32..]), (&Header { kind: Kind::Pong, ..ping }.encode()[..], &b"hi"[..]));
    soon(end).await.unwrap();
    assert!(!connection.is_open());
}

/// Counts how often it is woken.
#[derive(Default)]
struct Count(AtomicU64);

impl std::task::Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn a_reader_that_leaves_wakes_one_that_waits() {
    let (connection, mut theirs) = pair(Latency::Frugal, || ());
    let (mut first, mut second) =
        (Box::pin(connection.call(request(ECHO, "a"))), Box::pin(connection.call(request(ECHO, "b"))));
    let counts = [(); 2].map(|()| Arc::new(Count::default()));
    let wakers = counts.clone().map(std::task::Waker::from);
    assert!(first.as_mut().poll(&mut std::task::Context::from_waker(&wakers[0])).is_pending());
    assert!(second.as_mut().poll(&mut std::task::Context::from_waker(&wakers[1])).is_pending());
    let reply = Header { end: true, ..Header::new(Kind::Reply, 1) };
    std::io::Write::write_all(&mut theirs, &reply.encode()).unwrap();
    soon(async {
        while counts[0].0.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(first.as_mut().poll(&mut std::task::Context::from_waker(&wakers[0])).is_ready());
    assert_eq!(counts[1].0.load(Ordering::Relaxed), 1, "the other one reads on");
}

/// Who waits for room in a socket is woken by room, and by nothing else.
#[tokio::test]
async fn a_full_socket_wakes_nobody() {
    for latency in [Latency::Balanced, Latency::Low, Latency::Frugal] {
        let (connection, _theirs) = pair(latency, || ());
        let mut calls: Vec<_> = (0..8).map(|_| Box::pin(connection.call(request(ECHO, vec![0; 1 << 20])))).collect();
        let count = Arc::new(Count::default());
        let waker = Arc::clone(&count).into();
        for turn in 0..100 {
            assert!(calls[turn % 8].as_mut().poll(&mut std::task::Context::from_waker(&waker)).is_pending());
        }
        let before = count.0.load(Ordering::Relaxed);
        let reader = calls[0].as_mut();
        assert!(reader.poll(&mut std::task::Context::from_waker(&waker)).is_pending());
        assert_eq!(count.0.load(Ordering::Relaxed), before, "{latency:?}: the reader woke itself");
    }
}

#[test]
fn a_burst_of_calls_leaves_in_few_writes() {
    // On one thread 64 callers are woken by one read; what they say next leaves together.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (connection, seen) = connected(Latency::Balanced);
        let began = Instant::now();
        let tasks: Vec<_> = (0..64)
            .map(|_| {
                let connection = Arc::clone(&connection);
                tokio::spawn(async move {
                    for _ in 0..500 {
                        soon(connection.call(request(ECHO, vec![1; 64]))).await.unwrap();
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        let calls = seen.requests.load(Ordering::Relaxed);
        eprintln!("figure: {calls} calls in {:?}", began.elapsed());
    });
}
