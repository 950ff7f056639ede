//! A handle on one plugin: its calls need no lookup.

use std::sync::Arc;

use bytes::Bytes;
use goplug_pconf_schema::admin::{MethodList, Ping, State};
use goplug_pconf_schema::{Fault, PluginId};

use crate::call::{self, Answer, CallOptions, Exchange, Waiting};
use crate::registry::Inner;
use crate::show;
use crate::supervisor::Slot;

/// One plugin, loaded or not. Stays valid while the plugin's process changes; once its file is gone every call is
/// `not_found`, and [`crate::Registry::get`] finds a later one of the same name.
#[derive(Debug, Clone)]
pub struct Plugin {
    slot: Arc<Slot>,
    registry: Arc<Inner>,
}

impl Plugin {
    pub(crate) fn new(slot: Arc<Slot>, registry: Arc<Inner>) -> Self {
        Self { slot, registry }
    }

    /// Who it is.
    pub fn id(&self) -> &PluginId {
        &self.slot.id
    }

    /// Where it is in its life.
    pub fn state(&self) -> State {
        self.slot.view().state
    }

    /// As [`crate::Registry::execute`].
    ///
    /// # Errors
    /// As there.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection; the method may still have run.
    pub async fn execute(&self, method: &str, body: impl Into<Bytes>) -> Result<Bytes, Fault> {
        Ok(self.execute_with(method, body, CallOptions::default()).await?.body)
    }

    /// As [`crate::Registry::execute_with`].
    ///
    /// # Errors
    /// As there.
    pub async fn execute_with(
        &self,
        method: &str,
        body: impl Into<Bytes>,
        options: CallOptions,
    ) -> Result<Answer, Fault> {
        let defaults = self.registry.shared.options.of_calls();
        call::execute(&self.slot, &defaults, method, body.into(), &options, Waiting::Task).await
    }

    /// As [`crate::Registry::exchange`].
    ///
    /// # Errors
    /// As there.
    ///
    /// # Cancel safety
    /// As there.
    pub async fn exchange(&self, method: &str, options: CallOptions) -> Result<Exchange, Fault> {
        let defaults = self.registry.shared.options.of_calls();
        call::open(&self.slot, &defaults, method, &options).await
    }

    /// As [`crate::Registry::ping`].
    ///
    /// # Errors
    /// As there.
    pub async fn ping(&self) -> Result<Ping, Fault> {
        call::ping(&self.slot).await
    }

    /// As [`crate::Registry::methods`].
    ///
    /// # Errors
    /// As there.
    pub fn methods(&self) -> Result<MethodList, Fault> {
        show::methods(&self.slot)
    }
}
