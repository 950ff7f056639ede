//! From entries to a [`Pconf`]: which key is which, of what type, and what is missing.

use serde_json::Value;

use crate::text::nearest;
use crate::{PluginId, printable, wire};

use super::json::{self, Document, Entry};
use super::{Pconf, PconfError, socket};

/// The keys that mean something, as they are written.
const KEYS: [&str; 10] =
    ["Name", "NameSpace", "Url", "Sock", "LazyLoad", "Protocol", "Epoch", "Version", "Description", "Pid"];

/// Reads a whole file.
pub(super) fn read(bytes: &[u8]) -> Result<Pconf, PconfError> {
    let text = json::without_mark(bytes);
    let document = json::read(bytes);
    let mut fields =
        Fields { text, whole: document.problems.is_empty(), document, problems: Vec::new(), warnings: Vec::new() };
    fields.problems.append(&mut fields.document.problems);
    let pconf = fields.pconf();
    match pconf {
        Some(pconf) if fields.problems.is_empty() => Ok(pconf),
        _ => {
            // Stable, so that of two problems at one place the more general one stays first.
            fields.problems.sort_by_key(|(at, _)| *at);
            let problems = fields.problems.into_iter();
            Err(PconfError { problems: problems.map(|(at, message)| json::problem(text, at, message)).collect() })
        }
    }
}

/// What could be better.
pub(super) fn lint(pconf: &Pconf) -> Vec<String> {
    let mut found = Vec::new();
    for (what, text) in [("name", pconf.id.name()), ("namespace", pconf.id.namespace())] {
        if !text.is_empty() && !is_plain_name(text) {
            found.push(format!(
                "{what} `{}` is not [a-z0-9][a-z0-9._-]*: it has to be quoted in shells and paths",
                printable(text)
            ));
        }
    }
    if pconf.protocol.is_none() {
        found.push("no `Protocol`: the plugin is asked whether it speaks v1, and taken for a v0 plugin if it does not answer so".into());
    }
    if pconf.protocol.is_some() && pconf.epoch.is_none() {
        found.push("no `Epoch`: another process with the same socket path is not seen in the file".into());
    }
    if !pconf.url.starts_with("unix://") {
        found.push(format!("`Url` `{}` does not begin with `unix://`", printable(&pconf.url)));
    }
    for key in pconf.unknown.keys() {
        found.push(match nearest(key, &KEYS) {
            Some(near) => format!("unknown key `{}`: did you mean `{near}`?", printable(key)),
            None => format!("unknown key `{}`", printable(key)),
        });
    }
    found
}

pub(crate) fn is_plain_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    let first = bytes.next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    first && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-'))
}

struct Fields<'a> {
    text: &'a [u8],
    /// Whether every entry of the object was read, so that a missing one is really missing.
    whole: bool,
    document: Document,
    problems: Vec<(usize, String)>,
    warnings: Vec<String>,
}

