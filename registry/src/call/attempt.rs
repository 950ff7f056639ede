//! One attempt of one call, on the wire.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use goplug_pconf_schema::wire::call::{CALL_ID, CALLER, DEADLINE_MS, EPOCH, HOST, TRACEPARENT, TRACESTATE};
use goplug_pconf_schema::wire::fault::MAX_PROBLEM_BYTES;
use goplug_pconf_schema::{Code, Fault, Ran};
use goplug_transport::{Connection, Error, ErrorKind, Latency, ReplyHead, Request};
use tokio::time::Instant;

use super::frames;
use super::judge::{self, Verdict};
use super::pool::PoolError;
use super::tilotech;
use super::{CallOptions, Received, Waiting, late};
use crate::open_files;
use crate::supervisor::{Doubt, Live, Wire};

/// How long a whole reply that is already in the socket may take to be read after the plugin's death was seen.
pub(super) const LAST_WORDS: Duration = Duration::from_millis(25);

/// What goes over the wire.
pub(crate) struct Outgoing<'a> {
    pub name: &'a str,
    /// The escaped path.
    pub target: &'a str,
    /// Its place in the hello.
    pub index: u16,
    pub body: &'a Bytes,
    pub options: &'a CallOptions,
    pub caller: Option<&'a str>,
    pub content_type: Option<&'a str>,
    /// When it was admitted.
    pub now: Instant,
    /// What the hello says of replies, which frames do not repeat.
    pub reply_type: Option<&'a str>,
    pub max_reply_bytes: usize,
    pub waiting: Waiting,
    pub latency: Latency,
}

/// Sends the call to `live` and waits for the whole reply; ends at `deadline`, and within 50 ms of the plugin's death.
pub(crate) async fn attempt(live: &Live, call: &Outgoing<'_>, deadline: Instant) -> Result<Received, Fault> {
    if let Some(offered) = &live.frames
        && let Some(answer) = frames::attempt(live, offered, call, deadline).await
    {
        return answer;
    }
    // On the heap: every call would otherwise carry the room for this one about.
    let sent = AtomicBool::new(false);
    match Box::pin(tokio::time::timeout_at(deadline, over_http(live, call, deadline, &sent))).await {
        Ok(answer) => answer,
        Err(_) => {
            live.report(Doubt::Silent);
            Err(late(live, call.name, if sent.load(Ordering::Relaxed) { Ran::Unknown } else { Ran::No }))
        }
    }
}

/// Sets `sent` before the first byte may reach the plugin.
async fn over_http(live: &Live, call: &Outgoing<'_>, deadline: Instant, sent: &AtomicBool) -> Result<Received, Fault> {
    let mut connection = live.pool.take(deadline).await.map_err(|error| not_connected(live, error))?;
    sent.store(true, Ordering::Relaxed);
    let answer = {
        let exchange = exchange(live, &mut connection, call, deadline);
        tokio::pin!(exchange);
        tokio::select! {
            biased;
            answer = &mut exchange => answer,
            () = live.wait_gone() => match tokio::time::timeout(LAST_WORDS, exchange).await {
                Ok(answer) => answer,
                Err(_) => Err(Fault::new(Code::PluginGone, format!("plugin `{}` died, or was let go, during the call", live.id))),
            },
        }
    };
    live.pool.put(connection);
    answer
}

async fn exchange(
    live: &Live,
    connection: &mut Connection,
    call: &Outgoing<'_>,
    deadline: Instant,
) -> Result<Received, Fault> {
    match live.wire {
        Wire::V1 => exchange_v1(live, connection, call, deadline).await,
        Wire::V0 => exchange_v0(live, connection, call).await,
        Wire::Tilotech => tilotech::exchange(live, connection, call, deadline).await,
    }
}

async fn exchange_v1(
    live: &Live,
    connection: &mut Connection,
    call: &Outgoing<'_>,
    deadline: Instant,
) -> Result<Received, Fault> {
    let call_id = next_call_id();
    let left = deadline.saturating_duration_since(Instant::now());
    let left_ms = left.as_millis().max(1).to_string();
    let mut headers = [("", ""); 6];
    let mut count = 0;
    let given = [
        Some((CALL_ID, call_id.as_str())),
        Some((EPOCH, live.epoch())),
        Some((DEADLINE_MS, left_ms.as_str())),
        call.caller.map(|caller| (CALLER, caller)),
        call.options.traceparent.as_deref().map(|value| (TRACEPARENT, value)),
        call.options.tracestate.as_deref().map(|value| (TRACESTATE, value)),
    ];
    for header in given.into_iter().flatten() {
        headers[count] = header;
        count += 1;
    }
    let request = Request {
        method: "POST",
        target: call.target,
        host: HOST,
        headers: &headers[..count],
        content_type: call.content_type,
        body: call.body,
    };
    let mut verdict = Verdict::Body;
    let limit = |head: &ReplyHead| {
        verdict = judge::v1(head, &call_id);
        match verdict {
            Verdict::Body => Some(call.max_reply_bytes),
            Verdict::Problem => Some(MAX_PROBLEM_BYTES),
            Verdict::Broken(_) => None,
        }
    };
    let (head, body) = connection.exchange_within(&request, limit).await.map_err(|error| broken(live, &error))?;
    let body = body.unwrap_or_else(|| Ok(Bytes::new()));
    match verdict {
        Verdict::Body => {
            let body = body.map_err(|error| broken_reply(live, &error))?;
            let content_type = head.header("content-type").map(str::to_owned);
            Ok(Received { body: body.into(), content_type })
        }
        Verdict::Problem => {
            let body = body.map_err(|error| broken_problem(live, &error))?;
            let fault = judge::problem(head.status, &body);
            if fault.code == Code::WrongState && fault.ran == Ran::No {
                live.report(Doubt::Inactive);
            }
            Err(fault)
        }
        Verdict::Broken(why) => Err(Fault::new(Code::ProtocolError, format!("plugin `{}`: {why}", live.id))),
    }
}

