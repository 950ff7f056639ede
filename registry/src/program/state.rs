//! The life of an installed plugin's process, all of it: `step(machine, input)` gives the next machine and what has to be done.
//! Pure.
//!
//! ```text
//! stopped --start--> starting --ready--> running --stop--> stopping --parted--> stopped
//!                    starting --not ready-----+
//!                    running --ended by itself+--> backoff --timer--> starting     (too often: failed; meant to: stopped)
//!                    starting --not what was installed--> denied
//! running --manifest changed--> running, its successor starting; ready: it takes the place
//! running --nobody calls--> stopping --> asleep --a call--> starting
//! any --disable--> disabled       manifest removed --> gone
//! ```
//! Whether the process is *activated* is another life: that of `supervisor/state.rs`, which is told where a process serves
//! and when there is none.

use std::time::Instant;

use goplug_pconf_schema::admin::State;

/// What a program's keeper knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Machine {
    pub phase: Phase,
    /// Whether it is to run, and to be started again when it ends.
    pub wanted: bool,
}

/// Where the process is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Stopped,
    /// Stopped because nobody called it: the next call starts it.
    Asleep,
    Starting,
    /// `successor`: a process of the changed manifest is starting.
    Running {
        successor: bool,
    },
    /// Being stopped; what follows.
    Stopping(Then),
    Backoff {
        until: Instant,
    },
    Failed,
    /// What is installed is not what was verified.
    Denied,
    Disabled,
    Gone,
}

/// What follows a stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    Stopped,
    Asleep,
    Start,
    Disabled,
    Gone,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Input {
    /// The manifest was found; `auto`: it asks to be started by itself.
    Installed {
        auto: bool,
    },
    /// The manifest says something else now.
    Changed,
    /// The manifest was removed.
    Removed,
    Start,
    Stop,
    Restart,
    Disable,
    /// As [`Input::Installed`], after a disable.
    Enable {
        auto: bool,
    },
    /// A process that an earlier registry started runs.
    Adopted,
    /// The process that was launched answers.
    Ready,
    /// It could not be launched, ended before, or did not answer in time; it is gone.
    NotReady(After),
    /// The process that serves ended by itself.
    Ended(After),
    /// Nobody called it for long.
    Idle,
    /// The stop is complete: nothing is left of the process.
    Parted,
    /// The time that was asked for has come.
    Timer,
}

/// What follows when a process ended, as its restart policy says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum After {
    /// Another one is started then.
    Again(Instant),
    /// It meant to end.
    Stay,
    /// It fails too often, or is not to be started again.
    GiveUp,
    /// It may not run: nothing of it was started.
    Deny,
}

/// What has to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Start a process as the manifest says now, and wait until it answers.
    Launch,
    /// End the process that is being started.
    Abandon,
    /// Tell the supervisor where the process that has just become ready serves. One that served before is retired.
    Offer,
    /// Tell the supervisor that there is no process.
    Withdraw,
    /// Drain the process that serves, ask it to stop, and end everything of it.
    Part,
    /// Come back at this time.
    Arm(Instant),
}

impl Machine {
    pub(crate) fn new(disabled: bool) -> Self {
        Self { phase: if disabled { Phase::Disabled } else { Phase::Stopped }, wanted: false }
    }

