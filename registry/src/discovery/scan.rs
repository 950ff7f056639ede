//! Reads the plugin directory: one `readdir`, one `fstatat` per file, and the content of what changed.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::{Dir, Mode, OFlags};
use rustix::io::Errno;

use super::examine::{examine_at, stamp_of, status_of};
use super::folders::{may_be_folder, read_folders};
use super::{Confinement, Entry, Examined, Flaw, HALF_WRITTEN, Installed, Refusal, ScanOptions, Snapshot, Stamp};
use crate::words::show;

/// Longer than a tick of the clock that stamps files on any kernel: two writes within one tick may have equal stamps.
const TICK: Duration = Duration::from_millis(20);

type Entries = BTreeMap<Arc<Path>, Entry>;
type Manifests = BTreeMap<Arc<Path>, Entry<Installed>>;

/// Reads the directory as it is now. Blocking; 10,000 files that did not change since `previous` cost a `readdir` and an
/// `fstatat` each.
pub(crate) fn scan(options: &ScanOptions, previous: Option<&Snapshot>) -> Snapshot {
    let before = previous.map(|snapshot| Arc::clone(&snapshot.entries)).unwrap_or_default();
    let manifests = previous.map(|snapshot| Arc::clone(&snapshot.manifests)).unwrap_or_default();
    match read_directory(options, &before, &manifests) {
        Ok(snapshot) => snapshot,
        Err(reason) => {
            let truncated = previous.is_some_and(|snapshot| snapshot.truncated);
            let folders = previous.map(|snapshot| Arc::clone(&snapshot.folders)).unwrap_or_default();
            Snapshot { directory: Err(reason), entries: before, manifests, folders, truncated, warnings: Vec::new() }
        }
    }
}

/// Whether a file of this name is looked at: the extension fits exactly, there is a stem, and no dot begins it.
pub(crate) fn is_candidate(name: &OsStr, extension: &str) -> bool {
    let name = name.as_bytes();
    name.len() > extension.len() && name.ends_with(extension.as_bytes()) && !name.starts_with(b".")
}

/// What there is to say about a directory itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DirectoryFacts {
    pub(crate) uid: u32,
    /// The lower twelve bits: permissions, sticky, set-id.
    pub(crate) mode: u32,
}

impl DirectoryFacts {
    /// Others than its owner may put files into it, and nothing keeps them from renaming or removing ours.
    pub(crate) fn is_open_to_others(&self) -> bool {
        self.mode & 0o022 != 0 && self.mode & 0o1000 == 0
    }
}

/// Opens and describes the directory; the reason why not is a fragment that fits after its path.
pub(crate) fn directory_facts(directory: &Path) -> Result<DirectoryFacts, String> {
    open_directory(directory).map(|(_, facts)| facts)
}

fn open_directory(directory: &Path) -> Result<(OwnedFd, DirectoryFacts), String> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let handle = rustix::fs::open(directory, flags, Mode::empty()).map_err(|error| match error {
        Errno::NOENT => "does not exist".to_owned(),
        Errno::NOTDIR => "is not a directory".to_owned(),
        Errno::ACCESS => format!("cannot be opened: {error}: we run as uid {}", rustix::process::geteuid().as_raw()),
        error => format!("cannot be opened: {error}"),
    })?;
    let status = rustix::fs::fstat(&handle).map_err(|error| format!("cannot be looked at: {error}"))?;
    Ok((handle, DirectoryFacts { uid: status.st_uid, mode: status.st_mode & 0o7777 }))
}

fn read_directory(
    options: &ScanOptions,
    before: &Arc<Entries>,
    manifests_before: &Arc<Manifests>,
) -> Result<Snapshot, String> {
    let in_directory = |reason: String| format!("directory {} {reason}", show(&options.directory));
    let folder = std::path::absolute(&options.directory).map_err(|error| in_directory(error.to_string()))?;
    let (handle, facts) = open_directory(&folder).map_err(in_directory)?;
    // Half a list is not the truth.
    let unreadable = |error| in_directory(format!("cannot be read: {error}"));
    let Listed { files: names, folders, mut truncated } =
        list(&handle, options, &folder, before).map_err(unreadable)?;
    let folders =
        read_folders(handle.as_fd(), &folder, folders, options.max_plugins, manifests_before).map_err(unreadable)?;
    truncated |= folders.truncated;
    let confinement = Confinement::new(&folder, &options.socket_dirs);
    let mut entries = Vec::with_capacity(names.len());
    let mut all_reused = names.len() == before.len();
    // Both are in the order of their names, so that one walk finds every old entry: of 10,000 files, looking each up by its
    // path would take longer than asking the kernel for its stamp.
    let is_same_folder = before.keys().next().is_some_and(|path| path.parent() == Some(&folder));
    let mut olds = before.iter().filter(|_| is_same_folder).peekable();
    for name in names {
        while olds.next_if(|(path, _)| path.file_name() < Some(name.as_os_str())).is_some() {}
        let old = olds.next_if(|(path, _)| path.file_name() == Some(name.as_os_str()));
        let status = match status_of(handle.as_fd(), name.as_ref()) {
            Ok(status) => status,
            // Removed since it was listed.
            Err(Errno::NOENT) => {
                all_reused = false;
                continue;
            }
            Err(error) => return Err(in_directory(format!("cannot be searched: {error}"))),
        };
        if let Some((path, entry)) = old.filter(|(_, entry)| entry.stamp == stamp_of(&status) && !must_confirm(entry)) {
            entries.push((Arc::clone(path), entry.clone()));
            continue;
        }
        all_reused = false;
        let examined = examine_at(handle.as_fd(), &folder, name.as_ref(), &status, &confinement);
        entries.push((Arc::from(folder.join(&name)), succeed(old.map(|(_, entry)| entry), examined)));
    }
    let entries = if all_reused { Arc::clone(before) } else { Arc::new(entries.into_iter().collect()) };
    let (manifests, folders) = (folders.manifests, Arc::new(folders.folders));
    Ok(Snapshot { directory: Ok(()), entries, manifests, folders, truncated, warnings: directory_warnings(&facts) })
}

