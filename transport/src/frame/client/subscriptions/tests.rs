//! Subscriptions against a plugin that is written by hand.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use goplug_pconf_schema::wire::frame::{
    HEADER_BYTES, Header, Kind, MAX_PAYLOAD_BYTES, Meta, NoticeMeta, SUBSCRIPTION_CREDIT, SUBSCRIPTION_MESSAGES,
};
use tokio::sync::oneshot;

use super::*;
use crate::frame::Latency;
use crate::frame::client::state::State;
use crate::frame::client::{FrameRequest, non_blocking};
use crate::frame::far_end::{FarEnd, is_over_rings};

const SOON: Duration = Duration::from_secs(10);
const MOST: usize = 4 << 20;

/// The plugin's end of a connection.
struct Plugin(FarEnd);

impl Plugin {
    fn send(&mut self, header: Header, payload: &[u8]) {
        self.0.write_all(&bytes(header, &NoticeMeta::default(), payload)).unwrap();
    }

    fn event(&mut self, id: u64, seq: u64, payload: &[u8]) {
        self.send(Header { end: true, arg: seq, ..Header::new(Kind::Event, id) }, payload);
    }

    /// The next frame that is not a ping.
    fn next(&mut self) -> (Header, Vec<u8>) {
        let mut head = [0; HEADER_BYTES];
        self.0.read_exact(&mut head).unwrap();
        let header = Header::decode(&head).unwrap();
        let mut rest = vec![0; header.meta_bytes + header.payload_bytes];
        self.0.read_exact(&mut rest).unwrap();
        (header, rest.split_off(header.meta_bytes))
    }

    fn expect(&mut self, kind: Kind) -> Header {
        let (header, payload) = self.next();
        assert_eq!(header.kind, kind, "{header:?}: {}", String::from_utf8_lossy(&payload));
        header
    }
}

fn bytes(header: Header, meta: &NoticeMeta<'_>, payload: &[u8]) -> Vec<u8> {
    let mut metadata = Vec::new();
    let header = Header { meta_bytes: meta.encode(&mut metadata), payload_bytes: payload.len(), ..header };
    [&header.encode()[..], &metadata, payload].concat()
}

fn pair() -> (FrameConnection, Plugin, oneshot::Receiver<()>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (ended, end) = oneshot::channel();
    let on_end = move || _ = ended.send(());
    if !is_over_rings(module_path!()) {
        let connection = FrameConnection::new(ours, &[], Latency::Balanced, false, on_end).unwrap();
        return (connection, Plugin(FarEnd::new(theirs, None)), end);
    }
    let (near, far) = crate::shm::pair();
    let ours = non_blocking(ours).unwrap();
    let connection = FrameConnection::over(ours, Some(near), &[], Latency::Balanced, false, on_end);
    (connection, Plugin(FarEnd::new(theirs, Some(far))), end)
}

fn to(name: Option<&str>) -> FrameAttach<'_> {
    FrameAttach { index: 3, name, after: None, max_message_bytes: MOST }
}

/// A subscription that is attached as the first thing on its connection: its id is 1.
async fn attached() -> (FrameConnection, Plugin, oneshot::Receiver<()>, FrameSubscription) {
    let (connection, mut plugin, end) = pair();
    plugin.send(Header::new(Kind::Ping, 0), b"the plugin may speak first");
    let answers = tokio::task::spawn_blocking(move || {
        plugin.expect(Kind::Subscribe);
        plugin.send(Header { index: 3, ..Header::new(Kind::Subscribe, 1) }, b"");
        plugin
    });
    let subscription = soon(connection.subscribe(to(Some("x")))).await.unwrap();
    let mut plugin = soon(answers).await.unwrap();
    plugin.expect(Kind::Pong);
    (connection, plugin, end, subscription)
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, what).await.expect("it hangs")
}

