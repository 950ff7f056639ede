//! Who is measured when: in rounds, so that what changes on the machine meanwhile hits all subjects alike.

mod calls;
mod fleet;

use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::{Parser, ValueEnum};
use serde::de::DeserializeOwned;

use crate::placement::{self, Placement};
use crate::report::{Machine, Report};

/// How long one measurement may take, start and all, before its program is ended.
const LONGEST_JOB: Duration = Duration::from_secs(300);
/// What ratios are made to; measured with whatever is asked for.
pub(crate) const REFERENCES: [&str; 5] =
    ["bare-blocking", "bare-polling", "bare-tokio/current-thread", "bare-memcpy", "bare-ring"];

/// Measures calls between two processes, beside bare sockets.
#[derive(Debug, Parser)]
#[command(name = "goplug-bench", version)]
pub struct Options {
    /// Only these parts; all if not given, and with `--only` the calls alone
    #[arg(long, value_delimiter = ',')]
    section: Vec<Section>,
    /// Only subjects and cases with this in `SUBJECT CASE`, as the table writes them; several with `;` or repeated.
    /// References run with them
    #[arg(long, value_delimiter = ';')]
    only: Vec<String>,
    /// Where host and plugin run; all placements if not given
    #[arg(long, value_delimiter = ',')]
    placement: Vec<Placement>,
    /// Rounds; figures are their medians
    #[arg(long, default_value_t = 3)]
    repeats: usize,
    /// Few cases and short measurements: to see that it works, not to cite
    #[arg(long)]
    quick: bool,
    /// How long calls are recorded in each measurement, in milliseconds
    #[arg(long)]
    time_ms: Option<u64>,
    /// Another program with subjects, in the same rounds; may be repeated
    #[arg(long, value_name = "PROGRAM")]
    with: Vec<PathBuf>,
    /// Writes everything that was measured
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Writes `benchmarks.md`, and plots below `benchmarks/`, into this folder
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
    /// The commit that the report names
    #[arg(long, default_value = "unknown")]
    commit: String,
    /// The command that the report names
    #[arg(long, default_value = "goplug-bench")]
    command: String,
}

/// A part of the page, which can be measured alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Section {
    /// One plugin, called as fast as it answers: every subject in every case
    Calls,
    /// Calls at a given rate, to plugins that sleep between them
    Rates,
    /// One registry with up to 10,000 plugins
    Scale,
}

/// Measures, prints the tables, writes the files.
///
/// # Errors
/// What cannot be started or written; measurements that failed, after everything else is told.
pub fn run(options: &Options) -> Result<()> {
    let allowed = placement::allowed()?;
    let mut run = Run {
        report: Report::new(Machine::read(&allowed), options.commit.clone(), options.command.clone(), options.quick),
        failures: BTreeSet::new(),
        allowed,
        options,
    };
    let places = run.places();
    let wanted = |section| match options.section.is_empty() {
        true => options.only.is_empty() || section == Section::Calls,
        false => options.section.contains(&section),
    };
    if wanted(Section::Calls) {
        run.calls(&places)?;
    }
    if wanted(Section::Rates) {
        run.rates(&places)?;
    }
    if wanted(Section::Scale) {
        run.scale(&places)?;
    }
    let Run { report, failures, .. } = run;
    print!("{}", report.tables());
    if let Some(file) = &options.json {
        std::fs::write(file, serde_json::to_vec_pretty(&report)?)
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    if let Some(dir) = &options.report {
        report.write(dir)?;
    }
    ensure!(failures.is_empty(), "failed:\n{}", failures.into_iter().collect::<Vec<_>>().join("\n"));
    Ok(())
}

/// What a run of the driver knows and has found out.
struct Run<'a> {
    options: &'a Options,
    allowed: Vec<usize>,
    report: Report,
    failures: BTreeSet<String>,
}

type Place = (Placement, Option<usize>, Option<usize>);

impl Run<'_> {
    fn rounds(&self) -> usize {
        self.options.repeats.max(1)
    }

    /// Where to measure, with the cpus of host and plugin.
    fn places(&mut self) -> Vec<Place> {
        let all = [Placement::OneCore, Placement::TwoCores, Placement::Unpinned];
        let asked = &self.options.placement;
        let wanted = all.into_iter().filter(|one| asked.is_empty() || asked.contains(one));
        let mut places = Vec::new();
        for placement in wanted {
            match placement.cpus(&self.allowed) {
                Some((host, plugin)) => places.push((placement, host, plugin)),
                None => {
                    let (name, count) = (placement.name(), self.allowed.len());
                    self.report.notes.push(format!("{name}: NOT AVAILABLE, we may use {count} cpu only"));
                }
            }
        }
        places
    }

    /// Runs one measurement in a process of its own; `None` when it failed, which is told at the end as `what`.
    fn measure<T: DeserializeOwned>(
        &mut self,
        (program, verb): (&Path, &str),
        job: &str,
        cpu: Option<usize>,
        what: &str,
    ) -> Option<T> {
        eprintln!("{what}");
        match measure(program, verb, job, cpu, &self.allowed) {
            Ok(measured) => Some(measured),
            Err(error) => {
                eprintln!("  failed: {error:#}");
                self.failures.insert(format!("{what}: {error:#}"));
                None
            }
        }
    }
}

fn measure<T: DeserializeOwned>(
    program: &Path,
    verb: &str,
    job: &str,
    cpu: Option<usize>,
    allowed: &[usize],
) -> Result<T> {
    let mut command = Command::new(program);
    command.args([verb, job]);
    // A process begins where its parent's thread may run, so that no program needs to pin itself.
    if let Some(cpu) = cpu {
        placement::pin(&[cpu])?;
    }
    let said = finish(command);
    placement::pin(allowed)?;
    let said = said?;
    serde_json::from_str(said.trim()).with_context(|| format!("the program said `{}`", said.trim()))
}

/// What the program prints until its end, in time.
fn finish(mut command: Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{program}`"))?;
    let mut output = child.stdout.take().context("a child without its pipe")?;
    let (ended, end) = mpsc::channel();
    // Blocked in a read while the measurement runs: a driver that polls would be part of what is measured.
    let reader = std::thread::spawn(move || {
        let mut said = String::new();
        let result = output.read_to_string(&mut said).map(|_| said);
        _ = ended.send(());
        result
    });
    if end.recv_timeout(LONGEST_JOB).is_err() {
        // Its plugin ends with it, and closes the pipe that the reader waits for.
        _ = child.kill();
        _ = child.wait();
        bail!("`{program}` took longer than {} s", LONGEST_JOB.as_secs());
    }
    let said = reader.join().ok().context("the reader panicked")??;
    let status = child.wait()?;
    ensure!(status.success(), "`{program}` {status}");
    Ok(said)
}
