//! Every subject in every case: one plugin, called as fast as it answers.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::{Options, Place, REFERENCES, Run, finish};
use crate::placement::Placement;
use crate::report::{Report, Row};
use crate::{Case, Job, Listed, Measured, Work};

impl Run<'_> {
    pub(super) fn calls(&mut self, places: &[Place]) -> Result<()> {
        let (entries, unavailable) = list(self.options)?;
        self.report.notes.extend(unavailable);
        for round in 1..=self.rounds() {
            for (placement, host, plugin) in places {
                for entry in &entries {
                    let job = serde_json::to_string(&job(self.options, entry, *plugin))?;
                    let what = format!("{} {}, {}", entry.subject, entry.case, placement.name());
                    eprint!("round {round}: ");
                    let measured = self.measure((&entry.program, "host"), &job, *host, &what);
                    self.report.add(entry.subject.clone(), entry.case, *placement, measured);
                }
            }
        }
        Ok(())
    }
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
