//! The registry: the map from name to plugin, and everything that can be asked of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dashmap::DashMap;
use goplug_pconf_schema::admin::{
    Activation, CallbackList, DeadLetter, EventKind, MethodList, NamePattern, Ping, PluginDetail, PluginSummary, State,
    Unloaded, Why,
};
use goplug_pconf_schema::wire::event::Position;
use goplug_pconf_schema::{Code, Fault, PluginId, Reason, printable};
use tokio::sync::{mpsc, oneshot};

use crate::call::{self, Answer, CallOptions, Exchange, Waiting};
use crate::callback::{self, DeadLetters, Feed, Notice, Subscribe, Subscription};
use crate::discovery::{Confinement, Found};
use crate::event::{EventLog, Events};
use crate::finder::{self, Finder, InstalledPlugin, Request};
use crate::install;
use crate::named;
use crate::options::{Builder, LONGEST};
use crate::plugin::Plugin;
use crate::program::{self, Programs};
use crate::started::Started;
use crate::supervisor::{Command, FileNews, Shared, Slot, spawn};
use crate::why::{Knock, knock};
use crate::{ask, show, source};

/// How long [`Registry::close`] waits for its tasks.
const CLOSE_WAIT: Duration = Duration::from_secs(2);
/// Requests that may wait for a scan.
const MAX_SCAN_REQUESTS: usize = 256;

/// Plugins of one directory. Cloning gives another handle on the same registry.
///
/// Wherever a plugin is named, `namespace/name`, `-/name` (no namespace) and a bare `name` are understood; a bare name that
/// fits several namespaces is a `conflict` whose `data` lists the candidates. The whole name is the fast one: it is looked
/// up as it is. Behind any of them `@RANGE` (`test/do@^1.2`) asks for a version: when the one that is there will not do, that
/// is `not_found`, or `wrong_state` when another one that is installed would. A handle that was got so keeps to its plugin,
/// whatever version follows.
///
/// Dropping the last handle ([`Plugin`]s included), or [`Registry::close`], ends every call, feed and subscription, and
/// leaves every plugin running and active.
#[derive(Debug, Clone)]
pub struct Registry {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    slots: DashMap<Arc<str>, Arc<Slot>>,
    pub(crate) shared: Arc<Shared>,
    /// What the directory holds besides usable plugins.
    pub(crate) finder: Arc<Finder>,
    scans: mpsc::Sender<Request>,
    pub(crate) dead_letters: Arc<DeadLetters>,
    /// The keepers of plugins that are installed.
    pub(crate) programs: Programs,
}

/// What a name leads to.
#[derive(Debug)]
pub(crate) enum Known {
    /// A process of it was found: its `.pconf` is there.
    Slot(Arc<Slot>),
    /// Only its manifest is there.
    Installed(InstalledPlugin),
}

/// How to unload.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unload {
    /// How long calls and acknowledgements may take to finish before the rest is cancelled; `None`: the registry's own.
    pub drain: Option<Duration>,
    /// Whether the process is told to leave, too.
    pub stop: bool,
}

impl Registry {
    /// Opens the registry of `directory` with every default: nothing is watched or loaded until asked.
    ///
    /// # Errors
    /// As [`Builder::open`].
    ///
    /// # Cancel safety
    /// Dropping the future closes what was opened.
    pub async fn open(directory: impl AsRef<Path>) -> Result<Self, Fault> {
        Self::builder(directory).open().await
    }

    /// What can be set before a registry is opened.
    pub fn builder(directory: impl AsRef<Path>) -> Builder {
        Builder::new(directory.as_ref())
    }

