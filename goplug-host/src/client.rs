//! One connection to the control socket: lines in, lines out, nothing that grows.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use goplug_pconf_schema::wire::host::{Answer, MAX_HOST_REQUEST_BYTES, Request};
use goplug_pconf_schema::{Code, Fault};
use rustix::event::PollFlags;

/// Answers that may wait for a client that does not read; one line more fits.
const MAX_WAITING_BYTES: usize = 64 * 1024;
/// How long a client may say nothing, or read nothing, when it is its turn.
const PATIENCE_MS: u64 = 30_000;

/// Who connected.
#[derive(Debug)]
pub(crate) struct Client {
    stream: UnixStream,
    input: Vec<u8>,
    output: Vec<u8>,
    /// What it waits for.
    pub(crate) asks: Asks,
    /// It will say no more.
    is_mute: bool,
    /// It is cut off when it has read what there is.
    is_last: bool,
    /// When it did something last, or was told something.
    moved_ms: u64,
}

/// A request that is not answered at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asks {
    Nothing,
    /// A status when the plugin has ended.
    Exit,
    /// A status when nothing is left.
    End,
    Logs {
        after: u64,
        /// The last line that was there when it asked; `None` for all that come.
        until: Option<u64>,
    },
}

impl Client {
    /// A new connection; `None` if it comes from another user.
    pub(crate) fn new(stream: UnixStream, now_ms: u64) -> Option<Self> {
        let uid = rustix::net::sockopt::socket_peercred(&stream).ok()?.uid;
        if !uid.is_root() && uid != rustix::process::geteuid() {
            return None;
        }
        stream.set_nonblocking(true).ok()?;
        let (input, output, asks) = (Vec::new(), Vec::new(), Asks::Nothing);
        Some(Self { stream, input, output, asks, is_mute: false, is_last: false, moved_ms: now_ms })
    }

    /// What it is waited for.
    pub(crate) fn interest(&self) -> PollFlags {
        if !self.output.is_empty() {
            PollFlags::OUT
        } else if self.asks == Asks::Nothing && !self.is_mute {
            PollFlags::IN
        } else {
            // Its end is told without being asked for.
            PollFlags::empty()
        }
    }

    /// When it has had its time.
    pub(crate) fn deadline(&self) -> Option<u64> {
        (!self.interest().is_empty()).then(|| self.moved_ms.saturating_add(PATIENCE_MS))
    }

    /// Since when it could be cut off for somebody else: it is owed nothing.
    pub(crate) fn idle_since(&self) -> Option<u64> {
        (self.asks == Asks::Nothing && self.output.is_empty()).then_some(self.moved_ms)
    }

