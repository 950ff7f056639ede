//! `why`: the chain from a file to a callable plugin, and its first broken link.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::State;
use crate::PluginId;

/// Why a plugin or a file is, or is not, callable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Why {
    /// What was asked for: a plugin's name or a file.
    pub subject: String,
    /// The plugin, when one was found.
    pub plugin: Option<PluginId>,
    /// Its state, when one was found.
    pub state: Option<State>,
    /// Whether it can be called now.
    pub callable: bool,
    /// The chain, in order.
    pub links: Vec<Link>,
    /// The command that mends the first broken link.
    pub fix: Option<String>,
}

impl Why {
    /// The first broken link.
    pub fn broken(&self) -> Option<&Link> {
        self.links.iter().find(|link| link.state == LinkState::Broken)
    }
}

/// One link of the chain: directory, file, content, name, socket, peer, hello, activation, …
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Link {
    /// What was looked at, in one or two words.
    pub name: String,
    /// What was found.
    pub state: LinkState,
    /// The finding, for people.
    pub detail: String,
}

/// What became of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LinkState {
    /// Holds.
    Ok,
    /// Holds, and is worth a look.
    Warning,
    /// Does not hold; what follows was not reached.
    Broken,
    /// Not reached.
    Skipped,
}
