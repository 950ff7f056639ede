//! A bar chart by hand: every subject of a case, placement by placement, on one linear scale from zero.

use std::fmt::Write;

use super::{Report, Row, digits};
use crate::Case;

const LABEL: f64 = 260.0;
const BARS: f64 = 460.0;
const VALUE: f64 = 90.0;
const LINE: f64 = 18.0;

/// The chart as SVG: durations with one call under way, rates with several.
pub(super) fn plot(report: &Report, case: Case) -> String {
    let one = case.in_flight == 1;
    let figure = |row: &Row| match one {
        true => row.median(|run| Some(run.p50_ns / 1000.0)),
        false => row.median(|run| Some(run.rate() / 1000.0)),
    };
    let groups: Vec<_> = report.groups().into_iter().filter(|(of, ..)| *of == case).collect();
    let rows = || groups.iter().flat_map(|(.., rows)| rows.iter());
    let largest = rows().filter_map(|row| figure(row)).fold(f64::MIN_POSITIVE, f64::max);
    let unit = if one { "p50 in µs, less is better" } else { "thousand calls/s, more is better" };
    let mut y = 24.0;
    let mut bars = format!(r#"<text x="8" y="16" font-weight="bold">{case}: {unit}</text>"#);
    for (_, placement, rows) in &groups {
        y += LINE;
        _ = write!(bars, r#"<text x="8" y="{y}" font-style="italic">{}</text>"#, placement.name());
        y += 6.0;
        for (row, value) in rows.iter().filter_map(|row| Some((row, figure(row)?))) {
            let width = (BARS * value / largest).max(1.0);
            let fill = if row.subject.starts_with("bare-") { "#999999" } else { "#3b75af" };
            let (middle, label, end) = (y + LINE - 5.0, LABEL - 8.0, LABEL + width + 6.0);
            _ = write!(
                bars,
                r#"<text x="{label}" y="{middle}" text-anchor="end">{}</text><rect x="{LABEL}" y="{}" width="{width:.1}" height="{}" fill="{fill}"/><text x="{end:.1}" y="{middle}">{}</text>"#,
                escaped(&row.subject),
                y + 3.0,
                LINE - 5.0,
                digits(value),
            );
            y += LINE;
        }
    }
    let (width, height) = (LABEL + BARS + VALUE, y + 12.0);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" font-family=\"sans-serif\" \
         font-size=\"12\"><rect width=\"100%\" height=\"100%\" fill=\"white\"/>{bars}</svg>\n"
    )
}

/// Names come from other programs.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
