//! Segments against another side that is written by hand, and that does not always keep to the rules.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use goplug_pconf_schema::Fault;
use goplug_pconf_schema::wire::frame::{Header, Kind, Meta};
use goplug_pconf_schema::wire::memfd::{MAX_SEGMENT_BYTES, MAX_SEGMENTS, Place};
use rustix::fs::{MemfdFlags, SealFlags};

use crate::error::ErrorKind;
use crate::frame::far_end::{FarEnd, is_over_rings};
use crate::frame::input::{Frame, Input, Read};
use crate::frame::outbox::Outbox;
use crate::frame::server::tests::{connect, peer};
use crate::frame::{
    Answered, FrameCall, FrameConnection, FrameHandler, FrameLimits, FrameReply, FrameRequest, FrameServer, Latency,
    Replier, segment_for,
};
use crate::shm::{Segment, View, Window};

const PATIENCE: Duration = Duration::from_secs(30);
const BYTES: u64 = 128 * 1024;
/// What a reply may have.
const MOST: usize = 100_000;

/// The other side, which looks for descriptors from the beginning.
struct Far {
    end: FarEnd,
    input: Input,
    outbox: Outbox,
    /// What was given back before anybody asked.
    released: Vec<Header>,
}

impl Far {
    fn new(end: FarEnd) -> Self {
        let mut input = Input::new(&[]);
        input.take_descriptors();
        Self { end, input, outbox: Outbox::default(), released: Vec::new() }
    }

    fn send(&mut self, header: Header, payload: &[u8]) {
        self.outbox.push(header, &Meta::default(), Bytes::copy_from_slice(payload));
        self.flush();
    }

    fn send_with(&mut self, header: Header, fd: OwnedFd) {
        self.outbox.push_with_descriptor(header, Arc::new(fd));
        self.flush();
    }

    fn flush(&mut self) {
        while !self.outbox.is_empty() {
            // One that has closed reads no more.
            if self.outbox.write_to(&self.end.pipe).is_err() {
                return;
            }
            if !self.outbox.is_empty() {
                assert!(self.end.sleep(false, true, PATIENCE).unwrap(), "nobody reads");
            }
        }
    }

    /// The next frame; `None` at the end.
    fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.input.next_frame().unwrap() {
                return Some(frame);
            }
            match self.input.read_from(&self.end.pipe) {
                Ok(Read::Some) => {}
                Ok(Read::Empty) => assert!(self.end.sleep(true, false, PATIENCE).unwrap(), "nothing comes"),
                Ok(Read::End) | Err(_) => return None,
            }
        }
    }

    /// The next frame, of this kind.
    fn expect(&mut self, kind: Kind) -> Frame {
        let frame = self.next().expect("the connection has ended");
        assert_eq!(frame.header.kind, kind, "{frame:?}");
        frame
    }

    fn lend(&mut self) {
        self.send(Header::new(Kind::Lend, 0), &[]);
        let answer = self.expect(Kind::Borrow).header;
        assert_eq!((answer.index, answer.arg), (MAX_SEGMENTS, MAX_SEGMENT_BYTES));
    }
}

/// Memory of that length.
fn memfd(length: u64, seals: SealFlags) -> OwnedFd {
    let memfd = rustix::fs::memfd_create("x", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    rustix::fs::ftruncate(&memfd, length).unwrap();
    rustix::io::pwrite(&memfd, &[7; 4096], 0).unwrap();
    rustix::fs::fcntl_add_seals(&memfd, seals).unwrap();
    memfd
}

fn sealed() -> OwnedFd {
    memfd(BYTES, SealFlags::SHRINK | SealFlags::GROW)
}

fn segment(number: u64, bytes: u64) -> Header {
    Header { fd: true, arg: bytes, ..Header::new(Kind::Segment, number) }
}

fn placed(kind: Kind, id: u64) -> Header {
    Header { end: true, is_placed: true, arg: 1_000, ..Header::new(kind, id) }
}

fn place(segment: u64, offset: u64, length: u64) -> [u8; 24] {
    Place { segment, offset, length }.encode()
}

// ---- a registry, and a plugin by hand

fn registry(lends: bool) -> (Arc<FrameConnection>, Far) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let (near, far) = if is_over_rings(module_path!()) {
        let (near, far) = crate::shm::pair();
        (Some(near), Some(far))
    } else {
        (None, None)
    };
    let connection = FrameConnection::over(Arc::new(ours), near, &[], Latency::Balanced, lends, || ());
    (Arc::new(connection), Far::new(FarEnd::new(theirs, far)))
}

