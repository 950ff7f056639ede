//! Subscriptions against a registry that is written by hand.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, Weak};
use std::time::{Duration, Instant};

use super::*;
use crate::frame::server::tests::{Frame as Came, Registry, connect, peer};
use crate::frame::server::{Answered, FrameCall, FrameHandler, FrameLimits, FrameServer, Outlet, Replier};

const SOON: Duration = Duration::from_secs(10);
const MOST: usize = 4;

/// What one reader is to be given.
struct Topic {
    queue: Mutex<VecDeque<NextNotice>>,
    sent: AtomicU64,
    acknowledged: AtomicU64,
    outlet: Outlet,
    dropped: Arc<AtomicU64>,
}

impl Topic {
    fn notify(&self, notices: impl IntoIterator<Item = NextNotice>) {
        self.queue.lock().unwrap().extend(notices);
        self.outlet.arrived();
    }
}

impl NoticeSource for Topic {
    fn next(&self) -> NextNotice {
        let next = self.queue.lock().unwrap().pop_front().unwrap_or(NextNotice::Wait);
        if let NextNotice::Message { seq, .. } = next {
            self.sent.store(seq, Ordering::SeqCst);
        }
        next
    }

    fn acknowledge(&self, seq: u64) -> Result<(), Fault> {
        if seq > self.sent.load(Ordering::SeqCst) {
            return Err(Fault::new(Code::InvalidArgument, "never sent"));
        }
        self.acknowledged.fetch_max(seq, Ordering::SeqCst);
        Ok(())
    }
}

impl Drop for Topic {
    fn drop(&mut self) {
        self.dropped.fetch_add(1, Ordering::SeqCst);
    }
}

/// Name and position.
type Asked = (Option<String>, Option<(String, u64)>);

/// A plugin with one callback and one method, which echoes.
#[derive(Default)]
struct Board {
    topics: Mutex<Vec<Weak<Topic>>>,
    asked: Mutex<Vec<Asked>>,
    dropped: Arc<AtomicU64>,
}

impl FrameHandler for Board {
    fn max_body(&self, _: u16) -> Result<usize, Fault> {
        Ok(1 << 20)
    }

    fn call(&self, request: FrameCall<'_>, reply: Replier) -> Option<Answered> {
        Some(reply.answer(request.body))
    }

    fn subscribe(&self, request: FrameSubscribe<'_>, outlet: Outlet) -> Result<Arc<dyn NoticeSource>, Fault> {
        if request.index != 0 {
            return Err(Fault::new(Code::NotFound, "no such callback"));
        }
        let after = request.after.map(|(epoch, seq)| (epoch.to_owned(), seq));
        self.asked.lock().unwrap().push((request.name.map(str::to_owned), after));
        let (queue, sent, acknowledged) = Default::default();
        let topic = Arc::new(Topic { queue, sent, acknowledged, outlet, dropped: Arc::clone(&self.dropped) });
        self.topics.lock().unwrap().push(Arc::downgrade(&topic));
        Ok(topic)
    }
}

struct Plugin {
    board: Arc<Board>,
    server: Arc<FrameServer>,
}

impl Plugin {
    fn new() -> Self {
        let limits = FrameLimits { max_subscriptions: MOST, ..FrameLimits::default() };
        let board = Arc::new(Board::default());
        let handler = Arc::clone(&board) as Arc<dyn FrameHandler>;
        Self { server: Arc::new(FrameServer::new(handler, limits)), board }
    }

    /// A registry with one subscription, whose id is 1.
    fn subscribed(&self) -> (Registry, Arc<Topic>) {
        let mut registry = connect(&self.server, peer(), crate::frame::far_end::is_over_rings(module_path!()), false);
        registry.send(Header::new(Kind::Subscribe, 1), b"x");
        registry.expect(Kind::Subscribe, 1);
        let topic = self.board.topics.lock().unwrap().last().unwrap().upgrade().unwrap();
        (registry, topic)
    }
}

