//! The server against a registry that is written by hand.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;

use goplug_pconf_schema::wire::frame::{CALL_CREDIT, CONNECTION_CREDIT, HEADER_BYTES, Header, Kind, MAX_PAYLOAD_BYTES};
use goplug_pconf_schema::{Code, Ran};

use super::calls::{Calls, Event};
use super::*;
use crate::frame::far_end::{FarEnd, is_over_rings};
use crate::frame::input::{self, Input, Read};
use crate::frame::pipe::Pipe;
use crate::shm::{Offer, offer};

const PATIENCE: Duration = Duration::from_secs(30);
/// What must not wait for a slow handler; generous, because the machine may be busy.
const SOON: Duration = Duration::from_secs(1);
const MAX_BODY: usize = 3 << 20;
const MAX_CALLS: usize = 8;

/// What the methods do, by their places.
const ECHO: u16 = 0;
const GATE: u16 = 1;
const ELSEWHERE: u16 = 2;
const DROP: u16 = 3;
const PANIC: u16 = 4;
const STREAM: u16 = 5;
const HOLD: u16 = 6;
const NONE: u16 = 7;

struct Script {
    gate: Mutex<mpsc::Receiver<()>>,
    elsewhere: mpsc::Sender<(Bytes, Replier)>,
    held: mpsc::Sender<(Replier, Arc<Told>)>,
}

#[derive(Default)]
struct Told {
    is_cancelled: AtomicBool,
    late: Mutex<Option<Late>>,
}

impl Cancel for Told {
    fn cancel(&self) {
        self.is_cancelled.store(true, Ordering::SeqCst);
    }

    fn overrun(self: Arc<Self>, late: Late) {
        *self.late.lock().unwrap() = Some(late);
    }
}

impl FrameHandler for Script {
    fn max_body(&self, index: u16) -> Result<usize, Fault> {
        if index < NONE { Ok(MAX_BODY) } else { Err(Fault::new(Code::NotFound, "no such method")) }
    }

    fn call(&self, request: FrameCall<'_>, reply: Replier) -> Option<Answered> {
        match request.index {
            ECHO => return Some(reply.answer(request.body)),
            GATE => {
                let told = Arc::new(Told::default());
                reply.set_cancel(Arc::clone(&told) as Arc<dyn Cancel>);
                let _ = self.gate.lock().unwrap().recv_timeout(PATIENCE);
                let was_overrun = told.late.lock().unwrap().is_some();
                reply.reply(format!("overrun: {was_overrun}").into());
            }
            ELSEWHERE => self.elsewhere.send((request.body, reply)).unwrap(),
            DROP => {}
            PANIC => panic!("the handler panics"),
            STREAM => {
                let body = request.body;
                thread::spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                    runtime.block_on(async move {
                        for byte in body {
                            if reply.piece(vec![byte; 100_000].into()).await.is_err() {
                                return;
                            }
                        }
                        reply.finish();
                    });
                });
            }
            _ => {
                let told = Arc::new(Told::default());
                reply.set_cancel(Arc::clone(&told) as Arc<dyn Cancel>);
                self.held.send((reply, told)).unwrap();
            }
        }
        None
    }
}

struct Plugin {
    server: Arc<FrameServer>,
    peer: Peer,
    gate: mpsc::Sender<()>,
    held: mpsc::Receiver<(Replier, Arc<Told>)>,
}

pub(in crate::frame) struct Registry {
    pub(in crate::frame) stream: FarEnd,
    last: u64,
}

#[derive(Debug)]
pub(super) struct Frame {
    pub(super) header: Header,
    pub(super) payload: Vec<u8>,
}

/// This process.
pub(in crate::frame) fn peer() -> Peer {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { Peer::of(&tokio::net::UnixStream::pair().unwrap().0).unwrap() })
}

/// Connects to a server that has a place.
pub(in crate::frame) fn connect(server: &Arc<FrameServer>, peer: Peer, over_rings: bool, lends: bool) -> Registry {
    let (ours, theirs) = UnixStream::pair().unwrap();
    theirs.set_nonblocking(true).unwrap();
    server.upgrade(lends).expect("no place").call(theirs, Vec::new(), peer);
    let rings = over_rings.then(|| {
        ours.set_nonblocking(true).unwrap();
        let ours = Arc::new(ours.try_clone().unwrap());
        // On a thread of its own: the test may be inside a runtime.
        let offered = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async { offer(&ours).await.unwrap() })
        });
        let Offer::Taken(rings) = offered.join().unwrap() else { panic!("refused") };
        rings
    });
    Registry { stream: FarEnd::new(ours, rings), last: 0 }
}

