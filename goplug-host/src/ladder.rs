//! How a plugin ends, as a pure function: left to itself, SIGTERM, SIGKILL of everything, until nothing is left.

use goplug_pconf_schema::wire::host::HostPhase;

/// The pauses between two looks for what is left, when no end of a child brings one earlier; doubled each time.
const SWEEP_PAUSES_MS: (u64, u64) = (10, 1_000);

/// Where a plugin is in its life. Times are milliseconds of one clock that only goes forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The process runs.
    Running,
    /// It was told to end.
    Stopping {
        /// When it gets its SIGTERM; `None`: it had it.
        term_at: Option<u64>,
        kill_at: u64,
    },
    /// The process has ended, or has had its time: what is left is killed.
    Killing {
        /// Whether the plugin's own process has ended.
        exited: bool,
        next_sweep: u64,
        pause: u64,
    },
    /// No process is left.
    Ended,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Input {
    /// Somebody wants its end.
    Stop { term_after: u64, kill_after: u64 },
    /// The plugin's own process has ended.
    Exited,
    /// Some other child has ended: what was its own is ours now.
    Child,
    /// No child is left, and so no process that the plugin started: whoever loses its parent becomes our child.
    Childless,
    /// Time has passed.
    Tick,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// SIGTERM to the plugin's process group.
    Terminate,
    /// SIGKILL to every process below the host.
    Sweep,
}

impl Phase {
    /// When the next [`Input::Tick`] is due.
    pub(crate) fn deadline(self) -> Option<u64> {
        match self {
            Self::Stopping { term_at, kill_at } => Some(term_at.map_or(kill_at, |term_at| term_at.min(kill_at))),
            Self::Killing { next_sweep, .. } => Some(next_sweep),
            Self::Running | Self::Ended => None,
        }
    }

    /// As others see it.
    pub(crate) fn shown(self) -> HostPhase {
        match self {
            Self::Running => HostPhase::Running,
            Self::Stopping { .. } => HostPhase::Stopping,
            Self::Killing { .. } => HostPhase::Killing,
            Self::Ended => HostPhase::Ended,
        }
    }
}

/// What follows.
pub(crate) fn step(phase: Phase, input: Input, now: u64) -> (Phase, Option<Effect>) {
    match (phase, input) {
        (Phase::Running, Input::Stop { term_after, kill_after }) => {
            let term_at = now.saturating_add(term_after);
            due(Phase::Stopping { term_at: Some(term_at), kill_at: term_at.saturating_add(kill_after) }, now)
        }
        // Who comes later may be in more of a hurry, never in less.
        (Phase::Stopping { term_at, kill_at }, Input::Stop { term_after, kill_after }) => {
            let new = now.saturating_add(term_after);
            let kill_at = kill_at.min(new.saturating_add(kill_after));
            due(Phase::Stopping { term_at: term_at.map(|term_at| term_at.min(new)), kill_at }, now)
        }
        (Phase::Stopping { .. }, Input::Tick) => due(phase, now),
        (Phase::Running | Phase::Stopping { .. }, Input::Exited) => sweep(true, SWEEP_PAUSES_MS.0, now),
        (Phase::Killing { next_sweep, pause, .. }, Input::Exited) => {
            (Phase::Killing { exited: true, next_sweep, pause }, None)
        }
        (Phase::Killing { exited: true, .. }, Input::Childless) => (Phase::Ended, None),
        // Its children have come to us.
        (Phase::Killing { exited, .. }, Input::Child) => sweep(exited, SWEEP_PAUSES_MS.0, now),
        (Phase::Killing { exited, next_sweep, pause }, Input::Tick) if now >= next_sweep => {
            sweep(exited, SWEEP_PAUSES_MS.1.min(pause * 2), now)
        }
        (Phase::Running | Phase::Stopping { .. }, Input::Child | Input::Childless | Input::Tick)
        | (Phase::Killing { .. }, Input::Stop { .. } | Input::Childless | Input::Tick)
        | (Phase::Ended, _) => (phase, None),
    }
}

/// What of a stop is due now.
fn due(phase: Phase, now: u64) -> (Phase, Option<Effect>) {
    match phase {
        Phase::Stopping { kill_at, .. } if now >= kill_at => sweep(false, SWEEP_PAUSES_MS.0, now),
        Phase::Stopping { term_at: Some(term_at), kill_at } if now >= term_at => {
            (Phase::Stopping { term_at: None, kill_at }, Some(Effect::Terminate))
        }
        phase => (phase, None),
    }
}

