//! The subscriptions of one connection and what each was sent, as part of the common state. No I/O here.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;

use bytes::Bytes;
use goplug_pconf_schema::wire::frame::{Header, Kind, Meta, NoticeMeta, SUBSCRIPTION_CREDIT, SUBSCRIPTION_MESSAGES};
use tokio::sync::Notify;

use super::state::State;
use super::take::refuse;
use super::{FrameAttach, FrameNotice};
use crate::error::{Error, ErrorKind};
use crate::frame::ids::ById;
use crate::frame::input::Frame;

/// Taken bytes and messages are granted again in steps of this many, so that it does not cost a frame per frame.
const BYTES_STEP: u64 = SUBSCRIPTION_CREDIT / 4;
const MESSAGES_STEP: u16 = 64;
/// Acknowledgements of one subscription that wait for their answer.
const MAX_ACKS: usize = 64;
/// As often as that the plugin may leave a keeper's ping unanswered.
const MAX_SILENT: u32 = 3;

#[derive(Debug, Default)]
pub(super) struct Listening {
    open: ById<Entry>,
    /// Rung when the seat becomes free while somebody listens.
    pub(super) wanted: Arc<Notify>,
    /// Whether anything came since the last look, and how many looks found nothing.
    heard: bool,
    silent: u32,
}

/// How a subscription ended.
#[derive(Debug, Clone)]
pub(super) enum Over {
    Replaced,
    Refused(Bytes),
    Lost(Error),
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) waker: Option<Waker>,
    pub(super) is_attached: bool,
    pub(super) over: Option<Over>,
    /// What came and was not taken, each with the bytes that are granted when it is.
    ready: VecDeque<(FrameNotice, u64)>,
    /// A message of which a part came.
    part: Option<Part>,
    /// The highest number that was heard of.
    last: u64,
    max_message_bytes: usize,
    /// What the plugin may still send.
    bytes: u64,
    messages: u32,
    /// What was taken and not granted yet.
    taken_bytes: u64,
    taken_messages: u16,
    acks: Acks,
}

#[derive(Debug)]
struct Part {
    seq: u64,
    key: Option<String>,
    dropped: u64,
    data: Vec<u8>,
    /// Bytes of it that were not granted yet.
    withheld: u64,
}

/// Acknowledgements in the order in which they are answered.
#[derive(Debug, Default)]
struct Acks {
    last: u64,
    asked: VecDeque<(u64, u64)>,
    waiting: ById<Ack>,
}

/// An acknowledgement for whose answer somebody waits.
#[derive(Debug, Default)]
pub(super) struct Ack {
    pub(super) waker: Option<Waker>,
    /// The problem document of a refusal; empty when it was taken.
    pub(super) answer: Option<Bytes>,
}

impl Listening {
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    pub(super) fn entry(&mut self, id: u64) -> Option<&mut Entry> {
        self.open.get_mut(&id)
    }

    /// Somebody has to read: nobody does.
    pub(super) fn want_reader(&self) {
        if !self.open.is_empty() {
            self.wanted.notify_one();
        }
    }

    /// Whether a frame is about a subscription.
    pub(super) fn concerns(&mut self, header: &Header) -> bool {
        self.heard = true;
        match header.kind {
            Kind::Subscribe | Kind::Event | Kind::Ack | Kind::Gap | Kind::Unsubscribe | Kind::Drain => true,
            Kind::Error => self.open.contains_key(&header.id),
            _ => false,
        }
    }

    /// Ends all; whoever waits is to be woken.
    pub(super) fn end(&mut self, why: &Error, wakers: &mut Vec<Waker>) {
        for entry in self.open.values_mut() {
            entry.end(Over::Lost(why.clone()), wakers);
        }
    }
}

impl State {
    /// Begins to attach.
    pub(super) fn attach(&mut self, to: &FrameAttach<'_>) -> Result<u64, Error> {
        let id = self.issue()?;
        let entry = Entry {
            waker: None,
            is_attached: false,
            over: None,
            ready: VecDeque::new(),
            part: None,
            last: 0,
            max_message_bytes: to.max_message_bytes,
            bytes: SUBSCRIPTION_CREDIT,
            messages: SUBSCRIPTION_MESSAGES,
            taken_bytes: 0,
            taken_messages: 0,
            acks: Acks::default(),
        };
        self.listening.open.insert(id, entry);
        let (epoch, seq) = to.after.map_or((None, 0), |(epoch, seq)| (Some(epoch), seq));
        let header = Header { index: to.index, arg: seq, ..Header::new(Kind::Subscribe, id) };
        let name = Bytes::copy_from_slice(to.name.unwrap_or_default().as_bytes());
        self.push_notice(header, &NoticeMeta { epoch, ..NoticeMeta::default() }, name);
        Ok(id)
    }

