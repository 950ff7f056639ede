//! The life of a host: one loop that waits for everything at once.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use goplug_pconf_schema::wire::host::{
    Answer, Exit, HostPhase, HostSpec, Record, Request, Status, Stream, control_path,
};
use goplug_pconf_schema::{Code, Fault};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, WaitStatus};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};

use crate::client::{Asks, Client};
use crate::ladder::{Effect, Input, Phase, step};
use crate::record;
use crate::ring::Output;
use crate::spawn::spawn;
use crate::tree;

/// Connections at once; a new one takes the place of the one that has been idle longest.
const MAX_CLIENTS: usize = 32;
/// What is read of a stream before it is somebody else's turn.
const READ_BYTES: usize = 16 * 1024;
/// Reads of a stream when the plugin has ended: what is in the pipe (64 KiB, at most 1 MiB), and no more.
const LAST_READS: usize = 64;
/// The last words of a plugin: lines, and bytes of them all.
const LAST_WORDS: (usize, usize) = (20, 4 * 1024);
/// How long a host stays at least: the registry that started it may not have connected yet, or reads its last answer.
const PARTING_MS: u64 = 1_000;
/// How long nobody is let in when there is no descriptor for them: they wait, and nothing tells when there is one.
const CLOSED_MS: u64 = 50;
/// The grace of a host that is told to end by SIGTERM or SIGINT.
const TERM_GRACE_MS: u64 = 5_000;

/// A plugin that runs, and everybody who asks after it.
pub(crate) struct Host {
    spec: HostSpec,
    began: Instant,
    phase: Phase,
    record: Record,
    plugin: Pid,
    pidfd: OwnedFd,
    output: Output,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
    listener: UnixListener,
    clients: Vec<Client>,
    /// Written by the handler of SIGCHLD.
    children: UnixStream,
    /// Written by the handler of SIGTERM and SIGINT.
    terms: UnixStream,
    /// Whoever started this host, if everything is to end with them; `None` once they have ended.
    starter: Option<OwnedFd>,
    /// Whoever started this host, and was to ask for what became of it, has ended.
    is_orphan: bool,
    kills_before: u64,
    /// When the host itself ends.
    leave_at: Option<u64>,
    /// Until when nobody is let in: no descriptor was left for whoever waits.
    closed_until: Option<u64>,
}

impl Host {
    /// Starts the plugin.
    pub(crate) fn start(spec: HostSpec) -> Result<Self, Fault> {
        let failed = |what: &str, error: std::io::Error| Fault::new(Code::Internal, format!("cannot {what}: {error}"));
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
            .map_err(|error| failed("take in what the plugin starts", error.into()))?;
        let (children, terms) = signals().map_err(|error| failed("listen for signals", error))?;
        record::prepare(&spec.folder)?;
        let control = control_path(&spec.folder, &spec.instance);
        let listener = record::listen(&control)?;
        let started = Self::with(spec.clone(), listener, children, terms);
        if started.is_err() {
            record::remove(&spec.folder, &spec.instance, false);
        }
        started
    }

    fn with(spec: HostSpec, listener: UnixListener, children: UnixStream, terms: UnixStream) -> Result<Self, Fault> {
        let kills_before = record::out_of_memory_kills();
        let starter = spec.starter.map(starter).transpose()?;
        let spawned = spawn(&spec)?;
        let record = record::record(&spec, spawned.pid, &spawned.pidfd)?;
        // A plugin that nobody could find again must not run: it dies with this process.
        record::write(&spec.folder, &record).map_err(|error| {
            Fault::new(Code::Internal, format!("cannot write the record in {}: {error}", spec.folder.display()))
        })?;
        Ok(Self {
            output: Output::new(spec.output),
            spec,
            began: Instant::now(),
            phase: Phase::Running,
            record,
            plugin: spawned.pid,
            pidfd: spawned.pidfd,
            stdout: Some(spawned.stdout),
            stderr: Some(spawned.stderr),
            listener,
            clients: Vec::new(),
            children,
            terms,
            starter,
            is_orphan: false,
            kills_before,
            leave_at: None,
            closed_until: None,
        })
    }