async fn exchange_v0(live: &Live, connection: &mut Connection, call: &Outgoing<'_>) -> Result<Received, Fault> {
    let request = Request {
        method: "POST",
        target: call.target,
        host: &live.host,
        headers: &[],
        content_type: (!call.body.is_empty()).then_some("application/json"),
        body: call.body,
    };
    let mut judged = Ok(());
    let limit = |head: &ReplyHead| {
        judged = judge::v0(head);
        Some(if judged.is_ok() { call.max_reply_bytes } else { MAX_PROBLEM_BYTES })
    };
    let (head, body) = connection.exchange_within(&request, limit).await.map_err(|error| broken(live, &error))?;
    // A failure is one whatever comes behind its head.
    judged?;
    let body = body.unwrap_or_else(|| Ok(Bytes::new())).map_err(|error| broken_reply(live, &error))?;
    Ok(Received { body: body.into(), content_type: head.header("content-type").map(str::to_owned) })
}

/// Unique among the calls of this process.
pub(crate) fn next_call_id() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed).to_string()
}

/// No connection: nothing was sent.
pub(crate) fn not_connected(live: &Live, error: PoolError) -> Fault {
    let error = match error {
        PoolError::Stranger => {
            live.report(Doubt::Lost);
            let text = format!("another process listens on the socket of plugin `{}` now", live.id);
            return Fault::new(Code::Unavailable, text);
        }
        PoolError::Transport(error) => error,
    };
    if matches!(error.kind, ErrorKind::Missing | ErrorKind::Refused) {
        live.report(Doubt::Lost);
    }
    let mut text = format!("plugin `{}`: {error}", live.id);
    if error.kind == ErrorKind::Exhausted {
        text = format!("{text}: {}", open_files::exhausted());
    }
    Fault::new(unsent_code(error.kind), text).with_ran(Ran::No)
}

fn unsent_code(kind: ErrorKind) -> Code {
    match kind {
        ErrorKind::Deadline => Code::DeadlineExceeded,
        ErrorKind::Denied => Code::Denied,
        ErrorKind::Exhausted => Code::Overloaded,
        ErrorKind::Protocol => Code::InvalidArgument,
        ErrorKind::Missing
        | ErrorKind::Refused
        | ErrorKind::Busy
        | ErrorKind::Io
        | ErrorKind::Closed
        | ErrorKind::TooLarge => Code::Unavailable,
    }
}

/// The connection broke before a head was read.
pub(crate) fn broken(live: &Live, error: &Error) -> Fault {
    if !error.sent {
        return Fault::new(unsent_code(error.kind), format!("plugin `{}`: {error}", live.id)).with_ran(Ran::No);
    }
    Fault::new(sent_code(error.kind), format!("plugin `{}`: {error}", live.id)).with_ran(Ran::Unknown)
}

/// The connection broke within a problem document, or the document is none.
fn broken_problem(live: &Live, error: &Error) -> Fault {
    match error.kind {
        ErrorKind::TooLarge => {
            let text = format!("plugin `{}`: a problem document of more than {MAX_PROBLEM_BYTES} bytes", live.id);
            Fault::new(Code::ProtocolError, text)
        }
        _ => broken(live, error),
    }
}

/// The connection broke behind a head: the method ran.
pub(super) fn broken_reply(live: &Live, error: &Error) -> Fault {
    Fault::new(sent_code(error.kind), format!("plugin `{}`: {error}", live.id)).with_ran(Ran::Yes)
}

fn sent_code(kind: ErrorKind) -> Code {
    match kind {
        ErrorKind::Deadline => Code::DeadlineExceeded,
        ErrorKind::Protocol => Code::ProtocolError,
        ErrorKind::TooLarge => Code::TooLarge,
        ErrorKind::Missing
        | ErrorKind::Refused
        | ErrorKind::Denied
        | ErrorKind::Busy
        | ErrorKind::Io
        | ErrorKind::Closed
        | ErrorKind::Exhausted => Code::PluginGone,
    }
}