    /// Forgets a subscription that nobody has any more; the plugin is told.
    pub(super) fn detach(&mut self, id: u64) {
        let Some(entry) = self.listening.open.remove(&id) else { return };
        if entry.over.is_none() {
            self.push(Header::new(Kind::Unsubscribe, id), &Meta::default(), Bytes::new());
        }
    }

    /// The next thing that came; what it took up is granted again.
    pub(super) fn next_notice(&mut self, id: u64) -> Option<FrameNotice> {
        let entry = self.listening.open.get_mut(&id)?;
        let (notice, held) = entry.ready.pop_front()?;
        entry.taken_bytes += held;
        entry.taken_messages = entry.taken_messages.saturating_add(1);
        self.grant_taken(id);
        Some(notice)
    }

    /// Begins an acknowledgement; answers its number.
    pub(super) fn acknowledge(&mut self, id: u64, seq: u64) -> Result<u64, Over> {
        let lost = |text| Over::Lost(Error::new(ErrorKind::Closed, false, text));
        let entry = self.listening.open.get_mut(&id).ok_or_else(|| lost("the subscription is over"))?;
        if let Some(over) = &entry.over {
            return Err(over.clone());
        }
        let acks = &mut entry.acks;
        if acks.asked.len() >= MAX_ACKS {
            return Err(lost("the plugin answers no acknowledgement"));
        }
        acks.last += 1;
        let number = acks.last;
        acks.asked.push_back((seq, number));
        acks.waiting.insert(number, Ack::default());
        self.push(Header { arg: seq, ..Header::new(Kind::Ack, id) }, &Meta::default(), Bytes::new());
        Ok(number)
    }

    /// Whether the plugin has been silent for too long; to be asked as often as it should have said something. Then the
    /// subscriptions end, as an event stream does; calls have deadlines of their own.
    pub(super) fn ask_for_life(&mut self, wakers: &mut Vec<Waker>) {
        let listening = &mut self.listening;
        listening.silent = if std::mem::take(&mut listening.heard) { 0 } else { listening.silent + 1 };
        if listening.silent >= MAX_SILENT {
            listening.end(&Error::new(ErrorKind::Closed, true, "the plugin fell silent"), wakers);
        }
        self.push(Header::new(Kind::Ping, 0), &Meta::default(), Bytes::new());
    }

    fn grant_taken(&mut self, id: u64) {
        let Some(entry) = self.listening.open.get_mut(&id) else { return };
        if entry.ready.is_empty()
            && let Some(part) = &mut entry.part
        {
            // Nothing else holds memory: the rest of the message may come.
            entry.taken_bytes += std::mem::take(&mut part.withheld);
        }
        if entry.over.is_some() || entry.taken_bytes < BYTES_STEP && entry.taken_messages < MESSAGES_STEP {
            return;
        }
        let (bytes, messages) = (std::mem::take(&mut entry.taken_bytes), std::mem::take(&mut entry.taken_messages));
        (entry.bytes, entry.messages) = (entry.bytes + bytes, entry.messages + u32::from(messages));
        let credit = Header { index: messages, arg: bytes, ..Header::new(Kind::Credit, id) };
        self.push(credit, &Meta::default(), Bytes::new());
    }
}

/// Takes a frame that is about a subscription. The other side is hostile until checked.
pub(super) fn take(state: &mut State, frame: Frame, wakers: &mut Vec<Waker>) -> Result<(), Error> {
    let Header { kind, id, arg, .. } = frame.header;
    if id == 0 || id >= state.next_id() || state.entry(id).is_some() {
        return Err(refuse(&format!("a frame of type {kind:?} for {id}, which is no subscription")));
    }
    let Some(entry) = state.listening.open.get_mut(&id).filter(|entry| entry.over.is_none()) else { return Ok(()) };
    if (kind == Kind::Subscribe || kind == Kind::Error) == entry.is_attached {
        return Err(refuse(&format!("a frame of type {kind:?} at the wrong time of subscription {id}")));
    }
    let over = match kind {
        Kind::Error => Some(Over::Refused(frame.payload.clone())),
        Kind::Unsubscribe => Some(Over::Replaced),
        Kind::Drain => Some(Over::Lost(Error::new(ErrorKind::Closed, true, "the plugin ended the subscription"))),
        _ => None,
    };
    if let Some(over) = over {
        entry.end(over, wakers);
        return Ok(());
    }
    match kind {
        Kind::Subscribe => entry.is_attached = true,
        Kind::Ack => return entry.answered(arg, frame.payload, wakers),
        Kind::Gap => entry.gap(arg, &frame.payload)?,
        _ => {
            entry.event(&frame)?;
            if entry.part.as_ref().is_some_and(|part| part.data.len() > entry.max_message_bytes) {
                let most = entry.max_message_bytes;
                let error =
                    Error::new(ErrorKind::TooLarge, true, format!("a notification is longer than {most} bytes"));
                entry.end(Over::Lost(error), wakers);
                state.push(Header::new(Kind::Unsubscribe, id), &Meta::default(), Bytes::new());
                return Ok(());
            }
            if frame.header.end {
                entry.complete();
            } else {
                state.grant_taken(id);
                return Ok(());
            }
        }
    }
    wakers.extend(entry.waker.take());
    Ok(())
}

