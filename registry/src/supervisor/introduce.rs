//! How a process is met: connect, check who it is, ask for its hello, activate it.

use std::time::Duration;

use bytes::Bytes;
use goplug_pconf_schema::wire::call::{ACTIVATE_MS, CALL_ID, EPOCH, HELLO_MS, HOST, path};
use goplug_pconf_schema::wire::fault::MAX_PROBLEM_BYTES;
use goplug_pconf_schema::wire::hello::{Hello, HelloError, Limits, MAX_HELLO_BYTES, MAX_METHODS, MethodInfo};
use goplug_pconf_schema::wire::{PROTOCOL, depth_is_bounded};
use goplug_pconf_schema::{Code, Fault, Ran, check_call_name};
use goplug_transport::{Connection, Error, ErrorKind, Latency, Reply, Request};
use tokio::time::{Instant, timeout};

use super::Shared;
use super::live::{Introduction, Live, Wire};
use super::state::Verdict;
use crate::call::{Verdict as Judged, judge_v0, judge_v1, next_call_id, read_problem};
use crate::callback::{Place, Standing, hold};
use crate::discovery::{Confinement, Found};
use crate::open_files;
use crate::options::Builder;
use crate::trust::{self, Vetted};

/// The largest output of an activator or stopper that is kept.
const MAX_OUTPUT_BYTES: usize = 4 * 1024 * 1024;

/// How far to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Activate it, or adopt its activation.
    Activate,
    /// Ask only; adopt it if it is active.
    Look,
}

/// Who was met.
pub(crate) enum Met {
    /// Active now; the connection is the standing one.
    Active(Box<Live>, Box<Connection>),
    /// Only looked at.
    Seen { wire: Wire, hello: Option<Box<Hello>>, pid: u32, uid: u32 },
}

/// Why the start failed, and what that means for the next one.
#[derive(Debug, Clone)]
pub(crate) struct NotMet {
    pub fault: Fault,
    pub verdict: Verdict,
    /// Nobody listens on the socket.
    pub dead: bool,
}

impl NotMet {
    fn new(verdict: Verdict, fault: Fault) -> Self {
        Self { fault, verdict, dead: false }
    }
}

/// Meets the process that `found` names.
pub(crate) async fn meet(shared: &Shared, found: &Found, options: &Builder, mode: Mode) -> Result<Met, NotMet> {
    let hello_deadline = Instant::now() + Duration::from_millis(HELLO_MS);
    confined(found, options).await?;
    let mut connection =
        Connection::connect(&found.socket, hello_deadline).await.map_err(|error| unconnected(&error))?;
    check_peer(&connection, options)?;
    let (pid, uid) = (connection.peer().pid(), connection.peer().uid());
    if found.is_tilotech {
        return Ok(match mode {
            Mode::Look => Met::Seen { wire: Wire::Tilotech, hello: None, pid, uid },
            // It has no hello and no activation: it serves whoever calls.
            Mode::Activate => {
                let hello = bare_hello(found, vec![], Vec::new());
                active(found, Wire::Tilotech, hello, Bytes::new(), connection, options)
            }
        });
    }
    let Some(hello) = hello(&mut connection, found, hello_deadline).await? else {
        if mode == Mode::Look {
            return Ok(Met::Seen { wire: Wire::V0, hello: None, pid, uid });
        }
        let mut connection = ready(connection, found).await?;
        let vetted = vetted(shared, found, options, &connection).await?;
        let (hello, output) = activate_v0(&mut connection, found).await?;
        still_vetted(vetted, &connection).await?;
        let connection = ready(connection, found).await?;
        return Ok(active(found, Wire::V0, hello, output, connection, options));
    };
    check_hello(&hello, found)?;
    if mode == Mode::Look && !hello.active {
        return Ok(Met::Seen { wire: Wire::V1, hello: Some(Box::new(hello)), pid, uid });
    }
    let mut connection = ready(connection, found).await?;
    let vetted = vetted(shared, found, options, &connection).await?;
    let standing = &shared.standing;
    // One that is active has its subscribers already; it holds their places itself.
    let held = if hello.active { None } else { Some(hold_new(&[], standing, &hello, found, &connection).await?) };
    let output = activate_v1(&mut connection, &hello).await?;
    still_vetted(vetted, &connection).await?;
    if let Some(held) = held {
        // Whoever subscribed meanwhile to the process that still serves.
        hold_new(&held, standing, &hello, found, &connection).await?;
    }
    let connection = ready(connection, found).await?;
    Ok(active(found, Wire::V1, hello, output, connection, options))
}

