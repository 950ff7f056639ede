//! Connections to one process that nobody uses at the moment.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use goplug_transport::{Connection, Peer};
use tokio::sync::Notify;
use tokio::time::Instant;

/// Connections that are kept for the next calls; more are closed.
const MAX_IDLE: usize = 64;

/// A stack: the connection used last is used next, so that the others grow old and are closed.
#[derive(Debug)]
pub(crate) struct Pool {
    socket: PathBuf,
    peer: Peer,
    idle: Mutex<Vec<(Connection, Instant)>>,
    closed: AtomicBool,
    /// Whether somebody will sweep: rung once when a connection is put into an unswept pool.
    sweeping: AtomicBool,
    pub(crate) sweep: Notify,
}

/// Why no connection could be had.
#[derive(Debug)]
pub(crate) enum PoolError {
    /// As the transport says; not one byte of a request was sent.
    Transport(goplug_transport::Error),
    /// Another process listens on the socket now.
    Stranger,
}

impl Pool {
    /// Where its connections lead.
    pub(crate) fn socket(&self) -> &std::path::Path {
        &self.socket
    }

    pub(crate) fn new(socket: PathBuf, peer: Peer) -> Self {
        let (closed, sweeping) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { socket, peer, idle: Mutex::default(), closed, sweeping, sweep: Notify::new() }
    }

    /// A connection that is ready for a request: an idle one, else a new one that leads to the same process.
    pub(crate) async fn take(&self, deadline: Instant) -> Result<Connection, PoolError> {
        while let Some((connection, _)) = self.pop() {
            // An idle connection on which something waits has ended, or carries bytes that nobody asked for.
            if connection.is_quiet() {
                return Ok(connection);
            }
        }
        self.connect(deadline).await
    }

    /// A new connection, checked like the first.
    pub(crate) async fn connect(&self, deadline: Instant) -> Result<Connection, PoolError> {
        let connection = Connection::connect(&self.socket, deadline).await.map_err(PoolError::Transport)?;
        if !connection.peer().same_process(&self.peer) {
            return Err(PoolError::Stranger);
        }
        Ok(connection)
    }

    /// Keeps a connection for the next call, if its last reply was read whole.
    pub(crate) fn put(&self, connection: Connection) {
        if !connection.is_reusable() || self.closed.load(Ordering::Acquire) {
            return;
        }
        let mut idle = self.lock();
        if idle.len() < MAX_IDLE {
            idle.push((connection, Instant::now()));
        }
        drop(idle);
        // `close` may have run between the check and the push.
        if self.closed.load(Ordering::Acquire) {
            self.lock().clear();
        } else if !self.sweeping.swap(true, Ordering::AcqRel) {
            self.sweep.notify_one();
        }
    }

    /// Closes what was not used for `age`; false when nothing is left and nobody needs to sweep again.
    pub(crate) fn sweep_older_than(&self, age: Duration) -> bool {
        let now = Instant::now();
        let mut idle = self.lock();
        let old: Vec<_> = idle.extract_if(.., |(_, since)| now.duration_since(*since) >= age).collect();
        let again = !idle.is_empty();
        if !again {
            self.sweeping.store(false, Ordering::Release);
        }
        drop(idle);
        drop(old);
        again
    }

    /// Closes everything, now and from now on.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        let all = std::mem::take(&mut *self.lock());
        drop(all);
    }

    fn pop(&self) -> Option<(Connection, Instant)> {
        self.lock().pop()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<(Connection, Instant)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
