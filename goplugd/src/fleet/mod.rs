//! Several plugin directories as one: a registry for each, one list, one lookup, one sequence of events.

mod journal;
mod log;
mod merge;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{join_all, select_ok};
use goplug_pconf_schema::manifest::MANIFEST_NAME;
use goplug_pconf_schema::wire::event::Position;
use goplug_registry::admin::{
    Activation, CallbackList, DeadLetter, Diff, EventKind, Installation, MethodList, Ping, Pinned, PluginDetail,
    PluginSummary, ProcessChange, RegistryEvent, Removal, Revocation, Trust, TrustEntry, TrustedKey, Unloaded,
    Upgraded, Why,
};
use goplug_registry::{
    Against, Answer, CallOptions, Code, Error, Feed, Install, LogPosition, Logs, PluginId, Registry, Sha256, Unload,
    Upgrade, Wait,
};
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use journal::Journal;
pub(crate) use log::{EventLog, Reader};
pub(crate) use merge::counts;

/// How long the registry of a directory that is no longer wanted may take to close after the drain.
const CLOSE_GRACE: Duration = Duration::from_secs(5);

/// More questions than connections can ask of one directory at once.
const QUESTIONS: u32 = 1 << 16;

/// What can be done to a plugin's process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProcessVerb {
    Start,
    Stop,
    Restart,
    Enable,
    Disable,
}

/// One plugin directory.
#[derive(Debug)]
struct Member {
    directory: PathBuf,
    registry: Registry,
    relay: AbortHandle,
    /// A question holds one permit while it is answered; whoever holds all knows that nobody is asking.
    questions: Semaphore,
}

impl Member {
    async fn ask<T, F: Future<Output = Result<T, Error>>>(
        &self,
        question: impl FnOnce(Registry) -> F,
    ) -> Result<T, Error> {
        let _asking = self.questions.acquire().await;
        question(self.registry.clone()).await
    }

    /// Waits for questions under way, at most `drain`, and closes the registry; the plugins stay as they are.
    async fn close(&self, drain: Duration) {
        if timeout(drain, self.questions.acquire_many(QUESTIONS)).await.is_err() {
            tracing::warn!(directory = %self.directory.display(), "closed in the middle of a call: the drain is over");
        }
        if timeout(CLOSE_GRACE, self.registry.close()).await.is_err() {
            tracing::warn!(directory = %self.directory.display(), "did not close in time");
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.relay.abort();
    }
}

/// All plugin directories, in the order in which they are configured: of one pair in two of them the first wins.
#[derive(Debug)]
pub(crate) struct Fleet {
    members: Mutex<Vec<Arc<Member>>>,
    log: Arc<EventLog>,
}

impl Fleet {
    /// A fleet without directories.
    pub(crate) fn new() -> Self {
        let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let start = u64::try_from(since_epoch.as_micros()).unwrap_or_default();
        Self { members: Mutex::default(), log: Arc::new(EventLog::new(start)) }
    }

    /// Makes `wanted` the directories: opens new ones, changes how the kept ones work, closes the others, leaving their
    /// plugins running and active. When one cannot be opened nothing changes. One caller at a time.
    ///
    /// # Errors
    /// Every directory that cannot be opened, with the reason.
    pub(crate) async fn apply(
        &self,
        wanted: Vec<(PathBuf, goplug_registry::Builder)>,
        drain: Duration,
    ) -> Result<(), Vec<Error>> {
        let old = self.members();
        let kept = |directory: &Path| old.iter().find(|member| member.directory == directory).cloned();
        let opened = join_all(wanted.iter().map(async |(directory, builder)| match kept(directory) {
            Some(member) => Ok(member),
            None => builder.clone().open().await.map(|registry| self.adopt(directory, registry)),
        }));
        let (members, problems) = split(opened.await);
        if !problems.is_empty() {
            let fresh = members.iter().filter(|member| kept(&member.directory).is_none());
            join_all(fresh.map(|member| member.registry.close())).await;
            return Err(problems);
        }
        for ((_, builder), member) in wanted.into_iter().zip(&members) {
            if kept(&member.directory).is_some()
                && let Err(error) = member.registry.reconfigure(builder).await
            {
                tracing::warn!(directory = %member.directory.display(), %error, "not read again");
            }
        }
        let is_wanted = |member: &Arc<Member>| members.iter().any(|new| Arc::ptr_eq(new, member));
        let unwanted: Vec<_> = old.iter().filter(|member| !is_wanted(member)).cloned().collect();
        *self.members.lock().unwrap_or_else(PoisonError::into_inner) = members;
        self.close_members(unwanted, drain).await;
        Ok(())
    }

