//! A keeper that keeps nothing: another registry of the directory starts and stops the process.

use super::*;
use crate::host::{self, Adopted};
use crate::lease::KeptElsewhere;
use crate::program::labelled;

impl Task {
    /// From here on the process is ours to start and to stop; nothing happens when it is already.
    pub(super) async fn take_lease(&mut self) -> Result<(), KeptElsewhere> {
        if !self.follows {
            return Ok(());
        }
        let (lease, directory) = (Arc::clone(&self.shared.lease), self.shared.options.load().directory.clone());
        let taken = crate::tasks::on_a_thread(move || lease.take(&directory)).await;
        // Work that was interrupted has taken nothing.
        let taken = taken.unwrap_or(Err(KeptElsewhere { pid: None }));
        self.view.kept_by = taken.err();
        self.follows = taken.is_err();
        if taken.is_ok() {
            self.timer = None;
            self.look_after_from_now();
            self.end_what_is_disabled();
        }
        self.publish();
        taken
    }

    /// A process that was found and must not run: whoever asks for its end meanwhile waits for this one.
    fn end_what_is_disabled(&mut self) {
        let found = self.view.hosted.clone().filter(|hosted| hosted.record().exit.is_none());
        if let (Phase::Disabled, None, Some(hosted)) = (self.machine.phase, &self.process, found) {
            self.process = Some(process(hosted, Arc::clone(&self.installed)));
            self.machine.phase = Phase::Stopping(Then::Disabled);
            self.part();
        }
    }

    /// What was found runs, and others keep it.
    pub(super) async fn follow(&mut self, found: Option<Hosted>) {
        match found {
            Some(hosted) if hosted.record().exit.is_none() && self.machine.phase == Phase::Stopped => {
                self.arrived = Some(process(hosted, Arc::clone(&self.installed)));
                self.feed(Input::Adopted).await;
            }
            Some(hosted) => {
                self.view.last_exit.clone_from(&hosted.record().exit);
                self.view.hosted = Some(hosted);
                self.publish();
            }
            None => {}
        }
        self.timer = Some(Instant::now() + FOLLOW_SOON);
    }

    /// Keeps the process from now on if nobody else does any more; else finds the one that others have started.
    pub(super) async fn look_for_another(&mut self) {
        let options = self.shared.options.load_full();
        self.timer = Some(Instant::now() + options.rescan_interval);
        if options.auto_discover && self.take_lease().await.is_ok() && self.process.is_some() {
            return;
        }
        if self.process.is_none() && matches!(self.machine.phase, Phase::Stopped) {
            let found = host::adopt(&options.hosts()).await.unwrap_or_default();
            let ours = found.into_iter().find_map(|found| match found {
                Adopted::Lives(hosted) if hosted.record().exit.is_none() => {
                    (labelled(hosted.record(), &options.directory).as_ref() == Some(&self.id)).then_some(hosted)
                }
                _ => None,
            });
            if let Some(hosted) = ours {
                self.arrived = Some(process(hosted, Arc::clone(&self.installed)));
                return self.feed(Input::Adopted).await;
            }
        }
        if !self.follows {
            self.feed(Input::Installed { auto: self.auto() }).await;
        }
    }

    /// Pings and idleness count from here.
    fn look_after_from_now(&mut self) {
        let Some(process) = &self.process else { return };
        let watched = matches!(process.found.pconf.protocol, Some(1..));
        self.pulse = watched.then(|| Pulse::new(&self.installed.manifest.health, std::time::Instant::now()));
        (self.used, self.tick) = ((0, Instant::now()), Some(Instant::now()));
    }
}
