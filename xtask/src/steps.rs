//! A list of checks that all run, each with its time, whatever became of the one before.

use std::process::{Command, Output};
use std::time::Instant;

use anyhow::{Context, Result, bail};

/// Runs steps and remembers which failed.
#[derive(Default)]
pub(crate) struct Steps {
    failed: Vec<&'static str>,
}

impl Steps {
    /// Runs one step, printing its name, what it says, and its time.
    pub(crate) fn step(&mut self, name: &'static str, act: impl FnOnce() -> Result<()>) {
        println!("== {name}");
        let start = Instant::now();
        let result = act();
        let seconds = start.elapsed().as_secs_f64();
        match result {
            Ok(()) => println!("== {name}: ok ({seconds:.1} s)"),
            Err(error) => {
                println!("{error:#}");
                println!("== {name}: FAILED ({seconds:.1} s)");
                self.failed.push(name);
            }
        }
    }

    /// Fails if a step did.
    pub(crate) fn end(self) -> Result<()> {
        if self.failed.is_empty() {
            return Ok(());
        }
        bail!("failed: {}", self.failed.join(", "))
    }
}

/// Runs `command` with our own output, and requires success.
pub(crate) fn succeed(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run {command:?}"))?;
    if status.success() {
        return Ok(());
    }
    bail!("{} {status}", shown(command))
}

/// Runs `command`, requires success, and takes what it printed.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = finished(command)?;
    if output.status.success() {
        return String::from_utf8(output.stdout).with_context(|| format!("{} printed no UTF-8", shown(command)));
    }
    bail!("{} {}: {}", shown(command), output.status, String::from_utf8_lossy(&output.stderr).trim())
}

/// Runs `command` to its end, however it ends.
pub(crate) fn finished(command: &mut Command) -> Result<Output> {
    command.output().with_context(|| format!("cannot run {command:?}"))
}

fn shown(command: &Command) -> String {
    let args: Vec<_> = command.get_args().map(|arg| arg.to_string_lossy()).collect();
    format!("`{} {}`", command.get_program().to_string_lossy(), args.join(" "))
}
