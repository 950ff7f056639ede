//! The tasks of one registry, so that closing it can wait for their end; and what its tasks wait with.

use std::future::{Future, pending};
use std::hash::{BuildHasher, Hasher};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// Counts tasks that run.
#[derive(Debug, Default, Clone)]
pub(crate) struct Tasks(Arc<Count>);

#[derive(Debug, Default)]
struct Count {
    running: AtomicUsize,
    ended: Notify,
}

impl Tasks {
    /// Runs `work` as a task that [`Tasks::end`] waits for.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) -> tokio::task::AbortHandle {
        self.0.running.fetch_add(1, Ordering::AcqRel);
        let running = Running(Arc::clone(&self.0));
        let task = tokio::spawn(async move {
            let _running = running;
            work.await;
        });
        task.abort_handle()
    }

    /// Waits until no task runs, at most `limit`.
    pub(crate) async fn end(&self, limit: Duration) {
        let all = async {
            loop {
                let ended = self.0.ended.notified();
                tokio::pin!(ended);
                // Enabled before the look: the last end in between must not be missed, by any of several who wait.
                ended.as_mut().enable();
                if self.0.running.load(Ordering::Acquire) == 0 {
                    return;
                }
                ended.await;
            }
        };
        if tokio::time::timeout(limit, all).await.is_err() {
            tracing::warn!(running = self.0.running.load(Ordering::Relaxed), "tasks of a closed registry still run");
        }
    }
}

/// Something under way that a task waits for beside other things.
pub(crate) type Work<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Its end; never, while there is none.
pub(crate) async fn work<T>(work: &mut Option<Work<T>>) -> T {
    match work {
        Some(work) => work.await,
        None => pending().await,
    }
}

/// Returns at that time; never, while there is none.
pub(crate) async fn at(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => pending().await,
    }
}

/// 0 to 1000, different each time.
pub(crate) fn jitter() -> u32 {
    let random = std::hash::RandomState::new().build_hasher().finish();
    u32::try_from(random % 1001).unwrap_or(0)
}

struct Running(Arc<Count>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::AcqRel);
        self.0.ended.notify_waiters();
    }
}
