//! What can be asked of the processes of installed plugins: start, stop, output.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use goplug_pconf_schema::admin::{LogEntry, ProcessChange};
use goplug_pconf_schema::manifest::SourceMode;
use goplug_pconf_schema::wire::host::is_instance;
use goplug_pconf_schema::{Code, Fault, PluginId, printable};

use crate::desired;
use crate::host::{Follow, Hosted, LogLine};
use crate::program::{Command, Program};
use crate::registry::{Known, Registry, Unload};

/// Lines of output of a plugin, as they come; across restarts of its process. Made by [`Registry::logs`].
#[derive(Debug)]
pub struct Logs {
    program: Arc<Program>,
    follow: bool,
    after: Option<LogPosition>,
    current: Option<(Hosted, Follow)>,
}

/// Where a reader of [`Logs`] is, as text `INSTANCE:NUMBER`: what it has read of which process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogPosition {
    /// The process, by the name of its record.
    pub instance: String,
    /// The number of the line.
    pub number: u64,
}

impl Registry {
    /// Starts the process of an installed plugin, and everything that it requires before it; loads it unless it is lazy.
    /// Nothing happens when it runs.
    ///
    /// # Errors
    /// `wrong_state` for a plugin that is disabled or has no manifest; `conflict` when a process of it runs that started
    /// itself, or another registry keeps the processes of this directory; else why it did not come up.
    ///
    /// # Cancel safety
    /// Dropping the future does not stop the start.
    pub async fn start_plugin(&self, plugin: &str) -> Result<PluginId, Fault> {
        let program = self.installed_program(plugin).await?;
        program.ask(Command::Start).await?;
        self.load_unless_lazy(&program).await?;
        Ok(program.id.clone())
    }

    /// Stops a plugin's process: its calls finish, at most for the registry's drain, its stopper runs, it gets a SIGTERM,
    /// 5 s later everything that is left of it is killed. It is not started again until asked. One that started itself is
    /// told to stop.
    ///
    /// # Errors
    /// `not_found`; `conflict` when another registry keeps its process; `unavailable` when a process of it may run whose host does not answer; `deadline_exceeded` when something of it cannot be killed; `wrong_state` when one that started itself is
    /// not loaded.
    ///
    /// # Cancel safety
    /// Dropping the future does not stop the stop.
    pub async fn stop_plugin(&self, plugin: &str) -> Result<PluginId, Fault> {
        let program = self.program(plugin).await;
        if let Some(program) = &program {
            self.keeps(&program.id).await?;
            self.none_is_hidden(&program.id).await?;
        }
        match program {
            Some(program) if !self.started_itself(&program) => {
                program.ask(Command::Stop).await?;
                Ok(program.id.clone())
            }
            _ => Ok(self.unload(plugin, Unload { stop: true, ..Unload::default() }).await?.plugin),
        }
    }

    /// Stops the process of an installed plugin and starts another.
    ///
    /// # Errors
    /// As [`Registry::start_plugin`].
    ///
    /// # Cancel safety
    /// Dropping the future does not stop the restart.
    pub async fn restart_plugin(&self, plugin: &str) -> Result<PluginId, Fault> {
        let program = self.installed_program(plugin).await?;
        let was_loaded = self.inner.slot(&program.id).is_some_and(|slot| slot.live().is_some());
        program.ask(Command::Restart).await?;
        if was_loaded {
            self.load_running(&program.id).await?;
        } else {
            self.load_unless_lazy(&program).await?;
        }
        Ok(program.id.clone())
    }

    /// Lets an installed plugin run again; it is started if it would be by itself. Kept on disk.
    ///
    /// # Errors
    /// `wrong_state` for a plugin without a manifest; `conflict` when another registry keeps its process; `internal` when it
    /// cannot be written down.
    pub async fn enable(&self, plugin: &str) -> Result<PluginId, Fault> {
        let program = self.installed_program(plugin).await?;
        self.keeps(&program.id).await?;
        self.want(&program.id, false).await?;
        program.ask(Command::Enable).await?;
        Ok(program.id.clone())
    }

    /// Stops an installed plugin and keeps it from running until it is enabled. Kept on disk.
    ///
    /// # Errors
    /// As [`Registry::enable`] and [`Registry::stop_plugin`].
    pub async fn disable(&self, plugin: &str) -> Result<PluginId, Fault> {
        let program = self.installed_program(plugin).await?;
        self.keeps(&program.id).await?;
        self.none_is_hidden(&program.id).await?;
        self.want(&program.id, true).await?;
        program.ask(Command::Disable).await?;
        Ok(program.id.clone())
    }

