//! The thread that reads a connection, and runs handlers where their calls were read.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use goplug_pconf_schema::wire::frame::{Broken, Header, Kind, Meta};
use rustix::event::{PollFd, PollFlags, Timespec};

use super::calls::{Event, Whole};
use super::connection::{Connection, INSIDE, Reader, State};
use super::replier::{Answered, Late, Replier};
use super::{FrameBody, FrameCall, Intake, watcher};
use crate::frame::input::{self, Read};
use crate::shm::{Greeting, greet};

/// When more than this waits to be written, nothing is read: a peer that does not read must not make us grow.
const STUFFED_BYTES: usize = 8 * 1024 * 1024;
/// How long the last frame of a connection that broke a rule may take.
const LAST_WORD: Duration = Duration::from_secs(1);

/// Requests that are taken, under one lock, before the first of them is answered; all answers to what came in one read leave in
/// one write in any case. More was measured, and is slower: the allocator keeps seven blocks of a size at hand, and each body
/// beyond would cost more than a lock.
const BATCH: usize = 4;

/// There is nothing more to read, or somebody else does.
struct Over;

impl Connection {
    /// Reads in place of a thread that is inside a handler, unless that has come back.
    pub(super) fn take_over(self: &Arc<Self>, run: u64) -> bool {
        let (id, cancel) = {
            let mut state = self.state();
            if state.run != run {
                return false;
            }
            state.run = run & !1;
            let id = state.running;
            if let Some(told) = state.told.take() {
                state.calls.has_told(id, told);
            }
            (id, state.calls.cancel_of(id))
        };
        // Replies that were only queued, because the reader was going to write them, are written by it now.
        self.flush(usize::MAX);
        if let Some(cancel) = cancel {
            cancel.overrun(Late::new(Arc::clone(self), id));
        }
        true
    }

    /// Reads until there is nothing more to read, or another thread does.
    pub(super) fn read(self: &Arc<Self>) {
        let mut spare = None;
        loop {
            let Ok(then) = self.work(&mut spare) else {
                self.flush(usize::MAX);
                return;
            };
            match then {
                None => match self.take() {
                    Ok(()) => {}
                    Err(Over) => break,
                },
                Some(Err(broken)) => break self.protest(&broken),
                Some(Ok(Event::Nothing)) => {}
                Some(Ok(Event::Piece(reader))) => reader.wake(),
                Some(Ok(Event::Cancelled(cancel))) => cancel.cancel(),
                Some(Ok(Event::Subscribe(wanted))) => self.subscribe(&wanted),
                Some(Ok(Event::Acknowledged(id, seq, source))) => self.acknowledge(id, seq, &*source),
                Some(Ok(Event::Left(source))) => drop(source),
                Some(Ok(Event::Closed)) => break,
            }
        }
        self.end();
    }

    /// Runs the handlers of what is ready; answers what came behind that, or that another thread reads now. One lock is enough
    /// for all that is to be done between two handlers.
    fn work(self: &Arc<Self>, spare: &mut Option<Arc<Self>>) -> Result<Option<Result<Event, Broken>>, Over> {
        let (mut run, mut answered) = (0, None::<Answered>);
        loop {
            let has_answered = answered.is_some();
            let mut state = self.state();
            if let Some(answered) = answered.take() {
                *spare = answered.give(&mut state.calls);
            }
            let is_mine = run == 0 || state.run == run;
            let Some(whole) = state.calls.ready.pop_front_if(|_| is_mine) else {
                let then = if is_mine { Ok(state.then.take()) } else { Err(Over) };
                if is_mine {
                    state.run &= !1;
                }
                drop(state);
                if has_answered {
                    self.handler.answered();
                }
                return then;
            };
            let started = Instant::now();
            run = watcher::stamp(started) << 1 | 1;
            let Whole { id, index, deadline_ms, meta, body, view, is_streamed, is_cancelled, takes_place, received } =
                whole;
            (state.run, state.running) = (run, id);
            let view = view.map(|view| {
                let lender: Weak<Self> = Arc::downgrade(self);
                view.lease(lender)
            });
            let (view, whole) = if is_streamed { (None, view) } else { (view, None) };
            let stream = is_streamed.then(|| FrameBody::new(Arc::clone(self), id, whole));
            let (peer, lender) = (&self.peer, takes_place.then_some(self.number));
            let request = FrameCall { index, deadline_ms, meta, body, view, stream, received, started, peer, lender };
            self.handler.enter(&request, &mut state.told);
            let told = if is_cancelled || state.has_ended { state.told.clone() } else { None };
            drop(state);
            if let Some(told) = told {
                told.cancel();
            }
            if has_answered {
                self.handler.answered();
            }
            watcher::rouse();
            answered = self.call(request, id, run, spare);
        }
    }

