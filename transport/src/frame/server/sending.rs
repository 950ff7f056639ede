//! Replies on their way out: whole ones at once where credit allows, the others in turn. PURE.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use goplug_pconf_schema::wire::frame::{Header, Kind, MAX_PAYLOAD_BYTES, Meta};
use tokio::sync::Notify;

use super::calls::{Call, Calls, Closed};

/// Bodies are cut into frames only so far ahead of the socket: what is queued behind them would wait for all of it.
const AHEAD_BYTES: usize = 1024 * 1024;
/// Bytes of a streamed reply that wait before its method has to.
const STREAM_BYTES: usize = 256 * 1024;

/// A reply that could not be sent at once, or comes piece by piece.
#[derive(Default)]
pub(super) struct Outgoing {
    pieces: VecDeque<Bytes>,
    length: usize,
    has_begun: bool,
    pub(super) has_ended: bool,
    is_in_turn: bool,
    /// Told when pieces have left.
    pub(super) room: Arc<Notify>,
}

impl Calls {
    /// Answers a call with a whole reply.
    pub(super) fn reply(&mut self, id: u64, body: Bytes) {
        let Some(call) = self.open.get_mut(&id) else { return };
        if call.takes_place
            && let Some(place) = self.segments.place(&body, &mut self.outbox)
        {
            self.open.remove(&id);
            let header = Header { end: true, is_placed: true, ..Header::new(Kind::Reply, id) };
            return self.outbox.push(header, &Meta::default(), Bytes::copy_from_slice(&place.encode()));
        }
        let length = body.len() as u64;
        if body.len() <= MAX_PAYLOAD_BYTES && length <= self.credit && self.turns.is_empty() {
            self.credit -= length;
            self.open.remove(&id);
            self.outbox.push(Header { end: true, ..Header::new(Kind::Reply, id) }, &Meta::default(), body);
            return;
        }
        let length = body.len();
        let pieces = if body.is_empty() { VecDeque::new() } else { VecDeque::from([body]) };
        call.outgoing = Some(Box::new(Outgoing { pieces, length, has_ended: true, ..Outgoing::default() }));
        self.take_turn(id);
    }

    /// Ends a call with a problem document, whatever of its reply was sent.
    pub(super) fn error(&mut self, id: u64, problem: Bytes) {
        if self.remove(id).is_some() {
            self.outbox.push(Header { end: true, ..Header::new(Kind::Error, id) }, &Meta::default(), problem);
        }
    }

    /// Ends a call with a problem document, unless its reply has come meanwhile: one that waits for credit goes out whole.
    pub(super) fn error_instead(&mut self, id: u64, problem: Bytes) {
        if self.open.get(&id).is_some_and(|call| call.outgoing.is_none()) {
            self.error(id, problem);
        }
    }

    /// Adds a piece to a streamed reply. When enough pieces wait already, gives the piece back with what to wait for.
    pub(super) fn piece(&mut self, id: u64, piece: Bytes) -> Result<Option<(Bytes, Arc<Notify>)>, Closed> {
        let outgoing = self.open.get_mut(&id).ok_or(Closed)?.outgoing.get_or_insert_default();
        if outgoing.length >= STREAM_BYTES {
            return Ok(Some((piece, Arc::clone(&outgoing.room))));
        }
        if !piece.is_empty() {
            outgoing.length += piece.len();
            outgoing.pieces.push_back(piece);
            self.take_turn(id);
        }
        Ok(None)
    }

    /// Ends a streamed reply.
    pub(super) fn finish(&mut self, id: u64) {
        let Some(call) = self.open.get_mut(&id) else { return };
        call.outgoing.get_or_insert_default().has_ended = true;
        self.take_turn(id);
    }

    /// Cuts what waits into frames as far as credit allows and the socket is not too far behind.
    pub(super) fn pump(&mut self) {
        self.pump_replies();
        self.subscriptions.pump(&mut self.outbox);
    }

    fn pump_replies(&mut self) {
        while self.outbox.len() < AHEAD_BYTES
            && let Some(id) = self.turns.pop_front()
        {
            let Some(call) = self.open.get_mut(&id) else { continue };
            let Some(outgoing) = &mut call.outgoing else { continue };
            let room = self.credit.min(call.credit).min(MAX_PAYLOAD_BYTES as u64);
            let payload = match outgoing.pieces.front_mut() {
                None if outgoing.has_ended => Bytes::new(),
                Some(_) if self.credit == 0 => return self.turns.push_front(id),
                // Its next piece, or its next credit, brings it back.
                None => {
                    outgoing.is_in_turn = false;
                    continue;
                }
                Some(_) if room == 0 => {
                    outgoing.is_in_turn = false;
                    continue;
                }
                Some(piece) => {
                    let part = piece.split_to(piece.len().min(usize::try_from(room).unwrap_or(MAX_PAYLOAD_BYTES)));
                    if piece.is_empty() {
                        outgoing.pieces.pop_front();
                    }
                    part
                }
            };
            self.credit -= payload.len() as u64;
            call.credit -= payload.len() as u64;
            outgoing.length -= payload.len();
            outgoing.room.notify_one();
            let is_first = !std::mem::replace(&mut outgoing.has_begun, true);
            let kind = if is_first { Kind::Reply } else { Kind::Data };
            let end = outgoing.has_ended && outgoing.pieces.is_empty();
            let is_known = is_first && outgoing.has_ended;
            let rest_bytes = if is_known { u32::try_from(outgoing.length).unwrap_or(u32::MAX) } else { 0 };
            if end {
                self.open.remove(&id);
            } else {
                self.turns.push_back(id);
            }
            self.outbox.push(Header { end, rest_bytes, ..Header::new(kind, id) }, &Meta::default(), payload);
        }
    }

    pub(super) fn remove(&mut self, id: u64) -> Option<Call> {
        let mut call = self.open.remove(&id)?;
        if let Some(outgoing) = &call.outgoing {
            if outgoing.is_in_turn {
                self.turns.retain(|waiting| *waiting != id);
            }
            outgoing.room.notify_one();
        }
        if let Some(reader) = call.inbound.as_mut().and_then(|inbound| inbound.reader.take()) {
            reader.wake();
        }
        Some(call)
    }

    pub(super) fn take_turn(&mut self, id: u64) {
        if let Some(outgoing) = self.open.get_mut(&id).and_then(|call| call.outgoing.as_mut())
            && !std::mem::replace(&mut outgoing.is_in_turn, true)
        {
            self.turns.push_back(id);
        }
        self.pump();
    }
}
