//! Miri on what takes bytes apart and on the pure half of frame connections, where a nightly toolchain has it.

use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Result, bail};

use crate::no_arguments;
use crate::steps::finished;

/// Packages, and what the names of their tests begin with that need nothing of the system: miri has no Unix sockets.
const TESTS: [(&str, &[&str]); 2] = [
    ("goplug-pconf-schema", &["wire::frame::"]),
    (
        "goplug-transport",
        &[
            "frame::patience::",
            "frame::client::fuzz::",
            "frame::lending::",
            "shm::ring::tests::bytes_",
            "shm::ring::tests::a_ring_",
            "shm::ring::tests::threads_",
            "shm::ring::tests::positions_",
        ],
    ),
];

/// Says `RAN` with the number of tests, or `NOT AVAILABLE` with the reason; fails when miri found something.
pub(crate) fn run(root: &Path, rest: &[String]) -> Result<()> {
    no_arguments(rest)?;
    let version = match finished(miri(root).arg("--version")) {
        Err(error) => {
            println!("NOT AVAILABLE: {error:#}");
            return Ok(());
        }
        Ok(output) if !output.status.success() => {
            println!("NOT AVAILABLE: {}", first_line(&output.stderr));
            return Ok(());
        }
        Ok(output) => first_line(&output.stdout),
    };
    // Builds a standard library of its own, once.
    let setup = finished(miri(root).arg("setup"))?;
    if !setup.status.success() {
        println!("NOT AVAILABLE: {version} has no standard library: {}", first_line(&setup.stderr));
        return Ok(());
    }
    for (package, names) in TESTS {
        let mut test = miri(root);
        test.args(["test", "--locked", "--quiet", "--package", package, "--lib", "--"]).args(names);
        // Names of temporary folders and golden files are read from the system; seeds are fixed.
        let output = finished(test.env("MIRIFLAGS", "-Zmiri-disable-isolation"))?;
        let passed = passed(&output);
        if !output.status.success() || passed == 0 {
            let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            bail!("{package} under {version}: {passed} tests passed, {}\n{out}\n{err}", output.status);
        }
        println!("RAN: {passed} tests of {package} ({}) under {version}", names.join(", "));
    }
    Ok(())
}

/// `cargo miri` of the nightly toolchain.
fn miri(root: &Path) -> Command {
    let mut command = Command::new("rustup");
    command.current_dir(root).args(["run", "nightly", "cargo", "miri"]);
    // What the cargo that runs us says of itself holds for its own toolchain only.
    for name in ["CARGO", "RUSTC", "RUSTDOC", "RUSTFLAGS", "RUSTUP_TOOLCHAIN"] {
        command.env_remove(name);
    }
    command
}

fn passed(output: &Output) -> u64 {
    let text = String::from_utf8_lossy(&output.stdout);
    let count = |line: &str| line.strip_prefix("test result: ok. ")?.split(' ').next()?.parse::<u64>().ok();
    text.lines().filter_map(count).sum()
}

fn first_line(text: &[u8]) -> String {
    String::from_utf8_lossy(text).lines().find(|line| !line.trim().is_empty()).unwrap_or("it says nothing").to_owned()
}