/// Lets the process hold the places of the subscriptions that are not in `held`; answers them.
async fn hold_new(
    held: &[Place],
    standing: &Standing,
    hello: &Hello,
    found: &Found,
    connection: &Connection,
) -> Result<Vec<Place>, NotMet> {
    let mut places = standing.of(&found.pconf.id);
    places.retain(|place| !held.contains(place));
    let deadline = Instant::now() + Duration::from_millis(HELLO_MS);
    let held = hold(&places, hello, &found.socket, connection.peer(), deadline).await;
    held.map_err(|fault| NotMet::new(Verdict::Retry, fault))?;
    Ok(places)
}

/// The connection, or another one to the same process if its last reply closed it: a plugin may say `Connection: close`
/// whenever it likes, and the standing connection must stand.
async fn ready(connection: Connection, found: &Found) -> Result<Connection, NotMet> {
    if connection.is_reusable() {
        return Ok(connection);
    }
    let deadline = Instant::now() + Duration::from_millis(HELLO_MS);
    let next = Connection::connect(&found.socket, deadline).await.map_err(|error| unconnected(&error))?;
    if next.peer().same_process(connection.peer()) {
        return Ok(next);
    }
    let text = "another process listens on the socket than the one that answered the hello";
    Err(NotMet::new(Verdict::Retry, Fault::new(Code::Unavailable, text)))
}

/// The file's text was checked when it was read; here the path is followed on disk, where a link may lead elsewhere.
async fn confined(found: &Found, options: &Builder) -> Result<(), NotMet> {
    let (directory, socket_dirs, socket) = (options.directory.clone(), options.socket_folders(), found.socket.clone());
    let check = move || Confinement::new(&directory, &socket_dirs).check_on_disk(&socket);
    match crate::tasks::on_a_thread(check).await {
        Ok(Err(reason)) => Err(NotMet::new(Verdict::Denied, Fault::new(Code::Denied, reason))),
        _ => Ok(()),
    }
}

fn active(found: &Found, wire: Wire, hello: Hello, output: Bytes, connection: Connection, options: &Builder) -> Met {
    let host = match wire {
        Wire::V0 => found.pconf.host().to_owned(),
        Wire::V1 | Wire::Tilotech => HOST.to_owned(),
    };
    let live = Live::new(Introduction {
        id: found.pconf.id.clone(),
        wire,
        socket: found.socket.clone(),
        host,
        hello,
        peer: connection.peer().clone(),
        output,
        max_concurrent_calls: options.max_concurrent_calls,
        fast_paths: options.fast_paths,
        shared_memory: options.latency == Latency::Low,
    });
    Met::Active(Box::new(live), Box::new(connection))
}

fn unconnected(error: &Error) -> NotMet {
    let dead = matches!(error.kind, ErrorKind::Missing | ErrorKind::Refused);
    let (verdict, code) = match error.kind {
        ErrorKind::Denied => (Verdict::Denied, Code::Denied),
        ErrorKind::Exhausted => (Verdict::Retry, Code::Overloaded),
        _ => (Verdict::Retry, Code::Unavailable),
    };
    let text = match error.kind {
        ErrorKind::Missing | ErrorKind::Refused => {
            format!("{error}: the process that wrote the file is gone, or does not listen yet")
        }
        ErrorKind::Exhausted => format!("{error}: {}", open_files::exhausted()),
        _ => error.to_string(),
    };
    NotMet { dead, ..NotMet::new(verdict, Fault::new(code, text)) }
}

/// The process must run as us, as root, or as somebody who is allowed.
fn check_peer(connection: &Connection, options: &Builder) -> Result<(), NotMet> {
    let (uid, own) = (connection.peer().uid(), rustix::process::geteuid().as_raw());
    if uid == 0 || uid == own || options.allow_uids.contains(&uid) {
        return Ok(());
    }
    let text = format!("the process on the socket runs as uid {uid}, allowed are {own}, 0 and those of `allow_uids`");
    Err(NotMet::new(Verdict::Denied, Fault::new(Code::Denied, text)))
}

/// A plugin that starts itself must run the program that it may run, where that is asked; what the registry starts runs what
/// was installed.
async fn vetted(
    shared: &Shared,
    found: &Found,
    options: &Builder,
    connection: &Connection,
) -> Result<Option<Vetted>, NotMet> {
    if !options.pin_executables || found.is_started {
        return Ok(None);
    }
    let vetted = trust::vet(shared, options, &found.pconf.id, connection.peer()).await;
    vetted.map(Some).map_err(|fault| NotMet::new(verdict_on(fault.code), fault))
}

/// Whoever turned into another program meanwhile has the same connection, and is not the one that was looked at.
async fn still_vetted(vetted: Option<Vetted>, connection: &Connection) -> Result<(), NotMet> {
    match vetted {
        Some(vetted) if !vetted.still_holds(connection.peer()).await => {
            Err(NotMet::new(Verdict::Denied, trust::turned(connection.peer())))
        }
        _ => Ok(()),
    }
}