fn message(seq: u64, data: impl Into<Bytes>) -> FrameNotice {
    FrameNotice::Message { seq, key: None, dropped: 0, data: data.into() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_sent_comes_in_order_with_nobody_calling() {
    let (_connection, mut plugin, _end, mut subscription) = attached().await;
    plugin.event(1, 1, b"one");
    assert_eq!(soon(subscription.next()).await.unwrap(), message(1, "one"));
    let keyed = NoticeMeta { key: Some("a\nkey"), dropped: 7, epoch: None };
    let header = Header { end: true, arg: 5, ..Header::new(Kind::Event, 1) };
    plugin.0.write_all(&bytes(header, &keyed, b"")).unwrap();
    plugin.send(Header { arg: 6, ..Header::new(Kind::Gap, 1) }, &9_u64.to_le_bytes());
    let notice = FrameNotice::Message { seq: 5, key: Some("a\nkey".into()), dropped: 7, data: Bytes::new() };
    assert_eq!(soon(subscription.next()).await.unwrap(), notice);
    assert_eq!(soon(subscription.next()).await.unwrap(), FrameNotice::Gap(6, 9));
    plugin.event(1, 10, b"before the end");
    plugin.send(Header::new(Kind::Unsubscribe, 1), b"");
    assert_eq!(soon(subscription.next()).await.unwrap(), message(10, "before the end"));
    for _ in 0..2 {
        assert_eq!(soon(subscription.next()).await.unwrap(), FrameNotice::Replaced);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_an_observer_begins_is_said_and_a_refusal_comes_with_its_reason() {
    let (connection, mut plugin, _) = pair();
    let answers = tokio::task::spawn_blocking(move || {
        let (header, name) = plugin.next();
        plugin.send(Header { end: true, ..Header::new(Kind::Error, 1) }, b"{}");
        (header, name, plugin)
    });
    let observer = FrameAttach { after: Some(("0123", 41)), ..to(None) };
    let refusal = soon(connection.subscribe(observer)).await.unwrap_err();
    assert!(matches!(&refusal, FrameRefusal::Problem(document) if document == "{}"), "{refusal:?}");
    let (header, name, _plugin) = soon(answers).await.unwrap();
    assert_eq!((header.kind, header.index, header.id, header.arg), (Kind::Subscribe, 3, 1, 41));
    assert_eq!((header.meta_bytes, name.len()), (8, 0), "the epoch, and no name");
    assert!(connection.is_open(), "a refusal is its subscription's alone");
}

/// Each is answered by its own, also when nobody waits for the one before any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledgements_are_answered_in_turn() {
    let (_connection, mut plugin, _end, subscription) = attached().await;
    let acks = subscription.acknowledger();
    let mut given_up = Box::pin(acks.acknowledge(1));
    assert!(std::future::poll_fn(|cx| Poll::Ready(given_up.as_mut().poll(cx))).await.is_pending());
    drop(given_up);
    let answers = tokio::task::spawn_blocking(move || {
        for payload in [&b""[..], b"{}", b""] {
            let header = plugin.expect(Kind::Ack);
            plugin.send(header, payload);
        }
        plugin
    });
    assert!(matches!(soon(acks.acknowledge(2)).await, Err(FrameRefusal::Problem(document)) if document == "{}"));
    soon(acks.acknowledge(3)).await.unwrap();
    let mut plugin = soon(answers).await.unwrap();
    // One that is not answered ends with the subscription.
    let waits = acks.clone();
    let waits = tokio::spawn(async move { waits.acknowledge(4).await });
    tokio::task::spawn_blocking(move || {
        plugin.expect(Kind::Ack);
        plugin.send(Header::new(Kind::Drain, 1), b"");
    });
    assert!(matches!(soon(waits).await.unwrap(), Err(FrameRefusal::Lost(_))));
    drop(subscription);
    assert!(matches!(soon(acks.acknowledge(5)).await, Err(FrameRefusal::Lost(_))));
}

/// What is not taken is not granted again; what is taken is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_is_sent_no_more_than_it_has_room_for() {
    let (connection, mut plugin, _end, mut subscription) = attached().await;
    let count = u64::from(SUBSCRIPTION_MESSAGES);
    for seq in 1..=count {
        plugin.event(1, seq, &[1; 4096]);
    }
    // A ping that is answered tells that all before it was read; no credit came before the answer.
    plugin.send(Header::new(Kind::Ping, 0), b"");
    plugin.expect(Kind::Pong);
    let held = connection.shared.lock().listening.entry(1).unwrap().held_bytes();
    assert_eq!(held, usize::try_from(count).unwrap() * 4096);
    let (mut bytes, mut messages) = (0, 0);
    for seq in 1..=count {
        assert_eq!(soon(subscription.next()).await.unwrap(), message(seq, vec![1; 4096]));
    }
    while messages < u32::try_from(count).unwrap() {
        let credit = plugin.expect(Kind::Credit);
        assert_eq!(credit.id, 1);
        (bytes, messages) = (bytes + credit.arg, messages + u32::from(credit.index));
    }
    assert_eq!(bytes, count * 4096);
    plugin.event(1, count + 1, b"and on");
    assert_eq!(soon(subscription.next()).await.unwrap(), message(count + 1, "and on"));
}

/// A notification longer than all the credit passes, as nothing else waits; one that is too long ends its subscription
/// alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_notifications_pass_in_parts_up_to_the_limit() {
    let (connection, mut plugin, _end, mut subscription) = attached().await;
    let whole: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    let sent = whole.clone();
    let sends = tokio::task::spawn_blocking(move || {
        let (mut credit, mut parts) = (SUBSCRIPTION_CREDIT, sent.chunks(MAX_PAYLOAD_BYTES).peekable());
        while let Some(part) = parts.next() {
            while credit < part.len() as u64 {
                credit += plugin.expect(Kind::Credit).arg;
            }
            credit -= part.len() as u64;
            let end = parts.peek().is_none();
            plugin.send(Header { end, arg: 1, ..Header::new(Kind::Event, 1) }, part);
        }
        plugin
    });
    assert_eq!(soon(subscription.next()).await.unwrap(), message(1, whole));
    let mut plugin = soon(sends).await.unwrap();
    let sends = tokio::task::spawn_blocking(move || {
        // All that was granted was taken: at most one step of it was not granted again.
        let mut credit = SUBSCRIPTION_CREDIT / 2;
        loop {
            while credit < MAX_PAYLOAD_BYTES as u64 {
                let (header, _) = plugin.next();
                if header.kind == Kind::Unsubscribe {
                    return plugin;
                }
                credit += header.arg;
            }
            credit -= MAX_PAYLOAD_BYTES as u64;
            plugin.send(Header { arg: 2, ..Header::new(Kind::Event, 1) }, &[0; MAX_PAYLOAD_BYTES]);
        }
    });
    let refusal = soon(subscription.next()).await.unwrap_err();
    assert!(matches!(&refusal, FrameRefusal::Lost(error) if error.kind == ErrorKind::TooLarge), "{refusal:?}");
    let mut plugin = soon(sends).await.unwrap();
    plugin.event(1, 3, b"too late, and dropped");
    assert!(connection.is_open());
}

/// What the plugin says, and the rule that it breaks; then nothing is left of the connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_breaks_the_rules_ends_the_connection_with_its_reason() {
    type Say = fn(&mut Plugin);
    let cases: [(&str, Say); 16] = [
        ("no subscription", |it| it.event(7, 1, b"")),
        ("no subscription", |it| it.event(0, 1, b"")),
        ("no subscription", |it| it.event(2, 1, b"for a call")),
        ("no subscription", |it| it.send(Header::new(Kind::Drain, 9), b"")),
        ("at the wrong time", |it| it.send(Header::new(Kind::Subscribe, 1), b"")),
        ("at the wrong time", |it| it.send(Header::new(Kind::Error, 1), b"{}")),
        ("they count up", |it| it.event(1, 0, b"")),
        ("they count up", |it| (0..2).for_each(|n| it.event(1, 2 - n, b"backwards"))),
        ("they count up", |it| it.send(Header { arg: 5, ..Header::new(Kind::Gap, 1) }, &4_u64.to_le_bytes())),
        ("is no number", |it| it.send(Header { arg: 5, ..Header::new(Kind::Gap, 1) }, b"4")),
        ("which nobody made", |it| it.send(Header { arg: 1, ..Header::new(Kind::Ack, 1) }, b"")),
        ("more notifications than", |it| (1..=SUBSCRIPTION_MESSAGES).for_each(|n| it.event(1, n.into(), b""))),
        ("the credit is", |it| (1..=5).for_each(|n| it.event(1, n, &[0; MAX_PAYLOAD_BYTES]))),
        ("within another", |it| {
            it.send(Header { arg: 1, ..Header::new(Kind::Event, 1) }, b"");
            it.event(1, 2, b"");
        }),
        ("within a notification", |it| {
            it.send(Header { arg: 1, ..Header::new(Kind::Event, 1) }, b"");
            it.send(Header { arg: 2, ..Header::new(Kind::Gap, 1) }, &2_u64.to_le_bytes());
        }),
        ("metadata", |it| {
            let header = Header { meta_bytes: 2, end: true, arg: 1, ..Header::new(Kind::Event, 1) };
            it.0.write_all(&[&header.encode()[..], &[1, 1]].concat()).unwrap();
        }),
    ];
    for (number, (reason, say)) in cases.into_iter().enumerate() {
        let (connection, mut plugin, end, mut subscription) = attached().await;
        let connection = Arc::new(connection);
        let caller = Arc::clone(&connection);
        let call = tokio::spawn(async move {
            let meta = Meta::default();
            let deadline = std::time::Instant::now() + SOON;
            let body = &Bytes::new();
            let request = FrameRequest { index: 0, deadline_ms: 1, deadline, meta, body, max_reply_bytes: 1 };
            caller.call(request).await
        });
        let mut plugin = tokio::task::spawn_blocking(move || {
            plugin.expect(Kind::Request);
            say(&mut plugin);
            plugin
        })
        .await
        .unwrap();
        if reason.starts_with("more notifications") {
            plugin.event(1, u64::MAX, b"");
        }
        let error = soon(call).await.unwrap().unwrap_err();
        assert!(error.message.contains(reason), "{number}: {error}");
        let refusal = loop {
            match soon(subscription.next()).await {
                Ok(_) => {}
                Err(refusal) => break refusal,
            }
        };
        assert!(matches!(&refusal, FrameRefusal::Lost(error) if error.kind == ErrorKind::Protocol), "{refusal:?}");
        soon(end).await.unwrap();
    }
}

