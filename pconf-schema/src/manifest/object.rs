//! A JSON object, read key by key: whatever is wrong is noted with its place, and reading goes on.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde_json::Value;

use crate::pconf::fields::{shape, unreadable};
use crate::pconf::json::{self, Entry};
use crate::text::nearest;
use crate::units::{self, show_duration};
use crate::{printable, wire};

/// What was noted of a file; offsets count from behind a byte order mark.
#[derive(Debug, Default)]
pub(super) struct Notes {
    pub(super) problems: Vec<(usize, String)>,
    pub(super) warnings: Vec<(usize, String)>,
}

/// An object of which every key that exists is asked for once; [`Object::finish`] tells of the others. Keys are compared
/// without regard to ASCII case, the last of several wins, `null` is as good as missing.
pub(super) struct Object<'n> {
    /// What comes before its keys when they are named, such as `restart.`.
    prefix: String,
    pub(super) start: usize,
    /// Whether every entry was read, so that a missing one is really missing.
    whole: bool,
    entries: Vec<Entry>,
    asked: Vec<&'static str>,
    notes: &'n mut Notes,
}

impl<'n> Object<'n> {
    pub(super) fn new(start: usize, entries: Vec<Entry>, notes: &'n mut Notes) -> Self {
        let whole = notes.problems.is_empty();
        Self { prefix: String::new(), start, whole, entries, asked: Vec::new(), notes }
    }

    /// An object inside of this one, if it is there and is one.
    pub(super) fn object(&mut self, key: &'static str) -> Option<Object<'_>> {
        let (entry, _) = self.value(key, "an object", |value| value.is_object().then_some(()))?;
        Some(self.inner(format!("{}{key}.", self.prefix), &entry))
    }

    fn inner(&mut self, prefix: String, entry: &Entry) -> Object<'_> {
        let entries = json::entries_of(entry);
        Object { prefix, start: entry.at, whole: true, entries, asked: Vec::new(), notes: self.notes }
    }

    pub(super) fn boolean(&mut self, key: &'static str) -> Option<bool> {
        self.value(key, "true or false", Value::as_bool).map(|(_, flag)| flag)
    }

    /// A string and where it is.
    pub(super) fn string(&mut self, key: &'static str) -> Option<(usize, String)> {
        let (entry, text) = self.value(key, "a string", |value| value.as_str().map(str::to_owned))?;
        Some((entry.at, text))
    }

