//! Reads every file of `golden/` through the types, and writes it again: what is documented is what is spoken.
//!
//! The files are examples for people and test vectors for every language. A file without a row here fails, and so does a
//! row without its file.

#![allow(clippy::unwrap_used, reason = "everything here runs in a test")]

use std::collections::BTreeMap;
use std::path::Path;

use goplug_pconf_schema::manifest::{Folder, Health, Restart, SourceMode};
use goplug_pconf_schema::wire::event::{Ack, CallbackStatus, Class, EpochChange, Gap, Message, Position, from_base64};
use goplug_pconf_schema::wire::frame::{HEADER_BYTES, Header, Kind, Meta, NoticeMeta, UPGRADE};
use goplug_pconf_schema::wire::hello::{Hello, HelloRequest, Limits};
use goplug_pconf_schema::wire::host::{
    Answer, HostPhase, HostSpec, MAX_HOST_ANSWER_BYTES, Record, Request as HostRequest,
};
use goplug_pconf_schema::wire::life::{self, Drain, Drained, HealthStatus};
use goplug_pconf_schema::wire::memfd::{FEATURES, MAX_SEGMENT_BYTES, MAX_SEGMENTS, Place};
use goplug_pconf_schema::wire::sse::{SseEvent, SseReader};
use goplug_pconf_schema::wire::{self, call};
use goplug_pconf_schema::{Code, Fault, Manifest, Pconf, PluginId, Ran};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

const EPOCH: &str = "5f0c2b8e9d1a4c7fb3e6a0d85c94e217";

type Check = fn(&[u8]);

