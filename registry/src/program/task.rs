//! Carries out what `state` decides: one task per installed plugin. `trial`: another version is tried.

mod trial;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use goplug_pconf_schema::admin::{EventKind, State};
use goplug_pconf_schema::{Code, Fault, PluginId, Reason};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::health::{Act, Pulse};
use super::idle::{self, Use};
use super::launch::{Instance, Process, last_words, launch, process};
use super::leave::{end, part, retire, taken_over};
use super::restart::{self, Starts, Verdict};
use super::state::{After, Effect, Input, Machine, Phase, Then, step};
use super::{Command, MAX_COMMANDS, MAX_PAST, Program, Reply, View, needs};
use crate::call;
use crate::discovery::Installed;
use crate::host::{Exit, Hosted};
use crate::registry::Inner;
use crate::started::forget;
use crate::supervisor::{self, Down, Shared, Slot, Wire};
use crate::tasks::{Work, at, jitter, work};

/// Callers that may wait for one start or stop.
const MAX_WAITING: usize = 1_024;
/// When a follower looks for the process that takes the place of one that ended.
const FOLLOW_SOON: Duration = Duration::from_millis(200);
/// How often it is looked whether a process that may be stopped when idle is idle.
const IDLE_LOOK: Duration = Duration::from_secs(1);

/// What a keeper begins with.
pub(crate) struct Keeping {
    pub id: PluginId,
    pub file: PathBuf,
    pub installed: Arc<Installed>,
    pub disabled: bool,
    /// A process that an earlier registry started and that runs.
    pub adopted: Option<Hosted>,
}

/// Starts the keeper of an installed plugin.
pub(crate) fn keep(registry: &Arc<Inner>, keeping: Keeping) -> Arc<Program> {
    let (commands, inbox) = mpsc::channel(MAX_COMMANDS);
    let machine = Machine::new(keeping.disabled);
    let view = View {
        file: keeping.file.clone(),
        state: machine.state(),
        last_error: None,
        last_exit: None,
        hosted: None,
        sockets: Vec::new(),
        past: VecDeque::new(),
        is_asleep: false,
        starts: 0,
        retry_at: None,
        kept_by: None,
    };
    let program =
        Arc::new(Program { id: keeping.id.clone(), view: watch::Sender::new(Arc::new(view.clone())), commands });
    registry.programs.insert(&program);
    let task = Task {
        registry: Arc::downgrade(registry),
        shared: Arc::clone(&registry.shared),
        outlet: Arc::downgrade(&program),
        id: keeping.id,
        file: keeping.file,
        installed: keeping.installed,
        view,
        machine,
        follows: true,
        starts: Starts::default(),
        launching: None,
        arrived: None,
        process: None,
        exit: None,
        parting: None,
        handover: None,
        old: None,
        starting_socket: None,
        is_condemned: false,
        pulse: None,
        ping: None,
        used: (0, Instant::now()),
        tick: None,
        timer: None,
        waiting: Vec::new(),
        trial: None,
    };
    registry.shared.tasks.spawn(task.run(inbox, keeping.adopted));
    program
}

struct Task {
    registry: Weak<Inner>,
    shared: Arc<Shared>,
    outlet: Weak<Program>,
    id: PluginId,
    file: PathBuf,
    installed: Arc<Installed>,
    view: View,
    machine: Machine,
    /// Another registry of the directory keeps the process: it is found and called here, and neither started nor stopped.
    follows: bool,
    starts: Starts,
    launching: Option<Work<Result<Process, Fault>>>,
    /// A process that answers and that the supervisor does not know yet.
    arrived: Option<Process>,
    /// The process that serves.
    process: Option<Process>,
    /// Its end.
    exit: Option<Work<Option<Exit>>>,
    parting: Option<Work<Result<Option<Exit>, Fault>>>,
    /// Whether the supervisor takes the new process; until then the old one is kept.
    handover: Option<Work<Result<(), Fault>>>,
    old: Option<Process>,
    starting_socket: Option<PathBuf>,
    /// It hung, and is being killed for it.
    is_condemned: bool,
    pulse: Option<Pulse>,
    ping: Option<Work<bool>>,
    /// Calls that had ended when it was last looked, and when there was one more.
    used: (u64, Instant),
    tick: Option<Instant>,
    timer: Option<Instant>,
    waiting: Vec<(Goal, Reply)>,
    /// Another version that is being tried.
    trial: Option<trial::Trial>,
}

