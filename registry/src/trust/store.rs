//! What is trusted, on disk: the pins in `trust.json`, what was installed in `packages.json`, the keys in `trusted-keys`, outside
//! of every plugin directory, because whoever may write there may not say who is trusted. Blocking.
//!
//! A reader sees the old file or the new one, whenever its writer was killed: it is written beside, synced and renamed. Writers
//! take turns by a lock on the folder. A file that cannot be believed stays where it is: until somebody has looked at it, no
//! pin is read and none is written.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use goplug_pconf_schema::{MAX_PACKAGES_BYTES, MAX_TRUST_BYTES, PackageState, TrustState};
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::desired::lock;

const KEYS: &str = "trusted-keys";
/// What is written and then renamed.
const NEXT: &str = "trust.json.next";
/// The largest file of keys that is read: a thousand of them with long comments.
pub(super) const MAX_KEYS_BYTES: usize = 256 * 1024;

/// A file that says what it says as a whole, or cannot be believed.
pub(super) trait Kept: Clone + Default + PartialEq {
    /// Its name in the folder.
    const FILE: &str;
    /// The largest one that is read.
    const LIMIT: usize;

    fn parse(bytes: &[u8]) -> Result<Self, String>;
    fn to_json(&self) -> Vec<u8>;
}

impl Kept for TrustState {
    const FILE: &str = "trust.json";
    const LIMIT: usize = MAX_TRUST_BYTES;

    fn parse(bytes: &[u8]) -> Result<Self, String> {
        Self::parse(bytes)
    }

    fn to_json(&self) -> Vec<u8> {
        self.to_json()
    }
}

impl Kept for PackageState {
    const FILE: &str = "packages.json";
    const LIMIT: usize = MAX_PACKAGES_BYTES;

    fn parse(bytes: &[u8]) -> Result<Self, String> {
        Self::parse(bytes)
    }

    fn to_json(&self) -> Vec<u8> {
        self.to_json()
    }
}

/// Reads a file; it is empty, when nobody wrote any.
///
/// # Errors
/// Why it cannot be believed, with its name.
pub(super) fn load<T: Kept>(folder: &Path) -> Result<T, String> {
    match open(folder) {
        Ok(opened) => load_at(&opened, folder),
        Err(Errno::NOENT) => Ok(T::default()),
        Err(error) => Err(format!("{} cannot be opened: {error}", folder.display())),
    }
}

/// Changes a file: reads it, lets `change` change it, and writes it if it is another one then. Waits for other writers.
///
/// # Errors
/// As [`load`]; what could not be written. Then nothing is changed.
pub(super) fn update<S: Kept, T>(folder: &Path, change: impl FnOnce(&mut S) -> T) -> Result<T, String> {
    try_update(folder, |state| Ok(change(state)))
}

/// As [`update`]; what `change` refuses is not written.
pub(super) fn try_update<S: Kept, T, E: From<String>>(
    folder: &Path,
    change: impl FnOnce(&mut S) -> Result<T, E>,
) -> Result<T, E> {
    let opened = turn(folder)?;
    let mut state: S = load_at(&opened, folder)?;
    let before = state.clone();
    let answer = change(&mut state)?;
    if state != before {
        write(&opened, folder, S::FILE, &state.to_json())?;
    }
    Ok(answer)
}

/// Reads the text of the keys; empty, when nobody wrote any.
///
/// # Errors
/// As [`load`].
pub(super) fn load_keys(folder: &Path) -> Result<String, String> {
    match open(folder) {
        Ok(opened) => keys_at(&opened, folder),
        Err(Errno::NOENT) => Ok(String::new()),
        Err(error) => Err(format!("{} cannot be opened: {error}", folder.display())),
    }
}

/// Changes the text of the keys, unless `change` refuses. Waits for other writers.
///
/// # Errors
/// As [`update`]; what `change` says.
pub(super) fn update_keys<E: From<String>>(
    folder: &Path,
    change: impl FnOnce(&str) -> Result<Option<String>, E>,
) -> Result<(), E> {
    let opened = turn(folder)?;
    let before = keys_at(&opened, folder)?;
    match change(&before)? {
        Some(text) => Ok(write(&opened, folder, KEYS, text.as_bytes())?),
        None => Ok(()),
    }
}

fn keys_at(opened: &OwnedFd, folder: &Path) -> Result<String, String> {
    let bytes = read(opened, folder, KEYS, MAX_KEYS_BYTES)?.unwrap_or_default();
    String::from_utf8(bytes).map_err(|_| format!("{} is no text", folder.join(KEYS).display()))
}

/// The folder, held by the lock of whoever writes.
fn turn(folder: &Path) -> Result<OwnedFd, String> {
    make(folder)?;
    let opened = open(folder).map_err(|error| format!("{} cannot be reached: {error}", folder.display()))?;
    check(&opened, &folder.display().to_string())?;
    lock(&opened, FlockOperation::NonBlockingLockExclusive)?;
    Ok(opened)
}

