//! For applications without async: the same registry, asked from any thread.
//!
//! A runtime of one thread runs what goes on behind the calls: the directory, the life of plugins, notifications. A call
//! itself is made on the thread that asks, which reads the reply from the socket, so that it costs no more than the socket
//! does.

mod exchange;
mod process;

use std::future::Future;
use std::path::Path;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use goplug_pconf_schema::admin::{Activation, MethodList, Ping, PluginSummary, Unloaded, Why};
use goplug_pconf_schema::{Code, Fault};
use tokio::runtime::Runtime;

pub use exchange::{BlockingExchange, BlockingReplyBody, BlockingRequestBody};
pub use process::{BlockingLogs, BlockingStarted};

use crate::call::{Answer, CallOptions};
use crate::callback::{Notice, Subscribe, Subscription};
use crate::options::Builder;
use crate::registry::{Registry, Unload};
use crate::started::Command;
use crate::wait::Wait;

/// As [`crate::Registry`], for threads without a runtime. Cloning gives another handle on the same registry.
///
/// No method may be called from a task of a tokio runtime: it would block the runtime, and panics, as tokio does.
///
/// # Example: load and call
/// ```no_run
/// use goplug_registry::BlockingRegistry;
///
/// # fn main() -> Result<(), goplug_registry::Error> {
/// let registry = BlockingRegistry::open("/run/plugins")?;
/// registry.load("Test/Do")?;
/// let reply = registry.execute("Test/Do", "upper", "hello")?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct BlockingRegistry {
    registry: Registry,
    runtime: Arc<Runtime>,
}

impl Builder {
    /// As [`Builder::open`], with a runtime of its own.
    ///
    /// # Errors
    /// As [`Builder::open`]; `internal` when no thread can be started.
    pub fn open_blocking(self) -> Result<BlockingRegistry, Fault> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("goplug-registry")
            .enable_all()
            .build()
            .map_err(|error| Fault::new(Code::Internal, format!("no runtime: {error}")))?;
        let registry = runtime.block_on(self.open())?;
        Ok(BlockingRegistry { registry, runtime: Arc::new(runtime) })
    }
}

/// Of one kind for all: each further one costs the compiler another copy of the runtime's machinery.
fn drive(runtime: &Runtime, work: Pin<&mut dyn Future<Output = ()>>) {
    runtime.block_on(work);
}

impl BlockingRegistry {
    /// As [`Registry::open`].
    ///
    /// # Errors
    /// As [`Builder::open_blocking`].
    pub fn open(directory: impl AsRef<Path>) -> Result<Self, Fault> {
        Registry::builder(directory).open_blocking()
    }

    /// The registry itself, for what is not asked often; its futures belong on [`BlockingRegistry::wait_on`].
    pub fn inner(&self) -> &Registry {
        &self.registry
    }

    /// Waits for a future of [`BlockingRegistry::inner`] on this thread.
    pub fn wait_on<T>(&self, future: impl Future<Output = T>) -> T {
        let mut result = None;
        drive(&self.runtime, pin!(async { result = Some(future.await) }));
        result.expect("a future that has ended has set it")
    }

    /// As [`Registry::execute`].
    ///
    /// # Errors
    /// As there.
    pub fn execute(&self, plugin: &str, method: &str, body: impl Into<Bytes>) -> Result<Bytes, Fault> {
        Ok(self.execute_with(plugin, method, body, CallOptions::default())?.body)
    }

    /// As [`Registry::execute_with`].
    ///
    /// # Errors
    /// As there.
    pub fn execute_with(
        &self,
        plugin: &str,
        method: &str,
        body: impl Into<Bytes>,
        options: CallOptions,
    ) -> Result<Answer, Fault> {
        self.wait_on(self.registry.execute_on_this_thread(plugin, method, body.into(), &options))
    }