const FILES: &[(&str, Check)] = &[
    ("ack-request.json", |bytes| {
        let ack: Ack = same(bytes);
        assert_eq!(ack.position, position(42));
    }),
    ("activate-request.json", |bytes| {
        let settings: BTreeMap<String, Value> = serde_json::from_slice(bytes).unwrap();
        assert_eq!(serde_json::to_vec(&settings).unwrap(), bytes, "keys in order, no spaces");
    }),
    ("call-problem-reply.http", |bytes| {
        let reply = Http::read(bytes);
        assert_eq!(reply.start, "HTTP/1.1 422 Unprocessable Content");
        assert_eq!(reply.field("content-type"), Some(call::PROBLEM_JSON));
        assert_eq!(Fault::from_problem(reply.body).unwrap().code.http_status(), 422);
    }),
    ("call-reply.http", |bytes| {
        let reply = Http::read(bytes);
        assert_eq!((reply.start, reply.body), ("HTTP/1.1 200 OK", &b"\0ok"[..]));
        assert_eq!(reply.field(call::CALL_ID), Some("7f3a-000000000007"));
    }),
    ("call-request.http", |bytes| {
        let request = Http::read(bytes);
        assert_eq!(request.start, format!("POST {} HTTP/1.1", call::method_path("append a/line")));
        assert_eq!(request.segments(), ["_goplug", "methods", "append a/line"]);
        assert_eq!(request.field("host"), Some(call::HOST));
        assert!(request.field(call::CALL_ID).is_some_and(|id| id.len() <= call::MAX_CALL_ID_BYTES));
        assert_eq!(request.field(call::EPOCH), Some(EPOCH));
        let left: u64 = request.field(call::DEADLINE_MS).unwrap().parse().unwrap();
        assert!(left <= call::MAX_DEADLINE_MS);
        assert_eq!(request.field(call::CALLER), Some("billing"));
        assert!(request.field(call::TRACEPARENT).is_some());
        assert_eq!(request.body, b"hello");
    }),
    ("callbacks-answer.json", |bytes| {
        let callbacks: Vec<CallbackStatus> = same(bytes);
        assert_eq!(callbacks[0].subscriptions[1].pending, 44);
    }),
    ("deactivate-answer.json", |bytes| {
        let drained: Drained = same(bytes);
        assert_eq!(from_base64(drained.output.unwrap()["dataBase64"].as_str().unwrap()).unwrap(), b"bye");
    }),
    ("deactivate-request.json", |bytes| assert_eq!(same::<Drain>(bytes), Drain::default())),
    ("event-epoch.sse", |bytes| {
        let change: EpochChange = same(event(bytes, "epoch", None).as_bytes());
        assert!(wire::hello::is_epoch(&change.epoch) && wire::hello::is_epoch(&change.previous));
    }),
    ("event-gap.sse", |bytes| {
        let gap: Gap = same(event(bytes, "gap", None).as_bytes());
        assert_eq!((gap.from, gap.to), (position(45), position(99)));
    }),
    ("event-keep-alive.sse", |bytes| assert_eq!(events(bytes), [])),
    ("event-message-lossy.sse", |bytes| {
        let message: Message = same(event(bytes, "message", Some(44)).as_bytes());
        assert_eq!((message.data_base64.as_str(), message.dropped), ("", 12));
    }),
    ("event-message-state.sse", |bytes| {
        let message: Message = same(event(bytes, "message", Some(43)).as_bytes());
        assert_eq!(message.key.as_deref(), Some("job-7"));
    }),
    ("event-message.sse", |bytes| {
        let message: Message = same(event(bytes, "message", Some(42)).as_bytes());
        assert_eq!(from_base64(&message.data_base64).unwrap(), b"job 7 done");
    }),
    ("event-replaced.sse", |bytes| assert_eq!(event(bytes, "replaced", None), "{}")),
    ("events-observer-request.http", |bytes| {
        let request = Http::read(bytes);
        let path = call::observer_path("done", Some(&position(42)));
        assert_eq!(request.start, format!("GET {path} HTTP/1.1"));
        let (_, query) = call::split_target(&path).unwrap();
        assert_eq!(call::query_value(query, "after").unwrap(), Some(position(42).to_string()));
    }),
    ("events-request.http", |bytes| {
        let request = Http::read(bytes);
        let path = call::subscription_path("append a/line", "billing");
        assert_eq!(request.start, format!("GET {path} HTTP/1.1"));
        assert_eq!(request.field(call::EPOCH), Some(EPOCH));
    }),
    ("frames-answer.http", |bytes| {
        let reply = Http::read(bytes);
        assert_eq!(reply.start, "HTTP/1.1 101 Switching Protocols");
        assert_eq!((reply.field("upgrade"), reply.field(call::CALL_ID)), (Some(UPGRADE), Some("7f3a-000000000008")));
    }),
    ("frames-request.http", |bytes| {
        let request = Http::read(bytes);
        assert_eq!(request.start, format!("GET {} HTTP/1.1", wire::frame::PATH));
        assert_eq!((request.field("upgrade"), request.field(call::EPOCH)), (Some(UPGRADE), Some(EPOCH)));
        assert_eq!(request.field(FEATURES), Some(wire::memfd::FEATURE));
    }),
    ("frames.hex", frames),
    ("health-answer.json", |bytes| assert_eq!(same::<life::Health>(bytes).status, HealthStatus::Degraded)),
    ("hello-answer.json", |bytes| {
        let hello: Hello = same(bytes);
        assert_eq!(Hello::read(bytes).unwrap(), hello);
        assert!(hello.method("append a/line").unwrap().serial);
        assert_eq!(hello.callback("progress").unwrap().class, Class::State);
        assert_eq!(
            (hello.interfaces[0].name.as_str(), &*hello.interfaces[0].methods),
            ("demo.math", &["add".to_owned()][..])
        );
    }),
    ("hello-minimal.json", |bytes| {
        let hello = Hello::read(bytes).unwrap();
        assert!(hello.namespace.is_empty() && hello.methods.is_empty() && !hello.active);
        assert_eq!(hello.limits, Limits::default());
    }),
    ("hello-post-answer.json", |bytes| {
        let hello: Hello = same(bytes);
        assert_eq!(hello.protocol, Some(wire::PROTOCOL));
        assert!(hello.features.is_empty());
    }),
    ("hello-request.json", |bytes| assert_eq!(same::<HelloRequest>(bytes).protocols, [wire::PROTOCOL])),
    ("host-answers.jsonl", |bytes| {
        let answers: Vec<Answer> = lines(bytes);
        assert!(matches!(&answers[0], Answer::Status(status) if status.phase == HostPhase::Running));
        let last = bytes.trim_ascii_end().rsplit(|&byte| byte == b'\n').next().unwrap();
        assert_eq!(Answer::read(last).unwrap_err().code, Code::WrongState);
        assert!(answers.iter().all(|answer| answer.to_line().len() <= MAX_HOST_ANSWER_BYTES));
    }),
    ("host-record.json", |bytes| {
        let record: Record = same(bytes);
        assert_eq!(Record::read(bytes).as_ref(), Some(&record));
        assert_eq!(record.exit.unwrap().to_string(), "signal 9 ended it, probably for lack of memory");
    }),
    ("host-requests.jsonl", |bytes| {
        let requests: Vec<HostRequest> = lines(bytes);
        assert_eq!(requests[4], HostRequest::Stop { term_after_ms: 0, kill_after_ms: 5_000 });
    }),
    ("host-spec.json", |bytes| {
        let spec: HostSpec = same(bytes);
        assert_eq!(HostSpec::read(bytes), Ok(spec));
    }),
    ("pconf-v0-original.pconf", |bytes| {
        let pconf = Pconf::parse(bytes).unwrap();
        assert_eq!(pconf.id, PluginId::new("NamespaceOfPlugin", "NameOfPlugin").unwrap());
        assert_eq!((pconf.sock.as_str(), pconf.host()), ("unixSockLocation.sock", "PluginUrl"));
        assert_eq!((pconf.protocol, pconf.warnings.len()), (None, 0));
    }),
    ("pconf-v1.pconf", |bytes| assert_eq!(Pconf::parse(bytes).unwrap().to_json(), bytes)),
    ("plugin-szlabs.json", |bytes| {
        let manifest = Manifest::parse(bytes, Folder { name: Some("sample"), namespace: None }).unwrap();
        assert_eq!((manifest.source.mode, manifest.warnings.len()), (SourceMode::LocalSo, 0));
        assert_eq!((manifest.not_runnable(), manifest.labels()), (None, vec!["sample"]));
    }),
    ("plugin.json", |bytes| {
        let manifest = Manifest::parse(bytes, Folder { name: Some("do"), namespace: Some("test") }).unwrap();
        assert_eq!((manifest.exec.command.as_str(), manifest.limits.cpu_milli), ("bin/do", Some(1_500)));
        assert_eq!(
            (manifest.restart, manifest.health),
            (Restart::default(), Health::default()),
            "the defaults, spelled out"
        );
        assert_eq!((manifest.requires.len(), manifest.warnings.len(), manifest.lint().len()), (2, 0, 0));
    }),
    ("problem-cancelled.json", |bytes| problem(bytes, Code::Cancelled, Ran::Unknown)),
    ("problem-conflict.json", |bytes| problem(bytes, Code::Conflict, Ran::No)),
    ("problem-deadline-exceeded.json", |bytes| problem(bytes, Code::DeadlineExceeded, Ran::No)),
    ("problem-denied.json", |bytes| problem(bytes, Code::Denied, Ran::No)),
    ("problem-internal.json", |bytes| problem(bytes, Code::Internal, Ran::Unknown)),
    ("problem-invalid-argument.json", |bytes| problem(bytes, Code::InvalidArgument, Ran::No)),
    ("problem-method-failed.json", |bytes| problem(bytes, Code::MethodFailed, Ran::Yes)),
    ("problem-not-found.json", |bytes| problem(bytes, Code::NotFound, Ran::No)),
    ("problem-overloaded.json", |bytes| problem(bytes, Code::Overloaded, Ran::No)),
    ("problem-panicked.json", |bytes| problem(bytes, Code::Panicked, Ran::Yes)),
    ("problem-plugin-gone.json", |bytes| problem(bytes, Code::PluginGone, Ran::Unknown)),
    ("problem-protocol-error.json", |bytes| problem(bytes, Code::ProtocolError, Ran::Unknown)),
    ("problem-too-large.json", |bytes| problem(bytes, Code::TooLarge, Ran::No)),
    ("problem-unavailable.json", |bytes| problem(bytes, Code::Unavailable, Ran::No)),
    ("problem-wrong-state.json", |bytes| problem(bytes, Code::WrongState, Ran::No)),
    ("stop-answer.json", |bytes| assert_eq!(same::<Drained>(bytes).output, None)),
    ("stop-request.json", |bytes| assert_eq!(same::<Drain>(bytes).drain_ms, 0)),
    ("v0-activate-answer-ours.json", |bytes| {
        let names: Vec<String> = serde_json::from_slice(bytes).expect("one array and nothing after it");
        assert_eq!(names, ["Do", "add"]);
    }),
    ("v0-activate-answer.bin", |bytes| {
        let mut values = serde_json::Deserializer::from_slice(bytes).into_iter::<Vec<String>>();
        let names = values.next().unwrap().unwrap();
        assert_eq!(names, ["main.Do", "main.Add", "", "", "", ""]);
        assert_eq!(&bytes[values.byte_offset()..], b"ready\n\x00\xff", "what trails is the activator's");
    }),
    ("v0-activate-request.http", |bytes| v0_request(bytes, "Activate", b"")),
    ("v0-call-reply.http", |bytes| v0_reply(bytes, b"hello")),
    ("v0-call-request.http", |bytes| v0_request(bytes, "main.Do", b"hello")),
    ("v0-ping-request.http", |bytes| v0_request(bytes, "Ping", b"Test Data")),
    ("v0-register-callback-reply.http", |bytes| v0_reply(bytes, b"job 7 done")),
    ("v0-register-callback-request.http", |bytes| {
        let name = serde_json::to_vec("main.callBack").unwrap();
        v0_request(bytes, "RegisterCallback", &name);
    }),
    ("v0-stop-request.http", |bytes| v0_request(bytes, "Stop", b"")),
    ("v0-unknown-method-reply.http", |bytes| {
        let reply = Http::read(bytes);
        assert_eq!((reply.start, reply.body), ("HTTP/1.1 400 Bad Request", &b""[..]));
    }),
];

