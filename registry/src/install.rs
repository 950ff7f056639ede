//! Puts a plugin's folder into the plugin directory, and takes it out.
//!
//! Whenever we are killed, the directory holds the old or the new and never a mixture: a folder is copied beside, below
//! `.goplug/staging` on the same file system, synced, and comes to its place by one rename that replaces nothing; it leaves by
//! one rename, too, and is deleted after that. What a killed process left behind is removed by the next one. In reading order:
//! this file, `copy` (what is copied and what is refused), `staging`.

mod copy;
mod staging;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use goplug_pconf_schema::admin::{Installation, Removal};
use goplug_pconf_schema::manifest::MANIFEST_NAME;
use goplug_pconf_schema::{Code, Desired, Fault, Manifest, PluginId};
use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use crate::desired;
use crate::discovery::Installed;
use crate::lint::lint_source;
use crate::words::show;
use copy::Tally;
use staging::Staging;

/// How often the folder of a namespace is made again because somebody else removes it meanwhile.
const TRIES: usize = 3;

/// A folder that can be installed.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) manifest: Manifest,
    folder: PathBuf,
    handle: OwnedFd,
    tally: Tally,
}

/// Looks at `source`, a plugin's folder or its manifest: everything that is wrong is told at once. Blocking.
pub(crate) fn survey(directory: &Path, source: &Path) -> Result<Source, Fault> {
    let is_manifest = source.file_name().is_some_and(|name| name == MANIFEST_NAME) && !source.is_dir();
    let folder = if is_manifest { source.parent().unwrap_or(source) } else { source };
    let folder = std::path::absolute(folder).map_err(|error| wrong(error.to_string()))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let handle = rustix::fs::open(&folder, flags, Mode::empty()).map_err(|error| match error {
        Errno::NOENT => Fault::new(Code::NotFound, format!("{} does not exist", show(&folder))),
        Errno::NOTDIR => {
            wrong(format!("{} is no folder: name the folder of a plugin, or its plugin.json", show(&folder)))
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
            return Err(Fault::new(code, problems.join("; ")).with_data(serde_json::json!({ "problems": problems })));
        }
    };
    Ok(Source { manifest, folder, handle, tally })
}

impl Source {
    /// What [`install`] will do, or did.
    pub(crate) fn answer(&self, directory: &Path, dry_run: bool) -> Installation {
        Installation {
            plugin: self.manifest.id.clone(),
            version: self.manifest.version.to_string(),
            folder: directory.join(place(&self.manifest.id)).to_string_lossy().into_owned(),
            files: self.tally.files,
            bytes: self.tally.bytes,
            dry_run,
        }
    }
}

/// Copies a folder in. Blocking.
pub(crate) fn install(directory: &Path, mut source: Source) -> Result<Installation, Fault> {
    let root = open(directory)?;
    let id = source.manifest.id.clone();
    check_free(directory, &id)?;
    let staging = Staging::open(directory)?;
    let (name, copied) = staging.make()?;
    source.tally = Tally::default();
    let placed = copy::copy(source.handle.as_fd(), copied.as_fd(), &mut source.tally)
        .and_then(|()| check_copy(&source, &staging, &name, directory))
        .and_then(|()| put(&root, directory, &staging, &name, &id));
    if let Err(fault) = placed {
        staging.remove(&name);
        return Err(fault);
    }
    Ok(source.answer(directory, false))
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

/// The last step: one rename that replaces nothing.
fn put(root: &OwnedFd, directory: &Path, staging: &Staging, name: &str, id: &PluginId) -> Result<(), Fault> {
    for _ in 0..TRIES {
        let parent = match id.namespace() {
            "" => root.try_clone().map_err(|error| failed("open the plugin directory")(error_of(&error)))?,
            namespace => namespace_folder(root, directory, namespace)?,
        };
        match rustix::fs::renameat_with(staging.handle(), name, &parent, id.name(), RenameFlags::NOREPLACE) {
            Ok(()) => {
                rustix::fs::fsync(&parent).map_err(failed("sync the plugin directory"))?;
                return Ok(());
            }
            // Somebody removed the namespace's folder as an empty one.
            Err(Errno::NOENT) => {}
            Err(Errno::EXIST | Errno::NOTEMPTY) => {
                check_free(directory, id)?;
                return Err(taken(directory, id));
            }
            Err(error) => return Err(failed("put the folder in its place")(error)),
        }
    }
    Err(Fault::new(Code::Conflict, format!("the folder of namespace `{}` is removed again and again", id.namespace())))
}

fn namespace_folder(root: &OwnedFd, directory: &Path, namespace: &str) -> Result<OwnedFd, Fault> {
    let made = rustix::fs::mkdirat(root, namespace, Mode::from_raw_mode(0o755));
    if let Err(error) = made.as_ref()
        && *error != Errno::EXIST
    {
        return Err(failed("make the folder of the namespace")(*error));
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
        rustix::fs::fchmod(&folder, Mode::from_raw_mode(0o755)).map_err(failed("open the folder of the namespace"))?;
        rustix::fs::fsync(root).map_err(failed("sync the plugin directory"))?;
    }
    Ok(folder)
}

/// Takes a folder out. Blocking.
pub(crate) fn remove(directory: &Path, id: &PluginId, found: &Installed) -> Result<(), Fault> {
    let root = open(directory)?;
    let staging = Staging::open(directory)?;
    let inside = found.folder.strip_prefix(directory).map_err(|_| failed("find its folder")(Errno::XDEV))?;
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
        Errno::NOENT => Fault::new(Code::NotFound, format!("{} is not there any more", show(&found.folder))),
        error => failed("take its folder out")(error),
    })?;
    rustix::fs::fsync(parent).map_err(failed("sync the plugin directory"))?;
    // It is out; what follows only tidies up, and the next one does it if we cannot.
    staging.remove(&away);
    if let Some(folder) = namespace {
        // Only when it is empty.
        _ = rustix::fs::unlinkat(&root, folder, AtFlags::REMOVEDIR);
    }
    // Whoever installs it again finds it as new.
    let forgotten = desired::update(directory, |state| state.set(id, Desired::default()));
    forgotten.map(drop).map_err(|why| Fault::new(Code::Internal, format!("it was removed, but {why}")))
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

/// Removes what killed installations left behind; nothing where nobody ever installed. Blocking.
pub(crate) fn tidy_up(directory: &Path) {
    if directory.join(desired::OWN_FOLDER).join(staging::FOLDER).is_dir() {
        _ = Staging::open(directory);
    }
}

/// Where in the plugin directory a plugin is put.
fn place(id: &PluginId) -> PathBuf {
    Path::new(id.namespace()).join(id.name())
}

/// Refuses when the place is taken, with the version that is there.
pub(crate) fn check_free(directory: &Path, id: &PluginId) -> Result<(), Fault> {
    let outer = directory.join(id.namespace()).join(MANIFEST_NAME);
    if !id.namespace().is_empty() && outer.symlink_metadata().is_ok() {
        let path = show(&directory.join(id.namespace()));
        return Err(Fault::new(
            Code::Conflict,
            format!("{path} is the folder of a plugin and cannot be that of a namespace"),
        ));
    }
    if directory.join(place(id)).symlink_metadata().is_ok() { Err(taken(directory, id)) } else { Ok(()) }
}

fn taken(directory: &Path, id: &PluginId) -> Fault {
    let folder = directory.join(place(id));
    match lint_source(&folder.join(MANIFEST_NAME)) {
        Ok(there) => already(&there.id, &there.version.to_string(), &folder),
        Err(_) => {
            Fault::new(Code::Conflict, format!("{} is there already and is no plugin that can be used", show(&folder)))
        }
    }
}

/// The refusal of what is installed already.
pub(crate) fn already(id: &PluginId, version: &str, folder: &Path) -> Fault {
    let text = format!("plugin `{id}` is installed already, version {version} in {}", show(folder));
    Fault::new(Code::Conflict, text).with_data(serde_json::json!({ "version": version }))
}

fn open(directory: &Path) -> Result<OwnedFd, Fault> {
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
fn failed(what: &str) -> impl Fn(Errno) -> Fault {
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
