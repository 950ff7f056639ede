//! Which version of an installed plugin is the current one.

use std::path::PathBuf;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use goplug_registry::admin::{Diff, Pinned, Upgraded};
use goplug_registry::{Against, Grant, RollbackOn, Upgrade};
use serde::Deserialize;

use super::App;
use super::document::{absolute, read};
use super::error::Problem;
use super::target::PluginTarget;

/// Body of an upgrade; every key may be missing, and so may the body.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct UpgradeBody {
    source: Option<PathBuf>,
    rollback_on: Option<String>,
    downgrade: bool,
    allow_unsigned: bool,
    grant: Grant,
    dry_run: bool,
}

/// `POST …/upgrade`: answers when the new version serves, or the one before goes on.
pub(crate) async fn upgrade(
    State(app): State<Arc<App>>,
    PluginTarget(plugin): PluginTarget,
    request: Request,
) -> Result<Json<Upgraded>, Problem> {
    let body: UpgradeBody = read(
        &app,
        request,
        "{\"source\":…,\"rollbackOn\":…,\"downgrade\":…,\"allowUnsigned\":…,\"grant\":…,\"dryRun\":…}",
    )
    .await?;
    let rollback_on =
        body.rollback_on.as_deref().map(|text| text.parse::<RollbackOn>()).transpose().map_err(Problem::invalid)?;
    let source = body.source.clone().map(absolute).transpose()?;
    let UpgradeBody { downgrade, allow_unsigned, grant, dry_run, .. } = body;
    let how = Upgrade { rollback_on, downgrade, allow_unsigned, grant, dry_run };
    Ok(Json(app.fleet.upgrade(&plugin, source.as_deref(), how).await?))
}

/// Body of a rollback.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct RollbackBody {
    dry_run: bool,
}

/// `POST …/rollback`: as an upgrade to the version before.
pub(crate) async fn rollback(
    State(app): State<Arc<App>>,
    PluginTarget(plugin): PluginTarget,
    request: Request,
) -> Result<Json<Upgraded>, Problem> {
    let body: RollbackBody = read(&app, request, "{\"dryRun\":…}").await?;
    Ok(Json(app.fleet.rollback(&plugin, body.dry_run).await?))
}

/// Body of a pin.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct PinBody {
    /// `null`: all.
    range: Option<String>,
}

/// `POST …/pin`.
pub(crate) async fn pin(
    State(app): State<Arc<App>>,
    PluginTarget(plugin): PluginTarget,
    request: Request,
) -> Result<Json<Pinned>, Problem> {
    let body: PinBody = read(&app, request, "{\"range\":…}").await?;
    Ok(Json(app.fleet.pin(&plugin, body.range.as_deref()).await?))
}

/// Body of a diff; both may be missing, and so may the body.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct DiffBody {
    source: Option<PathBuf>,
    version: Option<String>,
    /// A package will do that nobody signed.
    #[serde(rename = "allowUnsigned")]
    allow_unsigned: bool,
}

/// `POST …/diff`: a process may be started for it, so it is no GET.
pub(crate) async fn diff(
    State(app): State<Arc<App>>,
    PluginTarget(plugin): PluginTarget,
    request: Request,
) -> Result<Json<Diff>, Problem> {
    let against = match read(&app, request, "{\"source\":…} or {\"version\":…}").await? {
        DiffBody { source: None, version: None, .. } => Against::Newest,
        DiffBody { source: None, version: Some(version), .. } => Against::Version(version),
        DiffBody { source: Some(source), version: None, allow_unsigned: false } => Against::Folder(absolute(source)?),
        DiffBody { source: Some(source), version: None, .. } => Against::Unsigned(absolute(source)?),
        _ => return Err(Problem::invalid("the body: `source` and `version` are both given: one is enough")),
    };
    Ok(Json(app.fleet.diff(&plugin, against).await?))
}