/// Somebody who listens keeps the connection; when nobody does it is idle like any other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_on_which_somebody_listens_is_not_idle() {
    let (connection, mut plugin, end, mut subscription) = attached().await;
    let (idle, mut end) = (Duration::from_millis(1_300), Box::pin(end));
    assert!(tokio::time::timeout(idle, &mut end).await.is_err(), "it was closed");
    plugin.event(1, 1, b"still there");
    assert_eq!(soon(subscription.next()).await.unwrap(), message(1, "still there"));
    drop(subscription);
    plugin.expect(Kind::Unsubscribe);
    plugin.event(1, 2, b"for a subscription that is over: dropped");
    assert!(connection.is_open());
    soon(end).await.unwrap();
    assert!(!connection.is_open());
}

/// A plugin that answers no ping is silent, however open its socket is. PURE: the looks are the keeper's.
#[test]
fn a_plugin_that_says_nothing_for_three_looks_has_fallen_silent() {
    let mut state = State::new(false);
    let id = state.attach(&to(None)).unwrap();
    for (heard, is_over) in
        [(true, false), (false, false), (true, false), (false, false), (false, false), (false, true)]
    {
        if heard {
            assert!(!state.listening.concerns(&Header::new(Kind::Pong, 0)));
        }
        state.ask_for_life(&mut Vec::new());
        assert_eq!(state.listening.entry(id).unwrap().over.is_some(), is_over);
    }
}