impl Plugin {
    fn new() -> Self {
        let (gate, gated) = mpsc::channel();
        let (elsewhere, work) = mpsc::channel::<(Bytes, Replier)>();
        let (hold, held) = mpsc::channel();
        let work = Arc::new(Mutex::new(work));
        for _ in 0..2 {
            let work = Arc::clone(&work);
            thread::spawn(move || {
                loop {
                    let Ok((body, reply)) = work.lock().unwrap().recv() else { return };
                    reply.reply(body);
                }
            });
        }
        let script = Script { gate: Mutex::new(gated), elsewhere, held: hold };
        let limits = FrameLimits { max_calls: MAX_CALLS, max_connections: 2, ..FrameLimits::default() };
        Self { server: Arc::new(FrameServer::new(Arc::new(script), limits)), peer: peer(), gate, held }
    }

    fn connect(&self) -> Registry {
        connect(&self.server, self.peer.clone(), is_over_rings(module_path!()), false)
    }

    /// Waits until no connection is left.
    fn idle(&self) {
        let limit = Instant::now() + PATIENCE;
        while !self.server.is_empty() {
            assert!(Instant::now() < limit, "a connection does not end");
            thread::yield_now();
        }
    }
}

impl Registry {
    pub(super) fn send(&mut self, header: Header, payload: &[u8]) {
        let header = Header { payload_bytes: payload.len(), ..header };
        self.stream.write_all(&[&header.encode()[..], payload].concat()).unwrap();
    }

    fn begin(&mut self, index: u16, body: &[u8], end: bool) -> u64 {
        self.last += 1;
        self.send(Header { index, end, arg: 1_000, ..Header::new(Kind::Request, self.last) }, body);
        self.last
    }

    fn request(&mut self, index: u16, body: &[u8]) -> u64 {
        self.begin(index, body, true)
    }

    pub(super) fn grant(&mut self, id: u64, bytes: u64) {
        self.send(Header { arg: bytes, ..Header::new(Kind::Credit, id) }, &[]);
    }

    pub(super) fn next(&mut self) -> Frame {
        self.try_next().expect("no frame")
    }

    fn try_next(&mut self) -> Option<Frame> {
        let mut head = [0; HEADER_BYTES];
        self.stream.read_exact(&mut head).ok()?;
        let header = Header::decode(&head).unwrap();
        let mut payload = vec![0; header.meta_bytes + header.payload_bytes];
        self.stream.read_exact(&mut payload).ok()?;
        Some(Frame { header, payload: payload.split_off(header.meta_bytes) })
    }

    /// The answer of a call that is answered next; credit is granted for what comes.
    fn answer(&mut self, id: u64) -> Result<Vec<u8>, Fault> {
        let mut body = Vec::new();
        loop {
            let Frame { header, payload } = self.next();
            match header.kind {
                Kind::Credit => continue,
                Kind::Reply | Kind::Data => body.extend_from_slice(&payload),
                Kind::Error => return Err(Fault::from_problem(&payload).unwrap()),
                kind => panic!("{kind:?}: {}", String::from_utf8_lossy(&payload)),
            }
            assert_eq!(header.id, id, "{header:?}");
            if header.end {
                return Ok(body);
            }
            self.grant(id, payload.len() as u64);
            self.grant(0, payload.len() as u64);
        }
    }

    fn call(&mut self, index: u16, body: &[u8]) -> Result<Vec<u8>, Fault> {
        let id = self.request(index, body);
        self.answer(id)
    }

    fn code(&mut self, index: u16, body: &[u8]) -> (Code, Ran) {
        self.call(index, body).map_err(|fault| (fault.code, fault.ran)).unwrap_err()
    }

    pub(super) fn ping(&mut self) {
        self.send(Header::new(Kind::Ping, 0), b"?");
        let pong = self.next();
        assert_eq!((pong.header.kind, &pong.payload[..]), (Kind::Pong, &b"?"[..]), "{pong:?}");
    }

