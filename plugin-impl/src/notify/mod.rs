//! Notifications: the author's side of a callback. What is kept, and for whom, is decided in [`window`].

pub(crate) mod push;
pub(crate) mod stream;
pub(crate) mod window;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use goplug_pconf_schema::wire::event::{Ack, CallbackStatus, Class, Position};
use goplug_pconf_schema::wire::hello::CallbackInfo;
use goplug_pconf_schema::{Code, Fault, Ran, printable};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::callback::Callback;
use window::{Losses, RETAIN, Refusal, Window};

/// Sends notifications to whoever subscribed. Cloning copies a reference; it works from any thread, before the plugin
/// starts and while it is inactive, until it stops.
///
/// # Example: nobody listens yet, and nothing is lost
/// ```
/// # use goplug_plugin_impl::{Error, Plugin};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Error> {
/// # let dir = std::env::temp_dir();
/// let plugin = Plugin::builder(dir).name("clock").callback("tick").build()?;
/// let position = plugin.notifier().notify("tick", "12:00").await?;
/// assert_eq!(position.seq, 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Notifier {
    board: Arc<Board>,
}

struct Board {
    cells: Vec<Arc<Cell>>,
    by_name: HashMap<Arc<str>, usize>,
    /// Changes whenever an acknowledgement or the end of a stream may let a drain go on.
    settled: watch::Sender<()>,
    /// True once an activation has begun, or the plugin leaves.
    begun: watch::Sender<bool>,
}

/// One callback: its window and whoever waits for it to change.
pub(crate) struct Cell {
    pub(crate) info: CallbackInfo,
    window: Mutex<Window>,
    /// Times of the window count from here.
    origin: Instant,
    /// Streams wait here: a message has come, or a stream is over.
    arrived: watch::Sender<()>,
    /// As `arrived`, for readers that are pushed to.
    outlets: push::Outlets,
    /// `notify` waits here: something was acknowledged, or somebody has left.
    room: watch::Sender<()>,
    room_for_threads: Condvar,
    /// Whoever delivers to a v0 poll holds this, so that the next poll begins behind what was written.
    pub(crate) poll_turn: Arc<tokio::sync::Mutex<()>>,
}

impl Cell {
    /// Runs `act` on the window and the time.
    fn with<T>(&self, act: impl FnOnce(&mut Window, Duration) -> T) -> T {
        act(&mut self.lock(), self.now())
    }

    fn lock(&self) -> MutexGuard<'_, Window> {
        // A window is never left half-changed: nothing in it can panic but an allocation that fails.
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    /// Offers a message; the subscriptions that there are at this moment come back with it.
    fn offer(&self, key: Option<&str>, data: Bytes) -> Result<(Position, Vec<(String, u64)>), Refusal> {
        let taken = self.with(|window, now| {
            let seq = window.offer(now, key, data)?;
            Ok((window.position(seq), window.subscribers()))
        })?;
        self.announce();
        Ok(taken)
    }

    fn release_waiters(&self) {
        self.room.send_replace(());
        self.room_for_threads.notify_all();
    }

    /// Waits until the window may have changed in favour of a writer.
    async fn wait_for_room(&self, room: &mut watch::Receiver<()>) {
        let expiry = self.with(|window, _| window.next_expiry()).map(|at| self.origin + at);
        let forgotten = async {
            match expiry {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // The sender lives as long as this cell, so that it cannot be closed.
            _ = room.changed() => {}
            () = forgotten => {}
        }
    }
}

impl Notifier {
    pub(crate) fn new(callbacks: Vec<Callback>, epoch: &Arc<str>) -> Self {
        let origin = Instant::now();
        let cell = |callback: Callback| {
            let name = Arc::from(callback.info.name.as_str());
            let window = Window::new(name, Arc::clone(epoch), callback.info.class, callback.bounds);
            Arc::new(Cell {
                info: callback.info,
                window: Mutex::new(window),
                origin,
                arrived: watch::Sender::default(),
                outlets: push::Outlets::default(),
                room: watch::Sender::default(),
                room_for_threads: Condvar::new(),
                poll_turn: Arc::default(),
            })
        };
        let cells: Vec<_> = callbacks.into_iter().map(cell).collect();
        let by_name = cells.iter().enumerate().map(|(at, cell)| (cell.info.name.as_str().into(), at)).collect();
        Self {
            board: Arc::new(Board {
                cells,
                by_name,
                settled: watch::Sender::default(),
                begun: watch::Sender::default(),
            }),
        }
    }

