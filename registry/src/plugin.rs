//! A handle on one plugin: its calls need no lookup.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use goplug_pconf_schema::admin::{MethodList, Ping, State};
use goplug_pconf_schema::wire::hello::Hello;
use goplug_pconf_schema::{Fault, PluginId};
use goplug_transport::{Segment, View};

use crate::call::{self, Answer, CallOptions, Exchange, Waiting};
use crate::callback::{self, Notice, Subscribe, Subscription};
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
    ///
    /// # Cancel safety
    /// As there.
    pub async fn execute_with(
        &self,
        method: &str,
        body: impl Into<Bytes>,
        options: CallOptions,
    ) -> Result<Answer, Fault> {
        let defaults = self.registry.shared.options.of_calls();
        Ok(call::execute(&self.slot, &defaults, method, body.into(), &options, Waiting::Task).await?.into())
    }

    /// As [`Plugin::execute_with`], with the reply where the plugin has written it, if it has done so in shared memory: nobody
    /// copies it, but whoever reads it.
    ///
    /// # Errors
    /// As there.
    ///
    /// # Example: a sum, as fast as memory can be read
    /// ```no_run
    /// use goplug_registry::{CallOptions, Plugin};
    ///
    /// # async fn example(plugin: Plugin) -> Result<(), goplug_registry::Error> {
    /// let picture = plugin.execute_view("paint", "", CallOptions::default()).await?;
    /// let sum = picture.words().fold(0_u64, u64::wrapping_add);
    /// # Ok(()) }
    /// ```
    pub async fn execute_view(
        &self,
        method: &str,
        body: impl Into<Bytes>,
        options: CallOptions,
    ) -> Result<View, Fault> {
        let defaults = self.registry.shared.options.of_calls();
        Ok(call::execute(&self.slot, &defaults, method, body.into(), &options, Waiting::Task).await?.body)
    }

    /// Memory for a request of `length` bytes, which the plugin reads where it was written, without a copy, if there is such
    /// memory for a call of this plugin now (at most 16 segments and 256 MiB, each of 64 KiB or more; none before the first
    /// call, and after a second without one). If not, it is ordinary memory, and the request is sent as any other.
    ///
    /// What it holds at first is anything: write all of it. It is written into [`Bytes`] that may be sent to this plugin any
    /// number of times, and used again when all of these are dropped and the plugin has read them.
    ///
    /// # Example
    /// ```no_run
    /// # async fn example(plugin: goplug_registry::Plugin) -> Result<(), goplug_registry::Error> {
    /// let mut picture = plugin.segment(640 * 480);
    /// picture.fill(255);
    /// plugin.execute("show", picture).await?;
    /// # Ok(()) }
    /// ```
    pub fn segment(&self, length: usize) -> Segment {
        let live = self.slot.live();
        match live.as_ref().and_then(|live| live.frames.as_ref()) {
            Some(frames) => frames.segment(length),
            None => Segment::ordinary(length),
        }
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
    ///
    /// # Cancel safety
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

    /// What the process that serves says of itself. A v0 plugin says no more than the names of its methods.
    ///
    /// # Errors
    /// `wrong_state` or `unavailable` when it is not loaded.
    pub fn hello(&self) -> Result<Hello, Fault> {
        let live = self.slot.live().ok_or_else(|| self.slot.not_callable())?;
        Ok(live.hello.clone())
    }

    /// As [`crate::Registry::register_callback`].
    ///
    /// # Errors
    /// As there.
    ///
    /// # Cancel safety
    /// As there.
    pub async fn register_callback<H, F>(
        &self,
        callback: &str,
        how: Subscribe,
        handler: H,
    ) -> Result<Subscription, Fault>
    where
        H: FnMut(Notice) -> F + Send + 'static,
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        callback::register(&self.registry, Arc::clone(&self.slot), callback, how, handler).await
    }
}
