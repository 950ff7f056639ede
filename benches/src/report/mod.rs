//! What was measured, and how it is told: [`Report::tables`] for the terminal and the page, plots for the page.

mod curve;
mod fleet;
mod machine;
mod page;
mod plot;
mod table;

use serde::Serialize;

pub use fleet::{RateRow, ScaleRow};
pub use machine::Machine;

use crate::placement::Placement;
use crate::stats::median;
use crate::{Case, Measured};

/// Everything of one run of the driver.
#[derive(Debug, Serialize)]
pub struct Report {
    /// What it was measured on.
    pub machine: Machine,
    /// What was measured.
    pub commit: String,
    /// How to measure it again.
    pub command: String,
    /// Whether it was only tried out.
    pub quick: bool,
    /// What could not be measured, and why.
    pub notes: Vec<String>,
    /// One for each subject, case and placement.
    pub rows: Vec<Row>,
    /// Calls at a given rate.
    pub rates: Vec<RateRow>,
    /// One registry with more and more plugins.
    pub scale: Vec<ScaleRow>,
    /// Where the latter was measured.
    pub scale_placement: Option<Placement>,
}

/// A subject in a case and a placement.
#[derive(Debug, Serialize)]
pub struct Row {
    /// Who.
    pub subject: String,
    /// What.
    pub case: Case,
    /// Where.
    pub placement: Placement,
    /// One for each round; `None` where it failed.
    pub runs: Vec<Option<Measured>>,
}

impl Report {
    /// A report without figures.
    pub fn new(machine: Machine, commit: String, command: String, quick: bool) -> Self {
        Self {
            machine,
            commit,
            command,
            quick,
            notes: Vec::new(),
            rows: Vec::new(),
            rates: Vec::new(),
            scale: Vec::new(),
            scale_placement: None,
        }
    }

    /// How many times as long a call takes as that of `reference` in the same round: by its median with one call under way, by
    /// the rate with several. The median over rounds.
    fn ratio(&self, row: &Row, reference: &str) -> Option<f64> {
        let same =
            |other: &&Row| other.subject == reference && other.case == row.case && other.placement == row.placement;
        let other = self.rows.iter().find(same)?;
        let rounds = row.runs.iter().zip(&other.runs).filter_map(|(run, other)| Some((run.as_ref()?, other.as_ref()?)));
        median(rounds.map(|(run, other)| match row.case.in_flight {
            1 => run.p50_ns / other.p50_ns,
            _ => other.rate() / run.rate(),
        }))
    }

    /// Placements and cases with their rows, in the order in which they are told.
    fn groups(&self) -> Vec<(Case, Placement, Vec<&Row>)> {
        let mut keys: Vec<_> = self.rows.iter().map(|row| (row.case, row.placement)).collect();
        keys.sort();
        keys.dedup();
        let rows = |case, placement| self.rows.iter().filter(move |row| (row.case, row.placement) == (case, placement));
        keys.into_iter().map(|(case, placement)| (case, placement, rows(case, placement).collect())).collect()
    }
}

impl Row {
    /// The median over rounds of what `of` says of each.
    fn median(&self, of: impl Fn(&Measured) -> Option<f64>) -> Option<f64> {
        median(self.runs.iter().flatten().filter_map(of))
    }

    /// Smallest and largest median of a round.
    fn p50_range(&self) -> Option<(f64, f64)> {
        let all = || self.runs.iter().flatten().map(|run| run.p50_ns);
        Some((all().min_by(f64::total_cmp)?, all().max_by(f64::total_cmp)?))
    }
}

/// Three significant digits, none behind the point from 100 on.
fn digits(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value if value >= 0.1 || value == 0.0 => format!("{value:.2}"),
        value => format!("{value:.3}"),
    }
}

/// As [`digits`], of a number of nanoseconds in microseconds.
fn micros(nanos: f64) -> String {
    digits(nanos / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Work;

    fn row(subject: &str, in_flight: usize, p50s: &[Option<f64>]) -> Row {
        let case = Case { work: Work::Echo, size: 64, in_flight };
        let run = |p50_ns: f64| Measured {
            p50_ns,
            p99_ns: None,
            p999_ns: None,
            calls: 1000,
            wall_ns: (p50_ns * 1000.0) as u64,
            host_cpu_ns: 500,
            plugin_cpu_ns: Some(1000),
        };
        Row {
            subject: subject.into(),
            case,
            placement: Placement::OneCore,
            runs: p50s.iter().map(|p50| p50.map(run)).collect(),
        }
    }

    #[test]
    fn ratios_are_made_in_the_same_round() {
        let mut report = Report::new(Machine::default(), String::new(), String::new(), false);
        report.rows.push(row("bare-blocking", 1, &[Some(10.0), Some(20.0), None]));
        report.rows.push(row("ours", 1, &[Some(20.0), Some(60.0), Some(1.0)]));
        report.rows.push(row("other", 64, &[Some(20.0)]));
        report.rows.push(row("bare-ring", 1, &[Some(5.0), Some(8.0)]));
        assert_eq!(report.ratio(&report.rows[1], "bare-blocking"), Some(2.5));
        assert_eq!(report.ratio(&report.rows[2], "bare-blocking"), None);
        assert_eq!(report.ratio(&report.rows[1], "nobody"), None);
        let table = report.tables();
        let line = table.lines().find(|line| line.contains("ours")).unwrap();
        assert!(line.contains("0.020 (0.001 to 0.060)") && line.contains("2.50"), "{table}");
        assert!(line.ends_with("|   5.75 |") && table.matches("× ring").count() == 1, "{table}");
        let plot = plot::plot(&report, report.rows[0].case);
        assert!(plot.starts_with("<svg") && plot.contains("ours") && !plot.contains("other"), "{plot}");
    }

    #[test]
    fn three_digits() {
        let shown = [0.0, 0.0123, 0.123, 1.234, 12.34, 123.4, 1234.5].map(digits);
        assert_eq!(shown, ["0.00", "0.012", "0.12", "1.23", "12.3", "123", "1234"]);
    }
}
