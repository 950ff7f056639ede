//! The hello: what a plugin is and what it offers.

use std::collections::HashSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::event::Class;
use crate::{NameError, check_call_name};

/// The largest hello that is read.
pub const MAX_HELLO_BYTES: usize = 4 * 1024 * 1024;
/// The most methods a plugin may have.
pub const MAX_METHODS: usize = 1024;
/// The most callbacks a plugin may have.
pub const MAX_CALLBACKS: usize = 1024;
/// The most interfaces a plugin may implement.
pub const MAX_INTERFACES: usize = 64;

/// What a registry says in `POST /_goplug/hello`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HelloRequest {
    /// Protocol versions that the registry speaks.
    pub protocols: Vec<u32>,
    /// Fast paths that it would use.
    #[serde(default)]
    pub features: Vec<String>,
    /// The registry's own name and version, for the plugin's logs.
    #[serde(default)]
    pub registry: RegistryInfo,
}

/// Who the registry is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RegistryInfo {
    /// Name of the program.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// What a plugin says of itself. Unknown fields are ignored; a missing optional one has its default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Hello {
    /// Protocol versions that the plugin speaks.
    pub protocols: Vec<u32>,
    /// The highest common one; only in the answer to a POST.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<u32>,
    /// Fast paths; empty until one exists.
    #[serde(default)]
    pub features: Vec<String>,
    /// Must equal the namespace in the `.pconf`.
    #[serde(default)]
    pub namespace: String,
    /// Must equal the name in the `.pconf`.
    pub name: String,
    /// The plugin's own version (SemVer).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// One line for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// 32 lower-case hex digits, fresh at every start of the process.
    pub epoch: String,
    /// A hint for people, never trusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Whether the plugin is activated.
    #[serde(default)]
    pub active: bool,
    /// Methods in an order that is fixed for an epoch.
    #[serde(default)]
    pub methods: Vec<MethodInfo>,
    /// Callbacks in an order that is fixed for an epoch.
    #[serde(default)]
    pub callbacks: Vec<CallbackInfo>,
    /// Interfaces that the plugin implements, by name and version.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<InterfaceInfo>,
    /// What the plugin takes at most.
    #[serde(default)]
    pub limits: Limits,
}

/// One method.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MethodInfo {
    /// Its name, unique in the plugin.
    pub name: String,
    /// One line for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// JSON Schema of the request, if the body is JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Value>,
    /// JSON Schema of the reply, if the body is JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
    /// JSON Schema of each item, if the request is a stream of items, one in each line; `input` is then what the first line
    /// holds, if anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_item: Option<Value>,
    /// JSON Schema of each item, if the reply is such a stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_item: Option<Value>,
    /// JSON Schema of the `data` of its `method_failed`, if there is any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Value>,
    /// Content type of request and reply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// Whether a call may be repeated when nobody knows whether it ran.
    #[serde(default)]
    pub idempotent: bool,
    /// The deadline of a call that names none; a default, never a cap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    /// Whether calls of this method run one at a time.
    #[serde(default)]
    pub serial: bool,
}

impl MethodInfo {
    /// A method of which only the name is known, as of every v0 plugin.
    pub fn named(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            description: None,
            input: None,
            output: None,
            input_item: None,
            output_item: None,
            error: None,
            content_type: None,
            idempotent: false,
            deadline_ms: None,
            serial: false,
        }
    }
}

/// One callback.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CallbackInfo {
    /// Its name, unique among the plugin's callbacks.
    pub name: String,
    /// What is promised to its subscribers.
    #[serde(default)]
    pub class: Class,
    /// One line for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// JSON Schema of the payload, if it is JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<Value>,
}

/// An interface that a plugin implements: a name, a version, and which of its methods and callbacks belong to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct InterfaceInfo {
    /// Its name, such as `demo.math`; a plugin has each name once.
    pub name: String,
    /// Its version (SemVer): another major number is another interface, a larger minor number adds to it.
    pub version: String,
    /// Names of its methods, each of them in the plugin's `methods`.
    #[serde(default)]
    pub methods: Vec<String>,
    /// Names of its callbacks, each of them in the plugin's `callbacks`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub callbacks: Vec<String>,
}

