//! `plugin.json`: the file that says "this is how to run me" (`docs/manifest.md`).
//!
//! `object` takes a JSON object apart, key by key, with the place of each; `read` makes a [`Manifest`] of it; `document` is
//! the published schema; `shown` makes a document of a [`Manifest`].

pub(crate) mod document;
mod object;
mod program;
mod read;
mod shown;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::JsonSchema;
use semver::{Version, VersionReq};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::locator::FileUrl;
use crate::{Locator, PconfError, PconfProblem, PluginId, Sha256};

/// The name of the file; its folder has the name of the plugin.
pub const MANIFEST_NAME: &str = "plugin.json";

/// The method of a shared object that takes any label.
pub const METHOD_EXECUTE: &str = "Execute";

/// How long a process may take from its start until it answers: a hello takes milliseconds, and an interpreter that loads
/// half its libraries first takes seconds.
pub const DEFAULT_READY: Duration = Duration::from_secs(10);

/// What a `plugin.json` says, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// `namespace` and `name`.
    pub id: PluginId,
    /// `version`.
    pub version: Version,
    /// `description`: one line for people.
    pub description: Option<String>,
    /// `maintainers`: who to ask.
    pub maintainers: Vec<String>,
    /// `home`: where to read more.
    pub home: Option<String>,
    /// `source`: what it is made of.
    pub source: Source,
    /// `build`: how it is built, when it is installed from a repository.
    pub build: Build,
    /// `exec`: how its process is started.
    pub exec: Exec,
    /// `shared_object`: how one is called.
    pub shared_object: SharedObject,
    /// `lazy_load`: it waits to be asked for.
    pub lazy_load: bool,
    /// `restart`: what follows when its process ends by itself.
    pub restart: Restart,
    /// `health`: how it is felt whether the process still answers.
    pub health: Health,
    /// `idle_stop`: its process is stopped when nobody called it for so long; `None`: never.
    pub idle_stop: Option<Duration>,
    /// `hooks`: programs that run around its life.
    pub hooks: Hooks,
    /// `limits`: what its process may use.
    pub limits: MaxUse,
    /// `requires`: plugins that must run before it.
    pub requires: Vec<Requirement>,
    /// `interfaces`: what it implements, as `NAME@VERSION`.
    pub interfaces: Vec<String>,
    /// `wire`: what it speaks.
    pub wire: ManifestWire,
    /// `settings`: its default settings, an object.
    pub settings: Option<Value>,
    /// `settings_schema`: the JSON Schema of its settings.
    pub settings_schema: Option<Value>,
    /// `permissions`: what it asks to be allowed, as it is written.
    pub permissions: Option<Value>,
    /// `http_services` as it is written.
    pub http_services: Option<Value>,
    /// Keys that mean nothing to us, as they are written.
    pub unknown: BTreeMap<String, Value>,
    /// What the file can be read in spite of, each with its place.
    pub warnings: Vec<String>,
}

/// `source`: what a plugin is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// What kind of thing `path` is.
    pub mode: SourceMode,
    /// A file, relative to the plugin's folder or absolute; or where to get it from. Empty when `exec` says it all.
    pub path: String,
    /// Of `remote_url`: what is fetched must have this digest.
    pub sha256: Option<Sha256>,
}

/// `build`: how a plugin is built.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Build {
    /// A program and its arguments, run in the folder of the sources; empty: there is nothing to build; `None`: what the files
    /// there suggest.
    pub command: Option<Vec<String>>,
    /// Files and folders that are kept of the build, besides the sources and the program.
    pub include: Vec<String>,
}

/// What kind of thing a plugin is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SourceMode {
    /// A program.
    LocalExec,
    /// A shared object.
    LocalSo,
    /// A git repository.
    RemoteGit,
    /// An address to fetch it from.
    RemoteUrl,
}

impl SourceMode {
    const ALL: [(&'static str, Self); 4] = [
        ("local_exec", Self::LocalExec),
        ("local_so", Self::LocalSo),
        ("remote_git", Self::RemoteGit),
        ("remote_url", Self::RemoteUrl),
    ];

    /// The mode as it is written.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(_, mode)| *mode == self).map_or("", |(word, _)| word)
    }
}

