//! The paths under `/_goplug/` that are not calls.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use goplug_pconf_schema::wire::call::MAX_DEADLINE_MS;
use goplug_pconf_schema::wire::event::{Ack, Position, check_subscription};
use goplug_pconf_schema::wire::hello::HelloRequest;
use goplug_pconf_schema::wire::life::Drain;
use goplug_pconf_schema::wire::{MAX_JSON_DEPTH, PROTOCOL, depth_is_bounded};
use goplug_pconf_schema::{Code, Fault, Ran};
use goplug_transport::ServerBody;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::timeout_at;

use super::Asked;
use super::reply::Answer;
use super::route::Route;
use crate::notify::stream::{body, observer_start};
use crate::notify::window::Start;
use crate::service::Service;

pub(super) async fn answer(service: &Arc<Service>, asked: Asked) -> Result<Answer, Fault> {
    match asked.route {
        Route::Hello { negotiate: false } => Answer::json(&service.hello()),
        Route::Hello { negotiate: true } => negotiate(service, &document(&asked.body)?),
        Route::Activate => activate(service, asked).await,
        Route::Deactivate => {
            let wound = service.deactivate(drain(&asked.body)?).await?;
            Answer::json(&wound.to_drained())
        }
        Route::Stop => {
            let (wound, leaving) = service.stop(drain(&asked.body)?).await;
            // The process leaves when the answer was written, or cannot be: either way the closure is dropped then.
            Ok(Answer::json(&wound.to_drained())?.and_close().when_written(move || drop(leaving)))
        }
        Route::Ping => Ok(Answer::bytes(asked.body)),
        Route::Health => Answer::json(&service.health().await),
        Route::Callbacks => Answer::json(&service.notifier().callbacks()),
        Route::Acknowledge => {
            let ack: Ack = document(&asked.body)?;
            service.notifier().acknowledge(&ack)?;
            Ok(Answer::bytes(Bytes::new()))
        }
        Route::Events { callback, subscription, after } => {
            events(service, &callback, subscription, after.as_deref(), asked.caller)
        }
        Route::Frames
        | Route::Method(_)
        | Route::V0Activate
        | Route::V0Ping
        | Route::V0RegisterCallback
        | Route::V0Stop => Err(Fault::new(Code::Internal, "the request went to the wrong place")),
    }
}

fn negotiate(service: &Service, request: &HelloRequest) -> Result<Answer, Fault> {
    if !request.protocols.contains(&PROTOCOL) {
        let text = format!("no common protocol: the plugin speaks {PROTOCOL}");
        return Err(Fault::new(Code::Conflict, text).with_data(json!({"protocols": [PROTOCOL]})));
    }
    let mut hello = service.hello();
    hello.protocol = Some(PROTOCOL);
    hello.features.retain(|feature| request.features.contains(feature));
    Answer::json(&hello)
}

async fn activate(service: &Arc<Service>, asked: Asked) -> Result<Answer, Fault> {
    let settings: Value = if asked.body.is_empty() { json!({}) } else { document(&asked.body)? };
    let activation = service.activate(settings);
    let reply = match asked.terms.deadline {
        None => activation.await,
        Some(left) => timeout_at(asked.received + left, activation).await.unwrap_or_else(|_| {
            let text = "the activator is not done yet; ask again with the same settings";
            Err(Fault::new(Code::DeadlineExceeded, text).with_ran(Ran::Unknown))
        }),
    };
    reply.map(Answer::bytes)
}

fn events(
    service: &Service,
    callback: &str,
    subscription: Option<String>,
    after: Option<&str>,
    caller: String,
) -> Result<Answer, Fault> {
    let invalid = |text: String| Fault::new(Code::InvalidArgument, text);
    let after = after.map(str::parse::<Position>).transpose().map_err(invalid)?;
    let reader = match subscription {
        // A subscription begins at its own cursor; `after` then only tells which process the subscriber knew.
        Some(name) => {
            check_subscription(&name).map_err(invalid)?;
            service.notifier().attach(callback, &name, Some(caller), Start::Subscribed)?
        }
        None => service.notifier().observe(callback, observer_start(after.as_ref(), service.epoch()))?,
    };
    let pieces = body(reader, after.map(|position| position.epoch));
    // A subscriber that is slow holds the plugin back: cut off, it would be forgotten, and lose what it has not seen.
    Ok(Answer::body(ServerBody::Endless(pieces), Some("text/event-stream".into())))
}

fn drain(body: &[u8]) -> Result<Duration, Fault> {
    let drain: Drain = if body.is_empty() { Drain::default() } else { document(body)? };
    if drain.drain_ms > MAX_DEADLINE_MS {
        let text = format!("drainMs is {}, the limit is {MAX_DEADLINE_MS}", drain.drain_ms);
        return Err(Fault::new(Code::InvalidArgument, text));
    }
    Ok(Duration::from_millis(drain.drain_ms))
}

/// Reads a document of the protocol, a JSON object.
fn document<T: DeserializeOwned>(body: &[u8]) -> Result<T, Fault> {
    if !depth_is_bounded(body) {
        let text = format!("the body is nested deeper than {MAX_JSON_DEPTH} levels");
        return Err(Fault::new(Code::InvalidArgument, text));
    }
    let wrong =
        |why: String| Fault::new(Code::InvalidArgument, format!("the body is not the document of this path: {why}"));
    // An array of the fields' values would be read as the document too.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(wrong("it is no JSON object".into()));
    }
    serde_json::from_slice(body).map_err(|error| wrong(error.to_string()))
}
