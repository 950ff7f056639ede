//! What can be asked about trust, and said.

use std::path::PathBuf;
use std::time::Duration;

use goplug_pconf_schema::admin::{Executable, Revocation, State, Trust, TrustEntry};
use goplug_pconf_schema::{Code, Fault, Pin, PluginId, Sha256, TrustState};
use goplug_transport::{Connection, Peer};
use tokio::time::Instant;

use super::verdict::verdict;
use super::vet::directory_name;
use super::{attest, store};
use crate::discovery::Confinement;
use crate::event::now_text;
use crate::installed::blocking;
use crate::registry::{Inner, Known, Registry};
use crate::supervisor::{FileNews, Slot};

/// How long a full backlog is waited for.
const PATIENCE: Duration = Duration::from_secs(1);

impl Registry {
    /// Every program that is pinned of this plugin directory, by plugin; also of plugins that are not there any more.
    ///
    /// # Errors
    /// `internal` when the file of the pins cannot be read or believed.
    pub async fn trusted(&self) -> Result<Vec<TrustEntry>, Fault> {
        let directory = self.pin_key();
        let state = self.pins().await?;
        let row = |(plugin, pin): (&PluginId, &Pin)| TrustEntry {
            plugin: plugin.clone(),
            directory: directory.clone(),
            pin: pin.clone(),
        };
        Ok(state.pins(&directory).map(row).collect())
    }

    /// What a plugin may run, what the process runs that listens on its socket now, and what follows.
    ///
    /// # Errors
    /// `not_found`, or `conflict` for an ambiguous name; as [`Registry::trusted`].
    pub async fn trust_of(&self, plugin: &str) -> Result<Trust, Fault> {
        let (id, executable) = self.running_program(plugin).await?;
        let pin = self.pins().await?.of(&self.pin_key(), &id).cloned();
        self.judged(id, pin, executable).await
    }

    /// Pins a plugin to the program that the process runs which listens on its socket now, and tries a plugin again that was
    /// refused. `expected`: only if it is this one.
    ///
    /// # Errors
    /// `not_found`; `unavailable` when nobody listens; `conflict` when it is not the expected program; `denied` when it cannot
    /// be told which it is; `wrong_state` for a plugin that the registry starts; `internal` when it cannot be written down.
    ///
    /// # Cancel safety
    /// Dropped, it is written or not.
    pub async fn approve(&self, plugin: &str, expected: Option<Sha256>) -> Result<Trust, Fault> {
        let (id, executable) = self.running_program(plugin).await?;
        if !self.starts_itself(&id) {
            let text = format!("plugin `{id}` is started by the registry: its program is the one that is installed");
            return Err(Fault::new(Code::WrongState, text));
        }
        let none = || Fault::new(Code::Unavailable, format!("nobody listens on the socket of plugin `{id}`"));
        let executable = executable.ok_or_else(none)?;
        let Some(sha256) = executable.sha256 else {
            let why = executable.problem.unwrap_or_default();
            return Err(Fault::new(Code::Denied, format!("which program `{id}` runs cannot be told: {why}")));
        };
        if let Some(expected) = expected.filter(|expected| *expected != sha256) {
            let text = format!("plugin `{id}` runs a program with sha256 {sha256}, not {expected}");
            return Err(Fault::new(Code::Conflict, text));
        }
        let path = executable.path.clone().unwrap_or_default();
        let pin = Pin { sha256, path, since: now_text(), approved: true };
        let (directory, key, recorded) = (self.pin_key(), id.clone(), pin.clone());
        self.change_pins(move |state| state.set(&directory, &key, Some(recorded))).await?;
        if let Some(slot) = self.inner.slot(&id).filter(|slot| slot.view().state == State::Denied) {
            slot.tell(FileNews::Appeared).await;
        }
        self.judged(id, Some(pin), Some(executable)).await
    }

