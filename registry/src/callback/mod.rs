//! Notifications: from a plugin's event stream to an application's handler, and the acknowledgement back.
//!
//! In reading order: this file (what an application sees), `handling` (a handler per message, with its second chances),
//! `feed` (one stream that survives its connection), `stream` (one attachment of it), `frames` (the same over frames), `v0` (the polls of v0), `cursor` (what is new, pure), `standing`
//! (subscriptions are handed on from one process to the next), `dead` (what no handler could handle).

mod cursor;
mod dead;
mod feed;
mod frames;
mod handling;
mod standing;
mod stream;
mod v0;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use goplug_pconf_schema::admin::CallbackList;
use goplug_pconf_schema::wire::call::path;
use goplug_pconf_schema::wire::depth_is_bounded;
use goplug_pconf_schema::wire::event::{Ack, CallbackStatus, Position, check_subscription};
use goplug_pconf_schema::wire::hello::MAX_HELLO_BYTES;
use goplug_pconf_schema::{Code, Fault, PluginId, check_call_name, printable};

pub(crate) use dead::DeadLetters;
pub use feed::{Feed, FeedItem};
pub use handling::Subscription;
pub(crate) use handling::register;
pub(crate) use standing::{Place, Standing, hold};
pub(crate) use v0::Polls;

use goplug_transport::Acknowledger;

use crate::call::request;
use crate::registry::Inner;
use crate::supervisor::{Live, Slot, Wire};
use feed::Reader;

/// How long an acknowledgement or a list of callbacks may take.
const REQUEST_LIMIT: Duration = Duration::from_secs(5);

/// One notification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// The plugin.
    pub plugin: PluginId,
    /// The callback.
    pub callback: String,
    /// Where it stands; `None` for v0, whose notifications can be lost between two polls.
    pub position: Option<Position>,
    /// The key of a `state` message.
    pub key: Option<String>,
    /// How many `lossy` messages were dropped just before.
    pub dropped: u64,
    /// The payload.
    pub data: Bytes,
}

/// How to subscribe.
#[derive(Debug, Clone, Default)]
pub struct Subscribe {
    /// The subscription's name, 1 to 64 of `[A-Za-z0-9._-]`. A fixed one gives an application its place back after a
    /// restart; `None`: a random one, which is forgotten 60 s after it was detached.
    pub name: Option<String>,
}

/// The callbacks of a plugin and who subscribed to them.
pub(crate) async fn list(slot: &Slot) -> Result<CallbackList, Fault> {
    let live = slot.live().ok_or_else(|| slot.not_callable())?;
    if live.wire != Wire::V1 {
        return Ok(CallbackList { plugin: live.id.clone(), callbacks: Vec::new() });
    }
    let body = request(&live, "GET", path::CALLBACKS, b"", REQUEST_LIMIT, MAX_HELLO_BYTES).await?;
    let broken =
        |why: String| Fault::new(Code::ProtocolError, format!("plugin `{}`: list of callbacks: {why}", live.id));
    if !depth_is_bounded(&body) {
        return Err(broken("it is nested too deep".into()));
    }
    let callbacks: Vec<CallbackStatus> = serde_json::from_slice(&body).map_err(|error| broken(error.to_string()))?;
    Ok(CallbackList { plugin: live.id.clone(), callbacks })
}

/// Opens the feed of a subscription.
pub(crate) async fn subscribe(
    registry: &Arc<Inner>,
    slot: Arc<Slot>,
    callback: &str,
    name: &str,
) -> Result<Feed, Fault> {
    check_subscription(name).map_err(|why| Fault::new(Code::InvalidArgument, why))?;
    check_callback(&slot, callback)?;
    let mut feed = Feed::new(registry, slot, callback, Reader::Subscription(name.to_owned()));
    feed.attach().await?;
    Ok(feed)
}

/// Opens the feed of an observer.
pub(crate) async fn observe(
    registry: &Arc<Inner>,
    slot: Arc<Slot>,
    callback: &str,
    after: Option<Position>,
) -> Result<Feed, Fault> {
    check_callback(&slot, callback)?;
    let mut feed = Feed::new(registry, slot, callback, Reader::Observer { after });
    feed.attach().await?;
    Ok(feed)
}

/// Passes an acknowledgement on.
pub(crate) async fn ack(slot: &Slot, callback: &str, subscription: &str, position: &Position) -> Result<(), Fault> {
    let live = slot.live().ok_or_else(|| slot.not_callable())?;
    acknowledge(&live, callback, subscription, position, None).await
}

/// Acknowledges, over frames with `by`, which belongs to this process.
async fn acknowledge(
    live: &Live,
    callback: &str,
    subscription: &str,
    position: &Position,
    by: Option<&Acknowledger>,
) -> Result<(), Fault> {
    if let Some(by) = by.filter(|_| position.epoch == live.epoch())
        && let Some(answer) = frames::acknowledge(live, by, position.seq).await
    {
        return answer;
    }
    let ack = Ack { callback: callback.to_owned(), subscription: subscription.to_owned(), position: position.clone() };
    let body = serde_json::to_vec(&ack).map_err(|error| Fault::new(Code::Internal, error.to_string()))?;
    request(live, "POST", path::ACK, &body, REQUEST_LIMIT, MAX_HELLO_BYTES).await.map(drop)
}

/// A callback of a plugin that serves must exist; of one that does not, it may.
fn check_callback(slot: &Slot, callback: &str) -> Result<(), Fault> {
    check_call_name("callback", callback).map_err(|error| Fault::new(Code::InvalidArgument, error.to_string()))?;
    let Some(live) = slot.live().filter(|live| live.wire != Wire::V0) else { return Ok(()) };
    if live.hello.callback(callback).is_some() {
        return Ok(());
    }
    let id = &slot.id;
    let text =
        format!("plugin `{id}` has no callback `{}`: `goplugctl callbacks {id}` lists them", printable(callback));
    Err(Fault::new(Code::NotFound, text))
}
