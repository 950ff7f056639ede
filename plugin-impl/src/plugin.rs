//! A plugin before it starts: the builder, and what it builds.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use goplug_pconf_schema::wire::PROTOCOL;
use goplug_pconf_schema::wire::call::MAX_DEADLINE_MS;
use goplug_pconf_schema::wire::hello::{
    Hello, InterfaceInfo, Limits, MAX_CALLBACKS, MAX_HELLO_BYTES, MAX_METHODS, MethodInfo,
};
use goplug_pconf_schema::wire::life::Health;
use goplug_pconf_schema::wire::{frame, memfd, shm};
use goplug_pconf_schema::{Code, Fault, Pconf, PluginId, check_call_name};
use goplug_transport::{Latency, View};
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::body::{BlockingBody, Body};
use crate::callback::Callback;
use crate::context::Context;
use crate::method::{Function, Method, ReplyStream};
use crate::notify::Notifier;
use crate::publish::default_socket;
use crate::service::{Entry, Hooks, Pace, Service};
use crate::typed;

/// Names the socket of a plugin that does not name one itself.
const SOCKET_VARIABLE: &str = "GOPLUG_PLUGIN_SOCKET";
/// The largest window of a callback: what one line of an event stream may hold.
const MAX_WINDOW_BYTES: usize = 64 * 1024 * 1024;

/// A plugin that has not started yet.
///
/// # Example: the smallest plugin
/// ```no_run
/// use goplug_plugin_impl::{Error, Plugin};
///
/// fn main() -> Result<(), Error> {
///     Plugin::builder("plugins")
///         .namespace("Test")
///         .name("Do")
///         .method("main.Do", |_cx, body| Ok(body))
///         .build()?
///         .run_blocking()
/// }
/// ```
#[derive(Debug)]
pub struct Plugin {
    pub(crate) service: Arc<Service>,
    pub(crate) pconf: Pconf,
    pub(crate) dir: PathBuf,
    pub(crate) socket: PathBuf,
    pub(crate) is_published: bool,
}

impl Plugin {
    /// A plugin that publishes itself in the plugin directory `dir`.
    pub fn builder(dir: impl Into<PathBuf>) -> PluginBuilder {
        PluginBuilder {
            dir: dir.into(),
            name: String::new(),
            namespace: String::new(),
            url: None,
            lazy_load: false,
            version: None,
            description: None,
            socket: None,
            is_published: true,
            limits: Limits::default(),
            latency: Latency::default(),
            shared_memory: true,
            hooks: Hooks::default(),
            methods: Vec::new(),
            callbacks: Vec::new(),
            interfaces: Vec::new(),
        }
    }

    /// Sends notifications, also before the plugin starts.
    pub fn notifier(&self) -> Notifier {
        self.service.notifier().clone()
    }
}

/// What a plugin is made of. Everything but the name has a default; problems are told by [`PluginBuilder::build`], all
/// at once.
pub struct PluginBuilder {
    dir: PathBuf,
    name: String,
    namespace: String,
    url: Option<String>,
    lazy_load: bool,
    version: Option<String>,
    description: Option<String>,
    socket: Option<PathBuf>,
    is_published: bool,
    limits: Limits,
    latency: Latency,
    shared_memory: bool,
    hooks: Hooks,
    methods: Vec<(MethodInfo, Function)>,
    callbacks: Vec<Callback>,
    interfaces: Vec<InterfaceInfo>,
}

impl PluginBuilder {
    /// The name, unique in its namespace. Required.
    #[must_use]
    pub fn name(mut self, name: &str) -> Self {
        self.name = name.to_owned();
        self
    }

    /// The namespace; none when it is empty or not set.
    #[must_use]
    pub fn namespace(mut self, namespace: &str) -> Self {
        self.namespace = namespace.to_owned();
        self
    }

    /// The `Url` of the `.pconf`, whose authority v0 applications send as `Host`; `unix://<NameSpace><Name>` when it is
    /// not set.
    #[must_use]
    pub fn url(mut self, url: &str) -> Self {
        self.url = Some(url.to_owned());
        self
    }

