//! A plugin that breaks the protocol on command, written by hand on a raw socket.
//!
//! `evil DIR NAME HELLO [FILE]`: HELLO is one of [`hello`]'s scenarios; `file` serves the bytes of FILE as the whole answer
//! to a hello; `impostor` says hello as somebody else and answers every call with [`IMPOSTOR`]. Each method is one way to break a reply; `raw` sends its own body as the reply (`CALLID` is replaced) and
//! closes. Each callback is one way to break a stream; `file` streams the bytes of FILE. Everything else is answered well.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use goplug_tests::raw::{Peer, Request, listen};
use goplug_tests::write_atomically;
use serde_json::json;

const EPOCH: &str = "0123456789abcdef0123456789abcdef";

/// What no caller of the process that was met may ever read.
const IMPOSTOR: &[u8] = b"the impostor's bytes";

const METHODS: [&str; 36] = [
    "good",
    "wrong-id",
    "no-id",
    "two-replies",
    "truncated",
    "truncated-chunks",
    "chunked-100mb",
    "declared-100mb",
    "declared-4gb",
    "close-after",
    "early-reply",
    "byte-by-byte",
    "status-302",
    "status-204",
    "status-201",
    "status-599",
    "problem-without-code",
    "problem-unknown-code",
    "problem-huge",
    "problem-deep",
    "trailing",
    "endless-head",
    "many-fields",
    "bare-lf",
    "two-lengths",
    "length-and-chunked",
    "gzip",
    "eof",
    "half-head",
    "not-http",
    "length-negative",
    "chunk-size-bad",
    "silence",
    "continue-first",
    "raw",
    "close-delimited",
];

const CALLBACKS: [&str; 14] = [
    "good",
    "no-position",
    "other-epoch",
    "backwards",
    "twice",
    "bad-base64",
    "not-json",
    "endless-line",
    "closes",
    "garbage",
    "wrong-type",
    "status-500",
    "huge-gap",
    "file",
];

struct Plugin {
    name: String,
    hello: String,
    file: PathBuf,
}

fn main() {
    let mut args = std::env::args().skip(1);
    let mut next = || args.next().unwrap_or_default();
    let dir = PathBuf::from(next());
    let plugin = Arc::new(Plugin { name: next(), hello: next(), file: PathBuf::from(next()) });
    let socket = dir.join(format!("{}.sock", plugin.name));
    let published = || {
        let mut pconf =
            json!({"Name": plugin.name, "NameSpace": "Evil", "Url": "unix://Evil", "Sock": socket, "LazyLoad": false});
        if !plugin.hello.starts_with("v0-") {
            pconf["Protocol"] = json!(1);
            pconf["Epoch"] = json!(EPOCH);
        }
        write_atomically(&dir.join(format!("Evil{}.pconf", plugin.name)), pconf.to_string().as_bytes());
        println!("ready");
    };
    let shared = Arc::clone(&plugin);
    listen(&socket, published, move |peer| {
        serve(peer, &shared);
    })
    .expect("a socket");
}

