//! `deep`: the behaviour tests at full size with their figures asserted, and in the end everything that they measured.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::Stdio;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::cargo;

/// How long the rest of what the tests say is waited for when they have ended: whatever they left behind may hold it open.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// What begins a line that belongs in the list.
const LISTED: [&str; 3] = ["figure: ", "seed: ", "SKIPPED"];

/// Runs the tests whose names hold one of `filters`, or all, one after another. Fails as they do.
pub(crate) fn run(root: &Path, filters: &[String]) -> Result<()> {
    if let Some(option) = filters.iter().find(|filter| filter.starts_with('-')) {
        bail!("unknown option `{option}`: `deep` takes parts of names of tests");
    }
    let mut tests = cargo(root);
    tests.args(["test", "--locked", "-p", "goplug-tests", "--test", "it", "--", "--test-threads=1", "--nocapture"]);
    // `GOPLUG_TESTS=fast` would leave out what this is for.
    tests.args(filters).env("GOPLUG_DEEP", "1").env_remove("GOPLUG_TESTS").stderr(Stdio::piped());
    let mut tests = tests.spawn().context("cannot run cargo test")?;
    let errors = tests.stderr.take().context("cargo test has no standard error")?;
    let (list, (end, ended)) = (Arc::new(Mutex::new(Vec::new())), channel());
    let listed = Arc::clone(&list);
    std::thread::spawn(move || pass_on(errors, &listed, end));
    let status = tests.wait().context("cannot wait for cargo test")?;
    _ = ended.recv_timeout(LAST_WORDS);
    let list = list.lock().unwrap_or_else(PoisonError::into_inner);
    println!("\n== what was measured");
    list.iter().for_each(|line| println!("{line}"));
    let [figures, seeds, skipped] = LISTED.map(|start| list.iter().filter(|line| line.starts_with(start)).count());
    println!("== {figures} figures, {seeds} seeds, {skipped} SKIPPED");
    if !status.success() {
        bail!("the tests failed: {status}");
    }
    Ok(())
}

/// Passes on what the tests say while they run, and keeps the lines of the list. The end is told by dropping `_end`.
fn pass_on(errors: impl Read, list: &Mutex<Vec<String>>, _end: Sender<()>) {
    let mut errors = BufReader::new(errors);
    let mut line = Vec::new();
    while errors.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
        _ = std::io::stderr().write_all(&line);
        let text = String::from_utf8_lossy(&line);
        if LISTED.iter().any(|start| text.starts_with(start)) {
            list.lock().unwrap_or_else(PoisonError::into_inner).push(text.trim_end().to_owned());
        }
        line.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_seeds_and_what_was_skipped_are_listed() {
        let (list, (end, ended)) = (Mutex::new(Vec::new()), channel());
        let said =
            b"   Compiling a\nfigure: a 1 (goal 2)\nbad \xff figure: no\nseed: b GOPLUG_SEED=7\nSKIPPED (1): c: d";
        pass_on(&said[..], &list, end);
        let list = list.into_inner().unwrap();
        assert_eq!(list, ["figure: a 1 (goal 2)", "seed: b GOPLUG_SEED=7", "SKIPPED (1): c: d"]);
        assert!(ended.recv().is_err(), "the end is told");
    }

    #[test]
    fn options_are_refused() {
        let refused = run(Path::new("/"), &["v0::".into(), "--ignored".into()]).unwrap_err();
        assert!(refused.to_string().contains("`--ignored`"), "{refused}");
    }
}
