//! One call, from its admission to its reply: the deadline, the turn of a `serial` method, panics, and the end of a drain.

mod entered;
mod reading;

use std::any::Any;
use std::future::{Future, poll_fn, ready};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::Poll;

use bytes::Bytes;
use goplug_pconf_schema::{Code, Fault, Ran};
use goplug_transport::View;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

use crate::context::{Context, Origin};
use crate::method::{Function, ReplyStream, Running};
use crate::service::{Entry, Permit, Service, panicked};
pub(crate) use entered::{Begun, Entered};

/// What a method answered.
pub(crate) enum Reply {
    Whole(Bytes),
    Pieces(mpsc::Receiver<Result<Bytes, ()>>),
}

/// Calls the method and waits for its reply, or for the first piece of it.
///
/// # Cancel safety
/// Dropping the future cancels the call's context; an async method is dropped, a blocking one runs to its end unheard.
pub(crate) async fn call(
    service: &Arc<Service>,
    entry: &Arc<Entry>,
    deadline: Instant,
    origin: Origin,
    body: View,
) -> Result<Reply, Fault> {
    Admitted::new(service, entry, deadline, Instant::now(), origin)?.run(body).await
}

/// A call that was let in. Dropping it cancels its context and lets the next one in.
pub(crate) struct Admitted {
    /// Of a serial method whose turn it is already. Dropped first: whoever waits for the end of all calls waits for those
    /// who wait for their turn.
    turn: Option<Turn>,
    ending: Ending,
}

type Turn = tokio::sync::OwnedMutexGuard<()>;

impl Admitted {
    /// Lets a call in, if there is time left at `now`.
    pub(crate) fn new(
        service: &Arc<Service>,
        entry: &Entry,
        deadline: Instant,
        now: Instant,
        origin: Origin,
    ) -> Result<Self, Fault> {
        let cuts = let_in(service, entry, deadline, now)?;
        Ok(Self::of(Context::new(Arc::clone(service), entry.place, deadline.into_std(), cuts, origin), None))
    }

    fn of(cx: Context, turn: Option<Turn>) -> Self {
        Self { turn, ending: Ending { cx, is_inside: true } }
    }

    pub(crate) fn context(&self) -> &Context {
        &self.ending.cx
    }

    /// Waits for the turn of a `serial` method, calls the method and waits for its reply, or for the first piece of it.
    pub(crate) async fn run(mut self, body: View) -> Result<Reply, Fault> {
        self.wait_turn().await?;
        let entry = self.ending.cx.entry();
        match &entry.function {
            Function::Blocking(function) => {
                let limits = Limits::of(&self.ending.cx);
                let (function, cx) = (Arc::clone(function), self.ending.cx.clone());
                let timed = move || {
                    let begin = std::time::Instant::now();
                    let reply = function(&cx, body);
                    cx.entry().pace.took(begin.elapsed());
                    reply
                };
                let held = self.held();
                blocking(limits, held, timed).await.map(Reply::Whole)
            }
            Function::Async(function) => {
                let run = begin(&entry.name, || function(self.ending.cx.clone(), body));
                self.finish(run).await.map(Reply::Whole)
            }
            Function::Streaming(function) => {
                let limits = Limits::of(&self.ending.cx);
                let (out, pieces) = ReplyStream::new();
                let (function, cx) = (Arc::clone(function), self.ending.cx.clone());
                let held = self.held();
                let run = move |out| function(cx, body, out);
                streaming(limits, held, self.ending, out, pieces, run).await
            }
            Function::Reading(_) | Function::ReadingBlocking(_) | Function::Duplex(_) => {
                Err(Fault::new(Code::Internal, "a whole body went to a method that reads it"))
            }
        }
    }

    /// Waits for the turn of a `serial` method, unless it has come.
    async fn wait_turn(&mut self) -> Result<(), Fault> {
        let Some(turn) = self.ending.cx.entry().turn.as_ref().filter(|_| self.turn.is_none()) else { return Ok(()) };
        let mut limits = Limits::of(&self.ending.cx);
        let turn = tokio::select! {
            biased;
            end = limits.pass() => return Err(end.fault(&limits.method, Ran::No)),
            turn = Arc::clone(turn).lock_owned() => turn,
        };
        self.turn = Some(turn);
        Ok(())
    }

