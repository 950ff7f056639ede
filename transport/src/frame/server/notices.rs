//! Notifications over frames, as the plugin's library sees them, and what the reading thread does with their frames.

use std::fmt;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use goplug_pconf_schema::Fault;

use super::connection::Connection;
use super::subscriptions::Wanted;
use crate::peer::Peer;

/// Who wants to attach, and to what.
#[derive(Debug)]
pub struct FrameSubscribe<'a> {
    /// The place of the callback in the hello.
    pub index: u16,
    /// The name of the subscription; `None` for an observer. It was not checked.
    pub name: Option<&'a str>,
    /// The position, epoch and number, that the reader has behind it; the epoch was not checked.
    pub after: Option<(&'a str, u64)>,
    /// Who asks, in its own words.
    pub caller: Option<&'a str>,
    /// Who is at the other end.
    pub peer: &'a Peer,
}

/// What a reader is given next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NextNotice {
    /// A notification.
    Message {
        /// Its number; greater than all before for this reader.
        seq: u64,
        /// Of class `state`: its key.
        key: Option<String>,
        /// Of class `lossy`: how many were dropped just before.
        dropped: u64,
        /// The payload.
        data: Bytes,
    },
    /// The messages of these numbers, both included, will not come.
    Gap(u64, u64),
    /// Somebody else has attached the name: this reader is done.
    Replaced,
    /// The plugin leaves: this reader is done.
    End,
    /// Nothing, until [`Outlet::arrived`].
    Wait,
}

/// What one reader is to be given. Dropped when it is detached, by whatever end.
pub trait NoticeSource: Send + Sync {
    /// What comes next; it counts as sent. Called with the connection locked: must answer at once, and must not call an
    /// [`Outlet`].
    fn next(&self) -> NextNotice;

    /// The reader has handled everything up to `seq`.
    ///
    /// # Errors
    /// Why that cannot be; whoever said so is told.
    fn acknowledge(&self, seq: u64) -> Result<(), Fault>;
}

/// Tells a connection that one of its readers may have something to read. From any thread, holding no lock that
/// [`NoticeSource`] takes; what the socket takes is written before it returns.
#[derive(Clone)]
pub struct Outlet {
    connection: Weak<Connection>,
    id: u64,
}

impl Outlet {
    /// One that leads to no connection.
    #[cfg(test)]
    pub(super) fn nowhere() -> Self {
        Self { connection: Weak::new(), id: 0 }
    }

    /// There may be something for the reader.
    pub fn arrived(&self) {
        let Some(connection) = self.connection.upgrade() else { return };
        let has_more = connection.change(|calls| {
            calls.subscriptions.arrived(self.id);
            calls.pump();
            !calls.outbox.is_empty()
        });
        // A reader without credit costs no more than the look.
        if has_more {
            connection.send(|_| ());
        }
    }
}

impl fmt::Debug for Outlet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outlet").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Connection {
    /// Attaches a reader. Without the connection's lock: to attach one may end another of this very connection.
    pub(super) fn subscribe(self: &Arc<Self>, wanted: &Wanted) {
        let outlet = Outlet { connection: Arc::downgrade(self), id: wanted.id };
        let attached = match wanted.request(&self.peer) {
            Ok(request) => self.handler.subscribe(request, outlet),
            Err(fault) => Err(fault),
        };
        let late = {
            let mut state = self.state();
            match attached {
                Err(fault) => {
                    state.calls.refuse(wanted.id, &fault);
                    None
                }
                // Nobody will take it away any more.
                Ok(source) if state.has_ended => Some(source),
                Ok(source) => {
                    state.calls.attach(wanted, source);
                    None
                }
            }
        };
        drop(late);
    }

    pub(super) fn acknowledge(&self, id: u64, seq: u64, source: &dyn super::NoticeSource) {
        let refusal = source.acknowledge(seq).err();
        self.change(|calls| calls.acknowledged(id, seq, refusal.as_ref()));
    }
}
