//! One call: find the process that serves, wait for a place, send, and repeat what certainly did not run.
//!
//! In reading order: this file (the whole of a call), `retry` (when it is repeated), `admission` (who may call now; `places`: the
//! count), `attempt` (one attempt on the wire), `judge` (what a reply means), `pool` (connections), `exchange` (calls whose bodies
//! go piece by piece).

mod admission;
mod attempt;
mod exchange;
mod frames;
mod judge;
mod places;
mod pool;
mod probe;
mod retry;
mod tilotech;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use goplug_pconf_schema::wire::call::MAX_DEADLINE_MS;
use goplug_pconf_schema::{Code, Fault, Ran, printable};
use goplug_transport::View;
use tokio::time::Instant;

pub(crate) use attempt::{broken, next_call_id, not_connected};
pub(crate) use exchange::open;
pub use exchange::{Exchange, ReplyBody, RequestBody};
pub(crate) use frames::Frames;
pub(crate) use judge::{Verdict, problem as read_problem, v0 as judge_v0, v1 as judge_v1};
pub(crate) use places::Places;
pub(crate) use pool::Pool;
pub(crate) use probe::{answers_ping, health, is_hung, listeners, ping, request};

use crate::options::{CallDefaults, LONGEST};
use crate::supervisor::{Live, Slot, Wire};
use attempt::Outgoing;
use retry::Repeat;

/// How long a repeat waits for another process to take the place of one that died.
const SUCCESSOR_WAIT: Duration = Duration::from_secs(1);

/// What a caller may say about a call.
#[derive(Debug, Clone, Default)]
pub struct CallOptions {
    /// The time until the last byte of the reply, queueing included, at most a day; `None`: the method's own default,
    /// else the registry's.
    pub deadline: Option<Duration>,
    /// Who asks, as the plugin is told; `None`: the registry's own caller.
    pub caller: Option<String>,
    /// Content type of the body; `None`: the method's own.
    pub content_type: Option<String>,
    /// W3C trace context, passed through.
    pub traceparent: Option<String>,
    /// W3C trace context, passed through.
    pub tracestate: Option<String>,
}

/// How a caller waits for its reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waiting {
    /// Its thread has other tasks to run.
    Task,
    /// Its thread may block.
    Thread,
}

/// A reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The method's bytes.
    pub body: Bytes,
    /// What the plugin says they are.
    pub content_type: Option<String>,
}

/// A reply, wherever it lies.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) body: View,
    pub(crate) content_type: Option<String>,
}

impl From<Received> for Answer {
    /// Copies what lies in memory of the plugin's.
    fn from(Received { body, content_type }: Received) -> Self {
        Self { body: body.into_bytes(), content_type }
    }
}

/// Calls `method` and waits for its reply; at most two repeats, inside the deadline, and only of what certainly did not
/// run or is declared idempotent by the process that is asked again.
pub(crate) async fn execute(
    slot: &Slot,
    defaults: &CallDefaults,
    method: &str,
    body: Bytes,
    options: &CallOptions,
    waiting: Waiting,
) -> Result<Received, Fault> {
    let started = Instant::now();
    let (mut now, mut repeats, mut was_woken) = (started, 0, false);
    let mut first_fault: Option<Fault> = None;
    loop {
        let (live, place, deadline) = match prepare(slot, defaults, method, &body, options, started, now) {
            Ok(prepared) => prepared,
            // Stopped because nobody called it: this call starts it.
            Err(_) if !was_woken && slot.is_asleep() => {
                was_woken = true;
                let until = started + options.deadline.unwrap_or(defaults.deadline).min(LONGEST);
                // On the heap: every call would otherwise carry the room for this one about.
                _ = Box::pin(slot.wake(until)).await;
                now = Instant::now();
                continue;
            }
            // The fault that made us ask again says more than "there is nobody now".
            Err(fault) => return Err(first_fault.filter(|first| first.ran != Ran::No).unwrap_or(fault)),
        };
        let idempotent = live.methods[place].info.idempotent;
        if first_fault.as_ref().is_some_and(|first| first.ran != Ran::No) && !idempotent {
            return Err(first_fault.unwrap_or_else(|| Fault::new(Code::Internal, "no fault to repeat")));
        }
        let fault = match once(&live, defaults, place, method, &body, options, deadline, now, waiting).await {
            Ok(answer) => return Ok(answer),
            Err(fault) => fault,
        };
        live.note_failure(fault.code);
        let left = deadline.saturating_duration_since(Instant::now());
        let Some(repeat) = retry::decide(&fault, idempotent, repeats, left) else { return Err(fault) };
        repeats += 1;
        match repeat {
            Repeat::After(pause) => tokio::time::sleep(pause).await,
            Repeat::OnSuccessor => {
                let until = deadline.min(Instant::now() + SUCCESSOR_WAIT);
                if !slot.wait_successor(&live, until).await {
                    return Err(fault);
                }
            }
        }
        first_fault = Some(fault);
        now = Instant::now();
    }
}