/// What somebody waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Goal {
    Running,
    Down,
}

#[path = "follow.rs"]
mod follow;

/// What woke the task.
enum Woken {
    Command(Option<Command>),
    Launched(Result<Process, Fault>),
    Ended(Option<Exit>),
    Parted(Result<Option<Exit>, Fault>),
    HandedOver(Result<(), Fault>),
    Pinged(bool),
    Tick,
    Timer,
}

impl Task {
    async fn run(mut self, mut inbox: mpsc::Receiver<Command>, adopted: Option<Hosted>) {
        let mut closed = self.shared.closed.subscribe();
        self.begin(adopted).await;
        loop {
            let woken = tokio::select! {
                biased;
                // Processes outlive the registry.
                _ = closed.wait_for(|closed| *closed) => break,
                woken = self.wait(&mut inbox) => woken,
            };
            match woken {
                Woken::Command(None) => break,
                Woken::Command(Some(command)) => self.obey(command).await,
                Woken::Launched(launched) => self.launched(launched).await,
                Woken::Ended(exit) => self.ended(exit).await,
                Woken::Parted(parted) => self.parted(parted).await,
                Woken::HandedOver(taken) => self.handed_over(taken).await,
                Woken::Pinged(answered) => self.pinged(answered),
                Woken::Tick => self.look_after().await,
                Woken::Timer if self.follows => self.look_for_another().await,
                Woken::Timer => {
                    self.timer = None;
                    self.feed(Input::Timer).await;
                }
            }
            self.settle_trial();
            if self.machine.phase == Phase::Gone {
                break;
            }
        }
        // Only a registry that is closed lets go of a process that it is starting: nobody would find out what became of it.
        inbox.close();
        while inbox.recv().await.is_some() {}
    }

    async fn begin(&mut self, adopted: Option<Hosted>) {
        if self.shared.options.load().auto_discover {
            _ = self.take_lease().await;
        }
        if self.follows {
            return self.follow(adopted).await;
        }
        match adopted {
            Some(hosted) if hosted.record().exit.is_some() => {
                self.view.last_exit.clone_from(&hosted.record().exit);
                self.view.past.push_back(hosted.record().socket.clone());
                self.view.hosted = Some(hosted);
                self.feed(Input::Installed { auto: self.auto() }).await;
            }
            Some(hosted) if self.machine.phase == Phase::Disabled => {
                // Whoever asks for a stop meanwhile waits for this one.
                self.process = Some(process(hosted, Arc::clone(&self.installed)));
                self.machine.phase = Phase::Stopping(Then::Disabled);
                self.part();
                self.publish();
            }
            Some(hosted) => {
                let text = format!("pid {}, started before, goes on", hosted.record().plugin.pid);
                self.shared.events.record(EventKind::Changed, Some(&self.id), Some(State::Discovered), Some(text));
                let is_current = hosted.record().labels.get(super::LABEL_VERSION).map(String::as_str)
                    == Some(self.installed.manifest.version.to_string().as_str());
                self.arrived = Some(process(hosted, Arc::clone(&self.installed)));
                self.feed(Input::Adopted).await;
                if !is_current {
                    self.feed(Input::Changed).await;
                }
            }
            None => self.feed(Input::Installed { auto: self.auto() }).await,
        }
    }

    /// Whether it is started by itself: not while a process of it runs that started itself.
    fn auto(&self) -> bool {
        let manifest = &self.installed.manifest;
        let runs = self.slot().is_some_and(|slot| slot.live().is_some());
        self.shared.options.load().auto_discover && !manifest.lazy_load && manifest.not_runnable().is_none() && !runs
    }

