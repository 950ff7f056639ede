//! For applications: calls and notifications of a plugin that implements an interface.

mod streams;

use std::future::Future;
use std::ops::Deref;
use std::time::Duration;

use goplug_pconf_schema::admin::State;
use goplug_pconf_schema::wire::event::Position;
use goplug_pconf_schema::wire::failure::Failure;
use goplug_pconf_schema::{Code, Fault, Ran};
use goplug_registry::{CallOptions, Plugin, Registry, Subscribe, Subscription};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::compare::compare;
use crate::description::{Description, Interface};

/// A typed client. The attribute implements it for `<Trait>Client`, which has a method for each of the trait's.
pub trait Client: Sized {
    /// What it needs.
    type Interface: Interface;

    /// A client whose plugin was checked.
    #[doc(hidden)]
    fn from_caller(caller: Caller) -> Self;

    /// How it calls.
    fn caller(&self) -> &Caller;

    /// A client of a loaded plugin, after a check that the plugin offers the interface: in a version that fits, and each
    /// method and callback as the client needs it ([`crate::compare`]).
    ///
    /// # Errors
    /// `not_found`, or `conflict` for an ambiguous name; `wrong_state` or `unavailable` when it is not loaded; `conflict`
    /// when it does not implement the interface, or differently: then the text and `data` (`{"mismatches": […]}`) list
    /// every mismatch.
    fn connect(registry: &Registry, plugin: &str) -> Result<Self, Fault> {
        Self::of(registry.get(plugin)?)
    }

    /// As [`Client::connect`], of a handle.
    ///
    /// # Errors
    /// As there.
    fn of(plugin: Plugin) -> Result<Self, Fault> {
        check::<Self::Interface>(&plugin)?;
        Ok(Self::from_caller(Caller { plugin, options: CallOptions::default(), _host: None }))
    }

    /// Checks the plugin again: it may be another process than at the time of [`Client::connect`].
    ///
    /// # Errors
    /// As there.
    fn check(&self) -> Result<(), Fault> {
        check::<Self::Interface>(&self.caller().plugin)
    }

    /// The plugin that it calls.
    fn plugin(&self) -> &Plugin {
        &self.caller().plugin
    }

    /// The same client, whose calls end after `deadline` instead of after the method's own.
    #[must_use]
    fn with_deadline(&self, deadline: Duration) -> Self {
        let options = CallOptions { deadline: Some(deadline), ..self.caller().options.clone() };
        self.with_options(options)
    }

    /// The same client, with all that a caller may say about its calls.
    #[must_use]
    fn with_options(&self, options: CallOptions) -> Self {
        Self::from_caller(Caller { options, ..self.caller().clone() })
    }
}

/// Finds plugins by what they implement.
pub trait Find {
    /// All loaded plugins that offer the interface of `C`, in a version that fits and with methods as it needs them, by
    /// name.
    ///
    /// # Example: whoever does arithmetic
    /// ```
    /// use goplug_interface::{Error, Find, interface};
    ///
    /// #[interface(name = "demo.math", version = "1.0.0")]
    /// pub trait Math {
    ///     async fn add(&self, a: i64, b: i64) -> Result<i64, Error>;
    /// }
    ///
    /// async fn add_somewhere(registry: &goplug_registry::Registry) -> Option<i64> {
    ///     registry.find::<MathClient>().first()?.add(1, 2).await.ok()
    /// }
    /// ```
    fn find<C: Client>(&self) -> Vec<C>;
}

impl Find for Registry {
    fn find<C: Client>(&self) -> Vec<C> {
        let loaded = self.plugins().into_iter().filter(|plugin| plugin.state == State::Loaded);
        loaded.filter_map(|plugin| C::connect(self, plugin.id()?.as_str()).ok()).collect()
    }
}

