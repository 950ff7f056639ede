//! Example plugins and applications, one idea each; the tests run them all.
//!
//! Each is one file with a `run` that takes the plugin directory: `cargo run -p goplug-examples --bin do_plugin -- DIR`.
//! Plugins: [`do_plugin`], [`typed`], [`notifier`], [`lazy`], [`shout`]. Applications:
//! [`do_app`], [`embed`], [`pipe`].

pub mod do_app;
pub mod do_plugin;
pub mod embed;
pub mod lazy;
pub mod notifier;
pub mod pipe;
pub mod shout;
pub mod typed;

/// The first argument: the plugin directory, by default `plugins`.
pub fn plugin_dir() -> std::path::PathBuf {
    std::env::args_os().nth(1).map_or_else(|| "plugins".into(), Into::into)
}

/// The README's examples are compiled with the documentation tests, so that they cannot grow old.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
