//! Puts a plugin's folder into the plugin directory, and takes it out.
//!
//! Whenever we are killed, the directory holds the old or the new and never a mixture: a folder is copied beside, below
//! `.goplug/staging` on the same file system, synced, and comes to its place among the versions by one rename that replaces
//! nothing; by another one it becomes the current one (`versions`). It leaves by one rename, too, and is deleted after that. What
//! a killed process left behind is removed by the next one. In reading order: this file, `copy` (what is copied and what is
//! refused), `package` (what is unpacked), `same` (is it what is there already?), `origin` (where it came from), `staging`.

mod copy;
pub(crate) mod origin;
pub(crate) mod package;
mod same;
pub(crate) mod staging;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use goplug_package::Keys;
use goplug_pconf_schema::admin::{Installation, Removal};
use goplug_pconf_schema::manifest::MANIFEST_NAME;
use goplug_pconf_schema::{Code, Desired, Fault, Grant, Manifest, Origin, Permissions, PluginId, Sha256};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use semver::Version;

use crate::desired;
use crate::discovery::Installed;
use crate::discovery::version::{place, shelf as shelf_of};
use crate::lint::{lint_manifest_of, lint_source};
use crate::trust::{Noted, Records};
use crate::versions::{self, Current, Shelf, Then, Turn, plan};
use crate::words::show;
use copy::Tally;
use package::{Staged, Unpacked};
use staging::Staging;

/// How often the folder of a namespace is made again because somebody else removes it meanwhile.
const TRIES: usize = 3;

/// How to install.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Install {
    /// A package will do that nobody signed. A folder is never signed, and is installed without this.
    pub allow_unsigned: bool,
    /// The permissions that it may have besides those that it was granted before.
    pub grant: Grant,
    /// Check everything, do nothing.
    pub dry_run: bool,
}

/// A folder that can be installed, or what a package was unpacked to.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) manifest: Manifest,
    folder: PathBuf,
    handle: OwnedFd,
    tally: Tally,
    /// Of a package: where it was unpacked. It stays as long as this.
    staged: Option<Staged>,
    /// The digest of its `MANIFEST`.
    contents: Option<Sha256>,
    signed_by: Option<String>,
    /// Of what was fetched.
    origin: Option<Origin>,
}

/// Looks at `source`, a plugin's folder, its manifest, or a package: everything that is wrong is told at once. A package is
/// taken if one of `keys` signed it. Blocking.
pub(crate) fn survey(directory: &Path, source: &Path, keys: &Keys) -> Result<Source, Fault> {
    let origin = origin::of(directory, source);
    let is_manifest = source.file_name().is_some_and(|name| name == MANIFEST_NAME) && !source.is_dir();
    if !is_manifest && let Some(file) = package::open(source)? {
        let Unpacked { staged, folder, handle, tally, contents, signed_by } = package::unpack(directory, file, keys)?;
        let manifest = lint_source(&folder.join(MANIFEST_NAME)).map_err(|problems| {
            // Where it was unpacked is gone when this is read.
            let prefix = format!("{}/", show(&folder));
            let within: Vec<_> = problems.iter().map(|problem| problem.replace(&prefix, "")).collect();
            all(Code::InvalidArgument, &within)
        })?;
        let (staged, contents) = (Some(staged), Some(contents));
        return Ok(Source { manifest, folder, handle, tally, staged, contents, signed_by, origin });
    }
    let folder = if is_manifest { source.parent().unwrap_or(source) } else { source };
    let folder = std::path::absolute(folder).map_err(|error| wrong(error.to_string()))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let handle = rustix::fs::open(&folder, flags, Mode::empty()).map_err(|error| match error {
        Errno::NOENT => Fault::new(Code::NotFound, format!("{} does not exist", show(&folder))),
        Errno::NOTDIR => {
            wrong(format!("{} is no folder: name the folder of a plugin, its plugin.json, or a package", show(&folder)))
        }
        error => failed(&format!("open {}", show(&folder)))(error),
    })?;
    let around =
        directory.canonicalize().is_ok_and(|inner| folder.canonicalize().is_ok_and(|outer| inner.starts_with(outer)));
    if around {
        return Err(wrong(format!("the plugin directory lies in {}: name the folder of one plugin", show(&folder))));
    }
    let manifest = lint_source(&folder.join(MANIFEST_NAME));
    let surveyed = copy::survey(handle.as_fd());
    let (manifest, tally) = match (manifest, surveyed) {
        (Ok(manifest), Ok(tally)) => (manifest, tally),
        (manifest, surveyed) => {
            let mut problems = manifest.err().unwrap_or_default();
            let code = surveyed.as_ref().err().map_or(Code::InvalidArgument, |fault| fault.code);
            problems.extend(surveyed.err().map(|fault| fault.message));
            return Err(all(code, &problems));
        }
    };
    // What was built of a commit is from here on what it was then, as a package is.
    let is_built = origin.as_ref().is_some_and(|origin| origin.commit.is_some());
    let contents = is_built.then(|| origin::list(&folder)).transpose()?;
    Ok(Source { manifest, folder, handle, tally, staged: None, contents, signed_by: None, origin })
}

