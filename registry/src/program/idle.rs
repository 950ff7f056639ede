//! Does anybody still need this process? Pure.

use std::time::{Duration, Instant};

/// What is known of the use of a plugin.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Use {
    /// When the last call ended, or else when the process came up.
    pub(crate) last: Instant,
    /// Calls under way.
    pub(crate) calls: u64,
    /// Subscriptions that are attached: whoever listens needs it.
    pub(crate) subscriptions: u64,
    /// Plugins that run and require it.
    pub(crate) dependants: u64,
}

/// What follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing, until something changes.
    Needed,
    /// Look again at this time.
    Later(Instant),
    /// It is stopped, to be started by the next call.
    Stop,
}

/// Whether a process that nobody used since `after` is stopped now.
pub(crate) fn verdict(after: Option<Duration>, seen: &Use, now: Instant) -> Verdict {
    let Some(after) = after else { return Verdict::Needed };
    if seen.calls + seen.subscriptions + seen.dependants > 0 {
        return Verdict::Needed;
    }
    let due = seen.last + after;
    if now >= due { Verdict::Stop } else { Verdict::Later(due) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_is_not_used_for_long_enough_is_stopped() {
        let last = Instant::now();
        let unused = Use { last, calls: 0, subscriptions: 0, dependants: 0 };
        let (minute, second) = (Duration::from_secs(60), Duration::from_secs(1));
        for (after, seen, now, expected) in [
            (None, unused, last + 1000 * minute, Verdict::Needed),
            (Some(minute), unused, last, Verdict::Later(last + minute)),
            (Some(minute), unused, last + minute - second, Verdict::Later(last + minute)),
            (Some(minute), unused, last + minute, Verdict::Stop),
            (Some(minute), Use { calls: 1, ..unused }, last + 2 * minute, Verdict::Needed),
            (Some(minute), Use { subscriptions: 1, ..unused }, last + 2 * minute, Verdict::Needed),
            (Some(minute), Use { dependants: 1, ..unused }, last + 2 * minute, Verdict::Needed),
        ] {
            assert_eq!(verdict(after, &seen, now), expected, "{after:?} {seen:?}");
        }
    }
}
