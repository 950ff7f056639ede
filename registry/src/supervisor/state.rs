//! The life of a plugin, all of it: `step(machine, input, now)` gives the next machine and what has to be done. Pure.
//!
//! ```text
//! discovered --wanted--> starting --up--> loaded --unload--> draining --> discovered | stopped
//!                        starting --refused--> failed | denied
//!                        starting|loaded --lost--> backoff --timer--> starting
//! loaded --another process in the file--> loaded, its successor starting; then the new one serves, the old one retires
//! any --file removed--> gone          discovered --a look finds it active--> loaded
//! any --its process is not there--> down --another process--> discovered | starting   (of plugins that the registry starts)
//! ```
//! A plugin is *wanted* when its file says so (auto-discover, not lazy) or when somebody asked for it; an unload ends
//! that until somebody asks again or the file changes.

use std::time::Instant;

use goplug_pconf_schema::admin::State;

use super::backoff;

/// What a supervisor knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Machine {
    pub phase: Phase,
    /// Whether it is to be loaded, and tried again when that fails.
    pub wanted: bool,
    /// Failed starts in a row; the length of the next pause follows from it.
    pub failures: u32,
}

/// Where a plugin is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Discovered,
    Starting,
    Loaded(Successor),
    /// Draining; `file_gone`: its file was removed meanwhile.
    Draining {
        file_gone: bool,
        reload: bool,
    },
    Stopped,
    Backoff {
        until: Instant,
    },
    Failed,
    Denied,
    /// Of a plugin that the registry starts: there is no process, and its keeper says why.
    Down(Down),
    Gone,
}

/// Why a plugin that the registry starts has no process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Down {
    /// It was stopped, or was never started.
    Stopped,
    /// It is being started, and does not answer yet.
    Starting,
    /// It ended, and is started again soon.
    Backoff,
    /// It cannot be started.
    Failed,
    /// It may not be started.
    Denied,
    /// The operator wants it off.
    Disabled,
}

/// What is known of the process that will take a loaded plugin's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Successor {
    None,
    Starting,
    Waiting { until: Instant },
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Input {
    /// The file was found; `auto`: it asks to be loaded by itself.
    Found { auto: bool },
    /// The file names another process now.
    Replaced { auto: bool },
    /// The file was removed.
    Removed,
    /// Somebody asks for it.
    Load,
    /// Somebody has no more use for it.
    Unload,
    /// Somebody wants it activated anew.
    Reload,
    /// The start ended well: connected, hello, activated.
    Up,
    /// A look found it active: it is taken as it is.
    Adopted,
    /// The start failed.
    NotUp(Verdict),
    /// The process died or the standing connection broke.
    Lost,
    /// Another registry deactivated it.
    Inactive,
    /// The drain ended; `stopped`: the process is leaving.
    Drained { stopped: bool },
    /// There is no process to connect to.
    Down(Down),
    /// The time that was asked for has come.
    Timer,
}

/// What a failed start means for the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It may work later: nobody listens, no answer, the activator failed.
    Retry,
    /// It will not work until something changes: it broke the protocol, its name is another.
    Refused,
    /// Its process is not one that we trust.
    Denied,
}

/// What has to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Connect, say hello, activate: the process that the file names now. A start under way is given up.
    Start,
    /// Give up a start under way.
    AbandonStart,
    /// Let the process just started serve new calls; the one that served before, if any, is drained and stopped.
    Serve,
    /// Close everything to the process that serves; its calls end.
    Drop,
    /// Take no new calls, wait for those under way, deactivate.
    Drain,
    /// Come back at this time.
    Arm(Instant),
}

impl Machine {
    pub(crate) fn new() -> Self {
        Self { phase: Phase::Discovered, wanted: false, failures: 0 }
    }

