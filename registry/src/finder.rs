//! Finds plugins: one task per registry that decides when to look, looks, and applies what changed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use goplug_pconf_schema::admin::{EventKind, PluginSummary, State};
use goplug_pconf_schema::{Code, DesiredState, Fault, PluginId};
use goplug_transport::Connection;
use semver::{Version, VersionReq};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::desired;
use crate::discovery::{
    Change, Confinement, Found, Installed, Refusal, RefusalKind, ScanOptions, Snapshot, View, Watch, WatchSignals,
    diff, diff_manifests, scan,
};
use crate::event::{EventLog, now_text};
use crate::options::Builder;
use crate::program::{self, Command, Keeping, Program};
use crate::registry::Inner;
use crate::show;
use crate::supervisor::{FileNews, Shared};
use crate::versions;

/// File events that come together are answered by one scan.
const COALESCE: Duration = Duration::from_millis(5);
/// How long another file's process may take to answer before it counts as dead.
const PROBE: Duration = Duration::from_millis(500);

/// What the finder is asked.
#[derive(Debug)]
pub(crate) enum Request {
    /// Look now; answered when what changed is applied.
    Scan(oneshot::Sender<()>),
    Close,
}

/// What was found last, for everybody to read.
#[derive(Debug, Default)]
pub(crate) struct Finder {
    found: Mutex<Known>,
}

#[derive(Debug, Default, Clone)]
struct Known {
    view: View,
    /// The manifests.
    installed: View<Installed>,
    /// When each manifest was first seen as it is.
    installed_since: BTreeMap<PluginId, String>,
    /// When each refused file was first shown.
    refused: BTreeMap<PathBuf, String>,
    desired: Arc<DesiredState>,
    /// The versions that lie side by side.
    versions: Arc<BTreeMap<PluginId, Vec<Version>>>,
    watch_problem: Option<String>,
    scanned: bool,
}

impl Finder {
    pub(crate) fn view(&self) -> View {
        self.lock().view.clone()
    }

    /// Why file events do not arrive, if they do not.
    pub(crate) fn watch_problem(&self) -> Option<String> {
        self.lock().watch_problem.clone()
    }

    /// The rows of files that are not used.
    pub(crate) fn refused(&self) -> Vec<PluginSummary> {
        let known = self.lock().clone();
        let since = |file: &Path| known.refused.get(file).map_or("", String::as_str);
        let pconfs = known.view.invalid().map(|(file, refusal)| show::refused(file, refusal, since(file)));
        let manifests =
            known.installed.invalid().map(|(file, refusal)| show::refused_manifest(file, refusal, since(file)));
        pconfs.chain(manifests).collect()
    }

    /// Everything that is installed.
    pub(crate) fn installed(&self) -> Vec<InstalledPlugin> {
        let known = self.lock().clone();
        let plugin = |(id, file, found): (&PluginId, &Path, &Arc<Installed>)| InstalledPlugin {
            id: id.clone(),
            file: file.to_owned(),
            found: Arc::clone(found),
            since: known.installed_since.get(id).cloned().unwrap_or_default(),
            state: if known.desired.of(id).disabled { State::Disabled } else { State::Stopped },
            last_error: None,
        };
        known.installed.plugins().map(plugin).collect()
    }

    /// The installed plugin of that pair.
    pub(crate) fn installed_as(&self, id: &PluginId) -> Option<InstalledPlugin> {
        let known = self.lock();
        let (file, found) = known.installed.winner(id)?;
        Some(InstalledPlugin {
            id: id.clone(),
            file: file.to_owned(),
            found: Arc::clone(found),
            since: known.installed_since.get(id).cloned().unwrap_or_default(),
            state: if known.desired.of(id).disabled { State::Disabled } else { State::Stopped },
            last_error: None,
        })
    }

    /// The versions of a plugin that lie side by side, the lowest first.
    pub(crate) fn versions(&self, id: &PluginId) -> Vec<Version> {
        self.lock().versions.get(id).cloned().unwrap_or_default()
    }

    /// The versions that a plugin is pinned to.
    pub(crate) fn pin(&self, id: &PluginId) -> Option<VersionReq> {
        self.lock().desired.of(id).pinned
    }

