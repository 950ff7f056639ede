//! Every way in which something can fail, from the wire to the exit code: one closed vocabulary.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The largest problem document that is read from a plugin.
pub const MAX_PROBLEM_BYTES: usize = 64 * 1024;

/// What went wrong, in one word that scripts can rely on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The caller sent something that can never work: a bad name, a bad header, a bad document.
    InvalidArgument,
    /// A body is larger than the receiver takes. Of a request: nothing ran. Of a reply: the method did run.
    TooLarge,
    /// No such plugin, method, callback or version.
    NotFound,
    /// The plugin exists but is not loaded, is disabled, or is not active.
    WrongState,
    /// Already loaded, name taken, or versions that do not fit.
    Conflict,
    /// Permission, trust or grant is missing.
    Denied,
    /// The method ran and answered with an error of its own.
    MethodFailed,
    /// The method panicked; the plugin lives on.
    Panicked,
    /// Too many calls at once; try again.
    Overloaded,
    /// Starting, backing off or draining; try again.
    Unavailable,
    /// The plugin died, or the connection broke, after a byte was sent.
    PluginGone,
    /// The time limit passed.
    DeadlineExceeded,
    /// The caller gave up.
    Cancelled,
    /// The other side broke the protocol.
    ProtocolError,
    /// A mistake of ours.
    Internal,
}

/// Whether the method ran: what every caller needs to know before it tries again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Ran {
    /// Not one byte of the request reached the method.
    No,
    /// The method ran.
    Yes,
    /// Nobody can tell.
    Unknown,
}

/// Which case of its code a failure is, where one command mends this case and another one the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// No process of the plugin runs: it was stopped, or never started.
    NotRunning,
    /// A process of the plugin runs, and must not for what was asked.
    Running,
    /// The operator wants the plugin off.
    Disabled,
    /// The plugin's process was started again and again, or cannot be started: it was given up.
    GivenUp,
    /// The version is not one of those that the operator lets run.
    Pinned,
    /// The plugin is there, a version of it is not.
    NoVersion,
    /// There is no `goplug-host`, under which plugins are started.
    NoHost,
    /// The plugin's process runs another program than the one that is trusted, or one that nobody can look at.
    Untrusted,
    /// What is installed of the plugin is not what was verified when it was installed.
    Altered,
    /// The plugin asks for permissions that nobody has granted; `data.permissions` has them.
    NotGranted,
    /// Nobody signed the package.
    Unsigned,
    /// The key that signed the package is none of those that are trusted.
    UntrustedKey,
}

impl Code {
    /// All codes, in the order of `docs/errors.md`.
    pub const ALL: [Self; 15] = [
        Self::InvalidArgument,
        Self::TooLarge,
        Self::NotFound,
        Self::WrongState,
        Self::Conflict,
        Self::Denied,
        Self::MethodFailed,
        Self::Panicked,
        Self::Overloaded,
        Self::Unavailable,
        Self::PluginGone,
        Self::DeadlineExceeded,
        Self::Cancelled,
        Self::ProtocolError,
        Self::Internal,
    ];

