//! The other end by hand: just enough of an HTTP server to write plugins that break every rule.

use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

/// One request as it came.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// `GET`, `POST`.
    pub method: String,
    /// The raw target.
    pub target: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Request {
    /// A header's value, empty if there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value.as_str())
    }
}

/// One connection of a server.
#[derive(Debug)]
pub struct Peer {
    stream: UnixStream,
    read: Vec<u8>,
}

impl Peer {
    /// The next request; `None` at the end of the connection.
    pub fn request(&mut self) -> Option<Request> {
        let mut request = self.request_head()?;
        request.body = self.body(request.header("content-length").parse().unwrap_or(0))?;
        Some(request)
    }

    /// The next `length` bytes.
    pub fn body(&mut self, length: usize) -> Option<Vec<u8>> {
        while self.read.len() < length {
            self.more()?;
        }
        Some(self.read.drain(..length).collect())
    }

    /// The next request without its body, which stays unread.
    pub fn request_head(&mut self) -> Option<Request> {
        let end = loop {
            if let Some(end) = self.read.windows(4).position(|four| four == b"\r\n\r\n") {
                break end;
            }
            self.more()?;
        };
        let head: Vec<u8> = self.read.drain(..end + 4).collect();
        let head = String::from_utf8_lossy(&head).into_owned();
        let mut lines = head.split("\r\n");
        let mut first = lines.next()?.split(' ');
        let (method, target) = (first.next()?.to_owned(), first.next()?.to_owned());
        let fields = lines.filter_map(|line| line.split_once(':'));
        let headers = fields.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect();
        Some(Request { method, target, headers, body: Vec::new() })
    }

    /// Writes bytes as they are; `None` when the other side is gone.
    pub fn send(&mut self, bytes: &[u8]) -> Option<()> {
        self.stream.write_all(bytes).ok()
    }

    /// Waits until the other side ends the connection, whatever it sends.
    pub fn until_closed(&mut self) {
        let mut sink = [0; 4096];
        while matches!(self.stream.read(&mut sink), Ok(count) if count > 0) {}
    }

    fn more(&mut self) -> Option<()> {
        let mut buffer = [0; 16 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(0) | Err(_) => None,
            Ok(count) => {
                self.read.extend_from_slice(&buffer[..count]);
                Some(())
            }
        }
    }
}

/// Listens on `socket` and then calls `published` once; every connection gets a thread that runs `serve`.
///
/// # Errors
/// When the socket cannot be bound.
pub fn listen(
    socket: &Path,
    published: impl FnOnce(),
    serve: impl Fn(Peer) + Clone + Send + 'static,
) -> io::Result<()> {
    let _ = std::fs::remove_file(socket);
    let listener = UnixListener::bind(socket)?;
    published();
    for stream in listener.incoming() {
        let (stream, serve) = (stream?, serve.clone());
        std::thread::spawn(move || serve(Peer { stream, read: Vec::new() }));
    }
    Ok(())
}