trait Expect {
    fn expect(&mut self, kind: Kind, id: u64) -> Came;
    fn refused(&mut self, id: u64) -> Code;
}

impl Expect for Registry {
    fn expect(&mut self, kind: Kind, id: u64) -> Came {
        let frame = self.next();
        let text = String::from_utf8_lossy(&frame.payload);
        assert_eq!((frame.header.kind, frame.header.id), (kind, id), "{frame:?}: {text}");
        frame
    }

    fn refused(&mut self, id: u64) -> Code {
        Fault::from_problem(&self.expect(Kind::Error, id).payload).unwrap().code
    }
}

fn message(seq: u64, length: usize) -> NextNotice {
    NextNotice::Message { seq, key: None, dropped: 0, data: vec![7; length].into() }
}

#[test]
fn what_arrives_is_written_by_whoever_notifies() {
    let plugin = Plugin::new();
    let (mut registry, topic) = plugin.subscribed();
    topic.notify([
        message(1, 3),
        NextNotice::Message { seq: 2, key: Some("k".into()), dropped: 4, data: Bytes::new() },
        NextNotice::Gap(3, 9),
    ]);
    let first = registry.expect(Kind::Event, 1);
    assert_eq!((first.header.arg, first.header.end, first.payload.len()), (1, true, 3));
    assert_eq!(registry.expect(Kind::Event, 1).header.meta_bytes, 4 + 1 + 4 + 8);
    let gap = registry.expect(Kind::Gap, 1);
    assert_eq!((gap.header.arg, gap.payload), (3, 9_u64.to_le_bytes().to_vec()));
    for (seq, problem) in [(2, None), (3, Some(Code::InvalidArgument)), (1, None)] {
        registry.send(Header { arg: seq, ..Header::new(Kind::Ack, 1) }, b"");
        let answer = registry.expect(Kind::Ack, 1);
        assert_eq!(answer.header.arg, seq);
        assert_eq!(Fault::from_problem(&answer.payload).map(|fault| fault.code), problem);
    }
    assert_eq!(topic.acknowledged.load(Ordering::SeqCst), 2);
    topic.notify([NextNotice::Replaced]);
    registry.expect(Kind::Unsubscribe, 1);
    registry.send(Header { arg: 1, ..Header::new(Kind::Ack, 1) }, b"");
    registry.ping();
}

/// Without credit nothing is sent; a message longer than it comes in parts.
#[test]
fn no_more_is_sent_than_was_granted() {
    let plugin = Plugin::new();
    let (mut registry, topic) = plugin.subscribed();
    topic.notify((1..=300).map(|seq| message(seq, 0)));
    for seq in 1..=256 {
        assert_eq!(registry.expect(Kind::Event, 1).header.arg, seq);
    }
    registry.ping();
    registry.send(Header { index: 45, ..Header::new(Kind::Credit, 1) }, b"");
    topic.notify([message(301, 1_200_000)]);
    for seq in 257..=300 {
        assert_eq!(registry.expect(Kind::Event, 1).header.arg, seq);
    }
    let mut length = 0;
    while length < 1 << 20 {
        let part = registry.expect(Kind::Event, 1);
        assert_eq!((part.header.arg, part.header.end), (301, false));
        length += part.payload.len();
    }
    registry.ping();
    registry.grant(1, 1 << 20);
    let last = registry.expect(Kind::Event, 1);
    assert_eq!((last.header.end, length + last.payload.len()), (true, 1_200_000));
}

