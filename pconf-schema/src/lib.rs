//! Everything that leaves a GoPlug process, as data: names, files, messages, errors.
//!
//! This crate can do nothing: no I/O, no clock, no async. Both libraries speak it and so never have to know each other.
//! In reading order: [`PluginId`] (who), [`Pconf`] (the file that says "I am here"), [`Manifest`] (the file that says "this is
//! how to run me"), [`Contents`] (what a package holds), [`Index`] (which packages there are), [`Locator`] (where a plugin is from), [`DesiredState`] (what the operator wants), [`TrustState`] (which programs
//! are trusted), [`wire`] (what registry and plugin
//! say to each other), [`admin`] (what a person or the HTTP API is shown), [`settings`] (`goplugd.toml`). [`published`] is what is generated from them.

pub mod admin;
mod checked;
pub mod contents;
mod desired;
pub mod grants;
mod id;
mod index;
pub mod locator;
pub mod manifest;
mod origin;
mod packages;
mod pconf;
pub mod published;
mod range;
mod rollback;
pub mod settings;
mod text;
mod trust;
mod units;
pub mod wire;

pub use contents::Contents;
pub use desired::{Desired, DesiredState, MAX_DESIRED_BYTES};
pub use grants::{Grant, Permissions};
pub use id::{MAX_NAME_BYTES, NameError, PluginId, check_call_name, printable, push_printable};
pub use index::{INDEX_NAME, Index, IndexedPackage, MAX_INDEX_BYTES};
pub use locator::Locator;
pub use manifest::Manifest;
pub use origin::{MAX_ORIGIN_BYTES, Origin};
pub use packages::{Known, KnownVersion, MAX_KNOWN_VERSIONS, MAX_PACKAGES_BYTES, PackageState};
pub use pconf::{MAX_PCONF_BYTES, MAX_SOCKET_PATH_BYTES, Pconf, PconfError, PconfProblem};
pub use range::PluginRef;
pub use rollback::RollbackOn;
pub use text::nearest;
pub use trust::{MAX_TRUST_BYTES, Pin, Sha256, TrustState};
pub use wire::fault::{Code, Fault, Ran, Reason};