    /// Whether registries only load it when it is asked for.
    #[must_use]
    pub fn lazy_load(mut self, lazy: bool) -> Self {
        self.lazy_load = lazy;
        self
    }

    /// The plugin's own version (SemVer).
    #[must_use]
    pub fn version(mut self, version: &str) -> Self {
        self.version = Some(version.to_owned());
        self
    }

    /// One line for people.
    #[must_use]
    pub fn description(mut self, description: &str) -> Self {
        self.description = Some(description.to_owned());
        self
    }

    /// Runs when a registry activates the plugin, once per activation and on a thread that may block. It is given the
    /// operator's settings, a JSON object, and what it returns is the activation's output. When it fails, the plugin
    /// stays inactive and whoever asked is told `method_failed`.
    #[must_use]
    pub fn activator<F, R>(mut self, activator: F) -> Self
    where
        F: Fn(Value) -> Result<R, Fault> + Send + Sync + 'static,
        R: Into<Bytes>,
    {
        self.hooks.activator = Some(Arc::new(move |settings| activator(settings).map(Into::into)));
        self
    }

    /// Runs when an activation ends, after its calls, on a thread that may block. What it returns is shown to whoever
    /// asked for the end.
    #[must_use]
    pub fn stopper<F, R>(mut self, stopper: F) -> Self
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Into<Bytes>,
    {
        self.hooks.stopper = Some(Arc::new(move || stopper().into()));
        self
    }

    /// The author's own verdict on the plugin, asked by people and watchdogs; `ok` when it is not set. After 5 s its
    /// silence counts as `failing`.
    #[must_use]
    pub fn health(mut self, check: impl Fn() -> Health + Send + Sync + 'static) -> Self {
        self.hooks.health = Some(Arc::new(check));
        self
    }

    /// A method on bytes. It may block: one that takes long runs on a thread of its own.
    #[must_use]
    pub fn method<F, R>(self, method: impl Into<Method>, function: F) -> Self
    where
        F: Fn(&Context, Bytes) -> Result<R, Fault> + Send + Sync + 'static,
        R: Into<Bytes>,
    {
        self.add(method.into().info, Function::blocking(function))
    }

