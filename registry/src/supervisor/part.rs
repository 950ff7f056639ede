//! How a process is left: take no new calls, let those under way finish, deactivate or stop.

use std::time::Duration;

use bytes::Bytes;
use goplug_pconf_schema::wire::call::path;
use goplug_pconf_schema::wire::event::from_base64;
use goplug_pconf_schema::wire::life::{Drain, Drained, STOP_GRACE_MS};
use goplug_pconf_schema::{Code, Fault};
use goplug_transport::{Connection, ErrorKind, Request};
use tokio::time::{Instant, timeout};

use super::introduce::control;
use super::live::{Live, Wire};
use crate::call::judge_v0;

/// How long a process that was told to stop is watched, to tell `stopped` from `discovered`.
const EXIT_WATCH: Duration = Duration::from_millis(200);

/// How long calls that were just sent have until the plugin is told: it can only wait for those that it has read. One
/// that takes longer has been read.
const ON_THEIR_WAY: Duration = Duration::from_millis(20);

/// What became of it.
#[derive(Debug, Default)]
pub(crate) struct Parted {
    pub cancelled: u64,
    pub unacknowledged: u64,
    /// What the stopper returned.
    pub output: Bytes,
    /// The process is leaving.
    pub stopped: bool,
}

/// Drains `live` over its standing connection, then deactivates it, or with `stop` ends its process.
///
/// # Errors
/// What the plugin answered; the plugin is not deactivated then, as far as anybody knows.
pub(crate) async fn part(live: &Live, connection: Connection, drain: Duration, stop: bool) -> Result<Parted, Fault> {
    live.stop_accepting();
    match live.wire {
        Wire::V1 => {
            let began = Instant::now();
            wait_for_calls(live, drain.min(ON_THEIR_WAY)).await;
            part_v1(live, connection, drain.saturating_sub(began.elapsed()), stop).await
        }
        Wire::V0 => part_v0(live, connection, drain).await,
        // It knows no drain and no stop: whoever started it ends its process.
        Wire::Tilotech => {
            Ok(Parted { cancelled: wait_for_calls(live, drain).await, stopped: stop, ..Parted::default() })
        }
    }
}

async fn part_v1(live: &Live, mut connection: Connection, drain: Duration, stop: bool) -> Result<Parted, Fault> {
    let target = if stop { path::STOP } else { path::DEACTIVATE };
    let drain_ms = u64::try_from(drain.as_millis()).unwrap_or(u64::MAX);
    let body = serde_json::to_vec(&Drain { drain_ms }).unwrap_or_default();
    let limit = drain.saturating_add(Duration::from_millis(STOP_GRACE_MS));
    let answer = control(&mut connection, live.epoch(), target, &body, limit).await?;
    let drained: Drained = serde_json::from_slice(&answer)
        .map_err(|error| Fault::new(Code::ProtocolError, format!("the answer to {target} cannot be read: {error}")))?;
    let encoded = drained.output.as_ref().and_then(|output| output.get("dataBase64")?.as_str());
    let output = encoded.map(from_base64).transpose().map_err(|why| Fault::new(Code::ProtocolError, why))?;
    let stopped = stop && {
        let _ = timeout(EXIT_WATCH, live.peer.exited()).await;
        true
    };
    let output = output.unwrap_or_default().into();
    Ok(Parted { cancelled: drained.cancelled, unacknowledged: drained.unacknowledged, output, stopped })
}

/// v0 knows no drain: calls under way are waited for here, then `Stop` runs the stopper.
async fn part_v0(live: &Live, mut connection: Connection, drain: Duration) -> Result<Parted, Fault> {
    let cancelled = wait_for_calls(live, drain).await;
    let request =
        Request { method: "POST", target: "/Stop", host: &live.host, headers: &[], content_type: None, body: &[] };
    let limit = Duration::from_millis(STOP_GRACE_MS);
    let reply = timeout(limit, connection.exchange(&request, 4 * 1024 * 1024)).await;
    let output = match reply {
        Ok(Ok(reply)) => {
            judge_v0(&reply.head)?;
            reply.body
        }
        // The original's example exits inside its stopper: a broken connection is what success looks like.
        Ok(Err(error)) if error.kind == ErrorKind::Closed => Bytes::new(),
        Ok(Err(error)) => return Err(Fault::new(Code::PluginGone, format!("`Stop`: {error}"))),
        Err(_) => {
            return Err(Fault::new(Code::DeadlineExceeded, format!("no answer to `Stop` within {STOP_GRACE_MS} ms")));
        }
    };
    let stopped = timeout(EXIT_WATCH, live.peer.exited()).await.is_ok();
    Ok(Parted { cancelled, output, stopped, ..Parted::default() })
}

/// Waits until no call is under way of a process that takes no new ones, at most `drain`; answers how many were left.
pub(super) async fn wait_for_calls(live: &Live, drain: Duration) -> u64 {
    let until = Instant::now() + drain;
    match tokio::time::timeout_at(until, live.admission.wait_idle()).await {
        Ok(()) => 0,
        Err(_) => live.in_flight(),
    }
}
