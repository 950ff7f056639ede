//! Who keeps the processes of a plugin directory: one registry at a time. The others see the plugins and call them, and start,
//! stop and restart none: two that did would both start the one that died.
//!
//! `<plugin dir>/.goplug/keeper.lock` is locked by the registry that keeps, and holds its pid for people. The lock goes with
//! the process that has it, however that ends. A registry that watches takes it before it starts anything by itself; one that
//! does only what it is told, when it is told to start or stop something.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use goplug_pconf_schema::{Code, Fault, PluginId};
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::desired::{OWN_FOLDER, own_folder};

const FILE: &str = "keeper.lock";

/// The right to keep the processes of one directory.
#[derive(Debug, Default)]
pub(crate) struct Lease(Mutex<State>);

#[derive(Debug, Default)]
enum State {
    #[default]
    Open,
    Held(#[expect(dead_code, reason = "it is locked while it is open")] OwnedFd),
    /// The directory takes no file of ours, and so none of anybody's.
    Impossible,
}

/// Another registry keeps the processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeptElsewhere {
    /// The pid of its process, if it has told it.
    pub(crate) pid: Option<u32>,
}

impl Lease {
    /// Takes the lease, unless it is ours already. Blocking, for a moment.
    pub(crate) fn take(&self, directory: &Path) -> Result<(), KeptElsewhere> {
        let mut state = self.lock();
        if !matches!(*state, State::Open) {
            return Ok(());
        }
        *state = match open(directory) {
            Err(why) => {
                tracing::warn!(%why, "nothing tells other registries that this one keeps the plugins' processes");
                State::Impossible
            }
            Ok(file) => match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {
                    tell(&file);
                    State::Held(file)
                }
                Err(Errno::AGAIN) => return Err(KeptElsewhere { pid: holder(file) }),
                Err(error) => {
                    tracing::warn!(%error, "{FILE} cannot be locked: others may keep the plugins' processes too");
                    State::Impossible
                }
            },
        };
        Ok(())
    }

    /// Whether it is ours.
    pub(crate) fn is_held(&self) -> bool {
        matches!(*self.lock(), State::Held(_))
    }

    /// Another registry may keep the processes from here on.
    pub(crate) fn release(&self) {
        *self.lock() = State::Open;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl KeptElsewhere {
    /// What whoever wants to start or stop the plugin is told.
    pub(crate) fn fault(self, plugin: &PluginId) -> Fault {
        let text = format!("the process of plugin `{plugin}` is kept by {self}: ask that one, or end it first");
        Fault::new(Code::Conflict, text)
    }
}

impl std::fmt::Display for KeptElsewhere {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.pid {
            Some(pid) => write!(f, "another registry of this directory (pid {pid})"),
            None => write!(f, "another registry of this directory"),
        }
    }
}

/// Who keeps the processes of a directory now: its pid. The lock is not touched, so that nobody who wants it is hindered by a look.
/// Blocking, for a moment.
pub(crate) fn keeper(directory: &Path) -> Option<u32> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::open(directory.join(OWN_FOLDER).join(FILE), flags, Mode::empty()).ok()?;
    let status = rustix::fs::fstat(&file).ok()?;
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    let locked = lockers(&locks, status.st_ino);
    // Some file systems have another number of the device here: whoever has told its pid is believed without it.
    let told = holder(file);
    told.filter(|pid| locked.contains(pid))
}

/// The processes that have locked a file with this number, as `/proc/locks` lists them.
fn lockers(locks: &str, inode: u64) -> Vec<u32> {
    let lines = locks.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let ours = lines.filter_map(|words| match words.as_slice() {
        [_, "FLOCK", _, "WRITE", pid, file, ..] => {
            let number = file.rsplit(':').next()?.parse::<u64>().ok()?;
            (number == inode).then(|| pid.parse().ok())?
        }
        _ => None,
    });
    ours.collect()
}

fn open(directory: &Path) -> Result<OwnedFd, String> {
    let folder = own_folder(directory)?;
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&folder, FILE, flags, Mode::RUSR | Mode::WUSR);
    file.map_err(|error| format!("cannot open {OWN_FOLDER}/{FILE}: {error}"))
}

fn tell(file: &OwnedFd) {
    let Ok(file) = file.try_clone() else { return };
    let mut file = File::from(file);
    // For people only: without it they are told that there is another registry, and not which.
    _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
}

/// Whoever has just taken it may not have told yet; then it is not known.
fn holder(file: OwnedFd) -> Option<u32> {
    let mut text = String::new();
    let mut file = File::from(file);
    file.rewind().ok()?;
    file.take(32).read_to_string(&mut text).ok()?;
    let pid = text.strip_suffix('\n')?.parse::<u32>().ok()?;
    Path::new("/proc").join(pid.to_string()).exists().then_some(pid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_keeps_and_the_others_know_who() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (Lease::default(), Lease::default());
        first.take(dir.path()).unwrap();
        first.take(dir.path()).unwrap();
        let other = KeptElsewhere { pid: Some(std::process::id()) };
        assert_eq!(second.take(dir.path()), Err(other));
        assert_eq!((keeper(dir.path()), first.is_held(), second.is_held()), (Some(std::process::id()), true, false));
        first.release();
        assert_eq!(keeper(dir.path()), None);
        second.take(dir.path()).unwrap();
        assert_eq!(first.take(dir.path()), Err(other));
    }

    #[test]
    fn locks_are_told_by_the_number_of_the_file() {
        let locks = "1: FLOCK  ADVISORY  WRITE 12 fe:00:77 0 EOF\n1: -> FLOCK  ADVISORY  WRITE 14 fe:00:77 0 EOF\n\
                     2: FLOCK  ADVISORY  READ 15 fe:00:77 0 EOF\n3: POSIX  ADVISORY  WRITE 13 fe:00:77 0 EOF\n\
                     4: FLOCK  ADVISORY  WRITE 16 fe:00:78 0 EOF\nnonsense\n";
        assert_eq!(lockers(locks, 77), [12]);
        assert!(lockers("", 77).is_empty());
    }

    #[test]
    fn where_no_file_can_be_made_nobody_waits_for_it() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(OWN_FOLDER), "no folder").unwrap();
        Lease::default().take(dir.path()).unwrap();
    }
}