    pub(crate) async fn begin(options: Builder) -> Result<Self, Fault> {
        let auto = options.auto_discover;
        let (scans, requests) = mpsc::channel(MAX_SCAN_REQUESTS);
        let (dead_ends, dead_end_inbox) = mpsc::channel(MAX_SCAN_REQUESTS);
        let shared = Arc::new(Shared::new(options, EventLog::new(), dead_ends));
        let finder = Arc::new(Finder::default());
        let inner = Inner {
            slots: DashMap::new(),
            shared: Arc::clone(&shared),
            finder: Arc::clone(&finder),
            scans,
            dead_letters: Arc::default(),
            programs: Programs::default(),
        };
        let registry = Self { inner: Arc::new(inner) };
        let task = finder::run(Arc::downgrade(&registry.inner), shared.clone(), finder, requests, dead_end_inbox);
        shared.tasks.spawn(task);
        if auto {
            let directory = registry.directory();
            // What killed installations left behind. A registry that only looks touches nothing.
            _ = crate::tasks::on_a_thread(move || install::tidy_up(&directory)).await;
        }
        registry.adopt().await;
        if auto {
            registry.rescan().await?;
            registry.end_orphans();
        }
        Ok(registry)
    }

    /// Starts a plugin that has no file: a program that listens on `socket`, under a `goplug-host` (see [`crate::host`]).
    /// Returns when it answers on its socket and is activated. If a plugin of the same program runs on that socket, because
    /// an earlier registry started it, it is adopted instead.
    ///
    /// The socket must lie beneath the plugin directory, the runtime folder or one of [`Builder::socket_dirs`], as every
    /// plugin's.
    ///
    /// # Errors
    /// `not_found` when there is no `goplug-host`, or no such program; `denied`; `conflict` when another process has the
    /// socket; else as [`Started::plugin`].
    ///
    /// # Cancel safety
    /// Dropping the future ends a process that was not ready yet.
    pub async fn start(&self, command: impl Into<crate::Command>, socket: impl AsRef<Path>) -> Result<Started, Fault> {
        Started::start(Arc::clone(&self.inner), command.into(), socket.as_ref()).await
    }

    /// The plugin directory.
    pub fn directory(&self) -> PathBuf {
        self.inner.shared.options.load().directory.clone()
    }

    /// Whether the directory is watched and plugins are loaded as they appear.
    pub fn auto_discover(&self) -> bool {
        self.inner.shared.options.load().auto_discover
    }

    /// Why file events do not arrive, so that only the periodic scan finds changes; `None` when they do, or when nothing is
    /// watched.
    pub fn watch_problem(&self) -> Option<String> {
        self.inner.finder.watch_problem()
    }

    /// Every plugin and every file that cannot be used, by name.
    pub fn plugins(&self) -> Vec<PluginSummary> {
        let mut rows: Vec<_> = self.inner.all().iter().map(|slot| show::summary(slot)).collect();
        let mut installed: BTreeMap<_, _> =
            self.inner.installed().into_iter().map(|plugin| (plugin.id.clone(), plugin)).collect();
        for row in &mut rows {
            let Some(id) = row.id() else { continue };
            row.manifest = installed.remove(&id).map(|plugin| show::text(&plugin.file));
            self.inner.settle(&id, row);
        }
        rows.extend(installed.values().map(|plugin| {
            let mut row = show::installed(plugin);
            self.inner.settle(&plugin.id, &mut row);
            row
        }));
        rows.extend(self.inner.finder.refused());
        rows.sort_by(|a, b| (&a.namespace, &a.name, &a.pconf).cmp(&(&b.namespace, &b.name, &b.pconf)));
        rows
    }

    /// The plugins whose `namespace/name` (with `-` for none) matches the shell pattern `glob`; a pattern without `/` is
    /// matched with the name alone.
    ///
    /// # Errors
    /// `invalid_argument` for a pattern that is none.
    pub fn search(&self, glob: &str) -> Result<Vec<PluginSummary>, Fault> {
        let pattern = NamePattern::parse(glob).map_err(|why| Fault::new(Code::InvalidArgument, why))?;
        Ok(self.plugins().into_iter().filter(|plugin| pattern.fits(plugin)).collect())
    }

    /// A handle on a plugin, loaded or not, that needs no lookup for its calls.
    ///
    /// # Errors
    /// `not_found`, or `conflict` for an ambiguous name.
    pub fn get(&self, plugin: &str) -> Result<Plugin, Fault> {
        Ok(Plugin::new(self.inner.resolve(plugin)?, Arc::clone(&self.inner)))
    }