    pub(crate) fn manifests(&self) -> View<Installed> {
        self.lock().installed.clone()
    }

    /// Why a plugin cannot be loaded although a file names it.
    pub(crate) fn refusal(&self, plugin: &str) -> Option<Fault> {
        let known = self.lock();
        let names = |id: &PluginId| id.as_str() == plugin || (!plugin.contains('/') && id.name() == plugin);
        let mut refused = known.view.invalid().chain(known.installed.invalid());
        let (file, refusal) = refused.find(|(_, refusal)| refusal.id.as_ref().is_some_and(names))?;
        let code = match refusal.kind {
            RefusalKind::Denied => Code::Denied,
            RefusalKind::Invalid => Code::InvalidArgument,
        };
        Some(Fault::new(code, format!("{}: {}", show::text(file), refusal.reason)))
    }

    /// The files that claim a plugin's pair without being used.
    pub(crate) fn losers(&self, id: &PluginId) -> Vec<String> {
        let view = self.view();
        let losers = view.conflicts().filter(|(pair, ..)| *pair == id).map(|(_, _, loser)| show::text(loser));
        let manifests = self.manifests();
        let more = manifests.conflicts().filter(|(pair, ..)| *pair == id).map(|(_, _, loser)| show::text(loser));
        losers.chain(more).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn store(&self, looker: &Looker, watch_problem: Option<String>) {
        let (view, installed) = (looker.view.clone(), looker.installed.clone());
        let (desired, versions) = (Arc::clone(&looker.desired), Arc::clone(&looker.versions));
        let mut known = self.lock();
        let mut since_before = std::mem::take(&mut known.installed_since);
        let mut installed_since = |id: &PluginId, found: &Arc<Installed>| match known.installed.winner(id) {
            Some((_, before)) if before == found => since_before.remove(id).unwrap_or_else(now_text),
            _ => now_text(),
        };
        let since_now = installed.plugins().map(|(id, _, found)| (id.clone(), installed_since(id, found))).collect();
        known.installed_since = since_now;
        let mut before = std::mem::take(&mut known.refused);
        let mut since = |file: &Path| before.remove(file).unwrap_or_else(now_text);
        let files = view.invalid().chain(installed.invalid()).map(|(file, _)| (file.to_owned(), since(file)));
        known.refused = files.collect();
        (known.view, known.installed, known.watch_problem, known.scanned) = (view, installed, watch_problem, true);
        (known.desired, known.versions) = (desired, versions);
    }
}

/// A plugin that has a manifest.
#[derive(Debug, Clone)]
pub(crate) struct InstalledPlugin {
    pub(crate) id: PluginId,
    /// Its manifest.
    pub(crate) file: PathBuf,
    pub(crate) found: Arc<Installed>,
    /// RFC 3339.
    pub(crate) since: String,
    /// The state of its process, if it has a keeper.
    pub(crate) state: State,
    pub(crate) last_error: Option<Fault>,
}

/// Everything that the task keeps between two looks.
struct Looker {
    registry: Weak<Inner>,
    shared: Arc<Shared>,
    finder: Arc<Finder>,
    snapshot: Option<Snapshot>,
    view: View,
    installed: View<Installed>,
    desired: Arc<DesiredState>,
    versions: Arc<BTreeMap<PluginId, Vec<Version>>>,
    watch: Option<(Watch, WatchSignals)>,
    overflows: u64,
    truncated: bool,
    /// When the directory was read last.
    looked: Instant,
}

/// Looks whenever there may be something new, until the registry is closed or dropped.
pub(crate) async fn run(
    registry: Weak<Inner>,
    shared: Arc<Shared>,
    finder: Arc<Finder>,
    mut requests: mpsc::Receiver<Request>,
    mut dead_ends: mpsc::Receiver<PluginId>,
) {
    let view = View::default();
    let mut looker = Looker {
        registry,
        shared,
        finder,
        snapshot: None,
        view,
        installed: View::default(),
        desired: Arc::default(),
        versions: Arc::default(),
        watch: None,
        overflows: 0,
        truncated: false,
        looked: Instant::now(),
    };
    loop {
        let mut answers = Vec::new();
        match looker.wait(&mut requests, &mut dead_ends).await {
            Woken::Request(None | Some(Request::Close)) => return,
            Woken::Request(Some(Request::Scan(reply))) => answers.push(reply),
            Woken::DeadEnd(id) => {
                looker.pass_over(&id).await;
                continue;
            }
            Woken::Due => {}
            Woken::Dirty => tokio::time::sleep(COALESCE).await,
        }
        while let Ok(request) = requests.try_recv() {
            match request {
                Request::Scan(reply) => answers.push(reply),
                Request::Close => return,
            }
        }
        looker.look().await;
        for reply in answers {
            _ = reply.send(());
        }
    }
}

enum Woken {
    Request(Option<Request>),
    DeadEnd(PluginId),
    Dirty,
    Due,
}

impl Looker {
    async fn wait(&self, requests: &mut mpsc::Receiver<Request>, dead_ends: &mut mpsc::Receiver<PluginId>) -> Woken {
        let options = self.shared.options.load_full();
        // Counted from the last look, not from now: what else wakes the task must not put the scan off.
        let periodic = options.auto_discover.then(|| self.looked + options.rescan_interval);
        let half_written = self.view.next_look().map(Instant::from_std);
        let half_installed = self.installed.next_look().map(Instant::from_std);
        let due = [periodic, half_written, half_installed].into_iter().flatten().min();
        tokio::select! {
            request = requests.recv() => Woken::Request(request),
            Some(id) = dead_ends.recv() => Woken::DeadEnd(id),
            () = dirty(self.watch.as_ref()) => Woken::Dirty,
            () = at(due) => Woken::Due,
        }
    }