    /// What an installed plugin wrote to standard output and standard error, as far as it is kept (64 KiB each); with
    /// `follow` also what it is going to write, and the processes after it.
    ///
    /// # Errors
    /// `wrong_state` for a plugin without a manifest: where its output goes is up to whoever started it.
    pub async fn logs(&self, plugin: &str, follow: bool) -> Result<Logs, Fault> {
        Ok(Logs { program: self.installed_program(plugin).await?, follow, after: None, current: None })
    }

    /// Where a plugin's process is in its life now, for whoever has just changed it.
    pub fn process(&self, plugin: &PluginId) -> ProcessChange {
        let program = self.inner.programs.get(plugin);
        let state = self.inner.kept_state(plugin).or_else(|| self.inner.state_of(plugin));
        let pid = program.and_then(|program| program.pid());
        let live = || self.inner.slot(plugin)?.live().map(|live| live.peer.pid());
        ProcessChange { plugin: plugin.clone(), state, pid: pid.or_else(live) }
    }

    /// The keeper of a plugin's process, if it is installed and can be run.
    pub(crate) async fn program(&self, plugin: &str) -> Option<Arc<Program>> {
        if !self.auto_discover() {
            self.inner.rescan().await.ok()?;
        }
        let id = match self.inner.find(plugin).ok()? {
            Known::Slot(slot) => slot.id.clone(),
            Known::Installed(plugin) => plugin.id,
        };
        self.inner.programs.get(&id)
    }

    /// The keeper of a plugin's process, if that is there to hold a shared object.
    pub(crate) fn shared_object(&self, id: &PluginId) -> Option<Arc<Program>> {
        let plugin = self.inner.finder().installed_as(id)?;
        (plugin.found.manifest.source.mode == SourceMode::LocalSo).then(|| self.inner.programs.get(id))?
    }

    async fn installed_program(&self, plugin: &str) -> Result<Arc<Program>, Fault> {
        if let Some(program) = self.program(plugin).await {
            return Ok(program);
        }
        let found = self.inner.find(plugin).map_err(|fault| self.inner.finder().refusal(plugin).unwrap_or(fault))?;
        let text = match found {
            Known::Slot(slot) => format!("plugin `{}` has no manifest: it is started by others", slot.id),
            Known::Installed(plugin) => {
                let why = plugin.found.manifest.not_runnable().unwrap_or_else(|| "it cannot be run".to_owned());
                format!("plugin `{}`: {why}", plugin.id)
            }
        };
        Err(Fault::new(Code::WrongState, text))
    }

    fn started_itself(&self, program: &Program) -> bool {
        !self.inner.programs.runs(&program.id) && self.inner.slot(&program.id).is_some_and(|slot| slot.live().is_some())
    }

    async fn load_unless_lazy(&self, program: &Program) -> Result<(), Fault> {
        match self.inner.slot(&program.id) {
            Some(slot) if !slot.view().found.pconf.lazy_load => self.load_running(&program.id).await,
            _ => Ok(()),
        }
    }

    async fn load_running(&self, id: &PluginId) -> Result<(), Fault> {
        let Some(slot) = self.inner.slot(id) else { return Ok(()) };
        slot.load(false).await.map(drop)
    }

    /// A process of it that could not be found because its host does not answer is none that has ended.
    pub(crate) async fn none_is_hidden(&self, id: &PluginId) -> Result<(), Fault> {
        if self.inner.programs.runs(id) {
            return Ok(());
        }
        crate::program::check_none_is_hidden(&self.inner.shared.options.load_full(), id).await
    }

    /// Nothing is written down that this registry may not carry out.
    pub(crate) async fn keeps(&self, id: &PluginId) -> Result<(), Fault> {
        let (lease, directory) = (Arc::clone(&self.inner.shared.lease), self.directory());
        let taken = crate::tasks::on_a_thread(move || lease.take(&directory)).await;
        taken.map_err(|error| Fault::new(Code::Internal, error.to_string()))?.map_err(|kept| kept.fault(id))
    }

