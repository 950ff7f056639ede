//! How many plugins at once are told: a row for each rate, a row and curves for each size.

use std::fmt::Write;

use serde::Serialize;

use super::curve::{Curve, Series};
use super::table::{aligned, shown};
use super::{Report, digits, micros};
use crate::placement::Placement;
use crate::stats::median;
use crate::{Measured, RatesJob, Scaled};

/// What stands above the tables of rates.
pub(super) const RATES_TEXT: &str = "\
20 plugins, a process each; each is called once in a millisecond with 64 bytes. `balanced` looks for a reply before it sleeps,
`frugal` never does, on both sides. The processor time is that of one call, with everything that the processes do between
calls; `of a core` is both sides together; the last column compares that with `frugal` in the same round.
";
/// What stands above the curves; where it was measured follows.
pub(super) const SCALE_TEXT: &str = "\
One registry (auto-discover, a runtime with two workers) and three processes that serve the plugins. Memory is what the
registry's process has for itself (`Private_*` of `smaps_rollup`), descriptors are counted, both without what it had before
it opened the registry. Idle: nobody calls, the directory is watched and read once a second. Calls: by name, echo of 64 bytes,
64 under way, to the same ten plugins, or to one after the other of all";

/// Calls at a rate, in a placement.
#[derive(Debug, Serialize)]
pub struct RateRow {
    runtime: crate::Runtime,
    frugal: bool,
    placement: Placement,
    /// One for each round; `None` where it failed.
    pub runs: Vec<Option<Measured>>,
}

/// A registry with so many plugins.
#[derive(Debug, Serialize)]
pub struct ScaleRow {
    /// How many.
    pub plugins: usize,
    /// Whether all of them were called.
    pub calls_all: bool,
    /// One for each round; `None` where it failed.
    pub runs: Vec<Option<Scaled>>,
}

impl RateRow {
    /// A row without figures.
    pub fn new(job: &RatesJob, placement: Placement) -> Self {
        Self { runtime: job.runtime, frugal: job.frugal, placement, runs: Vec::new() }
    }

    /// As it is written in the table.
    pub fn name(&self) -> String {
        format!("{}/{}", if self.frugal { "frugal" } else { "balanced" }, self.runtime.name())
    }

    fn median(&self, of: impl Fn(&Measured) -> f64) -> Option<f64> {
        median(self.runs.iter().flatten().map(of))
    }
}

/// Of both sides, for one call.
fn cpu_ns(run: &Measured) -> f64 {
    run.host_cpu_per_call_ns() + run.plugin_cpu_per_call_ns().unwrap_or_default()
}

impl ScaleRow {
    fn median(&self, of: impl Fn(&Scaled) -> Option<f64>) -> Option<f64> {
        median(self.runs.iter().flatten().filter_map(of))
    }

    fn each(&self, of: impl Fn(&Scaled) -> u64) -> Option<f64> {
        self.median(|run| Some(of(run) as f64 / self.plugins as f64))
    }

    fn idle_percent(&self) -> Option<f64> {
        self.median(|run| Some(run.idle_cpu_ns as f64 * 100.0 / run.idle_ns as f64))
    }
}

impl Report {
    pub(crate) fn add_rate(&mut self, row: RateRow, run: Option<Measured>) {
        let key = |row: &RateRow| (row.runtime, row.frugal, row.placement);
        match self.rates.iter_mut().find(|other| key(other) == key(&row)) {
            Some(row) => row.runs.push(run),
            None => self.rates.push(RateRow { runs: vec![run], ..row }),
        }
    }

    pub(crate) fn add_scale(&mut self, row: ScaleRow, run: Option<Scaled>) {
        let key = |row: &ScaleRow| (row.plugins, row.calls_all);
        match self.scale.iter_mut().find(|other| key(other) == key(&row)) {
            Some(row) => row.runs.push(run),
            None => self.scale.push(ScaleRow { runs: vec![run], ..row }),
        }
    }

    pub(super) fn rate_tables(&self) -> String {
        let mut placements: Vec<_> = self.rates.iter().map(|row| row.placement).collect();
        placements.sort();
        placements.dedup();
        let head =
            ["both sides", "calls/s", "p50 µs", "p99", "CPU µs host", "CPU µs plugins", "% of a core", "× frugal"];
        let mut text = String::new();
        for placement in placements {
            let rows = self.rates.iter().filter(|row| row.placement == placement);
            let lines: Vec<_> = rows.filter_map(|row| self.rate_line(row)).collect();
            _ = write!(text, "\n### One call per millisecond to each of 20 plugins, {}\n\n", placement.name());
            text.push_str(&aligned(&head, &lines));
        }
        text
    }

