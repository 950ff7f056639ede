//! The long polls of v0, one per callback, shared by all who listen: a v0 plugin knows one waiter per name, and a later one
//! robs the earlier.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use goplug_pconf_schema::wire::call::HELLO_MS;
use goplug_pconf_schema::{Code, Fault};
use goplug_transport::{Connection, Request};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Duration, Instant};

use super::stream::Raw;
use crate::call::{broken, judge_v0, not_connected};
use crate::supervisor::{Live, Shared};

/// Notifications that wait for a listener; a subscription that is slower holds the plugin back, an observer loses some.
const WAITING: usize = 256;

/// The polls of one process.
#[derive(Debug, Default)]
pub(crate) struct Polls(Mutex<HashMap<String, Arc<Hub>>>);

/// Who listens to one callback.
#[derive(Debug, Default)]
struct Hub {
    listeners: Mutex<Vec<Listener>>,
    /// Rung when a listener leaves.
    left: Notify,
}

#[derive(Debug)]
struct Listener {
    sender: mpsc::Sender<Result<Raw, Fault>>,
    /// Whether it may hold the plugin back.
    waits: bool,
    dropped: u64,
}

/// A place among the listeners.
#[derive(Debug)]
pub(crate) struct Heard {
    items: mpsc::Receiver<Result<Raw, Fault>>,
    hub: Arc<Hub>,
}

impl Heard {
    /// The next notification. Cancel safe.
    pub(crate) async fn next(&mut self) -> Result<Raw, Fault> {
        let ended = || Err(Fault::new(Code::Unavailable, "the poll of the callback ended"));
        self.items.recv().await.unwrap_or_else(ended)
    }
}

impl Drop for Heard {
    fn drop(&mut self) {
        self.items.close();
        self.hub.left.notify_one();
    }
}

/// Listens to `callback`: joins the poll that runs, or starts one.
///
/// # Errors
/// The plugin cannot be reached.
pub(crate) async fn listen(
    shared: &Shared,
    live: &Arc<Live>,
    callback: &str,
    waits: bool,
    max_bytes: usize,
) -> Result<Heard, Fault> {
    if let Some(heard) = live.polls.join(callback, waits) {
        return Ok(heard);
    }
    let deadline = Instant::now() + Duration::from_millis(HELLO_MS);
    let connection = live.pool.connect(deadline).await.map_err(|error| not_connected(live, error))?;
    let (hub, heard) = live.polls.start(callback, waits);
    // Somebody may have been quicker; then this connection is not needed.
    if let Some(hub) = hub {
        shared.tasks.spawn(run(Arc::clone(live), hub, callback.to_owned(), connection, max_bytes));
    }
    Ok(heard)
}

impl Polls {
    fn join(&self, callback: &str, waits: bool) -> Option<Heard> {
        self.lock().get(callback).map(|hub| hub.add(waits))
    }

    /// Joins too; the hub comes back to whoever is the first, and has to poll.
    fn start(&self, callback: &str, waits: bool) -> (Option<Arc<Hub>>, Heard) {
        let mut hubs = self.lock();
        let first = !hubs.contains_key(callback);
        let hub = Arc::clone(hubs.entry(callback.to_owned()).or_default());
        let heard = hub.add(waits);
        (first.then_some(hub), heard)
    }

    /// Ends the poll of a callback if nobody listens, or for `why`; true when it is ended.
    fn end(&self, callback: &str, hub: &Hub, why: Option<&Fault>) -> bool {
        // Both locks: nobody can join between the look and the removal.
        let mut hubs = self.lock();
        let mut listeners = hub.lock();
        listeners.retain(|listener| !listener.sender.is_closed());
        if why.is_none() && !listeners.is_empty() {
            return false;
        }
        for listener in listeners.drain(..) {
            if let Some(fault) = why {
                // A full listener sees the end of its channel instead.
                _ = listener.sender.try_send(Err(fault.clone()));
            }
        }
        hubs.remove(callback);
        true
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Hub>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hub {
    fn add(self: &Arc<Self>, waits: bool) -> Heard {
        let (sender, items) = mpsc::channel(WAITING);
        self.lock().push(Listener { sender, waits, dropped: 0 });
        Heard { items, hub: Arc::clone(self) }
    }

    /// Gives a notification to everybody who listens.
    async fn tell(&self, data: Bytes) {
        let item = |dropped| Ok(Raw::Message { position: None, key: None, dropped, data: data.clone() });
        let mut patient = Vec::new();
        for listener in self.lock().iter_mut() {
            if listener.waits {
                patient.push(listener.sender.clone());
            } else if listener.sender.try_send(item(listener.dropped)).is_ok() {
                listener.dropped = 0;
            } else {
                listener.dropped += 1;
            }
        }
        for sender in patient {
            // One that has left needs nothing.
            _ = sender.send(item(0)).await;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Listener>> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks, tells everybody, and asks again at once, until nobody listens or the process is gone.
async fn run(live: Arc<Live>, hub: Arc<Hub>, callback: String, mut connection: Connection, max_bytes: usize) {
    loop {
        let polled = {
            let poll = poll(&live, &mut connection, &callback, max_bytes);
            tokio::pin!(poll);
            loop {
                tokio::select! {
                    data = &mut poll => break data,
                    () = live.wait_gone() => break Err(gone(&live)),
                    // The poll goes on as long as anybody listens: one that is dropped may lose a notification.
                    () = hub.left.notified() => if live.polls.end(&callback, &hub, None) {
                        return;
                    },
                }
            }
        };
        let told = match polled {
            Ok(data) => tokio::select! {
                () = hub.tell(data) => Ok(()),
                () = live.wait_gone() => Err(gone(&live)),
            },
            Err(fault) => Err(fault),
        };
        if let Err(fault) = told {
            live.polls.end(&callback, &hub, Some(&fault));
            return;
        }
    }
}

fn gone(live: &Live) -> Fault {
    Fault::new(Code::PluginGone, format!("plugin `{}` is gone", live.id))
}

async fn poll(live: &Live, connection: &mut Connection, callback: &str, max_bytes: usize) -> Result<Bytes, Fault> {
    if !connection.is_reusable() {
        let deadline = Instant::now() + Duration::from_millis(HELLO_MS);
        *connection = live.pool.connect(deadline).await.map_err(|error| not_connected(live, error))?;
    }
    let body = serde_json::to_vec(callback).map_err(|error| Fault::new(Code::Internal, error.to_string()))?;
    let request = Request {
        method: "POST",
        target: "/RegisterCallback",
        host: &live.host,
        headers: &[],
        content_type: Some("application/json"),
        body: &body,
    };
    let reply = connection.exchange(&request, max_bytes).await.map_err(|error| broken(live, &error))?;
    judge_v0(&reply.head)?;
    Ok(reply.body)
}
