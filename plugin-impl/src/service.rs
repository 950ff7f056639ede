//! A plugin as the server sees it: who it is, what it offers, and the life that [`crate::lifecycle`] decides.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use goplug_pconf_schema::wire::event::to_base64;
use goplug_pconf_schema::wire::hello::{Hello, MethodInfo};
use goplug_pconf_schema::wire::life::{Drained, Health, HealthStatus, STOP_GRACE_MS};
use goplug_pconf_schema::{Code, Fault, Ran, printable};
use goplug_transport::Latency;
use serde_json::Value;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

use crate::lifecycle::{Activate, Drain, Lifecycle};
use crate::method::Function;
use crate::notify::Notifier;

/// How long calls that were cut off may take to clean up before the stopper runs.
const CANCEL_GRACE: Duration = Duration::from_millis(100);
/// How long an activator or a stopper may take beyond the drain before whoever asked is answered without it. Less than
/// what a registry waits beyond the drain, so that it hears of it.
const STOPPER_GRACE: Duration = Duration::from_millis(STOP_GRACE_MS - 1_000);
/// How long the author's health function may take before its silence is the answer.
const HEALTH_LIMIT: Duration = Duration::from_secs(5);

pub(crate) type Activator = dyn Fn(Value) -> Result<Bytes, Fault> + Send + Sync;
pub(crate) type Stopper = dyn Fn() -> Bytes + Send + Sync;
pub(crate) type HealthCheck = dyn Fn() -> Health + Send + Sync;

/// One method and what its calls share.
pub(crate) struct Entry {
    /// Where it is in the hello.
    pub(crate) place: usize,
    pub(crate) name: Arc<str>,
    pub(crate) info: MethodInfo,
    pub(crate) function: Function,
    /// Held by the running call of a `serial` method; whoever waits gets it in the order of arrival.
    pub(crate) turn: Option<Arc<tokio::sync::Mutex<()>>>,
    /// How long it takes.
    pub(crate) pace: Pace,
}

/// A run that took longer makes a method slow, a run that took less than the second makes it quick again.
const SLOW: Duration = Duration::from_micros(200);
const QUICK: Duration = Duration::from_micros(100);

/// Whether a method is quick enough to be called where its request was read.
#[derive(Debug, Default)]
pub(crate) struct Pace(AtomicBool);

impl Pace {
    pub(crate) fn is_slow(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Notes how long a run took.
    pub(crate) fn took(&self, time: Duration) {
        let is_slow = self.is_slow();
        if if is_slow { time < QUICK } else { time > SLOW } {
            self.0.store(!is_slow, Ordering::Relaxed);
        }
    }
}

/// The author's functions that are no methods.
#[derive(Clone, Default)]
pub(crate) struct Hooks {
    pub(crate) activator: Option<Arc<Activator>>,
    pub(crate) stopper: Option<Arc<Stopper>>,
    pub(crate) health: Option<Arc<HealthCheck>>,
}

/// One plugin process.
pub(crate) struct Service {
    /// The hello; `active` is filled in when it is asked for.
    hello: Hello,
    methods: HashMap<String, Arc<Entry>>,
    /// The same in the order of the hello.
    places: Vec<Arc<Entry>>,
    notifier: Notifier,
    hooks: Hooks,
    pub(crate) latency: Latency,
    life: Lifecycle,
    /// Changes with the state, and when the last call is over.
    changed: watch::Sender<()>,
    /// Counts the drains that are over: calls still under way are cut off.
    cut: watch::Sender<u64>,
    /// The same, for whoever only looks.
    cuts: AtomicU64,
    /// Becomes true when the process is to remove its files and close its socket.
    leave: watch::Sender<bool>,
    health_turn: Arc<tokio::sync::Mutex<()>>,
    /// Where methods run; known from the start on.
    runtime: OnceLock<Handle>,
    born: std::time::Instant,
}

/// How a drain ended.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wound {
    cancelled: u64,
    unacknowledged: u64,
    pub(crate) output: Bytes,
}