#[test]
fn every_golden_file_is_what_we_speak() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    let entries = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = entries.filter(|name| !name.starts_with('.')).collect();
    names.sort();
    assert_eq!(names, FILES.iter().map(|(name, _)| *name).collect::<Vec<_>>(), "files and rows of this test");
    for (name, check) in FILES {
        println!("{name}");
        check(&std::fs::read(folder.join(name)).unwrap());
    }
}

#[test]
fn every_golden_file_is_named_in_the_documents() {
    let documents = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let text = ["protocol.md", "pconf.md", "manifest.md", "host.md"]
        .map(|name| std::fs::read_to_string(documents.join(name)).unwrap())
        .concat();
    for (name, _) in FILES.iter().filter(|(name, _)| !name.starts_with("problem-")) {
        assert!(text.contains(&format!("`{name}`")), "{name}");
    }
    assert!(text.contains("`problem-*.json`"));
}

#[test]
fn every_code_has_a_golden_problem() {
    for code in Code::ALL {
        let name = format!("problem-{}.json", code.as_str().replace('_', "-"));
        assert!(FILES.iter().any(|(file, _)| *file == name), "{name}");
    }
}

/// Reads JSON and checks that writing it gives the same: no field is lost, none is made up.
fn same<T: DeserializeOwned + Serialize>(bytes: &[u8]) -> T {
    let read: T = serde_json::from_slice(bytes).unwrap();
    let expected: Value = serde_json::from_slice(bytes).unwrap();
    assert_eq!(serde_json::to_value(&read).unwrap(), expected);
    read
}

