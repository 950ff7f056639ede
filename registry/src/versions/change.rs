//! Another version becomes the current one: tried first, named by the link only when it serves.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use goplug_pconf_schema::admin::{EventKind, Pinned, Upgraded};
use goplug_pconf_schema::manifest::MANIFEST_NAME;
use goplug_pconf_schema::{Code, Desired, Fault, Grant, PluginId, Reason, RollbackOn};
use semver::{Version, VersionReq};
use tokio::time::timeout;

use super::plan::{self, Shelf};
use super::{Turn, shelf, watch};
use crate::desired;
use crate::discovery::version::place;
use crate::install;
use crate::installed::blocking;
use crate::program::Tried;
use crate::registry::{Known, Registry};
use crate::tasks::Pending;

/// How long a command on a directory waits for the end of the process before, beyond the drain: nobody would wait for it later.
const END_WITHIN: Duration = Duration::from_secs(15);

/// How to upgrade.
#[derive(Debug, Clone, Default)]
pub struct Upgrade {
    /// Take the new version back when its calls fail in its first minute. Needs a registry with auto-discover, which lives on.
    pub rollback_on: Option<RollbackOn>,
    /// An older version than the current one will do.
    pub downgrade: bool,
    /// A package will do that nobody signed.
    pub allow_unsigned: bool,
    /// The permissions that a version that is installed now may have besides those that the plugin was granted before.
    pub grant: Grant,
    /// Check everything, do nothing.
    pub dry_run: bool,
}

