//! Items as bytes. Pure.
//!
//! Each item is JSON in one line, ended by a line feed (`application/x-ndjson`). A line that begins with `!` is the problem
//! document of a failure, and the last one. Empty lines mean nothing. Bytes behind the last line feed are half an item.

use goplug_pconf_schema::{Code, Fault};

/// The largest item, as JSON, in bytes.
pub const MAX_ITEM_BYTES: usize = 4 * 1024 * 1024;

/// What a line that tells of a failure begins with: no JSON does.
pub(crate) const FAILURE: u8 = b'!';

/// What was received and not yet taken.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    received: Vec<u8>,
    /// What was taken of it.
    taken: usize,
    /// Up to here there is no line feed behind what was taken.
    searched: usize,
}

/// A line that is not empty.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line<'a> {
    Item(&'a [u8]),
    /// A problem document.
    Failure(&'a [u8]),
}

impl Lines {
    pub(crate) fn push(&mut self, piece: &[u8]) {
        self.received.drain(..self.taken);
        self.searched -= self.taken;
        self.taken = 0;
        self.received.extend_from_slice(piece);
    }

    /// The next line that is whole and not empty; `None` when more has to be received.
    ///
    /// # Errors
    /// `too_large` for an item beyond [`MAX_ITEM_BYTES`], whole or not.
    pub(crate) fn next(&mut self) -> Result<Option<Line<'_>>, Fault> {
        loop {
            let Some(length) = self.received[self.searched..].iter().position(|byte| *byte == b'\n') else {
                self.searched = self.received.len();
                too_large(self.searched - self.taken)?;
                return Ok(None);
            };
            let (begin, end) = (self.taken, self.searched + length);
            (self.taken, self.searched) = (end + 1, end + 1);
            too_large(end - begin)?;
            // A carriage return before the line feed is white space, as in all of JSON.
            if self.received[begin..end].trim_ascii().is_empty() {
                continue;
            }
            return Ok(Some(match self.received[begin..end].trim_ascii() {
                [FAILURE, document @ ..] => Line::Failure(document),
                item => Line::Item(item),
            }));
        }
    }

    /// Whether the end may come now: nothing is half received.
    pub(crate) fn is_whole(&self) -> bool {
        self.received[self.taken..].trim_ascii().is_empty()
    }
}

fn too_large(bytes: usize) -> Result<(), Fault> {
    if bytes <= MAX_ITEM_BYTES {
        return Ok(());
    }
    let text = format!("an item of the stream is {bytes} bytes or more, the limit is {MAX_ITEM_BYTES}");
    Err(Fault::new(Code::TooLarge, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(lines: &mut Lines) -> Vec<String> {
        let mut found = Vec::new();
        while let Some(line) = lines.next().unwrap() {
            found.push(match line {
                Line::Item(item) => String::from_utf8_lossy(item).into_owned(),
                Line::Failure(document) => format!("failure {}", String::from_utf8_lossy(document)),
            });
        }
        found
    }

    #[test]
    fn lines_survive_any_slicing() {
        let text = b"\n1\n\r\n{\"a\":\"b\\n\"}\r\n[2, 3]\n!{\"code\":\"internal\"}\n";
        let expected = ["1", "{\"a\":\"b\\n\"}", "[2, 3]", "failure {\"code\":\"internal\"}"];
        for size in 1..=text.len() {
            let (mut lines, mut found) = (Lines::default(), Vec::new());
            for piece in text.chunks(size) {
                lines.push(piece);
                found.extend(all(&mut lines));
            }
            assert_eq!(found, expected, "pieces of {size}");
            assert!(lines.is_whole());
        }
    }

    #[test]
    fn half_an_item_is_no_end() {
        let mut lines = Lines::default();
        assert!(lines.is_whole());
        lines.push(b"1\n2");
        assert_eq!(all(&mut lines), ["1"]);
        assert!(!lines.is_whole());
        lines.push(b"\n \n");
        assert_eq!(all(&mut lines), ["2"]);
        assert!(lines.is_whole());
    }

    #[test]
    fn an_item_is_bounded_before_it_is_whole() {
        let mut lines = Lines::default();
        lines.push(&vec![b'1'; MAX_ITEM_BYTES]);
        assert_eq!(lines.next(), Ok(None));
        lines.push(b"1");
        assert_eq!(lines.next().unwrap_err().code, Code::TooLarge);
        let mut lines = Lines::default();
        lines.push(&[&vec![b'1'; MAX_ITEM_BYTES + 1][..], b"\n"].concat());
        assert_eq!(lines.next().unwrap_err().code, Code::TooLarge);
    }
}
