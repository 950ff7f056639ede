//! A plugin that turns into another program while it is activated, and answers as that.
//!
//! `turncoat DIR PROGRAM` serves `Evil/Turncoat`; asked to activate itself it becomes PROGRAM, which must be a copy of this
//! one, with the connection as its standard input, and answers there. The process stays the same.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use goplug_tests::write_atomically;
use serde_json::json;

const EPOCH: &str = "0123456789abcdef0123456789abcdef";

fn main() {
    let mut args = std::env::args().skip(1);
    let first = args.next().expect("a folder");
    if first == "--answer" {
        return answer(&args.next().expect("the id of a call"));
    }
    let (dir, program) = (PathBuf::from(first), args.next().expect("another program"));
    let socket = dir.join("turncoat.sock");
    _ = std::fs::remove_file(&socket);
    let listener = UnixListener::bind(&socket).expect("a socket");
    let pconf = json!({"Name": "Turncoat", "NameSpace": "Evil", "Sock": socket, "Protocol": 1, "Epoch": EPOCH});
    write_atomically(&dir.join("EvilTurncoat.pconf"), pconf.to_string().as_bytes());
    println!("ready");
    for stream in listener.incoming().flatten() {
        serve(stream, &program);
    }
}

fn serve(mut stream: UnixStream, program: &str) {
    let mut read = Vec::new();
    loop {
        let mut piece = [0; 4_096];
        match stream.read(&mut piece) {
            Ok(count @ 1..) => read.extend_from_slice(&piece[..count]),
            _ => return,
        }
        let text = String::from_utf8_lossy(&read).into_owned();
        if !text.contains("\r\n\r\n") {
            continue;
        }
        if text.starts_with("GET /_goplug/hello ") {
            let hello = json!({"protocols": [1], "namespace": "Evil", "name": "Turncoat", "epoch": EPOCH});
            let hello = hello.to_string();
            let length = hello.len();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n");
            stream.write_all((head + &hello).as_bytes()).expect("a registry that reads");
            read.clear();
        } else if text.starts_with("POST /_goplug/activate ") {
            let id = head_value(&text, "goplug-call-id");
            rustix::stdio::dup2_stdin(&stream).expect("a standard input");
            let error = Command::new(program).args(["--answer", id]).exec();
            eprintln!("{program}: {error}");
            return;
        }
    }
}

fn head_value<'a>(text: &'a str, name: &str) -> &'a str {
    let fields = text.lines().filter_map(|line| line.split_once(':'));
    fields
        .filter(|(field, _)| field.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim())
        .next()
        .unwrap_or_default()
}

/// As the other program: the activation has succeeded.
fn answer(id: &str) {
    let reply = format!("HTTP/1.1 200 OK\r\nGoplug-Call-Id: {id}\r\nContent-Length: 0\r\n\r\n");
    rustix::io::write(rustix::stdio::stdin(), reply.as_bytes()).expect("a registry that reads");
    let mut nothing = Vec::new();
    _ = std::io::stdin().read_to_end(&mut nothing);
}
