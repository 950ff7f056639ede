//! A plugin of the original GoPlug, with a thread for each connection as Go has a goroutine.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use goplug_benches::{Answering, serve_control};

/// The longest reply whose length Go's server knows in time; longer ones are sent in chunks.
const GO_KNOWS: usize = 2048;

/// Publishes the plugin `id` in `dir` and serves it.
pub(crate) fn run(dir: &Path, id: &str, answering: &Answering) -> Result<()> {
    let (namespace, name) = id.split_once('/').context("an id without a namespace")?;
    let socket = dir.join("v0.sock");
    let listener = UnixListener::bind(&socket)?;
    let pconf = serde_json::json!({
        "Name": name, "NameSpace": namespace, "Url": format!("unix://{namespace}{name}"), "Sock": socket, "LazyLoad": false,
    });
    std::fs::write(dir.join("v0.pconf"), pconf.to_string())?;
    serve_control()?;
    loop {
        let (stream, _) = listener.accept()?;
        let answering = answering.clone();
        // A connection that breaks is one that the host closed.
        std::thread::spawn(move || serve(stream, &answering));
    }
}

fn serve(mut stream: UnixStream, answering: &Answering) -> Result<()> {
    let mut reader = BufReader::with_capacity(16 * 1024, stream.try_clone()?);
    while let Some((target, body)) = request(&mut reader)? {
        let answer = match target.trim_start_matches('/') {
            "Activate" => Bytes::from_static(br#"["echo","","","",""]"#),
            "Ping" => body,
            "echo" => answering.answer(body),
            _ => {
                stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")?;
                continue;
            }
        };
        reply(&mut stream, &answer)?;
    }
    Ok(())
}

/// Target and body of the next request; `None` when no more come.
fn request(reader: &mut BufReader<UnixStream>) -> Result<Option<(String, Bytes)>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let target = line.split(' ').nth(1).context("no request line")?.to_owned();
    let mut length = 0;
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            bail!("a head that breaks off");
        }
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(Some((target, body.into())))
}

fn reply(stream: &mut UnixStream, body: &[u8]) -> Result<()> {
    let mut bytes = Vec::with_capacity(body.len() + 256);
    write!(bytes, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nDate: Sat, 01 Aug 2015 12:00:00 GMT\r\n")?;
    if body.len() <= GO_KNOWS {
        write!(bytes, "Content-Length: {}\r\n\r\n", body.len())?;
        bytes.extend_from_slice(body);
    } else {
        write!(bytes, "Transfer-Encoding: chunked\r\n\r\n{:x}\r\n", body.len())?;
        bytes.extend_from_slice(body);
        bytes.extend_from_slice(b"\r\n0\r\n\r\n");
    }
    Ok(stream.write_all(&bytes)?)
}
