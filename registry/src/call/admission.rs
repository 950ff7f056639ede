//! Who may call now: a place among the calls under way, and the turn of a serial method.

use std::sync::atomic::Ordering;

use goplug_pconf_schema::{Code, Fault};
use tokio::sync::{Semaphore, SemaphorePermit, TryAcquireError};
use tokio::time::Instant;

use crate::options::MAX_QUEUED_CALLS;
use crate::supervisor::{Live, Method};

/// A place and, of a serial method, the turn; given back when dropped.
#[derive(Debug)]
pub(crate) struct Admitted<'a> {
    live: &'a Live,
    /// Whether time has passed.
    pub(crate) has_waited: bool,
    _turn: Option<SemaphorePermit<'a>>,
    _place: SemaphorePermit<'a>,
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        self.live.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.live.calls.fetch_add(1, Ordering::Relaxed);
    }
}

/// Waits for the turn (in call order) and for a place, at most until `deadline`.
pub(crate) async fn admit<'a>(live: &'a Live, method: &'a Method, deadline: Instant) -> Result<Admitted<'a>, Fault> {
    // The turn first: who waits for a turn must not hold a place that other methods could use.
    let mut has_waited = false;
    let turn = match &method.serial {
        Some(turn) => Some(acquire(live, turn, deadline, &mut has_waited).await?),
        None => None,
    };
    let place = acquire(live, &live.admission, deadline, &mut has_waited).await?;
    if !live.is_accepting() {
        return Err(draining(live));
    }
    live.in_flight.fetch_add(1, Ordering::Relaxed);
    Ok(Admitted { live, has_waited, _turn: turn, _place: place })
}

async fn acquire<'a>(
    live: &Live,
    semaphore: &'a Semaphore,
    deadline: Instant,
    has_waited: &mut bool,
) -> Result<SemaphorePermit<'a>, Fault> {
    match semaphore.try_acquire() {
        Ok(permit) => Ok(permit),
        Err(TryAcquireError::Closed) => Err(draining(live)),
        Err(TryAcquireError::NoPermits) => {
            *has_waited = true;
            Box::pin(queue(live, semaphore, deadline)).await
        }
    }
}

async fn queue<'a>(live: &Live, semaphore: &'a Semaphore, deadline: Instant) -> Result<SemaphorePermit<'a>, Fault> {
    let queued = Queued::enter(live)?;
    let permit = tokio::select! {
        permit = semaphore.acquire() => permit.map_err(|_| draining(live)),
        () = live.wait_gone() => Err(draining(live)),
        () = tokio::time::sleep_until(deadline) => {
            let text = format!("the call still waited for its turn at plugin `{}` when its time was up", live.id);
            Err(Fault::new(Code::DeadlineExceeded, text).with_ran(goplug_pconf_schema::Ran::No))
        }
    };
    drop(queued);
    permit
}

fn draining(live: &Live) -> Fault {
    Fault::new(Code::Unavailable, format!("plugin `{}` takes no new calls: it is draining or gone", live.id))
}

/// A place in the queue.
struct Queued<'a>(&'a Live);

impl<'a> Queued<'a> {
    fn enter(live: &'a Live) -> Result<Self, Fault> {
        if live.queued.fetch_add(1, Ordering::Relaxed) >= MAX_QUEUED_CALLS {
            live.queued.fetch_sub(1, Ordering::Relaxed);
            let text = format!(
                "{MAX_QUEUED_CALLS} calls wait for plugin `{}` already: call less, or allow more calls at once",
                live.id
            );
            return Err(Fault::new(Code::Overloaded, text));
        }
        Ok(Self(live))
    }
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.0.queued.fetch_sub(1, Ordering::Relaxed);
    }
}