    /// The phase as users see it while no process serves.
    pub(crate) fn state(&self) -> State {
        match self.phase {
            Phase::Stopped | Phase::Asleep => State::Stopped,
            Phase::Starting => State::Starting,
            Phase::Running { .. } => State::Discovered,
            Phase::Stopping(_) => State::Draining,
            Phase::Backoff { .. } => State::Backoff,
            Phase::Failed => State::Failed,
            Phase::Denied => State::Denied,
            Phase::Disabled => State::Disabled,
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

impl Then {
    fn phase(self) -> Phase {
        match self {
            Self::Stopped => Phase::Stopped,
            Self::Asleep => Phase::Asleep,
            Self::Start => Phase::Starting,
            Self::Disabled => Phase::Disabled,
            Self::Gone => Phase::Gone,
        }
    }
}

/// What follows from `input`.
pub(crate) fn step(machine: Machine, input: Input, now: Instant) -> (Machine, Vec<Effect>) {
    use Effect::{Abandon, Arm, Launch, Offer, Part, Withdraw};
    use Phase::{Asleep, Backoff, Denied, Disabled, Failed, Gone, Running, Starting, Stopped, Stopping};
    let stay = || (machine, Vec::new());
    let launch = |machine: Machine| (machine.wanted(true).to(Starting), vec![Launch, Withdraw]);
    match (machine.phase, input) {
        (Gone, _) => stay(),

        (Stopped, Input::Installed { auto: true }) => launch(machine),
        (_, Input::Installed { .. }) => stay(),

        (Starting, Input::Changed) => (machine, vec![Abandon, Launch]),
        (Running { successor: true }, Input::Changed) => (machine, vec![Abandon, Launch]),
        (Running { successor: false }, Input::Changed) => (machine.to(Running { successor: true }), vec![Launch]),
        // What was wrong may have been in the manifest.
        (Backoff { .. } | Failed | Denied, Input::Changed) if machine.wanted => launch(machine),
        (_, Input::Changed) => stay(),

        (_, Input::Removed | Input::Stop | Input::Disable) => end(machine, input),

        (Disabled | Stopping(Then::Gone | Then::Disabled), Input::Start | Input::Restart) => stay(),
        (Stopped | Asleep | Backoff { .. } | Failed | Denied, Input::Start | Input::Restart) => launch(machine),
        (Starting | Running { .. }, Input::Start) => (machine.wanted(true), Vec::new()),
        (Stopping(_), Input::Start | Input::Restart) => (machine.wanted(true).to(Stopping(Then::Start)), Vec::new()),
        (Starting, Input::Restart) => (machine.wanted(true), vec![Abandon, Launch]),
        (Running { successor }, Input::Restart) => {
            let effects = if successor { vec![Abandon, Part] } else { vec![Part] };
            (machine.wanted(true).to(Stopping(Then::Start)), effects)
        }

        (Disabled, Input::Enable { auto: true }) => launch(machine),
        (Disabled, Input::Enable { auto: false }) => (machine.to(Stopped), vec![Withdraw]),
        (Stopping(Then::Disabled), Input::Enable { auto }) => {
            (machine.wanted(auto).to(Stopping(if auto { Then::Start } else { Then::Stopped })), Vec::new())
        }
        (_, Input::Enable { .. }) => stay(),

        (Stopped, Input::Adopted) => (machine.wanted(true).to(Running { successor: false }), vec![Offer]),
        (_, Input::Adopted) => stay(),

        (Starting | Running { successor: true }, Input::Ready) => {
            (machine.to(Running { successor: false }), vec![Offer])
        }
        (Starting, Input::NotReady(After::Again(until))) => (machine.to(Backoff { until }), vec![Withdraw, Arm(until)]),
        (Starting, Input::NotReady(After::Deny)) => (machine.to(Denied), vec![Withdraw]),
        (Starting, Input::NotReady(_)) => (machine.to(Failed), vec![Withdraw]),
        // The old process goes on serving.
        (Running { successor: true }, Input::NotReady(_)) => (machine.to(Running { successor: false }), Vec::new()),
        (_, Input::Ready | Input::NotReady(_)) => stay(),

        (Running { successor: true }, Input::Ended(_)) => (machine.to(Starting), vec![Withdraw]),
        (Running { successor: false }, Input::Ended(after)) => match after {
            After::Again(until) => (machine.to(Backoff { until }), vec![Withdraw, Arm(until)]),
            After::Stay => (machine.wanted(false).to(Stopped), vec![Withdraw]),
            After::GiveUp | After::Deny => (machine.to(Failed), vec![Withdraw]),
        },
        (_, Input::Ended(_)) => stay(),

        (Running { successor: false }, Input::Idle) => (machine.to(Stopping(Then::Asleep)), vec![Part]),
        (_, Input::Idle) => stay(),

        (Stopping(then), Input::Parted) => {
            let effects = if then == Then::Start { vec![Launch, Withdraw] } else { vec![Withdraw] };
            (machine.to(then.phase()), effects)
        }
        (_, Input::Parted) => stay(),

        (Backoff { until }, Input::Timer) if now >= until => launch(machine),
        (_, Input::Timer) => stay(),
    }
}

/// It is not to run any more: stopped, disabled or removed.
fn end(machine: Machine, input: Input) -> (Machine, Vec<Effect>) {
    use Effect::{Abandon, Part, Withdraw};
    let machine = machine.wanted(false);
    let then = match input {
        Input::Removed => Then::Gone,
        Input::Disable => Then::Disabled,
        _ => Then::Stopped,
    };
    match machine.phase {
        // To stop what is disabled leaves it so; what is removed stays so.
        Phase::Disabled if then == Then::Stopped => (machine, Vec::new()),
        Phase::Stopping(Then::Gone) => (machine, Vec::new()),
        Phase::Stopping(Then::Disabled) if then == Then::Stopped => (machine, Vec::new()),
        Phase::Stopping(_) => (machine.to(Phase::Stopping(then)), Vec::new()),
        Phase::Starting => (machine.to(then.phase()), vec![Abandon, Withdraw]),
        Phase::Running { successor: true } => (machine.to(Phase::Stopping(then)), vec![Abandon, Part]),
        Phase::Running { successor: false } => (machine.to(Phase::Stopping(then)), vec![Part]),
        _ => (machine.to(then.phase()), vec![Withdraw]),
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