    /// Closes every registry; the plugins stay as they are.
    pub(crate) async fn close(&self, drain: Duration) {
        let members = std::mem::take(&mut *self.members.lock().unwrap_or_else(PoisonError::into_inner));
        self.close_members(members, drain).await;
    }

    async fn close_members(&self, members: Vec<Arc<Member>>, drain: Duration) {
        let close = async |member: Arc<Member>| {
            member.relay.abort();
            let rows = member.registry.plugins();
            member.close(drain).await;
            for row in rows {
                let Some(plugin) = row.id() else { continue };
                let kind = if self.owner(&plugin).is_some() { EventKind::Changed } else { EventKind::Gone };
                let detail = Some(format!("{} is no longer a plugin directory", member.directory.display()));
                self.log.append(RegistryEvent {
                    seq: 0,
                    time: now_text(),
                    kind,
                    plugin: Some(plugin),
                    state: None,
                    detail,
                });
            }
        };
        join_all(members.into_iter().map(close)).await;
    }

    /// Makes a member of an open registry and passes on its events, from the first one.
    fn adopt(&self, directory: &Path, registry: Registry) -> Arc<Member> {
        let mut events = registry.events_after(0).unwrap_or_else(|forgotten| {
            let detail = Some(forgotten.message);
            self.log.append(RegistryEvent {
                seq: 0,
                time: now_text(),
                kind: EventKind::Lagged,
                plugin: None,
                state: None,
                detail,
            });
            registry.events()
        });
        let log = Arc::clone(&self.log);
        let relay = tokio::spawn(async move {
            let mut journal = Journal::default();
            while let Some(event) = events.next().await {
                journal.tell(&event);
                log.append(event);
            }
        });
        Arc::new(Member {
            directory: directory.to_owned(),
            registry,
            relay: relay.abort_handle(),
            questions: Semaphore::new(QUESTIONS as usize),
        })
    }

    fn members(&self) -> Vec<Arc<Member>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The first directory that has the plugin.
    fn owner(&self, plugin: &PluginId) -> Option<Arc<Member>> {
        self.members().into_iter().find(|member| member.registry.is_discovered(plugin.as_str()))
    }

    /// Asks the first directory that has `plugin`; when none is known to (auto-discover may be off), each in turn until one
    /// does not say `not_found`.
    async fn ask<T, F: Future<Output = Result<T, Error>>>(
        &self,
        plugin: &PluginId,
        question: impl Fn(Registry) -> F,
    ) -> Result<T, Error> {
        if let Some(owner) = self.owner(plugin) {
            return owner.ask(question).await;
        }
        let mut refusal = None;
        for member in self.members() {
            match member.ask(&question).await {
                Err(error) if error.code == Code::NotFound => refusal = refusal.or(Some(error)),
                answer => return answer,
            }
        }
        Err(refusal.unwrap_or_else(|| no_plugin(plugin)))
    }

    /// The directories, in order.
    pub(crate) fn directories(&self) -> Vec<PathBuf> {
        self.members().iter().map(|member| member.directory.clone()).collect()
    }

    /// The number of the newest event.
    pub(crate) fn version(&self) -> u64 {
        self.log.version()
    }

    /// Follows the events of all directories (see [`EventLog::follow`]).
    pub(crate) fn events(&self, after: Option<u64>) -> Result<Reader, Error> {
        self.log.follow(after)
    }

    /// Every plugin, or those that fit `glob`.
    pub(crate) fn list(&self, glob: Option<&str>) -> Result<Vec<PluginSummary>, Error> {
        let list = |member: Arc<Member>| {
            glob.map_or_else(|| Ok(member.registry.plugins()), |glob| member.registry.search(glob))
        };
        Ok(merge::rows(self.members().into_iter().map(list).collect::<Result<_, _>>()?))
    }

