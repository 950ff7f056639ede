//! Activation and its end.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How long calls and acknowledgements may take to finish when nothing else is said.
pub const DEFAULT_DRAIN_MS: u64 = 10_000;
/// How long a registry waits for `stop` beyond the drain.
pub const STOP_GRACE_MS: u64 = 5_000;

/// Body of `deactivate` and `stop`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Drain {
    /// How long to wait for calls and acknowledgements before the rest is cancelled.
    #[serde(default = "default_drain_ms")]
    pub drain_ms: u64,
}

impl Default for Drain {
    fn default() -> Self {
        Self { drain_ms: DEFAULT_DRAIN_MS }
    }
}

fn default_drain_ms() -> u64 {
    DEFAULT_DRAIN_MS
}

/// Answer of `deactivate` and `stop`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Drained {
    /// Calls that were cut off at the end of the drain.
    pub cancelled: u64,
    /// Notifications that an attached subscription had not acknowledged by then.
    pub unacknowledged: u64,
    /// What the stopper returned, `{"dataBase64": …}`; absent when it returned nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
}

/// Answer of `health`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Health {
    /// The author's verdict; it never kills the plugin.
    pub status: HealthStatus,
    /// The reason, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// The verdict of a plugin on itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HealthStatus {
    /// Works.
    Ok,
    /// Works, but not as it should.
    Degraded,
    /// Does not work.
    Failing,
}
