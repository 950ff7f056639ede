//! What the callers of one connection have in common, under one lock. No I/O here.

use std::collections::{VecDeque, hash_map};
use std::task::Waker;
use std::time::Instant;

use bytes::Bytes;
use goplug_pconf_schema::wire::frame::{
    Broken, CALL_CREDIT, CONNECTION_CREDIT, Header, Kind, MAX_PAYLOAD_BYTES, Meta, NoticeMeta,
};
use goplug_pconf_schema::wire::memfd::Place;

use super::listening::Listening;
use super::streams::{Streams, is_direction};
use super::{FrameReply, FrameRequest};
use crate::error::{Error, ErrorKind};
use crate::frame::grants::{CALL_STEP, CONNECTION_STEP, Grants};
use crate::frame::ids::ById;
use crate::frame::input::Frame;
use crate::frame::outbox::Outbox;
use crate::frame::segments::Segments;

/// Bodies are cut into frames only so far ahead of the socket: what is queued behind them would wait for all of it.
const AHEAD_BYTES: usize = 1024 * 1024;

/// Who reads the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reader {
    Nobody,
    Call(u64),
    Keeper,
}

#[derive(Debug)]
pub(super) struct State {
    calls: ById<Entry>,
    /// Calls whose bodies go piece by piece. Those that wait for one of them are among `calls`.
    pub(super) streams: Streams,
    /// Ids count up from 1 and are never used again.
    next_id: u64,
    /// No call ends at its deadline before this; `None`: no call has one that anybody waits for.
    alarm: Option<Instant>,
    pub(super) outbox: Outbox,
    /// Somebody writes at this moment, and goes on until the outbox is empty or the socket full.
    pub(super) writing: bool,
    /// The reader will write before it reads or sleeps: whoever appends need not.
    pub(super) promised: bool,
    /// The reader has just let others run first, and need not do so again before it has read.
    pub(super) gave_way: bool,
    /// Calls that ended one after the other without any task having been let run in between.
    pub(super) streak: u32,
    pub(super) reader: Reader,
    pub(super) keeper: Option<Waker>,
    pub(super) listening: Listening,
    /// Calls that have their reply and were not polled since: their tasks will run soon, and may call again.
    pub(super) uncollected: usize,
    /// Bytes of bodies that may be sent now.
    credit: u64,
    /// Calls whose bodies wait for `credit`, in turn.
    starving: VecDeque<u64>,
    /// What the plugin may send of all replies together.
    pub(super) grants: Grants,
    pub(super) segments: Segments,
    /// Bytes that were ever appended to the outbox, and bytes that the kernel took: a call whose first byte it did not
    /// take did not run.
    appended: u64,
    written: u64,
    broken_pipe: bool,
    ended: Option<Error>,
}

/// A call under way.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) waker: Option<Waker>,
    pub(super) done: Option<Result<FrameReply, Error>>,
    /// The reply as far as it came.
    pub(super) reply: Vec<u8>,
    pub(super) max_reply_bytes: usize,
    /// What the plugin may send of the reply.
    pub(super) grants: Grants,
    unsent: Bytes,
    credit: u64,
    deadline: Instant,
    /// Where in the stream of bytes its request begins.
    begins: u64,
}

impl State {
    /// `lends`: whether both sides know of segments.
    pub(super) fn new(lends: bool) -> Self {
        Self {
            calls: ById::default(),
            streams: Streams::default(),
            next_id: 1,
            alarm: None,
            outbox: Outbox::default(),
            writing: false,
            promised: false,
            gave_way: false,
            streak: 0,
            reader: Reader::Nobody,
            keeper: None,
            listening: Listening::default(),
            uncollected: 0,
            credit: CONNECTION_CREDIT,
            starving: VecDeque::new(),
            grants: Grants::new(CONNECTION_STEP),
            segments: Segments::new(lends),
            appended: 0,
            written: 0,
            broken_pipe: false,
            ended: None,
        }
    }

    pub(super) fn ended(&self) -> Option<&Error> {
        self.ended.as_ref()
    }