    /// Everything about one plugin, which is asked for its hello if it is not loaded; the same pair in a later directory is
    /// among its conflicts.
    pub(crate) async fn inspect(&self, plugin: &PluginId) -> Result<PluginDetail, Error> {
        let look = async |registry: Registry| {
            registry.look_at(plugin.as_str()).await?;
            registry.inspect(plugin.as_str()).await
        };
        let mut detail = self.ask(plugin, look).await?;
        let having = self.members().into_iter().filter(|member| member.registry.is_discovered(plugin.as_str()));
        for other in having.skip(1) {
            let file = other.registry.inspect(plugin.as_str()).await.ok().and_then(|detail| detail.summary.pconf);
            detail.conflicts.push(file.unwrap_or_else(|| other.directory.display().to_string()));
        }
        Ok(detail)
    }

    /// Why a plugin, or a file in one of the directories, is or is not callable.
    pub(crate) async fn why(&self, subject: &str) -> Result<Why, Error> {
        if subject.starts_with('/') {
            return self.why_file(Path::new(subject)).await;
        }
        let answers = join_all(self.members().into_iter().map(async |member| {
            let why = member.registry.why(subject).await;
            (member.directory.display().to_string(), why)
        }));
        merge::why(answers.await).ok_or_else(|| Error::new(Code::NotFound, "there is no plugin directory"))
    }

    /// A file is looked at only when it lies directly in a plugin directory, or is a manifest in one of its folders: no
    /// request makes us read any other.
    async fn why_file(&self, file: &Path) -> Result<Why, Error> {
        let members = self.members();
        let is_manifest = file.file_name().is_some_and(|name| name == MANIFEST_NAME);
        let inside = |member: &&Arc<Member>| {
            let above = |level| file.ancestors().nth(level) == Some(&*member.directory);
            file.file_name().is_some() && (above(1) || (is_manifest && (above(2) || above(3))))
        };
        let Some(member) = members.iter().find(inside) else {
            let known: Vec<_> = self.directories().iter().map(|directory| directory.display().to_string()).collect();
            let shown = goplug_pconf_schema::printable(&file.to_string_lossy());
            let text = format!("file {shown} is not at the top level of a plugin directory: {}", known.join(", "));
            return Err(Error::new(Code::NotFound, text));
        };
        let mut why = member.registry.why(&file.to_string_lossy()).await;
        let winner = why.plugin.as_ref().and_then(|plugin| self.owner(plugin));
        let earlier = members.iter().take_while(|other| !Arc::ptr_eq(other, member));
        if let Some(winner) = winner.filter(|winner| earlier.clone().any(|other| Arc::ptr_eq(other, winner))) {
            merge::shadow(&mut why, &winner.directory.display().to_string());
        }
        Ok(why)
    }

    /// Brings a plugin into the first directory.
    pub(crate) async fn install(&self, source: &Path, how: Install) -> Result<Installation, Error> {
        self.first()?.install(source, how).await
    }

    /// Takes an installed plugin out of its directory, or one version of it.
    pub(crate) async fn remove(
        &self,
        plugin: &PluginId,
        version: Option<&str>,
        dry_run: bool,
    ) -> Result<Removal, Error> {
        let remove = async |registry: Registry| match version {
            None => registry.remove(plugin.as_str(), dry_run).await,
            Some(version) => registry.remove_version(plugin.as_str(), version, dry_run).await,
        };
        self.ask(plugin, remove).await
    }

    /// Makes another version the current one.
    pub(crate) async fn upgrade(
        &self,
        plugin: &PluginId,
        source: Option<&Path>,
        how: Upgrade,
    ) -> Result<Upgraded, Error> {
        self.ask(plugin, async |registry| registry.upgrade(plugin.as_str(), source, how.clone()).await).await
    }

    /// Makes the version before the current one.
    pub(crate) async fn rollback(&self, plugin: &PluginId, dry_run: bool) -> Result<Upgraded, Error> {
        self.ask(plugin, async |registry| registry.rollback(plugin.as_str(), dry_run).await).await
    }

    /// Lets only some versions become the current one.
    pub(crate) async fn pin(&self, plugin: &PluginId, range: Option<&str>) -> Result<Pinned, Error> {
        self.ask(plugin, async |registry| registry.pin(plugin.as_str(), range).await).await
    }

