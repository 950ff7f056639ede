//! From bytes to the entries of the first JSON object, each with its place in the text.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::text::line_and_column;
use crate::wire::MAX_JSON_DEPTH;

use super::{MAX_PCONF_BYTES, PconfProblem};

/// One `"key": value` of the object, in the order of the text; keys may repeat.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) key: String,
    /// Where the key begins.
    pub(crate) key_at: usize,
    /// The value's own text, comments taken out.
    pub(crate) value: String,
    /// Where the value begins.
    pub(crate) at: usize,
}

/// What could be read of a file. Offsets count from behind a byte order mark.
#[derive(Debug, Default)]
pub(crate) struct Document {
    pub(crate) entries: Vec<Entry>,
    /// Where the object begins.
    pub(crate) start: usize,
    /// Where text begins that follows the object, if there is any but comments.
    pub(crate) tail: Option<usize>,
    /// Problems and their offsets; when there are some, entries may be missing.
    pub(crate) problems: Vec<(usize, String)>,
}

/// The text without its byte order mark: what offsets refer to.
pub(crate) fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)
}

/// The problem `message` at `offset` of `text`.
pub(crate) fn problem(text: &[u8], offset: usize, message: String) -> PconfProblem {
    let (line, column) = line_and_column(text, offset);
    PconfProblem { line, column, message }
}

/// Reads the first JSON value of the file `bytes`, which must be an object.
pub(crate) fn read(bytes: &[u8]) -> Document {
    let mut document = Document::default();
    if bytes.len() > MAX_PCONF_BYTES {
        document.problems.push((0, format!("the file is {} bytes, the limit is {MAX_PCONF_BYTES}", bytes.len())));
        return document;
    }
    let plain = without_comments(without_mark(bytes));
    let (plain, broken_at) = match std::str::from_utf8(&plain) {
        Ok(plain) => (plain, None),
        // What follows the first value does not count, whatever it is: so only the valid part is looked at.
        Err(error) => {
            let valid = error.valid_up_to();
            (std::str::from_utf8(&plain[..valid]).unwrap_or_default(), Some(valid))
        }
    };
    document.start = plain.len() - plain.trim_start().len();
    if document.start == plain.len() {
        let why =
            if broken_at.is_some() { "the file is not UTF-8" } else { "the file is empty: expected a JSON object" };
        document.problems.push((broken_at.unwrap_or(0), why.into()));
        return document;
    }
    if !plain[document.start..].starts_with('{') {
        document.problems.push((document.start, "expected a JSON object, which begins with `{`".into()));
        return document;
    }
    if let Some(deep_at) = too_deep_at(plain.as_bytes()) {
        document.problems.push((deep_at, format!("nested deeper than {MAX_JSON_DEPTH} levels")));
        return document;
    }
    let mut stream = serde_json::Deserializer::from_str(plain);
    let object = Object { text: plain, entries: &mut document.entries };
    match object.deserialize(&mut stream) {
        Ok(()) => {
            // The deserializer is asked where it stands by way of the stream that begins there.
            let end = stream.into_iter::<serde::de::IgnoredAny>().byte_offset();
            let tail = plain[end..].trim_start();
            document.tail = (!tail.is_empty() || broken_at.is_some()).then(|| plain.len() - tail.len());
        }
        Err(error) => document.problems.push(syntax_problem(plain, broken_at, &error)),
    }
    document
}

/// The entries of an object that is the value of `entry`; none if it is no object.
pub(crate) fn entries_of(entry: &Entry) -> Vec<Entry> {
    let mut entries = Vec::new();
    let object = Object { text: &entry.value, entries: &mut entries };
    // The value was read before, as part of the whole: so it is JSON.
    _ = object.deserialize(&mut serde_json::Deserializer::from_str(&entry.value));
    for inner in &mut entries {
        (inner.at, inner.key_at) = (inner.at + entry.at, inner.key_at + entry.at);
    }
    entries
}

