//! The calls of one connection: ids, bodies on their way in, replies on their way out, and credit for both. PURE: frames
//! in, frames into the [`Outbox`].

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

use bytes::Bytes;
use goplug_pconf_schema::wire::frame::{Broken, CALL_CREDIT, CONNECTION_CREDIT, Header, Kind, Meta};
use goplug_pconf_schema::{Code, Fault, Ran};

use super::inbound::Inbound;
use super::notices::NoticeSource;
use super::sending::Outgoing;
use super::subscriptions::{Subscriptions, Wanted};
use super::window::Window;
use super::{Cancel, Intake};
use crate::frame::grants::{CALL_STEP, CONNECTION_STEP};
use crate::frame::ids::ById;
use crate::frame::input::Frame;
use crate::frame::outbox::Outbox;
use crate::frame::segments::Segments;
use crate::shm::View;

/// More credit than this can only be a mistake.
const ABSURD: u64 = 1 << 40;
/// Everything that both the reading thread and those that answer change.
pub(super) struct Calls {
    pub(super) open: ById<Call>,
    /// The highest id that was issued.
    last: u64,
    max_open: usize,
    /// What the registry may still send, of all bodies together.
    window: Window,
    /// What we may still send, of all replies together.
    pub(super) credit: u64,
    /// Calls whose replies have something to send and may, in turn; each is there at most once.
    pub(super) turns: VecDeque<u64>,
    pub(super) subscriptions: Subscriptions,
    pub(super) outbox: Outbox,
    pub(super) segments: Segments,
    /// Requests that have come to their end, for whoever reads to call their handlers, one after the other.
    pub(super) ready: VecDeque<Whole>,
}

/// What a frame leads to, besides frames in the outbox.
pub(super) enum Event {
    Nothing,
    /// More of a body is there for the method that reads it.
    Piece(Waker),
    /// The caller waits no longer.
    Cancelled(Arc<dyn Cancel>),
    /// Somebody wants to attach to a callback.
    Subscribe(Box<Wanted>),
    /// Everything of a subscription up to a number was handled.
    Acknowledged(u64, u64, Arc<dyn NoticeSource>),
    /// A subscription has ended: to be dropped where no lock is held.
    Left(Arc<dyn NoticeSource>),
    /// The other side has said goodbye.
    Closed,
}

/// A whole request.
pub(super) struct Whole {
    pub(super) id: u64,
    pub(super) index: u16,
    pub(super) deadline_ms: u64,
    pub(super) meta: Bytes,
    pub(super) body: Bytes,
    /// The body where the registry has written it.
    pub(super) view: Option<View>,
    /// The body is read by the method, piece by piece.
    pub(super) is_streamed: bool,
    /// Its caller waits no longer.
    pub(super) is_cancelled: bool,
    /// The reply may lie in a segment.
    pub(super) takes_place: bool,
    pub(super) received: Instant,
}

/// Why there is nobody to send to any more: answered, cancelled, or the connection has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed;

pub(super) struct Call {
    incoming: Option<Box<Incoming>>,
    /// Of a method that takes its body as it comes.
    pub(super) inbound: Option<Box<Inbound>>,
    pub(super) outgoing: Option<Box<Outgoing>>,
    cancel: Option<Arc<dyn Cancel>>,
    pub(super) is_cancelled: bool,
    /// What we may still send of its reply.
    pub(super) credit: u64,
    /// Whether its reply may lie in a segment.
    pub(super) takes_place: bool,
}

/// A request whose body is not whole.
struct Incoming {
    whole: Whole,
    body: Vec<u8>,
    max_body: usize,
    window: Window,
}

impl Calls {
    /// `lends`: whether both sides know of segments.
    pub(super) fn new(max_open: usize, max_subscriptions: usize, lends: bool) -> Self {
        Self {
            open: ById::default(),
            last: 0,
            max_open,
            window: Window::new(CONNECTION_CREDIT, CONNECTION_STEP),
            credit: CONNECTION_CREDIT,
            turns: VecDeque::new(),
            subscriptions: Subscriptions::new(max_subscriptions),
            outbox: Outbox::default(),
            segments: Segments::new(lends),
            ready: VecDeque::new(),
        }
    }

