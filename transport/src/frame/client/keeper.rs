//! The keeper: ends calls whose time is up; and reads when nobody waits for a reply, so that the end of an idle connection
//! is seen and what the plugin asks is answered.

use std::future::poll_fn;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::Shared;
use super::state::Reader;
use crate::error::{Error, ErrorKind};

/// How long a connection must have been without a new call before the keeper reads: at first, and at most while nothing
/// changes. To take the seat and give it back costs more than a call.
const PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(320));
/// A connection that carried no call for this long is closed: it costs a descriptor here, and a thread in the plugin.
const IDLE: Duration = Duration::from_secs(1);

/// Runs until the connection is dropped, or has ended; only then it calls `on_end`.
pub(super) fn spawn(shared: &Arc<Shared>, on_end: impl FnOnce() + Send + 'static) {
    let shared = Arc::downgrade(shared);
    let last = Last(Weak::clone(&shared));
    tokio::spawn(async move {
        let ended = run(shared).await;
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
async fn run(shared: Weak<Shared>) -> Option<()> {
    let (mut pause, mut seen) = (PAUSES.0, 0);
    loop {
        if wait(&shared, pause).await? {
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
            if news || state.reader != Reader::Nobody {
                pause = if news { PAUSES.0 } else { PAUSES.1.min(pause * 2) };
                continue;
            }
            state.reader = Reader::Keeper;
        }
        pause = PAUSES.0;
        if tokio::time::timeout(IDLE, poll_fn(|cx| shared.keep(cx))).await.is_err() {
            let is_idle = shared.lock().reader == Reader::Keeper;
            if is_idle {
                shared.end(&Error::new(ErrorKind::Closed, false, "the connection was idle"));
                return Some(());
            }
        }
    }
}

/// Waits for `pause`; answers whether it was cut short, by a call whose time was up or that ends earlier than was known.
async fn wait(shared: &Weak<Shared>, pause: Duration) -> Option<bool> {
    let strong = shared.upgrade()?;
    let until = Instant::now() + pause;
    let alarm = strong.lock().alarm().filter(|alarm| *alarm < until);
    let earlier = {
        // Not held while it waits: whoever drops the connection closes it.
        let bell = Arc::clone(&strong.earlier);
        drop(strong);
        bell
    };
    tokio::select! {
        () = tokio::time::sleep_until(alarm.unwrap_or(until).into()) => {}
        () = earlier.notified() => return Some(true),
    }
    if alarm.is_none() {
        return Some(false);
    }
    let shared = shared.upgrade()?;
    let late = shared.lock().expire(Instant::now());
    shared.flush();
    late.into_iter().for_each(std::task::Waker::wake);
    Some(true)
}
