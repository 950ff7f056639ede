//! cargo-deny at a pinned version, without a network but for its own installation.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::steps::{finished, output, succeed};
use crate::{cargo, edges, no_arguments};

const VERSION: &str = "0.20.2";

pub(crate) fn run(root: &Path, rest: &[String]) -> Result<()> {
    no_arguments(rest)?;
    let program = installed(root)?;
    let host = edges::host(root)?;
    // One platform, so that crates of others need not be on this machine.
    let deny = |checks: &[&str]| {
        let mut command = Command::new(&program);
        command.current_dir(root).args(["--offline", "--locked", "--target", &host, "check"]).args(checks);
        succeed(&mut command)
    };
    deny(&["bans", "licenses", "sources"])?;
    let databases = databases()?;
    if std::fs::read_dir(&databases).is_ok_and(|mut entries| entries.next().is_some()) {
        deny(&["advisories"])?;
        println!("checked: bans, licenses, sources; advisories of {}", databases.display());
    } else {
        println!("checked: bans, licenses, sources; not advisories: no database in {}", databases.display());
    }
    Ok(())
}

/// cargo-deny in `.tools`, installed if it is not there or another version.
fn installed(root: &Path) -> Result<PathBuf> {
    let program = root.join(".tools/bin/cargo-deny");
    if let Ok(found) = finished(Command::new(&program).arg("--version"))
        && String::from_utf8_lossy(&found.stdout).trim() == format!("cargo-deny {VERSION}")
    {
        return Ok(program);
    }
    println!("installing cargo-deny {VERSION} in .tools: once, some minutes");
    let mut install = cargo(root);
    install.args(["install", "--quiet", "--locked", "--force", "--root", ".tools", "--version"]);
    install.arg(format!("={VERSION}")).arg("cargo-deny");
    // Its own temporary target folder, removed afterwards: none of it is of use to the workspace.
    install.env_remove("CARGO_TARGET_DIR");
    succeed(&mut install)?;
    output(Command::new(&program).arg("--version")).context("cargo-deny was installed and does not run")?;
    Ok(program)
}

/// Where cargo-deny keeps advisory databases.
fn databases() -> Result<PathBuf> {
    let home = match std::env::var_os("CARGO_HOME") {
        Some(home) => PathBuf::from(home),
        None => PathBuf::from(std::env::var_os("HOME").context("neither CARGO_HOME nor HOME is set")?).join(".cargo"),
    };
    Ok(home.join("advisory-dbs"))
}
