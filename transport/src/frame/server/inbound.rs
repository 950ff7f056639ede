//! Bodies that their methods read piece by piece, while they come.

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use goplug_pconf_schema::Ran;
use goplug_pconf_schema::wire::frame::{Broken, MAX_PAYLOAD_BYTES};

use super::calls::{Calls, Closed, Event, too_large};
use super::connection::Connection;
use crate::frame::inflow::Inflow;
use crate::shm::View;

/// A body on its way in. No more of it is here than its caller has credit for, which the method gives by reading.
pub(super) struct Inbound {
    inflow: Inflow,
    /// Bytes that came so far.
    length: usize,
    max_body: usize,
    has_ended: bool,
    /// The method wants no more of it.
    is_dropped: bool,
    /// To be woken when there is more.
    pub(super) reader: Option<Waker>,
}

impl Inbound {
    /// A body that begins so.
    pub(super) fn new(max_body: usize, beginning: Bytes, has_ended: bool) -> Result<Self, Broken> {
        let mut inflow = Inflow::new();
        let length = beginning.len();
        inflow.arrived(beginning, None)?;
        Ok(Self { inflow, length, max_body, has_ended, is_dropped: false, reader: None })
    }

    /// A buffer for a part that is beginning to come.
    pub(super) fn lend(&self) -> Option<Vec<u8>> {
        (!self.is_dropped).then(|| self.inflow.pool.buffer())
    }
}

impl Calls {
    /// More of a body that is read piece by piece has come.
    pub(super) fn piece_arrived(
        &mut self,
        id: u64,
        payload: Bytes,
        pooled: Option<Vec<u8>>,
        end: bool,
    ) -> Result<Event, Broken> {
        let Some(call) = self.open.get_mut(&id) else { return Ok(Event::Nothing) };
        let Some(inbound) = &mut call.inbound else { return Ok(Event::Nothing) };
        if inbound.has_ended {
            return Err(Broken(format!("more of the body of call {id}, which has ended")));
        }
        inbound.length += pooled.as_ref().map_or(payload.len(), Vec::len);
        inbound.inflow.arrived(payload, pooled)?;
        if inbound.length > inbound.max_body {
            let fault = too_large(inbound.length, inbound.max_body).with_ran(Ran::Yes);
            // The method is told that nobody waits for it any more.
            let cancel = self.cancel_of(id);
            self.error(id, fault.to_problem().into());
            return Ok(cancel.map_or(Event::Nothing, Event::Cancelled));
        }
        inbound.has_ended = end;
        if inbound.is_dropped {
            inbound.inflow.clear();
        }
        Ok(inbound.reader.take().map_or(Event::Nothing, Event::Piece))
    }

    /// The next piece of a body, or that it is whole; `None` when none has come. Answers also whether there is credit to send.
    fn next_piece(&mut self, id: u64, reader: &Waker) -> Result<Option<(Option<Bytes>, bool)>, Closed> {
        let call = self.open.get_mut(&id).filter(|call| !call.is_cancelled).ok_or(Closed)?;
        let inbound = call.inbound.as_mut().ok_or(Closed)?;
        match inbound.inflow.take() {
            Some((piece, more)) if more > 0 && !inbound.has_ended => {
                self.grant(id, more);
                Ok(Some((Some(piece), true)))
            }
            Some((piece, _)) => Ok(Some((Some(piece), false))),
            None if inbound.has_ended => Ok(Some((None, false))),
            None => {
                inbound.reader = Some(reader.clone());
                Ok(None)
            }
        }
    }

    fn drop_body(&mut self, id: u64) {
        if let Some(inbound) = self.open.get_mut(&id).and_then(|call| call.inbound.as_mut()) {
            (inbound.is_dropped, inbound.reader) = (true, None);
            inbound.inflow.clear();
        }
    }
}

/// The body of one call, as its method reads it. Dropping it takes no more of the body: the caller, who may send 512 KiB ahead,
/// has to wait until the call is answered.
pub struct FrameBody {
    connection: Arc<Connection>,
    id: u64,
    /// All of it, where the caller has written it, and how far it was read.
    placed: Option<(View, usize)>,
}

impl FrameBody {
    pub(super) fn new(connection: Arc<Connection>, id: u64, placed: Option<View>) -> Self {
        Self { connection, id, placed: placed.map(|view| (view, 0)) }
    }

    /// The next piece, as soon as there is one; `None` when the body is whole. Pieces are of any size, and not those that were
    /// sent.
    ///
    /// # Errors
    /// When the caller waits no longer.
    ///
    /// # Cancel safety
    /// A dropped future has taken nothing.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Closed> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Closed>> {
        // A body that comes as fast as it is read must not keep its task from anything else, such as its deadline.
        let turn = ready!(tokio::task::coop::poll_proceed(cx));
        let next = ready!(self.poll_piece(cx));
        turn.made_progress();
        Poll::Ready(next)
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Closed>> {
        if let Some((view, read)) = &mut self.placed
            && *read < view.len()
        {
            let mut piece = vec![0; (view.len() - *read).min(MAX_PAYLOAD_BYTES)];
            *read += view.copy_to(*read, &mut piece);
            return Poll::Ready(Ok(Some(piece.into())));
        }
        self.placed = None;
        match self.connection.change(|calls| calls.next_piece(self.id, cx.waker())) {
            Ok(Some((piece, has_credit))) => {
                if has_credit {
                    self.connection.send(|_| ());
                }
                Poll::Ready(Ok(piece))
            }
            Ok(None) => Poll::Pending,
            Err(closed) => Poll::Ready(Err(closed)),
        }
    }
}

impl Drop for FrameBody {
    fn drop(&mut self) {
        self.connection.change(|calls| calls.drop_body(self.id));
    }
}

impl fmt::Debug for FrameBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameBody").field("id", &self.id).finish_non_exhaustive()
    }
}
