//! The keeper: reads when nobody waits for a reply, so that the end of an idle connection is seen and what the plugin
//! asks is answered.

use std::future::poll_fn;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::Shared;
use super::state::Reader;
use crate::error::{Error, ErrorKind};

/// How long a connection must have been without a new call before the keeper reads: at first, and at most while nothing
/// changes. To take the seat and give it back costs more than a call.
const PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(320));
/// A connection that carried no call for this long is closed: it costs a descriptor here, and a thread in the plugin.
const IDLE: Duration = Duration::from_secs(1);

pub(super) fn spawn(shared: &Arc<Shared>) {
    tokio::spawn(run(Arc::downgrade(shared)));
}

async fn run(shared: Weak<Shared>) {
    let (mut pause, mut seen) = (PAUSES.0, 0);
    loop {
        tokio::time::sleep(pause).await;
        let Some(shared) = shared.upgrade() else { return };
        {
            let mut state = shared.lock();
            if state.ended().is_some() {
                return;
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
                return;
            }
        }
    }
}