fn verdict_on(code: Code) -> Verdict {
    if code == Code::Denied { Verdict::Denied } else { Verdict::Retry }
}

/// The hello of a v1 plugin; `None` from a v0 one.
async fn hello(connection: &mut Connection, found: &Found, deadline: Instant) -> Result<Option<Hello>, NotMet> {
    let request =
        Request { method: "GET", target: path::HELLO, host: HOST, headers: &[], content_type: None, body: &[] };
    let late = || {
        let text = format!("no answer to the hello within {HELLO_MS} ms");
        NotMet::new(Verdict::Retry, Fault::new(Code::Unavailable, text))
    };
    let reply =
        tokio::time::timeout_at(deadline, connection.exchange(&request, MAX_HELLO_BYTES)).await.map_err(|_| late())?;
    let not_v1 = match reply {
        Ok(reply) if reply.head.status == 200 => match Hello::read(&reply.body) {
            Ok(hello) => return Ok(Some(hello)),
            Err(HelloError::Broken(why)) => return Err(refused(Code::ProtocolError, why)),
            Err(HelloError::NotV1(why)) => why,
        },
        Ok(reply) => format!("status {} to the hello", reply.head.status),
        Err(error) => match error.kind {
            ErrorKind::Protocol | ErrorKind::TooLarge => format!("the answer to the hello: {error}"),
            // No answer at all says nothing about the protocol.
            _ => return Err(NotMet::new(Verdict::Retry, Fault::new(Code::Unavailable, format!("the hello: {error}")))),
        },
    };
    match found.pconf.protocol {
        Some(protocol) => {
            Err(refused(Code::ProtocolError, format!("the file says `Protocol` {protocol}, but {not_v1}")))
        }
        None => Ok(None),
    }
}

fn refused(code: Code, why: impl Into<String>) -> NotMet {
    NotMet::new(Verdict::Refused, Fault::new(code, why))
}

fn check_hello(hello: &Hello, found: &Found) -> Result<(), NotMet> {
    let id = &found.pconf.id;
    if (hello.namespace.as_str(), hello.name.as_str()) != (id.namespace(), id.name()) {
        let (namespace, name) =
            (goplug_pconf_schema::printable(&hello.namespace), goplug_pconf_schema::printable(&hello.name));
        let text = format!("the process says that it is `{namespace}/{name}`, its file says `{id}`");
        return Err(refused(Code::InvalidArgument, text));
    }
    if !hello.protocols.contains(&PROTOCOL) {
        let text = format!("the plugin speaks protocols {:?}, this registry speaks 0 and {PROTOCOL}", hello.protocols);
        let data = serde_json::json!({"protocols": [PROTOCOL]});
        return Err(NotMet::new(Verdict::Refused, Fault::new(Code::Conflict, text).with_data(data)));
    }
    Ok(())
}

/// Runs the activator, or gets its first reply again if it ran before.
async fn activate_v1(connection: &mut Connection, hello: &Hello) -> Result<Bytes, NotMet> {
    match control(connection, &hello.epoch, path::ACTIVATE, b"{}", Duration::from_millis(ACTIVATE_MS)).await {
        Ok(output) => Ok(output),
        // It is active with the settings of somebody else: that activation is adopted.
        Err(fault) if fault.code == Code::WrongState && hello.active => Ok(Bytes::new()),
        Err(fault) => {
            let verdict = match fault.code {
                Code::ProtocolError | Code::InvalidArgument | Code::TooLarge | Code::NotFound | Code::Conflict => {
                    Verdict::Refused
                }
                Code::Denied => Verdict::Denied,
                _ => Verdict::Retry,
            };
            let message = format!("the activation: {fault}");
            Err(NotMet::new(verdict, Fault { message, ..fault }))
        }
    }
}

/// One v1 request on the standing connection, within `limit`.
pub(crate) async fn control(
    connection: &mut Connection,
    epoch: &str,
    target: &str,
    body: &[u8],
    limit: Duration,
) -> Result<Bytes, Fault> {
    let call_id = next_call_id();
    let headers = [(CALL_ID, call_id.as_str()), (EPOCH, epoch)];
    let request =
        Request { method: "POST", target, host: HOST, headers: &headers, content_type: Some("application/json"), body };
    let exchange = async {
        let head = connection.open(&request).await?;
        let max = if head.status == 200 { MAX_OUTPUT_BYTES } else { MAX_PROBLEM_BYTES };
        let body = connection.read_body(max).await?;
        Ok::<_, Error>(Reply { head, body })
    };
    let reply = timeout(limit, exchange).await.map_err(|_| {
        let text = format!("no answer within {} ms", limit.as_millis());
        Fault::new(Code::DeadlineExceeded, text)
    })?;
    let reply = reply.map_err(|error| {
        match error.kind {
            ErrorKind::Protocol => Fault::new(Code::ProtocolError, error.message),
            // There is an answer: it has run.
            ErrorKind::TooLarge => Fault::new(Code::TooLarge, error.message).with_ran(Ran::Yes),
            _ => Fault::new(Code::PluginGone, error.message),
        }
    })?;
    match judge_v1(&reply.head, &call_id) {
        Judged::Body => Ok(reply.body),
        Judged::Problem => Err(read_problem(reply.head.status, &reply.body)),
        Judged::Broken(why) => Err(Fault::new(Code::ProtocolError, why)),
    }
}

