//! The reader: writes what waits, reads what comes, hands out replies, and sleeps when there is nothing to do.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::state::Reader;
use super::{FrameReply, Shared, Wrote, blocking, take};
use crate::error::{Error, ErrorKind};
use crate::frame::input::{Input, Read};
use crate::frame::patience::Patience;
use crate::peer::watch_socket;

/// Calls in a row that may end without their task having waited; then others get a turn.
const MAX_STREAK: u32 = 32;

/// What belongs to whoever reads.
#[derive(Debug)]
pub(super) struct Seat {
    input: Input,
    patience: Patience,
    /// When something was last read.
    heard: Instant,
    /// The call whose reader sleeps: it does not look again when it is woken.
    sleeper: u64,
    /// The socket as the runtime knows it, while a reader sleeps on it; and whether for room to write too.
    asleep: Option<(AsyncFd<Arc<UnixStream>>, bool)>,
    /// Whom to wake, kept from one batch to the next.
    wakers: Vec<Waker>,
}

impl Seat {
    pub(super) fn new(first: &[u8], patience: Patience) -> Self {
        Self { input: Input::new(first), patience, heard: Instant::now(), sleeper: 0, asleep: None, wakers: Vec::new() }
    }
}

/// How a caller sleeps.
pub(super) enum Sleep<'a, 'b> {
    Task(&'a mut Context<'b>),
    Thread { waker: &'a Waker, until: Instant },
}

impl Sleep<'_, '_> {
    fn waker(&self) -> &Waker {
        match self {
            Self::Task(cx) => cx.waker(),
            Self::Thread { waker, .. } => waker,
        }
    }

    /// Whether a thread has waited long enough.
    fn is_over(&self) -> bool {
        matches!(self, Self::Thread { until, .. } if Instant::now() >= *until)
    }

    pub(super) fn remember(&self, place: &mut Option<Waker>) {
        match place {
            Some(known) => known.clone_from(self.waker()),
            None => *place = Some(self.waker().clone()),
        }
    }
}

impl Shared {
    /// Reads for call `id`, which is the reader, until it has its reply.
    pub(super) fn read(&self, id: u64, sleep: &mut Sleep<'_, '_>) -> Poll<Result<FrameReply, Error>> {
        let mut seat = self.seat();
        let mut gave_way = false;
        loop {
            if self.gives_way(id, sleep, &mut gave_way) {
                return Poll::Pending;
            }
            self.takes_note();
            let wrote = self.write(Some(true));
            if wrote == Wrote::Told
                && let Some(done) = self.told(id)
            {
                return Poll::Ready(done);
            }
            let is_full = wrote != Wrote::All && self.pipe.rings().is_some();
            let read = match self.look(&mut seat, id, is_full, sleep) {
                Poll::Ready(read) => read,
                Poll::Pending => {
                    let mut state = self.lock();
                    // Between the look and this lock others may have appended and been unable to write.
                    let must_write = !state.outbox.is_empty() && !state.writing;
                    let Some(entry) = state.entry(id) else { return Poll::Pending };
                    sleep.remember(&mut entry.waker);
                    if entry.done.is_none() && (!must_write || seat.waits_for_room()) {
                        return Poll::Pending;
                    }
                    continue;
                }
            };
            self.take(&mut seat, read);
            let mut state = self.lock();
            let done = state.collect(id);
            if done.is_none() && sleep.is_over() {
                return Poll::Pending;
            }
            state.streak += u32::from(done.is_some());
            let Some(done) = done else {
                drop(state);
                gave_way &= seat.wakers.is_empty();
                seat.wakers.drain(..).for_each(Waker::wake);
                continue;
            };
            seat.wakers.extend(self.resign(state));
            let mut wakers = std::mem::take(&mut seat.wakers);
            drop(seat);
            wakers.drain(..).for_each(Waker::wake);
            return Poll::Ready(done);
        }
    }

    /// What the reader itself was told while it wrote; it leaves the seat then.
    fn told(&self, id: u64) -> Option<Result<FrameReply, Error>> {
        let mut state = self.lock();
        let done = state.collect(id)?;
        let next = self.resign(state);
        next.into_iter().for_each(Waker::wake);
        Some(done)
    }

    /// Whether the reader lets other tasks run first: those that were just answered may have more to say, and what they
    /// say goes out in one write with what waits already. Others may not have come to say anything yet, because this task
    /// has had every reply before it had to wait.
    fn gives_way(&self, id: u64, sleep: &mut Sleep<'_, '_>, gave_way: &mut bool) -> bool {
        let Sleep::Task(cx) = sleep else { return false };
        if std::mem::replace(gave_way, true) {
            return false;
        }
        let mut state = self.lock();
        let has_reason = state.uncollected > 0 || state.streak >= MAX_STREAK;
        if state.gave_way || !has_reason {
            state.gave_way = false;
            return false;
        }
        (state.promised, state.gave_way, state.streak) = (true, true, 0);
        if let Some(entry) = state.entry(id) {
            entry.waker = Some(cx.waker().clone());
        }
        drop(state);
        cx.waker().wake_by_ref();
        true
    }

