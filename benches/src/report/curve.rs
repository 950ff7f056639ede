//! Curves by hand: a logarithmic axis of sizes, a linear one from zero.

use std::fmt::Write;

use super::digits;

const LEFT: f64 = 70.0;
const TOP: f64 = 34.0;
const WIDTH: f64 = 520.0;
const HEIGHT: f64 = 220.0;
/// Room for the names of the series.
const RIGHT: f64 = 130.0;
const BOTTOM: f64 = 34.0;
const COLOURS: [&str; 3] = ["#3b75af", "#c4652f", "#4d8f4a"];
/// Lines across, besides the one at zero.
const LINES: u32 = 4;

/// Some series in one picture.
pub(super) struct Curve<'a> {
    pub(super) title: &'a str,
    pub(super) series: Vec<Series<'a>>,
    /// A line that is not to be crossed.
    pub(super) goal: Option<f64>,
}

/// Points from left to right.
pub(super) struct Series<'a> {
    pub(super) name: &'a str,
    pub(super) points: Vec<(f64, f64)>,
}

impl Curve<'_> {
    pub(super) fn svg(&self) -> String {
        let points = || self.series.iter().flat_map(|series| series.points.iter());
        let most = points().map(|(_, y)| *y).chain(self.goal).fold(f64::MIN_POSITIVE, f64::max) * 1.05;
        let (least, largest) =
            points().fold((f64::MAX, 1.0_f64), |(least, largest), (x, _)| (least.min(*x), largest.max(*x)));
        let across = |x: f64| match largest > least {
            true => LEFT + WIDTH * (x / least).ln() / (largest / least).ln(),
            false => LEFT + WIDTH / 2.0,
        };
        let down = |y: f64| TOP + HEIGHT * (1.0 - y / most);
        let mut drawn = format!(r#"<text x="8" y="16" font-weight="bold">{}</text>"#, self.title);
        for line in 0..=LINES {
            let value = most * f64::from(line) / f64::from(LINES);
            let (y, end, label) = (down(value), LEFT + WIDTH, LEFT - 6.0);
            _ = write!(
                drawn,
                r##"<path d="M{LEFT} {y:.1}H{end}" stroke="#dddddd"/><text x="{label}" y="{:.1}" text-anchor="end">{}</text>"##,
                y + 4.0,
                digits(value),
            );
        }
        let mut sizes: Vec<f64> = points().map(|(x, _)| *x).collect();
        sizes.sort_by(f64::total_cmp);
        sizes.dedup();
        for size in sizes {
            let (x, y) = (across(size), TOP + HEIGHT + 18.0);
            _ = write!(drawn, r#"<text x="{x:.1}" y="{y}" text-anchor="middle">{size}</text>"#);
        }
        if let Some(goal) = self.goal {
            let (y, end) = (down(goal), LEFT + WIDTH);
            _ = write!(
                drawn,
                r##"<path d="M{LEFT} {y:.1}H{end}" stroke="#aa3333" stroke-dasharray="6 4"/><text x="{}" y="{:.1}" fill="#aa3333">goal</text>"##,
                end + 8.0,
                y + 4.0,
            );
        }
        for (number, (series, colour)) in self.series.iter().zip(COLOURS).enumerate() {
            let at: Vec<_> = series.points.iter().map(|(x, y)| (across(*x), down(*y))).collect();
            let line: Vec<_> = at.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
            _ = write!(
                drawn,
                r#"<polyline points="{}" fill="none" stroke="{colour}" stroke-width="2"/>"#,
                line.join(" ")
            );
            for (x, y) in &at {
                _ = write!(drawn, r#"<circle cx="{x:.1}" cy="{y:.1}" r="3" fill="{colour}"/>"#);
            }
            let (x, y) = (LEFT + WIDTH + 8.0, TOP + 14.0 + 18.0 * number as f64);
            _ = write!(drawn, r#"<text x="{x}" y="{y}" fill="{colour}">{}</text>"#, series.name);
        }
        let (width, height) = (LEFT + WIDTH + RIGHT, TOP + HEIGHT + BOTTOM);
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" font-family=\"sans-serif\" \
             font-size=\"12\"><rect width=\"100%\" height=\"100%\" fill=\"white\"/>{drawn}</svg>\n"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_larger_value_is_higher_and_a_tenfold_size_is_as_far_as_the_next() {
        let points = vec![(10.0, 1.0), (100.0, 3.0), (1000.0, 2.0)];
        let curve = Curve { title: "t", series: vec![Series { name: "s", points }], goal: Some(4.0) };
        let svg = curve.svg();
        let line = svg.split("points=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
        let at: Vec<(f64, f64)> = line
            .split(' ')
            .map(|pair| pair.split_once(',').unwrap())
            .map(|(x, y)| (x.parse().unwrap(), y.parse().unwrap()))
            .collect();
        assert!((at[1].0 - at[0].0 - (at[2].0 - at[1].0)).abs() < 0.2, "{at:?}");
        assert!(at[1].1 < at[2].1 && at[2].1 < at[0].1, "{at:?}");
        // The goal is above all of them and inside the picture.
        assert!(at.iter().all(|(_, y)| *y > TOP && *y < TOP + HEIGHT) && svg.contains("goal"), "{svg}");
        let one = Curve { title: "t", series: vec![Series { name: "s", points: vec![(10.0, 1.0)] }], goal: None };
        assert!(!one.svg().contains("NaN"));
    }
}
