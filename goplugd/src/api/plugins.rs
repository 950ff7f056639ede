//! What plugins there are, what is known of them, and their life.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::HeaderName;
use axum::response::{IntoResponse, Response};
use goplug_pconf_schema::wire::call::{DEFAULT_DEADLINE_MS, MAX_DEADLINE_MS};
use goplug_pconf_schema::{check_call_name, printable};
use goplug_registry::Install;
use goplug_registry::admin::{
    Activation, CallbackList, Installation, MethodList, Ping, PluginDetail, Removal, Unloaded, Why,
};
use goplug_registry::{Grant, Unload, Wait};
use serde::Deserialize;
use serde_json::{Value, json};

use super::App;
use super::body::MAX_DOCUMENT_BYTES;
use super::document::{absolute, read};
use super::error::Problem;
use super::target::{PluginTarget, Query};

/// The number of the newest event that the list is sure to contain: follow `/v1/events?after=` it to miss nothing.
const VERSION: HeaderName = HeaderName::from_static("goplug-version");
/// The longest subject of `why`, in bytes: the longest path.
const MAX_SUBJECT_BYTES: usize = 4_096;

/// `GET /v1/plugins[?glob=]`.
pub(crate) async fn list(State(app): State<Arc<App>>, query: Query) -> Result<Response, Problem> {
    // Before the list: what happens in between is in the list and told once more, instead of never.
    let version = app.fleet.version();
    let rows = app.fleet.list(query.value("glob")?.as_deref())?;
    Ok(([(VERSION, version.to_string())], Json(rows)).into_response())
}

/// `GET /v1/plugins/{ns}/{name}`.
pub(crate) async fn inspect(
    State(app): State<Arc<App>>,
    PluginTarget(plugin): PluginTarget,
) -> Result<Json<PluginDetail>, Problem> {
    Ok(Json(app.fleet.inspect(&plugin).await?))
}

/// Body of an installation.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct InstallBody {
    source: PathBuf,
    #[serde(default)]
    allow_unsigned: bool,
    #[serde(default)]
    grant: Grant,
    #[serde(default)]
    dry_run: bool,
}

/// `POST /v1/plugins`: brings a folder or a package of this machine into the first plugin directory. Whoever may ask is our own user or
/// root, and could copy it too.
pub(crate) async fn install(State(app): State<Arc<App>>, request: Request) -> Result<Json<Installation>, Problem> {
    let body = app.bodies.receive(request.into_body(), MAX_DOCUMENT_BYTES).await?;
    let what: InstallBody = serde_json::from_slice(&body.bytes).map_err(|why| {
        Problem::invalid(format!("the body: {why}: send {{\"source\":…,\"allowUnsigned\":…,\"grant\":…,\"dryRun\":…}}"))
    })?;
    let source = absolute(what.source)?;
    let how = Install { allow_unsigned: what.allow_unsigned, grant: what.grant, dry_run: what.dry_run };
    Ok(Json(app.fleet.install(&source, how).await?))
}

/// `DELETE /v1/plugins/{ns}/{name}[?version=][&dryRun=true]`: takes an installed plugin out, or one version of it.
pub(crate) async fn remove(
    State(app): State<Arc<App>>,
    PluginTarget(plugin): PluginTarget,
    query: Query,
) -> Result<Json<Removal>, Problem> {
    let dry_run = query.flag("dryRun", false)?;
    let version = query.value("version")?;
    Ok(Json(app.fleet.remove(&plugin, version.as_deref(), dry_run).await?))
}

/// `POST …/load`.
pub(crate) async fn load(
    State(app): State<Arc<App>>,
    PluginTarget(plugin): PluginTarget,
) -> Result<Json<Activation>, Problem> {
    Ok(Json(app.fleet.load(&plugin).await?))
}

/// Body of an unload; both may be missing, and so may the body.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct UnloadBody {
    drain_ms: Option<u64>,
    stop: bool,
}

/// `POST …/unload`.
pub(crate) async fn unload(
    State(app): State<Arc<App>>,
    PluginTarget(plugin): PluginTarget,
    request: Request,
) -> Result<Json<Unloaded>, Problem> {
    let how: UnloadBody = read(&app, request, "{\"drainMs\":…,\"stop\":…}").await?;
    if how.drain_ms.is_some_and(|ms| ms > MAX_DEADLINE_MS) {
        return Err(Problem::invalid(format!("drainMs is more than {MAX_DEADLINE_MS}")));
    }
    let how = Unload { drain: how.drain_ms.map(Duration::from_millis), stop: how.stop };
    Ok(Json(app.fleet.unload(&plugin, how).await?))
}

