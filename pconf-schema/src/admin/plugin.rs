//! A plugin as the registry sees it.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Executable;
use crate::manifest::{ManifestWire, SourceMode};
use crate::wire::event::CallbackStatus;
use crate::wire::fault::Reason;
use crate::wire::hello::{CallbackInfo, InterfaceInfo, Limits, MethodInfo};
use crate::wire::host::Stream;
use crate::wire::life::HealthStatus;
use crate::{Origin, Permissions, PluginId};

/// Where a plugin is in its life. The original GoPlug's three are `stopped`, `discovered` and `loaded`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Found, and not loaded.
    Discovered,
    /// Being connected, asked for its hello, and activated.
    Starting,
    /// Active and callable.
    Loaded,
    /// Takes no new calls; those under way may finish.
    Draining,
    /// No process of it runs: it was told to stop, or is installed and was not started.
    Stopped,
    /// Could not be reached; tried again by itself.
    Backoff,
    /// Reached and unusable; tried again when its file changes or when asked.
    Failed,
    /// Switched off by the operator.
    Disabled,
    /// Not trusted: the peer or the file is not who it should be.
    Denied,
    /// Its `.pconf` cannot be used.
    Invalid,
    /// Its `.pconf` was removed.
    Gone,
}

impl State {
    /// All states.
    pub const ALL: [Self; 11] = [
        Self::Discovered,
        Self::Starting,
        Self::Loaded,
        Self::Draining,
        Self::Stopped,
        Self::Backoff,
        Self::Failed,
        Self::Disabled,
        Self::Denied,
        Self::Invalid,
        Self::Gone,
    ];

    /// The state in one lower-case word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Discovered => "discovered",
            Self::Starting => "starting",
            Self::Loaded => "loaded",
            Self::Draining => "draining",
            Self::Stopped => "stopped",
            Self::Backoff => "backoff",
            Self::Failed => "failed",
            Self::Disabled => "disabled",
            Self::Denied => "denied",
            Self::Invalid => "invalid",
            Self::Gone => "gone",
        }
    }
}

impl State {
    /// The case that a failure is which comes from this state of a plugin that a registry starts.
    pub fn reason(self) -> Option<Reason> {
        match self {
            Self::Disabled => Some(Reason::Disabled),
            Self::Failed => Some(Reason::GivenUp),
            Self::Stopped | Self::Discovered => Some(Reason::NotRunning),
            Self::Starting
            | Self::Loaded
            | Self::Draining
            | Self::Backoff
            | Self::Denied
            | Self::Invalid
            | Self::Gone => None,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// How calls reach a plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// As the original GoPlug of 2015 does it: HTTP, one connection per call under way.
    V0,
    /// HTTP, one connection per call under way.
    Http,
    /// Binary frames: all calls on one connection.
    Frames,
    /// Binary frames through shared memory.
    Shm,
}

impl Transport {
    /// The transport in one lower-case word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V0 => "v0",
            Self::Http => "http",
            Self::Frames => "frames",
            Self::Shm => "shm",
        }
    }
}

/// One row of `list`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PluginSummary {
    /// Empty for a plugin without namespace.
    pub namespace: String,
    /// Its name; for an `invalid` file that names none, the file's name.
    pub name: String,
    /// The plugin's own version.
    pub version: Option<String>,
    /// Where it is in its life.
    pub state: State,
    /// Whether it waits to be asked for before it is loaded.
    pub lazy_load: bool,
    /// The process that listens, as the kernel tells; `null` when not connected.
    pub pid: Option<u32>,
    /// The socket's absolute path.
    pub socket: Option<String>,
    /// The file's absolute path; `null` for a plugin that is installed and has no process.
    pub pconf: Option<String>,
    /// The manifest's absolute path, of a plugin that is installed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<String>,
    /// Names of its methods; `null` while nobody knows.
    pub methods: Option<Vec<String>>,
    /// 0 for the original GoPlug, else the protocol's number; `null` while nobody knows.
    pub protocol: Option<u32>,
    /// When it entered this state (RFC 3339).
    pub since: String,
    /// Why it is not loaded, or what went wrong last.
    pub last_error: Option<String>,
    /// Its versions that are installed side by side, the lowest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub versions: Vec<String>,
    /// The versions that may become the current one, when it is pinned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pinned: Option<String>,
}

impl PluginSummary {
    /// The identity, if namespace and name make one (an `invalid` file may not).
    pub fn id(&self) -> Option<PluginId> {
        PluginId::new(&self.namespace, &self.name).ok()
    }
}

