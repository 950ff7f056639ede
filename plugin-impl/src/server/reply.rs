//! From an answer or a fault to the bytes of a reply.

use std::borrow::Cow;

use bytes::Bytes;
use goplug_pconf_schema::wire::call::PROBLEM_JSON;
use goplug_pconf_schema::wire::frame;
use goplug_pconf_schema::{Code, Fault};
use goplug_transport::{ServerBody, ServerResponse, ServerUpgrade, Written};
use serde::Serialize;
use serde_json::Value;

use super::head::Caller;
use super::route::NoRoute;

const CALL_ID: &str = "Goplug-Call-Id";
const BYTES: &str = "application/octet-stream";

/// A good answer.
pub(crate) struct Answer {
    body: ServerBody,
    /// `None` is bytes, which v0 calls text.
    content_type: Option<Cow<'static, str>>,
    close: bool,
    written: Option<Written>,
}

impl Answer {
    pub(crate) fn bytes(body: impl Into<Bytes>) -> Self {
        Self::body(ServerBody::Full(body.into()), None)
    }

    pub(crate) fn json(document: &impl Serialize) -> Result<Self, Fault> {
        let text = serde_json::to_vec(document).map_err(|error| Fault::new(Code::Internal, error.to_string()))?;
        Ok(Self::body(ServerBody::Full(text.into()), Some("application/json".into())))
    }

    pub(crate) fn body(body: ServerBody, content_type: Option<Cow<'static, str>>) -> Self {
        Self { body, content_type, close: false, written: None }
    }

    /// The connection passes to `upgrade`.
    pub(crate) fn upgrade(upgrade: ServerUpgrade) -> Self {
        Self::body(ServerBody::Upgrade(upgrade), None)
    }

    /// What to do once it was written whole; dropped without being called when it was not.
    pub(crate) fn when_written(mut self, act: impl FnOnce() + Send + 'static) -> Self {
        self.written = Some(Written::new(act));
        self
    }

    /// The connection serves no more.
    pub(crate) fn and_close(mut self) -> Self {
        self.close = true;
        self
    }

    pub(crate) fn into_response(self, caller: &Caller) -> ServerResponse {
        if matches!(self.body, ServerBody::Upgrade(_)) {
            let mut headers = vec![("Connection", "Upgrade".to_owned()), ("Upgrade", frame::UPGRADE.to_owned())];
            headers.append(&mut call_id(caller));
            let (status, reason, body) = (101, "Switching Protocols", self.body);
            return ServerResponse { status, reason, headers, content_type: None, body, close: false, written: None };
        }
        // v0 knows no other.
        let told = self.content_type.filter(|_| !caller.is_v0);
        let usual = if caller.is_v0 { "text/plain" } else { BYTES };
        ServerResponse {
            status: 200,
            reason: "OK",
            headers: call_id(caller),
            content_type: Some(told.unwrap_or(usual.into())),
            body: self.body,
            close: self.close,
            written: self.written,
        }
    }
}

/// The reply that carries a fault: for v0 status 400 with an empty body (see [`Caller::is_v0`]), else a problem document.
pub(crate) fn problem(no: &NoRoute, caller: &Caller) -> ServerResponse {
    let mut response = ServerResponse {
        status: 400,
        reason: "Bad Request",
        headers: call_id(caller),
        content_type: None,
        body: ServerBody::Full(Bytes::new()),
        close: false,
        written: None,
    };
    if caller.is_v0 {
        return response;
    }
    let mut document = no.fault.to_problem();
    response.status = no.fault.code.http_status();
    let remedy = [(405, "Allow", no.allow), (426, "Upgrade", no.upgrade)];
    for (status, field, value) in remedy {
        let Some(value) = value else { continue };
        response.status = status;
        response.headers.push((field, value.to_owned()));
        if let Ok(mut value) = serde_json::from_slice::<Value>(&document) {
            value["status"] = status.into();
            document = value.to_string().into_bytes();
        }
    }
    response.reason = reason(response.status);
    response.content_type = Some(PROBLEM_JSON.into());
    response.body = ServerBody::Full(document.into());
    response
}

fn call_id(caller: &Caller) -> Vec<(&'static str, String)> {
    caller.call_id.iter().map(|id| (CALL_ID, id.clone())).collect()
}

fn reason(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        409 => "Conflict",
        413 => "Content Too Large",
        422 => "Unprocessable Content",
        426 => "Upgrade Required",
        499 => "Client Closed Request",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Error",
    }
}
