//! The schema of `plugin.json`, for editors and for whoever writes one. [`super::read`] is stricter where a schema cannot be.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

use super::{ManifestWire, RestartPolicy, SourceMode};

/// How a plugin is run. Keys are read without regard to ASCII case; others are kept, with a warning. Durations are whole numbers
/// with `ms`, `s`, `m` or `h`.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Manifest")]
pub(crate) struct ManifestDocument {
    /// The plugin's name, and that of its folder: 1 to 128 bytes without `/`, control characters or a leading dot.
    #[schemars(length(min = 1, max = 128), pattern(r"^[^./][^/]*$"))]
    name: String,
    /// The namespace, empty by default; never `-`.
    #[serde(default)]
    #[schemars(length(max = 128), pattern(r"^([^./][^/]*)?$"))]
    namespace: String,
    /// The plugin's version (SemVer 2).
    version: String,
    /// One line for people.
    description: Option<String>,
    /// Who to ask.
    #[serde(default)]
    maintainers: Vec<String>,
    /// Where to read more.
    home: Option<String>,
    /// What it is made of; may be missing when `exec` names the command.
    source: Option<SourceDocument>,
    /// How it is built, when it is installed from a repository.
    build: Option<BuildDocument>,
    /// How its process is started.
    exec: Option<ExecDocument>,
    /// How a shared object is called.
    shared_object: Option<SharedObjectDocument>,
    /// Whether it waits to be asked for.
    #[serde(default)]
    lazy_load: bool,
    /// What follows when its process ends by itself.
    restart: Option<RestartDocument>,
    /// How it is felt whether the process still answers.
    health: Option<HealthDocument>,
    /// Stop the process when nobody called it for so long; by default never.
    #[schemars(pattern(r"^[0-9]+(ms|s|m|h)$"))]
    idle_stop: Option<String>,
    /// Programs that run around its life.
    hooks: Option<HooksDocument>,
    /// What its process may use.
    limits: Option<LimitsDocument>,
    /// Plugins that must run before it.
    #[serde(default)]
    requires: Vec<RequirementDocument>,
    /// What it implements, each as `NAME@VERSION`.
    #[serde(default)]
    #[schemars(inner(pattern(r"^.+@[0-9]+\.[0-9]+\.[0-9]+")))]
    interfaces: Vec<String>,
    /// What it speaks; by default `v1`.
    wire: Option<ManifestWire>,
    /// Its default settings.
    settings: Option<Map<String, Value>>,
    /// The JSON Schema of its settings: an object or a boolean.
    settings_schema: Option<Value>,
    /// What it asks to be allowed.
    permissions: Option<Map<String, Value>>,
    /// Kept as it is; each `routes[].label` is a method of a shared object.
    http_services: Option<Map<String, Value>>,
}

/// What a plugin is made of.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Source")]
struct SourceDocument {
    /// What kind of thing `path` is.
    mode: SourceMode,
    /// A file, relative to the plugin's folder or absolute; or where to get it from: a git repository with `#REFERENCE` or not
    /// (`remote_git`), or the address of a package (`remote_url`). May be missing when `exec` names the command.
    path: Option<String>,
    /// Of `remote_url`: the SHA-256 of the package. Required, unless `path` ends in `#sha256=HEX`.
    #[schemars(pattern(r"^[0-9a-f]{64}$"))]
    sha256: Option<String>,
}

/// How a plugin is built.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Build")]
struct BuildDocument {
    /// A program and its arguments, run in the folder of the sources; empty when there is nothing to build. By default what
    /// `Cargo.toml`, `go.mod`, `package.json`, `requirements.txt` or `pyproject.toml` suggest, the first that is there.
    command: Option<Vec<String>>,
    /// Files and folders that are kept of the build, besides the sources and the program.
    #[serde(default)]
    include: Vec<String>,
}

/// How a plugin's process is started.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Exec")]
struct ExecDocument {
    /// A path when it holds a `/`, inside of the plugin's folder or absolute, else a name to be found in PATH; by default
    /// `source.path`.
    command: Option<String>,
    /// Its arguments.
    #[serde(default)]
    args: Vec<String>,
    /// Variables besides those that every plugin gets; names beginning with `GOPLUG_` are taken.
    #[serde(default)]
    env: BTreeMap<String, String>,
    /// Where it starts, inside of the plugin's folder, which is the default.
    workdir: Option<String>,
}