/// All that is known of one plugin: `inspect`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PluginDetail {
    /// What `list` shows.
    #[serde(flatten)]
    pub summary: PluginSummary,
    /// One line for people.
    pub description: Option<String>,
    /// `Url` of the `.pconf`.
    pub url: Option<String>,
    /// Epoch of the process.
    pub epoch: Option<String>,
    /// Whether the process says that it is activated; `null` for v0 and while nobody knows.
    pub active: Option<bool>,
    /// How calls reach it: `http` too for a plugin that offered frames and refused them when last asked; `null` while
    /// it is not loaded.
    pub transport: Option<Transport>,
    /// The author's own verdict on the plugin's health.
    pub health: Option<HealthStatus>,
    /// Uid of the process that listens.
    pub uid: Option<u32>,
    /// Methods as the hello describes them.
    pub method_details: Vec<MethodInfo>,
    /// Callbacks as the hello describes them.
    pub callbacks: Vec<CallbackInfo>,
    /// Interfaces that the plugin implements, with the names of what belongs to each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<InterfaceInfo>,
    /// What the plugin takes at most.
    pub limits: Option<Limits>,
    /// Keys of the `.pconf` that mean nothing to us.
    pub unknown: BTreeMap<String, Value>,
    /// What `lint` would mention.
    pub warnings: Vec<String>,
    /// Other files that claim the same pair.
    pub conflicts: Vec<String>,
    /// Calls under way.
    pub in_flight: u64,
    /// Calls finished since it was loaded.
    pub calls: u64,
    /// What its manifest says, if it is installed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub installed: Option<InstalledDetail>,
    /// Its process, if the registry starts it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<ProcessDetail>,
    /// The program that the process runs which listens on its socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub executable: Option<Executable>,
}

/// The process of an installed plugin, as its keeper sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProcessDetail {
    /// The process that runs.
    pub pid: Option<u32>,
    /// The `goplug-host` that it runs under.
    pub host_pid: Option<u32>,
    /// When it was started (RFC 3339).
    pub since: Option<String>,
    /// Processes that were started since the registry was opened; 0 when the one that runs was found.
    pub starts: u64,
    /// Another registry of the directory keeps the process: its pid. It is called here, and neither started nor stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_by: Option<u32>,
    /// How the last process ended that did.
    pub last_exit: Option<ProcessExit>,
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProcessExit {
    /// When (RFC 3339).
    pub time: String,
    /// What it returned, if it ended by itself.
    pub code: Option<i32>,
    /// The number of the signal that ended it.
    pub signal: Option<i32>,
    /// It was told to end.
    pub asked: bool,
    /// It was probably ended for lack of memory.
    pub out_of_memory: bool,
    /// The last lines that it wrote to standard error.
    pub stderr: Vec<String>,
}

impl fmt::Display for ProcessExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.code, self.signal) {
            (Some(code), _) => write!(f, "it returned {code}")?,
            (None, Some(signal)) => write!(f, "signal {signal} ended it")?,
            (None, None) => f.write_str("it ended")?,
        }
        f.write_str(if self.asked { ", as it was told" } else { "" })?;
        f.write_str(if self.out_of_memory { ", probably for lack of memory" } else { "" })
    }
}

/// What the manifest of an installed plugin says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InstalledDetail {
    /// Its version; the process that runs may be of another one.
    pub version: String,
    /// Its folder.
    pub folder: String,
    /// What it is made of.
    pub source: SourceMode,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// What it speaks.
    pub wire: ManifestWire,
    /// Plugins that must run before it, as `NAMESPACE/NAME@RANGE`.
    pub requires: Vec<String>,
    /// What it implements, as `NAME@VERSION`.
    pub interfaces: Vec<String>,
    /// Who to ask.
    pub maintainers: Vec<String>,
    /// Where to read more.
    pub home: Option<String>,
    /// Of a version that was fetched: where from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
}

/// Answer of `methods`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MethodList {
    /// The plugin.
    pub plugin: PluginId,
    /// 0 or 1.
    pub protocol: u32,
    /// Its methods, in the plugin's order.
    pub methods: Vec<MethodInfo>,
    /// Interfaces that it implements, with the names of their methods.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<InterfaceInfo>,
}

/// Answer of `callbacks`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CallbackList {
    /// The plugin.
    pub plugin: PluginId,
    /// Its callbacks and who subscribed to them.
    pub callbacks: Vec<CallbackStatus>,
}

/// Answer of `load` and `reload`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Activation {
    /// The plugin.
    pub plugin: PluginId,
    /// What the activator returned, in base64; the first activation's, if the plugin was found active.
    pub output_base64: String,
}