fn request(body: &Bytes) -> FrameRequest<'_> {
    let deadline = Instant::now() + PATIENCE;
    FrameRequest { index: 0, deadline_ms: 1_000, deadline, meta: Meta::default(), body, max_reply_bytes: MOST }
}

/// What comes of a call to a plugin that answers so.
async fn called(
    connection: &Arc<FrameConnection>,
    body: Bytes,
    mut far: Far,
    act: impl FnOnce(&mut Far, u64) + Send + 'static,
) -> (Result<FrameReply, crate::Error>, Far) {
    let plugin = std::thread::spawn(move || {
        let header = loop {
            let frame = far.next().expect("a request");
            match frame.header.kind {
                Kind::Request => break frame.header,
                Kind::Release => far.released.push(frame.header),
                _ => {}
            }
        };
        act(&mut far, header.id);
        far
    });
    let reply = tokio::time::timeout(PATIENCE, connection.call(request(&body))).await.expect("it hangs");
    (reply, tokio::task::spawn_blocking(|| plugin.join().unwrap()).await.unwrap())
}

fn view(reply: Result<FrameReply, crate::Error>) -> View {
    match reply {
        Ok(FrameReply::View(view)) => view,
        other => panic!("{other:?}"),
    }
}

/// A body is given back when its view is dropped, and its segment stands.
#[tokio::test(flavor = "multi_thread")]
async fn a_reply_is_given_back_when_its_view_is_dropped() {
    let (connection, far) = registry(true);
    let (reply, far) = called(&connection, Bytes::new(), far, |far, id| {
        far.lend();
        far.send_with(segment(1, BYTES), sealed());
        far.send(placed(Kind::Reply, id), &place(1, 8, 4000));
    })
    .await;
    let first = view(reply);
    assert!(first.clone().into_bytes() == vec![7; 4000]);
    let (reply, far) = called(&connection, Bytes::new(), far, |far, id| {
        far.send(placed(Kind::Reply, id), &place(1, 0, 4096));
    })
    .await;
    assert_eq!(view(reply).len(), 4096);
    let (reply, far) = called(&connection, Bytes::new(), far, |far, id| {
        let back = far.expect_release();
        assert_eq!((back.id, back.arg), (1, 1), "the second is, the first is not");
        // One that nobody waits for, and one that is too long.
        far.send(placed(Kind::Reply, id), &place(1, 0, MOST as u64 + 1));
    })
    .await;
    assert_eq!(reply.unwrap_err().kind, ErrorKind::TooLarge);
    drop(first);
    let (reply, mut far) = called(&connection, Bytes::new(), far, |far, id| {
        for _ in 0..2 {
            assert_eq!(far.expect_release().arg, 1);
        }
        far.send(Header::new(Kind::Forget, 1), &[]);
        far.send_with(segment(2, BYTES), sealed());
        far.send(placed(Kind::Reply, id), &place(2, 0, 16));
    })
    .await;
    drop(view(reply));
    assert_eq!(far.expect_release().id, 2);
    assert!(connection.is_open());
    drop(connection);
    assert!(far.next().is_none());
}

impl Far {
    /// The next RELEASE; requests that came before it are done with.
    fn expect_release(&mut self) -> Header {
        while self.released.is_empty() {
            let frame = self.next().expect("the connection has ended");
            match frame.header.kind {
                Kind::Release => self.released.push(frame.header),
                Kind::Request | Kind::Cancel => {}
                kind => panic!("{kind:?}"),
            }
        }
        self.released.remove(0)
    }
}

/// The reply to a call that nobody waits for any more is given back at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_reply_that_nobody_takes_is_given_back() {
    let (connection, mut far) = registry(true);
    let body = Bytes::new();
    assert!(tokio::time::timeout(Duration::from_millis(20), connection.call(request(&body))).await.is_err());
    let plugin = std::thread::spawn(move || {
        let id = far.expect(Kind::Request).header.id;
        far.expect(Kind::Cancel);
        far.lend();
        far.send_with(segment(1, BYTES), sealed());
        far.send(placed(Kind::Reply, id), &place(1, 0, 8));
        assert_eq!(far.expect_release().id, 1);
        far
    });
    let _far = tokio::task::spawn_blocking(|| plugin.join().unwrap()).await.unwrap();
    assert!(connection.is_open());
}

