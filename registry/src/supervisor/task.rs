//! Carries out what `state` decides: one task per plugin.

use std::collections::VecDeque;
use std::future::pending;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use goplug_pconf_schema::admin::{Activation, EventKind, State, Unloaded};
use goplug_pconf_schema::wire::event::to_base64;
use goplug_pconf_schema::{Code, Fault, PluginId};
use goplug_transport::Connection;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::Instant;

use super::introduce::{Met, Mode, NotMet, meet};
use super::live::{Doubt, Live, Wire};
use super::part::{Parted, part};
use super::state::{Effect, Input, Machine, Phase, Successor, step};
use super::{Command, FileNews, MAX_COMMANDS, Seen, Slot, View};
use crate::call::is_hung;
use crate::callback::Standing;
use crate::discovery::Found;
use crate::event::{EventLog, now_text};
use crate::lease::Lease;
use crate::options::{Builder, MAX_CONCURRENT_LAUNCHES, MAX_CONCURRENT_STARTS, Options, POOL_IDLE};
use crate::tasks::{Tasks, Work, at, jitter, work};
use crate::trust::Trust;

/// Callers that may wait for one start.
const MAX_WAITING: usize = 1_024;

/// What the supervisors of one registry have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    pub options: Options,
    pub events: Arc<EventLog>,
    /// Bounds how many plugins are met at once.
    starts: Semaphore,
    /// Bounds how many processes are started at once.
    pub launches: Semaphore,
    pub tasks: Tasks,
    /// The subscriptions that a new process is told of.
    pub standing: Standing,
    /// The right to start and stop processes of installed plugins.
    pub lease: Arc<Lease>,
    /// Which programs processes run, and may run.
    pub trust: Trust,
    /// True once the registry is closed.
    pub closed: watch::Sender<bool>,
    /// Plugins whose file leads to nobody: another file may claim the same pair.
    pub dead_ends: mpsc::Sender<PluginId>,
}

impl Shared {
    pub(crate) fn new(options: Builder, events: Arc<EventLog>, dead_ends: mpsc::Sender<PluginId>) -> Self {
        let starts = Semaphore::new(MAX_CONCURRENT_STARTS);
        Self {
            options: Options::new(options),
            events,
            starts,
            launches: Semaphore::new(MAX_CONCURRENT_LAUNCHES),
            tasks: Tasks::default(),
            standing: Standing::default(),
            lease: Arc::default(),
            trust: Trust::default(),
            closed: watch::Sender::new(false),
            dead_ends,
        }
    }
}

/// Starts the supervisor of a plugin whose file was found.
pub(crate) fn spawn(shared: &Arc<Shared>, id: PluginId, file: PathBuf, found: Arc<Found>) -> Arc<Slot> {
    let (commands, inbox) = mpsc::channel(MAX_COMMANDS);
    let view = View {
        state: State::Discovered,
        since: now_text(),
        last_error: None,
        file,
        found,
        seen: None,
        retry_at: None,
        unloaded: false,
    };
    let slot = Slot {
        id,
        live: ArcSwapOption::empty(),
        view: watch::Sender::new(Arc::new(view.clone())),
        commands,
        program: OnceLock::new(),
    };
    let slot = Arc::new(slot);
    // The task must not keep its own inbox open: it ends when the registry lets go of the slot.
    let weak = Arc::downgrade(&slot);
    let task = Task {
        shared: Arc::clone(shared),
        outlet: weak,
        id: slot.id.clone(),
        view,
        machine: Machine::new(),
        start: None,
        look: None,
        pulse: None,
        arrived: None,
        live: None,
        standing: None,
        drain: None,
        drain_wish: None,
        timer: None,
        loading: VecDeque::new(),
        unloading: None,
        looking: VecDeque::new(),
    };
    shared.tasks.spawn(task.run(inbox));
    slot
}

