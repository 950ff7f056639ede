//! For plugin authors: turn functions into a GoPlug plugin.
//!
//! A plugin is a process that listens on a Unix socket and publishes a `.pconf` file beside it; registries find the file
//! and call. [`Plugin::builder`] makes one of functions, [`Plugin::run_blocking`] runs it until it is told to stop.
//! Whoever speaks HTTP over that socket can call it, `curl` and the original GoPlug included.
//!
//! In reading order: [`Plugin`] (build and run), [`Method`] and [`Context`] (calls), [`Body`], [`ReplyStream`], [`Segment`] and [`View`] (large ones), [`Callback`] and [`Notifier`]
//! (notifications), [`Error`] (failures), [`Running`] (a plugin inside a larger program), [`testing`] (an author's own
//! tests).
//!
//! # Example: a method that fails, and what its caller is told
//! ```
//! use bytes::Bytes;
//! use goplug_plugin_impl::testing::InProcess;
//! use goplug_plugin_impl::{Code, Error, Plugin};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Error> {
//! let plugin = InProcess::start(|dir| {
//!     Plugin::builder(dir).name("parity").method("isEven", |_cx, body: Bytes| match body.len() % 2 {
//!         0 => Ok("even"),
//!         _ => Err(Error::new(Code::MethodFailed, format!("{} bytes are odd", body.len()))),
//!     })
//! })
//! .await?;
//! assert_eq!(plugin.call("isEven", "ab").await?, "even");
//! let error = plugin.call("isEven", "abc").await.expect_err("three is odd");
//! assert_eq!((error.code, error.message.as_str()), (Code::MethodFailed, "3 bytes are odd"));
//! # Ok(())
//! # }
//! ```

mod body;
mod call;
mod callback;
mod context;
mod error;
mod lifecycle;
mod method;
mod notify;
mod plugin;
mod publish;
mod running;
mod server;
mod service;
pub mod testing;
mod typed;

pub use body::{BlockingBody, Body};
pub use callback::Callback;
pub use context::Context;
pub use error::{Code, Error, Fault, Ran};
pub use goplug_pconf_schema::wire::event::{CallbackStatus, Class, Position, SubscriptionStatus};
pub use goplug_pconf_schema::wire::hello::{CallbackInfo, InterfaceInfo, MethodInfo};
pub use goplug_pconf_schema::wire::life::{Drained, Health, HealthStatus};
pub use goplug_transport::{Latency, Segment, View, ViewReader, Words};
pub use method::{Method, ReplyStream};
pub use notify::Notifier;
pub use notify::window::Losses;
pub use plugin::{Plugin, PluginBuilder};
pub use running::Running;