    /// Takes a frame that came. `intake` says how a method takes its body, or why there is no such method.
    ///
    /// # Errors
    /// Names the rule that was broken: the connection ends.
    pub(super) fn take(
        &mut self,
        frame: Frame,
        received: Instant,
        intake: impl FnOnce(u16) -> Result<Intake, Fault>,
    ) -> Result<Event, Broken> {
        let Header { kind, id, arg, .. } = frame.header;
        match kind {
            Kind::Request => return self.request(frame, received, intake),
            Kind::Data => return self.data(frame),
            Kind::Cancel => return self.cancel(id),
            Kind::Credit if self.subscriptions.has(id) => self.take_credit(&frame.header)?,
            Kind::Credit => self.granted(id, arg)?,
            Kind::Ping => {
                self.outbox.push(Header { arg, ..Header::new(Kind::Pong, id) }, &Meta::default(), frame.payload);
            }
            // We ask nothing, so that this answers nothing.
            Kind::Pong => {}
            Kind::Subscribe | Kind::Ack | Kind::Unsubscribe => return self.take_notice(&frame),
            Kind::Reply | Kind::Error | Kind::Event | Kind::Gap | Kind::Drain | Kind::Rings => {
                return Err(Broken(format!("only a plugin sends a frame of type {kind:?}")));
            }
            Kind::Lend | Kind::Borrow | Kind::Segment | Kind::Release | Kind::Forget => {
                self.segments.take(&frame, &mut self.outbox)?;
            }
            Kind::Close => return Ok(Event::Closed),
        }
        Ok(Event::Nothing)
    }

    /// Whether the next request would be one too many.
    pub(super) fn is_full(&self) -> bool {
        self.open.len() >= self.max_open
    }

    /// Whether no call is open.
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Whom to tell when the caller waits no longer; given back when that is already so.
    pub(super) fn set_cancel(&mut self, id: u64, cancel: Arc<dyn Cancel>) -> Option<Arc<dyn Cancel>> {
        match self.open.get_mut(&id) {
            Some(call) if !call.is_cancelled => {
                call.cancel = Some(cancel);
                None
            }
            _ => Some(cancel),
        }
    }

    /// Has `told` told when the caller waits no longer, unless somebody else is.
    pub(super) fn has_told(&mut self, id: u64, told: Arc<dyn Cancel>) {
        if let Some(call) = self.open.get_mut(&id) {
            call.cancel.get_or_insert(told);
        }
    }

    pub(super) fn cancel_of(&self, id: u64) -> Option<Arc<dyn Cancel>> {
        self.open.get(&id)?.cancel.clone()
    }

    /// Closes every call; answers whom to tell.
    pub(super) fn close(&mut self) -> Vec<Arc<dyn Cancel>> {
        (self.outbox, self.turns) = (Outbox::default(), VecDeque::new());
        self.segments.close();
        let told = self.open.drain().filter_map(|(_, call)| {
            if let Some(outgoing) = call.outgoing {
                outgoing.room.notify_one();
            }
            if let Some(reader) = call.inbound.and_then(|inbound| inbound.reader) {
                reader.wake();
            }
            call.cancel
        });
        told.collect()
    }

