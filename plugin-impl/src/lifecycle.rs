//! Whether the plugin is active, and how many calls are under way. PURE: values in, decisions out; [`crate::service`]
//! carries them out.
//!
//! A call passes a gate, one word with the count of those inside, in one step, and leaves it with another. Only the state
//! behind it has a lock; whoever changes the state opens and shuts the gate under it.
//!
//! ```text
//! inactive --activate--> activating --ok--> active --deactivate--> draining --> inactive
//!                        activating --failed--> inactive
//! inactive | active --stop--> stopping --> stopped
//! ```

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use goplug_pconf_schema::{Code, Fault};
use serde_json::Value;

#[cfg(test)]
mod tests;

/// The life of one plugin process.
#[derive(Debug)]
pub(crate) struct Lifecycle {
    state: Mutex<State>,
    /// The calls under way, and [`OPEN`] exactly while the plugin is active.
    gate: AtomicU64,
    max_concurrent_calls: u32,
}

const OPEN: u64 = 1 << 63;

#[derive(Debug, Clone, PartialEq)]
enum State {
    Inactive,
    Activating { settings: Value },
    Active { settings: Value, reply: Bytes },
    Draining,
    Stopping,
    Stopped,
}

/// What to do about a request to activate.
#[derive(Debug, PartialEq)]
pub(crate) enum Activate {
    /// Run the activator, then tell [`Lifecycle::activated`].
    Run,
    /// The same activation is under way: ask again when the state has changed.
    Wait,
    /// It is active with these settings: this was the first reply.
    Done(Bytes),
    /// Answer this.
    Refuse(Fault),
}

/// What to do about a request to deactivate or to stop.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Drain {
    /// Drain, run the stopper if there was an activation, then tell [`Lifecycle::drained`].
    Begin {
        /// Whether the plugin was active.
        was_active: bool,
    },
    /// Something else is under way: ask again when the state has changed.
    Wait,
    /// There is nothing to do.
    Nothing,
}

impl Lifecycle {
    /// An inactive plugin.
    pub(crate) fn new(max_concurrent_calls: u32) -> Self {
        Self { state: Mutex::new(State::Inactive), gate: AtomicU64::new(0), max_concurrent_calls }
    }

    pub(crate) fn is_active(&self) -> bool {
        self.gate.load(Ordering::Acquire) & OPEN != 0
    }

    /// Asks for an activation with `settings`.
    pub(crate) fn activate(&self, settings: &Value) -> Activate {
        let mut state = self.state();
        match &*state {
            State::Inactive => {
                *state = State::Activating { settings: settings.clone() };
                Activate::Run
            }
            State::Active { settings: ours, reply } if ours == settings => Activate::Done(reply.clone()),
            State::Activating { settings: ours } if ours == settings => Activate::Wait,
            State::Active { .. } | State::Activating { .. } => Activate::Refuse(Fault::new(
                Code::WrongState,
                "the plugin is active with other settings; deactivate it before you activate it with these",
            )),
            State::Draining | State::Stopping | State::Stopped => Activate::Refuse(leaving()),
        }
    }

    /// Tells how the activator ended.
    pub(crate) fn activated(&self, result: &Result<Bytes, Fault>) {
        let mut state = self.state();
        if let State::Activating { settings } = &mut *state {
            *state = match result {
                Ok(reply) => State::Active { settings: settings.take(), reply: reply.clone() },
                Err(_) => State::Inactive,
            };
            if result.is_ok() {
                self.gate.fetch_or(OPEN, Ordering::AcqRel);
            }
        }
    }

    /// Asks for the end of the activation, and with `stop` for the end of the plugin.
    pub(crate) fn drain(&self, stop: bool) -> Drain {
        let mut state = self.state();
        let was_active = matches!(*state, State::Active { .. });
        match &*state {
            State::Activating { .. } | State::Draining | State::Stopping => Drain::Wait,
            State::Stopped => Drain::Nothing,
            State::Inactive if !stop => Drain::Nothing,
            State::Inactive | State::Active { .. } => {
                self.gate.fetch_and(!OPEN, Ordering::AcqRel);
                *state = if stop { State::Stopping } else { State::Draining };
                Drain::Begin { was_active }
            }
        }
    }

    /// Tells that the drain is over and the stopper has run.
    pub(crate) fn drained(&self) {
        let mut state = self.state();
        *state = match &*state {
            State::Draining => State::Inactive,
            State::Stopping | State::Stopped => State::Stopped,
            State::Inactive | State::Activating { .. } | State::Active { .. } => return,
        };
    }

    /// Lets a call in, or says why not; [`Lifecycle::release`] must follow.
    pub(crate) fn admit(&self) -> Result<(), Fault> {
        let mut gate = self.gate.load(Ordering::Acquire);
        loop {
            if gate & OPEN == 0 {
                match self.refusal() {
                    Some(fault) => return Err(fault),
                    // It has been opened meanwhile.
                    None => gate = self.gate.load(Ordering::Acquire),
                }
            } else if gate & !OPEN >= u64::from(self.max_concurrent_calls) {
                let limit = self.max_concurrent_calls;
                let text = format!("{limit} calls are under way, the limit of the plugin");
                return Err(Fault::new(Code::Overloaded, text));
            } else {
                match self.gate.compare_exchange_weak(gate, gate + 1, Ordering::AcqRel, Ordering::Acquire) {
                    Ok(_) => return Ok(()),
                    Err(other) => gate = other,
                }
            }
        }
    }

    /// Tells that an admitted call is over; true when it was the last one.
    pub(crate) fn release(&self) -> bool {
        self.gate.fetch_sub(1, Ordering::AcqRel) & !OPEN == 1
    }

    /// Calls under way. A step of the gate, too: either it comes before that of the last call, which then sees what was done
    /// before this, or it sees that the call is over.
    pub(crate) fn in_flight(&self) -> u32 {
        u32::try_from(self.gate.fetch_add(0, Ordering::AcqRel) & !OPEN).unwrap_or(u32::MAX)
    }

    /// Why no call is let in; `None` when it is.
    fn refusal(&self) -> Option<Fault> {
        match &*self.state() {
            State::Active { .. } => None,
            State::Inactive => {
                let text = "the plugin is not active; activate it first, by loading it or by POST /_goplug/activate";
                Some(Fault::new(Code::WrongState, text))
            }
            State::Activating { .. } => Some(Fault::new(Code::Unavailable, "the plugin is being activated")),
            State::Draining | State::Stopping | State::Stopped => Some(leaving()),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // It is never left half-changed: nothing under the lock can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn leaving() -> Fault {
    Fault::new(Code::Unavailable, "the plugin is being deactivated and takes no new calls")
}