impl Entry {
    pub(super) fn ack(&mut self, number: u64) -> Option<&mut Ack> {
        self.acks.waiting.get_mut(&number)
    }

    /// Bytes of notifications that wait here.
    #[cfg(test)]
    pub(super) fn held_bytes(&self) -> usize {
        let ready = self.ready.iter().map(|(notice, _)| match notice {
            FrameNotice::Message { data, .. } => data.len(),
            FrameNotice::Gap(..) | FrameNotice::Replaced => 0,
        });
        ready.sum::<usize>() + self.part.as_ref().map_or(0, |part| part.data.len())
    }

    /// Nobody waits for the answer any more.
    pub(super) fn forget_ack(&mut self, number: u64) {
        self.acks.waiting.remove(&number);
    }

    fn end(&mut self, over: Over, wakers: &mut Vec<Waker>) {
        if self.over.is_none() {
            self.over = Some(over);
            self.part = None;
            wakers.extend(self.waker.take());
            wakers.extend(self.acks.waiting.values_mut().filter_map(|ack| ack.waker.take()));
        }
    }

    fn answered(&mut self, seq: u64, answer: Bytes, wakers: &mut Vec<Waker>) -> Result<(), Error> {
        let Some((_, number)) = self.acks.asked.pop_front().filter(|(asked, _)| *asked == seq) else {
            return Err(refuse(&format!("an answer to an acknowledgement of {seq}, which nobody made")));
        };
        if let Some(ack) = self.acks.waiting.get_mut(&number) {
            ack.answer = Some(answer);
            wakers.extend(ack.waker.take());
        }
        Ok(())
    }

    /// Counts one more of what the plugin may send.
    fn count(&mut self, first: u64, last: u64) -> Result<(), Error> {
        if first <= self.last || last < first {
            return Err(refuse(&format!("notification {first} after {}: they count up", self.last)));
        }
        let Some(messages) = self.messages.checked_sub(1) else {
            return Err(refuse("more notifications than were granted"));
        };
        (self.messages, self.last) = (messages, last);
        Ok(())
    }

    fn gap(&mut self, from: u64, to: &[u8]) -> Result<(), Error> {
        let to = to.try_into().map(u64::from_le_bytes).map_err(|_| refuse("the end of a gap is no number"))?;
        if self.part.is_some() {
            return Err(refuse("a gap within a notification"));
        }
        self.count(from, to)?;
        self.ready.push_back((FrameNotice::Gap(from, to), 0));
        Ok(())
    }

    /// A message, or more of it: afterwards it is in `part`.
    fn event(&mut self, frame: &Frame) -> Result<(), Error> {
        let (seq, length) = (frame.header.arg, frame.payload.len() as u64);
        let Some(bytes) = self.bytes.checked_sub(length) else {
            return Err(refuse(&format!("{length} bytes of a notification, the credit is {}", self.bytes)));
        };
        self.bytes = bytes;
        if self.part.is_none() {
            self.count(seq, seq)?;
            let meta = NoticeMeta::decode(&frame.meta).map_err(|broken| refuse(&broken.0))?;
            let (key, dropped) = (meta.key.map(str::to_owned), meta.dropped);
            self.part = Some(Part { seq, key, dropped, data: Vec::new(), withheld: 0 });
        }
        let Some(part) = self.part.as_mut().filter(|part| part.seq == seq) else {
            return Err(refuse(&format!("notification {seq} within another")));
        };
        part.withheld += length;
        part.data.extend_from_slice(&frame.payload);
        Ok(())
    }

    /// The message in `part` is whole.
    fn complete(&mut self) {
        let Some(Part { seq, key, dropped, data, withheld }) = self.part.take() else { return };
        self.ready.push_back((FrameNotice::Message { seq, key, dropped, data: data.into() }, withheld));
    }
}