fn all(code: Code, problems: &[String]) -> Fault {
    Fault::new(code, problems.join("; ")).with_data(serde_json::json!({ "problems": problems }))
}

impl Source {
    /// As if it were installed where it is, which is so as long as this is kept.
    pub(crate) fn as_installed(&self) -> Arc<Installed> {
        let (manifest, folder) = (Arc::new(self.manifest.clone()), self.folder.clone());
        Arc::new(Installed { manifest, folder, warnings: Vec::new() })
    }

    /// What is written down of it.
    pub(crate) fn noted<'a>(&'a self, grant: Option<&'a Grant>) -> Noted<'a> {
        let Manifest { id, version, .. } = &self.manifest;
        let (contents, signed_by, wanted) = (self.contents, self.signed_by.clone(), self.wanted());
        Noted { id, version, contents, signed_by, wanted, grant }
    }

    pub(crate) fn is_package(&self) -> bool {
        self.contents.is_some()
    }

    /// The permissions that it asks for.
    fn wanted(&self) -> Permissions {
        self.manifest.permissions.as_ref().and_then(|value| value.as_object()).cloned().unwrap_or_default()
    }

    /// What [`install`] will do, or did; `current`: whether it is the current version then.
    pub(crate) fn answer(
        &self,
        directory: &Path,
        current: bool,
        note: Option<String>,
        asked: Permissions,
        dry_run: bool,
    ) -> Installation {
        let (id, version) = (self.manifest.id.clone(), self.manifest.version.to_string());
        Installation {
            folder: directory.join(shelf_of(&id)).join(&version).to_string_lossy().into_owned(),
            plugin: id,
            version,
            files: self.tally.files,
            bytes: self.tally.bytes,
            signed_by: self.signed_by.clone(),
            permissions: self.wanted(),
            asked,
            origin: self.origin.clone(),
            current,
            note,
            dry_run,
        }
    }
}

/// Brings a folder in, beside the other versions of its plugin; none of them is the current one by that. What it must be from
/// then on is written down first. Blocking.
pub(crate) fn install(directory: &Path, source: Source, records: &Records, grant: &Grant) -> Result<(), Fault> {
    let (id, shelf) = (source.manifest.id.clone(), versions::shelf(directory, &source.manifest.id)?);
    check_namespace(directory, &id)?;
    let others: Vec<_> = shelf.installed.iter().chain(shelf.version()).cloned().collect();
    let before = records.note(&source.noted(Some(grant)), &others)?;
    let put = put(directory, source);
    if put.is_err() {
        records.undo(&id, before);
    }
    put
}

fn put(directory: &Path, mut source: Source) -> Result<(), Fault> {
    let (id, origin) = (source.manifest.id.clone(), source.origin.take());
    let put = |staging: &Staging, name: &str, version: &Version| {
        Turn::take(directory)?.put(directory, staging, name, (&id, version), origin.as_ref())
    };
    if let Some(Staged { staging, name }) = &source.staged {
        return put(staging, name, &source.manifest.version);
    }
    let staging = Staging::open(directory)?;
    let (name, copied) = staging.make()?;
    source.tally = Tally::default();
    let placed = copy::copy(source.handle.as_fd(), copied.as_fd(), &mut source.tally)
        .and_then(|()| check_copy(&source, &staging, &name, directory))
        .and_then(|()| put(&staging, &name, &source.manifest.version));
    if placed.is_err() {
        staging.remove(&name);
    }
    placed
}

/// The source may have changed since it was surveyed: what counts is what was copied.
fn check_copy(source: &Source, staging: &Staging, name: &str, directory: &Path) -> Result<(), Fault> {
    let path = staging.path(directory, name).join(MANIFEST_NAME);
    match lint_source(&path) {
        Ok(copied) if copied == source.manifest => Ok(()),
        _ => {
            Err(Fault::new(Code::Conflict, format!("{} changed while it was copied: try again", show(&source.folder))))
        }
    }
}

