//! A connection to a host's control socket: a request line out, answer lines in.

use std::path::Path;
use std::time::Duration;

use goplug_pconf_schema::wire::host::{Answer, MAX_HOST_ANSWER_BYTES, Request};
use goplug_pconf_schema::{Code, Fault};
use goplug_transport::Peer;
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

/// How long a host may take to accept a connection and to answer what it need not wait for: it has one thread, and does
/// nothing that takes long.
pub(super) const HOST_LIMIT: Duration = Duration::from_secs(2);

/// The pause before another look at a full backlog.
const BUSY_PAUSE: Duration = Duration::from_millis(5);

/// How often a host that lives is asked what may be asked again, when the connection breaks or cannot be made.
pub(super) const TRIES: u32 = 3;

/// A connection, and the process behind it as the kernel names it.
#[derive(Debug)]
pub(super) struct Talk {
    stream: UnixStream,
    input: Vec<u8>,
    pub(super) peer: Peer,
}

impl Talk {
    /// Connects; sends nothing.
    ///
    /// # Errors
    /// `not_found` when nobody listens there; `denied`; `unavailable`; `plugin_gone` when it ended at once.
    pub(super) async fn connect(control: &Path) -> Result<Self, Fault> {
        let connect = async {
            loop {
                match UnixStream::connect(control).await {
                    // Its backlog is full; nothing tells when it is not.
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => sleep(BUSY_PAUSE).await,
                    connected => return connected,
                }
            }
        };
        let stream = match timeout(HOST_LIMIT, connect).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                let code = match error.kind() {
                    std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => Code::NotFound,
                    std::io::ErrorKind::PermissionDenied => Code::Denied,
                    _ => Code::Unavailable,
                };
                return Err(Fault::new(code, format!("no host at {}: {error}", control.display())));
            }
            Err(_) => return Err(late()),
        };
        let peer = Peer::of(&stream).map_err(|error| gone(&error))?;
        Ok(Self { stream, input: Vec::new(), peer })
    }

    /// Sends a request.
    ///
    /// # Errors
    /// `plugin_gone` when the host has ended.
    pub(super) async fn send(&mut self, request: &Request) -> Result<(), Fault> {
        let mut line = serde_json::to_vec(request).unwrap_or_default();
        line.push(b'\n');
        let mut rest = line.as_slice();
        let send = async {
            while !rest.is_empty() {
                self.stream.writable().await.map_err(|error| gone(&error))?;
                match self.stream.try_write(rest) {
                    Ok(count) => rest = &rest[count..],
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(gone(&error)),
                }
            }
            Ok(())
        };
        timeout(HOST_LIMIT, send).await.unwrap_or_else(|_| Err(late()))
    }

    /// The next answer. Waits for as long as the host does.
    ///
    /// # Errors
    /// What the host says; `plugin_gone` when it has ended; `protocol_error`.
    ///
    /// # Cancel safety
    /// Safe: no byte is lost.
    pub(super) async fn answer(&mut self) -> Result<Answer, Fault> {
        let mut searched = 0;
        loop {
            if let Some(end) = self.input[searched..].iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.input.drain(..=searched + end).collect();
                return Answer::read(&line);
            }
            searched = self.input.len();
            if searched > MAX_HOST_ANSWER_BYTES {
                let text = format!("the host's answer has more than {MAX_HOST_ANSWER_BYTES} bytes");
                return Err(Fault::new(Code::ProtocolError, text));
            }
            self.stream.readable().await.map_err(|error| gone(&error))?;
            let mut buffer = [0; 8 * 1024];
            match self.stream.try_read(&mut buffer) {
                Ok(0) => return Err(Fault::new(Code::PluginGone, "the host has ended")),
                Ok(count) => self.input.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(gone(&error)),
            }
        }
    }

    /// A request that is answered at once.
    ///
    /// # Errors
    /// As [`Talk::send`] and [`Talk::answer`]; `unavailable` when no answer comes.
    pub(super) async fn ask(&mut self, request: &Request, limit: Duration) -> Result<Answer, Fault> {
        self.send(request).await?;
        self.answer_within(limit).await
    }

    /// The next answer, if it comes in time.
    ///
    /// # Errors
    /// As [`Talk::answer`]; `unavailable` when none comes.
    pub(super) async fn answer_within(&mut self, limit: Duration) -> Result<Answer, Fault> {
        timeout(limit, self.answer()).await.unwrap_or_else(|_| Err(late()))
    }
}

fn gone(error: &std::io::Error) -> Fault {
    Fault::new(Code::PluginGone, format!("the connection to the host broke: {error}"))
}

fn late() -> Fault {
    Fault::new(Code::Unavailable, "the host does not answer in time")
}