/// What a plugin takes at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Limits {
    /// The largest request body; beyond it `too_large`.
    pub max_request_bytes: u64,
    /// Calls at once; beyond it `overloaded`.
    pub max_concurrent_calls: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_request_bytes: 64 * 1024 * 1024, max_concurrent_calls: 256 }
    }
}

/// Why an answer is not the hello of a v1 plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HelloError {
    /// No JSON object with an array `protocols` within the limits: a v0 plugin, unless its `.pconf` says otherwise.
    NotV1(String),
    /// It is v1, but breaks a rule of the protocol.
    Broken(String),
}

impl Hello {
    /// Reads the body of a 200 answer to a hello and checks every limit.
    ///
    /// # Errors
    /// [`HelloError::NotV1`] when the body is no object with `protocols`; [`HelloError::Broken`] when it is, but a field
    /// is missing or wrong, a name or the epoch is no such thing, or there are too many methods or callbacks.
    pub fn read(body: &[u8]) -> Result<Self, HelloError> {
        let not_v1 = |why: String| Err(HelloError::NotV1(why));
        if body.len() > MAX_HELLO_BYTES {
            return not_v1(format!("the hello is larger than {MAX_HELLO_BYTES} bytes"));
        }
        if !super::depth_is_bounded(body) {
            return not_v1(format!("the hello is nested deeper than {} levels", super::MAX_JSON_DEPTH));
        }
        let value: Value = match serde_json::from_slice(body) {
            Ok(value) => value,
            Err(error) => return not_v1(format!("the hello is no JSON: {error}")),
        };
        if !value.get("protocols").is_some_and(Value::is_array) {
            return not_v1("the hello has no array `protocols`".into());
        }
        let hello: Self =
            serde_json::from_value(value).map_err(|error| HelloError::Broken(format!("the hello: {error}")))?;
        hello.check().map_err(HelloError::Broken)?;
        Ok(hello)
    }

    /// The position of `method` in the hello.
    pub fn method(&self, name: &str) -> Option<&MethodInfo> {
        self.methods.iter().find(|method| method.name == name)
    }

    /// The callback of that name.
    pub fn callback(&self, name: &str) -> Option<&CallbackInfo> {
        self.callbacks.iter().find(|callback| callback.name == name)
    }

    /// What is wrong with the interfaces, the first problem of it.
    ///
    /// # Errors
    /// More than [`MAX_INTERFACES`], a name that is none or is there twice, a version that is not SemVer, a method or a
    /// callback that the plugin has not.
    pub fn check_interfaces(&self) -> Result<(), String> {
        if self.interfaces.len() > MAX_INTERFACES {
            return Err(format!("{} interfaces, the limit is {MAX_INTERFACES}", self.interfaces.len()));
        }
        unique("interface", self.interfaces.iter().map(|interface| interface.name.as_str()))?;
        let methods: HashSet<_> = self.methods.iter().map(|method| method.name.as_str()).collect();
        let callbacks: HashSet<_> = self.callbacks.iter().map(|callback| callback.name.as_str()).collect();
        for InterfaceInfo { name, version, methods: listed, callbacks: told } in &self.interfaces {
            if let Err(error) = semver::Version::parse(version) {
                let version = crate::printable(version);
                return Err(format!("version `{version}` of interface `{name}` is not SemVer: {error}"));
            }
            if let Some(missing) = listed.iter().find(|method| !methods.contains(method.as_str())) {
                let missing = crate::printable(missing);
                return Err(format!("interface `{name}` lists method `{missing}`, which the plugin has not"));
            }
            if let Some(missing) = told.iter().find(|callback| !callbacks.contains(callback.as_str())) {
                let missing = crate::printable(missing);
                return Err(format!("interface `{name}` lists callback `{missing}`, which the plugin has not"));
            }
        }
        Ok(())
    }