    /// The phase as users see it.
    pub(crate) fn state(&self) -> State {
        match self.phase {
            Phase::Discovered => State::Discovered,
            Phase::Starting => State::Starting,
            Phase::Loaded(_) => State::Loaded,
            Phase::Draining { .. } => State::Draining,
            Phase::Stopped => State::Stopped,
            Phase::Backoff { .. } => State::Backoff,
            Phase::Failed => State::Failed,
            Phase::Denied => State::Denied,
            Phase::Down(Down::Stopped) => State::Stopped,
            Phase::Down(Down::Starting) => State::Starting,
            Phase::Down(Down::Backoff) => State::Backoff,
            Phase::Down(Down::Failed) => State::Failed,
            Phase::Down(Down::Denied) => State::Denied,
            Phase::Down(Down::Disabled) => State::Disabled,
            Phase::Gone => State::Gone,
        }
    }

    fn to(self, phase: Phase) -> Self {
        Self { phase, ..self }
    }

    fn wanted(self, wanted: bool) -> Self {
        Self { wanted, ..self }
    }
}

/// What follows from `input`. `jitter` in 0..=1000 spreads the pauses of plugins that fail together.
pub(crate) fn step(machine: Machine, input: Input, now: Instant, jitter: u32) -> (Machine, Vec<Effect>) {
    use Effect::{AbandonStart, Arm, Drain, Drop, Serve, Start};
    let start = |machine: Machine| (machine.to(Phase::Starting), vec![Start]);
    let stay = || (machine, Vec::new());
    let pause = |failures: u32| now + backoff::pause(failures, jitter);
    match (machine.phase, input) {
        (Phase::Gone, _) => stay(),
        (phase, Input::Removed) => match phase {
            Phase::Draining { .. } => (machine.to(Phase::Draining { file_gone: true, reload: false }), Vec::new()),
            Phase::Starting => (machine.to(Phase::Gone), vec![AbandonStart]),
            Phase::Loaded(Successor::Starting) => (machine.to(Phase::Gone), vec![AbandonStart, Drop]),
            Phase::Loaded(_) => (machine.to(Phase::Gone), vec![Drop]),
            _ => (machine.to(Phase::Gone), Vec::new()),
        },

        (phase, Input::Down(down)) => {
            let effects = match phase {
                Phase::Starting => vec![AbandonStart],
                Phase::Loaded(Successor::Starting) => vec![AbandonStart, Drop],
                Phase::Loaded(_) | Phase::Draining { .. } => vec![Drop],
                _ => Vec::new(),
            };
            (machine.to(Phase::Down(down)), effects)
        }
        (Phase::Down(_), Input::Load) => (machine.wanted(true), Vec::new()),
        (Phase::Down(_), Input::Unload) => (machine.wanted(false), Vec::new()),
        (Phase::Down(_), Input::Reload) => stay(),

        // Whoever asked for a reload gets it, of the process that the file names by then.
        (Phase::Draining { reload: true, .. }, Input::Replaced { .. }) => stay(),

        (Phase::Discovered | Phase::Stopped, Input::Found { auto }) => {
            let machine = Machine { wanted: machine.wanted || auto, ..machine };
            if machine.wanted { start(machine) } else { (machine.to(Phase::Discovered), Vec::new()) }
        }
        // What was wrong may have been in the file, or in options that changed.
        (Phase::Failed | Phase::Denied, Input::Found { auto }) => {
            let machine = Machine { wanted: machine.wanted || auto, failures: 0, ..machine };
            if machine.wanted { start(machine) } else { stay() }
        }
        (_, Input::Found { auto }) => (machine.wanted(machine.wanted || auto), Vec::new()),

        (Phase::Loaded(_), Input::Replaced { .. }) => (machine.to(Phase::Loaded(Successor::Starting)), vec![Start]),
        (Phase::Draining { .. }, Input::Replaced { auto }) => {
            (machine.to(Phase::Draining { file_gone: false, reload: auto }), Vec::new())
        }
        (_, Input::Replaced { auto }) => {
            let machine = Machine { wanted: machine.wanted || auto, failures: 0, ..machine };
            if machine.wanted { start(machine) } else { (machine.to(Phase::Discovered), Vec::new()) }
        }

        (Phase::Starting | Phase::Loaded(_) | Phase::Draining { .. }, Input::Load) => {
            (machine.wanted(true), Vec::new())
        }
        (_, Input::Load) => start(Machine { wanted: true, failures: 0, ..machine }),

        (Phase::Loaded(successor), Input::Unload | Input::Reload) => {
            let reload = input == Input::Reload;
            let mut effects = vec![Drain];
            if successor == Successor::Starting {
                effects.insert(0, AbandonStart);
            }
            (machine.wanted(reload).to(Phase::Draining { file_gone: false, reload }), effects)
        }
        (Phase::Backoff { .. } | Phase::Failed | Phase::Denied, Input::Unload) => {
            (machine.wanted(false).to(Phase::Discovered), Vec::new())
        }
        (Phase::Discovered | Phase::Stopped | Phase::Backoff { .. } | Phase::Failed | Phase::Denied, Input::Reload) => {
            start(Machine { wanted: true, failures: 0, ..machine })
        }
        (_, Input::Unload | Input::Reload) => stay(),

        (Phase::Starting | Phase::Loaded(Successor::Starting), Input::Up) => {
            (Machine { phase: Phase::Loaded(Successor::None), failures: 0, ..machine }, vec![Serve])
        }
        (Phase::Discovered | Phase::Stopped, Input::Adopted) => {
            (Machine { phase: Phase::Loaded(Successor::None), wanted: true, failures: 0 }, vec![Serve])
        }
        (_, Input::Adopted) => stay(),
        (Phase::Starting, Input::NotUp(verdict)) => {
            let failures = machine.failures.saturating_add(1);
            let machine = Machine { failures, ..machine };
            match verdict {
                Verdict::Refused => (machine.to(Phase::Failed), Vec::new()),
                Verdict::Denied => (machine.to(Phase::Denied), Vec::new()),
                Verdict::Retry => {
                    let until = pause(failures);
                    (machine.to(Phase::Backoff { until }), vec![Arm(until)])
                }
            }
        }
        (Phase::Loaded(Successor::Starting), Input::NotUp(_)) => {
            // The old process goes on serving; the new one is tried again, whatever was wrong with it.
            let failures = machine.failures.saturating_add(1);
            let until = pause(failures);
            let machine = Machine { failures, ..machine };
            (machine.to(Phase::Loaded(Successor::Waiting { until })), vec![Arm(until)])
        }
        (_, Input::Up | Input::NotUp(_)) => stay(),

        (Phase::Loaded(Successor::Starting), Input::Lost) => (machine.to(Phase::Starting), vec![Drop]),
        (Phase::Loaded(_), Input::Lost) => {
            let until = pause(1);
            (machine.to(Phase::Backoff { until }), vec![Drop, Arm(until)])
        }
        (Phase::Loaded(Successor::Starting), Input::Inactive) => (machine.to(Phase::Starting), vec![Drop]),
        (Phase::Loaded(_), Input::Inactive) => (machine.wanted(false).to(Phase::Discovered), vec![Drop]),
        (_, Input::Lost | Input::Inactive) => stay(),

        (Phase::Draining { file_gone: true, .. }, Input::Drained { .. }) => (machine.to(Phase::Gone), vec![Drop]),
        (Phase::Draining { reload: true, .. }, Input::Drained { .. }) => {
            (Machine { phase: Phase::Starting, wanted: true, failures: 0 }, vec![Drop, Start])
        }
        (Phase::Draining { .. }, Input::Drained { stopped }) => {
            let phase = if stopped { Phase::Stopped } else { Phase::Discovered };
            (machine.to(phase), vec![Drop])
        }
        (_, Input::Drained { .. }) => stay(),

        (Phase::Backoff { until }, Input::Timer) if now >= until => start(machine),
        (Phase::Loaded(Successor::Waiting { until }), Input::Timer) if now >= until => {
            (machine.to(Phase::Loaded(Successor::Starting)), vec![Start])
        }
        (_, Input::Timer) => stay(),
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
