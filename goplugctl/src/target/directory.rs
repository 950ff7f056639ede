//! A plugin directory as the target: a registry of our own, for one command.
//!
//! Looking activates nothing. A verb that needs a loaded plugin loads it for itself and leaves it running and active:
//! an activation belongs to the plugin's process, not to whoever asked for it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt};
use goplug_pconf_schema::admin::{
    Activation, CallbackList, DaemonStatus, Diff, Installation, LogEntry, MethodList, Notification, Ping, Pinned,
    PluginDetail, PluginSummary, ProcessChange, RegistryEvent, Removal, Revocation, State, Trust, TrustEntry,
    TrustedKey, Unloaded, Upgraded, Why,
};
use goplug_pconf_schema::settings::{Unsigned, check_key};
use goplug_pconf_schema::wire::event::Position;
use goplug_pconf_schema::{Code, Fault, Locator, PluginId, Sha256, printable};
use goplug_registry::{Builder, CallOptions, Events, Fetch, Fetched, Progress, Registry, Wait};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};

use super::{Against, Answer, Awaited, Call, Change, Install, Items, Target, Unload, Upgrade};
use crate::notification;

/// How often a verb that goes on looks at the directory.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A registry that lives as long as the command.
pub(crate) struct Directory {
    registry: Registry,
}

impl Directory {
    /// Opens the directory and reads what is in it; connects to nothing yet. With `may_be_missing` a folder that cannot
    /// be read is taken for an empty one: it may come, and `why` tells about it.
    ///
    /// # Errors
    /// `not_found` for a folder that is not there, `denied` for one that may not be read, `invalid_argument` for a path
    /// that is no folder.
    pub(crate) async fn open(path: &Path, may_be_missing: bool) -> Result<Self, Fault> {
        let path = match readable_folder(path) {
            Err(_) if may_be_missing => std::path::absolute(path).unwrap_or_else(|_| path.to_owned()),
            other => other?,
        };
        let registry = builder(&path)?.open().await?;
        match registry.rescan().await {
            Err(_) if may_be_missing => {}
            other => other?,
        }
        Ok(Self { registry })
    }

    /// Fetches what can be installed here, or by the daemon of this directory.
    pub(crate) async fn fetch(
        &self,
        source: &Locator,
        how: Fetch,
        told: impl Fn(Progress) + Send + Sync,
    ) -> Result<Fetched, Fault> {
        self.registry.fetch(source, how, told).await
    }

    /// Builds what was fetched, if there is something to build.
    pub(crate) async fn build(
        &self,
        fetched: Fetched,
        within: Duration,
        told: impl Fn(Progress) + Send + Sync,
    ) -> Result<Fetched, Fault> {
        self.registry.build(fetched, within, told).await
    }

    /// The target on a registry that somebody else opened.
    pub(crate) fn on(registry: Registry) -> Self {
        Self { registry }
    }

    /// Loads the plugin unless it is loaded.
    async fn loaded(&self, plugin: &PluginId) -> Result<(), Fault> {
        if self.registry.is_loaded(plugin.as_str()) {
            return Ok(());
        }
        match self.registry.load(plugin.as_str()).await {
            // Somebody was quicker.
            Err(_) if self.registry.is_loaded(plugin.as_str()) => Ok(()),
            other => other.map(drop),
        }
    }

    /// Takes over the activation of a plugin that is active already, so that it can be undone; one that is not active
    /// stays as it is. A v0 plugin does not tell: it is taken for active.
    async fn adopted(&self, plugin: &PluginId) -> Result<(), Fault> {
        if self.registry.is_loaded(plugin.as_str()) {
            return Ok(());
        }
        _ = self.registry.look_at(plugin.as_str()).await;
        let found = self.registry.inspect(plugin.as_str()).await?;
        let runs = found.summary.pid.or(found.process.as_ref().and_then(|process| process.pid));
        if found.installed.is_some() && runs.is_none() {
            // To load it would start it.
            return Ok(());
        }
        match found.active {
            Some(false) => Ok(()),
            Some(true) | None => self.loaded(plugin).await,
        }
    }

