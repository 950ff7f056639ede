//! How a method, or the plugin itself, fails: the one error type of every GoPlug library.

/// What a method returns when it fails, and what the library returns when it does.
///
/// # Example: a method that tells its caller why, with data
/// ```
/// use goplug_plugin_impl::{Code, Error};
/// let error = Error::new(Code::MethodFailed, "no such colour").with_data(serde_json::json!({"known": ["red", "green"]}));
/// ```
pub use goplug_pconf_schema::Fault as Error;
pub use goplug_pconf_schema::{Code, Fault, Ran};