    /// The rule that was broken, after which the connection ends.
    pub(super) fn rule(&mut self) -> String {
        loop {
            let Frame { header, payload } = self.next();
            if header.kind == Kind::Close {
                assert!(self.try_next().is_none());
                return String::from_utf8(payload).unwrap();
            }
        }
    }
}

#[test]
fn calls_are_answered_from_wherever() {
    let plugin = Plugin::new();
    let mut registry = plugin.connect();
    for round in 0..50 {
        let body = format!("{round}");
        assert_eq!(registry.call(ECHO, body.as_bytes()).unwrap(), body.as_bytes());
        assert_eq!(registry.call(ELSEWHERE, body.as_bytes()).unwrap(), body.as_bytes());
    }
    assert_eq!(registry.code(DROP, b""), (Code::Internal, Ran::Unknown));
    assert_eq!(registry.code(PANIC, b""), (Code::Internal, Ran::Unknown));
    assert_eq!(registry.code(NONE, b""), (Code::NotFound, Ran::No));
    assert_eq!(registry.call(STREAM, b"").unwrap(), b"");
    registry.ping();
    drop(registry);
    plugin.idle();
}

/// Many calls at once, answered by several threads: each is answered once, with its own body.
#[test]
fn no_answer_is_lost_or_mixed_up() {
    let plugin = Plugin::new();
    let mut registry = plugin.connect();
    for round in 0..2_000_u64 {
        let methods = [ECHO, ELSEWHERE, ELSEWHERE, ECHO, ELSEWHERE, ELSEWHERE];
        let mut open: Vec<_> = methods.iter().map(|index| registry.request(*index, &round.to_le_bytes())).collect();
        while !open.is_empty() {
            let Frame { header, payload } = registry.next();
            if header.kind == Kind::Credit {
                continue;
            }
            assert_eq!((header.kind, header.end, &payload[..]), (Kind::Reply, true, &round.to_le_bytes()[..]));
            open.swap_remove(open.iter().position(|id| *id == header.id).expect("an answer to nothing"));
            registry.grant(0, 8);
        }
    }
}

#[test]
fn large_bodies_pass_both_ways_within_their_credit() {
    let plugin = Plugin::new();
    let mut registry = plugin.connect();
    let body: Vec<_> = (0..MAX_BODY).map(|at| u8::try_from(at % 251).unwrap()).collect();
    let mut parts = body.chunks(100_000);
    let id = registry.begin(ECHO, parts.next().unwrap(), false);
    let (mut credit, mut all) = (CALL_CREDIT - 100_000, CONNECTION_CREDIT - 100_000);
    while let Some(part) = parts.next() {
        let length = part.len() as u64;
        while credit.min(all) < length {
            let Header { kind, id: whose, arg, .. } = registry.next().header;
            assert_eq!(kind, Kind::Credit);
            if whose == 0 {
                all += arg
            } else {
                credit += arg
            }
            assert!(credit <= CALL_CREDIT && all <= CONNECTION_CREDIT, "more than was there at the beginning");
        }
        (credit, all) = (credit - length, all - length);
        registry.send(Header { end: parts.len() == 0, ..Header::new(Kind::Data, id) }, part);
    }
    let mut got = Vec::new();
    while got.len() < usize::try_from(CALL_CREDIT).unwrap() {
        let frame = registry.next();
        if frame.header.kind != Kind::Credit {
            got.extend_from_slice(&frame.payload);
        }
    }
    // Nothing but the PONG comes beyond the credit.
    registry.ping();
    registry.grant(id, CALL_CREDIT);
    got.extend_from_slice(&registry.answer(id).unwrap());
    assert!(got == body, "{} bytes came back", got.len());
    let streamed = registry.call(STREAM, &[1; 30]).unwrap();
    assert_eq!(streamed.len(), 3_000_000);
}

/// What waits in the outbox; it is empty afterwards.
fn written(calls: &mut Calls) -> Vec<(u64, usize)> {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let [ours, theirs] = [ours, theirs].map(|end| Pipe::new(Arc::new(end), None));
    let (mut input, mut found) = (Input::new(&[]), Vec::new());
    while !calls.outbox.is_empty() {
        calls.outbox.write_to(&ours).unwrap();
        while input.read_from(&theirs).unwrap() == Read::Some {
            while let Some(frame) = input.next_frame().unwrap() {
                found.push((frame.header.id, frame.payload.len()));
            }
        }
    }
    found
}

