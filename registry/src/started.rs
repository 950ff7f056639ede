//! One plugin that the registry starts, without a file or a directory: [`crate::Registry::start`].

mod command;
mod ready;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use goplug_pconf_schema::admin::State;
use goplug_pconf_schema::{Code, Fault, MAX_SOCKET_PATH_BYTES, Pconf, PluginId};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

pub use command::Command;
pub(crate) use ready::{Unready, wait as wait_ready};

use crate::call::{Answer, CallOptions};
use crate::discovery::{Confinement, Found};
use crate::host::{self, Adopted, Exit, HostSpec, Hosted, LogLine};
use crate::plugin::Plugin;
use crate::registry::Inner;
use crate::supervisor::{self, Slot};
use crate::tasks::Pending;

/// How long a plugin that was told to leave, and got its SIGTERM, may take before everything of it is killed.
const KILL_AFTER: Duration = Duration::from_secs(5);
/// How long the supervisor may take to see that a process has ended.
const NOTICE_LIMIT: Duration = Duration::from_secs(2);

/// A plugin that was started. Every call of it starts it again if it does not run.
///
/// Dropping it leaves the plugin running, as does the end of this process: the next `start` with the same socket finds it
/// and starts none. [`Started::terminate`] ends it.
#[derive(Debug)]
pub struct Started {
    registry: Arc<Inner>,
    command: Command,
    socket: PathBuf,
    life: Mutex<Life>,
}

#[derive(Debug)]
struct Life {
    hosted: Option<Hosted>,
    /// Made when it is known who the plugin is.
    slot: Option<Arc<Slot>>,
    was_adopted: bool,
}

impl Started {
    pub(crate) async fn start(registry: Arc<Inner>, command: Command, socket: &Path) -> Result<Self, Fault> {
        let socket = std::path::absolute(socket)
            .map_err(|error| Fault::new(Code::InvalidArgument, format!("the socket's path: {error}")))?;
        let length = socket.as_os_str().len();
        if length > MAX_SOCKET_PATH_BYTES {
            let text = format!("the socket's path is {length} bytes, the limit is {MAX_SOCKET_PATH_BYTES}");
            return Err(Fault::new(Code::InvalidArgument, text));
        }
        let options = registry.shared.options.load_full();
        Confinement::new(&options.directory, &options.socket_folders()).check(&socket).map_err(|why| {
            Fault::new(Code::Denied, format!("the start {why}: use one of these, or name its folder in `socket_dirs`"))
        })?;
        let started =
            Self { registry, command, socket, life: Mutex::new(Life { hosted: None, slot: None, was_adopted: false }) };
        match started.plugin().await {
            Ok(_) => Ok(started),
            Err(fault) => {
                started.give_up().await;
                Err(fault)
            }
        }
    }