/// Does `work` in the folder in which the plugin is named, which is made if it is that of a namespace; then syncs it.
pub(crate) fn parent_of(
    root: &OwnedFd,
    directory: &Path,
    id: &PluginId,
    work: impl Fn(&OwnedFd) -> Result<(), Errno>,
) -> Result<(), Fault> {
    for _ in 0..TRIES {
        let parent = match id.namespace() {
            "" => root.try_clone().map_err(|error| failed("open the plugin directory")(error_of(&error)))?,
            namespace => namespace_folder(root, directory, namespace)?,
        };
        match work(&parent) {
            Ok(()) => {
                let above = directory.join(id.namespace());
                return rustix::fs::fsync(&parent).map_err(failed(&format!("sync {}", show(&above))));
            }
            // Somebody removed the namespace's folder as an empty one.
            Err(Errno::NOENT) => {}
            Err(Errno::EXIST | Errno::NOTEMPTY) => {
                let text = format!("{} is there already", show(&directory.join(place(id))));
                return Err(Fault::new(Code::Conflict, text));
            }
            Err(error) => return Err(failed(&format!("put {} in its place", show(&directory.join(place(id)))))(error)),
        }
    }
    Err(Fault::new(Code::Conflict, format!("the folder of namespace `{}` is removed again and again", id.namespace())))
}

