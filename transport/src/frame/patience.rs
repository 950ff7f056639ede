//! How long a reader looks again and again before it sleeps. PURE.
//!
//! To be woken on another core costs tens of microseconds, whatever the protocol; a peer that answers sooner is better
//! waited for. A peer that does not must not cost a core. So the window follows what was observed: a look that found
//! something keeps it open, about four times as long as the answers took; two in vain close it, and it is tried again
//! only after a number of sleeps that doubles while trying stays in vain. And nobody looks after a long silence: the peer
//! sleeps by then, its waking is most of what would be waited for, and calls that come seldom must not burn a core.

use std::time::Duration;

pub use goplug_pconf_schema::settings::Latency;

/// The window of [`Latency::Low`].
const LOW: Duration = Duration::from_micros(200);
/// The widest and the narrowest window of [`Latency::Balanced`].
const WIDEST: Duration = Duration::from_micros(100);
const NARROWEST: Duration = Duration::from_micros(20);
/// After a longer silence nobody looks.
const SILENCE: Duration = Duration::from_micros(500);
/// Looks in vain before the window closes.
const MISSES: u32 = 2;
/// How many sleeps it stays closed at first, and at most.
const CLOSED: (u32, u32) = (16, 256);

/// What one reader has learnt.
#[derive(Debug, Clone)]
pub(super) struct Patience {
    latency: Latency,
    window: Duration,
    misses: u32,
    /// Sleeps until the window is tried again.
    closed_for: u32,
    /// How long it closes the next time.
    next: u32,
}

impl Patience {
    pub(super) fn new(latency: Latency) -> Self {
        Self { latency, window: WIDEST, misses: 0, closed_for: 0, next: CLOSED.0 }
    }

    /// How long to look before this sleep, when nothing has come for `silence`.
    pub(super) fn window(&self, silence: Duration) -> Duration {
        match self.latency {
            Latency::Low => LOW,
            Latency::Frugal => Duration::ZERO,
            Latency::Balanced if self.closed_for > 0 || silence > SILENCE => Duration::ZERO,
            Latency::Balanced => self.window,
        }
    }

    /// Something came while looking, this long after the first look.
    pub(super) fn found(&mut self, after: Duration) {
        (self.misses, self.next) = (0, CLOSED.0);
        // A quarter of the way to four times what it took.
        self.window = ((self.window * 3 + after * 4) / 4).clamp(NARROWEST, WIDEST);
    }

    /// Nothing came within the window, or it was closed: the reader sleeps. `silence` is what the window was asked with.
    pub(super) fn slept(&mut self, silence: Duration) {
        if self.latency != Latency::Balanced || silence > SILENCE {
            return;
        }
        if self.closed_for > 0 {
            self.closed_for -= 1;
            return;
        }
        self.misses += 1;
        if self.misses >= MISSES {
            self.misses = MISSES - 1;
            (self.closed_for, self.next) = (self.next, CLOSED.1.min(self.next * 2));
            self.window = WIDEST;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MICROSECOND: Duration = Duration::from_micros(1);

    /// Plays `waits` waits of `gap` each; answers how long was looked in all.
    fn play(patience: &mut Patience, waits: u32, gap: Duration) -> Duration {
        let mut looked = Duration::ZERO;
        for _ in 0..waits {
            let window = patience.window(Duration::ZERO);
            looked += window.min(gap);
            if gap <= window { patience.found(gap) } else { patience.slept(Duration::ZERO) }
        }
        looked
    }

    #[test]
    fn quick_answers_are_waited_for_and_the_window_narrows() {
        let mut patience = Patience::new(Latency::Balanced);
        play(&mut patience, 50, 3 * MICROSECOND);
        assert_eq!(patience.window(Duration::ZERO), NARROWEST);
        play(&mut patience, 50, 20 * MICROSECOND);
        assert!(patience.window(Duration::ZERO) > 60 * MICROSECOND, "{patience:?}");
    }

    #[test]
    fn slow_answers_cost_almost_nothing() {
        let mut patience = Patience::new(Latency::Balanced);
        let looked = play(&mut patience, 10_000, Duration::from_millis(1));
        assert!(looked < 10_000 * MICROSECOND, "less than a microsecond each: {looked:?}");
    }

    #[test]
    fn a_burst_after_silence_is_waited_for_again() {
        let mut patience = Patience::new(Latency::Balanced);
        play(&mut patience, 10_000, Duration::from_millis(1));
        play(&mut patience, CLOSED.1 + 1, 60 * MICROSECOND);
        assert!(patience.window(Duration::ZERO) >= 60 * MICROSECOND);
        assert_eq!(patience.closed_for, 0);
    }

    #[test]
    fn one_late_answer_among_quick_ones_changes_nothing() {
        let mut patience = Patience::new(Latency::Balanced);
        for _ in 0..100 {
            play(&mut patience, 10, 3 * MICROSECOND);
            play(&mut patience, 1, Duration::from_millis(1));
            assert!(patience.window(Duration::ZERO) > Duration::ZERO);
        }
    }

    /// Whoever calls once a millisecond would look for as long as the plugin takes to wake up, each time and never in vain.
    #[test]
    fn after_a_silence_nobody_looks_and_nothing_is_learnt() {
        let mut patience = Patience::new(Latency::Balanced);
        for _ in 0..100 {
            assert_eq!(patience.window(Duration::from_millis(1)), Duration::ZERO);
            patience.slept(Duration::from_millis(1));
        }
        assert_eq!(patience.window(10 * MICROSECOND), WIDEST);
    }

    #[test]
    fn low_always_looks_and_frugal_never() {
        let (mut low, mut frugal) = (Patience::new(Latency::Low), Patience::new(Latency::Frugal));
        play(&mut low, 100, Duration::from_millis(1));
        play(&mut frugal, 100, MICROSECOND);
        let windows = [Duration::ZERO, 2 * SILENCE].map(|silence| (low.window(silence), frugal.window(silence)));
        assert_eq!(windows, [(LOW, Duration::ZERO); 2]);
    }
}
