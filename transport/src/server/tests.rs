//! The server against callers that are scripts of bytes.

use std::path::PathBuf;
use std::sync::Mutex;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;

const PATIENCE: Duration = Duration::from_secs(30);
const LIMIT: usize = 100_000;

/// A handler that does what the target says, and tells what happened.
struct Script {
    happened: mpsc::UnboundedSender<&'static str>,
    pieces: Mutex<Option<mpsc::Receiver<Result<Bytes, ()>>>>,
}

struct Tell(mpsc::UnboundedSender<&'static str>, &'static str);

impl Drop for Tell {
    fn drop(&mut self) {
        let _ = self.0.send(self.1);
    }
}

fn response(status: u16, reason: &'static str, body: impl Into<Bytes>) -> ServerResponse {
    let (headers, content_type) = (vec![("A", "b".to_owned())], Some("text/plain".into()));
    ServerResponse {
        status,
        reason,
        headers,
        content_type,
        body: ServerBody::Full(body.into()),
        close: false,
        written: None,
    }
}

impl Handler for Script {
    fn max_body(&self, _: &ServerHead) -> usize {
        LIMIT
    }

    fn too_large(&self, _: &ServerHead, declared: u64) -> ServerResponse {
        response(413, "Content Too Large", declared.to_string())
    }

    fn bad_request(&self, _: Option<&ServerHead>, why: String) -> ServerResponse {
        response(400, "Bad Request", why)
    }

    async fn handle(&self, request: ServerRequest) -> ServerResponse {
        let mut answer = response(200, "OK", request.body.clone());
        match request.target.as_str() {
            "/echo" => {}
            "/close" => answer.close = true,
            "/nothing" => answer.status = 204,
            "/big" => answer.body = ServerBody::Full(vec![7; 8 << 20].into()),
            "/panic" => panic!("the method panics"),
            "/written" => {
                let tell = Tell(self.happened.clone(), "not written");
                answer.written = Some(Written::new(move || {
                    let _ = tell.0.send("written");
                }));
            }
            "/hang" => {
                let _tell = Tell(self.happened.clone(), "cancelled");
                let _ = self.happened.send("hangs");
                std::future::pending::<()>().await;
            }
            "/stream" | "/endless" => {
                let pieces = self.pieces.lock().unwrap().take().expect("one stream for each server");
                let is_endless = request.target == "/endless";
                answer.body = if is_endless { ServerBody::Endless(pieces) } else { ServerBody::Stream(pieces) };
            }
            other => answer = response(404, "Not Found", other.to_owned()),
        }
        answer
    }

    fn finished(&self, _: &Peer, _: u64) {
        let _ = self.happened.send("finished");
    }
}

/// A server, and all that its tests need of it.
struct Server {
    path: PathBuf,
    happened: mpsc::UnboundedReceiver<&'static str>,
    pieces: mpsc::Sender<Result<Bytes, ()>>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
    _folder: tempfile::TempDir,
}

impl Server {
    fn start(limits: ServerLimits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        let listener = crate::socket::bind(&path).unwrap().listener;
        let (tell, happened) = mpsc::unbounded_channel();
        let (pieces, stream) = mpsc::channel(1);
        let (stop, stopping) = watch::channel(false);
        let script = Script { happened: tell, pieces: Mutex::new(Some(stream)) };
        let task = tokio::spawn(serve(listener, Arc::new(script), limits, stopping));
        Self { path, happened, pieces, stop, task, _folder: folder }
    }

    async fn connect(&self) -> UnixStream {
        UnixStream::connect(&self.path).await.unwrap()
    }

    /// Sends bytes over a connection of their own and reads until the server closes it.
    async fn last(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect().await;
        stream.write_all(bytes).await.unwrap();
        rest(&mut stream).await
    }

    async fn event(&mut self) -> &'static str {
        timeout(PATIENCE, self.happened.recv()).await.expect("something happens").unwrap()
    }
}

async fn rest(stream: &mut UnixStream) -> String {
    let mut bytes = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.expect("the server closes").unwrap();
    String::from_utf8(bytes).unwrap()
}

