//! Percentiles of samples, medians of repeats.

/// Durations of calls, bounded: past the bound calls are still counted.
#[derive(Debug)]
pub(crate) struct Samples {
    nanos: Vec<u32>,
    room: usize,
    pub(crate) calls: u64,
}

impl Samples {
    pub(crate) fn new(room: usize) -> Self {
        // Written once, so that no page fault of ours falls into the measurement.
        let mut nanos = vec![1; room];
        nanos.clear();
        Self { nanos, room, calls: 0 }
    }

    pub(crate) fn record(&mut self, nanos: u128) {
        self.calls += 1;
        if self.nanos.len() < self.room {
            self.nanos.push(u32::try_from(nanos).unwrap_or(u32::MAX));
        }
    }

    pub(crate) fn absorb(&mut self, other: Self) {
        self.calls += other.calls;
        self.nanos.extend(other.nanos);
    }

    pub(crate) fn sort(&mut self) {
        self.nanos.sort_unstable();
    }

    /// The smallest sample that `per_mille` of 1,000 do not exceed, if there are at least `least` samples. Sorted ones only.
    pub(crate) fn percentile(&self, per_mille: usize, least: usize) -> Option<f64> {
        let rank = (self.nanos.len() * per_mille).div_ceil(1000).max(1);
        (self.nanos.len() >= least.max(1)).then(|| f64::from(self.nanos[rank - 1]))
    }
}

/// The middle value, or the mean of the two middle ones; `None` of none.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    let lower = values[(values.len() - 1) / 2];
    Some(f64::midpoint(lower, upper))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_ranks() {
        let mut samples = Samples::new(1000);
        (1..=1001).rev().for_each(|nanos| samples.record(nanos));
        samples.sort();
        assert_eq!(samples.calls, 1001);
        // The last one, 1, had no room.
        assert_eq!((samples.percentile(500, 1), samples.percentile(999, 1000)), (Some(501.0), Some(1000.0)));
        assert_eq!(samples.percentile(999, 1001), None);
        assert_eq!(Samples::new(5).percentile(500, 0), None);
    }

    #[test]
    fn medians() {
        assert_eq!(median([]), None);
        assert_eq!(median([3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median([4.0, 1.0]), Some(2.5));
    }
}