    /// As [`PluginBuilder::method`], on a body that is read where the caller has written it, if it lies in shared memory; with
    /// [`Context::segment`] for the reply nobody copies either of them.
    ///
    /// # Example: a sum, as fast as memory can be read
    /// ```
    /// use goplug_plugin_impl::testing::InProcess;
    /// use goplug_plugin_impl::{Error, Plugin};
    ///
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Error> {
    /// let plugin = InProcess::start(|dir| {
    ///     Plugin::builder(dir).name("adder").method_view("sum", |_cx, body| {
    ///         Ok(body.words().map(u64::from_le).sum::<u64>().to_string())
    ///     })
    /// })
    /// .await?;
    /// assert_eq!(plugin.call("sum", vec![1, 0, 0, 0, 0, 0, 0, 0, 2]).await?, "3");
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn method_view<F, R>(self, method: impl Into<Method>, function: F) -> Self
    where
        F: Fn(&Context, View) -> Result<R, Fault> + Send + Sync + 'static,
        R: Into<Bytes>,
    {
        self.add(method.into().info, Function::viewing(function))
    }

    /// An async method on bytes. It must not block its thread. It is dropped when nobody waits for it any more.
    #[must_use]
    pub fn method_async<F, A, R>(self, method: impl Into<Method>, function: F) -> Self
    where
        F: Fn(Context, Bytes) -> A + Send + Sync + 'static,
        A: Future<Output = Result<R, Fault>> + Send + 'static,
        R: Into<Bytes>,
    {
        self.add(method.into().info, Function::asynchronous(function))
    }

    /// An async method whose reply is sent piece by piece. A failure before the first piece is told; after it the
    /// connection is closed, so that the caller sees that the reply is not whole.
    #[must_use]
    pub fn method_stream<F, A>(self, method: impl Into<Method>, function: F) -> Self
    where
        F: Fn(Context, Bytes, ReplyStream) -> A + Send + Sync + 'static,
        A: Future<Output = Result<(), Fault>> + Send + 'static,
    {
        self.add(method.into().info, Function::streaming(function))
    }

    /// An async method that reads its body while it comes, for bodies that need not fit into memory.
    ///
    /// It is called with the first bytes of the request, and dropped when nobody waits for it any more. The whole body may
    /// have [`PluginBuilder::max_request_bytes`]: a call that goes beyond ends with `too_large`, `ran` `yes`. To a caller that
    /// sends its body whole it is a method as any other.
    #[must_use]
    pub fn method_body<F, A, R>(self, method: impl Into<Method>, function: F) -> Self
    where
        F: Fn(Context, Body) -> A + Send + Sync + 'static,
        A: Future<Output = Result<R, Fault>> + Send + 'static,
        R: Into<Bytes>,
    {
        self.add(method.into().info, Function::reading(function))
    }

    /// As [`PluginBuilder::method_body`], for a function that blocks; it runs on a thread of its own.
    #[must_use]
    pub fn method_body_blocking<F, R>(self, method: impl Into<Method>, function: F) -> Self
    where
        F: Fn(&Context, BlockingBody) -> Result<R, Fault> + Send + Sync + 'static,
        R: Into<Bytes>,
    {
        self.add(method.into().info, Function::reading_blocking(function))
    }

    /// An async method that reads its body while it comes and sends its reply piece by piece: [`PluginBuilder::method_body`]
    /// and [`PluginBuilder::method_stream`] in one. A caller that only sends, or only reads, can hold it up until the deadline.
    #[must_use]
    pub fn method_duplex<F, A>(self, method: impl Into<Method>, function: F) -> Self
    where
        F: Fn(Context, Body, ReplyStream) -> A + Send + Sync + 'static,
        A: Future<Output = Result<(), Fault>> + Send + 'static,
    {
        self.add(method.into().info, Function::duplex(function))
    }

    /// A method on JSON, whose schemas are published. It may block as [`PluginBuilder::method`]. A body that is not the
    /// JSON it takes is `invalid_argument`; an empty body reads as `null`.
    #[must_use]
    pub fn typed<I, O, F>(self, method: impl Into<Method>, function: F) -> Self
    where
        I: DeserializeOwned + JsonSchema + 'static,
        O: Serialize + JsonSchema + 'static,
        F: Fn(&Context, I) -> Result<O, Fault> + Send + Sync + 'static,
    {
        let mut info = method.into().info;
        let function = typed::blocking(&mut info, function);
        self.add(info, function)
    }

    /// An async method on JSON, as [`PluginBuilder::typed`] otherwise. It must not block its thread. It is dropped when
    /// nobody waits for it any more.
    #[must_use]
    pub fn typed_async<I, O, F, A>(self, method: impl Into<Method>, function: F) -> Self
    where
        I: DeserializeOwned + JsonSchema + 'static,
        O: Serialize + JsonSchema + 'static,
        F: Fn(Context, I) -> A + Send + Sync + 'static,
        A: Future<Output = Result<O, Fault>> + Send + 'static,
    {
        let mut info = method.into().info;
        let function = typed::asynchronous(&mut info, function);
        self.add(info, function)
    }

    /// An async method that takes JSON, as [`PluginBuilder::typed_async`], and sends its reply piece by piece, as
    /// [`PluginBuilder::method_stream`]. What the pieces are is up to it, and to what it says of itself.
    #[must_use]
    pub fn typed_stream<I, F, A>(self, method: impl Into<Method>, function: F) -> Self
    where
        I: DeserializeOwned + JsonSchema + 'static,
        F: Fn(Context, I, ReplyStream) -> A + Send + Sync + 'static,
        A: Future<Output = Result<(), Fault>> + Send + 'static,
    {
        let mut info = method.into().info;
        let function = typed::streaming(&mut info, function);
        self.add(info, function)
    }

    /// Says that the plugin implements an interface with methods and callbacks that it declares; they are compared when
    /// an application asks for the interface.
    #[must_use]
    pub fn interface(mut self, interface: InterfaceInfo) -> Self {
        self.interfaces.push(interface);
        self
    }

    /// Declares a callback: only what is declared can be notified and subscribed to.
    #[must_use]
    pub fn callback(mut self, callback: impl Into<Callback>) -> Self {
        self.callbacks.push(callback.into());
        self
    }

    /// The largest request body, 64 MiB when it is not set; beyond it `too_large`.
    #[must_use]
    pub fn max_request_bytes(mut self, bytes: u64) -> Self {
        self.limits.max_request_bytes = bytes;
        self
    }

    /// Calls at once, 256 when it is not set; beyond it `overloaded`. Blocking methods take a thread each, of the 512
    /// that the runtime has; further ones wait for a thread.
    #[must_use]
    pub fn max_concurrent_calls(mut self, calls: u32) -> Self {
        self.limits.max_concurrent_calls = calls;
        self
    }

    /// Whether the thread that reads a frame connection looks for calls before it sleeps (default:
    /// [`Latency::Balanced`]).
    #[must_use]
    pub fn latency(mut self, latency: Latency) -> Self {
        self.latency = latency;
        self
    }

    /// Whether memory is shared with a registry that wants to (default: yes): calls may come through it, 2 MiB for each such
    /// connection, and bodies may stay where they were written ([`Context::segment`]).
    #[must_use]
    pub fn shared_memory(mut self, on: bool) -> Self {
        self.shared_memory = on;
        self
    }

    /// The socket, at most 107 bytes of path; else what the environment variable `GOPLUG_PLUGIN_SOCKET` says, else
    /// `<NameSpace><Name>.<8 digits of the epoch>.sock` in the plugin directory.
    #[must_use]
    pub fn socket(mut self, path: impl Into<PathBuf>) -> Self {
        self.socket = Some(path.into());
        self
    }

    /// Whether the `.pconf` is written (default: yes). A registry that started the plugin from its manifest knows where it
    /// listens.
    #[must_use]
    pub fn publish(mut self, on: bool) -> Self {
        self.is_published = on;
        self
    }

    /// Checks everything. Nothing is written yet.
    ///
    /// # Errors
    /// `invalid_argument` that lists every problem.
    pub fn build(self) -> Result<Plugin, Fault> {
        let mut problems = Vec::new();
        let epoch = fresh_epoch()?;
        let id = PluginId::new(&self.namespace, &self.name).map_err(|error| problems.push(error.to_string())).ok();
        let dir = std::path::absolute(&self.dir)
            .map_err(|error| problems.push(format!("plugin directory `{}`: {error}", self.dir.display())))
            .unwrap_or_default();
        self.check(&mut problems);
        let (Some(id), []) = (id, problems.as_slice()) else { return Err(refused(&problems)) };

        let from_environment = || std::env::var_os(SOCKET_VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from);
        let socket = self.socket.clone().or_else(from_environment).unwrap_or_else(|| default_socket(&dir, &id, &epoch));
        let pconf = self.pconf(&id, &epoch, &sock_field(&dir, &socket));
        let socket = pconf.socket_path(&dir).map_err(|why| refused(&[why]))?;
        // What we write must be what a registry can read.
        Pconf::parse(&pconf.to_json()).map_err(|error| refused(&[error.to_string()]))?;

        let hello = self.hello(&id, &epoch);
        hello.check_interfaces().map_err(|problem| refused(&[problem]))?;
        let size = serde_json::to_vec(&hello).map_or(usize::MAX, |text| text.len());
        if size > MAX_HELLO_BYTES {
            return Err(refused(&[format!("the hello is {size} bytes, the limit is {MAX_HELLO_BYTES}")]));
        }
        let notifier = Notifier::new(self.callbacks, &Arc::from(epoch));
        let entries = self.methods.into_iter().zip(0..).map(|((info, function), place)| Entry {
            place,
            name: info.name.as_str().into(),
            turn: info.serial.then(Arc::default),
            info,
            function,
            pace: Pace::default(),
        });
        let service = Service::new(hello, entries.collect(), notifier, self.hooks, self.latency);
        Ok(Plugin { service: Arc::new(service), pconf, dir, socket, is_published: self.is_published })
    }

    fn add(mut self, info: MethodInfo, function: Function) -> Self {
        self.methods.push((info, function));
        self
    }

    fn check(&self, problems: &mut Vec<String>) {
        let methods = self.methods.iter().map(|(info, _)| info.name.as_str());
        check_names("method", MAX_METHODS, methods, problems);
        let callbacks = self.callbacks.iter().map(|callback| callback.info.name.as_str());
        check_names("callback", MAX_CALLBACKS, callbacks, problems);
        for (info, _) in &self.methods {
            if let Some(ms) = info.deadline_ms.filter(|ms| !(1..=MAX_DEADLINE_MS).contains(ms)) {
                problems
                    .push(format!("deadline of method `{}` is {ms} ms, it must be 1 to {MAX_DEADLINE_MS}", info.name));
            }
        }
        for callback in &self.callbacks {
            let (name, bounds) = (&callback.info.name, callback.bounds);
            if bounds.messages == 0 || !(1..=MAX_WINDOW_BYTES).contains(&bounds.bytes) {
                let (messages, bytes) = (bounds.messages, bounds.bytes);
                problems.push(format!(
                    "window of callback `{name}` is {messages} messages and {bytes} bytes, \
                     it must be at least 1 message and 1 to {MAX_WINDOW_BYTES} bytes"
                ));
            }
        }
        if self.limits.max_concurrent_calls == 0 {
            problems.push("max_concurrent_calls is 0: no method could ever be called".to_owned());
        }
    }

    fn pconf(&self, id: &PluginId, epoch: &str, sock: &str) -> Pconf {
        let mut pconf = Pconf::new(id.clone(), sock);
        if let Some(url) = &self.url {
            pconf.url.clone_from(url);
        }
        pconf.lazy_load = self.lazy_load;
        pconf.protocol = Some(PROTOCOL);
        pconf.epoch = Some(epoch.to_owned());
        pconf.version.clone_from(&self.version);
        pconf.description.clone_from(&self.description);
        pconf.pid = Some(std::process::id().into());
        pconf
    }

    fn hello(&self, id: &PluginId, epoch: &str) -> Hello {
        Hello {
            protocols: vec![PROTOCOL],
            protocol: None,
            features: std::iter::once(frame::FEATURE)
                .chain([shm::FEATURE, memfd::FEATURE].into_iter().filter(|_| self.shared_memory))
                .map(str::to_owned)
                .collect(),
            namespace: id.namespace().to_owned(),
            name: id.name().to_owned(),
            version: self.version.clone(),
            description: self.description.clone(),
            epoch: epoch.to_owned(),
            pid: Some(std::process::id()),
            active: false,
            methods: self.methods.iter().map(|(info, _)| info.clone()).collect(),
            callbacks: self.callbacks.iter().map(|callback| callback.info.clone()).collect(),
            interfaces: self.interfaces.clone(),
            limits: self.limits,
        }
    }
}

/// How the `.pconf` names the socket: by its file name alone when it is in the plugin directory, which may then move.
fn sock_field(dir: &Path, socket: &Path) -> String {
    let socket = std::path::absolute(socket).unwrap_or_else(|_| socket.to_owned());
    socket.strip_prefix(dir).unwrap_or(&socket).to_string_lossy().into_owned()
}

fn check_names<'a>(what: &str, limit: usize, names: impl Iterator<Item = &'a str>, problems: &mut Vec<String>) {
    let mut seen = std::collections::HashSet::new();
    for name in names {
        if let Err(error) = check_call_name(what, name) {
            problems.push(error.to_string());
        }
        if !seen.insert(name) {
            problems.push(format!("{what} `{name}` is there twice"));
        }
    }
    if seen.len() > limit {
        problems.push(format!("{} {what}s, the limit is {limit}", seen.len()));
    }
}

fn refused(problems: &[String]) -> Fault {
    Fault::new(Code::InvalidArgument, problems.join("; "))
}

/// 32 lower-case hex digits of the kernel's randomness.
pub(crate) fn fresh_epoch() -> Result<String, Fault> {
    let mut random = [0_u8; 16];
    let mut filled = 0;
    while filled < random.len() {
        let rest = &mut random[filled..];
        filled += rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty())
            .or_else(|error| if error == rustix::io::Errno::INTR { Ok(0) } else { Err(error) })
            .map_err(|error| Fault::new(Code::Internal, format!("no random bytes for the epoch: {error}")))?;
    }
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}