#[test]
fn large_replies_come_in_turn_and_small_ones_between_them() {
    let mut calls = Calls::new(MAX_CALLS, 4, false);
    let frame = |header| input::Frame { header, meta: Bytes::new(), payload: Bytes::new(), body: None, fd: None };
    for id in 1..=3 {
        let request = frame(Header { end: true, ..Header::new(Kind::Request, id) });
        assert!(matches!(calls.take(request, Instant::now(), |_| Ok(Intake::Whole(0))), Ok(Event::Nothing)));
        assert!(calls.ready.pop_back().is_some_and(|whole| whole.id == id));
    }
    let full = MAX_PAYLOAD_BYTES;
    for id in [1, 2] {
        calls.reply(id, vec![0; 4 * full].into());
        assert_eq!(written(&mut calls), [(id, full)], "the credit of a call");
    }
    for id in [0, 1, 2] {
        let grant = frame(Header { arg: 1 << 30, ..Header::new(Kind::Credit, id) });
        calls.take(grant, Instant::now(), |_| Ok(Intake::Whole(0))).unwrap();
    }
    assert_eq!(written(&mut calls), [(1, full), (1, full), (1, full), (2, full)], "no further than a mebibyte ahead");
    calls.reply(3, Bytes::from_static(b"small"));
    assert_eq!(written(&mut calls), [(2, full), (3, 5), (2, full)]);
    assert!(calls.is_empty());
}

#[test]
fn a_cancel_is_told_and_the_call_is_answered_all_the_same() {
    let plugin = Plugin::new();
    let mut registry = plugin.connect();
    let id = registry.request(HOLD, b"");
    let (reply, told) = plugin.held.recv_timeout(PATIENCE).unwrap();
    registry.send(Header::new(Kind::Cancel, id), &[]);
    registry.send(Header::new(Kind::Cancel, id), &[]);
    registry.ping();
    assert!(told.is_cancelled.load(Ordering::SeqCst));
    reply.reply(Bytes::from_static(b"done"));
    assert_eq!(registry.answer(id).unwrap(), b"done");
    registry.send(Header::new(Kind::Cancel, id), &[]);

    let id = registry.begin(ECHO, b"half", false);
    registry.send(Header::new(Kind::Cancel, id), &[]);
    let fault = registry.answer(id).unwrap_err();
    assert_eq!((fault.code, fault.ran), (Code::Cancelled, Ran::No));
    registry.send(Header { end: true, ..Header::new(Kind::Data, id) }, b"the rest");

    // A reply that waits for credit is not kept for nobody.
    let id = registry.request(STREAM, &[1; 20]);
    let mut came = 0;
    while came < CALL_CREDIT {
        came += registry.next().payload.len() as u64;
    }
    registry.send(Header::new(Kind::Cancel, id), &[]);
    registry.request(HOLD, b"");
    let (reply, told) = plugin.held.recv_timeout(PATIENCE).unwrap();
    drop(registry);
    plugin.idle();
    assert!(told.is_cancelled.load(Ordering::SeqCst), "the end of the connection is a cancel");
    reply.reply(Bytes::new());
}

#[test]
fn a_handler_that_takes_long_holds_up_nobody() {
    let plugin = Plugin::new();
    let mut registry = plugin.connect();
    for _ in 0..20 {
        let slow = registry.request(GATE, b"");
        let begin = Instant::now();
        registry.ping();
        assert_eq!(registry.call(ECHO, b"x").unwrap(), b"x");
        assert_eq!(registry.call(ELSEWHERE, b"x").unwrap(), b"x");
        let took = begin.elapsed();
        assert!(took < SOON, "{took:?}");
        plugin.gate.send(()).unwrap();
        assert_eq!(registry.answer(slow).unwrap(), b"overrun: true");
    }
}

