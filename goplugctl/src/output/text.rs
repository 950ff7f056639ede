//! Text and bytes that come from plugins, made safe for a terminal.

use std::fmt::Write as _;

use goplug_pconf_schema::push_printable;

/// Escapes control characters and characters that change the direction of text; cuts nothing.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    text.chars().for_each(|c| push_printable(&mut out, c));
    out
}

/// Like [`escape`], but keeps line ends and tabs: for whole files.
pub(crate) fn escape_lines(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '\n' | '\t') { out.push(c) } else { push_printable(&mut out, c) }
    }
    out
}

/// A word as a shell reads it back.
pub(crate) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@,+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// Whether a terminal shows these bytes as they are meant: UTF-8 in which nothing needs escaping but line ends and tabs.
pub(crate) fn prints(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|text| escape_lines(text) == text)
}

/// Sixteen bytes a line: offset, hex, and what prints.
pub(crate) fn hex_dump(bytes: &[u8]) -> String {
    let mut out = String::new();
    for (index, line) in bytes.chunks(16).enumerate() {
        let _ = write!(out, "{:08x} ", index * 16);
        for at in 0..16 {
            let gap = if at == 8 { " " } else { "" };
            let _ = match line.get(at) {
                Some(byte) => write!(out, "{gap} {byte:02x}"),
                None => write!(out, "{gap}   "),
            };
        }
        let shown = line.iter().map(|byte| if byte.is_ascii_graphic() || *byte == b' ' { *byte as char } else { '.' });
        let _ = writeln!(out, "  |{}|", shown.collect::<String>());
    }
    out
}

/// Bytes from hex digits; spaces, line ends and colons between them are skipped.
///
/// # Errors
/// Says which character is no hex digit, or that one is missing.
pub(crate) fn from_hex(text: &str) -> Result<Vec<u8>, String> {
    let skipped = |c: &char| !(c.is_ascii_whitespace() || *c == ':');
    let digit = |c: char| c.to_digit(16).ok_or_else(|| format!("`{}` is no hex digit", escape(&c.to_string())));
    let digits = text.chars().filter(skipped).map(digit).collect::<Result<Vec<u32>, _>>()?;
    if digits.len() % 2 == 1 {
        return Err(format!("{} hex digits make no whole number of bytes", digits.len()));
    }
    Ok(digits.chunks(2).filter_map(|pair| u8::try_from(pair[0] * 16 + pair[1]).ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_prints_is_printed() {
        for (bytes, whole) in [
            ("ä b\n\t".as_bytes(), true),
            (b"", true),
            (b"\xff", false),
            (b"\x1b[31m", false),
            (b"\r", false),
            ("\u{9b}2J".as_bytes(), false),
            ("\u{202e}".as_bytes(), false),
        ] {
            assert_eq!(prints(bytes), whole, "{bytes:?}");
        }
        assert_eq!(escape_lines("a\n\u{1b}"), "a\n\\u{1b}");
    }

    #[test]
    fn hex_is_written_and_read() {
        let dump = hex_dump(b"\x00A234567890abcdefg");
        assert!(
            dump.starts_with("00000000  00 41 32 33 34 35 36 37  38 39 30 61 62 63 64 65  |.A234567890abcde|\n"),
            "{dump}"
        );
        assert!(dump.ends_with("00000010  66 67                                             |fg|\n"), "{dump}");
        assert_eq!(from_hex("00 4a:Ff\n").unwrap(), [0, 0x4a, 0xff]);
        assert!(from_hex("0g").unwrap_err().contains("`g`"));
        assert!(from_hex("012").unwrap_err().contains("3 hex digits"));
    }
}