    /// As [`Directory::adopted`]; one that has no process gets none.
    async fn adopted_if_it_runs(&self, plugin: &PluginId) {
        let shown = self.registry.inspect(plugin.as_str()).await;
        let is_down = |state: State| matches!(state, State::Stopped | State::Failed | State::Disabled | State::Denied);
        if !shown.is_ok_and(|detail| is_down(detail.summary.state)) {
            // Whatever keeps it from being taken over is told by what follows.
            _ = self.adopted(plugin).await;
        }
    }

    /// Whether the plugin is in the awaited state now.
    async fn reached(&self, plugin: &PluginId, what: &Awaited) -> Result<bool, Fault> {
        // A directory that cannot be read now may come back before the time is over.
        let _ = self.registry.rescan().await;
        let name = plugin.as_str();
        Ok(match what {
            Awaited::Discovered => self.registry.is_discovered(name),
            Awaited::Gone => !self.registry.is_discovered(name),
            Awaited::Loaded | Awaited::Callback(_) if !self.registry.is_discovered(name) => false,
            Awaited::Callback(_) => true,
            Awaited::Loaded => {
                _ = self.registry.look_at(name).await;
                self.registry.is_loaded(name) || self.registry.inspect(name).await?.active == Some(true)
            }
        })
    }
}

/// A registry of no plugin directory: for what only fetches. Its folder is gone with it.
pub(crate) struct Nowhere {
    pub(crate) registry: Registry,
    _folder: tempfile::TempDir,
}

impl Nowhere {
    /// Opens one.
    ///
    /// # Errors
    /// `internal`: there is no place for temporary files.
    pub(crate) async fn open() -> Result<Self, Fault> {
        let folder = tempfile::tempdir()
            .map_err(|error| Fault::new(Code::Internal, format!("there is no place for temporary files: {error}")))?;
        Ok(Self { registry: builder(folder.path())?.open().await?, _folder: folder })
    }
}

/// What every registry of a command has from its environment.
fn builder(path: &Path) -> Result<Builder, Fault> {
    let mut builder = Registry::builder(path).caller("goplugctl");
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(folder) = variable("GOPLUG_HOSTS_DIR") {
        builder = builder.hosts_dir(folder);
    }
    if let Some(folder) = variable("GOPLUG_TRUST_DIR") {
        builder = builder.trust_dir(folder);
    }
    if let Some(extension) = variable("GOPLUG_EXTENSION") {
        builder = builder.extension(extension.to_string_lossy());
    }
    if let Some(word) = variable("GOPLUG_PIN_EXECUTABLES") {
        builder = builder.pin_executables(switch("GOPLUG_PIN_EXECUTABLES", &word.to_string_lossy())?);
    }
    let wrong = |why: String| Fault::new(Code::InvalidArgument, why);
    if let Some(list) = variable("GOPLUG_TRUST_KEYS") {
        let keys: Vec<_> = list.to_string_lossy().split(',').map(|key| key.trim().to_owned()).collect();
        for key in &keys {
            check_key(key).map_err(|why| wrong(format!("GOPLUG_TRUST_KEYS: `{}` {why}", printable(key))))?;
        }
        builder = builder.trust_keys(keys);
    }
    if let Some(word) = variable("GOPLUG_UNSIGNED") {
        let unsigned = word.to_string_lossy().parse::<Unsigned>();
        builder = builder.unsigned(unsigned.map_err(|why| wrong(format!("GOPLUG_UNSIGNED: {why}")))?);
    }
    Ok(builder)
}

