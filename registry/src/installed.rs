//! What is installed: folders come and go, and processes that an earlier registry started are found again.

use std::path::{Path, PathBuf};

use goplug_pconf_schema::admin::{EventKind, Installation, Removal};
use goplug_pconf_schema::{Code, Fault, PluginId};

use crate::host::{self, Adopted};
use crate::registry::{Known, Registry, runs};
use crate::{install, program};

impl Registry {
    /// Copies the folder of a plugin into the plugin directory: `source` is the folder, or the `plugin.json` in it. It comes
    /// to its place at once or not at all, whenever this process is killed. With `dry_run` everything is checked and nothing
    /// is done.
    ///
    /// # Errors
    /// `invalid_argument` with every problem, `too_large`, `not_found` for what cannot be installed; `conflict` when the
    /// plugin is installed already, with its version; `denied`, `overloaded` or `internal` when the system refuses.
    ///
    /// # Cancel safety
    /// Dropping the future does not stop the copying.
    pub async fn install(&self, source: impl AsRef<Path>, dry_run: bool) -> Result<Installation, Fault> {
        let (directory, source) = (self.absolute_directory()?, source.as_ref().to_owned());
        let at = directory.clone();
        let source = blocking(move || install::survey(&at, &source)).await?;
        self.rescan().await?;
        if let Some(there) = self.inner.finder.installed_as(&source.manifest.id) {
            let version = there.found.manifest.version.to_string();
            return Err(install::already(&there.id, &version, &there.found.folder));
        }
        install::check_free(&directory, &source.manifest.id)?;
        if dry_run {
            return Ok(source.answer(&directory, true));
        }
        let answer = blocking(move || install::install(&directory, source)).await?;
        self.rescan().await?;
        Ok(answer)
    }

    /// Takes an installed plugin out of the plugin directory, and forgets what was wanted of it. With `dry_run` everything is
    /// checked and nothing is done.
    ///
    /// # Errors
    /// `not_found`; `wrong_state` while a process of it runs, or when it started itself and has no manifest; what the
    /// system refuses.
    ///
    /// # Cancel safety
    /// Dropping the future does not stop the removal.
    pub async fn remove(&self, plugin: &str, dry_run: bool) -> Result<Removal, Fault> {
        self.rescan().await?;
        let installed =
            match self.inner.find(plugin).map_err(|fault| self.inner.finder.refusal(plugin).unwrap_or(fault))? {
                Known::Installed(plugin) => plugin,
                Known::Slot(slot) => {
                    let installed = self.inner.finder.installed_as(&slot.id).ok_or_else(|| {
                        let text =
                            format!("plugin `{}` is not installed: it has no manifest, and started itself", slot.id);
                        Fault::new(Code::WrongState, text)
                    })?;
                    if self.inner.is_answered(&slot).await {
                        return Err(runs(&slot.id));
                    }
                    installed
                }
            };
        // One that is being started answers nobody yet.
        if self.inner.programs.runs(&installed.id) {
            return Err(runs(&installed.id));
        }
        let answer = install::removal(&installed.id, &installed.found, dry_run);
        if !dry_run {
            let directory = self.absolute_directory()?;
            blocking(move || install::remove(&directory, &installed.id, &installed.found)).await?;
            self.rescan().await?;
        }
        Ok(answer)
    }

    fn absolute_directory(&self) -> Result<PathBuf, Fault> {
        std::path::absolute(self.directory()).map_err(|error| Fault::new(Code::Internal, error.to_string()))
    }

    /// Finds the processes again that an earlier registry of this directory started; their keepers take them.
    pub(crate) async fn adopt(&self) {
        let options = self.inner.shared.options.load_full();
        let (folder, directory) = (options.hosts(), options.directory.clone());
        let found = match host::adopt(&folder).await {
            Ok(found) => found,
            Err(fault) => return tracing::warn!(%fault, "processes that were started before cannot be found"),
        };
        for adopted in found {
            match adopted {
                Adopted::Lives(hosted) if hosted.record().exit.is_none() => {
                    if let Some(id) = program::labelled(hosted.record(), &directory) {
                        self.inner.programs.put_adopted(id, hosted);
                    }
                }
                // Its output is still there.
                Adopted::Lives(hosted) => {
                    if let Some(id) = self.ended_meanwhile(hosted.record(), &directory) {
                        self.inner.programs.put_ended(id, hosted);
                    }
                }
                Adopted::Ended(record) | Adopted::Lost(record) => {
                    if self.ended_meanwhile(&record, &directory).is_some() && self.auto_discover() {
                        // A record that stays is told again.
                        _ = host::discard(&folder, &record);
                    }
                }
                Adopted::Doubtful(doubtful) => {
                    tracing::warn!(record = %doubtful.path.display(), fault = %doubtful.fault, "left alone");
                }
            }
        }
    }

    /// A process that ended while no registry looked: a registry that watches tells how. Whose it was.
    fn ended_meanwhile(&self, record: &host::Record, directory: &Path) -> Option<PluginId> {
        let id = program::labelled(record, directory)?;
        if !self.auto_discover() {
            return Some(id);
        }
        let how = record.exit.as_ref().map_or_else(|| "its host was killed".to_owned(), ToString::to_string);
        let text = format!("pid {} ended while no registry ran: {how}", record.plugin.pid);
        self.inner.shared.events.record(EventKind::Changed, Some(&id), None, Some(text));
        Some(id)
    }

    /// Processes whose manifest was removed while no registry ran are ended.
    pub(crate) fn end_orphans(&self) {
        let orphans = self.inner.programs.take_orphans();
        // Whoever keeps the others' processes ends these.
        if orphans.is_empty() || self.inner.shared.lease.take(&self.directory()).is_err() {
            return;
        }
        for (id, hosted) in orphans {
            let text = format!("pid {} is ended: its manifest is gone", hosted.record().plugin.pid);
            self.inner.shared.events.record(EventKind::Gone, Some(&id), None, Some(text));
            self.inner.shared.tasks.spawn(async move { program::end_orphan(&hosted).await });
        }
    }
}

/// Runs what waits for the file system, on a thread that may.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Fault> + Send + 'static) -> Result<T, Fault> {
    let interrupted = |_| Fault::new(Code::Internal, "the work was interrupted");
    tokio::task::spawn_blocking(work).await.map_err(interrupted)?
}
