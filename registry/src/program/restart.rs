//! A process that we started has ended by itself: is it started again, when, or never? Pure.

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use goplug_pconf_schema::manifest::{Restart, RestartPolicy};

use crate::supervisor::backoff::pause_between;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// It could not be started, or did not answer in time and was ended for it.
    NotReady,
    /// It hung, and was ended for it.
    Hung,
    /// It ended, and nobody can say how.
    Unknown,
}

/// What follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is started again at this time.
    Again(Instant),
    /// It stays stopped: its policy says so.
    Stopped,
    /// It stays down until somebody asks: why.
    Failed(String),
}

/// What is remembered of a plugin's starts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Starts {
    /// Those within the window, the oldest first; at most as many as are allowed.
    recent: VecDeque<Instant>,
    /// Ends in a row without a healthy time between; the length of the next pause follows from it.
    failures: u32,
}

impl Starts {
    /// A process is being started.
    pub(crate) fn started(&mut self, rules: &Restart, now: Instant) {
        self.forget(rules, now);
        self.recent.push_back(now);
        while self.recent.len() > rules.max as usize {
            self.recent.pop_front();
        }
    }

    /// Somebody asks for it: what was before does not count.
    pub(crate) fn reset(&mut self) {
        *self = Self::default();
    }

    /// The process ended; `healthy_for`: how long it had answered by then. `jitter` in 0..=1000 spreads the pauses of plugins
    /// that ended together.
    pub(crate) fn ended(
        &mut self,
        rules: &Restart,
        exit: Exit,
        healthy_for: Option<Duration>,
        now: Instant,
        jitter: u32,
    ) -> Verdict {
        if healthy_for.is_some_and(|healthy| healthy >= rules.window) {
            self.reset();
        }
        let again = match rules.policy {
            RestartPolicy::Always => true,
            RestartPolicy::OnFailure => exit != Exit::Code(0),
            RestartPolicy::Never => false,
        };
        if !again {
            // Whoever never wants it again still wants to know that it did not end well.
            let fine = exit == Exit::Code(0);
            return if fine {
                Verdict::Stopped
            } else {
                Verdict::Failed(format!("it {exit}, and its restart policy is `never`"))
            };
        }
        self.failures = self.failures.saturating_add(1);
        let due = now + pause_between(rules.backoff.first, rules.backoff.longest, self.failures, jitter);
        self.forget(rules, now);
        // By the time that the pause is over some may be out of the window; but then it is no crash loop.
        let still = self.recent.iter().filter(|start| due.saturating_duration_since(**start) < rules.window).count();
        if still >= rules.max as usize {
            let window = humantime::format_duration(rules.window);
            return Verdict::Failed(format!(
                "it {exit}, for the {still}. time within {window}: the limit is {} starts",
                rules.max
            ));
        }
        Verdict::Again(due)
    }