    /// The id that the next call gets: what changes whenever something happens.
    pub(super) fn next_id(&self) -> u64 {
        self.next_id
    }

    pub(super) fn has_waiting(&self) -> bool {
        self.calls.len() > self.uncollected
    }

    pub(super) fn entry(&mut self, id: u64) -> Option<&mut Entry> {
        self.calls.get_mut(&id)
    }

    /// Appends a frame.
    pub(super) fn push(&mut self, header: Header, meta: &Meta<'_>, payload: Bytes) {
        if !self.broken_pipe {
            let before = self.outbox.len();
            self.outbox.push(header, meta, payload);
            self.appended += (self.outbox.len() - before) as u64;
        }
    }

    /// Appends a frame with the metadata of a notification.
    pub(super) fn push_notice(&mut self, header: Header, meta: &NoticeMeta<'_>, payload: Bytes) {
        if !self.broken_pipe {
            let before = self.outbox.len();
            self.outbox.push_notice(header, meta, payload);
            self.appended += (self.outbox.len() - before) as u64;
        }
    }

    /// The id of something new, while the connection can be used.
    pub(super) fn issue(&mut self) -> Result<u64, Error> {
        if let Some(error) = &self.ended {
            return Err(Error { sent: false, ..error.clone() });
        }
        if self.broken_pipe {
            return Err(Error::new(ErrorKind::Closed, false, "the plugin reads no more"));
        }
        let id = self.next_id;
        self.next_id += 1;
        Ok(id)
    }

    /// Begins a call; what of its body has no credit follows later. With `alarm` it is ended when its time is up; also answers
    /// whether that is earlier than for all others.
    pub(super) fn begin(&mut self, request: &FrameRequest<'_>, alarm: bool) -> Result<(u64, bool), Error> {
        let id = self.issue()?;
        let place = self.place(request.body).map(|place| Bytes::copy_from_slice(&place.encode()));
        let body = place.as_ref().unwrap_or(request.body);
        let length = body.len().min(MAX_PAYLOAD_BYTES).min(usize::try_from(self.credit).unwrap_or(usize::MAX));
        let is_whole = length == body.len() || place.is_some();
        let length = if place.is_some() { 0 } else { length };
        self.credit -= length as u64;
        let header = Header {
            index: request.index,
            arg: request.deadline_ms,
            end: is_whole,
            is_placed: place.is_some(),
            takes_place: self.segments.speaks(),
            rest_bytes: if is_whole { 0 } else { u32::try_from(body.len() - length).unwrap_or(u32::MAX) },
            ..Header::new(Kind::Request, id)
        };
        let entry = Entry {
            waker: None,
            done: None,
            reply: Vec::new(),
            max_reply_bytes: request.max_reply_bytes,
            grants: Grants::new(CALL_STEP),
            credit: CALL_CREDIT - length as u64,
            begins: self.appended,
            deadline: request.deadline,
            // Nothing is shared, and nothing counted, of what goes out at once.
            unsent: if is_whole { Bytes::new() } else { body.slice(length..) },
        };
        let starves = !is_whole && entry.credit > 0;
        self.calls.insert(id, entry);
        if !self.broken_pipe {
            let before = self.outbox.len();
            match is_whole {
                true => self.outbox.push_shared(header, &request.meta, body),
                false => self.outbox.push(header, &request.meta, body.slice(..length)),
            }
            self.appended += (self.outbox.len() - before) as u64;
        }
        if starves {
            self.starving.push_back(id);
        }
        Ok((id, alarm && self.alarm_at(request.deadline)))
    }

    /// Where the plugin will find `body`, if it can stay where it is.
    fn place(&mut self, body: &Bytes) -> Option<Place> {
        let before = self.outbox.len();
        let place = self.segments.place(body, &mut self.outbox);
        self.appended += (self.outbox.len() - before) as u64;
        place
    }

    /// Takes a frame about segments.
    pub(super) fn take_segment(&mut self, frame: &Frame) -> Result<(), Broken> {
        let before = self.outbox.len();
        self.segments.take(frame, &mut self.outbox)?;
        self.appended += (self.outbox.len() - before) as u64;
        Ok(())
    }