fn write(opened: &OwnedFd, folder: &Path, name: &str, bytes: &[u8]) -> Result<(), String> {
    let failed = |what: &str, error: Errno| format!("{} cannot be {what}: {error}", folder.join(name).display());
    // Whatever a writer that was killed left behind.
    _ = rustix::fs::unlinkat(opened, NEXT, AtFlags::empty());
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    let next = rustix::fs::openat(opened, NEXT, flags, mode).map_err(|error| failed("written", error))?;
    let mut file = File::from(next);
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    written.map_err(|error| format!("{} cannot be written: {error}", folder.join(name).display()))?;
    rustix::fs::renameat(opened, NEXT, opened, name).map_err(|error| failed("put in place", error))?;
    rustix::fs::fsync(opened).map_err(|error| failed("synced", error))
}

fn load_at<T: Kept>(opened: &OwnedFd, folder: &Path) -> Result<T, String> {
    match read(opened, folder, T::FILE, T::LIMIT)? {
        Some(bytes) => T::parse(&bytes).map_err(|why| format!("{} {why}", folder.join(T::FILE).display())),
        None => Ok(T::default()),
    }
}

/// The bytes of a file in the folder, one more than `limit` at most.
fn read(opened: &OwnedFd, folder: &Path, name: &str, limit: usize) -> Result<Option<Vec<u8>>, String> {
    let shown = folder.join(name).display().to_string();
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(opened, name, flags, Mode::empty()) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(format!("{shown} cannot be opened: {error}")),
    };
    check(&file, &shown)?;
    let mut bytes = Vec::new();
    let read = File::from(file).take(limit as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|error| format!("{shown} cannot be read: {error}"))?;
    Ok(Some(bytes))
}

/// What others may write says nothing about trust.
fn check(file: &OwnedFd, shown: &str) -> Result<(), String> {
    let status = rustix::fs::fstat(file).map_err(|error| format!("{shown} cannot be looked at: {error}"))?;
    let us = rustix::process::geteuid().as_raw();
    if (status.st_uid != us && status.st_uid != 0) || status.st_mode & 0o022 != 0 {
        let (uid, mode) = (status.st_uid, status.st_mode & 0o7777);
        return Err(format!("{shown} may be written by others (uid {uid}, mode {mode:04o})"));
    }
    Ok(())
}

fn open(folder: &Path) -> Result<OwnedFd, Errno> {
    rustix::fs::open(folder, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

fn make(folder: &Path) -> Result<(), String> {
    use std::os::unix::fs::DirBuilderExt;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|error| format!("{} cannot be made: {error}", folder.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use goplug_pconf_schema::{Pin, PluginId, Sha256};

    use super::*;

    const FILE: &str = TrustState::FILE;

    fn pin(n: u8) -> Pin {
        Pin { sha256: Sha256::from([n; 32]), path: "/bin/x".into(), since: "now".into(), approved: false }
    }

    fn put(folder: &Path, n: u8) -> Result<Option<Pin>, String> {
        let id = PluginId::new("Test", "Do").unwrap();
        update(folder, |state: &mut TrustState| state.set("/plugins", &id, Some(pin(n))))
    }

    #[test]
    fn pins_are_kept_in_a_file_of_our_own() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("a/b");
        assert_eq!(load::<TrustState>(&folder).unwrap(), TrustState::default());
        assert_eq!(put(&folder, 1).unwrap(), None);
        assert_eq!(put(&folder, 2).unwrap(), Some(pin(1)));
        assert_eq!(load::<TrustState>(&folder).unwrap().pins("/plugins").count(), 1);
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&folder), mode(&folder.join(FILE))), (0o700, 0o600));
        let names: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, [FILE]);
    }

    #[test]
    fn what_cannot_be_believed_is_neither_obeyed_nor_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let (folder, file) = (folder.path(), folder.path().join(FILE));
        put(folder, 1).unwrap();
        let whole = std::fs::read(&file).unwrap();
        let refused = |why: &str| {
            for answer in [load::<TrustState>(folder).map(drop), put(folder, 2).map(drop)] {
                let error = answer.unwrap_err();
                assert!(error.contains("trust.json") && error.contains(why), "{error}");
            }
        };
        for (bytes, why) in [(&whole[..whole.len() / 2], "cannot be read"), (b"", "is empty")] {
            std::fs::write(&file, bytes).unwrap();
            refused(why);
            assert_eq!(std::fs::read(&file).unwrap(), bytes);
        }
        std::fs::write(&file, &whole).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o620)).unwrap();
        refused("may be written by others");
        std::fs::remove_file(&file).unwrap();
        std::os::unix::fs::symlink("/dev/null", &file).unwrap();
        refused("cannot be opened");
    }
}