    /// Forgets what a plugin may run: the next process of it that is activated is taken as the first, what lies in the plugin
    /// directory runs, and permissions have to be granted anew. A plugin that is not there any more is named by its whole name.
    ///
    /// # Errors
    /// `not_found` when nothing is recorded of it; as [`Registry::trusted`].
    pub async fn revoke(&self, plugin: &str) -> Result<Revocation, Fault> {
        let id = match self.inner.find(plugin) {
            Ok(Known::Slot(slot)) => slot.id.clone(),
            Ok(Known::Installed(plugin)) => plugin.id,
            Err(fault) if fault.code == Code::NotFound => {
                PluginId::parse(plugin).map_err(|error| Fault::new(Code::InvalidArgument, error.to_string()))?
            }
            Err(fault) => return Err(fault),
        };
        let (directory, key) = (self.pin_key(), id.clone());
        let pin = match self.pins().await?.of(&directory, &key) {
            Some(_) => self.change_pins(move |state| state.set(&directory, &key, None)).await?,
            None => None,
        };
        let (records, key) = (self.records(&self.directory()), id.clone());
        let installed = blocking(move || records.forget(&key)).await?;
        if pin.is_none() && installed.is_none() {
            let text = format!("no program of plugin `{id}` is recorded, and nothing that was installed of it");
            return Err(Fault::new(Code::NotFound, text));
        }
        Ok(Revocation { plugin: id, pin, installed })
    }

    async fn judged(&self, plugin: PluginId, pin: Option<Pin>, executable: Option<Executable>) -> Result<Trust, Fault> {
        let enforced = self.inner.shared.options.load().pin_executables && self.starts_itself(&plugin);
        let seen = executable.as_ref().and_then(|executable| executable.sha256);
        let verdict = verdict(enforced, pin.as_ref().map(|pin| pin.sha256), seen);
        let (records, id) = (self.records(&self.directory()), plugin.clone());
        let installed = blocking(move || records.of(&id)).await?;
        Ok(Trust { plugin, enforced, pin, installed, executable, verdict })
    }

    fn starts_itself(&self, plugin: &PluginId) -> bool {
        self.inner.slot(plugin).is_some_and(|slot| !slot.view().found.is_started)
    }

    async fn running_program(&self, plugin: &str) -> Result<(PluginId, Option<Executable>), Fault> {
        match self.inner.find(plugin)? {
            // Who may take the place of the one that serves: that is whom a pin is about.
            Known::Slot(slot) => match self.inner.listener(&slot).await {
                Some(peer) => Ok((slot.id.clone(), self.inner.program_of(&peer).await)),
                None => Ok((slot.id.clone(), None)),
            },
            Known::Installed(plugin) => Ok((plugin.id, None)),
        }
    }

    fn pin_key(&self) -> String {
        directory_name(&self.directory())
    }

    pub(crate) fn trust_folder(&self) -> PathBuf {
        self.inner.shared.options.load().trust_folder()
    }

    async fn pins(&self) -> Result<TrustState, Fault> {
        let folder = self.trust_folder();
        let read = crate::tasks::on_a_thread(move || store::load(&folder)).await;
        read.map_err(|error| internal(error.to_string()))?.map_err(internal)
    }

    async fn change_pins(
        &self,
        change: impl FnOnce(&mut TrustState) -> Option<Pin> + Send + 'static,
    ) -> Result<Option<Pin>, Fault> {
        let folder = self.trust_folder();
        let written = crate::tasks::on_a_thread(move || store::update(&folder, change)).await;
        written.map_err(|error| internal(error.to_string()))?.map_err(internal)
    }
}

impl Inner {
    /// What the process runs that serves; else the one that listens on the plugin's socket.
    pub(crate) async fn executable(&self, slot: &Slot) -> Option<Executable> {
        match slot.live() {
            Some(live) => self.program_of(&live.peer).await,
            None => self.program_of(&self.listener(slot).await?).await,
        }
    }

    async fn program_of(&self, peer: &Peer) -> Option<Executable> {
        let attested = attest(peer, &self.shared.trust.digests).await;
        (!attested.is_gone).then_some(attested.shown)
    }

    /// Who listens; nothing is sent.
    async fn listener(&self, slot: &Slot) -> Option<Peer> {
        let (options, socket) = (self.shared.options.load_full(), slot.view().found.socket.clone());
        let path = socket.clone();
        let check = move || Confinement::new(&options.directory, &options.socket_folders()).check_on_disk(&path);
        crate::tasks::on_a_thread(check).await.ok()?.ok()?;
        let connection = Connection::connect(&socket, Instant::now() + PATIENCE).await.ok()?;
        Some(connection.peer().clone())
    }
}

fn internal(why: String) -> Fault {
    Fault::new(Code::Internal, format!("the programs that are trusted cannot be told: {why}"))
}
