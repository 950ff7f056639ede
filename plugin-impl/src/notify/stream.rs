//! A reader of one callback while it is attached, and the task that turns what it is given into server-sent events.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use goplug_pconf_schema::Fault;
use goplug_pconf_schema::wire::event::{EpochChange, Gap, KEEP_ALIVE_MS, Message, Position, to_base64};
use goplug_pconf_schema::wire::sse::SseEvent;
use serde::Serialize;
use tokio::sync::{mpsc, watch};

use super::window::{Next, Start};
use super::{Cell, Notifier};

/// Messages are gathered into one write up to about this size, so that a burst costs few system calls.
const GATHER_BYTES: usize = 64 * 1024;
/// Writes that wait for a slow reader. Everything else waits in the window, where it is counted.
const WRITES_AHEAD: usize = 1;

/// A subscription or observer that is attached, and waits for what arrives; dropping it detaches.
pub(crate) struct Reader {
    attached: Attached,
    arrived: watch::Receiver<()>,
}

/// A subscription or observer that is attached; dropping it detaches.
pub(crate) struct Attached {
    pub(super) cell: Arc<Cell>,
    pub(super) notifier: Notifier,
    who: Who,
}

enum Who {
    Subscription { name: String, stream: u64 },
    Observer(u64),
}

/// Where an observer wants to begin.
pub(crate) fn observer_start(after: Option<&Position>, epoch: &str) -> Start {
    match after {
        None => Start::Now,
        Some(position) if position.epoch == epoch => Start::After(position.seq),
        Some(_) => Start::Kept,
    }
}

impl Notifier {
    /// Opens a stream of the subscription `name` of `callback`.
    pub(crate) fn attach(
        &self,
        callback: &str,
        name: &str,
        caller: Option<String>,
        start: Start,
    ) -> Result<Reader, Fault> {
        let cell = self.cell(callback)?;
        let arrived = cell.arrived.subscribe();
        let stream = cell.with(|window, now| window.attach(now, name, caller, start))?;
        // The stream that this one replaces must hear of it, and so must a drain.
        cell.announce();
        cell.release_waiters();
        Ok(self.reader(cell, Who::Subscription { name: name.to_owned(), stream }, arrived))
    }

    /// Opens a stream of an observer of `callback`.
    pub(crate) fn observe(&self, callback: &str, start: Start) -> Result<Reader, Fault> {
        let cell = self.cell(callback)?;
        let arrived = cell.arrived.subscribe();
        let observer = cell.with(|window, now| window.observe(now, start))?;
        Ok(self.reader(cell, Who::Observer(observer), arrived))
    }

    fn reader(&self, cell: &Arc<Cell>, who: Who, arrived: watch::Receiver<()>) -> Reader {
        Reader { attached: Attached { cell: Arc::clone(cell), notifier: self.clone(), who }, arrived }
    }
}

impl Reader {
    /// What comes next; [`Next::Wait`] means [`Reader::wait`].
    pub(crate) fn next(&mut self) -> Next {
        // Marked as seen before the look, so that what comes after it is not missed.
        self.arrived.borrow_and_update();
        self.attached.next()
    }

    /// Returns when there may be something.
    pub(crate) async fn wait(&mut self) {
        // The sender lives in the cell that this reader holds, so that it cannot be closed.
        _ = self.arrived.changed().await;
    }

    /// The position of message `seq`.
    pub(crate) fn position(&self, seq: u64) -> Position {
        self.attached.position(seq)
    }

    /// The same without the waiting.
    pub(super) fn into_attached(self) -> Attached {
        self.attached
    }
}

impl Attached {
    pub(super) fn next(&self) -> Next {
        self.cell.with(|window, _| match &self.who {
            Who::Subscription { name, stream } => window.next_for(name, *stream),
            Who::Observer(observer) => window.next_for_observer(*observer),
        })
    }

    pub(super) fn position(&self, seq: u64) -> Position {
        self.cell.with(|window, _| window.position(seq))
    }

    /// The name of the subscription, if it is one.
    pub(super) fn subscription(&self) -> Option<&str> {
        match &self.who {
            Who::Subscription { name, .. } => Some(name),
            Who::Observer(_) => None,
        }
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.cell.with(|window, now| match &self.who {
            Who::Subscription { name, stream } => window.detach(now, name, *stream),
            Who::Observer(observer) => window.leave(*observer),
        });
        self.cell.release_waiters();
        self.notifier.board.settled.send_replace(());
    }
}

/// Starts the task that feeds `reader`'s stream, and returns the body. The task ends with the stream, with its reader,
/// or with the plugin. A reader that knew the epoch `previous` is told first that it is another one now.
pub(crate) fn body(reader: Reader, previous: Option<String>) -> mpsc::Receiver<Result<Bytes, ()>> {
    let (body, pieces) = mpsc::channel(WRITES_AHEAD);
    let epoch = reader.position(0).epoch;
    let greeting =
        previous.filter(|previous| *previous != epoch).map(|previous| event("epoch", &EpochChange { epoch, previous }));
    tokio::spawn(feed(reader, body, greeting.unwrap_or_default()));
    pieces
}

async fn feed(mut reader: Reader, body: mpsc::Sender<Result<Bytes, ()>>, greeting: String) {
    let keep_alive = Duration::from_millis(KEEP_ALIVE_MS);
    let mut text = greeting;
    loop {
        let rest = gather(&mut reader, &mut text);
        if !text.is_empty() && body.send(Ok(Bytes::from(std::mem::take(&mut text)))).await.is_err() {
            return;
        }
        match rest {
            Rest::More => continue,
            Rest::Over => return,
            Rest::Nothing => {}
        }
        tokio::select! {
            () = reader.wait() => {}
            () = body.closed() => return,
            () = tokio::time::sleep(keep_alive) => text.push_str(":\n\n"),
        }
    }
}

/// What a stream still has to say.
enum Rest {
    More,
    Nothing,
    Over,
}

/// Appends what there is, up to [`GATHER_BYTES`] and one message.
fn gather(reader: &mut Reader, text: &mut String) -> Rest {
    while text.len() < GATHER_BYTES {
        match reader.next() {
            Next::Message { seq, key, dropped, data } => {
                let message = Message { data_base64: to_base64(&data), key, dropped };
                let id = reader.position(seq).to_string();
                text.push_str(&SseEvent { id, event: "message".into(), data: json(&message) }.to_text());
            }
            Next::Gap(from, to) => {
                text.push_str(&event("gap", &Gap { from: reader.position(from), to: reader.position(to) }));
            }
            Next::Replaced => {
                text.push_str(&event("replaced", &serde_json::json!({})));
                return Rest::Over;
            }
            Next::End => return Rest::Over,
            Next::Wait => return Rest::Nothing,
        }
    }
    Rest::More
}

fn event(name: &str, data: &impl Serialize) -> String {
    SseEvent { id: String::new(), event: name.into(), data: json(data) }.to_text()
}

fn json(document: &impl Serialize) -> String {
    serde_json::to_string(document).expect("text and numbers are always JSON")
}
