//! Waiting for what no event tells: always with a deadline, never a fixed pause.

use std::time::{Duration, Instant};

/// A deadline that only a hang reaches.
pub const LONG: Duration = Duration::from_secs(20);

/// Looks every few milliseconds until `condition` holds, at most for `limit`; tells how long it took.
///
/// For what has no event: a process table, a folder seen from outside. Where a library has `events()` or `wait_for`,
/// tests use that.
///
/// # Panics
/// At the deadline, with `what`.
#[track_caller]
pub fn wait_until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) -> Duration {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < limit, "after {limit:?} still not: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
    begin.elapsed()
}

/// As [`wait_until`], for asynchronous conditions and values.
///
/// # Panics
/// At the deadline, with `what`.
pub async fn wait_for<T, F: Future<Output = Option<T>>>(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> F,
) -> T {
    let begin = Instant::now();
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(begin.elapsed() < limit, "after {limit:?} still not: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
