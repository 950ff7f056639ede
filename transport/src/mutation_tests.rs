//! Ten thousand broken messages in each direction: nothing panics, nothing hangs, and after them a call works.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::*;

const ROUNDS: u64 = 10_000;
const SEED: u64 = 0x60_91_06;
const PATIENCE: Duration = Duration::from_secs(20);
const LIMIT: usize = 64 * 1024;

/// Splitmix64: the same numbers everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % limit.max(1) as u64) as usize
    }

    /// One of the messages with one to four changes.
    fn mutated(&mut self, messages: &[&str]) -> Vec<u8> {
        const WORDS: [&str; 16] = [
            "\r\n",
            "\n",
            "\r",
            "\0",
            "\r\n\r\n",
            "Content-Length: 5\r\n",
            "Content-Length: 99999999999\r\n",
            "chunked",
            "ffffffff",
            "Transfer-Encoding: chunked\r\n",
            "HTTP/1.1 200 OK\r\n",
            "0\r\n\r\n",
            "\u{e9}",
            " ",
            ":",
            "-1",
        ];
        let mut message = messages[self.below(messages.len())].as_bytes().to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(message.len() + 1);
            let to = (at + self.below(40)).min(message.len());
            match self.below(6) {
                0 => message.truncate(at),
                1 => drop(message.drain(at..to)),
                2 => drop(message.splice(at..at, message[at..to].to_vec())),
                3 if at < message.len() => message[at] = self.below(256) as u8,
                4 => drop(message.splice(at..at, vec![b'x'; self.below(20_000)])),
                _ => drop(message.splice(at..at, WORDS[self.below(WORDS.len())].bytes())),
            }
        }
        message
    }
}

struct Echo;

impl Handler for Echo {
    fn max_body(&self, _: &ServerHead) -> usize {
        LIMIT
    }

    fn too_large(&self, _: &ServerHead, _: u64) -> ServerResponse {
        answer(413, bytes::Bytes::new())
    }

    fn bad_request(&self, _: Option<&ServerHead>, why: String) -> ServerResponse {
        answer(400, why.into())
    }

    async fn handle(&self, request: ServerRequest) -> ServerResponse {
        answer(200, request.body)
    }
}

fn answer(status: u16, body: bytes::Bytes) -> ServerResponse {
    let body = ServerBody::Full(body);
    ServerResponse { status, reason: "", headers: vec![], content_type: None, body, close: false, written: None }
}

async fn call(path: &Path) -> Result<Reply, Error> {
    let mut connection = Connection::connect(path, Instant::now() + PATIENCE).await?;
    let headers = [("Goplug-Call-Id", "1")];
    let (method, target, host, content_type) = ("POST", "/Do", "goplug", None);
    connection.exchange(&Request { method, target, host, headers: &headers, content_type, body: b"hello" }, LIMIT).await
}

#[tokio::test]
async fn a_server_outlives_broken_requests() {
    const REQUESTS: [&str; 4] = [
        "POST /Do HTTP/1.1\r\nHost: goplug\r\nGoplug-Call-Id: 7\r\nContent-Length: 5\r\n\r\nhello",
        "POST /Do HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nTrailer: x\r\n\r\n",
        "GET /_goplug/hello HTTP/1.0\r\nAccept: */*\r\n\r\n",
        "POST /Do HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhelloGET / HTTP/1.1\r\n\r\n",
    ];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.sock");
    let (stop, stopping) = watch::channel(false);
    let listener = bind(&path).unwrap().listener;
    let server = tokio::spawn(serve(listener, Arc::new(Echo), ServerLimits::default(), stopping));
    let mut random = Random(SEED);
    for round in 0..ROUNDS {
        let request = random.mutated(&REQUESTS);
        let one = async {
            let mut stream = UnixStream::connect(&path).await.unwrap();
            // The server may close before it has read all of it.
            let _ = stream.write_all(&request).await;
            let _ = stream.shutdown().await;
            let _ = stream.read_to_end(&mut Vec::new()).await;
        };
        assert!(timeout(PATIENCE, one).await.is_ok(), "round {round} of seed {SEED}: {}", request.escape_ascii());
        if round % 100 == 0 {
            assert_eq!(timeout(PATIENCE, call(&path)).await.expect("no hang").unwrap().body, "hello");
        }
    }
    stop.send(true).unwrap();
    timeout(PATIENCE, server).await.expect("every connection ends").unwrap();
}

#[tokio::test]
async fn a_client_outlives_broken_replies() {
    const REPLIES: [&str; 4] = [
        "HTTP/1.1 200 OK\r\nGoplug-Call-Id: 1\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nTrailer: x\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 422 Unprocessable Content\r\nContent-Length: 2\r\n\r\n{}",
        "HTTP/1.0 200 OK\r\n\r\nuntil the end",
    ];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let mut random = Random(SEED);
    let mut whole = 0;
    for round in 0..ROUNDS {
        let reply = random.mutated(&REPLIES);
        let plugin = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 1024]).await;
            let _ = stream.write_all(&reply).await;
        };
        let both = timeout(PATIENCE, async { tokio::join!(call(&path), plugin).0 }).await;
        match both {
            Err(_) => panic!("round {round} of seed {SEED} hangs: {}", reply.escape_ascii()),
            Ok(Ok(reply)) => {
                assert!(reply.body.len() <= LIMIT);
                whole += 1;
            }
            Ok(Err(error)) => assert!(error.sent, "round {round}: {error:?}"),
        }
    }
    assert!((100..ROUNDS - 100).contains(&whole), "both kinds of replies were there: {whole} were whole");
}
