//! Request bodies that are documents.

use std::path::PathBuf;

use axum::extract::Request;
use serde::de::DeserializeOwned;

use super::App;
use super::body::MAX_DOCUMENT_BYTES;
use super::error::Problem;

/// Reads a body that may be missing; `shape` is what to send.
pub(super) async fn read<T: DeserializeOwned + Default>(
    app: &App,
    request: Request,
    shape: &str,
) -> Result<T, Problem> {
    let body = app.bodies.receive(request.into_body(), MAX_DOCUMENT_BYTES).await?;
    match body.bytes.trim_ascii() {
        [] => Ok(T::default()),
        text => serde_json::from_slice(text).map_err(|why| Problem::invalid(format!("the body: {why}: send {shape}"))),
    }
}

/// Whoever may ask is our own user or root, and could read it too.
pub(super) fn absolute(source: PathBuf) -> Result<PathBuf, Problem> {
    if source.is_absolute() {
        return Ok(source);
    }
    Err(Problem::invalid("`source` must be an absolute path: whoever asks may stand in another folder"))
}