    /// Watches until nothing is left of the plugin and nobody is expected to ask any more.
    pub(crate) fn run(mut self) {
        loop {
            let ready = self.wait();
            if ready.children {
                drain(&self.children);
                self.reap();
            }
            if ready.terms {
                drain(&self.terms);
                self.feed(Input::Stop { term_after: 0, kill_after: TERM_GRACE_MS });
            }
            if ready.starter {
                // Nobody is left to wait for what it does.
                (self.starter, self.is_orphan) = (None, true);
                self.feed(Input::Stop { term_after: 0, kill_after: 0 });
            }
            for (stream, is_ready) in [(Stream::Stdout, ready.stdout), (Stream::Stderr, ready.stderr)] {
                if is_ready {
                    self.read_output(stream, 1);
                }
            }
            self.feed(Input::Tick);
            self.serve(&ready.clients);
            self.closed_until = self.closed_until.filter(|until| self.now() < *until);
            if ready.listener {
                self.accept();
            }
            if self.leave_at.is_some_and(|at| self.now() >= at) {
                break;
            }
        }
        record::remove(&self.spec.folder, &self.spec.instance, self.is_orphan);
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn wait(&self) -> Ready {
        let now = self.now();
        let deadlines = self.clients.iter().filter_map(Client::deadline);
        let next = deadlines.chain(self.phase.deadline()).chain(self.leave_at).chain(self.closed_until).min();
        let at_the_door = if self.closed_until.is_some() { PollFlags::empty() } else { PollFlags::IN };
        let timeout = next.map(|at| {
            let left = at.saturating_sub(now).min(3_600_000);
            let (seconds, nanoseconds) = (left / 1_000, (left % 1_000) * 1_000_000);
            Timespec { tv_sec: seconds.cast_signed(), tv_nsec: nanoseconds.cast_signed() }
        });
        let mut fds = vec![
            PollFd::new(&self.children, PollFlags::IN),
            PollFd::new(&self.terms, PollFlags::IN),
            PollFd::new(&self.listener, at_the_door),
        ];
        let fixed = fds.len();
        fds.extend(self.starter.iter().map(|starter| PollFd::new(starter, PollFlags::IN)));
        let started = fds.len();
        fds.extend(self.stdout.iter().chain(&self.stderr).map(|pipe| PollFd::new(pipe, PollFlags::IN)));
        let pipes = fds.len();
        fds.extend(self.clients.iter().map(|client| PollFd::from_borrowed_fd(client.as_fd(), client.interest())));
        // Interrupted by a signal: its handler has made a descriptor ready, which the next round finds.
        let _ = poll(&mut fds, timeout.as_ref());
        let is_ready = |fd: &PollFd<'_>| !fd.revents().is_empty();
        let mut streams = fds[started..pipes].iter().map(is_ready);
        Ready {
            children: is_ready(&fds[0]),
            terms: is_ready(&fds[1]),
            starter: fds[fixed..started].iter().any(is_ready),
            listener: is_ready(&fds[2]),
            stdout: self.stdout.is_some() && streams.next() == Some(true),
            stderr: self.stderr.is_some() && streams.next() == Some(true),
            clients: fds[pipes..].iter().map(PollFd::revents).collect(),
        }
    }

    /// Learns which children have ended.
    fn reap(&mut self) {
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) if pid == self.plugin => self.exited(status),
                Ok(Some(_)) => self.feed(Input::Child),
                Ok(None) => return,
                Err(Errno::INTR) => {}
                Err(_) => {
                    self.feed(Input::Childless);
                    return;
                }
            }
        }
    }

    /// The plugin's own process has ended: its status is written down before anything else.
    fn exited(&mut self, status: WaitStatus) {
        self.read_output(Stream::Stdout, LAST_READS);
        self.read_output(Stream::Stderr, LAST_READS);
        let (signal, killing) = (status.terminating_signal(), matches!(self.phase, Phase::Killing { .. }));
        let died_of_kill = signal == Some(Signal::KILL.as_raw()) && !killing;
        self.record.exit = Some(Exit {
            at_ms: record::wall_ms(),
            code: status.exit_status(),
            signal,
            asked: self.phase != Phase::Running,
            out_of_memory: died_of_kill && record::out_of_memory_kills() > self.kills_before,
            stderr: self.output.last_of_stderr(LAST_WORDS.0, LAST_WORDS.1),
        });
        self.write_record();
        self.feed(Input::Exited);
    }

    fn write_record(&self) {
        // A full disk: who asks this host is told all the same, and the record that is there names a process that is gone.
        let _ = record::write(&self.spec.folder, &self.record);
    }

    fn feed(&mut self, input: Input) {
        let (before, now) = (self.phase, self.now());
        let (phase, effect) = step(before, input, now);
        self.phase = phase;
        match effect {
            // The group is the plugin's for as long as the plugin is not reaped.
            Some(Effect::Terminate) => _ = rustix::process::kill_process_group(self.plugin, Signal::TERM),
            Some(Effect::Sweep) => tree::kill_all(),
            None => {}
        }
        if phase == Phase::Ended && before != Phase::Ended {
            for stream in [Stream::Stdout, Stream::Stderr] {
                self.read_output(stream, LAST_READS);
                self.output.end(stream, record::wall_ms());
                *self.pipe(stream) = None;
            }
            self.leave_at = Some(now.saturating_add(self.spec.linger_ms.max(PARTING_MS)));
        }
    }

    fn read_output(&mut self, stream: Stream, times: usize) {
        let mut buffer = [0; READ_BYTES];
        for _ in 0..times {
            let pipe = self.pipe(stream);
            let Some(end) = pipe else { return };
            match rustix::io::read(&*end, &mut buffer) {
                Ok(0) => {
                    *pipe = None;
                    self.output.end(stream, record::wall_ms());
                    return;
                }
                Ok(count) => self.output.push(stream, &buffer[..count], record::wall_ms()),
                Err(Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }

    fn pipe(&mut self, stream: Stream) -> &mut Option<OwnedFd> {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    fn accept(&mut self) {
        // Bounded: whoever connects without end must not keep the plugin's output waiting.
        for _ in 0..MAX_CLIENTS {
            match self.listener.accept() {
                Ok((stream, _)) => self.admit(stream),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.closed_until = Some(self.now().saturating_add(CLOSED_MS));
                    return;
                }
            }
        }
    }

    fn admit(&mut self, stream: UnixStream) {
        let now = self.now();
        let Some(mut client) = Client::new(stream, now) else { return };
        if self.clients.len() >= MAX_CLIENTS {
            let idle = self.clients.iter().enumerate().filter_map(|(at, client)| Some((client.idle_since()?, at)));
            let Some((_, at)) = idle.min() else {
                let text = format!("{MAX_CLIENTS} connections are busy");
                client.push(&Answer::Problem { code: Code::Overloaded, message: text }, now);
                client.write(now);
                return;
            };
            self.clients.swap_remove(at);
        }
        self.clients.push(client);
    }

    fn serve(&mut self, ready: &[PollFlags]) {
        let now = self.now();
        let mut kept = Vec::with_capacity(self.clients.len());
        for (mut client, flags) in std::mem::take(&mut self.clients).into_iter().zip(ready) {
            // Who has hung up may have asked for something first.
            let is_there = !flags.intersects(PollFlags::HUP | PollFlags::ERR);
            if self.serve_one(&mut client, now) && is_there && client.deadline().is_none_or(|at| now < at) {
                kept.push(client);
            }
        }
        self.clients = kept;
    }

    /// False when the connection is done.
    fn serve_one(&mut self, client: &mut Client, now: u64) -> bool {
        if client.interest() == PollFlags::IN && !client.read(now) {
            return false;
        }
        loop {
            self.go_on(client, now);
            match client.request() {
                Some(Ok(request)) => self.answer(client, request, now),
                Some(Err(fault)) => client.push(&Answer::problem(&fault), now),
                None => {
                    let was_full = !client.has_room();
                    if !client.write(now) {
                        return false;
                    }
                    // What did not fit before goes on now: nothing else would bring it up again.
                    if !(was_full && client.has_room()) {
                        return true;
                    }
                }
            }
        }
    }

    fn answer(&mut self, client: &mut Client, request: Request, now: u64) {
        let problem = |client: &mut Client, code, text: &str| {
            client.push(&Answer::Problem { code, message: text.to_owned() }, now);
        };
        match request {
            Request::Status => client.push(&self.status(), now),
            Request::Wait => client.asks = Asks::Exit,
            Request::Logs { after, follow } => {
                // Else who asks for what is there would never be done with a plugin that writes all the time.
                let until = (!follow).then(|| self.output.lines());
                client.asks = Asks::Logs { after, until };
            }
            Request::Stop { term_after_ms, kill_after_ms } => {
                self.feed(Input::Stop { term_after: term_after_ms, kill_after: kill_after_ms });
                client.asks = Asks::End;
            }
            Request::Signal { number } => match Signal::from_named_raw(number) {
                None => problem(client, Code::InvalidArgument, "there is no signal of that number"),
                Some(_) if self.record.exit.is_some() => problem(client, Code::WrongState, "the plugin has ended"),
                Some(signal) => match rustix::process::pidfd_send_signal(&self.pidfd, signal) {
                    Ok(()) => client.push(&self.status(), now),
                    Err(error) => problem(client, Code::Internal, &std::io::Error::from(error).to_string()),
                },
            },
            Request::Forget if self.phase != Phase::Ended => {
                problem(
                    client,
                    Code::WrongState,
                    "the plugin, or something that it started, still runs: stop it first",
                );
            }
            Request::Forget => {
                record::remove(&self.spec.folder, &self.spec.instance, true);
                client.push(&self.status(), now);
                self.leave_at = self.leave_at.map(|at| at.min(now.saturating_add(PARTING_MS)));
            }
        }
    }

    /// Tells a client what it waits for, as far as it is there.
    fn go_on(&self, client: &mut Client, now: u64) {
        match client.asks {
            Asks::Exit if self.record.exit.is_some() => {}
            Asks::End if self.phase == Phase::Ended => {}
            Asks::Logs { mut after, until } => {
                let next =
                    |after| self.output.next(after).filter(|line| until.is_none_or(|until| line.number <= until));
                while client.has_room()
                    && let Some(line) = next(after)
                {
                    after = line.number;
                    client.push(&Answer::Line(line.clone()), now);
                }
                client.asks = Asks::Logs { after, until };
                let is_whole = until.is_some() || self.phase == Phase::Ended;
                if is_whole && client.has_room() && next(after).is_none() {
                    client.asks = Asks::Nothing;
                    // Lines may have been dropped before they could be told.
                    client.push(&Answer::End { after: until.unwrap_or(self.output.lines()).max(after) }, now);
                }
                return;
            }
            _ => return,
        }
        client.asks = Asks::Nothing;
        client.push(&self.status(), now);
    }

    pub(crate) fn status(&self) -> Answer {
        Answer::Status(Box::new(Status {
            record: self.record.clone(),
            phase: self.shown(),
            lines: self.output.lines(),
            dropped_lines: self.output.dropped_lines(),
            cut_bytes: self.output.cut_bytes(),
        }))
    }

    fn shown(&self) -> HostPhase {
        self.phase.shown()
    }
}

/// What a wait found.
struct Ready {
    children: bool,
    terms: bool,
    starter: bool,
    listener: bool,
    stdout: bool,
    stderr: bool,
    clients: Vec<PollFlags>,
}

/// One socket for SIGCHLD, one for SIGTERM and SIGINT; SIGHUP does nothing, SIGPIPE is ignored from the start.
fn signals() -> std::io::Result<(UnixStream, UnixStream)> {
    let (children, child_end) = UnixStream::pair()?;
    let (terms, term_end) = UnixStream::pair()?;
    signal_hook::low_level::pipe::register(SIGCHLD, child_end)?;
    signal_hook::low_level::pipe::register(SIGTERM, term_end.try_clone()?)?;
    signal_hook::low_level::pipe::register(SIGINT, term_end)?;
    signal_hook::flag::register(SIGHUP, Arc::new(AtomicBool::new(false)))?;
    for end in [&children, &terms] {
        end.set_nonblocking(true)?;
    }
    Ok((children, terms))
}

/// A hold on the process that started this one.
fn starter(pid: u32) -> Result<OwnedFd, Fault> {
    let gone = || Fault::new(Code::Unavailable, "the process that started the host has ended");
    let parent = rustix::process::getppid().ok_or_else(gone)?;
    // Whoever lost its parent has another one by now, and so would we.
    let held = rustix::process::pidfd_open(parent, PidfdFlags::empty()).map_err(|_| gone())?;
    let is_ours = |parent: Pid| parent.as_raw_nonzero().get().unsigned_abs() == pid;
    if is_ours(parent) && rustix::process::getppid() == Some(parent) { Ok(held) } else { Err(gone()) }
}

fn drain(mut signals: &UnixStream) {
    let mut buffer = [0; 256];
    while matches!(std::io::Read::read(&mut signals, &mut buffer), Ok(1..)) {}
}

/// Lets go of everything that was there when the host was started: folder, terminal, input and output.
pub(crate) fn detach() {
    let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null");
    if let Ok(null) = null {
        // A descriptor that cannot be replaced stays as it is; nothing is written to it any more.
        let _ = rustix::stdio::dup2_stdin(&null);
        let _ = rustix::stdio::dup2_stdout(&null);
        let _ = rustix::stdio::dup2_stderr(&null);
    }
    let _ = std::env::set_current_dir(Path::new("/"));
}