    /// Sends `data` to every subscriber of `callback` and returns its position.
    ///
    /// Class `event`: waits while the window is full, that is until the slowest subscription acknowledges, or is away
    /// for a minute and forgotten. With no subscription at all, and in the other classes, it never waits.
    ///
    /// # Errors
    /// `not_found` for a callback that was not declared; `too_large` for a message that no window of this callback
    /// holds; `unavailable` when the plugin is stopping.
    ///
    /// # Cancel safety
    /// A dropped future has sent nothing.
    pub async fn notify(&self, callback: &str, data: impl Into<Bytes>) -> Result<Position, Fault> {
        let (cell, data) = (self.cell(callback)?, data.into());
        Ok(Self::offer_patiently(cell, data).await?.0)
    }

    /// As [`Notifier::notify`], and then waits until every subscription of this moment has acknowledged the message.
    /// With no subscription it returns at once. Only class `event` is acknowledged.
    ///
    /// A process that nobody has activated yet waits for that first, at most 60 s: whoever subscribed to the process
    /// before it has its place back by then, and the message counts for it. The activator itself may call this.
    ///
    /// # Errors
    /// As [`Notifier::notify`]; `unavailable` with `ran: no` when nobody activated the plugin within 60 s, and with
    /// `ran: unknown` when a subscription was forgotten, or the plugin stopped, before it acknowledged;
    /// `invalid_argument` for a callback of another class.
    ///
    /// # Cancel safety
    /// A dropped future may have sent the message.
    pub async fn notify_acked(&self, callback: &str, data: impl Into<Bytes>) -> Result<Position, Fault> {
        let (cell, data) = (self.cell(callback)?, data.into());
        if cell.info.class != Class::Event {
            let text = format!("callback `{callback}` is never acknowledged: only class event is");
            return Err(Fault::new(Code::InvalidArgument, text));
        }
        self.wait_for_subscribers().await?;
        let mut room = cell.room.subscribe();
        let (position, mut waiting) = Self::offer_patiently(cell, data).await?;
        loop {
            let ended = cell.with(|window, now| {
                window.expire(now);
                waiting.retain(|mark| window.has_acknowledged(mark, position.seq) != Some(true));
                let has_left = |mark: &(String, u64)| window.has_acknowledged(mark, position.seq).is_none();
                let left = waiting.iter().find(|mark| has_left(mark)).map(|(name, _)| name.clone());
                left.or_else(|| (window.is_ended() && !waiting.is_empty()).then(|| waiting[0].0.clone()))
            });
            if let Some(name) = ended {
                let text = format!("subscription `{name}` left before it acknowledged {position}");
                return Err(Fault::new(Code::Unavailable, text).with_ran(Ran::Unknown));
            }
            if waiting.is_empty() {
                return Ok(position);
            }
            cell.wait_for_room(&mut room).await;
        }
    }

    /// Whoever activates the plugin gives the subscriptions of the process before it their places back first. Until then
    /// nobody is there to acknowledge, although somebody may have subscribed.
    async fn wait_for_subscribers(&self) -> Result<(), Fault> {
        let mut begun = self.board.begun.subscribe();
        let activated = tokio::time::timeout(RETAIN, begun.wait_for(|begun| *begun)).await.is_ok();
        if activated {
            return Ok(());
        }
        let text = format!("nobody has activated the plugin within {} s: no one can subscribe", RETAIN.as_secs());
        Err(Fault::new(Code::Unavailable, text).with_ran(Ran::No))
    }

    /// As [`Notifier::notify`], but never waits.
    ///
    /// # Errors
    /// As [`Notifier::notify`]; `overloaded` when the window is full, which is "would block": nothing was sent.
    pub fn try_notify(&self, callback: &str, data: impl Into<Bytes>) -> Result<Position, Fault> {
        Self::offer_once(self.cell(callback)?, None, data.into())
    }

    /// As [`Notifier::notify`], for methods and threads that are not async.
    ///
    /// # Errors
    /// As [`Notifier::notify`].
    pub fn notify_blocking(&self, callback: &str, data: impl Into<Bytes>) -> Result<Position, Fault> {
        let (cell, data) = (self.cell(callback)?, data.into());
        let mut window = cell.lock();
        loop {
            match window.offer(cell.now(), None, data.clone()) {
                Ok(seq) => {
                    let position = window.position(seq);
                    drop(window);
                    cell.announce();
                    return Ok(position);
                }
                Err(Refusal::Never(fault)) => return Err(fault),
                Err(Refusal::Full) => {
                    let expiry = window.next_expiry().map(|at| at.saturating_sub(cell.now()));
                    let wait = cell.room_for_threads.wait_timeout(window, expiry.unwrap_or(RETAIN));
                    window = wait.unwrap_or_else(PoisonError::into_inner).0;
                }
            }
        }
    }