    /// Reads the directory now and applies what changed; also without auto-discover (then nothing is loaded by it).
    ///
    /// # Errors
    /// `unavailable` when the registry is closed.
    ///
    /// # Cancel safety
    /// Safe; the scan goes on.
    pub async fn rescan(&self) -> Result<(), Fault> {
        self.inner.rescan().await
    }

    /// Asks every plugin that is not loaded for its hello, without activating anything; one that says that it is active is
    /// taken as loaded. What was learnt is in [`Registry::plugins`].
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn look(&self) {
        let mut answers = Vec::new();
        for slot in self.inner.all() {
            answers.push(async move { slot.ask(Command::Look).await });
        }
        // Asked one after another, answered at the same time: every supervisor works by itself.
        let tasks: Vec<_> = answers.into_iter().map(tokio::spawn).collect();
        for task in tasks {
            _ = task.await;
        }
    }

    /// As [`Registry::look`], of one plugin. One that is installed and has no process has nobody who could be asked.
    ///
    /// # Errors
    /// `not_found`, or `conflict` for an ambiguous name.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn look_at(&self, plugin: &str) -> Result<(), Fault> {
        match self.inner.find(plugin)? {
            Known::Slot(slot) => slot.ask(Command::Look).await,
            Known::Installed(_) => Ok(()),
        }
    }

    /// Loads a plugin: connects, checks who it is, activates it; one that is installed and does not run is started first.
    /// Without auto-discover, the pair is looked for on disk.
    ///
    /// A failed load is tried again with growing pauses until [`Registry::unload`].
    ///
    /// # Errors
    /// `conflict` when it is loaded already; `not_found`, or `denied` and `invalid_argument` for a file that names it and is
    /// refused; else what went wrong.
    ///
    /// # Cancel safety
    /// Dropping the future does not stop the load.
    pub async fn load(&self, plugin: &str) -> Result<Activation, Fault> {
        let stopped = self.program(plugin).await.filter(|program| !program.is_running());
        if let Some(program) = &stopped {
            program.ask(program::Command::Start).await?;
        }
        let slot = match self.inner.resolve(plugin) {
            Ok(slot) if self.auto_discover() => slot,
            // Nothing is watched, or not yet seen: look at the disk.
            _ => {
                self.inner.rescan().await?;
                self.inner.resolve(plugin).map_err(|fault| self.inner.finder.refusal(plugin).unwrap_or(fault))?
            }
        };
        // One that this has started may be loaded before it is asked to be.
        slot.load(stopped.is_none()).await
    }

    /// Ends a plugin's activation: its calls finish, at most for the drain, and its stopper runs. A v1 process goes on
    /// listening, unless it is told to stop; a v0 process is told to stop, and that of a shared object is stopped, because nothing
    /// else frees it. It is not loaded again until asked, or until its file changes.
    ///
    /// # Errors
    /// `wrong_state` when it is not loaded; else what the plugin answered.
    ///
    /// # Cancel safety
    /// Dropping the future does not stop the unload.
    pub async fn unload(&self, plugin: &str, how: Unload) -> Result<Unloaded, Fault> {
        let slot = self.inner.resolve(plugin)?;
        let drain = how.drain.unwrap_or(self.inner.shared.options.load().drain);
        if drain > LONGEST {
            return Err(Fault::new(Code::InvalidArgument, format!("the drain is {drain:?}, the limit is a day")));
        }
        let Some(program) = self.shared_object(&slot.id) else {
            return slot.ask(|reply| Command::Unload { drain, stop: how.stop, reply }).await?;
        };
        self.keeps(&slot.id).await?;
        let unloaded = slot.ask(|reply| Command::Unload { drain, stop: false, reply }).await??;
        program.ask(program::Command::Stop).await?;
        Ok(unloaded)
    }

    /// Ends a plugin's activation and begins another, in the same process.
    ///
    /// # Errors
    /// As [`Registry::load`].
    ///
    /// # Cancel safety
    /// Dropping the future does not stop the reload.
    pub async fn reload(&self, plugin: &str) -> Result<Activation, Fault> {
        if !self.auto_discover() {
            self.inner.rescan().await?;
        }
        self.inner.resolve(plugin)?.ask(Command::Reload).await?
    }

    /// Whether there is a usable file for it: a `.pconf`, or a manifest.
    pub fn is_discovered(&self, plugin: &str) -> bool {
        self.inner.find(plugin).is_ok()
    }

    /// Whether it can be called.
    pub fn is_loaded(&self, plugin: &str) -> bool {
        self.inner.resolve(plugin).is_ok_and(|slot| slot.view().state == State::Loaded)
    }

    /// What the activator returned (of the first activation, if the plugin was found active); `None` when it is not loaded.
    pub fn activation_output(&self, plugin: &str) -> Option<Bytes> {
        Some(self.inner.resolve(plugin).ok()?.live()?.output.clone())
    }

    /// The plugin's methods.
    ///
    /// # Errors
    /// `wrong_state` while nobody told them: a v0 plugin tells them when it is loaded, a v1 plugin when it is looked at.
    pub fn methods(&self, plugin: &str) -> Result<MethodList, Fault> {
        show::methods(&*self.inner.resolve(plugin)?)
    }

    /// The plugin's callbacks and who subscribed to them. A v0 plugin tells nothing of its callbacks.
    ///
    /// # Errors
    /// `wrong_state` or `unavailable` when it is not loaded.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn callbacks(&self, plugin: &str) -> Result<CallbackList, Fault> {
        callback::list(&*self.inner.resolve(plugin)?).await
    }

    /// All that is known of a plugin.
    ///
    /// # Errors
    /// `not_found`, or `conflict` for an ambiguous name.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn inspect(&self, plugin: &str) -> Result<PluginDetail, Fault> {
        let slot = match self.inner.find(plugin)? {
            Known::Slot(slot) => slot,
            Known::Installed(plugin) => {
                let mut detail = show::detail_installed(&plugin, self.inner.finder.losers(&plugin.id));
                self.inner.settle(&plugin.id, &mut detail.summary);
                detail.process = self.process_and_keeper(&plugin.id).await;
                return Ok(source::with_origin(detail).await);
            }
        };
        let mut detail = show::detail(&slot, self.inner.finder.losers(&slot.id));
        if let Some(installed) = self.inner.finder.installed_as(&slot.id) {
            detail.summary.manifest = Some(show::text(&installed.file));
            detail.installed = Some(show::manifest_of(&installed));
            detail.process = self.process_and_keeper(&slot.id).await;
            self.inner.settle(&slot.id, &mut detail.summary);
        }
        (detail.health, detail.executable) = tokio::join!(call::health(&slot), self.inner.executable(&slot));
        Ok(source::with_origin(detail).await)
    }

    /// Calls `method` with `body` and waits for the reply, at most for the method's own deadline or [`Builder::call_deadline`].
    ///
    /// # Errors
    /// Each carries a code and whether the method ran; see `docs/errors.md`.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection; the method may still have run.
    pub async fn execute(&self, plugin: &str, method: &str, body: impl Into<Bytes>) -> Result<Bytes, Fault> {
        Ok(self.execute_with(plugin, method, body, CallOptions::default()).await?.body)
    }

    /// As [`Registry::execute`], with what the caller has to say about the call.
    ///
    /// # Example: half a second, and what became of a call that took longer
    /// ```no_run
    /// use std::time::Duration;
    ///
    /// use goplug_registry::{CallOptions, Code, Ran, Registry};
    ///
    /// # async fn example(registry: &Registry) -> Result<(), goplug_registry::Error> {
    /// let options = CallOptions { deadline: Some(Duration::from_millis(500)), ..CallOptions::default() };
    /// match registry.execute_with("Test/Do", "Do", "hello", options).await {
    ///     Ok(answer) => println!("{:?}", answer.body),
    ///     Err(fault) if fault.code == Code::DeadlineExceeded && fault.ran == Ran::No => println!("nothing happened"),
    ///     Err(fault) => return Err(fault),
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Registry::execute`].
    ///
    /// # Cancel safety
    /// As [`Registry::execute`].
    pub async fn execute_with(
        &self,
        plugin: &str,
        method: &str,
        body: impl Into<Bytes>,
        options: CallOptions,
    ) -> Result<Answer, Fault> {
        let slot = self.inner.resolve(plugin)?;
        let defaults = self.inner.shared.options.of_calls();
        Ok(call::execute(&slot, &defaults, method, body.into(), &options, Waiting::Task).await?.into())
    }

    /// Begins a call of `method` whose request is sent, and whose reply is read, piece by piece, for bodies that need not
    /// fit into memory. Every method can be called so; one that does not take its body as it comes gets it whole.
    ///
    /// It counts as one call, with one deadline for all of it. It is never repeated: what the plugin has read of the request
    /// nobody could send again.
    ///
    /// # Errors
    /// As [`Registry::execute`], as far as they are known before the plugin answers; `invalid_argument` for a plugin that
    /// speaks v0, whose bodies are whole.
    ///
    /// # Cancel safety
    /// Dropping the future cancels the call.
    pub async fn exchange(&self, plugin: &str, method: &str, options: CallOptions) -> Result<Exchange, Fault> {
        let slot = self.inner.resolve(plugin)?;
        let defaults = self.inner.shared.options.of_calls();
        call::open(&slot, &defaults, method, &options).await
    }

    /// As [`Registry::execute_with`], for a caller whose thread may block while it waits for the reply.
    pub(crate) async fn execute_on_this_thread(
        &self,
        plugin: &str,
        method: &str,
        body: Bytes,
        options: &CallOptions,
    ) -> Result<Answer, Fault> {
        let slot = self.inner.resolve(plugin)?;
        let defaults = self.inner.shared.options.of_calls();
        Ok(call::execute(&slot, &defaults, method, body, options, Waiting::Thread).await?.into())
    }

    /// Asks a plugin for an echo, within a second. Runs none of its author's code in v1.
    ///
    /// # Errors
    /// `wrong_state` or `unavailable` when it is not loaded; `deadline_exceeded`; `protocol_error` for another echo.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn ping(&self, plugin: &str) -> Result<Ping, Fault> {
        call::ping(&*self.inner.resolve(plugin)?).await
    }

    /// Why a plugin, or a file, is callable or not: the chain from the directory to the activation, its first broken link,
    /// and the command that mends it. Explains also what is not there.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn why(&self, subject: &str) -> Why {
        ask::why(&self.inner, subject).await
    }

    /// Everything that happens from now on.
    pub fn events(&self) -> Events {
        self.inner.shared.events.follow()
    }

    /// Everything that happened after the event `seq`; 0 for all that is remembered when nothing was forgotten.
    ///
    /// # Example: a view that misses nothing
    /// ```no_run
    /// use goplug_registry::Registry;
    ///
    /// # async fn example(registry: &Registry) -> Result<(), goplug_registry::Error> {
    /// // The version first: what happens in between is in the list, and told once more.
    /// let version = registry.version();
    /// println!("{} plugins", registry.plugins().len());
    /// let mut events = registry.events_after(version)?;
    /// while let Some(event) = events.next().await {
    ///     println!("{:?} {:?}", event.kind, event.plugin);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `not_found` when that is no longer remembered (4,096 events are).
    pub fn events_after(&self, seq: u64) -> Result<Events, Fault> {
        self.inner.shared.events.follow_after(seq)
    }

    /// Counts everything that happened: two equal versions are the same view.
    pub fn version(&self) -> u64 {
        self.inner.shared.events.version()
    }

    /// Runs `handler` for every notification of `callback`, one at a time and in order, until the subscription is closed or
    /// dropped. A notification is acknowledged when its handler has returned; one whose handler fails is tried again after
    /// 100 ms, 1 s and 10 s, then it goes to the [dead letters](Registry::dead_letters). Survives the plugin: a successor is
    /// subscribed to in turn.
    ///
    /// When this returns and the plugin serves, the subscription is attached: what is notified from then on arrives. (A v0
    /// plugin is asked a moment later.)
    ///
    /// # Example: a handler that fails for good
    /// ```no_run
    /// use goplug_registry::{Registry, Subscribe};
    ///
    /// # async fn example(registry: &Registry) -> Result<(), goplug_registry::Error> {
    /// let subscribe = Subscribe { name: Some("billing".into()) };
    /// let subscription = registry
    ///     .register_callback("Test/Do", "orders", subscribe, |notice| async move {
    ///         // An error is tried again three times, and then a dead letter.
    ///         std::str::from_utf8(&notice.data).map(|order| println!("{order}")).map_err(|error| error.to_string())
    ///     })
    ///     .await?;
    /// for letter in registry.dead_letters() {
    ///     eprintln!("{letter:?}");
    /// }
    /// drop(subscription);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `not_found` for a plugin, or a loaded plugin's callback, that does not exist; `invalid_argument` for a bad name;
    /// `overloaded` when the callback has 64 subscriptions.
    ///
    /// # Cancel safety
    /// Dropping the future gives the subscription up; where the plugin has attached it already, its place is held for 60 s.
    pub async fn register_callback<H, F>(
        &self,
        plugin: &str,
        callback: &str,
        how: Subscribe,
        handler: H,
    ) -> Result<Subscription, Fault>
    where
        H: FnMut(Notice) -> F + Send + 'static,
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        callback::register(&self.inner, self.inner.resolve(plugin)?, callback, how, handler).await
    }

    /// Attaches the subscription `name` and gives its notifications one by one; the caller acknowledges. Whoever attaches
    /// the same name later ends this feed.
    ///
    /// # Errors
    /// As [`Registry::register_callback`].
    ///
    /// # Cancel safety
    /// As [`Registry::register_callback`].
    pub async fn subscribe(&self, plugin: &str, callback: &str, name: &str) -> Result<Feed, Fault> {
        callback::subscribe(&self.inner, self.inner.resolve(plugin)?, callback, name).await
    }

    /// Watches a callback without a subscription: from `after`, else from now; holds nothing back, is told of gaps.
    ///
    /// # Errors
    /// As [`Registry::register_callback`].
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn observe(&self, plugin: &str, callback: &str, after: Option<Position>) -> Result<Feed, Fault> {
        callback::observe(&self.inner, self.inner.resolve(plugin)?, callback, after).await
    }

    /// Passes an acknowledgement on: everything of `callback` up to `position` was handled by `subscription`.
    ///
    /// # Errors
    /// What the plugin answers: `invalid_argument` beyond what was sent, `conflict` for another epoch, `not_found` for an
    /// unknown subscription.
    ///
    /// # Cancel safety
    /// Dropping the future does not take back what was sent.
    pub async fn ack(
        &self,
        plugin: &str,
        callback: &str,
        subscription: &str,
        position: &Position,
    ) -> Result<(), Fault> {
        callback::ack(&*self.inner.resolve(plugin)?, callback, subscription, position).await
    }

    /// The last 100 notifications whose handler failed every time.
    pub fn dead_letters(&self) -> Vec<DeadLetter> {
        self.inner.dead_letters.list()
    }

    /// Applies other options; the directory stays the same one. What they allow now begins at once: with auto-discover
    /// switched on, plugins that wait to be loaded are loaded.
    ///
    /// # Errors
    /// As [`Builder::open`], and nothing is changed then; as [`Registry::rescan`].
    ///
    /// # Cancel safety
    /// Not safe: the options may be in force, and not yet applied to plugins that wait to be loaded. Call it again.
    pub async fn reconfigure(&self, options: Builder) -> Result<(), Fault> {
        let before = self.inner.shared.options.load_full();
        let options = Builder { directory: before.directory.clone(), ..options };
        options.check()?;
        let begins = options.auto_discover && !before.auto_discover;
        self.inner.shared.options.store(options);
        self.rescan().await?;
        if begins {
            for program in self.inner.programs.all() {
                program.tell(program::Command::Awake).await;
            }
            for slot in self.inner.all().into_iter().filter(|slot| !slot.view().unloaded) {
                slot.tell(FileNews::Appeared).await;
            }
        }
        Ok(())
    }

    /// Ends the registry: calls under way end, connections close, tasks stop; plugins go on running, and active.
    ///
    /// # Cancel safety
    /// Safe; the rest ends by itself.
    pub async fn close(&self) {
        self.inner.shared.closed.send_replace(true);
        self.inner.slots.clear();
        _ = self.inner.scans.send(Request::Close).await;
        self.inner.shared.tasks.end(CLOSE_WAIT).await;
        self.inner.shared.lease.release();
        self.inner.shared.events.close();
    }
}

