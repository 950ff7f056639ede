//! The wire of tilotech/go-plugin: a call is a POST to the method's path, with the deadline and the payload as JSON; a reply is a
//! JSON value, an error a JSON string. Pure but for the exchange itself.

use bytes::Bytes;
use goplug_pconf_schema::wire::call::escape;
use goplug_pconf_schema::{Code, Fault, Ran, printable};
use goplug_transport::{Connection, Request};
use serde::de::IgnoredAny;
use tokio::time::Instant;

use super::Received;
use super::attempt::{Outgoing, broken, broken_reply};
use crate::supervisor::Live;

/// What its requests name as their host.
const HOST: &str = "plugin";
const JSON: &str = "application/json";

/// Sends the call and reads its reply.
pub(super) async fn exchange(
    live: &Live,
    connection: &mut Connection,
    call: &Outgoing<'_>,
    deadline: Instant,
) -> Result<Received, Fault> {
    let left = deadline.saturating_duration_since(Instant::now());
    let body = envelope(call.body, std::time::SystemTime::now() + left)?;
    let target = target(call.name);
    let request =
        Request { method: "POST", target: &target, host: HOST, headers: &[], content_type: Some(JSON), body: &body };
    let exchanged = connection.exchange_within(&request, |_| Some(call.max_reply_bytes)).await;
    let (head, reply) = exchanged.map_err(|error| broken(live, &error))?;
    let reply = reply.unwrap_or_else(|| Ok(Bytes::new())).map_err(|error| broken_reply(live, &error))?;
    let body = judge(head.status, reply).map_err(|fault| {
        let message = format!("plugin `{}`, method `{}`: {}", live.id, printable(call.name), fault.message);
        Fault { message, ..fault }
    })?;
    Ok(Received { body: body.into(), content_type: Some(JSON.to_owned()) })
}

/// The path of a method; its name may begin with the slash, as there, or not.
fn target(method: &str) -> String {
    let parts = method.strip_prefix('/').unwrap_or(method).split('/');
    parts.fold(String::new(), |path, part| path + "/" + &escape(part))
}

/// The body of a request: nothing is `null`.
fn envelope(payload: &[u8], deadline: std::time::SystemTime) -> Result<Vec<u8>, Fault> {
    let payload = if payload.is_empty() { &b"null"[..] } else { payload };
    if let Err(error) = serde_json::from_slice::<IgnoredAny>(payload) {
        let text = format!("the plugin speaks JSON, and the body is none: {error}");
        return Err(Fault::new(Code::InvalidArgument, text).with_ran(Ran::No));
    }
    let head = format!(r#"{{"Context":{{"Deadline":"{}"}},"Payload":"#, humantime::format_rfc3339_nanos(deadline));
    Ok([head.as_bytes(), payload, b"}"].concat())
}

/// What a reply means. A 500 is told of methods that failed and of those that panicked: both have run.
fn judge(status: u16, reply: Bytes) -> Result<Bytes, Fault> {
    if status == 200 {
        let length = reply.trim_ascii_end().len();
        return Ok(reply.slice(..length));
    }
    let (code, ran) = match status {
        404 => (Code::NotFound, Ran::No),
        422 => (Code::InvalidArgument, Ran::No),
        500 => (Code::MethodFailed, Ran::Yes),
        _ => (Code::ProtocolError, Ran::Unknown),
    };
    let text = serde_json::from_slice::<String>(&reply);
    let text = text.unwrap_or_else(|_| format!("status {status} without a JSON string"));
    Err(Fault::new(code, printable(&text)).with_ran(ran))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn a_request_carries_its_deadline_and_its_payload() {
        let deadline = SystemTime::UNIX_EPOCH + Duration::from_millis(1_500);
        let text = |payload: &[u8]| String::from_utf8(envelope(payload, deadline).unwrap()).unwrap();
        let expected = r#"{"Context":{"Deadline":"1970-01-01T00:00:01.500000000Z"},"Payload":{"a":1}}"#;
        assert_eq!(text(br#"{"a":1}"#), expected);
        assert!(text(b"").ends_with(r#""Payload":null}"#));
        for wrong in [&b"{"[..], b"a", b"1 2", b"}}", b"\xff"] {
            let fault = envelope(wrong, deadline).unwrap_err();
            assert_eq!((fault.code, fault.ran), (Code::InvalidArgument, Ran::No));
        }
        for (name, path) in [("add", "/add"), ("/add", "/add"), ("/say/a b", "/say/a%20b"), ("a?b", "/a%3Fb")] {
            assert_eq!(target(name), path);
        }
    }

    #[test]
    fn a_reply_is_a_value_or_an_error() {
        assert_eq!(judge(200, Bytes::from_static(b"3\n")).unwrap(), "3");
        for (status, text, code, ran) in [
            (404, "\"no such method\"\n", Code::NotFound, Ran::No),
            (422, "\"cannot decode\"\n", Code::InvalidArgument, Ran::No),
            (500, "\"boom\"", Code::MethodFailed, Ran::Yes),
            (500, "<html>", Code::MethodFailed, Ran::Yes),
            (302, "\"x\"", Code::ProtocolError, Ran::Unknown),
        ] {
            let fault = judge(status, Bytes::from(text)).unwrap_err();
            assert_eq!((fault.code, fault.ran), (code, ran), "{status}");
        }
        assert_eq!(judge(500, Bytes::from_static(b"\"a\\u001b\"")).unwrap_err().message, printable("a\u{1b}"));
    }
}
