//! Durations as people write them: `500ms`, `10s`, `1m`.

use std::time::Duration;

use goplug_pconf_schema::printable;
use goplug_pconf_schema::wire::call::MAX_DEADLINE_MS;

/// Reads a number with a unit, `ns`, `us`, `ms`, `s`, `m` or `h`; a fraction is allowed. At most a day.
///
/// # Errors
/// Says what is wrong and how to write it.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let unit_at = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let seconds_per_unit = match unit {
        "ns" => 1e-9,
        "us" | "µs" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "" => return Err(format!("`{}` has no unit: write 500ms, 10s, 1m or 1h", printable(text))),
        _ => return Err(format!("`{}` is no duration: write 500ms, 10s, 1m or 1h", printable(text))),
    };
    let number: f64 =
        number.parse().map_err(|_| format!("`{}` does not begin with a number: write 10s", printable(text)))?;
    let limit = Duration::from_millis(MAX_DEADLINE_MS);
    Duration::try_from_secs_f64(number * seconds_per_unit)
        .ok()
        .filter(|duration| *duration <= limit)
        .ok_or_else(|| format!("`{}` is longer than a day, the limit is 24h", printable(text)))
}

/// A duration for people: three digits and a unit.
pub(crate) fn show(duration: Duration) -> String {
    let ns = duration.as_nanos() as f64;
    let (value, unit) = match ns {
        _ if ns < 1e3 => return format!("{ns:.0} ns"),
        _ if ns < 1e6 => (ns / 1e3, "µs"),
        _ if ns < 1e9 => (ns / 1e6, "ms"),
        _ => (ns / 1e9, "s"),
    };
    let decimals = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.decimals$} {unit}")
}

/// Nanoseconds of a duration, for JSON; 584 years at most.
pub(crate) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_with_their_unit() {
        for (text, ms) in
            [("500ms", 500), ("10s", 10_000), ("1m", 60_000), ("1.5s", 1500), ("0s", 0), ("24h", 86_400_000)]
        {
            assert_eq!(parse(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        assert_eq!(parse("7us"), Ok(Duration::from_micros(7)));
        let refused =
            [("10", "no unit"), ("", "no unit"), ("s", "begin with a number"), ("1..2s", "begin with a number")];
        for (text, why) in refused.into_iter().chain([
            ("5d", "no duration"),
            ("-1s", "no duration"),
            ("25h", "longer"),
            ("1e9s", "no duration"),
        ]) {
            assert!(parse(text).unwrap_err().contains(why), "{text}: {:?}", parse(text));
        }
    }

    #[test]
    fn durations_are_shown_with_three_digits() {
        for (ns, shown) in [
            (999, "999 ns"),
            (1_234, "1.23 µs"),
            (56_700_000, "56.7 ms"),
            (2_000_000_000, "2.00 s"),
            (345_600, "346 µs"),
        ] {
            assert_eq!(show(Duration::from_nanos(ns)), shown);
        }
    }
}
