//! What can be asked of the processes of installed plugins: start, stop, output.

use std::sync::Arc;

use goplug_pconf_schema::admin::State;
use goplug_pconf_schema::{Code, Fault, PluginId};

use crate::desired;
use crate::host::{Follow, Hosted, LogLine};
use crate::program::{Command, Program};
use crate::registry::{Known, Registry, Unload};
use crate::supervisor;

/// Lines of output of a plugin, as they come; across restarts of its process. Made by [`Registry::logs`].
#[derive(Debug)]
pub struct Logs {
    program: Arc<Program>,
    follow: bool,
    current: Option<(Hosted, Follow)>,
}

impl Registry {
    /// Starts the process of an installed plugin, and everything that it requires before it; loads it unless it is lazy.
    /// Nothing happens when it runs.
    ///
    /// # Errors
    /// `wrong_state` for a plugin that is disabled or has no manifest; `conflict` when a process of it runs that started
    /// itself; else why it did not come up.
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
    /// `not_found`; `deadline_exceeded` when something of it cannot be killed; `wrong_state` when one that started itself is
    /// not loaded.
    ///
    /// # Cancel safety
    /// Dropping the future does not stop the stop.
    pub async fn stop_plugin(&self, plugin: &str) -> Result<PluginId, Fault> {
        match self.program(plugin).await {
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
    /// `wrong_state` for a plugin without a manifest; `internal` when it cannot be written down.
    pub async fn enable(&self, plugin: &str) -> Result<PluginId, Fault> {
        let program = self.installed_program(plugin).await?;
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
        Ok(Logs { program: self.installed_program(plugin).await?, follow, current: None })
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
        !program.is_running() && self.inner.slot(&program.id).is_some_and(|slot| slot.live().is_some())
    }

    async fn load_unless_lazy(&self, program: &Program) -> Result<(), Fault> {
        match self.inner.slot(&program.id) {
            Some(slot) if !slot.view().found.pconf.lazy_load => self.load_running(&program.id).await,
            _ => Ok(()),
        }
    }

    async fn load_running(&self, id: &PluginId) -> Result<(), Fault> {
        let Some(slot) = self.inner.slot(id) else { return Ok(()) };
        match slot.ask(supervisor::Command::Load).await? {
            Err(fault) if fault.code == Code::Conflict && slot.view().state == State::Loaded => Ok(()),
            loaded => loaded.map(drop),
        }
    }

    async fn want(&self, id: &PluginId, disabled: bool) -> Result<(), Fault> {
        let (directory, id) = (self.directory(), id.clone());
        let write = move || {
            desired::update(&directory, |state| {
                let wanted = state.of(&id);
                state.set(&id, goplug_pconf_schema::Desired { disabled, ..wanted })
            })
        };
        let written = tokio::task::spawn_blocking(write).await;
        let failed = |why: String| Fault::new(Code::Internal, format!("what is wanted cannot be written down: {why}"));
        written.map_err(|error| failed(error.to_string()))?.map_err(failed)?;
        Ok(())
    }
}

impl Logs {
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
                // Else its host has ended, or was told that nobody will ask again.
                if let Ok(Some(line)) = lines.next().await {
                    return Ok(Some(line));
                }
            }
            let seen = self.current.as_ref().map(|(hosted, _)| hosted.record().instance.clone());
            match hosted.filter(|hosted| Some(&hosted.record().instance) != seen.as_ref()) {
                Some(hosted) => {
                    let lines = hosted.open_logs(0, self.follow).await;
                    match lines {
                        Ok(lines) => self.current = Some((hosted, lines)),
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

async fn wait_for_next(views: &mut tokio::sync::watch::Receiver<Arc<crate::program::View>>) -> Result<(), Fault> {
    let gone = |_| Fault::new(Code::NotFound, "the plugin is gone");
    views.changed().await.map_err(gone)
}
