//! When to look: file events, as hints. The only user of notify.
//!
//! What notify does not do, and is done here: it goes silent when the watched directory is removed or moved away, even
//! when a new one takes its place (so the directory's identity is compared at every [`Watch::rearm`]); it reports opening
//! a file, which a scan does itself (ignored, else every scan would cause the next); its thread can die (noticed by the
//! drop of its handler), after which using or dropping the watcher panics (so it is forgotten then).

use std::collections::BTreeSet;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use goplug_pconf_schema::manifest::MANIFEST_NAME;
use notify::event::{AccessKind, AccessMode, CreateKind, EventKind, ModifyKind, RemoveKind};
use notify::{ErrorKind, Event, EventHandler, RecommendedWatcher, RecursiveMode, Watcher};
use rustix::fs::{AtFlags, CWD, StatxFlags};
use tokio::sync::Notify;

use super::scan::is_candidate;

/// How long to wait before asking the kernel again after it refused a watch.
const RETRY: Duration = Duration::from_secs(10);
/// A watcher that dies sooner than this is not replaced at once: its end sets the dirty flag, which leads back here.
const SHORT_LIFE: Duration = Duration::from_secs(1);

/// Folders of the directory that are watched; of more, changes are found by the periodic scan. The kernel's own limit per
/// user is 8,192 on small machines, and shared with everybody else.
const MAX_FOLDERS: usize = 1_024;

/// A watch on one directory, which may be missing, vanish and come back.
#[derive(Debug)]
pub(crate) struct Watch {
    directory: PathBuf,
    extension: String,
    armed: Option<Armed>,
    retry_at: Option<Instant>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Armed {
    watcher: Option<RecommendedWatcher>,
    /// The folders that are watched besides, each with what it was.
    folders: BTreeSet<(PathBuf, Identity)>,
    identity: Identity,
    since: Instant,
    dead: Arc<AtomicBool>,
}

/// What tells a directory from another one at the same path. Inode numbers are used again at once; the time of birth
/// tells such two apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Identity {
    device: (u32, u32),
    inode: u64,
    born: (i64, u32),
}

/// What the watch says; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct WatchSignals(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    dirty: Notify,
    overflows: AtomicU64,
    problem: Mutex<Option<String>>,
}

impl Watch {
    /// Watches `directory` for files with `extension`. Never fails: without a watch the periodic scan has to do, and
    /// [`WatchSignals::problem`] says so. Blocking, shortly.
    pub(crate) fn new(directory: &Path, extension: &str) -> (Self, WatchSignals) {
        let shared = Arc::new(Shared::default());
        let signals = WatchSignals(Arc::clone(&shared));
        let directory = directory.to_owned();
        let mut watch = Self { directory, extension: extension.to_owned(), armed: None, retry_at: None, shared };
        watch.rearm();
        (watch, signals)
    }

    /// To be called at every periodic scan: makes sure that the directory which is there now is the one that is watched.
    /// A new watch sets the dirty flag, since nobody saw what happened before it. Blocking, shortly.
    pub(crate) fn rearm(&mut self) {
        let present = identity(&self.directory);
        let holds = |armed: &Armed| Some(armed.identity) == present && !armed.dead.load(Ordering::Acquire);
        if self.armed.as_ref().is_some_and(holds) {
            return;
        }
        if let Some(old) = self.armed.take() {
            let died_young = old.dead.load(Ordering::Acquire) && old.since.elapsed() < SHORT_LIFE;
            self.retry_at = died_young.then(|| Instant::now() + SHORT_LIFE);
        }
        let Some(present) = present else { return };
        if self.retry_at.is_some_and(|at| Instant::now() < at) {
            return;
        }
        match self.arm(present) {
            Ok(armed) => {
                self.armed = Some(armed);
                self.retry_at = None;
                self.shared.set_problem(None);
            }
            Err(problem) => {
                self.retry_at = Some(Instant::now() + RETRY);
                self.shared.set_problem(Some(problem));
            }
        }
        self.shared.dirty.notify_one();
    }

    /// To be called with every scan: watches `folders` of the directory, the first [`MAX_FOLDERS`] of them, and no others. A
    /// new one sets the dirty flag, since nobody saw what happened in it before. Blocking, shortly.
    pub(crate) fn folders(&mut self, folders: &[PathBuf]) {
        let Some(armed) = self.armed.as_mut().filter(|armed| !armed.dead.load(Ordering::Acquire)) else { return };
        let Some(watcher) = &mut armed.watcher else { return };
        let identified = |folder: &PathBuf| Some((folder.clone(), identity(folder)?));
        let wanted: BTreeSet<_> = folders.iter().take(MAX_FOLDERS).filter_map(identified).collect();
        if wanted == armed.folders {
            return;
        }
        // All of it panics, instead of failing, when the watcher's thread dies meanwhile; a folder that cannot be watched is
        // left to the periodic scan.
        let changed = catch_unwind(AssertUnwindSafe(|| {
            for (old, _) in armed.folders.difference(&wanted) {
                // One that was removed is watched no more.
                _ = watcher.unwatch(old);
            }
            let new = wanted.difference(&armed.folders);
            new.filter(|(folder, _)| watcher.watch(folder, RecursiveMode::NonRecursive).is_ok()).count()
        }));
        armed.folders = wanted;
        if changed.is_ok_and(|new| new > 0) {
            self.shared.dirty.notify_one();
        }
    }

