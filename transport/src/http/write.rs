//! Writes heads into a buffer that is used again and again.

#[cfg(any(feature = "client", feature = "server"))]
use std::io::Write;

#[cfg(feature = "client")]
use super::{MAX_HEAD_BYTES, Malformed};
#[cfg(feature = "client")]
use crate::client::Request;
#[cfg(feature = "server")]
use crate::server::ServerResponse;

/// Writes the head of a request.
///
/// # Errors
/// When a part of it would break the framing, such as a line break in a value; `out` is of no use then.
#[cfg(feature = "client")]
pub(crate) fn request_head(out: &mut Vec<u8>, request: &Request<'_>) -> Result<(), Malformed> {
    head(out, request, false)
}

/// As [`request_head`], of a request whose body follows in chunks.
///
/// # Errors
/// As there.
#[cfg(feature = "client")]
pub(crate) fn chunked_request_head(out: &mut Vec<u8>, request: &Request<'_>) -> Result<(), Malformed> {
    head(out, request, true)
}

#[cfg(feature = "client")]
fn head(out: &mut Vec<u8>, request: &Request<'_>, is_chunked: bool) -> Result<(), Malformed> {
    check(is_token(request.method), "the method is not a word")?;
    check(is_target(request.target), "the target is empty or has a byte that must be percent-encoded")?;
    out.clear();
    put(out, &[request.method, " ", request.target, " HTTP/1.1\r\n"]);
    put_field(out, "Host", request.host)?;
    for (name, value) in request.headers {
        let ours = ["host", "content-type", "content-length", "transfer-encoding"];
        check(!ours.iter().any(|our| our.eq_ignore_ascii_case(name)), "a field that the connection writes itself")?;
        put_field(out, name, value)?;
    }
    if let Some(content_type) = request.content_type {
        put_field(out, "Content-Type", content_type)?;
    }
    if is_chunked {
        put(out, &["Transfer-Encoding: chunked\r\n"]);
    } else if !request.body.is_empty() || !matches!(request.method, "GET" | "HEAD") {
        put_number(out, "Content-Length: ", request.body.len() as u64);
    }
    put(out, &["\r\n"]);
    check(out.len() <= MAX_HEAD_BYTES, "its head is longer than 16384 bytes")
}

/// What a reply's head says about its body.
#[cfg(feature = "server")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Announce {
    Length(u64),
    Chunked,
    Nothing,
}

/// Writes the head of a reply. Fields whose name or value would break the framing are left out.
#[cfg(feature = "server")]
pub(crate) fn response_head(out: &mut Vec<u8>, response: &ServerResponse, announce: Announce, close: bool) {
    out.clear();
    put_number_raw(out, "HTTP/1.1 ", u64::from(response.status));
    put(out, &[" ", response.reason, "\r\n"]);
    for (name, value) in &response.headers {
        if is_token(name) && is_value(value) {
            put(out, &[name, ": ", value, "\r\n"]);
        }
    }
    if let Some(content_type) = response.content_type.as_deref().filter(|value| is_value(value)) {
        put(out, &["Content-Type: ", content_type, "\r\n"]);
    }
    match announce {
        Announce::Length(length) => put_number(out, "Content-Length: ", length),
        Announce::Chunked => put(out, &["Transfer-Encoding: chunked\r\n"]),
        Announce::Nothing => {}
    }
    put(out, &[if close { "Connection: close\r\n\r\n" } else { "\r\n" }]);
}

/// Writes the line before a chunk.
#[cfg(any(feature = "client", feature = "server"))]
pub(crate) fn chunk_line(out: &mut Vec<u8>, size: usize) {
    out.clear();
    write!(out, "{size:x}\r\n").expect("a vector takes every byte");
}

fn put(out: &mut Vec<u8>, parts: &[&str]) {
    for part in parts {
        out.extend_from_slice(part.as_bytes());
    }
}

fn put_number(out: &mut Vec<u8>, name: &str, number: u64) {
    put_number_raw(out, name, number);
    put(out, &["\r\n"]);
}

fn put_number_raw(out: &mut Vec<u8>, before: &str, number: u64) {
    put(out, &[before]);
    write!(out, "{number}").expect("a vector takes every byte");
}

#[cfg(feature = "client")]
fn put_field(out: &mut Vec<u8>, name: &str, value: &str) -> Result<(), Malformed> {
    check(is_token(name), "the name of a field is not a word")?;
    check(is_value(value), "the value of a field has a control character")?;
    put(out, &[name, ": ", value, "\r\n"]);
    Ok(())
}

#[cfg(feature = "client")]
fn check(good: bool, why: &str) -> Result<(), Malformed> {
    if good { Ok(()) } else { Malformed::because(why) }
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

fn is_value(text: &str) -> bool {
    text.bytes().all(|byte| byte == b'\t' || !byte.is_ascii_control())
}

#[cfg(feature = "client")]
fn is_target(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
#[cfg(all(feature = "client", feature = "server"))]
mod tests;