    /// Sets the value of `key` of a `state` callback; `notify` sets the value of the empty key. Never waits: a
    /// subscriber sees the last value of every key, and may miss those before it.
    ///
    /// # Errors
    /// `not_found` for a callback that was not declared; `invalid_argument` for one of another class or a key of more
    /// than 1,024 bytes; `overloaded` for the 10,001st key; `too_large` as in [`Notifier::notify`].
    pub fn notify_key(&self, callback: &str, key: &str, data: impl Into<Bytes>) -> Result<Position, Fault> {
        Self::offer_once(self.cell(callback)?, Some(key), data.into())
    }

    /// Every callback with its subscriptions: the `get_callbacks` of the original.
    #[doc(alias = "get_callbacks")]
    pub fn callbacks(&self) -> Vec<CallbackStatus> {
        let status = |cell: &Arc<Cell>| {
            let (subscriptions, observers) = cell.with(|window, now| {
                window.expire(now);
                window.status()
            });
            CallbackStatus { name: cell.info.name.clone(), class: cell.info.class, subscriptions, observers }
        };
        self.board.cells.iter().map(status).collect()
    }

    /// What `callback` had to give up since the start.
    ///
    /// # Errors
    /// `not_found` for a callback that was not declared.
    pub fn losses(&self, callback: &str) -> Result<Losses, Fault> {
        Ok(self.cell(callback)?.with(|window, now| {
            window.expire(now);
            window.losses()
        }))
    }

    pub(crate) fn cell(&self, callback: &str) -> Result<&Arc<Cell>, Fault> {
        self.board.by_name.get(callback).map(|at| &self.board.cells[*at]).ok_or_else(|| {
            let text = format!("no callback `{}`; GET /_goplug/callbacks lists them", printable(callback));
            Fault::new(Code::NotFound, text)
        })
    }

    /// The name of the callback at a place of the hello.
    pub(crate) fn callback_at(&self, index: u16) -> Result<&str, Fault> {
        let cell = self.board.cells.get(usize::from(index)).ok_or_else(|| {
            let text = format!("no callback {index}; GET /_goplug/callbacks lists {}", self.board.cells.len());
            Fault::new(Code::NotFound, text)
        })?;
        Ok(&cell.info.name)
    }

    pub(crate) fn infos(&self) -> impl Iterator<Item = &CallbackInfo> {
        self.board.cells.iter().map(|cell| &cell.info)
    }

    pub(crate) fn acknowledge(&self, ack: &Ack) -> Result<(), Fault> {
        self.acknowledge_to(self.cell(&ack.callback)?, &ack.subscription, &ack.position)
    }

    fn acknowledge_to(&self, cell: &Cell, subscription: &str, position: &Position) -> Result<(), Fault> {
        cell.with(|window, now| window.acknowledge(now, subscription, position))?;
        cell.release_waiters();
        self.board.settled.send_replace(());
        Ok(())
    }

    /// Messages that attached subscriptions have not acknowledged.
    pub(crate) fn unacknowledged(&self) -> u64 {
        self.board.cells.iter().map(|cell| cell.with(|window, _| window.unacknowledged())).sum()
    }

    /// Changes whenever [`Notifier::unacknowledged`] may have become smaller.
    pub(crate) fn settled(&self) -> watch::Receiver<()> {
        self.board.settled.subscribe()
    }

    /// An activation begins: from here on the subscriptions that there are count.
    pub(crate) fn begin(&self) {
        self.board.begun.send_replace(true);
    }

    /// Ends every stream and every wait, and refuses further messages.
    pub(crate) fn end(&self) {
        for cell in &self.board.cells {
            cell.with(|window, _| window.end());
            cell.announce();
            cell.release_waiters();
        }
        self.begin();
    }

    fn offer_once(cell: &Cell, key: Option<&str>, data: Bytes) -> Result<Position, Fault> {
        cell.offer(key, data).map(|(position, _)| position).map_err(|refusal| match refusal {
            Refusal::Never(fault) => fault,
            Refusal::Full => {
                let text = format!("the window of callback `{}` is full; wait for an acknowledgement", cell.info.name);
                Fault::new(Code::Overloaded, text)
            }
        })
    }

    async fn offer_patiently(cell: &Cell, data: Bytes) -> Result<(Position, Vec<(String, u64)>), Fault> {
        // Subscribed before the first offer: an acknowledgement in between must not be missed.
        let mut room = cell.room.subscribe();
        loop {
            match cell.offer(None, data.clone()) {
                Ok(taken) => return Ok(taken),
                Err(Refusal::Never(fault)) => return Err(fault),
                Err(Refusal::Full) => cell.wait_for_room(&mut room).await,
            }
        }
    }
}

impl fmt::Debug for Notifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.infos().map(|info| &info.name)).finish()
    }
}
