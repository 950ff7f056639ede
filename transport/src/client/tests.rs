//! The client against plugins that are scripts of bytes.

use std::future::Future;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;
use tokio::task::{JoinHandle, yield_now};
use tokio::time::timeout;

use super::*;

const LIMIT: usize = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(30);
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A plugin that does with its only connection what `script` says, and the connection to it.
async fn plugin<F>(script: impl FnOnce(UnixStream) -> F) -> (Connection, JoinHandle<()>)
where
    F: Future<Output = ()> + Send + 'static,
{
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let connection = Connection::connect(&path, Instant::now() + PATIENCE).await.unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    (connection, tokio::spawn(script(stream)))
}

/// A plugin that answers its first request with `reply` and then stays until the connection is closed.
async fn answers(reply: Vec<u8>) -> Connection {
    let script = |mut stream: UnixStream| async move {
        read_request(&mut stream).await;
        let _ = stream.write_all(&reply).await;
        let _ = stream.read(&mut [0; 1]).await;
    };
    plugin(script).await.0
}

/// Reads one small request without a body.
async fn read_request(stream: &mut UnixStream) -> String {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(request).unwrap()
}

fn post(body: &[u8]) -> Request<'_> {
    Request { method: "POST", target: "/Do", host: "goplug", headers: &[], content_type: None, body }
}

async fn exchange(connection: &mut Connection, body: &[u8], limit: usize) -> Result<Reply, Error> {
    timeout(PATIENCE, connection.exchange(&post(body), limit)).await.expect("the exchange ends")
}

fn body_of(reply: Result<Reply, Error>) -> Vec<u8> {
    reply.unwrap().body.to_vec()
}

#[tokio::test]
async fn replies_are_whole_when_they_come_byte_by_byte() {
    let (mut connection, script) = plugin(|mut stream| async move {
        for reply in [
            &b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nA: b\r\n\r\nhello"[..],
            b"HTTP/1.1 422 No\r\n\
            Transfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\nTrailer: x\r\n\r\n",
        ] {
            read_request(&mut stream).await;
            for byte in reply {
                stream.write_u8(*byte).await.unwrap();
                yield_now().await;
            }
        }
    })
    .await;
    let first = exchange(&mut connection, b"", LIMIT).await.unwrap();
    assert_eq!((first.head.status, first.head.reason.as_str(), &first.body[..]), (200, "OK", &b"hello"[..]));
    assert_eq!(first.head.header("a"), Some("b"));
    assert!(connection.is_reusable());
    let second = exchange(&mut connection, b"", LIMIT).await.unwrap();
    assert_eq!((second.head.status, &second.body[..]), (422, &b"hello"[..]));
    assert!(connection.is_reusable());
    script.await.unwrap();
}

#[tokio::test]
async fn a_reply_that_comes_before_the_body_is_written_counts_and_ends_the_connection() {
    let (mut connection, script) = plugin(|mut stream| async move {
        read_request(&mut stream).await;
        stream.write_all(OK).await.unwrap();
        std::future::pending().await
    })
    .await;
    assert_eq!(body_of(exchange(&mut connection, &vec![7; 4 << 20], LIMIT).await), b"ok");
    assert!(!connection.is_reusable());
    script.abort();
}

#[tokio::test]
async fn a_whole_reply_counts_although_the_plugin_closed_before_it_read_the_body() {
    let (mut connection, _script) = plugin(|mut stream| async move {
        read_request(&mut stream).await;
        stream.write_all(OK).await.unwrap();
    })
    .await;
    assert_eq!(body_of(exchange(&mut connection, &vec![7; 4 << 20], LIMIT).await), b"ok");
    assert!(!connection.is_reusable());
}

#[tokio::test]
async fn half_a_reply_does_not_count() {
    let (mut connection, _script) = plugin(|mut stream| async move {
        read_request(&mut stream).await;
        stream.write_all(&OK[..OK.len() - 1]).await.unwrap();
    })
    .await;
    let error = exchange(&mut connection, b"", LIMIT).await.unwrap_err();
    assert_eq!((error.kind, error.sent), (ErrorKind::Closed, true), "{error}");
    assert!(!connection.is_reusable());
    let again = exchange(&mut connection, b"", LIMIT).await.unwrap_err();
    assert_eq!((again.kind, again.sent), (ErrorKind::Closed, false), "{again}");
}