pub(crate) fn runs(plugin: &PluginId) -> Fault {
    Fault::new(Code::WrongState, format!("plugin `{plugin}` runs: stop it first")).with_reason(Reason::Running)
}

/// Why a plugin that is only installed cannot be called or loaded.
pub(crate) fn no_process(plugin: &InstalledPlugin) -> Fault {
    let state = show::installed(plugin).state;
    let because = plugin.last_error.as_ref().map(|fault| format!(": {fault}")).unwrap_or_default();
    let text = format!("plugin `{}` is {state}, no process of it runs{because}", plugin.id);
    let code = match state {
        State::Starting | State::Backoff => Code::Unavailable,
        State::Denied => Code::Denied,
        _ => Code::WrongState,
    };
    let reason = plugin.last_error.as_ref().and_then(|fault| fault.reason).or(state.reason());
    Fault { reason, ..Fault::new(code, text) }
}

impl Drop for Inner {
    /// As [`Registry::close`], without waiting: feeds and readers of events may be held longer than the registry.
    fn drop(&mut self) {
        self.shared.closed.send_replace(true);
        self.shared.lease.release();
        self.shared.events.close();
    }
}

impl Inner {
    /// The plugin of that name, of which a process was found.
    pub(crate) fn resolve(&self, plugin: &str) -> Result<Arc<Slot>, Fault> {
        if let Some(slot) = self.slots.get(plugin).map(|entry| Arc::clone(entry.value())) {
            return Ok(slot);
        }
        match self.find(plugin)? {
            Known::Slot(slot) => Ok(slot),
            Known::Installed(plugin) => Err(no_process(&plugin)),
        }
    }