    async fn look(&mut self) {
        self.looked = Instant::now();
        let options = self.shared.options.load_full();
        let scan_options = scan_options(&options);
        let previous = self.snapshot.take();
        let watch = self.watch.take();
        let wanted = options.auto_discover;
        // Watch before scan: what happens between the two is seen twice rather than never.
        let work = move || {
            let mut watch = match watch {
                _ if !wanted => None,
                None => Some(Watch::new(&scan_options.directory, &scan_options.extension)),
                Some((mut watch, signals)) => {
                    watch.rearm();
                    Some((watch, signals))
                }
            };
            let snapshot = scan(&scan_options, previous.as_ref());
            if let Some((watch, _)) = &mut watch {
                // A folder that is watched only now sets the dirty flag: what it holds is seen by the next scan.
                watch.folders(&snapshot.folders);
            }
            let desired = desired::load(&scan_options.directory);
            let versions = versions::all(&scan_options.directory);
            (snapshot, watch, desired, versions)
        };
        let Ok((snapshot, watch, desired, versions)) = crate::tasks::on_a_thread(work).await else { return };
        self.watch = watch;
        self.note_losses(&snapshot, options.max_plugins);
        let now = std::time::Instant::now();
        let (view, changes) = diff(&self.view, &snapshot, now);
        let (installed, news) = diff_manifests(&self.installed, &snapshot, now);
        self.snapshot = Some(snapshot);
        (self.installed, self.versions) = (installed, Arc::new(versions));
        let desired = Arc::new(desired.unwrap_or_default());
        let before = std::mem::replace(&mut self.desired, desired);
        self.apply(view, changes).await;
        self.tell_installed(&news);
        self.keep_installed(news).await;
        self.tell_desired(&before).await;
    }