    fn slot(&self) -> Option<Arc<Slot>> {
        self.registry.upgrade()?.slot(&self.id)
    }

    async fn wait(&mut self, inbox: &mut mpsc::Receiver<Command>) -> Woken {
        tokio::select! {
            biased;
            launched = work(&mut self.launching) => Woken::Launched(launched),
            parted = work(&mut self.parting) => Woken::Parted(parted),
            exit = work(&mut self.exit) => Woken::Ended(exit),
            taken = work(&mut self.handover) => Woken::HandedOver(taken),
            command = inbox.recv() => Woken::Command(command),
            answered = work(&mut self.ping) => Woken::Pinged(answered),
            () = at(self.tick) => Woken::Tick,
            () = at(self.timer) => Woken::Timer,
        }
    }

    async fn obey(&mut self, command: Command) {
        match command {
            Command::Changed { file, installed } => {
                let same = installed.manifest == self.installed.manifest && installed.folder == self.installed.folder;
                self.drop_trial();
                (self.file, self.installed) = (file.clone(), installed);
                self.view.file = file;
                self.publish();
                if !same && !self.follows {
                    self.starts.reset();
                    self.feed(Input::Changed).await;
                }
            }
            Command::Try { installed, reply } => self.try_version(installed, reply).await,
            Command::Removed if self.follows => {
                self.machine.phase = Phase::Gone;
                self.withdraw().await;
            }
            Command::Removed => self.feed(Input::Removed).await,
            Command::Awake if self.follows => self.look_for_another().await,
            Command::Awake => self.feed(Input::Installed { auto: self.auto() }).await,
            Command::Start(reply) => self.ask(Input::Start, Goal::Running, reply).await,
            Command::Restart(reply) => self.ask(Input::Restart, Goal::Running, reply).await,
            Command::Stop(reply) => self.ask(Input::Stop, Goal::Down, reply).await,
            Command::Disable(reply) => self.ask(Input::Disable, Goal::Down, reply).await,
            Command::Begun(reply) => _ = reply.send(Ok(())),
            Command::Enable(reply) => {
                if let Err(kept) = self.take_lease().await {
                    _ = reply.send(Err(kept.fault(&self.id)));
                    return;
                }
                self.feed(Input::Enable { auto: self.auto() }).await;
                _ = reply.send(Ok(()));
            }
        }
    }

    async fn ask(&mut self, input: Input, goal: Goal, reply: Reply) {
        let leased = self.take_lease().await.map_err(|kept| kept.fault(&self.id));
        if let Err(fault) = leased.and_then(|()| self.check(goal)) {
            _ = reply.send(Err(fault));
            return;
        }
        self.waiting.push((goal, reply));
        let runs = matches!(self.machine.phase, Phase::Running { .. } | Phase::Starting);
        if input == Input::Restart || goal == Goal::Running && !runs {
            // What was before does not count.
            self.starts.reset();
        }
        self.feed(input).await;
    }

    fn check(&self, goal: Goal) -> Result<(), Fault> {
        if self.waiting.len() == MAX_WAITING {
            let text = format!("{MAX_WAITING} callers wait for plugin `{}` already", self.id);
            return Err(Fault::new(Code::Overloaded, text));
        }
        if goal == Goal::Down {
            return Ok(());
        }
        if let Some(why) = self.installed.manifest.not_runnable() {
            return Err(Fault::new(Code::WrongState, format!("plugin `{}`: {why}", self.id)));
        }
        if matches!(self.machine.phase, Phase::Disabled | Phase::Stopping(Then::Disabled)) {
            let text = format!("plugin `{}` is disabled: enable it first", self.id);
            return Err(Fault::new(Code::WrongState, text).with_reason(Reason::Disabled));
        }
        let itself = self.slot().and_then(|slot| slot.live()).filter(|_| self.process.is_none());
        if let Some(live) = itself {
            let text = format!("plugin `{}` runs as pid {}, which was not started here", self.id, live.peer.pid());
            return Err(Fault::new(Code::Conflict, text));
        }
        Ok(())
    }

