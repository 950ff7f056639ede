//! The harness: what a measurement is, how it is taken, and how it is told.
//!
//! In reading order: [`Job`] (one measurement, as a program is told it), [`Subject`] and [`program()`] (a program that can be
//! measured: its own process is the host, and it starts itself once more as the plugin), [`drive`] and [`drive_blocking`] (warm
//! up, call, record), [`driver`] (who measures whom when), [`report`] (table, page and plots).
//!
//! Every measurement is a host process of its own, so that no subject inherits another's heap, pool or runtime, and so that
//! programs of other workspaces and languages take part in the same rounds: all they need is `list` and `host JSON`.

pub mod driver;
mod exchange;
mod job;
mod measure;
pub mod placement;
mod plugin_process;
mod program;
pub mod report;
mod runtime;
mod stats;

pub use exchange::{Answering, Exchange, payload, request_len, response_len, sum};
pub use job::fleet::{FleetJob, RatesJob, ScaleJob, Scaled};
pub use job::{Case, Job, Measured, PluginJob, Work};
pub use measure::{Caller, Manner, drive, drive_as, drive_blocking, own_cpu_ns};
pub use plugin_process::{PluginProcess, serve_control};
pub use program::{Listed, Subject, is_program_call, program};
pub use runtime::Runtime;