    fn request(
        &mut self,
        frame: Frame,
        received: Instant,
        intake: impl FnOnce(u16) -> Result<Intake, Fault>,
    ) -> Result<Event, Broken> {
        let Frame { header, meta, payload, body: begun, .. } = frame;
        let Header { id, index, arg: deadline_ms, end, rest_bytes, takes_place, .. } = header;
        self.issue(id)?;
        Meta::decode(&meta)?;
        let view = if header.is_placed { Some(self.segments.view(&payload)?) } else { None };
        let (payload, payload_bytes) = if view.is_some() { (Bytes::new(), 0) } else { (payload, header.payload_bytes) };
        self.count(payload_bytes)?;
        let length = view.as_ref().map_or(payload_bytes, View::len);
        let intake = match intake(index) {
            _ if self.is_full() => {
                let text = format!("{} calls of this connection are open, the limit", self.max_open);
                Err(Fault::new(Code::Overloaded, text).with_ran(Ran::No))
            }
            Ok(intake) if length > intake.max_body() => Err(too_large(length, intake.max_body())),
            answer => answer,
        };
        let max_body = match intake {
            Ok(Intake::Whole(max_body)) => max_body,
            Ok(Intake::Pieces(max_body)) => {
                let inbound = Inbound::new(max_body, begun.map_or(payload, Bytes::from), end)?;
                let call = Call { inbound: Some(Box::new(inbound)), takes_place, ..Call::new() };
                self.open.insert(id, call);
                let (body, is_streamed, is_cancelled) = (Bytes::new(), true, false);
                let whole = Whole {
                    id,
                    index,
                    deadline_ms,
                    meta,
                    body,
                    view,
                    is_streamed,
                    is_cancelled,
                    takes_place,
                    received,
                };
                self.ready.push_back(whole);
                return Ok(Event::Nothing);
            }
            Err(fault) => {
                if let Some(segment) = view.and_then(|view| view.unleased()) {
                    self.give_back(segment);
                }
                self.refuse(id, &fault);
                return Ok(Event::Nothing);
            }
        };
        let mut window = Window::new(CALL_CREDIT, CALL_STEP);
        let granted = window.take(payload_bytes, rest_bytes)?;
        let mut call = Call { takes_place, ..Call::new() };
        let (body, is_streamed, is_cancelled) = (Bytes::new(), false, false);
        let mut whole =
            Whole { id, index, deadline_ms, meta, body, view, is_streamed, is_cancelled, takes_place, received };
        if end {
            whole.body = payload;
            self.open.insert(id, call);
            self.ready.push_back(whole);
            return Ok(Event::Nothing);
        }
        call.incoming =
            Some(Box::new(Incoming { whole, body: begun.unwrap_or_else(|| payload.into()), max_body, window }));
        self.open.insert(id, call);
        if let Some(granted) = granted {
            self.grant(id, granted);
        }
        Ok(Event::Nothing)
    }

    fn data(&mut self, frame: Frame) -> Result<Event, Broken> {
        let Frame { header: Header { id, payload_bytes, end, .. }, payload, body, .. } = frame;
        self.check_issued(id, "a body")?;
        self.count(payload_bytes)?;
        let Some(call) = self.open.get_mut(&id) else { return Ok(Event::Nothing) };
        if call.inbound.is_some() {
            return self.piece_arrived(id, payload, body, end);
        }
        let Some(mut incoming) = call.incoming.take() else {
            return Err(Broken(format!("more of the body of call {id}, which has ended")));
        };
        let granted = incoming.window.take(payload_bytes, 0)?;
        match body {
            Some(body) => incoming.body = body,
            None => {
                let length = incoming.body.len() + payload.len();
                if length > incoming.max_body {
                    self.remove(id);
                    self.refuse(id, &too_large(length, incoming.max_body));
                    return Ok(Event::Nothing);
                }
                incoming.body.extend_from_slice(&payload);
            }
        }
        if end {
            self.ready.push_back(Whole { body: incoming.body.into(), ..incoming.whole });
            return Ok(Event::Nothing);
        }
        call.incoming = Some(incoming);
        if let Some(granted) = granted {
            self.grant(id, granted);
        }
        Ok(Event::Nothing)
    }

    /// The body of which a part is beginning to come, for the part to be read behind it; `None` if nobody collects it.
    pub(super) fn lend(&mut self, part: &Header) -> Option<Vec<u8>> {
        let call = self.open.get_mut(&part.id)?;
        if let Some(inbound) = &call.inbound {
            return inbound.lend();
        }
        let incoming = call.incoming.as_mut()?;
        let fits = incoming.body.len() + part.payload_bytes <= incoming.max_body;
        fits.then(|| std::mem::take(&mut incoming.body))
    }

