//! Many calls, and their times.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use goplug_pconf_schema::{Fault, PluginId};
use serde::Serialize;

use crate::duration::{nanoseconds, show};
use crate::exit_code;
use crate::stats::Times;
use crate::target::{Call, Target};

/// How many calls are made, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    /// How many calls in all.
    pub(crate) count: u64,
    /// How many at once.
    pub(crate) parallel: u16,
    /// Whether the first failure ends it.
    pub(crate) fail_fast: bool,
}

/// Answer of `execute --count N -o json`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Summary {
    plugin: PluginId,
    method: String,
    /// Calls that were made.
    pub(crate) calls: u64,
    parallel: u16,
    /// Calls that failed.
    pub(crate) failed: u64,
    errors: BTreeMap<&'static str, u64>,
    elapsed_ns: u64,
    calls_per_second: f64,
    p50_ns: u64,
    p90_ns: u64,
    p99_ns: u64,
    max_ns: u64,
}

impl Summary {
    /// The summary in one line for people.
    pub(crate) fn text(&self) -> String {
        let time = |ns| show(Duration::from_nanos(ns));
        let errors: Vec<_> = self.errors.iter().map(|(code, count)| format!("{count} {code}")).collect();
        let errors = if errors.is_empty() { String::new() } else { format!(" ({})", errors.join(", ")) };
        format!(
            "{} calls, {} at once, {} failed{errors}, p50 {}, p99 {}, max {}, {:.0} calls/s",
            self.calls,
            self.parallel,
            self.failed,
            time(self.p50_ns),
            time(self.p99_ns),
            time(self.max_ns),
            self.calls_per_second
        )
    }
}

/// Makes many calls; tells their times, the first reply, and the failure with the highest exit code.
pub(crate) async fn measure(
    target: &dyn Target,
    plugin: &PluginId,
    method: &str,
    body: &Bytes,
    call: Call,
    load: Load,
) -> (Summary, Option<Bytes>, Option<Fault>) {
    let left = AtomicU64::new(load.count);
    let stopped = AtomicBool::new(false);
    let begun = Instant::now();
    let worker = || async {
        let mut part = Part::new();
        while !stopped.load(Ordering::Relaxed) && take(&left) {
            let started = Instant::now();
            let reply = target.execute(plugin, method, body.clone(), call).await;
            part.times.record(started.elapsed());
            match reply {
                Ok(reply) if part.first.is_none() => part.first = Some(reply),
                Ok(_) => {}
                Err(fault) => {
                    stopped.fetch_or(load.fail_fast, Ordering::Relaxed);
                    part.note(fault);
                }
            }
        }
        part
    };
    let parts = join_all((0..load.parallel.max(1)).map(|_| worker())).await;
    let elapsed = begun.elapsed();
    let mut whole = Part::new();
    parts.into_iter().for_each(|part| whole.add(part));
    let (calls, times) = (whole.times.count(), &whole.times);
    let summary = Summary {
        plugin: plugin.clone(),
        method: method.to_owned(),
        calls,
        parallel: load.parallel,
        failed: whole.errors.values().sum(),
        elapsed_ns: nanoseconds(elapsed),
        calls_per_second: calls as f64 / elapsed.as_secs_f64().max(1e-9),
        p50_ns: nanoseconds(times.percentile(50)),
        p90_ns: nanoseconds(times.percentile(90)),
        p99_ns: nanoseconds(times.percentile(99)),
        max_ns: nanoseconds(times.longest()),
        errors: whole.errors,
    };
    (summary, whole.first, whole.worst)
}

/// What one worker saw.
struct Part {
    times: Times,
    first: Option<Bytes>,
    worst: Option<Fault>,
    errors: BTreeMap<&'static str, u64>,
}

impl Part {
    fn new() -> Self {
        Self { times: Times::new(), first: None, worst: None, errors: BTreeMap::new() }
    }

    fn note(&mut self, fault: Fault) {
        *self.errors.entry(fault.code.as_str()).or_insert(0) += 1;
        self.keep_worse(fault);
    }

    fn keep_worse(&mut self, fault: Fault) {
        if self.worst.as_ref().is_none_or(|worst| exit_code::of(fault.code) > exit_code::of(worst.code)) {
            self.worst = Some(fault);
        }
    }

    fn add(&mut self, other: Self) {
        self.times.add(&other.times);
        self.first = self.first.take().or(other.first);
        for (code, count) in other.errors {
            *self.errors.entry(code).or_insert(0) += count;
        }
        if let Some(fault) = other.worst {
            self.keep_worse(fault);
        }
    }
}

fn take(left: &AtomicU64) -> bool {
    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
}

#[cfg(test)]
mod tests {
    use goplug_pconf_schema::Code;

    use super::*;

    #[test]
    fn the_worst_failure_counts() {
        let mut part = Part::new();
        part.note(Fault::new(Code::PluginGone, "died"));
        part.note(Fault::new(Code::MethodFailed, "no"));
        part.note(Fault::new(Code::MethodFailed, "no"));
        let mut whole = Part::new();
        whole.add(part);
        assert_eq!(whole.worst.unwrap().code, Code::PluginGone);
        assert_eq!(whole.errors, BTreeMap::from([("method_failed", 2), ("plugin_gone", 1)]));
    }
}
