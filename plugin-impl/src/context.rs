//! What a method knows of its call: whose it is, how much time is left, and whether anybody still waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::notify::Notifier;

/// One call, as the method sees it. Cloning copies a reference.
///
/// # Example: a long method gives up when nobody waits any more
/// ```
/// use bytes::Bytes;
/// use goplug_plugin_impl::{Code, Context, Error};
///
/// fn count(cx: &Context, _body: Bytes) -> Result<Bytes, Error> {
///     for _ in 0..1_000_000 {
///         if cx.is_cancelled() {
///             return Err(Error::new(Code::Cancelled, "the caller has gone"));
///         }
///     }
///     Ok("1000000".into())
/// }
/// ```
#[derive(Debug, Clone)]
pub struct Context {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    method: Arc<str>,
    deadline: Instant,
    caller: Option<String>,
    traceparent: Option<String>,
    tracestate: Option<String>,
    notifier: Notifier,
    cancel: Cancel,
}

#[derive(Debug, Default)]
struct Cancel {
    is_cancelled: AtomicBool,
    wake: Notify,
}

/// What the caller said about its call.
#[derive(Debug, Clone, Default)]
pub(crate) struct Origin {
    pub(crate) caller: Option<String>,
    pub(crate) traceparent: Option<String>,
    pub(crate) tracestate: Option<String>,
}

impl Context {
    pub(crate) fn new(method: Arc<str>, deadline: Instant, origin: Origin, notifier: Notifier) -> Self {
        let Origin { caller, traceparent, tracestate } = origin;
        let cancel = Cancel::default();
        Self { inner: Arc::new(Inner { method, deadline, caller, traceparent, tracestate, notifier, cancel }) }
    }

    /// The name of the method, for a function that serves several.
    pub fn method(&self) -> &str {
        &self.inner.method
    }

    /// When the caller stops waiting. The call is then answered `deadline_exceeded`, and what the method returns later
    /// is dropped.
    pub fn deadline(&self) -> Instant {
        self.inner.deadline
    }

    /// The time until [`Context::deadline`]; zero when it has passed.
    pub fn remaining(&self) -> Duration {
        self.inner.deadline.saturating_duration_since(Instant::now())
    }

    /// Who asks, in the caller's own words: worth what the connection's uid is worth.
    pub fn caller(&self) -> Option<&str> {
        self.inner.caller.as_deref()
    }

    /// The W3C trace context of the call, to be passed on.
    pub fn traceparent(&self) -> Option<&str> {
        self.inner.traceparent.as_deref()
    }

    /// The vendor part of the W3C trace context.
    pub fn tracestate(&self) -> Option<&str> {
        self.inner.tracestate.as_deref()
    }

    /// Sends notifications.
    pub fn notifier(&self) -> &Notifier {
        &self.inner.notifier
    }

    /// Whether nobody waits for the reply any more: the caller has gone, its time has passed, or the plugin is being
    /// deactivated and its drain is over.
    pub fn is_cancelled(&self) -> bool {
        self.inner.cancel.is_cancelled.load(Ordering::Acquire)
    }

    /// Returns once [`Context::is_cancelled`].
    ///
    /// # Cancel safety
    /// May be dropped and called again.
    pub async fn cancelled(&self) {
        let woken = self.inner.cancel.wake.notified();
        tokio::pin!(woken);
        // Enabled before the flag is read: a cancel in between must not be missed.
        woken.as_mut().enable();
        if !self.is_cancelled() {
            woken.await;
        }
    }

    pub(crate) fn cancel(&self) {
        self.inner.cancel.is_cancelled.store(true, Ordering::Release);
        self.inner.cancel.wake.notify_waiters();
    }
}
