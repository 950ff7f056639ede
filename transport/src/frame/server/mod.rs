//! The plugin's side of frames: one thread for each connection, on which handlers run where their calls were read.
//!
//! A handler inside which time passes does not hold the connection: another thread goes on reading ([`watcher`]).

mod calls;
mod connection;
mod inbound;
mod notices;
mod reading;
mod replier;
mod sending;
mod subscriptions;
mod watcher;
mod window;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use goplug_pconf_schema::wire::frame::Meta;
use goplug_pconf_schema::{Code, Fault};
use tokio::sync::watch;
use tokio::time::timeout;

use super::patience::Latency;
use crate::peer::Peer;
use crate::server::ServerUpgrade;
use crate::shm::{Segment, View};
pub use calls::Closed;
use connection::Connection;
pub use inbound::FrameBody;
pub use notices::{FrameSubscribe, NextNotice, NoticeSource, Outlet};
pub use replier::{Answered, Late, Replier};

/// Calls a plugin's methods for what comes over frames.
pub trait FrameHandler: Send + Sync + 'static {
    /// How many bytes the body of a call of method `index` may have. Must answer at once.
    ///
    /// # Errors
    /// Why it cannot be called at all; its caller is told.
    fn max_body(&self, index: u16) -> Result<usize, Fault>;

    /// Whether method `index` is called with the first frame of a request and reads the body from [`FrameCall::stream`]. Must
    /// answer at once.
    fn is_streamed(&self, index: u16) -> bool {
        let _ = index;
        false
    }

    /// A call is about to be made with [`FrameHandler::call`], on the same thread. What is left in `told` is told when the caller
    /// waits no longer, as long as the handler holds the thread; from then on [`Replier::set_cancel`] says whom to tell. It finds
    /// there what it left the last time, which may be left for this call again. Must answer at once: a lock is held.
    fn enter(&self, request: &FrameCall<'_>, told: &mut Option<Arc<dyn Cancel>>) {
        let _ = (request, told);
    }

    /// Answers a call, now or later. This is the thread that reads the connection: if it comes back within some tens of
    /// microseconds, all is well; if not, another thread takes over reading. A panic ends the call with `internal`.
    ///
    /// What is known at once is best returned ([`Replier::answer`]); `None`: it was sent, or will be.
    fn call(&self, request: FrameCall<'_>, reply: Replier) -> Option<Answered>;

    /// An answer that [`FrameHandler::call`] has returned is on its way.
    fn answered(&self) {}

    /// Attaches a reader to a callback; `outlet` is to be told whenever the answer's [`NoticeSource::next`] may have
    /// more. Must answer at once.
    ///
    /// # Errors
    /// Why it cannot be attached; whoever asked is told.
    fn subscribe(&self, request: FrameSubscribe<'_>, outlet: Outlet) -> Result<Arc<dyn NoticeSource>, Fault> {
        drop(outlet);
        Err(Fault::new(Code::NotFound, format!("no callback {}", request.index)))
    }

    /// Runs `read`, in which all calls of [`FrameHandler::call`] from one thread happen.
    fn on_thread(&self, read: &mut dyn FnMut()) {
        read();
    }
}

/// Whoever has to know that a call's caller waits no longer. Told by a thread that reads: must not wait.
pub trait Cancel: Send + Sync {
    /// The caller has cancelled, or the connection has ended.
    fn cancel(&self);

    /// The call's handler holds its thread for so long that another has taken over reading. `late` can answer in its
    /// place, once its time is up.
    fn overrun(self: Arc<Self>, late: Late) {
        drop(late);
    }
}

/// How a method takes the body of a call, which may have at most so many bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Intake {
    Whole(usize),
    Pieces(usize),
}

impl Intake {
    fn of(handler: &dyn FrameHandler, index: u16) -> Result<Self, Fault> {
        let max_body = handler.max_body(index)?;
        Ok(if handler.is_streamed(index) { Self::Pieces(max_body) } else { Self::Whole(max_body) })
    }

    fn max_body(self) -> usize {
        let (Self::Whole(bytes) | Self::Pieces(bytes)) = self;
        bytes
    }
}

/// A request: whole, or with a body to be read.
#[derive(Debug)]
pub struct FrameCall<'a> {
    /// The place of the method in the hello.
    pub index: u16,
    /// What was left of the caller's time at [`FrameCall::received`].
    pub deadline_ms: u64,
    /// The body; empty if there is a `view` or a `stream`.
    pub body: Bytes,
    /// The body where the registry has written it, in memory that it shares.
    pub view: Option<View>,
    /// The body of a method that [`FrameHandler::is_streamed`].
    pub stream: Option<FrameBody>,
    /// When the first frame of the request was read.
    pub received: Instant,
    /// When the handler was called.
    pub started: Instant,
    /// Who is at the other end.
    pub peer: &'a Peer,
    meta: Bytes,
    /// The number of the connection, if the reply may lie in a segment.
    lender: Option<u64>,
}

