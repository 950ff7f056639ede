//! Streams of server-sent events: subscriptions, observers, and what happens in the directories.

use std::collections::VecDeque;

use goplug_pconf_schema::wire::sse::{SseEvent, SseReader};
use goplug_tests::http;
use serde_json::{Value, json};

use super::{Stage, problem};

/// A stream that is read.
struct Stream {
    wire: http::Wire,
    reader: SseReader,
    ready: VecDeque<SseEvent>,
}

impl Stream {
    #[track_caller]
    fn open(stage: &Stage, target: &str, headers: &[(&str, &str)]) -> Self {
        let mut wire = http::Wire::connect(&stage.daemon.socket()).unwrap();
        let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        wire.send(format!("GET {target} HTTP/1.1\r\nHost: x\r\n{headers}\r\n").as_bytes()).unwrap();
        let (status, headers) = wire.head().unwrap();
        assert_eq!(status, "HTTP/1.1 200 OK", "{target}");
        assert!(headers.contains(&("content-type".into(), "text/event-stream".into())), "{headers:?}");
        Self { wire, reader: SseReader::default(), ready: VecDeque::new() }
    }

    /// The next event; `None` at the end of the stream.
    fn next(&mut self) -> Option<SseEvent> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            let chunk = self.wire.chunk().expect("a chunk in time");
            if chunk.is_empty() {
                return None;
            }
            let mut events = Vec::new();
            self.reader.push(&chunk, &mut events).expect("server-sent events");
            self.ready.extend(events);
        }
    }

    /// The next messages, as text, each of which has a position.
    #[track_caller]
    fn messages(&mut self, count: usize) -> Vec<String> {
        (0..count).map(|_| message(&self.next().expect("a message"))).collect()
    }
}

#[track_caller]
fn message(event: &SseEvent) -> String {
    assert_eq!(event.event, "message", "{event:?}");
    assert!(event.id.contains(':'), "{event:?}");
    let data: Value = serde_json::from_str(&event.data).unwrap();
    let bytes = goplug_pconf_schema::wire::event::from_base64(data["dataBase64"].as_str().unwrap()).unwrap();
    String::from_utf8(bytes).unwrap()
}

const EVENTS: &str = "/v1/plugins/Test/Do/callbacks/events";

fn notify(stage: &Stage, first: u32, last: u32) {
    assert_eq!(stage.execute("notify", format!("events {first} {last}")).status(), 200);
}

fn ack(stage: &Stage, subscription: &str, position: &str) -> http::Reply {
    let body = json!({"subscription": subscription, "position": position});
    stage.post(&format!("{EVENTS}/ack"), &[("Content-Type", "application/json")], body.to_string())
}

#[test]
fn a_subscription_resumes_after_its_last_acknowledgement() {
    let stage = Stage::new(&["Test/Do"]);
    let epoch = stage.epoch();
    let target = format!("{EVENTS}?subscription=mine");
    let mut stream = Stream::open(&stage, &target, &[]);
    notify(&stage, 1, 4);
    assert_eq!(stream.messages(4), ["1", "2", "3", "4"]);
    assert_eq!(ack(&stage, "mine", &format!("{epoch}:2")).status(), 200);
    assert_eq!(ack(&stage, "mine", &format!("{epoch}:1")).status(), 200, "behind the cursor: no effect");
    let callbacks = stage.get("/v1/plugins/Test/Do/callbacks").json();
    let subscription = &callbacks["callbacks"][0]["subscriptions"][0];
    assert_eq!(
        (&subscription["name"], &subscription["attached"], &subscription["pending"]),
        (&"mine".into(), &true.into(), &2.into())
    );

    problem(&ack(&stage, "mine", &format!("{epoch}:5")), 400, "invalid_argument");
    problem(&ack(&stage, "mine", &format!("{}:2", "0".repeat(32))), 409, "conflict");
    problem(&ack(&stage, "nobody", &format!("{epoch}:2")), 404, "not_found");
    problem(&ack(&stage, "bad name", &format!("{epoch}:2")), 400, "invalid_argument");
    problem(&stage.post(&format!("{EVENTS}/ack"), &[], "{}"), 400, "invalid_argument");

    // Cut, and back: what was not acknowledged comes again, and then what is new.
    drop(stream);
    let mut stream = Stream::open(&stage, &target, &[]);
    notify(&stage, 5, 5);
    assert_eq!(stream.messages(3), ["3", "4", "5"]);

    // Another reader of the name takes the place.
    let mut successor = Stream::open(&stage, &target, &[]);
    assert_eq!(stream.next().map(|event| event.event).as_deref(), Some("replaced"));
    assert_eq!(stream.next(), None);
    assert_eq!(successor.messages(3), ["3", "4", "5"]);
    assert_eq!(stage.execute("echo", "calls go on").text(), "calls go on");
    let refused = stage.get(&format!("{EVENTS}?subscription=bad%20name"));
    problem(&refused, 400, "invalid_argument");
    problem(&stage.get("/v1/plugins/Test/Do/callbacks/none"), 404, "not_found");
}

