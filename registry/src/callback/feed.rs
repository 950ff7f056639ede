//! A stream of notifications that survives its connection, its process and its plugin's restarts.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::Duration;

use goplug_pconf_schema::admin::EventKind;
use goplug_pconf_schema::wire::event::{Class, EpochChange, Gap, Position};
use goplug_pconf_schema::{Code, Fault, PluginId};
use goplug_transport::Acknowledger;
use tokio::time::Instant;

use super::cursor::{Cursor, Novelty};
use super::standing::Stands;
use super::stream::{Raw, Stream};
use super::{Notice, acknowledge};
use crate::registry::Inner;
use crate::supervisor::{Live, Shared, Slot};

/// The pause before a broken stream is opened again: doubled from the first to the second.
const PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// Who reads.
#[derive(Debug, Clone)]
pub(crate) enum Reader {
    Subscription(String),
    Observer { after: Option<Position> },
}

/// Notifications of one callback, one by one. Opens its stream again by itself, each time after a growing pause; what the
/// plugin sends again is given once. Reading slowly holds back the plugin, not other feeds.
#[derive(Debug)]
pub struct Feed {
    registry: Weak<Inner>,
    /// The plugin as long as its file stands; then the next one of the same name.
    slot: Arc<Slot>,
    shared: Arc<Shared>,
    callback: String,
    reader: Reader,
    /// Of a subscription, until another feed of its name takes its place.
    stands: Option<Stands>,
    cursor: Cursor,
    /// The process to which an observer was attached last.
    known: Option<String>,
    /// The last message that was acknowledged through this feed.
    acknowledged: Option<Position>,
    stream: Option<Stream>,
    ready: VecDeque<FeedItem>,
    /// The pause before the next attempt, and when it is over.
    pause: Duration,
    open_at: Option<Instant>,
    /// A process that refused: only another one is worth asking.
    refused_by: Option<Arc<Live>>,
    ended: bool,
}

/// What a feed gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FeedItem {
    /// A notification.
    Message(Notice),
    /// Messages that this reader will not see.
    Gap(Gap),
    /// The process is another one; what it kept follows.
    Epoch(EpochChange),
    /// The same subscription was attached elsewhere: the feed has ended.
    Replaced,
    /// The stream broke, for this reason; it is opened again.
    Lost(String),
}

impl Feed {
    pub(crate) fn new(registry: &Arc<Inner>, slot: Arc<Slot>, callback: &str, reader: Reader) -> Self {
        let after = match &reader {
            Reader::Observer { after } => after.clone(),
            Reader::Subscription(_) => None,
        };
        let stands = match &reader {
            Reader::Subscription(name) => Some(registry.shared.standing.add(&slot.id, callback, name)),
            Reader::Observer { .. } => None,
        };
        Self {
            registry: Arc::downgrade(registry),
            slot,
            shared: Arc::clone(&registry.shared),
            callback: callback.to_owned(),
            reader,
            stands,
            cursor: Cursor::new(Class::Event, after),
            known: None,
            acknowledged: None,
            stream: None,
            ready: VecDeque::new(),
            pause: PAUSES.0,
            open_at: None,
            refused_by: None,
            ended: false,
        }
    }

    /// The plugin.
    pub fn plugin(&self) -> &PluginId {
        &self.slot.id
    }

    /// Attaches now if a process serves, so that nothing that is notified from here on is missed. What speaks against this
    /// reader for good is an error; what may pass is tried again by [`Feed::next`].
    pub(crate) async fn attach(&mut self) -> Result<(), Fault> {
        let Some(live) = self.slot.live() else { return Ok(()) };
        match self.open_on(live).await {
            Err(fault)
                if matches!(fault.code, Code::NotFound | Code::InvalidArgument | Code::Overloaded | Code::Denied) =>
            {
                Err(fault)
            }
            _ => Ok(()),
        }
    }

