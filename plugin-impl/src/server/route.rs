//! From verb and target to what is asked for. PURE.

use goplug_pconf_schema::wire::call::{RESERVED, query_value, split_target};
use goplug_pconf_schema::{Code, Fault, printable};

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Route {
    /// Describe; with `negotiate` on the caller's terms.
    Hello {
        negotiate: bool,
    },
    Activate,
    Deactivate,
    Stop,
    Ping,
    Health,
    Callbacks,
    /// Another protocol for this connection.
    Frames,
    Acknowledge,
    /// The event stream of a callback, as a subscription or as an observer.
    Events {
        callback: String,
        subscription: Option<String>,
        after: Option<String>,
    },
    Method(String),
    /// The four requests of v0 that are no methods.
    V0Activate,
    V0Ping,
    V0RegisterCallback,
    V0Stop,
}

/// Why a request asks for nothing; `allow` are the verbs that would do, and make the status 405; `upgrade` is the protocol
/// that would do, and makes it 426.
#[derive(Debug)]
pub(crate) struct NoRoute {
    pub(crate) fault: Fault,
    pub(crate) allow: Option<&'static str>,
    pub(crate) upgrade: Option<&'static str>,
}

impl From<Fault> for NoRoute {
    fn from(fault: Fault) -> Self {
        Self { fault, allow: None, upgrade: None }
    }
}

/// Reads verb and target.
pub(crate) fn route(verb: &str, target: &str) -> Result<Route, NoRoute> {
    let invalid = |text: String| Fault::new(Code::InvalidArgument, text);
    let (segments, query) = split_target(target).map_err(invalid)?;
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let found = match *segments.as_slice() {
        ["_goplug", "hello"] => {
            allow(verb, "GET, POST")?;
            return Ok(Route::Hello { negotiate: verb == "POST" });
        }
        // A callback may be named `ack`: its stream is a GET.
        ["_goplug", "events", "ack"] if verb == "POST" => Route::Acknowledge,
        ["_goplug", "events", callback] => {
            allow(verb, "GET")?;
            let value = |key| query_value(query, key).map_err(invalid);
            let (subscription, after) = (value("subscription")?, value("after")?);
            return Ok(Route::Events { callback: callback.to_owned(), subscription, after });
        }
        ["_goplug", "activate"] => Route::Activate,
        ["_goplug", "deactivate"] => Route::Deactivate,
        ["_goplug", "stop"] => Route::Stop,
        ["_goplug", "ping"] => Route::Ping,
        ["_goplug", "health"] => Route::Health,
        ["_goplug", "callbacks"] => Route::Callbacks,
        ["_goplug", "frames"] => Route::Frames,
        ["_goplug", "methods", method] => Route::Method(method.to_owned()),
        ["Activate"] => Route::V0Activate,
        ["Ping"] => Route::V0Ping,
        ["RegisterCallback"] => Route::V0RegisterCallback,
        ["Stop"] => Route::V0Stop,
        [method] if !RESERVED.contains(&method) => Route::Method(method.to_owned()),
        _ => {
            let path = printable(target.split('?').next().unwrap_or_default());
            return Err(Fault::new(Code::NotFound, format!("nothing is at `{path}`; see GET /_goplug/hello")).into());
        }
    };
    allow(verb, if matches!(found, Route::Health | Route::Callbacks | Route::Frames) { "GET" } else { "POST" })?;
    Ok(found)
}

fn allow(verb: &str, verbs: &'static str) -> Result<(), NoRoute> {
    if verbs.split(", ").any(|allowed| allowed == verb) {
        return Ok(());
    }
    let text = format!("verb `{}` does nothing here; use {verbs}", printable(verb));
    Err(NoRoute { allow: Some(verbs), ..Fault::new(Code::InvalidArgument, text).into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn method(name: &str) -> Route {
        Route::Method(name.into())
    }

    #[test]
    fn every_path_has_its_meaning() {
        let events = |callback: &str, subscription: Option<&str>, after: Option<&str>| Route::Events {
            callback: callback.into(),
            subscription: subscription.map(Into::into),
            after: after.map(Into::into),
        };
        for (verb, target, meaning) in [
            ("GET", "/_goplug/hello", Route::Hello { negotiate: false }),
            ("POST", "/_goplug/hello", Route::Hello { negotiate: true }),
            ("POST", "/_goplug/activate", Route::Activate),
            ("POST", "/_goplug/deactivate?x=1", Route::Deactivate),
            ("POST", "/_goplug/stop", Route::Stop),
            ("POST", "/_goplug/ping", Route::Ping),
            ("GET", "/_goplug/health", Route::Health),
            ("GET", "/_goplug/callbacks", Route::Callbacks),
            ("POST", "/_goplug/events/ack", Route::Acknowledge),
            ("GET", "/_goplug/events/ack", events("ack", None, None)),
            ("GET", "/_goplug/events/a%2Fb?subscription=s-1", events("a/b", Some("s-1"), None)),
            ("GET", "/_goplug/events/x?after=e%3A7", events("x", None, Some("e:7"))),
            ("POST", "/_goplug/methods/Do", method("Do")),
            ("POST", "/_goplug/methods/a%20b%2Bc%2Fd", method("a b+c/d")),
            ("POST", "/_goplug/methods/Stop", method("Stop")),
            ("POST", "/main.Do", method("main.Do")),
            ("POST", "/%5Fgoplugs", method("_goplugs")),
            ("POST", "/Activate", Route::V0Activate),
            ("POST", "/Ping", Route::V0Ping),
            ("POST", "/RegisterCallback", Route::V0RegisterCallback),
            ("POST", "/Stop", Route::V0Stop),
        ] {
            assert_eq!(route(verb, target).unwrap_or_else(|no| panic!("{target}: {no:?}")), meaning, "{verb} {target}");
        }
    }

    #[test]
    fn everything_else_is_refused_with_its_reason() {
        for (verb, target, code, allow) in [
            ("GET", "/_goplug/methods/Do", Code::InvalidArgument, Some("POST")),
            ("HEAD", "/Do", Code::InvalidArgument, Some("POST")),
            ("post", "/Do", Code::InvalidArgument, Some("POST")),
            ("POST", "/_goplug/health", Code::InvalidArgument, Some("GET")),
            ("PUT", "/_goplug/hello", Code::InvalidArgument, Some("GET, POST")),
            ("POST", "/_goplug/events/x", Code::InvalidArgument, Some("GET")),
            ("POST", "/", Code::InvalidArgument, None),
            ("POST", "/Do/", Code::InvalidArgument, None),
            ("POST", "//Do", Code::InvalidArgument, None),
            ("POST", "/%zz", Code::InvalidArgument, None),
            ("POST", "/%ff", Code::InvalidArgument, None),
            ("POST", "*", Code::InvalidArgument, None),
            ("POST", "http://goplug/Do", Code::InvalidArgument, None),
            ("GET", "/_goplug/events/x?subscription=", Code::InvalidArgument, None),
            ("POST", "/_goplug", Code::NotFound, None),
            ("POST", "/_goplug/frames", Code::InvalidArgument, Some("GET")),
            ("GET", "/_goplug/shm", Code::NotFound, None),
            ("POST", "/_goplug/methods/a/b", Code::NotFound, None),
            ("POST", "/Do/it", Code::NotFound, None),
        ] {
            let no = route(verb, target).expect_err(target);
            assert_eq!((no.fault.code, no.allow), (code, allow), "{verb} {target}: {}", no.fault);
        }
    }
}