/// Each of these ends the connection; nothing else happens.
#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_breaks_the_rules_loses_the_connection() {
    type Act = fn(&mut Far, u64);
    const RULES: [(&str, &str, bool, Act); 19] = [
        ("unasked", "nobody has asked for", true, |far, _| far.send_with(segment(1, BYTES), sealed())),
        ("offered twice", "offered twice", true, |far, _| {
            far.lend();
            far.send(Header::new(Kind::Lend, 0), &[]);
        }),
        ("to one that knows of none", "knows of none", false, |far, _| far.send(Header::new(Kind::Lend, 0), &[])),
        ("answered unasked", "nobody has offered", true, |far, _| {
            far.send(Header { index: 1, arg: BYTES, ..Header::new(Kind::Borrow, 0) }, &[]);
        }),
        ("without a descriptor", "without a descriptor", true, |far, _| {
            far.lend();
            far.send(segment(1, BYTES), &[]);
        }),
        ("without the flag", "without a descriptor", true, |far, _| {
            far.lend();
            far.send(Header { fd: false, ..segment(1, BYTES) }, &[]);
        }),
        ("not sealed", "not sealed", true, |far, _| {
            far.lend();
            far.send_with(segment(1, BYTES), memfd(BYTES, SealFlags::SHRINK));
        }),
        ("shorter", "instead of", true, |far, _| {
            far.lend();
            far.send_with(segment(1, 2 * BYTES), sealed());
        }),
        ("no pages", "no pages", true, |far, _| {
            far.lend();
            far.send_with(segment(1, 5000), memfd(5000, SealFlags::SHRINK | SealFlags::GROW));
        }),
        ("no memory", "no memory", true, |far, _| {
            far.lend();
            far.send_with(segment(1, BYTES), File::open("/dev/null").unwrap().into());
        }),
        ("counted back", "count up", true, |far, _| {
            far.lend();
            far.send_with(segment(2, BYTES), sealed());
            far.send_with(segment(1, BYTES), sealed());
        }),
        ("too many", "the limits are", true, |far, _| {
            far.lend();
            (1..=17).for_each(|number| far.send_with(segment(number, BYTES), sealed()));
        }),
        ("outside", "in segment 1 of", true, |far, id| {
            far.lend();
            far.send_with(segment(1, BYTES), sealed());
            far.send(placed(Kind::Reply, id), &place(1, BYTES, 8));
        }),
        ("in another", "not lent", true, |far, id| {
            far.lend();
            far.send_with(segment(1, BYTES), sealed());
            far.send(placed(Kind::Reply, id), &place(2, 0, 8));
        }),
        ("to one that knows of none, too", "not lent", false, |far, id| {
            far.send(placed(Kind::Reply, id), &place(1, 0, 8));
        }),
        ("behind a beginning", "no more", true, |far, id| {
            far.lend();
            far.send_with(segment(1, BYTES), sealed());
            far.send(Header::new(Kind::Reply, id), b"x");
            far.send(placed(Kind::Reply, id), &place(1, 0, 8));
        }),
        ("given back without having it", "given back of 0", true, |far, _| {
            far.send(Header { arg: 1, ..Header::new(Kind::Release, 1) }, &[]);
        }),
        ("forgotten without having it", "is not lent", true, |far, _| far.send(Header::new(Kind::Forget, 1), &[])),
        ("with descriptors for nothing", "descriptors or more", true, |far, _| {
            far.lend();
            (0..3).for_each(|_| far.send_with(Header::new(Kind::Pong, 0), sealed()));
        }),
    ];
    for (what, why, lends, act) in RULES {
        // Beside the rings nobody looks for what no frame tells of: it goes with the socket.
        if what.contains("for nothing") && is_over_rings(module_path!()) {
            continue;
        }
        let (connection, far) = registry(lends);
        let (reply, mut far) = called(&connection, Bytes::new(), far, act).await;
        let error = reply.expect_err(what);
        assert_eq!(error.kind, ErrorKind::Protocol, "{what}: {error}");
        assert!(error.message.contains(why), "{what}: {error}");
        assert!(!connection.is_open());
        while far.next().is_some() {}
    }
}

