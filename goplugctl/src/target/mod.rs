//! Where a verb works: a plugin directory or a daemon. Each verb is written once, against [`Target`].

mod choose;
mod daemon;
mod directory;

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use goplug_pconf_schema::admin::{
    Activation, CallbackList, DaemonStatus, Diff, Installation, LogEntry, MethodList, Notification, Ping, Pinned,
    PluginDetail, PluginSummary, ProcessChange, RegistryEvent, Removal, Revocation, Trust, TrustEntry, TrustedKey,
    Unloaded, Upgraded, Why,
};
use goplug_pconf_schema::wire::event::Position;
use goplug_pconf_schema::{Fault, Grant, PluginId, RollbackOn, Sha256};
pub(crate) use goplug_registry::Install;

pub(crate) use choose::{Place, choose, default_sockets, flags};
pub(crate) use daemon::Daemon;
pub(crate) use directory::{Directory, Nowhere};

/// What a target's answer looks like while it is awaited.
pub(crate) type Answer<'a, T> = BoxFuture<'a, Result<T, Fault>>;
/// Things that go on, in order; an error ends them.
pub(crate) type Items<T> = BoxStream<'static, Result<T, Fault>>;

/// How a call is made.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Call {
    /// Its deadline; else the method's own.
    pub(crate) deadline: Option<Duration>,
    /// Whether the plugin is loaded first if it is not.
    pub(crate) load: bool,
    /// The content type of the body.
    pub(crate) content_type: Option<&'static str>,
}

/// How a plugin is unloaded.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Unload {
    /// How long calls and acknowledgements may take; else the target's default.
    pub(crate) drain: Option<Duration>,
    /// Whether the process is told to leave.
    pub(crate) stop: bool,
}

/// How a plugin is upgraded.
#[derive(Debug, Clone, Default)]
pub(crate) struct Upgrade<'a> {
    /// The folder of the new version; its path is absolute.
    pub(crate) source: Option<&'a Path>,
    /// When it is taken back.
    pub(crate) rollback_on: Option<RollbackOn>,
    /// Whether it may be older.
    pub(crate) downgrade: bool,
    /// Whether a package may be unsigned.
    pub(crate) allow_unsigned: bool,
    /// The permissions that are granted besides.
    pub(crate) grant: Grant,
    /// Whether nothing is done.
    pub(crate) dry_run: bool,
}

/// What the current version is compared with.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Against<'a> {
    /// What an upgrade leads to.
    Newest,
    /// A version that is installed.
    Version(&'a str),
    /// A folder, or a package that somebody signed; its path is absolute.
    Folder(&'a Path),
    /// The same; a package may be unsigned.
    Unsigned(&'a Path),
}

/// What is done to the process of a plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// It runs.
    Start,
    /// It does not, until asked.
    Stop,
    /// Another one runs.
    Restart,
    /// It may run.
    Enable,
    /// It may not.
    Disable,
}

impl Change {
    /// The verb.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Restart => "restart",
            Self::Enable => "enable",
            Self::Disable => "disable",
        }
    }
}

/// What `wait` waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Awaited {
    /// The plugin is loaded.
    Loaded,
    /// Its file is there.
    Discovered,
    /// Its file is gone.
    Gone,
    /// This callback is notified.
    Callback(String),
}

