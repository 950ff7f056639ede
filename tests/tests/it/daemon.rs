//! The daemon: the registry behind HTTP on a Unix socket.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::time::Duration;

use goplug_tests::http::{Reply, Wire, once};
use goplug_tests::{LONG, PluginDir, wait_until};
use rustix::process::Signal;
use serde_json::json;

use crate::support::{Daemon, command, fixture};

impl Daemon {
    fn get(&self, target: &str) -> Reply {
        once(&self.socket(), "GET", target, &[], b"").expect("an answer")
    }

    fn post(&self, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        once(&self.socket(), "POST", target, headers, body).expect("an answer")
    }

    fn wait_loaded(&self, plugin: &str) {
        wait_until(&format!("{plugin} is loaded"), LONG, || {
            self.get(&format!("/v1/plugins/{plugin}")).json()["state"] == "loaded"
        });
    }
}

#[test]
fn it_listens_for_its_owner_only() {
    let dir = PluginDir::new();
    let daemon = Daemon::start(&dir, &[]);
    let mode = |path: std::path::PathBuf| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(daemon.socket()), mode(daemon.home.join("d"))), (0o600, 0o700));
    assert_eq!(daemon.get("/healthz").status(), 200);
    assert_eq!(daemon.get("/readyz").status(), 200);
    assert_eq!(daemon.get("/v1/plugins").json(), json!([]));
}

#[test]
fn every_route_answers() {
    let dir = PluginDir::new();
    let _plugin = fixture(&dir, &["--output", "hi", "Test/Do", "-/bare"]);
    let daemon = Daemon::start(&dir, &[]);
    daemon.wait_loaded("Test/Do");
    daemon.wait_loaded("-/bare");
    let list = daemon.get("/v1/plugins").json();
    assert_eq!(list.as_array().map(Vec::len), Some(2), "{list}");
    assert!(
        daemon.get("/v1/plugins/Test/Do/methods").json()["methods"]
            .as_array()
            .is_some_and(|methods| methods.len() > 20)
    );

    let reply = daemon.post("/v1/plugins/Test/Do/methods/echo", &[("Content-Type", "x/y")], b"bytes \0\xff");
    assert_eq!((reply.status(), reply.body.as_slice()), (200, &b"bytes \0\xff"[..]));
    assert_eq!(daemon.post("/v1/plugins/Test/Do/methods/a%20b%2Fc%2Bd%25%C3%BC", &[], b"odd").text(), "odd");
    // What identifies a caller is the daemon's word, not the client's.
    let outside = [("Goplug-Caller", "root"), ("Goplug-Epoch", "0"), ("Goplug-Call-Id", "mine")];
    assert_ne!(daemon.post("/v1/plugins/Test/Do/methods/caller", &outside, b"").text(), "root");
    let left: u64 = daemon
        .post("/v1/plugins/Test/Do/methods/remaining", &[("Goplug-Deadline-Ms", "5000")], b"")
        .text()
        .parse()
        .unwrap();
    assert!((1..=5000).contains(&left));

    for (target, headers, body, status, code) in [
        ("/v1/plugins/Test/Do/methods/nothing", &[][..], "", 404, "not_found"),
        ("/v1/plugins/Test/Nobody/methods/echo", &[], "", 404, "not_found"),
        ("/v1/plugins/Test/Do/methods/fail", &[], "why", 422, "method_failed"),
        ("/v1/plugins/Test/Do/methods/panic", &[], "", 502, "panicked"),
        ("/v1/plugins/Test/Do/methods/sleep", &[("Goplug-Deadline-Ms", "50")], "60000", 504, "deadline_exceeded"),
        ("/v1/plugins/Test/Do/methods/echo", &[("Goplug-Deadline-Ms", "soon")], "", 400, "invalid_argument"),
        ("/v1/plugins/Test/Do/load", &[], "", 409, "conflict"),
    ] {
        let reply = daemon.post(target, headers, body.as_bytes());
        assert_eq!((reply.status(), reply.json()["code"].as_str()), (status, Some(code)), "{target}: {reply:?}");
        assert_eq!(reply.header("content-type"), Some("application/problem+json"), "{target}");
    }
    assert_eq!(daemon.post("/v1/plugins/Test/Do/ping", &[], b"").json()["plugin"], "Test/Do");
    assert_eq!(daemon.post("/v1/plugins/Test/Do/unload", &[], b"").status(), 200);
    assert_eq!(daemon.post("/v1/plugins/Test/Do/load", &[], b"").json()["outputBase64"], "aGk=");
    assert_eq!(daemon.post("/v1/plugins/Test/Do/reload", &[], b"").status(), 200);
    assert_eq!(daemon.post("/v1/rescan", &[], b"").status() / 100, 2);
    assert_eq!(daemon.get("/v1/plugins/Test/Do/why").json()["callable"], true);
    assert_eq!(daemon.get("/v1/plugins/Test/Do/callbacks").json()["plugin"], "Test/Do");
    // GET changes nothing, and what does not exist says so.
    assert_eq!(daemon.get("/v1/plugins/Test/Do/unload").status(), 405);
    assert_eq!(daemon.get("/v1/nothing").status(), 404);
}

