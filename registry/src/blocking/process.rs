//! Installed plugins and their processes, from threads without a runtime.

use std::path::Path;

use bytes::Bytes;
use goplug_pconf_schema::admin::{
    CallbackList, Diff, Installation, LogEntry, Pinned, PluginDetail, ProcessChange, Removal, Revocation, Trust,
    TrustEntry, Upgraded,
};
use goplug_pconf_schema::{Fault, PluginId, Sha256};

use super::BlockingRegistry;
use crate::call::{Answer, CallOptions};
use crate::host::{Exit, LogLine};
use crate::install::Install;
use crate::plugin::Plugin;
use crate::process::{LogPosition, Logs};
use crate::started::Started;
use crate::versions::{Against, Upgrade};

/// As [`Started`], for threads without a runtime.
#[derive(Debug)]
pub struct BlockingStarted {
    started: Started,
    registry: BlockingRegistry,
}

/// As [`Logs`], for threads without a runtime: an iterator over lines, which ends when there will be no more.
#[derive(Debug)]
pub struct BlockingLogs {
    logs: Logs,
    registry: BlockingRegistry,
}

/// # Example: a folder in, a folder out
/// ```
/// use goplug_registry::admin::State;
/// use goplug_registry::{BlockingRegistry, Code, Install};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (plugins, source) = (tempfile::tempdir()?, tempfile::tempdir()?);
/// # let (plugins, source) = (plugins.path(), source.path());
/// let manifest = r#"{"name": "clock", "version": "1.0.0", "source": {"mode": "local_exec", "path": "/bin/true"}}"#;
/// std::fs::write(source.join("plugin.json"), manifest)?;
///
/// let registry = BlockingRegistry::open(plugins)?;
/// let installed = registry.install(source, Install::default())?;
/// assert_eq!(installed.plugin.to_string(), "-/clock");
/// registry.disable("clock")?;
/// assert_eq!(registry.inspect("clock")?.summary.state, State::Disabled);
/// assert_eq!(registry.start_plugin("clock").unwrap_err().code, Code::WrongState);
/// registry.remove("clock", false)?;
/// assert!(!registry.is_discovered("clock"));
/// # Ok(()) }
/// ```
impl BlockingRegistry {
    /// As [`crate::Registry::install`].
    ///
    /// # Errors
    /// As there.
    pub fn install(&self, source: impl AsRef<Path>, how: Install) -> Result<Installation, Fault> {
        self.wait_on(self.registry.install(source, how))
    }

    /// As [`crate::Registry::remove`].
    ///
    /// # Errors
    /// As there.
    pub fn remove(&self, plugin: &str, dry_run: bool) -> Result<Removal, Fault> {
        self.wait_on(self.registry.remove(plugin, dry_run))
    }

    /// As [`crate::Registry::remove_version`].
    ///
    /// # Errors
    /// As there.
    pub fn remove_version(&self, plugin: &str, version: &str, dry_run: bool) -> Result<Removal, Fault> {
        self.wait_on(self.registry.remove_version(plugin, version, dry_run))
    }

    /// As [`crate::Registry::upgrade`].
    ///
    /// # Errors
    /// As there.
    pub fn upgrade(&self, plugin: &str, source: Option<&Path>, how: Upgrade) -> Result<Upgraded, Fault> {
        self.wait_on(self.registry.upgrade(plugin, source, how))
    }

    /// As [`crate::Registry::rollback`].
    ///
    /// # Errors
    /// As there.
    pub fn rollback(&self, plugin: &str, dry_run: bool) -> Result<Upgraded, Fault> {
        self.wait_on(self.registry.rollback(plugin, dry_run))
    }

    /// As [`crate::Registry::pin`].
    ///
    /// # Errors
    /// As there.
    pub fn pin(&self, plugin: &str, range: Option<&str>) -> Result<Pinned, Fault> {
        self.wait_on(self.registry.pin(plugin, range))
    }

    /// As [`crate::Registry::diff`].
    ///
    /// # Errors
    /// As there.
    pub fn diff(&self, plugin: &str, against: Against) -> Result<Diff, Fault> {
        self.wait_on(self.registry.diff(plugin, against))
    }

    /// As [`crate::Registry::start_plugin`].
    ///
    /// # Errors
    /// As there.
    pub fn start_plugin(&self, plugin: &str) -> Result<PluginId, Fault> {
        self.wait_on(self.registry.start_plugin(plugin))
    }

    /// As [`crate::Registry::stop_plugin`].
    ///
    /// # Errors
    /// As there.
    pub fn stop_plugin(&self, plugin: &str) -> Result<PluginId, Fault> {
        self.wait_on(self.registry.stop_plugin(plugin))
    }

    /// As [`crate::Registry::restart_plugin`].
    ///
    /// # Errors
    /// As there.
    pub fn restart_plugin(&self, plugin: &str) -> Result<PluginId, Fault> {
        self.wait_on(self.registry.restart_plugin(plugin))
    }

    /// As [`crate::Registry::enable`].
    ///
    /// # Errors
    /// As there.
    pub fn enable(&self, plugin: &str) -> Result<PluginId, Fault> {
        self.wait_on(self.registry.enable(plugin))
    }

