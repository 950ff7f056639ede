//! Plugins that the registry starts: one task keeps the process of each installed plugin, the others send it messages and read
//! what it publishes.
//!
//! In reading order: `state` (all that can happen, pure), `task` (carries it out), `launch` (how a process is started), `leave`
//! (how it is stopped, and how one follows another), `needs` (what has to run before it), `follow` (when
//! another registry does all this). Decisions, all pure: `restart` (again,
//! or never again?), `order` (what first?), `idle` (still needed?), `health` (does it still answer?).
//!
//! A keeper does not call anybody: when its process answers, it tells the supervisor of the plugin where, as a `.pconf` would.

mod aside;
mod health;
mod idle;
mod launch;
mod leave;
mod needs;
mod order;
mod restart;
mod state;
mod task;

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use goplug_pconf_schema::admin::{ProcessDetail, ProcessExit, State};
use goplug_pconf_schema::{Code, Fault, PluginId};
use tokio::sync::{mpsc, oneshot, watch};

use crate::discovery::Installed;
use crate::host::{Exit, Hosted};
use crate::lease::KeptElsewhere;
use crate::process::time_text;

pub(crate) use aside::hello_of;
pub(crate) use launch::{Instance, LABEL_VERSION, check_none_is_hidden, labelled};
pub(crate) use leave::end_orphan;
pub(crate) use task::{Keeping, keep};

/// Messages that may wait for a keeper.
const MAX_COMMANDS: usize = 64;

/// Sockets of processes that are gone which are remembered.
const MAX_PAST: usize = 8;
/// Sockets of processes that were only asked which are remembered.
const MAX_ASIDE: usize = 64;

/// The keepers of one registry.
#[derive(Debug, Default)]
pub(crate) struct Programs {
    all: Mutex<BTreeMap<PluginId, Arc<Program>>>,
    /// Processes that an earlier registry started, until their keepers take them.
    adopted: Mutex<BTreeMap<PluginId, Hosted>>,
    /// Sockets of processes that were only asked what they say of themselves.
    aside: Mutex<VecDeque<PathBuf>>,
}

/// One installed plugin, as everybody but its keeper sees it.
#[derive(Debug)]
pub(crate) struct Program {
    pub id: PluginId,
    view: watch::Sender<Arc<View>>,
    commands: mpsc::Sender<Command>,
}

/// What a keeper publishes.
#[derive(Debug, Clone)]
pub(crate) struct View {
    /// The manifest.
    pub file: PathBuf,
    /// The state of the process; [`State::Discovered`] when it runs.
    pub state: State,
    pub last_error: Option<Fault>,
    /// How its last process ended.
    pub last_exit: Option<Exit>,
    /// The process that runs, or whose output is still there.
    pub hosted: Option<Hosted>,
    /// Where a process of it serves, or is going to: its `.pconf` is the same plugin.
    pub sockets: Vec<PathBuf>,
    /// Where processes of it served that are gone: a `.pconf` that still names one says nothing.
    pub past: VecDeque<PathBuf>,
    /// Stopped because nobody called it, and not loaded again since: a call starts it.
    pub is_asleep: bool,
    /// Processes that were started since the registry was opened.
    pub starts: u64,
    /// When it is started again.
    pub retry_at: Option<Instant>,
    /// Another registry of the directory keeps it.
    pub kept_by: Option<KeptElsewhere>,
}

/// What a keeper is told.
#[derive(Debug)]
pub(crate) enum Command {
    /// The manifest says something else now.
    Changed {
        file: PathBuf,
        installed: Arc<Installed>,
    },
    /// Another version is to take the place of the process that runs; answered when it serves, or the one before goes on.
    Try {
        installed: Arc<Installed>,
        reply: TrialReply,
    },
    Removed,
    /// Answered when a process runs, or the start has failed.
    Start(Reply),
    /// Answered when nothing of the process is left.
    Stop(Reply),
    /// Answered as a start.
    Restart(Reply),
    /// Answered as a stop.
    Disable(Reply),
    /// Answered at once.
    Enable(Reply),
    /// Plugins may be started by themselves from now on.
    Awake,
    /// Answered when a process that was found is known to everybody.
    Begun(Reply),
}

type Reply = oneshot::Sender<Result<(), Fault>>;
type TrialReply = oneshot::Sender<Result<Tried, Fault>>;

/// A version that serves; by default, one that was not tried since no process runs.
#[derive(Debug, Default)]
pub(crate) struct Tried {
    /// What served before.
    pub before: Option<Arc<Installed>>,
    /// The process before, that is on its way out.
    pub old: Option<Hosted>,
}

