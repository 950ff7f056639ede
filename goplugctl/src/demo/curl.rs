//! The same call with `curl`; where there is no curl, the same HTTP by hand.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::output::text::quoted;

/// How long the call may take.
const LIMIT: Duration = Duration::from_secs(5);
/// The largest reply that is read.
const MAX_REPLY_BYTES: u64 = 1024 * 1024;

/// The command line of the call.
pub(super) fn line(socket: &Path, body: &str) -> String {
    format!("curl -sS --unix-socket {} -d {} http://goplug/Do", quoted(&socket.display().to_string()), quoted(body))
}

/// Makes the call and tells the reply, and how it was made. Blocking.
pub(super) fn call(socket: &Path, body: &str) -> io::Result<(Vec<u8>, &'static str)> {
    let limit = LIMIT.as_secs().to_string();
    let mut curl = Command::new("curl");
    // Without the user's own configuration: a proxy there is none of this demo's business.
    curl.args(["-q", "-sS", "--max-time", &limit, "--unix-socket"]).arg(socket).args(["-d", body, "http://goplug/Do"]);
    curl.env_remove("http_proxy").env_remove("ALL_PROXY").env_remove("all_proxy");
    match curl.output() {
        Ok(output) if output.status.success() => Ok((output.stdout, "curl")),
        Ok(output) => Err(io::Error::other(format!("curl: {}", String::from_utf8_lossy(&output.stderr).trim()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Ok((by_hand(socket, body)?, "curl is not installed: the same HTTP by hand"))
        }
        Err(error) => Err(error),
    }
}

/// HTTP/1.0, so that the reply ends with the connection and is never chunked.
fn by_hand(socket: &Path, body: &str) -> io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    write!(stream, "POST /Do HTTP/1.0\r\nHost: goplug\r\nContent-Length: {}\r\n\r\n{body}", body.len())?;
    let mut reply = Vec::new();
    stream.take(MAX_REPLY_BYTES).read_to_end(&mut reply)?;
    let wrong = || {
        io::Error::other(format!("no reply of a method: {}", String::from_utf8_lossy(&reply[..reply.len().min(80)])))
    };
    let head = reply.windows(4).position(|bytes| bytes == b"\r\n\r\n").ok_or_else(wrong)?;
    let ok = reply[..head].split(|byte| *byte == b' ').nth(1) == Some(b"200");
    if ok { Ok(reply[head + 4..].to_vec()) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_call_by_hand_reads_the_body_and_refuses_an_error() {
        for (answer, expected) in [
            ("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nHELLO", Some(b"HELLO".to_vec())),
            ("HTTP/1.1 404 Not Found\r\n\r\n", None),
            ("", None),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("s.sock");
            let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
            let server = std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = vec![0; 1024];
                let mut read = 0;
                while !request[..read].ends_with(b"hello") {
                    read += stream.read(&mut request[read..]).unwrap();
                }
                stream.write_all(answer.as_bytes()).unwrap();
            });
            assert_eq!(by_hand(&path, "hello").ok(), expected, "{answer}");
            server.join().unwrap();
        }
    }
}
