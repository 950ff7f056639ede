//! A streamed call against plugins that are written by hand, and break the rules.

use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use bytes::Bytes;
use goplug_pconf_schema::wire::frame::{CALL_CREDIT, Header, Kind, MAX_PAYLOAD_BYTES, Meta};

use crate::error::ErrorKind;
use crate::frame::Latency;
use crate::frame::client::non_blocking;
use crate::frame::client::{FrameConnection, FrameExchange, FrameReplyBody, FrameRequestBody, ReplyEnd};
use crate::frame::far_end::{FarEnd, is_over_rings};
use crate::frame::input::{Input, Read};
use crate::frame::outbox::Outbox;

const SOON: Duration = Duration::from_secs(10);

/// The plugin's end of a connection.
struct Plugin {
    far: FarEnd,
    input: Input,
}

impl Plugin {
    fn send(&self, header: Header, payload: Vec<u8>) {
        let mut outbox = Outbox::default();
        outbox.push(header, &Meta::default(), payload.into());
        while !outbox.is_empty() {
            if outbox.write_to(&self.far.pipe).is_err() {
                return;
            }
            std::thread::yield_now();
        }
    }

    /// The next frame; `None` at the end.
    fn next(&mut self) -> Option<(Header, Bytes)> {
        let limit = Instant::now() + SOON;
        loop {
            if let Some(frame) = self.input.next_frame().unwrap() {
                return Some((frame.header, frame.payload));
            }
            match self.input.read_from(&self.far.pipe) {
                Ok(Read::End) | Err(_) => return None,
                Ok(_) => assert!(Instant::now() < limit, "no frame"),
            }
            // The end of rings is the socket's.
            self.far.pipe.hear();
            std::thread::yield_now();
        }
    }
}

fn call() -> (FrameConnection, Plugin, FrameRequestBody, FrameReplyBody) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (connection, far) = if is_over_rings(module_path!()) {
        let (near, far) = crate::shm::pair();
        let ours = non_blocking(ours).unwrap();
        let connection = FrameConnection::over(ours, Some(near), &[], Latency::Balanced, false, || ());
        (connection, FarEnd::new(theirs, Some(far)))
    } else {
        (FrameConnection::new(ours, &[], Latency::Balanced, false, || ()).unwrap(), FarEnd::new(theirs, None))
    };
    let request =
        FrameExchange { index: 3, deadline_ms: 10_000, deadline: Instant::now() + SOON, meta: Meta::default() };
    let (out, back) = connection.exchange(&request).unwrap();
    let mut plugin = Plugin { far, input: Input::new(&[]) };
    let (header, payload) = plugin.next().unwrap();
    assert_eq!((header.kind, header.id, header.index, header.end, payload.len()), (Kind::Request, 1, 3, false, 0));
    (connection, plugin, out, back)
}

async fn soon<T>(wait: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, wait).await.expect("it takes too long")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_breaks_the_rules_ends_the_connection() {
    type Breach = fn(&Plugin);
    let breaches: [(&str, Breach); 5] = [
        ("a grant of", |plugin| plugin.send(Header { arg: 1 << 41, ..Header::new(Kind::Credit, 1) }, vec![])),
        ("a grant of", |plugin| plugin.send(Header { arg: u64::MAX, ..Header::new(Kind::Credit, 0) }, vec![])),
        ("the credit is 0", |plugin| {
            plugin.send(Header::new(Kind::Reply, 1), vec![7; MAX_PAYLOAD_BYTES]);
            plugin.send(Header::new(Kind::Data, 1), vec![7; 1]);
        }),
        ("in its middle", |plugin| plugin.send(Header::new(Kind::Data, 1), vec![7; 9])),
        ("begins twice", |plugin| {
            plugin.send(Header::new(Kind::Reply, 1), vec![7; 9]);
            plugin.send(Header::new(Kind::Reply, 1), vec![7; 9]);
        }),
    ];
    for (why, breach) in breaches {
        let (connection, plugin, out, mut back) = call();
        breach(&plugin);
        // Not read by the call, which would grant more: the keeper reads.
        soon(async {
            while connection.is_open() {
                tokio::task::yield_now().await;
            }
        })
        .await;
        let end = soon(back.next()).await.unwrap_err();
        let ReplyEnd::Failed(error, _) = end else { panic!("{why}: {end:?}") };
        assert_eq!(error.kind, ErrorKind::Protocol, "{error}");
        assert!(error.message.contains(why), "{error}");
        assert!(!connection.is_open());
        assert_eq!(soon(out.send(&Bytes::from_static(b"x"))).await.unwrap_err().kind, ErrorKind::Protocol);
    }
}

/// What is sent keeps to the credit; what is granted goes out, whoever reads.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_keeps_to_its_credit() {
    let (_connection, mut plugin, out, mut back) = call();
    let body = Bytes::from(vec![9; 1 << 20]);
    let sending = tokio::spawn(async move {
        for at in (0..body.len()).step_by(100_000) {
            out.send(&body.slice(at..body.len().min(at + 100_000))).await.unwrap();
        }
        out.finish();
    });
    let mut came = 0;
    while came < CALL_CREDIT {
        came += plugin.next().unwrap().1.len() as u64;
    }
    assert_eq!(came, CALL_CREDIT);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(matches!(plugin.input.read_from(&plugin.far.pipe), Ok(Read::Empty)), "more than it has credit for");
    assert!(!sending.is_finished(), "whoever sends does not wait");
    let plugin = std::thread::spawn(move || {
        plugin.send(Header { arg: 1 << 20, ..Header::new(Kind::Credit, 1) }, vec![]);
        loop {
            let (header, payload) = plugin.next().unwrap();
            came += payload.len() as u64;
            if header.end {
                break;
            }
        }
        plugin.send(Header { end: true, ..Header::new(Kind::Reply, 1) }, came.to_string().into_bytes());
        plugin
    });
    assert_eq!(soon(back.next()).await.unwrap(), "1048576");
    assert_eq!(soon(back.next()).await.unwrap_err(), ReplyEnd::Whole);
    soon(sending).await.unwrap();
    drop(plugin.join().unwrap());
}

/// Every way to let go of a call tells the plugin once, and leaves nothing behind.
#[tokio::test(flavor = "multi_thread")]
async fn letting_go_cancels_once() {
    for half in 0..3 {
        let (connection, mut plugin, out, back) = call();
        match half {
            0 => drop(out),
            1 => drop(back),
            _ => drop((out, back)),
        }
        let header = plugin.next().unwrap().0;
        assert_eq!((header.kind, header.id), (Kind::Cancel, 1));
        // What comes late is dropped.
        plugin.send(Header::new(Kind::Reply, 1), vec![1; 100_000]);
        plugin.send(Header { end: true, ..Header::new(Kind::Error, 1) }, b"{}".to_vec());
        drop(connection);
        let rest: Vec<_> = std::iter::from_fn(|| plugin.next()).map(|(header, _)| header.kind).collect();
        assert!(!rest.contains(&Kind::Cancel), "{rest:?}");
    }
}