/// The elements of an array that is the value of `entry`, each under the key of the array; none if it is no array.
pub(crate) fn elements_of(entry: &Entry) -> Vec<Entry> {
    let elements: Vec<&RawValue> = serde_json::from_str(&entry.value).unwrap_or_default();
    let offset = |raw: &RawValue| (raw.get().as_ptr() as usize).saturating_sub(entry.value.as_ptr() as usize);
    let element = |raw: &&RawValue| {
        let at = entry.at + offset(raw);
        Entry { key: entry.key.clone(), key_at: at, value: raw.get().to_owned(), at }
    };
    elements.iter().map(element).collect()
}

/// The text with comments and trailing commas turned into spaces, so that every byte keeps its offset.
fn without_comments(text: &[u8]) -> Vec<u8> {
    let mut plain = text.to_vec();
    if json_strip_comments::strip_slice(&mut plain).is_err() {
        // The one error is a `/` that begins no comment. It has been blanked already, and is the last byte changed; put
        // back, the parser finds it, at its place, unless it comes after the first value and so does not count.
        if let Some(at) = plain.iter().zip(text).rposition(|(now, before)| now != before) {
            plain[at] = text[at];
        }
    }
    plain
}

/// Where the first value is nested too deep.
fn too_deep_at(text: &[u8]) -> Option<usize> {
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for (at, byte) in text.iter().enumerate() {
        match (in_string, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => in_string = !in_string,
            (false, b'{' | b'[') => depth += 1,
            (false, b'}' | b']') => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_JSON_DEPTH {
            return Some(at);
        }
        if depth == 0 && matches!(byte, b'}' | b']') && !in_string {
            return None;
        }
    }
    None
}

fn syntax_problem(plain: &str, broken_at: Option<usize>, error: &serde_json::Error) -> (usize, String) {
    if error.is_eof() {
        let end = broken_at.unwrap_or(plain.trim_end().len());
        let why = if broken_at.is_some() { "the file is not UTF-8" } else { "the file ends before the object does" };
        return (end, why.into());
    }
    // Its column counts bytes from 1; 0 is the end of the line before.
    let line_start = plain.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum::<usize>();
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    (line_start + error.column().saturating_sub(1), crate::printable(text.strip_suffix(&place).unwrap_or(&text)))
}

/// Reads an object's entries into a list, so that those before a syntax error are known too.
struct Object<'a, 'de> {
    text: &'de str,
    entries: &'a mut Vec<Entry>,
}

impl<'de> DeserializeSeed<'de> for Object<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Object<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        // A raw value is a slice of the text: that is how its place is known.
        let offset = |raw: &RawValue| (raw.get().as_ptr() as usize).saturating_sub(self.text.as_ptr() as usize);
        while let Some(raw_key) = map.next_key::<&'de RawValue>()? {
            let key = String::deserialize(&mut serde_json::Deserializer::from_str(raw_key.get()));
            let value = map.next_value::<&'de RawValue>()?;
            self.entries.push(Entry {
                key: key.unwrap_or_else(|_| raw_key.get().to_owned()),
                key_at: offset(raw_key),
                value: value.get().to_owned(),
                at: offset(value),
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod inner_tests {
    use super::*;

    #[test]
    fn what_is_inside_of_a_value_has_its_place_in_the_whole_text() {
        let text = "{ \"a\": /* x */ {\"b\" : [1, \"ä\", {}]} }";
        let document = read(text.as_bytes());
        let inner = entries_of(&document.entries[0]);
        assert_eq!((inner.len(), inner[0].key.as_str(), inner[0].key_at), (1, "b", text.find("\"b").unwrap()));
        let elements = elements_of(&inner[0]);
        let found: Vec<_> = elements.iter().map(|element| (element.value.as_str(), element.at)).collect();
        assert_eq!(
            found,
            [("1", text.find("1,").unwrap()), ("\"ä\"", text.find("\"ä").unwrap()), ("{}", text.find("{}").unwrap())]
        );
    }
}
