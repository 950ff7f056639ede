//! Does a process still answer? Pings, counted. Pure.
//!
//! A registry that did not run itself knows nothing of the time that passed meanwhile: its own timers came late, and answers
//! wait unread. So whoever drives this also tells how late the own timer came; a gap begins the ping anew instead of
//! counting it as missed.

use std::time::{Duration, Instant};

use goplug_pconf_schema::manifest::Health as Rules;

/// A timer that comes later than this says that we did not run: a busy machine delays it by some ten milliseconds.
const OWN_GAP: Duration = Duration::from_millis(250);

/// What is known of a process's answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pulse {
    state: State,
    /// Pings in a row that were not answered.
    missed: u32,
    /// When we were last awake.
    awake: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The next ping is sent at this time.
    Resting(Instant),
    /// One is on its way until this time.
    Asked(Instant),
}

/// What has to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    /// Come back at this time.
    Wait(Instant),
    /// Send a ping, which replaces one that is on its way, and come back at this time.
    Ping(Instant),
    /// The process hangs.
    Hung,
}

impl Pulse {
    /// A process has just answered for the first time.
    pub(crate) fn new(rules: &Rules, now: Instant) -> Self {
        Self { state: State::Resting(now + rules.interval), missed: 0, awake: now }
    }

    /// It answered: the ping, or anything else that only a process that runs can say.
    pub(crate) fn answered(&mut self, rules: &Rules, now: Instant) -> Act {
        *self = Self::new(rules, now);
        Act::Wait(now + rules.interval)
    }

    /// The time that was asked for has come. A ping that cannot even be sent is for others to judge: the process is gone.
    pub(crate) fn tick(&mut self, rules: &Rules, now: Instant) -> Act {
        let due = match self.state {
            State::Resting(due) | State::Asked(due) => due,
        };
        let slept = now.saturating_duration_since(due.max(self.awake)) >= OWN_GAP;
        self.awake = now;
        match self.state {
            _ if now < due => Act::Wait(due),
            State::Resting(_) => self.ask(rules, now),
            // The answer may have come while we slept: ask once more before it counts.
            State::Asked(_) if slept => self.ask(rules, now),
            State::Asked(_) => {
                self.missed = self.missed.saturating_add(1);
                if self.missed >= rules.failures { Act::Hung } else { self.ask(rules, now) }
            }
        }
    }

    fn ask(&mut self, rules: &Rules, now: Instant) -> Act {
        let until = now + rules.timeout;
        self.state = State::Asked(until);
        Act::Ping(until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Drives a pulse with timers that are `late`; `answers` says whether a ping sent at that time is answered.
    fn hung_after(
        late: impl Fn(Duration) -> Duration,
        answers: impl Fn(Duration) -> bool,
        until: Duration,
    ) -> Option<Duration> {
        let (rules, begin) = (Rules::default(), Instant::now());
        let mut pulse = Pulse::new(&rules, begin);
        let mut now = begin + rules.interval;
        while now < begin + until {
            now += late(now - begin);
            match pulse.tick(&rules, now) {
                Act::Wait(due) => now = due,
                Act::Ping(due) if answers(now - begin) => {
                    now += Duration::from_millis(1);
                    let Act::Wait(due) = pulse.answered(&rules, now) else {
                        panic!("an answer calls for a rest, not {due:?}")
                    };
                    now = due;
                }
                Act::Ping(due) => now = due,
                Act::Hung => return Some(now - begin),
            }
        }
        None
    }

    const NEVER: Duration = Duration::ZERO;

    #[test]
    fn a_hang_is_found_within_three_and_a_half_seconds_and_life_is_not_a_hang() {
        let secs = Duration::from_secs;
        // Stopped right after it answered: the worst case.
        let stopped = secs(60) + Duration::from_millis(100);
        let found = hung_after(|_| NEVER, |at| at < stopped, secs(120)).unwrap();
        assert!(found - stopped <= Duration::from_millis(3_500), "{:?}", found - stopped);
        assert_eq!(hung_after(|_| NEVER, |_| true, secs(3600)), None);
        // Every third ping is answered only.
        let count = std::cell::Cell::new(0);
        let third = |_| {
            count.set(count.get() + 1);
            count.get() % 3 == 0
        };
        assert_eq!(hung_after(|_| NEVER, third, secs(3600)), None);
    }

    /// G18: the registry stops for 30 s, again and again, with pings on their way that it could not read the answers of.
    #[test]
    fn a_registry_that_slept_gives_no_false_verdict() {
        let secs = Duration::from_secs;
        // Every time that a ping is on its way; what is answered then waits in a socket that nobody reads.
        let asleep = |at: Duration| at > secs(10) && at < secs(1_000);
        let sleeps = |at: Duration| if asleep(at) { secs(30) } else { NEVER };
        assert_eq!(hung_after(sleeps, |at| !asleep(at), secs(10_000)), None);
        // A process that hangs indeed is found in spite of one such sleep.
        let once = |at: Duration| if at > secs(5) && at < secs(6) { secs(30) } else { NEVER };
        let found = hung_after(once, |at| at < secs(4), secs(300)).unwrap();
        assert!(found < secs(45), "{found:?}");
    }

    #[test]
    fn a_timer_that_comes_early_waits_on() {
        let (rules, now) = (Rules::default(), Instant::now());
        let mut pulse = Pulse::new(&rules, now);
        assert_eq!(pulse.tick(&rules, now), Act::Wait(now + rules.interval));
        let due = now + rules.interval;
        assert_eq!(pulse.tick(&rules, due), Act::Ping(due + rules.timeout));
        assert_eq!(pulse.tick(&rules, due), Act::Wait(due + rules.timeout));
    }
}