impl Target for Directory {
    fn directories(&self) -> Answer<'_, Vec<String>> {
        async { Ok(vec![self.registry.directory().display().to_string()]) }.boxed()
    }

    fn status(&self) -> Answer<'_, Option<DaemonStatus>> {
        async { Ok(None) }.boxed()
    }

    fn known(&self) -> Answer<'_, Vec<PluginSummary>> {
        async { Ok(self.registry.plugins()) }.boxed()
    }

    fn list(&self) -> Answer<'_, Vec<PluginSummary>> {
        async {
            self.registry.look().await;
            Ok(self.registry.plugins())
        }
        .boxed()
    }

    /// With a registry of its own: one that has met a plugin is not told that somebody else has unloaded it.
    fn list_anew(&self) -> Answer<'_, Vec<PluginSummary>> {
        async {
            let other = Self::open(&self.registry.directory(), true).await?;
            let rows = other.list().await;
            other.registry.close().await;
            rows
        }
        .boxed()
    }

    fn inspect<'a>(&'a self, plugin: &'a PluginId) -> Answer<'a, PluginDetail> {
        async {
            _ = self.registry.look_at(plugin.as_str()).await;
            self.registry.inspect(plugin.as_str()).await
        }
        .boxed()
    }

    fn methods<'a>(&'a self, plugin: &'a PluginId) -> Answer<'a, MethodList> {
        async {
            _ = self.registry.look_at(plugin.as_str()).await;
            match self.registry.methods(plugin.as_str()) {
                // A v0 plugin tells its methods only when it is activated.
                Err(fault) if fault.code == Code::WrongState => {
                    self.loaded(plugin).await?;
                    self.registry.methods(plugin.as_str())
                }
                other => other,
            }
        }
        .boxed()
    }

    fn callbacks<'a>(&'a self, plugin: &'a PluginId) -> Answer<'a, CallbackList> {
        async {
            self.loaded(plugin).await?;
            self.registry.callbacks(plugin.as_str()).await
        }
        .boxed()
    }

    fn why<'a>(&'a self, subject: &'a str) -> Answer<'a, Why> {
        async { Ok(self.registry.why(subject).await) }.boxed()
    }

    fn install<'a>(&'a self, source: &'a Path, how: Install) -> Answer<'a, Installation> {
        async move {
            // So that a process that is active is followed as one.
            self.registry.look().await;
            self.registry.install(source, how).await
        }
        .boxed()
    }

    fn remove<'a>(&'a self, plugin: &'a PluginId, version: Option<&'a str>, dry_run: bool) -> Answer<'a, Removal> {
        match version {
            Some(version) => self.registry.remove_version(plugin.as_str(), version, dry_run).boxed(),
            None => self.registry.remove(plugin.as_str(), dry_run).boxed(),
        }
    }

    fn upgrade<'a>(&'a self, plugin: &'a PluginId, how: Upgrade<'a>) -> Answer<'a, Upgraded> {
        async move {
            self.adopted_if_it_runs(plugin).await;
            let Upgrade { source, rollback_on, downgrade, allow_unsigned, grant, dry_run } = how;
            let how = goplug_registry::Upgrade { rollback_on, downgrade, allow_unsigned, grant, dry_run };
            self.registry.upgrade(plugin.as_str(), source, how).await
        }
        .boxed()
    }

    fn rollback<'a>(&'a self, plugin: &'a PluginId, dry_run: bool) -> Answer<'a, Upgraded> {
        async move {
            _ = self.adopted(plugin).await;
            self.registry.rollback(plugin.as_str(), dry_run).await
        }
        .boxed()
    }

    fn pin<'a>(&'a self, plugin: &'a PluginId, range: Option<&'a str>) -> Answer<'a, Pinned> {
        self.registry.pin(plugin.as_str(), range).boxed()
    }

    fn diff<'a>(&'a self, plugin: &'a PluginId, against: Against<'a>) -> Answer<'a, Diff> {
        async move {
            self.adopted_if_it_runs(plugin).await;
            let against = match against {
                Against::Newest => goplug_registry::Against::Newest,
                Against::Version(version) => goplug_registry::Against::Version(version.to_owned()),
                Against::Folder(folder) => goplug_registry::Against::Folder(folder.to_owned()),
                Against::Unsigned(folder) => goplug_registry::Against::Unsigned(folder.to_owned()),
            };
            self.registry.diff(plugin.as_str(), against).await
        }
        .boxed()
    }

    fn load<'a>(&'a self, plugin: &'a PluginId) -> Answer<'a, Activation> {
        async {
            // A plugin that is active already is loaded, and a second load is a conflict here as it is on a daemon.
            _ = self.registry.look_at(plugin.as_str()).await;
            self.registry.load(plugin.as_str()).await
        }
        .boxed()
    }

    fn unload<'a>(&'a self, plugin: &'a PluginId, how: Unload) -> Answer<'a, Unloaded> {
        async move {
            self.adopted(plugin).await?;
            let how = goplug_registry::Unload { drain: how.drain, stop: how.stop };
            self.registry.unload(plugin.as_str(), how).await
        }
        .boxed()
    }

    fn reload<'a>(&'a self, plugin: &'a PluginId) -> Answer<'a, Activation> {
        async {
            self.adopted(plugin).await?;
            self.registry.reload(plugin.as_str()).await
        }
        .boxed()
    }

    fn change<'a>(&'a self, plugin: &'a PluginId, change: Change) -> Answer<'a, ProcessChange> {
        async move {
            let (registry, name) = (&self.registry, plugin.as_str());
            if matches!(change, Change::Stop | Change::Restart | Change::Disable) {
                // So that its stopper runs. What cannot be taken over is stopped all the same.
                _ = self.adopted(plugin).await;
            }
            let plugin = match change {
                Change::Start => registry.start_plugin(name).await,
                Change::Stop => registry.stop_plugin(name).await,
                Change::Restart => registry.restart_plugin(name).await,
                Change::Enable => registry.enable(name).await,
                Change::Disable => registry.disable(name).await,
            }?;
            Ok(registry.process(&plugin))
        }
        .boxed()
    }

    fn logs<'a>(&'a self, plugin: &'a PluginId, follow: bool) -> Answer<'a, Items<LogEntry>> {
        async move {
            let logs = self.registry.logs(plugin.as_str(), follow).await?;
            let items = stream::unfold(logs, |mut logs| async {
                let entry = logs.entry().await.transpose()?;
                Some((entry.map(|(_, entry)| entry), logs))
            });
            Ok(items.boxed())
        }
        .boxed()
    }

    fn trusted(&self) -> Answer<'_, Vec<TrustEntry>> {
        self.registry.trusted().boxed()
    }

    fn trust<'a>(&'a self, plugin: &'a PluginId) -> Answer<'a, Trust> {
        self.registry.trust_of(plugin.as_str()).boxed()
    }

    fn approve<'a>(&'a self, plugin: &'a PluginId, expected: Option<Sha256>) -> Answer<'a, Trust> {
        self.registry.approve(plugin.as_str(), expected).boxed()
    }

    fn revoke<'a>(&'a self, plugin: &'a PluginId) -> Answer<'a, Revocation> {
        self.registry.revoke(plugin.as_str()).boxed()
    }

    fn trusted_keys(&self) -> Answer<'_, Vec<TrustedKey>> {
        self.registry.trusted_keys().boxed()
    }

    fn trust_key<'a>(&'a self, key: &'a str, comment: &'a str) -> Answer<'a, TrustedKey> {
        self.registry.trust_key(key, comment).boxed()
    }

    fn distrust_key<'a>(&'a self, key: &'a str) -> Answer<'a, TrustedKey> {
        self.registry.distrust_key(key).boxed()
    }

    fn rescan(&self) -> Answer<'_, ()> {
        async { self.registry.rescan().await }.boxed()
    }

    fn ping<'a>(&'a self, plugin: &'a PluginId) -> Answer<'a, Ping> {
        async {
            self.loaded(plugin).await?;
            self.registry.ping(plugin.as_str()).await
        }
        .boxed()
    }

    fn execute<'a>(&'a self, plugin: &'a PluginId, method: &'a str, body: Bytes, how: Call) -> Answer<'a, Bytes> {
        async move {
            self.loaded(plugin).await?;
            let content_type = how.content_type.map(str::to_owned);
            let options = CallOptions { deadline: how.deadline, content_type, ..CallOptions::default() };
            self.registry.execute_with(plugin.as_str(), method, body, options).await.map(|answer| answer.body)
        }
        .boxed()
    }

    fn listen<'a>(
        &'a self,
        plugin: &'a PluginId,
        callback: &'a str,
        after: Option<Position>,
    ) -> Answer<'a, Items<Notification>> {
        async move {
            self.loaded(plugin).await?;
            let feed = self.registry.observe(plugin.as_str(), callback, after).await?;
            let (owner, name) = (plugin.clone(), callback.to_owned());
            let rest = stream::unfold(feed, |mut feed| async { feed.next().await.map(|item| (item, feed)) });
            let items = rest.map(move |item| Ok(notification::of_feed(&owner, &name, item)));
            Ok(items.boxed())
        }
        .boxed()
    }

    fn events(&self, follow: bool) -> Answer<'_, Items<RegistryEvent>> {
        async move {
            self.registry.look().await;
            let events = self.registry.events_after(0).or_else(|_| Ok::<Events, Fault>(self.registry.events()))?;
            let mut ticks = interval(LOOK_EVERY);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let state = (events, ticks, self.registry.clone());
            let items = stream::unfold(state, move |(mut events, mut ticks, registry)| async move {
                loop {
                    if let Some(event) = events.try_next() {
                        return Some((Ok(event), (events, ticks, registry)));
                    }
                    if !follow {
                        return None;
                    }
                    ticks.tick().await;
                    if let Err(fault) = registry.rescan().await {
                        return Some((Err(fault), (events, ticks, registry)));
                    }
                }
            });
            Ok(items.boxed())
        }
        .boxed()
    }

    fn wait<'a>(&'a self, plugin: &'a PluginId, what: &'a Awaited, timeout: Duration) -> Answer<'a, ()> {
        async move {
            if self.registry.auto_discover() {
                return self.registry.wait_for(plugin.as_str(), awaited(what), timeout).await;
            }
            // Nobody watches the directory for one command, so it is looked at again and again.
            let until = Instant::now() + timeout;
            let mut ticks = interval(LOOK_EVERY);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let reached = async {
                while !self.reached(plugin, what).await? {
                    ticks.tick().await;
                }
                Ok(())
            };
            match timeout_at(until, reached).await {
                // In the words of the library, as a daemon would say it.
                Err(_) => return self.registry.wait_for(plugin.as_str(), awaited(what), Duration::ZERO).await,
                Ok(result) => result?,
            }
            if let Awaited::Callback(name) = what {
                self.loaded(plugin).await?;
                let left = until.saturating_duration_since(Instant::now());
                self.registry.wait_for(plugin.as_str(), Wait::Callback(name.clone()), left).await?;
            }
            Ok(())
        }
        .boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.registry.close().boxed()
    }
}

