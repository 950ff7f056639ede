use goplug_plugin_impl::testing::InProcess;
use goplug_plugin_impl::{Callback, Error, Method, Plugin};
use serde_json::json;

use crate::raw::Wire;

const V1: &str = "Host: goplug\r\nGoplug-Call-Id: 1\r\n";

async fn plugin() -> InProcess {
    InProcess::start(|dir| {
        Plugin::builder(dir)
            .namespace("Test")
            .name("Do")
            .version("1.2.3")
            .method("main.Do", |_, body| Ok(body))
            .method("a/b c", |cx, _| Ok(cx.method().to_owned()))
            .method_body("read", |_, mut body| async move {
                while body.next().await?.is_some() {}
                Ok("")
            })
            .method_duplex("echo-pieces", |_, mut body, out| async move {
                while let Some(piece) = body.next().await? {
                    out.send(piece).await?;
                }
                Ok(())
            })
            .method(Method::new("slow").deadline(std::time::Duration::from_secs(5)).idempotent().serial(), |_, body| {
                Ok(body)
            })
            .callback(Callback::state("progress").description("how far"))
            .max_request_bytes(1000)
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn a_call_is_answered_byte_for_byte() {
    let plugin = plugin().await;
    let mut wire = Wire::connect(plugin.socket_path()).await;
    wire.request("POST /_goplug/methods/main.Do", "Host: goplug\r\nGoplug-Call-Id: abc\r\n", b"\0data").await;
    let expected: &[u8] = b"HTTP/1.1 200 OK\r\nGoplug-Call-Id: abc\r\nContent-Type: application/octet-stream\r\n\
        Content-Length: 5\r\n\r\n\0data";
    assert_eq!(wire.bytes(expected.len()).await, expected);
    let second = wire.ask("POST /main.Do", "Host: localhost\r\n", "again").await;
    assert_eq!((second.status(), second.text(), second.head.contains("Call-Id")), (200, "again", false));
}

#[tokio::test]
async fn every_v1_reply_echoes_the_call_id() {
    let plugin = plugin().await;
    let mut wire = Wire::connect(plugin.socket_path()).await;
    for (line, fields, body, status) in [
        ("POST /_goplug/methods/main.Do", "", "x", 200),
        ("POST /main.Do", "", "x", 200),
        ("POST /_goplug/methods/nobody", "", "x", 404),
        ("POST /nobody", "", "x", 404),
        ("GET /_goplug/methods/main.Do", "", "", 405),
        ("POST /_goplug/methods/%zz", "", "", 400),
        ("GET /_goplug/hello", "", "", 200),
        ("POST /_goplug/ping", "", "x", 200),
        ("GET /_goplug/health", "", "", 200),
        ("GET /_goplug/callbacks", "", "", 200),
        ("POST /_goplug/events/ack", "", "{}", 400),
        ("GET /_goplug/events/nothing", "", "", 404),
        ("POST /_goplug/frames", "", "", 405),
        ("GET /_goplug/frames", "", "", 426),
        ("GET /_goplug/shm", "", "", 404),
        ("POST /_goplug/methods/main.Do", "Goplug-Deadline-Ms: 0\r\n", "x", 504),
        ("POST /_goplug/methods/main.Do", "Goplug-Deadline-Ms: soon\r\n", "x", 400),
        ("POST /_goplug/methods/main.Do", "Goplug-Epoch: 00\r\n", "x", 503),
        ("POST /_goplug/methods/nobody", "Goplug-Epoch: 00\r\n", "x", 503),
        ("POST /_goplug/activate", "", "[]", 400),
        ("POST /_goplug/activate", "", "{\"a\":1}", 409),
        ("POST /_goplug/activate", "", "{}", 200),
    ] {
        let reply = wire.ask(line, &format!("{V1}{fields}"), body).await;
        assert_eq!(reply.status(), status, "{line} {fields}: {}", reply.text());
        assert!(reply.head.contains("\r\nGoplug-Call-Id: 1\r\n"), "{line} {fields}: {}", reply.head);
    }
}

#[tokio::test]
async fn a_bad_call_id_is_refused_and_not_echoed() {
    let plugin = plugin().await;
    let mut wire = Wire::connect(plugin.socket_path()).await;
    for id in ["", "a b", &"x".repeat(65)] {
        let fields = format!("Host: goplug\r\nGoplug-Call-Id: {id}\r\n");
        let reply = wire.ask("POST /_goplug/methods/main.Do", &fields, "x").await;
        assert_eq!(reply.problem(), (400, "invalid_argument".into(), "no".into()));
        assert!(!reply.head.contains("Goplug-Call-Id"), "{}", reply.head);
    }
}

#[tokio::test]
async fn a_call_for_another_epoch_or_without_time_has_not_run() {
    let plugin = plugin().await;
    let mut wire = Wire::connect(plugin.socket_path()).await;
    let mut ask =
        async |fields: &str| wire.ask("POST /_goplug/methods/main.Do", &format!("{V1}{fields}\r\n"), "x").await;
    let other = ask("Goplug-Epoch: 0123456789abcdef0123456789abcdef").await;
    assert_eq!(other.problem(), (503, "unavailable".into(), "no".into()));
    assert_eq!(other.json()["retryAfterMs"], 0);
    assert_eq!(ask("Goplug-Deadline-Ms: 0").await.problem(), (504, "deadline_exceeded".into(), "no".into()));
    for junk in ["86400001", "-1", "1.0", "", "0x10"] {
        let reply = ask(&format!("Goplug-Deadline-Ms: {junk}")).await;
        assert_eq!(reply.problem(), (400, "invalid_argument".into(), "no".into()), "{junk}");
    }
    let ours = format!("Goplug-Epoch: {}\r\nGoplug-Deadline-Ms: 86400000", plugin.running().unwrap().epoch());
    assert_eq!(ask(&ours).await.status(), 200);
}

#[tokio::test]
async fn verbs_names_and_paths_are_checked() {
    let plugin = plugin().await;
    let mut wire = Wire::connect(plugin.socket_path()).await;
    let reply = wire.ask("DELETE /_goplug/methods/main.Do", V1, "").await;
    assert_eq!(reply.problem(), (405, "invalid_argument".into(), "no".into()));
    assert!(reply.head.contains("\r\nAllow: POST\r\n"), "{}", reply.head);
    assert_eq!(wire.ask("POST /_goplug/methods/a%2Fb%20c", V1, "").await.text(), "a/b c");
    assert_eq!(wire.ask("POST /a%2Fb%20c", V1, "").await.text(), "a/b c");
    assert_eq!(wire.ask("POST /_goplug/methods/a/b%20c", V1, "").await.status(), 404);
    for reserved in ["Activate", "Ping", "RegisterCallback", "Stop", "_goplug"] {
        let reply = wire.ask(&format!("POST /_goplug/methods/{reserved}"), V1, "").await;
        assert_eq!(reply.status(), 404, "{reserved}");
    }
    wire.request("HEAD /main.Do", V1, "").await;
    let head = wire.head().await;
    assert!(head.starts_with("HTTP/1.1 405 "), "{head}");
    assert_eq!(wire.ask("POST /main.Do", V1, "after HEAD").await.text(), "after HEAD");
}

#[tokio::test]
async fn a_person_with_curl_is_told_what_is_wrong() {
    let plugin = plugin().await;
    let mut wire = Wire::connect(plugin.socket_path()).await;
    let reply = wire.ask("POST /nobody", "Host: localhost\r\nUser-Agent: curl/8\r\n", "").await;
    assert_eq!(reply.problem(), (404, "not_found".into(), "no".into()));
    wire.send("POST /main.Do HTTP/1.0\r\nContent-Length: 2\r\n\r\nhi").await;
    let old = wire.reply().await;
    assert_eq!((old.status(), old.text()), (200, "hi"));
    assert!(old.head.contains("\r\nConnection: close\r\n"), "{}", old.head);
    assert_eq!(wire.rest().await, b"");
    // The same of methods that read, or write, piece by piece; without chunks the end of the connection is that of the reply.
    for (method, body) in [("read", ""), ("echo-pieces", "hi")] {
        let mut wire = Wire::connect(plugin.socket_path()).await;
        wire.send(format!("POST /{method} HTTP/1.0\r\nContent-Length: 2\r\n\r\nhi")).await;
        let head = wire.head().await;
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("\r\nConnection: close\r\n"), "{head}");
        assert!(!head.contains("Transfer-Encoding"), "{head}");
        assert_eq!(wire.rest().await, body.as_bytes(), "{method}");
    }
}

#[tokio::test]
async fn what_is_too_large_is_refused_before_it_is_read() {
    let plugin = plugin().await;
    for (line, declared, limit) in [
        ("POST /main.Do", 1001, "1000"),
        ("POST /_goplug/methods/main.Do", u64::MAX, "1000"),
        ("POST /_goplug/ping", 65_537, "65536"),
    ] {
        let mut wire = Wire::connect(plugin.socket_path()).await;
        wire.send(format!("{line} HTTP/1.1\r\n{V1}Content-Length: {declared}\r\n\r\n")).await;
        let reply = wire.reply().await;
        assert_eq!(reply.problem(), (413, "too_large".into(), "no".into()), "{line}");
        assert!(reply.text().contains(limit) && reply.head.contains("\r\nGoplug-Call-Id: 1\r\n"), "{}", reply.text());
        assert!(reply.head.contains("\r\nConnection: close\r\n"), "{}", reply.head);
    }
    let mut wire = Wire::connect(plugin.socket_path()).await;
    wire.send(format!("POST /nobody HTTP/1.1\r\n{V1}Content-Length: 1000000\r\n\r\n")).await;
    assert_eq!(wire.reply().await.status(), 404, "a method that does not exist has no limit");
}

#[tokio::test]
async fn broken_http_is_refused_and_closed() {
    let plugin = plugin().await;
    for request in [
        "POST /main.Do HTTP/1.1\nHost: goplug\n\n",
        "POST /main.Do HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        "POST /main.Do HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST /main.Do HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
        "\x16\x03\x01\x02\r\n\r\n",
    ] {
        let mut wire = Wire::connect(plugin.socket_path()).await;
        wire.send(request).await;
        let answer = String::from_utf8(wire.rest().await).unwrap();
        assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{request:?}: {answer}");
        assert!(answer.contains("invalid_argument") && answer.contains("Connection: close"), "{request:?}: {answer}");
    }
    assert_eq!(plugin.call("main.Do", "well").await.unwrap(), "well");
}

/// The head says whose reply it is, whatever is wrong with the body.
#[tokio::test]
async fn a_broken_body_is_refused_in_the_words_of_its_call() {
    let plugin = plugin().await;
    for (method, ran) in [("main.Do", "no"), ("read", "unknown")] {
        for body in ["zz\r\n", "2\nhi\r\n0\r\n\r\n", "2\r\nhi!\r\n0\r\n\r\n", "0\r\nTrailer: x\n\r\n"] {
            let mut wire = Wire::connect(plugin.socket_path()).await;
            wire.send(format!(
                "POST /_goplug/methods/{method} HTTP/1.1\r\n{V1}Transfer-Encoding: chunked\r\n\r\n{body}"
            ))
            .await;
            let reply = wire.reply().await;
            assert_eq!(reply.problem(), (400, "invalid_argument".into(), ran.into()), "{method} {body:?}");
            assert!(reply.head.contains("\r\nGoplug-Call-Id: 1\r\n"), "{method} {body:?}: {}", reply.head);
            assert!(reply.head.contains("\r\nConnection: close\r\n"), "{method} {body:?}: {}", reply.head);
            assert_eq!(wire.rest().await, b"");
        }
    }
}

/// Only v0 tells its plugins apart by `Host`, and it has no path of v1.
#[tokio::test]
async fn any_host_will_do() {
    let plugin = plugin().await;
    let mut wire = Wire::connect(plugin.socket_path()).await;
    for host in ["", "Host: x\r\n", "Host: TestDo\r\n", "Host: localhost:80\r\n"] {
        let hello = wire.ask("GET /_goplug/hello", host, "").await;
        assert_eq!((hello.status(), &hello.json()["name"]), (200, &json!("Do")), "{host}");
        let reply = wire.ask("POST /_goplug/methods/main.Do", host, "it").await;
        assert!(reply.head.contains("\r\nContent-Type: application/octet-stream\r\n"), "{host}: {}", reply.head);
        let problem = wire.ask("POST /_goplug/methods/nobody", host, "").await.problem();
        assert_eq!(problem, (404, "not_found".into(), "no".into()), "{host}");
    }
}

/// The process that is meant may take more.
#[tokio::test]
async fn a_large_request_for_another_process_hears_that_first() {
    let plugin = plugin().await;
    for (field, status) in [("Goplug-Epoch: 00", 503), ("Goplug-Deadline-Ms: 0", 504), ("Goplug-Deadline-Ms: 1", 413)] {
        let mut wire = Wire::connect(plugin.socket_path()).await;
        wire.send(format!("POST /main.Do HTTP/1.1\r\n{V1}{field}\r\nContent-Length: 1001\r\n\r\n")).await;
        let reply = wire.reply().await;
        assert_eq!((reply.status(), reply.problem().2.as_str()), (status, "no"), "{field}");
        assert!(reply.head.contains("\r\nConnection: close\r\n"), "{}", reply.head);
    }
}

#[tokio::test]
async fn ping_answers_the_same_bytes_up_to_its_limit() {
    let plugin = plugin().await;
    let mut wire = Wire::connect(plugin.socket_path()).await;
    let bytes: Vec<u8> = (0..64 * 1024).map(|n| n as u8).collect();
    assert_eq!(wire.ask("POST /_goplug/ping", V1, &bytes).await.body, bytes);
    assert_eq!(wire.ask("POST /_goplug/ping", V1, "").await.body, b"");
}

#[tokio::test]
async fn the_hello_describes_and_negotiates() {
    let plugin = plugin().await;
    let mut wire = Wire::connect(plugin.socket_path()).await;
    let hello = wire.ask("GET /_goplug/hello", "Host: goplug\r\nGoplug-Epoch: other\r\n", "").await;
    assert!(hello.head.contains("\r\nContent-Type: application/json\r\n"));
    let epoch = plugin.running().unwrap().epoch();
    assert_eq!(
        hello.json(),
        json!({
            "protocols": [1], "features": ["frames/1", "shm/1", "memfd/1"], "namespace": "Test", "name": "Do", "version": "1.2.3",
            "epoch": epoch, "pid": std::process::id(), "active": true,
            "methods": [
                {"name": "main.Do", "idempotent": false, "serial": false},
                {"name": "a/b c", "idempotent": false, "serial": false},
                {"name": "read", "idempotent": false, "serial": false},
                {"name": "echo-pieces", "idempotent": false, "serial": false},
                {"name": "slow", "idempotent": true, "serial": true, "deadlineMs": 5000},
            ],
            "callbacks": [{"name": "progress", "class": "state", "description": "how far"}],
            "limits": {"maxRequestBytes": 1000, "maxConcurrentCalls": 256},
        })
    );
    let offer =
        json!({"protocols": [7, 1], "features": ["shm/9", "frames/1"], "registry": {"name": "t", "version": "0"}});
    let agreed = wire.ask("POST /_goplug/hello", V1, offer.to_string()).await.json();
    assert_eq!((&agreed["protocol"], &agreed["features"]), (&json!(1), &json!(["frames/1"])));
    let none = wire.ask("POST /_goplug/hello", V1, r#"{"protocols":[2]}"#).await;
    assert_eq!(none.problem().1, "conflict");
    assert_eq!(none.json()["data"], json!({"protocols": [1]}));
    for junk in ["", "[]", "{}", r#"{"protocols":"1"}"#, &"[".repeat(1000)] {
        assert_eq!(wire.ask("POST /_goplug/hello", V1, junk).await.problem().1, "invalid_argument", "{junk}");
    }
}

#[tokio::test]
async fn health_is_the_authors_word_and_its_failures_are_told() {
    let verdict = |make: fn() -> goplug_plugin_impl::Health| async move {
        let plugin = InProcess::start(|dir| Plugin::builder(dir).name("p").health(make)).await.unwrap();
        Wire::connect(plugin.socket_path()).await.ask("GET /_goplug/health", V1, "").await.json()
    };
    use goplug_plugin_impl::{Health, HealthStatus};
    let degraded = verdict(|| Health { status: HealthStatus::Degraded, detail: Some("slow disk".into()) }).await;
    assert_eq!(degraded, json!({"status": "degraded", "detail": "slow disk"}));
    let panicked = verdict(|| panic!("no disk")).await;
    assert_eq!(panicked["status"], "failing");
    assert!(panicked["detail"].as_str().unwrap().contains("no disk"), "{panicked}");
    let plugin = InProcess::start(|dir| Plugin::builder(dir).name("p")).await.unwrap();
    let silent = Wire::connect(plugin.socket_path()).await.ask("GET /_goplug/health", V1, "").await;
    assert_eq!(silent.json(), json!({"status": "ok"}));
}

#[tokio::test]
async fn a_builder_reports_every_problem_at_once() -> Result<(), Error> {
    let fault = Plugin::builder("plugins")
        .namespace("-")
        .name("")
        .method("twice", |_, body| Ok(body))
        .method("twice", |_, body| Ok(body))
        .method(Method::new("..").deadline(std::time::Duration::from_secs(100_000)), |_, body| Ok(body))
        .callback(Callback::event("e").window(0, 10))
        .max_concurrent_calls(0)
        .build()
        .unwrap_err();
    for part in ["namespace `-`", "`twice` is there twice", "`..`", "100000000 ms", "0 messages", "concurrent"] {
        assert!(fault.message.contains(part), "{part} is missing in: {fault}");
    }
    let long = "x".repeat(100);
    let fault = Plugin::builder("/tmp").name("p").socket(format!("/tmp/{long}/{long}")).build().unwrap_err();
    assert!(fault.message.contains("107"), "{fault}");
    Ok(())
}