/// `POST …/reload`.
pub(crate) async fn reload(
    State(app): State<Arc<App>>,
    PluginTarget(plugin): PluginTarget,
) -> Result<Json<Activation>, Problem> {
    Ok(Json(app.fleet.reload(&plugin).await?))
}

/// `POST …/ping`.
pub(crate) async fn ping(
    State(app): State<Arc<App>>,
    PluginTarget(plugin): PluginTarget,
) -> Result<Json<Ping>, Problem> {
    Ok(Json(app.fleet.ping(&plugin).await?))
}

/// `GET …/methods`.
pub(crate) async fn methods(
    State(app): State<Arc<App>>,
    PluginTarget(plugin): PluginTarget,
) -> Result<Json<MethodList>, Problem> {
    Ok(Json(app.fleet.methods(&plugin).await?))
}

/// `GET …/callbacks`.
pub(crate) async fn callbacks(
    State(app): State<Arc<App>>,
    PluginTarget(plugin): PluginTarget,
) -> Result<Json<CallbackList>, Problem> {
    Ok(Json(app.fleet.callbacks(&plugin).await?))
}

/// `GET …/why`: answers for a plugin that is not there, too.
pub(crate) async fn why(State(app): State<Arc<App>>, PluginTarget(plugin): PluginTarget) -> Result<Json<Why>, Problem> {
    Ok(Json(app.fleet.why(plugin.as_str()).await?))
}

/// `GET /v1/why?subject=`: a plugin's name in any form, or a file in a plugin directory.
pub(crate) async fn why_subject(State(app): State<Arc<App>>, query: Query) -> Result<Json<Why>, Problem> {
    let subject = query
        .value("subject")?
        .ok_or_else(|| Problem::invalid("query `subject` is missing: name a plugin or a file"))?;
    if subject.len() > MAX_SUBJECT_BYTES {
        return Err(Problem::invalid(format!(
            "query `subject` is {} bytes, the limit is {MAX_SUBJECT_BYTES}",
            subject.len()
        )));
    }
    Ok(Json(app.fleet.why(&subject).await?))
}

/// `GET …/wait?for=loaded|discovered|gone|callback=NAME&timeoutMs=`.
pub(crate) async fn wait(
    State(app): State<Arc<App>>,
    PluginTarget(plugin): PluginTarget,
    query: Query,
) -> Result<Json<Value>, Problem> {
    let what = what_to_wait_for(&query.value("for")?.unwrap_or_else(|| "loaded".to_owned()))?;
    let timeout_ms = match query.value("timeoutMs")? {
        None => DEFAULT_DEADLINE_MS,
        Some(text) => text.parse().ok().filter(|ms| *ms <= MAX_DEADLINE_MS).ok_or_else(|| {
            Problem::invalid(format!("query `timeoutMs` is `{}`: use 0 to {MAX_DEADLINE_MS}", printable(&text)))
        })?,
    };
    app.fleet.wait_for(&plugin, &what, Duration::from_millis(timeout_ms)).await?;
    Ok(Json(json!({ "plugin": plugin })))
}

fn what_to_wait_for(text: &str) -> Result<Wait, Problem> {
    match text {
        "loaded" => Ok(Wait::Loaded),
        "discovered" => Ok(Wait::Discovered),
        "gone" => Ok(Wait::Gone),
        other => {
            let Some(name) = other.strip_prefix("callback=") else {
                let text =
                    format!("query `for` is `{}`: use loaded, discovered, gone or callback=NAME", printable(other));
                return Err(Problem::invalid(text));
            };
            check_call_name("callback", name).map_err(|why| Problem::invalid(why.to_string()))?;
            Ok(Wait::Callback(name.to_owned()))
        }
    }
}

/// `POST /v1/rescan`: answers when every directory was read and what is there was applied.
pub(crate) async fn rescan(State(app): State<Arc<App>>) -> Result<Json<Value>, Problem> {
    app.fleet.rescan().await?;
    Ok(Json(json!({ "version": app.fleet.version() })))
}
