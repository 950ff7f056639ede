//! The API over a real socket, spoken by hand.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use goplug_pconf_schema::settings::Settings;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::{Api, App, MAX_STREAMS};
use crate::accept::{MAX_CONNECTIONS, serve};
use crate::connection::{HEAD, IDLE};
use crate::{settings, socket};

/// Every wait in here ends.
const PATIENCE: Duration = Duration::from_secs(20);

struct Server {
    folder: tempfile::TempDir,
    app: Arc<App>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
    _file: Option<socket::SocketFile>,
}

impl Server {
    /// Serves `directories` empty plugin directories, watched by nobody.
    async fn with(directories: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (stop, stopped) = watch::channel(false);
        let app = Arc::new(App::new(stopped.clone()));
        let listening = socket::bind(&folder.path().join("s")).unwrap();
        let plugin_dirs: Vec<PathBuf> = (0..directories).map(|n| folder.path().join(format!("plugins{n}"))).collect();
        plugin_dirs.iter().for_each(|directory| std::fs::create_dir(directory).unwrap());
        let settings = Settings { plugin_dirs, auto_discover: false, ..Settings::default() };
        app.fleet.apply(settings::registries(&settings), Duration::ZERO).await.unwrap();
        let drain = || Duration::from_secs(1);
        let task = tokio::spawn(serve(listening.listener, Api::new(Arc::clone(&app)), Arc::default(), stopped, drain));
        Self { folder, app, stop, task, _file: listening.file }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("s")
    }

    async fn connect(&self) -> Client {
        Client { stream: UnixStream::connect(self.socket()).await.unwrap(), received: Vec::new() }
    }

    async fn ask(&self, request: &str) -> Reply {
        self.connect().await.ask(request).await
    }
}

/// A client that sends what a test says and reads one reply at a time.
struct Client {
    stream: UnixStream,
    received: Vec<u8>,
}

#[derive(Debug)]
struct Reply {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| panic!("no JSON: {}", String::from_utf8_lossy(&self.body)))
    }

    fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
    }
}

impl Client {
    async fn ask(&mut self, request: &str) -> Reply {
        self.send(request).await;
        self.reply().await.expect("a reply")
    }

    async fn send(&mut self, request: &str) {
        self.stream.write_all(request.as_bytes()).await.unwrap();
    }

    /// Reads on; false at the end of the connection.
    async fn more(&mut self) -> bool {
        let read = timeout(PATIENCE, self.stream.read_buf(&mut self.received)).await.expect("bytes or the end");
        read.is_ok_and(|count| count > 0)
    }

    async fn head(&mut self) -> Option<String> {
        loop {
            if let Some(at) = self.received.windows(4).position(|window| window == b"\r\n\r\n") {
                let head: Vec<u8> = self.received.drain(..at + 4).collect();
                return Some(String::from_utf8(head).unwrap());
            }
            if !self.more().await {
                return None;
            }
        }
    }

    /// The next reply, or `None` at the end of the connection.
    async fn reply(&mut self) -> Option<Reply> {
        let head = self.head().await?;
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut reply = Reply { status, head, body: Vec::new() };
        let length: usize = reply.header("content-length").map_or(0, |text| text.parse().unwrap());
        while self.received.len() < length {
            assert!(self.more().await, "the body broke off");
        }
        reply.body = self.received.drain(..length).collect();
        Some(reply)
    }

    /// Reads a stream until it holds `wanted`.
    async fn until(&mut self, wanted: &str) -> String {
        loop {
            let text = String::from_utf8_lossy(&self.received).into_owned();
            if text.contains(wanted) {
                return text;
            }
            assert!(self.more().await, "no {wanted} in {text}");
        }
    }
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: goplug\r\n\r\n")
}