    /// A body in this segment is not read any more.
    pub(super) fn give_back(&mut self, segment: u64) {
        self.segments.give_back(segment, &mut self.outbox);
    }

    fn cancel(&mut self, id: u64) -> Result<Event, Broken> {
        self.check_issued(id, "a cancel")?;
        let Some(call) = self.open.get_mut(&id) else { return Ok(Event::Nothing) };
        let is_waiting = call.outgoing.as_ref().is_some_and(|outgoing| outgoing.has_ended);
        if let Some(reader) = call.inbound.as_mut().and_then(|inbound| inbound.reader.take()) {
            reader.wake();
        }
        let cancelled = Fault::new(Code::Cancelled, "the caller has gone");
        if call.incoming.is_some() {
            self.error(id, cancelled.with_ran(Ran::No).to_problem().into());
        } else if is_waiting {
            // Its method is done, and nobody will read the reply.
            self.error(id, cancelled.with_ran(Ran::Yes).to_problem().into());
        } else if !std::mem::replace(&mut call.is_cancelled, true) {
            if let Some(cancel) = call.cancel.clone() {
                return Ok(Event::Cancelled(cancel));
            }
            // Its handler has not been called.
            if let Some(whole) = self.ready.iter_mut().find(|whole| whole.id == id) {
                whole.is_cancelled = true;
            }
        }
        Ok(Event::Nothing)
    }

    fn granted(&mut self, id: u64, bytes: u64) -> Result<(), Broken> {
        if id != 0 {
            self.check_issued(id, "credit")?;
        }
        let credit = match self.open.get_mut(&id) {
            _ if id == 0 => &mut self.credit,
            Some(call) => &mut call.credit,
            None => return Ok(()),
        };
        match credit.checked_add(bytes) {
            Some(sum) if sum <= ABSURD => *credit = sum,
            _ => return Err(Broken(format!("credit of {bytes} bytes on top of {credit}, the limit is {ABSURD}"))),
        }
        if id == 0 {
            self.pump()
        } else {
            self.take_turn(id)
        }
        Ok(())
    }

    /// Notes an id that was never used before.
    pub(super) fn issue(&mut self, id: u64) -> Result<(), Broken> {
        if id <= self.last {
            return Err(Broken(format!("{id} after {}: ids count up", self.last)));
        }
        self.last = id;
        Ok(())
    }

    pub(super) fn check_issued(&self, id: u64, what: &str) -> Result<(), Broken> {
        if id == 0 || id > self.last {
            return Err(Broken(format!("{what} for call {id}, which was never issued")));
        }
        Ok(())
    }

    /// Takes bytes of any body, also of one that is dropped: they have used up credit.
    fn count(&mut self, bytes: usize) -> Result<(), Broken> {
        if let Some(granted) = self.window.take(bytes, 0)? {
            self.grant(0, granted);
        }
        Ok(())
    }

    pub(super) fn grant(&mut self, id: u64, bytes: u64) {
        self.outbox.push(Header { arg: bytes, ..Header::new(Kind::Credit, id) }, &Meta::default(), Bytes::new());
    }

    /// Answers a request that is not open.
    pub(super) fn refuse(&mut self, id: u64, fault: &Fault) {
        let header = Header { end: true, ..Header::new(Kind::Error, id) };
        self.outbox.push(header, &Meta::default(), fault.to_problem().into());
    }
}

impl Call {
    fn new() -> Self {
        let (is_cancelled, takes_place) = (false, false);
        Self {
            incoming: None,
            inbound: None,
            outgoing: None,
            cancel: None,
            is_cancelled,
            credit: CALL_CREDIT,
            takes_place,
        }
    }
}

pub(super) fn too_large(length: usize, limit: usize) -> Fault {
    Fault::new(Code::TooLarge, format!("the body is {length} bytes or more, the limit is {limit}; send less"))
}
