//! Which program a plugin's process runs, and whether it may: pinned on first use, if the operator wants that.
//!
//! In reading order: `verdict` (what follows from a pin and a program, pure), `executable` (what runs), `digest` (its
//! SHA-256), `store` (the pins on disk), `vet` (before a process is activated), `ask` (what can be asked of a registry),
//! `keys` (whose packages are taken), `record` (what is written down of them), `verify` (what is started is that).

mod ask;
mod digest;
mod executable;
mod keys;
mod record;
mod store;
mod verdict;
mod verify;
mod vet;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use goplug_pconf_schema::{PluginId, Sha256};

pub(crate) use digest::Digests;
pub(crate) use executable::attest;
pub(crate) use record::{Noted, Records};
pub(crate) use verify::Verified;
pub(crate) use vet::{Vetted, turned, vet};

/// What the supervisors of one registry have in common about programs.
#[derive(Debug, Default)]
pub(crate) struct Trust {
    pub digests: Arc<Digests>,
    /// What was refused last of each plugin, so that one that is tried again and again makes one event.
    refused: Mutex<BTreeMap<PluginId, Option<Sha256>>>,
}

/// Where the pins of this user lie unless somebody says otherwise.
pub(crate) fn default_folder() -> PathBuf {
    let variable = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = variable("XDG_STATE_HOME").or_else(|| Some(variable("HOME")?.join(".local/state")));
    state.unwrap_or_else(|| PathBuf::from("/var/lib")).join("goplug")
}