/// A body that is being read cannot be taken away.
#[tokio::test(flavor = "multi_thread")]
async fn a_segment_that_is_being_read_cannot_be_forgotten() {
    let (connection, far) = registry(true);
    let (reply, far) = called(&connection, Bytes::new(), far, |far, id| {
        far.lend();
        far.send_with(segment(1, BYTES), sealed());
        far.send(placed(Kind::Reply, id), &place(1, 0, 8));
    })
    .await;
    let kept = view(reply);
    let forget = |far: &mut Far, _| far.send(Header::new(Kind::Forget, 1), &[]);
    let (reply, _far) = called(&connection, Bytes::new(), far, forget).await;
    assert!(reply.unwrap_err().message.contains("with 1 bodies in it"));
    assert_eq!(kept.words().next(), Some(0x0707_0707_0707_0707), "what is read stays");
}

/// The registry lends what the plugin takes, and no more; its memory is used again when the plugin has given it back.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_stays_where_it_is_when_the_plugin_takes_it() {
    let (connection, far) = registry(true);
    let body = |byte| {
        let mut segment = connection.segment(MOST);
        segment.fill(byte);
        assert!(segment.is_shared());
        Bytes::from(segment)
    };
    fn answer(far: &mut Far, id: u64) {
        far.send(Header { end: true, ..Header::new(Kind::Reply, id) }, b"ok");
    }
    // It is sent, and the plugin is asked.
    let (reply, far) = called(&connection, body(1), far, answer).await;
    assert_eq!(reply, Ok(FrameReply::Bytes("ok".into())));
    let grant = |far: &mut Far, id| {
        far.send(Header { index: 1, arg: BYTES, ..Header::new(Kind::Borrow, 0) }, &[]);
        answer(far, id);
    };
    let (_, mut far) = called(&connection, Bytes::new(), far, grant).await;
    let bytes = body(2);
    let begin = bytes.as_ptr();
    let call = tokio::spawn({
        let (connection, bytes) = (Arc::clone(&connection), bytes.clone());
        async move { connection.call(request(&bytes)).await }
    });
    let (mut far, window) = tokio::task::spawn_blocking(move || {
        let passed = far.expect(Kind::Segment);
        assert_eq!((passed.header.id, passed.header.arg), (1, BYTES));
        let window = Arc::new(Window::open(&passed.fd.unwrap(), BYTES).unwrap());
        let frame = far.expect(Kind::Request);
        assert!(frame.header.is_placed && frame.header.takes_place);
        let place = Place::decode(&frame.payload, |number| (number == 1).then_some(BYTES)).unwrap();
        assert!(View::of(Arc::clone(&window), place).into_bytes() == vec![2; MOST]);
        answer(&mut far, frame.header.id);
        (far, window)
    })
    .await
    .unwrap();
    call.await.unwrap().unwrap();
    drop(bytes);
    assert_ne!(body(3).as_ptr(), begin, "the plugin still reads it");
    let release = |far: &mut Far, id| {
        far.send(Header { arg: 1, ..Header::new(Kind::Release, 1) }, &[]);
        answer(far, id);
    };
    // One is lent, and no more are taken.
    far = called(&connection, body(4), far, release).await.1;
    let again = body(5);
    assert_eq!(again.as_ptr(), begin, "it was given back");
    let first = View::of(window, Place { segment: 1, offset: 0, length: 8 });
    assert_eq!(first.words().next(), Some(0x0505_0505_0505_0505), "and stands");
    let over = |far: &mut Far, _| far.send(Header { arg: 1, ..Header::new(Kind::Release, 1) }, &[]);
    assert!(called(&connection, Bytes::new(), far, over).await.0.is_err(), "given back twice");
}

// ---- a plugin, and a registry by hand

struct Methods;

impl FrameHandler for Methods {
    fn max_body(&self, _index: u16) -> Result<usize, Fault> {
        Ok(MOST)
    }

    fn call(&self, mut request: FrameCall<'_>, reply: Replier) -> Option<Answered> {
        let body = request.view.take().map_or(request.body.clone(), View::into_bytes);
        let mut segment: Segment = segment_for(request.lender(), 80_000);
        segment.fill(body.first().copied().unwrap_or(0));
        Some(reply.answer(segment.into()))
    }
}

fn plugin(lends: bool) -> (Arc<FrameServer>, Far) {
    let server = Arc::new(FrameServer::new(Arc::new(Methods), FrameLimits::default()));
    let registry = connect(&server, peer(), is_over_rings(module_path!()), lends);
    (server, Far::new(registry.stream))
}