/// A document per line, each as it would be written.
fn lines<T: DeserializeOwned + Serialize>(bytes: &[u8]) -> Vec<T> {
    let read = |line: &str| {
        let value: T = serde_json::from_str(line).unwrap();
        assert_eq!(serde_json::to_string(&value).unwrap(), line);
        value
    };
    std::str::from_utf8(bytes).unwrap().lines().map(read).collect()
}

fn problem(bytes: &[u8], code: Code, ran: Ran) {
    let fault = Fault::from_problem(bytes).unwrap();
    assert_eq!((fault.code, fault.ran), (code, ran));
    assert!(!fault.message.is_empty() && !fault.message.ends_with('.'));
    let written: Value = serde_json::from_slice(&fault.to_problem()).unwrap();
    assert_eq!(written, serde_json::from_slice::<Value>(bytes).unwrap());
}

fn position(seq: u64) -> Position {
    Position { epoch: EPOCH.into(), seq }
}

fn events(bytes: &[u8]) -> Vec<SseEvent> {
    let mut found = Vec::new();
    SseReader::default().push(bytes, &mut found).unwrap();
    found
}

/// The data of the one event in `bytes`, which is written as it was read.
fn event(bytes: &[u8], kind: &str, seq: Option<u64>) -> String {
    let mut found = events(bytes);
    assert_eq!(found.len(), 1);
    let event = found.remove(0);
    assert_eq!(event.to_text().as_bytes(), bytes);
    assert_eq!(event.event, kind);
    assert_eq!(event.id, seq.map(|seq| position(seq).to_string()).unwrap_or_default());
    event.data
}

