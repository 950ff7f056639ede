//! What the behaviour tests are made of: folders, processes that cannot be left behind, bad weather, figures.
//!
//! The tests themselves are `tests/it/`, one binary with modules named by behaviour; its first page maps each promise to
//! its test. Nothing here knows how the libraries work inside; [`http`] and [`v0app`] speak the wire by hand.
//!
//! Environment: `GOPLUG_DEEP=1`, which `cargo xtask deep` sets, runs everything at full size and asserts every figure;
//! `GOPLUG_TESTS=fast` leaves out what takes long; `GOPLUG_TRANSPORT=http` keeps calls on HTTP where they would go over
//! frames, `GOPLUG_TRANSPORT=shm` has frames travel through shared memory; `GOPLUG_SEED` sets the seed that every random
//! test prints.

#![allow(clippy::panic, reason = "a test that cannot go on says so by a panic")]

mod baseline;
mod dir;
mod figures;
pub mod http;
mod isolated;
mod process;
mod proxy;
mod random;
pub mod raw;
pub mod v0app;
mod wait;

pub use baseline::{Baseline, live_tasks, peak_memory_reset, peak_memory_since, tasks_are_back};
pub use dir::{PluginDir, write_atomically};
pub use figures::{Samples, bound, deep, fast, fast_paths, figure, note, say, scaled, seed, shared_memory, skip};
pub use isolated::{in_mount_namespace, isolated, say_again};
pub use process::{Process, Ready};
pub use proxy::{Proxy, Weather};
pub use random::Random;
pub use wait::{LONG, wait_for, wait_until};
