//! For plugins: what answers an interface.

use std::future::Future;

use goplug_pconf_schema::wire::failure::Failure;
use goplug_pconf_schema::{Code, Fault};
use goplug_plugin_impl::{Callback, Context, Method, PluginBuilder};
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::description::Description;

/// What answers an interface. The attribute implements it for `<Trait>Server`.
pub trait Serve {
    /// Adds the interface, its methods and its callbacks to a plugin.
    fn serve(self, builder: PluginBuilder) -> PluginBuilder;
}

/// Makes a plugin implement an interface.
pub trait Implement: Sized {
    /// Adds the methods and callbacks of an interface, and says so in the hello. A plugin may implement several, as long as
    /// their names differ.
    ///
    /// # Example: arithmetic
    /// ```no_run
    /// use goplug_interface::{Error, Implement, interface};
    /// use goplug_plugin_impl::Plugin;
    ///
    /// #[interface(name = "demo.math", version = "1.0.0")]
    /// pub trait Math {
    ///     async fn add(&self, a: i64, b: i64) -> Result<i64, Error>;
    /// }
    ///
    /// struct Calculator;
    ///
    /// impl Math for Calculator {
    ///     async fn add(&self, a: i64, b: i64) -> Result<i64, Error> {
    ///         Ok(a + b)
    ///     }
    /// }
    ///
    /// fn main() -> Result<(), Error> {
    ///     Plugin::builder("plugins").name("math").implement(MathServer::new(Calculator)).build()?.run_blocking()
    /// }
    /// ```
    #[must_use]
    fn implement(self, server: impl Serve) -> Self;
}

impl Implement for PluginBuilder {
    fn implement(self, server: impl Serve) -> Self {
        server.serve(self)
    }
}

/// Says that the plugin implements the interface, and declares its callbacks.
pub fn declare(builder: PluginBuilder, interface: &Description) -> PluginBuilder {
    let callbacks = interface.callbacks.iter().cloned().map(Callback::described);
    callbacks.fold(builder.interface(interface.info()), PluginBuilder::callback)
}

/// Answers the method at a place of the interface with an async function.
pub fn answer_async<I, O, E, F, A>(
    builder: PluginBuilder,
    interface: &Description,
    place: usize,
    function: F,
) -> PluginBuilder
where
    I: DeserializeOwned + JsonSchema + 'static,
    O: Serialize + JsonSchema + 'static,
    E: Failure,
    F: Fn(Context, I) -> A + Send + Sync + 'static,
    A: Future<Output = Result<O, E>> + Send + 'static,
{
    let Some(info) = interface.methods.get(place) else { return builder };
    builder.typed_async(Method::described(info.clone()), move |context, input| {
        let reply = function(context, input);
        async move { reply.await.map_err(E::into_fault) }
    })
}

/// Answers the method at a place of the interface with a function that may block.
pub fn answer_blocking<I, O, E, F>(
    builder: PluginBuilder,
    interface: &Description,
    place: usize,
    function: F,
) -> PluginBuilder
where
    I: DeserializeOwned + JsonSchema + 'static,
    O: Serialize + JsonSchema + 'static,
    E: Failure,
    F: Fn(&Context, I) -> Result<O, E> + Send + Sync + 'static,
{
    let Some(info) = interface.methods.get(place) else { return builder };
    let answer = move |context: &Context, input| function(context, input).map_err(E::into_fault);
    builder.typed(Method::described(info.clone()), answer)
}

/// The payload of a notification, as JSON.
pub fn payload<T: Serialize>(callback: &str, payload: &T) -> Result<Vec<u8>, Fault> {
    serde_json::to_vec(payload).map_err(|error| {
        let text = format!("the payload of callback `{callback}` cannot be written as JSON: {error}");
        Fault::new(Code::InvalidArgument, text)
    })
}