    async fn want(&self, id: &PluginId, disabled: bool) -> Result<(), Fault> {
        let (directory, id) = (self.directory(), id.clone());
        let write = move || {
            desired::update(&directory, |state| {
                let wanted = state.of(&id);
                state.set(&id, goplug_pconf_schema::Desired { disabled, ..wanted })
            })
        };
        let written = crate::tasks::on_a_thread(write).await;
        let failed = |why: String| Fault::new(Code::Internal, format!("what is wanted cannot be written down: {why}"));
        written.map_err(|error| failed(error.to_string()))?.map_err(failed)?;
        Ok(())
    }
}

impl Logs {
    /// The same, from behind a line that was read before; from the beginning if that process is not the one whose output
    /// is there.
    #[must_use]
    pub fn after(mut self, position: Option<LogPosition>) -> Self {
        self.after = position;
        self
    }

    /// As [`Logs::next`], for people and scripts, with where to go on.
    ///
    /// # Errors
    /// As there.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn entry(&mut self) -> Result<Option<(LogPosition, LogEntry)>, Fault> {
        let Some(line) = self.next().await? else { return Ok(None) };
        let Some((hosted, _)) = &self.current else { return Ok(None) };
        let record = hosted.record();
        let position = LogPosition { instance: record.instance.clone(), number: line.number };
        let entry = LogEntry {
            number: line.number,
            time: time_text(line.at_ms),
            stream: line.stream,
            pid: record.plugin.pid,
            text: line.text,
            cut_bytes: (line.cut_bytes > 0).then_some(line.cut_bytes),
        };
        Ok(Some((position, entry)))
    }

    /// The next line; `None` when there will be no more.
    ///
    /// # Errors
    /// What the process's host answers.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn next(&mut self) -> Result<Option<LogLine>, Fault> {
        let mut views = self.program.follow();
        loop {
            let hosted = views.borrow_and_update().hosted.clone();
            if let Some((_, lines)) = &mut self.current {
                match lines.next().await {
                    Ok(Some(line)) => return Ok(Some(line)),
                    Err(fault) if fault.code == Code::Unavailable && !self.follow => return Err(fault),
                    // Its host has ended, or was told that nobody will ask again.
                    _ => {}
                }
            }
            let seen = self.current.as_ref().map(|(hosted, _)| hosted.record().instance.clone());
            match hosted.filter(|hosted| Some(&hosted.record().instance) != seen.as_ref()) {
                Some(hosted) => {
                    let read = self.after.as_ref().filter(|after| after.instance == hosted.record().instance);
                    let lines = hosted.open_logs(read.map_or(0, |after| after.number), self.follow).await;
                    match lines {
                        Ok(lines) => self.current = Some((hosted, lines)),
                        Err(fault) if fault.code == Code::Unavailable && !self.follow => return Err(fault),
                        // Nothing is left of its output.
                        Err(_) if !self.follow => return Ok(None),
                        Err(_) => wait_for_next(&mut views).await?,
                    }
                }
                None if !self.follow => return Ok(None),
                None => wait_for_next(&mut views).await?,
            }
        }
    }

    /// The process whose lines are being read.
    pub fn pid(&self) -> Option<u32> {
        self.current.as_ref().map(|(hosted, _)| hosted.record().plugin.pid)
    }
}

impl fmt::Display for LogPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.instance, self.number)
    }
}

impl FromStr for LogPosition {
    type Err = String;

    /// # Errors
    /// Says how a position is written.
    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.rsplit_once(':').and_then(|(instance, number)| Some((instance, number.parse().ok()?)));
        let fits = parts.filter(|(instance, _)| is_instance(instance));
        let wrong = || format!("`{}` is no position in an output: INSTANCE:NUMBER", printable(text));
        fits.map(|(instance, number)| Self { instance: instance.to_owned(), number }).ok_or_else(wrong)
    }
}

/// Milliseconds since 1970 as RFC 3339.
pub(crate) fn time_text(at_ms: u64) -> String {
    // Later than any clock: the latest that can be written.
    const LATEST_MS: u64 = 253_402_300_799_999;
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_millis(at_ms.min(LATEST_MS));
    humantime::format_rfc3339_millis(time).to_string()
}

async fn wait_for_next(views: &mut tokio::sync::watch::Receiver<Arc<crate::program::View>>) -> Result<(), Fault> {
    let gone = |_| Fault::new(Code::NotFound, "the plugin is gone");
    views.changed().await.map_err(gone)
}