    /// A body in this segment is not read any more.
    pub(super) fn give_back(&mut self, segment: u64) {
        if self.ended.is_some() || self.broken_pipe {
            return;
        }
        let before = self.outbox.len();
        self.segments.give_back(segment, &mut self.outbox);
        self.appended += (self.outbox.len() - before) as u64;
    }

    /// Has whoever watches the clock look at `deadline`; answers whether that is earlier than it would have.
    pub(super) fn alarm_at(&mut self, deadline: Instant) -> bool {
        let is_earlier = self.alarm.is_none_or(|alarm| deadline < alarm);
        if is_earlier {
            self.alarm = Some(deadline);
        }
        is_earlier
    }

    /// Somebody waits for a direction of a stream.
    pub(super) fn wait_for_stream(&mut self, key: u64, deadline: Instant) {
        let entry = Entry {
            waker: None,
            done: None,
            reply: Vec::new(),
            max_reply_bytes: 0,
            grants: Grants::new(CALL_STEP),
            unsent: Bytes::new(),
            credit: 0,
            deadline,
            begins: 0,
        };
        self.calls.insert(key, entry);
    }

    /// Nobody waits for it any more.
    pub(super) fn stop_waiting(&mut self, key: u64) {
        if self.calls.remove(&key).is_some_and(|entry| entry.done.is_some()) {
            self.uncollected -= 1;
        }
    }

    /// Bytes that were ever appended to the outbox.
    pub(super) fn appended(&self) -> u64 {
        self.appended
    }

    /// Bytes that the kernel took.
    pub(super) fn has_written(&self) -> u64 {
        self.written
    }

    /// What may be sent of all bodies.
    pub(super) fn credit(&self) -> u64 {
        self.credit
    }

    pub(super) fn spend(&mut self, bytes: u64) {
        self.credit -= bytes;
    }

    /// A body waits for its turn to be sent.
    pub(super) fn starve(&mut self, id: u64) {
        self.starving.push_back(id);
    }

    pub(super) fn alarm(&self) -> Option<Instant> {
        self.alarm
    }

