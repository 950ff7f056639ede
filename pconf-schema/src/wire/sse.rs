//! Server-sent events: writing them, and reading them from a hostile stream.

use std::fmt::Write as _;

/// The longest line of an event stream that is read: a 64 MiB payload in base64, and its wrapping.
pub const MAX_LINE_BYTES: usize = 90 * 1024 * 1024;

/// One event of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SseEvent {
    /// The field `id`, empty if there was none.
    pub id: String,
    /// The field `event`, empty if there was none.
    pub event: String,
    /// The field `data`; several lines are joined by a newline.
    pub data: String,
}

impl SseEvent {
    /// The event as text, with the empty line that ends it. `data` must not hold a carriage return.
    pub fn to_text(&self) -> String {
        let mut out = String::with_capacity(self.data.len() + self.id.len() + self.event.len() + 24);
        if !self.id.is_empty() {
            let _ = writeln!(out, "id: {}", self.id);
        }
        if !self.event.is_empty() {
            let _ = writeln!(out, "event: {}", self.event);
        }
        for line in self.data.split('\n') {
            let _ = writeln!(out, "data: {line}");
        }
        out.push('\n');
        out
    }
}

/// Cuts a stream of bytes into events. Memory grows with what was received, up to `max_line_bytes` and what an event of
/// that size holds.
#[derive(Debug)]
pub struct SseReader {
    line: Vec<u8>,
    event: SseEvent,
    has_data: bool,
    max_line_bytes: usize,
}

impl Default for SseReader {
    fn default() -> Self {
        Self::new(MAX_LINE_BYTES)
    }
}

impl SseReader {
    /// A reader that refuses lines, and events, of more than `max_line_bytes`.
    pub fn new(max_line_bytes: usize) -> Self {
        Self { line: Vec::new(), event: SseEvent::default(), has_data: false, max_line_bytes }
    }

    /// Takes the next bytes and appends every event that they complete to `out`; comments are skipped.
    ///
    /// # Errors
    /// A line or an event that is too long, or a line that is no UTF-8: the stream cannot be read on.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<SseEvent>) -> Result<(), String> {
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|b| *b == b'\n') {
            self.grow(&rest[..end])?;
            rest = &rest[end + 1..];
            let line = std::mem::take(&mut self.line);
            let line = line.strip_suffix(b"\r").unwrap_or(&line);
            let line = std::str::from_utf8(line).map_err(|_| "a line of the event stream is no UTF-8".to_owned())?;
            self.take_line(line, out)?;
        }
        self.grow(rest)
    }

    fn grow(&mut self, bytes: &[u8]) -> Result<(), String> {
        if self.line.len() + bytes.len() > self.max_line_bytes {
            return Err(format!("a line of the event stream is longer than {} bytes", self.max_line_bytes));
        }
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    fn take_line(&mut self, line: &str, out: &mut Vec<SseEvent>) -> Result<(), String> {
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            if std::mem::take(&mut self.has_data) {
                out.push(event);
            }
            return Ok(());
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => self.event.id = value.to_owned(),
            "event" => self.event.event = value.to_owned(),
            "data" => {
                if self.event.data.len() + value.len() > self.max_line_bytes {
                    return Err(format!("an event of the stream is longer than {} bytes", self.max_line_bytes));
                }
                if std::mem::replace(&mut self.has_data, true) {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_in_pieces(text: &str, size: usize) -> Vec<SseEvent> {
        let (mut reader, mut out) = (SseReader::default(), Vec::new());
        for piece in text.as_bytes().chunks(size) {
            reader.push(piece, &mut out).unwrap();
        }
        out
    }

    #[test]
    fn events_survive_any_slicing() {
        let first = SseEvent { id: "e:1".into(), event: "message".into(), data: "{}\nx".into() };
        let second = SseEvent { data: "ä".into(), ..SseEvent::default() };
        let text = format!(": hi\n\n{}: ping\n\n{}id: lost\n\n", first.to_text(), second.to_text());
        for size in 1..text.len() {
            assert_eq!(read_in_pieces(&text, size), [first.clone(), second.clone()], "size {size}");
            assert_eq!(read_in_pieces(&text.replace('\n', "\r\n"), size).len(), 2, "CRLF, size {size}");
        }
    }

    #[test]
    fn a_stream_without_end_is_cut_off() {
        let mut reader = SseReader::new(100);
        assert!(reader.push(&[b'x'; 101], &mut Vec::new()).is_err());
        let mut reader = SseReader::new(100);
        let lines = "data: xxxxxxxxxxxxxxxxxxxx\n".repeat(10);
        assert!(reader.push(lines.as_bytes(), &mut Vec::new()).is_err());
        assert!(SseReader::default().push(b"\xff\n", &mut Vec::new()).is_err());
    }
}
