//! Many plugins at once: calls at a given rate, and a registry that grows.

use anyhow::Result;
use rustix::process::{Resource, getrlimit};

use super::{Place, Run};
use crate::placement::Placement;
use crate::report::{RateRow, ScaleRow};
use crate::{RatesJob, Runtime, ScaleJob};

/// How many plugins are loaded, in turn.
const COUNTS: [usize; 4] = [10, 100, 1_000, 10_000];
/// Descriptors of an idle plugin in the registry's process: its socket and its pidfd.
const IDLE: u64 = 2;
/// Of one that is called: the frame connection besides.
const CALLED: u64 = 3;
/// Descriptors for everything else.
const RESERVE: u64 = 256;
/// Plugins that are called at a given rate, and the time from one call to the next.
const RATED: (usize, u64) = (20, 1_000);

impl Run<'_> {
    pub(super) fn rates(&mut self, places: &[Place]) -> Result<()> {
        let (plugins, every_us) = RATED;
        let time_ms = self.options.time_ms.unwrap_or(if self.options.quick { 500 } else { 2_000 });
        let program = std::env::current_exe()?;
        for round in 1..=self.rounds() {
            for (placement, host, plugin_cpu) in places {
                for runtime in [Runtime::CurrentThread, Runtime::MultiThread] {
                    // Side by side in time, since they are compared.
                    for frugal in [true, false] {
                        let job = RatesJob { plugins, every_us, frugal, runtime, time_ms, plugin_cpu: *plugin_cpu };
                        let row = RateRow::new(&job, *placement);
                        let what = format!("{}, {}", row.name(), placement.name());
                        eprint!("round {round}: ");
                        let run = self.measure((&program, "rates"), &serde_json::to_string(&job)?, *host, &what);
                        self.report.add_rate(row, run);
                    }
                }
            }
        }
        Ok(())
    }

    /// In one placement: the registry on a core of its own if there are two.
    pub(super) fn scale(&mut self, places: &[Place]) -> Result<()> {
        let best = [Placement::TwoCores, Placement::Unpinned, Placement::OneCore];
        let find = |one: &Placement| places.iter().find(|(placement, ..)| placement == one).copied();
        let Some((placement, host, plugin_cpu)) = best.iter().find_map(find) else { return Ok(()) };
        let quick = self.options.quick;
        let (time_ms, idle_ms) = if quick { (200, 1_000) } else { (1_000, 5_000) };
        let time_ms = self.options.time_ms.unwrap_or(time_ms);
        let allowed = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
        let points = points(if quick { &COUNTS[..2] } else { &COUNTS }, allowed);
        for point in &points {
            self.report.notes.extend(point.note(allowed));
        }
        self.report.scale_placement = Some(placement);
        let program = std::env::current_exe()?;
        for round in 1..=self.rounds() {
            for Point { plugins, calls_all, .. } in points.iter().copied() {
                let job = ScaleJob { plugins, calls_all, time_ms, idle_ms, plugin_cpu };
                eprint!("round {round}: ");
                let what = format!("{plugins} plugins");
                let run = self.measure((&program, "scale"), &serde_json::to_string(&job)?, host, &what);
                self.report.add_scale(ScaleRow { plugins, calls_all, runs: Vec::new() }, run);
            }
        }
        Ok(())
    }
}

/// How many plugins to load, and whether all of them can be called at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Point {
    plugins: usize,
    calls_all: bool,
    wanted: usize,
}

/// The counts that can be reached with `allowed` descriptors: of one that is too many, as many as can be called at once, and
/// as many as can be loaded.
fn points(wanted: &[usize], allowed: u64) -> Vec<Point> {
    let room = |each: u64| usize::try_from(allowed.saturating_sub(RESERVE) / each).unwrap_or(usize::MAX);
    let mut points = Vec::new();
    for wanted in wanted.iter().copied() {
        let (called, loaded) = (wanted.min(room(CALLED)), wanted.min(room(IDLE)));
        points.push(Point { plugins: called, calls_all: true, wanted });
        if loaded > called {
            points.push(Point { plugins: loaded, calls_all: false, wanted });
        }
    }
    points.dedup_by_key(|point| (point.plugins, point.calls_all));
    points
}

impl Point {
    fn note(self, allowed: u64) -> Option<String> {
        let Self { plugins, wanted, calls_all } = self;
        let what = if calls_all { "called at once" } else { "loaded" };
        let text = || {
            format!("{plugins} plugins instead of {wanted} {what}: we may have {allowed} descriptors (`ulimit -Hn`)")
        };
        (plugins < wanted).then(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_few_descriptors_are_told() {
        let all = |allowed| points(&[10, 10_000], allowed).iter().map(|p| (p.plugins, p.calls_all)).collect::<Vec<_>>();
        assert_eq!(all(1 << 20), [(10, true), (10_000, true)]);
        assert_eq!(all(20_256), [(10, true), (6_666, true), (10_000, false)]);
        assert_eq!(all(10_256), [(10, true), (3_333, true), (5_000, false)]);
        let notes: Vec<_> = points(&[10, 10_000], 20_256).iter().filter_map(|point| point.note(20_256)).collect();
        assert_eq!(notes.len(), 1);
        assert!(notes[0].contains("6666 plugins instead of 10000 called at once"), "{notes:?}");
    }
}
