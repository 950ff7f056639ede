//! A plugin of tilotech/go-plugin by hand: its wire, and how it starts.
//!
//! It listens on `PLUGIN_SOCKET` and prints `plugin is ready`. Methods: `/hello` (payload: a JSON string) greets, `/fail` fails with
//! its payload, `/panic` panics, `/sleep` (milliseconds), `/deadline` answers the deadline that it was told, `/pid`, `/die`.

use std::path::PathBuf;
use std::time::Duration;

use goplug_tests::raw::{Peer, listen};
use serde_json::{Value, json};

fn main() {
    let Some(socket) = std::env::var_os("PLUGIN_SOCKET") else {
        eprintln!("no socket provided, please provide one using the PLUGIN_SOCKET environment variable");
        std::process::exit(1);
    };
    listen(&PathBuf::from(socket), || println!("plugin is ready"), serve).expect("a socket");
}

fn serve(mut peer: Peer) {
    while let Some(request) = peer.request() {
        let (status, answer) = answer(&request.target, &request.body);
        let body = format!("{answer}\n");
        let head =
            format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
        if peer.send(format!("{head}{body}").as_bytes()).is_none() {
            return;
        }
    }
}

fn answer(method: &str, body: &[u8]) -> (&'static str, Value) {
    let wrong = |text: &str| ("422 Unprocessable Entity", json!(text));
    let Ok(request) = serde_json::from_slice::<Value>(body) else { return wrong("cannot decode") };
    let (payload, deadline) = (&request["Payload"], &request["Context"]["Deadline"]);
    match method {
        "/hello" => match payload.as_str() {
            Some(name) => ("200 OK", json!(format!("hello {name}"))),
            None => wrong("json: cannot unmarshal the payload into Go value of type string"),
        },
        "/fail" => ("500 Internal Server Error", payload.clone()),
        "/panic" => ("500 Internal Server Error", json!("panic: runtime error")),
        "/sleep" => {
            std::thread::sleep(Duration::from_millis(payload.as_u64().unwrap_or_default()));
            ("200 OK", json!("awake"))
        }
        "/deadline" => ("200 OK", deadline.clone()),
        "/pid" => ("200 OK", json!(std::process::id())),
        "/die" => std::process::exit(7),
        _ => ("404 Not Found", json!(format!("no such method {method}"))),
    }
}