#[test]
fn notifications_are_streamed_and_acknowledged() {
    let dir = PluginDir::new();
    let _plugin = fixture(&dir, &["Test/Do"]);
    let daemon = Daemon::start(&dir, &[]);
    daemon.wait_loaded("Test/Do");
    let mut stream = Wire::connect(&daemon.socket()).unwrap();
    stream.send(b"GET /v1/plugins/Test/Do/callbacks/events?subscription=web HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let (status, headers) = stream.head().unwrap();
    assert!(
        status.contains("200") && headers.contains(&("content-type".into(), "text/event-stream".into())),
        "{status} {headers:?}"
    );
    daemon.post("/v1/plugins/Test/Do/methods/notify", &[], b"events 1 3");
    let mut text = String::new();
    while text.matches("event: message").count() < 3 || !text.ends_with("\n\n") {
        text.push_str(&String::from_utf8(stream.chunk().unwrap()).unwrap());
    }
    let last = text.lines().rev().find_map(|line| line.strip_prefix("id: ")).unwrap().to_owned();
    assert!(last.ends_with(":3"), "{text}");
    let body = json!({"subscription": "web", "position": last}).to_string();
    let acknowledged = daemon.post(
        "/v1/plugins/Test/Do/callbacks/events/ack",
        &[("Content-Type", "application/json")],
        body.as_bytes(),
    );
    assert_eq!(acknowledged.status() / 100, 2, "{acknowledged:?}");
    let list = daemon.get("/v1/plugins/Test/Do/callbacks").json();
    let events = list["callbacks"].as_array().unwrap().iter().find(|callback| callback["name"] == "events").unwrap();
    assert_eq!(events["subscriptions"][0]["acknowledged"], 3, "{list}");
}

#[test]
fn lifecycle_events_can_be_followed_and_resumed() {
    let dir = PluginDir::new();
    let daemon = Daemon::start(&dir, &[]);
    let mut stream = Wire::connect(&daemon.socket()).unwrap();
    stream.send(b"GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    assert!(stream.head().unwrap().0.contains("200"));
    let _plugin = fixture(&dir, &["Test/Do"]);
    let mut text = String::new();
    while !text.contains("\"loaded\"") {
        text.push_str(&String::from_utf8(stream.chunk().unwrap()).unwrap());
    }
    let first = text.lines().find_map(|line| line.strip_prefix("id: ")).unwrap().to_owned();
    let mut again = Wire::connect(&daemon.socket()).unwrap();
    again.send(format!("GET /v1/events HTTP/1.1\r\nHost: x\r\nLast-Event-ID: {first}\r\n\r\n").as_bytes()).unwrap();
    assert!(again.head().unwrap().0.contains("200"));
    let mut resumed = String::new();
    while !resumed.contains("\"loaded\"") {
        resumed.push_str(&String::from_utf8(again.chunk().unwrap()).unwrap());
    }
    assert!(!resumed.contains(&format!("id: {first}\n")), "resumes after, not at: {resumed}");
}

#[test]
fn a_second_instance_is_refused() {
    let dir = PluginDir::new();
    let daemon = Daemon::start(&dir, &[]);
    let mut second = command(env!("CARGO_BIN_EXE_test-goplugd"));
    second.arg0("goplugd").arg("--plugin-dir").arg(dir.path()).arg("--socket").arg(daemon.socket());
    let output = second.output().unwrap();
    assert!(!output.status.success());
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(words.contains(&daemon.process.pid().to_string()) || words.contains("already"), "{words}");
    assert_eq!(daemon.get("/healthz").status(), 200, "the first goes on");
}

#[test]
fn sigterm_leaves_plugins_running_and_active_and_sighup_applies_the_difference() {
    let (one, two, home) = (PluginDir::new(), PluginDir::new(), PluginDir::new());
    let file = one.join("activations");
    let mut plugin = fixture(&one, &["--activations", file.to_str().unwrap(), "Test/One"]);
    let _other = fixture(&two, &["Test/Two"]);
    let config = home.write("goplugd.toml", format!("plugin_dirs = [{:?}]\n", one.text()));
    // A flag would outrank the file: this daemon has its directories from the file alone.
    let notify = std::os::unix::net::UnixDatagram::bind(home.join("notify")).unwrap();
    notify.set_read_timeout(Some(LONG)).unwrap();
    let mut run = command(env!("CARGO_BIN_EXE_test-goplugd"));
    run.arg0("goplugd").arg("--config").arg(&config).arg("--socket").arg(home.join("d/goplugd.sock"));
    run.env("NOTIFY_SOCKET", home.join("notify")).stderr(std::process::Stdio::null());
    let process = goplug_tests::Process::start(&mut run, goplug_tests::Ready::Now);
    notify.recv(&mut [0; 256]).expect("READY=1");
    let mut daemon = Daemon { process, home };
    daemon.wait_loaded("Test/One");
    assert_eq!(daemon.get("/v1/plugins/Test/Two").status(), 404);

    let text = format!("plugin_dirs = [{:?}, {:?}]\n", one.text(), two.text());
    goplug_tests::write_atomically(&config, text.as_bytes());
    daemon.process.signal(Signal::HUP);
    daemon.wait_loaded("Test/Two");
    // A configuration that makes no sense changes nothing.
    goplug_tests::write_atomically(&config, b"plugin_dirs = 7\n");
    daemon.process.signal(Signal::HUP);
    goplug_tests::write_atomically(&config, format!("plugin_dirs = [{:?}]\n", one.text()).as_bytes());
    daemon.process.signal(Signal::HUP);
    wait_until("the second directory is left", LONG, || daemon.get("/v1/plugins/Test/Two").status() == 404);

    assert_eq!(daemon.process.terminate().code(), Some(0));
    assert!(!daemon.socket().exists() && plugin.is_alive());
    let again = Daemon::start(&one, &[]);
    again.wait_loaded("Test/One");
    assert_eq!(std::fs::read_to_string(&file).unwrap().lines().count(), 1, "it was still active");
}

#[test]
fn slow_and_malformed_clients_get_no_more_than_an_error() {
    let dir = PluginDir::new();
    let _plugin = fixture(&dir, &["Test/Do"]);
    let daemon = Daemon::start(&dir, &[]);
    daemon.wait_loaded("Test/Do");
    let mut random = goplug_tests::Random::new(goplug_tests::seed("malformed_clients"));
    let valid = b"POST /v1/plugins/Test/Do/methods/echo HTTP/1.1\r\nHost: x\r\nGoplug-Deadline-Ms: 1000\r\nContent-Length: 5\r\n\r\nhello";
    for n in 1..=goplug_tests::scaled(300, 2_000) {
        let mut wire = Wire::connect(&daemon.socket()).unwrap();
        wire.read_timeout(Duration::from_secs(2)).unwrap();
        // The daemon may close before all is written.
        let _ = wire.send(&random.mutate(valid));
        let _ = wire.half_close();
        if let Err(error) = wire.reply() {
            assert!(
                !matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut),
                "input {n}: {error}"
            );
        }
        if n % 100 == 0 {
            assert_eq!(daemon.post("/v1/plugins/Test/Do/methods/echo", &[], b"healthy").text(), "healthy");
        }
    }
    // Idle and half-sent connections hold up nobody.
    let idle: Vec<_> = (0..50)
        .map(|_| {
            let mut wire = Wire::connect(&daemon.socket()).unwrap();
            wire.send(b"POST /v1/plugins/Test/Do/methods/echo HTTP/1.1\r\nHo").unwrap();
            wire
        })
        .collect();
    assert_eq!(daemon.post("/v1/plugins/Test/Do/methods/echo", &[], b"still").text(), "still");
    drop(idle);
}