fn check<I: Interface>(plugin: &Plugin) -> Result<(), Fault> {
    let (hello, wanted) = (plugin.hello()?, I::describe());
    let Some(offered) = Description::offered(&hello, I::NAME) else {
        let text = format!("plugin `{}` does not implement interface `{}`", plugin.id(), I::NAME);
        return Err(Fault::new(Code::Conflict, text));
    };
    let told: Vec<_> = compare(&wanted, &offered).iter().map(ToString::to_string).collect();
    if told.is_empty() {
        return Ok(());
    }
    let (id, name, version, all) = (plugin.id(), I::NAME, I::VERSION, told.join("; "));
    let text = format!("plugin `{id}` implements interface `{name}` otherwise than version {version}: {all}");
    Err(Fault::new(Code::Conflict, text).with_data(serde_json::json!({ "mismatches": told })))
}

/// How a client calls: on which plugin, and with what options.
#[derive(Debug, Clone)]
pub struct Caller {
    plugin: Plugin,
    options: CallOptions,
    /// What lives as long as the client.
    _host: Option<Host>,
}

#[cfg(feature = "plugin")]
type Host = std::sync::Arc<crate::test_double::Host>;
#[cfg(not(feature = "plugin"))]
type Host = std::convert::Infallible;

impl Caller {
    #[cfg(feature = "plugin")]
    pub(crate) fn with_host(self, host: crate::test_double::Host) -> Self {
        Self { _host: Some(std::sync::Arc::new(host)), ..self }
    }

    /// Calls `method` with `input` as JSON.
    #[doc(hidden)]
    pub async fn call<I, O, E>(&self, method: &str, input: &I) -> Result<O, E::Seen>
    where
        I: Serialize + Sync,
        O: DeserializeOwned,
        E: Failure,
    {
        self.try_call(method, input).await.map_err(E::seen)
    }

    async fn try_call<I, O>(&self, method: &str, input: &I) -> Result<O, Fault>
    where
        I: Serialize + Sync,
        O: DeserializeOwned,
    {
        let body = self.written(method, input)?;
        let answer = self.plugin.execute_with(method, body, self.options.clone()).await?;
        self.understood(method, &answer.body)
    }

    fn written<I: Serialize>(&self, method: &str, input: &I) -> Result<Vec<u8>, Fault> {
        serde_json::to_vec(input).map_err(|error| {
            let text = format!("the request of method `{method}` cannot be written as JSON: {error}");
            Fault::new(Code::InvalidArgument, text)
        })
    }

    fn understood<O: DeserializeOwned>(&self, method: &str, body: &[u8]) -> Result<O, Fault> {
        serde_json::from_slice(body).map_err(|error| {
            let id = self.plugin.id();
            let text = format!("the reply of method `{method}` of plugin `{id}` is not the JSON it gives: {error}");
            Fault::new(Code::ProtocolError, text).with_ran(Ran::Yes)
        })
    }

    /// Runs `handler` for every notification of `callback`.
    #[doc(hidden)]
    pub async fn on<T, H, F>(&self, callback: &str, name: Option<&str>, mut handler: H) -> Result<Subscription, Fault>
    where
        T: DeserializeOwned + Send + 'static,
        H: FnMut(Notified<T>) -> F + Send + 'static,
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        let how = Subscribe { name: name.map(str::to_owned) };
        let handle = move |notice: goplug_registry::Notice| {
            let read = serde_json::from_slice(&notice.data);
            let handling = read.map(|value| {
                let goplug_registry::Notice { position, key, dropped, .. } = notice;
                handler(Notified { value, position, key, dropped })
            });
            // Tried again like any that fails, then it is a dead letter with this reason.
            async move { handling.map_err(|error| format!("the payload is not the JSON it should be: {error}"))?.await }
        };
        self.plugin.register_callback(callback, how, handle).await
    }
}

/// A notification as a handler sees it: dereferences to its payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notified<T> {
    /// The payload.
    pub value: T,
    /// Where it stands.
    pub position: Option<Position>,
    /// The key of a `state` message.
    pub key: Option<String>,
    /// How many `lossy` messages were dropped just before.
    pub dropped: u64,
}

impl<T> Deref for Notified<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}
