//! A program that can be measured: `list`, `host JSON`, and for itself `plugin JSON`.

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::{Case, Job, Measured, PluginJob, Work, placement};

/// Something that can be called and measured.
pub trait Subject {
    /// Its name in tables and on the command line.
    fn name(&self) -> String;

    /// Whether that case makes sense for it.
    fn takes(&self, case: &Case) -> bool;

    /// Runs in the host's process: starts the plugin, if there is one, calls and measures.
    ///
    /// # Errors
    /// Whatever went wrong; the measurement is then missing.
    fn host(&self, job: &Job) -> Result<Measured>;

    /// Runs in the plugin's process: calls [`crate::serve_control`] once it can be called, and serves for ever.
    ///
    /// # Errors
    /// Whatever went wrong.
    fn plugin(&self, dir: &Path, work: Work, size: usize) -> Result<()>;
}

/// A line of what `list` prints.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Listed {
    /// The subject.
    pub name: String,
    /// The cases that it takes, of those that it was asked about.
    #[serde(default)]
    pub cases: Vec<Case>,
    /// Why it cannot be measured on this machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unavailable: Option<String>,
}

/// Whether these arguments are meant for [`program`].
pub fn is_program_call(args: &[String]) -> bool {
    args.first().is_some_and(|verb| matches!(verb.as_str(), "list" | "host" | "plugin"))
}

/// Does what the arguments say, with one of `subjects`: `list [CASES]` prints a [`Listed`] on each line, `host JOB` measures and
/// prints one [`Measured`].
///
/// # Errors
/// Whatever the subject says; arguments that are none.
pub fn program(subjects: &[Box<dyn Subject>], args: &[String]) -> Result<()> {
    let [verb, json] = args else { bail!("use `list CASES` or `host JOB`, each with JSON; `goplug-bench` does so") };
    let find = |name: &str| {
        let found = subjects.iter().find(|subject| subject.name() == name);
        found.with_context(|| format!("there is no subject `{name}`"))
    };
    match verb.as_str() {
        "list" => {
            let cases: Vec<Case> = serde_json::from_str(json).context("no list of cases")?;
            for subject in subjects {
                let cases = cases.iter().copied().filter(|case| subject.takes(case)).collect();
                let listed = Listed { name: subject.name(), cases, unavailable: None };
                println!("{}", serde_json::to_string(&listed)?);
            }
        }
        "host" => {
            let job: Job = serde_json::from_str(json).context("no job")?;
            let measured = find(&job.subject)?.host(&job)?;
            println!("{}", serde_json::to_string(&measured)?);
        }
        "plugin" => {
            let job: PluginJob = serde_json::from_str(json).context("no plugin's job")?;
            if let Some(cpu) = job.cpu {
                placement::pin(&[cpu])?;
            }
            find(&job.subject)?.plugin(&job.dir, job.work, job.size)?;
        }
        verb => bail!("unknown verb `{verb}`"),
    }
    Ok(())
}
