//! The thread that reads a connection, and runs handlers where their calls were read.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use goplug_pconf_schema::wire::frame::{Broken, Header, Kind, Meta};
use rustix::event::{PollFd, PollFlags, Timespec};

use super::calls::{Event, Whole};
use super::connection::{Connection, INSIDE, Reader};
use super::replier::{Late, Replier};
use super::{FrameCall, watcher};
use crate::frame::input::{Next, Read};
use crate::shm::{Greeting, greet};

/// When more than this waits to be written, nothing is read: a peer that does not read must not make us grow.
const STUFFED_BYTES: usize = 8 * 1024 * 1024;
/// How long the last frame of a connection that broke a rule may take.
const LAST_WORD: Duration = Duration::from_secs(1);

/// There is nothing more to read, or somebody else does.
struct Over;

impl Connection {
    /// Reads in place of a thread that is inside a handler, unless that has come back.
    pub(super) fn take_over(self: &Arc<Self>, run: u64) -> bool {
        if self.turn.compare_exchange(run, run & !1, Ordering::SeqCst, Ordering::SeqCst).is_err() {
            return false;
        }
        let id = self.running.load(Ordering::SeqCst);
        // Replies that were only queued, because the reader was going to write them, are written by it now.
        self.flush(usize::MAX);
        let cancel = self.state().calls.cancel_of(id);
        if let Some(cancel) = cancel {
            cancel.overrun(Late::new(Arc::clone(self), id));
        }
        true
    }

    /// Reads until there is nothing more to read, or another thread does.
    pub(super) fn read(self: &Arc<Self>) {
        loop {
            let mut reader = self.reader();
            let frame = match reader.input.next() {
                Ok(Some(Next::Frame(frame))) => frame,
                Ok(Some(Next::Part(part))) => {
                    if let Some(body) = self.state().calls.lend(&part) {
                        reader.input.lend(body);
                    }
                    continue;
                }
                Ok(None) => match self.fill(&mut reader) {
                    Ok(()) => continue,
                    Err(Over) => break,
                },
                Err(broken) => break self.protest(&broken),
            };
            let received = reader.received;
            drop(reader);
            let event = {
                let mut state = self.state();
                let handler = &self.handler;
                state.calls.take(frame, received, |index| handler.max_body(index))
            };
            match event {
                Ok(Event::Nothing) => {}
                Ok(Event::Whole(whole)) => {
                    if !self.call(whole) {
                        self.flush(usize::MAX);
                        return;
                    }
                }
                Ok(Event::Cancelled(cancel)) => cancel.cancel(),
                Ok(Event::Subscribe(wanted)) => self.subscribe(wanted),
                Ok(Event::Acknowledged(id, seq, source)) => self.acknowledge(id, seq, &*source),
                Ok(Event::Left(source)) => drop(source),
                Ok(Event::Closed) => break,
                Err(broken) => break self.protest(&broken),
            }
        }
        self.end();
    }

    /// Runs the handler; answers whether this thread is still the one that reads.
    fn call(self: &Arc<Self>, whole: Whole) -> bool {
        let Whole { id, index, deadline_ms, meta, body, received } = whole;
        let started = Instant::now();
        let request = FrameCall { index, deadline_ms, meta, body, received, started, peer: &self.peer };
        let reply = Replier::new(Arc::clone(self), id);
        let run = watcher::stamp(started) << 1 | 1;
        self.running.store(id, Ordering::Relaxed);
        self.turn.store(run, Ordering::SeqCst);
        watcher::rouse();
        INSIDE.set((Arc::as_ptr(self).addr(), run));
        // The panic hook has reported it, and the reply was dropped by it, which answers the call.
        _ = catch_unwind(AssertUnwindSafe(|| self.handler.call(request, reply)));
        INSIDE.set((0, 0));
        self.turn.compare_exchange(run, run & !1, Ordering::SeqCst, Ordering::SeqCst).is_ok()
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
            thread::yield_now();
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
