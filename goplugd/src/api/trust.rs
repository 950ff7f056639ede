//! Which programs plugins may run, and whose packages are taken.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use goplug_registry::Sha256;
use goplug_registry::admin::{Revocation, Trust, TrustEntry, TrustedKey};
use serde::Deserialize;

use super::App;
use super::body::MAX_DOCUMENT_BYTES;
use super::document::read;
use super::error::Problem;
use super::target::{PluginTarget, Query};

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
    let what: ApproveBody = read(&app, request, "{\"sha256\":…}").await?;
    Ok(Json(app.fleet.approve(&plugin, what.sha256).await?))
}

/// `POST …/trust/revoke`: forgets what a plugin may run.
pub(crate) async fn revoke(
    State(app): State<Arc<App>>,
    PluginTarget(plugin): PluginTarget,
) -> Result<Json<Revocation>, Problem> {
    Ok(Json(app.fleet.revoke(&plugin).await?))
}

/// `GET /v1/trust/keys`: the keys whose packages are taken.
pub(crate) async fn keys(State(app): State<Arc<App>>) -> Result<Json<Vec<TrustedKey>>, Problem> {
    Ok(Json(app.fleet.trusted_keys().await?))
}

/// Body of a key.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyBody {
    key: String,
    #[serde(default)]
    comment: String,
}

/// `POST /v1/trust/keys`: takes packages of a key.
pub(crate) async fn add_key(State(app): State<Arc<App>>, request: Request) -> Result<Json<TrustedKey>, Problem> {
    let body = app.bodies.receive(request.into_body(), MAX_DOCUMENT_BYTES).await?;
    let what: KeyBody = serde_json::from_slice(&body.bytes)
        .map_err(|why| Problem::invalid(format!("the body: {why}: send {{\"key\":…,\"comment\":…}}")))?;
    Ok(Json(app.fleet.trust_key(&what.key, &what.comment).await?))
}

/// `DELETE /v1/trust/keys?key=`: takes packages of a key no more.
pub(crate) async fn remove_key(State(app): State<Arc<App>>, query: Query) -> Result<Json<TrustedKey>, Problem> {
    let key = query.value("key")?.ok_or_else(|| Problem::invalid("which key? `?key=`".to_owned()))?;
    Ok(Json(app.fleet.distrust_key(&key).await?))
}
