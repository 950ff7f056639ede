//! Calls: what passes to the plugin and back, and what does not.

use std::time::{Duration, Instant};

use goplug_tests::raw::{Peer, Request, listen};
use goplug_tests::{LONG, PluginDir, http, wait_until, write_atomically};
use serde_json::{Value, json};

use super::{Stage, problem};
use crate::support::Daemon;

#[test]
fn bytes_in_bytes_out() {
    let stage = Stage::new(&["Test/Do"]);
    let all: Vec<u8> = (0..=255).collect();
    let reply = stage.execute("echo", &all);
    assert_eq!((reply.status(), &reply.body), (200, &all));
    assert_eq!(reply.header("content-type"), Some("application/octet-stream"));
    let big = vec![b'x'; 5_000_000];
    assert_eq!(stage.execute("echo", &big).body, big);
    assert_eq!(stage.execute("a%20b%2Fc%2Bd%25%C3%BC", "any name").text(), "any name");
    assert_eq!(stage.execute("stream", "3").text(), "0\n1\n2\n");
    let sum =
        stage.post("/v1/plugins/Test/Do/methods/add", &[("Content-Type", "application/json")], r#"{"a":1,"b":2}"#);
    assert_eq!((sum.text().as_str(), sum.header("content-type")), (r#"{"total":3}"#, Some("application/json")));
    let ping = stage.post("/v1/plugins/Test/Do/ping", &[], "").json();
    assert!(ping["roundTripNs"].as_u64() > Some(0), "{ping}");
    // Many on one connection, in turn.
    let mut wire = http::Wire::connect(&stage.daemon.socket()).unwrap();
    for n in 0..100 {
        let reply = wire.request("POST", "/v1/plugins/Test/Do/methods/echo", &[], n.to_string().as_bytes()).unwrap();
        assert_eq!(reply.text(), n.to_string());
    }
}

/// A plugin that answers each call with the head of the request that reached it.
fn mirror(dir: &PluginDir) {
    const EPOCH: &str = "0123456789abcdef0123456789abcdef";
    let socket = dir.join("mirror.sock");
    let pconf = dir.join("Testmirror.pconf");
    let text = json!({"Name": "mirror", "NameSpace": "Test", "Url": "unix://m", "Sock": socket, "LazyLoad": false, "Protocol": 1, "Epoch": EPOCH});
    let document = json!({"protocols": [1], "protocol": 1, "features": [], "namespace": "Test", "name": "mirror", "epoch": EPOCH,
        "methods": [{"name": "show"}], "callbacks": []});
    let serve = move |mut peer: Peer| {
        while let Some(request) = peer.request() {
            let body = match request.target.as_str() {
                "/_goplug/hello" => document.to_string(),
                "/_goplug/methods/show" => shown(&request).to_string(),
                _ => "{}".to_owned(),
            };
            let id = match request.header("goplug-call-id") {
                "" => String::new(),
                id => format!("Goplug-Call-Id: {id}\r\n"),
            };
            if peer
                .send(format!("HTTP/1.1 200 OK\r\n{id}Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes())
                .is_none()
            {
                return;
            }
        }
    };
    std::thread::spawn(move || listen(&socket, || write_atomically(&pconf, text.to_string().as_bytes()), serve));
    wait_until("the mirror is published", LONG, || dir.join("Testmirror.pconf").exists());
}

fn shown(request: &Request) -> Value {
    request
        .headers
        .iter()
        .map(|(name, value)| (name.clone(), Value::from(value.as_str())))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

#[test]
fn only_what_is_on_the_list_reaches_the_plugin_and_the_caller_is_who_the_kernel_says() {
    let dir = PluginDir::new();
    mirror(&dir);
    let daemon = Daemon::start(&dir, &[]);
    let waited = http::once(&daemon.socket(), "GET", "/v1/plugins/Test/mirror/wait?timeoutMs=20000", &[], b"").unwrap();
    assert_eq!(waited.status(), 200, "{waited:?}");
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let sent = [
        ("Content-Type", "text/x-mine"),
        ("traceparent", trace),
        ("tracestate", "a=b"),
        ("Goplug-Deadline-Ms", "5000"),
        ("Goplug-Caller", "root"),
        ("Goplug-Epoch", "ffffffffffffffffffffffffffffffff"),
        ("Goplug-Call-Id", "mine"),
        ("Cookie", "secret"),
        ("Authorization", "secret"),
        ("X-Other", "secret"),
        ("User-Agent", "secret"),
    ];
    let reply = http::once(&daemon.socket(), "POST", "/v1/plugins/Test/mirror/methods/show", &sent, b"body").unwrap();
    assert_eq!(reply.status(), 200, "{reply:?}");
    assert_eq!(reply.header("goplug-call-id"), None, "the ids of our calls are nobody's business");
    let reached = reply.json();
    let own = rustix::process::geteuid().as_raw();
    assert_eq!(reached["goplug-caller"], format!("uid:{own}"));
    assert_eq!(reached["goplug-epoch"], "0123456789abcdef0123456789abcdef");
    assert!(reached["goplug-call-id"].as_str().is_some_and(|id| id != "mine"), "{reached}");
    assert_eq!(
        (&reached["content-type"], &reached["traceparent"], &reached["tracestate"]),
        (&"text/x-mine".into(), &trace.into(), &"a=b".into())
    );
    let left: u64 = reached["goplug-deadline-ms"].as_str().unwrap().parse().unwrap();
    assert!((1..=5_000).contains(&left), "{left}");
    assert!(!reached.to_string().contains("secret"), "{reached}");
}

#[test]
fn the_deadline_is_the_clients() {
    let stage = Stage::new(&["Test/Do"]);
    let call = |method: &str, body: &str, ms: &str| {
        stage.post(&format!("/v1/plugins/Test/Do/methods/{method}"), &[("Goplug-Deadline-Ms", ms)], body)
    };
    let left: u64 = call("remaining", "", "7000").text().parse().unwrap();
    assert!((1..=7_000).contains(&left), "{left} ms are left of 7 s");
    let begin = Instant::now();
    problem(&call("sleep", "60000", "50"), 504, "deadline_exceeded");
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    assert_eq!(problem(&call("echo", "", "0"), 504, "deadline_exceeded")["ran"], "no");
    for wrong in ["-1", "1.5", "soon", "86400001"] {
        problem(&call("echo", "", wrong), 400, "invalid_argument");
    }
}

#[test]
fn what_the_plugin_answers_is_passed_on() {
    let stage = Stage::new(&["Test/Do"]);
    let failed =
        problem(&stage.execute("fail-with-data", r#"{"left":[1,{"dataBase64":"AA=="}]}"#), 422, "method_failed");
    assert_eq!((&failed["ran"], &failed["data"]), (&"yes".into(), &json!({"left": [1, {"dataBase64": "AA=="}]})));
    assert_eq!(problem(&stage.execute("fail", "because"), 422, "method_failed")["detail"], "because");
    assert_eq!(problem(&stage.execute("panic", "oh"), 502, "panicked")["ran"], "yes");
    assert_eq!(problem(&stage.execute("none", ""), 404, "not_found")["ran"], "no");
    assert_eq!(problem(&stage.execute("add", "nonsense"), 400, "invalid_argument")["ran"], "no");
    assert_eq!(stage.execute("echo", "still here").text(), "still here");
    assert_eq!(problem(&stage.execute("abort", ""), 502, "plugin_gone")["ran"], "unknown");
}

/// The end of the client's connection is the cancel, all the way into the method.
#[test]
fn a_client_that_hangs_up_cancels_the_call_in_the_plugin() {
    let stage = Stage::new(&["Test/Do"]);
    for half in [false, true] {
        let note = stage.dir.join(&format!("note-{half}"));
        let mut wire = http::Wire::connect(&stage.daemon.socket()).unwrap();
        let body = note.to_str().unwrap();
        let head = format!(
            "POST /v1/plugins/Test/Do/methods/read-one-and-wait HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        wire.send(head.as_bytes()).unwrap();
        // A call that is counted need not have reached its method yet; one that is cancelled before never does.
        let told = |text: &str| std::fs::read_to_string(&note).is_ok_and(|note| note == text);
        wait_until("the method has begun", LONG, || told("begun\n"));
        assert_eq!(stage.in_flight(), 1);
        if half {
            wire.half_close().unwrap();
            wait_until("the method was cancelled", LONG, || told("begun\ncancelled\n"));
        }
        drop(wire);
        wait_until("the method was cancelled", LONG, || told("begun\ncancelled\n"));
        stage.until_in_flight(0);
    }
    assert_eq!(stage.execute("echo", "next").text(), "next");
}

#[test]
fn a_plugin_that_is_not_loaded_is_loaded_when_asked() {
    let dir = PluginDir::new();
    let _plugin = crate::support::fixture(&dir, &["--lazy", "Test/Do"]);
    let daemon = Daemon::start(&dir, &[]);
    let call = |query: &str| {
        http::once(&daemon.socket(), "POST", &format!("/v1/plugins/Test/Do/methods/echo{query}"), &[], b"x").unwrap()
    };
    assert_eq!(problem(&call(""), 409, "wrong_state")["ran"], "no");
    let methods = http::once(&daemon.socket(), "GET", "/v1/plugins/Test/Do/methods", &[], b"").unwrap();
    assert!(
        methods.json()["methods"].as_array().is_some_and(|methods| methods.len() > 5),
        "told without activation: {methods:?}"
    );
    problem(&call(""), 409, "wrong_state");
    assert_eq!(call("?load=true").text(), "x");
    assert_eq!(call("?load=true").text(), "x");
    assert_eq!(call("").text(), "x");
    problem(&call("?load=perhaps"), 400, "invalid_argument");
}
