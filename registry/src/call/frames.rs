//! Calls over frames: many at once on one connection, which is made when it is first wanted and closes when it was idle. Feeds
//! share it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use goplug_pconf_schema::wire::call::{CALL_ID, EPOCH, HOST};
use goplug_pconf_schema::wire::fault::MAX_PROBLEM_BYTES;
use goplug_pconf_schema::wire::frame::{self, Meta};
use goplug_pconf_schema::wire::memfd;
use goplug_pconf_schema::{Code, Fault, Ran};
use goplug_transport::{
    Error, ErrorKind, FrameConnection, FrameReply, FrameRequest, Latency, Request, Segment, Upgrade,
};
use tokio::time::{Instant, timeout_at};

use super::attempt::{LAST_WORDS, Outgoing, broken, next_call_id, not_connected};
use super::{Received, Waiting, judge, late};
use crate::supervisor::{Doubt, Live};

/// How long calls go over HTTP after a plugin refused the upgrade.
const AFTER_REFUSAL: Duration = Duration::from_secs(1);

/// The frame connection of one process, if it offers one.
#[derive(Debug)]
pub(crate) struct Frames {
    connection: Arc<ArcSwapOption<FrameConnection>>,
    /// Held by whoever makes a connection; the others wait for it.
    making: tokio::sync::Mutex<()>,
    /// Until when nobody asks again; forgotten when a connection was made.
    refused: Mutex<Option<Instant>>,
    /// Whether memory is shared with it: both sides want to, and it has not refused.
    is_shared: AtomicBool,
    /// Whether both sides know of segments.
    lends: bool,
}

impl Frames {
    pub(crate) fn new(is_shared: bool, lends: bool) -> Self {
        Self {
            connection: Arc::default(),
            making: tokio::sync::Mutex::default(),
            refused: Mutex::default(),
            is_shared: AtomicBool::new(is_shared),
            lends,
        }
    }

    /// Ends the connection for good, once whole replies that are on their way have been read.
    pub(crate) fn close(&self) {
        let Some(connection) = self.connection.swap(None) else { return };
        if !connection.is_busy() {
            return;
        }
        let close = move || connection.close("the registry let go of the plugin");
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => {
                _ = runtime.spawn(async move {
                    tokio::time::sleep(LAST_WORDS).await;
                    close();
                })
            }
            Err(_) => close(),
        }
    }

    /// Whether calls go here, as far as the last attempt tells.
    pub(crate) fn are_used(&self) -> bool {
        self.lock().is_none()
    }

    /// Whether frames go through shared memory, as far as the last attempt tells.
    pub(crate) fn are_shared(&self) -> bool {
        self.is_shared.load(Ordering::Relaxed)
    }

    /// The connection, made if there is none; `None` when the plugin refuses one now.
    pub(crate) async fn connection(
        &self,
        live: &Live,
        latency: Latency,
        deadline: Instant,
    ) -> Result<Option<Arc<FrameConnection>>, Fault> {
        match self.connection.load_full() {
            Some(connection) => Ok(Some(connection)),
            None => Box::pin(self.make(live, latency, deadline)).await,
        }
    }

    /// Memory for a body of `length` bytes that the plugin reads where it is written, if there is a connection now.
    pub(crate) fn segment(&self, length: usize) -> Segment {
        match &*self.connection.load() {
            Some(connection) => connection.segment(length),
            None => Segment::ordinary(length),
        }
    }

    /// Lets go of the connection if it has ended.
    pub(crate) fn forget_if_ended(&self) {
        forget_if_ended(&self.connection);
    }

    /// Makes the connection, unless somebody else just has; `None` when calls go over HTTP.
    async fn make(
        &self,
        live: &Live,
        latency: Latency,
        deadline: Instant,
    ) -> Result<Option<Arc<FrameConnection>>, Fault> {
        if self.was_refused() {
            return Ok(None);
        }
        let _making = self.making.lock().await;
        if let Some(connection) = self.connection.load_full() {
            return Ok(Some(connection));
        }
        if self.was_refused() {
            return Ok(None);
        }
        let here = Arc::downgrade(&self.connection);
        let on_end = move || {
            if let Some(here) = here.upgrade() {
                forget_if_ended(&here);
            }
        };
        let is_shared = self.are_shared();
        let connection = match upgrade(live, latency, deadline, is_shared, self.lends, on_end.clone()).await {
            // One that cannot say no to shared memory can still do without.
            Err(Unmade::Unshared(fault)) => {
                tracing::debug!(plugin = %live.id, %fault, "no shared memory: frames go through the socket");
                self.is_shared.store(false, Ordering::Relaxed);
                upgrade(live, latency, deadline, false, self.lends, on_end).await
            }
            made => made,
        };
        let connection = connection.map_err(|(Unmade::Unshared(fault) | Unmade::At(fault))| fault)?.map(Arc::new);
        match &connection {
            Some(made) => {
                *self.lock() = None;
                // What was refused once is not offered again to this process.
                self.is_shared.fetch_and(made.is_shared(), Ordering::Relaxed);
                self.connection.store(Some(Arc::clone(made)));
                forget_if_ended(&self.connection);
                // Whoever let go of the process meanwhile closed what was there before.
                if live.is_gone() {
                    self.close();
                }
            }
            None => *self.lock() = Some(Instant::now() + AFTER_REFUSAL),
        }
        Ok(connection)
    }

    fn was_refused(&self) -> bool {
        self.lock().is_some_and(|until| Instant::now() < until)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets go of a connection that has ended, and of its descriptor.
fn forget_if_ended(here: &ArcSwapOption<FrameConnection>) {
    let current = here.load();
    if current.as_ref().is_some_and(|current| !current.is_open()) {
        here.compare_and_swap(&current, None);
    }
}

/// Sends the call over frames; `None` when it has to go over HTTP.
pub(super) async fn attempt(
    live: &Live,
    frames: &Frames,
    call: &Outgoing<'_>,
    deadline: Instant,
) -> Option<Result<Received, Fault>> {
    let meta = Meta {
        traceparent: call.options.traceparent.as_deref(),
        tracestate: call.options.tracestate.as_deref(),
        caller: call.caller,
        // The plugin knows what its own hello says.
        content_type: call.options.content_type.as_deref(),
    };
    if !meta.fits() {
        return None;
    }
    let mut is_second = false;
    loop {
        let connection = match frames.connection.load_full() {
            Some(connection) => connection,
            // On the heap, as a call over HTTP.
            None => match Box::pin(timeout_at(deadline, frames.make(live, call.latency, deadline))).await {
                Ok(Ok(connection)) => connection?,
                Ok(Err(fault)) => return Some(Err(fault)),
                Err(_) => {
                    live.report(Doubt::Silent);
                    return Some(Err(late(live, call.name, Ran::No)));
                }
            },
        };
        let left = deadline.saturating_duration_since(if is_second { Instant::now() } else { call.now });
        let request = FrameRequest {
            index: call.index,
            deadline_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX).max(1),
            meta,
            deadline: deadline.into_std(),
            body: call.body,
            max_reply_bytes: call.max_reply_bytes,
        };
        let reply = match call.waiting {
            Waiting::Task => connection.call(request).await,
            Waiting::Thread => connection.call_blocking(request),
        };
        let error = match reply {
            Ok(reply) => return Some(read(live, call, reply)),
            Err(error) => error,
        };
        if error.kind == ErrorKind::Deadline {
            live.report(Doubt::Silent);
            return Some(Err(late(live, call.name, if error.sent { Ran::Unknown } else { Ran::No })));
        }
        forget_if_ended(&frames.connection);
        // One that was idle had ended before the call: another is made, once.
        if error.sent || std::mem::replace(&mut is_second, true) || live.is_gone() {
            return Some(Err(lost(live, &error)));
        }
    }
}