    async fn launched(&mut self, launched: Result<Process, Fault>) {
        self.launching = None;
        self.starting_socket = None;
        match launched {
            Ok(process) => {
                self.arrived = Some(process);
                self.view.last_error = None;
                self.feed(Input::Ready).await;
            }
            Err(fault) => {
                self.blame_trial(&fault);
                // What can never work is not tried again.
                let hopeless = matches!(fault.code, Code::NotFound | Code::Denied | Code::InvalidArgument);
                let after = match fault.reason {
                    Some(Reason::Altered) => {
                        self.shared.events.record(
                            EventKind::Untrusted,
                            Some(&self.id),
                            None,
                            Some(fault.message.clone()),
                        );
                        After::Deny
                    }
                    _ if hopeless => After::GiveUp,
                    _ => self.after(restart::Exit::NotReady, None, &fault),
                };
                if matches!(self.machine.phase, Phase::Running { .. }) {
                    let text = format!("the new process did not come up, the process before goes on: {fault}");
                    self.shared.events.record(EventKind::Changed, Some(&self.id), None, Some(text));
                }
                if matches!(after, After::Again(_)) || hopeless {
                    self.view.last_error = Some(fault);
                }
                self.feed(Input::NotReady(after)).await;
            }
        }
    }

    async fn ended(&mut self, exit: Option<Exit>) {
        self.exit = None;
        let healthy = self.process.as_ref().map(|process| process.since.elapsed());
        let pid = self.process.as_ref().map_or(0, |process| process.hosted.record().plugin.pid);
        let how = match &exit {
            _ if std::mem::take(&mut self.is_condemned) => restart::Exit::Hung,
            Some(Exit { code: Some(code), .. }) => restart::Exit::Code(*code),
            Some(Exit { signal: Some(signal), .. }) => restart::Exit::Signal(*signal),
            _ => restart::Exit::Unknown,
        };
        let stderr = exit.as_ref().map(|exit| last_words(&exit.stderr)).unwrap_or_default();
        let memory = exit.as_ref().is_some_and(|exit| exit.out_of_memory);
        let memory = if memory { ", probably for lack of memory" } else { "" };
        let fault = Fault::new(Code::PluginGone, format!("the process (pid {pid}) {how}{memory}{stderr}"));
        // It died before the supervisor had taken it.
        if self.handover.take().is_some()
            && let Some(old) = self.old.take()
        {
            self.give_back(old, fault).await;
            return self.publish();
        }
        // Another registry, or whoever speaks to its host, has ended it: that is a stop.
        let asked = exit.as_ref().is_some_and(|exit| exit.asked) && how != restart::Exit::Hung;
        let after = if asked || self.follows { After::Stay } else { self.after(how, healthy, &fault) };
        if matches!(after, After::Again(_)) {
            self.view.last_error = Some(fault);
        }
        self.view.last_exit = exit;
        self.feed(Input::Ended(after)).await;
        if self.follows {
            self.timer = Some(Instant::now() + FOLLOW_SOON);
        }
    }

    /// What the restart policy says; of what is given up it notes why.
    fn after(&mut self, how: restart::Exit, healthy: Option<Duration>, fault: &Fault) -> After {
        let now = std::time::Instant::now();
        match self.starts.ended(&self.installed.manifest.restart, how, healthy, now, jitter()) {
            Verdict::Again(due) => After::Again(due),
            Verdict::Stopped => After::Stay,
            Verdict::Failed(why) => {
                self.view.last_error =
                    Some(Fault { message: format!("{why}; the last time: {}", fault.message), ..fault.clone() });
                After::GiveUp
            }
        }
    }

