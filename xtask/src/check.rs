//! `check`, for every commit, and `ci`, for every change.

use std::path::Path;

use anyhow::Result;

use crate::steps::{Steps, succeed};
use crate::{callgrind, cargo, deny, edges, mutants, no_arguments, schemas, tree};

/// Format, lints, and the tests without the long ones.
pub(crate) fn check(root: &Path, rest: &[String]) -> Result<()> {
    no_arguments(rest)?;
    let mut steps = Steps::default();
    format_and_lints(root, &mut steps);
    steps.step("mutants", || mutants::run(root, &["--check".into()]));
    steps.step("test", || {
        succeed(cargo(root).args(["test", "--workspace", "--locked", "--quiet"]).env("GOPLUG_TESTS", "fast"))
    });
    steps.end()
}

/// Everything but the tests.
pub(crate) fn ci(root: &Path, rest: &[String]) -> Result<()> {
    no_arguments(rest)?;
    let mut steps = Steps::default();
    format_and_lints(root, &mut steps);
    steps.step("docs", || {
        let mut doc = cargo(root);
        succeed(doc.args(["doc", "--workspace", "--no-deps", "--locked", "--quiet"]).env("RUSTDOCFLAGS", "-D warnings"))
    });
    steps.step("edges", || edges::run(root, &[]));
    steps.step("tree", || tree::run(root));
    steps.step("schemas", || schemas::run(root, &["--check".into()]));
    steps.step("mutants", || mutants::run(root, &["--check".into()]));
    steps.step("deny", || deny::run(root, &[]));
    steps.step("callgrind", || callgrind::run(root, &[]));
    steps.end()
}

fn format_and_lints(root: &Path, steps: &mut Steps) {
    steps.step("format", || succeed(cargo(root).args(["fmt", "--all", "--", "--check"])));
    steps.step("lints", || {
        let mut clippy = cargo(root);
        succeed(clippy.args(["clippy", "--workspace", "--all-targets", "--locked", "--quiet", "--", "-D", "warnings"]))
    });
}