impl Wound {
    pub(crate) fn to_drained(&self) -> Drained {
        let output = (!self.output.is_empty()).then(|| serde_json::json!({"dataBase64": to_base64(&self.output)}));
        Drained { cancelled: self.cancelled, unacknowledged: self.unacknowledged, output }
    }
}

/// A call that was let in; dropping it lets the next one in.
pub(crate) struct Permit(Arc<Service>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.release();
    }
}

/// Dropping it makes the process leave: whoever asked for the stop has the answer by then, or is gone.
pub(crate) struct Leaving(Arc<Service>);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.leave.send_replace(true);
    }
}

impl Service {
    pub(crate) fn new(hello: Hello, entries: Vec<Entry>, notifier: Notifier, hooks: Hooks, latency: Latency) -> Self {
        let places: Vec<_> = entries.into_iter().map(Arc::new).collect();
        let methods = places.iter().map(|entry| (entry.info.name.clone(), Arc::clone(entry))).collect();
        let life = Lifecycle::new(hello.limits.max_concurrent_calls);
        Self {
            hello,
            methods,
            places,
            notifier,
            hooks,
            latency,
            life,
            changed: watch::Sender::default(),
            cut: watch::Sender::default(),
            cuts: AtomicU64::new(0),
            leave: watch::Sender::default(),
            health_turn: Arc::default(),
            runtime: OnceLock::new(),
            born: std::time::Instant::now(),
        }
    }

    /// The hello of this moment.
    pub(crate) fn hello(&self) -> Hello {
        Hello { active: self.life.is_active(), ..self.hello.clone() }
    }

    /// When it was made.
    pub(crate) fn born(&self) -> std::time::Instant {
        self.born
    }

    /// Nanoseconds from then on: a number that can be exchanged in one step.
    pub(crate) fn nanos(&self, until: std::time::Instant) -> u64 {
        u64::try_from(until.saturating_duration_since(self.born).as_nanos()).unwrap_or(u64::MAX)
    }

    pub(crate) fn epoch(&self) -> &str {
        &self.hello.epoch
    }

    pub(crate) fn max_request_bytes(&self) -> usize {
        usize::try_from(self.hello.limits.max_request_bytes).unwrap_or(usize::MAX)
    }

    /// Whether the hello offers this.
    pub(crate) fn offers(&self, feature: &str) -> bool {
        self.hello.features.iter().any(|offered| offered == feature)
    }

    /// The names of all methods, in the order of the hello.
    pub(crate) fn method_names(&self) -> Vec<&str> {
        self.hello.methods.iter().map(|method| method.name.as_str()).collect()
    }

    pub(crate) fn method(&self, name: &str) -> Result<&Arc<Entry>, Fault> {
        self.methods.get(name).ok_or_else(|| {
            let text = format!("no method `{}`; GET /_goplug/hello lists them", printable(name));
            Fault::new(Code::NotFound, text)
        })
    }

    /// Where methods run: the runtime of this moment when it is first asked for.
    pub(crate) fn runtime(&self) -> &Handle {
        self.runtime.get_or_init(Handle::current)
    }

    /// The method at a place of the hello.
    pub(crate) fn method_at(&self, index: u16) -> Result<&Arc<Entry>, Fault> {
        self.places.get(usize::from(index)).ok_or_else(|| {
            let text = format!("no method {index}; GET /_goplug/hello lists {}", self.places.len());
            Fault::new(Code::NotFound, text)
        })
    }

    /// The method of an [`Entry::place`].
    pub(crate) fn entry(&self, place: usize) -> &Arc<Entry> {
        &self.places[place]
    }

    pub(crate) fn max_concurrent_calls(&self) -> usize {
        usize::try_from(self.hello.limits.max_concurrent_calls).unwrap_or(usize::MAX)
    }

    pub(crate) fn notifier(&self) -> &Notifier {
        &self.notifier
    }