    /// The plugin of that name, in a version that will do, whether it runs or is only installed.
    pub(crate) fn find(&self, plugin: &str) -> Result<Known, Fault> {
        match self.find_named(plugin) {
            Err(fault) if plugin.contains('@') && fault.code == Code::NotFound => named::find(self, plugin, fault),
            found => found,
        }
    }

    /// The same, what is behind an `@` being part of the name.
    pub(crate) fn find_named(&self, plugin: &str) -> Result<Known, Fault> {
        if let Some(slot) = self.slots.get(plugin).map(|entry| Arc::clone(entry.value())) {
            return Ok(Known::Slot(slot));
        }
        if plugin.contains('/') {
            let id = PluginId::parse(plugin).map_err(|error| Fault::new(Code::InvalidArgument, error.to_string()))?;
            let found = self.slots.get(id.as_str()).map(|entry| Known::Slot(Arc::clone(entry.value())));
            let found = found
                .or_else(|| self.finder.installed_as(&id).map(|plugin| Known::Installed(self.with_process(plugin))));
            return found.ok_or_else(|| self.no_such(plugin));
        }
        let mut fits: BTreeMap<PluginId, Known> = BTreeMap::new();
        let installed = self.installed().into_iter().filter(|known| known.id.name() == plugin);
        fits.extend(installed.map(|known| (known.id.clone(), Known::Installed(known))));
        let slots = self.all().into_iter().filter(|slot| slot.id.name() == plugin);
        fits.extend(slots.map(|slot| (slot.id.clone(), Known::Slot(slot))));
        match fits.len() {
            0 => Err(self.no_such(plugin)),
            1 => fits.into_values().next().ok_or_else(|| self.no_such(plugin)),
            _ => {
                let candidates: Vec<_> = fits.keys().map(|id| id.as_str().to_owned()).collect();
                let text = format!("`{}` fits several plugins: {}", printable(plugin), candidates.join(", "));
                Err(Fault::new(Code::Conflict, text).with_data(serde_json::json!({"candidates": candidates})))
            }
        }
    }

