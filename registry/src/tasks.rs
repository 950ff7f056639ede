//! The tasks of one registry, so that closing it can wait for their end; and what its tasks wait with.

use std::future::{Future, pending};
use std::hash::{BuildHasher, Hasher};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use goplug_pconf_schema::{Code, Fault};
use tokio::sync::Notify;
use tokio::task::AbortHandle;
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
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        self.0.running.fetch_add(1, Ordering::AcqRel);
        let running = Running(Arc::clone(&self.0));
        spawn(Box::pin(async move {
            let _running = running;
            work.await;
        }))
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

/// Every task is of one kind: each further one costs the compiler another copy of the runtime's machinery, and no task begins
/// on the path of a call.
fn spawn(work: Work<()>) -> AbortHandle {
    tokio::spawn(work).abort_handle()
}

/// Runs what waits for the file system, on a thread that may.
///
/// # Errors
/// `internal`: it panicked, or the runtime ends.
///
/// # Cancel safety
/// Dropping the future does not stop the work.
pub(crate) async fn on_a_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Fault> {
    let result = Arc::new(Mutex::new(None));
    let place = Arc::clone(&result);
    let ended = run(Box::new(move || {
        let done = work();
        *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(done);
    }));
    ended.await;
    let done = result.lock().unwrap_or_else(PoisonError::into_inner).take();
    done.ok_or_else(|| Fault::new(Code::Internal, "the work was interrupted"))
}

/// Of one kind, as every task.
async fn run(work: Box<dyn FnOnce() + Send>) {
    // How it failed, its result tells by not being there.
    _ = tokio::task::spawn_blocking(work).await;
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