    /// Counts the drains that are over: when it changes, calls are cut off.
    pub(crate) fn cut(&self) -> watch::Receiver<u64> {
        self.cut.subscribe()
    }

    /// The count of this moment.
    pub(crate) fn cuts(&self) -> u64 {
        self.cuts.load(Ordering::Acquire)
    }

    /// Becomes true when the process is to leave.
    pub(crate) fn leaving(&self) -> watch::Receiver<bool> {
        self.leave.subscribe()
    }

    /// Calls under way.
    pub(crate) fn in_flight(&self) -> u32 {
        self.life.in_flight()
    }

    /// Lets a call in; [`Service::release`] must follow.
    pub(crate) fn admit(&self) -> Result<(), Fault> {
        self.life.admit()
    }

    /// Tells that a call is over that was let in.
    pub(crate) fn release(&self) {
        // Whoever waits for this subscribed before it looked at the calls: if none is seen here, it saw none of ours. To
        // tell nobody would cost every lone call a fifth of its time.
        if self.life.release() && self.changed.receiver_count() > 0 {
            self.changed.send_replace(());
        }
    }

    /// Takes over the duty to tell that a call is over.
    pub(crate) fn permit(self: &Arc<Self>) -> Permit {
        Permit(Arc::clone(self))
    }

    /// Activates with `settings`, once; the same settings again give the first reply again.
    ///
    /// # Cancel safety
    /// An activation that has begun goes on without its caller: it belongs to the process.
    pub(crate) async fn activate(self: &Arc<Self>, settings: Value) -> Result<Bytes, Fault> {
        let mut changed = self.changed.subscribe();
        loop {
            let decision = self.life.activate(&settings);
            match decision {
                Activate::Done(reply) => return Ok(reply),
                Activate::Refuse(fault) => return Err(fault),
                Activate::Wait => _ = changed.changed().await,
                Activate::Run => {
                    self.notifier.begin();
                    let service = Arc::clone(self);
                    let run = tokio::spawn(async move {
                        let reply = service.run_activator(settings).await;
                        service.life.activated(&reply);
                        service.changed.send_replace(());
                        reply
                    });
                    return run.await.unwrap_or_else(|error| Err(Fault::new(Code::Internal, error.to_string())));
                }
            }
        }
    }

    /// Ends the activation: no new calls, at most `drain` for those under way and for acknowledgements, then the stopper.
    pub(crate) async fn deactivate(self: &Arc<Self>, drain: Duration) -> Result<Wound, Fault> {
        let limit = drain.saturating_add(STOPPER_GRACE);
        timeout(limit, self.wind_down(drain, false)).await.map(|(wound, _)| wound).map_err(|_| {
            let text = "the activator or the stopper is not done yet; ask again";
            Fault::new(Code::DeadlineExceeded, text)
        })
    }

    /// Ends the activation and the streams. The process leaves when the second value is dropped; it is `None` for
    /// whoever is not the first to ask. An activator or a stopper that hangs does not keep the process from leaving.
    pub(crate) async fn stop(self: &Arc<Self>, drain: Duration) -> (Wound, Option<Leaving>) {
        let limit = drain.saturating_add(STOPPER_GRACE);
        timeout(limit, self.wind_down(drain, true)).await.unwrap_or_else(|_| {
            tracing::warn!("the activator or the stopper is not done {limit:?} after the stop; leaving without it");
            self.notifier.end();
            (Wound::default(), Some(Leaving(Arc::clone(self))))
        })
    }

    /// The author's verdict on the plugin.
    pub(crate) async fn health(self: &Arc<Self>) -> Health {
        let Some(check) = self.hooks.health.clone() else {
            return Health { status: HealthStatus::Ok, detail: None };
        };
        let failing = |detail: String| Health { status: HealthStatus::Failing, detail: Some(detail) };
        // One at a time: a check that hangs must not take one thread per question.
        let Ok(turn) = Arc::clone(&self.health_turn).try_lock_owned() else {
            return failing("the check before this one has not answered yet".into());
        };
        let run = author("the health check", move || {
            let _turn = turn;
            check()
        });
        match timeout(HEALTH_LIMIT, run).await {
            Ok(Ok(health)) => health,
            Ok(Err(fault)) => failing(fault.message),
            Err(_) => failing(format!("the health check has not answered within {} s", HEALTH_LIMIT.as_secs())),
        }
    }