    async fn parted(&mut self, parted: Result<Option<Exit>, Fault>) {
        self.parting = None;
        match parted {
            Ok(exit) => (self.view.last_exit, self.view.last_error) = (exit, None),
            Err(fault) => {
                // Whoever waits for its end is not told that it has ended.
                let told = self.waiting.extract_if(.., |(goal, _)| *goal == Goal::Down);
                told.for_each(|(_, reply)| _ = reply.send(Err(fault.clone())));
                self.view.last_error = Some(fault);
            }
        }
        self.feed(Input::Parted).await;
    }

    async fn handed_over(&mut self, taken: Result<(), Fault>) {
        self.handover = None;
        let Some(old) = self.old.take() else { return };
        match taken {
            Ok(()) => {
                self.note_predecessor(&old.hosted);
                self.shared.tasks.spawn(retire(old, Arc::clone(&self.shared)));
            }
            Err(fault) => self.give_back(old, fault).await,
        }
        self.publish();
    }

    /// The process before goes on, because its successor did not take its place.
    async fn give_back(&mut self, old: Process, fault: Fault) {
        self.blame_trial(&fault);
        let text = format!("the new process was not activated, the one before goes on: {fault}");
        self.shared.events.record(EventKind::Changed, Some(&self.id), None, Some(text.clone()));
        self.view.last_error = Some(Fault { message: text, ..fault });
        if let Some(new) = self.process.take() {
            self.shared.tasks.spawn(async move { _ = end(&new).await });
        }
        self.arrived = Some(old);
        self.offer().await;
    }

    /// One step of the machine, and everything that follows from it.
    async fn feed(&mut self, input: Input) {
        let (machine, effects) = step(self.machine, input, std::time::Instant::now());
        self.machine = machine;
        for effect in effects {
            match effect {
                Effect::Launch => self.launch(),
                Effect::Abandon => (self.launching, self.starting_socket) = (None, None),
                Effect::Offer => self.offer().await,
                Effect::Withdraw => self.withdraw().await,
                Effect::Part => self.part(),
                Effect::Arm(at) => self.timer = Some(Instant::from_std(at)),
            }
        }
        self.arrived = None;
        self.publish();
        self.answer();
    }

    fn launch(&mut self) {
        self.timer = None;
        let options = self.shared.options.load_full();
        self.starts.started(&self.installed.manifest.restart, std::time::Instant::now());
        self.view.starts += 1;
        let instance = Instance::new(self.id.name(), &options.hosts());
        self.starting_socket = Some(instance.socket.clone());
        let (shared, registry) = (Arc::clone(&self.shared), self.registry.clone());
        let (id, installed) = (self.id.clone(), Arc::clone(&self.installed));
        self.launching = Some(Box::pin(async move {
            let gone = || Fault::new(Code::Unavailable, "the registry is closed");
            needs::ready(&registry.upgrade().ok_or_else(gone)?, &id, &installed.manifest).await?;
            // The semaphore is never closed; without a permit the start would only be less polite.
            let _permit = shared.launches.acquire().await.ok();
            launch(&shared, installed, instance).await
        }));
    }

    /// Tells the supervisor where the new process serves, as a `.pconf` would.
    async fn offer(&mut self) {
        let (Some(new), Some(registry)) = (self.arrived.take(), self.registry.upgrade()) else { return };
        let hosted = new.hosted.clone();
        self.exit = Some(Box::pin(async move { hosted.exited().await }));
        self.used = (0, Instant::now());
        // Its output was kept for whoever wants to know how it ended.
        if let Some(last) = self.view.hosted.replace(new.hosted.clone())
            && self.process.is_none()
        {
            self.shared.tasks.spawn(async move { forget(&last).await });
        }
        let watched = matches!(new.found.pconf.protocol, Some(1..));
        self.pulse =
            (watched && !self.follows).then(|| Pulse::new(&self.installed.manifest.health, std::time::Instant::now()));
        (self.ping, self.is_condemned) = (None, false);
        self.tick = (!self.follows).then(Instant::now);
        let old = self.process.replace(new.clone());
        // Before the supervisor hears of it: whoever reads the plugin's own `.pconf` then must know that it is the same.
        self.publish();
        let slot = registry.offered(&self.id, self.file.clone(), Arc::clone(&new.found)).await;
        if let Some(program) = self.outlet.upgrade() {
            slot.set_program(&program);
        }
        // Of one that is given back its place after its successor failed there is nothing to retire.
        if let Some(before) = old {
            self.handover = Some(Box::pin(taken_over(slot, new)));
            match &self.old {
                // One that has not taken the place yet makes room for its own successor.
                Some(_) => _ = self.shared.tasks.spawn(async move { _ = end(&before).await }),
                None => self.old = Some(before),
            }
        }
    }

