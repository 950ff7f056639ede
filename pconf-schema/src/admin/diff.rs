//! What changes between two versions of a plugin: two documents compared, key by key. Pure.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::PluginId;
use crate::wire::hello::Hello;

/// Answer of `diff`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Diff {
    /// The plugin.
    pub plugin: PluginId,
    /// The current version.
    pub from: String,
    /// The version that it is compared with.
    pub to: String,
    /// What differs: keys below `manifest`, and below `methods`, `callbacks` and `interfaces` by name.
    pub differences: Vec<Difference>,
    /// What could not be compared, and why.
    pub notes: Vec<String>,
}

/// One value that differs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// Where: the keys from the outside in, with `/` between them, written as in a JSON Pointer.
    pub path: String,
    /// What it was; absent: it was not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    /// What it is; absent: it is not there any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
}

/// Every value that differs, in the order of the paths. What is `null` is not there; a list is one value.
pub fn differences(at: &str, before: &Value, after: &Value) -> Vec<Difference> {
    let mut found = Vec::new();
    compare(at, Some(before), Some(after), &mut found);
    found
}

fn compare(at: &str, before: Option<&Value>, after: Option<&Value>, found: &mut Vec<Difference>) {
    let [before, after] = [before, after].map(|value| value.filter(|value| !value.is_null()));
    if before == after {
        return;
    }
    if let (Some(Value::Object(before)), Some(Value::Object(after))) = (before, after) {
        let keys: BTreeSet<_> = before.keys().chain(after.keys()).collect();
        for key in keys {
            let path = format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"));
            compare(&path, before.get(key), after.get(key), found);
        }
        return;
    }
    found.push(Difference { path: at.to_owned(), before: before.cloned(), after: after.cloned() });
}

/// What a plugin says that callers and subscribers rely on, by name: methods, callbacks, interfaces.
pub fn offered(hello: &Hello) -> Value {
    let by_name = |items: Vec<(String, Value)>| {
        let strip = |mut value: Value| {
            value.as_object_mut().and_then(|keys| keys.remove("name"));
            value
        };
        Value::Object(items.into_iter().map(|(name, value)| (name, strip(value))).collect::<Map<_, _>>())
    };
    let value = |item: Result<Value, serde_json::Error>| item.unwrap_or_default();
    serde_json::json!({
        "methods": by_name(
            hello.methods.iter().map(|item| (item.name.clone(), value(serde_json::to_value(item)))).collect()
        ),
        "callbacks": by_name(
            hello.callbacks.iter().map(|item| (item.name.clone(), value(serde_json::to_value(item)))).collect()
        ),
        "interfaces": by_name(
            hello.interfaces.iter().map(|item| (item.name.clone(), value(serde_json::to_value(item)))).collect()
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_value_that_differs_is_told_once_by_its_path() {
        for (before, after, expected) in [
            (json!({"a": 1}), json!({"a": 1}), ""),
            (json!({"a": null}), json!({}), ""),
            (json!({"a": 1}), json!({"a": 2}), "/a 1 2"),
            (json!({"a": 1}), json!({"b": 2}), "/a 1 -; /b - 2"),
            (json!({"a": {"b": 1, "c": 2}}), json!({"a": {"b": 1, "c": 3}}), "/a/c 2 3"),
            (json!({"a": [1, 2]}), json!({"a": [1, 3]}), "/a [1,2] [1,3]"),
            (json!({"a": {"b": 1}}), json!({"a": 1}), r#"/a {"b":1} 1"#),
            (json!({"x/y~z": 1}), json!({"x/y~z": null}), "/x~1y~0z 1 -"),
            (json!(1), json!(2), " 1 2"),
        ] {
            let shown = |value: &Option<Value>| value.as_ref().map_or("-".to_owned(), ToString::to_string);
            let found: Vec<_> = differences("", &before, &after)
                .iter()
                .map(|one| format!("{} {} {}", one.path, shown(&one.before), shown(&one.after)))
                .collect();
            assert_eq!(found.join("; "), expected, "{before} {after}");
        }
    }
}
