//! What the operator wants, kept on disk: `<plugin dir>/.goplug/state.json`.
//!
//! It lies in the plugin directory, so that a daemon and a command on the directory (`--dir`) want the same, and moves with it.
//! A reader sees the old file or the new one, whenever its writer was killed: it is written beside, synced and renamed. Writers
//! take turns by a lock on the folder. A file that cannot be obeyed is kept as `state.json.bad`, and everything is enabled
//! again.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use goplug_pconf_schema::{DesiredState, MAX_DESIRED_BYTES};
use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::path::Arg;

/// Our own folder in a plugin directory. Nothing in it is ever taken for a plugin.
pub(crate) const OWN_FOLDER: &str = ".goplug";
/// How long other writers are waited for: each of them writes one small file, or deletes a folder.
const LOCK_WAIT: Duration = Duration::from_secs(10);
const LOCK_PAUSE: Duration = Duration::from_millis(2);
const FILE: &str = "state.json";
const NEXT: &str = "state.json.next";
const BAD: &str = "state.json.bad";

/// Reads what is wanted in `directory`; nothing, when nobody wrote it. Blocking.
///
/// # Errors
/// Why the file cannot be obeyed, as a fragment that fits after its name.
pub(crate) fn load(directory: &Path) -> Result<DesiredState, String> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::open(directory.join(OWN_FOLDER), flags, Mode::empty()) {
        Ok(folder) => load_at(&folder),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(DesiredState::default()),
        Err(error) => Err(format!("cannot be reached: {error}")),
    }
}

fn load_at(folder: &OwnedFd) -> Result<DesiredState, String> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(folder, FILE, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Ok(DesiredState::default()),
        Err(error) => return Err(format!("cannot be opened: {error}")),
    };
    let status = rustix::fs::fstat(&file).map_err(|error| format!("cannot be looked at: {error}"))?;
    let us = rustix::process::geteuid().as_raw();
    if (status.st_uid != us && status.st_uid != 0) || status.st_mode & 0o022 != 0 {
        return Err(format!("may be written by others (uid {}, mode {:04o})", status.st_uid, status.st_mode & 0o7777));
    }
    let mut bytes = Vec::new();
    let read = file.take(MAX_DESIRED_BYTES as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|error| format!("cannot be read: {error}"))?;
    DesiredState::parse(&bytes)
}

/// Changes what is wanted in `directory`: reads, lets `change` change it, and writes it if `change` says that it did. What was
/// there and cannot be obeyed is kept beside; the answer says why it could not. Blocking; waits for other writers.
///
/// # Errors
/// The system's, with what could not be done; then nothing is changed.
pub(crate) fn update(
    directory: &Path,
    change: impl FnOnce(&mut DesiredState) -> bool,
) -> Result<Option<String>, String> {
    let folder = own_folder(directory)?;
    lock(&folder, FlockOperation::NonBlockingLockExclusive)?;
    let (mut state, bad) = match load_at(&folder) {
        Ok(state) => (state, None),
        Err(reason) => (DesiredState::default(), Some(reason)),
    };
    if !change(&mut state) && bad.is_none() {
        return Ok(None);
    }
    if bad.is_some() {
        match rustix::fs::renameat(&folder, FILE, &folder, BAD) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(failed("keep", FILE)(error)),
        }
    }
    // Whatever a writer that was killed left behind.
    _ = rustix::fs::unlinkat(&folder, NEXT, AtFlags::empty());
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    let mut file = File::from(rustix::fs::openat(&folder, NEXT, flags, mode).map_err(failed("make", NEXT))?);
    let written = file.write_all(&state.to_json()).and_then(|()| file.sync_all());
    let placed = written
        .map_err(|error| format!("cannot write {OWN_FOLDER}/{NEXT}: {error}"))
        .and_then(|()| rustix::fs::renameat(&folder, NEXT, &folder, FILE).map_err(failed("put in place", FILE)));
    if placed.is_err() {
        _ = rustix::fs::unlinkat(&folder, NEXT, AtFlags::empty());
    }
    placed?;
    rustix::fs::fsync(&folder).map_err(failed("sync", OWN_FOLDER))?;
    Ok(bad)
}

/// Takes a lock that others hold shortly. The kernel knows no lock with a time limit, so it is asked again and again.
///
/// # Errors
/// Somebody holds it for [`LOCK_WAIT`].
pub(crate) fn lock(file: &OwnedFd, operation: FlockOperation) -> Result<(), String> {
    let begin = Instant::now();
    loop {
        match rustix::fs::flock(file, operation) {
            Ok(()) => return Ok(()),
            Err(Errno::AGAIN | Errno::INTR) if begin.elapsed() < LOCK_WAIT => std::thread::sleep(LOCK_PAUSE),
            Err(Errno::AGAIN) => {
                return Err(format!("another process works on {OWN_FOLDER} since {LOCK_WAIT:?}: is it stopped?"));
            }
            Err(error) => return Err(format!("cannot lock {OWN_FOLDER}: {error}")),
        }
    }
}

/// Opens our own folder in `directory`, and makes it if it is not there.
pub(crate) fn own_folder(directory: &Path) -> Result<OwnedFd, String> {
    let path = directory.join(OWN_FOLDER);
    let (folder, _) = open_or_make(CWD, &path, Mode::RWXU).map_err(failed("open or make", OWN_FOLDER))?;
    let status = rustix::fs::fstat(folder.as_fd()).map_err(failed("look at", OWN_FOLDER))?;
    let us = rustix::process::geteuid().as_raw();
    if (status.st_uid != us && status.st_uid != 0) || status.st_mode & 0o022 != 0 {
        return Err(format!("{OWN_FOLDER} may be written by others: chmod 700 it"));
    }
    Ok(folder)
}

/// Opens a folder, and makes it if it is not there: a full disk hinders nobody who needs nothing of it. The second: whether it
/// may be new.
pub(crate) fn open_or_make<N: Arg + Copy>(at: BorrowedFd<'_>, name: N, mode: Mode) -> Result<(OwnedFd, bool), Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = || rustix::fs::openat(at, name, flags, Mode::empty());
    match open() {
        Err(Errno::NOENT) => {}
        opened => return Ok((opened?, false)),
    }
    match rustix::fs::mkdirat(at, name, mode) {
        Ok(()) | Err(Errno::EXIST) => Ok((open()?, true)),
        Err(error) => Err(error),
    }
}

fn failed(what: &'static str, name: &'static str) -> impl Fn(Errno) -> String {
    move |error| match name {
        OWN_FOLDER => format!("cannot {what} {name}: {error}"),
        _ => format!("cannot {what} {OWN_FOLDER}/{name}: {error}"),
    }
}

#[cfg(test)]
mod tests;
