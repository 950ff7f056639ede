//! The readers of notifications of one connection: what they may be sent, and in which order. PURE: frames in, frames
//! into the [`Outbox`].
//!
//! Notifications go out in portions, and the next portion is cut when the one before has left: so they never stand in
//! front of more than a portion's worth of replies, and replies never keep them from their turn.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use goplug_pconf_schema::wire::frame::{
    Broken, Header, Kind, MAX_PAYLOAD_BYTES, Meta, NoticeMeta, SUBSCRIPTION_CREDIT, SUBSCRIPTION_MESSAGES,
};
use goplug_pconf_schema::{Code, Fault, Ran};

use super::calls::{Calls, Event};
use super::{FrameSubscribe, NextNotice, NoticeSource};
use crate::frame::ids::ById;
use crate::frame::input::Frame;
use crate::frame::outbox::Outbox;
use crate::peer::Peer;

/// Bytes of notifications that wait for the socket at a time, and one frame more.
const PORTION_BYTES: usize = 128 * 1024;
/// The longest name that is looked at; what is too long for a subscription is refused with its reason.
const MAX_NAME_BYTES: usize = 1024;
/// More credit than this can only be a mistake.
const ABSURD_BYTES: u64 = 1 << 40;
const ABSURD_MESSAGES: u32 = 1 << 20;

/// All readers of a connection.
pub(super) struct Subscriptions {
    open: ById<Reader>,
    max_open: usize,
    /// Readers that may have something to be sent and may be sent something; each is there at most once.
    turns: VecDeque<u64>,
    /// Bytes that somebody is about to write.
    in_flight: usize,
    /// Bytes that have to leave before the last notification has.
    ahead: usize,
}

struct Reader {
    source: Arc<dyn NoticeSource>,
    is_observer: bool,
    is_in_turn: bool,
    bytes: u64,
    messages: u32,
    /// The number and the rest of a message of which a part was sent.
    rest: Option<(u64, Bytes)>,
}

/// A request for a subscription that was understood as far as the connection goes.
pub(super) struct Wanted {
    pub(super) id: u64,
    index: u16,
    arg: u64,
    meta: Bytes,
    name: Bytes,
}

enum Step {
    Sent,
    Waits,
    Over,
}

impl Wanted {
    /// What is asked for.
    pub(super) fn request<'a>(&'a self, peer: &'a Peer) -> Result<FrameSubscribe<'a>, Fault> {
        let invalid = |text: String| Fault::new(Code::InvalidArgument, text).with_ran(Ran::No);
        let broken = |Broken(rule): Broken| invalid(rule);
        let caller = Meta::decode(&self.meta).map_err(broken)?.caller;
        let epoch = NoticeMeta::decode(&self.meta).map_err(broken)?.epoch;
        let length = self.name.len();
        let name = std::str::from_utf8(&self.name).ok().filter(|_| length <= MAX_NAME_BYTES);
        let name = name.ok_or_else(|| invalid(format!("the {length} bytes of the subscription's name are no name")))?;
        let name = (!name.is_empty()).then_some(name);
        Ok(FrameSubscribe { index: self.index, name, after: epoch.map(|epoch| (epoch, self.arg)), caller, peer })
    }
}

impl Calls {
    /// Takes a frame that is about notifications.
    pub(super) fn take_notice(&mut self, frame: &Frame) -> Result<Event, Broken> {
        let Header { kind, id, index, arg, .. } = frame.header;
        if kind == Kind::Subscribe {
            self.issue(id)?;
            if self.subscriptions.open.len() >= self.subscriptions.max_open {
                let most = self.subscriptions.max_open;
                let text = format!("this connection has {most} subscriptions, the limit");
                self.refuse(id, &Fault::new(Code::Overloaded, text).with_ran(Ran::No));
                return Ok(Event::Nothing);
            }
            let wanted = Wanted { id, index, arg, meta: frame.meta.clone(), name: frame.payload.clone() };
            return Ok(Event::Subscribe(Box::new(wanted)));
        }
        self.check_issued(id, if kind == Kind::Ack { "an acknowledgement" } else { "an end" })?;
        if self.open.contains_key(&id) {
            return Err(Broken(format!("a frame of type {kind:?} for {id}, which is no subscription")));
        }
        // One that is over was told so.
        let Some(reader) = self.subscriptions.open.get(&id) else { return Ok(Event::Nothing) };
        if kind == Kind::Unsubscribe {
            return Ok(self.subscriptions.open.remove(&id).map_or(Event::Nothing, |reader| Event::Left(reader.source)));
        }
        if reader.is_observer {
            let fault = Fault::new(Code::InvalidArgument, "an observer has nothing to acknowledge");
            self.acknowledged(id, arg, Some(&fault));
            return Ok(Event::Nothing);
        }
        Ok(Event::Acknowledged(id, arg, Arc::clone(&reader.source)))
    }

    /// More may be sent to a reader.
    pub(super) fn take_credit(&mut self, header: &Header) -> Result<(), Broken> {
        let Some(reader) = self.subscriptions.open.get_mut(&header.id) else { return Ok(()) };
        let (bytes, messages) = (reader.bytes.saturating_add(header.arg), reader.messages + u32::from(header.index));
        if bytes > ABSURD_BYTES || messages > ABSURD_MESSAGES {
            return Err(Broken(format!("credit of {bytes} bytes and {messages} messages for a subscription")));
        }
        (reader.bytes, reader.messages) = (bytes, messages);
        self.subscriptions.arrived(header.id);
        self.subscriptions.pump(&mut self.outbox);
        Ok(())
    }