impl FrameCall<'_> {
    /// By what a segment for the reply is made ([`segment_for`]), if it may lie in one.
    pub fn lender(&self) -> Option<u64> {
        self.lender
    }

    /// What the caller says besides.
    pub fn meta(&self) -> Meta<'_> {
        // It was checked when it came.
        Meta::decode(&self.meta).unwrap_or_default()
    }
}

/// Memory for a reply of `length` bytes that is to be written where the registry reads it; `lender` is
/// [`FrameCall::lender`] of its call. Ordinary memory if there is none, if it is short, or the registry has much of it already.
pub fn segment_for(lender: Option<u64>, length: usize) -> Segment {
    lender.map_or_else(|| Segment::ordinary(length), |number| Segment::of(number, length))
}

/// How frames are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameLimits {
    /// How eagerly a connection is read.
    pub latency: Latency,
    /// Connections at a time; each costs a thread.
    pub max_connections: usize,
    /// Open calls of one connection; further ones are answered `overloaded`.
    pub max_calls: usize,
    /// Subscriptions and observers of one connection; further ones are answered `overloaded`.
    pub max_subscriptions: usize,
    /// The longest time in which the caller takes no byte of what waits for it.
    pub write_timeout: Duration,
    /// Whether shared memory is taken when it is offered.
    pub shared_memory: bool,
}

impl Default for FrameLimits {
    /// [`Latency::Balanced`], 64 connections, 320 calls, 1,024 subscriptions, 30 seconds, shared memory.
    fn default() -> Self {
        let write_timeout = Duration::from_secs(30);
        Self {
            latency: Latency::default(),
            max_connections: 64,
            max_calls: 320,
            max_subscriptions: 1024,
            write_timeout,
            shared_memory: true,
        }
    }
}

/// The frame connections of one plugin. Dropping it ends them all at once.
pub struct FrameServer {
    handler: Arc<dyn FrameHandler>,
    limits: FrameLimits,
    connections: Mutex<Connections>,
    /// How many places are taken.
    count: watch::Sender<usize>,
}

#[derive(Default)]
struct Connections {
    list: Vec<Weak<Connection>>,
    is_closing: bool,
}

/// A connection's place among [`FrameLimits::max_connections`].
struct Place(watch::Sender<usize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

impl FrameServer {
    /// Serves calls with `handler`.
    pub fn new(handler: Arc<dyn FrameHandler>, limits: FrameLimits) -> Self {
        Self { handler, limits, connections: Mutex::default(), count: watch::Sender::new(0) }
    }

    /// What to answer to a request for an upgrade, as the body of a 101; `None` when no place is free or the server is
    /// closing. The place is taken until the connection ends, or the answer is dropped. `lends`: whether the registry has said
    /// that it knows of segments, and the plugin, too.
    pub fn upgrade(self: &Arc<Self>, lends: bool) -> Option<ServerUpgrade> {
        if self.connections().is_closing {
            return None;
        }
        let is_free = self.count.send_if_modified(|count| {
            let is_free = *count < self.limits.max_connections;
            *count += usize::from(is_free);
            is_free
        });
        let place = is_free.then(|| Place(self.count.clone()))?;
        // Weak: who has dropped the server wants no connection of it any more.
        let server = Arc::downgrade(self);
        Some(ServerUpgrade::new(move |stream, first, peer| {
            let Some(server) = server.upgrade() else { return };
            let handler = Arc::clone(&server.handler);
            let connection = Connection::new(stream, &first, peer, handler, server.limits, lends, place);
            // Without a descriptor or a thread the caller sees the connection end, and uses HTTP.
            let Ok(connection) = connection else { return };
            let connection = Arc::new(connection);
            let mut connections = server.connections();
            if !connections.is_closing && connection.start().is_ok() {
                connections.list.retain(|other| other.strong_count() > 0);
                connections.list.push(Arc::downgrade(&connection));
            }
        }))
    }

    /// Takes no connection any more, and ends each when its calls have been answered; after `grace` those that are left.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the connections to end by themselves.
    pub async fn close(&self, grace: Duration) {
        let list = {
            let mut connections = self.connections();
            connections.is_closing = true;
            connections.list.clone()
        };
        for connection in list.iter().filter_map(Weak::upgrade) {
            connection.close();
        }
        let mut count = self.count.subscribe();
        // Whether it was in time does not matter: what is left is ended.
        _ = timeout(grace, count.wait_for(|count| *count == 0)).await;
        self.end();
    }

    /// How many connections there are.
    pub fn len(&self) -> usize {
        *self.count.borrow()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn end(&self) {
        let mut connections = self.connections();
        connections.is_closing = true;
        for connection in connections.list.drain(..).filter_map(|weak| weak.upgrade()) {
            connection.end();
        }
    }

    fn connections(&self) -> MutexGuard<'_, Connections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for FrameServer {
    fn drop(&mut self) {
        self.end();
    }
}

impl fmt::Debug for FrameServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameServer").field("count", &*self.count.borrow()).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[cfg(all(feature = "client", feature = "server"))]
pub(super) mod tests;
#[cfg(test)]
#[cfg(all(feature = "client", feature = "server"))]
#[path = "tests.rs"]
#[allow(clippy::duplicate_mod, reason = "the same tests over another pipe")]
mod tests_over_rings;
