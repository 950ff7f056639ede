//! `GET /v1/events`: what happens in all directories, as server-sent events.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use goplug_pconf_schema::printable;

use super::App;
use super::callbacks::{keep_alive, last_event_id};
use super::error::Problem;
use super::target::Query;
use crate::fleet::Reader;

/// Starts after `Last-Event-ID`, else after `?after=` (0: everything that is kept), else now. 410 when that is too old. With
/// `?follow=false` the stream ends with the newest event of this moment.
pub(crate) async fn follow(State(app): State<Arc<App>>, query: Query, headers: HeaderMap) -> Result<Response, Problem> {
    // A reader that reconnects repeats its old `after`: where it really was outranks it.
    let after = match last_event_id(&headers)? {
        Some(id) => Some(id),
        None => query.value("after")?,
    };
    let after = after.map(|text| number(&text)).transpose()?;
    let reader = app.fleet.events(after).map_err(|gone| Problem::from(gone).with_status(StatusCode::GONE))?;
    let last = if query.flag("follow", true)? { u64::MAX } else { app.fleet.version() };
    let place = app.stream_place()?;
    let events = stream::unfold(reader, move |reader| next_event(reader, last));
    Ok(Sse::new(app.until_stopping(events, place)).keep_alive(keep_alive()).into_response())
}

async fn next_event(mut reader: Reader, last: u64) -> Option<(Result<Event, Infallible>, Reader)> {
    if reader.place() > last {
        return None;
    }
    let event = reader.next().await;
    let data = serde_json::to_string(&event).unwrap_or_default();
    Some((Ok(Event::default().id(event.seq.to_string()).data(data)), reader))
}

fn number(text: &str) -> Result<u64, Problem> {
    let wrong =
        |_| Problem::invalid(format!("`{}` is no number of an event: use the id of one, or 0", printable(text)));
    text.parse().map_err(wrong)
}