    fn check(&self) -> Result<(), String> {
        if !is_epoch(&self.epoch) {
            return Err(format!("epoch `{}` is not 32 lower-case hex digits", crate::printable(&self.epoch)));
        }
        if self.methods.len() > MAX_METHODS {
            return Err(format!("{} methods, the limit is {MAX_METHODS}", self.methods.len()));
        }
        if self.callbacks.len() > MAX_CALLBACKS {
            return Err(format!("{} callbacks, the limit is {MAX_CALLBACKS}", self.callbacks.len()));
        }
        unique("method", self.methods.iter().map(|method| method.name.as_str()))?;
        unique("callback", self.callbacks.iter().map(|callback| callback.name.as_str()))?;
        self.check_interfaces()
    }
}

/// Whether `text` is an epoch: 32 lower-case hex digits.
pub fn is_epoch(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn unique<'a>(what: &str, names: impl Iterator<Item = &'a str>) -> Result<(), String> {
    let mut seen = HashSet::new();
    for name in names {
        check_call_name(what, name).map_err(|error: NameError| error.to_string())?;
        if !seen.insert(name) {
            return Err(format!("{what} `{}` is listed twice", crate::printable(name)));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: &str = "0123456789abcdef0123456789abcdef";

    fn hello(extra: &str) -> Vec<u8> {
        format!(r#"{{"protocols":[1],"name":"Do","epoch":"{EPOCH}"{extra}}}"#).into_bytes()
    }

    #[test]
    fn the_smallest_hello_has_every_default() {
        let hello = Hello::read(&hello(r#","future":{"x":1}"#)).unwrap();
        assert_eq!(hello.limits, Limits::default());
        assert!(hello.methods.is_empty() && !hello.active && hello.namespace.is_empty());
    }

    #[test]
    fn v0_and_broken_v1_are_told_apart() {
        for body in ["", "[]", "{}", "null", r#"{"protocols":1}"#, "\"hello\""] {
            assert!(matches!(Hello::read(body.as_bytes()), Err(HelloError::NotV1(_))), "{body}");
        }
        let deep = format!(r#"{{"protocols":{}"#, "[".repeat(70));
        assert!(matches!(Hello::read(deep.as_bytes()), Err(HelloError::NotV1(_))));
        for extra in [
            r#","methods":[{"name":"a"},{"name":"a"}]"#,
            r#","methods":[{"name":".."}]"#,
            r#","methods":{}"#,
            r#","callbacks":[{"name":"a","class":"sometimes"}]"#,
            r#","interfaces":[{"name":"i","version":"1.0"}]"#,
            r#","interfaces":[{"name":"i","version":"1.0.0","methods":["a"]}]"#,
            r#","interfaces":[{"name":"i","version":"1.0.0","callbacks":["a"]}]"#,
            r#","interfaces":[{"name":"i","version":"1.0.0"},{"name":"i","version":"2.0.0"}]"#,
        ] {
            assert!(matches!(Hello::read(&hello(extra)), Err(HelloError::Broken(_))), "{extra}");
        }
    }

    #[test]
    fn a_hello_may_be_as_large_as_its_limits_and_no_larger() {
        let named = |list: &str, count: usize| {
            let many: Vec<_> = (0..count).map(|n| serde_json::json!({"name": format!("m{n}")})).collect();
            Hello::read(&hello(&format!(r#","{list}":{}"#, Value::from(many))))
        };
        assert_eq!(named("methods", 1024).unwrap().methods.len(), 1024);
        assert_eq!(named("callbacks", 1024).unwrap().callbacks.len(), 1024);
        for list in ["methods", "callbacks"] {
            assert!(matches!(named(list, 1025), Err(HelloError::Broken(why)) if why.contains("1025")), "{list}");
        }
        // The document itself is the first level.
        let nested = |depth: usize| Hello::read(&hello(&format!(r#","x":{}{}"#, "[".repeat(depth), "]".repeat(depth))));
        assert!(nested(63).is_ok());
        assert!(matches!(nested(64), Err(HelloError::NotV1(why)) if why.contains("64")));
        let padded = |size: usize| {
            let rest = hello(r#","x":"""#).len();
            Hello::read(&hello(&format!(r#","x":"{}""#, "x".repeat(size - rest))))
        };
        assert!(padded(4 * 1024 * 1024).is_ok());
        assert!(matches!(padded(4 * 1024 * 1024 + 1), Err(HelloError::NotV1(why)) if why.contains("4194304")));
    }
}
