//! Calls whose bodies go piece by piece: what each may send and what came of its reply. No I/O here.
//!
//! Whoever waits for one of its two directions is an entry of its own among the calls that wait, so that the reader need
//! not know of streams; see [`super::exchange`].

use std::collections::VecDeque;
use std::task::Waker;
use std::time::Instant;

use bytes::Bytes;
use goplug_pconf_schema::wire::frame::{CALL_CREDIT, Header, Kind, MAX_PAYLOAD_BYTES, Meta};

use super::FrameReply;
use super::state::State;
use super::take::refuse;
use crate::error::{Error, ErrorKind};
use crate::frame::ids::ById;
use crate::frame::inflow::Inflow;
use crate::frame::input::Frame;

/// Bytes of a request that wait for credit before whoever sends them has to.
const QUEUE_BYTES: usize = 256 * 1024;
/// In the id of whoever waits to send; no call has so high an id.
const SENDS: u64 = 1 << 63;

pub(super) type Streams = ById<Stream>;

/// A call under way whose bodies go piece by piece.
#[derive(Debug)]
pub(super) struct Stream {
    reply: Inflow,
    /// Whether a byte of the reply came, or its end.
    has_begun: bool,
    /// How it ended. Pieces that came before are read first, unless the connection failed.
    pub(super) outcome: Option<Outcome>,
    unsent: VecDeque<Bytes>,
    queued: usize,
    /// Nothing more will be appended to the request, and it is whole.
    is_finished: bool,
    end_is_sent: bool,
    is_in_turn: bool,
    credit: u64,
    pub(super) deadline: Instant,
    /// Where in the stream of bytes the request begins.
    begins: u64,
}

#[derive(Debug, Clone)]
pub(super) enum Outcome {
    /// The reply is whole.
    Whole,
    Problem(Bytes),
    Failed(Error),
}

/// What of a reply is there.
pub(super) enum Next {
    Piece(Bytes),
    Over(Outcome, bool),
}

/// Who waits for something of call `id`: to read, or to send.
pub(super) fn reads(id: u64) -> u64 {
    id
}

pub(super) fn sends(id: u64) -> u64 {
    id | SENDS
}

/// Whether a waiting entry is a direction of a stream: its time is the stream's affair.
pub(super) fn is_direction(streams: &Streams, key: u64) -> bool {
    key & SENDS != 0 || !streams.is_empty() && streams.contains_key(&key)
}

impl State {
    /// Begins a call whose body follows; answers also whether it ends earlier than all others.
    pub(super) fn begin_stream(
        &mut self,
        header: Header,
        meta: &Meta<'_>,
        deadline: Instant,
    ) -> Result<(u64, bool), Error> {
        let id = self.issue()?;
        let stream = Stream {
            reply: Inflow::new(),
            has_begun: false,
            outcome: None,
            unsent: VecDeque::new(),
            queued: 0,
            is_finished: false,
            end_is_sent: false,
            is_in_turn: false,
            credit: CALL_CREDIT,
            deadline,
            begins: self.appended(),
        };
        self.streams.insert(id, stream);
        self.push(Header { id, ..header }, meta, Bytes::new());
        Ok((id, self.alarm_at(deadline)))
    }

    /// Appends to the request; gives the piece back when enough waits already. What is sent of a call that is answered is
    /// dropped.
    pub(super) fn append(&mut self, id: u64, piece: &Bytes) -> Result<Option<()>, Error> {
        let Some(stream) = self.streams.get_mut(&id) else { return Ok(Some(())) };
        match &stream.outcome {
            Some(Outcome::Failed(error)) => return Err(error.clone()),
            Some(_) => return Ok(Some(())),
            None => {}
        }
        if stream.queued >= QUEUE_BYTES {
            return Ok(None);
        }
        if !piece.is_empty() {
            stream.queued += piece.len();
            stream.unsent.push_back(piece.clone());
            self.take_turn(id);
        }
        Ok(Some(()))
    }