fn v0_request(bytes: &[u8], method: &str, body: &[u8]) {
    let request = Http::read(bytes);
    assert_eq!(request.start, format!("POST /{method} HTTP/1.1"));
    assert_eq!((request.field("host"), request.body), (Some("TestDo"), body));
    assert_eq!(request.field("content-type"), (!body.is_empty()).then_some("application/json"));
    assert_eq!(call::RESERVED.contains(&method), method != "main.Do");
}

fn v0_reply(bytes: &[u8], body: &[u8]) {
    let reply = Http::read(bytes);
    assert_eq!((reply.start, reply.body), ("HTTP/1.1 200 OK", body));
    assert_eq!(reply.field("content-type"), Some("text/plain"));
}

/// A whole message as it stands on the socket.
struct Http<'a> {
    start: &'a str,
    fields: Vec<(String, &'a str)>,
    body: &'a [u8],
}

impl<'a> Http<'a> {
    fn read(bytes: &'a [u8]) -> Self {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("an empty line ends the head");
        let head = std::str::from_utf8(&bytes[..end]).unwrap();
        assert!(end + 4 <= call::MAX_HEAD_BYTES);
        let mut lines = head.split("\r\n");
        let start = lines.next().unwrap();
        let fields = lines.map(|line| line.split_once(": ").unwrap());
        let fields: Vec<_> = fields.map(|(name, value)| (name.to_ascii_lowercase(), value)).collect();
        assert!(!head.replace("\r\n", "").contains(['\r', '\n']) && fields.len() <= call::MAX_HEADERS);
        let message = Self { start, fields, body: &bytes[end + 4..] };
        let length = message.field("content-length").map_or(0, |length| length.parse().unwrap());
        assert_eq!(message.body.len(), length, "the declared length");
        message
    }

    fn field(&self, name: &str) -> Option<&'a str> {
        self.fields.iter().find(|(field, _)| field == name).map(|(_, value)| *value)
    }

    fn segments(&self) -> Vec<String> {
        call::split_target(self.start.split(' ').nth(1).unwrap()).unwrap().0
    }
}