    fn rate_line(&self, row: &RateRow) -> Option<Vec<String>> {
        let rate = row.median(Measured::rate)?;
        Some(vec![
            row.name(),
            digits(rate),
            shown(row.median(|run| run.p50_ns), micros),
            shown(median(row.runs.iter().flatten().filter_map(|run| run.p99_ns)), micros),
            shown(row.median(Measured::host_cpu_per_call_ns), micros),
            shown(median(row.runs.iter().flatten().filter_map(Measured::plugin_cpu_per_call_ns)), micros),
            shown(row.median(|run| cpu_ns(run) * run.rate() / 1e7), digits),
            shown(self.times_frugal(row), digits),
        ])
    }

    fn times_frugal(&self, row: &RateRow) -> Option<f64> {
        let same = |other: &&RateRow| other.frugal && (other.runtime, other.placement) == (row.runtime, row.placement);
        let other = self.rates.iter().find(same)?;
        let rounds = row.runs.iter().zip(&other.runs).filter_map(|(run, other)| Some((run.as_ref()?, other.as_ref()?)));
        median(rounds.map(|(run, other)| cpu_ns(run) / cpu_ns(other)))
    }

    /// Where it was measured, behind a comma or as a sentence's end.
    pub(super) fn scale_place(&self) -> &'static str {
        match self.scale_placement {
            Some(Placement::TwoCores) => "; the registry on one core, the plugins on another",
            Some(Placement::OneCore) => "; everything on one core",
            _ => "; every process where the kernel puts it",
        }
    }

    pub(super) fn scale_table(&self) -> String {
        let head = [
            "plugins",
            "found ms",
            "loaded ms",
            "KiB each",
            "after calls",
            "descriptors each",
            "idle % of a core",
            "plugins' %",
            "calls/s to ten",
            "CPU µs",
            "× ten loaded",
            "calls/s to all",
            "CPU µs",
        ];
        let lines: Vec<_> = self.scale.iter().filter_map(|row| self.scale_line(row)).collect();
        aligned(&head, &lines)
    }

    fn scale_line(&self, row: &ScaleRow) -> Option<Vec<String>> {
        let ms = |ns: f64| digits(ns / 1e6);
        let kib = |bytes: f64| digits(bytes / 1024.0);
        Some(vec![
            row.plugins.to_string(),
            ms(row.median(|run| Some(run.discovered_ns as f64))?),
            shown(row.median(|run| Some(run.loaded_ns as f64)), ms),
            shown(row.each(|run| run.private_bytes), kib),
            shown(row.each(|run| run.private_bytes_after), kib),
            shown(row.each(|run| run.descriptors), digits),
            shown(row.idle_percent(), digits),
            shown(row.median(|run| Some(run.idle_plugins_cpu_ns as f64 * 100.0 / run.idle_ns as f64)), digits),
            shown(row.median(|run| Some(run.ten.rate())), digits),
            shown(row.median(|run| Some(run.ten.host_cpu_per_call_ns())), micros),
            shown(self.times_ten(row), digits),
            shown(row.median(|run| Some(run.all.as_ref()?.rate())), digits),
            shown(row.median(|run| Some(run.all.as_ref()?.host_cpu_per_call_ns())), micros),
        ])
    }

    /// The rate of calls to ten plugins, beside that with the fewest plugins loaded in the same round.
    fn times_ten(&self, row: &ScaleRow) -> Option<f64> {
        let first = self.scale.first()?;
        let rounds = row.runs.iter().zip(&first.runs).filter_map(|(run, first)| Some((run.as_ref()?, first.as_ref()?)));
        median(rounds.map(|(run, first)| run.ten.rate() / first.ten.rate()))
    }

    /// Names and curves.
    pub(super) fn scale_plots(&self) -> Vec<(&'static str, String)> {
        let series = |name, of: &dyn Fn(&ScaleRow) -> Option<f64>| Series {
            name,
            points: self.scale.iter().filter_map(|row| Some((row.plugins as f64, of(row)?))).collect(),
        };
        let calls = Curve {
            title: "calls/s, 64 under way, more is better",
            series: vec![
                series("to ten of them", &|row| row.median(|run| Some(run.ten.rate()))),
                series("to all in turn", &|row| row.median(|run| Some(run.all.as_ref()?.rate()))),
            ],
            goal: None,
        };
        let memory = Curve {
            title: "private memory of the registry for each plugin in KiB",
            series: vec![
                series("loaded", &|row| Some(row.each(|run| run.private_bytes)? / 1024.0)),
                series("after calls", &|row| Some(row.each(|run| run.private_bytes_after)? / 1024.0)),
            ],
            goal: Some(64.0),
        };
        let load = Curve {
            title: "time until found, and until loaded, in µs for each plugin",
            series: vec![
                series("found", &|row| Some(row.each(|run| run.discovered_ns)? / 1e3)),
                series("loaded", &|row| Some(row.each(|run| run.loaded_ns)? / 1e3)),
            ],
            goal: None,
        };
        let idle = Curve {
            title: "processor time of the idle registry in % of a core",
            series: vec![series("idle", &ScaleRow::idle_percent)],
            goal: None,
        };
        let curves = [("calls", calls), ("memory", memory), ("load", load), ("idle", idle)];
        curves.map(|(name, curve)| (name, curve.svg())).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Runtime;
    use crate::report::Machine;

    fn measured(calls: u64, host_cpu_ns: u64, plugin_cpu_ns: u64) -> Measured {
        Measured {
            p50_ns: 1_000.0,
            p99_ns: None,
            p999_ns: None,
            calls,
            wall_ns: 1_000_000_000,
            host_cpu_ns,
            plugin_cpu_ns: Some(plugin_cpu_ns),
        }
    }

    fn report() -> Report {
        Report::new(Machine::default(), String::new(), String::new(), false)
    }

    /// The row of `first` in a table, without its spaces.
    fn row(table: &str, first: &str) -> Vec<String> {
        let line = table.lines().find(|line| line.starts_with(&format!("| {first} "))).unwrap();
        line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()
    }

    #[test]
    fn both_sides_of_a_rate_are_compared_with_frugal_of_the_same_round() {
        let mut report = report();
        for (frugal, host) in [(true, 1_000_000), (false, 2_000_000), (true, 10_000_000), (false, 50_000_000)] {
            let runtime = Runtime::CurrentThread;
            let job = RatesJob { plugins: 20, every_us: 1_000, frugal, runtime, time_ms: 1, plugin_cpu: None };
            report.add_rate(RateRow::new(&job, Placement::OneCore), Some(measured(1_000, host, 0)));
        }
        // 2 in the first round, 5 in the second.
        assert_eq!(row(&report.rate_tables(), "balanced/current-thread")[7], "3.50");
        assert_eq!(row(&report.rate_tables(), "frugal/current-thread")[6..], ["0.55", "1.00"]);
    }

    #[test]
    fn what_many_cost_is_divided_by_their_number() {
        let mut report = report();
        for (plugins, ten, all) in [(10, 2_000, Some(1_000)), (100, 1_000, None)] {
            let scaled = Scaled {
                discovered_ns: 1_000_000,
                loaded_ns: 2_000_000,
                private_bytes: 100 * 1024,
                private_bytes_after: 200 * 1024,
                descriptors: 200,
                idle_ns: 1_000_000_000,
                idle_cpu_ns: 5_000_000,
                idle_plugins_cpu_ns: 0,
                ten: measured(ten, 1_000_000, 0),
                all: all.map(|calls| measured(calls, 1_000_000, 0)),
            };
            report.add_scale(ScaleRow { plugins, calls_all: all.is_some(), runs: Vec::new() }, Some(scaled));
            report.add_scale(ScaleRow { plugins, calls_all: all.is_some(), runs: Vec::new() }, None);
        }
        let cells = row(&report.scale_table(), "100");
        assert_eq!(cells[1..8], ["1.00", "2.00", "1.00", "2.00", "2.00", "0.50", "0.00"]);
        assert_eq!(cells[8..], ["1000", "1.00", "0.50", "–", "–"]);
        let plots = report.scale_plots();
        assert!(plots.len() == 4 && plots.iter().all(|(_, svg)| !svg.contains("NaN")), "{plots:?}");
    }
}
