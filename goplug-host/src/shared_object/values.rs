//! What a call carries: a label and values, each value a JSON text under a key. Pure.

use std::collections::BTreeMap;

use goplug_pconf_schema::{Code, Fault};
use goplug_shared_object::boundary::{MAX_KEY_BYTES, Set};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

/// Keys and texts of all values of a call.
const MAX_VALUES_BYTES: usize = 64 << 20;

/// What a caller sends.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Request {
    /// What is asked for; may be missing.
    label: Option<String>,
    /// What the plugin finds.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, Value>")]
    values: BTreeMap<String, Box<RawValue>>,
}

/// What a caller gets.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Reply {
    /// What the plugin left.
    #[schemars(with = "BTreeMap<String, Value>")]
    values: BTreeMap<String, Box<RawValue>>,
}

/// The values of a call that is under way.
#[derive(Debug, Default)]
pub(crate) struct Values {
    all: BTreeMap<String, Box<RawValue>>,
    bytes: usize,
}

impl Request {
    /// The label, called by the method of `own`, or by the one that takes any.
    ///
    /// # Errors
    /// `invalid_argument` for a method that is asked for the label of another one, and for a label that no C string can be.
    pub(crate) fn label(&self, own: Option<&str>) -> Result<String, Fault> {
        let refused = |why: String| Err(Fault::new(Code::InvalidArgument, why));
        match (own, self.label.as_deref()) {
            (Some(own), Some(label)) if own != label => {
                refused(format!("the method of label `{own}` was called with label `{label}`: leave it out"))
            }
            (_, Some(label)) if label.contains('\0') => refused("the label holds a NUL".into()),
            (own, label) => Ok(own.or(label).unwrap_or_default().to_owned()),
        }
    }

    /// # Errors
    /// `invalid_argument` for a key that cannot be one.
    pub(crate) fn into_values(self) -> Result<Values, Fault> {
        let mut values = Values::default();
        for (key, value) in self.values {
            if key.contains('\0') {
                return Err(Fault::new(Code::InvalidArgument, "a key of the values holds a NUL"));
            }
            if values.put(&key, value) == Set::TooLarge {
                let text =
                    format!("the values take more than {MAX_VALUES_BYTES} bytes, or a key more than {MAX_KEY_BYTES}");
                return Err(Fault::new(Code::TooLarge, text));
            }
        }
        Ok(values)
    }
}

impl Values {
    /// The text of a value; `null` for one that is not there.
    pub(crate) fn get(&self, key: &str) -> &str {
        self.all.get(key).map_or("null", |value| value.get())
    }

    /// A blank key is ignored.
    pub(crate) fn set(&mut self, key: &str, json: &str) -> Set {
        match serde_json::from_str::<Box<RawValue>>(json) {
            Ok(value) => self.put(key, value),
            Err(_) => Set::Invalid,
        }
    }

    fn put(&mut self, key: &str, value: Box<RawValue>) -> Set {
        if key.trim().is_empty() {
            return Set::Done;
        }
        let replaced = self.all.get(key).map_or(0, |value| key.len() + value.get().len());
        let bytes = self.bytes - replaced + key.len() + value.get().len();
        if key.len() > MAX_KEY_BYTES || bytes > MAX_VALUES_BYTES {
            return Set::TooLarge;
        }
        self.bytes = bytes;
        self.all.insert(key.to_owned(), value);
        Set::Done
    }

    pub(crate) fn into_reply(self) -> Reply {
        Reply { values: self.all }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(text: &str) -> Request {
        serde_json::from_str::<Option<Request>>(text).unwrap().unwrap_or_default()
    }

    #[test]
    fn the_label_is_that_of_the_method_or_what_the_caller_wrote() {
        for (text, own, expected) in [
            ("null", None, Ok("")),
            ("null", Some("a"), Ok("a")),
            (r#"{"label":"b"}"#, None, Ok("b")),
            (r#"{"label":"b"}"#, Some("b"), Ok("b")),
            (r#"{"label":"b"}"#, Some("a"), Err("the method of label `a` was called with label `b`: leave it out")),
            (r#"{"label":"b\u0000"}"#, None, Err("the label holds a NUL")),
        ] {
            let told = request(text).label(own).map_err(|fault| fault.message);
            assert_eq!(told.as_deref().map_err(String::as_str), expected, "{text} {own:?}");
        }
        assert!(serde_json::from_str::<Request>(r#"{"value":{}}"#).is_err(), "a key that means nothing");
    }

    #[test]
    fn values_come_back_letter_by_letter() {
        let text = r#"{"values":{"big":123456789012345678901234567890,"deep":{"b":1, "a":[1.0,null]}," ":1,"":2}}"#;
        let mut values = request(text).into_values().unwrap();
        assert_eq!((values.get("big"), values.get("none")), ("123456789012345678901234567890", "null"));
        assert_eq!(values.set("new", " {\"x\": [true]} "), Set::Done);
        assert_eq!(
            (values.set("\t", "1"), values.set("bad", "{"), values.set("bad", "1 2")),
            (Set::Done, Set::Invalid, Set::Invalid)
        );
        assert_eq!((values.set("nil", "null"), values.set("bad", "")), (Set::Done, Set::Invalid));
        assert_eq!(
            serde_json::to_string(&values.into_reply()).unwrap(),
            r#"{"values":{"big":123456789012345678901234567890,"deep":{"b":1, "a":[1.0,null]},"new":{"x": [true]},"nil":null}}"#
        );
        assert!(request("{\"values\":{\"a\\u0000\":1}}").into_values().is_err());
    }

    #[test]
    fn what_is_kept_is_bounded_whatever_is_set() {
        let mut values = Values::default();
        let half = format!("\"{}\"", "x".repeat(MAX_VALUES_BYTES / 2));
        assert_eq!(values.set("a", &half), Set::Done);
        assert_eq!(values.set("b", &half), Set::TooLarge);
        assert_eq!(values.get("b"), "null");
        assert_eq!(values.set("a", &half), Set::Done, "in the place of itself");
        assert_eq!(values.set("a", "1"), Set::Done);
        assert_eq!((values.bytes, values.set("b", &half)), (2, Set::Done));
        assert_eq!(values.set(&"k".repeat(MAX_KEY_BYTES), "1"), Set::Done);
        assert_eq!(values.set(&"k".repeat(MAX_KEY_BYTES + 1), "1"), Set::TooLarge);
    }
}