    /// Waits for the reply of an async method that was begun.
    pub(crate) async fn finish(self, run: Running<Bytes>) -> Result<Bytes, Fault> {
        let mut run = pin!(caught(&self.ending.cx.entry().name, run));
        // Many are done at once: then nobody has to look at the clock.
        if let Some(reply) = poll_once(run.as_mut()).await {
            return reply;
        }
        let mut limits = Limits::of(&self.ending.cx);
        tokio::select! {
            biased;
            reply = run => reply,
            end = limits.pass() => Err(end.fault(&limits.method, Ran::Unknown)),
        }
    }

    /// What it occupies, for a thread or a task that goes on without this.
    fn held(&mut self) -> Held {
        self.ending.is_inside = false;
        Held { _turn: self.turn.take(), _permit: self.ending.cx.service().permit() }
    }
}

/// Lets a call in, if there is time left at `now`; answers [`Service::cuts`].
fn let_in(service: &Service, entry: &Entry, deadline: Instant, now: Instant) -> Result<u64, Fault> {
    if deadline <= now {
        return Err(too_late(&entry.name, Ran::No));
    }
    // Counted before the admission: a drain that ends in between must cut this call off too.
    let cuts = service.cuts();
    service.admit().map(|()| cuts)
}

/// Returns when a call that runs on a thread of its own must be answered without it.
pub(crate) async fn must_end(cx: &Context) -> Fault {
    let mut limits = Limits::of(cx);
    limits.pass().await.fault(&limits.method, Ran::Unknown)
}

/// What a running call occupies; a blocking method keeps it until its thread is done, so that threads stay bounded and a
/// serial method never runs twice at once.
struct Held {
    _turn: Option<Turn>,
    _permit: Permit,
}

/// Dropped at the end of a call: its context is cancelled.
struct Ending {
    cx: Context,
    /// Whether its place is given back then, too.
    is_inside: bool,
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.cx.end();
        if self.is_inside {
            self.cx.service().release();
        }
    }
}

/// What ends a call from outside.
struct Limits {
    deadline: Instant,
    cut: watch::Receiver<u64>,
    /// The count at which the call was let in.
    cuts: u64,
    method: Arc<str>,
}

enum End {
    TooLate,
    CutOff,
}

impl Limits {
    fn of(cx: &Context) -> Self {
        let deadline = Instant::from_std(cx.deadline());
        Self { deadline, cut: cx.service().cut(), cuts: cx.cuts(), method: Arc::clone(&cx.entry().name) }
    }

    /// Returns when the call must end.
    async fn pass(&mut self) -> End {
        tokio::select! {
            biased;
            () = sleep_until(self.deadline) => End::TooLate,
            // The sender is in the service, which outlives its calls.
            _ = self.cut.wait_for(|cuts| *cuts != self.cuts) => End::CutOff,
        }
    }
}

fn too_late(method: &str, ran: Ran) -> Fault {
    Fault::new(Code::DeadlineExceeded, format!("method `{method}` was not done in time")).with_ran(ran)
}

impl End {
    fn fault(&self, method: &str, ran: Ran) -> Fault {
        match self {
            Self::TooLate => too_late(method, ran),
            Self::CutOff => {
                let text = format!("method `{method}` was cut off: the plugin is being deactivated");
                Fault::new(Code::Unavailable, text).with_ran(ran)
            }
        }
    }
}

/// Whether a blocking method was begun or given up first: only one of both happens.
#[derive(Default)]
struct Stage(AtomicU8);

impl Stage {
    const BEGUN: u8 = 1;
    const ABANDONED: u8 = 2;

