//! What a person, a script or the HTTP API is shown: one type per answer, the same on a daemon and on a directory.

mod diff;
mod event;
mod pattern;
mod plugin;
mod trust;
mod why;

pub use diff::{Diff, Difference, differences, offered};
pub use event::{EventKind, RegistryEvent};
pub use pattern::NamePattern;
pub use plugin::{
    Activation, CallbackList, DaemonStatus, DeadLetter, Installation, InstalledDetail, LogEntry, MethodList,
    Notification, Ping, Pinned, PluginDetail, PluginSummary, ProcessChange, ProcessDetail, ProcessExit, Removal, State,
    Transport, Unloaded, Upgraded,
};
pub use trust::{Executable, Revocation, Trust, TrustEntry, TrustVerdict, TrustedKey};
pub use why::{Link, LinkState, Why};
