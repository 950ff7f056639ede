//! Tables that a terminal and a Markdown page can show alike.

use std::fmt::Write;

use super::{Report, Row, digits, micros};
use crate::driver::REFERENCES;

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

impl Report {
    /// A table for each case and placement, with what could not be measured behind them.
    pub fn table(&self) -> String {
        let mut text = String::new();
        for (case, placement, rows) in self.groups() {
            _ = writeln!(text, "\n### {case}, {}\n", placement.name());
            let lines: Vec<_> = rows.iter().filter_map(|row| self.line(row)).collect();
            text.push_str(&aligned(&lines));
        }
        text.push('\n');
        for note in &self.notes {
            _ = writeln!(text, "- {note}");
        }
        text
    }

    /// `None` for a row whose every round failed: it is absent.
    fn line(&self, row: &Row) -> Option<[String; 10]> {
        let shown = |value: Option<f64>, how: fn(f64) -> String| value.map_or_else(|| "–".into(), how);
        let p50 = row.median(|run| Some(run.p50_ns))?;
        let (least, most) = row.p50_range()?;
        let ratio = |reference| shown(self.ratio(row, reference), digits);
        Some([
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
        ])
    }
}

fn aligned(lines: &[[String; 10]]) -> String {
    let head = HEAD.map(str::to_owned);
    let all = || std::iter::once(&head).chain(lines);
    let width = |column: usize| all().map(|line| line[column].chars().count()).max().unwrap_or_default();
    let widths: [usize; 10] = std::array::from_fn(width);
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
            for (column, room) in widths.into_iter().enumerate() {
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