    /// What another version changes.
    pub(crate) async fn diff(&self, plugin: &PluginId, against: Against) -> Result<Diff, Error> {
        self.ask(plugin, async |registry| registry.diff(plugin.as_str(), against.clone()).await).await
    }

    /// Loads a plugin.
    pub(crate) async fn load(&self, plugin: &PluginId) -> Result<Activation, Error> {
        self.ask(plugin, async |registry| registry.load(plugin.as_str()).await).await
    }

    /// Unloads a plugin.
    pub(crate) async fn unload(&self, plugin: &PluginId, how: Unload) -> Result<Unloaded, Error> {
        self.ask(plugin, async |registry| registry.unload(plugin.as_str(), how).await).await
    }

    /// Unloads and loads a plugin.
    pub(crate) async fn reload(&self, plugin: &PluginId) -> Result<Activation, Error> {
        self.ask(plugin, async |registry| registry.reload(plugin.as_str()).await).await
    }

    /// Starts, stops, restarts, enables or disables a plugin's process.
    pub(crate) async fn process(&self, plugin: &PluginId, verb: ProcessVerb) -> Result<ProcessChange, Error> {
        let change = async |registry: Registry| {
            let name = plugin.as_str();
            match verb {
                ProcessVerb::Start => registry.start_plugin(name).await,
                ProcessVerb::Stop => registry.stop_plugin(name).await,
                ProcessVerb::Restart => registry.restart_plugin(name).await,
                ProcessVerb::Enable => registry.enable(name).await,
                ProcessVerb::Disable => registry.disable(name).await,
            }
            .map(|id| registry.process(&id))
        };
        self.ask(plugin, change).await
    }

    /// What a plugin's process wrote, from behind `after`.
    pub(crate) async fn logs(
        &self,
        plugin: &PluginId,
        follow: bool,
        after: Option<LogPosition>,
    ) -> Result<Logs, Error> {
        let logs = async |registry: Registry| registry.logs(plugin.as_str(), follow).await;
        Ok(self.ask(plugin, logs).await?.after(after))
    }

    /// Every program that is pinned, of all directories.
    pub(crate) async fn trusted(&self) -> Result<Vec<TrustEntry>, Error> {
        let mut all = Vec::new();
        for member in self.members() {
            all.extend(member.registry.trusted().await?);
        }
        Ok(all)
    }

    /// The keys whose packages are taken; every directory has the same.
    pub(crate) async fn trusted_keys(&self) -> Result<Vec<TrustedKey>, Error> {
        self.first()?.trusted_keys().await
    }

    /// Takes packages of a key.
    pub(crate) async fn trust_key(&self, key: &str, comment: &str) -> Result<TrustedKey, Error> {
        self.first()?.trust_key(key, comment).await
    }

    /// Takes packages of a key no more.
    pub(crate) async fn distrust_key(&self, key: &str) -> Result<TrustedKey, Error> {
        self.first()?.distrust_key(key).await
    }

    /// The registry of the first directory.
    fn first(&self) -> Result<Registry, Error> {
        let none = || Error::new(Code::WrongState, "there is no plugin directory");
        Ok(self.members().first().ok_or_else(none)?.registry.clone())
    }

    /// What a plugin may run, and what it runs.
    pub(crate) async fn trust_of(&self, plugin: &PluginId) -> Result<Trust, Error> {
        self.ask(plugin, async |registry| registry.trust_of(plugin.as_str()).await).await
    }

    /// Pins a plugin to what it runs now.
    pub(crate) async fn approve(&self, plugin: &PluginId, expected: Option<Sha256>) -> Result<Trust, Error> {
        self.ask(plugin, async |registry| registry.approve(plugin.as_str(), expected).await).await
    }

    /// Forgets what a plugin may run.
    pub(crate) async fn revoke(&self, plugin: &PluginId) -> Result<Revocation, Error> {
        self.ask(plugin, async |registry| registry.revoke(plugin.as_str()).await).await
    }

    /// One round trip to a plugin.
    pub(crate) async fn ping(&self, plugin: &PluginId) -> Result<Ping, Error> {
        self.ask(plugin, async |registry| registry.ping(plugin.as_str()).await).await
    }

