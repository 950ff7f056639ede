//! Small questions to a process: ping, health.

use std::time::Duration;

use bytes::Bytes;
use goplug_pconf_schema::admin::Ping;
use goplug_pconf_schema::wire::call::{CALL_ID, EPOCH, HOST, PING_MS, path};
use goplug_pconf_schema::wire::event::CallbackStatus;
use goplug_pconf_schema::wire::fault::MAX_PROBLEM_BYTES;
use goplug_pconf_schema::wire::hello::MAX_HELLO_BYTES;
use goplug_pconf_schema::wire::life::{Health, HealthStatus};
use goplug_pconf_schema::{Code, Fault};
use goplug_transport::Request;
use tokio::time::{Instant, timeout_at};

use super::attempt::{broken, next_call_id, not_connected};
use super::judge;
use crate::supervisor::{Live, Slot, Wire};

/// The bytes that the original pinged with.
const PING: &[u8] = b"Test Data";

/// Asks for an echo.
pub(crate) async fn ping(slot: &Slot) -> Result<Ping, Fault> {
    let live = slot.live().ok_or_else(|| slot.not_callable())?;
    let began = Instant::now();
    let (target, limit) = match live.wire {
        Wire::V0 => ("/Ping", Duration::from_millis(PING_MS)),
        Wire::V1 => (path::PING, Duration::from_millis(PING_MS)),
        // It has none: that somebody listens is all that can be known.
        Wire::Tilotech => {
            let deadline = began + Duration::from_millis(PING_MS);
            let connection = live.pool.take(deadline).await.map_err(|error| not_connected(&live, error))?;
            live.pool.put(connection);
            let round_trip_ns = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
            return Ok(Ping { plugin: live.id.clone(), round_trip_ns });
        }
    };
    let echo = request(&live, "POST", target, PING, limit, MAX_PROBLEM_BYTES).await?;
    if echo != PING {
        let text = format!("plugin `{}` answered the ping with other bytes", live.id);
        return Err(Fault::new(Code::ProtocolError, text));
    }
    let round_trip_ns = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
    Ok(Ping { plugin: live.id.clone(), round_trip_ns })
}

/// Pings that may go unanswered one after the other; then the process hangs (a ping runs no author's code).
const MISSES: usize = 3;

/// Whether the process answers no ping. One of v0 may be a single thread that works: nothing is known of it.
pub(crate) async fn is_hung(live: &Live) -> bool {
    if live.wire != Wire::V1 {
        return false;
    }
    for _ in 0..MISSES {
        let limit = Duration::from_millis(PING_MS);
        match request(live, "POST", path::PING, PING, limit, MAX_PROBLEM_BYTES).await {
            Err(fault) if fault.code == Code::DeadlineExceeded => {}
            _ => return false,
        }
    }
    true
}

/// Whether it answers a ping within `limit`, or says that it cannot: then it runs.
pub(crate) async fn answers_ping(live: &Live, limit: Duration) -> bool {
    let echo = request(live, "POST", path::PING, PING, limit, MAX_PROBLEM_BYTES).await;
    !matches!(echo, Err(fault) if fault.code == Code::DeadlineExceeded)
}

/// Subscriptions and observers that are attached to its callbacks, whoever they belong to; of a plugin that does not answer
/// none.
pub(crate) async fn listeners(live: &Live) -> u64 {
    let limit = Duration::from_millis(PING_MS);
    let Ok(body) = request(live, "GET", path::CALLBACKS, b"", limit, MAX_HELLO_BYTES).await else { return 0 };
    let Ok(callbacks) = serde_json::from_slice::<Vec<CallbackStatus>>(&body) else { return 0 };
    callbacks.iter().map(|callback| callback.observers + callback.subscriptions.len() as u64).sum()
}

/// The author's verdict, when there is one to be had at once.
pub(crate) async fn health(slot: &Slot) -> Option<HealthStatus> {
    let live = slot.live().filter(|live| live.wire == Wire::V1)?;
    let limit = Duration::from_millis(PING_MS);
    let body = request(&live, "GET", path::HEALTH, b"", limit, MAX_PROBLEM_BYTES).await.ok()?;
    Some(serde_json::from_slice::<Health>(&body).ok()?.status)
}

/// One request that is no call, on a connection of the pool.
///
/// # Errors
/// What the plugin answered, or what went wrong on the way.
pub(crate) async fn request(
    live: &Live,
    method: &str,
    target: &str,
    body: &[u8],
    limit: Duration,
    max_bytes: usize,
) -> Result<Bytes, Fault> {
    let deadline = Instant::now() + limit;
    let exchange = async {
        let mut connection = live.pool.take(deadline).await.map_err(|error| not_connected(live, error))?;
        let call_id = next_call_id();
        let headers = [(CALL_ID, call_id.as_str()), (EPOCH, live.epoch())];
        let is_v1 = live.wire == Wire::V1;
        let request = Request {
            method,
            target,
            host: if is_v1 { HOST } else { &live.host },
            headers: if is_v1 { &headers } else { &[] },
            content_type: (!body.is_empty()).then_some("application/json"),
            body,
        };
        let head = connection.open(&request).await.map_err(|error| broken(live, &error))?;
        let verdict = if is_v1 { judge::v1(&head, &call_id) } else { judge::Verdict::Body };
        // Judged before the body is read: a connection whose replies cannot be trusted is not kept.
        if let judge::Verdict::Broken(why) = verdict {
            return Err(Fault::new(Code::ProtocolError, format!("plugin `{}`: {why}", live.id)));
        }
        let reply = connection.read_body(max_bytes).await.map_err(|error| broken(live, &error))?;
        live.pool.put(connection);
        if !is_v1 {
            return judge::v0(&head).map(|()| reply);
        }
        match verdict {
            judge::Verdict::Problem => Err(judge::problem(head.status, &reply)),
            _ => Ok(reply),
        }
    };
    timeout_at(deadline, exchange).await.unwrap_or_else(|_| {
        let text = format!("plugin `{}` did not answer within {} ms", live.id, limit.as_millis());
        Err(Fault::new(Code::DeadlineExceeded, text))
    })
}