#[test]
fn what_is_too_much_is_refused_and_the_connection_goes_on() {
    let plugin = Plugin::new();
    let mut registry = plugin.connect();
    let piece = vec![0; 200_000];
    let id = registry.begin(ECHO, &piece, false);
    let mut credit = CALL_CREDIT - 200_000;
    let fault = loop {
        while credit >= 200_000 {
            credit -= 200_000;
            registry.send(Header::new(Kind::Data, id), &piece);
        }
        let Frame { header, payload } = registry.next();
        match header.kind {
            Kind::Credit if header.id == id => credit += header.arg,
            Kind::Credit => {}
            _ => break Fault::from_problem(&payload).unwrap(),
        }
    };
    assert_eq!((fault.code, fault.ran), (Code::TooLarge, Ran::No));
    let held: Vec<_> = (0..MAX_CALLS)
        .map(|_| {
            registry.request(HOLD, b"");
            plugin.held.recv_timeout(PATIENCE).unwrap()
        })
        .collect();
    assert_eq!(registry.code(ECHO, b""), (Code::Overloaded, Ran::No));
    drop(held);
    for _ in 0..MAX_CALLS {
        assert_eq!(registry.next().header.kind, Kind::Error);
    }
    assert_eq!(registry.call(ECHO, b"x").unwrap(), b"x");
    let (_first, second) = (registry, plugin.connect());
    assert!(plugin.server.upgrade(false).is_none(), "there are two places");
    drop(second);
}

#[test]
fn a_broken_rule_is_named_and_ends_the_connection() {
    type Break = fn(&mut Registry);
    let rules: [(&str, Break); 14] = [
        ("ids count up", |it| it.send(Header { end: true, ..Header::new(Kind::Request, 0) }, b"")),
        ("ids count up", |it| {
            it.request(HOLD, b"");
            it.last = 0;
            it.request(HOLD, b"");
        }),
        ("never issued", |it| it.send(Header::new(Kind::Data, 7), b"x")),
        ("never issued", |it| it.send(Header::new(Kind::Data, 0), b"x")),
        ("never issued", |it| it.grant(7, 1)),
        ("never issued", |it| it.send(Header::new(Kind::Cancel, 7), b"")),
        ("only a plugin", |it| it.send(Header::new(Kind::Reply, 1), b"")),
        ("only a plugin", |it| it.send(Header::new(Kind::Error, 1), b"")),
        ("the limit is", |it| it.grant(0, u64::MAX)),
        ("the limit is", |it| it.grant(0, 1 << 41)),
        ("which has ended", |it| {
            let id = it.request(HOLD, b"");
            it.send(Header::new(Kind::Data, id), b"x");
        }),
        ("the credit is", |it| {
            // Less than a step, so that nothing is granted.
            let id = it.begin(HOLD, &[0; 100_000], false);
            it.send(Header::new(Kind::Data, id), &vec![0; MAX_PAYLOAD_BYTES]);
        }),
        ("type 99", |it| {
            let mut bytes = Header::new(Kind::Ping, 0).encode();
            bytes[4] = 99;
            it.stream.write_all(&bytes).unwrap();
        }),
        ("metadata", |it| {
            let header = Header { meta_bytes: 2, end: true, ..Header::new(Kind::Request, 1) };
            it.stream.write_all(&[&header.encode()[..], &[1, 1]].concat()).unwrap();
        }),
    ];
    let plugin = Plugin::new();
    for (number, (text, broken)) in rules.iter().enumerate() {
        let mut registry = plugin.connect();
        registry.ping();
        broken(&mut registry);
        let rule = registry.rule();
        assert!(rule.contains(text), "{number}: {rule}");
        drop(registry);
        plugin.idle();
    }
    let mut registry = plugin.connect();
    registry.send(Header::new(Kind::Close, 0), b"goodbye");
    assert!(registry.try_next().is_none());
}

/// Whoever sends and does not read is not read any more once enough waits for it, and loses nothing.
#[test]
fn a_peer_that_does_not_read_does_not_make_us_grow() {
    let plugin = Plugin::new();
    let mut registry = plugin.connect();
    let ping = Header { payload_bytes: 100_000, ..Header::new(Kind::Ping, 0) };
    let frame = [&ping.encode()[..], &vec![7; 100_000]].concat();
    registry.stream.set_write_timeout(Duration::from_millis(300));
    let mut sent = 0;
    let mut rest = 0;
    for _ in 0..1_000 {
        let mut frame = &frame[..];
        while !frame.is_empty() {
            match registry.stream.write(frame) {
                Ok(count) => frame = &frame[count..],
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::WouldBlock);
                    rest = frame.len();
                    break;
                }
            }
        }
        if rest > 0 {
            break;
        }
        sent += 1;
    }
    // 8 MiB in the outbox, up to 4 in its socket (the kernel counts double), and what our own socket holds.
    assert!(rest > 0 && sent < 200, "{sent} pings of 100 kB were taken and none was read");
    for _ in 0..sent {
        let pong = registry.next();
        assert_eq!((pong.header.kind, pong.payload.len()), (Kind::Pong, 100_000));
    }
    registry.stream.set_write_timeout(PATIENCE);
    registry.stream.write_all(&frame[frame.len() - rest..]).unwrap();
    assert_eq!(registry.next().payload.len(), 100_000);
    registry.ping();
}