#[test]
fn what_cannot_be_attached_is_refused_and_the_connection_goes_on() {
    let plugin = Plugin::new();
    let (mut registry, _topic) = plugin.subscribed();
    registry.send(Header { index: 1, ..Header::new(Kind::Subscribe, 2) }, b"x");
    assert_eq!(registry.refused(2), Code::NotFound);
    registry.send(Header::new(Kind::Subscribe, 3), b"\xff");
    assert_eq!(registry.refused(3), Code::InvalidArgument);
    registry.send(Header::new(Kind::Subscribe, 4), &[b'x'; 2000]);
    assert_eq!(registry.refused(4), Code::InvalidArgument);
    registry.send(Header { arg: 7, ..Header::new(Kind::Subscribe, 5) }, b"");
    registry.expect(Kind::Subscribe, 5);
    registry.send(Header { arg: 7, ..Header::new(Kind::Ack, 5) }, b"");
    let problem = registry.expect(Kind::Ack, 5).payload;
    assert_eq!(Fault::from_problem(&problem).unwrap().code, Code::InvalidArgument, "an observer acknowledges nothing");
    assert_eq!(*plugin.board.asked.lock().unwrap(), [(Some("x".into()), None), (None, None)]);
}

/// However many are asked for, no more are there than may be; the others are told.
#[test]
fn a_hundred_thousand_subscriptions_are_refused_one_by_one() {
    let plugin = Plugin::new();
    let (mut registry, _topic) = plugin.subscribed();
    let mut attached = 1;
    for hundred in 0..1_000 {
        let ids = hundred * 100 + 2..hundred * 100 + 102;
        let frames: Vec<u8> = ids
            .clone()
            .flat_map(|id| Header { payload_bytes: 0, ..Header::new(Kind::Subscribe, id) }.encode())
            .collect();
        std::io::Write::write_all(&mut registry.stream, &frames).unwrap();
        for id in ids {
            let frame = registry.next();
            assert_eq!(frame.header.id, id);
            attached += usize::from(frame.header.kind == Kind::Subscribe);
        }
    }
    assert_eq!(attached, MOST);
    // A place that is given back can be taken.
    registry.send(Header::new(Kind::Unsubscribe, 1), b"");
    registry.send(Header::new(Kind::Subscribe, 200_000), b"x");
    registry.expect(Kind::Subscribe, 200_000);
}

#[test]
fn a_broken_rule_is_named_and_ends_the_connection() {
    type Break = fn(&mut Registry);
    let rules: [(&str, Break); 10] = [
        ("ids count up", |it| it.send(Header::new(Kind::Subscribe, 1), b"")),
        ("ids count up", |it| it.send(Header::new(Kind::Subscribe, 0), b"")),
        ("never issued", |it| it.send(Header::new(Kind::Ack, 2), b"")),
        ("never issued", |it| it.send(Header::new(Kind::Unsubscribe, 0), b"")),
        ("only a plugin", |it| it.send(Header::new(Kind::Event, 1), b"")),
        ("only a plugin", |it| it.send(Header::new(Kind::Gap, 1), b"")),
        ("only a plugin", |it| it.send(Header::new(Kind::Drain, 1), b"")),
        ("credit of", |it| it.grant(1, 1 << 41)),
        ("credit of", |it| {
            (0..17).for_each(|_| it.send(Header { index: u16::MAX, ..Header::new(Kind::Credit, 1) }, b""))
        }),
        ("is no subscription", |it| {
            it.send(Header::new(Kind::Request, 2), b"not whole yet");
            it.send(Header::new(Kind::Ack, 2), b"");
        }),
    ];
    for (number, (text, broken)) in rules.iter().enumerate() {
        let plugin = Plugin::new();
        let (mut registry, topic) = plugin.subscribed();
        drop(topic);
        broken(&mut registry);
        let rule = registry.rule();
        assert!(rule.contains(text), "{number}: {rule}");
        let limit = Instant::now() + SOON;
        while plugin.board.dropped.load(Ordering::SeqCst) == 0 {
            assert!(Instant::now() < limit, "{number}: the subscription outlives its connection");
            std::thread::yield_now();
        }
    }
}

