//! For plugins: what answers an interface.

use std::future::Future;
use std::sync::Arc;

use goplug_pconf_schema::wire::failure::Failure;
use goplug_pconf_schema::{Code, Fault, Ran};
use goplug_plugin_impl::{Body, Callback, Context, Method, PluginBuilder, ReplyStream};
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::description::Description;
use crate::stream::{Incoming, Lines, Pieces, Stream, failure, line};

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

/// Answers a method that gives a stream.
pub fn answer_giving<I, T, E, F, A>(
    builder: PluginBuilder,
    interface: &Description,
    place: usize,
    function: F,
) -> PluginBuilder
where
    I: DeserializeOwned + JsonSchema + 'static,
    T: Serialize + Send + 'static,
    E: Failure,
    F: Fn(Context, I) -> A + Send + Sync + 'static,
    A: Future<Output = Result<Stream<T>, E>> + Send + 'static,
{
    let Some(info) = interface.methods.get(place) else { return builder };
    builder.typed_stream(Method::described(info.clone()), move |context, input, out| {
        let items = function(context, input);
        async move { pour(items.await.map_err(E::into_fault)?, &out).await }
    })
}

/// Answers a method that takes a stream. `alone`: and nothing else.
pub fn answer_taking<I, T, O, E, F, A>(
    builder: PluginBuilder,
    interface: &Description,
    place: usize,
    alone: bool,
    function: F,
) -> PluginBuilder
where
    I: DeserializeOwned + Send + 'static,
    T: DeserializeOwned + Send + 'static,
    O: Serialize + 'static,
    E: Failure,
    F: Fn(Context, I, Stream<T>) -> A + Send + Sync + 'static,
    A: Future<Output = Result<O, E>> + Send + 'static,
{
    let Some(info) = interface.methods.get(place) else { return builder };
    let function = Arc::new(function);
    builder.method_body(Method::described(info.clone()), move |context, body| {
        let function = Arc::clone(&function);
        async move {
            let (input, items) = begin(&context, body, alone).await?;
            let output = function(context, input, items).await.map_err(E::into_fault)?;
            serde_json::to_vec(&output).map_err(|error| {
                Fault::new(Code::MethodFailed, format!("the reply cannot be written as JSON: {error}"))
            })
        }
    })
}

/// Answers a method that takes a stream and gives one. `alone`: takes nothing else.
pub fn answer_taking_and_giving<I, T, O, E, F, A>(
    builder: PluginBuilder,
    interface: &Description,
    place: usize,
    alone: bool,
    function: F,
) -> PluginBuilder
where
    I: DeserializeOwned + Send + 'static,
    T: DeserializeOwned + Send + 'static,
    O: Serialize + Send + 'static,
    E: Failure,
    F: Fn(Context, I, Stream<T>) -> A + Send + Sync + 'static,
    A: Future<Output = Result<Stream<O>, E>> + Send + 'static,
{
    let Some(info) = interface.methods.get(place) else { return builder };
    let function = Arc::new(function);
    builder.method_duplex(Method::described(info.clone()), move |context, body, out| {
        let function = Arc::clone(&function);
        async move {
            let (input, items) = begin(&context, body, alone).await?;
            pour(function(context, input, items).await.map_err(E::into_fault)?, &out).await
        }
    })
}

/// What stands in the first line, if anything does, and the items that follow.
async fn begin<I, T>(context: &Context, body: Body, alone: bool) -> Result<(I, Stream<T>), Fault>
where
    I: DeserializeOwned,
    T: DeserializeOwned + Send + 'static,
{
    let mut items = Incoming::new(Request(body));
    let input = match alone {
        true => None,
        false => items.item().await?,
    };
    // Nothing at all reads as `null`.
    let input = input.unwrap_or(serde_json::Value::Null);
    let input = serde_json::from_value(input).map_err(|error| {
        let text = format!("the first line of the request of method `{}`: {error}", context.method());
        Fault::new(Code::InvalidArgument, text)
    })?;
    Ok((input, Stream::of(items)))
}

/// Sends items as they come. The first thing that is sent, an empty line, says that the method has begun; what fails from
/// then on is told in the last line.
async fn pour<T: Serialize + Send + 'static>(mut items: Stream<T>, out: &ReplyStream) -> Result<(), Fault> {
    out.send("\n").await?;
    loop {
        let next = match items.next().await {
            Ok(Some(item)) => line(&item),
            Ok(None) => return Ok(()),
            Err(fault) => Err(fault),
        };
        match next {
            Ok(line) => out.send(line).await?,
            Err(fault) => return out.send(failure(&fault.with_ran(Ran::Yes))).await,
        }
    }
}

/// The request of a call.
struct Request(Body);

impl Pieces for Request {
    async fn receive(&mut self, lines: &mut Lines) -> Result<bool, Fault> {
        let Some(piece) = self.0.next().await? else { return Ok(false) };
        lines.push(&piece);
        Ok(true)
    }

    fn misread(&self, what: &str, why: &dyn std::fmt::Display) -> Fault {
        Fault::new(Code::InvalidArgument, format!("{what}: {why}"))
    }
}

/// The payload of a notification, as JSON.
pub fn payload<T: Serialize>(callback: &str, payload: &T) -> Result<Vec<u8>, Fault> {
    serde_json::to_vec(payload).map_err(|error| {
        let text = format!("the payload of callback `{callback}` cannot be written as JSON: {error}");
        Fault::new(Code::InvalidArgument, text)
    })
}