fn awaited(what: &Awaited) -> Wait {
    match what {
        Awaited::Loaded => Wait::Loaded,
        Awaited::Discovered => Wait::Discovered,
        Awaited::Gone => Wait::Gone,
        Awaited::Callback(name) => Wait::Callback(name.clone()),
    }
}

/// A variable that says yes or no, as goplugd reads it.
fn switch(name: &str, word: &str) -> Result<bool, Fault> {
    match word {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        other => {
            let text = format!("{name} is `{}`: use true or false", printable(other));
            Err(Fault::new(Code::InvalidArgument, text))
        }
    }
}

/// The absolute path of a folder that can be read.
fn readable_folder(path: &Path) -> Result<PathBuf, Fault> {
    let shown = printable(&path.display().to_string());
    let refused = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            Fault::new(Code::NotFound, format!("plugin directory `{shown}` does not exist"))
        }
        std::io::ErrorKind::PermissionDenied => {
            Fault::new(Code::Denied, format!("plugin directory `{shown}` may not be read"))
        }
        std::io::ErrorKind::NotADirectory => Fault::new(Code::InvalidArgument, format!("`{shown}` is not a directory")),
        _ => Fault::new(Code::Internal, format!("plugin directory `{shown}` cannot be read: {error}")),
    };
    std::fs::read_dir(path).map_err(refused)?;
    std::path::absolute(path).map_err(refused)
}
