//! When more of a body may be sent: in steps, or at once when it is known how much will come. PURE.

/// Of one body, and of all bodies of a connection together, this much is taken before more is granted, so that it does not
/// cost a frame per frame.
pub(super) const CALL_STEP: u64 = 128 * 1024;
pub(super) const CONNECTION_STEP: u64 = 1024 * 1024;
/// At most so much is granted before it has come; the credit of the connection bounds all bodies together.
const AHEAD_BYTES: u64 = 4 * 1024 * 1024;

/// What was taken, and what the other side may still send of it without having been granted it again.
#[derive(Debug)]
pub(super) struct Grants {
    step: u64,
    taken: u64,
    ahead: u64,
}

impl Grants {
    pub(super) fn new(step: u64) -> Self {
        Self { step, taken: 0, ahead: 0 }
    }

    /// Takes `count` bytes, behind which the sender announces `rest_bytes` more; answers what is to be granted now, if
    /// anything.
    pub(super) fn take(&mut self, count: u64, rest_bytes: u32) -> u64 {
        let known = self.ahead.min(count);
        self.ahead -= known;
        self.taken += count - known;
        // What is known to come is granted at once: the sender would wait for every step.
        let ahead = u64::from(rest_bytes).min(AHEAD_BYTES);
        if ahead > 0 {
            self.ahead += ahead;
            return ahead;
        }
        if self.taken < self.step {
            return 0;
        }
        std::mem::take(&mut self.taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is granted is what was taken, in steps; or what comes, once.
    #[test]
    fn no_byte_is_granted_twice() {
        let mut unknown = Grants::new(CALL_STEP);
        assert_eq!([100_000, 50_000, 10].map(|count| unknown.take(count, 0)), [0, 150_000, 0]);
        let mut known = Grants::new(CALL_STEP);
        assert_eq!(known.take(256 * 1024, 700_000), 700_000);
        assert_eq!([262_144, 262_144, 175_712].map(|count| known.take(count, 0)), [262_144, 0, 0]);
        assert_eq!(Grants::new(CALL_STEP).take(0, u32::MAX), AHEAD_BYTES);
    }
}