/// How a shared object is called.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "SharedObject")]
struct SharedObjectDocument {
    /// Labels that are methods besides `Execute`, and besides those of `http_services.routes`.
    #[serde(default)]
    #[schemars(inner(length(min = 1, max = 128)))]
    labels: Vec<String>,
    /// Whether calls may run side by side; by default one at a time.
    #[serde(default)]
    concurrent: bool,
    /// How long a call may go on that nobody waits for any more, before its process is ended: by default `10s`, at least `100ms`.
    #[schemars(pattern(r"^[0-9]+(ms|s|m|h)$"))]
    grace: Option<String>,
}

/// What follows when the process ends by itself.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Restart")]
struct RestartDocument {
    /// By default `on_failure`.
    policy: Option<RestartPolicy>,
    /// The most starts within `window`, by default 5.
    #[schemars(range(min = 1, max = 1000))]
    max: Option<u32>,
    /// By default `10s`; at least `1s`.
    #[schemars(pattern(r"^[0-9]+(ms|s|m|h)$"))]
    window: Option<String>,
    /// The pauses between starts.
    backoff: Option<BackoffDocument>,
}

/// The pause before a start, doubled each time.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Backoff")]
struct BackoffDocument {
    /// By default `100ms`; at least `10ms`.
    #[schemars(pattern(r"^[0-9]+(ms|s|m|h)$"))]
    first: Option<String>,
    /// By default `30s`.
    #[schemars(pattern(r"^[0-9]+(ms|s|m|h)$"))]
    longest: Option<String>,
}

/// How it is felt whether the process still answers.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Health")]
struct HealthDocument {
    /// From an answer to the next ping: by default `1s`, at least `100ms`.
    #[schemars(pattern(r"^[0-9]+(ms|s|m|h)$"))]
    interval: Option<String>,
    /// How long a ping may take: by default `800ms`, at least `100ms`.
    #[schemars(pattern(r"^[0-9]+(ms|s|m|h)$"))]
    timeout: Option<String>,
    /// Pings in a row without an answer that make a hang, by default 3.
    #[schemars(range(min = 1, max = 100))]
    failures: Option<u32>,
}

/// Programs that run around a plugin's life: each a program and its arguments.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Hooks")]
struct HooksDocument {
    /// Before the process starts; if it fails, so does the start.
    #[serde(default)]
    pre_start: Vec<String>,
    /// When the process answers.
    #[serde(default)]
    post_start: Vec<String>,
    /// Before the process is told to stop.
    #[serde(default)]
    pre_stop: Vec<String>,
    /// When the process is gone.
    #[serde(default)]
    post_stop: Vec<String>,
}

/// What the process may use; what is not named has no limit of its own.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "MaxUse")]
struct LimitsDocument {
    /// Bytes, or a whole number with `KiB`, `MiB` or `GiB`; at least 1 MiB.
    memory: Option<Size>,
    /// At least 16.
    #[schemars(range(min = 16, max = 1_048_576))]
    open_files: Option<u64>,
    /// Processes and threads.
    #[schemars(range(min = 1, max = 4_194_304))]
    processes: Option<u64>,
    /// Processor cores, such as 0.5.
    #[schemars(range(min = 0.01, max = 1000.0))]
    cpu: Option<f64>,
}

#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only its schema is used")]
enum Size {
    Bytes(u64),
    Text(String),
}

/// A plugin that must run: `NAMESPACE/NAME@RANGE`, or an object.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "Requirement")]
#[expect(dead_code, reason = "only its schema is used")]
enum RequirementDocument {
    /// `NAMESPACE/NAME@RANGE`; without a range any version will do.
    Text(String),
    /// The same in two keys.
    Object {
        /// `NAMESPACE/NAME`.
        plugin: String,
        /// A range of versions such as `^1.2`.
        range: Option<String>,
    },
}