    fn claim(&self, stage: u8) -> bool {
        self.0.compare_exchange(0, stage, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

struct AbandonOnDrop(Arc<Stage>);

impl Drop for AbandonOnDrop {
    fn drop(&mut self) {
        self.0.claim(Stage::ABANDONED);
    }
}

async fn blocking(
    mut limits: Limits,
    held: Held,
    run: impl FnOnce() -> Result<Bytes, Fault> + Send + 'static,
) -> Result<Bytes, Fault> {
    let stage = Arc::new(Stage::default());
    let _abandon = AbandonOnDrop(Arc::clone(&stage));
    let thread_stage = Arc::clone(&stage);
    let thread = tokio::task::spawn_blocking(move || {
        let reply = thread_stage.claim(Stage::BEGUN).then(run);
        // Travels back with the reply: given up here, it could end a drain, which would cut this call off although it is
        // done. When nobody waits any more it is dropped with the reply.
        (reply, held)
    });
    let end = tokio::select! {
        biased;
        reply = thread => return match reply {
            Ok((Some(reply), _held)) => reply,
            Ok((None, _held)) => Err(too_late(&limits.method, Ran::No)),
            Err(error) => Err(match error.try_into_panic() {
                Ok(panic) => panicked(&format!("method `{}`", limits.method), &*panic),
                Err(_) => Fault::new(Code::Unavailable, "the process ends"),
            }),
        },
        end = limits.pass() => end,
    };
    // Still waiting for a thread: then nothing ran, and nothing will.
    let ran = if stage.claim(Stage::ABANDONED) { Ran::No } else { Ran::Unknown };
    Err(end.fault(&limits.method, ran))
}

async fn streaming(
    mut limits: Limits,
    held: Held,
    ending: Ending,
    out: ReplyStream,
    pieces: mpsc::Receiver<Result<Bytes, ()>>,
    run: impl FnOnce(ReplyStream) -> Running<()> + Send + 'static,
) -> Result<Reply, Fault> {
    let (ended, end) = oneshot::channel();
    let (control, begun) = (out.control(), out.control());
    tokio::spawn(async move {
        let method = Arc::clone(&limits.method);
        let result = tokio::select! {
            biased;
            result = caught(&method, begin(&method, || run(out))) => result,
            () = control.closed() => return,
            end = limits.pass() => Err(end.fault(&method, Ran::Unknown)),
        };
        drop((held, ending));
        let has_failed = result.is_err();
        // The receiver is gone when the reply has begun: the failure is shown by the abort.
        _ = ended.send(result);
        if has_failed {
            control.abort().await;
        }
    });
    tokio::select! {
        biased;
        () = begun.begun() => Ok(Reply::Pieces(pieces)),
        end = end => match end {
            // It began and ended since the line above was looked at.
            _ if begun.has_begun() => Ok(Reply::Pieces(pieces)),
            Ok(result) => result.map(|()| Reply::Whole(Bytes::new())),
            Err(_) => Err(Fault::new(Code::Internal, "the task of a streamed reply is gone")),
        },
    }
}

/// The author's future, its panics turned into faults.
fn caught<T>(method: &str, mut run: Running<T>) -> impl Future<Output = Result<T, Fault>> {
    poll_fn(move |task| poll_caught(method, &mut run, task))
}

/// What the author's function makes.
fn begin<T: Send + 'static>(method: &str, make: impl FnOnce() -> Running<T>) -> Running<T> {
    let made = catch_unwind(AssertUnwindSafe(make));
    made.unwrap_or_else(|panic| Box::pin(ready(Err(it_panicked(method, &*panic)))))
}

fn poll_caught<T>(method: &str, run: &mut Running<T>, task: &mut std::task::Context<'_>) -> Poll<Result<T, Fault>> {
    let polled = catch_unwind(AssertUnwindSafe(|| run.as_mut().poll(task)));
    polled.unwrap_or_else(|panic| Poll::Ready(Err(it_panicked(method, &*panic))))
}

fn it_panicked(method: &str, panic: &(dyn Any + Send)) -> Fault {
    panicked(&format!("method `{method}`"), panic)
}

/// What the future answers at once, if it does.
pub(crate) async fn poll_once<F: Future>(mut future: Pin<&mut F>) -> Option<F::Output> {
    poll_fn(|task| match future.as_mut().poll(task) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}
