//! Callbacks: what an author says about one before the plugin starts.

use goplug_pconf_schema::wire::event::Class;
use goplug_pconf_schema::wire::hello::CallbackInfo;
use schemars::JsonSchema;

use crate::notify::window::Bounds;

/// A callback's name, its class, and how much is kept for slow subscribers. A plain `&str` is one of class `event`.
///
/// # Example: progress that may skip steps, but whose last step always arrives
/// ```
/// use goplug_plugin_impl::Callback;
/// let progress = Callback::state("progress").description("Percent done").payload::<u8>();
/// ```
#[derive(Debug, Clone)]
pub struct Callback {
    pub(crate) info: CallbackInfo,
    pub(crate) bounds: Bounds,
}

impl Callback {
    /// At least once, in order per subscription: a slow subscriber holds `notify` back.
    pub fn event(name: impl Into<String>) -> Self {
        Self::new(name, Class::Event)
    }

    /// The last value per key always arrives: what is in between may be merged.
    pub fn state(name: impl Into<String>) -> Self {
        Self::new(name, Class::State)
    }

    /// At most once: what a slow subscriber did not take is dropped, and counted.
    pub fn lossy(name: impl Into<String>) -> Self {
        Self::new(name, Class::Lossy)
    }

    /// A callback as the hello is to show it.
    pub fn described(info: CallbackInfo) -> Self {
        Self { info, bounds: Bounds::default() }
    }

    fn new(name: impl Into<String>, class: Class) -> Self {
        let info = CallbackInfo { name: name.into(), class, description: None, payload: None };
        Self { info, bounds: Bounds::default() }
    }

    /// One line for people.
    #[must_use]
    pub fn description(mut self, text: impl Into<String>) -> Self {
        self.info.description = Some(text.into());
        self
    }

    /// Keeps at most this many messages and bytes, instead of 1,024 and 4 MiB, at most 64 MiB. `bytes` is the largest
    /// message, too; a `state` callback has no limit of messages but one of keys, 10,000.
    #[must_use]
    pub fn window(mut self, messages: usize, bytes: usize) -> Self {
        self.bounds = Bounds { messages, bytes };
        self
    }

    /// Publishes the JSON Schema of `T` as that of the payload.
    #[must_use]
    pub fn payload<T: JsonSchema>(mut self) -> Self {
        self.info.payload = Some(schemars::schema_for!(T).to_value());
        self
    }
}

impl<T: Into<String>> From<T> for Callback {
    fn from(name: T) -> Self {
        Self::event(name)
    }
}