struct Task {
    shared: Arc<Shared>,
    outlet: std::sync::Weak<Slot>,
    id: PluginId,
    view: View,
    machine: Machine,
    start: Option<Work<Result<Met, NotMet>>>,
    look: Option<Work<Result<Met, NotMet>>>,
    /// Asks a process that left a call unanswered whether it still lives.
    pulse: Option<Work<bool>>,
    /// A process that was met and may serve.
    arrived: Option<(Arc<Live>, Connection)>,
    live: Option<Arc<Live>>,
    /// Stands as long as the process serves; its end is the process's end.
    standing: Option<(Connection, PathBuf)>,
    drain: Option<Work<Result<Parted, Fault>>>,
    drain_wish: Option<(Duration, bool)>,
    timer: Option<Instant>,
    loading: VecDeque<oneshot::Sender<Result<Activation, Fault>>>,
    unloading: Option<oneshot::Sender<Result<Unloaded, Fault>>>,
    looking: VecDeque<oneshot::Sender<()>>,
}

/// What woke the task.
enum Woken {
    Command(Option<Command>),
    Started(Result<Met, NotMet>),
    Looked(Result<Met, NotMet>),
    Drained(Result<Parted, Fault>),
    Lost,
    Doubt(Doubt),
    /// Whether the process hangs.
    Pulse(bool),
    Timer,
}

impl Task {
    async fn run(mut self, mut inbox: mpsc::Receiver<Command>) {
        let mut closed = self.shared.closed.subscribe();
        loop {
            let woken = tokio::select! {
                biased;
                // The registry is closed or gone, though a feed may still hold the slot.
                _ = closed.wait_for(|closed| *closed) => break,
                woken = self.wait(&mut inbox) => woken,
            };
            match woken {
                Woken::Command(None) => break,
                Woken::Command(Some(command)) => self.obey(command),
                Woken::Started(met) => self.started(met),
                Woken::Looked(met) => self.looked(met),
                Woken::Drained(parted) => self.drained(parted),
                Woken::Lost | Woken::Doubt(Doubt::Lost) => self.lost(),
                // A method may answer `wrong_state` for reasons of its own: the process is asked before it is believed.
                Woken::Doubt(Doubt::Inactive) => {
                    if self.look.is_none() {
                        self.look = Some(self.meeting(Mode::Look));
                    }
                }
                Woken::Doubt(Doubt::Silent) => self.feel_the_pulse(),
                Woken::Doubt(Doubt::None) => {}
                Woken::Pulse(true) => self.hung(),
                Woken::Pulse(false) => self.pulse = None,
                Woken::Timer => {
                    self.timer = None;
                    self.feed(Input::Timer);
                }
            }
            if self.machine.phase == Phase::Gone {
                break;
            }
        }
        self.end();
        // A command may be on its way in: dropped here, its reply is known to fail. Left in the channel, which the slot
        // keeps open, whoever asked would wait for ever.
        inbox.close();
        while inbox.recv().await.is_some() {}
        if self.machine.phase == Phase::Gone {
            let why = Some("its file was removed".to_owned());
            self.shared.events.record(EventKind::Gone, Some(&self.id), Some(State::Gone), why);
        }
    }

    /// The process goes on running, and active; only our connections to it end.
    fn end(&mut self) {
        self.store_live(None);
        if let Some(live) = self.live.take() {
            live.set_gone();
        }
        self.standing = None;
    }

    async fn wait(&mut self, inbox: &mut mpsc::Receiver<Command>) -> Woken {
        let live = self.live.as_deref();
        let standing = self.standing.as_ref().map(|(connection, _)| connection);
        tokio::select! {
            biased;
            met = work(&mut self.start) => Woken::Started(met),
            parted = work(&mut self.drain) => Woken::Drained(parted),
            () = end_of(live, standing) => Woken::Lost,
            doubt = doubt_of(live) => Woken::Doubt(doubt),
            hangs = work(&mut self.pulse) => Woken::Pulse(hangs),
            command = inbox.recv() => Woken::Command(command),
            met = work(&mut self.look) => Woken::Looked(met),
            () = at(self.timer) => Woken::Timer,
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::File(news) => self.file_news(news),
            Command::Load { anew, reply } => self.load(anew, reply),
            Command::Reload(reply) => self.reload(reply),
            Command::Unload { drain, stop, reply } => self.unload(drain, stop, reply),
            Command::Look(reply) => self.begin_look(reply),
            Command::Down { down, why, reply } => {
                self.view.last_error = why;
                self.feed(Input::Down(down));
                _ = reply.send(());
            }
        }
    }