impl Programs {
    pub(crate) fn get(&self, id: &PluginId) -> Option<Arc<Program>> {
        lock(&self.all).get(id).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Program>> {
        lock(&self.all).values().cloned().collect()
    }

    /// Whether `socket` is where a process of the plugin serves: then a `.pconf` that names it says nothing new.
    pub(crate) fn owns(&self, id: &PluginId, socket: &Path) -> bool {
        let kept = self.get(id).is_some_and(|program| {
            let view = program.view();
            view.sockets.iter().chain(&view.past).any(|own| own == socket)
        });
        // Of one that ended before there was a keeper, too.
        let ended = |hosted: &Hosted| hosted.record().exit.is_some() && hosted.record().socket == socket;
        let aside = lock(&self.aside).iter().any(|own| own == socket);
        kept || aside || lock(&self.adopted).get(id).is_some_and(ended)
    }

    /// Whether a process of the plugin runs that we started.
    pub(crate) fn runs(&self, id: &PluginId) -> bool {
        self.get(id).is_some_and(|program| !program.view().sockets.is_empty())
    }

    /// A process that is going to be asked on this socket is none of the plugin's.
    pub(crate) fn put_aside(&self, socket: &Path) {
        let mut aside = lock(&self.aside);
        aside.push_back(socket.to_owned());
        while aside.len() > MAX_ASIDE {
            aside.pop_front();
        }
    }

    pub(crate) fn put_adopted(&self, id: PluginId, hosted: Hosted) {
        lock(&self.adopted).insert(id, hosted);
    }

    /// Its process has ended and its host has not: unless another one runs.
    pub(crate) fn put_ended(&self, id: PluginId, hosted: Hosted) {
        lock(&self.adopted).entry(id).or_insert(hosted);
    }

    pub(crate) fn take_adopted(&self, id: &PluginId) -> Option<Hosted> {
        lock(&self.adopted).remove(id)
    }

    /// Processes that nobody has taken: their manifests are gone.
    pub(crate) fn take_orphans(&self) -> BTreeMap<PluginId, Hosted> {
        std::mem::take(&mut *lock(&self.adopted))
    }

    fn insert(&self, program: &Arc<Program>) {
        lock(&self.all).insert(program.id.clone(), Arc::clone(program));
    }

    pub(crate) fn remove(&self, id: &PluginId) -> Option<Arc<Program>> {
        lock(&self.all).remove(id)
    }
}

impl Program {
    pub(crate) fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.borrow())
    }

    pub(crate) fn follow(&self) -> watch::Receiver<Arc<View>> {
        self.view.subscribe()
    }

    pub(crate) fn is_running(&self) -> bool {
        self.view().state == State::Discovered
    }

    /// The process that runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        let view = self.view();
        view.hosted.as_ref().filter(|_| view.state == State::Discovered).map(|hosted| hosted.record().plugin.pid)
    }

    /// What people are shown of its process.
    pub(crate) fn detail(&self) -> ProcessDetail {
        let view = self.view();
        let runs = matches!(view.state, State::Discovered | State::Draining);
        let record = view.hosted.as_ref().filter(|_| runs).map(Hosted::record);
        let exit = |exit: &Exit| ProcessExit {
            time: time_text(exit.at_ms),
            code: exit.code,
            signal: exit.signal,
            asked: exit.asked,
            out_of_memory: exit.out_of_memory,
            stderr: exit.stderr.clone(),
        };
        ProcessDetail {
            pid: record.map(|record| record.plugin.pid),
            host_pid: record.map(|record| record.host.pid),
            since: record.map(|record| time_text(record.started_at_ms)),
            starts: view.starts,
            kept_by: view.kept_by.and_then(|kept| kept.pid),
            last_exit: view.last_exit.as_ref().map(exit),
        }
    }

    /// Sends a command and waits for what becomes of it. A keeper that has ended says that the plugin is gone.
    pub(crate) async fn ask(&self, command: impl FnOnce(Reply) -> Command) -> Result<(), Fault> {
        let (reply, answer) = oneshot::channel();
        let gone = || Fault::new(Code::NotFound, format!("plugin `{}` is gone", self.id));
        self.commands.send(command(reply)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// Tries another version beside the process that runs; nothing is tried where none does.
    ///
    /// # Errors
    /// Why it does not serve; the process before goes on then.
    pub(crate) async fn try_version(&self, installed: Arc<Installed>) -> Result<Tried, Fault> {
        let (reply, answer) = oneshot::channel();
        let gone = || Fault::new(Code::NotFound, format!("plugin `{}` is gone", self.id));
        self.commands.send(Command::Try { installed, reply }).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// Tells what became of the manifest.
    pub(crate) async fn tell(&self, command: Command) {
        // A keeper that has ended needs no news.
        _ = self.commands.send(command).await;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
