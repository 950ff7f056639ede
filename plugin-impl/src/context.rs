//! What a method knows of its call: whose it is, how much time is left, and whether anybody still waits.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering, fence};
use std::time::{Duration, Instant};

use goplug_transport::{self as transport, Segment};
use tokio::sync::Notify;

use crate::notify::Notifier;
use crate::server::stand_by;
use crate::service::{Entry, Service};

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
#[derive(Clone)]
pub struct Context {
    inner: Arc<Inner>,
}

/// What changes is another call's when the context has been renewed: nobody who had it for the call before has it then.
struct Inner {
    service: Arc<Service>,
    /// Where its method is in the service.
    place: AtomicUsize,
    /// In nanoseconds since the service was made.
    deadline: AtomicU64,
    /// How many drains had been over when the call was let in.
    cuts: AtomicU64,
    origin: Origin,
    cancel: Cancel,
}

#[derive(Debug, Default)]
struct Cancel {
    /// Any of [`CANCELLED`], [`OVER`] and [`AWAITED`].
    state: AtomicU8,
    wake: Notify,
}

const CANCELLED: u8 = 1;
/// The call has its answer, or nobody wants one.
const OVER: u8 = 2;
/// Somebody waits, or did, until it is cancelled: most calls end without.
const AWAITED: u8 = 4;

impl Cancel {
    fn tell(&self, what: u8) {
        if self.state.fetch_or(what, Ordering::AcqRel) & AWAITED != 0 {
            self.wake.notify_waiters();
        }
    }

    fn has(&self, what: u8) -> bool {
        self.state.load(Ordering::Acquire) & what != 0
    }
}

/// What the caller said about its call.
#[derive(Debug, Clone, Default)]
pub(crate) struct Origin {
    pub(crate) caller: Option<String>,
    pub(crate) traceparent: Option<String>,
    pub(crate) tracestate: Option<String>,
    /// By what segments for the reply are made, if the caller takes one there.
    pub(crate) lender: Option<u64>,
}

impl Origin {
    pub(crate) fn is_empty(&self) -> bool {
        self.caller.is_none() && self.traceparent.is_none() && self.tracestate.is_none()
    }
}

impl Context {
    /// `cuts` is [`Service::cuts`] before the call was let in.
    pub(crate) fn new(service: Arc<Service>, place: usize, deadline: Instant, cuts: u64, origin: Origin) -> Self {
        let deadline = service.nanos(deadline).into();
        let (place, cuts, cancel) = (place.into(), cuts.into(), Cancel::default());
        Self { inner: Arc::new(Inner { service, place, deadline, cuts, origin, cancel }) }
    }

    /// Whether it could serve for another call, if nobody else had it.
    pub(crate) fn can_be_renewed(&self) -> bool {
        self.inner.origin.is_empty()
    }

    /// Whether it could have come from there.
    pub(crate) fn is_of(&self, origin: &Origin) -> bool {
        origin.is_empty() && origin.lender == self.inner.origin.lender
    }

    /// Whether nobody has it but us and whoever is to tell it of a cancel.
    pub(crate) fn is_known_to(&self, told: Option<&Arc<dyn transport::Cancel>>) -> bool {
        let is_told = told.is_some_and(|told| std::ptr::addr_eq(Arc::as_ptr(told), Arc::as_ptr(&self.inner)));
        let is_alone = is_told && Arc::strong_count(&self.inner) == 2;
        // What others did with theirs came before.
        fence(Ordering::Acquire);
        is_alone
    }

    /// From here on it is the context of another call, which says nothing of its origin.
    pub(crate) fn renew(&self, place: usize, deadline: Instant, cuts: u64) {
        self.inner.place.store(place, Ordering::Relaxed);
        self.inner.deadline.store(self.inner.service.nanos(deadline), Ordering::Relaxed);
        self.inner.cuts.store(cuts, Ordering::Relaxed);
        // Who is told of the call after this sees all of it.
        self.inner.cancel.state.store(0, Ordering::Release);
    }

    /// The name of the method, for a function that serves several.
    pub fn method(&self) -> &str {
        &self.entry().name
    }

    /// When the caller stops waiting. The call is then answered `deadline_exceeded`, and what the method returns later
    /// is dropped.
    pub fn deadline(&self) -> Instant {
        self.inner.service.born() + Duration::from_nanos(self.inner.deadline.load(Ordering::Relaxed))
    }

