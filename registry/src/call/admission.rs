//! Who may call now: a place among the calls under way, and the turn of a serial method.

use std::sync::atomic::Ordering;

use goplug_pconf_schema::{Code, Fault};
use tokio::time::Instant;

use super::places::{NoPlace, Places, Taken};
use crate::options::MAX_QUEUED_CALLS;
use crate::supervisor::{Live, Method};

/// A place and, of a serial method, the turn; given back when dropped.
#[derive(Debug)]
pub(crate) struct Admitted<'a> {
    live: &'a Live,
    /// Whether time has passed.
    pub(crate) has_waited: bool,
    _turn: Option<Taken<'a>>,
    _place: Taken<'a>,
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        self.live.calls.fetch_add(1, Ordering::Relaxed);
    }
}

/// Waits for the turn (in call order) and for a place, at most until `deadline`.
pub(crate) async fn admit<'a>(live: &'a Live, method: &'a Method, deadline: Instant) -> Result<Admitted<'a>, Fault> {
    // The turn first: who waits for a turn must not hold a place that other methods could use.
    let mut has_waited = false;
    let turn = match &method.serial {
        Some(turn) => Some(take(live, turn, deadline, &mut has_waited).await?),
        None => None,
    };
    let place = take(live, &live.admission, deadline, &mut has_waited).await?;
    if has_waited && !live.is_accepting() {
        return Err(draining(live));
    }
    Ok(Admitted { live, has_waited, _turn: turn, _place: place })
}

async fn take<'a>(
    live: &Live,
    places: &'a Places,
    deadline: Instant,
    has_waited: &mut bool,
) -> Result<Taken<'a>, Fault> {
    match places.try_take() {
        Ok(taken) => Ok(taken),
        Err(NoPlace::Closed) => Err(draining(live)),
        Err(NoPlace::Full) => {
            *has_waited = true;
            Box::pin(queue(live, places, deadline)).await
        }
    }
}

async fn queue<'a>(live: &Live, places: &'a Places, deadline: Instant) -> Result<Taken<'a>, Fault> {
    let queued = Queued::enter(live)?;
    let taken = tokio::select! {
        taken = places.take() => taken.map_err(|_| draining(live)),
        () = live.wait_gone() => Err(draining(live)),
        () = tokio::time::sleep_until(deadline) => {
            let text = format!("the call still waited for its turn at plugin `{}` when its time was up", live.id);
            Err(Fault::new(Code::DeadlineExceeded, text).with_ran(goplug_pconf_schema::Ran::No))
        }
    };
    drop(queued);
    taken
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
