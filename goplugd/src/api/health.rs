//! Whether the daemon lives, and whether it knows its directories.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::State;
use goplug_registry::admin::DaemonStatus;
use goplug_registry::{Code, Error};

use super::App;
use super::error::Problem;
use crate::fleet::counts;

/// `GET /healthz`: always 200 while the daemon answers.
pub(crate) async fn healthz(State(app): State<Arc<App>>) -> Result<Json<DaemonStatus>, Problem> {
    Ok(Json(status(&app)?))
}

/// `GET /readyz`: 200 once every directory was read, until the daemon stops.
pub(crate) async fn readyz(State(app): State<Arc<App>>) -> Result<Json<DaemonStatus>, Problem> {
    let not_yet = |why: &str| Error::new(Code::Unavailable, why).with_retry_after_ms(100);
    if *app.stopping.borrow() {
        return Err(not_yet("the daemon is stopping").into());
    }
    if !app.ready.load(Ordering::Acquire) {
        return Err(not_yet("the plugin directories are being read").into());
    }
    Ok(Json(status(&app)?))
}

fn status(app: &App) -> Result<DaemonStatus, Problem> {
    Ok(DaemonStatus {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        since: app.since.clone(),
        directories: app.fleet.directories().iter().map(|directory| directory.display().to_string()).collect(),
        auto_discover: app.auto_discover.load(Ordering::Acquire),
        plugins: counts(&app.fleet.list(None)?),
    })
}
