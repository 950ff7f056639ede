//! For applications: find plugins in a directory, connect to them, call them, hear from them.
//!
//! ```no_run
//! # async fn example() -> Result<(), goplug_registry::Error> {
//! let registry = goplug_registry::Registry::open("plugins").await?;
//! registry.load("Test/Do").await?;
//! let reply = registry.execute("Test/Do", "Do", "hello").await?;
//! # Ok(()) }
//! ```
//!
//! In reading order: [`Builder`] (what can be set), [`Registry`] and [`Plugin`] (what can be done), `discovery` (what is
//! in the directory), `supervisor` (the life of one plugin; `supervisor/state.rs` is all of it), `call` (one call, with
//! its repeats), [`Exchange`] (large bodies, piece by piece), `callback` (notifications), [`Events`] (what happened), `why` (why
//! is it not there?), [`host`] (plugins that the registry starts), `source` (plugins that are fetched).
//!
//! Needs a tokio runtime with I/O and time; [`BlockingRegistry`] brings its own. Every failure is an [`Error`] with a [`Code`] and an answer to "did it run?".

mod ask;
mod blocking;
mod call;
mod callback;
mod desired;
mod discovery;
mod doctor;
mod event;
mod finder;
pub mod host;
mod install;
mod installed;
mod kept;
mod lease;
mod lint;
mod named;
mod notifications;
mod open_files;
mod options;
mod plugin;
mod process;
mod program;
mod registry;
mod show;
mod source;
mod started;
mod supervisor;
mod tasks;
mod trust;
mod versions;
mod wait;
mod why;
mod words;

pub use blocking::{
    BlockingExchange, BlockingLogs, BlockingRegistry, BlockingReplyBody, BlockingRequestBody, BlockingStarted,
};
pub use call::{Answer, CallOptions, Exchange, ReplyBody, RequestBody};
pub use callback::{Feed, FeedItem, Notice, Subscribe, Subscription};
pub use doctor::doctor;
pub use event::Events;
pub use goplug_pconf_schema::settings::Unsigned;
pub use goplug_pconf_schema::{
    Code, Fault as Error, Grant, Locator, Origin, Permissions, Pin, PluginId, Ran, Reason, RollbackOn, Sha256, admin,
};
pub use goplug_transport::{Latency, Segment, View, ViewReader, Words};
pub use install::Install;
pub use lint::{LintNote, LintReport, LintedFile, lint};
pub use open_files::raise_open_files;
pub use options::Builder;
pub use plugin::Plugin;
pub use process::{LogPosition, Logs};
pub use registry::{Registry, Unload};
pub use source::{Fetch, Fetched, Packages, Progress, push};
pub use started::{Command, Started};
pub use tasks::Pending;
pub use versions::{Against, Upgrade};
pub use wait::Wait;