fn namespace_folder(root: &OwnedFd, directory: &Path, namespace: &str) -> Result<OwnedFd, Fault> {
    let made = rustix::fs::mkdirat(root, namespace, Mode::from_raw_mode(0o755));
    if let Err(error) = made.as_ref()
        && *error != Errno::EXIST
    {
        return Err(failed(&format!("make {}", show(&directory.join(namespace))))(*error));
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = rustix::fs::openat(root, namespace, flags, Mode::empty()).map_err(|error| {
        let path = show(&directory.join(namespace));
        Fault::new(
            Code::Conflict,
            format!("{path}, which would be the folder of the namespace, cannot be used: {error}"),
        )
    })?;
    if made.is_ok() {
        let shown = show(&directory.join(namespace));
        rustix::fs::fchmod(&folder, Mode::from_raw_mode(0o755)).map_err(failed(&format!("set the mode of {shown}")))?;
        rustix::fs::fsync(root).map_err(failed(&format!("sync {}", show(directory))))?;
    }
    Ok(folder)
}

/// Takes a plugin out that is known by `at`, a link or a folder, with all its versions. Blocking.
pub(crate) fn remove(directory: &Path, id: &PluginId, at: &Path, records: &Records) -> Result<(), Fault> {
    let root = root(directory)?;
    let staging = Staging::open(directory)?;
    let turn = Turn::take(directory)?;
    let inside = at.strip_prefix(directory).map_err(|_| failed("find its folder")(Errno::XDEV))?;
    let name = inside.file_name().ok_or_else(|| failed("find its folder")(Errno::INVAL))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let namespace = inside.parent().filter(|parent| !parent.as_os_str().is_empty());
    let above = match namespace {
        None => None,
        Some(folder) => Some(
            rustix::fs::openat(&root, folder, flags, Mode::empty()).map_err(failed("open the namespace's folder"))?,
        ),
    };
    let parent: BorrowedFd<'_> = above.as_ref().map_or(root.as_fd(), AsFd::as_fd);
    let away = staging::fresh_name()?;
    rustix::fs::renameat(parent, name, staging.handle(), &away).map_err(|error| match error {
        Errno::NOENT => Fault::new(Code::NotFound, format!("{} is not there any more", show(at))),
        error => failed(&format!("take {} out", show(at)))(error),
    })?;
    let synced = rustix::fs::fsync(parent).map_err(failed(&format!("sync the folder of {}", show(at))));
    // It is out; what follows only tidies up, and the next one does it if we cannot.
    staging.remove(&away);
    if let Some(folder) = namespace {
        // Only when it is empty.
        _ = rustix::fs::unlinkat(&root, folder, AtFlags::REMOVEDIR);
    }
    let cleared = turn.clear(&staging, id);
    // Whoever installs it again finds it as new.
    records.forget(id).map_err(|fault| Fault { message: format!("it was removed, but {}", fault.message), ..fault })?;
    let forgotten = desired::update(directory, |state| state.set(id, Desired::default()));
    let forgotten = forgotten.map(drop).map_err(|why| Fault::new(Code::Internal, why));
    let but = |fault: Fault| Fault { message: format!("it was removed, but {}", fault.message), ..fault };
    synced.and(cleared).and(forgotten).map_err(but)
}

/// What [`remove`] will do, or did.
pub(crate) fn removal(id: &PluginId, found: &Installed, dry_run: bool) -> Removal {
    Removal {
        plugin: id.clone(),
        version: found.manifest.version.to_string(),
        folder: found.folder.to_string_lossy().into_owned(),
        dry_run,
    }
}

/// Takes one version out that is not the current one. Blocking.
pub(crate) fn remove_version(directory: &Path, id: &PluginId, version: &Version) -> Result<(), Fault> {
    let staging = Staging::open(directory)?;
    let turn = Turn::take(directory)?;
    // With the turn nobody makes it the current one meanwhile.
    plan::remove(&versions::shelf(directory, id)?, id, version)?;
    turn.remove(&staging, id, version)
}

/// Removes what killed installations left behind; nothing where nobody ever installed. Blocking.
pub(crate) fn tidy_up(directory: &Path) {
    if directory.join(desired::OWN_FOLDER).join(staging::FOLDER).is_dir() {
        _ = Staging::open(directory);
    }
}

/// Refuses when the folder of the namespace is that of a plugin.
fn check_namespace(directory: &Path, id: &PluginId) -> Result<(), Fault> {
    let outer = directory.join(id.namespace()).join(MANIFEST_NAME);
    if !id.namespace().is_empty() && outer.symlink_metadata().is_ok() {
        let path = show(&directory.join(id.namespace()));
        return Err(Fault::new(
            Code::Conflict,
            format!("{path} is the folder of a plugin and cannot be that of a namespace"),
        ));
    }
    Ok(())
}

/// What an installation would lead to, and what has to be granted for it. Blocking.
pub(crate) fn plan(
    directory: &Path,
    source: &Source,
    records: &Records,
    grant: Option<&Grant>,
) -> Result<(Shelf, Then, Permissions), Fault> {
    let (id, version) = (&source.manifest.id, &source.manifest.version);
    check_namespace(directory, id)?;
    let shelf = versions::shelf(directory, id)?;
    let there = match &shelf.current {
        // What a plugin left that is not installed any more does not count.
        Current::None => None,
        Current::ByHand(current) if current == version => Some(directory.join(place(id))),
        _ => shelf.installed.contains(version).then(|| directory.join(shelf_of(id)).join(version.to_string())),
    };
    let same = there.map(|there| same::is_same(source.handle.as_fd(), &there));
    let then = plan::install(&shelf, id, version, same)?;
    if shelf.version().is_none() {
        records.check_first(id, version)?;
    }
    let asked = records.check(&source.noted(grant))?;
    Ok((shelf, then, asked))
}

/// Whether the folder is what is installed in its version already. Blocking.
pub(crate) fn is_there(directory: &Path, source: &Source) -> Option<bool> {
    let there = directory.join(shelf_of(&source.manifest.id)).join(source.manifest.version.to_string());
    there.is_dir().then(|| same::is_same(source.handle.as_fd(), &there))
}

/// The version of the plugin `id` in a folder of its own, if there is one that can be read.
pub(crate) fn lint_source_version(folder: &Path, id: &PluginId) -> Option<Version> {
    let manifest = lint_manifest_of(&folder.join(MANIFEST_NAME))?;
    (manifest.id == *id).then_some(manifest.version)
}

/// The refusal of what is installed already.
pub(crate) fn already(id: &PluginId, version: &str, folder: &Path) -> Fault {
    let text = format!("plugin `{id}` is installed already, version {version} in {}", show(folder));
    Fault::new(Code::Conflict, text).with_data(serde_json::json!({ "version": version }))
}

pub(crate) fn root(directory: &Path) -> Result<OwnedFd, Fault> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(directory, flags, Mode::empty()).map_err(failed("open the plugin directory"))
}

fn wrong(text: String) -> Fault {
    Fault::new(Code::InvalidArgument, text)
}

fn error_of(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

/// The system refused: whose fault is it?
pub(crate) fn failed(what: &str) -> impl Fn(Errno) -> Fault {
    move |error| {
        let code = match error {
            Errno::ACCESS | Errno::PERM | Errno::ROFS => Code::Denied,
            Errno::NOSPC | Errno::DQUOT | Errno::MFILE | Errno::NFILE => Code::Overloaded,
            _ => Code::Internal,
        };
        Fault::new(code, format!("cannot {what}: {error}"))
    }
}

#[cfg(test)]
mod tests;