    /// As [`crate::Registry::disable`].
    ///
    /// # Errors
    /// As there.
    pub fn disable(&self, plugin: &str) -> Result<PluginId, Fault> {
        self.wait_on(self.registry.disable(plugin))
    }

    /// As [`crate::Registry::process`].
    pub fn process(&self, plugin: &PluginId) -> ProcessChange {
        self.registry.process(plugin)
    }

    /// As [`crate::Registry::logs`].
    ///
    /// # Errors
    /// As there.
    pub fn logs(&self, plugin: &str, follow: bool) -> Result<BlockingLogs, Fault> {
        let logs = self.wait_on(self.registry.logs(plugin, follow))?;
        Ok(BlockingLogs { logs, registry: self.clone() })
    }

    /// As [`crate::Registry::rescan`].
    ///
    /// # Errors
    /// As there.
    pub fn rescan(&self) -> Result<(), Fault> {
        self.wait_on(self.registry.rescan())
    }

    /// As [`crate::Registry::inspect`].
    ///
    /// # Errors
    /// As there.
    pub fn inspect(&self, plugin: &str) -> Result<PluginDetail, Fault> {
        self.wait_on(self.registry.inspect(plugin))
    }

    /// As [`crate::Registry::callbacks`].
    ///
    /// # Errors
    /// As there.
    pub fn callbacks(&self, plugin: &str) -> Result<CallbackList, Fault> {
        self.wait_on(self.registry.callbacks(plugin))
    }

    /// As [`crate::Registry::is_discovered`].
    pub fn is_discovered(&self, plugin: &str) -> bool {
        self.registry.is_discovered(plugin)
    }

    /// As [`crate::Registry::is_loaded`].
    pub fn is_loaded(&self, plugin: &str) -> bool {
        self.registry.is_loaded(plugin)
    }

    /// As [`crate::Registry::trusted`].
    ///
    /// # Errors
    /// As there.
    pub fn trusted(&self) -> Result<Vec<TrustEntry>, Fault> {
        self.wait_on(self.registry.trusted())
    }

    /// As [`crate::Registry::trust_of`].
    ///
    /// # Errors
    /// As there.
    pub fn trust_of(&self, plugin: &str) -> Result<Trust, Fault> {
        self.wait_on(self.registry.trust_of(plugin))
    }

    /// As [`crate::Registry::approve`].
    ///
    /// # Errors
    /// As there.
    pub fn approve(&self, plugin: &str, expected: Option<Sha256>) -> Result<Trust, Fault> {
        self.wait_on(self.registry.approve(plugin, expected))
    }

    /// As [`crate::Registry::revoke`].
    ///
    /// # Errors
    /// As there.
    pub fn revoke(&self, plugin: &str) -> Result<Revocation, Fault> {
        self.wait_on(self.registry.revoke(plugin))
    }
}

impl BlockingStarted {
    pub(super) fn new(started: Started, registry: BlockingRegistry) -> Self {
        Self { started, registry }
    }

    /// The plugin itself, for what is not asked often; its futures belong on [`BlockingRegistry::wait_on`].
    pub fn inner(&self) -> &Started {
        &self.started
    }

    /// As [`Started::plugin`].
    ///
    /// # Errors
    /// As there.
    pub fn plugin(&self) -> Result<Plugin, Fault> {
        self.registry.wait_on(self.started.plugin())
    }

    /// As [`Started::execute`].
    ///
    /// # Errors
    /// As there.
    pub fn execute(&self, method: &str, body: impl Into<Bytes>) -> Result<Bytes, Fault> {
        self.registry.wait_on(self.started.execute(method, body))
    }

    /// As [`Started::execute_with`].
    ///
    /// # Errors
    /// As there.
    pub fn execute_with(&self, method: &str, body: impl Into<Bytes>, options: CallOptions) -> Result<Answer, Fault> {
        self.registry.wait_on(self.started.execute_with(method, body, options))
    }

    /// As [`Started::terminate`].
    ///
    /// # Errors
    /// As there.
    pub fn terminate(&self) -> Result<Option<Exit>, Fault> {
        self.registry.wait_on(self.started.terminate())
    }

    /// As [`Started::logs`].
    ///
    /// # Errors
    /// As there.
    pub fn logs(&self, after: u64) -> Result<Vec<LogLine>, Fault> {
        self.registry.wait_on(self.started.logs(after))
    }

    /// As [`Started::was_adopted`].
    pub fn was_adopted(&self) -> bool {
        self.registry.wait_on(self.started.was_adopted())
    }

    /// As [`Started::socket`].
    pub fn socket(&self) -> &Path {
        self.started.socket()
    }
}

impl BlockingLogs {
    /// As [`Logs::after`].
    #[must_use]
    pub fn after(self, position: Option<LogPosition>) -> Self {
        Self { logs: self.logs.after(position), ..self }
    }
}

impl Iterator for BlockingLogs {
    type Item = Result<(LogPosition, LogEntry), Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        self.registry.wait_on(self.logs.entry()).transpose()
    }
}