/// Reads until what was read ends with `end`.
async fn until(stream: &mut UnixStream, end: &str) -> String {
    let mut bytes = Vec::new();
    while !bytes.ends_with(end.as_bytes()) {
        bytes.push(timeout(PATIENCE, stream.read_u8()).await.expect("more is to come").unwrap());
    }
    String::from_utf8(bytes).unwrap()
}

fn post(target: &str, body: &str) -> String {
    format!("POST {target} HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn ok(body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\nA: b\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n{body}")
}

#[tokio::test]
async fn requests_are_answered_one_after_the_other_however_they_are_sliced() {
    let server = Server::start(ServerLimits::default());
    let mut stream = server.connect().await;
    let chunked =
        "POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x\r\nlo\r\n0\r\nT: x\r\n\r\n\r\n";
    for request in [&post("/echo", "hello"), chunked, &post("/echo", "hello")] {
        for byte in request.as_bytes() {
            stream.write_u8(*byte).await.unwrap();
            tokio::task::yield_now().await;
        }
        assert_eq!(until(&mut stream, "hello").await, ok("hello"));
    }
    let long = "x".repeat(LIMIT);
    stream.write_all(post("/echo", &long).as_bytes()).await.unwrap();
    assert_eq!(until(&mut stream, &long).await, ok(&long));
}

#[tokio::test]
async fn a_request_that_came_too_early_is_the_next_one() {
    let server = Server::start(ServerLimits::default());
    let two = post("/echo", "one") + &post("/close", "two");
    let close = ok("two").replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
    assert_eq!(server.last(two.as_bytes()).await, ok("one") + &close);
}

