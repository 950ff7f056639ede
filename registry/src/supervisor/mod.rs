//! The life of one plugin: one task owns it, the others send it messages and read what it publishes.
//!
//! In reading order: `state` (all that can happen, pure), `task` (carries it out), `introduce` and `part` (how a process
//! is met and left), `live` (a process that serves), `backoff` (pauses, pure).

pub(crate) mod backoff;
mod introduce;
mod live;
mod part;
mod state;
mod task;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use goplug_pconf_schema::admin::{Activation, State, Unloaded};
use goplug_pconf_schema::wire::hello::Hello;
use goplug_pconf_schema::{Code, Fault, PluginId};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

pub(crate) use introduce::{Met, Mode, meet};
pub(crate) use live::{Doubt, Live, Method, Wire};
pub(crate) use state::Down;
pub(crate) use task::{Shared, spawn};

use crate::discovery::Found;
use crate::program::{self, Program};

/// Messages that may wait for a supervisor.
const MAX_COMMANDS: usize = 64;

/// How long after a broken connection a process that still runs counts as alive: a death is seen sooner.
const SECOND_LOOK: Duration = Duration::from_millis(50);

/// One plugin, as everybody but its supervisor sees it.
#[derive(Debug)]
pub(crate) struct Slot {
    pub id: PluginId,
    /// The process that serves; read by every call.
    live: ArcSwapOption<Live>,
    view: watch::Sender<Arc<View>>,
    commands: mpsc::Sender<Command>,
    /// The keeper of its process, if the registry has started one.
    program: OnceLock<Weak<Program>>,
}

/// What a supervisor publishes.
#[derive(Debug, Clone)]
pub(crate) struct View {
    pub state: State,
    /// RFC 3339.
    pub since: String,
    pub last_error: Option<Fault>,
    pub file: PathBuf,
    pub found: Arc<Found>,
    /// Who answered last.
    pub seen: Option<Arc<Seen>>,
    /// When a failed start is tried again.
    pub retry_at: Option<std::time::Instant>,
    /// Somebody asked for the unload that ended its last activation.
    pub unloaded: bool,
}

/// Who answered on the socket.
#[derive(Debug)]
pub(crate) struct Seen {
    pub wire: Wire,
    /// `None`: a v0 plugin that was not activated.
    pub hello: Option<Hello>,
    pub pid: u32,
    pub uid: u32,
}

/// What a supervisor is told.
#[derive(Debug)]
pub(crate) enum Command {
    File(FileNews),
    Load {
        /// Whether one that is loaded already is a conflict, or what was wanted.
        anew: bool,
        reply: oneshot::Sender<Result<Activation, Fault>>,
    },
    Reload(oneshot::Sender<Result<Activation, Fault>>),
    Unload {
        drain: Duration,
        stop: bool,
        reply: oneshot::Sender<Result<Unloaded, Fault>>,
    },
    Look(oneshot::Sender<()>),
    /// Of a plugin that the registry starts: there is no process.
    Down {
        down: Down,
        why: Option<Fault>,
        reply: oneshot::Sender<()>,
    },
}

/// What became of the plugin's file.
#[derive(Debug)]
pub(crate) enum FileNews {
    Appeared,
    /// It names another process.
    Replaced {
        file: PathBuf,
        found: Arc<Found>,
    },
    /// Its other keys, or its name, changed.
    Changed {
        file: PathBuf,
        found: Arc<Found>,
    },
    /// The same words were written again.
    Rewritten,
    Removed,
}

impl Slot {
    /// The process that serves.
    pub(crate) fn live(&self) -> Option<Arc<Live>> {
        self.live.load_full()
    }

