//! What is in the plugin directory.
//!
//! Level-triggered: [`scan`] reads the directory, [`diff`] compares what was read with what was applied, [`watch`] only
//! says "look again". A lost event costs time (until the next periodic scan), never truth; start-up is a diff from the
//! empty [`View`]. In reading order: this file (what is found), `scan` (the directory), `folders` (its folders, for manifests),
//! `examine` (one file), `confine` (where a socket may lie), `program` (what a manifest runs), `shared_object` (whether a file can be one), `diff` (what changed), `watch`
//! (when to look); `version` (where versions lie, and the link that names the current one).

mod confine;
mod diff;
mod examine;
mod folders;
mod program;
mod scan;
mod shared_object;
pub(crate) mod version;
mod watch;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use goplug_pconf_schema::admin::State;
use goplug_pconf_schema::{Manifest, Pconf, PconfProblem, PluginId};

pub(crate) use confine::{Confinement, runtime_folder};
pub(crate) use diff::{Change, View, diff, diff_manifests};
pub(crate) use examine::{Examined, examine, examine_manifest, examine_version, read_anyway, stamp_of};
pub(crate) use program::{check_program, keys_of};
pub(crate) use scan::{DirectoryFacts, directory_facts, is_candidate, scan};
pub(crate) use shared_object::check_shared_object;
pub(crate) use watch::{Watch, WatchSignals};

/// How long a file that does not parse must stand unchanged before it is reported: until then somebody may be writing it.
pub(crate) const HALF_WRITTEN: Duration = Duration::from_secs(1);

/// What to look at.
#[derive(Debug, Clone)]
pub(crate) struct ScanOptions {
    /// The plugin directory, absolute or relative to the working directory.
    pub(crate) directory: PathBuf,
    /// With its dot; compared exactly.
    pub(crate) extension: String,
    /// Folders in which sockets may lie besides the plugin directory and the runtime folder.
    pub(crate) socket_dirs: Vec<PathBuf>,
    /// The most files, and the most folders, that are looked at.
    pub(crate) max_plugins: usize,
}

/// The directory at one moment.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    /// Why the directory cannot be read; then `entries` is what was known before.
    pub(crate) directory: Result<(), String>,
    /// The files with the right extension, by absolute path. The same `Arc` as in the snapshot before if nothing changed.
    pub(crate) entries: Arc<BTreeMap<Arc<Path>, Entry>>,
    /// The manifests in its folders, by absolute path; the same `Arc` as before if nothing changed.
    pub(crate) manifests: Arc<BTreeMap<Arc<Path>, Entry<Installed>>>,
    /// The folders in which a manifest is, or may appear.
    pub(crate) folders: Arc<Vec<PathBuf>>,
    /// There are more than `max_plugins` files; those known before are kept, then the lowest names.
    pub(crate) truncated: bool,
    /// What is worth a look about the directory itself.
    pub(crate) warnings: Vec<String>,
}

/// One file at one moment.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry<F = Found> {
    /// As the file was before it was read: if it changed meanwhile, the next scan sees another stamp.
    pub(crate) stamp: Stamp,
    /// What it says, or why it is not used.
    pub(crate) read: Result<Arc<F>, Arc<Refusal>>,
    /// When this stamp was seen first.
    pub(crate) first_read: Instant,
    /// It was read again, with the same result, after the kernel's clock must have ticked: an equal stamp now means an
    /// equal file.
    pub(crate) confirmed: bool,
}

/// What tells that a file may have changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Stamp {
    pub(crate) dev: u64,
    pub(crate) ino: u64,
    pub(crate) size: u64,
    pub(crate) mtime_ns: i128,
    pub(crate) ctime_ns: i128,
}

impl Stamp {
    /// Whether the content was written again, as opposed to a change of mode or owner only.
    pub(crate) fn same_content(&self, other: &Self) -> bool {
        (self.dev, self.ino, self.size, self.mtime_ns) == (other.dev, other.ino, other.size, other.mtime_ns)
    }
}

/// A `.pconf` that can be used.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Found {
    /// What it says.
    pub(crate) pconf: Arc<Pconf>,
    /// The socket's absolute path, lexically inside one of the allowed folders.
    pub(crate) socket: PathBuf,
    /// Owner of the file.
    pub(crate) file_uid: u32,
    /// What `lint` would mention about the file, the content's own warnings first.
    pub(crate) warnings: Vec<String>,
    /// It speaks the wire of tilotech/go-plugin, as its manifest says.
    pub(crate) is_tilotech: bool,
    /// A registry started its process: it runs what it was told to run.
    pub(crate) is_started: bool,
}

/// A manifest that can be used: an installed plugin.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Installed {
    /// What it says.
    pub(crate) manifest: Arc<Manifest>,
    /// Its folder.
    pub(crate) folder: PathBuf,
    /// What `lint` would mention about the file, the content's own warnings first.
    pub(crate) warnings: Vec<String>,
}

/// Why a file is not used.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Refusal {
    /// The state that the plugin is shown in.
    pub(crate) kind: RefusalKind,
    /// What is wrong with it.
    pub(crate) flaw: Flaw,
    /// For people: a fragment that fits after the file's name.
    pub(crate) reason: String,
    /// Places in the text, when the text is what is wrong.
    pub(crate) problems: Vec<PconfProblem>,
    /// When this refusal was seen first.
    pub(crate) since: Instant,
    /// The plugin, when the text names one.
    pub(crate) id: Option<PluginId>,
}

impl Refusal {
    /// Whether writing on may heal it, so that it is reported only after [`HALF_WRITTEN`].
    pub(crate) fn may_be_half_written(&self) -> bool {
        matches!(self.flaw, Flaw::Text | Flaw::Unreadable)
    }

    /// Whether the two say the same, whenever they began.
    pub(crate) fn says_the_same(&self, other: &Self) -> bool {
        (self.kind, &self.flaw, &self.reason, &self.id) == (other.kind, &other.flaw, &other.reason, &other.id)
    }
}

/// How a file that is not used is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RefusalKind {
    /// It cannot be understood.
    Invalid,
    /// It is not trusted.
    Denied,
}

impl RefusalKind {
    /// The state of its row.
    pub(crate) fn state(self) -> State {
        match self {
            Self::Invalid => State::Invalid,
            Self::Denied => State::Denied,
        }
    }
}

/// What is wrong with a file, so that `why` can name the command that mends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// A symbolic link.
    Symlink,
    /// A folder, a FIFO, a socket or a device, as the word says.
    NotRegular(&'static str),
    /// More (or, just removed, less) than one link.
    Links(u64),
    /// Of neither us nor root.
    Owner(u32),
    /// Everybody may write it.
    Mode(u32),
    /// Too many bytes.
    Size(u64),
    /// We may not open it.
    Closed,
    /// We may not look into the folder that it lies in.
    ClosedFolder,
    /// It could not be read this time.
    Unreadable,
    /// The text is no `.pconf`.
    Text,
    /// There is no such socket path.
    SocketPath,
    /// The socket lies outside of the allowed folders.
    SocketOutside,
    /// The folder that it lies in is not to be trusted.
    Folder,
    /// The link that names the current version names one that is not there.
    NoVersion,
}

#[cfg(test)]
mod oracle_tests;