#[tokio::test]
async fn old_and_odd_requests_get_what_they_can_read() {
    let server = Server::start(ServerLimits::default());
    let old = server.last(b"POST /echo HTTP/1.0\r\nContent-Length: 2\r\n\r\nhi").await;
    assert_eq!(old, ok("hi").replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n"));
    let asked = server.last(b"POST /echo HTTP/1.1\r\nConnection: Close\r\n\r\n").await;
    assert!(asked.ends_with("Connection: close\r\n\r\n"), "{asked}");

    let mut stream = server.connect().await;
    stream.write_all(b"HEAD /big HTTP/1.1\r\n\r\n").await.unwrap();
    assert!(until(&mut stream, "\r\n\r\n").await.contains("Content-Length: 8388608\r\n"));
    stream.write_all(post("/nothing", "x").as_bytes()).await.unwrap();
    assert!(!until(&mut stream, "\r\n\r\n").await.contains("Content-Length"));
    stream.write_all(b"POST /echo HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n").await.unwrap();
    assert_eq!(until(&mut stream, "\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"hi").await.unwrap();
    assert_eq!(until(&mut stream, "hi").await, ok("hi"));
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_answered_before_it_is_read() {
    let server = Server::start(ServerLimits::default());
    let head = "POST /echo HTTP/1.1\r\n";
    for (request, declared) in [
        (format!("{head}Content-Length: 100001\r\nExpect: 100-continue\r\n\r\n"), "100001"),
        (format!("{head}Content-Length: 100001\r\n\r\n{}", "x".repeat(100_001)), "100001"),
        (format!("{head}Content-Length: 1000000\r\n\r\n{}", "x".repeat(1_000_000)), "1000000"),
        (format!("{head}Content-Length: 4294967296\r\n\r\n"), "4294967296"),
        (format!("{head}Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n186a0\r\n"), "100002"),
    ] {
        let mut stream = server.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        let answer = rest(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 413 Content Too Large\r\n"), "{answer}");
        assert!(answer.ends_with(&format!("Connection: close\r\n\r\n{declared}")), "{answer}");
    }
}

#[tokio::test]
async fn what_is_not_http_is_refused_and_closed() {
    let server = Server::start(ServerLimits::default());
    for (request, why) in [
        ("GET / HTTP/1.1\n\n", "bare line feed"),
        ("GET / HTTP/3.0\r\n\r\n", "version"),
        ("POST /echo HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "together"),
        ("POST /echo HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx", "more than one Content-Length"),
        ("POST /echo HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", "other than `chunked`"),
        ("POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", "chunk size"),
        (&format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(20_000)), "longer than 16384"),
    ] {
        let answer = server.last(request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{answer}");
        assert!(answer.contains("Connection: close\r\n") && answer.contains(why), "{why}: {answer}");
    }
}

#[tokio::test]
async fn the_end_of_the_caller_cancels_the_handler() {
    let mut server = Server::start(ServerLimits::default());
    for half in [true, false] {
        let mut stream = server.connect().await;
        stream.write_all(post("/hang", "").as_bytes()).await.unwrap();
        assert_eq!(server.event().await, "hangs");
        if half {
            stream.shutdown().await.unwrap();
            assert_eq!(server.event().await, "cancelled");
            assert_eq!(rest(&mut stream).await, "");
        } else {
            drop(stream);
            assert_eq!(server.event().await, "cancelled");
        }
        assert_eq!(server.event().await, "finished");
    }
}

#[tokio::test]
async fn a_panic_ends_one_connection_and_an_answer_taken_whole_is_told() {
    let mut server = Server::start(ServerLimits::default());
    assert_eq!(server.last(post("/panic", "").as_bytes()).await, "");
    assert_eq!(server.event().await, "finished");
    let mut stream = server.connect().await;
    stream.write_all(post("/written", "yes").as_bytes()).await.unwrap();
    assert_eq!(until(&mut stream, "yes").await, ok("yes"));
    assert_eq!(server.event().await, "written");
}

#[tokio::test]
async fn pieces_are_sent_as_they_come() {
    let server = Server::start(ServerLimits::default());
    let mut stream = server.connect().await;
    stream.write_all(post("/stream", "").as_bytes()).await.unwrap();
    assert!(until(&mut stream, "\r\n\r\n").await.contains("Transfer-Encoding: chunked\r\n"));
    for (piece, chunk) in [("hello", "5\r\nhello\r\n"), ("", ""), ("0123456789abcdef", "10\r\n0123456789abcdef\r\n")] {
        server.pieces.send(Ok(piece.into())).await.unwrap();
        assert_eq!(until(&mut stream, chunk).await, chunk);
    }
    let Server { pieces, .. } = server;
    drop(pieces);
    assert_eq!(until(&mut stream, "0\r\n\r\n").await, "0\r\n\r\n");
    stream.write_all(post("/echo", "again").as_bytes()).await.unwrap();
    assert_eq!(until(&mut stream, "again").await, ok("again"));
}

#[tokio::test]
async fn a_stream_ends_as_its_reader_can_see() {
    let aborted = Server::start(ServerLimits::default());
    aborted.pieces.send(Ok("hi".into())).await.unwrap();
    let pieces = aborted.pieces.clone();
    let abort = tokio::spawn(async move { pieces.send(Err(())).await });
    assert!(aborted.last(post("/stream", "").as_bytes()).await.ends_with("\r\n\r\n2\r\nhi\r\n"), "no last chunk");
    abort.await.unwrap().unwrap();

    let mut old = Server::start(ServerLimits::default());
    let (pieces, _) = mpsc::channel(1);
    std::mem::replace(&mut old.pieces, pieces).send(Ok("hi".into())).await.unwrap();
    let answer = old.last(b"POST /stream HTTP/1.0\r\n\r\n").await;
    assert!(answer.ends_with("Connection: close\r\n\r\nhi") && !answer.contains("chunked"), "{answer}");

    for half in [true, false] {
        let left = Server::start(ServerLimits::default());
        let mut stream = left.connect().await;
        stream.write_all(post("/stream", "").as_bytes()).await.unwrap();
        until(&mut stream, "\r\n\r\n").await;
        if half {
            stream.shutdown().await.unwrap();
            timeout(PATIENCE, left.pieces.closed()).await.expect("the end of the reader is seen");
        } else {
            drop(stream);
            timeout(PATIENCE, left.pieces.closed()).await.expect("the end of the reader is seen");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn slow_callers_are_not_waited_for_and_idle_ones_are() {
    let second = Duration::from_secs(1);
    let limits =
        ServerLimits { head_timeout: second, body_timeout: second, write_timeout: second, ..ServerLimits::default() };
    let mut server = Server::start(limits);
    let mut idle = server.connect().await;
    for (request, why) in [("POST /echo HTT", "the head took longer than 1s"), ("\r\nP", "the head took longer")] {
        let answer = server.last(request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains(why), "{answer}");
        assert_eq!(server.event().await, "finished");
    }
    let answer = server.last(b"POST /echo HTTP/1.1\r\nContent-Length: 5\r\n\r\nhell").await;
    assert!(answer.contains("no byte of the body came for 1s"), "{answer}");
    assert_eq!(server.event().await, "finished");

    let mut deaf = server.connect().await;
    deaf.write_all(post("/big", "").as_bytes()).await.unwrap();
    assert_eq!(server.event().await, "finished", "nobody reads the answer");
    let mut deaf_to_streams = server.connect().await;
    deaf_to_streams.write_all(post("/stream", "").as_bytes()).await.unwrap();
    while server.pieces.send(Ok(vec![7; 1 << 20].into())).await.is_ok() {}
    assert_eq!(server.event().await, "finished", "nobody reads the stream");

    tokio::time::sleep(Duration::from_secs(86_400)).await;
    idle.write_all(post("/echo", "still here").as_bytes()).await.unwrap();
    assert_eq!(until(&mut idle, "still here").await, ok("still here"));
}

#[tokio::test(start_paused = true)]
async fn a_reader_of_what_never_ends_may_take_its_time_and_leave() {
    for half in [false, true] {
        let mut server = Server::start(ServerLimits::default());
        let mut slow = server.connect().await;
        slow.write_all(post("/endless", "").as_bytes()).await.unwrap();
        // More than a socket holds: the first is being written, the second waits for it, the third finds no place.
        for _ in 0..2 {
            server.pieces.send(Ok(vec![7; 1 << 20].into())).await.unwrap();
        }
        let third = server.pieces.send(Ok(vec![7; 1 << 20].into()));
        timeout(Duration::from_secs(86_400), third).await.expect_err("the reader holds back");
        until(&mut slow, "\r\n\r\n").await;
        let mut first = vec![0; 8 + (1 << 20) + 2];
        slow.read_exact(&mut first).await.unwrap();
        assert!(first.starts_with(b"100000\r\n") && first.ends_with(b"\r\n"), "whole after a day");
        server.pieces.send(Ok(vec![7; 1 << 20].into())).await.unwrap();
        if half {
            slow.shutdown().await.unwrap();
        } else {
            drop(slow);
        }
        assert_eq!(server.event().await, "finished", "it took nothing of the last one");
    }
}

#[tokio::test(start_paused = true)]
async fn stopping_closes_what_is_idle_and_finishes_what_is_not() {
    let mut server = Server::start(ServerLimits::default());
    let mut idle = server.connect().await;
    idle.write_all(post("/echo", "hi").as_bytes()).await.unwrap();
    until(&mut idle, "hi").await;
    let mut under_way = server.connect().await;
    under_way.write_all(b"POST /echo HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n").await.unwrap();
    until(&mut under_way, "Continue\r\n\r\n").await;
    let mut streamed = server.connect().await;
    streamed.write_all(post("/stream", "").as_bytes()).await.unwrap();
    until(&mut streamed, "\r\n\r\n").await;

    server.stop.send(true).unwrap();
    assert_eq!(rest(&mut idle).await, "");
    assert_eq!(server.event().await, "finished");
    assert!(UnixStream::connect(&server.path).await.is_err(), "nobody is accepted any more");
    server.pieces.send(Ok("last".into())).await.unwrap();
    assert_eq!(until(&mut streamed, "last\r\n").await, "4\r\nlast\r\n");
    under_way.write_all(b"bye").await.unwrap();
    assert!(rest(&mut under_way).await.ends_with("Connection: close\r\n\r\nbye"));
    assert_eq!(rest(&mut streamed).await, "", "aborted when it did not end by itself");
    timeout(PATIENCE, server.task).await.expect("the server ends").unwrap();
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_their_turn() {
    let server = Server::start(ServerLimits { max_connections: 1, ..ServerLimits::default() });
    let mut first = server.connect().await;
    first.write_all(post("/echo", "first").as_bytes()).await.unwrap();
    until(&mut first, "first").await;
    let mut second = server.connect().await;
    second.write_all(post("/echo", "second").as_bytes()).await.unwrap();
    assert!(timeout(Duration::from_millis(50), second.read_u8()).await.is_err(), "it waits");
    drop(first);
    assert_eq!(until(&mut second, "second").await, ok("second"));
}
