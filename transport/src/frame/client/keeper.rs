//! The keeper: ends calls whose time is up; and reads when nobody waits for a reply, so that the end of an idle connection
//! is seen, what the plugin asks is answered, and notifications arrive.

use std::future::poll_fn;
use std::sync::{Arc, Weak};
use std::time::Duration;

use goplug_pconf_schema::wire::event::KEEP_ALIVE_MS;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout};

use super::Shared;
use super::state::Reader;
use crate::error::{Error, ErrorKind};

/// How long a connection must have been without a new call before the keeper reads: at first, and at most while nothing
/// changes, unless somebody listens. To take the seat and give it back costs more than a call.
const PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(320));
/// A connection that carried no call for this long, and on which nobody listens, is closed: it costs a descriptor here, and
/// a thread in the plugin.
const IDLE: Duration = Duration::from_secs(1);

/// While somebody listens the keeper takes the seat as soon as it is free. When it lost it within this time, calls follow
/// each other, and it waits this long before it tries again: whoever calls next reads what comes meanwhile.
const BETWEEN_CALLS: Duration = Duration::from_millis(1);
/// While somebody listens the plugin is asked after this silence.
const SILENCE: Duration = Duration::from_millis(KEEP_ALIVE_MS);

/// Runs until the connection is dropped, or has ended; only then it calls `on_end`.
pub(super) fn spawn(shared: &Arc<Shared>, on_end: impl FnOnce() + Send + 'static) {
    let wanted = Arc::clone(&shared.lock().listening.wanted);
    let shared = Arc::downgrade(shared);
    let last = Last(Weak::clone(&shared));
    tokio::spawn(async move {
        let ended = run(shared, &wanted).await;
        drop(last);
        if ended.is_some() {
            on_end();
        }
    });
}

/// Ends the connection when the keeper is dropped with its runtime: nobody would see to the deadlines of its calls.
struct Last(Weak<Shared>);

impl Drop for Last {
    fn drop(&mut self) {
        if let Some(shared) = self.0.upgrade() {
            shared.end(&Error::new(ErrorKind::Closed, true, "the runtime that the connection was made in has ended"));
        }
    }
}

/// `None` when nobody has the connection any more.
async fn run(shared: Weak<Shared>, wanted: &Notify) -> Option<()> {
    let (mut pause, mut seen, mut lost_soon) = (PAUSES.0, 0, false);
    loop {
        // Whether it was rung for does not matter: what is wanted is in the state.
        let (limit, wanted) = if lost_soon { (BETWEEN_CALLS, None) } else { (pause, Some(wanted)) };
        if wait(&shared, limit, wanted).await? {
            continue;
        }
        let shared = shared.upgrade()?;
        {
            let mut state = shared.lock();
            if state.ended().is_some() {
                return Some(());
            }
            let news = seen != state.next_id();
            seen = state.next_id();
            lost_soon &= news;
            if state.reader != Reader::Nobody || news && (lost_soon || state.listening.is_empty()) {
                pause = if news { PAUSES.0 } else { PAUSES.1.min(pause * 2) };
                continue;
            }
            state.reader = Reader::Keeper;
        }
        pause = PAUSES.0;
        let began = Instant::now();
        if keep(&shared).await {
            return Some(());
        }
        lost_soon = began.elapsed() < BETWEEN_CALLS && !shared.lock().listening.is_empty();
    }
}

/// Reads until somebody else does; whether the connection has ended because it was idle.
async fn keep(shared: &Shared) -> bool {
    loop {
        let is_listening = !shared.lock().listening.is_empty();
        let limit = if is_listening { SILENCE } else { IDLE };
        let is_over = timeout(limit, poll_fn(|cx| shared.keep(cx, is_listening))).await.is_err();
        let mut wakers = Vec::new();
        {
            let mut state = shared.lock();
            if state.reader != Reader::Keeper || state.ended().is_some() {
                return false;
            }
            if is_over && is_listening {
                state.ask_for_life(&mut wakers);
            }
        }
        wakers.into_iter().for_each(std::task::Waker::wake);
        if is_over && !is_listening && shared.lock().streams.is_empty() {
            shared.end(&Error::new(ErrorKind::Closed, false, "the connection was idle"));
            return true;
        }
    }
}

/// Waits for `pause`, or until the keeper is wanted. Answers whether it was cut short: by a call whose time was up, or by one
/// that ends earlier than was known.
async fn wait(shared: &Weak<Shared>, pause: Duration, wanted: Option<&Notify>) -> Option<bool> {
    let until = Instant::now() + pause;
    let (alarm, earlier) = {
        // Not held while it waits: whoever drops the connection closes it.
        let shared = shared.upgrade()?;
        let alarm = shared.lock().alarm().map(Instant::from_std).filter(|alarm| *alarm < until);
        (alarm, Arc::clone(&shared.earlier))
    };
    let is_wanted = async {
        match wanted {
            Some(wanted) => wanted.notified().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = sleep_until(alarm.unwrap_or(until)) => {}
        () = earlier.notified() => return Some(true),
        () = is_wanted => return Some(false),
    }
    if alarm.is_none() {
        return Some(false);
    }
    let shared = shared.upgrade()?;
    let late = shared.lock().expire(std::time::Instant::now());
    shared.flush();
    late.into_iter().for_each(std::task::Waker::wake);
    Some(true)
}
