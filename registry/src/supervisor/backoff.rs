//! How long to wait before the next attempt. Pure.

use std::time::Duration;

/// The pause after the first failure.
const FIRST: Duration = Duration::from_millis(100);
/// The longest pause.
const LONGEST: Duration = Duration::from_secs(30);

/// 100 ms, doubled with each failure in a row up to 30 s, and up to a fifth shorter as `jitter` (0 to 1000) says, so that
/// plugins that failed together do not come back together.
pub(crate) fn pause(failures: u32, jitter: u32) -> Duration {
    pause_between(FIRST, LONGEST, failures, jitter)
}

/// As [`pause`], from `first` up to `longest`.
pub(crate) fn pause_between(first: Duration, longest: Duration, failures: u32, jitter: u32) -> Duration {
    let doubled = first.saturating_mul(1 << failures.saturating_sub(1).min(16));
    let whole = doubled.min(longest);
    whole - whole / 5 * jitter.min(1000) / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_half_a_minute() {
        let ms = |failures| pause(failures, 0).as_millis();
        assert_eq!(
            [ms(0), ms(1), ms(2), ms(3), ms(9), ms(10), ms(u32::MAX)],
            [100, 100, 200, 400, 25_600, 30_000, 30_000]
        );
        assert_eq!(pause(1, 1000), Duration::from_millis(80));
    }
}
