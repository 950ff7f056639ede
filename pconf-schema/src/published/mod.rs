//! What is generated from the types and published: JSON Schemas (`schemas/`) and the table of `docs/errors.md`.
//!
//! `cargo xtask schemas` writes both; `cargo xtask schemas --check` fails when the files say something else.

mod errors;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::Value;

use crate::admin;
use crate::contents::Contents;
use crate::manifest::document::ManifestDocument;
use crate::pconf::PconfDocument;
use crate::settings::Settings;
use crate::wire::fault::ProblemDocument;
use crate::wire::{event, hello, life};
use crate::{Index, Origin};

pub use errors::error_table;

/// Every published JSON Schema (draft 2020-12) with the name of its file, without `.json`, in the order of the names.
///
/// Schemas of what others write say what is accepted; those of our own answers say what is always there.
pub fn schemas() -> Vec<(&'static str, Value)> {
    let mut all = vec![
        ("contents", accepted::<Contents>()),
        ("index", accepted::<Index>()),
        ("origin", accepted::<Origin>()),
        ("manifest", accepted::<ManifestDocument>()),
        ("pconf", accepted::<PconfDocument>()),
        ("settings", accepted::<Settings>()),
        ("hello", accepted::<hello::Hello>()),
        ("hello-request", accepted::<hello::HelloRequest>()),
        ("drain-request", accepted::<life::Drain>()),
        ("drain-answer", accepted::<life::Drained>()),
        ("health", accepted::<life::Health>()),
        ("callbacks", accepted::<Vec<event::CallbackStatus>>()),
        ("event-message", accepted::<event::Message>()),
        ("event-gap", accepted::<event::Gap>()),
        ("event-epoch", accepted::<event::EpochChange>()),
        ("event-ack", accepted::<event::Ack>()),
        ("problem", accepted::<ProblemDocument<'static>>()),
        ("admin-plugins", answered::<Vec<admin::PluginSummary>>()),
        ("admin-plugin", answered::<admin::PluginDetail>()),
        ("admin-methods", answered::<admin::MethodList>()),
        ("admin-callbacks", answered::<admin::CallbackList>()),
        ("admin-activation", answered::<admin::Activation>()),
        ("admin-unloaded", answered::<admin::Unloaded>()),
        ("admin-installation", answered::<admin::Installation>()),
        ("admin-removal", answered::<admin::Removal>()),
        ("admin-upgraded", answered::<admin::Upgraded>()),
        ("admin-pinned", answered::<admin::Pinned>()),
        ("admin-diff", answered::<admin::Diff>()),
        ("admin-process", answered::<admin::ProcessChange>()),
        ("admin-log", answered::<admin::LogEntry>()),
        ("admin-ping", answered::<admin::Ping>()),
        ("admin-notification", answered::<admin::Notification>()),
        ("admin-dead-letters", answered::<Vec<admin::DeadLetter>>()),
        ("admin-status", answered::<admin::DaemonStatus>()),
        ("admin-event", answered::<admin::RegistryEvent>()),
        ("admin-trust", answered::<admin::Trust>()),
        ("admin-trust-list", answered::<Vec<admin::TrustEntry>>()),
        ("admin-trusted-key", answered::<admin::TrustedKey>()),
        ("admin-revocation", answered::<admin::Revocation>()),
        ("admin-why", answered::<admin::Why>()),
    ];
    all.sort_by_key(|(name, _)| *name);
    all
}

fn accepted<T: JsonSchema>() -> Value {
    SchemaSettings::draft2020_12().for_deserialize().into_generator().into_root_schema_for::<T>().to_value()
}

fn answered<T: JsonSchema>() -> Value {
    SchemaSettings::draft2020_12().for_serialize().into_generator().into_root_schema_for::<T>().to_value()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(wanted: &str) -> Value {
        schemas().into_iter().find(|(name, _)| *name == wanted).expect("a schema of that name").1
    }

    #[test]
    fn schemas_say_what_is_accepted_and_what_is_always_there() {
        assert_eq!(schema("pconf")["required"], serde_json::json!(["Name", "Sock"]));
        assert_eq!(schema("problem")["required"], serde_json::json!(["code"]));
        assert_eq!(schema("hello")["required"], serde_json::json!(["protocols", "name", "epoch"]));
        assert_eq!(schema("settings")["additionalProperties"], false);
        assert_eq!(schema("settings")["properties"]["auto_discover"]["default"], true);
        let row = &schema("admin-plugins")["$defs"]["PluginSummary"]["required"];
        for field in ["namespace", "name", "version", "state", "lazyLoad", "pid", "socket", "pconf", "methods", "since"]
        {
            assert!(row.as_array().unwrap().contains(&field.into()), "{field}");
        }
    }

    #[test]
    fn names_are_unique_and_in_order() {
        let names: Vec<_> = schemas().into_iter().map(|(name, _)| name).collect();
        assert!(names.is_sorted_by(|a, b| a < b), "{names:?}");
    }
}