    /// Manifests change nothing of what runs; whoever follows the events is told.
    fn tell_installed(&self, changes: &[Change<Installed>]) {
        let Some(registry) = self.registry.upgrade() else { return };
        let events = &self.shared.events;
        for change in changes {
            match change {
                Change::Appeared { id, found, file } => {
                    let kind = if registry.runs(id) { EventKind::Changed } else { EventKind::Discovered };
                    let text = format!("{}: version {}", show::text(file), found.manifest.version);
                    events.record(kind, Some(id), registry.state_of(id), Some(text));
                }
                Change::Replaced { id, found, file } | Change::Changed { id, found, file } => {
                    let text = format!("{}: version {}", show::text(file), found.manifest.version);
                    events.record(EventKind::Changed, Some(id), registry.state_of(id), Some(text));
                }
                Change::Removed { id } if registry.runs(id) => {
                    let text = Some("its manifest was removed".to_owned());
                    events.record(EventKind::Changed, Some(id), registry.state_of(id), text);
                }
                Change::Removed { id } => {
                    let text = Some("its manifest was removed".to_owned());
                    events.record(EventKind::Gone, Some(id), Some(State::Gone), text);
                }
                Change::Invalid { file, refusal } => tell_invalid(events, file, refusal),
                Change::Settled { file } => events.record(EventKind::Resolved, None, None, Some(show::text(file))),
                Change::Conflict { id, winner, loser } => tell_conflict(events, id, winner, loser),
                // The files of the directory tell it.
                Change::Rewritten { .. } | Change::DirectoryLost { .. } | Change::DirectoryBack => {}
            }
        }
    }

    /// Each installed plugin that can be run has a keeper of its process.
    async fn keep_installed(&self, changes: Vec<Change<Installed>>) {
        let Some(registry) = self.registry.upgrade() else { return };
        for change in changes {
            match change {
                Change::Appeared { id, found, file }
                | Change::Replaced { id, found, file }
                | Change::Changed { id, found, file } => match registry.programs.get(&id) {
                    Some(program) => program.tell(Command::Changed { file, installed: found }).await,
                    None if found.manifest.not_runnable().is_some() || *self.shared.closed.borrow() => {}
                    None => {
                        let (disabled, adopted) = (self.desired.of(&id).disabled, registry.programs.take_adopted(&id));
                        let is_found = adopted.is_some();
                        let program =
                            program::keep(&registry, Keeping { id, file, installed: found, disabled, adopted });
                        // Whoever asked for the scan sees what runs. It begins with nothing that could wait for us.
                        if is_found {
                            _ = program.ask(Command::Begun).await;
                        }
                    }
                },
                _ => {}
            }
        }
        // One that cannot be read any more says nothing: what runs goes on as it was last told.
        let is_there = |program: &Program| {
            let file = &program.view().file;
            self.installed.winner(&program.id).is_some() || self.installed.invalid().any(|(invalid, _)| invalid == file)
        };
        for program in registry.programs.all().into_iter().filter(|program| !is_there(program)) {
            program.tell(Command::Removed).await;
        }
    }

    /// Somebody else may have enabled or disabled a plugin.
    async fn tell_desired(&self, before: &Arc<DesiredState>) {
        let (after, Some(registry)) = (&self.desired, self.registry.upgrade()) else { return };
        if before == after {
            return;
        }
        for program in registry.programs.all() {
            let (was, is) = (before.of(&program.id).disabled, after.of(&program.id).disabled);
            let (reply, _) = oneshot::channel();
            match (was, is) {
                (false, true) => program.tell(Command::Disable(reply)).await,
                (true, false) => program.tell(Command::Enable(reply)).await,
                _ => {}
            }
        }
    }

    /// Events that were lost and files that are too many are told, never hidden.
    fn note_losses(&mut self, snapshot: &Snapshot, max_plugins: usize) {
        let overflows = self.watch.as_ref().map_or(0, |(_, signals)| signals.overflows());
        if overflows > self.overflows {
            let detail = Some("file events came faster than they were read: the view comes from a scan".to_owned());
            self.shared.events.record(EventKind::Overflow, None, None, detail);
        }
        self.overflows = overflows;
        if snapshot.truncated && !self.truncated {
            let detail =
                Some(format!("there are more than {max_plugins} files, the rest is ignored: raise `max_plugins`"));
            self.shared.events.record(EventKind::Overflow, None, None, detail);
        }
        self.truncated = snapshot.truncated;
    }

    async fn apply(&mut self, view: View, changes: Vec<Change>) {
        let problem = self.watch.as_ref().and_then(|(_, signals)| signals.problem());
        self.view = view;
        self.finder.store(self, problem);
        let Some(registry) = self.registry.upgrade() else { return };
        for change in changes {
            // A registry that is closed meanwhile must not be given new plugins.
            if *self.shared.closed.borrow() {
                return;
            }
            apply_one(&registry, &self.shared, change).await;
        }
    }