    /// Takes what has come, as far as nothing has to be done in between; reads when there is nothing.
    fn take(&self) -> Result<(), Over> {
        let mut reader = self.reader();
        loop {
            let mut state = self.state();
            let State { calls, then, .. } = &mut *state;
            loop {
                // A call that waits for its handler here is not one that is under way for long.
                if calls.ready.len() >= BATCH || !calls.ready.is_empty() && calls.is_full() {
                    return Ok(());
                }
                let event = match reader.input.next() {
                    Ok(None) => break,
                    Ok(Some(input::Next::Part(part))) => {
                        if let Some(body) = calls.lend(&part) {
                            reader.input.lend(body);
                        }
                        continue;
                    }
                    Ok(Some(input::Next::Frame(frame))) => {
                        let taken = calls.take(frame, reader.received, |index| Intake::of(&*self.handler, index));
                        if calls.segments.takes_descriptors() {
                            reader.input.take_descriptors();
                        }
                        taken
                    }
                    Err(broken) => Err(broken),
                };
                match event {
                    Ok(Event::Nothing) => {}
                    // What comes behind it may depend on it.
                    event => {
                        *then = Some(event);
                        return Ok(());
                    }
                }
            }
            if !calls.ready.is_empty() {
                return Ok(());
            }
            drop(state);
            self.fill(&mut reader)?;
        }
    }

    /// Runs the handler; answers what it answered.
    fn call(
        self: &Arc<Self>,
        request: FrameCall<'_>,
        id: u64,
        run: u64,
        spare: &mut Option<Arc<Self>>,
    ) -> Option<Answered> {
        let reply = Replier::new(spare.take().unwrap_or_else(|| Arc::clone(self)), id);
        INSIDE.set((Arc::as_ptr(self).addr(), run));
        // The panic hook has reported it, and the reply was dropped by it, which answers the call.
        let answered = catch_unwind(AssertUnwindSafe(|| self.handler.call(request, reply)));
        INSIDE.set((0, 0));
        answered.ok().flatten().and_then(|answered| {
            let answered = answered.of_connection(self);
            if answered.is_none() {
                self.handler.answered();
            }
            answered
        })
    }

    /// Writes what has been queued, then waits for bytes.
    fn fill(&self, reader: &mut Reader) -> Result<(), Over> {
        let (mut rest, mut has_slept) = (self.flush(usize::MAX), false);
        loop {
            // Who was woken finds what woke it: that is nothing learnt about looking. Before the first pause a look would find
            // nothing, because the caller has only just been answered.
            if rest <= STUFFED_BYTES && (!has_slept && self.poll(reader, &mut rest)? || self.look(reader)?) {
                return Ok(());
            }
            if !std::mem::replace(&mut has_slept, true) {
                reader.patience.slept(Duration::ZERO);
            }
            rest = self.sleep()?;
        }
    }

    /// Whether there were bytes.
    fn look(&self, reader: &mut Reader) -> Result<bool, Over> {
        if !reader.is_greeted {
            match greet(&self.pipe.socket, self.limits.shared_memory) {
                Ok(Greeting::NotYet) => return Ok(false),
                Ok(Greeting::Socket) => {}
                Ok(Greeting::Rings(rings)) => self.pipe.use_rings(rings),
                Err(_) => return Err(Over),
            }
            reader.is_greeted = true;
        }
        match reader.input.read_from(&self.pipe) {
            Ok(Read::Some) => {
                reader.received = Instant::now();
                Ok(true)
            }
            Ok(Read::Empty) => Ok(false),
            Ok(Read::End) | Err(_) => Err(Over),
        }
    }

