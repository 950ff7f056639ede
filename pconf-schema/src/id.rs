//! The name of a plugin: the pair (namespace, name).

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest name, namespace, method name or callback name, in bytes.
pub const MAX_NAME_BYTES: usize = 128;

/// The pair (namespace, name) that identifies a plugin, already checked.
///
/// Its text is `namespace/name`, with `-` for the empty namespace, so that two pairs never have the same text. Cloning
/// copies a reference. Both parts are 1 to [`MAX_NAME_BYTES`] bytes of UTF-8 without `/`, control characters or a
/// leading dot; the namespace may be empty and is never `-`.
///
/// # Example: two pairs that the original GoPlug mixed up
/// ```
/// use goplug_pconf_schema::PluginId;
/// assert_ne!(PluginId::new("ab", "c")?, PluginId::new("a", "bc")?);
/// assert_eq!(PluginId::parse("math")?.as_str(), "-/math");
/// # Ok::<(), goplug_pconf_schema::NameError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PluginId(Arc<str>);

impl PluginId {
    /// Makes the identity of `name` in `namespace` (which may be empty).
    ///
    /// # Errors
    /// A [`NameError`] that says which part is wrong and why.
    pub fn new(namespace: &str, name: &str) -> Result<Self, NameError> {
        if namespace == "-" {
            return Err(NameError("namespace `-` is reserved: it stands for the empty namespace".into()));
        }
        if !namespace.is_empty() {
            check_part("namespace", namespace)?;
        }
        check_part("name", name)?;
        let namespace = if namespace.is_empty() { "-" } else { namespace };
        Ok(Self(format!("{namespace}/{name}").into()))
    }

    /// Reads `namespace/name`, `-/name` or `name` (the empty namespace).
    ///
    /// # Errors
    /// As [`PluginId::new`].
    pub fn parse(text: &str) -> Result<Self, NameError> {
        match text.split_once('/') {
            Some(("-", name)) => Self::new("", name),
            Some(("", _)) => Err(NameError(format!("namespace is empty in `{}`: write `-/name`", printable(text)))),
            Some((namespace, name)) => Self::new(namespace, name),
            None => Self::new("", text),
        }
    }

    /// The namespace, empty for a plugin that has none.
    pub fn namespace(&self) -> &str {
        match self.0.split_once('/') {
            Some(("-", _)) | None => "",
            Some((namespace, _)) => namespace,
        }
    }

    /// The name within the namespace.
    pub fn name(&self) -> &str {
        self.0.split_once('/').map_or(&*self.0, |(_, name)| name)
    }

    /// The whole, `namespace/name` or `-/name`: unique, and what every output prints.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The whole as a shared string, for use as a key.
    pub fn to_arc(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }
}

impl fmt::Display for PluginId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for PluginId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", self.0)
    }
}

impl Serialize for PluginId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for PluginId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

impl schemars::JsonSchema for PluginId {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "PluginId".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "string", "pattern": "^[^/]+/[^/]+$", "description": "namespace/name, `-` for the empty namespace"})
    }
}

/// Checks the name of a method or of a callback: UTF-8 of 1 to [`MAX_NAME_BYTES`] bytes, no control characters, not `.`
/// or `..`. Unlike a plugin's name it may hold a `/`.
///
/// # Errors
/// A [`NameError`] that says why.
pub fn check_call_name(what: &str, name: &str) -> Result<(), NameError> {
    check_text(what, name)?;
    if name == "." || name == ".." {
        return Err(NameError(format!("{what} `{name}` is a relative path")));
    }
    Ok(())
}

fn check_part(what: &str, text: &str) -> Result<(), NameError> {
    check_text(what, text)?;
    if text.contains('/') {
        return Err(NameError(format!("{what} `{}` holds a `/`", printable(text))));
    }
    if text.starts_with('.') {
        return Err(NameError(format!("{what} `{}` begins with a dot", printable(text))));
    }
    Ok(())
}

fn check_text(what: &str, text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError(format!("{what} is empty")));
    }
    if text.len() > MAX_NAME_BYTES {
        return Err(NameError(format!("{what} is {} bytes, the limit is {MAX_NAME_BYTES}", text.len())));
    }
    if text.chars().any(char::is_control) {
        return Err(NameError(format!("{what} `{}` holds a control character", printable(text))));
    }
    Ok(())
}

/// Escapes control characters and characters that change the direction of text, and cuts what is longer than 200
/// characters, so that text from a plugin or a file can be shown on a terminal.
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len().min(256));
    for (count, c) in text.chars().enumerate() {
        if count == 200 {
            out.push('…');
            break;
        }
        push_printable(&mut out, c);
    }
    out
}

/// Appends `c`, escaped when a terminal would act on it instead of showing it.
pub fn push_printable(out: &mut String, c: char) {
    let directs = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
    if c.is_control() || directs {
        out.extend(c.escape_default());
    } else {
        out.push(c);
    }
}

/// Why a text is no name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameError(String);

impl NameError {
    pub(crate) fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NameError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_told_apart_and_written_back() {
        for (text, namespace, name, written) in [
            ("a/b", "a", "b", "a/b"),
            ("b", "", "b", "-/b"),
            ("-/b", "", "b", "-/b"),
            ("Ünï/x y", "Ünï", "x y", "Ünï/x y"),
        ] {
            let id = PluginId::parse(text).unwrap();
            assert_eq!((id.namespace(), id.name(), id.as_str()), (namespace, name, written), "{text}");
        }
        assert_ne!(PluginId::new("ab", "c").unwrap(), PluginId::new("a", "bc").unwrap());
    }

    #[test]
    fn what_is_no_name_is_refused_with_a_reason() {
        let long = "x".repeat(129);
        for (text, reason) in [
            ("", "name is empty"),
            ("/b", "namespace is empty"),
            ("a/", "name is empty"),
            ("a/b/c", "holds a `/`"),
            (".a", "begins with a dot"),
            ("a\nb", "control character"),
            (long.as_str(), "129 bytes, the limit is 128"),
        ] {
            let error = PluginId::parse(text).unwrap_err().to_string();
            assert!(error.contains(reason), "{text:?}: {error}");
        }
        assert!(PluginId::new("-", "a").unwrap_err().to_string().contains("reserved"));
    }

    #[test]
    fn terminal_controls_are_shown_not_obeyed() {
        assert_eq!(printable("a\u{1b}[31m\u{202e}b"), "a\\u{1b}[31m\\u{202e}b");
        assert_eq!(printable(&"x".repeat(300)).chars().count(), 201);
    }
}