    /// Reads what is there; false when the connection is done.
    pub(crate) fn read(&mut self, now_ms: u64) -> bool {
        let mut buffer = [0; 1024];
        while self.input.len() <= MAX_HOST_REQUEST_BYTES {
            match self.stream.read(&mut buffer) {
                Ok(0) => {
                    self.is_mute = true;
                    return true;
                }
                Ok(count) => {
                    self.input.extend_from_slice(&buffer[..count]);
                    self.moved_ms = now_ms;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        true
    }

    /// The next request, if it is the client's turn and its line is whole.
    pub(crate) fn request(&mut self) -> Option<Result<Request, Fault>> {
        if self.asks != Asks::Nothing || self.is_last || !self.has_room() {
            return None;
        }
        let wrong = |why: String| Some(Err(Fault::new(Code::InvalidArgument, why)));
        let Some(end) = self.input.iter().take(MAX_HOST_REQUEST_BYTES + 1).position(|&byte| byte == b'\n') else {
            if self.input.len() <= MAX_HOST_REQUEST_BYTES {
                return None;
            }
            self.is_last = true;
            return wrong(format!("a request has at most {MAX_HOST_REQUEST_BYTES} bytes"));
        };
        let line: Vec<u8> = self.input.drain(..=end).collect();
        match serde_json::from_slice(&line) {
            Ok(request) => Some(Ok(request)),
            Err(error) => wrong(format!("the request is none: {error}")),
        }
    }

    /// Whether another answer may be put to those that wait.
    pub(crate) fn has_room(&self) -> bool {
        self.output.len() < MAX_WAITING_BYTES
    }

    pub(crate) fn push(&mut self, answer: &Answer, now_ms: u64) {
        if self.output.is_empty() {
            self.moved_ms = now_ms;
        }
        self.output.extend_from_slice(&answer.to_line());
    }

    /// Writes what it takes; false when the connection is done.
    pub(crate) fn write(&mut self, now_ms: u64) -> bool {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(0) => return false,
                Ok(count) => {
                    self.output.drain(..count);
                    self.moved_ms = now_ms;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        // A burst of lines must not stay in memory.
        self.output.shrink_to(4096);
        !(self.is_last || (self.is_mute && self.asks == Asks::Nothing && !self.input.contains(&b'\n')))
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (UnixStream, Client) {
        let (theirs, ours) = UnixStream::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        (theirs, Client::new(ours, 0).unwrap())
    }

    #[test]
    fn requests_come_one_by_one_and_garbage_is_told() {
        let (mut theirs, mut client) = pair();
        theirs.write_all(b"{\"do\":\"sta").unwrap();
        assert!(client.read(5) && client.request().is_none());
        theirs.write_all(b"tus\"}\n\xff\xfe\n{\"do\":\"wait\"}\n{\"do\":\"forget\"}\n").unwrap();
        assert!(client.read(6));
        assert_eq!(client.request(), Some(Ok(Request::Status)));
        assert_eq!(client.request().map(|request| request.unwrap_err().code), Some(Code::InvalidArgument));
        assert_eq!(client.request(), Some(Ok(Request::Wait)));
        client.asks = Asks::Exit;
        assert!(client.request().is_none() && client.interest().is_empty() && client.deadline().is_none());
        client.asks = Asks::Nothing;
        assert_eq!(client.request(), Some(Ok(Request::Forget)));
        assert_eq!(client.deadline(), Some(6 + PATIENCE_MS));
    }

    #[test]
    fn a_line_without_an_end_is_cut_off() {
        let (mut theirs, mut client) = pair();
        theirs.write_all(&[b'x'; 100_000]).unwrap();
        assert!(client.read(0));
        assert!(client.input.len() < 2 * MAX_HOST_REQUEST_BYTES, "{}", client.input.len());
        let fault = client.request().unwrap().unwrap_err();
        client.push(&Answer::problem(&fault), 0);
        assert!(!client.write(0), "it is done");
        assert!(client.request().is_none());
    }

    #[test]
    fn who_does_not_read_is_owed_a_bounded_amount() {
        let (_theirs, mut client) = pair();
        let answer = Answer::Problem { code: Code::Internal, message: "x".repeat(10_000) };
        let mut pushed = 0;
        while client.has_room() {
            client.push(&answer, 1);
            assert!(client.write(1));
            pushed += 1;
        }
        assert!(client.output.len() < MAX_WAITING_BYTES + 20_000 && pushed < 1000, "{pushed}");
        assert_eq!((client.interest(), client.idle_since()), (PollFlags::OUT, None));
        assert_eq!(client.deadline(), Some(1 + PATIENCE_MS));
    }

    #[test]
    fn who_says_no_more_gets_what_it_asked_for() {
        let (mut theirs, mut client) = pair();
        theirs.write_all(b"{\"do\":\"status\"}\n").unwrap();
        theirs.shutdown(std::net::Shutdown::Write).unwrap();
        assert!(client.read(0) && client.write(0));
        assert_eq!(client.request(), Some(Ok(Request::Status)));
        client.push(&Answer::End { after: 3 }, 0);
        assert!(!client.write(0));
        let mut answer = Vec::new();
        drop(client);
        theirs.read_to_end(&mut answer).unwrap();
        assert_eq!(Answer::read(&answer), Ok(Answer::End { after: 3 }));
    }
}