    /// A string that passes `check`, whose reason fits after the name of the key.
    pub(super) fn checked(&mut self, key: &'static str, check: fn(&str) -> Result<(), String>) -> Option<String> {
        let (at, text) = self.string(key)?;
        check(&text).map_err(|why| self.wrong(at, key, &why)).ok()?;
        Some(text)
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(&mut self, key: &'static str, choices: &[(&str, T)]) -> Option<T> {
        let (at, text) = self.string(key)?;
        let chosen = choices.iter().find(|(word, _)| *word == text).map(|(_, choice)| *choice);
        if chosen.is_none() {
            let words: Vec<_> = choices.iter().map(|(word, _)| *word).collect();
            let hint = nearest(&text, &words).map(|near| format!(": did you mean `{near}`?")).unwrap_or_default();
            let list: Vec<_> = words.iter().map(|word| format!("`{word}`")).collect();
            self.wrong(at, key, &format!("must be one of {}, found `{}`{hint}", list.join(", "), printable(&text)));
        }
        chosen
    }

    pub(super) fn integer(&mut self, key: &'static str, range: RangeInclusive<u64>) -> Option<u64> {
        let expected = format!("an integer from {} to {}", range.start(), range.end());
        self.value(key, &expected, |value| value.as_u64().filter(|number| range.contains(number))).map(|(_, n)| n)
    }

    /// A number of at least `least`, in thousandths.
    pub(super) fn milli(&mut self, key: &'static str, range: RangeInclusive<u32>) -> Option<u32> {
        let whole = |milli: u32| f64::from(milli) / 1000.0;
        let expected = format!("a number from {} to {}", whole(*range.start()), whole(*range.end()));
        let in_range = |value: f64| (whole(*range.start())..=whole(*range.end())).contains(&value);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is in the range, which u32 holds"
        )]
        let take = |value: &Value| {
            value.as_f64().filter(|value| in_range(*value)).map(|value| (value * 1000.0).round() as u32)
        };
        self.value(key, &expected, take).map(|(_, milli)| milli)
    }

    /// A duration such as `10s`.
    pub(super) fn duration(&mut self, key: &'static str, range: RangeInclusive<Duration>) -> Option<Duration> {
        let (least, most) = (show_duration(*range.start()), show_duration(*range.end()));
        let expected = format!("a duration from {least} to {most}, such as \"500ms\" or \"10s\"");
        let take = |value: &Value| units::duration(value.as_str()?).filter(|duration| range.contains(duration));
        self.value(key, &expected, take).map(|(_, duration)| duration)
    }

    /// A size such as `512MiB`, or a number of bytes.
    pub(super) fn bytes(&mut self, key: &'static str, range: RangeInclusive<u64>) -> Option<u64> {
        let expected = format!("a size from {} to {} bytes, such as \"512MiB\"", range.start(), range.end());
        let take = |value: &Value| {
            let size = value.as_u64().or_else(|| units::bytes(value.as_str()?))?;
            Some(size).filter(|size| range.contains(size))
        };
        self.value(key, &expected, take).map(|(_, size)| size)
    }

    /// An object that is kept as it is written.
    pub(super) fn data(&mut self, key: &'static str) -> Option<Value> {
        self.value(key, "an object", |value| Some(value.clone()).filter(Value::is_object)).map(|(_, value)| value)
    }

    /// A JSON Schema, which is an object or a boolean.
    pub(super) fn schema(&mut self, key: &'static str) -> Option<Value> {
        let take = |value: &Value| Some(value.clone()).filter(|value| value.is_object() || value.is_boolean());
        self.value(key, "a JSON Schema, which is an object or a boolean", take).map(|(_, value)| value)
    }

    /// Every element of an array as `take` reads it; its reason fits after the name of the key.
    pub(super) fn list<T>(
        &mut self,
        key: &'static str,
        mut take: impl FnMut(&mut Self, &Entry) -> Result<T, String>,
    ) -> Vec<T> {
        let Some((entry, _)) = self.value(key, "an array", |value| value.is_array().then_some(())) else {
            return Vec::new();
        };
        let mut taken = Vec::new();
        for element in json::elements_of(&entry) {
            match take(self, &element) {
                Ok(one) => taken.push(one),
                Err(why) => self.wrong(element.at, key, &why),
            }
        }
        taken
    }

    /// An array of strings that pass `check`.
    pub(super) fn texts(&mut self, key: &'static str, check: fn(&str) -> Result<(), String>) -> Vec<String> {
        self.list(key, |_, element| {
            let text = text_of(element)?;
            check(&text)?;
            Ok(text)
        })
    }

    /// An object of strings.
    pub(super) fn map(
        &mut self,
        key: &'static str,
        check: fn(&str, &str) -> Result<(), String>,
    ) -> BTreeMap<String, String> {
        let Some((entry, _)) = self.value(key, "an object of strings", |value| value.is_object().then_some(())) else {
            return BTreeMap::new();
        };
        let mut map = BTreeMap::new();
        for inner in json::entries_of(&entry) {
            let value = text_of(&inner).map_err(|why| (inner.at, format!("of `{}` {why}", printable(&inner.key))));
            let checked = value.and_then(|value| match check(&inner.key, &value) {
                Ok(()) => Ok(value),
                Err(why) => Err((inner.key_at, why)),
            });
            match checked {
                Ok(value) => {
                    if map.insert(inner.key.clone(), value).is_some() {
                        self.warn_of_repeat(&inner);
                    }
                }
                Err((at, why)) => self.wrong(at, key, &why),
            }
        }
        map
    }

    /// The object that an element of an array is.
    pub(super) fn element(&mut self, key: &str, element: &Entry) -> Object<'_> {
        self.inner(format!("{}{key}.", self.prefix), element)
    }

    /// Whether `key` is there, with whatever value.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|entry| entry.key.eq_ignore_ascii_case(key) && entry.value != "null")
    }

    /// Notes that `key`, which should be there, is not.
    pub(super) fn missing(&mut self, key: &str, what_to_do: &str) {
        if self.whole && !self.has(key) {
            self.notes.problems.push((self.start, format!("`{}{key}` is missing: {what_to_do}", self.prefix)));
        }
    }

    /// Notes a problem with the value of `key`.
    pub(super) fn wrong(&mut self, at: usize, key: &str, why: &str) {
        self.notes.problems.push((at, format!("`{}{key}` {why}", self.prefix)));
    }

    /// Notes a problem in words of its own.
    pub(super) fn problem(&mut self, at: usize, why: String) {
        self.notes.problems.push((at, why));
    }

    /// Tells of every key that was not asked for, and gives what they hold.
    pub(super) fn finish(self) -> BTreeMap<String, Value> {
        let mut unknown = BTreeMap::new();
        for entry in &self.entries {
            if self.asked.iter().any(|key| entry.key.eq_ignore_ascii_case(key)) {
                continue;
            }
            let shown = format!("unknown key `{}{}`", self.prefix, printable(&entry.key));
            let hint =
                nearest(&entry.key, &self.asked).map(|near| format!(": did you mean `{near}`?")).unwrap_or_default();
            self.notes.warnings.push((entry.key_at, shown + &hint));
            let value = serde_json::from_str(&entry.value).unwrap_or_else(|_| Value::String(entry.value.clone()));
            unknown.insert(entry.key.clone(), value);
        }
        unknown
    }

    /// The entry of `key`, and its value as `take` sees it; `expected` names its type.
    fn value<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        take: impl Fn(&Value) -> Option<T>,
    ) -> Option<(Entry, T)> {
        self.asked.push(key);
        let found = self.entries.iter().filter(|entry| entry.key.eq_ignore_ascii_case(key) && entry.value != "null");
        let mut found: Vec<Entry> = found.cloned().collect();
        let entry = found.pop()?;
        if !found.is_empty() {
            self.warn_of_repeat(&entry);
        }
        let value = match serde_json::from_str::<Value>(&entry.value) {
            Ok(value) => value,
            Err(_) => {
                self.wrong(entry.at, key, &format!("cannot be read: {}", unreadable(&entry.value)));
                return None;
            }
        };
        match take(&value) {
            Some(taken) => Some((entry, taken)),
            None => {
                self.wrong(entry.at, key, &format!("must be {expected}, found {}", shape(&value)));
                None
            }
        }
    }

    fn warn_of_repeat(&mut self, entry: &Entry) {
        let text = format!("key `{}{}` is there again, the last one wins", self.prefix, printable(&entry.key));
        self.notes.warnings.push((entry.key_at, text));
    }
}

/// The string that an element or a value is.
pub(super) fn text_of(entry: &Entry) -> Result<String, String> {
    match serde_json::from_str::<Value>(&entry.value) {
        Ok(Value::String(text)) => Ok(text),
        Ok(value) => Err(format!("must be a string, found {}", shape(&value))),
        Err(_) => Err(format!("cannot be read: {}", unreadable(&entry.value))),
    }
}

/// A day: nobody waits longer for a plugin.
pub(super) const LONGEST: Duration = Duration::from_millis(wire::call::MAX_DEADLINE_MS);