fn read(live: &Live, call: &Outgoing<'_>, reply: FrameReply) -> Result<Received, Fault> {
    let received = |body| Received { body, content_type: call.reply_type.map(str::to_owned) };
    match reply {
        FrameReply::Bytes(body) => Ok(received(body.into())),
        FrameReply::View(body) => Ok(received(body)),
        FrameReply::Problem(document) => {
            let fault = judge::problem(502, &document);
            if fault.code == Code::WrongState && fault.ran == Ran::No {
                live.report(Doubt::Inactive);
            }
            Err(fault)
        }
    }
}

fn lost(live: &Live, error: &Error) -> Fault {
    let fault = broken(live, error);
    if error.kind == ErrorKind::TooLarge { fault.with_ran(Ran::Yes) } else { fault }
}

/// Why there is no frame connection.
enum Unmade {
    /// There might be one without shared memory.
    Unshared(Fault),
    At(Fault),
}

impl From<Fault> for Unmade {
    fn from(fault: Fault) -> Self {
        Self::At(fault)
    }
}

/// A frame connection; `None` if the plugin refuses one.
async fn upgrade(
    live: &Live,
    latency: Latency,
    deadline: Instant,
    is_shared: bool,
    lends: bool,
    on_end: impl FnOnce() + Send + 'static,
) -> Result<Option<FrameConnection>, Unmade> {
    let connection = live.pool.connect(deadline).await.map_err(|error| not_connected(live, error))?;
    let call_id = next_call_id();
    let mut headers =
        vec![("Connection", "Upgrade"), ("Upgrade", frame::UPGRADE), (CALL_ID, &call_id), (EPOCH, live.epoch())];
    if lends {
        headers.push((memfd::FEATURES, memfd::FEATURE));
    }
    let request =
        Request { method: "GET", target: frame::PATH, host: HOST, headers: &headers, content_type: None, body: &[] };
    // Nothing of the call has been sent.
    let unsent = |error: Error| broken(live, &Error { sent: false, ..error });
    match connection.upgrade(&request).await.map_err(unsent)? {
        Upgrade::Done { head, stream, first } => {
            if !head.header("upgrade").is_some_and(|to| to.eq_ignore_ascii_case(frame::UPGRADE)) {
                let text = format!("plugin `{}` changed to a protocol that nobody asked for", live.id);
                return Err(Fault::new(Code::ProtocolError, text).with_ran(Ran::No).into());
            }
            if is_shared {
                let shared = FrameConnection::shared(stream, &first, latency, lends, on_end).await;
                return shared.map(Some).map_err(|error| Unmade::Unshared(broken(live, &error)));
            }
            let made = FrameConnection::new(stream, &first, latency, lends, on_end);
            Ok(Some(made.map_err(|error| broken(live, &error))?))
        }
        Upgrade::Refused(head, mut connection) => {
            let body = connection.read_body(MAX_PROBLEM_BYTES).await.unwrap_or_default();
            live.pool.put(connection);
            let fault = judge::problem(head.status, &body);
            // Another process: the call is for nobody.
            if fault.code == Code::Unavailable {
                return Err(fault.with_ran(Ran::No).into());
            }
            tracing::debug!(plugin = %live.id, status = head.status, %fault, "no frames: calls go over HTTP");
            Ok(None)
        }
    }
}