#[tokio::test]
async fn sent_says_whether_a_byte_was_taken() {
    let (mut connection, script) = plugin(|mut stream| async move {
        // Whatever waits here was written before any request: it answers none.
        stream.write_all(OK).await.unwrap();
    })
    .await;
    script.await.unwrap();
    assert!(!connection.is_quiet());
    let error = exchange(&mut connection, b"", LIMIT).await.unwrap_err();
    assert_eq!((error.kind, error.sent), (ErrorKind::Closed, false), "{error}");

    let (mut connection, _script) = plugin(|mut stream| async move {
        stream.read_u8().await.unwrap();
    })
    .await;
    let error = exchange(&mut connection, b"", LIMIT).await.unwrap_err();
    assert_eq!((error.kind, error.sent), (ErrorKind::Closed, true), "{error}");
}

#[tokio::test]
async fn a_plugin_may_answer_while_it_reads() {
    let (mut connection, script) = plugin(|mut stream| async move {
        let head = read_request(&mut stream).await;
        assert!(head.contains("Content-Length: 4194304\r\n"), "{head}");
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4194304\r\n\r\n").await.unwrap();
        let (mut reading, mut writing) = stream.split();
        tokio::io::copy(&mut reading, &mut writing).await.unwrap();
    })
    .await;
    let sent: Vec<u8> = (0..4 << 20).map(|at| (at % 251) as u8).collect();
    assert!(body_of(exchange(&mut connection, &sent, 4 << 20).await) == sent);
    assert!(connection.is_reusable());
    drop(connection);
    script.await.unwrap();
}