    pub(crate) fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.borrow())
    }

    /// Why a call finds nobody, with the code of the state (`unavailable`: try again; `wrong_state`: load it).
    pub(crate) fn not_callable(&self) -> Fault {
        let view = self.view();
        let because = view.last_error.as_ref().map(|fault| format!(": {fault}")).unwrap_or_default();
        let state = view.state;
        let (code, hint) = match state {
            State::Starting | State::Backoff | State::Draining | State::Loaded => (Code::Unavailable, ""),
            State::Stopped if self.program.get().is_some() => (Code::WrongState, ", start it first"),
            State::Discovered | State::Stopped => (Code::WrongState, ", load it first"),
            State::Failed | State::Disabled | State::Invalid => (Code::WrongState, ""),
            State::Denied => (Code::Denied, ""),
            State::Gone => (Code::NotFound, ""),
        };
        let is_started = view.found.is_started || self.program.get().is_some();
        let reason = view.last_error.as_ref().and_then(|fault| fault.reason);
        let reason = reason.or(if is_started { state.reason() } else { None });
        Fault { reason, ..Fault::new(code, format!("plugin `{}` is {state}{hint}{because}", self.id)) }
    }

    /// Sends a command; a supervisor that has ended says that the plugin is gone.
    pub(crate) async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, Fault> {
        let (reply, answer) = oneshot::channel();
        let gone = || Fault::new(Code::NotFound, format!("plugin `{}` is gone", self.id));
        self.commands.send(command(reply)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())
    }

    /// Waits until it is loaded. `anew`: it was not; without it nothing is wrong with a plugin that the supervisor has
    /// found and loaded by itself meanwhile, as it does with one that was just started.
    pub(crate) async fn load(&self, anew: bool) -> Result<Activation, Fault> {
        self.ask(|reply| Command::Load { anew, reply }).await?
    }

    /// Its process is kept by `program` from now on.
    pub(crate) fn set_program(&self, program: &Arc<Program>) {
        // A plugin that was removed and installed again has a new slot.
        _ = self.program.set(Arc::downgrade(program));
    }

    /// Whether its process was stopped because nobody called it: a call starts it.
    pub(crate) fn is_asleep(&self) -> bool {
        self.program.get().and_then(Weak::upgrade).is_some_and(|program| program.view().is_asleep)
    }

    /// Starts the process that was stopped because nobody called it, and waits until the plugin serves, at most until
    /// `until`; false if it does not.
    pub(crate) async fn wake(&self, until: Instant) -> bool {
        let Some(program) = self.program.get().and_then(Weak::upgrade) else { return false };
        let wake = async {
            program.ask(program::Command::Start).await?;
            self.load(false).await
        };
        matches!(tokio::time::timeout_at(until, wake).await, Ok(Ok(_)))
    }

    /// Tells what became of the file.
    pub(crate) async fn tell(&self, news: FileNews) {
        // A supervisor that has ended needs no news.
        _ = self.commands.send(Command::File(news)).await;
    }

    /// Follows what the supervisor publishes.
    pub(crate) fn follow(&self) -> watch::Receiver<Arc<View>> {
        self.view.subscribe()
    }

    /// Waits until a process serves that can be asked again after `old` broke off a call: another one, or after
    /// [`SECOND_LOOK`] the same one if it turns out to live. At most until `until`; false if there is none by then or
    /// none will come by itself.
    pub(crate) async fn wait_successor(&self, old: &Arc<Live>, until: Instant) -> bool {
        let mut views = self.follow();
        let successor = async {
            loop {
                let state = views.borrow_and_update().state;
                if self.live().is_some_and(|live| !Arc::ptr_eq(&live, old)) {
                    return true;
                }
                let may_come = matches!(state, State::Loaded | State::Starting | State::Backoff | State::Draining);
                if !may_come || views.changed().await.is_err() {
                    return false;
                }
            }
        };
        let second_look = async {
            tokio::time::sleep(SECOND_LOOK).await;
            if old.is_gone() || !old.peer.is_alive() {
                std::future::pending::<()>().await;
            }
        };
        let either = async {
            tokio::select! {
                found = successor => found,
                () = second_look => true,
            }
        };
        tokio::time::timeout_at(until, either).await.unwrap_or(false)
    }

    /// Waits until a process serves; `None` when the plugin is gone for good.
    ///
    /// # Cancel safety
    /// Safe.
    pub(crate) async fn wait_live(&self) -> Option<Arc<Live>> {
        let mut views = self.follow();
        loop {
            let state = views.borrow_and_update().state;
            if let Some(live) = self.live().filter(|live| !live.is_gone()) {
                return Some(live);
            }
            if state == State::Gone || views.changed().await.is_err() {
                return None;
            }
        }
    }
}