    async fn run_activator(&self, settings: Value) -> Result<Bytes, Fault> {
        let Some(activator) = self.hooks.activator.clone() else { return Ok(Bytes::new()) };
        let reply = author("the activator", move || activator(settings)).await?;
        // Whatever code the author chose: to whoever asked, the activation failed and may be tried again.
        reply.map_err(|fault| Fault { code: Code::MethodFailed, ran: Ran::Yes, ..fault })
    }

    async fn wind_down(self: &Arc<Self>, drain: Duration, stop: bool) -> (Wound, Option<Leaving>) {
        let mut changed = self.changed.subscribe();
        loop {
            let decision = self.life.drain(stop);
            match decision {
                Drain::Nothing => return (Wound::default(), None),
                Drain::Wait => _ = changed.changed().await,
                Drain::Begin { was_active } => {
                    let service = Arc::clone(self);
                    // A task of its own: a drain that has begun goes on when its caller has gone.
                    let run = tokio::spawn(async move {
                        let wound = service.drain(drain, was_active).await;
                        if stop {
                            service.notifier.end();
                        }
                        service.life.drained();
                        service.changed.send_replace(());
                        let leaving = stop.then(|| Leaving(Arc::clone(&service)));
                        (wound, leaving)
                    });
                    return run.await.unwrap_or_default();
                }
            }
        }
    }

    async fn drain(&self, drain: Duration, was_active: bool) -> Wound {
        let deadline = Instant::now() + drain;
        // Whether it was in time is seen below.
        _ = timeout_at(deadline, self.settled()).await;
        let cancelled = u64::from(self.in_flight());
        let unacknowledged = self.notifier.unacknowledged();
        self.cut.send_modify(|cuts| {
            *cuts += 1;
            self.cuts.store(*cuts, Ordering::Release);
        });
        _ = timeout(CANCEL_GRACE, self.idle()).await;
        let stopper = self.hooks.stopper.clone().filter(|_| was_active);
        let output = match stopper {
            Some(stopper) => author("the stopper", move || stopper()).await.unwrap_or_else(|fault| {
                tracing::warn!("{fault}");
                Bytes::new()
            }),
            None => Bytes::new(),
        };
        Wound { cancelled, unacknowledged, output }
    }

    /// Returns when no call is under way and no attached subscription has anything to acknowledge.
    async fn settled(&self) {
        let mut settled = self.notifier.settled();
        loop {
            settled.borrow_and_update();
            self.idle().await;
            if self.notifier.unacknowledged() == 0 {
                return;
            }
            _ = settled.changed().await;
        }
    }

    /// Returns when no call is under way.
    async fn idle(&self) {
        let mut changed = self.changed.subscribe();
        while self.in_flight() > 0 {
            _ = changed.changed().await;
        }
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").field("hello", &self.hello()).finish_non_exhaustive()
    }
}

/// Runs a function of the author on a thread that may block; `what` names it in the text of a panic.
pub(crate) async fn author<T: Send + 'static>(
    what: &str,
    function: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Fault> {
    tokio::task::spawn_blocking(function).await.map_err(|error| match error.try_into_panic() {
        Ok(panic) => panicked(what, &*panic),
        Err(_) => Fault::new(Code::Unavailable, format!("{what} did not run: the process ends")),
    })
}

/// What a caught panic says.
pub(crate) fn panicked(what: &str, panic: &(dyn Any + Send)) -> Fault {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    let text = text.unwrap_or("it gave no text");
    Fault::new(Code::Panicked, format!("{what} panicked: {}", printable(text)))
}