/// Everything that verbs ask of a registry, wherever it is.
pub(crate) trait Target: Send + Sync {
    /// The plugin directories.
    fn directories(&self) -> Answer<'_, Vec<String>>;
    /// The daemon's own state; `None` where there is no daemon.
    fn status(&self) -> Answer<'_, Option<DaemonStatus>>;
    /// All plugins as far as they are known without asking any: enough to find a name.
    fn known(&self) -> Answer<'_, Vec<PluginSummary>>;
    /// All plugins, with what each says of itself. Activates nothing.
    fn list(&self) -> Answer<'_, Vec<PluginSummary>>;
    /// The same for who lists again and again, and must see what others did to plugins meanwhile.
    fn list_anew(&self) -> Answer<'_, Vec<PluginSummary>> {
        self.list()
    }
    /// All about one plugin. Activates nothing.
    fn inspect<'a>(&'a self, plugin: &'a PluginId) -> Answer<'a, PluginDetail>;
    /// Its methods.
    fn methods<'a>(&'a self, plugin: &'a PluginId) -> Answer<'a, MethodList>;
    /// Its callbacks and who subscribed to them.
    fn callbacks<'a>(&'a self, plugin: &'a PluginId) -> Answer<'a, CallbackList>;
    /// Why a plugin or a file is, or is not, callable.
    fn why<'a>(&'a self, subject: &'a str) -> Answer<'a, Why>;
    /// Brings a plugin in: its folder, its `plugin.json` or a package; the path is absolute.
    fn install<'a>(&'a self, source: &'a Path, how: Install) -> Answer<'a, Installation>;
    /// Takes an installed plugin out, or one version of it.
    fn remove<'a>(&'a self, plugin: &'a PluginId, version: Option<&'a str>, dry_run: bool) -> Answer<'a, Removal>;
    /// Makes another version the current one.
    fn upgrade<'a>(&'a self, plugin: &'a PluginId, how: Upgrade<'a>) -> Answer<'a, Upgraded>;
    /// Makes the version before the current one.
    fn rollback<'a>(&'a self, plugin: &'a PluginId, dry_run: bool) -> Answer<'a, Upgraded>;
    /// Lets only some versions become the current one, or all.
    fn pin<'a>(&'a self, plugin: &'a PluginId, range: Option<&'a str>) -> Answer<'a, Pinned>;
    /// What another version changes.
    fn diff<'a>(&'a self, plugin: &'a PluginId, against: Against<'a>) -> Answer<'a, Diff>;
    /// Activates.
    fn load<'a>(&'a self, plugin: &'a PluginId) -> Answer<'a, Activation>;
    /// Deactivates, or stops.
    fn unload<'a>(&'a self, plugin: &'a PluginId, how: Unload) -> Answer<'a, Unloaded>;
    /// Deactivates and activates.
    fn reload<'a>(&'a self, plugin: &'a PluginId) -> Answer<'a, Activation>;
    /// Starts, stops, restarts, enables or disables the process.
    fn change<'a>(&'a self, plugin: &'a PluginId, change: Change) -> Answer<'a, ProcessChange>;
    /// What the process of an installed plugin wrote, and what goes on if `follow`.
    fn logs<'a>(&'a self, plugin: &'a PluginId, follow: bool) -> Answer<'a, Items<LogEntry>>;
    /// Every program that is pinned.
    fn trusted(&self) -> Answer<'_, Vec<TrustEntry>>;
    /// What a plugin may run, and what it runs. Activates nothing.
    fn trust<'a>(&'a self, plugin: &'a PluginId) -> Answer<'a, Trust>;
    /// Lets it run what it runs now; with a digest, only that.
    fn approve<'a>(&'a self, plugin: &'a PluginId, expected: Option<Sha256>) -> Answer<'a, Trust>;
    /// Forgets what it may run.
    fn revoke<'a>(&'a self, plugin: &'a PluginId) -> Answer<'a, Revocation>;
    /// The keys whose packages are taken.
    fn trusted_keys(&self) -> Answer<'_, Vec<TrustedKey>>;
    /// Takes packages of a key.
    fn trust_key<'a>(&'a self, key: &'a str, comment: &'a str) -> Answer<'a, TrustedKey>;
    /// Takes packages of a key no more.
    fn distrust_key<'a>(&'a self, key: &'a str) -> Answer<'a, TrustedKey>;
    /// Looks at the directories now.
    fn rescan(&self) -> Answer<'_, ()>;
    /// One round trip to the plugin.
    fn ping<'a>(&'a self, plugin: &'a PluginId) -> Answer<'a, Ping>;
    /// Bytes in, bytes out.
    fn execute<'a>(&'a self, plugin: &'a PluginId, method: &'a str, body: Bytes, how: Call) -> Answer<'a, Bytes>;
    /// Notifications of a callback from a position, else from now on, as an observer. Begins once the stream is open.
    fn listen<'a>(
        &'a self,
        plugin: &'a PluginId,
        callback: &'a str,
        after: Option<Position>,
    ) -> Answer<'a, Items<Notification>>;
    /// What happened, as far as it is remembered, and what goes on if `follow`.
    fn events(&self, follow: bool) -> Answer<'_, Items<RegistryEvent>>;
    /// Waits at most `timeout`, then `deadline_exceeded`.
    fn wait<'a>(&'a self, plugin: &'a PluginId, what: &'a Awaited, timeout: Duration) -> Answer<'a, ()>;
    /// Lets go of connections; plugins go on as they are.
    fn close(&self) -> BoxFuture<'_, ()>;
}
