//! What is refused, each with its document.

use goplug_tests::http;

use super::{Stage, problem};

#[test]
fn no_route_and_no_verb() {
    let stage = Stage::new(&["Test/Do"]);
    let ask = |verb: &str, target: &str| http::once(&stage.daemon.socket(), verb, target, &[], b"").unwrap();
    for target in [
        "/",
        "/nothing",
        "/v1",
        "/v1/plugins/",
        "/v1/plugins/Test",
        "/metrics",
        "/openapi.json",
        "/v1/plugins/Test/Do/fly",
    ] {
        let verb = if target.ends_with("fly") { "POST" } else { "GET" };
        let reply = ask(verb, target);
        assert!([400, 404].contains(&reply.status()), "{target}: {reply:?}");
        problem(&reply, reply.status(), if reply.status() == 404 { "not_found" } else { "invalid_argument" });
    }
    for (verb, target, allowed) in [
        ("POST", "/healthz", "GET"),
        ("DELETE", "/v1/plugins", "GET"),
        ("GET", "/v1/rescan", "POST"),
        ("GET", "/v1/plugins/Test/Do/load", "POST"),
        ("PUT", "/v1/plugins/Test/Do/methods/echo", "POST"),
    ] {
        let reply = ask(verb, target);
        problem(&reply, 405, "invalid_argument");
        assert!(reply.header("allow").is_some_and(|allow| allow.contains(allowed)), "{verb} {target}: {reply:?}");
    }
    problem(&ask("GET", "/v1/plugins/None/Such"), 404, "not_found");
    problem(&ask("POST", "/v1/plugins/None/Such/load"), 404, "not_found");
    problem(&ask("POST", "/v1/plugins/None/Such/start"), 404, "not_found");
    // It started itself: nobody here knows how, nor where it writes.
    problem(&ask("POST", "/v1/plugins/Test/Do/start"), 409, "wrong_state");
    problem(&ask("GET", "/v1/plugins/Test/Do/logs"), 409, "wrong_state");
    problem(&ask("GET", "/v1/plugins/Test/%ff"), 400, "invalid_argument");
    problem(&ask("GET", "/v1/plugins/Test/a%2Fb"), 400, "invalid_argument");
    problem(&ask("GET", "/v1/why"), 400, "invalid_argument");
    problem(&ask("GET", "/v1/why?subject=/etc/passwd"), 404, "not_found");
    // Nothing of this runs, and nothing of it ends the daemon.
    assert_eq!(stage.execute("count", "").text(), "1");
}

#[test]
fn a_body_beyond_the_limit_is_refused_at_its_head() {
    let stage = Stage::new(&["Test/Do"]);
    for (route, declared) in
        [("methods/echo", 64 * 1024 * 1024 + 1), ("methods/echo", u64::MAX / 2), ("unload", 64 * 1024 + 1)]
    {
        let mut wire = http::Wire::connect(&stage.daemon.socket()).unwrap();
        wire.send(
            format!("POST /v1/plugins/Test/Do/{route} HTTP/1.1\r\nHost: x\r\nContent-Length: {declared}\r\n\r\n")
                .as_bytes(),
        )
        .unwrap();
        let reply = wire.reply().unwrap();
        assert_eq!(problem(&reply, 413, "too_large")["ran"], "no");
        assert_eq!(reply.header("connection"), Some("close"));
        assert!(wire.reply().is_err(), "the connection is closed");
    }
    // Chunked, it is refused when the limit is passed.
    let mut wire = http::Wire::connect(&stage.daemon.socket()).unwrap();
    wire.send(b"POST /v1/plugins/Test/Do/unload HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
    let chunk = [b"8000\r\n".to_vec(), vec![b' '; 0x8000], b"\r\n".to_vec()].concat();
    for _ in 0..3 {
        let _ = wire.send(&chunk);
    }
    problem(&wire.reply().unwrap(), 413, "too_large");
    assert_eq!(stage.execute("echo", "fine").text(), "fine");
}

#[test]
fn what_is_no_http_is_refused_and_harms_nobody() {
    let stage = Stage::new(&["Test/Do"]);
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n"[..],
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET /healthz HTTP/9.9\r\n\r\n",
        b"GET  /healthz\r\n\r\n",
    ] {
        let mut wire = http::Wire::connect(&stage.daemon.socket()).unwrap();
        wire.send(bytes).unwrap();
        let status = wire.reply().map(|reply| reply.status());
        assert!(matches!(status, Ok(400..=499) | Err(_)), "{:?}: {status:?}", String::from_utf8_lossy(bytes));
    }
    let long = format!("GET /healthz HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(100_000));
    let mut wire = http::Wire::connect(&stage.daemon.socket()).unwrap();
    let _ = wire.send(long.as_bytes());
    assert!(!matches!(wire.reply().map(|reply| reply.status()), Ok(200)), "a head without an end");
    assert_eq!(stage.get("/healthz").status(), 200);
}
