//! What an author sees of a call.

use std::fmt;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::boundary::{Handle, Set};

/// One call: its label, its values, and whether anybody still waits.
///
/// Values are JSON, each under a key. The reply to the caller is all of them as they are when the function returns.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    raw: Handle<'a>,
}

impl<'a> Context<'a> {
    pub(crate) fn new(raw: Handle<'a>) -> Self {
        Self { raw }
    }

    /// What the caller asked for: one of the labels that the manifest names, or any other that the caller wrote; empty when the
    /// caller named none.
    pub fn label(&self) -> &'a str {
        self.raw.label()
    }

    /// The value of `key`; `null` when there is none.
    pub fn get(&self, key: &str) -> Value {
        serde_json::from_str(&self.raw.get(key)).unwrap_or(Value::Null)
    }

    /// The value of `key` as a type; a missing one reads as `null`, so that it may be an `Option`.
    ///
    /// # Errors
    /// Which value is not what it should be, and why.
    pub fn get_as<T: DeserializeOwned>(&self, key: &str) -> Result<T, Error> {
        serde_json::from_str(&self.raw.get(key)).map_err(|error| Error(format!("value `{key}`: {error}")))
    }

    /// Sets the value of `key`. A blank key is ignored.
    ///
    /// # Errors
    /// When it cannot be written as JSON, a key is longer than 1,024 bytes or holds a NUL, or all values together would be more than
    /// 64 MiB. Nothing has changed then.
    pub fn set(&self, key: &str, value: impl Serialize) -> Result<(), Error> {
        let refused = |why: &str| Err(Error(format!("value `{key}`: {why}")));
        let text = match serde_json::to_string(&value) {
            Ok(text) => text,
            Err(error) => return refused(&error.to_string()),
        };
        match self.raw.set(key, &text) {
            Set::Done => Ok(()),
            Set::TooLarge => refused("the key is longer than 1,024 bytes, or the values would be more than 64 MiB"),
            Set::Invalid => refused("the host does not take it"),
        }
    }

    /// How long the caller still waits; zero when the deadline has passed.
    pub fn remaining(&self) -> Duration {
        self.raw.remaining()
    }

    /// Whether nobody waits for the reply any more: the caller has gone, the deadline has passed, or the plugin is being stopped. A
    /// function that takes long looks now and then, and returns.
    pub fn is_cancelled(&self) -> bool {
        self.raw.cancelled(Duration::ZERO)
    }

    /// As [`Context::is_cancelled`], but waits for it, at most for `limit`: a sleep that ends with the call.
    pub fn cancelled_within(&self, limit: Duration) -> bool {
        self.raw.cancelled(limit)
    }
}

impl fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("label", &self.label()).finish_non_exhaustive()
    }
}

/// A value that is not what it should be, or that is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error(pub(crate) String);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}
