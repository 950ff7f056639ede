//! JSON and YAML, safe to show on a terminal.

use std::fmt::Write as _;
use std::io;

use serde::Serialize;

/// One document, indented, with the line end.
pub(crate) fn document<T: Serialize + ?Sized>(value: &T) -> io::Result<String> {
    Ok(escape_controls(&serde_json::to_string_pretty(value)?) + "\n")
}

/// One document in one line, with the line end.
pub(crate) fn line<T: Serialize + ?Sized>(value: &T) -> io::Result<String> {
    Ok(escape_controls(&serde_json::to_string(value)?) + "\n")
}

/// One YAML document.
pub(crate) fn yaml<T: Serialize + ?Sized>(value: &T) -> io::Result<String> {
    yaml_serde::to_string(value).map_err(io::Error::other)
}

/// Writes what a terminal would act on as `\uXXXX`: serde_json escapes only what JSON demands. Such characters occur in
/// strings only, so the document means the same.
pub(crate) fn escape_controls(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        let mut shown = String::new();
        goplug_pconf_schema::push_printable(&mut shown, c);
        if c == '\n' || shown.len() == c.len_utf8() {
            out.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            let _ = write!(out, "\\u{unit:04x}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_means_the_same_and_drives_no_terminal() {
        let hostile = serde_json::json!({"a": "\u{1b}[2J\u{7f}\u{9b}\u{202e}ä\n\u{1f600}"});
        for text in [document(&hostile).unwrap(), line(&hostile).unwrap()] {
            assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), hostile);
            assert!(!text.chars().any(|c| c != '\n' && (c.is_control() || c == '\u{202e}')), "{text:?}");
        }
    }

    #[test]
    fn yaml_drives_no_terminal() {
        let text = yaml(&serde_json::json!({"a": "\u{1b}[2J\u{7f}\u{9b}", "b": [], "c": null})).unwrap();
        assert!(!text.chars().any(|c| c != '\n' && c.is_control()), "{text:?}");
    }
}
