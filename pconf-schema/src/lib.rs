//! Everything that leaves a GoPlug process, as data: names, files, messages, errors.
//!
//! This crate can do nothing: no I/O, no clock, no async. Both libraries speak it and so never have to know each other.
//! In reading order: [`PluginId`] (who), [`Pconf`] (the file that says "I am here"), [`wire`] (what registry and plugin
//! say to each other), [`admin`] (what a person or the HTTP API is shown), [`settings`] (`goplugd.toml`). [`published`] is what is generated from them.

pub mod admin;
mod id;
mod pconf;
pub mod published;
pub mod settings;
mod text;
pub mod wire;

pub use id::{MAX_NAME_BYTES, NameError, PluginId, check_call_name, printable, push_printable};
pub use pconf::{MAX_PCONF_BYTES, MAX_SOCKET_PATH_BYTES, Pconf, PconfError, PconfProblem};
pub use text::nearest;
pub use wire::fault::{Code, Fault, Ran};