    fn file_news(&mut self, news: FileNews) {
        let input = match news {
            FileNews::Appeared => Input::Found { auto: self.auto() },
            FileNews::Replaced { file, found } => {
                (self.view.file, self.view.found) = (file, found);
                self.view.unloaded = false;
                Input::Replaced { auto: self.auto() }
            }
            FileNews::Changed { file, found } => {
                (self.view.file, self.view.found) = (file, found);
                // Before the event: whoever it wakes must find the change.
                self.publish();
                self.shared.events.record(EventKind::Changed, Some(&self.id), Some(self.machine.state()), None);
                // It is the same process: what somebody unloaded stays so.
                Input::Found { auto: self.auto() && !self.view.unloaded }
            }
            // A v0 plugin that was started again writes the same words: the pause has no reason any more.
            FileNews::Rewritten => match self.machine.phase {
                Phase::Starting | Phase::Loaded(_) | Phase::Draining { .. } => return,
                _ => Input::Replaced { auto: self.auto() },
            },
            FileNews::Removed => Input::Removed,
        };
        self.feed(input);
        // One that waits to be asked for is looked at once, so that lists can say what it is; nothing is activated by that.
        let watched = self.shared.options.load().auto_discover;
        if watched && self.machine.phase == Phase::Discovered && self.look.is_none() {
            self.look = Some(self.meeting(Mode::Look));
        }
    }

    fn auto(&self) -> bool {
        self.shared.options.load().auto_discover && !self.view.found.pconf.lazy_load
    }

    fn load(&mut self, anew: bool, reply: oneshot::Sender<Result<Activation, Fault>>) {
        if let (Some(live), Phase::Loaded(_), false) = (&self.live, self.machine.phase, anew) {
            _ = reply.send(Ok(self.activation(live)));
            return;
        }
        let refusal = match self.machine.phase {
            Phase::Loaded(_) => Some(Fault::new(Code::Conflict, format!("plugin `{}` is loaded already", self.id))),
            Phase::Draining { .. } => Some(Fault::new(Code::Unavailable, format!("plugin `{}` is draining", self.id))),
            Phase::Down(_) => Some(self.no_process()),
            _ if self.loading.len() == MAX_WAITING => {
                let text = format!("{MAX_WAITING} callers wait for plugin `{}` already", self.id);
                Some(Fault::new(Code::Overloaded, text))
            }
            _ => None,
        };
        if let Some(fault) = refusal {
            _ = reply.send(Err(fault));
            return;
        }
        self.view.unloaded = false;
        self.loading.push_back(reply);
        self.feed(Input::Load);
    }

    fn no_process(&self) -> Fault {
        let because = self.view.last_error.as_ref().map(|fault| format!(": {fault}")).unwrap_or_default();
        let text = format!("plugin `{}` is {}, no process of it runs{because}", self.id, self.machine.state());
        let reason = self.view.last_error.as_ref().and_then(|fault| fault.reason).or(self.machine.state().reason());
        Fault { reason, ..Fault::new(Code::WrongState, text) }
    }

    fn reload(&mut self, reply: oneshot::Sender<Result<Activation, Fault>>) {
        if let Phase::Down(_) = self.machine.phase {
            _ = reply.send(Err(self.no_process()));
            return;
        }
        if self.loading.len() == MAX_WAITING || matches!(self.machine.phase, Phase::Draining { .. } | Phase::Starting) {
            let text = format!("plugin `{}` is {}", self.id, self.machine.state());
            _ = reply.send(Err(Fault::new(Code::Unavailable, text)));
            return;
        }
        self.view.unloaded = false;
        self.drain_wish = Some((self.shared.options.load().drain, false));
        self.loading.push_back(reply);
        self.feed(Input::Reload);
    }