/// The names in the directory that matter.
struct Listed {
    files: BTreeSet<OsString>,
    folders: BTreeSet<OsString>,
    truncated: bool,
}

/// The names that are looked at, at most `max_plugins`: those known before stay, so that a flood of new files does not push
/// out plugins that work; of the new ones the lowest.
fn list(handle: &OwnedFd, options: &ScanOptions, folder: &Path, before: &Entries) -> Result<Listed, Errno> {
    let mut folders = BTreeSet::new();
    let is_known = |name: &OsStr| !before.is_empty() && before.contains_key(folder.join(name).as_path());
    let (mut known, mut new, mut truncated) = (BTreeSet::<OsString>::new(), BTreeSet::<OsString>::new(), false);
    let mut truncated_folders = false;
    for entry in Dir::read_from(handle)? {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if !is_candidate(name, &options.extension) {
            if may_be_folder(&entry) && folders.insert(name.to_owned()) && folders.len() > options.max_plugins {
                folders.pop_last();
                truncated_folders = true;
            }
            continue;
        }
        // Who was known matters only once there are too many.
        if truncated && is_known(name) { &mut known } else { &mut new }.insert(name.to_owned());
        if known.len() + new.len() > options.max_plugins {
            if !truncated {
                known = new.extract_if(.., |name| is_known(name)).collect();
                truncated = true;
            }
            _ = new.pop_last().or_else(|| known.pop_last());
        }
    }
    known.append(&mut new);
    Ok(Listed { files: known, folders, truncated: truncated || truncated_folders })
}

/// Whether an entry must be read once more although its stamp is the same.
pub(super) fn must_confirm<F>(entry: &Entry<F>) -> bool {
    !entry.confirmed && entry.first_read.elapsed() >= TICK
}

/// The entry that follows `old`: what did not change keeps its age.
pub(super) fn succeed<F: PartialEq + Clone>(old: Option<&Entry<F>>, examined: Examined<F>) -> Entry<F> {
    let now = Instant::now();
    let Some(old) = old else {
        let read = examined.read.map_err(|refusal| aged(refusal, &examined.stamp));
        return Entry { stamp: examined.stamp, read, first_read: now, confirmed: false };
    };
    let same_stamp = old.stamp == examined.stamp;
    match (&old.read, &examined.read) {
        // A passing trouble of ours (no descriptor left) says nothing about the file: what was known stays, and the old
        // stamp makes the next scan try again only if the file did change.
        (Ok(_), Err(refusal)) if refusal.flaw == Flaw::Unreadable => old.clone(),
        (Ok(before), Ok(after)) if before == after => {
            let first_read = if same_stamp { old.first_read } else { now };
            Entry { stamp: examined.stamp, read: old.read.clone(), first_read, confirmed: same_stamp }
        }
        (Err(before), Err(after)) if same_stamp && before.says_the_same(after) => {
            Entry { stamp: examined.stamp, read: old.read.clone(), first_read: old.first_read, confirmed: true }
        }
        (Err(before), Err(after)) if !after.may_be_half_written() && before.says_the_same(after) => {
            let read = Err(Arc::new(Refusal { since: before.since, ..Refusal::clone(after) }));
            Entry { stamp: examined.stamp, read, first_read: now, confirmed: false }
        }
        _ => Entry { stamp: examined.stamp, read: examined.read, first_read: now, confirmed: false },
    }
}

/// A text that is seen for the first time has stood since it was last written, so that whoever looks only once sees it too.
fn aged(refusal: Arc<Refusal>, stamp: &Stamp) -> Arc<Refusal> {
    let written = u64::try_from(stamp.mtime_ns).ok().map(|ns| SystemTime::UNIX_EPOCH + Duration::from_nanos(ns));
    let age = written.and_then(|written| written.elapsed().ok()).unwrap_or_default().min(HALF_WRITTEN);
    match refusal.since.checked_sub(age) {
        Some(since) if refusal.flaw == Flaw::Text => Arc::new(Refusal { since, ..Refusal::clone(&refusal) }),
        _ => refusal,
    }
}

fn directory_warnings(facts: &DirectoryFacts) -> Vec<String> {
    let open = facts.is_open_to_others();
    let text = || format!("others may put files into the plugin directory (mode {:04o}): chmod go-w", facts.mode);
    open.then(text).into_iter().collect()
}

#[cfg(test)]
pub(super) mod tests;