fn serve(mut peer: Peer, plugin: &Plugin) -> Option<()> {
    loop {
        let request = peer.request_head()?;
        let path = request.target.split('?').next().unwrap_or_default().to_owned();
        if let Some(method) = path.strip_prefix("/_goplug/methods/") {
            if plugin.hello == "impostor" {
                let request = Request { body: peer_body(&mut peer, &request)?, ..request };
                ok(&mut peer, &request, IMPOSTOR)?;
            } else {
                call(&mut peer, request, method)?;
            }
            continue;
        }
        let request = Request { body: peer_body(&mut peer, &request)?, ..request };
        match path.as_str() {
            "/_goplug/hello" => hello(&mut peer, plugin, &request)?,
            "/_goplug/activate" if plugin.hello == "activate-eof" => return None,
            "/_goplug/activate" if plugin.hello == "activate-garbage" => peer.send(b"\0\0\0\0")?,
            "/_goplug/activate" if plugin.hello == "activate-silence" => peer.until_closed(),
            "/_goplug/activate" if plugin.hello == "activate-fails" => {
                let problem =
                    json!({"code": "method_failed", "ran": "yes", "detail": "no \u{1b}[31mdatabase\u{1b}[0m"});
                answer(&mut peer, &request, "422 No", "application/problem+json", problem.to_string().as_bytes())?;
            }
            "/_goplug/activate" => ok(&mut peer, &request, b"active")?,
            "/_goplug/deactivate" | "/_goplug/stop" => {
                ok(&mut peer, &request, br#"{"cancelled":0,"unacknowledged":0}"#)?
            }
            "/_goplug/ping" => ok(&mut peer, &request, &request.body)?,
            "/_goplug/health" => ok(&mut peer, &request, br#"{"status":"ok"}"#)?,
            "/_goplug/callbacks" => ok(&mut peer, &request, b"[]")?,
            "/_goplug/events/ack" => ok(&mut peer, &request, b"")?,
            _ => match path.strip_prefix("/_goplug/events/") {
                Some(callback) => return events(&mut peer, plugin, &request, callback),
                None => answer(&mut peer, &request, "404 Not Found", "text/plain", b"")?,
            },
        }
    }
}

fn peer_body(peer: &mut Peer, request: &Request) -> Option<Vec<u8>> {
    peer.body(request.header("content-length").parse().unwrap_or(0))
}

fn ok(peer: &mut Peer, request: &Request, body: &[u8]) -> Option<()> {
    answer(peer, request, "200 OK", "application/octet-stream", body)
}

fn answer(peer: &mut Peer, request: &Request, status: &str, content_type: &str, body: &[u8]) -> Option<()> {
    let id = request.header("goplug-call-id");
    let id = if id.is_empty() { String::new() } else { format!("Goplug-Call-Id: {id}\r\n") };
    let head =
        format!("HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\n{id}Content-Length: {}\r\n\r\n", body.len());
    peer.send(&[head.as_bytes(), body].concat())
}

fn hello(peer: &mut Peer, plugin: &Plugin, request: &Request) -> Option<()> {
    let names = |list: &[&str]| list.iter().map(|name| json!({"name": name})).collect::<Vec<_>>();
    let mut document = json!({
        "protocols": [1], "protocol": 1, "features": [], "namespace": "Evil", "name": plugin.name, "epoch": EPOCH,
        "methods": names(&METHODS), "callbacks": names(&CALLBACKS),
    });
    match plugin.hello.as_str() {
        "garbage" => return peer.send(b"\x16\x03\x01\x02\x00\x01\x00 not a word of HTTP\r\n\r\n").and(None),
        "eof" => return None,
        "silence" => {
            peer.until_closed();
            return None;
        }
        "not-json" | "v0-not-json" => return ok(peer, request, b"<html>hello</html>"),
        "404" | "v0-404" => return answer(peer, request, "404 Not Found", "text/plain", b"nothing here"),
        "500" => return answer(peer, request, "500 Oh", "text/plain", b"oh"),
        "deep" => return ok(peer, request, format!(r#"{{"protocols":{}"#, "[".repeat(100_000)).as_bytes()),
        "huge" => document["description"] = json!("x".repeat(5 * 1024 * 1024)),
        "wrong-namespace" => document["namespace"] = json!("Other"),
        "wrong-name" => document["name"] = json!("Other"),
        "no-epoch" => drop(document.as_object_mut()?.remove("epoch")),
        "bad-epoch" => document["epoch"] = json!("../../etc/passwd"),
        "other-epoch" | "impostor" => document["epoch"] = json!("f".repeat(32)),
        "version-7" => document["protocols"] = json!([7]),
        // Offered, and refused when somebody asks.
        "no-frames" => document["features"] = json!(["frames/1"]),
        "many-methods" => document["methods"] = (0..1025).map(|n| json!({"name": format!("m{n}")})).collect(),
        "bad-method-name" => document["methods"] = json!([{"name": ".."}]),
        "double-method" => document["methods"] = json!([{"name": "a"}, {"name": "a"}]),
        "escape" => document["description"] = json!("\u{1b}]0;owned\u{7}\u{1b}[2J"),
        "file" => return peer.send(&std::fs::read(&plugin.file).unwrap_or_default()).and(None),
        _ => {}
    }
    ok(peer, request, document.to_string().as_bytes())
}

/// One way to break a reply per method. `None` ends the connection.
fn call(peer: &mut Peer, request: Request, method: &str) -> Option<()> {
    let id = request.header("goplug-call-id").to_owned();
    let head = |rest: &str| format!("HTTP/1.1 200 OK\r\nGoplug-Call-Id: {id}\r\n{rest}\r\n").into_bytes();
    if method == "early-reply" {
        // Answered before the body is read; what is left of it is thrown away with the connection.
        peer.send(&[head("Content-Length: 5\r\nConnection: close\r\n"), b"early".to_vec()].concat())?;
        return None;
    }
    let body = peer_body(peer, &request)?;
    let problem =
        |peer: &mut Peer, text: &str| answer(peer, &request, "422 No", "application/problem+json", text.as_bytes());
    let megabyte = vec![b'x'; 1024 * 1024];
    match method {
        "good" => ok(peer, &request, &body),
        "wrong-id" => peer.send(b"HTTP/1.1 200 OK\r\nGoplug-Call-Id: another\r\nContent-Length: 5\r\n\r\nwrong"),
        "no-id" => peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong"),
        "two-replies" => {
            let one = [head("Content-Length: 5\r\n"), b"first".to_vec()].concat();
            peer.send(&[one.clone(), one].concat())
        }
        "truncated" => peer.send(&[head("Content-Length: 100\r\n"), b"half".to_vec()].concat()).and(None),
        "truncated-chunks" => {
            peer.send(&[head("Transfer-Encoding: chunked\r\n"), b"5\r\nwrong\r\n".to_vec()].concat()).and(None)
        }
        "chunked-100mb" => {
            peer.send(&head("Transfer-Encoding: chunked\r\n"))?;
            for _ in 0..100 {
                peer.send(&[b"100000\r\n", &megabyte[..], b"\r\n"].concat())?;
            }
            peer.send(b"0\r\n\r\n")
        }
        "declared-100mb" => {
            peer.send(&head("Content-Length: 104857600\r\n"))?;
            (0..100).try_for_each(|_| peer.send(&megabyte))
        }
        "declared-4gb" => {
            peer.send(&head("Content-Length: 4294967296\r\n"))?;
            peer.until_closed();
            None
        }
        "close-after" => ok(peer, &request, &body).and(None),
        "byte-by-byte" => {
            let reply = [head(&format!("Content-Length: {}\r\n", body.len())), body].concat();
            for byte in reply {
                peer.send(&[byte])?;
                std::thread::sleep(Duration::from_micros(200));
            }
            Some(())
        }
        "status-302" => peer.send(
            format!("HTTP/1.1 302 Found\r\nGoplug-Call-Id: {id}\r\nLocation: /\r\nContent-Length: 0\r\n\r\n")
                .as_bytes(),
        ),
        "status-204" => peer.send(format!("HTTP/1.1 204 No Content\r\nGoplug-Call-Id: {id}\r\n\r\n").as_bytes()),
        "status-201" => answer(peer, &request, "201 Created", "text/plain", b"made"),
        "status-599" => answer(peer, &request, "599 What", "text/plain", b"what"),
        "problem-without-code" => problem(peer, r#"{"type":"about:blank","status":422}"#),
        "problem-unknown-code" => problem(peer, r#"{"code":"new_in_v9","detail":"x"}"#),
        "problem-huge" => {
            problem(peer, &json!({"code": "method_failed", "detail": "x".repeat(1024 * 1024)}).to_string())
        }
        "problem-deep" => problem(
            peer,
            &format!(r#"{{"code":"method_failed","data":{}1{}}}"#, "[".repeat(30_000), "]".repeat(30_000)),
        ),
        "trailing" => peer.send(&[head("Content-Length: 4\r\n"), b"goodSMUGGLED".to_vec()].concat()),
        "endless-head" => {
            peer.send(b"HTTP/1.1 200 OK\r\n")?;
            (0..100_000).try_for_each(|n| peer.send(format!("X-{n}: {n}\r\n").as_bytes()))
        }
        "many-fields" => peer.send(&[head(&"A: b\r\n".repeat(65)), b"".to_vec()].concat()),
        "bare-lf" => peer.send(format!("HTTP/1.1 200 OK\nGoplug-Call-Id: {id}\nContent-Length: 4\n\ngood").as_bytes()),
        "two-lengths" => peer.send(&[head("Content-Length: 4\r\nContent-Length: 5\r\n"), b"goods".to_vec()].concat()),
        "length-and-chunked" => peer.send(
            &[head("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n"), b"4\r\ngood\r\n0\r\n\r\n".to_vec()].concat(),
        ),
        "gzip" => peer.send(&[head("Transfer-Encoding: gzip\r\n"), b"good".to_vec()].concat()).and(None),
        "eof" => None,
        "half-head" => peer.send(b"HTTP/1.1 200 OK\r\nGoplug-Ca").and(None),
        "not-http" => peer.send(b"SSH-2.0-OpenSSH_9.9\r\n\r\n"),
        "length-negative" => peer.send(&[head("Content-Length: -1\r\n"), b"good".to_vec()].concat()),
        "chunk-size-bad" => {
            peer.send(&[head("Transfer-Encoding: chunked\r\n"), b"fffffffffffffffffff\r\n".to_vec()].concat())
        }
        "silence" => {
            peer.until_closed();
            None
        }
        "continue-first" => {
            peer.send(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n")?;
            ok(peer, &request, &body)
        }
        "raw" => {
            let text = replace(&body, b"CALLID", id.as_bytes());
            peer.send(&text).and(None)
        }
        "close-delimited" => peer.send(&[head(""), b"good".to_vec()].concat()).and(None),
        _ => answer(peer, &request, "404 Not Found", "application/problem+json", br#"{"code":"not_found","ran":"no"}"#),
    }
}

fn replace(text: &[u8], what: &[u8], by: &[u8]) -> Vec<u8> {
    match text.windows(what.len()).position(|piece| piece == what) {
        Some(at) => [&text[..at], by, &text[at + what.len()..]].concat(),
        None => text.to_vec(),
    }
}

/// One way to break an event stream per callback; all end the connection, most after a while.
fn events(peer: &mut Peer, plugin: &Plugin, request: &Request, callback: &str) -> Option<()> {
    if callback == "status-500" {
        return answer(peer, request, "500 Oh", "text/plain", b"oh").and(None);
    }
    let content_type = if callback == "wrong-type" { "text/html" } else { "text/event-stream" };
    let id = request.header("goplug-call-id");
    let id = if id.is_empty() { String::new() } else { format!("Goplug-Call-Id: {id}\r\n") };
    peer.send(
        format!("HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\n{id}Transfer-Encoding: chunked\r\n\r\n").as_bytes(),
    )?;
    let mut chunk = |text: &[u8]| peer.send(&[format!("{:x}\r\n", text.len()).as_bytes(), text, b"\r\n"].concat());
    let message = |epoch: &str, seq: u64, data: &str| {
        format!("id: {epoch}:{seq}\nevent: message\ndata: {{\"dataBase64\":\"{data}\"}}\n\n").into_bytes()
    };
    match callback {
        "no-position" => chunk(b"event: message\ndata: {\"dataBase64\":\"eA==\"}\n\n")?,
        "other-epoch" => chunk(&message(&"e".repeat(32), 1, "eA=="))?,
        "backwards" => [5, 4, 6].iter().try_for_each(|seq| chunk(&message(EPOCH, *seq, "eA==")))?,
        "twice" => [1, 1, 2].iter().try_for_each(|seq| chunk(&message(EPOCH, *seq, "eA==")))?,
        "bad-base64" => chunk(&message(EPOCH, 1, "%%%"))?,
        "not-json" => chunk(format!("id: {EPOCH}:1\nevent: message\ndata: {{\n\n").as_bytes())?,
        "endless-line" => {
            let line = vec![b'x'; 1024 * 1024];
            (0..200).try_for_each(|_| chunk(&line))?;
        }
        "closes" => return None,
        "garbage" => chunk(&[0xff; 1000])?,
        "huge-gap" => chunk(
            format!("event: gap\ndata: {{\"from\":\"{EPOCH}:1\",\"to\":\"{EPOCH}:{}\"}}\n\n", u64::MAX).as_bytes(),
        )?,
        "file" => {
            chunk(&std::fs::read(&plugin.file).unwrap_or_default())?;
            return peer.send(b"0\r\n\r\n").and(None);
        }
        _ => (1..=3).try_for_each(|seq| chunk(&message(EPOCH, seq, "eA==")))?,
    }
    peer.until_closed();
    None
}
