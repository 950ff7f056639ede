//! A mutant as a file: which test must fail, what is broken, and the change.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

pub(super) struct Patch {
    /// The file's name without `.patch`.
    pub(super) name: String,
    pub(super) path: PathBuf,
    /// Arguments of `cargo test`.
    pub(super) test: Vec<String>,
    /// One line for people.
    pub(super) breaks: String,
}

impl Patch {
    pub(super) fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let (test, breaks) = head(&text).with_context(|| format!("in {}", path.display()))?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self { name, path: path.to_path_buf(), test, breaks })
    }
}

fn head(text: &str) -> Result<(Vec<String>, String)> {
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default();
    let test = first.strip_prefix("# test:").context("the first line is not `# test: <arguments of cargo test>`")?;
    let test: Vec<String> = test.split_whitespace().map(str::to_owned).collect();
    if test.is_empty() {
        bail!("the first line names no test");
    }
    let breaks: Vec<_> = lines.map_while(|line| line.strip_prefix('#')).map(str::trim).collect();
    if breaks.is_empty() {
        bail!("no further line with `#` says what the patch breaks");
    }
    Ok((test, breaks.join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_names_the_test_and_what_is_broken() {
        let (test, breaks) = head("# test: -p a --lib x::y\n# loses\n# a message\ndiff --git a b\n# no\n").unwrap();
        assert_eq!(test, ["-p", "a", "--lib", "x::y"]);
        assert_eq!(breaks, "loses a message");
        for text in ["", "diff", "# test:\n# x", "# test: -p a\ndiff"] {
            assert!(head(text).is_err(), "{text}");
        }
    }
}
