//! What the driver, the host programs and their plugins say to each other: JSON in one argument, JSON on one line.

pub(crate) mod fleet;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Which way the bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Work {
    /// The plugin answers the bytes that it was sent.
    Echo,
    /// The bytes go to the plugin, which answers their sum.
    Upload,
    /// Eight bytes go to the plugin, which answers the bytes; the host sums them.
    Download,
}

/// What is called how, whoever is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Case {
    /// Which way the bytes go.
    pub work: Work,
    /// The bytes.
    pub size: usize,
    /// Calls under way at once.
    pub in_flight: usize,
}

/// One measurement, as the host program is told it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Job {
    /// The name of the subject.
    pub subject: String,
    /// What is called how.
    #[serde(flatten)]
    pub case: Case,
    /// How long calls are made before any is recorded.
    pub warm_up_ms: u64,
    /// How long calls are recorded, all callers together.
    pub time_ms: u64,
    /// The fewest calls that are recorded, however long they take.
    pub min_calls: u64,
    /// Where the plugin runs; the host has been put in its place when it starts. `None`: wherever the kernel likes.
    pub plugin_cpu: Option<usize>,
}

/// What the plugin's process is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PluginJob {
    /// The name of the subject.
    pub subject: String,
    /// Which way the bytes go.
    pub work: Work,
    /// The bytes.
    pub size: usize,
    /// A folder of this measurement's own: the plugin directory, or where a bare socket lies.
    pub dir: PathBuf,
    /// The one cpu that it runs on, if any.
    pub cpu: Option<usize>,
}

/// What came out of a job.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Measured {
    /// Median of the calls' durations.
    pub p50_ns: f64,
    /// Absent below 100 samples.
    pub p99_ns: Option<f64>,
    /// Absent below 1,000 samples.
    pub p999_ns: Option<f64>,
    /// Calls that were recorded, all callers together.
    pub calls: u64,
    /// From the first of them to the end of the last.
    pub wall_ns: u64,
    /// Processor time of the host's process in between.
    pub host_cpu_ns: u64,
    /// Processor time of the plugin's process in between; absent where there is none.
    pub plugin_cpu_ns: Option<u64>,
}

impl Measured {
    /// Calls per second.
    pub fn rate(&self) -> f64 {
        self.calls as f64 * 1e9 / self.wall_ns.max(1) as f64
    }

    /// Processor time of the host for one call.
    pub fn host_cpu_per_call_ns(&self) -> f64 {
        self.host_cpu_ns as f64 / self.calls.max(1) as f64
    }

    /// Processor time of the plugin for one call.
    pub fn plugin_cpu_per_call_ns(&self) -> Option<f64> {
        Some(self.plugin_cpu_ns? as f64 / self.calls.max(1) as f64)
    }
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let work = match self.work {
            Work::Echo => "echo",
            Work::Upload => "upload",
            Work::Download => "download",
        };
        let size = match self.size {
            size if size >= 1 << 20 && size % (1 << 20) == 0 => format!("{} MiB", size >> 20),
            size if size >= 1 << 10 && size % (1 << 10) == 0 => format!("{} KiB", size >> 10),
            size => format!("{size} B"),
        };
        write!(f, "{work} {size}, {} in flight", self.in_flight)
    }
}