    fn arm(&self, present: Identity) -> Result<Armed, String> {
        let dead = Arc::new(AtomicBool::new(false));
        let handler = Handler {
            directory: self.directory.clone(),
            extension: self.extension.clone(),
            shared: Arc::clone(&self.shared),
            dead: Arc::clone(&dead),
        };
        let mut armed =
            Armed { watcher: None, folders: BTreeSet::new(), identity: present, since: Instant::now(), dead };
        // Both panic, instead of failing, when the watcher's thread could not be started.
        catch_unwind(AssertUnwindSafe(|| {
            let watcher = armed.watcher.insert(RecommendedWatcher::new(handler, notify::Config::default())?);
            watcher.watch(&self.directory, RecursiveMode::NonRecursive)
        }))
        .map_err(|_| "the watcher's thread could not be started: changes are found by the periodic scan".to_owned())?
        .map_err(|error| explain(&error))?;
        // If the directory was exchanged meanwhile, the next `rearm` sees two different identities.
        Ok(armed)
    }
}

impl Drop for Armed {
    fn drop(&mut self) {
        let watcher = self.watcher.take();
        if self.dead.load(Ordering::Acquire) {
            std::mem::forget(watcher);
        } else {
            // Its thread may die at this very moment.
            _ = catch_unwind(AssertUnwindSafe(|| drop(watcher)));
        }
    }
}

impl WatchSignals {
    /// Waits until there may be something new. One waiter at a time; what happened since the last wait counts once.
    ///
    /// # Cancel safety
    /// Safe: a signal that arrived stays.
    pub(crate) async fn dirty(&self) {
        self.0.dirty.notified().await;
    }

    /// How often the kernel dropped events because they came faster than they were read. The dirty flag is set too.
    pub(crate) fn overflows(&self) -> u64 {
        self.0.overflows.load(Ordering::Relaxed)
    }

    /// Why file events do not arrive, so that only the periodic scan finds changes.
    pub(crate) fn problem(&self) -> Option<String> {
        self.0.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Shared {
    fn set_problem(&self, problem: Option<String>) {
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = problem;
    }
}

struct Handler {
    directory: PathBuf,
    extension: String,
    shared: Arc<Shared>,
    dead: Arc<AtomicBool>,
}

impl EventHandler for Handler {
    fn handle_event(&mut self, event: notify::Result<Event>) {
        let matters = match &event {
            Ok(event) if event.need_rescan() => {
                self.shared.overflows.fetch_add(1, Ordering::Relaxed);
                true
            }
            Ok(event) => self.matters(event),
            // Something was missed, whatever it was.
            Err(_) => true,
        };
        if matters {
            self.shared.dirty.notify_one();
        }
    }
}

impl Handler {
    fn matters(&self, event: &Event) -> bool {
        match event.kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => {}
            EventKind::Access(_) => return false,
            _ => {}
        }
        // A folder came, went or was renamed: of what was renamed nobody says what it is.
        let may_be_folder = matches!(
            event.kind,
            EventKind::Create(CreateKind::Folder)
                | EventKind::Remove(RemoveKind::Folder)
                | EventKind::Modify(ModifyKind::Name(_))
        );
        // A log or a socket in the same folder must not cause a scan at every write.
        let is_ours = |path: &PathBuf| match path.file_name() {
            Some(name) => {
                is_candidate(name, &self.extension)
                    || name == MANIFEST_NAME
                    || *path == self.directory
                    || (may_be_folder && !name.as_encoded_bytes().starts_with(b"."))
            }
            None => true,
        };
        event.paths.is_empty() || event.paths.iter().any(is_ours)
    }
}

impl Drop for Handler {
    fn drop(&mut self) {
        self.dead.store(true, Ordering::Release);
        self.shared.dirty.notify_one();
    }
}

fn identity(directory: &Path) -> Option<Identity> {
    let flags = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
    let status = rustix::fs::statx(CWD, directory, AtFlags::empty(), flags).ok()?;
    let device = (status.stx_dev_major, status.stx_dev_minor);
    let born = (status.stx_btime.tv_sec, status.stx_btime.tv_nsec);
    Some(Identity { device, inode: status.stx_ino, born })
}

fn explain(error: &notify::Error) -> String {
    let (what, mend) = match &error.kind {
        ErrorKind::MaxFilesWatch => ("no watch is left for this user", "raise fs.inotify.max_user_watches"),
        ErrorKind::Io(error) if error.raw_os_error() == Some(rustix::io::Errno::MFILE.raw_os_error()) => (
            "no inotify instance or no file descriptor is left for this user",
            "raise fs.inotify.max_user_instances or the limit of open files",
        ),
        ErrorKind::Io(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            ("the directory may not be read", "chmod u+rx it")
        }
        _ => return format!("the directory cannot be watched ({error}): changes are found by the periodic scan"),
    };
    format!("{what}: changes are found by the periodic scan; {mend}")
}

#[cfg(test)]
mod tests;