    /// The code as it is written on the wire, such as `method_failed`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidArgument => "invalid_argument",
            Self::TooLarge => "too_large",
            Self::NotFound => "not_found",
            Self::WrongState => "wrong_state",
            Self::Conflict => "conflict",
            Self::Denied => "denied",
            Self::MethodFailed => "method_failed",
            Self::Panicked => "panicked",
            Self::Overloaded => "overloaded",
            Self::Unavailable => "unavailable",
            Self::PluginGone => "plugin_gone",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::Cancelled => "cancelled",
            Self::ProtocolError => "protocol_error",
            Self::Internal => "internal",
        }
    }

    /// Reads a code from the wire; an unknown one is [`Code::Internal`].
    pub fn from_wire(text: &str) -> Self {
        Self::ALL.into_iter().find(|code| code.as_str() == text).unwrap_or(Self::Internal)
    }

    /// The HTTP status that carries this code, from a plugin and from the daemon alike.
    pub fn http_status(self) -> u16 {
        match self {
            Self::InvalidArgument => 400,
            Self::TooLarge => 413,
            Self::NotFound => 404,
            Self::WrongState | Self::Conflict => 409,
            Self::Denied => 403,
            Self::MethodFailed => 422,
            Self::Panicked | Self::PluginGone | Self::ProtocolError => 502,
            Self::Overloaded | Self::Unavailable => 503,
            Self::DeadlineExceeded => 504,
            Self::Cancelled => 499,
            Self::Internal => 500,
        }
    }

    /// Whether the method ran, when the message itself does not say.
    pub fn ran(self) -> Ran {
        match self {
            Self::InvalidArgument
            | Self::TooLarge
            | Self::NotFound
            | Self::WrongState
            | Self::Conflict
            | Self::Denied
            | Self::Overloaded
            | Self::Unavailable => Ran::No,
            Self::MethodFailed | Self::Panicked => Ran::Yes,
            Self::PluginGone | Self::DeadlineExceeded | Self::Cancelled | Self::ProtocolError | Self::Internal => {
                Ran::Unknown
            }
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One failure: its code, whether the method ran, a text for people, and what the plugin wants the caller to know.
///
/// # Example: a caller decides whether to try again
/// ```
/// use goplug_pconf_schema::{Code, Fault, Ran};
/// let fault = Fault::new(Code::Unavailable, "plugin `Test/Do` is draining");
/// assert_eq!(fault.ran, Ran::No);
/// assert_eq!(Fault::from_problem(&fault.to_problem()), Some(fault));
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Fault {
    /// What went wrong.
    pub code: Code,
    /// Whether the method ran.
    pub ran: Ran,
    /// What, which one, the limit, and what to do next: a lowercase fragment without a dot.
    pub message: String,
    /// Which case of the code it is. Only a registry says so, of what it decided itself.
    pub reason: Option<Reason>,
    /// In milliseconds: when it may be worth trying again.
    pub retry_after_ms: Option<u64>,
    /// The plugin's own words: any JSON; bytes are `{"dataBase64": …}`.
    pub data: Option<Box<Value>>,
}

impl Fault {
    /// A failure with the usual [`Ran`] of its code.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, ran: code.ran(), message: message.into(), reason: None, retry_after_ms: None, data: None }
    }

    /// The same failure with another [`Ran`].
    #[must_use]
    pub fn with_ran(mut self, ran: Ran) -> Self {
        self.ran = ran;
        self
    }

    /// The same failure, of this case.
    #[must_use]
    pub fn with_reason(mut self, reason: Reason) -> Self {
        self.reason = Some(reason);
        self
    }

    /// The same failure with a hint when to try again.
    #[must_use]
    pub fn with_retry_after_ms(mut self, ms: u64) -> Self {
        self.retry_after_ms = Some(ms);
        self
    }

    /// The same failure with `data` for the caller.
    #[must_use]
    pub fn with_data(mut self, data: Value) -> Self {
        self.data = Some(Box::new(data));
        self
    }

    /// The `application/problem+json` document (RFC 9457) that carries this failure.
    ///
    /// Never larger than [`MAX_PROBLEM_BYTES`]: the message is cut and the data left out when they would be.
    pub fn to_problem(&self) -> Vec<u8> {
        let render = |message: &str, data: Option<&Value>| {
            let document = ProblemDocument {
                r#type: Some("about:blank"),
                status: Some(self.code.http_status()),
                code: self.code,
                ran: Some(self.ran),
                detail: Some(message),
                reason: self.reason,
                retry_after_ms: self.retry_after_ms,
                data,
            };
            serde_json::to_vec(&document).unwrap_or_default()
        };
        let whole = render(&self.message, self.data.as_deref());
        if whole.len() <= MAX_PROBLEM_BYTES && !whole.is_empty() {
            return whole;
        }
        let cut: String = self.message.chars().take(4096).collect();
        let with_data = render(&cut, self.data.as_deref());
        if with_data.len() <= MAX_PROBLEM_BYTES { with_data } else { render(&cut, None) }
    }

    /// Reads a problem document; `None` if it is none (no JSON object with a `code`, too large, too deep).
    pub fn from_problem(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > MAX_PROBLEM_BYTES || !super::depth_is_bounded(bytes) {
            return None;
        }
        let document: ProblemIn = serde_json::from_slice(bytes).ok()?;
        let code = Code::from_wire(&document.code);
        Some(Self {
            code,
            ran: document.ran.unwrap_or(code.ran()),
            message: document.detail.or(document.title).unwrap_or_default(),
            reason: document.reason,
            retry_after_ms: document.retry_after_ms,
            data: document.data.map(Box::new),
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.message.is_empty() { self.code.fmt(f) } else { f.write_str(&self.message) }
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (ran: {:?}): {}", self.code, self.ran, self.message)?;
        self.data.as_ref().map_or(Ok(()), |data| write!(f, " {data}"))
    }
}

impl std::error::Error for Fault {}

/// An error as `application/problem+json` (RFC 9457): only `code` is needed to understand it.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Problem")]
pub(crate) struct ProblemDocument<'a> {
    /// Always `about:blank`: `code` says what it is.
    r#type: Option<&'a str>,
    /// The HTTP status; `code` outranks it.
    status: Option<u16>,
    /// One of a closed list; an unknown one reads as `internal`.
    code: Code,
    /// Whether the method ran; when missing, what the code means by itself.
    ran: Option<Ran>,
    /// What, which one, the limit, and what to do next.
    detail: Option<&'a str>,
    /// Which case of the code it is: told by a registry and a daemon, of what they decided themselves.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Reason>,
    /// When it may be worth trying again.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
    /// The plugin's own words: any JSON; bytes are `{"dataBase64": …}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ProblemIn {
    code: String,
    #[serde(default, deserialize_with = "lenient")]
    ran: Option<Ran>,
    #[serde(default, deserialize_with = "lenient")]
    detail: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    title: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    reason: Option<Reason>,
    #[serde(default, deserialize_with = "lenient")]
    retry_after_ms: Option<u64>,
    #[serde(default)]
    data: Option<Value>,
}

/// An optional field of the wrong type is as good as missing: the code is what counts.
fn lenient<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: serde::de::DeserializeOwned,
{
    let value = Value::deserialize(deserializer)?;
    Ok(serde_json::from_value(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_survives_the_wire() {
        for code in Code::ALL {
            let fault = Fault::new(code, "because").with_retry_after_ms(7).with_data(serde_json::json!({"a": [1]}));
            let fault = fault.with_reason(Reason::Untrusted);
            assert_eq!(Fault::from_problem(&fault.to_problem()), Some(fault));
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
        }
    }

    #[test]
    fn a_hostile_document_is_read_as_far_as_it_makes_sense() {
        let read = |text: &str| Fault::from_problem(text.as_bytes());
        assert_eq!(read(r#"{"code":"new_in_v9"}"#).unwrap().code, Code::Internal);
        assert_eq!(read(r#"{"code":"conflict","ran":7,"detail":[],"retryAfterMs":-1}"#).unwrap().ran, Ran::No);
        assert_eq!(read(r#"{"status":404}"#), None);
        assert_eq!(read("[]"), None);
        assert_eq!(read(&format!(r#"{{"code":"conflict","data":{}}}"#, "[".repeat(100_000))), None);
    }

    #[test]
    fn a_document_never_outgrows_its_limit() {
        let data = serde_json::json!("x".repeat(MAX_PROBLEM_BYTES));
        let fault = Fault::new(Code::MethodFailed, "y".repeat(MAX_PROBLEM_BYTES)).with_data(data);
        let document = fault.to_problem();
        assert!(document.len() <= MAX_PROBLEM_BYTES, "{}", document.len());
        assert_eq!(Fault::from_problem(&document).unwrap().code, Code::MethodFailed);
    }
}
