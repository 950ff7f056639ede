//! One connection, and everybody who writes to it. Nobody waits in a write.

use std::cell::Cell;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use rustix::event::{EventfdFlags, eventfd};

use super::calls::{Calls, Event};
use super::{Cancel, FrameHandler, FrameLimits, Place, watcher};
use crate::frame::SEND_BUFFER_BYTES;
use crate::frame::input::Input;
use crate::frame::patience::Patience;
use crate::frame::pipe::Pipe;
use crate::peer::Peer;
use crate::shm::Lender;
use goplug_pconf_schema::wire::frame::Broken;

/// How often somebody other than the reader writes on before the reader has to.
const FOREIGN_WRITES: usize = 8;
thread_local! {
    /// The run (see [`State::run`]) of the handler that this thread is inside of, and its connection's address.
    pub(super) static INSIDE: Cell<(usize, u64)> = const { Cell::new((0, 0)) };
}

pub(super) struct Connection {
    pub(super) pipe: Pipe,
    /// Wakes the reader.
    pub(super) wake: OwnedFd,
    pub(super) handler: Arc<dyn FrameHandler>,
    pub(super) peer: Peer,
    pub(super) limits: FrameLimits,
    /// By which segments are made for it.
    pub(super) number: u64,
    /// Held by the thread that reads, but for the time inside a handler.
    pub(super) reader: Mutex<Reader>,
    pub(super) state: Mutex<State>,
}

pub(super) struct Reader {
    pub(super) input: Input,
    pub(super) patience: Patience,
    /// When the last bytes came.
    pub(super) received: Instant,
    /// Whether it is known what frames travel through: the first frame may change it.
    pub(super) is_greeted: bool,
}

pub(super) struct State {
    pub(super) calls: Calls,
    /// What came behind the requests that are ready, if it leads to anything: nothing is taken behind it before.
    pub(super) then: Option<Result<Event, Broken>>,
    /// When the last handler began, doubled, plus one while it runs. Whoever takes the one away goes on reading: the
    /// thread that ran the handler, or one that the watcher has started.
    pub(super) run: u64,
    /// The call whose handler runs on the reading thread, and whom to tell when its caller waits no longer.
    pub(super) running: u64,
    pub(super) told: Option<Arc<dyn Cancel>>,
    /// Somebody writes what has been queued, and looks again afterwards.
    pub(super) is_writing: bool,
    /// The reader sleeps, and does not look for room in the socket.
    pub(super) is_deaf: bool,
    /// The connection ends once all calls are answered.
    pub(super) is_closing: bool,
    pub(super) has_ended: bool,
    pub(super) place: Option<Place>,
}

/// A connection whose reader is gone must not look alive.
struct EndOnPanic(Arc<Connection>);

impl Drop for EndOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.end();
        }
    }
}

impl Lender for Connection {
    fn give_back(&self, segment: u64) {
        self.send(|calls| calls.give_back(segment));
    }
}

impl Connection {
    pub(super) fn new(
        stream: UnixStream,
        first: &[u8],
        peer: Peer,
        handler: Arc<dyn FrameHandler>,
        limits: FrameLimits,
        lends: bool,
        place: Place,
    ) -> io::Result<Self> {
        // Only slower without it.
        _ = rustix::net::sockopt::set_socket_send_buffer_size(&stream, SEND_BUFFER_BYTES);
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let patience = Patience::new(limits.latency);
        let reader = Mutex::new(Reader {
            input: Input::new(first),
            patience,
            received: Instant::now(),
            is_greeted: !first.is_empty(),
        });
        let calls = Calls::new(limits.max_calls, limits.max_subscriptions, lends);
        let number = calls.segments.number();
        let state = Mutex::new(State {
            calls,
            then: None,
            run: 0,
            running: 0,
            told: None,
            is_writing: false,
            is_deaf: false,
            is_closing: false,
            has_ended: false,
            place: Some(place),
        });
        let pipe = Pipe::new(Arc::new(stream), None);
        Ok(Self { pipe, wake, handler, peer, limits, number, reader, state })
    }