    /// The time until [`Context::deadline`]; zero when it has passed.
    pub fn remaining(&self) -> Duration {
        self.deadline().saturating_duration_since(Instant::now())
    }

    /// Who asks, in the caller's own words: worth what the connection's uid is worth.
    pub fn caller(&self) -> Option<&str> {
        self.inner.origin.caller.as_deref()
    }

    /// The W3C trace context of the call, to be passed on.
    pub fn traceparent(&self) -> Option<&str> {
        self.inner.origin.traceparent.as_deref()
    }

    /// The vendor part of the W3C trace context.
    pub fn tracestate(&self) -> Option<&str> {
        self.inner.origin.tracestate.as_deref()
    }

    /// Memory for a reply of `length` bytes, which the caller reads where the method has written it, without a copy, if there
    /// is such memory for this call (at most 16 segments and 256 MiB for each connection, each of 64 KiB or more). If not, it is
    /// ordinary memory, and the reply is sent as any other. Of a longer reply [`Segment::truncate`] cuts the rest off.
    ///
    /// What it holds at first is anything, a reply to an earlier call of this caller's process perhaps: write all of it.
    ///
    /// # Example: a picture that nobody copies
    /// ```
    /// use goplug_plugin_impl::testing::InProcess;
    /// use goplug_plugin_impl::{Error, Plugin};
    ///
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Error> {
    /// let plugin = InProcess::start(|dir| {
    ///     Plugin::builder(dir).name("painter").method("paint", |cx, _body| {
    ///         let mut picture = cx.segment(640 * 480);
    ///         picture.fill(255);
    ///         Ok(picture)
    ///     })
    /// })
    /// .await?;
    /// assert_eq!(plugin.call("paint", "").await?.len(), 307_200);
    /// # Ok(())
    /// # }
    /// ```
    pub fn segment(&self, length: usize) -> Segment {
        transport::segment_for(self.inner.origin.lender, length)
    }

    /// Sends notifications.
    pub fn notifier(&self) -> &Notifier {
        self.inner.service.notifier()
    }

    /// Whether nobody waits for the reply any more: the caller has gone, its time has passed, or the plugin is being
    /// deactivated and its drain is over.
    pub fn is_cancelled(&self) -> bool {
        // A method that is called where its request was read has nobody beside it who looks at the clock.
        self.inner.cancel.has(CANCELLED) || self.deadline() <= Instant::now()
    }

    /// Returns once [`Context::is_cancelled`].
    ///
    /// # Cancel safety
    /// May be dropped and called again.
    pub async fn cancelled(&self) {
        let woken = self.inner.cancel.wake.notified();
        tokio::pin!(woken);
        // Enabled before the step: a cancel that comes after it sees that somebody waits, and one that came before is seen.
        woken.as_mut().enable();
        if self.inner.cancel.state.fetch_or(AWAITED, Ordering::AcqRel) & CANCELLED == 0 {
            woken.await;
        }
    }

    pub(crate) fn cancel(&self) {
        self.inner.cancel.tell(CANCELLED);
    }

    /// The call is over: whoever works for it may stop.
    pub(crate) fn end(&self) {
        self.inner.cancel.tell(CANCELLED | OVER);
    }

    pub(crate) fn is_over(&self) -> bool {
        self.inner.cancel.has(OVER)
    }

    pub(crate) fn entry(&self) -> &Arc<Entry> {
        self.inner.service.entry(self.inner.place.load(Ordering::Relaxed))
    }

    /// Whom to tell when the caller of a method that runs where its request was read waits no longer.
    pub(crate) fn watch(&self) -> Arc<dyn transport::Cancel> {
        Arc::clone(&self.inner) as Arc<dyn transport::Cancel>
    }

    pub(crate) fn service(&self) -> &Arc<Service> {
        &self.inner.service
    }

    pub(crate) fn cuts(&self) -> u64 {
        self.inner.cuts.load(Ordering::Relaxed)
    }
}

impl transport::Cancel for Inner {
    fn cancel(&self) {
        self.cancel.tell(CANCELLED);
    }

    fn overrun(self: Arc<Self>, late: transport::Late) {
        stand_by(Context { inner: self }, late);
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { origin, cancel, .. } = &*self.inner;
        let mut debug = f.debug_struct("Context");
        debug.field("method", &self.entry().name).field("deadline", &self.deadline()).field("origin", origin);
        debug.field("cancel", cancel).finish_non_exhaustive()
    }
}
