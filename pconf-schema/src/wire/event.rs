//! Notifications: classes, positions, and the documents of the event streams.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The longest name of a subscription, in bytes.
pub const MAX_SUBSCRIPTION_BYTES: usize = 64;
/// The most subscriptions of one callback; beyond it `overloaded`.
pub const MAX_SUBSCRIPTIONS: usize = 64;
/// The most keys of a `state` callback.
pub const MAX_STATE_KEYS: usize = 10_000;
/// Messages that a plugin keeps per callback until they are acknowledged.
pub const WINDOW_MESSAGES: usize = 1_024;
/// Bytes that a plugin keeps per callback until they are acknowledged.
pub const WINDOW_BYTES: usize = 4 * 1024 * 1024;
/// How long a detached subscription holds its place, and messages without any subscription are kept.
pub const RETAIN_MS: u64 = 60_000;
/// A comment is sent on an event stream at least this often.
pub const KEEP_ALIVE_MS: u64 = 15_000;
/// The name of the subscription of a v0 application.
pub const V0_SUBSCRIPTION: &str = "v0";

/// What a callback promises to its subscribers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// At least once, in order per subscription; a slow reader holds `notify` back.
    #[default]
    Event,
    /// The last value per key always arrives; values in between are merged.
    State,
    /// At most once; when the reader is slow the oldest are dropped and counted.
    Lossy,
}

/// Where a message stands in its callback: `EPOCH:SEQ`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Position {
    /// The epoch of the process that made the message.
    pub epoch: String,
    /// Counts from 1 per callback.
    pub seq: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.epoch, self.seq)
    }
}

impl FromStr for Position {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{}` is no position EPOCH:SEQ", crate::printable(text));
        let (epoch, seq) = text.split_once(':').ok_or_else(wrong)?;
        if !super::hello::is_epoch(epoch) || !seq.bytes().all(|b| b.is_ascii_digit()) {
            return Err(wrong());
        }
        Ok(Self { epoch: epoch.to_owned(), seq: seq.parse().map_err(|_| wrong())? })
    }
}

impl Serialize for Position {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Position {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Position {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Position".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "string", "pattern": "^[0-9a-f]{32}:[0-9]+$"})
    }
}

/// `data:` of an `event: message`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Message {
    /// The payload.
    pub data_base64: String,
    /// The key of a `state` message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// How many `lossy` messages were dropped just before this one.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub dropped: u64,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// `data:` of an `event: gap`: what this reader will not see, both ends included.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Gap {
    /// The first message missed.
    pub from: Position,
    /// The last message missed.
    pub to: Position,
}

/// `data:` of an `event: epoch`: the process is another one; everything it kept follows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EpochChange {
    /// The epoch from here on.
    pub epoch: String,
    /// The epoch that the reader knew.
    pub previous: String,
}

/// Body of an acknowledgement: everything of `callback` up to `position` was handled by `subscription`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Ack {
    /// The callback.
    pub callback: String,
    /// The subscription.
    pub subscription: String,
    /// The last message handled.
    pub position: Position,
}

/// One callback as `GET /_goplug/callbacks` lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CallbackStatus {
    /// Its name.
    pub name: String,
    /// What it promises.
    #[serde(default)]
    pub class: Class,
    /// Who subscribed.
    #[serde(default)]
    pub subscriptions: Vec<SubscriptionStatus>,
    /// Readers without a subscription.
    #[serde(default)]
    pub observers: u64,
}

/// One subscription of a callback.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SubscriptionStatus {
    /// The name that the subscriber chose.
    pub name: String,
    /// Whether a stream is open.
    #[serde(default)]
    pub attached: bool,
    /// Everything up to here was handled; 0 at first.
    #[serde(default)]
    pub acknowledged: u64,
    /// Messages kept for it.
    #[serde(default)]
    pub pending: u64,
    /// Who it is, as far as the connection tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller: Option<String>,
}

/// Checks the name of a subscription: 1 to [`MAX_SUBSCRIPTION_BYTES`] of `[A-Za-z0-9._-]`.
///
/// # Errors
/// Says what is wrong with it.
pub fn check_subscription(name: &str) -> Result<(), String> {
    let fits = (1..=MAX_SUBSCRIPTION_BYTES).contains(&name.len());
    if fits && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-')) {
        return Ok(());
    }
    let shown = crate::printable(name);
    Err(format!("subscription `{shown}` is not 1 to {MAX_SUBSCRIPTION_BYTES} characters of A-Z a-z 0-9 . _ -"))
}

/// Bytes as base64 text, the way every JSON document of ours carries them.
pub fn to_base64(bytes: &[u8]) -> String {
    BASE64.encode(bytes)
}

/// Bytes from base64 text.
///
/// # Errors
/// Says that the text is no base64.
pub fn from_base64(text: &str) -> Result<Vec<u8>, String> {
    BASE64.decode(text).map_err(|error| format!("no base64: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_read_back_and_nonsense_is_refused() {
        let text = "0123456789abcdef0123456789abcdef:18446744073709551615";
        assert_eq!(text.parse::<Position>().unwrap().to_string(), text);
        for text in [
            "",
            ":",
            "0123:1",
            "0123456789abcdef0123456789abcdeF:1",
            "0123456789abcdef0123456789abcdef:+1",
            "0123456789abcdef0123456789abcdef:18446744073709551616",
            "0123456789abcdef0123456789abcdef:",
        ] {
            assert!(text.parse::<Position>().is_err(), "{text}");
        }
    }

    #[test]
    fn subscription_names_are_bounded() {
        for name in ["a", "A.b_c-9", &"x".repeat(64)] {
            assert!(check_subscription(name).is_ok());
        }
        for name in ["", "a b", "ä", "a/b", &"x".repeat(65)] {
            assert!(check_subscription(name).is_err(), "{name}");
        }
    }
}