    fn no_such(&self, plugin: &str) -> Fault {
        let directory = show::text(&self.shared.options.load().directory);
        Fault::new(Code::NotFound, format!("there is no plugin `{}` in {directory}", printable(plugin)))
    }

    /// Whether somebody listens on the plugin's socket.
    pub(crate) async fn is_answered(&self, slot: &Slot) -> bool {
        let options = self.shared.options.load_full();
        let confinement = Confinement::new(&options.directory, &options.socket_folders());
        matches!(knock(&slot.view().found.socket, confinement).await, Knock::Answered { .. })
    }

    pub(crate) fn slot(&self, id: &PluginId) -> Option<Arc<Slot>> {
        self.slots.get(id.as_str()).map(|entry| Arc::clone(entry.value()))
    }

    /// A process that we started answers: as if a `.pconf` had appeared, or named another process now.
    pub(crate) async fn offered(&self, id: &PluginId, file: PathBuf, found: Arc<Found>) -> Arc<Slot> {
        if let Some(slot) = self.slot(id) {
            slot.tell(FileNews::Replaced { file, found }).await;
            return slot;
        }
        self.appeared(id.clone(), file, found).await
    }

    /// The manifest is gone, and so is the process.
    pub(crate) async fn uninstalled(&self, id: &PluginId) {
        self.programs.remove(id);
        self.news(id, FileNews::Removed).await;
    }

