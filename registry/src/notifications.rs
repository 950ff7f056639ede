//! Who hears what plugins notify.

use goplug_pconf_schema::Fault;
use goplug_pconf_schema::admin::{CallbackList, DeadLetter};
use goplug_pconf_schema::wire::event::Position;

use crate::callback::{self, Feed, Notice, Subscribe, Subscription};
use crate::registry::Registry;
use crate::tasks::Pending;

impl Registry {
    /// The plugin's callbacks and who subscribed to them. A v0 plugin tells nothing of its callbacks.
    ///
    /// # Errors
    /// `wrong_state` or `unavailable` when it is not loaded.
    ///
    /// # Cancel safety
    /// Safe.
    pub fn callbacks<'a>(&'a self, plugin: &'a str) -> Pending<'a, Result<CallbackList, Fault>> {
        Box::pin(async move { callback::list(&*self.inner.resolve(plugin)?).await })
    }

    /// Runs `handler` for every notification of `callback`, one at a time and in order, until the subscription is closed or
    /// dropped. A notification is acknowledged when its handler has returned; one whose handler fails is tried again after
    /// 100 ms, 1 s and 10 s, then it goes to the [dead letters](Registry::dead_letters). Survives the plugin: a successor is
    /// subscribed to in turn.
    ///
    /// When this returns and the plugin serves, the subscription is attached: what is notified from then on arrives. (A v0
    /// plugin is asked a moment later.)
    ///
    /// # Example: a handler that fails for good
    /// ```no_run
    /// use goplug_registry::{Registry, Subscribe};
    ///
    /// # async fn example(registry: &Registry) -> Result<(), goplug_registry::Error> {
    /// let subscribe = Subscribe { name: Some("billing".into()) };
    /// let subscription = registry
    ///     .register_callback("Test/Do", "orders", subscribe, |notice| async move {
    ///         // An error is tried again three times, and then a dead letter.
    ///         std::str::from_utf8(&notice.data).map(|order| println!("{order}")).map_err(|error| error.to_string())
    ///     })
    ///     .await?;
    /// for letter in registry.dead_letters() {
    ///     eprintln!("{letter:?}");
    /// }
    /// drop(subscription);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `not_found` for a plugin, or a loaded plugin's callback, that does not exist; `invalid_argument` for a bad name;
    /// `overloaded` when the callback has 64 subscriptions.
    ///
    /// # Cancel safety
    /// Dropping the future gives the subscription up; where the plugin has attached it already, its place is held for 60 s.
    pub async fn register_callback<H, F>(
        &self,
        plugin: &str,
        callback: &str,
        how: Subscribe,
        handler: H,
    ) -> Result<Subscription, Fault>
    where
        H: FnMut(Notice) -> F + Send + 'static,
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        callback::register(&self.inner, self.inner.resolve(plugin)?, callback, how, handler).await
    }

    /// Attaches the subscription `name` and gives its notifications one by one; the caller acknowledges. Whoever attaches
    /// the same name later ends this feed.
    ///
    /// # Errors
    /// As [`Registry::register_callback`].
    ///
    /// # Cancel safety
    /// As [`Registry::register_callback`].
    pub fn subscribe<'a>(
        &'a self,
        plugin: &'a str,
        callback: &'a str,
        name: &'a str,
    ) -> Pending<'a, Result<Feed, Fault>> {
        Box::pin(async move { callback::subscribe(&self.inner, self.inner.resolve(plugin)?, callback, name).await })
    }

    /// Watches a callback without a subscription: from `after`, else from now; holds nothing back, is told of gaps.
    ///
    /// # Errors
    /// As [`Registry::register_callback`].
    ///
    /// # Cancel safety
    /// Safe.
    pub fn observe<'a>(
        &'a self,
        plugin: &'a str,
        callback: &'a str,
        after: Option<Position>,
    ) -> Pending<'a, Result<Feed, Fault>> {
        Box::pin(async move { callback::observe(&self.inner, self.inner.resolve(plugin)?, callback, after).await })
    }

    /// Passes an acknowledgement on: everything of `callback` up to `position` was handled by `subscription`.
    ///
    /// # Errors
    /// What the plugin answers: `invalid_argument` beyond what was sent, `conflict` for another epoch, `not_found` for an
    /// unknown subscription.
    ///
    /// # Cancel safety
    /// Dropping the future does not take back what was sent.
    pub fn ack<'a>(
        &'a self,
        plugin: &'a str,
        callback: &'a str,
        subscription: &'a str,
        position: &'a Position,
    ) -> Pending<'a, Result<(), Fault>> {
        Box::pin(async move { callback::ack(&*self.inner.resolve(plugin)?, callback, subscription, position).await })
    }

    /// The last 100 notifications whose handler failed every time.
    pub fn dead_letters(&self) -> Vec<DeadLetter> {
        self.inner.dead_letters.list()
    }
}
