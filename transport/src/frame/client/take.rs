//! What the plugin's frames mean. The other side is hostile until checked.

use std::task::Waker;

use bytes::Bytes;
use goplug_pconf_schema::printable;
use goplug_pconf_schema::wire::frame::{Header, Kind, Meta};

use super::state::State;
use super::{FrameReply, streams, subscriptions};
use crate::error::{Error, ErrorKind};
use crate::frame::input::{Frame, Input, Next};

/// A plugin for which this much waits to be written does not read what it asks for.
const MAX_OUTBOX_BYTES: usize = 16 * 1024 * 1024;
/// How much of the reason of a CLOSE is told.
const MAX_REASON_BYTES: usize = 512;

/// Takes every whole frame; whoever is to be woken is added to `wakers`.
pub(super) fn take_all(state: &mut State, input: &mut Input, wakers: &mut Vec<Waker>) -> Result<(), Error> {
    loop {
        match input.next() {
            Ok(Some(Next::Frame(frame))) => {
                take(state, frame, wakers)?;
                if state.segments.takes_descriptors() {
                    input.take_descriptors();
                }
            }
            Ok(Some(Next::Part(header))) => lend(state, input, &header),
            Ok(None) => return Ok(()),
            Err(broken) => return Err(refuse(&broken.0)),
        }
    }
}

fn take(state: &mut State, frame: Frame, wakers: &mut Vec<Waker>) -> Result<(), Error> {
    if state.listening.concerns(&frame.header) {
        return subscriptions::take(state, frame, wakers);
    }
    if matches!(frame.header.kind, Kind::Lend | Kind::Borrow | Kind::Segment | Kind::Release | Kind::Forget) {
        return state.take_segment(&frame).map_err(|broken| refuse(&broken.0));
    }
    let Frame { header, payload, body: collected, .. } = frame;
    match header.kind {
        Kind::Reply | Kind::Data | Kind::Error => {
            if header.id == 0 || header.id >= state.next_id() {
                return Err(refuse(&format!("an answer to call {}, which was never made", header.id)));
            }
            if header.is_placed {
                return placed(state, header.id, &payload, wakers);
            }
            if !state.streams.is_empty() && state.streams.contains_key(&header.id) {
                if header.kind != Kind::Error {
                    count(state, header.payload_bytes as u64);
                }
                streams::take(state, Frame { header, payload, body: collected, meta: Bytes::new(), fd: None }, wakers)?;
            } else if header.kind == Kind::Error {
                wakers.extend(state.finish(header.id, Ok(FrameReply::Problem(payload))));
            } else {
                body(state, &header, payload, collected, wakers);
            }
        }
        Kind::Credit => {
            if header.id >= state.next_id() || !state.grant(header.id, header.arg) {
                return Err(refuse(&format!("a grant of {} bytes to call {}", header.arg, header.id)));
            }
            if !state.streams.is_empty() {
                state.tell_senders(wakers);
            }
        }
        Kind::Ping => {
            if state.outbox.len() > MAX_OUTBOX_BYTES {
                return Err(refuse("the plugin asks and does not read the answers"));
            }
            state.push(Header::new(Kind::Pong, header.id), &Meta::default(), payload);
        }
        Kind::Pong => {}
        Kind::Close => {
            let reason = &payload[..payload.len().min(MAX_REASON_BYTES)];
            let text = format!("the plugin closed the connection: {}", printable(&String::from_utf8_lossy(reason)));
            return Err(Error::new(ErrorKind::Protocol, true, text));
        }
        _ => {
            return Err(refuse(&format!("a frame of type {} is for the registry alone to send", header.kind as u8)));
        }
    }
    Ok(())
}

