//! The plugin's processes: started by the host, asked for their processor time, ended with the host.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use tempfile::TempDir;

use crate::measure::own_cpu_ns;
use crate::{Job, PluginJob};

/// What a host started as its plugin: one process, or several. Dropping it ends them.
#[derive(Debug)]
pub struct PluginProcess {
    children: Vec<Controlled>,
    dir: TempDir,
}

impl PluginProcess {
    /// Starts this program once more as the plugin of `job`, and waits until it can be called.
    ///
    /// # Errors
    /// When it cannot be started, or ends before it is ready.
    pub fn start(job: &Job) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let told = PluginJob {
            subject: job.subject.clone(),
            work: job.case.work,
            size: job.case.size,
            dir: dir.path().to_owned(),
            cpu: job.plugin_cpu,
        };
        let mut plugin = Self::none_yet(dir);
        plugin.add("plugin", &[told])?;
        Ok(plugin)
    }

    /// No process yet, and the folder that all will use.
    pub fn none_yet(dir: TempDir) -> Self {
        Self { children: Vec::new(), dir }
    }

    /// Starts this program with `verb`, once for each job and all at once, and waits until each is ready.
    ///
    /// # Errors
    /// When one cannot be started, or ends before it is ready.
    pub fn add<J: Serialize>(&mut self, verb: &str, jobs: &[J]) -> Result<()> {
        let before = self.children.len();
        for job in jobs {
            self.children.push(Controlled::start(verb, &serde_json::to_string(job)?)?);
        }
        for child in &mut self.children[before..] {
            ensure!(child.line()? == "ready", "a process that was started as `{verb}` is not ready");
        }
        Ok(())
    }

    /// The folder that only this host and its processes use.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The processor time that they used up to now, all together.
    ///
    /// # Errors
    /// When one has ended.
    pub fn cpu_ns(&mut self) -> Result<u64> {
        self.children.iter_mut().map(Controlled::cpu_ns).sum()
    }
}

/// A process that answers on its standard output for its processor time.
#[derive(Debug)]
struct Controlled {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Controlled {
    fn start(verb: &str, job: &str) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args([verb, job])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start a process as `{verb}`"))?;
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().context("a child without its pipe")?);
        Ok(Self { child, input, output })
    }

    fn cpu_ns(&mut self) -> Result<u64> {
        let input = self.input.as_mut().context("a child without its pipe")?;
        input.write_all(b"cpu\n").context("the plugin's process ended")?;
        self.line()?.parse().context("the plugin tells no number")
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            bail!("the plugin's process ended: {}", self.child.wait()?);
        }
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Controlled {
    fn drop(&mut self) {
        // The end of its input ends it; who does not read it is ended the other way.
        self.input = None;
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// The plugin's half: says `ready`, and on a thread of its own answers for its processor time, and ends the process with its
/// host. Called once the subject can be called.
///
/// # Errors
/// When nobody listens.
pub fn serve_control() -> Result<()> {
    let mut output = std::io::stdout();
    writeln!(output, "ready")?;
    output.flush()?;
    std::thread::spawn(move || {
        for _ in std::io::stdin().lock().lines().map_while(Result::ok) {
            if writeln!(output, "{}", own_cpu_ns()).and_then(|()| output.flush()).is_err() {
                break;
            }
        }
        std::process::exit(0);
    });
    Ok(())
}
