//! A call that is begun where its request was read.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Poll, Waker};

use bytes::Bytes;
use goplug_pconf_schema::{Code, Fault};
use goplug_transport::{Cancel, View};
use tokio::time::Instant;

use super::{Admitted, begin, it_panicked, let_in, poll_caught};
use crate::context::{Context, Origin};
use crate::method::{Function, Running};
use crate::service::{Entry, Service};

thread_local! {
    /// The context of the last call that was done here. Nobody else has one who has not been given it, so that it serves for the
    /// next call, too.
    static SPARE: Cell<Option<Context>> = const { Cell::new(None) };
}

/// A call that was let in on the thread where its request was read. It does not end by being dropped: it is begun, or becomes an
/// [`Admitted`].
#[must_use]
pub(crate) struct Entered(Context);

/// What became of a call that was begun where its request was read.
pub(crate) enum Begun {
    /// It is done. Its place is still taken: see [`Service::release`].
    Done(Result<Bytes, Fault>),
    /// An async method has to wait.
    Waits(Admitted, Running<Bytes>),
    /// It may take long, or has to wait for its turn: it was not begun.
    NotHere(Admitted, View),
}

/// The author's code is running: should it unwind, the call is over.
struct Inside<'a>(Option<&'a Context>);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        if let Some(cx) = self.0 {
            cx.end();
            cx.service().release();
        }
    }
}

impl Entered {
    /// Lets a call in, if there is time left at `now`. `told` is whom the connection tells when the caller of the call that runs on
    /// this thread waits no longer.
    pub(crate) fn new(
        service: &Arc<Service>,
        entry: &Entry,
        (deadline, now): (Instant, Instant),
        origin: Origin,
        told: &mut Option<Arc<dyn Cancel>>,
    ) -> Result<Self, Fault> {
        let cuts = let_in(service, entry, deadline, now)?;
        let deadline = deadline.into_std();
        let spare = SPARE.take().filter(|spare| spare.is_of(&origin) && spare.is_known_to(told.as_ref()));
        if let Some(cx) = spare.filter(|spare| Arc::ptr_eq(spare.service(), service)) {
            cx.renew(entry.place, deadline, cuts);
            return Ok(Self(cx));
        }
        let cx = Context::new(Arc::clone(service), entry.place, deadline, cuts, origin);
        *told = Some(cx.watch());
        Ok(Self(cx))
    }

    /// The thread reads no more.
    pub(crate) fn forget_spare() {
        SPARE.take();
    }

    /// Runs a method on a thread that has other things to do: a plain one that is quick to its end, an async one until it
    /// has to wait; both only if it is their turn. `now` is now.
    pub(crate) fn begin_here(self, body: View, now: std::time::Instant) -> Begun {
        let Self(cx) = self;
        let entry = cx.entry();
        let is_here = match entry.function {
            Function::Blocking(_) => !entry.pace.is_slow(),
            Function::Async(_) => true,
            Function::Streaming(_) | Function::Reading(_) | Function::ReadingBlocking(_) | Function::Duplex(_) => false,
        };
        let turn = match &entry.turn {
            Some(turn) if is_here => match Arc::clone(turn).try_lock_owned() {
                Ok(turn) => Some(turn),
                Err(_) => return Begun::NotHere(Admitted::of(cx, None), body),
            },
            _ => None,
        };
        if !is_here {
            return Begun::NotHere(Admitted::of(cx, None), body);
        }
        let mut inside = Inside(Some(&cx));
        let reply = match &entry.function {
            Function::Blocking(function) => {
                let reply = catch_unwind(AssertUnwindSafe(|| function(&cx, body)));
                entry.pace.took(now.elapsed());
                reply.unwrap_or_else(|panic| Err(it_panicked(&entry.name, &*panic)))
            }
            Function::Async(function) => {
                let mut run = begin(&entry.name, || function(cx.clone(), body));
                let mut task = std::task::Context::from_waker(Waker::noop());
                match poll_caught(&entry.name, &mut run, &mut task) {
                    Poll::Ready(reply) => reply,
                    Poll::Pending => {
                        inside.0 = None;
                        drop(inside);
                        return Begun::Waits(Admitted::of(cx, turn), run);
                    }
                }
            }
            _ => Err(Fault::new(Code::Internal, "the call went to the wrong thread")),
        };
        inside.0 = None;
        drop(inside);
        drop(turn);
        cx.end();
        if cx.can_be_renewed() {
            SPARE.set(Some(cx));
        }
        Begun::Done(reply)
    }
}

impl From<Entered> for Admitted {
    fn from(Entered(cx): Entered) -> Self {
        Self::of(cx, None)
    }
}