#[test]
fn an_observer_starts_after_the_last_event_it_saw() {
    let stage = Stage::new(&["Test/Do"]);
    let epoch = stage.epoch();
    notify(&stage, 1, 3);
    let first = format!("{epoch}:1");
    let mut by_header = Stream::open(&stage, EVENTS, &[("Last-Event-ID", &first)]);
    assert_eq!(by_header.messages(2), ["2", "3"]);
    let mut by_query = Stream::open(&stage, &format!("{EVENTS}?after={epoch}%3A2"), &[]);
    assert_eq!(by_query.messages(1), ["3"]);
    // A reader that reconnects repeats its old query: where it really was counts.
    let mut both = Stream::open(&stage, &format!("{EVENTS}?after={epoch}%3A0"), &[("Last-Event-ID", &first)]);
    assert_eq!(both.messages(2), ["2", "3"]);
    let mut from_now = Stream::open(&stage, EVENTS, &[]);
    notify(&stage, 4, 4);
    for stream in [&mut by_header, &mut by_query, &mut both, &mut from_now] {
        assert_eq!(stream.messages(1), ["4"]);
    }
    let observers = &stage.get("/v1/plugins/Test/Do/callbacks").json()["callbacks"][0];
    assert_eq!(
        (&observers["observers"], &observers["subscriptions"]),
        (&4.into(), &json!([])),
        "they hold nothing back"
    );
    let refused = http::once(&stage.daemon.socket(), "GET", EVENTS, &[("Last-Event-ID", "nonsense")], b"").unwrap();
    problem(&refused, 400, "invalid_argument");
}

#[test]
fn what_happens_is_followed_from_any_place_that_is_kept() {
    let stage = Stage::new(&["Test/Do"]);
    let all = |target: &str, headers: &[(&str, &str)]| -> Vec<SseEvent> {
        let mut stream = Stream::open(&stage, target, headers);
        std::iter::from_fn(|| stream.next()).collect()
    };
    // Whoever waits for a state may be answered before the event is in the log.
    let mut stream = Stream::open(&stage, "/v1/events?after=0", &[]);
    while !stream.next().expect("an event").data.contains("\"state\":\"loaded\"") {}
    let events = all("/v1/events?after=0&follow=false", &[]);
    let told: Vec<Value> = events.iter().map(|event| serde_json::from_str(&event.data).unwrap()).collect();
    assert_eq!((&told[0]["kind"], &told[0]["plugin"]), (&"discovered".into(), &"Test/Do".into()), "{told:#?}");
    assert!(told.iter().any(|event| event["state"] == "loaded"), "{told:#?}");
    assert!(events.iter().zip(&told).all(|(event, told)| event.id.parse().ok() == told["seq"].as_u64()));
    let rest = all("/v1/events?after=0&follow=false", &[("Last-Event-ID", &events[0].id)]);
    assert_eq!(rest, events[1..]);

    // The version of the list is a place: what happens after it is missed by nobody.
    let list = stage.get("/v1/plugins");
    let version = list.header("goplug-version").expect("a version").to_owned();
    let mut stream = Stream::open(&stage, &format!("/v1/events?after={version}"), &[]);
    assert_eq!(stage.post("/v1/plugins/Test/Do/unload", &[], "").status(), 200);
    let draining: Value = serde_json::from_str(&stream.next().unwrap().data).unwrap();
    assert_eq!((&draining["plugin"], &draining["kind"]), (&"Test/Do".into(), &"state".into()), "{draining}");

    let gone = problem(&stage.get("/v1/events?after=1"), 410, "not_found");
    assert!(gone["detail"].as_str().is_some_and(|text| text.contains("not kept")), "{gone}");
    let ahead = u64::MAX.to_string();
    let refused = http::once(&stage.daemon.socket(), "GET", "/v1/events", &[("Last-Event-ID", &ahead)], b"").unwrap();
    problem(&refused, 410, "not_found");
    problem(&stage.get("/v1/events?after=nonsense"), 400, "invalid_argument");
}