fn sweep(exited: bool, pause: u64, now: u64) -> (Phase, Option<Effect>) {
    (Phase::Killing { exited, next_sweep: now.saturating_add(pause), pause }, Some(Effect::Sweep))
}

#[cfg(test)]
mod tests {
    use super::*;
    use Effect::{Sweep, Terminate};
    use Phase::{Ended, Killing, Running, Stopping};

    #[test]
    fn every_pair_of_phase_and_input() {
        let stop = |term_after, kill_after| Input::Stop { term_after, kill_after };
        let stopping = |term_at, kill_at| Stopping { term_at, kill_at };
        let killing = |exited, next_sweep, pause| Killing { exited, next_sweep, pause };
        let all = [
            // phase, input at 100, phase after it, effect
            (Running, stop(50, 500), stopping(Some(150), 650), None),
            (Running, stop(0, 500), stopping(None, 600), Some(Terminate)),
            (Running, stop(0, 0), killing(false, 110, 10), Some(Sweep)),
            (Running, stop(u64::MAX, 1), stopping(Some(u64::MAX), u64::MAX), None),
            (Running, Input::Exited, killing(true, 110, 10), Some(Sweep)),
            (Running, Input::Child, Running, None),
            (Running, Input::Childless, Running, None),
            (Running, Input::Tick, Running, None),
            (stopping(Some(150), 650), stop(10, 10), stopping(Some(110), 120), None),
            (stopping(Some(150), 650), stop(0, 10), stopping(None, 110), Some(Terminate)),
            (stopping(Some(150), 650), stop(900, 900), stopping(Some(150), 650), None),
            (stopping(None, 650), stop(0, 900), stopping(None, 650), None),
            (stopping(None, 650), stop(0, 0), killing(false, 110, 10), Some(Sweep)),
            (stopping(Some(100), 650), Input::Tick, stopping(None, 650), Some(Terminate)),
            (stopping(Some(101), 650), Input::Tick, stopping(Some(101), 650), None),
            (stopping(None, 100), Input::Tick, killing(false, 110, 10), Some(Sweep)),
            (stopping(None, 101), Input::Tick, stopping(None, 101), None),
            (stopping(None, 650), Input::Exited, killing(true, 110, 10), Some(Sweep)),
            (stopping(None, 650), Input::Child, stopping(None, 650), None),
            (stopping(None, 650), Input::Childless, stopping(None, 650), None),
            (killing(false, 105, 10), Input::Exited, killing(true, 105, 10), None),
            (killing(false, 105, 10), Input::Childless, killing(false, 105, 10), None),
            (killing(true, 105, 10), Input::Childless, Ended, None),
            (killing(true, 300, 640), Input::Child, killing(true, 110, 10), Some(Sweep)),
            (killing(true, 101, 10), Input::Tick, killing(true, 101, 10), None),
            (killing(true, 100, 10), Input::Tick, killing(true, 120, 20), Some(Sweep)),
            (killing(true, 100, 640), Input::Tick, killing(true, 1_100, 1_000), Some(Sweep)),
            (killing(true, 100, 10), stop(0, 0), killing(true, 100, 10), None),
            (Ended, stop(0, 0), Ended, None),
            (Ended, Input::Exited, Ended, None),
            (Ended, Input::Child, Ended, None),
            (Ended, Input::Childless, Ended, None),
            (Ended, Input::Tick, Ended, None),
        ];
        for (phase, input, after, effect) in all {
            assert_eq!(step(phase, input, 100), (after, effect), "{phase:?} {input:?}");
        }
    }

    #[test]
    fn a_tick_is_due_when_something_would_follow() {
        for (phase, deadline) in [
            (Running, None),
            (Stopping { term_at: Some(150), kill_at: 650 }, Some(150)),
            (Stopping { term_at: Some(900), kill_at: 650 }, Some(650)),
            (Stopping { term_at: None, kill_at: 650 }, Some(650)),
            (Killing { exited: false, next_sweep: 105, pause: 10 }, Some(105)),
            (Ended, None),
        ] {
            assert_eq!(phase.deadline(), deadline);
            if let Some(at) = deadline {
                assert_ne!(step(phase, Input::Tick, at), (phase, None), "{phase:?}");
            }
        }
    }
}
