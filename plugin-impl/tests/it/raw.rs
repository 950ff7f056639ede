//! HTTP by hand: what goes over the socket is what the test says, and what comes back is compared byte by byte.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// No single wait of a test is longer. Longer than the keep-alive of an event stream, as tests with paused time wait for it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Wire {
    stream: UnixStream,
    input: Vec<u8>,
}

pub(crate) struct Raw {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Wire {
    pub(crate) async fn connect(path: &Path) -> Self {
        Self { stream: UnixStream::connect(path).await.unwrap(), input: Vec::new() }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Sends a request with these fields (each ended by CRLF) and this body.
    pub(crate) async fn request(&mut self, line: &str, fields: &str, body: impl AsRef<[u8]>) {
        let body = body.as_ref();
        let head = format!("{line} HTTP/1.1\r\n{fields}Content-Length: {}\r\n\r\n", body.len());
        self.send([head.as_bytes(), body].concat()).await;
    }

    pub(crate) async fn ask(&mut self, line: &str, fields: &str, body: impl AsRef<[u8]>) -> Raw {
        self.request(line, fields, body).await;
        self.reply().await
    }

    /// One whole reply with a length.
    pub(crate) async fn reply(&mut self) -> Raw {
        let head = self.head().await;
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("Content-Length: "))
            .unwrap_or_else(|| panic!("no length in {head}"));
        let body = self.bytes(length.parse().unwrap()).await;
        Raw { head, body }
    }

    /// The head of a reply, with the empty line that ends it.
    pub(crate) async fn head(&mut self) -> String {
        String::from_utf8(self.until(b"\r\n\r\n").await).unwrap()
    }

    /// Everything up to and including `end`.
    pub(crate) async fn until(&mut self, end: &[u8]) -> Vec<u8> {
        loop {
            if let Some(at) = self.input.windows(end.len()).position(|window| window == end) {
                return self.input.drain(..at + end.len()).collect();
            }
            assert!(self.fill().await > 0, "closed after {:?}", String::from_utf8_lossy(&self.input));
        }
    }

    pub(crate) async fn bytes(&mut self, count: usize) -> Vec<u8> {
        while self.input.len() < count {
            assert!(self.fill().await > 0, "closed after {} of {count} bytes", self.input.len());
        }
        self.input.drain(..count).collect()
    }

    /// Everything up to the end of the connection.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        while self.fill().await > 0 {}
        std::mem::take(&mut self.input)
    }

    /// Closes our writing half: to the plugin, the caller has gone.
    pub(crate) async fn half_close(&mut self) {
        self.stream.shutdown().await.unwrap();
    }

    async fn fill(&mut self) -> usize {
        timeout(PATIENCE, self.stream.read_buf(&mut self.input)).await.expect("the plugin is silent").unwrap_or(0)
    }
}

impl Raw {
    pub(crate) fn status(&self) -> u16 {
        self.head.split(' ').nth(1).unwrap().parse().unwrap()
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {} {}", self.head, self.text()))
    }

    /// Status, code, whether it ran.
    pub(crate) fn problem(&self) -> (u16, String, String) {
        assert!(self.head.contains("Content-Type: application/problem+json\r\n"), "{} {}", self.head, self.text());
        let document = self.json();
        assert_eq!(document["status"], self.status());
        assert_eq!(document["type"], "about:blank");
        let text = |field: &str| document[field].as_str().unwrap_or_default().to_owned();
        (self.status(), text("code"), text("ran"))
    }
}