/// A line with a name behind `#`, then the bytes of the frame.
fn frames(bytes: &[u8]) {
    let meta = Meta {
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        caller: Some("billing"),
        ..Meta::default()
    };
    let problem = br#"{"type":"about:blank","title":"method_failed","status":422,"code":"method_failed","ran":"yes"}"#;
    let new = Header::new;
    let none = Meta::default();
    let rings = Header { arg: 1_048_576, ..new(Kind::Rings, 0) };
    let expected: [(&str, Header, Meta<'_>, &[u8]); 12] = [
        ("request", Header { end: true, index: 2, arg: 30_000, ..new(Kind::Request, 1) }, meta, b"hello"),
        ("reply", Header { end: true, ..new(Kind::Reply, 1) }, none, b"\0ok"),
        ("error", Header { end: true, ..new(Kind::Error, 2) }, none, problem),
        ("data", Header { end: true, ..new(Kind::Data, 3) }, none, b"the end"),
        ("cancel", new(Kind::Cancel, 4), none, b""),
        ("credit of a call", Header { arg: 131_072, ..new(Kind::Credit, 3) }, none, b""),
        ("credit of the connection", Header { arg: 1_048_576, ..new(Kind::Credit, 0) }, none, b""),
        ("ping", new(Kind::Ping, 7), none, b"are you there"),
        ("pong", new(Kind::Pong, 7), none, b"are you there"),
        ("close", new(Kind::Close, 0), none, b"frame type 99 is unknown"),
        ("rings, with a descriptor", Header { fd: true, ..rings }, none, b""),
        ("rings, the answer", rings, none, b""),
    ];
    let mut written = String::new();
    for (name, header, meta, payload) in expected {
        let mut metadata = Vec::new();
        meta.encode(&mut metadata);
        assert_eq!(Meta::decode(&metadata), Ok(meta), "{name}");
        written.push_str(&frame(name, header, &metadata, payload));
    }
    let none = NoticeMeta::default();
    let after = NoticeMeta { epoch: Some(EPOCH), ..none };
    let keyed = NoticeMeta { key: Some("disk"), ..none };
    let lossy = NoticeMeta { dropped: 3, ..none };
    let credit = Header { index: 64, arg: 262_144, ..new(Kind::Credit, 5) };
    let end = |kind, arg| Header { end: true, arg, ..new(kind, 5) };
    let refused = Fault::new(Code::InvalidArgument, "not sent yet").to_problem();
    let segments = segment_frames().map(|(name, header, payload)| frame(name, header, &[], &payload));
    let expected: [(&str, Header, NoticeMeta<'_>, &[u8]); 14] = [
        ("subscribe", Header { index: 1, ..new(Kind::Subscribe, 5) }, none, b"billing"),
        ("subscribe as an observer", Header { index: 1, arg: 41, ..new(Kind::Subscribe, 6) }, after, b""),
        ("subscribed", Header { index: 1, ..new(Kind::Subscribe, 5) }, none, b""),
        ("event", end(Kind::Event, 42), none, b"job 7 done"),
        ("event of a state", end(Kind::Event, 43), keyed, b"91 %"),
        ("event behind others that were dropped", end(Kind::Event, 44), lossy, b"frame"),
        ("event, its beginning", Header { arg: 45, ..new(Kind::Event, 5) }, none, b"the begin"),
        ("event, its end", end(Kind::Event, 45), none, b"ning"),
        ("credit of a subscription", credit, none, b""),
        ("ack, and its answer", Header { arg: 45, ..new(Kind::Ack, 5) }, none, b""),
        ("ack, refused", Header { arg: 99, ..new(Kind::Ack, 5) }, none, &refused),
        ("gap", Header { arg: 46, ..new(Kind::Gap, 5) }, none, &50_u64.to_le_bytes()),
        ("unsubscribe", new(Kind::Unsubscribe, 5), none, b""),
        ("drain", new(Kind::Drain, 5), none, b""),
    ];
    for (name, header, meta, payload) in expected {
        let mut metadata = Vec::new();
        meta.encode(&mut metadata);
        assert_eq!(NoticeMeta::decode(&metadata), Ok(meta), "{name}");
        written.push_str(&frame(name, header, &metadata, payload));
    }
    written.extend(segments);
    assert_eq!(written, String::from_utf8_lossy(bytes));
}

/// All frames about segments, in the order in which a plugin's first and second body in one would bring them.
fn segment_frames() -> [(&'static str, Header, Vec<u8>); 8] {
    let (new, end) = (Header::new, |kind, id| Header { end: true, ..Header::new(kind, id) });
    let place = |segment, offset, length| Place { segment, offset, length }.encode().to_vec();
    let takes = Header { index: 2, arg: 30_000, takes_place: true, ..end(Kind::Request, 8) };
    let placed = |header| Header { is_placed: true, ..header };
    let borrow = Header { index: MAX_SEGMENTS, arg: MAX_SEGMENT_BYTES, ..new(Kind::Borrow, 0) };
    [
        ("request whose reply may lie in a segment", takes, b"paint".to_vec()),
        ("lend", new(Kind::Lend, 0), Vec::new()),
        ("borrow", borrow, Vec::new()),
        ("segment, with a descriptor", Header { fd: true, arg: 524_288, ..new(Kind::Segment, 1) }, Vec::new()),
        ("reply in a segment", placed(end(Kind::Reply, 8)), place(1, 0, 307_200)),
        ("release", Header { arg: 1, ..new(Kind::Release, 1) }, Vec::new()),
        ("forget", new(Kind::Forget, 1), Vec::new()),
        ("request in a segment", Header { id: 9, ..placed(takes) }, place(3, 64, 100_000)),
    ]
}

/// One frame as the golden file has it.
fn frame(name: &str, header: Header, metadata: &[u8], payload: &[u8]) -> String {
    let header = Header { meta_bytes: metadata.len(), payload_bytes: payload.len(), ..header };
    let frame = [&header.encode()[..], metadata, payload].concat();
    assert_eq!(Header::decode(frame.first_chunk::<HEADER_BYTES>().unwrap()), Ok(header), "{name}");
    let mut text = format!("# {name}\n");
    for line in frame.chunks(32) {
        let hex: Vec<_> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        text.push_str(&hex.join(" "));
        text.push('\n');
    }
    text
}
