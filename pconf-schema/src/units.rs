//! Durations and sizes as people write them: `100ms`, `10s`, `512MiB`.

use std::time::Duration;

/// Reads a whole number with `ms`, `s`, `m` or `h`.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = split(text)?;
    let ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    number.checked_mul(ms).map(Duration::from_millis)
}

/// Writes what [`duration`] reads, in the largest unit that loses nothing.
pub(crate) fn show_duration(duration: Duration) -> String {
    let ms = duration.as_millis();
    let units = [(3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    let fits = units.iter().find(|(size, _)| ms >= *size && ms.is_multiple_of(*size));
    fits.map_or_else(|| format!("{ms}ms"), |(size, unit)| format!("{}{unit}", ms / size))
}

/// Reads a whole number with `B`, `KiB`, `MiB` or `GiB`.
pub(crate) fn bytes(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    let size = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(size)
}

fn split(text: &str) -> Option<(u64, &str)> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit())?;
    Some((text[..unit_at].parse().ok()?, &text[unit_at..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_needs_its_unit() {
        for (text, ms) in [("100ms", Some(100)), ("10s", Some(10_000)), ("2m", Some(120_000)), ("1h", Some(3_600_000))]
        {
            assert_eq!(duration(text).map(|duration| duration.as_millis()), ms, "{text}");
            assert_eq!(show_duration(duration(text).unwrap()), text);
        }
        for text in ["", "10", "s", "1.5s", "-1s", "1 s", "18446744073709551615h", "1d"] {
            assert_eq!(duration(text), None, "{text}");
        }
        for (text, size) in
            [("7B", Some(7)), ("512MiB", Some(512 << 20)), ("1GiB", Some(1 << 30)), ("1MB", None), ("9", None)]
        {
            assert_eq!(bytes(text), size, "{text}");
        }
    }
}
