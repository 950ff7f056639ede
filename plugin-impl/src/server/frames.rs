//! Calls and notifications over frames: a quick method runs where its request was read, everything else on the runtime;
//! notifications are written by whoever notifies.

use std::cell::Cell;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context as Task, Waker};
use std::time::Duration;

use bytes::Bytes;
use goplug_pconf_schema::wire::call::MAX_DEADLINE_MS;
use goplug_pconf_schema::wire::event::{Position, check_subscription};
use goplug_pconf_schema::wire::frame::UPGRADE;
use goplug_pconf_schema::wire::{memfd, shm};
use goplug_pconf_schema::{Code, Fault, Ran};
use goplug_transport::{
    Answered, Cancel, FrameCall, FrameHandler, FrameLimits, FrameServer, FrameSubscribe, Late, NoticeSource, Outlet,
    Replier, ServerRequest,
};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::reply::Answer;
use super::route::NoRoute;
use crate::body::Body;
use crate::call::{Admitted, Begun, Entered, Reply, must_end, poll_once};
use crate::context::{Context, Origin};
use crate::notify::push::push;
use crate::notify::stream::observer_start;
use crate::notify::window::Start;
use crate::service::Service;

/// Open calls of a connection beyond those that the plugin lets in: they are told that it is full.
const SPARE_CALLS: usize = 64;

/// The frame connections of a plugin, whose methods run on the runtime of this moment.
pub(super) fn server(service: &Arc<Service>) -> Arc<FrameServer> {
    let max_calls = service.max_concurrent_calls().saturating_add(SPARE_CALLS);
    let shared_memory = service.offers(shm::FEATURE);
    let limits = FrameLimits { max_calls, latency: service.latency, shared_memory, ..FrameLimits::default() };
    // Asked here, where there is one.
    service.runtime();
    Arc::new(FrameServer::new(Arc::new(Frames { service: Arc::clone(service) }), limits))
}

/// Answers `GET /_goplug/frames`.
pub(super) fn upgrade(
    service: &Service,
    frames: &Arc<FrameServer>,
    request: &ServerRequest,
) -> Result<Answer, NoRoute> {
    let has = |name, token: &str| {
        let tokens = request.header(name).unwrap_or_default().split(',');
        tokens.into_iter().any(|found| found.trim().eq_ignore_ascii_case(token))
    };
    if request.http10 || !has("upgrade", UPGRADE) || !has("connection", "upgrade") {
        let text = format!("nothing but frames is here; ask with `Connection: Upgrade` and `Upgrade: {UPGRADE}`");
        return Err(NoRoute { upgrade: Some(UPGRADE), ..Fault::new(Code::InvalidArgument, text).into() });
    }
    let lends = service.offers(memfd::FEATURE) && has(memfd::FEATURES, memfd::FEATURE);
    frames.upgrade(lends).map(Answer::upgrade).ok_or_else(|| {
        let text = format!("{} frame connections are open, the limit; call over HTTP", frames.len());
        Fault::new(Code::Overloaded, text).with_ran(Ran::No).into()
    })
}

struct Frames {
    service: Arc<Service>,
}

thread_local! {
    /// The call that was let in and is about to be made on this thread.
    static ENTERED: Cell<Option<Result<Entered, Fault>>> = const { Cell::new(None) };
}

impl FrameHandler for Frames {
    fn max_body(&self, index: u16) -> Result<usize, Fault> {
        self.service.method_at(index).map(|_| self.service.max_request_bytes())
    }

    fn is_streamed(&self, index: u16) -> bool {
        self.service.method_at(index).is_ok_and(|entry| entry.function.reads_its_body())
    }

    fn enter(&self, request: &FrameCall<'_>, told: &mut Option<Arc<dyn Cancel>>) {
        let entered = self.admit(request, told);
        if entered.is_err() {
            *told = None;
        }
        ENTERED.set(Some(entered));
    }

    fn call(&self, mut request: FrameCall<'_>, reply: Replier) -> Option<Answered> {
        let entered = match ENTERED.take() {
            Some(Ok(entered)) => entered,
            Some(Err(fault)) => {
                reply.error(problem(&fault));
                return None;
            }
            None => {
                reply.error(problem(&Fault::new(Code::Internal, "a call that did not enter")));
                return None;
            }
        };
        if let Some(body) = request.stream.take() {
            let admitted = Admitted::from(entered);
            reply.set_cancel(admitted.context().watch());
            self.go_on(answer(admitted.run_reading(Body::of_frames(body)), reply));
            return None;
        }
        let body = request.view.take().unwrap_or_else(|| request.body.into());
        match entered.begin_here(body, request.started) {
            Begun::Done(Ok(body)) => return Some(reply.answer(body)),
            Begun::Done(Err(fault)) => return Some(reply.refuse(problem(&fault))),
            Begun::Waits(admitted, run) => {
                reply.set_cancel(admitted.context().watch());
                let run = async { admitted.finish(run).await.map(Reply::Whole) };
                self.service.runtime().spawn(answer(run, reply));
            }
            Begun::NotHere(admitted, body) => {
                reply.set_cancel(admitted.context().watch());
                self.go_on(answer(admitted.run(body), reply));
            }
        }
        None
    }

    fn answered(&self) {
        // Behind the reply: whoever waits for the end of all calls finds it said.
        self.service.release();
    }

