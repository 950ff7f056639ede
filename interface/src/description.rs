//! What an interface is: a name, a version, methods and callbacks with their schemas.

use goplug_pconf_schema::wire::event::Class;
use goplug_pconf_schema::wire::failure::Failure;
use goplug_pconf_schema::wire::hello::{CallbackInfo, Hello, InterfaceInfo, MethodInfo};
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// An interface at compile time: the attribute implements it for `<Trait>Interface`.
pub trait Interface {
    /// Its name, such as `demo.math`.
    const NAME: &'static str;
    /// Its version (SemVer).
    const VERSION: &'static str;

    /// All of it, with the schemas of its types.
    fn describe() -> Description;
}

/// An interface as data: what an application wants, or what a plugin offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// Its name.
    pub name: String,
    /// Its version (SemVer).
    pub version: String,
    /// Its methods.
    pub methods: Vec<MethodInfo>,
    /// Its callbacks.
    pub callbacks: Vec<CallbackInfo>,
}

impl Description {
    /// What a plugin offers of the interface `name`; `None` when it does not implement it.
    pub fn offered(hello: &Hello, name: &str) -> Option<Self> {
        let info = hello.interfaces.iter().find(|interface| interface.name == name)?;
        Some(Self {
            name: info.name.clone(),
            version: info.version.clone(),
            methods: info.methods.iter().filter_map(|method| hello.method(method)).cloned().collect(),
            callbacks: info.callbacks.iter().filter_map(|callback| hello.callback(callback)).cloned().collect(),
        })
    }

    /// How the hello names it.
    pub fn info(&self) -> InterfaceInfo {
        InterfaceInfo {
            name: self.name.clone(),
            version: self.version.clone(),
            methods: self.methods.iter().map(|method| method.name.clone()).collect(),
            callbacks: self.callbacks.iter().map(|callback| callback.name.clone()).collect(),
        }
    }
}

/// What a method of an interface returns.
#[diagnostic::on_unimplemented(
    message = "a method of an interface returns a `Result`",
    label = "a call may always fail"
)]
pub trait Outcome {
    /// Its reply.
    type Reply;
    /// Its error.
    type Error;
}

impl<T, E> Outcome for Result<T, E> {
    type Reply = T;
    type Error = E;
}

/// What travels.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot travel in an interface",
    label = "it is not `Serialize`, `Deserialize` and `JsonSchema`",
    note = "derive `serde::Serialize`, `serde::Deserialize` and `schemars::JsonSchema` for it"
)]
pub trait Travels: Serialize + DeserializeOwned + JsonSchema + Send + 'static {}

impl<T: Serialize + DeserializeOwned + JsonSchema + Send + 'static> Travels for T {}

/// Compiles for what travels.
pub const fn travels<T: Travels>() {}

/// A method that takes `I`, and replies `O` or fails with `E`.
pub fn method<I: Travels, O: Travels, E: Failure>(
    name: &str,
    description: Option<&str>,
    idempotent: bool,
    serial: bool,
    deadline_ms: Option<u64>,
) -> MethodInfo {
    MethodInfo {
        description: description.map(str::to_owned),
        input: Some(schemars::schema_for!(I).to_value()),
        output: Some(schemars::schema_for!(O).to_value()),
        error: E::schema(),
        content_type: Some("application/json".to_owned()),
        idempotent,
        deadline_ms,
        serial,
        ..MethodInfo::named(name)
    }
}

/// The same method, which takes a stream of `T`; `alone`: and nothing else.
pub fn taking<T: Travels>(info: MethodInfo, alone: bool) -> MethodInfo {
    let input = if alone { None } else { info.input };
    MethodInfo { input, input_item: Some(schemars::schema_for!(T).to_value()), ..info }
}

/// The same method, which gives a stream of `T`.
pub fn giving<T: Travels>(info: MethodInfo) -> MethodInfo {
    let content_type = Some("application/x-ndjson".to_owned());
    MethodInfo { output: None, output_item: Some(schemars::schema_for!(T).to_value()), content_type, ..info }
}

/// A callback whose payload is `T`.
pub fn callback<T: Travels>(name: &str, description: Option<&str>, class: Class) -> CallbackInfo {
    CallbackInfo {
        name: name.to_owned(),
        class,
        description: description.map(str::to_owned),
        payload: Some(schemars::schema_for!(T).to_value()),
    }
}
