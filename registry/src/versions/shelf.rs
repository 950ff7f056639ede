//! The versions on disk: what lies there, and the one place that names the current one. Blocking.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use goplug_pconf_schema::{Code, Fault, Origin, PluginId};
use rustix::fs::{AtFlags, Dir, FileType, FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use semver::Version;

use super::plan::{Current, Shelf};
use crate::desired::{self, OWN_FOLDER};
use crate::discovery::version::{VERSIONS, link_text, place, read_link, shelf as shelf_of};
use crate::discovery::{Examined, Installed, examine_version};
use crate::install::staging::{Staging, fresh_name};
use crate::install::{failed, lint_source_version, origin, parent_of, root};
use crate::words::show;

/// Plugins whose versions are shown: as many as are looked at.
const MAX_PLUGINS: usize = 100_000;
/// Versions of one plugin that are shown.
const MAX_VERSIONS: usize = 1_000;

/// Whoever holds it puts versions in and out, and names the current one.
pub(crate) struct Turn(OwnedFd);

impl Turn {
    pub(crate) fn take(directory: &Path) -> Result<Self, Fault> {
        let internal = |why: String| Fault::new(Code::Internal, why);
        let own = desired::own_folder(directory).map_err(internal)?;
        let (folder, _) = desired::open_or_make(own.as_fd(), VERSIONS, Mode::from_raw_mode(0o755))
            .map_err(failed(&format!("open or make {OWN_FOLDER}/{VERSIONS}")))?;
        desired::lock(&folder, FlockOperation::NonBlockingLockExclusive).map_err(internal)?;
        Ok(Self(folder))
    }

    /// The folder of all versions of a plugin; it is made if it is not there.
    fn shelf(&self, id: &PluginId) -> Result<OwnedFd, Fault> {
        let namespace = if id.namespace().is_empty() { "-" } else { id.namespace() };
        let outer = make(self.0.as_fd(), namespace)?;
        make(outer.as_fd(), id.name())
    }

    /// Puts a folder that was copied beside the others. What a plugin left that is not installed any more goes first.
    pub(crate) fn put(
        &self,
        directory: &Path,
        staging: &Staging,
        name: &str,
        (id, version): (&PluginId, &Version),
        origin: Option<&Origin>,
    ) -> Result<(), Fault> {
        if directory.join(place(id)).symlink_metadata().is_err() {
            self.clear(staging, id)?;
        }
        let shelf = self.shelf(id)?;
        let text = version.to_string();
        unlink_stray(&shelf, &text);
        if folders_hold(&shelf, &text) {
            return Err(changed_meanwhile(id));
        }
        origin::note(shelf.as_fd(), version, origin)?;
        let put = match rustix::fs::renameat_with(staging.handle(), name, &shelf, &text, RenameFlags::NOREPLACE) {
            Ok(()) => rustix::fs::fsync(&shelf).map_err(|error| {
                // Nobody has heard of it yet.
                _ = self.take_out(staging, shelf.as_fd(), &text);
                failed(&format!("sync {}", show(&shelf_of(id))))(error)
            }),
            Err(Errno::EXIST | Errno::NOTEMPTY) => Err(changed_meanwhile(id)),
            Err(error) => Err(failed(&format!("put version {text} to {}", show(&shelf_of(id))))(error)),
        };
        if put.is_err() {
            _ = origin::note(shelf.as_fd(), version, None);
        }
        put
    }

    /// Takes all versions of a plugin out that is not installed any more.
    pub(crate) fn clear(&self, staging: &Staging, id: &PluginId) -> Result<(), Fault> {
        let namespace = if id.namespace().is_empty() { "-" } else { id.namespace() };
        let Ok(outer) = rustix::fs::openat(&self.0, namespace, FOLDER, Mode::empty()) else { return Ok(()) };
        self.take_out(staging, outer.as_fd(), id.name())?;
        // Only when it is empty.
        _ = rustix::fs::unlinkat(&self.0, namespace, AtFlags::REMOVEDIR);
        Ok(())
    }

    /// Takes one version out.
    pub(crate) fn remove(&self, staging: &Staging, id: &PluginId, version: &Version) -> Result<(), Fault> {
        let shelf = self.shelf(id)?;
        self.take_out(staging, shelf.as_fd(), &version.to_string())?;
        origin::note(shelf.as_fd(), version, None)
    }

    #[allow(clippy::unused_self, reason = "only whoever has the turn may")]
    fn take_out(&self, staging: &Staging, from: BorrowedFd<'_>, name: &str) -> Result<(), Fault> {
        let away = fresh_name()?;
        match rustix::fs::renameat(from, name, staging.handle(), &away) {
            Ok(()) => {}
            Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(failed(&format!("take {name} out of {OWN_FOLDER}/{VERSIONS}"))(error)),
        }
        let synced = rustix::fs::fsync(from).map_err(failed(&format!("sync {OWN_FOLDER}/{VERSIONS}")));
        // It is out; what follows only tidies up, and the next one does it if we cannot.
        staging.remove(&away);
        synced
    }

    /// Names another version as the current one, by one rename. `expected` is what was there when that was decided.
    ///
    /// # Errors
    /// `conflict` when something else is there by now; what the system refuses.
    pub(crate) fn point(
        &self,
        directory: &Path,
        id: &PluginId,
        version: &Version,
        expected: &Current,
    ) -> Result<(), Fault> {
        let root = root(directory)?;
        if current(directory, id)? != *expected {
            return Err(changed_meanwhile(id));
        }
        match examine_version(directory, id, version) {
            None => return Err(changed_meanwhile(id)),
            Some(Examined { read: Err(refusal), .. }) => {
                let text = format!("version {version} of plugin `{id}` cannot be used: it {}", refusal.reason);
                return Err(Fault::new(Code::Conflict, text));
            }
            Some(_) => {}
        }
        let before = match expected {
            Current::None => None,
            Current::Linked(before) | Current::ByHand(before) => Some(before.clone()),
        };
        if let Some(before) = before.filter(|before| before != version) {
            // First, and for nothing if we are killed now: a version before that is the current one is passed over.
            let noted = desired::update(directory, |state| {
                let wanted = state.of(id);
                state.set(id, goplug_pconf_schema::Desired { previous: Some(before), ..wanted })
            });
            noted.map_err(|why| Fault::new(Code::Internal, why))?;
        }
        let staging = Staging::open(directory)?;
        let link = fresh_name()?;
        rustix::fs::symlinkat(link_text(id, version), staging.handle(), &link)
            .map_err(failed(&format!("make a link in {OWN_FOLDER}/staging")))?;
        let pointed = self.exchange(&root, directory, &staging, &link, id, expected);
        if pointed.is_err() {
            staging.remove(&link);
        }
        pointed
    }

    /// Names the first version of a plugin as the current one; when that fails, it goes again.
    ///
    /// # Errors
    /// As [`Turn::point`].
    pub(crate) fn begin(&self, directory: &Path, id: &PluginId, version: &Version) -> Result<(), Fault> {
        let pointed = self.point(directory, id, version, &Current::None);
        if pointed.is_err() && matches!(current(directory, id), Ok(Current::None)) {
            _ = Staging::open(directory).and_then(|staging| self.clear(&staging, id));
        }
        pointed
    }

    fn exchange(
        &self,
        root: &OwnedFd,
        directory: &Path,
        staging: &Staging,
        link: &str,
        id: &PluginId,
        expected: &Current,
    ) -> Result<(), Fault> {
        parent_of(root, directory, id, |parent| match expected {
            Current::None => {
                rustix::fs::renameat_with(staging.handle(), link, parent, id.name(), RenameFlags::NOREPLACE)
            }
            Current::Linked(_) => rustix::fs::renameat(staging.handle(), link, parent, id.name()),
            // The folder that somebody put there becomes a version like the others: the two change places.
            Current::ByHand(version) => {
                let shelf = self.shelf(id).map_err(|_| Errno::IO)?;
                let name = version.to_string();
                unlink_stray(&shelf, &name);
                rustix::fs::renameat_with(staging.handle(), link, &shelf, &name, RenameFlags::NOREPLACE)?;
                let changed = rustix::fs::renameat_with(&shelf, &name, parent, id.name(), RenameFlags::EXCHANGE);
                if changed.is_err() {
                    unlink_stray(&shelf, &name);
                }
                changed
            }
        })
    }
}

/// Everything that is known of a plugin's versions.
pub(crate) fn shelf(directory: &Path, id: &PluginId) -> Result<Shelf, Fault> {
    let wanted = desired::load(directory).unwrap_or_default().of(id);
    let installed = names(&directory.join(shelf_of(id)));
    Ok(Shelf { current: current(directory, id)?, installed, pin: wanted.pinned, previous: wanted.previous })
}

/// What the plugin's place holds.
fn current(directory: &Path, id: &PluginId) -> Result<Current, Fault> {
    let path = directory.join(place(id));
    let Ok(status) = path.symlink_metadata() else { return Ok(Current::None) };
    let unusable = || {
        let text = format!("{} is there already and is no plugin that can be used", show(&path));
        Err(Fault::new(Code::Conflict, text))
    };
    if status.is_symlink() {
        let above = path.parent().unwrap_or(directory);
        let folder = rustix::fs::open(above, FOLDER, Mode::empty()).map_err(failed("open the namespace's folder"))?;
        let namespace = Some(id.namespace()).filter(|namespace| !namespace.is_empty());
        let named = read_link(folder.as_fd(), namespace, id.name().as_ref());
        return named.map_or_else(unusable, |(_, version)| Ok(Current::Linked(version)));
    }
    lint_source_version(&path, id).map_or_else(unusable, |version| Ok(Current::ByHand(version)))
}

/// A version of a plugin, if it is installed and can be used.
pub(crate) fn read(directory: &Path, id: &PluginId, version: &Version) -> Option<Arc<Installed>> {
    examine_version(directory, id, version)?.read.ok()
}

/// Every plugin's versions that lie side by side.
pub(crate) fn all(directory: &Path) -> BTreeMap<PluginId, Vec<Version>> {
    let mut all = BTreeMap::new();
    let top = directory.join(OWN_FOLDER).join(VERSIONS);
    for namespace in folders(&top) {
        for name in folders(&top.join(&namespace)) {
            let outer = if namespace == "-" { "" } else { namespace.as_str() };
            let Ok(id) = PluginId::new(outer, &name) else { continue };
            let versions = names(&top.join(&namespace).join(&name));
            if !versions.is_empty() && all.len() < MAX_PLUGINS {
                all.insert(id, versions);
            }
        }
    }
    all
}

fn names(shelf: &Path) -> Vec<Version> {
    let mut versions: Vec<_> = folders(shelf).iter().filter_map(|name| Version::parse(name).ok()).collect();
    versions.sort();
    versions.truncate(MAX_VERSIONS);
    versions
}

/// Names of folders in a folder; none, if it cannot be read.
fn folders(path: &Path) -> Vec<String> {
    let Ok(folder) = rustix::fs::open(path, FOLDER, Mode::empty()) else { return Vec::new() };
    let Ok(entries) = Dir::read_from(&folder) else { return Vec::new() };
    let is_folder = |name: &OsStr, kind: FileType| match kind {
        FileType::Unknown => path.join(name).symlink_metadata().is_ok_and(|status| status.is_dir()),
        kind => kind == FileType::Directory,
    };
    let names = entries.flatten().filter_map(|entry| {
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        let shown = name.to_str().filter(|name| *name != "." && *name != "..")?;
        is_folder(name, entry.file_type()).then(|| shown.to_owned())
    });
    names.collect()
}

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

fn make(above: BorrowedFd<'_>, name: &str) -> Result<OwnedFd, Fault> {
    let (folder, may_be_new) = desired::open_or_make(above, name, Mode::from_raw_mode(0o755))
        .map_err(failed(&format!("open or make a folder in {OWN_FOLDER}/{VERSIONS}")))?;
    if may_be_new {
        rustix::fs::fsync(above).map_err(failed(&format!("sync {OWN_FOLDER}/{VERSIONS}")))?;
    }
    Ok(folder)
}

/// Whether a version is there: what is written down of it stays.
fn folders_hold(shelf: &OwnedFd, name: &str) -> bool {
    rustix::fs::statat(shelf, name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
}

/// A link that somebody who was killed left where a version goes.
fn unlink_stray(shelf: &OwnedFd, name: &str) {
    let status = rustix::fs::statat(shelf, name, AtFlags::SYMLINK_NOFOLLOW);
    if status.is_ok_and(|status| FileType::from_raw_mode(status.st_mode) == FileType::Symlink) {
        _ = rustix::fs::unlinkat(shelf, name, AtFlags::empty());
    }
}

fn changed_meanwhile(id: &PluginId) -> Fault {
    Fault::new(Code::Conflict, format!("what is installed of plugin `{id}` changed meanwhile: try again"))
}
