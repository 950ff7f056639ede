//! A plugin of the original GoPlug 0.1.0 by hand: what its Go library writes, byte for byte where that matters.
//!
//! `v0plugin DIR NAMESPACE NAME [--lazy] [--output TEXT] [--activations FILE]`. Methods: `main.Do` answers its bytes in
//! upper case, `main.Echo` its bytes, `main.Notify` (body `CALLBACK DATA`) waits for a poll of that callback and answers
//! it, `main.Pid`; `lib/x.Far` is listed and cannot be called. `Stop` ends the process inside the handler.

use std::collections::HashMap;
use std::io::Write;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex};

use goplug_tests::raw::{Peer, listen};
use goplug_tests::write_atomically;

const METHODS: [&str; 5] = ["main.Do", "main.Echo", "main.Notify", "main.Pid", "lib/x.Far"];

/// One waiter per name: the original keeps a channel in a map, and a later poll takes the place.
#[derive(Default)]
struct Waiters {
    polls: Mutex<HashMap<String, Sender<Vec<u8>>>>,
    came: Condvar,
}

fn main() {
    let mut args = std::env::args().skip(1);
    let mut next = || args.next().unwrap_or_default();
    let (dir, namespace, name) = (PathBuf::from(next()), next(), next());
    let (mut lazy, mut output, mut activations) = (false, String::new(), None);
    loop {
        match next().as_str() {
            "--lazy" => lazy = true,
            "--output" => output = next(),
            "--activations" => activations = Some(PathBuf::from(next())),
            _ => break,
        }
    }
    let socket = dir.join(format!("{namespace}{name}.sock"));
    let published = || {
        // Keys and their order as Go writes them.
        let text = format!(
            r#"{{"Name":"{name}","NameSpace":"{namespace}","Url":"unix://{namespace}{name}","Sock":"{}","LazyLoad":{lazy}}}"#,
            socket.display()
        );
        write_atomically(&dir.join(format!("{namespace}{name}.pconf")), text.as_bytes());
        println!("ready");
    };
    let waiters = Arc::new(Waiters::default());
    let activate = move || {
        if let Some(file) = &activations {
            let mut file =
                std::fs::OpenOptions::new().create(true).append(true).open(file).expect("the file of activations");
            writeln!(file, "{}", std::process::id()).expect("a line");
        }
        // The original ranges over a Go map, in random order, after it made room for four names too many.
        let mut names: Vec<&str> = METHODS.to_vec();
        names.rotate_left(std::process::id() as usize % METHODS.len());
        names.extend([""; 4]);
        let mut reply = serde_json::to_vec(&names).expect("names");
        reply.extend(output.as_bytes());
        reply
    };
    listen(&socket, published, move |peer| serve(peer, &waiters, &activate)).expect("a socket");
}

fn serve(mut peer: Peer, waiters: &Waiters, activate: &impl Fn() -> Vec<u8>) {
    while let Some(request) = peer.request() {
        let method = request.target.trim_start_matches('/').split('/').next().unwrap_or_default().to_owned();
        let answer = match method.as_str() {
            "Activate" => Some(activate()),
            "Ping" | "main.Echo" => Some(request.body),
            "main.Do" => Some(request.body.to_ascii_uppercase()),
            "main.Pid" => Some(std::process::id().to_string().into_bytes()),
            "main.Notify" => Some(notify(waiters, &request.body)),
            "RegisterCallback" => match serde_json::from_slice(&request.body) {
                // A replaced poll never gets an answer in the original; here its connection ends, which a client sees the
                // same way.
                Ok(name) => match wait_for_notification(waiters, name) {
                    Some(data) => Some(data),
                    None => return,
                },
                Err(_) => None,
            },
            "Stop" => std::process::exit(0),
            _ => None,
        };
        if reply(&mut peer, answer.as_deref()).is_none() {
            return;
        }
    }
}

/// `None` when a later poll took the place.
fn wait_for_notification(waiters: &Waiters, name: String) -> Option<Vec<u8>> {
    let (send, receive): (Sender<Vec<u8>>, Receiver<Vec<u8>>) = channel();
    waiters.polls.lock().expect("no panic under the lock").insert(name, send);
    waiters.came.notify_all();
    receive.recv().ok()
}

/// Blocks until somebody polls, as the original does.
fn notify(waiters: &Waiters, body: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(body).into_owned();
    let (name, data) = text.split_once(' ').unwrap_or((&text, ""));
    let mut polls = waiters.polls.lock().expect("no panic under the lock");
    loop {
        match polls.remove(name) {
            Some(poll) if poll.send(data.as_bytes().to_vec()).is_ok() => return b"notified".to_vec(),
            Some(_) => {}
            None => polls = waiters.came.wait(polls).expect("no panic under the lock"),
        }
    }
}

/// What Go's server writes: a length for short replies, chunks from 2,048 bytes on, an empty body for an error.
fn reply(peer: &mut Peer, answer: Option<&[u8]>) -> Option<()> {
    const DATE: &str = "Date: Sat, 01 Aug 2015 12:00:00 GMT\r\n";
    let Some(body) = answer else {
        return peer.send(format!("HTTP/1.1 400 Bad Request\r\n{DATE}Content-Length: 0\r\n\r\n").as_bytes());
    };
    if body.len() <= 2048 {
        let head =
            format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n{DATE}Content-Length: {}\r\n\r\n", body.len());
        return peer.send(&[head.as_bytes(), body].concat());
    }
    peer.send(
        format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n{DATE}Transfer-Encoding: chunked\r\n\r\n").as_bytes(),
    )?;
    for piece in body.chunks(2048) {
        peer.send(&[format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat())?;
    }
    peer.send(b"0\r\n\r\n")
}
