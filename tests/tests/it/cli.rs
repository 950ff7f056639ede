//! The command line: every verb once on a daemon and once on a directory (`--dir`), with the same plugins in the same
//! state behind both, as real processes.
//!
//! [`Transcript`] is the whole method: it runs one command line on both targets, masks what differs between two runs
//! ([`masks`]), requires stdout, stderr and exit code to be equal, and writes them down for a snapshot. Where the targets
//! cannot give the same answer, [`Transcript::differs`] writes both down with the reason.

mod bench;
mod calls;
mod failures;
mod hostile;
mod life;
mod masks;
mod notifications;
mod own;
mod packages;
mod process;
mod seeing;
mod sources;
mod supervised;
mod transcript;
mod trust;
pub(crate) mod versions;

use std::collections::BTreeSet;
use std::path::Path;

use goplug_tests::{PluginDir, Process};
use transcript::Transcript;

use crate::support::{example_plugin, fixture, goplugctl, v0_plugin};

/// The scenarios below require equality; this one, that no verb is without one.
#[test]
fn every_verb_gives_the_same_answer_on_both_targets() {
    let shown = goplugctl(&["--help"]).out;
    let lines = shown.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    // A line that goes on with the one before is set in deeper.
    let verbs = lines.filter_map(|line| line.strip_prefix("  ").filter(|rest| !rest.starts_with(' ')));
    let mut verbs: BTreeSet<String> = verbs.filter_map(|line| line.split(' ').next()).map(str::to_owned).collect();
    assert!(verbs.len() > 20, "verbs of {shown}");
    // Brings its own directory and plugins: `demo::*`.
    verbs.remove("demo");
    let snapshots = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/cli/snapshots");
    let files = std::fs::read_dir(snapshots).unwrap().flatten().map(|file| file.path());
    let texts: Vec<_> = files.filter(|file| file.extension().is_some_and(|end| end == "snap")).collect();
    let texts: Vec<_> = texts.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
    let has = |verb: &str| texts.iter().any(|text| text.lines().any(|line| is_run_of(line, verb)));
    let without: Vec<_> = verbs.iter().filter(|verb| !has(verb)).collect();
    assert!(without.is_empty(), "verbs without a scenario: {without:?}");
}

fn is_run_of(line: &str, verb: &str) -> bool {
    line.strip_prefix("$ goplugctl ").is_some_and(|words| words.split(' ').next() == Some(verb))
}

/// One of each: v1 plugins that can be called, a lazy one, a v0 one, a file that nobody stands behind, a broken file.
fn one_of_each(dir: &PluginDir) -> Vec<Process> {
    dir.publish("Other", "Do", "dead.sock");
    broken_file(dir);
    vec![
        example_plugin(dir, "do_plugin", "TestDo.pconf"),
        example_plugin(dir, "typed", "Exampletyped.pconf"),
        example_plugin(dir, "notifier", "Exampleteller.pconf"),
        example_plugin(dir, "lazy", "Examplelazy.pconf"),
        v0_plugin(dir, "Old", "Plugin", &[]),
    ]
}

/// A plugin that does what it is told.
fn the_fixture(dir: &PluginDir) -> Vec<Process> {
    vec![fixture(dir, &["--output", "up", "--stopper", "down", "Test/Do"])]
}

/// A file whose second line cannot be read. It is old: a fresh one may be half written.
fn broken_file(dir: &PluginDir) {
    let path = dir.write("broken.pconf", "{ \"Name\": \"Broken\",\n  \"Sock\" \"broken.sock\" }\n");
    let yesterday = std::time::SystemTime::now() - std::time::Duration::from_secs(86_400);
    std::fs::File::options().write(true).open(path).unwrap().set_modified(yesterday).unwrap();
}
