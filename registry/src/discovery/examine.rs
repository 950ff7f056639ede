//! One file: who owns it, what it is, what it says.
//!
//! Nothing here can block or be led elsewhere: the file is looked at before it is opened (opening a device may act on
//! it), opened relative to its folder without following links and without waiting, looked at again, and read up to a
//! bound.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use goplug_pconf_schema::manifest::{Folder, MANIFEST_NAME};
use goplug_pconf_schema::{MAX_PCONF_BYTES, Manifest, Pconf, PluginId};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use semver::Version;

use super::version::{open_version, shelf};
use super::{Confinement, Flaw, Found, Installed, Refusal, RefusalKind, Stamp};

/// What was found out about one file.
#[derive(Debug)]
pub(crate) struct Examined<F = Found> {
    /// As it was before it was read; empty if it is to be read again in any case.
    pub(crate) stamp: Stamp,
    /// What it says, or why it is not used.
    pub(crate) read: Result<Arc<F>, Arc<Refusal>>,
}

/// Examines the file at `path`, whatever its name; `None` if there is none. Blocking.
pub(crate) fn examine(path: &Path, confinement: &Confinement) -> Option<Examined> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = std::path::absolute(folder).ok()?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let handle = rustix::fs::open(&folder, flags, Mode::empty()).ok()?;
    let status = status_of(handle.as_fd(), path.file_name()?.as_ref()).ok()?;
    Some(examine_at(handle.as_fd(), &folder, path.file_name()?.as_ref(), &status, confinement))
}

/// Examines the manifest at `path` as one in that folder, whatever lies above; `None` if there is none. Blocking.
pub(crate) fn examine_manifest(path: &Path) -> Option<Examined<Installed>> {
    let path = std::path::absolute(path).ok()?;
    let folder = path.parent()?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let handle = rustix::fs::open(folder, flags, Mode::empty()).ok()?;
    let status = status_of(handle.as_fd(), MANIFEST_NAME.as_ref()).ok()?;
    let name = folder.file_name().map(|name| name.to_string_lossy().into_owned());
    Some(examine_manifest_at(handle.as_fd(), folder, Folder { name: name.as_deref(), namespace: None }, &status))
}

/// Examines the manifest of a version that is installed, whether or not it is the current one; `None` if there is none.
/// Blocking.
pub(crate) fn examine_version(directory: &Path, id: &PluginId, version: &Version) -> Option<Examined<Installed>> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(directory, flags, Mode::empty()).ok()?;
    let mut flaw = None;
    let handle = open_version(root.as_fd(), id, version, |folder| {
        flaw = flaw.take().or(folder_flaw(&rustix::fs::fstat(folder)?));
        Ok(())
    })
    .ok()?;
    if let Some(refusal) = flaw {
        return Some(Examined { stamp: Stamp::default(), read: Err(Arc::new(refusal)) });
    }
    let status = status_of(handle.as_fd(), MANIFEST_NAME.as_ref()).ok()?;
    let folder = directory.join(shelf(id)).join(version.to_string());
    let namespace = Some(id.namespace()).filter(|namespace| !namespace.is_empty());
    Some(examine_manifest_at(handle.as_fd(), &folder, Folder { name: Some(id.name()), namespace }, &status))
}

/// The status of `name` itself, not of what it links to.
pub(super) fn status_of(folder: BorrowedFd<'_>, name: &Path) -> Result<Stat, Errno> {
    rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)
}

/// Examines `name` in the folder `handle`, whose absolute path is `folder` and whose status was just read.
pub(super) fn examine_at(
    handle: BorrowedFd<'_>,
    folder: &Path,
    name: &Path,
    status: &Stat,
    confinement: &Confinement,
) -> Examined {
    examine_as(A_PCONF, handle, name, status, |bytes, status| understand(bytes, status, folder, confinement))
}

/// Examines the manifest in the folder `handle`, whose absolute path is `folder`, and whose status was just read.
/// `place`: the names that it must agree with.
pub(super) fn examine_manifest_at(
    handle: BorrowedFd<'_>,
    folder: &Path,
    place: Folder<'_>,
    status: &Stat,
) -> Examined<Installed> {
    examine_as(A_MANIFEST, handle, MANIFEST_NAME.as_ref(), status, |bytes, status| {
        understand_manifest(bytes, status, folder, place)
    })
}

/// `what`: the kind of file, for people.
fn examine_as<F>(
    what: &str,
    handle: BorrowedFd<'_>,
    name: &Path,
    status: &Stat,
    understand: impl FnOnce(&[u8], &Stat) -> Result<F, Refusal>,
) -> Examined<F> {
    let stamp = stamp_of(status);
    let (stamp, read) = match flaws_of(what, status).into_iter().next() {
        Some((flaw, reason)) => (stamp, Err(refuse(flaw, reason))),
        None => match open_and_read(what, handle, name, Trust::Checked) {
            Ok((status, bytes)) => (stamp_of(&status), understand(&bytes, &status)),
            Err((flaw, reason)) => {
                // What failed this time is tried again at the next scan, whatever the stamp says.
                let stamp = if flaw == Flaw::Unreadable { Stamp::default() } else { stamp };
                (stamp, Err(refuse(flaw, reason)))
            }
        },
    };
    Examined { stamp, read: read.map(Arc::new).map_err(Arc::new) }
}

