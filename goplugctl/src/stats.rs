//! Times of many calls in little memory.

use std::time::Duration;

/// Parts into which every doubling is divided: a time is known to 1 in 64.
const PARTS: u64 = 64;
const BUCKETS: usize = 64 * PARTS as usize;

/// Counts of times in buckets that grow with the time.
pub(crate) struct Times {
    buckets: Vec<u64>,
    count: u64,
    longest: u64,
}

impl Times {
    /// No times yet.
    pub(crate) fn new() -> Self {
        Self { buckets: vec![0; BUCKETS], count: 0, longest: 0 }
    }

    /// Takes note of one time.
    pub(crate) fn record(&mut self, time: Duration) {
        let ns = crate::duration::nanoseconds(time);
        self.buckets[bucket(ns)] += 1;
        self.count += 1;
        self.longest = self.longest.max(ns);
    }

    /// How many times were recorded.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// The longest.
    pub(crate) fn longest(&self) -> Duration {
        Duration::from_nanos(self.longest)
    }

    /// The time within which `permille` of 1,000 lie: 999 is p99.9. Zero if there are none.
    pub(crate) fn percentile(&self, permille: u64) -> Duration {
        let rank = self.count.saturating_mul(permille).div_ceil(1000).max(1);
        let mut seen = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Duration::from_nanos(upper_end(index).min(self.longest));
            }
        }
        Duration::ZERO
    }
}

fn bucket(ns: u64) -> usize {
    if ns < PARTS {
        return usize::try_from(ns).unwrap_or(0);
    }
    let exponent = u64::from(ns.ilog2() - PARTS.ilog2());
    let part = (ns >> exponent) - PARTS;
    usize::try_from((exponent + 1) * PARTS + part).unwrap_or(BUCKETS - 1)
}

fn upper_end(bucket: usize) -> u64 {
    let (exponent, part) = (bucket as u64 / PARTS, bucket as u64 % PARTS);
    match exponent.checked_sub(1) {
        None => part,
        Some(exponent) => ((u128::from(PARTS + part + 1) << exponent) - 1).min(u128::from(u64::MAX)) as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_right_to_one_in_sixty_four() {
        let mut times = Times::new();
        for us in 1..=1000 {
            times.record(Duration::from_micros(us));
        }
        for (permille, us) in [(500, 500.0), (990, 990.0), (999, 999.0), (1000, 1000.0), (0, 1.0)] {
            let found = times.percentile(permille).as_secs_f64() * 1e6;
            assert!((found / us - 1.0).abs() < 1.0 / 64.0, "{permille} of 1,000: {found} µs");
        }
        assert_eq!((times.count(), times.longest()), (1000, Duration::from_millis(1)));
    }

    #[test]
    fn every_time_has_its_bucket() {
        for ns in [0, 1, 63, 64, 65, 127, 128, 1_000_000, u64::MAX / 2, u64::MAX] {
            let index = bucket(ns);
            assert!(index < BUCKETS && upper_end(index) >= ns, "{ns}");
            assert!(index == 0 || upper_end(index - 1) < ns, "{ns}");
        }
        assert_eq!(Times::new().percentile(990), Duration::ZERO);
    }
}
