//! Typed interfaces: one Rust trait, and from it a client for the application, a server for the plugin, and the JSON
//! Schemas that both are held to.
//!
//! ```
//! use goplug_interface::{Error, interface};
//!
//! /// Arithmetic.
//! #[interface(name = "demo.math", version = "1.2.0")]
//! pub trait Math {
//!     /// Adds two numbers.
//!     #[goplug(idempotent)]
//!     async fn add(&self, a: i64, b: i64) -> Result<i64, Error>;
//!
//!     /// The last result.
//!     #[goplug(notification)]
//!     fn result(value: i64);
//! }
//! ```
//!
//! An application calls `MathClient::connect(&registry, "Demo/math")?.add(1, 2).await?` ([`Client`], feature `client`); a
//! plugin says `.implement(MathServer::new(Calculator))` ([`Implement`], feature `plugin`); with both features
//! `MathClient::in_process(Calculator)` is the whole of it inside a test.
//!
//! **A method** is `fn` (it may block) or `async fn`, takes `&self`, perhaps a [`Context`] first, and owned arguments: one
//! is the body of the request, several are an object with their names, none is `null`. It returns a `Result`, whose error
//! is an [`Error`] or any type that is `Display` and JSON ([`Failure`]). `#[goplug(…)]` says `idempotent`, `serial`,
//! `deadline_ms = …` and, for another name on the wire, `name = "…"`.
//!
//! **A stream**: the last argument may be a [`Stream`] of items, and so may the reply. Such a method is `async fn`; its client
//! reads and sends while the plugin does.
//!
//! **A notification** is marked `#[goplug(notification)]`, has no `self` and takes its payload; `state` or `lossy` beside it
//! are the other classes. The plugin sends it with `MathNotifier`, the application hears it with `on_…`.
//!
//! **All types** are `Serialize`, `Deserialize` and `JsonSchema`. In reading order: [`Interface`] and [`Description`] (what
//! an interface is), [`compare`] (whether a plugin offers it), [`Client`], [`Implement`], [`Stream`].

#[cfg(feature = "client")]
mod client;
mod compare;
mod description;
mod fits;
#[cfg(feature = "plugin")]
mod server;
mod stream;
#[cfg(all(feature = "client", feature = "plugin"))]
mod test_double;

#[cfg(feature = "client")]
pub use client::{Caller, Client, Find, Notified};
pub use compare::{Mismatch, Problem, compare};
pub use description::{Description, Interface};
pub use goplug_interface_macros::interface;
pub use goplug_pconf_schema::wire::event::Position;
pub use goplug_pconf_schema::wire::failure::{Failed, Failure};
pub use goplug_pconf_schema::{Code, Fault as Error};
#[cfg(feature = "plugin")]
pub use goplug_plugin_impl::{Context, Notifier, PluginBuilder};
#[cfg(feature = "client")]
pub use goplug_registry::Subscription;
#[cfg(feature = "plugin")]
pub use server::{Implement, Serve};
pub use stream::{MAX_ITEM_BYTES, Out, Stream};
#[cfg(all(feature = "client", feature = "plugin"))]
pub use test_double::in_process;

/// What a method knows of its call. Without the feature `plugin` there is none: only a plugin's methods run.
#[cfg(not(feature = "plugin"))]
#[derive(Debug, Clone, Copy)]
pub enum Context {}

/// For what the attribute generates; no part of the interface of this crate.
#[doc(hidden)]
pub mod __private {
    pub use goplug_pconf_schema::wire::event::Class;
    pub use goplug_pconf_schema::wire::failure::Failure;
    pub use {schemars, serde};

    pub use crate::description::{Outcome, callback, giving, method, taking, travels};
    #[cfg(feature = "plugin")]
    pub use crate::server::{
        answer_async, answer_blocking, answer_giving, answer_taking, answer_taking_and_giving, declare, payload,
    };
}

/// Its content, with the feature `client`.
#[cfg(feature = "client")]
#[doc(hidden)]
#[macro_export]
macro_rules! __if_client {
    ($($content:tt)*) => { $($content)* };
}

/// Nothing, without the feature `client`.
#[cfg(not(feature = "client"))]
#[doc(hidden)]
#[macro_export]
macro_rules! __if_client {
    ($($content:tt)*) => {};
}

/// Its content, with the feature `plugin`.
#[cfg(feature = "plugin")]
#[doc(hidden)]
#[macro_export]
macro_rules! __if_plugin {
    ($($content:tt)*) => { $($content)* };
}

/// Nothing, without the feature `plugin`.
#[cfg(not(feature = "plugin"))]
#[doc(hidden)]
#[macro_export]
macro_rules! __if_plugin {
    ($($content:tt)*) => {};
}

/// Its content, with the features `client` and `plugin`.
#[cfg(all(feature = "client", feature = "plugin"))]
#[doc(hidden)]
#[macro_export]
macro_rules! __if_both {
    ($($content:tt)*) => { $($content)* };
}

/// Nothing, without the features `client` and `plugin`.
#[cfg(not(all(feature = "client", feature = "plugin")))]
#[doc(hidden)]
#[macro_export]
macro_rules! __if_both {
    ($($content:tt)*) => {};
}
