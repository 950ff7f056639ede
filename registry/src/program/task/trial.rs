//! Another version is tried: it becomes what the keeper keeps when it serves, else everything is as before.

use std::sync::Arc;

use goplug_pconf_schema::{Code, Fault};

use super::Task;
use crate::discovery::Installed;
use crate::host::Hosted;
use crate::program::state::{Input, Phase};
use crate::program::{TrialReply, Tried};

/// A version that is being tried.
pub(super) struct Trial {
    before: Arc<Installed>,
    reply: TrialReply,
    fault: Option<Fault>,
    old: Option<Hosted>,
}

impl Task {
    /// Starts a process of `installed` beside the one that serves. Where none runs there is nothing to try.
    pub(super) async fn try_version(&mut self, installed: Arc<Installed>, reply: TrialReply) {
        if let Err(kept) = self.take_lease().await {
            _ = reply.send(Err(kept.fault(&self.id)));
            return;
        }
        let busy =
            |what: &str| Err(Fault::new(Code::Unavailable, format!("plugin `{}` is {what}: try again", self.id)));
        let refusal = match self.machine.phase {
            _ if self.trial.is_some() => busy("being upgraded already"),
            Phase::Running { successor: false } if self.handover.is_none() => Ok(true),
            Phase::Running { .. } | Phase::Starting => busy("being started"),
            Phase::Stopping(_) => busy("being stopped"),
            _ => Ok(false),
        };
        match refusal {
            Ok(true) => {}
            Ok(false) => {
                _ = reply.send(Ok(Tried::default()));
                return;
            }
            Err(fault) => {
                _ = reply.send(Err(fault));
                return;
            }
        }
        let before = std::mem::replace(&mut self.installed, installed);
        self.trial = Some(Trial { before, reply, fault: None, old: None });
        self.starts.reset();
        self.feed(Input::Changed).await;
    }

    /// Why the version that is being tried will not do.
    pub(super) fn blame_trial(&mut self, fault: &Fault) {
        if let Some(trial) = &mut self.trial {
            trial.fault.get_or_insert_with(|| fault.clone());
        }
    }

    /// The process before, that is on its way out.
    pub(super) fn note_predecessor(&mut self, old: &Hosted) {
        if let Some(trial) = &mut self.trial {
            trial.old = Some(old.clone());
        }
    }

    /// Tells whoever waits for a trial how it ended, once it has.
    pub(super) fn settle_trial(&mut self) {
        let Some(trial) = &self.trial else { return };
        let is_new = self.process.as_ref().is_some_and(|process| Arc::ptr_eq(&process.installed, &self.installed));
        let serves = match self.machine.phase {
            Phase::Starting | Phase::Running { successor: true } if trial.fault.is_none() => return,
            Phase::Running { successor: false } if is_new && self.handover.is_some() => return,
            Phase::Running { successor: false } => is_new && trial.fault.is_none(),
            _ => false,
        };
        let Some(trial) = self.trial.take() else { return };
        let Trial { before, reply, fault, old } = trial;
        if serves {
            _ = reply.send(Ok(Tried { before: Some(before), old }));
            return;
        }
        self.installed = before;
        self.starts.reset();
        let stopped = || Fault::new(Code::Unavailable, format!("plugin `{}` was stopped meanwhile", self.id));
        _ = reply.send(Err(fault.unwrap_or_else(stopped)));
    }

    /// The manifest on disk says something else now: that counts.
    pub(super) fn drop_trial(&mut self) {
        if let Some(trial) = self.trial.take() {
            let text = format!("what is installed of plugin `{}` changed meanwhile: try again", self.id);
            _ = trial.reply.send(Err(Fault::new(Code::Conflict, text)));
        }
    }
}