    /// The methods of a plugin. A v1 plugin that is not loaded is asked for them, which activates nothing; a v0 plugin
    /// tells them only when it is activated.
    pub(crate) async fn methods(&self, plugin: &PluginId) -> Result<MethodList, Error> {
        let look = async |registry: Registry| {
            registry.look_at(plugin.as_str()).await?;
            registry.methods(plugin.as_str())
        };
        self.ask(plugin, look).await
    }

    /// The callbacks of a plugin and who subscribed to them.
    pub(crate) async fn callbacks(&self, plugin: &PluginId) -> Result<CallbackList, Error> {
        self.ask(plugin, async |registry| registry.callbacks(plugin.as_str()).await).await
    }

    /// Calls a method. Dropping the future is the cancel.
    pub(crate) async fn execute(
        &self,
        plugin: &PluginId,
        method: &str,
        body: Bytes,
        options: CallOptions,
    ) -> Result<Answer, Error> {
        let call = async |registry: Registry| {
            registry.execute_with(plugin.as_str(), method, body.clone(), options.clone()).await
        };
        self.ask(plugin, call).await
    }

    /// Attaches the subscription `name`.
    pub(crate) async fn subscribe(&self, plugin: &PluginId, callback: &str, name: &str) -> Result<Feed, Error> {
        self.ask(plugin, async |registry| registry.subscribe(plugin.as_str(), callback, name).await).await
    }

    /// Observes a callback.
    pub(crate) async fn observe(
        &self,
        plugin: &PluginId,
        callback: &str,
        after: Option<Position>,
    ) -> Result<Feed, Error> {
        self.ask(plugin, async |registry| registry.observe(plugin.as_str(), callback, after.clone()).await).await
    }

    /// Passes an acknowledgement on.
    pub(crate) async fn ack(
        &self,
        plugin: &PluginId,
        callback: &str,
        subscription: &str,
        position: &Position,
    ) -> Result<(), Error> {
        self.ask(plugin, async |registry| registry.ack(plugin.as_str(), callback, subscription, position).await).await
    }

    /// Waits until `what` is true in one directory, or, for [`Wait::Gone`], in all of them.
    pub(crate) async fn wait_for(&self, plugin: &PluginId, what: &Wait, timeout: Duration) -> Result<(), Error> {
        let members = self.members();
        let waits =
            members.iter().map(|member| Box::pin(member.registry.wait_for(plugin.as_str(), what.clone(), timeout)));
        match what {
            Wait::Gone => join_all(waits).await.into_iter().collect(),
            Wait::Loaded | Wait::Discovered | Wait::Callback(_) if members.is_empty() => Err(no_plugin(plugin)),
            Wait::Loaded | Wait::Discovered | Wait::Callback(_) => select_ok(waits).await.map(|((), _)| ()),
        }
    }

    /// Reads every directory now and applies what is there.
    pub(crate) async fn rescan(&self) -> Result<(), Error> {
        join_all(self.members().iter().map(|member| member.registry.rescan())).await.into_iter().collect()
    }

    #[cfg(test)]
    pub(crate) fn append_for_test(&self, detail: &str) {
        let event = RegistryEvent {
            seq: 0,
            time: now_text(),
            kind: EventKind::Changed,
            plugin: None,
            state: None,
            detail: Some(detail.into()),
        };
        self.log.append(event);
    }

    /// Messages whose handlers failed every time, of all directories.
    pub(crate) fn dead_letters(&self) -> Vec<DeadLetter> {
        self.members().iter().flat_map(|member| member.registry.dead_letters()).collect()
    }
}

fn no_plugin(plugin: &PluginId) -> Error {
    Error::new(
        Code::NotFound,
        format!("no plugin `{}`: list shows those that there are", goplug_pconf_schema::printable(plugin.as_str())),
    )
}

fn split<T, E>(results: Vec<Result<T, E>>) -> (Vec<T>, Vec<E>) {
    let (mut values, mut errors) = (Vec::new(), Vec::new());
    for result in results {
        match result {
            Ok(value) => values.push(value),
            Err(error) => errors.push(error),
        }
    }
    (values, errors)
}

/// The wall clock, for people: RFC 3339 with milliseconds. No decision is made on it.
pub(crate) fn now_text() -> String {
    humantime::format_rfc3339_millis(std::time::SystemTime::now()).to_string()
}