    /// As [`Registry::exchange`].
    ///
    /// # Errors
    /// As there.
    pub fn exchange(&self, plugin: &str, method: &str, options: CallOptions) -> Result<BlockingExchange, Fault> {
        let exchange = self.wait_on(self.registry.exchange(plugin, method, options))?;
        Ok(BlockingExchange::new(exchange, &self.runtime))
    }

    /// As [`Registry::plugins`].
    pub fn plugins(&self) -> Vec<PluginSummary> {
        self.registry.plugins()
    }

    /// As [`Registry::methods`].
    ///
    /// # Errors
    /// As there.
    pub fn methods(&self, plugin: &str) -> Result<MethodList, Fault> {
        self.registry.methods(plugin)
    }

    /// As [`Registry::load`].
    ///
    /// # Errors
    /// As there.
    pub fn load(&self, plugin: &str) -> Result<Activation, Fault> {
        self.wait_on(self.registry.load(plugin))
    }

    /// As [`Registry::unload`].
    ///
    /// # Errors
    /// As there.
    pub fn unload(&self, plugin: &str, how: Unload) -> Result<Unloaded, Fault> {
        self.wait_on(self.registry.unload(plugin, how))
    }

    /// As [`Registry::reload`].
    ///
    /// # Errors
    /// As there.
    pub fn reload(&self, plugin: &str) -> Result<Activation, Fault> {
        self.wait_on(self.registry.reload(plugin))
    }

    /// As [`Registry::start`].
    ///
    /// # Errors
    /// As there.
    ///
    /// # Example: a program that is a plugin, without a directory
    /// ```no_run
    /// use goplug_registry::{BlockingRegistry, Command};
    ///
    /// # fn main() -> Result<(), goplug_registry::Error> {
    /// let registry = BlockingRegistry::open("/run/plugins")?;
    /// let plugin = registry.start(Command::new("/usr/lib/shout"), "/run/plugins/shout.sock")?;
    /// let reply = plugin.execute("shout", "hello")?;
    /// plugin.terminate()?;
    /// # Ok(()) }
    /// ```
    pub fn start(&self, command: impl Into<Command>, socket: impl AsRef<Path>) -> Result<BlockingStarted, Fault> {
        let started = self.wait_on(self.registry.start(command, socket))?;
        Ok(BlockingStarted::new(started, self.clone()))
    }

    /// As [`Registry::ping`].
    ///
    /// # Errors
    /// As there.
    pub fn ping(&self, plugin: &str) -> Result<Ping, Fault> {
        self.wait_on(self.registry.ping(plugin))
    }

    /// As [`Registry::why`].
    pub fn why(&self, subject: &str) -> Why {
        self.wait_on(self.registry.why(subject))
    }

    /// As [`Registry::wait_for`].
    ///
    /// # Errors
    /// As there.
    pub fn wait_for(&self, plugin: &str, what: Wait, timeout: Duration) -> Result<(), Fault> {
        self.wait_on(self.registry.wait_for(plugin, what, timeout))
    }

    /// As [`Registry::register_callback`]. The handler runs on a thread that may block; an error has the message handled
    /// again.
    ///
    /// # Errors
    /// As there.
    pub fn register_callback(
        &self,
        plugin: &str,
        callback: &str,
        how: Subscribe,
        handler: impl FnMut(Notice) -> Result<(), String> + Send + 'static,
    ) -> Result<Subscription, Fault> {
        let handler = Arc::new(std::sync::Mutex::new(handler));
        let run = move |notice| {
            let handler = Arc::clone(&handler);
            async move {
                let handle = move || {
                    let mut handler = handler.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    handler(notice)
                };
                tokio::task::spawn_blocking(handle).await.unwrap_or_else(|_| Err("the handler panicked".to_owned()))
            }
        };
        self.wait_on(self.registry.register_callback(plugin, callback, how, run))
    }

    /// As [`Registry::close`].
    pub fn close(&self) {
        self.wait_on(self.registry.close());
    }
}