    fn unload(&mut self, drain: Duration, stop: bool, reply: oneshot::Sender<Result<Unloaded, Fault>>) {
        let state = self.machine.state();
        let refusal = match self.machine.phase {
            Phase::Loaded(_) | Phase::Backoff { .. } | Phase::Failed | Phase::Denied => None,
            Phase::Discovered | Phase::Stopped | Phase::Down(_) | Phase::Gone => Some(Code::WrongState),
            Phase::Starting | Phase::Draining { .. } => Some(Code::Unavailable),
        };
        if let Some(code) = refusal {
            _ = reply.send(Err(Fault::new(code, format!("plugin `{}` is {state}, not loaded", self.id))));
            return;
        }
        self.view.unloaded = true;
        self.drain_wish = Some((drain, stop));
        self.unloading = Some(reply);
        self.feed(Input::Unload);
        if !matches!(self.machine.phase, Phase::Draining { .. }) {
            self.answer_unload(Ok(Parted::default()));
        }
    }

    fn begin_look(&mut self, reply: oneshot::Sender<()>) {
        if self.live.is_some() || self.start.is_some() || self.looking.len() == MAX_WAITING {
            _ = reply.send(());
            return;
        }
        self.looking.push_back(reply);
        if self.look.is_none() {
            self.look = Some(self.meeting(Mode::Look));
        }
    }

    fn meeting(&self, mode: Mode) -> Work<Result<Met, NotMet>> {
        let (shared, found) = (Arc::clone(&self.shared), Arc::clone(&self.view.found));
        Box::pin(async move {
            // The semaphore is never closed; without a permit the start would only be less polite.
            let _permit = shared.starts.acquire().await.ok();
            let options = shared.options.load_full();
            meet(&shared, &found, &options, mode).await
        })
    }

    fn started(&mut self, met: Result<Met, NotMet>) {
        self.start = None;
        match met {
            Ok(Met::Active(live, connection)) => {
                // A look that began before may say that it was not active, which it is now.
                self.look = None;
                self.arrived = Some((Arc::new(*live), *connection));
                self.feed(Input::Up);
                for reply in self.looking.drain(..) {
                    _ = reply.send(());
                }
            }
            Ok(Met::Seen { .. }) => self.feed(Input::Timer),
            Err(not_met) => {
                if not_met.dead {
                    // If nobody takes note now, the next failure says it again.
                    _ = self.shared.dead_ends.try_send(self.id.clone());
                }
                self.view.last_error = Some(not_met.fault);
                self.feed(Input::NotUp(not_met.verdict));
            }
        }
    }

    fn looked(&mut self, met: Result<Met, NotMet>) {
        self.look = None;
        match met {
            Ok(Met::Active(live, connection)) => {
                self.arrived = Some((Arc::new(*live), *connection));
                self.feed(Input::Adopted);
            }
            Ok(Met::Seen { wire, hello, pid, uid }) => {
                self.view.seen = Some(Arc::new(Seen { wire, hello: hello.map(|hello| *hello), pid, uid }));
                // Of a start that failed the reason stays, until another start ends otherwise.
                if matches!(self.machine.phase, Phase::Discovered | Phase::Stopped) {
                    self.view.last_error = None;
                }
                if self.machine.phase == Phase::Loaded(Successor::None) {
                    let text = "it was deactivated by somebody else";
                    self.view.last_error = Some(Fault::new(Code::WrongState, text));
                    self.feed(Input::Inactive);
                }
            }
            // A look that fails says nothing about a process that serves, nor why a start failed.
            Err(not_met) => {
                if matches!(self.machine.phase, Phase::Discovered | Phase::Stopped) {
                    self.view.last_error = Some(not_met.fault);
                }
            }
        }
        self.publish();
        for reply in self.looking.drain(..) {
            _ = reply.send(());
        }
    }

    fn feel_the_pulse(&mut self) {
        if let (Some(live), None) = (&self.live, &self.pulse) {
            let live = Arc::clone(live);
            self.pulse = Some(Box::pin(async move { is_hung(&live).await }));
        }
    }

