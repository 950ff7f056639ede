//! One program that fetches or builds: under a `goplug-host`, which ends everything that it started.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use goplug_pconf_schema::wire::host::{Exit, LogLine, Stream};
use goplug_pconf_schema::{Code, Fault, printable};
use tokio::time::{Instant, timeout_at};

use super::plan::Program;
use crate::host::{self, HostSpec, Hosted, OutputLimits, ProcessLimits};
use crate::options::Builder;
use crate::program::Instance;
use crate::started::{Command, forget};

/// What is kept of a line of output.
const LINE_BYTES: usize = 4 * 1024;
/// How many of its last lines a program that failed is quoted with.
const QUOTED_LINES: usize = 20;
/// Open files that a program may have: linkers and package managers open hundreds.
const OPEN_FILES: u64 = 4_096;

/// What a program did.
pub(super) struct Ran {
    pub(super) exit: Exit,
    /// The last lines of both streams, in their order.
    pub(super) lines: Vec<LogLine>,
}

impl Ran {
    pub(super) fn succeeded(&self) -> bool {
        self.exit.code == Some(0)
    }

    /// The first line of standard output.
    pub(super) fn first_line(&self) -> Option<&str> {
        self.lines.iter().find(|line| line.stream == Stream::Stdout).map(|line| line.text.trim())
    }

    /// The last line that says something, to be quoted.
    pub(super) fn last_word(&self) -> String {
        let said = self.lines.iter().rev().map(|line| line.text.trim()).find(|text| !text.is_empty());
        said.map(printable).unwrap_or_default()
    }

    /// The last lines.
    pub(super) fn last_words(&self) -> Vec<String> {
        let from = self.lines.len().saturating_sub(QUOTED_LINES);
        self.lines[from..].iter().map(|line| line.text.clone()).collect()
    }
}

/// A process that is ended, with everything that it started, when whoever waits for it is dropped.
struct Running(Option<Hosted>);

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(hosted) = self.0.take() {
            hosted.end_now();
        }
    }
}

/// Runs a program to its end; whatever it started and left behind is ended with it. `told` gets each line that it writes.
///
/// # Errors
/// `not_found`: there is no such program; `deadline_exceeded`: it did not end in time, and was ended; what the host says.
///
/// # Cancel safety
/// Dropping the future ends the program and everything that it started.
pub(super) fn run<'a>(
    options: &'a Builder,
    program: Program,
    mut told: impl FnMut(&LogLine) + Send + 'a,
) -> Pin<Box<dyn Future<Output = Result<Ran, Fault>> + Send + 'a>> {
    // Boxed: every future of a source holds this one.
    Box::pin(async move {
        let name = program.name.clone();
        let (spec, limit) = spec(options, program)?;
        let host = options.host_program.clone().map_or_else(host::find, Ok)?;
        let hosted = host::launch(&host, &spec).await?;
        let mut running = Running(Some(hosted.clone()));
        let until = Instant::now() + limit;
        let mut lines = Vec::new();
        let ended = timeout_at(until, async {
            let mut follow = hosted.follow(0).await?;
            while let Some(line) = follow.next().await? {
                told(&line);
                if lines.len() >= 2 * QUOTED_LINES {
                    lines.drain(..QUOTED_LINES);
                }
                lines.push(line);
            }
            Ok::<_, Fault>(hosted.exited().await)
        });
        let exit = match ended.await {
            Ok(exit) => exit?,
            Err(_) => {
                drop(running);
                let text = format!("`{}` did not end within {}, and was ended", printable(&name), shown(limit));
                let words: Vec<_> = lines.iter().map(|line: &LogLine| line.text.clone()).collect();
                return Err(Fault::new(Code::DeadlineExceeded, text).with_data(serde_json::json!({ "output": words })));
            }
        };
        running.0 = None;
        forget(&hosted).await;
        let lost = || Fault::new(Code::Unavailable, format!("`{}` was lost with its host", printable(&name)));
        Ok(Ran { exit: exit.ok_or_else(lost)?, lines })
    })
}

fn spec(options: &Builder, program: Program) -> Result<(HostSpec, Duration), Fault> {
    let folder = options.hosts();
    let instance = Instance::new(&format!("source-{}", program.label), &folder);
    let path = found(&program.name, &program.workdir)?;
    let mut spec = HostSpec::new(&instance.name, &path, &instance.socket, &folder);
    spec.args = program.args;
    spec.env = program.env;
    spec.workdir = program.workdir;
    spec.limits = ProcessLimits {
        open_files: Some(OPEN_FILES),
        core_bytes: Some(0),
        file_bytes: program.max_file_bytes,
        ..ProcessLimits::default()
    };
    spec.output = OutputLimits { ring_bytes: program.ring_bytes, line_bytes: LINE_BYTES };
    spec.linger_ms = 0;
    // A command that is killed must not leave a compiler behind.
    spec.starter = Some(std::process::id());
    Ok((spec, program.limit))
}

/// A name is looked for in `PATH`; a path is seen from the folder that the program starts in.
fn found(name: &str, workdir: &Path) -> Result<PathBuf, Fault> {
    if name.contains('/') { Ok(workdir.join(name)) } else { Command::new(name).program() }
}

fn shown(limit: Duration) -> String {
    humantime::format_duration(limit).to_string()
}

/// Variables of this process that are passed on: of each name, what it is called and what it holds.
pub(super) fn passed_on(names: &[&str]) -> BTreeMap<String, String> {
    let text = |name: &&str| Some(((*name).to_owned(), std::env::var(name).ok().filter(|value| !value.is_empty())?));
    names.iter().filter_map(text).collect()
}