/// A portion at a time: a reply stands behind little of it, and a flood of replies does not keep it from its turn.
#[test]
fn neither_notifications_nor_replies_starve_the_other() {
    let mut calls = Calls::new(8, 64, false);
    let dropped = Arc::new(AtomicU64::new(0));
    for id in 1..=32 {
        let queue = Mutex::new((1..=200).map(|seq| message(seq, 5_000)).collect());
        let (sent, acknowledged, outlet) = (AtomicU64::new(0), AtomicU64::new(0), Outlet::nowhere());
        let topic = Topic { queue, sent, acknowledged, outlet, dropped: Arc::clone(&dropped) };
        let wanted = Wanted { id, index: 0, arg: 0, meta: Bytes::new(), name: Bytes::from_static(b"x") };
        calls.attach(&wanted, Arc::new(topic));
    }
    let portion = calls.outbox.len();
    assert!(portion < PORTION_BYTES + MAX_PAYLOAD_BYTES, "{portion} bytes wait");
    for _ in 0..100 {
        calls.pump();
    }
    assert_eq!(calls.outbox.len(), portion, "nothing is added before it has left");
    // Replies keep coming, and the socket takes a part of what waits.
    let mut turns = 0;
    for round in 0..200 {
        calls.outbox.push(Header::new(Kind::Reply, 99), &Meta::default(), vec![0; 100_000].into());
        let before = calls.outbox.len();
        let batch = std::mem::take(&mut calls.outbox);
        calls.subscriptions.writes(batch.len());
        calls.pump();
        assert!(calls.outbox.is_empty(), "round {round}: the portion is on its way, not gone");
        let rest = before.saturating_sub(150_000);
        calls.subscriptions.wrote(rest);
        calls.outbox.push(Header::new(Kind::Data, 99), &Meta::default(), vec![0; rest].into());
        let waits = calls.outbox.len();
        calls.pump();
        turns += usize::from(calls.outbox.len() > waits);
    }
    assert!((20..=150).contains(&turns), "{turns} portions in 200 rounds");
}

/// Random frames around a subscription: an error or none, and never more kept than may be. PURE.
#[test]
fn random_frames_of_a_registry_leave_bounds_as_they_are() {
    let mut random = 0x5eed_u64;
    let mut next = |limit: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % limit
    };
    let (mut broken, mut attached) = (0, 0);
    for _ in 0..2_000 {
        let mut calls = Calls::new(8, MOST, false);
        for step in 1..100 {
            let kinds = [Kind::Subscribe, Kind::Ack, Kind::Unsubscribe, Kind::Credit, Kind::Request, Kind::Cancel];
            let kind = kinds[usize::try_from(next(6)).unwrap()];
            let fresh = matches!(kind, Kind::Subscribe | Kind::Request) && next(50) > 0;
            let id = if fresh { step } else { next(step) };
            let header =
                Header { arg: next(1 << 20), index: u16::try_from(next(1 << 16)).unwrap(), ..Header::new(kind, id) };
            let meta = if next(10) == 0 { Bytes::from_static(&[8, 0, 1]) } else { Bytes::new() };
            let frame = Frame { header, meta, payload: Bytes::from_static(b"x"), body: None, fd: None };
            match calls.take(frame, Instant::now(), |_| Ok(crate::frame::server::Intake::Whole(10))) {
                Err(_) => {
                    broken += 1;
                    break;
                }
                Ok(Event::Subscribe(wanted)) => {
                    let queue = Mutex::new((1..=400).map(|seq| message(seq, 9_000)).collect());
                    let (sent, acknowledged, outlet) = (AtomicU64::new(0), AtomicU64::new(0), Outlet::nowhere());
                    calls.attach(
                        &wanted,
                        Arc::new(Topic { queue, sent, acknowledged, outlet, dropped: Arc::default() }),
                    );
                    attached += 1;
                }
                Ok(_) => {}
            }
            assert!(calls.subscriptions.open.len() <= MOST);
            assert!(calls.outbox.len() < PORTION_BYTES + MAX_PAYLOAD_BYTES + 100 * 1024, "{}", calls.outbox.len());
        }
    }
    assert!(broken > 100 && attached > 100, "{broken} {attached}");
}