/// Activates a v0 plugin: the first JSON value of the answer lists the methods, what trails it is the activator's output.
async fn activate_v0(connection: &mut Connection, found: &Found) -> Result<(Hello, Bytes), NotMet> {
    let host = found.pconf.host();
    let request = Request { method: "POST", target: "/Activate", host, headers: &[], content_type: None, body: &[] };
    let limit = Duration::from_millis(ACTIVATE_MS);
    let reply = timeout(limit, connection.exchange(&request, MAX_OUTPUT_BYTES)).await;
    let retry = |text: String| NotMet::new(Verdict::Retry, Fault::new(Code::Unavailable, text));
    let reply = reply.map_err(|_| retry(format!("no answer to `Activate` within {ACTIVATE_MS} ms")))?;
    let reply = reply.map_err(|error| match error.kind {
        ErrorKind::Protocol => refused(Code::ProtocolError, format!("the answer to `Activate`: {error}")),
        ErrorKind::TooLarge => {
            let text = format!("the answer to `Activate`: {error}");
            NotMet::new(Verdict::Refused, Fault::new(Code::TooLarge, text).with_ran(Ran::Yes))
        }
        _ => retry(format!("`Activate`: {error}")),
    })?;
    judge_v0(&reply.head).map_err(|fault| {
        refused(Code::ProtocolError, format!("`Activate`: {fault}; it is no plugin, or speaks another protocol"))
    })?;
    read_activation(&reply.body, found).map_err(|why| refused(Code::ProtocolError, why))
}

fn read_activation(body: &Bytes, found: &Found) -> Result<(Hello, Bytes), String> {
    if !depth_is_bounded(body) {
        return Err("the answer to `Activate` is nested too deep".into());
    }
    let mut values = serde_json::Deserializer::from_slice(body).into_iter::<Vec<String>>();
    let names = match values.next() {
        Some(Ok(names)) => names,
        Some(Err(error)) => return Err(format!("the answer to `Activate` is no list of names: {error}")),
        None => return Err("the answer to `Activate` is empty".into()),
    };
    let output = body.slice(values.byte_offset()..);
    // The original pads its list with four empty names.
    let mut names: Vec<String> = names.into_iter().filter(|name| !name.is_empty()).collect();
    if names.len() > MAX_METHODS {
        return Err(format!("{} methods, the limit is {MAX_METHODS}", names.len()));
    }
    for name in &names {
        check_call_name("method", name).map_err(|error| error.to_string())?;
    }
    names.sort();
    names.dedup();
    let hello = bare_hello(found, vec![0], names.into_iter().map(MethodInfo::named).collect());
    Ok((hello, output))
}

/// What is known of a plugin that has no hello.
fn bare_hello(found: &Found, protocols: Vec<u32>, methods: Vec<MethodInfo>) -> Hello {
    let id = &found.pconf.id;
    Hello {
        protocols,
        protocol: None,
        features: Vec::new(),
        namespace: id.namespace().to_owned(),
        name: id.name().to_owned(),
        version: None,
        description: None,
        epoch: String::new(),
        pid: None,
        active: true,
        methods,
        callbacks: Vec::new(),
        interfaces: Vec::new(),
        limits: Limits::default(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::Arc;

    use goplug_pconf_schema::Pconf;

    use super::*;

    #[test]
    fn the_answer_of_the_original_is_read_with_what_trails_it() {
        let pconf = Arc::new(Pconf::parse(br#"{"Name":"Do","NameSpace":"Test","sock":"s"}"#).unwrap());
        let found = Found {
            pconf,
            socket: PathBuf::from("/s"),
            file_uid: 0,
            warnings: Vec::new(),
            is_tilotech: false,
            is_started: false,
        };
        let read = |text: &'static str| read_activation(&Bytes::from_static(text.as_bytes()), &found);
        let (hello, output) = read(r#"["main.Do","","","",""]started"#).unwrap();
        assert_eq!((hello.methods.len(), &output[..]), (1, &b"started"[..]));
        assert_eq!(hello.methods[0].name, "main.Do");
        assert!(read("[]").unwrap().0.methods.is_empty());
        for text in ["", "{}", "[1]", "started", r#"["a"#] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
