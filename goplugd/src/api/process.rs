//! The processes of installed plugins: their life, and what they write.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use goplug_pconf_schema::printable;
use goplug_registry::admin::ProcessChange;
use goplug_registry::{LogPosition, Logs};

use super::App;
use super::callbacks::{keep_alive, last_event_id};
use super::error::Problem;
use super::target::{PluginTarget, Query};
use crate::fleet::ProcessVerb;

type Changed = Result<Json<ProcessChange>, Problem>;

/// `POST …/start`: answers when the process serves.
pub(crate) async fn start(State(app): State<Arc<App>>, PluginTarget(plugin): PluginTarget) -> Changed {
    Ok(Json(app.fleet.process(&plugin, ProcessVerb::Start).await?))
}

/// `POST …/stop`: answers when nothing of the process is left.
pub(crate) async fn stop(State(app): State<Arc<App>>, PluginTarget(plugin): PluginTarget) -> Changed {
    Ok(Json(app.fleet.process(&plugin, ProcessVerb::Stop).await?))
}

/// `POST …/restart`: answers when another process serves.
pub(crate) async fn restart(State(app): State<Arc<App>>, PluginTarget(plugin): PluginTarget) -> Changed {
    Ok(Json(app.fleet.process(&plugin, ProcessVerb::Restart).await?))
}

/// `POST …/enable`: answers at once.
pub(crate) async fn enable(State(app): State<Arc<App>>, PluginTarget(plugin): PluginTarget) -> Changed {
    Ok(Json(app.fleet.process(&plugin, ProcessVerb::Enable).await?))
}

/// `POST …/disable`: answers when nothing of the process is left.
pub(crate) async fn disable(State(app): State<Arc<App>>, PluginTarget(plugin): PluginTarget) -> Changed {
    Ok(Json(app.fleet.process(&plugin, ProcessVerb::Disable).await?))
}

/// `GET …/logs[?follow=false]`: each line as an event whose id is `INSTANCE:NUMBER`. Starts after `Last-Event-ID`, else after
/// `?after=`, else with the oldest line that is kept; goes on with the processes that follow. With `?follow=false` it ends
/// with the newest line.
pub(crate) async fn logs(
    State(app): State<Arc<App>>,
    PluginTarget(plugin): PluginTarget,
    query: Query,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let after = match last_event_id(&headers)? {
        Some(id) => Some(id),
        None => query.value("after")?,
    };
    let after = after.map(|text| text.parse::<LogPosition>()).transpose().map_err(Problem::invalid)?;
    let follow = query.flag("follow", true)?;
    let place = app.stream_place()?;
    let logs = app.fleet.logs(&plugin, follow, after).await?;
    let events = stream::unfold(logs, next_line);
    Ok(Sse::new(app.until_stopping(events, place)).keep_alive(keep_alive()).into_response())
}

async fn next_line(mut logs: Logs) -> Option<(Result<Event, Infallible>, Logs)> {
    match logs.entry().await {
        Ok(Some((position, entry))) => {
            let data = serde_json::to_string(&entry).unwrap_or_default();
            Some((Ok(Event::default().id(position.to_string()).data(data)), logs))
        }
        Ok(None) => None,
        // The plugin is gone: there will be no more.
        Err(fault) => {
            tracing::debug!("the output of a plugin ends: {}", printable(&fault.message));
            None
        }
    }
}
