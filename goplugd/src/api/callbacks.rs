//! Notifications: as a stream of server-sent events, and their acknowledgement.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use goplug_pconf_schema::wire::event::{KEEP_ALIVE_MS, Message, Position, check_subscription, to_base64};
use goplug_registry::admin::DeadLetter;
use goplug_registry::{Feed, FeedItem, Notice};
use serde::{Deserialize, Serialize};

use super::App;
use super::body::MAX_DOCUMENT_BYTES;
use super::error::Problem;
use super::target::{CallTarget, Query};
use crate::connection::Slow;

/// `GET …/callbacks/{callback}`: with `?subscription=NAME` that subscription, passed through unchanged; else an observer
/// that starts after `Last-Event-ID`, else after `?after=`, else now.
pub(crate) async fn listen(
    State(app): State<Arc<App>>,
    target: CallTarget,
    query: Query,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let place = app.stream_place()?;
    let CallTarget { plugin, call: callback } = target;
    let subscription = query.value("subscription")?;
    let holds_back = subscription.is_some();
    let feed = match subscription {
        Some(name) => {
            check_subscription(&name).map_err(Problem::invalid)?;
            app.fleet.subscribe(&plugin, &callback, &name).await?
        }
        None => {
            let after = match last_event_id(&headers)? {
                Some(id) => Some(id),
                None => query.value("after")?,
            };
            let after = after.map(|text| text.parse::<Position>()).transpose().map_err(Problem::invalid)?;
            app.fleet.observe(&plugin, &callback, after).await?
        }
    };
    let events = stream::unfold(Some(feed), next_event);
    let mut answer = Sse::new(app.until_stopping(events, place)).keep_alive(keep_alive()).into_response();
    if holds_back {
        answer.extensions_mut().insert(Slow);
    }
    Ok(answer)
}

/// Body of an acknowledgement: everything up to `position` was handled.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ack {
    subscription: String,
    position: Position,
}

/// `POST …/callbacks/{callback}/ack`.
pub(crate) async fn ack(
    State(app): State<Arc<App>>,
    target: CallTarget,
    request: Request,
) -> Result<Json<serde_json::Value>, Problem> {
    let body = app.bodies.receive(request.into_body(), MAX_DOCUMENT_BYTES).await?;
    let ack: Ack = serde_json::from_slice(&body.bytes).map_err(|why| {
        Problem::invalid(format!("no acknowledgement: {why}: send {{\"subscription\":…,\"position\":\"EPOCH:SEQ\"}}"))
    })?;
    check_subscription(&ack.subscription).map_err(Problem::invalid)?;
    app.fleet.ack(&target.plugin, &target.call, &ack.subscription, &ack.position).await?;
    Ok(Json(serde_json::json!({})))
}

/// `GET /v1/deadletters`.
pub(crate) async fn dead_letters(State(app): State<Arc<App>>) -> Json<Vec<DeadLetter>> {
    Json(app.fleet.dead_letters())
}

/// A comment on every stream now and then, so that both sides see a dead connection.
pub(super) fn keep_alive() -> KeepAlive {
    KeepAlive::new().interval(Duration::from_millis(KEEP_ALIVE_MS))
}

/// The header `Last-Event-ID`, if it is there and not empty.
pub(super) fn last_event_id(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get("last-event-id").filter(|value| !value.is_empty()) else { return Ok(None) };
    let text = value.to_str().map_err(|_| Problem::invalid("Last-Event-ID is not visible ASCII"))?;
    Ok(Some(text.to_owned()))
}

/// The next event and the feed for those after it; none after `replaced`: the place belongs to somebody else.
async fn next_event(feed: Option<Feed>) -> Option<(Result<Event, Infallible>, Option<Feed>)> {
    let mut feed = feed?;
    let item = feed.next().await?;
    let rest = (item != FeedItem::Replaced).then_some(feed);
    Some((Ok(event(item)), rest))
}

fn event(item: FeedItem) -> Event {
    match item {
        FeedItem::Message(notice) => message(&notice),
        FeedItem::Gap(gap) => named("gap", &gap),
        FeedItem::Epoch(change) => named("epoch", &change),
        FeedItem::Replaced => named("replaced", &serde_json::json!({})),
        // No event: the stream goes on by itself, and what was missed is told as a gap or an epoch.
        FeedItem::Lost(why) => Event::default().comment(goplug_pconf_schema::printable(&format!("stream lost: {why}"))),
    }
}

fn message(notice: &Notice) -> Event {
    let data = Message { data_base64: to_base64(&notice.data), key: notice.key.clone(), dropped: notice.dropped };
    let event = named("message", &data);
    match &notice.position {
        Some(position) => event.id(position.to_string()),
        None => event,
    }
}

/// JSON has no line break and a name has none, so nothing in them can end the event early.
fn named(name: &str, data: &impl Serialize) -> Event {
    Event::default().event(name).data(serde_json::to_string(data).unwrap_or_default())
}