    /// Begins to read.
    ///
    /// # Errors
    /// When there is no thread for it.
    pub(super) fn start(self: &Arc<Self>) -> io::Result<()> {
        watcher::watch(self)?;
        Self::spawn(self, None)
    }

    /// Starts a thread that reads on; with `run` only if that handler still runs then.
    pub(super) fn spawn(this: &Arc<Self>, run: Option<u64>) -> io::Result<()> {
        let this = Arc::clone(this);
        let thread = thread::Builder::new().name("goplug-frames".into());
        thread.spawn(move || {
            let guard = EndOnPanic(this);
            let this = &guard.0;
            if run.is_none_or(|run| this.take_over(run)) {
                let handler = Arc::clone(&this.handler);
                handler.on_thread(&mut || this.read());
            }
        })?;
        Ok(())
    }

    /// The value of [`State::run`], when that handler began, and whether it runs.
    pub(super) fn run(&self) -> (u64, u64, bool) {
        let run = self.state().run;
        (run, run / 2, run % 2 == 1)
    }

    /// Changes the calls without anything to send.
    pub(super) fn change<T>(&self, act: impl FnOnce(&mut Calls) -> T) -> T {
        act(&mut self.state().calls)
    }

    /// Changes the calls and sends what they have to say: the reading thread when the input is drained, any other now.
    pub(super) fn send<T>(&self, act: impl FnOnce(&mut Calls) -> T) -> T {
        let mut state = self.state();
        let done = act(&mut state.calls);
        let is_reader = INSIDE.get() == (std::ptr::from_ref(self).addr(), state.run);
        drop(state);
        if !is_reader {
            self.flush(FOREIGN_WRITES);
        }
        done
    }

    /// Ends the connection once all calls are answered.
    pub(super) fn close(&self) {
        self.state().is_closing = true;
        self.ring();
    }

    /// Ends the connection now.
    pub(super) fn end(&self) {
        let (cancels, sources, place) = {
            let mut state = self.state();
            state.has_ended = true;
            let mut cancels = state.calls.close();
            cancels.extend(state.told.clone().filter(|_| state.run % 2 == 1));
            (cancels, state.calls.subscriptions.close(), state.place.take())
        };
        self.pipe.close();
        for cancel in cancels {
            cancel.cancel();
        }
        drop(sources);
        drop(place);
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn reader(&self) -> MutexGuard<'_, Reader> {
        self.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ring(&self) {
        // It fails when it has been rung 2^64 times without being heard.
        _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }

    /// Writes what has been queued, as far as the socket takes it, in at most `rounds` writes. If somebody else is
    /// writing, that one goes on with what was queued here. Answers how many bytes are left.
    pub(super) fn flush(&self, rounds: usize) -> usize {
        let mut state = self.state();
        if state.is_writing {
            return state.calls.outbox.len();
        }
        state.is_writing = true;
        for _ in 0..rounds {
            state.calls.pump();
            if state.calls.outbox.is_empty() || state.has_ended {
                break;
            }
            let mut batch = std::mem::take(&mut state.calls.outbox);
            state.calls.subscriptions.writes(batch.len());
            drop(state);
            let written = batch.write_to(&self.pipe);
            let is_full = !batch.is_empty();
            state = self.state();
            state.calls.subscriptions.wrote(batch.len());
            if !state.has_ended {
                state.calls.outbox.put_back(batch);
            }
            if written.is_err() {
                // The reader sees its end.
                self.pipe.close();
                state.calls.outbox = Default::default();
            }
            if is_full || written.is_err() {
                break;
            }
        }
        state.is_writing = false;
        // What the last round made room for is left, too: nobody else would look at it.
        state.calls.pump();
        let rest = state.calls.outbox.len();
        if state.is_deaf && (rest > 0 || state.is_closing) {
            state.is_deaf = false;
            drop(state);
            self.ring();
        }
        rest
    }
}