impl Registry {
    /// Makes another version the current one: that of `source`, a folder or a package, which is brought beside the others if it is not
    /// there, else the newest that is installed and that the plugin's pin admits.
    ///
    /// If a process of the plugin runs, one of the new version is started and activated beside it; only when it serves it
    /// becomes the current one, new calls go there, and the process before finishes its calls and is stopped. One that does not
    /// come up changes nothing.
    ///
    /// # Errors
    /// `wrong_state` when the plugin is not installed, is pinned to others, or the version is older; `denied` for a package that no
    /// trusted key signed, and for permissions that nobody has granted; `conflict` when that
    /// version is there with other content, or somebody else changes the plugin; `invalid_argument` for a folder of another
    /// plugin; else why the new version does not come up.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the old or the new version; a new one that was not yet named is followed by the old one.
    pub fn upgrade<'a>(
        &'a self,
        plugin: &'a str,
        source: Option<&'a Path>,
        how: Upgrade,
    ) -> Pending<'a, Result<Upgraded, Fault>> {
        Box::pin(async move {
            let (id, directory) = self.changeable(plugin).await?;
            if how.rollback_on.is_some() && !self.auto_discover() {
                let text = "nobody would count its calls when this is done: a rule takes a daemon with auto-discover";
                return Err(Fault::new(Code::WrongState, text));
            }
            let wanted = match source {
                None => None,
                Some(source) => Some(self.put_beside(&id, &directory, source, &how).await?),
            };
            let shelf = read(&directory, &id).await?;
            let to = plan::upgrade(&shelf, &id, wanted.as_ref(), how.downgrade)?;
            let done = self.make_current(&id, &shelf, &to, how.dry_run).await?;
            if let (Some(rule), false, Some(from)) = (how.rollback_on, how.dry_run, shelf.version())
                && done.from != done.to
            {
                watch::watch(&self.inner, id, from.clone(), to, rule);
            }
            Ok(done)
        })
    }

    /// Makes the version the current one that was so before, or else the newest that is older; as [`Registry::upgrade`] does.
    ///
    /// # Errors
    /// `not_found` when there is none; else as there.
    pub fn rollback<'a>(&'a self, plugin: &'a str, dry_run: bool) -> Pending<'a, Result<Upgraded, Fault>> {
        Box::pin(async move {
            let (id, directory) = self.changeable(plugin).await?;
            let shelf = read(&directory, &id).await?;
            let to = plan::rollback(&shelf, &id)?;
            self.make_current(&id, &shelf, &to, dry_run).await
        })
    }

    /// Lets only versions in `range` become the current one from now on; `None`: all. Kept on disk.
    ///
    /// # Errors
    /// `conflict` when the current version is not in it; `invalid_argument` for a range that is none; `wrong_state` for a
    /// plugin that is not installed; `internal` when it cannot be written down.
    pub fn pin<'a>(&'a self, plugin: &'a str, range: Option<&'a str>) -> Pending<'a, Result<Pinned, Fault>> {
        Box::pin(async move {
            let (id, directory) = self.changeable(plugin).await?;
            let range = range.map(VersionReq::parse).transpose().map_err(|error| {
                Fault::new(
                    Code::InvalidArgument,
                    format!("it is no version range ({error}): write `^1.2`, `>=1, <3` or `*`"),
                )
            })?;
            if let Some(range) = &range {
                plan::pin(&read(&directory, &id).await?, &id, range)?;
            }
            let answer = Pinned { plugin: id.clone(), range: range.as_ref().map(ToString::to_string) };
            let pinned = move || {
                let noted = desired::update(&directory, |state| {
                    let wanted = state.of(&id);
                    state.set(&id, Desired { pinned: range, ..wanted })
                });
                noted.map(drop).map_err(|why| Fault::new(Code::Internal, why))
            };
            blocking(pinned).await?;
            self.rescan().await?;
            Ok(answer)
        })
    }

    /// Who it is, if its versions can be changed here.
    pub(crate) async fn changeable(&self, plugin: &str) -> Result<(PluginId, PathBuf), Fault> {
        self.rescan().await?;
        let found = self.inner.find(plugin).map_err(|fault| self.inner.finder().refusal(plugin).unwrap_or(fault))?;
        let id = match found {
            Known::Installed(plugin) => plugin.id,
            Known::Slot(slot) if self.inner.finder().installed_as(&slot.id).is_some() => slot.id.clone(),
            Known::Slot(slot) => {
                let text = format!("plugin `{}` is not installed: it has no manifest, and started itself", slot.id);
                return Err(Fault::new(Code::WrongState, text));
            }
        };
        let directory = self.absolute_directory()?;
        self.check_place(&id, &directory)?;
        Ok((id, directory))
    }

    /// A folder that somebody put where its plugin's name would not be cannot become a version.
    pub(crate) fn check_place(&self, id: &PluginId, directory: &Path) -> Result<(), Fault> {
        let Some(there) = self.inner.finder().installed_as(id) else { return Ok(()) };
        if there.file.parent() == Some(&directory.join(place(id))) {
            return Ok(());
        }
        Err(install::already(id, &there.found.manifest.version.to_string(), &there.found.folder))
    }

    async fn put_beside(
        &self,
        id: &PluginId,
        directory: &Path,
        source: &Path,
        how: &Upgrade,
    ) -> Result<Version, Fault> {
        let (at, source, id, how) = (directory.to_owned(), source.to_owned(), id.clone(), how.clone());
        let keys = self.keys(how.allow_unsigned).await?;
        let records = self.records(directory);
        let work = move || {
            let source = install::survey(&at, &source, &keys)?;
            let version = source.manifest.version.clone();
            if source.manifest.id != id {
                let text = format!("it is the folder of plugin `{}`, not of `{id}`", source.manifest.id);
                return Err(Fault::new(Code::InvalidArgument, text));
            }
            let found = shelf(&at, &id)?;
            // Before anything is copied.
            plan::upgrade(&found, &id, Some(&version), how.downgrade)?;
            match install::is_there(&at, &source) {
                Some(false) => plan::install(&found, &id, &version, Some(false)).map(drop)?,
                // The very package: somebody may have put it there who did not install it.
                Some(true) if !how.dry_run && source.is_package() => {
                    records.note(&source.noted(Some(&how.grant)), &[]).map(drop)?
                }
                Some(true) => {}
                None if how.dry_run => records.check(&source.noted(None)).map(drop)?,
                None => install::install(&at, source, &records, &how.grant)?,
            }
            Ok(version)
        };
        blocking(work).await.map_err(|fault| self.not_taken(fault))
    }

    pub(crate) async fn make_current(
        &self,
        id: &PluginId,
        shelf: &Shelf,
        to: &Version,
        dry_run: bool,
    ) -> Result<Upgraded, Fault> {
        let from = shelf.version().unwrap_or(to);
        if !dry_run && from != to {
            self.switch(id, shelf, to).await?;
        }
        let pid = self.inner.programs.get(id).and_then(|program| program.pid());
        Ok(Upgraded { plugin: id.clone(), from: from.to_string(), to: to.to_string(), pid, dry_run })
    }

    /// Makes the version `to` the current one, and lets no older one run from then on.
    pub(crate) async fn switch(&self, id: &PluginId, shelf: &Shelf, to: &Version) -> Result<(), Fault> {
        let records = self.records(&self.absolute_directory()?);
        let (kept, plugin, version) = (records.clone(), id.clone(), to.clone());
        // First, so that it can be tried.
        let before = blocking(move || kept.lower(&plugin, &version)).await?;
        let switched = self.try_and_name(id, shelf, to).await;
        let (plugin, current) = (id.clone(), if switched.is_ok() { Some(to.clone()) } else { before });
        blocking(move || records.made_current(&plugin, current.as_ref())).await?;
        switched
    }

    /// Tries the version `to`, and names it as the current one when it serves.
    async fn try_and_name(&self, id: &PluginId, shelf: &Shelf, to: &Version) -> Result<(), Fault> {
        let directory = self.absolute_directory()?;
        let (at, plugin, version) = (directory.clone(), id.clone(), to.clone());
        let read = move || {
            let unusable = || {
                Fault::new(Code::NotFound, format!("version {version} of plugin `{plugin}` cannot be used"))
                    .with_reason(Reason::NoVersion)
            };
            super::shelf::read(&at, &plugin, &version).ok_or_else(unusable)
        };
        let installed = blocking(read).await?;
        let program = self.inner.programs.get(id).filter(|_| installed.manifest.not_runnable().is_none());
        let tried = match &program {
            None => Tried::default(),
            Some(program) => {
                let tried = program.try_version(Arc::clone(&installed)).await;
                tried.map_err(|fault| did_not_come_up(to, shelf, fault))?
            }
        };
        let (at, plugin, version, expected) = (directory.clone(), id.clone(), to.clone(), shelf.current.clone());
        let pointed = blocking(move || Turn::take(&at)?.point(&at, &plugin, &version, &expected)).await;
        if let Err(fault) = pointed {
            // On disk nothing has changed: what it names serves again.
            if let (Some(program), Some(before)) = (&program, tried.before) {
                _ = program.try_version(before).await;
            }
            return Err(fault);
        }
        let file = directory.join(place(id)).join(MANIFEST_NAME);
        let before = shelf.version().map(|version| format!(" after {version}")).unwrap_or_default();
        let text = format!("{}: version {to}{before}", crate::show::text(&file));
        self.inner.shared.events.record(EventKind::Changed, Some(id), self.inner.state_of(id), Some(text));
        self.rescan().await?;
        // A registry that lives on sees to its end by itself.
        if let (false, Some(old)) = (self.auto_discover(), tried.old) {
            _ = timeout(self.inner.shared.options.load().drain + END_WITHIN, old.exited()).await;
        }
        Ok(())
    }
}

/// What was tried did not run: however its process ended, the one before answers calls.
fn did_not_come_up(to: &Version, shelf: &Shelf, fault: Fault) -> Fault {
    let before = shelf.version().map(|version| format!(", {version} goes on")).unwrap_or_default();
    let message = format!("version {to} did not come up{before}: {}", fault.message);
    match fault.code {
        Code::PluginGone
        | Code::MethodFailed
        | Code::Panicked
        | Code::ProtocolError
        | Code::DeadlineExceeded
        | Code::Internal
        | Code::Cancelled => Fault::new(Code::Unavailable, message),
        _ => Fault { message, ..fault },
    }
}

async fn read(directory: &Path, id: &PluginId) -> Result<Shelf, Fault> {
    let (directory, id) = (directory.to_owned(), id.clone());
    blocking(move || shelf(&directory, &id)).await
}