    /// What the plugin refused the call with, if it has.
    pub(super) fn problem_of(&self, id: u64) -> Option<Bytes> {
        match &self.streams.get(&id)?.outcome {
            Some(Outcome::Problem(document)) => Some(document.clone()),
            _ => None,
        }
    }

    /// The request is whole.
    pub(super) fn finish_request(&mut self, id: u64) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.is_finished = true;
            self.take_turn(id);
        }
    }

    /// The next piece of the reply, or how it ended.
    pub(super) fn next_of(&mut self, id: u64) -> Option<Next> {
        let stream = self.streams.get_mut(&id)?;
        if let Some((piece, more)) = stream.reply.take() {
            if more > 0 && stream.outcome.is_none() {
                let credit = Header { arg: more, ..Header::new(Kind::Credit, id) };
                self.push(credit, &Meta::default(), Bytes::new());
            }
            return Some(Next::Piece(piece));
        }
        stream.outcome.clone().map(|outcome| Next::Over(outcome, stream.has_begun))
    }

    /// Ends a stream on this side: the plugin is told. Whoever waits for it is to be woken.
    pub(super) fn give_up(&mut self, id: u64, why: impl FnOnce(bool) -> Error, wakers: &mut Vec<Waker>) {
        let written = self.has_written();
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| stream.outcome.is_none()) else { return };
        let error = why(written > stream.begins);
        stream.over(Outcome::Failed(error));
        self.push(Header::new(Kind::Cancel, id), &Meta::default(), Bytes::new());
        self.tell_both(id, wakers);
    }

    /// Forgets a stream that nobody holds any more.
    pub(super) fn forget_stream(&mut self, id: u64) {
        let Some(stream) = self.streams.remove(&id) else { return };
        if stream.outcome.is_none() && self.ended().is_none() {
            self.push(Header::new(Kind::Cancel, id), &Meta::default(), Bytes::new());
        }
    }

    /// Ends the streams whose time is up.
    pub(super) fn expire_streams(&mut self, now: Instant, wakers: &mut Vec<Waker>) {
        let open = self.streams.iter().filter(|(_, stream)| stream.outcome.is_none());
        let late: Vec<_> = open.filter(|(_, stream)| stream.deadline <= now).map(|(id, _)| *id).collect();
        for id in late {
            self.give_up(id, late_error, wakers);
        }
    }

    /// When the first of them ends.
    pub(super) fn first_stream_end(&self) -> Option<Instant> {
        let open = self.streams.values().filter(|stream| stream.outcome.is_none());
        open.map(|stream| stream.deadline).min()
    }

    /// The connection has ended. Those that wait are woken with the calls.
    pub(super) fn end_streams(&mut self, why: &Error) {
        let written = self.has_written();
        for stream in self.streams.values_mut().filter(|stream| stream.outcome.is_none()) {
            stream.over(Outcome::Failed(Error { sent: written > stream.begins, ..why.clone() }));
        }
    }

    /// Whether something of a request waits for credit or its turn.
    pub(super) fn has_unsent(&self) -> bool {
        !self.outbox.is_empty() || self.streams.values().any(|stream| stream.queued > 0)
    }

    /// More may be sent of the request of call `id`; `None` if it is no stream.
    pub(super) fn grant_stream(&mut self, id: u64, more: u64) -> Option<u64> {
        let stream = self.streams.get_mut(&id)?;
        stream.credit = stream.credit.saturating_add(more);
        let credit = stream.credit;
        self.take_turn(id);
        Some(credit)
    }

    /// Appends a frame of the request, if there is something to send and credit for it. `None` if it is no stream.
    pub(super) fn feed_stream(&mut self, id: u64) -> Option<()> {
        let all = self.credit();
        let stream = self.streams.get_mut(&id)?;
        stream.is_in_turn = false;
        if stream.outcome.is_some() || stream.end_is_sent {
            return Some(());
        }
        let room = usize::try_from(stream.credit.min(all)).unwrap_or(usize::MAX).min(MAX_PAYLOAD_BYTES);
        let payload = match stream.unsent.front_mut() {
            None => Bytes::new(),
            Some(piece) => {
                let part = piece.split_to(piece.len().min(room));
                if piece.is_empty() {
                    stream.unsent.pop_front();
                }
                part
            }
        };
        stream.credit -= payload.len() as u64;
        stream.queued -= payload.len();
        let end = stream.is_finished && stream.unsent.is_empty();
        stream.end_is_sent = end;
        let has_more = !stream.unsent.is_empty() && stream.credit > 0;
        if payload.is_empty() && !end {
            return Some(());
        }
        let sent = payload.len() as u64;
        self.spend(sent);
        self.push(Header { end, ..Header::new(Kind::Data, id) }, &Meta::default(), payload);
        if has_more {
            self.take_place(id);
        }
        Some(())
    }

    /// Wakes whoever waits to send, if there is room now.
    pub(super) fn tell_senders(&mut self, wakers: &mut Vec<Waker>) {
        let waits = |stream: &Stream| stream.queued < QUEUE_BYTES || stream.outcome.is_some();
        let ready: Vec<_> = self.streams.iter().filter(|(_, stream)| waits(stream)).map(|(id, _)| sends(*id)).collect();
        for key in ready {
            wakers.extend(self.tell(key));
        }
    }

    fn take_turn(&mut self, id: u64) {
        self.take_place(id);
        self.feed();
    }

    fn take_place(&mut self, id: u64) {
        if let Some(stream) = self.streams.get_mut(&id)
            && !std::mem::replace(&mut stream.is_in_turn, true)
        {
            self.starve(id);
        }
    }

    fn tell_both(&mut self, id: u64, wakers: &mut Vec<Waker>) {
        wakers.extend(self.tell(reads(id)));
        wakers.extend(self.tell(sends(id)));
    }

    /// Has a direction that waits look again.
    fn tell(&mut self, key: u64) -> Option<Waker> {
        self.finish(key, Ok(FrameReply::Bytes(Bytes::new())))
    }
}