impl Fields<'_> {
    fn pconf(&mut self) -> Option<Pconf> {
        let name = self.string("Name");
        let namespace = self.string("NameSpace");
        let sock = self.string("Sock");
        let url = self.string("Url").map(|(_, url)| url).filter(|url| !url.is_empty());
        let lazy_load = self.value("LazyLoad", "true or false", |value| value.as_bool());
        let protocol =
            self.value("Protocol", "an integer from 0 to 4294967295", |value| value.as_u64()?.try_into().ok());
        let epoch = self.checked("Epoch", |epoch| match wire::hello::is_epoch(epoch) {
            true => Ok(()),
            false => Err(format!("`Epoch` `{}` is not 32 lower-case hex digits", printable(epoch))),
        });
        let version = self.checked("Version", |version| match semver::Version::parse(version) {
            Ok(_) => Ok(()),
            Err(error) => Err(format!("`Version` `{}` is no SemVer version: {error}", printable(version))),
        });
        let description = self.string("Description").map(|(_, text)| text);
        let pid = self.value("Pid", "a process id", |value| value.as_u64());
        let id = self.id(name, namespace);
        let sock = self.sock(sock);
        let unknown = self.unknown();
        self.warn_of_tail();
        let mut pconf = Pconf::new(id?, sock?);
        pconf.url = url.unwrap_or(pconf.url);
        pconf.lazy_load = lazy_load.is_some_and(|(_, lazy)| lazy);
        pconf.protocol = protocol.map(|(_, protocol)| protocol);
        pconf.epoch = epoch;
        pconf.version = version;
        pconf.description = description;
        pconf.pid = pid.map(|(_, pid)| pid);
        pconf.unknown = unknown;
        pconf.warnings = std::mem::take(&mut self.warnings);
        Some(pconf)
    }

    fn id(&mut self, name: Option<(usize, String)>, namespace: Option<(usize, String)>) -> Option<PluginId> {
        // The namespace is checked alone too: both may be wrong, and each has its own place.
        if let Some((at, namespace)) = &namespace
            && let Err(error) = PluginId::new(namespace, "x")
        {
            self.problems.push((*at, error.to_string()));
        }
        let Some((at, name)) = name else {
            self.missing("Name");
            return None;
        };
        if let Err(error) = PluginId::new("", &name) {
            self.problems.push((at, error.to_string()));
        }
        PluginId::new(namespace.as_ref().map_or("", |(_, namespace)| namespace), &name).ok()
    }

    fn sock(&mut self, sock: Option<(usize, String)>) -> Option<String> {
        let Some((at, sock)) = sock else {
            self.missing("Sock");
            return None;
        };
        socket::check(&sock).map_err(|why| self.problems.push((at, why))).ok()?;
        Some(sock)
    }

    fn missing(&mut self, key: &str) {
        let wrong =
            self.document.entries.iter().any(|entry| entry.key.eq_ignore_ascii_case(key) && entry.value != "null");
        if self.whole && !wrong {
            self.problems.push((self.document.start, format!("`{key}` is missing")));
        }
    }

    /// A string that must pass `check`.
    fn checked(&mut self, key: &str, check: impl Fn(&str) -> Result<(), String>) -> Option<String> {
        let (at, text) = self.string(key)?;
        check(&text).map_err(|why| self.problems.push((at, why))).ok()?;
        Some(text)
    }

    fn string(&mut self, key: &str) -> Option<(usize, String)> {
        self.value(key, "a string", |value| value.as_str().map(str::to_owned))
    }

    /// The value of `key` as `take` sees it, and its place; `expected` names its type.
    fn value<T>(&mut self, key: &str, expected: &str, take: impl Fn(&Value) -> Option<T>) -> Option<(usize, T)> {
        let at = self.last_of(key)?;
        let entry = &self.document.entries[at];
        let value = match serde_json::from_str::<Value>(&entry.value) {
            Ok(value) => value,
            Err(_) => {
                self.problems.push((entry.at, format!("`{key}` cannot be read: {}", unreadable(&entry.value))));
                return None;
            }
        };
        match take(&value) {
            Some(taken) => Some((entry.at, taken)),
            None => {
                self.problems.push((entry.at, format!("`{key}` must be {expected}, found {}", shape(&value))));
                None
            }
        }
    }

    /// The entry of `key` that counts; says so when there are several.
    fn last_of(&mut self, key: &str) -> Option<usize> {
        let entries = self.document.entries.iter().enumerate();
        let mut found = entries.filter(|(_, entry)| entry.key.eq_ignore_ascii_case(key) && entry.value != "null");
        let (mut last, _) = found.next()?;
        let repeated: Vec<_> = found.map(|(n, _)| n).collect();
        for n in repeated {
            last = n;
            self.warn_of_repeat(n);
        }
        Some(last)
    }

    fn warn_of_repeat(&mut self, n: usize) {
        let Entry { key, key_at, .. } = &self.document.entries[n];
        let place =
            json::problem(self.text, *key_at, format!("key `{}` is there again, the last one wins", printable(key)));
        self.warnings.push(place.to_string());
    }

    fn unknown(&mut self) -> std::collections::BTreeMap<String, Value> {
        let is_known = |entry: &Entry| KEYS.iter().any(|key| entry.key.eq_ignore_ascii_case(key));
        let mut kept = std::collections::BTreeMap::<String, (String, Value)>::new();
        let mut repeats = Vec::new();
        for (n, entry) in self.document.entries.iter().enumerate().filter(|(_, entry)| !is_known(entry)) {
            // A number or an escape that nothing can hold is kept as it is written.
            let value = serde_json::from_str(&entry.value).unwrap_or_else(|_| Value::String(entry.value.clone()));
            if kept.insert(entry.key.to_ascii_lowercase(), (entry.key.clone(), value)).is_some() {
                repeats.push(n);
            }
        }
        for n in repeats {
            self.warn_of_repeat(n);
        }
        kept.into_values().collect()
    }

    fn warn_of_tail(&mut self) {
        if let Some(at) = self.document.tail {
            let place = json::problem(self.text, at, "what follows the first value is ignored".into());
            self.warnings.push(place.to_string());
        }
    }
}

/// Why a value that is JSON by its shape has no meaning.
pub(crate) fn unreadable(raw: &str) -> &'static str {
    if raw.contains('"') { "a `\\u` escape stands for half a character" } else { "the number is out of range" }
}

pub(crate) fn shape(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(_) => "a boolean".into(),
        Value::Number(number) => format!("the number {number}"),
        Value::String(text) => format!("the string \"{}\"", printable(text)),
        Value::Array(_) => "an array".into(),
        Value::Object(_) => "an object".into(),
    }
}
