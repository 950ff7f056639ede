//! Which programs plugins may run.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use goplug_registry::Sha256;
use goplug_registry::admin::{Revocation, Trust, TrustEntry};
use serde::Deserialize;

use super::App;
use super::body::MAX_DOCUMENT_BYTES;
use super::error::Problem;
use super::target::PluginTarget;

/// `GET /v1/trust`: every program that is pinned.
pub(crate) async fn list(State(app): State<Arc<App>>) -> Result<Json<Vec<TrustEntry>>, Problem> {
    Ok(Json(app.fleet.trusted().await?))
}

/// `GET …/trust`: what a plugin may run, and what it runs.
pub(crate) async fn show(
    State(app): State<Arc<App>>,
    PluginTarget(plugin): PluginTarget,
) -> Result<Json<Trust>, Problem> {
    Ok(Json(app.fleet.trust_of(&plugin).await?))
}

/// Body of an approval; it may be missing.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ApproveBody {
    sha256: Option<Sha256>,
}

/// `POST …/trust/approve`: pins a plugin to the program that it runs now; with a digest, only if it is that one.
pub(crate) async fn approve(
    State(app): State<Arc<App>>,
    PluginTarget(plugin): PluginTarget,
    request: Request,
) -> Result<Json<Trust>, Problem> {
    let body = app.bodies.receive(request.into_body(), MAX_DOCUMENT_BYTES).await?;
    let what: ApproveBody = match body.bytes.trim_ascii() {
        [] => ApproveBody::default(),
        text => serde_json::from_slice(text)
            .map_err(|why| Problem::invalid(format!("the body: {why}: send {{\"sha256\":…}}")))?,
    };
    Ok(Json(app.fleet.approve(&plugin, what.sha256).await?))
}

/// `POST …/trust/revoke`: forgets what a plugin may run.
pub(crate) async fn revoke(
    State(app): State<Arc<App>>,
    PluginTarget(plugin): PluginTarget,
) -> Result<Json<Revocation>, Problem> {
    Ok(Json(app.fleet.revoke(&plugin).await?))
}