fn ask(far: &mut Far, id: u64, takes_place: bool, body: &[u8]) {
    far.send(Header { end: true, takes_place, arg: 1_000, ..Header::new(Kind::Request, id) }, body);
}

/// A plugin lends once it was told how much, to calls that take it.
#[test]
fn a_plugin_lends_to_calls_that_take_it() {
    let (_server, mut far) = plugin(true);
    ask(&mut far, 1, false, b"a");
    assert!(!far.expect(Kind::Reply).header.is_placed, "it takes none");
    ask(&mut far, 2, true, b"b");
    far.expect(Kind::Lend);
    assert!(!far.expect(Kind::Reply).header.is_placed, "nobody has answered");
    far.send(Header { index: 2, arg: BYTES, ..Header::new(Kind::Borrow, 0) }, &[]);
    ask(&mut far, 3, true, b"c");
    let passed = far.expect(Kind::Segment);
    let window = Arc::new(Window::open(&passed.fd.unwrap(), passed.header.arg).unwrap());
    let read = |frame: &Frame| {
        assert!(frame.header.is_placed);
        let place = Place::decode(&frame.payload, |_| Some(BYTES)).unwrap();
        View::of(Arc::clone(&window), place).into_bytes()
    };
    assert!(read(&far.expect(Kind::Reply)) == vec![b'c'; 80_000]);
    ask(&mut far, 4, true, b"d");
    assert!(!far.expect(Kind::Reply).header.is_placed, "one is being read, and no other takes more bytes");
    far.send(Header { arg: 1, ..Header::new(Kind::Release, 1) }, &[]);
    // Which of the two that there are the plugin writes to is its own affair.
    ask(&mut far, 5, true, b"e");
    let frame = far.next().unwrap();
    assert!(matches!(frame.header.kind, Kind::Forget | Kind::Reply), "{frame:?}");
}

#[test]
fn a_registry_that_breaks_the_rules_loses_the_connection() {
    type Act = fn(&mut Far);
    const RULES: [(&str, bool, Act); 6] = [
        ("knows of none", false, |far| far.send(Header::new(Kind::Lend, 0), &[])),
        ("not lent", false, |far| far.send(placed(Kind::Request, 1), &place(1, 0, 8))),
        ("nobody has asked for", true, |far| far.send_with(segment(1, BYTES), sealed())),
        ("not sealed", true, |far| {
            far.lend();
            far.send_with(segment(1, BYTES), memfd(BYTES, SealFlags::empty()));
        }),
        ("in segment 1 of", true, |far| {
            far.lend();
            far.send_with(segment(1, BYTES), sealed());
            far.send(placed(Kind::Request, 1), &place(1, 8, BYTES));
        }),
        ("given back of 0", true, |far| far.send(Header { arg: 9, ..Header::new(Kind::Release, 1) }, &[])),
    ];
    for (why, lends, act) in RULES {
        let (server, mut far) = plugin(lends);
        act(&mut far);
        let rule = loop {
            let frame = far.next().unwrap_or_else(|| panic!("{why}: the end without a word"));
            if frame.header.kind == Kind::Close {
                break String::from_utf8(frame.payload.to_vec()).unwrap();
            }
        };
        assert!(rule.contains(why), "{rule}");
        assert!(far.next().is_none());
        drop(server);
    }
}

/// What is refused is given back, and so is what a method has read.
#[test]
fn a_plugin_gives_requests_back() {
    let (_server, mut far) = plugin(true);
    far.lend();
    far.send_with(segment(1, BYTES), sealed());
    far.send(placed(Kind::Request, 1), &place(1, 0, MOST as u64 + 1));
    let mut seen = [far.next().unwrap().header.kind, far.next().unwrap().header.kind];
    seen.sort_by_key(|kind| *kind as u8);
    assert_eq!(seen, [Kind::Error, Kind::Release], "too long");
    far.send(placed(Kind::Request, 2), &place(1, 0, 100));
    let mut replies = 0;
    let mut released = 0;
    while replies == 0 || released == 0 {
        let frame = far.next().unwrap();
        replies += u32::from(frame.header.kind == Kind::Reply);
        released += u32::from(frame.header.kind == Kind::Release);
        assert!(frame.header.kind != Kind::Reply || frame.payload == vec![7; 80_000]);
    }
}
