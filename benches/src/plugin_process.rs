//! The plugin's process: started by the host, asked for its processor time, ended with the host.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::measure::own_cpu_ns;
use crate::{Job, PluginJob};

/// The process that a host started as its plugin. Dropping it ends it.
#[derive(Debug)]
pub struct PluginProcess {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    dir: tempfile::TempDir,
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
        let mut child = Command::new(std::env::current_exe()?)
            .arg("plugin")
            .arg(serde_json::to_string(&told)?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the plugin's process")?;
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().context("a child without its pipe")?);
        let mut plugin = Self { child, input, output, dir };
        ensure!(plugin.line()? == "ready", "the plugin is not ready");
        Ok(plugin)
    }

    /// The folder that only this pair of processes uses.
    pub fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }

    /// The processor time that it used up to now.
    ///
    /// # Errors
    /// When the process ended.
    pub fn cpu_ns(&mut self) -> Result<u64> {
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

impl Drop for PluginProcess {
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