    /// The next item; `None` when the registry is closed, or after [`FeedItem::Replaced`].
    ///
    /// # Cancel safety
    /// Safe; of a v0 plugin, a notification that arrives while nobody waits is lost.
    pub async fn next(&mut self) -> Option<FeedItem> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Some(item);
            }
            if self.ended {
                return None;
            }
            let Some(stream) = &mut self.stream else {
                if !self.open().await {
                    self.ended = true;
                }
                continue;
            };
            let live = Arc::clone(&stream.live);
            match stream.next().await {
                Ok(raw) => self.take(raw, &live).await,
                Err(fault) => self.lost(&fault),
            }
        }
    }

    /// Acknowledges everything up to `position`. An observer has nothing to acknowledge.
    ///
    /// # Errors
    /// What the plugin answers; `unavailable` when it does not serve now (then it will send the message again).
    ///
    /// # Cancel safety
    /// Dropping the future does not take back what was sent.
    pub async fn ack(&mut self, position: &Position) -> Result<(), Fault> {
        let Reader::Subscription(name) = &self.reader else { return Ok(()) };
        self.acknowledged = Some(position.clone());
        let sender = self.sender_of(position).or_else(|| self.slot.live());
        let live = sender.ok_or_else(|| self.slot.not_callable())?;
        acknowledge(&live, &self.callback, name, position, self.acknowledger(&live).as_ref()).await
    }

    /// The process that sent `position`. While another one takes its place it still has to hear what was handled.
    pub(crate) fn sender_of(&self, position: &Position) -> Option<Arc<Live>> {
        let streaming = self.stream.as_ref().map(|stream| Arc::clone(&stream.live));
        let mut lives = [streaming, self.slot.live()].into_iter().flatten();
        lives.find(|live| live.epoch() == position.epoch && !live.is_gone())
    }

    /// Acknowledges what came from `live`, if that can be done where it came.
    pub(crate) fn acknowledger(&self, live: &Live) -> Option<Acknowledger> {
        self.stream.as_ref().filter(|stream| std::ptr::eq(&*stream.live, live))?.acknowledger()
    }

    /// Marks a message as acknowledged by other means, so that it is acknowledged again if it is sent again.
    pub(crate) fn set_acknowledged(&mut self, position: &Position) {
        self.acknowledged = Some(position.clone());
    }

    /// The plugin as this feed knows it now.
    pub(crate) fn slot(&self) -> &Arc<Slot> {
        &self.slot
    }

    /// Waits for a process and attaches to it; false when there will be none.
    async fn open(&mut self) -> bool {
        if let Some(at) = self.open_at {
            tokio::time::sleep_until(at).await;
        }
        let Some(live) = self.another_live().await else { return false };
        _ = self.open_on(live).await;
        true
    }

    async fn open_on(&mut self, live: Arc<Live>) -> Result<(), Fault> {
        // Set before the attempt: a dropped future must not come back without a pause.
        self.open_at = Some(Instant::now() + self.pause);
        let class = live.hello.callback(&self.callback).map_or(Class::Event, |info| info.class);
        self.cursor.set_class(class);
        // An observer that saw nothing of the process before begins at what this one kept.
        let other = self.known.as_ref().filter(|known| *known != live.epoch() && !known.is_empty());
        let before = other.map(|known| Position { epoch: known.clone(), seq: 0 });
        let last = self.cursor.last().or(before.as_ref());
        match Stream::open(&self.shared, Arc::clone(&live), &self.callback, &self.reader, last).await {
            Ok(stream) => {
                self.known = Some(stream.live.epoch().to_owned());
                self.stream = Some(stream);
                self.refused_by = None;
                self.record(EventKind::StreamOpened, None);
                Ok(())
            }
            Err(fault) => {
                if matches!(fault.code, Code::NotFound | Code::InvalidArgument | Code::ProtocolError) {
                    self.refused_by = Some(live);
                }
                self.lost(&fault);
                Err(fault)
            }
        }
    }

    /// A process that has not refused, of this plugin or of the next one of its name; `None` when the registry is closed.
    async fn another_live(&mut self) -> Option<Arc<Live>> {
        let mut closed = self.shared.closed.subscribe();
        tokio::select! {
            biased;
            _ = closed.wait_for(|closed| *closed) => None,
            live = self.await_live() => live,
        }
    }

    async fn await_live(&mut self) -> Option<Arc<Live>> {
        loop {
            let mut views = self.slot.follow();
            let Some(live) = self.slot.wait_live().await else {
                self.slot = self.next_of_the_name().await?;
                continue;
            };
            if !self.refused_by.as_ref().is_some_and(|refused| Arc::ptr_eq(refused, &live)) {
                return Some(live);
            }
            // A successor serves while the one that refused still drains.
            tokio::select! {
                () = live.wait_gone() => {}
                _ = views.changed() => {}
            }
        }
    }

    /// A plugin whose file was removed may come back; then it is another slot of the same name.
    async fn next_of_the_name(&self) -> Option<Arc<Slot>> {
        let mut events = self.shared.events.follow();
        loop {
            let found = self.registry.upgrade()?.resolve(self.slot.id.as_str());
            match found {
                Ok(slot) if !Arc::ptr_eq(&slot, &self.slot) => return Some(slot),
                _ => _ = events.next().await?,
            }
        }
    }

    fn lost(&mut self, fault: &Fault) {
        self.stream = None;
        self.open_at = Some(Instant::now() + self.pause);
        self.pause = (self.pause * 2).min(PAUSES.1);
        self.record(EventKind::StreamLost, Some(fault));
        self.ready.push_back(FeedItem::Lost(fault.to_string()));
    }

    fn record(&self, kind: EventKind, fault: Option<&Fault>) {
        let who = match &self.reader {
            Reader::Subscription(name) => format!("subscription `{name}`"),
            Reader::Observer { .. } => "an observer".to_owned(),
        };
        let why = fault.map(|fault| format!(": {fault}")).unwrap_or_default();
        let detail = format!("callback `{}`, {who}{why}", self.callback);
        self.shared.events.record(kind, Some(&self.slot.id), None, Some(detail));
    }

    async fn take(&mut self, raw: Raw, live: &Live) {
        match raw {
            Raw::Message { position: None, key, dropped, data } => {
                self.pause = PAUSES.0;
                let notice = self.notice(None, key, dropped, data);
                self.ready.push_back(FeedItem::Message(notice));
            }
            Raw::Message { position: Some(position), key, dropped, data } => {
                match self.cursor.note(&position, key.as_deref()) {
                    Novelty::New => {}
                    Novelty::NewEpoch { previous } => {
                        self.ready.push_back(FeedItem::Epoch(EpochChange { epoch: position.epoch.clone(), previous }));
                    }
                    Novelty::Repeated => return self.acknowledge_again(&position, live).await,
                    Novelty::TooManyKeys => return self.lost(&too_many_keys()),
                }
                // Something new came: the next break is another one. What only repeats itself is no progress.
                self.pause = PAUSES.0;
                let notice = self.notice(Some(position), key, dropped, data);
                self.ready.push_back(FeedItem::Message(notice));
            }
            Raw::Gap(gap) => match self.cursor.note_gap(&gap.to) {
                Novelty::New => self.ready.push_back(FeedItem::Gap(gap)),
                Novelty::NewEpoch { previous } => {
                    self.ready.push_back(FeedItem::Epoch(EpochChange { epoch: gap.to.epoch.clone(), previous }));
                    self.ready.push_back(FeedItem::Gap(gap));
                }
                // Each stream tells it until an acknowledgement passes it.
                Novelty::Repeated | Novelty::TooManyKeys => {}
            },
            Raw::Epoch(change) => {
                if self.cursor.last().is_none_or(|last| last.epoch != change.epoch) {
                    self.cursor.enter(&change.epoch);
                    self.ready.push_back(FeedItem::Epoch(change));
                }
            }
            Raw::Replaced => {
                self.stream = None;
                self.stands = None;
                self.ended = true;
                self.ready.push_back(FeedItem::Replaced);
            }
        }
    }

    /// A message that was handled is sent again when its acknowledgement was lost on the way.
    async fn acknowledge_again(&mut self, position: &Position, live: &Live) {
        let (Reader::Subscription(name), Some(done)) = (&self.reader, &self.acknowledged) else { return };
        if is_state(live, &self.callback) {
            return;
        }
        if done.epoch == position.epoch && position.seq <= done.seq {
            // If this one is lost too, the message comes once more.
            _ = acknowledge(live, &self.callback, name, done, self.acknowledger(live).as_ref()).await;
        }
    }

    fn notice(&self, position: Option<Position>, key: Option<String>, dropped: u64, data: bytes::Bytes) -> Notice {
        Notice { plugin: self.slot.id.clone(), callback: self.callback.clone(), position, key, dropped, data }
    }
}

/// The values of a state are never acknowledged.
pub(crate) fn is_state(live: &Live, callback: &str) -> bool {
    live.hello.callback(callback).is_some_and(|info| info.class == Class::State)
}

fn too_many_keys() -> Fault {
    Fault::new(Code::ProtocolError, "the callback has more than 10,000 keys")
}