fn post(path: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: goplug\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn every_route_answers_and_every_failure_is_a_problem_document() {
    let server = Server::with(2).await;
    let plugin = "/v1/plugins/-/absent";
    for (request, status, code) in [
        (get("/v1/plugins"), 200, ""),
        (get("/v1/plugins?glob=a*"), 200, ""),
        (get("/v1/plugins?glob=%zz"), 400, "invalid_argument"),
        (get(plugin), 404, "not_found"),
        (post(&format!("{plugin}/load"), ""), 404, "not_found"),
        (post(&format!("{plugin}/unload"), ""), 404, "not_found"),
        (post(&format!("{plugin}/unload"), r#"{"drainMs":1,"stop":true}"#), 404, "not_found"),
        (post(&format!("{plugin}/unload"), r#"{"drain":1}"#), 400, "invalid_argument"),
        (post(&format!("{plugin}/unload"), r#"{"drainMs":86400001}"#), 400, "invalid_argument"),
        (post(&format!("{plugin}/reload"), ""), 404, "not_found"),
        (post(&format!("{plugin}/ping"), ""), 404, "not_found"),
        (get(&format!("{plugin}/methods")), 404, "not_found"),
        (post(&format!("{plugin}/methods/Do"), "x"), 404, "not_found"),
        (post(&format!("{plugin}/methods/Do?load=true"), "x"), 404, "not_found"),
        (post(&format!("{plugin}/methods/Do?load=maybe"), "x"), 400, "invalid_argument"),
        (post(&format!("{plugin}/methods/a%2Fb"), "x"), 404, "not_found"),
        (post(&format!("{plugin}/methods/a%0Ab"), "x"), 400, "invalid_argument"),
        (post(&format!("{plugin}/methods/%2E%2E"), "x"), 400, "invalid_argument"),
        (post(&format!("{plugin}/methods/%ff"), "x"), 400, "invalid_argument"),
        (post(&format!("{plugin}/methods/%4"), "x"), 400, "invalid_argument"),
        (post(&format!("{plugin}/methods/"), "x"), 400, "invalid_argument"),
        (get(&format!("{plugin}/methods/Do")), 405, "invalid_argument"),
        (get(&format!("{plugin}/callbacks")), 404, "not_found"),
        (get(&format!("{plugin}/callbacks/c")), 404, "not_found"),
        (get(&format!("{plugin}/callbacks/c?subscription=a%20b")), 400, "invalid_argument"),
        (get(&format!("{plugin}/callbacks/c?after=7")), 400, "invalid_argument"),
        (post(&format!("{plugin}/callbacks/c/ack"), "{}"), 400, "invalid_argument"),
        (get(&format!("{plugin}/why")), 200, ""),
        (get("/v1/why?subject=absent"), 200, ""),
        (get("/v1/why"), 400, "invalid_argument"),
        (get("/v1/why?subject=%2Fetc%2Fpasswd"), 404, "not_found"),
        (get(&format!("{plugin}/wait?for=gone&timeoutMs=0")), 200, ""),
        (get(&format!("{plugin}/wait?for=loaded&timeoutMs=1")), 504, "deadline_exceeded"),
        (get(&format!("{plugin}/wait?for=soon")), 400, "invalid_argument"),
        (get(&format!("{plugin}/wait?timeoutMs=x")), 400, "invalid_argument"),
        (get("/v1/trust"), 200, ""),
        (get(&format!("{plugin}/trust")), 404, "not_found"),
        (post(&format!("{plugin}/trust/approve"), ""), 404, "not_found"),
        (post(&format!("{plugin}/trust/approve"), r#"{"sha256":"0"}"#), 400, "invalid_argument"),
        (post(&format!("{plugin}/trust/revoke"), ""), 404, "not_found"),
        (get("/v1/deadletters"), 200, ""),
        (get("/v1/events?after=1"), 410, "not_found"),
        (get("/v1/events?after=x"), 400, "invalid_argument"),
        (post("/v1/rescan", ""), 200, ""),
        (get("/healthz"), 200, ""),
        (get("/readyz"), 503, "unavailable"),
        (get("/"), 404, "not_found"),
        (get("/v2/plugins"), 404, "not_found"),
        (get("/v1//plugins"), 400, "invalid_argument"),
        (get("/v1/plugins/a%2Fb/c"), 400, "invalid_argument"),
        (get("/v1/plugins/../../etc/passwd"), 404, "not_found"),
        (post("/v1/plugins", ""), 400, "invalid_argument"),
        (post("/v1/plugins/Test/Do", ""), 405, "invalid_argument"),
        (get("/v1/rescan"), 405, "invalid_argument"),
    ] {
        let line = request.lines().next().unwrap().to_owned();
        let reply = server.ask(&request).await;
        let document = reply.json();
        assert_eq!((reply.status, document["code"].as_str().unwrap_or("")), (status, code), "{line}: {document}");
        if !code.is_empty() {
            assert_eq!(reply.header("content-type"), Some("application/problem+json"), "{line}");
            assert_eq!(document["status"], status, "{line}");
        }
    }
}

#[tokio::test]
async fn a_wrong_verb_is_told_the_right_one_and_head_is_not_answered() {
    let server = Server::with(1).await;
    for (request, allow) in [
        ("DELETE /v1/plugins/-/a/methods/Do HTTP/1.1\r\nHost: x\r\n\r\n", "POST"),
        ("PUT /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", "GET"),
        ("HEAD /v1/events HTTP/1.1\r\nHost: x\r\n\r\n", "GET"),
    ] {
        let mut client = server.connect().await;
        client.send(request).await;
        let head = client.head().await.unwrap();
        let allows = head.lines().find_map(|line| line.strip_prefix("allow: "));
        assert!(head.starts_with("HTTP/1.1 405 ") && allows.is_some_and(|verbs| verbs.contains(allow)), "{head}");
    }
}

#[tokio::test]
async fn readyz_follows_the_daemon_and_healthz_shows_its_directories() {
    let server = Server::with(2).await;
    server.app.set_ready();
    assert_eq!(server.ask(&get("/readyz")).await.status, 200);
    let status = server.ask(&get("/healthz")).await.json();
    let directories: Vec<&Path> =
        status["directories"].as_array().unwrap().iter().map(|text| Path::new(text.as_str().unwrap())).collect();
    assert_eq!(directories, [server.folder.path().join("plugins0"), server.folder.path().join("plugins1")]);
    assert_eq!(status["pid"], std::process::id());
}

#[tokio::test]
async fn a_call_without_time_or_with_too_much_to_say_never_begins() {
    let server = Server::with(1).await;
    let call = |headers: &str| format!("POST /v1/plugins/-/absent/methods/Do HTTP/1.1\r\nHost: x\r\n{headers}\r\n\r\n");
    for (headers, status, code) in [
        ("Content-Length: 0\r\nGoplug-Deadline-Ms: 0", 504, "deadline_exceeded"),
        ("Content-Length: 0\r\nGoplug-Deadline-Ms: soon", 400, "invalid_argument"),
        ("Content-Length: 67108865", 413, "too_large"),
        ("Content-Length: 4\r\nGoplug-Deadline-Ms: 1", 504, "deadline_exceeded"),
    ] {
        let mut client = server.connect().await;
        let reply = client.ask(&call(headers)).await;
        let document = reply.json();
        let told = (reply.status, document["code"].as_str().unwrap(), document["ran"].as_str().unwrap());
        assert_eq!(told, (status, code, "no"), "{headers}");
        if status == 413 {
            assert!(client.reply().await.is_none(), "the connection of an unread body was used again");
        }
    }
}

/// Whatever a request's length is taken to be, the bytes behind it are never answered as a second request of which the
/// sender knows nothing: either the first is refused, or the connection ends after it.
#[tokio::test]
async fn ambiguous_lengths_never_make_a_second_request() {
    let server = Server::with(1).await;
    let smuggled = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    for headers in [
        "Content-Length: 0\r\nContent-Length: 36",
        "Content-Length: 0, 36",
        "Content-Length: +0",
        "Content-Length: -1",
        "Content-Length: 0x0",
        "Content-Length : 0\r\nTransfer-Encoding: chunked",
        "Content-Length: 36\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 36",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
    ] {
        let mut client = server.connect().await;
        // To a server that counts, "0" ends a chunked body and the request behind it is the smuggled one.
        client.send(&format!("POST /v1/rescan HTTP/1.1\r\nHost: x\r\n{headers}\r\n\r\n0\r\n\r\n{smuggled}")).await;
        let first = client.reply().await.unwrap_or_else(|| panic!("no answer to {headers}"));
        assert!([200, 400].contains(&first.status), "{headers}: {first:?}");
        let second = client.reply().await;
        assert!(second.is_none(), "{headers}: a second answer {second:?}");
    }
}

#[tokio::test]
async fn a_head_that_is_too_much_is_refused_and_the_next_client_served() {
    let server = Server::with(1).await;
    let many: String = (0..100).map(|n| format!("X-{n}: 1\r\n")).collect();
    let long = format!("X: {}\r\n", "y".repeat(20_000));
    for headers in [many, long, "No colon\r\n".to_owned(), "X: a\0b\r\n".to_owned()] {
        let mut client = server.connect().await;
        client.send(&format!("GET /healthz HTTP/1.1\r\nHost: x\r\n{headers}\r\n")).await;
        let reply = client.reply().await.expect("a refusal");
        assert!((400..500).contains(&reply.status), "{reply:?}");
        assert!(client.reply().await.is_none());
    }
    assert_eq!(server.ask(&get("/healthz")).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_slow_head_is_closed_and_an_idle_connection_may_stay_longer() {
    let server = Server::with(0).await;
    for begun in ["", "GET /healthz HTTP/1.1\r\nHos"] {
        let mut client = server.connect().await;
        let start = Instant::now();
        client.send(begun).await;
        assert!(client.reply().await.is_none_or(|reply| reply.status == 408), "{begun}");
        assert!(start.elapsed() >= HEAD && start.elapsed() < HEAD * 2, "{begun}: {:?}", start.elapsed());
    }

    let mut client = server.connect().await;
    assert_eq!(client.ask(&get("/healthz")).await.status, 200);
    tokio::time::sleep(IDLE - Duration::from_secs(10)).await;
    assert_eq!(client.ask(&get("/healthz")).await.status, 200, "an idle connection was closed");
    let start = Instant::now();
    client.send("GET /healthz HTTP/1.1\r\n").await;
    assert!(client.reply().await.is_none_or(|reply| reply.status == 408));
    assert!(start.elapsed() < HEAD * 2, "a second slow head may take {:?}", start.elapsed());
}

#[tokio::test]
async fn what_happens_is_streamed_numbered_and_resumed() {
    let server = Server::with(2).await;
    let version: u64 = server.ask(&get("/v1/plugins")).await.header("goplug-version").unwrap().parse().unwrap();
    let push = |detail: &str| server.app.fleet.append_for_test(detail);
    push("first");
    push("second");

    let mut client = server.connect().await;
    client.send(&get(&format!("/v1/events?after={version}"))).await;
    let head = client.head().await.unwrap();
    assert!(head.contains("content-type: text/event-stream"), "{head}");
    client.until("second").await;

    let mut resumed = server.connect().await;
    let request =
        format!("GET /v1/events?after=0 HTTP/1.1\r\nHost: x\r\nLast-Event-ID: {}\r\n\r\n", server.app.fleet.version());
    resumed.send(&request).await;
    resumed.head().await.unwrap();
    push("third");
    let seen = resumed.until("third").await;
    assert!(!seen.contains("second"), "{seen}");
    assert!(seen.contains(&format!("id: {}\n", server.app.fleet.version())), "{seen}");

    let mut past = server.connect().await;
    past.send(&get("/v1/events?after=0&follow=false")).await;
    while past.more().await && !past.received.ends_with(b"\r\n0\r\n\r\n") {}
    let text = String::from_utf8_lossy(&past.received).into_owned();
    assert!(text.contains("first") && text.contains("third"), "{text}");
}

#[tokio::test]
async fn stopping_ends_streams_and_idle_connections_and_takes_no_new_ones() {
    let server = Server::with(1).await;
    let mut stream = server.connect().await;
    stream.send(&get("/v1/events")).await;
    stream.head().await.unwrap();
    let mut idle = server.connect().await;
    assert_eq!(idle.ask(&get("/healthz")).await.status, 200);
    server.stop.send_replace(true);
    timeout(PATIENCE, server.task).await.expect("the end").unwrap();
    while stream.more().await {}
    assert!(stream.received.ends_with(b"0\r\n\r\n"), "the stream was cut instead of ended");
    assert!(idle.reply().await.is_none());
}

#[tokio::test]
async fn the_connection_beyond_the_limit_is_told_so_and_a_freed_place_is_used() {
    let server = Server::with(0).await;
    let mut clients = Vec::new();
    for _ in 0..MAX_CONNECTIONS {
        let mut client = server.connect().await;
        assert_eq!(client.ask(&get("/healthz")).await.status, 200);
        clients.push(client);
    }
    let refused = server.connect().await.reply().await.unwrap();
    assert_eq!((refused.status, refused.json()["code"].as_str()), (503, Some("overloaded")));
    clients.clear();
    let served = async { while server.ask(&get("/healthz")).await.status != 200 {} };
    timeout(PATIENCE, served).await.expect("a place");
}

/// The end of the client's connection, half-closed or whole, drops what it asked for: no place is held by the dead.
#[tokio::test]
async fn a_client_that_leaves_cancels_what_it_asked_for() {
    for half in [true, false] {
        let server = Server::with(1).await;
        let mut clients = Vec::new();
        for _ in 0..MAX_CONNECTIONS {
            let mut client = server.connect().await;
            client.send(&get("/v1/plugins/-/absent/wait?for=loaded&timeoutMs=3600000")).await;
            clients.push(client);
        }
        assert_eq!(server.connect().await.reply().await.unwrap().status, 503);
        for client in &mut clients {
            if half {
                client.stream.shutdown().await.unwrap();
            }
        }
        if !half {
            clients.clear();
        }
        let served = async { while server.ask(&get("/healthz")).await.status != 200 {} };
        timeout(PATIENCE, served).await.expect("a place");
        for mut client in clients {
            assert!(client.reply().await.is_none());
        }
    }
}

#[tokio::test]
async fn streams_leave_room_for_requests_that_end() {
    let server = Server::with(0).await;
    let mut streams = Vec::new();
    for _ in 0..MAX_STREAMS {
        let mut client = server.connect().await;
        client.send(&get("/v1/events")).await;
        assert!(client.head().await.unwrap().starts_with("HTTP/1.1 200"));
        streams.push(client);
    }
    assert_eq!(server.ask(&get("/v1/events")).await.status, 503);
    assert_eq!(server.ask(&get("/healthz")).await.status, 200);
}

/// The routes of the router, as the page of the daemon writes them.
fn routes() -> Vec<String> {
    let code = include_str!("mod.rs");
    let lines = code.lines().filter_map(|line| line.trim().strip_prefix(".route("));
    let written = lines.flat_map(|line| {
        let path = line.split('"').nth(1).unwrap_or_default();
        let path = match (line.starts_with("&plugin("), path) {
            (true, "") => "/v1/plugins/{ns}/{name}".to_owned(),
            (true, rest) => format!("…{rest}"),
            (false, path) => path.to_owned(),
        };
        let verbs = [("get(", "GET"), ("post(", "POST"), ("delete(", "DELETE")];
        let of_line = verbs.into_iter().filter(|(call, _)| line.contains(call));
        of_line.map(|(_, verb)| format!("`{verb} {path}`")).collect::<Vec<_>>()
    });
    written.collect()
}

#[test]
fn every_route_is_written_down_and_no_other() {
    let page = include_str!("../../../docs/daemon.md");
    let routes = routes();
    assert!(routes.len() > 30, "{routes:?}");
    let missing: Vec<_> = routes.iter().filter(|route| !page.contains(*route)).collect();
    assert!(missing.is_empty(), "not in docs/daemon.md: {missing:?}");
    let table = page.lines().filter(|line| line.starts_with("| `"));
    let written = table.filter_map(|line| line.split(" | ").next()).flat_map(|cell| cell.split('`').skip(1).step_by(2));
    let gone: Vec<_> = written.filter(|route| !routes.contains(&format!("`{route}`"))).collect();
    assert!(gone.is_empty(), "no route any more: {gone:?}");
}

#[test]
fn the_configuration_that_is_written_down_is_the_default() {
    let page = include_str!("../../../docs/daemon.md");
    let toml = page.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let read = |text: &str| goplug_pconf_schema::settings::Settings::parse_toml(text, "/daemon.md");
    let written = goplug_pconf_schema::settings::Settings { log: None, ..read(toml).unwrap() };
    assert_eq!(written, goplug_pconf_schema::settings::Settings::default());
    // Those that have no default of their own are written down, too.
    let commented = toml.replace("# socket", "socket").replace("# state_dir", "state_dir");
    let all = commented.replace("# hosts_dir", "hosts_dir").replace("# trust_dir", "trust_dir");
    let settings = serde_json::to_value(read(&all).unwrap()).unwrap();
    let unset: Vec<_> = settings.as_object().unwrap().iter().filter(|(_, value)| value.is_null()).collect();
    assert!(unset.is_empty(), "not in docs/daemon.md: {unset:?}");
}
