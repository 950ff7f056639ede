//! Whether the plugin is active, and how many calls are under way. PURE: values in, decisions out; [`crate::service`]
//! carries them out.
//!
//! ```text
//! inactive --activate--> activating --ok--> active --deactivate--> draining --> inactive
//!                        activating --failed--> inactive
//! inactive | active --stop--> stopping --> stopped
//! ```

use bytes::Bytes;
use goplug_pconf_schema::{Code, Fault};
use serde_json::Value;

#[cfg(test)]
mod tests;

/// The life of one plugin process.
#[derive(Debug)]
pub(crate) struct Lifecycle {
    state: State,
    in_flight: u32,
    max_concurrent_calls: u32,
}

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
        Self { state: State::Inactive, in_flight: 0, max_concurrent_calls }
    }

    pub(crate) fn is_active(&self) -> bool {
        matches!(self.state, State::Active { .. })
    }

    /// Asks for an activation with `settings`.
    pub(crate) fn activate(&mut self, settings: &Value) -> Activate {
        match &self.state {
            State::Inactive => {
                self.state = State::Activating { settings: settings.clone() };
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
    pub(crate) fn activated(&mut self, result: &Result<Bytes, Fault>) {
        if let State::Activating { settings } = &mut self.state {
            self.state = match result {
                Ok(reply) => State::Active { settings: settings.take(), reply: reply.clone() },
                Err(_) => State::Inactive,
            };
        }
    }

    /// Asks for the end of the activation, and with `stop` for the end of the plugin.
    pub(crate) fn drain(&mut self, stop: bool) -> Drain {
        let was_active = self.is_active();
        match &self.state {
            State::Activating { .. } | State::Draining | State::Stopping => Drain::Wait,
            State::Stopped => Drain::Nothing,
            State::Inactive if !stop => Drain::Nothing,
            State::Inactive | State::Active { .. } => {
                self.state = if stop { State::Stopping } else { State::Draining };
                Drain::Begin { was_active }
            }
        }
    }

    /// Tells that the drain is over and the stopper has run.
    pub(crate) fn drained(&mut self) {
        self.state = match &self.state {
            State::Draining => State::Inactive,
            State::Stopping | State::Stopped => State::Stopped,
            State::Inactive | State::Activating { .. } | State::Active { .. } => return,
        };
    }

    /// Lets a call in, or says why not; [`Lifecycle::release`] must follow.
    pub(crate) fn admit(&mut self) -> Result<(), Fault> {
        match &self.state {
            State::Active { .. } => {}
            State::Inactive => {
                let text = "the plugin is not active; activate it first, by loading it or by POST /_goplug/activate";
                return Err(Fault::new(Code::WrongState, text));
            }
            State::Activating { .. } => return Err(Fault::new(Code::Unavailable, "the plugin is being activated")),
            State::Draining | State::Stopping | State::Stopped => return Err(leaving()),
        }
        if self.in_flight >= self.max_concurrent_calls {
            let limit = self.max_concurrent_calls;
            return Err(Fault::new(Code::Overloaded, format!("{limit} calls are under way, the limit of the plugin")));
        }
        self.in_flight += 1;
        Ok(())
    }

    /// Tells that an admitted call is over; true when it was the last one.
    pub(crate) fn release(&mut self) -> bool {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.in_flight == 0
    }

    /// Calls under way.
    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight
    }
}

fn leaving() -> Fault {
    Fault::new(Code::Unavailable, "the plugin is being deactivated and takes no new calls")
}
