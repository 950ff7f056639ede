//! How a streamed call begins.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use goplug_pconf_schema::wire::call::{CALL_ID, CALLER, DEADLINE_MS, EPOCH, HOST, TRACEPARENT, TRACESTATE};
use goplug_pconf_schema::wire::frame::Meta;
use goplug_pconf_schema::{Code, Fault, Ran};
use goplug_transport::{Error, FrameExchange, FrameReplyBody, FrameRequestBody, Request};
use tokio::time::{Instant, timeout_at};

use super::super::attempt::{broken, next_call_id, not_connected};
use super::super::{CallOptions, late, prepare};
use super::{Back, Call, Exchange, Out, Place, ReplyBody, RequestBody};
use crate::options::CallDefaults;
use crate::supervisor::{Doubt, Live, Slot, Wire};

/// Begins a call of `method`: waits for a place and sends the head of its request.
pub(crate) async fn open(
    slot: &Slot,
    defaults: &CallDefaults,
    method: &str,
    options: &CallOptions,
) -> Result<Exchange, Fault> {
    let now = Instant::now();
    let (live, place, deadline) = prepare(slot, defaults, method, &bytes::Bytes::new(), options, now, now)?;
    if live.wire != Wire::V1 {
        let text = format!("plugin `{}` speaks v0, whose bodies are whole: use `execute`", live.id);
        return Err(Fault::new(Code::InvalidArgument, text));
    }
    let held = Place::of(&live, place, deadline).await.inspect_err(|fault| live.note_failure(fault.code))?;
    let call = Call {
        live: Arc::clone(&live),
        method: method.to_owned(),
        deadline,
        is_cancelled: AtomicBool::new(false),
        has_failed: AtomicBool::new(false),
        _place: held,
    };
    let begun = timeout_at(deadline, begin(&live, defaults, place, options, deadline)).await;
    let begun = begun.unwrap_or_else(|_| {
        live.report(Doubt::Silent);
        Err(late(&live, method, Ran::No))
    });
    let (out, back) = begun.inspect_err(|fault| call.note(fault))?;
    let content_type = match &back {
        Back::Frames(_) => live.methods[place].info.content_type.clone(),
        _ => None,
    };
    let call = Arc::new(call);
    let request = RequestBody { call: Arc::clone(&call), out: Some(out) };
    Ok(Exchange { request, reply: ReplyBody { call, back, content_type, end: None } })
}

async fn begin(
    live: &Live,
    defaults: &CallDefaults,
    place: usize,
    options: &CallOptions,
    deadline: Instant,
) -> Result<(Out, Back), Fault> {
    let caller = options.caller.as_deref().or(defaults.caller.as_deref());
    let begun = over_frames(live, defaults, place, options, caller, deadline).await?;
    if let Some((request, reply)) = begun {
        return Ok((Out::Frames(request), Back::Frames(reply)));
    }
    let method = &live.methods[place];
    let connection = live.pool.connect(deadline).await.map_err(|error| not_connected(live, error))?;
    let (call_id, left_ms) = (next_call_id(), left_ms(deadline).to_string());
    let given = [
        Some((CALL_ID, call_id.as_str())),
        Some((EPOCH, live.epoch())),
        Some((DEADLINE_MS, left_ms.as_str())),
        caller.map(|caller| (CALLER, caller)),
        options.traceparent.as_deref().map(|value| (TRACEPARENT, value)),
        options.tracestate.as_deref().map(|value| (TRACESTATE, value)),
    ];
    let headers: Vec<_> = given.into_iter().flatten().collect();
    let content_type = options.content_type.as_deref().or(method.info.content_type.as_deref());
    let request =
        Request { method: "POST", target: &method.target, host: HOST, headers: &headers, content_type, body: &[] };
    let (request, reply) = connection.stream(&request).await.map_err(|error| broken(live, &error))?;
    Ok((Out::Http(request), Back::Http { reply, call_id, has_begun: false }))
}

/// Begins over frames; `None` when the call has to go over HTTP.
async fn over_frames(
    live: &Live,
    defaults: &CallDefaults,
    place: usize,
    options: &CallOptions,
    caller: Option<&str>,
    deadline: Instant,
) -> Result<Option<(FrameRequestBody, FrameReplyBody)>, Fault> {
    let Some(frames) = &live.frames else { return Ok(None) };
    let meta = Meta {
        traceparent: options.traceparent.as_deref(),
        tracestate: options.tracestate.as_deref(),
        caller,
        content_type: options.content_type.as_deref(),
    };
    if !meta.fits() {
        return Ok(None);
    }
    let mut is_second = false;
    loop {
        let Some(connection) = frames.connection(live, defaults.latency, deadline).await? else { return Ok(None) };
        let (index, deadline_ms) = (live.methods[place].index, left_ms(deadline));
        let request = FrameExchange { index, deadline_ms, deadline: deadline.into_std(), meta };
        let error = match connection.exchange(&request) {
            Ok(halves) => return Ok(Some(halves)),
            Err(error) => error,
        };
        frames.forget_if_ended();
        // One that was idle had ended before the call: another is made, once.
        if std::mem::replace(&mut is_second, true) || live.is_gone() {
            return Err(broken(live, &Error { sent: false, ..error }));
        }
    }
}

fn left_ms(deadline: Instant) -> u64 {
    u64::try_from(deadline.saturating_duration_since(Instant::now()).as_millis()).unwrap_or(u64::MAX).max(1)
}
