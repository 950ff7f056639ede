//! The scratch worktree: made once, put back before every mutant, so that builds stay incremental.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::cargo;
use crate::steps::{finished, output, succeed};

/// How often a running test is looked at.
const POLL: Duration = Duration::from_millis(50);

pub(super) struct Scratch {
    tree: PathBuf,
    target: PathBuf,
    log: PathBuf,
    revision: String,
}

/// What a run of tests came to.
pub(super) enum Verdict {
    Passed {
        tests: u64,
    },
    /// A test failed.
    Failed,
    /// The run failed before or beside the tests.
    Broken(String),
}

impl Scratch {
    pub(super) fn make(root: &Path) -> Result<Self> {
        let folder = root.join("target/mutants");
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let revision = revision(root)?;
        let scratch =
            Self { tree: folder.join("tree"), target: folder.join("target"), log: folder.join("log"), revision };
        if !scratch.tree.join(".git").exists() {
            output(git(root).args(["worktree", "prune"]))?;
            let mut add = git(root);
            output(add.args(["worktree", "add", "--detach", "--force"]).arg(&scratch.tree).arg(&scratch.revision))?;
        }
        Ok(scratch)
    }

    /// Every file as it was committed.
    pub(super) fn reset(&self) -> Result<()> {
        output(git(&self.tree).args(["checkout", "--quiet", "--force", "--detach", &self.revision]))?;
        output(git(&self.tree).args(["clean", "--quiet", "-d", "--force"]))?;
        Ok(())
    }

    pub(super) fn apply(&self, patch: &Path) -> Result<()> {
        output(git(&self.tree).args(["apply", "--whitespace=nowarn"]).arg(patch)).context("does not apply")?;
        Ok(())
    }

    /// Compiles what `test` would run.
    pub(super) fn build(&self, test: &[String]) -> Result<()> {
        let of_cargo = test.split(|arg| arg == "--").next().unwrap_or_default();
        succeed(self.cargo_test().args(["--no-run", "--quiet"]).args(of_cargo)).context("does not compile")
    }

    pub(super) fn test(&self, test: &[String], limit: Duration) -> Result<Verdict> {
        let log = File::create(&self.log).with_context(|| format!("cannot write {}", self.log.display()))?;
        let mut command = self.cargo_test();
        command.args(test).stdout(log.try_clone()?).stderr(log).process_group(0);
        let status = wait(command.spawn().context("cannot run cargo test")?, limit)?;
        let log = String::from_utf8_lossy(&std::fs::read(&self.log)?).into_owned();
        Ok(verdict(status, &log, limit))
    }

    fn cargo_test(&self) -> Command {
        let mut command = cargo(&self.tree);
        command.args(["test", "--locked"]).env("CARGO_TARGET_DIR", &self.target).env("CARGO_TERM_COLOR", "never");
        command
    }
}

/// The last commit, together with changes of files that git knows; files that it does not know are named and left out.
fn revision(root: &Path) -> Result<String> {
    let unknown = output(git(root).args(["ls-files", "--others", "--exclude-standard"]))?;
    if !unknown.is_empty() {
        println!("left out, as git does not know them: {}", unknown.split_whitespace().collect::<Vec<_>>().join(", "));
    }
    // Makes a commit of the changes that no branch and no stash refers to; prints nothing if there are none.
    let changes = output(git(root).args(["stash", "create"]))?;
    let revision = if changes.trim().is_empty() { output(git(root).args(["rev-parse", "HEAD"]))? } else { changes };
    Ok(revision.trim().to_owned())
}

fn git(folder: &Path) -> Command {
    let mut command = Command::new("git");
    command.current_dir(folder);
    command
}

/// Waits at most `limit`; then ends the child's whole process group and says so with `None`.
fn wait(mut child: Child, limit: Duration) -> Result<Option<ExitStatus>> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if start.elapsed() > limit {
            finished(Command::new("kill").args(["-KILL", "--", &format!("-{}", child.id())]))?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(POLL);
    }
}

fn verdict(status: Option<ExitStatus>, log: &str, limit: Duration) -> Verdict {
    let results = || log.lines().filter_map(|line| line.trim().strip_prefix("test result: "));
    let passed = results().filter_map(|line| line.strip_prefix("ok. ")?.split(' ').next()?.parse::<u64>().ok());
    match status {
        None => Verdict::Broken(format!("it hangs for more than {} s", limit.as_secs())),
        Some(status) if status.success() => Verdict::Passed { tests: passed.sum() },
        Some(_) if results().any(|line| line.starts_with("FAILED")) => Verdict::Failed,
        Some(status) => {
            let mut last: Vec<_> = log.lines().rev().filter(|line| !line.trim().is_empty()).take(5).collect();
            last.reverse();
            Verdict::Broken(format!("{status}: {}", last.join(" | ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_failed_test_is_red() {
        use std::os::unix::process::ExitStatusExt;
        let (good, bad) = (Some(ExitStatus::from_raw(0)), Some(ExitStatus::from_raw(101 << 8)));
        let of = |status, log: &str| match verdict(status, log, Duration::from_secs(1)) {
            Verdict::Passed { tests } => format!("passed {tests}"),
            Verdict::Failed => "failed".into(),
            Verdict::Broken(why) => why,
        };
        let ok = "test result: ok. 2 passed; 0 failed;\n";
        assert_eq!(of(good, &ok.repeat(2)), "passed 4");
        assert_eq!(of(good, ""), "passed 0");
        assert_eq!(of(bad, "test result: ok. 2 passed;\ntest result: FAILED. 1 passed; 1 failed"), "failed");
        assert!(of(bad, "error: no test target named `x`").contains("no test target"));
        assert!(of(None, ok).contains("hangs"));
    }
}