    fn hung(&mut self) {
        self.pulse = None;
        if let Some(live) = &self.live {
            let text = format!("the process (pid {}) hangs: it answers no ping", live.peer.pid());
            self.view.last_error = Some(Fault::new(Code::PluginGone, text));
        }
        self.feed(Input::Lost);
    }

    fn lost(&mut self) {
        if let Some(live) = &self.live {
            let what = if live.peer.is_alive() { "closed its connection" } else { "died" };
            let text = format!("the process (pid {}) {what}", live.peer.pid());
            self.view.last_error = Some(Fault::new(Code::PluginGone, text));
        }
        self.feed(Input::Lost);
    }

    fn drained(&mut self, parted: Result<Parted, Fault>) {
        self.drain = None;
        let stopped = parted.as_ref().is_ok_and(|parted| parted.stopped);
        if let Err(fault) = &parted {
            self.view.last_error = Some(fault.clone());
            // Whoever asked for a reload hears that the activation before did not end as it should; the next one begins
            // all the same.
            self.refuse_loads(fault);
        }
        self.feed(Input::Drained { stopped });
        self.answer_unload(parted);
    }

    fn answer_unload(&mut self, parted: Result<Parted, Fault>) {
        let Some(reply) = self.unloading.take() else { return };
        let unloaded = parted.map(|parted| Unloaded {
            plugin: self.id.clone(),
            cancelled: parted.cancelled,
            unacknowledged: parted.unacknowledged,
            output_base64: to_base64(&parted.output),
        });
        _ = reply.send(unloaded);
    }

    /// One step of the machine, and everything that follows from it.
    fn feed(&mut self, input: Input) {
        let before = self.machine;
        let (machine, effects) = step(before, input, std::time::Instant::now(), jitter());
        self.machine = machine;
        for effect in effects {
            self.carry_out(effect);
        }
        self.arrived = None;
        self.view.retry_at = match machine.phase {
            Phase::Backoff { until } | Phase::Loaded(Successor::Waiting { until }) => Some(until),
            _ => None,
        };
        self.publish();
        if machine.phase != Phase::Starting && !matches!(machine.phase, Phase::Draining { reload: true, .. }) {
            self.answer_loads();
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Start => {
                self.timer = None;
                self.start = Some(self.meeting(Mode::Activate));
            }
            Effect::AbandonStart => self.start = None,
            Effect::Serve => self.serve(),
            Effect::Drop => {
                self.standing = None;
                if let Some(live) = self.live.take() {
                    self.store_live(None);
                    live.set_gone();
                }
            }
            Effect::Drain => {
                let (Some(live), Some((connection, _))) = (self.live.clone(), self.standing.take()) else { return };
                let (drain, stop) = self.drain_wish.take().unwrap_or((self.shared.options.load().drain, false));
                live.stop_accepting();
                self.drain = Some(Box::pin(async move { part(&live, connection, drain, stop).await }));
            }
            Effect::Arm(at) => self.timer = Some(Instant::from_std(at)),
        }
    }

    fn serve(&mut self) {
        let Some((live, connection)) = self.arrived.take() else { return };
        let (pid, uid) = (live.peer.pid(), live.peer.uid());
        self.view.seen = Some(Arc::new(Seen { wire: live.wire, hello: Some(live.hello.clone()), pid, uid }));
        self.view.last_error = None;
        // Of whoever served before.
        self.pulse = None;
        let before = self.live.replace(Arc::clone(&live));
        let standing = self.standing.replace((connection, self.view.file.clone()));
        self.store_live(Some(Arc::clone(&live)));
        self.shared.tasks.spawn(keep_pool_small(Arc::clone(&live)));
        let (Some(old), Some((connection, file))) = (before, standing) else { return };
        let detail = Some(format!("pid {} follows pid {}", pid, old.peer.pid()));
        self.shared.events.record(EventKind::Replaced, Some(&self.id), Some(State::Loaded), detail);
        // Only a predecessor that its own file names no more is told to stop; one whose file merely lost against
        // another file goes on running, and so does a process that is only reached by another way now.
        let stop = file == self.view.file && !old.is_same_process(&live);
        let (drain, mut closed) = (self.shared.options.load().drain, self.shared.closed.subscribe());
        self.shared.tasks.spawn(async move {
            tokio::select! {
                () = retire(Arc::clone(&old), connection, drain, stop) => {}
                _ = closed.wait_for(|closed| *closed) => {}
            }
            old.set_gone();
        });
    }