    fn forget(&mut self, rules: &Restart, now: Instant) {
        while self.recent.front().is_some_and(|start| now.saturating_duration_since(*start) >= rules.window) {
            self.recent.pop_front();
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "ended with exit code {code}"),
            Self::Signal(signal) => write!(f, "was ended by signal {signal}"),
            Self::NotReady => f.write_str("did not come up"),
            Self::Hung => f.write_str("hung"),
            Self::Unknown => f.write_str("ended, nobody knows how"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use goplug_pconf_schema::manifest::Backoff;

    const MS: Duration = Duration::from_millis(1);

    fn rules(policy: RestartPolicy) -> Restart {
        Restart { policy, ..Restart::default() }
    }

    #[test]
    fn the_policy_says_what_follows_which_end() {
        use RestartPolicy::{Always, Never, OnFailure};
        for (policy, exit, expected) in [
            (Always, Exit::Code(0), "again"),
            (Always, Exit::Signal(9), "again"),
            (OnFailure, Exit::Code(0), "stopped"),
            (OnFailure, Exit::Code(3), "again"),
            (OnFailure, Exit::Signal(11), "again"),
            (OnFailure, Exit::NotReady, "again"),
            (OnFailure, Exit::Hung, "again"),
            (OnFailure, Exit::Unknown, "again"),
            (Never, Exit::Code(0), "stopped"),
            (Never, Exit::Code(3), "it ended with exit code 3, and its restart policy is `never`"),
            (Never, Exit::Signal(9), "it was ended by signal 9, and its restart policy is `never`"),
        ] {
            let (mut starts, now) = (Starts::default(), Instant::now());
            starts.started(&rules(policy), now);
            let verdict = starts.ended(&rules(policy), exit, None, now, 0);
            let shown = match &verdict {
                Verdict::Again(due) => {
                    assert_eq!(*due, now + 100 * MS);
                    "again"
                }
                Verdict::Stopped => "stopped",
                Verdict::Failed(why) => why,
            };
            assert_eq!(shown, expected, "{policy:?} {exit:?}");
        }
    }

    /// F28: at most five starts in ten seconds, then `failed` with the reason.
    #[test]
    fn a_crash_loop_ends_after_five_starts() {
        let (rules, mut starts, begin) = (rules(RestartPolicy::OnFailure), Starts::default(), Instant::now());
        let (mut now, mut count) = (begin, 0);
        let why = loop {
            starts.started(&rules, now);
            count += 1;
            assert!(count < 100, "nobody ends it");
            now += MS;
            match starts.ended(&rules, Exit::Code(1), None, now, 500) {
                Verdict::Again(due) => now = due,
                Verdict::Failed(why) => break why,
                Verdict::Stopped => panic!("a failure is no stop"),
            }
        };
        assert_eq!(
            (count, why.as_str()),
            (5, "it ended with exit code 1, for the 5. time within 10s: the limit is 5 starts")
        );
        assert!(now - begin < Duration::from_secs(2));
        starts.reset();
        starts.started(&rules, now);
        assert!(
            matches!(starts.ended(&rules, Exit::Code(1), None, now, 0), Verdict::Again(_)),
            "somebody asked for it again"
        );
    }

    #[test]
    fn a_healthy_time_makes_a_new_beginning() {
        let (rules, mut starts, mut now) = (rules(RestartPolicy::Always), Starts::default(), Instant::now());
        for _ in 0..100 {
            starts.started(&rules, now);
            now += rules.window;
            let verdict = starts.ended(&rules, Exit::Signal(9), Some(rules.window), now, 0);
            assert_eq!(verdict, Verdict::Again(now + 100 * MS));
        }
    }

    /// Whatever happens when: no window holds more starts than allowed, no pause is out of its bounds, and a process that is
    /// given up was started as often as is allowed.
    #[test]
    fn a_random_life_never_starts_too_often() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = move |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % below
        };
        for _ in 0..300 {
            let backoff = Backoff { first: 10 * MS, longest: 500 * MS };
            let rules = Restart {
                max: 1 + random(8) as u32,
                window: Duration::from_millis(1_000 + random(4_000)),
                backoff,
                policy: RestartPolicy::Always,
            };
            let (mut starts, mut now, mut all) = (Starts::default(), Instant::now(), Vec::<Instant>::new());
            for _ in 0..200 {
                starts.started(&rules, now);
                all.push(now);
                let within = all.iter().filter(|start| now - **start < rules.window).count();
                assert!(within <= rules.max as usize, "{within} of {rules:?}");
                let lived = Duration::from_millis(random(2) * random(8_000));
                now += lived;
                match starts.ended(&rules, Exit::Code(1), Some(lived), now, random(1_001) as u32) {
                    Verdict::Again(due) => {
                        assert!(due - now >= 8 * MS && due - now <= rules.backoff.longest);
                        now = due;
                    }
                    Verdict::Failed(_) => {
                        let within = all.iter().filter(|start| now - **start < rules.window).count();
                        assert_eq!(within, rules.max as usize, "given up too early");
                        starts.reset();
                        all.clear();
                        now += MS;
                    }
                    Verdict::Stopped => panic!("the policy is `always`"),
                }
            }
        }
    }
}
