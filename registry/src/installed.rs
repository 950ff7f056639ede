//! What is installed: folders come and go, and processes that an earlier registry started are found again.

use std::path::{Path, PathBuf};

use goplug_pconf_schema::admin::{EventKind, Installation, ProcessDetail, Removal};
use goplug_pconf_schema::{Code, Fault, PluginId};

use crate::discovery::version::shelf as shelf_of;
use crate::host::{self, Adopted};
use crate::registry::{Known, Registry, runs};
use crate::trust::Records;
use crate::versions::{self, Current, Then, Turn};
use crate::{Install, install, lease, program};

impl Registry {
    /// Brings a plugin into the plugin directory: `source` is its folder, the `plugin.json` in it, or a package, which is
    /// verified before anything of it is written ([`Registry::trusted_keys`]). Nothing of it is run by that. It comes to its place at once or not at all, whenever this process is killed. Another version of a plugin that is installed
    /// becomes the current one as [`Registry::upgrade`] says, unless it is older or not what the plugin is pinned to: then it
    /// lies beside.
    ///
    /// # Errors
    /// `invalid_argument` with every problem, `too_large`, `not_found` for what cannot be installed; `denied` for a package that
    /// no trusted key signed, and for permissions that nobody has granted ([`crate::Reason::NotGranted`]); `conflict` when that
    /// version is installed already, or was with other content; `denied`, `overloaded` or `internal` when the system refuses; as an upgrade when the new
    /// version does not come up: it is installed then, and the one before stays the current one.
    ///
    /// # Cancel safety
    /// Dropping the future does not stop the copying.
    pub async fn install(&self, source: impl AsRef<Path>, how: Install) -> Result<Installation, Fault> {
        let (directory, source) = (self.absolute_directory()?, source.as_ref().to_owned());
        let at = directory.clone();
        let keys = self.keys(how.allow_unsigned).await?;
        let source =
            blocking(move || install::survey(&at, &source, &keys)).await.map_err(|fault| self.not_taken(fault))?;
        let (id, version) = (source.manifest.id.clone(), source.manifest.version.clone());
        self.rescan().await?;
        self.check_place(&id, &directory)?;
        let at = directory.clone();
        let records = self.records(&directory);
        let grant = (!how.dry_run).then(|| how.grant.clone());
        let kept = records.clone();
        let (source, records, shelf, then, asked) = blocking(move || {
            let (shelf, then, asked) = install::plan(&at, &source, &records, grant.as_ref())?;
            Ok((source, records, shelf, then, asked))
        })
        .await?;
        let note = match &then {
            Then::Beside(why) => Some(why.clone()),
            Then::Current => shelf.version().map(|before| format!("it follows {before}")),
        };
        let answer = source.answer(&directory, then == Then::Current, note, asked, how.dry_run);
        if how.dry_run {
            return Ok(answer);
        }
        let at = directory.clone();
        blocking(move || install::install(&at, source, &records, &how.grant)).await?;
        match (then, &shelf.current) {
            (Then::Beside(_), _) => self.rescan().await?,
            (Then::Current, Current::None) => {
                let begin = move || {
                    Turn::take(&directory)?.begin(&directory, &id, &version)?;
                    kept.made_current(&id, Some(&version))
                };
                blocking(begin).await?;
                self.rescan().await?;
            }
            (Then::Current, _) => self.switch(&id, &shelf, &version).await.map_err(|fault| {
                let before = shelf.version().map(ToString::to_string).unwrap_or_default();
                let message = format!("version {version} is installed, and {before} stays the current one: {fault}");
                Fault { message, ..fault }
            })?,
        }
        Ok(answer)
    }

    /// Takes one version of an installed plugin out that is not the current one.
    ///
    /// # Errors
    /// `not_found` for a plugin or a version that is not there; `wrong_state` for the current one.
    ///
    /// # Cancel safety
    /// Dropping the future does not stop the removal.
    pub async fn remove_version(&self, plugin: &str, version: &str, dry_run: bool) -> Result<Removal, Fault> {
        let (id, directory) = self.changeable(plugin).await?;
        let parsed = semver::Version::parse(version);
        let version =
            parsed.map_err(|error| Fault::new(Code::InvalidArgument, format!("it is no version: {error}")))?;
        let folder = directory.join(shelf_of(&id)).join(version.to_string());
        let answer = Removal {
            plugin: id.clone(),
            version: version.to_string(),
            folder: folder.to_string_lossy().into_owned(),
            dry_run,
        };
        let work = move || {
            if dry_run {
                return versions::plan::remove(&versions::shelf(&directory, &id)?, &id, &version);
            }
            install::remove_version(&directory, &id, &version)
        };
        blocking(work).await?;
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
        self.none_is_hidden(&installed.id).await?;
        let answer = install::removal(&installed.id, &installed.found, dry_run);
        if !dry_run {
            let directory = self.absolute_directory()?;
            let records = self.records(&directory);
            blocking(move || {
                let at = installed.file.parent().unwrap_or(&installed.file);
                install::remove(&directory, &installed.id, at, &records)
            })
            .await?;
            self.rescan().await?;
        }
        Ok(answer)
    }

    /// The process of an installed plugin, and which other registry keeps it. One that does only what it is told has not asked yet.
    pub(crate) async fn process_and_keeper(&self, id: &PluginId) -> Option<ProcessDetail> {
        let process = self.inner.process_of(id)?;
        if process.kept_by.is_some() || self.inner.shared.lease.is_held() {
            return Some(process);
        }
        let directory = self.directory();
        let keeper = crate::tasks::on_a_thread(move || lease::keeper(&directory)).await.ok().flatten();
        Some(ProcessDetail { kept_by: keeper, ..process })
    }

    /// What is known of the packages of this directory.
    pub(crate) fn records(&self, directory: &Path) -> Records {
        Records::new(self.trust_folder(), directory)
    }

    pub(crate) fn absolute_directory(&self) -> Result<PathBuf, Fault> {
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
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    crate::tasks::on_a_thread(work).await?
}
