//! Tables that a terminal and a Markdown page can show alike.

use std::fmt::Write;

use super::{Report, Row, digits, micros};
use crate::driver::REFERENCES;
use crate::{Case, Work};

const HEAD: [&str; 10] = [
    "subject",
    "p50 µs (rounds)",
    "p99",
    "p99.9",
    "calls/s",
    "CPU µs host",
    "CPU µs plugin",
    "× blocking",
    "× polling",
    "× tokio",
];
/// Where shared memory was measured beside its reference.
const RING: (&str, &str) = ("bare-ring", "× ring");
/// Of bytes that go one way.
const ONE_WAY: [&str; 2] = ["GB/s", "of memcpy"];

impl Report {
    /// Every figure, with what could not be measured behind them.
    pub fn tables(&self) -> String {
        let mut text = self.calls_tables();
        text.push_str(&self.rate_tables());
        if !self.scale.is_empty() {
            _ = write!(text, "\n### Many plugins{}\n\n{}", self.scale_place(), self.scale_table());
        }
        text.push('\n');
        text.push_str(&self.list_of_notes());
        text
    }

    /// A table for each case and placement.
    pub(super) fn calls_tables(&self) -> String {
        let mut text = String::new();
        for (case, placement, rows) in self.groups() {
            _ = writeln!(text, "\n### {case}, {}\n", placement.name());
            let mut head = HEAD.to_vec();
            if is_one_way(case) {
                head.extend(ONE_WAY);
            }
            let has_ring = rows.iter().any(|row| row.subject == RING.0);
            if has_ring {
                head.push(RING.1);
            }
            let lines: Vec<_> = rows.iter().filter_map(|row| self.line(row, has_ring)).collect();
            text.push_str(&aligned(&head, &lines));
        }
        text
    }

    pub(super) fn list_of_notes(&self) -> String {
        self.notes.iter().map(|note| format!("- {note}\n")).collect()
    }

    /// `None` for a row whose every round failed: it is absent.
    fn line(&self, row: &Row, has_ring: bool) -> Option<Vec<String>> {
        let p50 = row.median(|run| Some(run.p50_ns))?;
        let (least, most) = row.p50_range()?;
        let ratio = |reference| shown(self.ratio(row, reference), digits);
        let mut line = vec![
            row.subject.clone(),
            format!("{} ({} to {})", micros(p50), micros(least), micros(most)),
            shown(row.median(|run| run.p99_ns), micros),
            shown(row.median(|run| run.p999_ns), micros),
            shown(row.median(|run| Some(run.rate())), digits),
            shown(row.median(|run| Some(run.host_cpu_per_call_ns())), micros),
            shown(row.median(|run| run.plugin_cpu_per_call_ns()), micros),
            ratio(REFERENCES[0]),
            ratio(REFERENCES[1]),
            ratio(REFERENCES[2]),
        ];
        if is_one_way(row.case) {
            let speed = |run: &crate::Measured| Some(row.case.size as f64 / run.p50_ns);
            line.push(shown(row.median(speed), digits));
            line.push(shown(self.ratio(row, REFERENCES[3]).map(|times| 1.0 / times), digits));
        }
        if has_ring {
            line.push(ratio(RING.0));
        }
        Some(line)
    }
}

fn is_one_way(case: Case) -> bool {
    case.work != Work::Echo
}

pub(super) fn shown(value: Option<f64>, how: fn(f64) -> String) -> String {
    value.map_or_else(|| "–".into(), how)
}

/// A table whose columns have one width each, whatever is in them.
pub(super) fn aligned(head: &[&str], lines: &[Vec<String>]) -> String {
    let head: Vec<String> = head.iter().map(|cell| (*cell).to_owned()).collect();
    let all = || std::iter::once(&head).chain(lines);
    let width = |column: usize| all().map(|line| line[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut text = String::new();
    for (number, line) in all().enumerate() {
        for (column, cell) in line.iter().enumerate() {
            let room = widths[column];
            _ = match column {
                0 => write!(text, "| {cell:room$} "),
                _ => write!(text, "| {cell:>room$} "),
            };
        }
        text.push_str("|\n");
        if number == 0 {
            for (column, room) in widths.iter().enumerate() {
                _ = match column {
                    0 => write!(text, "|{}", "-".repeat(room + 2)),
                    _ => write!(text, "|{}:", "-".repeat(room + 1)),
                };
            }
            text.push_str("|\n");
        }
    }
    text
}