impl Stream {
    /// Whether a large part that is beginning to come is read into a buffer of the stream's; answers the buffer.
    pub(super) fn lend(&self) -> Option<Vec<u8>> {
        self.outcome.is_none().then(|| self.reply.pool.buffer())
    }

    fn over(&mut self, outcome: Outcome) {
        if matches!(outcome, Outcome::Failed(_)) {
            self.reply.clear();
        }
        (self.outcome, self.unsent, self.queued) = (Some(outcome), VecDeque::new(), 0);
    }
}

/// Takes a frame of a stream's reply.
pub(super) fn take(state: &mut State, frame: Frame, wakers: &mut Vec<Waker>) -> Result<(), Error> {
    let Frame { header, payload, body, .. } = frame;
    let id = header.id;
    let Some(stream) = state.streams.get_mut(&id).filter(|stream| stream.outcome.is_none()) else { return Ok(()) };
    if header.kind == Kind::Error {
        stream.over(Outcome::Problem(payload));
        state.tell_both(id, wakers);
        return Ok(());
    }
    let is_first = !std::mem::replace(&mut stream.has_begun, true);
    if is_first != (header.kind == Kind::Reply) {
        return Err(refuse(&format!("a reply to call {id} that begins twice, or in its middle")));
    }
    stream.reply.arrived(payload, body).map_err(|broken| refuse(&broken.0))?;
    if header.end {
        stream.over(Outcome::Whole);
        state.tell_both(id, wakers);
    } else {
        wakers.extend(state.tell(reads(id)));
    }
    Ok(())
}

pub(super) fn late_error(sent: bool) -> Error {
    Error::new(ErrorKind::Deadline, sent, "the reply was not whole in time")
}

#[cfg(test)]
#[cfg(all(feature = "client", feature = "server"))]
mod tests;
#[cfg(test)]
#[cfg(all(feature = "client", feature = "server"))]
#[path = "streams/tests.rs"]
#[allow(clippy::duplicate_mod, reason = "the same tests over another pipe")]
mod tests_over_rings;
