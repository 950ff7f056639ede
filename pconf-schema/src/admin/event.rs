//! What happens in a registry, one event each.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::State;
use crate::PluginId;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RegistryEvent {
    /// Counts from 1 per registry; the version of the view.
    pub seq: u64,
    /// When (RFC 3339).
    pub time: String,
    /// What.
    pub kind: EventKind,
    /// Whose; absent when it concerns the directory.
    pub plugin: Option<PluginId>,
    /// The plugin's state from here on.
    pub state: Option<State>,
    /// The reason, for people.
    pub detail: Option<String>,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// A plugin's file was found.
    Discovered,
    /// A plugin's state changed.
    State,
    /// What is known of a plugin changed (its file's other keys), its state did not.
    Changed,
    /// Another process took the plugin's place.
    Replaced,
    /// The program of a plugin was recorded: from now on it may run no other.
    Pinned,
    /// A process was refused: its program is another than the pinned one, or cannot be told.
    Untrusted,
    /// A plugin's file was removed.
    Gone,
    /// A file cannot be used.
    Invalid,
    /// A second file claims the same pair.
    Conflict,
    /// A file is no longer invalid or in conflict.
    Resolved,
    /// File events were lost; the view comes from a scan.
    Overflow,
    /// The plugin directory cannot be read.
    DirectoryLost,
    /// The plugin directory can be read again.
    DirectoryBack,
    /// A subscription's stream broke; it is opened again.
    StreamLost,
    /// A subscription's stream is open.
    StreamOpened,
    /// A handler failed every time; the message is among the dead letters.
    DeadLetter,
    /// Events were dropped because this reader was too slow.
    Lagged,
}
