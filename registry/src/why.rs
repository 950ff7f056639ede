//! Why a plugin or a file is, or is not, callable: the chain, its first broken link, and the command that mends it.
//!
//! [`gather`] looks at the file system, the registry adds what its supervisor knows ([`SlotFindings`]) and what a knock at
//! the socket told ([`knock`]), and [`explain`] makes the answer from these values alone.

mod chain;
mod gather;
mod knock;
mod manifest;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use goplug_pconf_schema::admin::{State, Why};
use goplug_pconf_schema::{Fault, PluginId};

use crate::discovery::{Found, Installed, Refusal};
use crate::lease::KeptElsewhere;

pub(crate) use gather::gather;
pub(crate) use knock::{Knock, knock};

/// Everything that the answer is made from.
#[derive(Debug, Clone)]
pub(crate) struct Findings {
    /// What was asked for, as it was written.
    pub(crate) subject: String,
    pub(crate) directory: DirectoryFinding,
    /// With its dot.
    pub(crate) extension: String,
    pub(crate) auto_discover: bool,
    pub(crate) file: FileFinding,
    /// The other files that claim the pair, by name.
    pub(crate) rivals: Vec<PathBuf>,
    /// What a knock at the socket told; `None`: nobody knocked, since the plugin is loaded or names no socket.
    pub(crate) knock: Option<Knock>,
    /// Users whose processes may be plugins.
    pub(crate) allow_uids: Vec<u32>,
    /// What the plugin's supervisor knows; `None`: the registry holds no such plugin.
    pub(crate) slot: Option<SlotFindings>,
    /// What the keeper of an installed plugin's process knows; `None`: it has none.
    pub(crate) process: Option<ProcessFindings>,
}

/// The plugin directory.
#[derive(Debug, Clone)]
pub(crate) struct DirectoryFinding {
    pub(crate) path: PathBuf,
    /// There is something at the path.
    pub(crate) exists: bool,
    /// Why it cannot be read.
    pub(crate) read: Result<(), String>,
    pub(crate) warnings: Vec<String>,
    /// Names that are not looked at, because there are more than this many files.
    pub(crate) truncated_at: Option<usize>,
}

/// The file that the subject is, or that names it.
#[derive(Debug, Clone)]
pub(crate) enum FileFinding {
    /// The subject is no name of a plugin: why.
    BadName(String),
    /// A bare name that fits several pairs.
    Ambiguous(Vec<PluginId>),
    /// No file that is looked at names the plugin.
    NotNamed {
        /// The plugin, when the subject says its namespace.
        id: Option<PluginId>,
        /// What is there instead, the most likely first.
        near: Vec<Near>,
    },
    /// The subject is a file, and there is none at this path.
    Missing { path: PathBuf, near: Vec<Near> },
    /// There is one.
    There {
        path: PathBuf,
        place: Place,
        read: Result<Arc<Found>, Arc<Refusal>>,
        /// The file of the pair that is used, if it is not this one.
        winner: Option<PathBuf>,
    },
    /// There is a manifest, and no process is behind it.
    Installed {
        path: PathBuf,
        read: Result<Arc<Installed>, Arc<Refusal>>,
        /// What is wrong with what it names.
        program: Vec<String>,
        /// It lies where discovery does not look.
        outside: bool,
        /// The manifest of the pair that is used, if it is not this one.
        winner: Option<PathBuf>,
        /// The operator wants it off.
        disabled: bool,
    },
}

/// Where a file lies, seen from discovery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// At the top level of the plugin directory, with the right name.
    Seen,
    /// Its name begins with a dot.
    Hidden,
    /// Its name does not end in the extension.
    Extension,
    /// In a folder of the plugin directory.
    SubFolder,
    /// Elsewhere.
    Outside,
    /// It came after the view was full.
    BeyondLimit,
}

/// A file or a plugin that may be what was meant.
#[derive(Debug, Clone)]
pub(crate) enum Near {
    /// A file that would name it, were it not for its place.
    Misplaced { path: PathBuf, place: Place },
    /// A file that is looked at, cannot be used, and seems to be it.
    Unusable { path: PathBuf, refusal: Arc<Refusal> },
    /// A plugin with a similar name.
    Similar(PluginId),
}

/// What the supervisor knows.
#[derive(Debug, Clone)]
pub(crate) struct SlotFindings {
    pub(crate) state: State,
    /// 0 or 1, when somebody answered.
    pub(crate) protocol: Option<u32>,
    pub(crate) pid: Option<u32>,
    pub(crate) last_error: Option<Fault>,
    /// When a failed start is tried again.
    pub(crate) retry_in: Option<Duration>,
    /// Somebody asked for the unload that ended its last activation.
    pub(crate) unloaded: bool,
}

/// What the keeper of a process knows, and the supervisor of the plugin.
#[derive(Debug, Clone)]
pub(crate) struct ProcessFindings {
    /// As it is listed.
    pub(crate) state: State,
    /// The process that runs.
    pub(crate) pid: Option<u32>,
    pub(crate) last_error: Option<Fault>,
    /// When it is started again.
    pub(crate) retry_in: Option<Duration>,
    /// A call starts it.
    pub(crate) is_asleep: bool,
    /// Another registry of the directory keeps it.
    pub(crate) kept_by: Option<KeptElsewhere>,
}

/// Makes the answer.
pub(crate) fn explain(findings: &Findings) -> Why {
    manifest::explain(findings).unwrap_or_else(|| chain::explain(findings))
}

#[cfg(test)]
mod tests;