    /// A handle whose calls need no lookup, and start nothing: once the plugin has ended, they fail until it runs again. It
    /// is started now if it does not run.
    ///
    /// # Errors
    /// `not_found`, `denied`, `invalid_argument` or `overloaded` when it cannot be run; `unavailable` when it ends or does
    /// not answer on its socket in time, with its last lines of standard error in the text and in `data.stderr`; else what
    /// the activation says.
    ///
    /// # Cancel safety
    /// Dropping the future ends a process that was not ready yet.
    pub fn plugin(&self) -> Pending<'_, Result<Plugin, Fault>> {
        Box::pin(self.serving())
    }

    /// As [`Started::plugin`]. A call of a plugin that serves allocates nothing for it.
    async fn serving(&self) -> Result<Plugin, Fault> {
        let mut life = self.life.lock().await;
        if let (Some(slot), Some(hosted)) = (&life.slot, &life.hosted)
            && slot.view().state == State::Loaded
            && slot.live().is_some_and(|live| live.peer.is_alive())
            && hosted.is_hosted()
        {
            return Ok(self.handle(slot));
        }
        self.begin(&mut life).await
    }

    fn begin<'a>(&'a self, life: &'a mut Life) -> Pending<'a, Result<Plugin, Fault>> {
        Box::pin(async move {
            self.ensure_runs(life).await?;
            let slot = match &life.slot {
                Some(slot) => Arc::clone(slot),
                None => Arc::clone(life.slot.insert(self.make_slot().await?)),
            };
            self.load(&slot).await?;
            Ok(self.handle(&slot))
        })
    }

    /// Calls `method`, as [`crate::Registry::execute`]. Starts the plugin if it does not run.
    ///
    /// A call that was under way when the plugin died is repeated only when it cannot have run.
    ///
    /// # Errors
    /// As [`Started::plugin`] and [`crate::Registry::execute`].
    pub async fn execute(&self, method: &str, body: impl Into<Bytes>) -> Result<Bytes, Fault> {
        Ok(self.execute_with(method, body, CallOptions::default()).await?.body)
    }

    /// As [`Started::execute`], with what the caller has to say about the call.
    ///
    /// # Errors
    /// As [`Started::execute`].
    pub async fn execute_with(
        &self,
        method: &str,
        body: impl Into<Bytes>,
        options: CallOptions,
    ) -> Result<Answer, Fault> {
        let body = body.into();
        let first = self.serving().await?.execute_with(method, body.clone(), options.clone()).await;
        match first {
            // It died between our look and the call.
            Err(fault) if fault.ran == goplug_pconf_schema::Ran::No && !self.runs().await => {
                self.serving().await?.execute_with(method, body, options).await
            }
            answer => answer,
        }
    }

    /// Ends the plugin and everything that it started: it is told to `stop` and may finish its calls within the registry's
    /// drain, then SIGTERM, 5 s later SIGKILL. Answers how it ended, `None` if it did not run. May be called any number of
    /// times; the next call starts it again.
    ///
    /// # Errors
    /// `deadline_exceeded` when something of it cannot be killed; `unavailable` when its host does not answer.
    ///
    /// # Cancel safety
    /// Dropping the future may leave it running; call it again.
    pub fn terminate(&self) -> Pending<'_, Result<Option<Exit>, Fault>> {
        Box::pin(async move {
            let mut life = self.life.lock().await;
            let Some(hosted) = life.hosted.clone() else { return Ok(None) };
            if let Some(slot) = &life.slot {
                let drain = self.registry.shared.options.load().drain;
                let unload = slot.ask(|reply| supervisor::Command::Unload { drain, stop: true, reply });
                // One that does not listen is ended all the same.
                _ = timeout(drain + KILL_AFTER * 2, unload).await;
            }
            let exit = match hosted.stop(Duration::ZERO, KILL_AFTER).await {
                Ok(status) => status.record.exit,
                Err(fault) if fault.code == Code::PluginGone => hosted.exited().await,
                Err(fault) => return Err(fault),
            };
            forget(&hosted).await;
            life.hosted = None;
            Ok(exit)
        })
    }

    /// Its output that is kept, with a number above `after` (0 for all); empty when nothing was started since it was
    /// terminated.
    ///
    /// # Errors
    /// `plugin_gone` when its host has ended.
    pub fn logs(&self, after: u64) -> Pending<'_, Result<Vec<LogLine>, Fault>> {
        Box::pin(async move {
            let hosted = self.life.lock().await.hosted.clone();
            match hosted {
                Some(hosted) => hosted.logs(after).await,
                None => Ok(Vec::new()),
            }
        })
    }

    /// The process and its host, as far as it runs.
    pub async fn hosted(&self) -> Option<Hosted> {
        self.life.lock().await.hosted.clone()
    }

    /// Whether the plugin that runs was found running instead of started.
    pub async fn was_adopted(&self) -> bool {
        self.life.lock().await.was_adopted
    }

    /// Where it listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    fn handle(&self, slot: &Arc<Slot>) -> Plugin {
        Plugin::new(Arc::clone(slot), Arc::clone(&self.registry))
    }

    async fn runs(&self) -> bool {
        let hosted = self.life.lock().await.hosted.clone();
        match hosted {
            Some(hosted) => hosted.status().await.is_ok_and(|status| status.record.exit.is_none()),
            None => false,
        }
    }

    /// Ends a process that nobody will have a handle of. One that was found running is not ours to end.
    async fn give_up(&self) {
        let life = self.life.lock().await;
        if let Some(hosted) = life.hosted.as_ref().filter(|_| !life.was_adopted) {
            // The failure that led here counts more than another one now; what is left is found by its record.
            _ = hosted.stop(Duration::ZERO, KILL_AFTER).await;
            forget(hosted).await;
        }
    }

    /// Makes sure that there is a process that is ready.
    async fn ensure_runs(&self, life: &mut Life) -> Result<(), Fault> {
        if let Some(hosted) = life.hosted.clone() {
            match hosted.status().await {
                Ok(status) if status.record.exit.is_none() => return Ok(()),
                // What it started may still be on its way out.
                Ok(_) => _ = hosted.stop(Duration::ZERO, Duration::ZERO).await?,
                Err(fault) if fault.code == Code::PluginGone => {}
                Err(fault) => return Err(fault),
            }
            forget(&hosted).await;
            life.hosted = None;
        }
        let folder = self.registry.shared.options.load().hosts();
        // What was ours has been seen to end.
        if life.slot.is_none()
            && let Some(hosted) = self.adopt(&folder).await?
        {
            (life.hosted, life.was_adopted) = (Some(hosted), true);
            return Ok(());
        }
        let given = self.registry.shared.options.load().host_program.clone();
        let program = given.map_or_else(host::find, Ok)?;
        ready::clear(&self.socket).await?;
        let spec = self.spec(folder)?;
        let hosted = host::launch(&program, &spec).await?;
        // Until it is ready it is nobody's: a future that is dropped here must not leave it behind.
        let guard = ready::Unready::new(hosted.clone());
        ready::wait(&hosted, &self.socket, self.command.ready_within).await?;
        guard.release();
        (life.hosted, life.was_adopted) = (Some(hosted), false);
        Ok(())
    }

    /// A plugin of this program that an earlier registry left running on our socket.
    async fn adopt(&self, folder: &Path) -> Result<Option<Hosted>, Fault> {
        let program = self.command.program()?;
        for adopted in host::adopt(folder).await? {
            match adopted {
                Adopted::Lives(hosted) if hosted.record().socket == self.socket => {
                    let record = hosted.record();
                    if record.exit.is_some() {
                        forget(&hosted).await;
                    } else if record.program == program {
                        return Ok(Some(hosted));
                    } else {
                        let text = format!(
                            "the socket {} belongs to {}, which runs as pid {}",
                            self.socket.display(),
                            record.program.display(),
                            record.plugin.pid
                        );
                        return Err(Fault::new(Code::Conflict, text));
                    }
                }
                Adopted::Ended(record) | Adopted::Lost(record) if record.socket == self.socket => {
                    // One record per run would fill the folder.
                    _ = host::discard(folder, &record);
                }
                _ => {}
            }
        }
        Ok(None)
    }

    fn spec(&self, folder: PathBuf) -> Result<HostSpec, Fault> {
        let mut bytes = [0; 8];
        rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).map_err(|error| {
            Fault::new(Code::Internal, format!("no random number: {}", std::io::Error::from(error)))
        })?;
        let instance = format!("{:016x}", u64::from_ne_bytes(bytes));
        self.command.spec(&instance, &self.socket, folder)
    }

    /// The plugin's place in this registry, by the name that it says it has.
    async fn make_slot(&self) -> Result<Arc<Slot>, Fault> {
        let says = ready::hello(&self.socket).await?;
        let id = match (&self.command.plugin, says) {
            (Some(id), _) => id.clone(),
            (None, Some(id)) => id,
            // The original tells no name.
            (None, None) => {
                let stem = self.command.program()?.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                PluginId::new("", &stem).map_err(|error| Fault::new(Code::InvalidArgument, error.to_string()))?
            }
        };
        let found = Found {
            pconf: Arc::new(Pconf::new(id.clone(), self.socket.to_string_lossy())),
            socket: self.socket.clone(),
            file_uid: rustix::process::geteuid().as_raw(),
            warnings: Vec::new(),
            is_tilotech: false,
            is_started: true,
        };
        Ok(supervisor::spawn(&self.registry.shared, id, self.socket.clone(), Arc::new(found)))
    }

    async fn load(&self, slot: &Arc<Slot>) -> Result<(), Fault> {
        // The supervisor may not have seen yet that the process before has ended.
        let until = Instant::now() + NOTICE_LIMIT;
        let mut views = slot.follow();
        let fresh =
            async { while slot.live().is_some_and(|live| !live.peer.is_alive()) && views.changed().await.is_ok() {} };
        _ = tokio::time::timeout_at(until, fresh).await;
        slot.load(false).await.map(drop)
    }
}

pub(crate) async fn forget(hosted: &Hosted) {
    if hosted.forget().await.is_err() {
        let (folder, record) = (hosted.folder().to_owned(), hosted.record().clone());
        // A record that stays is found again, and says that its plugin is gone.
        _ = crate::tasks::on_a_thread(move || host::discard(&folder, &record)).await;
    }
}