    async fn withdraw(&mut self) {
        (self.process, self.exit, self.pulse, self.ping, self.tick) = (None, None, None, None, None);
        self.publish();
        let Some(registry) = self.registry.upgrade() else { return };
        let down = match self.machine.phase {
            Phase::Gone => {
                if let Some(last) = self.view.hosted.take() {
                    self.shared.tasks.spawn(async move { forget(&last).await });
                }
                return registry.uninstalled(&self.id).await;
            }
            Phase::Starting => Down::Starting,
            Phase::Backoff { .. } => Down::Backoff,
            Phase::Failed => Down::Failed,
            Phase::Denied => Down::Denied,
            Phase::Disabled => Down::Disabled,
            _ => Down::Stopped,
        };
        if let Some(slot) = registry.slot(&self.id) {
            let why = self.view.last_error.clone();
            // A supervisor that has ended needs no news.
            _ = slot.ask(|reply| supervisor::Command::Down { down, why, reply }).await;
        }
    }

    fn part(&mut self) {
        (self.handover, self.pulse, self.ping, self.tick) = (None, None, None, None);
        if let Some(old) = self.old.take() {
            self.shared.tasks.spawn(retire(old, Arc::clone(&self.shared)));
        }
        let Some(process) = self.process.clone() else { return };
        // It is meant to end.
        self.exit = None;
        self.parting = Some(Box::pin(part(self.slot(), process, Arc::clone(&self.shared))));
    }

    fn pinged(&mut self, answered: bool) {
        self.ping = None;
        if let (true, Some(pulse)) = (answered, &mut self.pulse)
            && let Act::Wait(at) = pulse.answered(&self.installed.manifest.health, std::time::Instant::now())
        {
            self.tick = Some(Instant::from_std(at));
        }
    }

    /// Feels whether the process still answers, and whether anybody still needs it.
    async fn look_after(&mut self) {
        let now = Instant::now();
        let mut next = self.installed.manifest.idle_stop.map(|_| now + IDLE_LOOK);
        let rules = self.installed.manifest.health;
        match self.pulse.as_mut().map(|pulse| pulse.tick(&rules, now.into_std())) {
            Some(Act::Wait(at)) => next = Some(next.map_or(at.into(), |next| next.min(at.into()))),
            Some(Act::Ping(until)) => {
                next = Some(next.map_or(until.into(), |next| next.min(until.into())));
                self.ping = self.slot().and_then(|slot| slot.live()).map(|live| -> Work<bool> {
                    Box::pin(async move { call::answers_ping(&live, rules.timeout).await })
                });
                // One that is not loaded is not felt: nothing of it is under way.
                if self.ping.is_none() {
                    self.pulse = Some(Pulse::new(&rules, now.into_std()));
                    next = Some(now + rules.interval);
                }
            }
            Some(Act::Hung) => {
                self.condemn();
                next = None;
            }
            None => {}
        }
        self.tick = next;
        if self.view.is_asleep && self.slot().is_some_and(|slot| slot.live().is_some()) {
            self.view.is_asleep = false;
            self.publish();
        }
        if self.is_idle(now).await {
            self.feed(Input::Idle).await;
        }
    }

    /// It answers no ping: everything of it is killed, and its end decides what follows.
    fn condemn(&mut self) {
        self.pulse = None;
        let Some(process) = &self.process else { return };
        self.is_condemned = true;
        let hosted = process.hosted.clone();
        self.shared.tasks.spawn(async move {
            if let Err(fault) = hosted.stop(Duration::ZERO, Duration::ZERO).await {
                tracing::warn!(%fault, "a process that hangs could not be ended");
            }
        });
    }

