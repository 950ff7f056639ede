//! Shared memory: frames travel through two rings in a memfd that both sides have mapped, instead of through the socket.
//!
//! [`ring`] is the ring itself, pure; [`region`] the memory; [`Rings`] both directions with what wakes whom; [`greeting`] how
//! the two sides come to have them. The socket stays: its end is the end of the connection, and a byte in it wakes the side
//! that sleeps on it. (An eventfd was the first idea. But whether writing to one may wait is a property of the eventfd, not of
//! the write: a peer that fills it and then lets it wait holds up for ever whoever rings. A byte in a socket asks by itself not
//! to wait, costs no descriptor, and arrives where the end of the connection arrives, so that a sleeper watches one thing.)

pub(crate) mod descriptor;
mod greeting;
mod mapping;
mod memory;
mod region;
mod ring;
mod shelf;
mod view;

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use goplug_pconf_schema::wire::frame::Broken;
use rustix::io::Errno;
use rustix::net::SendFlags;

#[cfg(feature = "server")]
pub(crate) use greeting::{Greeting, greet};
#[cfg(feature = "client")]
pub(crate) use greeting::{Offer, offer};
pub(crate) use memory::Owner;
pub use memory::Segment;
#[cfg(feature = "memory")]
pub use region::Region;
#[cfg(not(feature = "memory"))]
use region::Region;
use ring::{Consumer, Producer};
pub(crate) use shelf::MIN_BODY_BYTES;
pub(crate) use view::{Lender, Window};
pub use view::{View, ViewReader, Words};

/// How long each of the two rings is. `docs/performance.md` has what other lengths cost.
const RING_BYTES: u64 = 1024 * 1024;
/// After so many bytes the other side may begin with them while this one goes on.
const STEP_BYTES: usize = 32 * 1024;

/// Looks between two looks of a reader, each followed by the processor's own pause: half a microsecond or so. A system call,
/// which lets others run, takes as long as a peer on another core takes to answer; so nobody should make one for each look.
const SPINS: u32 = 16;

/// One side of a connection in shared memory. The socket is always that of the connection.
#[derive(Debug)]
pub(crate) struct Rings {
    incoming: Mutex<Incoming>,
    outgoing: Mutex<Producer<Region>>,
    /// The other side has closed; what it had written before is still read.
    has_ended: AtomicBool,
    /// This side has closed, and takes nothing any more.
    is_closed: AtomicBool,
    /// Descriptors that came over the socket, for frames that come through the ring.
    descriptors: Mutex<VecDeque<OwnedFd>>,
}

#[derive(Debug)]
struct Incoming {
    consumer: Consumer<Region>,
    /// This side has said that it sleeps.
    is_asleep: bool,
}

/// Which side of a connection this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    #[cfg(feature = "client")]
    Registry,
    #[cfg(feature = "server")]
    Plugin,
}

impl Rings {
    fn new(region: Region, side: Side) -> Self {
        let [there, back] = region.places();
        let (incoming, outgoing) = match side {
            #[cfg(feature = "client")]
            Side::Registry => (back, there),
            #[cfg(feature = "server")]
            Side::Plugin => (there, back),
        };
        Self {
            incoming: Mutex::new(Incoming { consumer: Consumer::new(region.clone(), incoming), is_asleep: false }),
            outgoing: Mutex::new(Producer::new(region, outgoing)),
            has_ended: AtomicBool::new(false),
            is_closed: AtomicBool::new(false),
            descriptors: Mutex::default(),
        }
    }

    /// Reads what is there now behind what `into` holds: at most `most` bytes, and no more than it has room for. `None`
    /// when nothing is there, 0 at the end.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] when what is in the memory cannot be.
    #[allow(unsafe_code)]
    pub(crate) fn receive(&self, socket: &UnixStream, into: &mut Vec<u8>, most: usize) -> io::Result<Option<usize>> {
        if self.is_closed.load(Ordering::Relaxed) {
            return Ok(Some(0));
        }
        let mut incoming = self.incoming();
        if std::mem::take(&mut incoming.is_asleep) {
            incoming.consumer.is_awake();
        }
        // Before the look: what was written before the end is found by it.
        let has_ended = self.has_ended.load(Ordering::Acquire);
        let room = into.spare_capacity_mut();
        let most = most.min(room.len());
        let mut count = 0;
        while count < most {
            let step = most.min(count + STEP_BYTES);
            let took = incoming.consumer.take(&mut room[count..step]).map_err(broken)?;
            if took == 0 {
                break;
            }
            count += took;
            if incoming.consumer.release() {
                self.ring(socket);
            }
        }
        // SAFETY: `take` has written that many bytes in all, one run behind the other, from the vector's length on; they lie
        // within its capacity, because `room` does.
        unsafe { into.set_len(into.len() + count) };
        Ok(if count > 0 || has_ended { Some(count) } else { None })
    }

    /// Looks for a moment whether something comes.
    pub(crate) fn spin(&self) {
        let incoming = self.incoming();
        for _ in 0..SPINS {
            if incoming.consumer.has_news() {
                return;
            }
            std::hint::spin_loop();
        }
    }

