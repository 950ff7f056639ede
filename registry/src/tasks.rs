//! The tasks of one registry, so that closing it can wait for their end.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

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

struct Running(Arc<Count>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::AcqRel);
        self.0.ended.notify_waiters();
    }
}
