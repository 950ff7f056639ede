//! The accept loop: who may connect, how many at once, what a head may be, and how the last connection ends.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use goplug_pconf_schema::wire::call::{MAX_HEAD_BYTES, MAX_HEADERS};
use goplug_registry::{Code, Error};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use crate::api::{self, Api};
use crate::connection::{IDLE, Pulse, ReplyBody, Slow, Watched};

/// Connections at once; the next one is told `overloaded` and closed.
pub(crate) const MAX_CONNECTIONS: usize = 256;
/// What hyper may buffer per connection and direction besides a body's own pieces.
const BUFFER_BYTES: usize = 4 * MAX_HEAD_BYTES;
/// After a failed accept (no free descriptor, for one) the next try waits this long.
const ACCEPT_BACK_OFF: Duration = Duration::from_millis(50);
/// Strangers, and failures to accept, are logged at most this often.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// Who is at the other end of a connection, as the kernel tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Peer {
    /// The user.
    pub(crate) uid: u32,
}

/// Which users may connect; a reload changes it.
#[derive(Debug, Default)]
pub(crate) struct Admission(Mutex<BTreeSet<u32>>);

impl Admission {
    /// Lets `uids` in besides our own user and root.
    pub(crate) fn allow(&self, uids: &[u32]) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = uids.iter().copied().collect();
    }

    fn admits(&self, uid: u32) -> bool {
        uid == 0
            || uid == rustix::process::geteuid().as_raw()
            || self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&uid)
    }
}

/// Serves `api` on `listener` until `stop` becomes true, then lets replies under way finish for at most `drain()`
/// (asked at that moment: a reload may have changed it), and closes what is left.
pub(crate) async fn serve(
    listener: UnixListener,
    api: Api,
    admission: Arc<Admission>,
    mut stop: watch::Receiver<bool>,
    drain: impl Fn() -> Duration,
) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    let (mut strangers, mut failures) = (Strangers::default(), Failures::default());
    let stopped = stop.clone();
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                failures.failed(&error);
                // Only a timer: whatever is short, trying at once would only burn time.
                let _ = timeout(ACCEPT_BACK_OFF, stop.wait_for(|stop| *stop)).await;
                continue;
            }
        };
        let Some(peer) = peer_of(&stream).filter(|peer| admission.admits(peer.uid)) else {
            strangers.turned_away(peer_of(&stream));
            continue;
        };
        match Arc::clone(&places).try_acquire_owned() {
            Ok(place) => drop(connections.spawn(converse(stream, peer, api.clone(), stopped.clone(), place))),
            Err(_) => refuse(&stream),
        }
    }
    drop(listener);
    let deadline = Instant::now() + drain();
    let all_closed = async { while connections.join_next().await.is_some() {} };
    if timeout_at(deadline, all_closed).await.is_err() {
        tracing::warn!(connections = connections.len(), "closed in the middle of a request: the drain is over");
        connections.shutdown().await;
    }
}

/// One connection from its first byte to its last.
async fn converse(
    stream: UnixStream,
    peer: Peer,
    api: Api,
    mut stop: watch::Receiver<bool>,
    _place: OwnedSemaphorePermit,
) {
    let pulse = Pulse::new();
    let io = TokioIo::new(Watched::new(stream, pulse.clone()));
    let answers = pulse.clone();
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let (busy, api) = (answers.busy(), api.clone());
        async move {
            let answer = api.answer(request, peer).await;
            if answer.extensions().get::<Slow>().is_some() {
                busy.be_patient();
            }
            Ok::<_, Infallible>(answer.map(|body| ReplyBody::new(body, busy)))
        }
    });
    let mut protocol = http1::Builder::new();
    protocol
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .max_headers(MAX_HEADERS)
        .max_header_size(MAX_HEAD_BYTES)
        .max_buf_size(BUFFER_BYTES)
        .auto_date_header(false);
    let mut connection = std::pin::pin!(protocol.serve_connection(io, service));
    let mut stopping = false;
    loop {
        tokio::select! {
            ended = &mut connection => {
                if let Err(error) = ended {
                    tracing::debug!(uid = peer.uid, %error, "connection ended");
                }
                return;
            }
            reason = pulse.too_long() => {
                tracing::debug!(uid = peer.uid, reason, "connection closed");
                return;
            }
            _ = stop.wait_for(|stop| *stop), if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

/// Tells a client for whom there is no place, as far as its socket takes it without waiting, and closes.
fn refuse(stream: &UnixStream) {
    let text = format!("{MAX_CONNECTIONS} connections are open, the limit is {MAX_CONNECTIONS}: try again");
    let reply: Response<Vec<u8>> =
        api::error::document(&Error::new(Code::Overloaded, text).with_retry_after_ms(1_000), None);
    let mut bytes =
        format!("HTTP/1.1 {}\r\nConnection: close\r\nContent-Length: {}\r\n", reply.status(), reply.body().len())
            .into_bytes();
    for (name, value) in reply.headers() {
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(reply.body());
    let _ = stream.try_write(&bytes);
}

fn peer_of(stream: &UnixStream) -> Option<Peer> {
    stream.peer_cred().ok().map(|credentials| Peer { uid: credentials.uid() })
}

/// Counts connections of users who may not connect and logs them now and then: a stranger must not fill the log.
#[derive(Default)]
struct Strangers {
    count: u64,
    logged: Option<Instant>,
}

impl Strangers {
    fn turned_away(&mut self, peer: Option<Peer>) {
        self.count += 1;
        if self.logged.is_none_or(|at| at.elapsed() >= LOG_EVERY) {
            self.logged = Some(Instant::now());
            tracing::warn!(
                uid = peer.map(|peer| peer.uid),
                count = self.count,
                "connections of users who may not connect were closed"
            );
        }
    }
}

/// Counts accepts that failed and logs them now and then: no descriptor may be free for hours.
#[derive(Default)]
struct Failures {
    count: u64,
    logged: Option<Instant>,
}

impl Failures {
    fn failed(&mut self, error: &std::io::Error) {
        self.count += 1;
        if self.logged.is_none_or(|at| at.elapsed() >= LOG_EVERY) {
            self.logged = Some(Instant::now());
            let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
            tracing::warn!(%error, open_files_limit = limit, count = self.count, "cannot accept connections");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_user_root_and_the_listed_are_admitted() {
        let admission = Admission::default();
        let own = rustix::process::geteuid().as_raw();
        assert!(admission.admits(own) && admission.admits(0) && !admission.admits(own + 4711));
        admission.allow(&[own + 4711]);
        assert!(admission.admits(own + 4711) && !admission.admits(own + 4712));
        admission.allow(&[]);
        assert!(!admission.admits(own + 4711));
    }
}