    /// Ends the calls whose time is up at `now`; their tasks are to be woken.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<Waker> {
        if self.alarm.is_none_or(|alarm| now < alarm) {
            return Vec::new();
        }
        let waiting = self.calls.iter().filter(|(_, entry)| entry.done.is_none());
        let waiting = waiting.filter(|(id, _)| !is_direction(&self.streams, **id));
        let late: Vec<_> = waiting.filter(|(_, entry)| entry.deadline <= now).map(|(id, _)| *id).collect();
        let mut wakers = Vec::new();
        self.expire_streams(now, &mut wakers);
        for id in late {
            let sent = self.calls.get(&id).is_some_and(|entry| self.written > entry.begins);
            let error = Error::new(ErrorKind::Deadline, sent, "the reply did not come in time");
            wakers.extend(self.finish(id, Err(error)));
            self.push(Header::new(Kind::Cancel, id), &Meta::default(), Bytes::new());
        }
        let waiting =
            self.calls.iter().filter(|(id, entry)| entry.done.is_none() && !is_direction(&self.streams, **id));
        self.alarm = waiting.map(|(_, entry)| entry.deadline).chain(self.first_stream_end()).min();
        wakers
    }

    /// The plugin takes `more` bytes: of call `id`, or of all together. False if that is more than can be.
    pub(super) fn grant(&mut self, id: u64, more: u64) -> bool {
        const ABSURD: u64 = 1 << 40;
        if !self.streams.is_empty()
            && let Some(credit) = self.grant_stream(id, more)
        {
            return credit <= ABSURD;
        }
        let credit = match id {
            0 => &mut self.credit,
            _ => match self.calls.get_mut(&id) {
                Some(entry) => &mut entry.credit,
                // It is over.
                None => return true,
            },
        };
        *credit = credit.saturating_add(more);
        let is_sane = *credit <= ABSURD;
        if id != 0 && !self.starving.contains(&id) {
            self.starving.push_back(id);
        }
        self.feed();
        is_sane
    }

    /// Appends what has credit, one frame of each call in turn, as far as the socket is not too far behind.
    pub(super) fn feed(&mut self) {
        while self.outbox.len() < AHEAD_BYTES
            && let Some(id) = self.starving.pop_front()
        {
            if self.credit == 0 {
                self.starving.push_front(id);
                return;
            }
            if !self.streams.is_empty() && self.feed_stream(id).is_some() {
                continue;
            }
            let Some(entry) = self.calls.get_mut(&id) else { continue };
            let limit = entry.credit.min(self.credit).min(MAX_PAYLOAD_BYTES as u64);
            let length = entry.unsent.len().min(usize::try_from(limit).unwrap_or(usize::MAX));
            if length == 0 {
                continue;
            }
            let payload = entry.unsent.split_to(length);
            entry.credit -= length as u64;
            self.credit -= length as u64;
            let end = entry.unsent.is_empty();
            if !end && entry.credit > 0 {
                self.starving.push_back(id);
            }
            self.push(Header { end, ..Header::new(Kind::Data, id) }, &Meta::default(), payload);
        }
    }

    /// Ends a call; its task is to be woken.
    pub(super) fn finish(&mut self, id: u64, done: Result<FrameReply, Error>) -> Option<Waker> {
        let entry = self.calls.get_mut(&id).filter(|entry| entry.done.is_none())?;
        entry.done = Some(done);
        entry.unsent = Bytes::new();
        self.uncollected += 1;
        entry.waker.take()
    }

    /// The outcome of a call that is over; it is forgotten then.
    pub(super) fn collect(&mut self, id: u64) -> Option<Result<FrameReply, Error>> {
        let hash_map::Entry::Occupied(call) = self.calls.entry(id) else { return None };
        call.get().done.as_ref()?;
        self.uncollected -= 1;
        call.remove().done
    }

    /// Forgets a call whose caller waits no longer; the plugin is told.
    pub(super) fn abandon(&mut self, id: u64) {
        let Some(entry) = self.calls.remove(&id) else { return };
        if let Some(done) = &entry.done {
            self.uncollected -= 1;
            if let Ok(FrameReply::View(view)) = done
                && let Some(segment) = view.unleased()
            {
                self.give_back(segment);
            }
        } else if self.ended.is_none() {
            self.push(Header::new(Kind::Cancel, id), &Meta::default(), Bytes::new());
        }
    }

    /// Nobody reads any more; whoever is woken by the answer reads on.
    pub(super) fn resign(&mut self) -> Option<Waker> {
        self.reader = Reader::Nobody;
        (self.promised, self.gave_way) = (false, false);
        if !self.has_waiting() {
            self.listening.want_reader();
            return None;
        }
        self.calls.values_mut().filter(|entry| entry.done.is_none()).find_map(|entry| entry.waker.take())
    }

    pub(super) fn reader_waker(&self) -> Option<Waker> {
        match self.reader {
            Reader::Nobody => None,
            Reader::Call(id) => self.calls.get(&id)?.waker.clone(),
            Reader::Keeper => self.keeper.clone(),
        }
    }

    pub(super) fn written(&mut self, count: u64) {
        self.written += count;
    }

    /// The plugin reads no more: what waits to be written is given up.
    pub(super) fn stop_writing(&mut self) {
        self.broken_pipe = true;
        self.outbox = Outbox::default();
    }

    /// Ends every call that waits; they are to be woken.
    pub(super) fn end(&mut self, why: &Error) -> Vec<Waker> {
        if self.ended.is_some() {
            return Vec::new();
        }
        self.ended = Some(why.clone());
        self.outbox = Outbox::default();
        self.segments.close();
        self.end_streams(why);
        let mut wakers: Vec<_> = self.keeper.take().into_iter().collect();
        for entry in self.calls.values_mut().filter(|entry| entry.done.is_none()) {
            entry.done = Some(Err(Error { sent: self.written > entry.begins, ..why.clone() }));
            self.uncollected += 1;
            wakers.extend(entry.waker.take());
        }
        self.listening.end(why, &mut wakers);
        wakers
    }
}
