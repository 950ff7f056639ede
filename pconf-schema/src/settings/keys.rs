//! One table of a TOML document, read key by key: whatever is wrong is noted, and reading goes on.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::printable;
use crate::text::nearest;

/// Offsets and messages of what is wrong.
pub(super) type Problems = Vec<(usize, String)>;

/// A table of which every key that exists is asked for once; [`Keys::finish`] reports the others.
pub(super) struct Keys<'a, 'p> {
    /// The table's name, empty for the document itself.
    name: &'static str,
    table: Option<&'a DeTable<'a>>,
    /// What paths are relative to.
    folder: Option<&'p Path>,
    asked: Vec<&'static str>,
    problems: &'p mut Problems,
}

impl<'a, 'p> Keys<'a, 'p> {
    pub(super) fn new(
        name: &'static str,
        table: Option<&'a DeTable<'a>>,
        folder: Option<&'p Path>,
        problems: &'p mut Problems,
    ) -> Self {
        Self { name, table, folder, asked: Vec::new(), problems }
    }

    pub(super) fn boolean(&mut self, key: &'static str, into: &mut bool) {
        self.one(key, "true or false", into, |value| match value {
            DeValue::Boolean(flag) => Some(*flag),
            _ => None,
        });
    }

    pub(super) fn string(&mut self, key: &'static str, into: &mut String, check: fn(&str) -> Result<(), &'static str>) {
        let Some((at, text)) = self.text(key) else { return };
        match check(&text) {
            Ok(()) => *into = text,
            Err(why) => self.wrong(at, key, format!("`{}` {why}", printable(&text))),
        }
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(&mut self, key: &'static str, into: &mut T, choices: &[(&str, T)]) {
        let words: Vec<_> = choices.iter().map(|(word, _)| format!("`{word}`")).collect();
        self.one(key, &format!("one of {}", words.join(", ")), into, |value| {
            let text = value.as_str()?;
            choices.iter().find(|(word, _)| *word == text).map(|(_, choice)| *choice)
        });
    }

    pub(super) fn optional_string(
        &mut self,
        key: &'static str,
        into: &mut Option<String>,
        check: fn(&str) -> Result<(), &'static str>,
    ) {
        let Some((at, text)) = self.text(key) else { return };
        match check(&text) {
            Ok(()) => *into = Some(text),
            Err(why) => self.wrong(at, key, format!("`{}` {why}", printable(&text))),
        }
    }

    pub(super) fn path(&mut self, key: &'static str, into: &mut Option<PathBuf>, max_bytes: usize) {
        let Some((at, text)) = self.text(key) else { return };
        let Some(path) = self.as_path(at, key, &text) else { return };
        let length = path.as_os_str().len();
        if length > max_bytes {
            let shown = printable(&path.to_string_lossy());
            self.wrong(at, key, format!("is {length} bytes, the limit is {max_bytes}: {shown}"));
        } else {
            *into = Some(path);
        }
    }

    pub(super) fn paths(&mut self, key: &'static str, into: &mut Vec<PathBuf>) {
        if let Some(texts) = self.list(key, "a list of paths", |value| value.as_str().map(str::to_owned)) {
            *into = texts.into_iter().filter_map(|(at, text)| self.as_path(at, key, &text)).collect();
        }
    }

    pub(super) fn strings(
        &mut self,
        key: &'static str,
        into: &mut Vec<String>,
        check: fn(&str) -> Result<(), &'static str>,
    ) {
        let Some(texts) = self.list(key, "a list of strings", |value| value.as_str().map(str::to_owned)) else {
            return;
        };
        into.clear();
        for (at, text) in texts {
            match check(&text) {
                Ok(()) => into.push(text),
                Err(why) => self.wrong(at, key, format!("`{}` {why}", printable(&text))),
            }
        }
    }

    pub(super) fn integers(&mut self, key: &'static str, into: &mut Vec<u32>) {
        let expected = "a list of integers from 0 to 4294967295";
        if let Some(numbers) = self.list(key, expected, |value| integer(value)?.try_into().ok()) {
            *into = numbers.into_iter().map(|(_, number)| number).collect();
        }
    }

    pub(super) fn integer<T>(&mut self, key: &'static str, into: &mut T, range: RangeInclusive<T>)
    where
        T: TryFrom<i128> + PartialOrd + Display,
    {
        let expected = format!("an integer from {} to {}", range.start(), range.end());
        self.one(key, &expected, into, |value| {
            T::try_from(integer(value)?).ok().filter(|number| range.contains(number))
        });
    }

    /// The table of that name, if it is there and is one.
    pub(super) fn table(&mut self, key: &'static str) -> Option<&'a DeTable<'a>> {
        let value = self.value(key)?;
        match value.get_ref() {
            DeValue::Table(table) => Some(table),
            other => {
                self.wrong(value.span().start, key, format!("must be a table `[{key}]`, found {}", shape(other)));
                None
            }
        }
    }

    /// Reports every key that was not asked for.
    pub(super) fn finish(self) {
        for key in self.table.into_iter().flat_map(|table| table.keys()) {
            let name = key.get_ref().as_ref();
            if self.asked.contains(&name) {
                continue;
            }
            let place = if self.name.is_empty() { String::new() } else { format!(" in `[{}]`", self.name) };
            let hint = match nearest(name, &self.asked) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("there are {}", self.asked.join(", ")),
            };
            self.problems.push((key.span().start, format!("unknown key `{}`{place}: {hint}", printable(name))));
        }
    }

    fn one<T>(&mut self, key: &'static str, expected: &str, into: &mut T, take: impl Fn(&DeValue<'_>) -> Option<T>) {
        let Some(value) = self.value(key) else { return };
        match take(value.get_ref()) {
            Some(taken) => *into = taken,
            None => self.mistyped(key, expected, value),
        }
    }