/// Has a part of a reply read where the reply is collected, if anybody waits for it.
fn lend(state: &mut State, input: &mut Input, header: &Header) {
    if !state.streams.is_empty()
        && let Some(buffer) = state.streams.get(&header.id).and_then(streams::Stream::lend)
    {
        return input.lend(buffer);
    }
    if let Some(entry) = state.entry(header.id)
        && entry.done.is_none()
        && entry.reply.len() + header.payload_bytes <= entry.max_reply_bytes
    {
        input.lend(std::mem::take(&mut entry.reply));
    }
}

/// A part of a reply; `collected` is the reply as far as it came if this part is in it already.
fn body(state: &mut State, header: &Header, payload: Bytes, collected: Option<Vec<u8>>, wakers: &mut Vec<Waker>) {
    let length = header.payload_bytes as u64;
    // Of a call that is over too: the plugin may have sent it before it heard.
    count(state, length);
    let id = header.id;
    let Some(entry) = state.entry(id).filter(|entry| entry.done.is_none()) else { return };
    let most = entry.max_reply_bytes;
    match collected {
        // What was lent is not in `reply` any more.
        _ if entry.reply.len() + collected.as_ref().map_or(payload.len(), Vec::len) > most => {
            let too_large = Error::new(ErrorKind::TooLarge, true, format!("the reply is longer than {most} bytes"));
            wakers.extend(state.finish(id, Err(too_large)));
            state.push(Header::new(Kind::Cancel, id), &Meta::default(), Bytes::new());
            return;
        }
        Some(reply) if entry.reply.is_empty() => entry.reply = reply,
        Some(part) => entry.reply.extend_from_slice(&part),
        None if entry.reply.is_empty() && header.end => {
            wakers.extend(state.finish(id, Ok(FrameReply::Bytes(payload))));
            return;
        }
        // In one piece of memory that grows. To keep the parts and to join them at the end was measured: twice as slow,
        // because it needs twice the memory, and memory that is new to the process is dear.
        None => entry.reply.extend_from_slice(&payload),
    }
    if header.end {
        let whole = std::mem::take(&mut entry.reply).into();
        wakers.extend(state.finish(id, Ok(FrameReply::Bytes(whole))));
        return;
    }
    let arg = entry.grants.take(length, header.rest_bytes);
    if arg > 0 {
        state.push(Header { arg, ..Header::new(Kind::Credit, id) }, &Meta::default(), Bytes::new());
    }
}

/// A whole reply lies in a segment.
fn placed(state: &mut State, id: u64, payload: &[u8], wakers: &mut Vec<Waker>) -> Result<(), Error> {
    let view = state.segments.view(payload).map_err(|broken| refuse(&broken.0))?;
    let is_stream = !state.streams.is_empty() && state.streams.contains_key(&id);
    let entry = state.entry(id).filter(|entry| entry.done.is_none());
    if is_stream || entry.as_ref().is_some_and(|entry| !entry.reply.is_empty()) {
        return Err(refuse(&format!("a reply to call {id} in a segment, which the call does not take, or no more")));
    }
    let done = match entry {
        Some(entry) if view.len() > entry.max_reply_bytes => {
            let text = format!("the reply is longer than {} bytes", entry.max_reply_bytes);
            Some(Err(Error::new(ErrorKind::TooLarge, true, text)))
        }
        Some(_) => {
            wakers.extend(state.finish(id, Ok(FrameReply::View(view))));
            return Ok(());
        }
        // It is over.
        None => None,
    };
    wakers.extend(done.and_then(|done| state.finish(id, done)));
    if let Some(segment) = view.unleased() {
        state.give_back(segment);
    }
    Ok(())
}

/// Bytes of any reply came; the plugin may send as many again of all replies together.
fn count(state: &mut State, length: u64) {
    let arg = state.grants.take(length, 0);
    if arg > 0 {
        state.push(Header { arg, ..Header::new(Kind::Credit, 0) }, &Meta::default(), Bytes::new());
    }
}

pub(super) fn refuse(why: &str) -> Error {
    Error::new(ErrorKind::Protocol, true, format!("the plugin broke the rules of frames: {why}"))
}