    fn store_live(&self, live: Option<Arc<Live>>) {
        if let Some(slot) = self.outlet.upgrade() {
            slot.live.store(live);
        }
    }

    fn activation(&self, live: &Live) -> Activation {
        Activation { plugin: self.id.clone(), output_base64: to_base64(&live.output) }
    }

    fn answer_loads(&mut self) {
        if self.loading.is_empty() {
            return;
        }
        let fault = match (&self.live, self.machine.phase) {
            (Some(live), Phase::Loaded(_)) => {
                let activation = self.activation(live);
                for reply in self.loading.drain(..) {
                    _ = reply.send(Ok(activation.clone()));
                }
                return;
            }
            (_, Phase::Gone | Phase::Draining { file_gone: true, .. }) => {
                Fault::new(Code::NotFound, "its file was removed")
            }
            _ => self
                .view
                .last_error
                .clone()
                .unwrap_or_else(|| Fault::new(Code::Unavailable, format!("it is {}", self.machine.state()))),
        };
        self.refuse_loads(&fault);
    }

    fn refuse_loads(&mut self, fault: &Fault) {
        for reply in self.loading.drain(..) {
            let message = format!("plugin `{}`: {fault}", self.id);
            _ = reply.send(Err(Fault { message, ..fault.clone() }));
        }
    }

    /// Shows the machine to everybody else; an event tells of each new state.
    fn publish(&mut self) {
        let state = self.machine.state();
        let news = state != self.view.state;
        if news {
            self.view.state = state;
            self.view.since = now_text();
        }
        if let Some(slot) = self.outlet.upgrade() {
            slot.view.send_replace(Arc::new(self.view.clone()));
        }
        if news && state != State::Gone {
            let why = self.view.last_error.as_ref().map(ToString::to_string);
            self.shared.events.record(EventKind::State, Some(&self.id), Some(state), why);
        }
    }
}

/// A predecessor's end: its calls finish, then it is told to stop, or merely left.
async fn retire(old: Arc<Live>, connection: Connection, drain: Duration, stop: bool) {
    old.stop_accepting();
    if stop {
        if let Err(fault) = part(&old, connection, drain, true).await {
            tracing::warn!(plugin = %old.id, %fault, "the predecessor could not be stopped");
        }
    } else {
        super::part::wait_for_calls(&old, drain).await;
    }
}

/// Closes connections that nobody used for a while.
async fn keep_pool_small(live: Arc<Live>) {
    let sweep = async {
        loop {
            live.pool.sweep.notified().await;
            loop {
                // Looked at twice as often: what was used is closed within one and a half times that.
                tokio::time::sleep(POOL_IDLE / 2).await;
                if !live.pool.sweep_older_than(POOL_IDLE) {
                    break;
                }
            }
        }
    };
    tokio::select! {
        () = sweep => {}
        () = live.wait_gone() => {}
    }
}

/// The end of the process, or of its standing connection.
async fn end_of(live: Option<&Live>, standing: Option<&Connection>) {
    match (live, standing) {
        // Its server closes a connection on which nothing is asked.
        (Some(live), _) if live.wire == Wire::Tilotech => live.peer.exited().await,
        (Some(live), Some(standing)) => tokio::select! {
            () = live.peer.exited() => {}
            () = standing.disturbed() => {}
        },
        _ => pending().await,
    }
}

async fn doubt_of(live: Option<&Live>) -> Doubt {
    match live {
        Some(live) => {
            live.doubt.notified().await;
            live.take_doubt()
        }
        None => pending().await,
    }
}