    async fn is_idle(&mut self, now: Instant) -> bool {
        let Some(after) = self.installed.manifest.idle_stop else { return false };
        let (Some(registry), Phase::Running { successor: false }) = (self.registry.upgrade(), self.machine.phase)
        else {
            return false;
        };
        let slot = registry.slot(&self.id);
        let live = slot.as_ref().and_then(|slot| slot.live());
        let (done, under_way) = live.as_ref().map_or((0, 0), |live| live.counts());
        if done != self.used.0 {
            self.used = (done, now);
        }
        let dependants = needs::dependants(&registry, &self.id);
        let mut seen = Use { last: self.used.1.into_std(), calls: under_way, subscriptions: 0, dependants };
        if idle::verdict(Some(after), &seen, now.into_std()) != idle::Verdict::Stop {
            return false;
        }
        // Only now: the plugin itself is asked who listens.
        if let Some(live) = live.filter(|live| live.wire == Wire::V1) {
            seen.subscriptions = call::listeners(&live).await;
        }
        idle::verdict(Some(after), &seen, now.into_std()) == idle::Verdict::Stop
    }

    fn answer(&mut self) {
        let phase = self.machine.phase;
        let settled = |goal: Goal| match (goal, phase) {
            (Goal::Running, Phase::Running { successor: false }) => Some(true),
            (Goal::Running, Phase::Running { .. } | Phase::Starting | Phase::Stopping(Then::Start)) => None,
            (Goal::Running, _) => Some(false),
            (Goal::Down, Phase::Stopping(_)) => None,
            (Goal::Down, _) => Some(true),
        };
        for (goal, reply) in std::mem::take(&mut self.waiting) {
            match settled(goal) {
                None => self.waiting.push((goal, reply)),
                Some(true) => _ = reply.send(Ok(())),
                Some(false) => _ = reply.send(Err(self.not_running())),
            }
        }
    }

    fn not_running(&self) -> Fault {
        let state = self.machine.state();
        match &self.view.last_error {
            Some(fault) => Fault {
                message: format!("plugin `{}` is {state}: {fault}", self.id),
                reason: fault.reason.or(state.reason()),
                ..fault.clone()
            },
            None => Fault {
                reason: state.reason(),
                ..Fault::new(Code::WrongState, format!("plugin `{}` is {state}", self.id))
            },
        }
    }

    /// Shows the machine to everybody else; an event tells of each new state that the supervisor does not tell.
    fn publish(&mut self) {
        let state = self.machine.state();
        let news = state != self.view.state;
        self.view.state = state;
        self.view.retry_at = match self.machine.phase {
            Phase::Backoff { until } => Some(until),
            _ => None,
        };
        self.view.is_asleep = match self.machine.phase {
            Phase::Asleep | Phase::Stopping(Then::Asleep) => true,
            // Until the supervisor has loaded it again.
            Phase::Stopping(Then::Start) | Phase::Starting | Phase::Running { .. } => self.view.is_asleep,
            _ => false,
        };
        let serving = [&self.process, &self.old].into_iter().flatten().map(|process| process.found.socket.clone());
        let sockets: Vec<_> = serving.chain(self.starting_socket.clone()).collect();
        let before = std::mem::replace(&mut self.view.sockets, sockets);
        for socket in before.into_iter().filter(|socket| !self.view.sockets.contains(socket)) {
            self.view.past.push_back(socket);
        }
        while self.view.past.len() > MAX_PAST {
            self.view.past.pop_front();
        }
        if let Some(program) = self.outlet.upgrade() {
            program.view.send_replace(Arc::new(self.view.clone()));
        }
        if news && self.slot().is_none() && state != State::Gone {
            let why = self.view.last_error.as_ref().map(ToString::to_string);
            self.shared.events.record(EventKind::State, Some(&self.id), Some(state), why);
        }
    }
}