/// Everything that is checked before a byte is sent; also the method's place and the deadline.
fn prepare(
    slot: &Slot,
    defaults: &CallDefaults,
    method: &str,
    body: &Bytes,
    options: &CallOptions,
    started: Instant,
    now: Instant,
) -> Result<(Arc<Live>, usize, Instant), Fault> {
    let live = slot.live().ok_or_else(|| slot.not_callable())?;
    if live.wire == Wire::V0 && method.contains('/') {
        let text = format!("method `{}` holds a `/`: a v0 plugin cannot be asked for it", printable(method));
        return Err(Fault::new(Code::InvalidArgument, text));
    }
    let place = live.place_of(method)?;
    let info = &live.methods[place].info;
    let limit = live.hello.limits.max_request_bytes;
    if body.len() as u64 > limit {
        let text = format!("the request is {} bytes, plugin `{}` takes at most {limit}", body.len(), live.id);
        return Err(Fault::new(Code::TooLarge, text));
    }
    let longest = Duration::from_millis(MAX_DEADLINE_MS);
    // What the plugin says in its hello is no fault of the caller.
    let usual = || info.deadline_ms.map(|ms| Duration::from_millis(ms).min(longest));
    let allowed = options.deadline.or_else(usual).unwrap_or(defaults.deadline);
    if allowed > longest {
        return Err(Fault::new(Code::InvalidArgument, format!("the deadline is {allowed:?}, the limit is a day")));
    }
    let deadline = started + allowed;
    if deadline <= now {
        return Err(late(&live, method, Ran::No));
    }
    Ok((live, place, deadline))
}

/// One attempt with its place and its turn; ends at the deadline.
#[allow(clippy::too_many_arguments, reason = "each is said once, and none belongs to another")]
async fn once(
    live: &Live,
    defaults: &CallDefaults,
    place: usize,
    method: &str,
    body: &Bytes,
    options: &CallOptions,
    deadline: Instant,
    now: Instant,
    waiting: Waiting,
) -> Result<Received, Fault> {
    let entry = &live.methods[place];
    let admitted = admission::admit(live, entry, deadline).await?;
    let call = Outgoing {
        now: if admitted.has_waited { Instant::now() } else { now },
        name: method,
        target: &entry.target,
        index: entry.index,
        waiting,
        latency: defaults.latency,
        reply_type: entry.info.content_type.as_deref(),
        body,
        options,
        caller: options.caller.as_deref().or(defaults.caller.as_deref()),
        content_type: options.content_type.as_deref().or(entry.info.content_type.as_deref()),
        max_reply_bytes: defaults.max_reply_bytes,
    };
    attempt::attempt(live, &call, deadline).await
}

fn late(live: &Live, method: &str, ran: Ran) -> Fault {
    let text = format!("method `{}` of plugin `{}` did not answer in time", printable(method), live.id);
    Fault::new(Code::DeadlineExceeded, text).with_ran(ran)
}
