//! The folders of the plugin directory, two levels of them: which hold a manifest.
//!
//! Everything is opened beneath the directory, one name at a time, without following links; a link that names the current
//! version of a plugin is read (`version`).

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use goplug_pconf_schema::manifest::{Folder, MANIFEST_NAME};
use rustix::fs::{Dir, DirEntry, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::examine::{closed_folder, examine_manifest_at, folder_flaw, no_version, stamp_of, status_of};
use super::scan::{must_confirm, succeed};
use super::version::{open_version, read_link, shelf};
use super::{Entry, Examined, Installed, Refusal, Stamp};

type Manifests = BTreeMap<Arc<Path>, Entry<Installed>>;

/// What the folders hold.
pub(super) struct Folders {
    pub(super) manifests: Arc<Manifests>,
    /// In which a manifest is, or may appear.
    pub(super) folders: Vec<PathBuf>,
    pub(super) truncated: bool,
}

/// Whether an entry of a directory may be a folder that is looked at, or name one. A file system need not tell.
pub(super) fn may_be_folder(entry: &DirEntry) -> bool {
    let is_folder = matches!(entry.file_type(), FileType::Directory | FileType::Symlink | FileType::Unknown);
    is_folder && !entry.file_name().to_bytes().starts_with(b".")
}

/// Looks for manifests in the folders `names` of the directory `handle`, whose path is `path`, and one level deeper. At most
/// `max` folders are looked at on each level.
pub(super) fn read_folders(
    handle: BorrowedFd<'_>,
    path: &Path,
    names: BTreeSet<OsString>,
    max: usize,
    before: &Arc<Manifests>,
) -> Result<Folders, Errno> {
    let mut search = Search { before, found: Vec::new(), folders: Vec::new(), reused: true };
    let (mut deeper, mut truncated) = (0, false);
    for name in names {
        let at = path.join(&name);
        let folder = match open_folder(handle, &name) {
            Ok(Some(folder)) => folder,
            Ok(None) => {
                search.look_behind(handle, handle, path, &at, None, None)?;
                continue;
            }
            Err(Errno::ACCESS) => {
                search.keep_closed(&at);
                continue;
            }
            Err(error) => return Err(error),
        };
        search.folders.push(at.clone());
        let outer = folder_flaw(&rustix::fs::fstat(&folder)?);
        if search.look(&folder, &at, &at, None, None)? {
            continue;
        }
        let namespace = name.to_string_lossy();
        for inner in list(&folder)? {
            if deeper == max {
                truncated = true;
                break;
            }
            deeper += 1;
            let at = at.join(&inner);
            let opened = match open_folder(folder.as_fd(), &inner) {
                Ok(Some(opened)) => opened,
                Ok(None) => {
                    search.look_behind(handle, folder.as_fd(), path, &at, Some(&namespace), outer.as_ref())?;
                    continue;
                }
                Err(Errno::ACCESS) => {
                    search.keep_closed(&at);
                    continue;
                }
                Err(error) => return Err(error),
            };
            search.look(&opened, &at, &at, Some(&namespace), outer.as_ref())?;
            search.folders.push(at);
        }
    }
    let unchanged = search.reused && search.found.len() == before.len();
    let manifests = if unchanged { Arc::clone(before) } else { Arc::new(search.found.into_iter().collect()) };
    Ok(Folders { manifests, folders: search.folders, truncated })
}

struct Search<'a> {
    before: &'a Manifests,
    found: Vec<(Arc<Path>, Entry<Installed>)>,
    folders: Vec<PathBuf>,
    /// Nothing was read anew.
    reused: bool,
}

