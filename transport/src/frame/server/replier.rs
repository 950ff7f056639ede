//! The way back from a call to its caller.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use goplug_pconf_schema::{Code, Fault};

use super::connection::Connection;
use super::{Cancel, Closed};

/// Answers one call, from any thread. Dropped without an answer, it answers `internal`: every call is ended.
pub struct Replier {
    to: Late,
    is_open: bool,
}

/// Answers a call in place of its [`Replier`], if that has not done so yet: whoever is first wins.
#[derive(Clone)]
pub struct Late {
    connection: Arc<Connection>,
    id: u64,
}

impl Replier {
    pub(super) fn new(connection: Arc<Connection>, id: u64) -> Self {
        Self { to: Late { connection, id }, is_open: true }
    }

    /// Tells `cancel` when the caller waits no longer or the connection has ended; at once when that is already so.
    pub fn set_cancel(&self, cancel: Arc<dyn Cancel>) {
        let told = self.to.connection.change(|calls| calls.set_cancel(self.to.id, cancel));
        if let Some(cancel) = told {
            cancel.cancel();
        }
    }

    /// Sends the whole reply.
    pub fn reply(mut self, body: Bytes) {
        self.is_open = false;
        self.to.connection.send(|calls| calls.reply(self.to.id, body));
    }

    /// Sends a problem document, which also ends a reply that was begun.
    pub fn error(mut self, problem: Bytes) {
        self.is_open = false;
        self.to.clone_error(problem);
    }

    /// Sends a piece of a reply that is a stream; waits while the caller is slow.
    ///
    /// # Errors
    /// When nobody reads any more.
    ///
    /// # Cancel safety
    /// A dropped future has sent nothing.
    pub async fn piece(&self, mut piece: Bytes) -> Result<(), Closed> {
        loop {
            let waiting = self.to.connection.send(|calls| calls.piece(self.to.id, piece))?;
            let Some((again, room)) = waiting else { return Ok(()) };
            // The permit of a room that was made in between is kept.
            room.notified().await;
            piece = again;
        }
    }

    /// Ends a reply that is a stream.
    pub fn finish(mut self) {
        self.is_open = false;
        self.to.connection.send(|calls| calls.finish(self.to.id));
    }
}

impl Drop for Replier {
    fn drop(&mut self) {
        if self.is_open {
            let fault = Fault::new(Code::Internal, "the call was dropped without an answer");
            self.to.clone_error(fault.to_problem().into());
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

    fn clone_error(&self, problem: Bytes) {
        self.connection.send(|calls| calls.error(self.id, problem));
    }
}

impl fmt::Debug for Replier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replier").field("id", &self.to.id).finish_non_exhaustive()
    }
}

impl fmt::Debug for Late {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Late").field("id", &self.id).finish_non_exhaustive()
    }
}