/// `exec`: how a plugin's process is started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exec {
    /// The program: a path when it holds a `/` (relative to the plugin's folder, or absolute), else a name to be found in
    /// `PATH`.
    pub command: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// What its environment has besides what every plugin gets.
    pub env: BTreeMap<String, String>,
    /// The folder that it starts in, relative to the plugin's folder, which is the default.
    pub workdir: Option<String>,
}

/// `shared_object`: how a plugin that is a shared object is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedObject {
    /// Labels that are methods, besides those of `http_services`: see [`Manifest::labels`].
    pub labels: Vec<String>,
    /// Whether calls may run side by side. By default not: most libraries were written without it in mind.
    pub concurrent: bool,
    /// How long a call may go on that nobody waits for any more; then its process is ended, because nothing else ends it. By
    /// default 10 s: whoever looks now and then whether it is cancelled needs much less.
    pub grace: Duration,
}

/// `restart`: what follows when a plugin's process ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restart {
    /// Whether it is started again.
    pub policy: RestartPolicy,
    /// The most starts within `window`; the next end is `failed`. By default 5: one that cannot work is told soon, and a
    /// stumble at start-up survives.
    pub max: u32,
    /// Starts longer ago do not count, and a process that lived so long begins anew. By default 10 s: with the pauses between
    /// them, 5 starts that fail at once take 1.5 s.
    pub window: Duration,
    /// The pauses between starts.
    pub backoff: Backoff,
}

/// The pause before a process is started again: `first`, doubled each time up to `longest`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// By default 100 ms: nobody notices, and a port or a file of the predecessor is free again.
    pub first: Duration,
    /// By default 30 s: whoever repairs what was wrong does not wait longer.
    pub longest: Duration,
}

/// Whether a process that ended by itself is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RestartPolicy {
    /// However it ended.
    Always,
    /// Unless it ended with exit code 0, which says that it meant to.
    OnFailure,
    /// Never.
    Never,
}

/// `health`: how it is felt whether a process still answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Health {
    /// From an answer to the next ping. By default 1 s: with the next two, a hang is found within 3.5 s.
    pub interval: Duration,
    /// How long a ping may take. By default 800 ms: a process that computes on all cores answers in less.
    pub timeout: Duration,
    /// Pings in a row without an answer that make a hang. By default 3: one may be lost to a busy machine.
    pub failures: u32,
}

/// `hooks`: programs that run around a plugin's life, each a program and its arguments; empty: none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hooks {
    /// Before the process starts; if it fails, so does the start.
    pub pre_start: Vec<String>,
    /// When the process answers.
    pub post_start: Vec<String>,
    /// Before the process is told to stop.
    pub pre_stop: Vec<String>,
    /// When the process is gone.
    pub post_stop: Vec<String>,
}

/// `limits`: what a plugin's process may use; `None`: as much as we may.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MaxUse {
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Open files.
    pub open_files: Option<u64>,
    /// Processes and threads.
    pub processes: Option<u64>,
    /// Thousandths of a processor core.
    pub cpu_milli: Option<u32>,
}

/// One of `requires`: a plugin that must run, and the versions of it that will do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    /// Which plugin.
    pub plugin: PluginId,
    /// Which versions; `*` for any.
    pub range: VersionReq,
}

/// `wire`: what a plugin speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ManifestWire {
    /// The original GoPlug of 2015.
    V0,
    /// What `docs/protocol.md` says.
    V1,
    /// The wire of tilotech/go-plugin.
    Tilotech,
}

impl ManifestWire {
    const ALL: [(&'static str, Self); 3] = [("v0", Self::V0), ("v1", Self::V1), ("tilotech", Self::Tilotech)];

    /// The wire as it is written.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(_, wire)| *wire == self).map_or("", |(word, _)| word)
    }
}

/// Where a manifest lies, as far as it must agree with what it says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Folder<'a> {
    /// The name of its folder, which must be the plugin's; `None`: it does not matter here.
    pub name: Option<&'a str>,
    /// The name of the folder above, if that is the folder of a namespace.
    pub namespace: Option<&'a str>,
}

impl Default for SharedObject {
    fn default() -> Self {
        Self { labels: Vec::new(), concurrent: false, grace: Duration::from_secs(10) }
    }
}

