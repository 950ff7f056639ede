//! Calls over frames, by hand: the same promises as over HTTP.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use bytes::Bytes;
use goplug_pconf_schema::wire::frame::{HEADER_BYTES, Header, Kind, Meta, PATH, UPGRADE};
use goplug_plugin_impl::testing::InProcess;
use goplug_plugin_impl::{Code, Context, Error, Fault, Method, Plugin, PluginBuilder, Ran};
use tokio::sync::mpsc;

use crate::raw::PATIENCE;

/// What must not be held up by a slow method, and is bounded generously for busy machines.
const SOON: Duration = Duration::from_secs(1);

async fn start(make: impl FnOnce(PluginBuilder) -> PluginBuilder) -> InProcess {
    InProcess::start(|dir| make(Plugin::builder(dir).name("p"))).await.unwrap()
}

struct Frames {
    stream: UnixStream,
    last: u64,
}

#[derive(Debug)]
struct Frame {
    header: Header,
    payload: Vec<u8>,
}

fn ask_for_frames(plugin: &InProcess, fields: &str) -> (UnixStream, String) {
    let mut stream = UnixStream::connect(plugin.socket_path()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(format!("GET {PATH} HTTP/1.1\r\nHost: goplug\r\n{fields}\r\n").as_bytes()).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    (stream, String::from_utf8(head).unwrap())
}

fn asking() -> String {
    format!("Connection: keep-alive, Upgrade\r\nUpgrade: {UPGRADE}\r\n")
}

impl Frames {
    fn connect(plugin: &InProcess) -> Self {
        let (stream, head) = ask_for_frames(plugin, &asking());
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        Self { stream, last: 0 }
    }

    fn send(&mut self, header: Header, meta: &Meta<'_>, payload: &[u8]) {
        let mut encoded = Vec::new();
        meta.encode(&mut encoded);
        let header = Header { meta_bytes: encoded.len(), payload_bytes: payload.len(), ..header };
        self.stream.write_all(&[&header.encode()[..], &encoded, payload].concat()).unwrap();
    }

    fn request_within(&mut self, ms: u64, index: u16, body: &[u8]) -> u64 {
        self.last += 1;
        let new = Header::new(Kind::Request, self.last);
        self.send(Header { index, arg: ms, end: true, ..new }, &Meta::default(), body);
        self.last
    }

    fn request(&mut self, index: u16, body: &[u8]) -> u64 {
        self.request_within(30_000, index, body)
    }

    fn next(&mut self) -> Frame {
        let mut head = [0; HEADER_BYTES];
        self.stream.read_exact(&mut head).expect("no frame");
        let header = Header::decode(&head).unwrap();
        let mut payload = vec![0; header.payload_bytes];
        self.stream.read_exact(&mut payload).unwrap();
        Frame { header, payload }
    }

    /// The answer of a call that is answered next, with what is granted left out.
    fn answer(&mut self, id: u64) -> Result<Vec<u8>, Fault> {
        let mut body = Vec::new();
        loop {
            let Frame { header, payload } = self.next();
            if header.kind == Kind::Credit {
                continue;
            }
            assert_eq!(header.id, id, "{header:?}");
            match header.kind {
                Kind::Reply | Kind::Data => body.extend_from_slice(&payload),
                Kind::Error => return Err(Fault::from_problem(&payload).unwrap()),
                kind => panic!("{kind:?}"),
            }
            if header.end {
                return Ok(body);
            }
            let grant = payload.len() as u64;
            for call in [id, 0] {
                self.send(Header { arg: grant, ..Header::new(Kind::Credit, call) }, &Meta::default(), &[]);
            }
        }
    }

    fn call(&mut self, index: u16, body: &[u8]) -> Result<Vec<u8>, Fault> {
        let id = self.request(index, body);
        self.answer(id)
    }

    fn code(&mut self, index: u16, body: &[u8]) -> (Code, Ran) {
        self.call(index, body).map_err(|fault| (fault.code, fault.ran)).unwrap_err()
    }

    fn ping(&mut self) {
        self.send(Header { arg: 7, ..Header::new(Kind::Ping, 0) }, &Meta::default(), b"?");
        let pong = self.next();
        assert_eq!((pong.header.kind, pong.header.arg, &pong.payload[..]), (Kind::Pong, 7, &b"?"[..]));
    }
}

/// A blocking method that tells that it began, and returns when told to or when nobody waits any more.
struct Gate {
    begun: mpsc::UnboundedReceiver<()>,
    leave: std::sync::mpsc::Sender<()>,
}

fn gate() -> (Gate, impl Fn(&Context, Bytes) -> Result<String, Error> + Send + Sync) {
    let (begin, begun) = mpsc::unbounded_channel();
    let (leave, left) = std::sync::mpsc::channel();
    let left = Mutex::new(left);
    let method = move |cx: &Context, _: Bytes| {
        begin.send(()).unwrap();
        let limit = Instant::now() + PATIENCE;
        while Instant::now() < limit {
            if cx.is_cancelled() || left.lock().unwrap().recv_timeout(Duration::from_millis(1)).is_ok() {
                return Ok(format!("cancelled: {}", cx.is_cancelled()));
            }
        }
        panic!("nobody opens the gate");
    };
    (Gate { begun, leave }, method)
}

impl Gate {
    async fn begun(&mut self) {
        tokio::time::timeout(PATIENCE, self.begun.recv()).await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_method_answers_over_frames() {
    let plugin = start(|builder| {
        builder
            .method("sync", |cx, body: Bytes| {
                Ok(format!("{} {} {}", cx.method(), body.len(), cx.caller().unwrap_or("-")))
            })
            .method("panics", |_, _| -> Result<Bytes, Error> { panic!("out of paper") })
            .method_async("at once", |_, body| async move { Ok(body) })
            .method_async("later", |_, body| async move {
                tokio::time::sleep(Duration::from_millis(5)).await;
                Ok(body)
            })
            .method_stream("stream", |_, body, out| async move {
                for byte in body {
                    out.send(vec![byte; 300_000]).await?;
                }
                Ok(())
            })
            .method("fails", |_, _| -> Result<Bytes, _> { Err(Error::new(Code::MethodFailed, "no more ink")) })
            .method_async("panics later", |_, _| async {
                tokio::task::yield_now().await;
                if true { panic!("later") } else { Ok(Bytes::new()) }
            })
    })
    .await;
    let mut frames = Frames::connect(&plugin);
    for _ in 0..3 {
        assert_eq!(frames.call(0, b"abc").unwrap(), b"sync 3 -");
        assert_eq!(frames.code(1, b""), (Code::Panicked, Ran::Yes));
        assert_eq!(frames.call(2, b"abc").unwrap(), b"abc");
        assert_eq!(frames.call(3, b"abc").unwrap(), b"abc");
        let streamed = frames.call(4, b"abcdefgh").unwrap();
        assert!(streamed.len() == 2_400_000 && streamed.ends_with(&[b'h'; 300_000]), "{}", streamed.len());
        assert_eq!(frames.call(4, b"").unwrap(), b"");
        assert_eq!(frames.code(5, b""), (Code::MethodFailed, Ran::Yes));
        assert_eq!(frames.code(6, b""), (Code::Panicked, Ran::Yes));
        assert_eq!(frames.code(7, b""), (Code::NotFound, Ran::No));
    }
    let id = frames.request_within(0, 0, b"");
    let fault = frames.answer(id).unwrap_err();
    assert_eq!((fault.code, fault.ran), (Code::DeadlineExceeded, Ran::No));
    let id = frames.request_within(u64::MAX, 0, b"");
    assert_eq!(frames.answer(id).unwrap_err().code, Code::InvalidArgument);
    frames.last += 1;
    let header = Header { arg: 30_000, end: true, ..Header::new(Kind::Request, frames.last) };
    frames.send(header, &Meta { caller: Some("me"), ..Meta::default() }, b"");
    assert_eq!(frames.answer(frames.last).unwrap(), b"sync 0 me");
}

#[tokio::test]
async fn who_does_not_ask_for_frames_is_told_how() {
    let plugin = start(|builder| builder.method("m", |_, body| Ok(body))).await;
    let asked = |fields: String| {
        let socket = plugin.socket_path().to_owned();
        async move {
            let mut wire = crate::raw::Wire::connect(&socket).await;
            wire.ask(&format!("GET {PATH}"), &fields, "").await
        }
    };
    for fields in ["", "Connection: Upgrade\r\n", "Connection: Upgrade\r\nUpgrade: goplug-frames/9\r\n"] {
        let reply = asked(fields.to_owned()).await;
        assert_eq!(reply.problem(), (426, "invalid_argument".into(), "no".into()));
        assert!(reply.head.contains("Upgrade: goplug-frames/1\r\n"), "{}", reply.head);
    }
    let other = format!("{}Goplug-Epoch: {}\r\n", asking(), "0".repeat(32));
    assert_eq!(asked(other).await.problem(), (503, "unavailable".into(), "no".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_most_64_connections_speak_frames() {
    let plugin = start(|builder| builder.method("m", |_, body| Ok(body))).await;
    let mut all: Vec<_> = (0..64).map(|_| Frames::connect(&plugin)).collect();
    let (_, head) = ask_for_frames(&plugin, &asking());
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    for frames in &mut all {
        assert_eq!(frames.call(0, b"x").unwrap(), b"x");
    }
    drop(all.pop());
    let limit = Instant::now() + PATIENCE;
    while !ask_for_frames(&plugin, &asking()).1.starts_with("HTTP/1.1 101 ") {
        assert!(Instant::now() < limit, "the place is never free again");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_method_holds_up_nobody() {
    let (mut gate, slow) = gate();
    let plugin = start(|builder| builder.method("slow", slow).method("quick", |_, body| Ok(body))).await;
    let mut frames = Frames::connect(&plugin);
    let slow = frames.request(0, b"");
    gate.begun().await;
    let begin = Instant::now();
    frames.ping();
    assert_eq!(frames.call(1, b"x").unwrap(), b"x");
    assert!(begin.elapsed() < SOON, "{:?}", begin.elapsed());
    // The method has proved slow: another call of it does not hold up anybody either.
    let again = frames.request(0, b"");
    gate.begun().await;
    frames.ping();
    gate.leave.send(()).unwrap();
    gate.leave.send(()).unwrap();
    let mut both = [frames.next(), frames.next()].map(|frame| (frame.header.id, frame.payload));
    both.sort();
    assert_eq!(both, [slow, again].map(|id| (id, b"cancelled: false".to_vec())));
    assert_eq!(frames.call(1, b"x").unwrap(), b"x");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_reaches_the_method() {
    let (mut gate, slow) = gate();
    let (dropped, mut drops) = mpsc::unbounded_channel();
    let plugin = start(|builder| {
        builder.method("slow", slow).method_async("pending", move |_, _| {
            let dropped = Dropped(dropped.clone());
            async move {
                let _dropped = dropped;
                std::future::pending::<Result<Bytes, Error>>().await
            }
        })
    })
    .await;
    struct Dropped(mpsc::UnboundedSender<()>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.send(()).unwrap();
        }
    }
    let mut frames = Frames::connect(&plugin);
    for round in 0..2 {
        let id = frames.request(0, b"");
        gate.begun().await;
        frames.send(Header::new(Kind::Cancel, id), &Meta::default(), &[]);
        match frames.answer(id) {
            // In the second round the method runs elsewhere, and nobody waits until it has noticed.
            Ok(reply) => assert!(round == 0 && reply == b"cancelled: true"),
            Err(fault) => assert_eq!(fault.code, Code::Cancelled),
        }
    }
    let id = frames.request(1, b"");
    frames.ping();
    frames.send(Header::new(Kind::Cancel, id), &Meta::default(), &[]);
    assert_eq!(frames.answer(id).unwrap_err().code, Code::Cancelled);
    tokio::time::timeout(PATIENCE, drops.recv()).await.unwrap().unwrap();
    // The end of the connection is a cancel too.
    frames.request(0, b"");
    gate.begun().await;
    frames.request(1, b"");
    frames.ping();
    drop(frames);
    tokio::time::timeout(PATIENCE, drops.recv()).await.unwrap().unwrap();
    until(|| plugin.running().unwrap().in_flight() == 0).await;
}

/// What a method keeps of its call is not the next call's.
#[tokio::test(flavor = "multi_thread")]
async fn a_context_that_is_kept_stays_that_of_its_call() {
    let (tell, kept) = std::sync::mpsc::channel();
    let plugin = start(|builder| {
        let keep = tell.clone();
        let keeps = move |cx: &Context, _: Bytes| {
            let before = (cx.is_cancelled(), cx.remaining() > Duration::from_secs(5));
            _ = keep.send(cx.clone());
            Ok(format!("{before:?}"))
        };
        let looks = |cx: Context, _: Bytes| async move {
            Ok(format!("{:?}", (cx.is_cancelled(), cx.remaining() > Duration::from_secs(5))))
        };
        builder.method("keeps", keeps).method_async("looks", looks)
    })
    .await;
    let mut frames = Frames::connect(&plugin);
    for _ in 0..20 {
        assert_eq!(frames.call(1, b"").unwrap(), b"(false, true)");
        assert_eq!(frames.call(0, b"").unwrap(), b"(false, true)");
        let kept: Context = kept.recv_timeout(PATIENCE).unwrap();
        for _ in 0..2 {
            let short = frames.request_within(4_000, 1, b"");
            assert_eq!(frames.answer(short).unwrap(), b"(false, false)");
            assert_eq!((kept.method(), kept.is_cancelled()), ("keeps", true));
            assert!(kept.remaining() > Duration::from_secs(5));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_is_answered_when_its_time_is_up() {
    let (mut gate, slow) = gate();
    let plugin = start(|builder| builder.method("slow", slow)).await;
    let mut frames = Frames::connect(&plugin);
    for _ in 0..2 {
        let id = frames.request_within(50, 0, b"");
        gate.begun().await;
        match frames.answer(id) {
            // It looked at the clock itself, just in time.
            Ok(reply) => assert_eq!(reply, b"cancelled: true"),
            Err(fault) => assert_eq!((fault.code, fault.ran), (Code::DeadlineExceeded, Ran::Unknown)),
        }
    }
}

/// An async method may block as well, before it waits for anything and without looking at the clock.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_async_method_that_blocks_is_answered_for_when_its_time_is_up() {
    let (leave, left) = std::sync::mpsc::channel::<()>();
    let left = Mutex::new(left);
    let plugin = start(|builder| {
        builder.method_async("blocks", move |_, body| {
            left.lock().unwrap().recv_timeout(PATIENCE).unwrap();
            async move { Ok(body) }
        })
    })
    .await;
    let mut frames = Frames::connect(&plugin);
    let id = frames.request_within(50, 0, b"");
    let fault = frames.answer(id).unwrap_err();
    assert_eq!((fault.code, fault.ran), (Code::DeadlineExceeded, Ran::Unknown));
    leave.send(()).unwrap();
    leave.send(()).unwrap();
    assert_eq!(frames.call(0, b"the next").unwrap(), b"the next");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deactivation_waits_for_calls_and_cuts_them_off() {
    let (begin, mut begun) = mpsc::unbounded_channel();
    let (leave, left) = std::sync::mpsc::channel::<()>();
    let left = Mutex::new(left);
    let plugin = start(|builder| {
        builder.method("deaf", move |_, _| {
            begin.send(()).unwrap();
            left.lock().unwrap().recv_timeout(PATIENCE).unwrap();
            Ok("done")
        })
    })
    .await;
    let mut frames = Frames::connect(&plugin);
    let id = frames.request(0, b"");
    begun.recv().await.unwrap();
    let deactivation = plugin.deactivate(PATIENCE);
    let mut deactivation = std::pin::pin!(deactivation);
    let early = tokio::time::timeout(Duration::from_millis(50), &mut deactivation).await;
    assert!(early.is_err(), "{early:?}");
    assert_eq!(frames.code(0, b""), (Code::Unavailable, Ran::No));
    leave.send(()).unwrap();
    assert_eq!(frames.answer(id).unwrap(), b"done");
    assert_eq!(deactivation.await.unwrap().cancelled, 0);
    assert_eq!(frames.code(0, b""), (Code::WrongState, Ran::No));

    plugin.activate(serde_json::json!({})).await.unwrap();
    let id = frames.request(0, b"");
    begun.recv().await.unwrap();
    assert_eq!(plugin.deactivate(Duration::from_millis(1)).await.unwrap().cancelled, 1);
    let fault = frames.answer(id).unwrap_err();
    assert_eq!((fault.code, fault.ran), (Code::Unavailable, Ran::Unknown));
    leave.send(()).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_serial_method_runs_one_call_at_a_time_and_holds_up_nobody() {
    let (mut gate, slow) = gate();
    let plugin =
        start(|builder| builder.method(Method::new("slow").serial(), slow).method("quick", |_, body| Ok(body))).await;
    let mut frames = Frames::connect(&plugin);
    let first = frames.request(0, b"");
    gate.begun().await;
    let second = frames.request(0, b"");
    let late = frames.request_within(300, 0, b"");
    assert_eq!(frames.call(1, b"x").unwrap(), b"x");
    let fault = frames.answer(late).unwrap_err();
    assert_eq!((fault.code, fault.ran), (Code::DeadlineExceeded, Ran::No));
    assert!(gate.begun.try_recv().is_err(), "two calls at once");
    gate.leave.send(()).unwrap();
    assert_eq!(frames.answer(first).unwrap(), b"cancelled: false");
    gate.begun().await;
    gate.leave.send(()).unwrap();
    assert_eq!(frames.answer(second).unwrap(), b"cancelled: false");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_ends_the_connection_after_the_last_reply() {
    let (mut gate, slow) = gate();
    let mut plugin = start(|builder| builder.method("slow", slow)).await;
    let mut frames = Frames::connect(&plugin);
    let id = frames.request(0, b"");
    gate.begun().await;
    let leave = gate.leave;
    let stop = tokio::spawn(async move { plugin.stop(PATIENCE).await });
    leave.send(()).unwrap();
    assert_eq!(frames.answer(id).unwrap(), b"cancelled: false");
    let mut rest = Vec::new();
    frames.stream.read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty());
    stop.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_plugin_drops_its_connections() {
    let plugin = start(|builder| builder.method("m", |_, body| Ok(body))).await;
    let mut frames = Frames::connect(&plugin);
    assert_eq!(frames.call(0, b"x").unwrap(), b"x");
    drop(plugin);
    assert_eq!(frames.stream.read(&mut [0]).unwrap(), 0);
}

async fn until(is_so: impl Fn() -> bool) {
    let limit = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < limit, "it never is");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// The method is over, and another thread reads; what is left of its reply waits for credit and is not cut off.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_methods_large_reply_comes_whole() {
    let slow = |_: &Context, _: Bytes| {
        std::thread::sleep(Duration::from_millis(20));
        Ok::<_, Error>(vec![7; 1 << 20])
    };
    let plugin = start(|plugin| plugin.method("slow", slow).method("quick", |_: &Context, body: Bytes| Ok(body))).await;
    tokio::task::spawn_blocking(move || {
        let mut frames = Frames::connect(&plugin);
        let id = frames.request(0, b"");
        let first = frames.next();
        assert_eq!((first.header.kind, first.header.id, first.header.end), (Kind::Reply, id, false));
        // Whoever stands by for the slow method has long seen its end by the time that this is answered.
        let quick = frames.request(1, b"x");
        assert_eq!(frames.answer(quick).unwrap(), b"x");
        std::thread::sleep(Duration::from_millis(20));
        for call in [id, 0] {
            let grant = Header { arg: 1 << 20, ..Header::new(Kind::Credit, call) };
            frames.send(grant, &Meta::default(), &[]);
        }
        let rest = frames.answer(id).expect("the reply goes on");
        assert_eq!(first.payload.len() + rest.len(), 1 << 20);
    })
    .await
    .unwrap();
}

/// A method that is still reading when the connection ends does not take what came for everything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_whose_connection_ends_is_not_whole() {
    let (told, mut hears) = mpsc::unbounded_channel();
    let plugin = start(|builder| {
        builder.method_body_blocking("reads", move |_, mut body| {
            loop {
                let next = body.next_piece();
                told.send(next.clone().map(|piece| piece.map(|piece| piece.len()))).unwrap();
                if next?.is_none() {
                    return Ok("");
                }
            }
        })
    })
    .await;
    let mut next = async || tokio::time::timeout(PATIENCE, hears.recv()).await.unwrap().unwrap();
    let mut frames = Frames::connect(&plugin);
    let begins = Header { arg: 30_000, ..Header::new(Kind::Request, 1) };
    frames.send(begins, &Meta::default(), b"hello");
    assert_eq!(next().await.unwrap(), Some(5));
    drop(frames);
    assert_eq!(next().await.map_err(|fault| fault.code), Err(Code::Cancelled));
    let mut frames = Frames::connect(&plugin);
    frames.send(begins, &Meta::default(), b"hello");
    frames.send(Header { end: true, ..Header::new(Kind::Data, 1) }, &Meta::default(), b"");
    assert_eq!((next().await.unwrap(), next().await.unwrap()), (Some(5), None));
    assert_eq!(frames.answer(1).unwrap(), b"");
}
