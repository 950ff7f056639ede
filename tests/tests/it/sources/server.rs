//! A web server that behaves as badly as it is told to.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// What is answered to a path.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// The file.
    File(Vec<u8>),
    /// The file is said to be longer than what is sent of it.
    CutOff(Vec<u8>),
    /// Zeros without an end, in chunks.
    Endless,
    /// A head, and then nothing.
    Silence,
    /// Go there.
    Redirect(String),
    /// A status without a body.
    Status(u16),
}

/// Listens on the loopback interface until it is dropped.
pub(crate) struct Server {
    port: u16,
    replies: Arc<Mutex<BTreeMap<String, Reply>>>,
}

impl Server {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let replies: Arc<Mutex<BTreeMap<String, Reply>>> = Arc::default();
        let known = Arc::clone(&replies);
        // Ends when the last owner of the replies but itself is gone, at the next connection, or with the tests.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if Arc::strong_count(&known) == 1 {
                    return;
                }
                let known = Arc::clone(&known);
                std::thread::spawn(move || answer(stream, &known));
            }
        });
        Self { port, replies }
    }

    pub(crate) fn put(&self, path: &str, reply: Reply) -> String {
        self.replies.lock().unwrap().insert(path.to_owned(), reply);
        self.url(path)
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }
}

fn answer(mut stream: TcpStream, replies: &Mutex<BTreeMap<String, Reply>>) {
    let mut head = BufReader::new(stream.try_clone().unwrap()).lines();
    let Some(Ok(first)) = head.next() else { return };
    while head.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let reply = replies.lock().unwrap().get(&path).cloned().unwrap_or(Reply::Status(404));
    // Whoever asked may leave at any time.
    _ = send(&mut stream, reply);
    _ = stream.shutdown(Shutdown::Both);
}

fn send(stream: &mut TcpStream, reply: Reply) -> std::io::Result<()> {
    let ok = "HTTP/1.1 200 OK\r\nConnection: close\r\n";
    match reply {
        Reply::File(bytes) => {
            write!(stream, "{ok}Content-Length: {}\r\n\r\n", bytes.len())?;
            stream.write_all(&bytes)
        }
        Reply::CutOff(bytes) => {
            write!(stream, "{ok}Content-Length: {}\r\n\r\n", bytes.len() + 1)?;
            stream.write_all(&bytes)
        }
        Reply::Endless => {
            write!(stream, "{ok}Transfer-Encoding: chunked\r\n\r\n")?;
            let zeros = vec![0; 1 << 20];
            loop {
                stream.write_all(b"100000\r\n")?;
                stream.write_all(&zeros)?;
                stream.write_all(b"\r\n")?;
            }
        }
        Reply::Silence => {
            write!(stream, "{ok}Content-Length: 10\r\n\r\nx")?;
            // Until the other side leaves.
            std::io::copy(stream, &mut std::io::sink()).map(drop)
        }
        Reply::Redirect(to) => {
            write!(stream, "HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        }
        Reply::Status(status) => {
            write!(stream, "HTTP/1.1 {status} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        }
    }
}
