//! Calls from threads that have no runtime.

use std::cell::RefCell;
use std::io;
use std::sync::Arc;
use std::task::{Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Instant;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec};

use super::call::Call;
use super::reader::Sleep;
use super::{FrameConnection, FrameReply, FrameRequest, Shared};
use crate::error::{Error, ErrorKind};

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

impl FrameConnection {
    /// Makes a call from a thread without a runtime and waits for its reply, at most until its deadline.
    ///
    /// # Errors
    /// [`ErrorKind::Deadline`] when the time is up: the call is cancelled, and may have run. Otherwise as the call's.
    pub fn call_blocking(&self, request: FrameRequest<'_>) -> Result<FrameReply, Error> {
        let waker = this_thread();
        let deadline = request.deadline;
        let mut call = Call::new(&self.shared, request);
        loop {
            let now = Instant::now();
            if now >= deadline {
                return Err(Error::new(ErrorKind::Deadline, true, "the reply did not come in time"));
            }
            match call.advance(&mut Sleep::Thread { waker: &waker, until: deadline }) {
                Poll::Ready(done) => return done,
                // Another caller reads, and wakes this one when its reply has come or the seat is free.
                Poll::Pending => std::thread::park_timeout(deadline - now),
            }
        }
    }
}

/// Wakes this thread.
pub(super) fn this_thread() -> Waker {
    thread_local! {
        static WAKER: RefCell<Waker> = RefCell::new(Arc::new(Unpark(std::thread::current())).into());
    }
    WAKER.with_borrow(Waker::clone)
}

/// Sleeps on the socket, until `until` or until somebody rings.
pub(super) fn sleep(shared: &Shared, for_room: bool, until: Instant) -> io::Result<()> {
    let bell = match shared.bell.get() {
        Some(bell) => bell,
        None => {
            let new = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
            shared.bell.get_or_init(|| new)
        }
    };
    if !shared.pipe.may_sleep(true, for_room)? {
        if for_room {
            shared.write(None);
        }
        return Ok(());
    }
    let events =
        if for_room && shared.pipe.socket_tells_of_room() { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
    let mut fds = [
        PollFd::from_borrowed_fd(rustix::fd::AsFd::as_fd(&*shared.pipe.socket), events),
        PollFd::new(bell, PollFlags::IN),
    ];
    let left = until.saturating_duration_since(Instant::now());
    let timeout = Timespec::try_from(left).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    match rustix::event::poll(&mut fds, Some(&timeout)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    if !fds[0].revents().is_empty() {
        shared.pipe.hear();
    }
    if !fds[1].revents().is_empty() {
        // Emptied for the next sleep; that it is empty already is as good.
        _ = rustix::io::read(bell, &mut [0; 8]);
    }
    if for_room {
        shared.write(None);
    }
    Ok(())
}
