//! One call, from its admission to its reply: the deadline, the turn of a `serial` method, panics, and the end of a drain.

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
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

use crate::context::{Context, Origin};
use crate::method::{Function, ReplyStream, Running};
use crate::service::{Entry, Permit, Service, panicked};

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
    body: Bytes,
) -> Result<Reply, Fault> {
    Admitted::new(service, entry, deadline, Instant::now(), origin)?.run(body).await
}

/// A call that was let in. Dropping it cancels its context and lets the next one in.
pub(crate) struct Admitted {
    held: Held,
    cancel: CancelOnDrop,
}

impl Admitted {
    /// Lets a call in, if there is time left at `now`.
    pub(crate) fn new(
        service: &Arc<Service>,
        entry: &Arc<Entry>,
        deadline: Instant,
        now: Instant,
        origin: Origin,
    ) -> Result<Self, Fault> {
        if deadline <= now {
            return Err(too_late(&entry.name, Ran::No));
        }
        // Counted before the admission: a drain that ends in between must cut this call off too.
        let cuts = service.cuts();
        let held = Held { turn: None, _permit: service.admit()? };
        let cx = Context::new(Arc::clone(service), Arc::clone(entry), deadline.into_std(), cuts, origin);
        Ok(Self { held, cancel: CancelOnDrop(cx) })
    }

    pub(crate) fn context(&self) -> &Context {
        &self.cancel.0
    }

    /// Waits for the turn of a `serial` method, calls the method and waits for its reply, or for the first piece of it.
    pub(crate) async fn run(self, body: Bytes) -> Result<Reply, Fault> {
        let Self { mut held, cancel } = self;
        let entry = cancel.0.entry();
        held.wait_turn(&cancel.0).await?;
        match &entry.function {
            Function::Blocking(function) => {
                let limits = Limits::of(&cancel.0);
                let (function, cx) = (Arc::clone(function), cancel.0.clone());
                let timed = move || {
                    let begin = std::time::Instant::now();
                    let reply = function(&cx, body);
                    cx.entry().pace.took(begin.elapsed());
                    reply
                };
                blocking(limits, held, timed).await.map(Reply::Whole)
            }
            Function::Async(function) => {
                let mut run = pin!(caught(&entry.name, || function(cancel.0.clone(), body)));
                // Many are done at once: then nobody has to look at the clock.
                let reply = match poll_once(run.as_mut()).await {
                    Some(reply) => reply,
                    None => {
                        let mut limits = Limits::of(&cancel.0);
                        tokio::select! {
                            biased;
                            reply = run => reply,
                            end = limits.pass() => Err(end.fault(&limits.method, Ran::Unknown)),
                        }
                    }
                };
                reply.map(Reply::Whole)
            }
            Function::Streaming(function) => {
                let limits = Limits::of(&cancel.0);
                let (out, pieces) = ReplyStream::new();
                let (function, cx) = (Arc::clone(function), cancel.0.clone());
                streaming(limits, held, cancel, out, pieces, move |out| function(cx, body, out)).await
            }
            Function::Reading(_) | Function::ReadingBlocking(_) | Function::Duplex(_) => {
                Err(Fault::new(Code::Internal, "a whole body went to a method that reads it"))
            }
        }
    }

    /// Whether the method may be run on a thread that has other things to do: a blocking one that is quick, and whose
    /// turn it is.
    pub(crate) fn is_quick(&mut self) -> bool {
        let entry = self.cancel.0.entry();
        if !matches!(entry.function, Function::Blocking(_)) || entry.pace.is_slow() {
            return false;
        }
        let Some(turn) = &entry.turn else { return true };
        self.held.turn = Arc::clone(turn).try_lock_owned().ok();
        self.held.turn.is_some()
    }

    /// Runs a method that [`Admitted::is_quick`] to its end. `began` is now.
    pub(crate) fn run_here(&self, body: Bytes, began: std::time::Instant) -> Result<Bytes, Fault> {
        let cx = &self.cancel.0;
        let Function::Blocking(function) = &cx.entry().function else {
            return Err(Fault::new(Code::Internal, "the call went to the wrong thread"));
        };
        let reply = catch_unwind(AssertUnwindSafe(|| function(cx, body)));
        cx.entry().pace.took(began.elapsed());
        reply.unwrap_or_else(|panic| Err(panicked(&format!("method `{}`", cx.method()), &*panic)))
    }
}

/// Returns when a call that runs on a thread of its own must be answered without it.
pub(crate) async fn must_end(cx: &Context) -> Fault {
    let mut limits = Limits::of(cx);
    limits.pass().await.fault(&limits.method, Ran::Unknown)
}

/// What a running call occupies; a blocking method keeps it until its thread is done, so that threads stay bounded and a
/// serial method never runs twice at once.
struct Held {
    turn: Option<tokio::sync::OwnedMutexGuard<()>>,
    _permit: Permit,
}

impl Held {
    /// Waits for the turn of a `serial` method.
    async fn wait_turn(&mut self, cx: &Context) -> Result<(), Fault> {
        let Some(turn) = &cx.entry().turn else { return Ok(()) };
        let mut limits = Limits::of(cx);
        self.turn = tokio::select! {
            biased;
            end = limits.pass() => return Err(end.fault(&limits.method, Ran::No)),
            turn = Arc::clone(turn).lock_owned() => Some(turn),
        };
        Ok(())
    }
}

struct CancelOnDrop(Context);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.end();
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
    cancel: CancelOnDrop,
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
            result = caught(&method, || run(out)) => result,
            () = control.closed() => return,
            end = limits.pass() => Err(end.fault(&method, Ran::Unknown)),
        };
        drop((held, cancel));
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
fn caught<T: Send + 'static>(
    method: &str,
    make: impl FnOnce() -> Running<T>,
) -> impl Future<Output = Result<T, Fault>> {
    let fault = move |panic: Box<dyn Any + Send>| panicked(&format!("method `{method}`"), &*panic);
    let mut future = catch_unwind(AssertUnwindSafe(make)).unwrap_or_else(|panic| Box::pin(ready(Err(fault(panic)))));
    poll_fn(move |task| {
        let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(task)));
        polled.unwrap_or_else(|panic| Poll::Ready(Err(fault(panic))))
    })
}

/// What the future answers at once, if it does.
pub(crate) async fn poll_once<F: Future>(mut future: Pin<&mut F>) -> Option<F::Output> {
    poll_fn(|task| match future.as_mut().poll(task) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}
