//! Many plugins at once: what their processes and their host are told, and what comes out.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{Measured, Runtime};

/// What one process of a fleet is told: to serve the plugins `Bench/P<first>` and so on, each with its file and its socket.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FleetJob {
    /// The plugin directory.
    pub dir: PathBuf,
    /// The number of its first plugin.
    pub first: usize,
    /// How many plugins it serves.
    pub count: usize,
    /// Its runtime.
    pub runtime: Runtime,
    /// Whether its connections sleep at once when there is nothing to read.
    pub frugal: bool,
    /// The one cpu that it runs on, if any.
    pub cpu: Option<usize>,
}

/// One measurement of a registry with many plugins, as its process is told it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ScaleJob {
    /// Plugins to load.
    pub plugins: usize,
    /// Whether there are descriptors for calling all of them at once.
    pub calls_all: bool,
    /// How long calls are recorded.
    pub time_ms: u64,
    /// How long nothing is done, to see what that costs.
    pub idle_ms: u64,
    /// Where the plugins' processes run.
    pub plugin_cpu: Option<usize>,
}

/// What came out of a [`ScaleJob`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Scaled {
    /// From the start of the registry until every file was found.
    pub discovered_ns: u64,
    /// From the start of the registry until every plugin could be called.
    pub loaded_ns: u64,
    /// Private memory of the registry's process, less what it had before, in bytes: all loaded, none called yet.
    pub private_bytes: u64,
    /// The same after calls of all of them, or of ten where there are no descriptors for more, and quiet again.
    pub private_bytes_after: u64,
    /// Descriptors, less those before: all loaded, none called yet.
    pub descriptors: u64,
    /// How long it was idle.
    pub idle_ns: u64,
    /// Processor time of the registry's process meanwhile.
    pub idle_cpu_ns: u64,
    /// Processor time of all plugins' processes meanwhile.
    pub idle_plugins_cpu_ns: u64,
    /// Calls to ten of the plugins, 64 under way.
    pub ten: Measured,
    /// Calls to one plugin after the other, 64 under way.
    pub all: Option<Measured>,
}

/// One measurement of calls at a given rate.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RatesJob {
    /// How many plugins are called, each in a process of its own.
    pub plugins: usize,
    /// From the beginning of a plugin's call to that of its next.
    pub every_us: u64,
    /// Whether both sides sleep at once when there is nothing to read.
    pub frugal: bool,
    /// The runtime of both sides.
    pub runtime: Runtime,
    /// How long calls are recorded.
    pub time_ms: u64,
    /// Where the plugins' processes run.
    pub plugin_cpu: Option<usize>,
}
