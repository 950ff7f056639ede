//! The requests of the original GoPlug that are no methods. The reply to a method is the same for v0 and v1.

use std::sync::Arc;
use std::time::Duration;

use goplug_pconf_schema::wire::event::{Ack, V0_SUBSCRIPTION};
use goplug_pconf_schema::wire::life::DEFAULT_DRAIN_MS;
use goplug_pconf_schema::{Code, Fault};
use serde_json::json;

use super::reply::Answer;
use crate::notify::window::{Next, Start};
use crate::service::Service;

/// `POST /Activate`: the names of the methods. The activator's bytes are left out: the original decodes the whole body
/// as one JSON value and fails on anything behind it. A plugin that is active, with whatever settings, stays so.
pub(super) async fn activate(service: &Arc<Service>) -> Result<Answer, Fault> {
    if !service.hello().active {
        service.activate(json!({})).await?;
    }
    Answer::json(&service.method_names())
}

/// `POST /RegisterCallback`: waits for the next message of the callback that the body names, a JSON string.
///
/// Every poll continues the subscription `v0`; a later poll ends an earlier one that waits. The message is acknowledged
/// once the reply was written whole, so that a poll whose caller has gone loses nothing.
pub(super) async fn poll(service: &Arc<Service>, body: &[u8], caller: String) -> Result<Answer, Fault> {
    let callback: String = serde_json::from_slice(body).map_err(|error| {
        Fault::new(Code::InvalidArgument, format!("the body is not a JSON string that names a callback: {error}"))
    })?;
    let notifier = service.notifier();
    let turns = Arc::clone(&notifier.cell(&callback)?.poll_turn);
    let mut reader = {
        // A reply that is being written decides first whether its message is acknowledged.
        let _turn = turns.lock().await;
        notifier.attach(&callback, V0_SUBSCRIPTION, Some(caller), Start::Poll)?
    };
    loop {
        let turn = Arc::clone(&turns).lock_owned().await;
        match reader.next() {
            Next::Message { seq, data, .. } => {
                let position = reader.position(seq);
                let ack = Ack { callback, subscription: V0_SUBSCRIPTION.to_owned(), position };
                let notifier = notifier.clone();
                return Ok(Answer::bytes(data).when_written(move || {
                    if let Err(fault) = notifier.acknowledge(&ack) {
                        tracing::debug!("a written notification was not acknowledged: {fault}");
                    }
                    drop((reader, turn));
                }));
            }
            // v0 has no word for it; `GET /_goplug/callbacks` and the author's counters do.
            Next::Gap(..) => {}
            Next::Wait => {
                drop(turn);
                reader.wait().await;
            }
            Next::Replaced => return Err(Fault::new(Code::Conflict, "a later poll has taken this one's place")),
            Next::End => return Err(Fault::new(Code::Unavailable, "the plugin is stopping")),
        }
    }
}

/// `POST /Stop`: as `/_goplug/stop` with the default drain; the reply is what the stopper returned.
pub(super) async fn stop(service: &Arc<Service>) -> Answer {
    let (wound, leaving) = service.stop(Duration::from_millis(DEFAULT_DRAIN_MS)).await;
    Answer::bytes(wound.output).and_close().when_written(move || drop(leaving))
}
