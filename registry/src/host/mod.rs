//! Plugins that the registry starts: each runs under a `goplug-host`, which outlives the registry (`docs/host.md`).
//!
//! [`find`] the program, [`launch`] a plugin under it, and hold it as a [`Hosted`]; [`adopt`] what an earlier registry left
//! running. [`crate::Registry::start`] does all of it for one plugin. Nothing here ever signals a process by its pid: what
//! is to be done to a plugin is asked of its host, whose identity the kernel proves first.

mod adopt;
mod find;
mod hosted;
mod launch;
mod talk;

pub(crate) use adopt::silent;
pub use adopt::{Adopted, Doubtful, adopt, discard};
pub use find::find;
pub use goplug_pconf_schema::wire::host::{
    Exit, HostPhase, HostSpec, LogLine, OutputLimits, ProcessId, ProcessLimits, Record, Status, Stream,
};
pub use hosted::{Follow, Hosted};
pub(crate) use launch::launch_opened;
pub use launch::{allowed_environment, launch};
