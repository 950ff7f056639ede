//! For tests: an implementation inside the application's own process, asked the whole way round over a socket of its own.

use goplug_pconf_schema::Fault;
use goplug_plugin_impl::Plugin;
use goplug_plugin_impl::testing::InProcess;
use goplug_registry::Registry;

use crate::client::Client;
use crate::server::{Implement, Serve};

/// The name of the plugin inside this process.
const NAME: &str = "in-process";

/// What a client in a test stands on: gone with the last clone of the client.
#[derive(Debug)]
pub(crate) struct Host {
    _registry: Registry,
    _plugin: InProcess,
}

/// A client of `server` inside this process. What differs from a process of its own is that the two die together.
///
/// # Errors
/// When the plugin cannot be built or cannot listen, or when `server` answers another interface than the client's.
///
/// # Cancel safety
/// Dropping the future leaves nothing behind.
pub async fn in_process<C: Client>(server: impl Serve) -> Result<C, Fault> {
    let plugin = InProcess::start_inactive(|dir| Plugin::builder(dir).name(NAME).implement(server)).await?;
    let registry = Registry::open(plugin.dir()).await?;
    registry.load(NAME).await?;
    let client = C::connect(&registry, NAME)?;
    let host = Host { _registry: registry, _plugin: plugin };
    Ok(C::from_caller(client.caller().clone().with_host(host)))
}
