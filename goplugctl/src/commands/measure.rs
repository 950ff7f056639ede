//! Many calls, and their times: `execute --count` and `bench`.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use goplug_pconf_schema::{Fault, PluginId};

use crate::exit_code;
use crate::stats::Times;
use crate::target::{Call, Target};

/// How long calls that are under way when no more are begun may take to finish and be counted.
pub(crate) const LAST_CALLS: Duration = Duration::from_secs(2);

/// What is called, and how.
pub(crate) struct Work<'a> {
    pub(crate) target: &'a dyn Target,
    pub(crate) plugin: &'a PluginId,
    pub(crate) method: &'a str,
    /// The body of every call.
    pub(crate) body: &'a Bytes,
    pub(crate) call: Call,
    /// How many calls are under way at once.
    pub(crate) parallel: u16,
    /// Whether the first failure ends it.
    pub(crate) fail_fast: bool,
}

/// What came of it. The memory does not grow with the number of calls.
pub(crate) struct Measured {
    /// Of calls that ended, well or not.
    pub(crate) times: Times,
    /// How many failed with which code.
    pub(crate) errors: BTreeMap<&'static str, u64>,
    /// The failure with the highest exit code.
    pub(crate) worst: Option<Fault>,
    /// The first reply.
    pub(crate) first: Option<Bytes>,
    /// The bodies of all replies together.
    pub(crate) reply_bytes: u64,
    /// Calls that were given up at the end.
    pub(crate) unfinished: u64,
    /// From the first call's begin to the last one's end.
    pub(crate) elapsed: Duration,
}

impl Measured {
    fn new() -> Self {
        Self {
            times: Times::new(),
            errors: BTreeMap::new(),
            worst: None,
            first: None,
            reply_bytes: 0,
            unfinished: 0,
            elapsed: Duration::ZERO,
        }
    }

    /// How many calls failed.
    pub(crate) fn failed(&self) -> u64 {
        self.errors.values().sum()
    }

    /// How many of `amount` there were in a second.
    pub(crate) fn per_second(&self, amount: u64) -> f64 {
        amount as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    fn note(&mut self, took: Duration, reply: Result<Bytes, Fault>) {
        self.times.record(took);
        match reply {
            Ok(reply) => {
                self.reply_bytes += reply.len() as u64;
                self.first.get_or_insert(reply);
            }
            Err(fault) => {
                *self.errors.entry(fault.code.as_str()).or_insert(0) += 1;
                if self.worst.as_ref().is_none_or(|worst| exit_code::of(fault.code) > exit_code::of(worst.code)) {
                    self.worst = Some(fault);
                }
            }
        }
    }
}

/// Makes at most `count` calls, and begins none after `end`.
///
/// # Cancel safety
/// Dropping the future gives up the calls under way.
pub(crate) async fn measure(work: &Work<'_>, count: u64, end: impl Future<Output = ()>) -> Measured {
    let (left, begun_calls, stopped) = (AtomicU64::new(count), AtomicU64::new(0), AtomicBool::new(false));
    let seen = Mutex::new(Measured::new());
    let begun = Instant::now();
    let worker = || async {
        while !stopped.load(Ordering::Relaxed) && take(&left) {
            // An answer that is there at once would never let the clock have its turn.
            tokio::task::consume_budget().await;
            begun_calls.fetch_add(1, Ordering::Relaxed);
            let started = Instant::now();
            let reply = work.target.execute(work.plugin, work.method, work.body.clone(), work.call).await;
            let took = started.elapsed();
            stopped.fetch_or(work.fail_fast && reply.is_err(), Ordering::Relaxed);
            lock(&seen).note(took, reply);
        }
    };
    {
        let mut workers = pin!(join_all((0..work.parallel.max(1)).map(|_| worker())));
        tokio::select! {
            // The end first: the workers may use up what a task may do in its turn.
            biased;
            () = end => {
                stopped.store(true, Ordering::Relaxed);
                // Who is not done then is counted below.
                _ = tokio::time::timeout(LAST_CALLS, workers).await;
            }
            _ = &mut workers => {}
        }
    }
    let elapsed = begun.elapsed();
    let seen = seen.into_inner().unwrap_or_else(PoisonError::into_inner);
    Measured { unfinished: begun_calls.into_inner() - seen.times.count(), elapsed, ..seen }
}

/// Failures by code, for people.
pub(crate) fn by_code(errors: &BTreeMap<&'static str, u64>) -> String {
    errors.iter().map(|(code, count)| format!("{count} {code}")).collect::<Vec<_>>().join(", ")
}

fn take(left: &AtomicU64) -> bool {
    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
}

fn lock(seen: &Mutex<Measured>) -> MutexGuard<'_, Measured> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use goplug_pconf_schema::Code;

    use super::*;

    #[test]
    fn the_worst_failure_counts() {
        let mut seen = Measured::new();
        let moment = Duration::from_micros(1);
        for (code, text) in [(Code::PluginGone, "died"), (Code::MethodFailed, "no"), (Code::MethodFailed, "no")] {
            seen.note(moment, Err(Fault::new(code, text)));
        }
        seen.note(moment, Ok(Bytes::from_static(b"yes")));
        seen.note(moment, Ok(Bytes::from_static(b"again")));
        assert_eq!(seen.worst.as_ref().unwrap().code, Code::PluginGone);
        assert_eq!(seen.errors, BTreeMap::from([("method_failed", 2), ("plugin_gone", 1)]));
        assert_eq!(by_code(&seen.errors), "2 method_failed, 1 plugin_gone");
        assert_eq!((seen.times.count(), seen.failed(), seen.reply_bytes), (5, 3, 8));
        assert_eq!(seen.first.as_deref(), Some(b"yes".as_slice()));
    }
}