impl Default for Restart {
    fn default() -> Self {
        let backoff = Backoff { first: Duration::from_millis(100), longest: Duration::from_secs(30) };
        Self { policy: RestartPolicy::OnFailure, max: 5, window: Duration::from_secs(10), backoff }
    }
}

impl Default for Health {
    fn default() -> Self {
        Self { interval: Duration::from_secs(1), timeout: Duration::from_millis(800), failures: 3 }
    }
}

impl Manifest {
    /// Reads a file of at most [`crate::MAX_PCONF_BYTES`] that lies in `folder`. What JSON is read, and how keys are
    /// compared, is as in a `.pconf`: see [`crate::Pconf::parse`].
    ///
    /// # Errors
    /// Every problem of the file, with its place. A syntax error ends the search, as what follows cannot be understood.
    pub fn parse(bytes: &[u8], folder: Folder<'_>) -> Result<Self, PconfError> {
        read::read(bytes, folder)
    }

    /// As [`Manifest::parse`], and as much of the file as can be understood in spite of its problems, so that what it names can
    /// be looked at, too: a name or a version that is none is `unknown`, `0.0.0`. `None` when it is not known what it is made of.
    pub fn understand(bytes: &[u8], folder: Folder<'_>) -> (Option<Self>, Vec<PconfProblem>) {
        read::understand(bytes, folder)
    }

    /// The line and the column, from 1, of what is behind these keys in a file, one in the other: `["source", "path"]`.
    pub fn place_of(bytes: &[u8], keys: &[&str]) -> Option<(usize, usize)> {
        read::place_of(bytes, keys)
    }

    /// Why this version cannot run the plugin although its manifest is in order. What was fetched runs as its `exec` says.
    pub fn not_runnable(&self) -> Option<String> {
        let mode = self.source.mode;
        match mode {
            SourceMode::LocalExec | SourceMode::LocalSo => None,
            SourceMode::RemoteGit | SourceMode::RemoteUrl if !self.exec.command.is_empty() => None,
            SourceMode::RemoteGit | SourceMode::RemoteUrl => Some(format!(
                "`source.mode` `{}` says where it is from, and `exec.command` does not say what to run",
                mode.as_str()
            )),
        }
    }

    /// Where it is to be had from, if it is not here; [`Manifest::parse`] has read it before.
    pub fn elsewhere(&self) -> Option<Locator> {
        match self.source.mode {
            SourceMode::LocalExec | SourceMode::LocalSo => None,
            SourceMode::RemoteGit => {
                let path = &self.source.path;
                // Any address of a repository will do here.
                path.parse()
                    .ok()
                    .filter(|read| matches!(read, Locator::Git(_)))
                    .or_else(|| format!("git+{path}").parse().ok())
            }
            SourceMode::RemoteUrl => match self.source.path.parse().ok()? {
                Locator::Url(url) => Some(Locator::Url(FileUrl { sha256: self.source.sha256.or(url.sha256), ..url })),
                Locator::Path(_) | Locator::Git(_) => None,
            },
        }
    }

    /// The methods of a shared object besides [`METHOD_EXECUTE`]: the labels of `http_services.routes` and of `shared_object`, each
    /// once, in the order of the file.
    pub fn labels(&self) -> Vec<&str> {
        let mut labels = Vec::new();
        for label in read::route_labels(self).chain(self.shared_object.labels.iter().map(String::as_str)) {
            if !labels.contains(&label) && read::check_label(label).is_ok() {
                labels.push(label);
            }
        }
        labels
    }

    /// What is run, and its arguments; of a shared object its path.
    pub fn command_line(&self) -> Vec<String> {
        if self.source.mode == SourceMode::LocalSo {
            return vec![self.source.path.clone()];
        }
        let command = Some(&self.exec.command).filter(|command| !command.is_empty());
        command.into_iter().chain(&self.exec.args).cloned().collect()
    }

    /// The program's path when it is a file, seen from `folder`, the folder of the manifest; `None` for a name to be found
    /// in `PATH`.
    pub fn program(&self, folder: &Path) -> Option<PathBuf> {
        self.exec.command.contains('/').then(|| folder.join(&self.exec.command))
    }

    /// What could be better, beyond [`Manifest::warnings`]: none of it keeps the plugin from being used.
    pub fn lint(&self) -> Vec<String> {
        read::lint(self)
    }
}

#[cfg(test)]
mod tests;
