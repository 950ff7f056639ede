//! What a commit holds, as `git ls-tree -r -l` lists it, and whether that can be installed. Pure.

use goplug_pconf_schema::{Code, Fault, printable};

/// The most files of one commit, and the most bytes: as of a folder that is installed.
const MAX_FILES: u64 = 20_000;
const MAX_BYTES: u64 = 2 << 30;
/// The most refused names that are told.
const MAX_TOLD: usize = 20;

/// What was listed so far.
#[derive(Debug, Default)]
pub(super) struct Listing {
    files: u64,
    bytes: u64,
    last: u64,
    /// Lines were lost, or make no sense.
    is_broken: bool,
    refused: Vec<String>,
}

impl Listing {
    /// Takes the line of that number, `MODE TYPE ID SIZE<TAB>PATH`.
    pub(super) fn add(&mut self, number: u64, line: &str) {
        self.is_broken |= number != self.last + 1;
        self.last = number;
        let Some((fields, path)) = line.split_once('\t') else {
            self.is_broken = true;
            return;
        };
        let mut fields = fields.split_ascii_whitespace();
        let (mode, size) = (fields.next().unwrap_or_default(), fields.nth(2).unwrap_or_default());
        self.files += 1;
        self.bytes = self.bytes.saturating_add(size.parse().unwrap_or_default());
        let kind = match mode {
            "100644" | "100755" | "100664" => return,
            "120000" => "symbolic link",
            "160000" => "submodule",
            _ => "special file",
        };
        if self.refused.len() < MAX_TOLD {
            self.refused.push(format!("{} is a {kind}", printable(path)));
        }
    }

    /// Whether all of it can be installed.
    ///
    /// # Errors
    /// `invalid_argument` with what is no file; `too_large`.
    pub(super) fn check(&self) -> Result<(), Fault> {
        if self.is_broken {
            return Err(Fault::new(Code::TooLarge, "it holds more than can be looked at"));
        }
        if self.files > MAX_FILES {
            return Err(Fault::new(Code::TooLarge, format!("it holds more than {MAX_FILES} files")));
        }
        if self.bytes > MAX_BYTES {
            return Err(Fault::new(Code::TooLarge, format!("it holds more than {MAX_BYTES} bytes")));
        }
        if self.refused.is_empty() {
            return Ok(());
        }
        let text = format!("only files and folders can be installed, and {}", self.refused.join(", "));
        Err(Fault::new(Code::InvalidArgument, text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(lines: &[(u64, &str)]) -> Result<(), Fault> {
        let mut listing = Listing::default();
        lines.iter().for_each(|(number, line)| listing.add(*number, line));
        listing.check()
    }

    #[test]
    fn files_are_counted_and_everything_else_is_refused() {
        listed(&[(1, "100644 blob 45b9       3\ta"), (2, "100755 blob 587b       2\td/b c")]).unwrap();
        for (lines, code, words) in [
            (&[(1, "120000 blob 2e65       1\tl")][..], Code::InvalidArgument, "l is a symbolic link"),
            (&[(1, "160000 commit 2e65       -\tsub")], Code::InvalidArgument, "sub is a submodule"),
            (&[(1, "100644 blob 2e65 2147483649\tbig")], Code::TooLarge, "more than 2147483648 bytes"),
            (&[(1, "100644 blob 2e65 1\ta"), (3, "100644 blob 2e65 1\tb")], Code::TooLarge, "can be looked at"),
            (&[(1, "nonsense")], Code::TooLarge, "can be looked at"),
        ] {
            let refused = listed(lines).unwrap_err();
            assert!(refused.code == code && refused.message.contains(words), "{refused}");
        }
        let many: Vec<_> = (1..=MAX_FILES + 1).map(|number| (number, "100644 blob 2e65 1\ta")).collect();
        assert_eq!(listed(&many).unwrap_err().code, Code::TooLarge);
    }
}