/// Answer of `unload`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Unloaded {
    /// The plugin.
    pub plugin: PluginId,
    /// Calls that were cut off at the end of the drain.
    pub cancelled: u64,
    /// Notifications that an attached subscription had not acknowledged by then.
    pub unacknowledged: u64,
    /// What the stopper returned, in base64.
    pub output_base64: String,
}

/// Answer of `install`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Installation {
    /// The plugin.
    pub plugin: PluginId,
    /// Its version.
    pub version: String,
    /// Its folder in the plugin directory.
    pub folder: String,
    /// Files and folders in it.
    pub files: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Of a package: the trusted key that signed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed_by: Option<String>,
    /// The permissions that it asks for.
    #[serde(default, skip_serializing_if = "Permissions::is_empty")]
    pub permissions: Permissions,
    /// Those of them that had to be granted now.
    #[serde(default, skip_serializing_if = "Permissions::is_empty")]
    pub asked: Permissions,
    /// Of what was fetched: where from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// Whether it is the current version: else it lies beside that one.
    pub current: bool,
    /// For people: why it is not, or what became of the one before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Nothing was done: this is what would be.
    pub dry_run: bool,
}

/// Answer of `upgrade` and `rollback`: the current version before, and now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Upgraded {
    /// The plugin.
    pub plugin: PluginId,
    /// The version before.
    pub from: String,
    /// The version now; the same when there was nothing to do.
    pub to: String,
    /// The process that serves in this version; `null` when none was running.
    pub pid: Option<u32>,
    /// Nothing was done: this is what would be.
    pub dry_run: bool,
}

/// Answer of `pin`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Pinned {
    /// The plugin.
    pub plugin: PluginId,
    /// The versions that may become the current one; `null`: all.
    pub range: Option<String>,
}

/// Answer of `remove`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Removal {
    /// The plugin.
    pub plugin: PluginId,
    /// The version that was installed.
    pub version: String,
    /// The folder that it had.
    pub folder: String,
    /// Nothing was done: this is what would be.
    pub dry_run: bool,
}

/// Answer of `start`, `stop`, `restart`, `enable` and `disable`: what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProcessChange {
    /// The plugin.
    pub plugin: PluginId,
    /// Where it is in its life now; `null` when nothing of it is there any more.
    pub state: Option<State>,
    /// The process that runs now.
    pub pid: Option<u32>,
}

/// A line that an installed plugin wrote: one item of `logs`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LogEntry {
    /// Counts the lines of one process from 1, both streams together; a gap is what was dropped.
    pub number: u64,
    /// When its end was read (RFC 3339).
    pub time: String,
    /// Where it was written.
    pub stream: Stream,
    /// The process that wrote it.
    pub pid: u32,
    /// Without its newline; what is no UTF-8 is replaced.
    pub text: String,
    /// Bytes that were cut off its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut_bytes: Option<u64>,
}

/// Answer of one `ping`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Ping {
    /// The plugin.
    pub plugin: PluginId,
    /// Time of the round trip between registry and plugin.
    pub round_trip_ns: u64,
}

/// One notification, as `listen` prints it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Notification {
    /// The plugin.
    pub plugin: PluginId,
    /// The callback.
    pub callback: String,
    /// `message`, `gap`, `epoch` or `replaced`.
    pub kind: String,
    /// `EPOCH:SEQ`; absent for v0 and for what is no message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<String>,
    /// The key of a `state` message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// How many `lossy` messages were dropped just before.
    #[serde(default)]
    pub dropped: u64,
    /// The payload when it is UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// The payload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_base64: Option<String>,
    /// What a gap or a change of epoch says, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// A message whose handler failed every time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeadLetter {
    /// The plugin.
    pub plugin: PluginId,
    /// The callback.
    pub callback: String,
    /// The subscription whose handler failed.
    pub subscription: String,
    /// `EPOCH:SEQ`; absent for v0.
    pub position: Option<String>,
    /// The payload.
    pub data_base64: String,
    /// What the handler said the last time.
    pub error: String,
    /// When it was given up (RFC 3339).
    pub time: String,
}

/// Answer of `daemon status` and of `GET /healthz`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DaemonStatus {
    /// Version of the program.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// When it started (RFC 3339).
    pub since: String,
    /// Plugin directories.
    pub directories: Vec<String>,
    /// Whether plugins are loaded as they appear.
    pub auto_discover: bool,
    /// How many plugins there are in each state.
    pub plugins: BTreeMap<State, u64>,
}