    /// Whether a process of the plugin was found.
    pub(crate) fn runs(&self, id: &PluginId) -> bool {
        self.slots.contains_key(id.as_str())
    }

    /// The state in which the plugin is listed.
    pub(crate) fn state_of(&self, id: &PluginId) -> Option<State> {
        match self.find(id.as_str()).ok()? {
            Known::Slot(slot) => Some(slot.view().state),
            Known::Installed(plugin) => Some(show::installed(&plugin).state),
        }
    }

    /// Every plugin, at one moment.
    pub(crate) fn all(&self) -> Vec<Arc<Slot>> {
        self.slots.iter().map(|entry| Arc::clone(entry.value())).collect()
    }

    pub(crate) fn finder(&self) -> &Finder {
        &self.finder
    }

    pub(crate) async fn rescan(&self) -> Result<(), Fault> {
        let closed = || Fault::new(Code::Unavailable, "the registry is closed");
        let (reply, answer) = oneshot::channel();
        self.scans.send(Request::Scan(reply)).await.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())
    }

    /// A plugin's file was found: a supervisor begins its work.
    pub(crate) async fn appeared(&self, id: PluginId, file: PathBuf, found: Arc<Found>) -> Arc<Slot> {
        let path = show::text(&file);
        let slot = spawn(&self.shared, id.clone(), file, found);
        // Before the event: whoever it wakes must find the plugin.
        self.slots.insert(id.to_arc(), Arc::clone(&slot));
        self.shared.events.record(EventKind::Discovered, Some(&id), Some(State::Discovered), Some(path));
        slot.tell(FileNews::Appeared).await;
        slot
    }

    /// Tells a plugin's supervisor what became of its file.
    pub(crate) async fn news(&self, id: &PluginId, news: FileNews) {
        let removed = matches!(news, FileNews::Removed);
        let slot = match removed {
            true => self.slots.remove(id.as_str()).map(|(_, slot)| slot),
            false => self.slots.get(id.as_str()).map(|entry| Arc::clone(entry.value())),
        };
        if let Some(slot) = slot {
            slot.tell(news).await;
        }
    }
}