/// What is wrong with a file, and that in words.
pub(crate) type Distrust = (Flaw, String);

/// Every reason why the file at `path` is not to be trusted, and its text all the same if it has one: for those who ask
/// what is wrong with it. `None` if there is no such file. Blocking.
pub(crate) fn read_anyway(path: &Path) -> Option<(Vec<Distrust>, Option<Vec<u8>>)> {
    let what = if path.file_name().is_some_and(|name| name == MANIFEST_NAME) { A_MANIFEST } else { A_PCONF };
    let status = status_of(rustix::fs::CWD, path).ok()?;
    let mut flaws = flaws_of(what, &status);
    match open_and_read(what, rustix::fs::CWD, path, Trust::Any) {
        Ok((_, bytes)) => Some((flaws, Some(bytes))),
        Err((flaw, reason)) => {
            if flaws.iter().all(|(known, _)| *known != flaw) {
                flaws.push((flaw, reason));
            }
            Some((flaws, None))
        }
    }
}

/// Whose files are read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trust {
    /// Only those without a flaw.
    Checked,
    /// Any that is regular and not too large.
    Any,
}

fn open_and_read(
    what: &str,
    handle: BorrowedFd<'_>,
    name: &Path,
    trust: Trust,
) -> Result<(Stat, Vec<u8>), (Flaw, String)> {
    // Looked at before it is opened too: opening a device may act on it.
    let regular = |status: &Stat| FileType::from_raw_mode(status.st_mode) == FileType::RegularFile;
    if trust == Trust::Any && !status_of(handle, name).is_ok_and(|status| regular(&status)) {
        return Err((Flaw::Unreadable, "is not read".into()));
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let file = match rustix::fs::openat(handle, name, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::LOOP) => return Err((Flaw::Symlink, symlink(what))),
        Err(error @ (Errno::ACCESS | Errno::PERM)) => return Err((Flaw::Closed, format!("cannot be opened: {error}"))),
        Err(error) => return Err((Flaw::Unreadable, format!("cannot be opened now: {error}"))),
    };
    let unreadable = |error: std::io::Error| (Flaw::Unreadable, format!("cannot be read now: {error}"));
    let status = rustix::fs::fstat(&file).map_err(|error| unreadable(error.into()))?;
    if status.st_nlink == 0 {
        return Err((Flaw::Unreadable, "was removed while it was opened".into()));
    }
    let excused = |flaw: &Flaw| trust == Trust::Any && matches!(flaw, Flaw::Owner(_) | Flaw::Mode(_) | Flaw::Links(_));
    if let Some(flaw) = flaws_of(what, &status).into_iter().find(|(flaw, _)| !excused(flaw)) {
        return Err(flaw);
    }
    // One byte more than allowed tells that the file grew; memory grows with what is there, not with what it declares.
    let mut bytes = Vec::new();
    file.take(MAX_PCONF_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() > MAX_PCONF_BYTES {
        let reason = format!("grew while it was read, the limit is {MAX_PCONF_BYTES} bytes");
        return Err((Flaw::Size(bytes.len() as u64), reason));
    }
    Ok((status, bytes))
}

fn understand(bytes: &[u8], status: &Stat, folder: &Path, confinement: &Confinement) -> Result<Found, Refusal> {
    let pconf = Pconf::parse(bytes).map_err(|error| {
        let mut refusal = refuse(Flaw::Text, error.to_string());
        refusal.problems = error.problems;
        refusal
    })?;
    let socket = pconf.socket_path(folder).map_err(|reason| refuse_content(Flaw::SocketPath, reason, &pconf.id))?;
    confinement.check(&socket).map_err(|reason| {
        let reason = format!("{reason}: move the socket or add its folder to socket_dirs");
        refuse_content(Flaw::SocketOutside, reason, &pconf.id)
    })?;
    let mut warnings = pconf.warnings.clone();
    warnings.extend(group_warning(status));
    Ok(Found {
        pconf: Arc::new(pconf),
        socket,
        file_uid: status.st_uid,
        warnings,
        is_tilotech: false,
        is_started: false,
    })
}

fn group_warning(status: &Stat) -> Option<String> {
    let text = || format!("may be written by group {} (mode {:04o}): chmod g-w", status.st_gid, mode_of(status));
    (status.st_mode & 0o020 != 0).then(text)
}

/// How the kinds of files are called.
const A_PCONF: &str = "a .pconf";
const A_MANIFEST: &str = "a plugin.json";

fn symlink(what: &str) -> String {
    format!("is a symbolic link: {what} must be a regular file")
}

fn understand_manifest(bytes: &[u8], status: &Stat, folder: &Path, place: Folder<'_>) -> Result<Installed, Refusal> {
    let manifest = Manifest::parse(bytes, place).map_err(|error| {
        let mut refusal = refuse(Flaw::Text, error.to_string());
        refusal.problems = error.problems;
        refusal
    })?;
    let mut warnings = manifest.warnings.clone();
    warnings.extend(group_warning(status));
    Ok(Installed { manifest: Arc::new(manifest), folder: folder.to_owned(), warnings })
}

/// What a link is that names a version which is not there.
pub(super) fn no_version(version: &Version) -> Refusal {
    refuse(Flaw::NoVersion, format!("names version {version}, which is not installed"))
}

/// What a manifest is whose folder may not be looked into any more.
pub(super) fn closed_folder() -> Refusal {
    refuse(Flaw::ClosedFolder, "lies in a folder that cannot be looked into: permission denied".into())
}

/// What makes a folder, in which a manifest lies, one that is not trusted: others could put another program there.
pub(super) fn folder_flaw(status: &Stat) -> Option<Refusal> {
    let us = rustix::process::geteuid().as_raw();
    let reason = if status.st_uid != us && status.st_uid != 0 {
        format!("lies in a folder of uid {}: chown it to {us}", status.st_uid)
    } else if status.st_mode & 0o002 != 0 {
        format!("lies in a folder that may be written by everybody (mode {:04o}): chmod o-w it", mode_of(status))
    } else {
        return None;
    };
    Some(refuse(Flaw::Folder, reason))
}

/// What is wrong with the file before a byte of it is read, the worst first.
fn flaws_of(kind: &str, status: &Stat) -> Vec<(Flaw, String)> {
    let what = match FileType::from_raw_mode(status.st_mode) {
        FileType::RegularFile => return flaws_of_regular(kind, status),
        FileType::Symlink => return vec![(Flaw::Symlink, symlink(kind))],
        FileType::Directory => "folder",
        FileType::Fifo => "FIFO",
        FileType::Socket => "socket",
        FileType::CharacterDevice | FileType::BlockDevice => "device",
        FileType::Unknown => "special file",
    };
    vec![(Flaw::NotRegular(what), format!("is a {what}: {kind} must be a regular file"))]
}

fn flaws_of_regular(kind: &str, status: &Stat) -> Vec<(Flaw, String)> {
    let mut flaws = Vec::new();
    let us = rustix::process::geteuid().as_raw();
    if status.st_uid != us && status.st_uid != 0 {
        let expected = if us == 0 { "0".to_owned() } else { format!("{us} or 0") };
        let reason = format!("belongs to uid {}, expected {expected}: chown {us}", status.st_uid);
        flaws.push((Flaw::Owner(status.st_uid), reason));
    }
    if status.st_mode & 0o002 != 0 {
        let mode = mode_of(status);
        flaws.push((Flaw::Mode(mode), format!("may be written by everybody (mode {mode:04o}): chmod o-w")));
    }
    if status.st_nlink != 1 {
        let links = status.st_nlink;
        flaws.push((Flaw::Links(links), format!("has {links} links: {kind} must have one name only")));
    }
    let size = u64::try_from(status.st_size).unwrap_or(u64::MAX);
    if size > MAX_PCONF_BYTES as u64 {
        flaws.push((Flaw::Size(size), format!("is {size} bytes, the limit is {MAX_PCONF_BYTES}")));
    }
    flaws
}

fn refuse(flaw: Flaw, reason: String) -> Refusal {
    let kind = match flaw {
        Flaw::Owner(_)
        | Flaw::Mode(_)
        | Flaw::Links(_)
        | Flaw::Symlink
        | Flaw::Closed
        | Flaw::ClosedFolder
        | Flaw::SocketOutside
        | Flaw::Folder => RefusalKind::Denied,
        Flaw::NotRegular(_) | Flaw::Size(_) | Flaw::Unreadable | Flaw::Text | Flaw::SocketPath | Flaw::NoVersion => {
            RefusalKind::Invalid
        }
    };
    Refusal { kind, flaw, reason, problems: Vec::new(), since: Instant::now(), id: None }
}

fn refuse_content(flaw: Flaw, reason: String, id: &PluginId) -> Refusal {
    Refusal { id: Some(id.clone()), ..refuse(flaw, reason) }
}

fn mode_of(status: &Stat) -> u32 {
    status.st_mode & 0o7777
}

pub(crate) fn stamp_of(status: &Stat) -> Stamp {
    let ns = |seconds: i64, nanos: u64| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
    Stamp {
        dev: status.st_dev,
        ino: status.st_ino,
        size: u64::try_from(status.st_size).unwrap_or(u64::MAX),
        mtime_ns: ns(status.st_mtime, status.st_mtime_nsec),
        ctime_ns: ns(status.st_ctime, status.st_ctime_nsec),
    }
}

#[cfg(test)]
mod tests;
