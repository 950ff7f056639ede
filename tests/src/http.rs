//! HTTP/1.1 on a Unix socket by hand, blocking: what a person with curl, or an application of the year 2015, sends.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::LONG;

/// One connection.
#[derive(Debug)]
pub struct Wire {
    stream: UnixStream,
    read: Vec<u8>,
}

/// A whole reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// As it came, such as `HTTP/1.1 200 OK`.
    pub status_line: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, chunks joined.
    pub body: Vec<u8>,
}

impl Reply {
    /// The number in the status line; 0 if there is none.
    pub fn status(&self) -> u16 {
        self.status_line.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
    }

    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; `null` if it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

impl Wire {
    /// Connects; every read has a deadline.
    ///
    /// # Errors
    /// As the socket says.
    pub fn connect(socket: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(LONG))?;
        Ok(Self { stream, read: Vec::new() })
    }

    /// Sets another deadline for reads.
    ///
    /// # Errors
    /// As the socket says.
    pub fn read_timeout(&self, limit: Duration) -> io::Result<()> {
        self.stream.set_read_timeout(Some(limit))
    }

    /// Writes bytes as they are.
    ///
    /// # Errors
    /// As the socket says.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Ends our half of the connection.
    ///
    /// # Errors
    /// As the socket says.
    pub fn half_close(&self) -> io::Result<()> {
        self.stream.shutdown(std::net::Shutdown::Write)
    }

    /// Sends one request and reads its whole reply.
    ///
    /// # Errors
    /// As the socket says; `InvalidData` for what is no HTTP.
    pub fn request(&mut self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> io::Result<Reply> {
        let mut head = format!("{method} {target} HTTP/1.1\r\nHost: goplug\r\nContent-Length: {}\r\n", body.len());
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        self.send(&[head.as_bytes(), body].concat())?;
        self.reply()
    }

    /// Reads one whole reply.
    ///
    /// # Errors
    /// `UnexpectedEof` when the connection ends before; `InvalidData` for what is no HTTP.
    pub fn reply(&mut self) -> io::Result<Reply> {
        let (status_line, headers) = self.head()?;
        let find = |name: &str| headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        let body = if find("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
            self.chunks()?
        } else if let Some(length) = find("content-length") {
            let length = length.parse().map_err(|_| invalid("Content-Length is no number"))?;
            self.exactly(length)?
        } else {
            let mut rest = std::mem::take(&mut self.read);
            self.stream.read_to_end(&mut rest)?;
            rest
        };
        Ok(Reply { status_line, headers, body })
    }

    /// Reads a reply's head; what follows is read with [`Wire::chunk`].
    ///
    /// # Errors
    /// As [`Wire::reply`].
    pub fn head(&mut self) -> io::Result<(String, Vec<(String, String)>)> {
        let status_line = self.line()?;
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok((status_line, headers));
            }
            let (name, value) = line.split_once(':').ok_or_else(|| invalid("a header without a colon"))?;
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    /// The next chunk of a chunked body; empty at the end.
    ///
    /// # Errors
    /// As [`Wire::reply`].
    pub fn chunk(&mut self) -> io::Result<Vec<u8>> {
        let size = self.line()?;
        let size = usize::from_str_radix(size.split(';').next().unwrap_or_default(), 16);
        let data = self.exactly(size.map_err(|_| invalid("a chunk's size is no number"))?)?;
        self.line()?;
        Ok(data)
    }

    fn chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let chunk = self.chunk()?;
            if chunk.is_empty() {
                return Ok(body);
            }
            body.extend(chunk);
        }
    }

    fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.read.windows(2).position(|two| two == b"\r\n") {
                let line: Vec<u8> = self.read.drain(..end + 2).take(end).collect();
                return String::from_utf8(line).map_err(|_| invalid("a head that is no UTF-8"));
            }
            self.more()?;
        }
    }

    fn exactly(&mut self, size: usize) -> io::Result<Vec<u8>> {
        while self.read.len() < size {
            self.more()?;
        }
        Ok(self.read.drain(..size).collect())
    }

    fn more(&mut self) -> io::Result<()> {
        let mut buffer = [0; 65536];
        match self.stream.read(&mut buffer)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            count => {
                self.read.extend_from_slice(&buffer[..count]);
                Ok(())
            }
        }
    }
}

/// One request on a connection of its own.
///
/// # Errors
/// As [`Wire::request`].
pub fn once(socket: &Path, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> io::Result<Reply> {
    Wire::connect(socket)?.request(method, target, headers, body)
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}
