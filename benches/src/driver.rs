//! Who is measured when: in rounds, so that what changes on the machine meanwhile hits all subjects alike.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;

use crate::placement::{self, Placement};
use crate::report::{Machine, Report, Row};
use crate::{Case, Job, Listed, Measured, Work};

/// How long one measurement may take, start and all, before its program is ended.
const LONGEST_JOB: Duration = Duration::from_secs(120);
/// What ratios are made to; measured with whatever is asked for.
pub(crate) const REFERENCES: [&str; 3] = ["bare-blocking", "bare-polling", "bare-tokio/current-thread"];

/// Measures calls between two processes, beside bare sockets.
#[derive(Debug, Parser)]
#[command(name = "goplug-bench", version)]
pub struct Options {
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

/// Measures, prints the table, writes the files.
///
/// # Errors
/// What cannot be started or written; measurements that failed, after everything else is told.
pub fn run(options: &Options) -> Result<()> {
    let allowed = placement::allowed()?;
    let mut report =
        Report::new(Machine::read(&allowed), options.commit.clone(), options.command.clone(), options.quick);
    let (entries, unavailable) = list(options)?;
    report.notes.extend(unavailable);
    let placements = placements(options, &allowed, &mut report.notes);
    let mut failures = BTreeSet::new();
    for round in 0..options.repeats.max(1) {
        for (placement, host, plugin) in &placements {
            for entry in &entries {
                let job = job(options, entry, *plugin);
                eprintln!("round {}, {}: {} {}", round + 1, placement.name(), entry.subject, entry.case);
                let measured = measure(&entry.program, &job, *host, &allowed);
                if let Err(error) = &measured {
                    eprintln!("  failed: {error:#}");
                    failures.insert(format!("{} {}, {}: {error:#}", entry.subject, entry.case, placement.name()));
                }
                report.add(entry.subject.clone(), entry.case, *placement, measured.ok());
            }
        }
    }
    print!("{}", report.table());
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

/// A subject in one case.
#[derive(Debug)]
struct Entry {
    program: PathBuf,
    subject: String,
    case: Case,
}

fn cases(quick: bool) -> Vec<Case> {
    let case = |work, size, in_flight| Case { work, size, in_flight };
    let mut cases = vec![case(Work::Echo, 64, 1), case(Work::Echo, 64, 64), case(Work::Echo, 1 << 20, 1)];
    if !quick {
        cases.extend([case(Work::Echo, 4096, 1), case(Work::Echo, 4096, 64), case(Work::Echo, 1 << 20, 64)]);
        cases.extend([Work::Echo, Work::Upload, Work::Download].map(|work| case(work, 64 << 20, 1)));
    }
    cases.sort();
    cases
}

/// Everything to measure, by case, and what cannot be.
fn list(options: &Options) -> Result<(Vec<Entry>, Vec<String>)> {
    let cases = cases(options.quick);
    let (mut entries, mut unavailable) = (Vec::new(), Vec::new());
    let programs = std::iter::once(std::env::current_exe()?).chain(options.with.iter().cloned());
    for program in programs {
        let mut command = Command::new(&program);
        command.arg("list").arg(serde_json::to_string(&cases)?);
        for line in finish(command)?.lines() {
            let listed: Listed = serde_json::from_str(line).with_context(|| format!("{}", program.display()))?;
            if let Some(why) = listed.unavailable {
                unavailable.push(format!("{}: NOT AVAILABLE, {why}", listed.name));
            }
            let all = listed.cases.into_iter();
            entries.extend(all.map(|case| Entry { program: program.clone(), subject: listed.name.clone(), case }));
        }
    }
    let asked = |entry: &Entry| {
        let name = format!("{} {}", entry.subject, entry.case);
        options.only.is_empty() || options.only.iter().any(|pattern| name.contains(pattern.as_str()))
    };
    let asked_cases: BTreeSet<Case> = entries.iter().filter(|entry| asked(entry)).map(|entry| entry.case).collect();
    entries.retain(|entry| {
        asked(entry) || REFERENCES.contains(&entry.subject.as_str()) && asked_cases.contains(&entry.case)
    });
    // Stable, so that subjects of a case stay in the order of their programs, side by side in time.
    entries.sort_by_key(|entry| entry.case);
    ensure!(!entries.is_empty(), "nothing to measure: no subject and case has that in its name");
    Ok((entries, unavailable))
}

type Place = (Placement, Option<usize>, Option<usize>);

fn placements(options: &Options, allowed: &[usize], notes: &mut Vec<String>) -> Vec<Place> {
    let all = [Placement::OneCore, Placement::TwoCores, Placement::Unpinned];
    let wanted = all.into_iter().filter(|one| options.placement.is_empty() || options.placement.contains(one));
    let mut places = Vec::new();
    for placement in wanted {
        match placement.cpus(allowed) {
            Some((host, plugin)) => places.push((placement, host, plugin)),
            None => notes.push(format!("{}: NOT AVAILABLE, we may use {} cpu only", placement.name(), allowed.len())),
        }
    }
    places
}

fn job(options: &Options, entry: &Entry, plugin_cpu: Option<usize>) -> Job {
    let time_ms = options.time_ms.unwrap_or(if options.quick { 100 } else { 500 });
    Job {
        subject: entry.subject.clone(),
        case: entry.case,
        warm_up_ms: time_ms / 10,
        time_ms,
        min_calls: if options.quick { 3 } else { 8 },
        plugin_cpu,
    }
}

/// Runs one measurement in a process of its own.
fn measure(program: &Path, job: &Job, cpu: Option<usize>, allowed: &[usize]) -> Result<Measured> {
    let mut command = Command::new(program);
    command.arg("host").arg(serde_json::to_string(job)?);
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

impl Report {
    fn add(&mut self, subject: String, case: Case, placement: Placement, measured: Option<Measured>) {
        let same = |row: &&mut Row| row.subject == subject && row.case == case && row.placement == placement;
        if let Some(row) = self.rows.iter_mut().find(same) {
            row.runs.push(measured);
        } else {
            self.rows.push(Row { subject, case, placement, runs: vec![measured] });
        }
    }
}