    fn subscribe(&self, request: FrameSubscribe<'_>, outlet: Outlet) -> Result<Arc<dyn NoticeSource>, Fault> {
        let (notifier, invalid) = (self.service.notifier(), |text| Fault::new(Code::InvalidArgument, text));
        let callback = notifier.callback_at(request.index)?;
        let after = request.after.map(|(epoch, seq)| format!("{epoch}:{seq}").parse::<Position>());
        let after = after.transpose().map_err(invalid)?;
        let reader = match request.name {
            // A subscription begins at its own cursor.
            Some(name) => {
                check_subscription(name).map_err(invalid)?;
                let caller = request.caller.map_or_else(|| format!("pid {}", request.peer.pid()), str::to_owned);
                notifier.attach(callback, name, Some(caller), Start::Subscribed)?
            }
            None => notifier.observe(callback, observer_start(after.as_ref(), self.service.epoch()))?,
        };
        Ok(push(reader, outlet))
    }

    fn on_thread(&self, read: &mut dyn FnMut()) {
        // Authors may rely on a runtime, as on the threads for blocking methods.
        let _entered = self.service.runtime().enter();
        read();
        Entered::forget_spare();
    }
}

impl Frames {
    /// Polled once where we are: many an async method is done then, and a serial one has its place in the queue.
    fn go_on(&self, answer: impl Future<Output = ()> + Send + 'static) {
        let mut answer = Box::pin(answer);
        if answer.as_mut().poll(&mut Task::from_waker(Waker::noop())).is_pending() {
            self.service.runtime().spawn(answer);
        }
    }

    fn admit(&self, request: &FrameCall<'_>, told: &mut Option<Arc<dyn Cancel>>) -> Result<Entered, Fault> {
        let entry = self.service.method_at(request.index)?;
        let ms = request.deadline_ms;
        if ms > MAX_DEADLINE_MS {
            let text = format!("the deadline is {ms} ms, the limit is {MAX_DEADLINE_MS}");
            return Err(Fault::new(Code::InvalidArgument, text));
        }
        let deadline = Instant::from_std(request.received + Duration::from_millis(ms));
        let times = (deadline, Instant::from_std(request.started));
        Entered::new(&self.service, entry, times, origin(request), told)
    }
}

fn origin(request: &FrameCall<'_>) -> Origin {
    let (meta, owned) = (request.meta(), |text: Option<&str>| text.map(str::to_owned));
    let (traceparent, tracestate) = (owned(meta.traceparent), owned(meta.tracestate));
    Origin { caller: owned(meta.caller), traceparent, tracestate, lender: request.lender() }
}

fn problem(fault: &Fault) -> Bytes {
    fault.to_problem().into()
}

fn caller_left() -> Fault {
    Fault::new(Code::Cancelled, "the caller has gone")
}

/// Runs a call as HTTP does, and answers it.
async fn answer(run: impl Future<Output = Result<Reply, Fault>>, reply: Replier) {
    let mut run = pin!(run);
    let result = match poll_once(run.as_mut()).await {
        Some(result) => result,
        None => {
            // From here on the call is given up when its caller has gone, not only told of it.
            let left = CallerLeft::of(&reply);
            tokio::select! {
                biased;
                result = run => result,
                () = left.0.notified() => Err(caller_left()),
            }
        }
    };
    match result {
        Ok(Reply::Whole(body)) => reply.reply(body),
        Ok(Reply::Pieces(pieces)) => forward(pieces, reply).await,
        Err(fault) => reply.error(problem(&fault)),
    }
}

async fn forward(mut pieces: mpsc::Receiver<Result<Bytes, ()>>, reply: Replier) {
    let left = CallerLeft::of(&reply);
    loop {
        let piece = tokio::select! {
            biased;
            piece = pieces.recv() => piece,
            () = left.0.notified() => return reply.error(problem(&caller_left())),
        };
        let sent = match piece {
            Some(Ok(piece)) => tokio::select! {
                biased;
                sent = reply.piece(piece) => sent,
                () = left.0.notified() => return reply.error(problem(&caller_left())),
            },
            // As over HTTP, where the connection breaks.
            Some(Err(())) => {
                let text = "the method failed after its reply had begun";
                return reply.error(problem(&Fault::new(Code::PluginGone, text).with_ran(Ran::Yes)));
            }
            None => return reply.finish(),
        };
        if sent.is_err() {
            return;
        }
    }
}

/// Wakes the task of a call.
#[derive(Default)]
struct CallerLeft(Notify);

impl CallerLeft {
    /// Instead of what was told before.
    fn of(reply: &Replier) -> Arc<Self> {
        let left = Arc::new(Self::default());
        reply.set_cancel(Arc::clone(&left) as Arc<dyn Cancel>);
        left
    }
}

impl Cancel for CallerLeft {
    fn cancel(&self) {
        self.0.notify_one();
    }
}

/// Stands by a method that holds the thread on which its request was read: from now on its call is answered when its time
/// is up or its caller has gone, as over HTTP, and not only when it comes back.
pub(crate) fn stand_by(cx: Context, late: Late) {
    cx.entry().pace.took(Duration::MAX);
    let runtime = cx.service().runtime().clone();
    runtime.spawn(async move {
        let fault = tokio::select! {
            biased;
            () = cx.cancelled() => match cx.is_over() {
                // Its reply is on its way.
                true => return,
                false => caller_left(),
            },
            fault = must_end(&cx) => fault,
        };
        cx.cancel();
        late.error(problem(&fault));
    });
}
