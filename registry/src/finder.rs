//! Finds plugins: one task per registry that decides when to look, looks, and applies what changed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use goplug_pconf_schema::admin::{EventKind, PluginSummary};
use goplug_pconf_schema::{Code, Fault, PluginId};
use goplug_transport::Connection;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::discovery::{
    Change, Confinement, Found, RefusalKind, ScanOptions, Snapshot, View, Watch, WatchSignals, diff, scan,
};
use crate::event::now_text;
use crate::options::Builder;
use crate::registry::Inner;
use crate::show;
use crate::supervisor::{FileNews, Shared};

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
    /// When each refused file was first shown.
    refused: BTreeMap<PathBuf, String>,
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
        known.view.invalid().map(|(file, refusal)| show::refused(file, refusal, since(file))).collect()
    }

    /// Why a plugin cannot be loaded although a file names it.
    pub(crate) fn refusal(&self, plugin: &str) -> Option<Fault> {
        let view = self.view();
        let names = |id: &PluginId| id.as_str() == plugin || (!plugin.contains('/') && id.name() == plugin);
        let (file, refusal) = view.invalid().find(|(_, refusal)| refusal.id.as_ref().is_some_and(names))?;
        let code = match refusal.kind {
            RefusalKind::Denied => Code::Denied,
            RefusalKind::Invalid => Code::InvalidArgument,
        };
        Some(Fault::new(code, format!("{}: {}", show::text(file), refusal.reason)))
    }

    /// The files that claim a plugin's pair without being used.
    pub(crate) fn losers(&self, id: &PluginId) -> Vec<String> {
        let view = self.view();
        view.conflicts().filter(|(pair, ..)| *pair == id).map(|(_, _, loser)| show::text(loser)).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn store(&self, view: View, watch_problem: Option<String>) {
        let mut known = self.lock();
        let mut before = std::mem::take(&mut known.refused);
        let mut since = |file: &Path| before.remove(file).unwrap_or_else(now_text);
        known.refused = view.invalid().map(|(file, _)| (file.to_owned(), since(file))).collect();
        (known.view, known.watch_problem, known.scanned) = (view, watch_problem, true);
    }
}

/// Everything that the task keeps between two looks.
struct Looker {
    registry: Weak<Inner>,
    shared: Arc<Shared>,
    finder: Arc<Finder>,
    snapshot: Option<Snapshot>,
    view: View,
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
        let due = [periodic, half_written].into_iter().flatten().min();
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
            let watch = match watch {
                _ if !wanted => None,
                None => Some(Watch::new(&scan_options.directory, &scan_options.extension)),
                Some((mut watch, signals)) => {
                    watch.rearm();
                    Some((watch, signals))
                }
            };
            let snapshot = scan(&scan_options, previous.as_ref());
            (snapshot, watch)
        };
        let Ok((snapshot, watch)) = tokio::task::spawn_blocking(work).await else { return };
        self.watch = watch;
        self.note_losses(&snapshot, options.max_plugins);
        let (view, changes) = diff(&self.view, &snapshot, std::time::Instant::now());
        self.snapshot = Some(snapshot);
        self.apply(view, changes).await;
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
        self.view = view.clone();
        self.finder.store(view, problem);
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
        let check = move || Confinement::new(&options.directory, &options.socket_dirs).check_on_disk(&socket).is_ok();
        tokio::task::spawn_blocking(check).await.unwrap_or(false)
    }
}

async fn apply_one(registry: &Inner, shared: &Shared, change: Change) {
    let record = |kind, id: Option<&PluginId>, detail: String| shared.events.record(kind, id, None, Some(detail));
    match change {
        Change::Appeared { id, found, file } => registry.appeared(id, file, found).await,
        Change::Replaced { id, found, file } => registry.news(&id, FileNews::Replaced { file, found }).await,
        Change::Changed { id, found, file } => registry.news(&id, FileNews::Changed { file, found }).await,
        Change::Rewritten { id } => registry.news(&id, FileNews::Rewritten).await,
        Change::Removed { id } => registry.news(&id, FileNews::Removed).await,
        Change::Invalid { file, refusal } => {
            record(EventKind::Invalid, refusal.id.as_ref(), format!("{}: {}", show::text(&file), refusal.reason));
        }
        Change::Settled { file } => record(EventKind::Resolved, None, show::text(&file)),
        Change::Conflict { id, winner, loser } => {
            let text = format!("{} claims the pair of {}, which is used", show::text(&loser), show::text(&winner));
            record(EventKind::Conflict, Some(&id), text);
        }
        Change::DirectoryLost { reason } => record(EventKind::DirectoryLost, None, reason),
        Change::DirectoryBack => record(EventKind::DirectoryBack, None, "the directory can be read again".into()),
    }
}

pub(crate) fn scan_options(options: &Builder) -> ScanOptions {
    ScanOptions {
        directory: options.directory.clone(),
        extension: options.extension.clone(),
        socket_dirs: options.socket_dirs.clone(),
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
