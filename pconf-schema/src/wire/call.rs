//! A call's path and headers, and the escaping of names in them.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// Echoed by every reply of v1; visible ASCII, at most [`MAX_CALL_ID_BYTES`].
pub const CALL_ID: &str = "goplug-call-id";
/// The epoch of the process that the registry activated.
pub const EPOCH: &str = "goplug-epoch";
/// What is left of the caller's time, in milliseconds, 0 to [`MAX_DEADLINE_MS`].
pub const DEADLINE_MS: &str = "goplug-deadline-ms";
/// Who asks; worth what the connection's uid is worth.
pub const CALLER: &str = "goplug-caller";
/// W3C trace context, passed through.
pub const TRACEPARENT: &str = "traceparent";
/// W3C trace context, passed through.
pub const TRACESTATE: &str = "tracestate";

/// The `Host` of every v1 request from registry to plugin.
pub const HOST: &str = "goplug";
/// Content type of an error document.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// The longest call id in bytes.
pub const MAX_CALL_ID_BYTES: usize = 64;
/// The longest deadline: a day.
pub const MAX_DEADLINE_MS: u64 = 86_400_000;
/// The deadline of a call whose caller and method name none.
pub const DEFAULT_DEADLINE_MS: u64 = 30_000;
/// How long a hello may take.
pub const HELLO_MS: u64 = 2_000;
/// How long a ping may take.
pub const PING_MS: u64 = 1_000;
/// How long an activation may take.
pub const ACTIVATE_MS: u64 = 10_000;
/// The largest ping that must be echoed.
pub const MAX_PING_BYTES: usize = 64 * 1024;
/// The largest head (status or request line and fields).
pub const MAX_HEAD_BYTES: usize = 16 * 1024;
/// The most header fields in a head.
pub const MAX_HEADERS: usize = 64;

/// Paths of v1; everything of ours lives under `/_goplug/`.
pub mod path {
    /// How every path of v1 begins.
    pub const PREFIX: &str = "/_goplug/";
    /// Describes (GET) or negotiates (POST).
    pub const HELLO: &str = "/_goplug/hello";
    /// Runs the activator, once per process.
    pub const ACTIVATE: &str = "/_goplug/activate";
    /// Drains and runs the stopper; the process goes on listening.
    pub const DEACTIVATE: &str = "/_goplug/deactivate";
    /// Deactivates and leaves.
    pub const STOP: &str = "/_goplug/stop";
    /// Answers the same bytes.
    pub const PING: &str = "/_goplug/ping";
    /// The author's own word on the plugin's health.
    pub const HEALTH: &str = "/_goplug/health";
    /// Callbacks with their subscriptions.
    pub const CALLBACKS: &str = "/_goplug/callbacks";
    /// Before the escaped name of a method.
    pub const METHODS: &str = "/_goplug/methods/";
    /// Before the escaped name of a callback.
    pub const EVENTS: &str = "/_goplug/events/";
    /// Acknowledges a notification.
    pub const ACK: &str = "/_goplug/events/ack";
}

/// First path segments that are never methods at the top level.
pub const RESERVED: [&str; 5] = ["Activate", "Ping", "RegisterCallback", "Stop", "_goplug"];

/// All but `A-Za-z0-9-._~` is escaped in paths and queries.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Escapes a name for a path segment or a query value: a space is `%20`, a plus `%2B`.
pub fn escape(name: &str) -> String {
    utf8_percent_encode(name, ESCAPED).to_string()
}

/// Decodes one raw path segment or query value, once.
///
/// # Errors
/// Says what is wrong: empty, a bad escape, or bytes that are no UTF-8.
pub fn unescape(raw: &str) -> Result<String, String> {
    if raw.is_empty() {
        return Err("a path segment is empty".into());
    }
    let bytes = raw.as_bytes();
    let mut at = 0;
    while let Some(found) = bytes[at..].iter().position(|b| *b == b'%') {
        at += found + 1;
        if !bytes.get(at..at + 2).is_some_and(|two| two.iter().all(u8::is_ascii_hexdigit)) {
            return Err(format!("a `%` in `{}` is not followed by two hex digits", crate::printable(raw)));
        }
        at += 2;
    }
    let text = percent_encoding::percent_decode_str(raw).decode_utf8();
    text.map(|text| text.into_owned()).map_err(|_| format!("`{}` does not decode to UTF-8", crate::printable(raw)))
}

/// Splits a raw request target at `?` and its path at `/`, and decodes each segment once.
///
/// # Errors
/// As [`unescape`]; also for a target that does not begin with `/`.
pub fn split_target(target: &str) -> Result<(Vec<String>, Option<&str>), String> {
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    let rest = path
        .strip_prefix('/')
        .ok_or_else(|| format!("the path `{}` does not begin with `/`", crate::printable(path)))?;
    let segments = rest.split('/').map(unescape).collect::<Result<_, _>>()?;
    Ok((segments, query))
}

/// The decoded value of `key` in a raw query; the last one wins.
///
/// # Errors
/// As [`unescape`] when the value has a bad escape.
pub fn query_value(query: Option<&str>, key: &str) -> Result<Option<String>, String> {
    let pairs = query.into_iter().flat_map(|query| query.split('&'));
    // A key without a value must not look as if it was not there.
    let mut pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.rfind(|(name, _)| *name == key).map(|(_, value)| unescape(value)).transpose()
}

/// The path of a v1 call of `method`.
pub fn method_path(method: &str) -> String {
    format!("{}{}", path::METHODS, escape(method))
}

/// The path of the event stream of `callback`, as a named subscriber.
pub fn subscription_path(callback: &str, subscription: &str) -> String {
    format!("{}{}?subscription={}", path::EVENTS, escape(callback), escape(subscription))
}

/// The path of the event stream of `callback`, as an observer that starts after a position, else now.
pub fn observer_path(callback: &str, after: Option<&super::event::Position>) -> String {
    let query = after.map(|position| format!("?after={}", escape(&position.to_string()))).unwrap_or_default();
    format!("{}{}{query}", path::EVENTS, escape(callback))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_and_read_back() {
        for name in ["Do", "main.Do", "a b+c", "a/b", "ä%41", "~x_y-z.", "\u{1f600}"] {
            assert_eq!(unescape(&escape(name)).unwrap(), name);
        }
        assert_eq!(method_path("a b+c/d"), "/_goplug/methods/a%20b%2Bc%2Fd");
    }

    #[test]
    fn bad_segments_are_refused() {
        for (raw, reason) in [("", "empty"), ("%", "hex"), ("a%2", "hex"), ("%zz", "hex"), ("%ff", "UTF-8")] {
            assert!(unescape(raw).unwrap_err().contains(reason), "{raw}");
        }
        assert!(split_target("/a//b").is_err());
        assert!(split_target("a").is_err());
        assert_eq!(split_target("/a%2Fb/c?x=1").unwrap(), (vec!["a/b".into(), "c".into()], Some("x=1")));
        assert_eq!(query_value(Some("a=1&a=%20"), "a").unwrap(), Some(" ".into()));
        assert_eq!(query_value(Some("a=1"), "b"), Ok(None));
        for empty in ["a", "a=", "b=1&a"] {
            assert!(query_value(Some(empty), "a").is_err(), "{empty}");
        }
    }
}
