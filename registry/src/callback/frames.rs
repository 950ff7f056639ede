//! A feed's attachment over the frame connection that the plugin's calls use.

use std::sync::Arc;
use std::time::Duration;

use goplug_pconf_schema::wire::event::{EpochChange, Gap, Position};
use goplug_pconf_schema::{Code, Fault};
use goplug_transport::{
    Acknowledger, ErrorKind, FrameAttach, FrameConnection, FrameNotice, FrameRefusal, FrameSubscription,
};
use tokio::time::{Instant, timeout};

use super::REQUEST_LIMIT;
use super::feed::Reader;
use super::stream::Raw;
use crate::call::{Frames, broken, read_problem};
use crate::supervisor::{Live, Shared};

/// A subscription or observer on a frame connection.
#[derive(Debug)]
pub(super) struct Attached {
    subscription: FrameSubscription,
    /// Told first: an observer that knew another process.
    change: Option<EpochChange>,
}

/// Attaches; `None` when it has to go over HTTP.
pub(super) async fn attach(
    shared: &Shared,
    live: &Live,
    callback: &str,
    reader: &Reader,
    last: Option<&Position>,
    deadline: Instant,
) -> Result<Option<Attached>, Fault> {
    let Some(frames) = &live.frames else { return Ok(None) };
    let index = live.hello.callbacks.iter().zip(0..).find_map(|(info, index)| (info.name == callback).then_some(index));
    // One that the hello does not name is refused with the plugin's own words.
    let Some(index) = index else { return Ok(None) };
    let (latency, max_message_bytes) = {
        let options = shared.options.load();
        (options.latency, options.max_reply_bytes)
    };
    let (name, after) = match reader {
        Reader::Subscription(name) => (Some(name.as_str()), None),
        Reader::Observer { .. } => (None, last.map(|last| (last.epoch.as_str(), last.seq))),
    };
    let to = FrameAttach { index, name, after, max_message_bytes };
    let subscription = match attach_once(live, frames, latency, to, deadline).await {
        // One that was idle had ended before: another is made, once.
        Some(Err(FrameRefusal::Lost(error))) if !error.sent && !live.is_gone() => {
            attach_once(live, frames, latency, to, deadline).await
        }
        attached => attached,
    };
    let subscription = match subscription {
        None => return Ok(None),
        Some(Ok(subscription)) => subscription,
        Some(Err(FrameRefusal::Lost(error))) if error.kind == ErrorKind::Protocol => {
            tracing::debug!(plugin = %live.id, %error, "no notifications over frames: they go over HTTP");
            return Ok(None);
        }
        Some(Err(refusal)) => return Err(fault(live, refusal)),
    };
    let previous = after.map(|(epoch, _)| epoch).filter(|epoch| *epoch != live.epoch());
    let change = previous.map(|previous| EpochChange { epoch: live.epoch().to_owned(), previous: previous.to_owned() });
    Ok(Some(Attached { subscription, change }))
}

async fn attach_once(
    live: &Live,
    frames: &Frames,
    latency: goplug_transport::Latency,
    to: FrameAttach<'_>,
    deadline: Instant,
) -> Option<Result<FrameSubscription, FrameRefusal>> {
    let connection: Arc<FrameConnection> = match frames.connection(live, latency, deadline).await {
        Ok(connection) => connection?,
        // Without a connection HTTP is asked, and says why.
        Err(_) => return None,
    };
    let attached = connection.subscribe(to).await;
    frames.forget_if_ended();
    Some(attached)
}

impl Attached {
    /// The next thing that the plugin says. Cancel safe.
    pub(super) async fn next(&mut self, live: &Live) -> Result<Raw, Fault> {
        if let Some(change) = self.change.take() {
            return Ok(Raw::Epoch(change));
        }
        let at = |seq| Position { epoch: live.epoch().to_owned(), seq };
        Ok(match self.subscription.next().await.map_err(|refusal| fault(live, refusal))? {
            FrameNotice::Message { seq, key, dropped, data } => {
                Raw::Message { position: Some(at(seq)), key, dropped, data }
            }
            FrameNotice::Gap(from, to) => Raw::Gap(Gap { from: at(from), to: at(to) }),
            FrameNotice::Replaced => Raw::Replaced,
        })
    }

    pub(super) fn acknowledger(&self) -> Acknowledger {
        self.subscription.acknowledger()
    }
}

/// Acknowledges over the connection on which a message came; `None` when it has ended, and HTTP is as good.
pub(super) async fn acknowledge(live: &Live, by: &Acknowledger, seq: u64) -> Option<Result<(), Fault>> {
    match timeout(REQUEST_LIMIT, by.acknowledge(seq)).await {
        Ok(Ok(())) => Some(Ok(())),
        Ok(Err(FrameRefusal::Lost(_))) => None,
        Ok(Err(refusal)) => Some(Err(fault(live, refusal))),
        Err(_) => Some(Err(late(live, REQUEST_LIMIT))),
    }
}

fn fault(live: &Live, refusal: FrameRefusal) -> Fault {
    match refusal {
        FrameRefusal::Problem(document) => read_problem(502, &document),
        FrameRefusal::Lost(error) => broken(live, &error),
    }
}

fn late(live: &Live, limit: Duration) -> Fault {
    let text = format!("plugin `{}` did not answer an acknowledgement within {} s", live.id, limit.as_secs());
    Fault::new(Code::DeadlineExceeded, text)
}
