//! Tests of the tests: each `tests/mutants/*.patch` breaks something on purpose, and the test that it names must fail.
//!
//! A patch begins with `# test: <arguments of cargo test>`; further lines with `#` say what it breaks. It is applied to
//! a scratch worktree of the last commit (and of changes to files that git knows), under `target/mutants`.

mod patch;
mod scratch;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use patch::Patch;
use scratch::{Scratch, Verdict};

/// A test that runs longer than this hangs, which is no way to fail.
const TEST_LIMIT: Duration = Duration::from_secs(600);

pub(crate) fn run(root: &Path, rest: &[String]) -> Result<()> {
    let only = match rest {
        [] => None,
        [flag] if flag == "--check" => return check(root),
        [flag, name] if flag == "--only" => Some(name.trim_end_matches(".patch")),
        _ => bail!("unknown arguments {rest:?}: expected none, `--check` or `--only NAME`"),
    };
    let patches = patches(&root.join("tests/mutants"), only)?;
    let scratch = Scratch::make(root)?;
    let start = Instant::now();
    let mut healthy = BTreeMap::new();
    let mut escaped = Vec::new();
    for patch in &patches {
        let started = Instant::now();
        let result = one(&scratch, patch, &mut healthy);
        let seconds = started.elapsed().as_secs_f64();
        match result {
            Ok(()) => println!("caught   {} ({seconds:.1} s): {}", patch.name, patch.breaks),
            Err(error) => {
                println!("NOT CAUGHT {} ({seconds:.1} s): {error:#}", patch.name);
                escaped.push(patch.name.clone());
            }
        }
    }
    println!("caught {}/{} ({:.1} s)", patches.len() - escaped.len(), patches.len(), start.elapsed().as_secs_f64());
    if !escaped.is_empty() {
        bail!("not caught: {}", escaped.join(", "));
    }
    Ok(())
}

/// Whether every patch still changes what it was made for; without this they would rot between two whole runs.
fn check(root: &Path) -> Result<()> {
    let patches = patches(&root.join("tests/mutants"), None)?;
    let mut stale = Vec::new();
    for patch in &patches {
        let mut git = Command::new("git");
        let checked = git.current_dir(root).args(["apply", "--check"]).arg(&patch.path).output();
        if !checked.context("cannot run git")?.status.success() {
            stale.push(patch.name.clone());
        }
    }
    if !stale.is_empty() {
        bail!("these patches do not apply any more, make them anew: {}", stale.join(", "));
    }
    println!("{} patches apply", patches.len());
    Ok(())
}

fn patches(folder: &Path, only: Option<&str>) -> Result<Vec<Patch>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut paths: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "patch"));
    paths.sort();
    let mut patches = paths.iter().map(|path| Patch::read(path)).collect::<Result<Vec<_>>>()?;
    patches.retain(|patch| only.is_none_or(|only| patch.name == only));
    if patches.is_empty() {
        bail!("no patch{} in {}", only.map(|only| format!(" `{only}`")).unwrap_or_default(), folder.display());
    }
    Ok(patches)
}

/// Fails if the mutant is not caught, for whatever reason.
fn one(scratch: &Scratch, patch: &Patch, healthy: &mut BTreeMap<Vec<String>, Option<String>>) -> Result<()> {
    scratch.reset()?;
    if !healthy.contains_key(&patch.test) {
        healthy.insert(patch.test.clone(), sickness(scratch.test(&patch.test, TEST_LIMIT)?));
    }
    if let Some(why) = &healthy[&patch.test] {
        bail!("without the patch `cargo test {}` {why}", patch.test.join(" "));
    }
    scratch.apply(&patch.path)?;
    scratch.build(&patch.test)?;
    match scratch.test(&patch.test, TEST_LIMIT)? {
        Verdict::Failed => Ok(()),
        Verdict::Passed { tests } => bail!("SURVIVED: {tests} tests pass with it"),
        Verdict::Broken(why) => bail!("no test failed, but the run did: {why}"),
    }
}

/// Why a test is of no use here: one that fails anyway, or that does not exist, catches nothing.
fn sickness(without_patch: Verdict) -> Option<String> {
    match without_patch {
        Verdict::Passed { tests: 0 } => Some("runs no test".into()),
        Verdict::Passed { .. } => None,
        Verdict::Failed => Some("fails".into()),
        Verdict::Broken(why) => Some(format!("cannot be run: {why}")),
    }
}