/// Whoever calls a method that answers while it reads does not know it beforehand.
#[tokio::test]
async fn a_request_is_sent_on_while_the_body_behind_a_head_is_read() {
    let (mut connection, script) = plugin(|mut stream| async move {
        read_request(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4194304\r\n\r\n").await.unwrap();
        let (mut reading, mut writing) = stream.split();
        tokio::io::copy(&mut reading, &mut writing).await.unwrap();
    })
    .await;
    let sent: Vec<u8> = (0..4 << 20).map(|at| (at % 251) as u8).collect();
    let request = post(&sent);
    let limit = |head: &ReplyHead| (head.status == 200).then_some(sent.len());
    let exchange = connection.exchange_within(&request, limit);
    let (_, body) = timeout(PATIENCE, exchange).await.expect("the exchange ends").unwrap();
    assert!(body.unwrap().unwrap() == sent);
    drop(connection);
    script.await.unwrap();
}

#[tokio::test]
async fn a_body_that_nobody_wants_is_not_read_and_ends_the_connection() {
    for (reply, limit) in [(OK, None), (OK, Some(1)), (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", None)] {
        let mut connection = answers(reply.to_vec()).await;
        let request = post(b"");
        let (head, body) = timeout(PATIENCE, connection.exchange_within(&request, |_| limit)).await.unwrap().unwrap();
        assert_eq!(head.status, 200);
        assert_eq!(body.map(|body| body.unwrap_err().kind), limit.map(|_| ErrorKind::TooLarge));
        assert!(!connection.is_reusable());
    }
    let mut connection = answers(OK.to_vec()).await;
    let (_, body) = connection.exchange_within(&post(b""), |_| Some(2)).await.unwrap();
    assert_eq!(body.unwrap().unwrap(), "ok");
    assert!(connection.is_reusable());
}

#[tokio::test]
async fn what_speaks_against_another_request() {
    for (reply, reusable) in [
        (&b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"[..], true),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nA: b\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", true),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n", false),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok", false),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", false),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n!", false),
    ] {
        let mut connection = answers(reply.to_vec()).await;
        assert_eq!(body_of(exchange(&mut connection, b"", LIMIT).await), b"ok");
        assert_eq!(connection.is_reusable(), reusable, "{}", reply.escape_ascii());
    }
    let mut long = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n".to_vec();
    long.extend_from_slice(&[7; 100_001]);
    let mut connection = answers(long).await;
    assert_eq!(body_of(exchange(&mut connection, b"", LIMIT).await).len(), 100_000);
    assert!(!connection.is_reusable(), "a byte behind a long body");

    let (mut connection, _script) = plugin(|mut stream| async move {
        read_request(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nok").await.unwrap();
    })
    .await;
    assert_eq!(body_of(exchange(&mut connection, b"", LIMIT).await), b"ok");
    assert!(!connection.is_reusable(), "a reply that ends with the connection");
}

#[tokio::test]
async fn what_is_not_http_is_refused() {
    let interim = "HTTP/1.1 100 Continue\r\n\r\n".repeat(MAX_INTERIM_REPLIES + 1).into_bytes();
    for reply in [
        &b"\0\0\0\x01frame"[..],
        b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        &[b'x'; 20_000],
        &interim,
    ] {
        let mut connection = answers(reply.to_vec()).await;
        let error = exchange(&mut connection, b"", LIMIT).await.unwrap_err();
        let shown = reply[..reply.len().min(60)].escape_ascii();
        assert_eq!((error.kind, error.sent), (ErrorKind::Protocol, true), "{shown}: {error}");
        assert!(!connection.is_reusable());
    }
}

#[tokio::test]
async fn a_reply_beyond_the_limit_is_refused_before_it_is_read() {
    for reply in [
        &b"HTTP/1.1 200 OK\r\nContent-Length: 4294967296\r\n\r\n"[..],
        b"HTTP/1.1 200 OK\r\nContent-Length: 1048577\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\nfffff\r\n",
    ] {
        let mut connection = answers(reply.to_vec()).await;
        let error = exchange(&mut connection, b"", LIMIT).await.unwrap_err();
        assert_eq!((error.kind, error.sent), (ErrorKind::TooLarge, true), "{error}");
        assert!(!connection.is_reusable());
    }
    let (mut connection, script) = plugin(|mut stream| async move {
        read_request(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await.unwrap();
        let piece = [&b"10000\r\n"[..], &[7; 65536], b"\r\n"].concat();
        while stream.write_all(&piece).await.is_ok() {}
    })
    .await;
    let error = exchange(&mut connection, b"", LIMIT).await.unwrap_err();
    assert_eq!(error.message, "reply has at least 1114112 bytes, the limit is 1048576");
    drop(connection);
    timeout(PATIENCE, script).await.expect("the plugin sees that nobody reads").unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_request_ends_the_connection() {
    let mut connection = answers(b"HTTP/1.1 200 OK\r\nContent-Length: 4294967296\r\n\r\n".to_vec()).await;
    let cancelled = timeout(Duration::from_secs(1), connection.exchange(&post(b""), usize::MAX)).await;
    assert!(cancelled.is_err(), "a declared body that never comes");
    assert!(!connection.is_reusable());
}

#[tokio::test]
async fn a_request_that_cannot_be_sent_leaves_the_connection_as_it_was() {
    let mut connection = answers(OK.to_vec()).await;
    let bad = Request { headers: &[("A", "b\r\nc: d")], ..post(b"") };
    let error = connection.exchange(&bad, LIMIT).await.unwrap_err();
    assert_eq!((error.kind, error.sent), (ErrorKind::Protocol, false), "{error}");
    assert!(connection.is_reusable() && connection.is_quiet());
    assert_eq!(body_of(exchange(&mut connection, b"", LIMIT).await), b"ok");
}

#[tokio::test]
async fn a_streamed_body_comes_piece_by_piece_and_then_the_connection_is_free() {
    let (go, mut wait) = tokio::sync::mpsc::channel::<()>(1);
    let (mut connection, script) = plugin(|mut stream| async move {
        read_request(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await.unwrap();
        for piece in ["1\r\na\r\n", "2\r\nb", "c\r\n0\r\n\r\n"] {
            wait.recv().await.unwrap();
            stream.write_all(piece.as_bytes()).await.unwrap();
        }
        read_request(&mut stream).await;
        stream.write_all(OK).await.unwrap();
        let _ = stream.read(&mut [0; 1]).await;
    })
    .await;
    let head = connection.open(&Request { method: "GET", ..post(b"") }).await.unwrap();
    assert_eq!(head.status, 200);
    let nothing_yet = timeout(Duration::from_millis(10), connection.chunk()).await;
    assert!(nothing_yet.is_err(), "dropped, and nothing is lost");
    let mut pieces = Vec::new();
    for _ in 0..3 {
        go.send(()).await.unwrap();
        pieces.push(timeout(PATIENCE, connection.chunk()).await.unwrap().unwrap().unwrap());
        assert!(!connection.is_reusable());
    }
    assert_eq!(pieces, ["a", "b", "c"]);
    assert_eq!(connection.chunk().await, Ok(None));
    assert!(connection.is_reusable());
    assert_eq!(connection.chunk().await, Ok(None));
    assert_eq!(body_of(exchange(&mut connection, b"", LIMIT).await), b"ok");
    drop(connection);
    script.await.unwrap();
}

#[tokio::test]
async fn the_rest_of_a_streamed_body_can_be_read_at_once_or_not_at_all() {
    let mut connection = answers(OK.to_vec()).await;
    connection.open(&post(b"")).await.unwrap();
    assert_eq!(connection.read_body(2).await.unwrap(), "ok");
    assert!(connection.is_reusable());
    assert_eq!(connection.read_body(2).await.unwrap(), "");

    let mut connection = answers(OK.to_vec()).await;
    connection.open(&post(b"")).await.unwrap();
    assert_eq!(connection.read_body(1).await.unwrap_err().kind, ErrorKind::TooLarge);
    assert!(connection.chunk().await.is_err(), "what failed does not look like an end");

    let (mut connection, _script) = plugin(|mut stream| async move {
        read_request(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n").await.unwrap();
    })
    .await;
    connection.open(&post(b"")).await.unwrap();
    assert_eq!(connection.chunk().await.unwrap().unwrap(), "a");
    for _ in 0..2 {
        assert_eq!(connection.chunk().await.unwrap_err().kind, ErrorKind::Closed);
    }
    assert!(!connection.is_reusable());
}

#[tokio::test]
async fn an_idle_connection_is_quiet_until_something_comes() {
    let (connection, script) = plugin(|mut stream| async move {
        stream.write_all(b"!").await.unwrap();
        std::future::pending().await
    })
    .await;
    while connection.is_quiet() {
        yield_now().await;
    }
    script.abort();

    let (connection, script) = plugin(|stream| async move { drop(stream) }).await;
    script.await.unwrap();
    assert!(!connection.is_quiet(), "the end of the stream");
    assert_eq!(connection.peer().pid(), std::process::id());
}

#[tokio::test(start_paused = true)]
async fn connecting_fails_for_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.sock");
    let failure = async |deadline: Instant| Connection::connect(&path, deadline).await.map(drop).unwrap_err();
    let soon = Instant::now() + PATIENCE;
    assert_eq!(failure(soon).await.kind, ErrorKind::Missing);
    drop(UnixListener::bind(&path).unwrap());
    assert_eq!(failure(soon).await.kind, ErrorKind::Refused);
    assert_eq!(failure(Instant::now()).await.kind, ErrorKind::Deadline);

    let long = folder.path().join("x".repeat(107));
    let error = Connection::connect(&long, soon).await.map(drop).unwrap_err();
    assert!(error.message.contains("the limit is 107"), "{error}");

    std::fs::remove_file(&path).unwrap();
    let full = full_listener(&path);
    let _first = Connection::connect(&path, soon).await.unwrap();
    assert_eq!(failure(soon).await.kind, ErrorKind::Busy);
    assert!(Instant::now() >= soon, "it was tried until the deadline");

    let patient = Connection::connect(&path, Instant::now() + PATIENCE);
    let room = async {
        rustix::net::accept(&full).unwrap();
    };
    assert!(tokio::join!(patient, room).0.is_ok(), "room in the backlog is found");
}

/// A listener with room for one connection that waits.
fn full_listener(path: &Path) -> std::os::fd::OwnedFd {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketType};
    let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
    rustix::net::bind(&socket, &SocketAddrUnix::new(path).unwrap()).unwrap();
    rustix::net::listen(&socket, 0).unwrap();
    socket
}
