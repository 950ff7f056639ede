//! An application of the original GoPlug, by hand, on one connection.

use std::io;
use std::path::Path;

use crate::http::{Reply, Wire};

/// What the original's handle on a plugin does.
#[derive(Debug)]
pub struct V0App {
    wire: Wire,
    host: String,
}

impl V0App {
    /// Connects; `host` is what stands in `Url` after `unix://`.
    ///
    /// # Errors
    /// As the socket says.
    pub fn connect(socket: &Path, host: &str) -> io::Result<Self> {
        Ok(Self { wire: Wire::connect(socket)?, host: host.to_owned() })
    }

    /// `POST /<method>` as the original's HTTP client writes it: every body is said to be JSON, none has length 0.
    ///
    /// # Errors
    /// As the socket says.
    pub fn post(&mut self, method: &str, body: &[u8]) -> io::Result<Reply> {
        let content_type = if body.is_empty() { "" } else { "Content-Type: application/json\r\n" };
        let head = format!(
            "POST /{method} HTTP/1.1\r\nHost: {}\r\nUser-Agent: Go 1.1 package http\r\nContent-Length: {}\r\n{content_type}Accept-Encoding: gzip\r\n\r\n",
            self.host,
            body.len()
        );
        self.wire.send(&[head.as_bytes(), body].concat())?;
        self.wire.reply()
    }

    /// The list of methods, decoded as the original does: the whole body is one JSON array.
    ///
    /// # Errors
    /// As the socket says; `InvalidData` when the reply is not exactly that.
    pub fn activate(&mut self) -> io::Result<Vec<String>> {
        let reply = self.post("Activate", b"")?;
        expect_ok(&reply)?;
        serde_json::from_slice(&reply.body).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    /// Calls a method.
    ///
    /// # Errors
    /// As the socket says; `Other` with the status line unless it is `200 OK`.
    pub fn execute(&mut self, method: &str, body: &[u8]) -> io::Result<Vec<u8>> {
        let reply = self.post(method, body)?;
        expect_ok(&reply)?;
        Ok(reply.body)
    }

    /// Waits for one notification of `callback`.
    ///
    /// # Errors
    /// As [`V0App::execute`].
    pub fn poll(&mut self, callback: &str) -> io::Result<Vec<u8>> {
        self.execute("RegisterCallback", serde_json::Value::from(callback).to_string().as_bytes())
    }
}

/// The original compares the text of the status, not its number.
fn expect_ok(reply: &Reply) -> io::Result<()> {
    match reply.status_line.as_str() {
        "HTTP/1.1 200 OK" => Ok(()),
        other => Err(io::Error::other(format!("request failed. Status: {other}"))),
    }
}