/// Whatever comes, the connection ends when the registry's does, and nobody panics or hangs.
#[test]
fn garbage_ends_the_connection_at_worst() {
    let plugin = Plugin::new();
    let feed = |bytes: &[u8]| {
        let mut registry = plugin.connect();
        // It may close before it has read everything.
        let _ = registry.stream.write_all(bytes);
        let _ = registry.stream.shutdown(std::net::Shutdown::Write);
        let mut rest = Vec::new();
        let end = registry.stream.read_to_end(&mut rest);
        assert!(!end.is_err_and(|error| error.kind() == ErrorKind::WouldBlock), "it hangs after {bytes:?}");
        plugin.idle();
    };
    let request = Header { index: ECHO, end: true, payload_bytes: 40, arg: 9, ..Header::new(Kind::Request, 1) };
    let frame = [&request.encode()[..], &[7; 40]].concat();
    for bit in 0..HEADER_BYTES * 8 {
        let mut flipped = frame.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        feed(&[&flipped[..], &frame].concat());
    }
    for length in 0..frame.len() {
        feed(&frame[..length]);
    }
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    println!("seed {random:#x}");
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    for _ in 0..300 {
        let mut bytes = Vec::new();
        let mut id = 0;
        for _ in 0..next() % 40 {
            let kinds = [Kind::Request, Kind::Data, Kind::Cancel, Kind::Credit, Kind::Ping, Kind::Pong];
            let kind = kinds[usize::try_from(next() % 6).unwrap()];
            id += u64::from(kind == Kind::Request);
            let payload_bytes = usize::try_from(next() % 300).unwrap();
            let index = [ECHO, ELSEWHERE, DROP, STREAM, NONE][usize::try_from(next() % 5).unwrap()];
            let end = next() % 3 > 0;
            let arg = next() % 1_000;
            let whose = if kind == Kind::Request { id } else { id.saturating_sub(next() % 3) };
            let header = Header { index, end, payload_bytes, arg, ..Header::new(kind, whose) };
            bytes.extend_from_slice(&header.encode());
            bytes.extend((0..payload_bytes).map(|_| 7));
        }
        if next() % 2 == 0 {
            bytes.extend((0..next() % 200).map(|at| u8::try_from(at).unwrap()));
        }
        feed(&bytes);
    }
}

#[tokio::test]
async fn closing_waits_for_calls_and_then_ends_what_is_left() {
    let plugin = tokio::task::spawn_blocking(Plugin::new).await.unwrap();
    let (mut idle, mut busy) = (plugin.connect(), plugin.connect());
    let id = busy.request(HOLD, b"");
    let (reply, _) = plugin.held.recv_timeout(PATIENCE).unwrap();
    let server = Arc::clone(&plugin.server);
    let closing = tokio::spawn(async move { server.close(PATIENCE).await });
    tokio::task::spawn_blocking(move || assert!(idle.try_next().is_none())).await.unwrap();
    assert!(plugin.server.upgrade(false).is_none());
    reply.reply(Bytes::from_static(b"last"));
    tokio::task::spawn_blocking(move || {
        assert_eq!(busy.answer(id).unwrap(), b"last");
        assert!(busy.try_next().is_none());
    })
    .await
    .unwrap();
    closing.await.unwrap();

    let plugin = tokio::task::spawn_blocking(Plugin::new).await.unwrap();
    let mut busy = plugin.connect();
    busy.request(HOLD, b"");
    let (_reply, told) = plugin.held.recv_timeout(PATIENCE).unwrap();
    plugin.server.close(Duration::from_millis(1)).await;
    assert!(told.is_cancelled.load(Ordering::SeqCst) && plugin.server.is_empty());
    assert!(busy.try_next().is_none());
}