    fn list<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        take: impl Fn(&DeValue<'_>) -> Option<T>,
    ) -> Option<Vec<(usize, T)>> {
        let value = self.value(key)?;
        let DeValue::Array(items) = value.get_ref() else {
            self.mistyped(key, expected, value);
            return None;
        };
        let mut taken = Vec::new();
        for item in items.iter() {
            match take(item.get_ref()) {
                Some(found) => taken.push((item.span().start, found)),
                None => self.mistyped(key, expected, item),
            }
        }
        Some(taken)
    }

    fn text(&mut self, key: &'static str) -> Option<(usize, String)> {
        let value = self.value(key)?;
        match value.get_ref().as_str() {
            Some(text) => Some((value.span().start, text.to_owned())),
            None => {
                self.mistyped(key, "a string", value);
                None
            }
        }
    }

    fn as_path(&mut self, at: usize, key: &str, text: &str) -> Option<PathBuf> {
        if text.is_empty() || text.contains('\0') {
            self.wrong(at, key, "must be a path, found an empty text or a NUL".into());
            return None;
        }
        Some(self.folder.unwrap_or(Path::new("")).join(text))
    }

    fn value(&mut self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.asked.push(key);
        self.table?.get(key)
    }

    fn mistyped(&mut self, key: &str, expected: &str, value: &Spanned<DeValue<'_>>) {
        self.wrong(value.span().start, key, format!("must be {expected}, found {}", shape(value.get_ref())));
    }

    fn wrong(&mut self, at: usize, key: &str, what: String) {
        let dot = if self.name.is_empty() { "" } else { "." };
        self.problems.push((at, format!("`{}{dot}{key}` {what}", self.name)));
    }
}

fn integer(value: &DeValue<'_>) -> Option<i128> {
    match value {
        DeValue::Integer(number) => i128::from_str_radix(number.as_str(), number.radix()).ok(),
        _ => None,
    }
}

fn shape(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("the string \"{}\"", printable(text)),
        DeValue::Integer(number) => format!("the number {}", printable(&number.to_string())),
        DeValue::Float(number) => format!("the number {}", printable(number.as_str())),
        DeValue::Boolean(flag) => flag.to_string(),
        DeValue::Datetime(_) => "a date or time".into(),
        DeValue::Array(_) => "a list".into(),
        DeValue::Table(_) => "a table".into(),
    }
}