    /// The process of a plugin's file is dead: if another file claims the pair and its process answers, that one is used.
    async fn pass_over(&mut self, id: &PluginId) {
        let claims = self.view.claims(id);
        let current = self.view.winner(id).map(|(file, _)| file.to_owned());
        for file in claims.into_iter().filter(|file| Some(file) != current.as_ref()) {
            let Some(found) = self.view.found(&file).cloned() else { continue };
            if !self.may_connect(&found).await {
                continue;
            }
            if Connection::connect(&found.socket, Instant::now() + PROBE).await.is_ok() {
                let (view, changes) = self.view.promote(id, &file);
                self.apply(view, changes).await;
                return;
            }
        }
    }
}

impl Looker {
    /// A link on disk must not aim us at a socket outside.
    async fn may_connect(&self, found: &Found) -> bool {
        let options = self.shared.options.load_full();
        let socket = found.socket.clone();
        let check =
            move || Confinement::new(&options.directory, &options.socket_folders()).check_on_disk(&socket).is_ok();
        crate::tasks::on_a_thread(check).await.unwrap_or(false)
    }
}

async fn apply_one(registry: &Inner, shared: &Shared, change: Change) {
    let record = |kind, id: Option<&PluginId>, detail: String| shared.events.record(kind, id, None, Some(detail));
    match change {
        // The plugin's own word of a process that we started: we know.
        Change::Appeared { id, found, .. } | Change::Replaced { id, found, .. } | Change::Changed { id, found, .. }
            if registry.programs.owns(&id, &found.socket) => {}
        Change::Appeared { id, found, file }
        | Change::Replaced { id, found, file }
        | Change::Changed { id, found, file }
            if registry.programs.runs(&id) =>
        {
            let text = format!(
                "{} names the socket {}, but its process was started here",
                show::text(&file),
                show::text(&found.socket)
            );
            record(EventKind::Conflict, Some(&id), text);
        }
        Change::Removed { id } | Change::Rewritten { id } if registry.is_kept(&id) => {}
        // Its place may be there from a process that we started before.
        Change::Appeared { id, found, file } => _ = registry.offered(&id, file, found).await,
        Change::Replaced { id, found, file } => registry.news(&id, FileNews::Replaced { file, found }).await,
        Change::Changed { id, found, file } => registry.news(&id, FileNews::Changed { file, found }).await,
        Change::Rewritten { id } => registry.news(&id, FileNews::Rewritten).await,
        Change::Removed { id } => registry.news(&id, FileNews::Removed).await,
        Change::Invalid { file, refusal } => tell_invalid(&shared.events, &file, &refusal),
        Change::Settled { file } => record(EventKind::Resolved, None, show::text(&file)),
        Change::Conflict { id, winner, loser } => tell_conflict(&shared.events, &id, &winner, &loser),
        Change::DirectoryLost { reason } => record(EventKind::DirectoryLost, None, reason),
        Change::DirectoryBack => record(EventKind::DirectoryBack, None, "the directory can be read again".into()),
    }
}

fn tell_invalid(events: &EventLog, file: &Path, refusal: &Refusal) {
    let text = format!("{}: {}", show::text(file), refusal.reason);
    events.record(EventKind::Invalid, refusal.id.as_ref(), None, Some(text));
}

fn tell_conflict(events: &EventLog, id: &PluginId, winner: &Path, loser: &Path) {
    let text = format!("{} claims the pair of {}, which is used", show::text(loser), show::text(winner));
    events.record(EventKind::Conflict, Some(id), None, Some(text));
}

pub(crate) fn scan_options(options: &Builder) -> ScanOptions {
    ScanOptions {
        directory: options.directory.clone(),
        extension: options.extension.clone(),
        socket_dirs: options.socket_folders(),
        max_plugins: options.max_plugins,
    }
}

async fn dirty(watch: Option<&(Watch, WatchSignals)>) {
    match watch {
        Some((_, signals)) => signals.dirty().await,
        None => std::future::pending().await,
    }
}

async fn at(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
