//! Runs the benches in a build of the profile `dist`, and writes `docs/benchmarks.md` with its plots.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::cargo;
use crate::steps::{output, succeed};

/// The package that is measured with the rest when it is built, and that no other build sees.
const PEERS: &str = "benches-peers";

/// `--peers` builds the other workspace and measures its programs in the same rounds; everything else goes to the harness,
/// whose `--help` says what there is.
pub(crate) fn run(root: &Path, rest: &[String]) -> Result<()> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let target = root.join(target);
    succeed(cargo(root).args(["build", "--profile", "dist", "--locked", "--package", "goplug-benches"]))?;
    let mut bench = Command::new(target.join("dist/goplug-bench"));
    bench.current_dir(root).arg("--report").arg("docs").arg("--commit").arg(commit(root));
    bench.arg("--command").arg(format!("cargo xtask bench {}", quoted(rest)).trim_end());
    let (peers, passed): (Vec<_>, Vec<_>) = rest.iter().partition(|argument| *argument == "--peers");
    if !peers.is_empty() {
        for program in build_peers(root, &target.join("peers"))? {
            bench.arg("--with").arg(program);
        }
    }
    succeed(bench.args(passed))
}

/// Builds every program with subjects of others, and says where they are.
fn build_peers(root: &Path, target: &Path) -> Result<Vec<PathBuf>> {
    let folder = root.join(PEERS);
    // A target folder of its own: two workspaces in one would replace each other's builds.
    succeed(cargo(&folder).args(["build", "--release", "--locked"]).env("CARGO_TARGET_DIR", target))?;
    let mut programs = vec![target.join("release/goplug-bench-peers")];
    // A shell script: it builds the Go programs where there is Go, and says what is missing where there is none.
    programs.push(folder.join("go/run"));
    Ok(programs)
}

/// The commit that is measured, and whether it is what was committed.
fn commit(root: &Path) -> String {
    let git = |args: &[&str]| output(Command::new("git").current_dir(root).args(args)).context("git");
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]).is_ok_and(|text| !text.trim().is_empty());
    match git(&["rev-parse", "--short=12", "HEAD"]) {
        Ok(commit) if changed => format!("{}, with changes", commit.trim()),
        Ok(commit) => commit.trim().to_owned(),
        Err(_) => "unknown".into(),
    }
}

fn quoted(args: &[String]) -> String {
    let one = |arg: &String| if arg.contains([' ', ';']) { format!("'{arg}'") } else { arg.clone() };
    args.iter().map(one).collect::<Vec<_>>().join(" ")
}
