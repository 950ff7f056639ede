//! Which program a plugin's process runs, and which it may run.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Known, Pin, PluginId, Sha256};

/// The program that a plugin's process runs, as the kernel tells at the moment of the question.
///
/// What a process does with its memory is up to itself: this says which file it runs, not what it has made of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Executable {
    /// The process that was looked at.
    pub pid: u32,
    /// Its path, as the kernel knows it; `null` when it cannot be told. Not UTF-8: what is not is replaced.
    pub path: Option<String>,
    /// The file is no longer at that path: it was removed, or another one has taken its place.
    pub deleted: bool,
    /// The digest of the file that runs; `null` when it cannot be told.
    pub sha256: Option<Sha256>,
    /// Why the path or the digest cannot be told.
    pub problem: Option<String>,
    /// It is the interpreter of a script: the digest says nothing about the script.
    pub interpreter: bool,
    /// The words that the process was started with, as it shows them; at most 4 KiB. It may have changed them since: they
    /// are a hint for people, and prove nothing.
    pub command_line: Vec<String>,
}

/// A plugin's pin: one row of `trust list`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TrustEntry {
    /// The plugin.
    pub plugin: PluginId,
    /// Its plugin directory.
    pub directory: String,
    /// The program that it may run.
    #[serde(flatten)]
    pub pin: Pin,
}

/// Answer of `trust show` and `trust approve`: what a plugin may run, and what it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Trust {
    /// The plugin.
    pub plugin: PluginId,
    /// Whether a process that runs another program than the pinned one is refused. Of a plugin that the registry starts,
    /// never: its program is the one that was installed.
    pub enforced: bool,
    /// What it may run; `null`: nothing is recorded.
    pub pin: Option<Pin>,
    /// What was installed of it, and what it was granted; missing: nothing is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub installed: Option<Known>,
    /// What its process runs; `null` when nobody listens on its socket.
    pub executable: Option<Executable>,
    /// Whether a process that runs this is trusted.
    pub verdict: TrustVerdict,
}

/// What follows from a pin and a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TrustVerdict {
    /// Programs are not pinned: whatever runs is used.
    NotAsked,
    /// It is the pinned one.
    Trusted,
    /// Nothing is recorded: the first one that comes will be.
    First,
    /// It is another one than the pinned.
    Changed,
    /// Nobody can tell what runs.
    Untold,
}

impl TrustVerdict {
    /// The verdict in words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotAsked => "not asked",
            Self::Trusted => "trusted",
            Self::First => "first",
            Self::Changed => "changed",
            Self::Untold => "untold",
        }
    }
}

/// Answer of `trust revoke`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Revocation {
    /// The plugin.
    pub plugin: PluginId,
    /// What it was pinned to; `null`: nothing was recorded.
    pub pin: Option<Pin>,
    /// What was known of its packages, and what it was granted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub installed: Option<Known>,
}

/// A key whose packages are taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TrustedKey {
    /// A public key of `minisign`: 56 characters.
    pub key: String,
    /// Whose it is, for people; may be empty.
    pub comment: String,
}