impl Search<'_> {
    /// What is no folder in `above` may be the link that names the current version of a plugin. The plugin is known by the
    /// link, its folder is that of the version: what runs keeps its own when another one becomes current.
    fn look_behind(
        &mut self,
        directory: BorrowedFd<'_>,
        above: BorrowedFd<'_>,
        directory_path: &Path,
        path: &Path,
        namespace: Option<&str>,
        outer: Option<&Refusal>,
    ) -> Result<(), Errno> {
        let name = path.file_name().unwrap_or_default();
        let Some((id, version)) = read_link(above, namespace, name) else { return Ok(()) };
        let mut flaw = outer.cloned();
        let opened = open_version(directory, &id, &version, |folder| {
            flaw = flaw.take().or(folder_flaw(&rustix::fs::fstat(folder)?));
            Ok(())
        });
        let real = directory_path.join(shelf(&id)).join(version.to_string());
        let is_there = match &opened {
            Ok(folder) => self.look(folder, path, &real, namespace, flaw.as_ref())?,
            Err(_) => false,
        };
        if !is_there {
            let file = path.join(MANIFEST_NAME);
            let examined = Examined { stamp: Stamp::default(), read: Err(Arc::new(no_version(&version))) };
            let old = self.before.get(file.as_path());
            self.reused &= old.is_some_and(|entry| entry.stamp == Stamp::default());
            self.found.push((Arc::from(file), succeed(old, examined)));
        }
        Ok(())
    }

    /// A folder that we may not look into: of what is not known it may hold anything, and a plugin that was there has not gone.
    /// Whether one was.
    fn keep_closed(&mut self, folder: &Path) -> bool {
        let before = self.before;
        let mut known = before.iter().filter(|(file, _)| file.starts_with(folder)).peekable();
        let is_any = known.peek().is_some();
        for (file, old) in known {
            let examined = Examined { stamp: Stamp::default(), read: Err(Arc::new(closed_folder())) };
            self.reused &= old.stamp == Stamp::default();
            self.found.push((Arc::clone(file), succeed(Some(old), examined)));
        }
        is_any
    }

    /// Looks for a manifest in `folder`, that is known by `path` and lies at `real`; whether there is one. `outer`: what is
    /// wrong with the folder above.
    fn look(
        &mut self,
        folder: &OwnedFd,
        path: &Path,
        real: &Path,
        namespace: Option<&str>,
        outer: Option<&Refusal>,
    ) -> Result<bool, Errno> {
        let status = match status_of(folder.as_fd(), MANIFEST_NAME.as_ref()) {
            Ok(status) => status,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(false),
            Err(Errno::ACCESS) => return Ok(self.keep_closed(path)),
            Err(error) => return Err(error),
        };
        let file = path.join(MANIFEST_NAME);
        let old = self.before.get_key_value(file.as_path());
        // The folders first: their modes are not in the stamp of the file.
        if let Some(refusal) = folder_flaw(&rustix::fs::fstat(folder)?).or_else(|| outer.cloned()) {
            let examined = Examined { stamp: Stamp::default(), read: Err(Arc::new(refusal)) };
            self.reused &= old.is_some_and(|(_, entry)| entry.stamp == Stamp::default());
            self.found.push((Arc::from(file), succeed(old.map(|(_, entry)| entry), examined)));
            return Ok(true);
        }
        let unchanged = old.filter(|(_, entry)| entry.stamp == stamp_of(&status) && !must_confirm(entry));
        if let Some((path, entry)) = unchanged {
            self.found.push((Arc::clone(path), entry.clone()));
            return Ok(true);
        }
        self.reused = false;
        let place = Folder { name: path.file_name().and_then(OsStr::to_str), namespace };
        let examined = examine_manifest_at(folder.as_fd(), real, place, &status);
        self.found.push((Arc::from(file), succeed(old.map(|(_, entry)| entry), examined)));
        Ok(true)
    }
}

/// The folder of that name; `None` if it is none, is gone, or is a link.
fn open_folder(handle: BorrowedFd<'_>, name: &OsStr) -> Result<Option<OwnedFd>, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(handle, name, flags, Mode::empty()) {
        Ok(folder) => Ok(Some(folder)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        Err(error) => Err(error),
    }
}

fn list(folder: &OwnedFd) -> Result<BTreeSet<OsString>, Errno> {
    let mut names = BTreeSet::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        if may_be_folder(&entry) {
            names.insert(OsStr::from_bytes(entry.file_name().to_bytes()).to_owned());
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests;