    /// A reader is attached: it is told so, and then sent what there is.
    pub(super) fn attach(&mut self, wanted: &Wanted, source: Arc<dyn NoticeSource>) {
        let Wanted { id, index, name, .. } = wanted;
        let reader = Reader {
            source,
            is_observer: name.is_empty(),
            is_in_turn: false,
            bytes: SUBSCRIPTION_CREDIT,
            messages: SUBSCRIPTION_MESSAGES,
            rest: None,
        };
        self.subscriptions.open.insert(*id, reader);
        let attached = Header { index: *index, ..Header::new(Kind::Subscribe, *id) };
        self.outbox.push(attached, &Meta::default(), Bytes::new());
        self.subscriptions.arrived(*id);
        self.subscriptions.pump(&mut self.outbox);
    }

    /// Answers an acknowledgement.
    pub(super) fn acknowledged(&mut self, id: u64, seq: u64, refusal: Option<&Fault>) {
        let answer = Header { arg: seq, ..Header::new(Kind::Ack, id) };
        let problem = refusal.map(|fault| fault.to_problem().into()).unwrap_or_default();
        self.outbox.push(answer, &Meta::default(), problem);
    }
}

impl Subscriptions {
    pub(super) fn new(max_open: usize) -> Self {
        Self { open: ById::default(), max_open, turns: VecDeque::new(), in_flight: 0, ahead: 0 }
    }

    pub(super) fn has(&self, id: u64) -> bool {
        self.open.contains_key(&id)
    }

    /// Ends all; they are to be dropped where no lock is held.
    pub(super) fn close(&mut self) -> Vec<Arc<dyn NoticeSource>> {
        self.turns.clear();
        self.open.drain().map(|(_, reader)| reader.source).collect()
    }

    /// A reader may have something to be sent.
    pub(super) fn arrived(&mut self, id: u64) {
        if let Some(reader) = self.open.get_mut(&id)
            && !std::mem::replace(&mut reader.is_in_turn, true)
        {
            self.turns.push_back(id);
        }
    }

    /// So many bytes are about to be written.
    pub(super) fn writes(&mut self, bytes: usize) {
        self.in_flight = bytes;
    }

    /// All of them were written but for these.
    pub(super) fn wrote(&mut self, rest: usize) {
        self.ahead = self.ahead.saturating_sub(self.in_flight - rest);
        self.in_flight = 0;
    }

    /// Cuts the next portion, if the one before has left: one frame of each reader in turn.
    pub(super) fn pump(&mut self, outbox: &mut Outbox) {
        if self.ahead > 0 {
            return;
        }
        let before = outbox.len();
        while outbox.len() - before < PORTION_BYTES
            && let Some(id) = self.turns.pop_front()
        {
            let Some(reader) = self.open.get_mut(&id) else { continue };
            match reader.step(id, outbox) {
                Step::Sent => self.turns.push_back(id),
                Step::Waits => reader.is_in_turn = false,
                // Dropped under the connection's lock: detaching takes no other lock that is held here.
                Step::Over => _ = self.open.remove(&id),
            }
        }
        if outbox.len() > before {
            self.ahead = self.in_flight + outbox.len();
        }
    }
}

impl Reader {
    /// Sends one frame, if there is one to send and credit for it.
    fn step(&mut self, id: u64, outbox: &mut Outbox) -> Step {
        if let Some((seq, rest)) = self.rest.take() {
            return self.message(id, seq, None, rest, outbox);
        }
        if self.messages == 0 {
            return Step::Waits;
        }
        match self.source.next() {
            NextNotice::Message { seq, key, dropped, data } => {
                self.messages -= 1;
                let meta = NoticeMeta { key: key.as_deref(), dropped, epoch: None };
                self.message(id, seq, Some(meta), data, outbox)
            }
            NextNotice::Gap(from, to) => {
                self.messages -= 1;
                let gap = Header { arg: from, ..Header::new(Kind::Gap, id) };
                outbox.push(gap, &Meta::default(), Bytes::copy_from_slice(&to.to_le_bytes()));
                Step::Sent
            }
            NextNotice::Replaced => {
                outbox.push(Header::new(Kind::Unsubscribe, id), &Meta::default(), Bytes::new());
                Step::Over
            }
            NextNotice::End => {
                outbox.push(Header::new(Kind::Drain, id), &Meta::default(), Bytes::new());
                Step::Over
            }
            NextNotice::Wait => Step::Waits,
        }
    }

    /// Sends as much of a message as fits in a frame and has credit. Its first frame, with the metadata, goes even if that
    /// is nothing.
    fn message(
        &mut self,
        id: u64,
        seq: u64,
        first: Option<NoticeMeta<'_>>,
        mut data: Bytes,
        outbox: &mut Outbox,
    ) -> Step {
        let room = self.bytes.min(MAX_PAYLOAD_BYTES as u64);
        let part = data.split_to(data.len().min(usize::try_from(room).unwrap_or(MAX_PAYLOAD_BYTES)));
        let end = data.is_empty();
        if !end {
            self.rest = Some((seq, data));
        }
        if part.is_empty() && first.is_none() {
            return Step::Waits;
        }
        self.bytes -= part.len() as u64;
        let header = Header { end, arg: seq, ..Header::new(Kind::Event, id) };
        outbox.push_notice(header, &first.unwrap_or_default(), part);
        Step::Sent
    }
}

#[cfg(test)]
#[cfg(all(feature = "client", feature = "server"))]
mod tests;
#[cfg(test)]
#[cfg(all(feature = "client", feature = "server"))]
#[path = "subscriptions/tests.rs"]
#[allow(clippy::duplicate_mod, reason = "the same tests over another pipe")]
mod tests_over_rings;
