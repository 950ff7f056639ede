//! The way back from a call to its caller.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use goplug_pconf_schema::{Code, Fault};

use super::calls::Calls;
use super::connection::Connection;
use super::{Cancel, Closed};

/// Answers one call, from any thread. Dropped without an answer, it answers `internal`: every call is ended.
pub struct Replier {
    /// `None`: it was answered.
    to: Option<Late>,
    id: u64,
}

/// Answers a call in place of its [`Replier`], if that has not done so yet: whoever is first wins.
#[derive(Clone)]
pub struct Late {
    connection: Arc<Connection>,
    id: u64,
}

/// The answer to a call, for [`FrameHandler::call`](super::FrameHandler::call) to return. Dropped instead, it answers `internal`.
#[derive(Debug)]
#[must_use = "it is not sent before it is returned"]
pub struct Answered {
    replier: Replier,
    body: Bytes,
    is_problem: bool,
}

impl Answered {
    /// An answer to a call of another connection is sent at once.
    pub(super) fn of_connection(self, ours: &Arc<Connection>) -> Option<Self> {
        if self.replier.to.as_ref().is_some_and(|to| Arc::ptr_eq(&to.connection, ours)) {
            return Some(self);
        }
        match self.is_problem {
            true => self.replier.error(self.body),
            false => self.replier.reply(self.body),
        }
        None
    }

    /// Gives the answer to the calls of its connection; answers that connection.
    pub(super) fn give(mut self, calls: &mut Calls) -> Option<Arc<Connection>> {
        let Late { connection, id } = self.replier.to.take()?;
        match self.is_problem {
            true => calls.error(id, self.body),
            false => calls.reply(id, self.body),
        }
        Some(connection)
    }
}

impl Replier {
    pub(super) fn new(connection: Arc<Connection>, id: u64) -> Self {
        Self { to: Some(Late { connection, id }), id }
    }

    /// Tells `cancel` when the caller waits no longer or the connection has ended; at once when that is already so.
    pub fn set_cancel(&self, cancel: Arc<dyn Cancel>) {
        let Some(to) = &self.to else { return };
        let told = to.connection.change(|calls| calls.set_cancel(self.id, cancel));
        if let Some(cancel) = told {
            cancel.cancel();
        }
    }

    /// The whole reply, of a handler that returns it: it leaves with those to other calls that came together with this one.
    pub fn answer(self, body: Bytes) -> Answered {
        Answered { replier: self, body, is_problem: false }
    }

    /// As [`Replier::answer`], with a problem document.
    pub fn refuse(self, problem: Bytes) -> Answered {
        Answered { replier: self, body: problem, is_problem: true }
    }

    /// Sends the whole reply.
    pub fn reply(mut self, body: Bytes) {
        if let Some(to) = self.to.take() {
            to.connection.send(|calls| calls.reply(to.id, body));
        }
    }

    /// Sends a problem document, which also ends a reply that was begun.
    pub fn error(mut self, problem: Bytes) {
        if let Some(to) = self.to.take() {
            to.end(problem);
        }
    }

    /// Sends a piece of a reply that is a stream; waits while the caller is slow.
    ///
    /// # Errors
    /// When nobody reads any more.
    ///
    /// # Cancel safety
    /// A dropped future has sent nothing.
    pub async fn piece(&self, mut piece: Bytes) -> Result<(), Closed> {
        let Some(to) = &self.to else { return Err(Closed) };
        loop {
            let waiting = to.connection.send(|calls| calls.piece(self.id, piece))?;
            let Some((again, room)) = waiting else { return Ok(()) };
            // The permit of a room that was made in between is kept.
            room.notified().await;
            piece = again;
        }
    }

    /// Ends a reply that is a stream.
    pub fn finish(mut self) {
        if let Some(to) = self.to.take() {
            to.connection.send(|calls| calls.finish(to.id));
        }
    }
}

impl Drop for Replier {
    fn drop(&mut self) {
        if let Some(to) = self.to.take() {
            let fault = Fault::new(Code::Internal, "the call was dropped without an answer");
            to.end(fault.to_problem().into());
        }
    }
}

impl Late {
    pub(super) fn new(connection: Arc<Connection>, id: u64) -> Self {
        Self { connection, id }
    }

    /// Sends a problem document, unless the call has been answered.
    pub fn error(self, problem: Bytes) {
        self.connection.send(|calls| calls.error_instead(self.id, problem));
    }

    fn end(&self, problem: Bytes) {
        self.connection.send(|calls| calls.error(self.id, problem));
    }
}

impl fmt::Debug for Replier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replier").field("id", &self.id).finish_non_exhaustive()
    }
}

impl fmt::Debug for Late {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Late").field("id", &self.id).finish_non_exhaustive()
    }
}