    /// Reads for the keeper, until somebody else does, the connection has ended, or it is not so any more that somebody, or
    /// nobody, listens.
    pub(super) fn keep(&self, cx: &mut Context<'_>, is_listening: bool) -> Poll<()> {
        let mut seat = self.seat();
        loop {
            {
                let mut state = self.lock();
                let is_mine = state.reader == Reader::Keeper && state.ended().is_none();
                if !is_mine || state.listening.is_empty() == is_listening {
                    return Poll::Ready(());
                }
                state.keeper = Some(cx.waker().clone());
            }
            self.write(None);
            let Poll::Ready(read) = self.sleep(&mut seat, &mut Sleep::Task(cx)) else { return Poll::Pending };
            self.take(&mut seat, read);
            seat.wakers.drain(..).for_each(Waker::wake);
        }
    }

    fn take(&self, seat: &mut Seat, read: io::Result<Read>) {
        let taken = match read {
            Ok(Read::Empty) => Ok(()),
            Ok(Read::Some) => take::take_all(&mut self.lock(), &mut seat.input, &mut seat.wakers),
            Ok(Read::End) => {
                Err(Error::new(ErrorKind::Closed, true, "the plugin closed the connection before its reply"))
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(take::refuse(&error.to_string())),
            Err(error) => Err(Error::from_io(&error, true, "read from the plugin")),
        };
        if let Err(error) = taken {
            self.end(&error);
        }
    }

    /// Looks for bytes as long as that is worth while, then sleeps, in place of call `id`.
    fn look(&self, seat: &mut Seat, id: u64, mut is_full: bool, sleep: &mut Sleep<'_, '_>) -> Poll<io::Result<Read>> {
        if seat.sleeper != id {
            let began = Instant::now();
            let silence = began.saturating_duration_since(seat.heard);
            let window = seat.patience.window(silence);
            if !window.is_zero() {
                // Registered, each byte would wake the thread that waits for the runtime's events.
                seat.asleep = None;
                loop {
                    // First of all: on one core it is this that lets the plugin run.
                    self.pipe.pause();
                    // What others leave to be written here meanwhile leaves in one write. Into the rings the plugin makes room
                    // without a word, unless we sleep.
                    if self.takes_note() || is_full {
                        is_full = match self.write(Some(true)) {
                            Wrote::All => false,
                            Wrote::TillFull => self.pipe.rings().is_some(),
                            // The task that was told, if it is this one, is to look at once.
                            Wrote::Told => return Poll::Ready(Ok(Read::Empty)),
                        };
                    }
                    let read = seat.input.read_from(&self.pipe);
                    let waited = began.elapsed();
                    if !matches!(read, Ok(Read::Empty)) {
                        seat.patience.found(waited);
                        seat.heard = began + waited;
                        return Poll::Ready(read);
                    }
                    if waited >= window {
                        break;
                    }
                }
            }
            seat.patience.slept(silence);
        }
        let slept = self.sleep(seat, sleep);
        match slept {
            Poll::Pending => seat.sleeper = id,
            Poll::Ready(_) => (seat.sleeper, seat.heard) = (0, Instant::now()),
        }
        slept
    }

    /// Takes the promise back, after which everybody writes alone; answers whether something is left for which there is no room.
    fn stops_writing(&self) -> bool {
        loop {
            {
                let mut state = self.lock();
                state.promised = false;
                if !self.takes_note() {
                    return !state.outbox.is_empty();
                }
            }
            self.write(None);
        }
    }

    /// Sleeps until there is something to read, or room for what waits to be written.
    fn sleep(&self, seat: &mut Seat, sleep: &mut Sleep<'_, '_>) -> Poll<io::Result<Read>> {
        let for_room = self.stops_writing();
        let cx = match sleep {
            Sleep::Task(cx) => cx,
            Sleep::Thread { until, .. } => {
                seat.asleep = None;
                blocking::sleep(self, for_room, *until)?;
                return Poll::Ready(seat.input.read_from(&self.pipe));
            }
        };
        if seat.asleep.as_ref().is_none_or(|(_, room)| *room != for_room) {
            seat.asleep = None;
            let interest = if for_room && self.pipe.socket_tells_of_room() {
                Interest::READABLE | Interest::WRITABLE
            } else {
                Interest::READABLE
            };
            seat.asleep = Some((watch_socket(&self.pipe.socket, interest)?, for_room));
        }
        let Seat { input, asleep: Some((fd, _)), .. } = seat else { return Poll::Pending };
        loop {
            // Until it is pending: only then does room wake this task.
            while for_room
                && self.pipe.socket_tells_of_room()
                && let Poll::Ready(ready) = fd.poll_write_ready(cx)
            {
                ready?.clear_ready();
                self.write(None);
            }
            let Poll::Ready(ready) = fd.poll_read_ready(cx) else {
                if self.pipe.may_sleep(true, for_room)? {
                    return Poll::Pending;
                }
                if for_room {
                    self.write(None);
                }
                // Nothing, if it was room.
                return Poll::Ready(input.read_from(&self.pipe));
            };
            let mut ready = ready?;
            self.pipe.hear();
            if for_room && !self.pipe.socket_tells_of_room() {
                self.write(None);
            }
            let read = input.read_from(&self.pipe);
            if matches!(read, Ok(Read::Empty)) {
                ready.clear_ready();
            } else {
                return Poll::Ready(read);
            }
        }
    }
}

impl Seat {
    fn waits_for_room(&self) -> bool {
        self.asleep.as_ref().is_some_and(|(_, room)| *room)
    }
}
