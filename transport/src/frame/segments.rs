//! The segments of one connection: [`super::lending`] with the memory itself, and the frames about it.

use std::sync::Arc;

use bytes::Bytes;
use goplug_pconf_schema::wire::frame::{Broken, Header, Kind, Meta};
use goplug_pconf_schema::wire::memfd::Place;

use super::input::Frame;
use super::lending::{Borrowed, Lent, Way};
use super::outbox::Outbox;
use crate::shm::{MIN_BODY_BYTES, Owner, View, Window};

#[derive(Debug)]
pub(super) struct Segments {
    owner: Owner,
    lent: Lent,
    borrowed: Borrowed<Arc<Window>>,
    speaks: bool,
}

impl Segments {
    /// `speaks`: whether both sides know of segments.
    pub(super) fn new(speaks: bool) -> Self {
        Self { owner: Owner::new(), lent: Lent::new(speaks), borrowed: Borrowed::new(speaks), speaks }
    }

    /// Whether both sides know of segments.
    pub(super) fn speaks(&self) -> bool {
        self.speaks
    }

    /// The number of this connection, by which segments are made for it.
    pub(super) fn number(&self) -> u64 {
        self.owner.number()
    }

    /// The number of this connection if bodies may be lent over it.
    #[cfg(feature = "client")]
    pub(super) fn lender(&self) -> Option<u64> {
        self.speaks.then(|| self.number())
    }

    /// Whether descriptors may come.
    pub(super) fn takes_descriptors(&self) -> bool {
        self.borrowed.is_open()
    }

    /// Where the other side will find `body`, if that lies in a segment and can stay there; what it has to know before goes into
    /// `outbox`.
    pub(super) fn place(&mut self, body: &Bytes, outbox: &mut Outbox) -> Option<Place> {
        if body.len() < MIN_BODY_BYTES || !self.speaks {
            return None;
        }
        let found = self.owner.find(body)?;
        match self.lent.lend(body, (found.key, found.bytes, found.offset), Owner::knows) {
            Way::Copied => None,
            Way::CopiedAndAsked => {
                push(outbox, Header::new(Kind::Lend, 0));
                None
            }
            Way::Placed { before, segment, place } => {
                before.into_iter().for_each(|header| push(outbox, header));
                if let Some(header) = segment {
                    outbox.push_with_descriptor(header, found.memfd);
                }
                Some(place)
            }
        }
    }

    /// Takes a frame about segments.
    ///
    /// # Errors
    /// Names the rule that was broken.
    pub(super) fn take(&mut self, frame: &Frame, outbox: &mut Outbox) -> Result<(), Broken> {
        let header = &frame.header;
        match header.kind {
            Kind::Lend => push(outbox, self.borrowed.asked()?),
            Kind::Borrow => self.lent.granted(header)?,
            Kind::Segment => {
                let fd = frame.fd.as_ref().ok_or_else(|| Broken("a segment without a descriptor".into()))?;
                let map = |bytes| Window::open(fd, bytes).map(Arc::new).map_err(|error| error.to_string());
                self.borrowed.take(header, map)?;
            }
            Kind::Release => self.lent.released(header)?,
            Kind::Forget => self.borrowed.forget(header.id)?,
            _ => return Err(Broken(format!("a frame of type {} is not about segments", header.kind as u8))),
        }
        Ok(())
    }

    /// The body that a placed frame tells of; given back when it is leased and dropped, or with [`Segments::give_back`].
    ///
    /// # Errors
    /// Names the rule that was broken.
    pub(super) fn view(&mut self, payload: &[u8]) -> Result<View, Broken> {
        let (memory, place) = self.borrowed.place(payload)?;
        Ok(View::of(memory, place))
    }

    /// A body in this segment is not read any more.
    pub(super) fn give_back(&mut self, segment: u64, outbox: &mut Outbox) {
        if let Some(header) = self.borrowed.give_back(segment) {
            push(outbox, header);
        }
    }

    /// The connection has ended: what nobody uses is given back to the system.
    pub(super) fn close(&mut self) {
        self.owner.close();
        // What the other side still reads stays in its memory, and is written to by nobody.
        (self.lent, self.borrowed) = (Lent::new(false), Borrowed::new(false));
    }
}

fn push(outbox: &mut Outbox, header: Header) {
    outbox.push(header, &Meta::default(), Bytes::new());
}

#[cfg(test)]
#[cfg(all(feature = "client", feature = "server"))]
mod tests;
#[cfg(test)]
#[cfg(all(feature = "client", feature = "server"))]
#[path = "segments/tests.rs"]
#[allow(clippy::duplicate_mod, reason = "the same tests over another pipe")]
mod tests_over_rings;
