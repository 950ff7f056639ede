//! A handler per message, its second chances, and the acknowledgement of what it handled.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use goplug_pconf_schema::admin::{DeadLetter, EventKind};
use goplug_pconf_schema::wire::event::{Position, to_base64};
use goplug_pconf_schema::{Code, Fault};
use goplug_transport::Acknowledger;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::feed::is_state;
use super::{Feed, FeedItem, Notice, Subscribe, acknowledge, subscribe};
use crate::event::now_text;
use crate::registry::Inner;
use crate::supervisor::{Live, Slot};

/// The pauses before a message whose handler failed is handled again.
const SECOND_CHANCES: [Duration; 3] = [Duration::from_millis(100), Duration::from_secs(1), Duration::from_secs(10)];
/// The pauses before an acknowledgement that did not arrive is sent again: doubled from the first to the second.
const ACK_PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// How long [`Subscription::close`] waits for the handler that runs and for its acknowledgement.
const CLOSE_WAIT: Duration = Duration::from_secs(5);

/// A registered callback. Dropping it detaches at once; a handler that runs is not interrupted.
#[derive(Debug)]
pub struct Subscription {
    name: String,
    closing: watch::Sender<bool>,
    task: AbortHandle,
}

impl Subscription {
    /// The subscription's name, for the next time.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Detaches when the handler that runs, if any, has returned and its message is acknowledged; waits for that at most
    /// 5 s. The plugin holds the subscription's place for 60 s.
    ///
    /// # Cancel safety
    /// Safe; dropping the future detaches at once.
    pub async fn close(self) {
        self.closing.send_replace(true);
        _ = tokio::time::timeout(CLOSE_WAIT, self.closing.closed()).await;
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Starts to handle.
pub(crate) async fn register<H, F>(
    registry: &Arc<Inner>,
    slot: Arc<Slot>,
    callback: &str,
    how: Subscribe,
    handler: H,
) -> Result<Subscription, Fault>
where
    H: FnMut(Notice) -> F + Send + 'static,
    F: Future<Output = Result<(), String>> + Send + 'static,
{
    let name = match how.name {
        Some(name) => name,
        None => random_name()?,
    };
    let feed = subscribe(registry, slot, callback, &name).await?;
    let (closing, closed) = watch::channel(false);
    // A weak reference: a subscription that nobody closed must not keep its registry alive.
    let handling = Handling {
        registry: Arc::downgrade(registry),
        feed,
        name: name.clone(),
        callback: callback.to_owned(),
        handler,
        latest: watch::Sender::new(None),
    };
    let task = registry.shared.tasks.spawn(handling.run(closed));
    Ok(Subscription { name, closing, task })
}

fn random_name() -> Result<String, Fault> {
    let mut bytes = [0; 8];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(|error| Fault::new(Code::Internal, format!("no random name: {error}")))?;
    Ok(format!("app-{:016x}", u64::from_ne_bytes(bytes)))
}

struct Handling<H> {
    registry: std::sync::Weak<Inner>,
    feed: Feed,
    name: String,
    callback: String,
    handler: H,
    /// The last message handled; the acknowledgements run behind it and skip what is outdated.
    latest: watch::Sender<Option<Handled>>,
}

/// A message that was handled, and the plugin as it was when it came: after its file was gone it is another slot.
#[derive(Debug, Clone)]
struct Handled {
    slot: Arc<Slot>,
    /// The process that sent it; another one may serve by now, while this one waits for the acknowledgement.
    sender: Option<Arc<Live>>,
    position: Position,
    /// For an acknowledgement on the connection on which it came.
    by: Option<Acknowledger>,
}

impl<H, F> Handling<H>
where
    H: FnMut(Notice) -> F + Send + 'static,
    F: Future<Output = Result<(), String>> + Send + 'static,
{
    async fn run(mut self, mut closed: watch::Receiver<bool>) {
        let acknowledging = acknowledge_latest(self.callback.clone(), self.name.clone(), self.latest.subscribe());
        tokio::pin!(acknowledging);
        loop {
            let item = tokio::select! {
                biased;
                _ = closed.wait_for(|closed| *closed) => break,
                () = &mut acknowledging => return,
                item = self.feed.next() => item,
            };
            match item {
                None => break,
                Some(FeedItem::Message(notice)) => {
                    let handle = self.handle(notice);
                    tokio::pin!(handle);
                    // Acknowledgements of earlier messages go on while this one is handled.
                    tokio::select! {
                        () = &mut handle => {}
                        () = &mut acknowledging => return,
                    }
                }
                Some(FeedItem::Gap(_) | FeedItem::Epoch(_) | FeedItem::Replaced | FeedItem::Lost(_)) => {}
            }
        }
        // The last acknowledgement still goes out.
        let Self { latest, .. } = self;
        drop(latest);
        _ = tokio::time::timeout(CLOSE_WAIT, acknowledging).await;
    }

    async fn handle(&mut self, notice: Notice) {
        let mut chances = SECOND_CHANCES.iter();
        loop {
            // A task of its own: a handler that panics fails like any other.
            let error = match tokio::spawn((self.handler)(notice.clone())).await {
                Ok(Ok(())) => break,
                Ok(Err(why)) => why,
                Err(join) if join.is_panic() => "the handler panicked".to_owned(),
                Err(_) => return,
            };
            match chances.next() {
                Some(pause) => tokio::time::sleep(*pause).await,
                None => {
                    self.bury(&notice, error);
                    break;
                }
            }
        }
        if let Some(position) = notice.position {
            self.feed.set_acknowledged(&position);
            let slot = Arc::clone(self.feed.slot());
            let sender = self.feed.sender_of(&position);
            let by = sender.as_ref().and_then(|live| self.feed.acknowledger(live));
            self.latest.send_replace(Some(Handled { slot, sender, position, by }));
        }
    }

    fn bury(&self, notice: &Notice, error: String) {
        let Some(registry) = self.registry.upgrade() else { return };
        let detail = format!("callback `{}`, subscription `{}`: {error}", self.callback, self.name);
        registry.shared.events.record(EventKind::DeadLetter, Some(&notice.plugin), None, Some(detail));
        registry.dead_letters.push(DeadLetter {
            plugin: notice.plugin.clone(),
            callback: self.callback.clone(),
            subscription: self.name.clone(),
            position: notice.position.as_ref().map(ToString::to_string),
            data_base64: to_base64(&notice.data),
            error,
            time: now_text(),
        });
    }
}

/// Acknowledges the latest message handled, one request at a time, until nobody handles any more. What did not arrive is
/// sent again, unless something later is to be acknowledged by then.
async fn acknowledge_latest(callback: String, name: String, mut latest: watch::Receiver<Option<Handled>>) {
    let mut over = false;
    while !over {
        over = latest.changed().await.is_err();
        let mut pause = ACK_PAUSES.0;
        loop {
            let Some(handled) = latest.borrow_and_update().clone() else { break };
            if !acknowledge_one(&handled, &callback, &name).await {
                break;
            }
            // When it is over, whoever waits for the end bounds this.
            tokio::select! {
                () = tokio::time::sleep(pause) => pause = ACK_PAUSES.1.min(pause * 2),
                changed = latest.changed(), if !over => over = changed.is_err(),
            }
        }
    }
}

/// True when it did not arrive and may arrive later. A process that is gone, or another one, has no use for it; one that
/// is met again sends the message again.
async fn acknowledge_one(handled: &Handled, callback: &str, name: &str) -> bool {
    let Handled { slot, sender, position, by } = handled;
    let sender = sender.clone().filter(|live| !live.is_gone()).or_else(|| slot.live());
    let Some(live) = sender.filter(|live| live.epoch() == position.epoch && !is_state(live, callback)) else {
        return false;
    };
    let Err(fault) = acknowledge(&live, callback, name, position, by.as_ref()).await else { return false };
    tracing::debug!(plugin = %slot.id, %fault, "an acknowledgement did not arrive");
    let refused = [Code::InvalidArgument, Code::NotFound, Code::Conflict, Code::Denied, Code::ProtocolError];
    !refused.contains(&fault.code)
}