    /// Looks again and again, for as long as it proved useful.
    fn poll(&self, reader: &mut Reader, rest: &mut usize) -> Result<bool, Over> {
        let window = reader.patience.window(Duration::ZERO);
        if window.is_zero() {
            return Ok(false);
        }
        let begin = Instant::now();
        loop {
            self.pipe.pause();
            // Into the rings the caller makes room without a word, unless we sleep.
            if *rest > 0 {
                *rest = self.flush(1);
            }
            if self.look(reader)? {
                let after = reader.received.saturating_duration_since(begin);
                reader.patience.found(after);
                return Ok(true);
            }
            if begin.elapsed() > window {
                return Ok(false);
            }
        }
    }

    /// Sleeps until there is something to read, room to write, or a word from another thread. Writes what it can, and
    /// answers what is left.
    fn sleep(&self) -> Result<usize, Over> {
        let (has_rest, is_stuffed) = {
            let mut state = self.state();
            let has_rest = !state.calls.outbox.is_empty();
            if state.has_ended || state.is_closing && !has_rest && !state.is_writing && state.calls.is_empty() {
                return Err(Over);
            }
            // Under the lock: whoever leaves something unwritten after this sees it, and rings.
            state.is_deaf = !has_rest;
            (has_rest, state.calls.outbox.len() > STUFFED_BYTES)
        };
        let mut events = if is_stuffed { PollFlags::empty() } else { PollFlags::IN };
        if has_rest && self.pipe.socket_tells_of_room() {
            events |= PollFlags::OUT;
        }
        if self.pipe.rings().is_some() {
            // Whatever is waited for, it wakes.
            events |= PollFlags::IN;
        }
        if !self.pipe.may_sleep(!is_stuffed, has_rest).map_err(|_| Over)? {
            self.state().is_deaf = false;
            return Ok(self.flush(usize::MAX));
        }
        let mut fds = [PollFd::new(&*self.pipe.socket, events), PollFd::new(&self.wake, PollFlags::IN)];
        let patience = has_rest.then_some(self.limits.write_timeout).and_then(|limit| Timespec::try_from(limit).ok());
        let woken = rustix::event::poll(&mut fds, patience.as_ref());
        let (is_heard, has_rung) = (!fds[0].revents().is_empty(), fds[1].revents().contains(PollFlags::IN));
        self.state().is_deaf = false;
        match woken {
            // The caller has taken nothing for too long.
            Ok(0) => return Err(Over),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return Err(Over),
        }
        if is_heard {
            self.pipe.hear();
        }
        if has_rung {
            // What it says is in the state.
            _ = rustix::io::read(&self.wake, &mut [0; 8]);
        }
        Ok(self.flush(usize::MAX))
    }

    /// Tells the other side which rule it broke.
    fn protest(&self, Broken(rule): &Broken) {
        let close = Header { end: true, ..Header::new(Kind::Close, 0) };
        let rule = Bytes::copy_from_slice(rule.as_bytes());
        self.state().calls.outbox.push(close, &Meta::default(), rule);
        let limit = Instant::now() + LAST_WORD;
        loop {
            self.flush(usize::MAX);
            let left = limit.saturating_duration_since(Instant::now());
            let (Ok(left), false) =
                (Timespec::try_from(left), left.is_zero() || self.change(|calls| calls.outbox.is_empty()))
            else {
                return;
            };
            let events = if self.pipe.socket_tells_of_room() { PollFlags::OUT } else { PollFlags::IN };
            match self.pipe.may_sleep(false, true) {
                Ok(true) => {}
                Ok(false) => continue,
                Err(_) => return,
            }
            let mut fds = [PollFd::new(&*self.pipe.socket, events)];
            if !matches!(rustix::event::poll(&mut fds, Some(&left)), Ok(1..) | Err(rustix::io::Errno::INTR)) {
                return;
            }
            self.pipe.hear();
        }
    }
}
