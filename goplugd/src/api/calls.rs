//! `POST …/methods/{method}`: body bytes in, the method's bytes out.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use goplug_pconf_schema::printable;
use goplug_pconf_schema::wire::call::{DEADLINE_MS, MAX_DEADLINE_MS, TRACEPARENT, TRACESTATE};
use goplug_registry::{Answer, CallOptions, Code, Error, Ran};
use tokio::time::{Instant, timeout_at};

use super::App;
use super::body::MAX_CALL_BYTES;
use super::error::Problem;
use super::target::{CallTarget, Query};
use crate::accept::Peer;

/// The longest header that is passed on, in bytes.
const MAX_PASSED_BYTES: usize = 1_024;
/// What bytes are when nobody says.
const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// With `?load=true` the plugin is loaded first if it is not.
///
/// # Cancel safety
/// The client's end of the connection drops this future, and that cancels the call.
pub(crate) async fn execute(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<Peer>,
    target: CallTarget,
    query: Query,
    request: Request,
) -> Result<Response, Problem> {
    let begun = Instant::now();
    let (head, body) = request.into_parts();
    let mut options = options(&head.headers, peer)?;
    let ends = options.deadline.map(|left| begun + left);
    let load = query.flag("load", false)?;

    let prepare = async {
        let body = app.bodies.receive(body, MAX_CALL_BYTES).await?;
        if load {
            match app.fleet.load(&target.plugin).await {
                Err(error) if error.code != Code::Conflict => return Err(error),
                // A conflict says that it is loaded already, which is what was wanted.
                Ok(_) | Err(_) => {}
            }
        }
        Ok(body)
    };
    let body = match ends {
        Some(ends) => timeout_at(ends, prepare).await.map_err(|_| too_late())?,
        None => prepare.await,
    }?;
    options.deadline = ends.map(|ends| ends.saturating_duration_since(Instant::now()));
    if options.deadline.is_some_and(|left| left.is_zero()) {
        return Err(too_late().into());
    }
    let answer = app.fleet.execute(&target.plugin, &target.call, body.bytes, options).await;
    drop(body.share);
    Ok(reply(answer?))
}

/// What of the request's head concerns the call. All other headers stay here, `Goplug-Epoch`, `Goplug-Call-Id` and
/// `Goplug-Caller` above all: the registry writes its own, and who calls is what the kernel says.
fn options(headers: &HeaderMap, peer: Peer) -> Result<CallOptions, Problem> {
    Ok(CallOptions {
        deadline: deadline(headers)?,
        caller: Some(format!("uid:{}", peer.uid)),
        content_type: passed(headers, header::CONTENT_TYPE.as_str())?,
        traceparent: passed(headers, TRACEPARENT)?,
        tracestate: passed(headers, TRACESTATE)?,
    })
}

fn deadline(headers: &HeaderMap) -> Result<Option<Duration>, Problem> {
    let Some(text) = passed(headers, DEADLINE_MS)? else { return Ok(None) };
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse::<u64>() {
        Ok(ms) if digits && ms <= MAX_DEADLINE_MS => Ok(Some(Duration::from_millis(ms))),
        _ => Err(Problem::invalid(format!(
            "Goplug-Deadline-Ms is `{}`: use an integer from 0 to {MAX_DEADLINE_MS}",
            printable(&text)
        ))),
    }
}

/// The value of a header that may go on to the plugin: once, visible ASCII, not too long.
fn passed(headers: &HeaderMap, name: &str) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Problem::invalid(format!("the header {name} is there twice")));
    }
    if value.len() > MAX_PASSED_BYTES {
        return Err(Problem::invalid(format!(
            "the header {name} is {} bytes, the limit is {MAX_PASSED_BYTES}",
            value.len()
        )));
    }
    let text = value.to_str().map_err(|_| Problem::invalid(format!("the header {name} is not visible ASCII")))?;
    Ok(Some(text.to_owned()).filter(|text| !text.is_empty()))
}

fn too_late() -> Error {
    Error::new(Code::DeadlineExceeded, "the time limit passed before the call could begin").with_ran(Ran::No)
}

fn reply(answer: Answer) -> Response {
    let content_type = answer.content_type.and_then(|text| HeaderValue::from_str(&text).ok());
    let mut response = Response::new(Body::from(answer.body));
    response.headers_mut().insert(header::CONTENT_TYPE, content_type.unwrap_or(OCTETS));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::response::IntoResponse as _;

    fn read(pairs: &[(&'static str, &str)]) -> Result<CallOptions, u16> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        options(&headers, Peer { uid: 7 }).map_err(|problem| problem.into_response().status().as_u16())
    }

    #[test]
    fn only_what_is_on_the_list_goes_on_and_the_caller_is_ours() {
        let options = read(&[
            ("content-type", "a/b"),
            ("traceparent", "00-1"),
            ("tracestate", "k=v"),
            ("goplug-deadline-ms", "1500"),
            ("goplug-caller", "root"),
            ("goplug-epoch", "x"),
            ("cookie", "x"),
        ])
        .unwrap();
        assert_eq!(options.caller.as_deref(), Some("uid:7"));
        assert_eq!(options.deadline, Some(Duration::from_millis(1_500)));
        let passed = (options.content_type.as_deref(), options.traceparent.as_deref(), options.tracestate.as_deref());
        assert_eq!(passed, (Some("a/b"), Some("00-1"), Some("k=v")));
        assert_eq!(read(&[]).unwrap().deadline, None);
    }

    #[test]
    fn a_header_that_cannot_be_meant_is_refused() {
        let long = "x".repeat(MAX_PASSED_BYTES + 1);
        for wrong in [
            vec![("goplug-deadline-ms", "86400001")],
            vec![("goplug-deadline-ms", "-1")],
            vec![("goplug-deadline-ms", "+1")],
            vec![("goplug-deadline-ms", "1.5")],
            vec![("goplug-deadline-ms", "99999999999999999999")],
            vec![("goplug-deadline-ms", "1"), ("goplug-deadline-ms", "2")],
            vec![("content-type", "a/b"), ("content-type", "a/b")],
            vec![("traceparent", &long)],
            vec![("traceparent", "ü")],
        ] {
            assert_eq!(read(&wrong).unwrap_err(), 400, "{wrong:?}");
        }
    }
}