    /// Writes as much of `slices` as there is room for now; `None` when there is none.
    ///
    /// # Errors
    /// [`io::ErrorKind::BrokenPipe`] when the other side has closed: it has then seen nothing of this.
    pub(crate) fn send(&self, socket: &UnixStream, slices: &[IoSlice<'_>]) -> io::Result<Option<usize>> {
        if self.is_closed.load(Ordering::Relaxed) || self.has_ended.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let mut outgoing = self.outgoing();
        let (mut seen, mut unseen) = (0, 0);
        'all: for slice in slices {
            let mut rest = &slice[..];
            while !rest.is_empty() {
                let count = outgoing
                    .put(&rest[..rest.len().min(STEP_BYTES - unseen)])
                    .map_err(|rule| self.refuse(socket, rule))?;
                if count == 0 {
                    break 'all;
                }
                (unseen, rest) = (unseen + count, &rest[count..]);
                if unseen == STEP_BYTES {
                    if outgoing.publish() && !self.ring(socket) {
                        return self.sent(seen);
                    }
                    (seen, unseen) = (seen + unseen, 0);
                }
            }
        }
        if unseen > 0 && outgoing.publish() && !self.ring(socket) {
            return self.sent(seen);
        }
        Ok((seen + unseen > 0).then_some(seen + unseen))
    }

    /// The reader, who may sleep, has to know as well.
    fn refuse(&self, socket: &UnixStream, rule: Broken) -> io::Error {
        self.has_ended.store(true, Ordering::Release);
        _ = socket.shutdown(std::net::Shutdown::Both);
        broken(rule)
    }

    /// What to answer when a side that slept could not be woken: it closed in its sleep, and does not read on.
    fn sent(&self, seen: usize) -> io::Result<Option<usize>> {
        if seen > 0 { Ok(Some(seen)) } else { Err(io::ErrorKind::BrokenPipe.into()) }
    }

    /// To be called before this side sleeps on the socket; answers whether it may: from here on it is woken by a byte when
    /// there is something to read or, with `for_room`, room to write. If not, that is so already.
    pub(crate) fn may_sleep(&self, for_bytes: bool, for_room: bool) -> io::Result<bool> {
        let mut has_reason = self.is_closed.load(Ordering::Relaxed) || self.has_ended.load(Ordering::Relaxed);
        if for_bytes {
            let mut incoming = self.incoming();
            incoming.is_asleep = true;
            has_reason |= incoming.consumer.falls_asleep().map_err(broken)?;
        }
        if for_room {
            has_reason |= self.outgoing().wants_room().map_err(broken)?;
        }
        Ok(!has_reason)
    }

    /// To be called when the socket has woken this side: takes the bytes that rang, and sees the end.
    pub(crate) fn hear(&self, socket: &UnixStream) {
        let mut bytes = [0_u8; 256];
        let heard = descriptor::receive_some(socket, &mut bytes, &mut self.descriptors());
        match heard {
            Ok(1..) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Ok(0) | Err(_) => self.has_ended.store(true, Ordering::Release),
        }
    }

    /// The descriptor of a frame that has come: it was sent before.
    pub(crate) fn descriptor(&self, socket: &UnixStream) -> Option<OwnedFd> {
        if self.descriptors().is_empty() {
            self.hear(socket);
        }
        self.descriptors().pop_front()
    }

    /// Sends a descriptor, before the frame that it belongs to.
    ///
    /// # Errors
    /// When the socket does not take it: in it are bytes that wake, and of them few.
    pub(crate) fn send_descriptor(&self, socket: &UnixStream, fd: &OwnedFd) -> io::Result<()> {
        descriptor::send_some(socket, &[1], fd).map(|_| ())
    }

    /// This side takes and writes nothing any more.
    pub(crate) fn close(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
    }

    /// Wakes the other side; false when nobody is there any more.
    fn ring(&self, socket: &UnixStream) -> bool {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        match rustix::io::retry_on_intr(|| rustix::net::send(socket, &[1], flags)) {
            // A socket that is full of such bytes wakes, too.
            Ok(_) | Err(Errno::AGAIN) => true,
            Err(_) => {
                self.has_ended.store(true, Ordering::Release);
                false
            }
        }
    }

    fn descriptors(&self) -> MutexGuard<'_, VecDeque<OwnedFd>> {
        self.descriptors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn incoming(&self) -> MutexGuard<'_, Incoming> {
        self.incoming.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn outgoing(&self) -> MutexGuard<'_, Producer<Region>> {
        self.outgoing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn broken(Broken(rule): Broken) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, rule)
}

#[cfg(test)]
#[cfg(all(feature = "client", feature = "server"))]
pub(crate) fn pair() -> (Rings, Rings) {
    let (region, memfd) = Region::create(RING_BYTES).unwrap();
    let theirs = Region::open(&memfd, RING_BYTES).unwrap();
    (Rings::new(region, Side::Registry), Rings::new(theirs, Side::Plugin))
}

#[cfg(test)]
#[cfg(all(feature = "client", feature = "server"))]
mod tests;
