//! Permissions that a plugin asks for, and what the operator has granted: which of them have to be asked about. Pure.
//!
//! Each key of `permissions` is a permission, its value how far it goes. A grant is written down and compared with what the
//! next version asks for; nothing here keeps a process from anything.

use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Permissions by name.
pub type Permissions = Map<String, Value>;

/// What an operator grants to a version that is to be installed.
///
/// As JSON: `null`, `"all"`, a list of names, or an object of exactly what is granted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Value", try_from = "Value")]
pub enum Grant {
    /// Nothing but what was granted before.
    #[default]
    Nothing,
    /// Whatever it asks for.
    All,
    /// Whatever it asks for under these names.
    Names(Vec<String>),
    /// This, and no more.
    Exactly(Permissions),
}

impl Grant {
    /// The names of what is in `asked`, and not granted.
    pub fn leaves<'a>(&self, asked: &'a Permissions) -> Vec<&'a str> {
        let grants = |name: &String, value: &Value| match self {
            Self::Nothing => false,
            Self::All => true,
            Self::Names(names) => names.contains(name),
            Self::Exactly(granted) => granted.get(name).is_some_and(|granted| covers(granted, value)),
        };
        asked.iter().filter(|(name, value)| !grants(name, value)).map(|(name, _)| name.as_str()).collect()
    }
}

/// What of `wanted` goes beyond `granted`.
pub fn asked(granted: &Permissions, wanted: &Permissions) -> Permissions {
    let is_new = |name: &String, value: &Value| {
        !is_nothing(value) && !granted.get(name).is_some_and(|granted| covers(granted, value))
    };
    wanted
        .iter()
        .filter(|(name, value)| is_new(name, value))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// What is granted when `wanted` is granted besides.
pub fn together(granted: &Permissions, wanted: &Permissions) -> Permissions {
    let mut all = granted.clone();
    for (name, value) in wanted.iter().filter(|(_, value)| !is_nothing(value)) {
        let sum = all.get(name).map_or_else(|| value.clone(), |before| join(before, value));
        all.insert(name.clone(), sum);
    }
    all
}

/// Permissions as people read them: `net`, `files {"read":"/data"}`.
pub fn words(permissions: &Permissions) -> Vec<String> {
    let word = |(name, value): (&String, &Value)| match value {
        Value::Bool(true) => name.clone(),
        value => format!("{name} {value}"),
    };
    permissions.iter().map(word).collect()
}

/// Whether it asks for nothing.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(all) => all.is_empty(),
        Value::Object(all) => all.is_empty(),
        _ => false,
    }
}

/// Whether `wanted` asks for no more than `granted`. What cannot be compared is more.
fn covers(granted: &Value, wanted: &Value) -> bool {
    match (granted, wanted) {
        (granted, wanted) if granted == wanted || is_nothing(wanted) => true,
        // Without limits.
        (Value::Bool(true), _) => true,
        (Value::Array(granted), Value::Array(wanted)) => wanted.iter().all(|one| granted.contains(one)),
        (Value::Array(granted), one) => granted.contains(one),
        (Value::Object(granted), Value::Object(wanted)) => {
            wanted.iter().all(|(name, value)| granted.get(name).is_some_and(|granted| covers(granted, value)))
        }
        (Value::Number(granted), Value::Number(wanted)) => match (granted.as_f64(), wanted.as_f64()) {
            (Some(granted), Some(wanted)) => wanted <= granted,
            _ => false,
        },
        _ => false,
    }
}

/// What covers both; of what cannot be compared the list of them.
fn join(one: &Value, other: &Value) -> Value {
    let listed = |value: &Value| match value {
        Value::Array(all) => all.clone(),
        value => vec![value.clone()],
    };
    match (one, other) {
        _ if covers(one, other) => one.clone(),
        _ if covers(other, one) => other.clone(),
        (Value::Object(one), Value::Object(other)) => Value::Object(together(one, other)),
        _ => {
            let (mut all, more) = (listed(one), listed(other));
            all.extend(more.into_iter().filter(|value| !listed(one).contains(value)));
            Value::Array(all)
        }
    }
}

impl FromStr for Grant {
    type Err = String;

    /// # Errors
    /// Says how a grant is written.
    fn from_str(text: &str) -> Result<Self, String> {
        let names: Vec<_> = text.split(',').map(str::trim).collect();
        match names.as_slice() {
            ["all"] => Ok(Self::All),
            names if names.iter().any(|name| name.is_empty()) => {
                Err("write `all`, or names with commas between: net,files".into())
            }
            names => Ok(Self::Names(names.iter().map(|name| (*name).to_owned()).collect())),
        }
    }
}

impl From<Grant> for Value {
    fn from(grant: Grant) -> Self {
        match grant {
            Grant::Nothing => Self::Null,
            Grant::All => Self::from("all"),
            Grant::Names(names) => Self::from(names),
            Grant::Exactly(permissions) => Self::Object(permissions),
        }
    }
}

impl TryFrom<Value> for Grant {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        let wrong = || "a grant is null, \"all\", a list of names or an object of permissions".to_owned();
        match value {
            Value::Null => Ok(Self::Nothing),
            Value::String(all) if all == "all" => Ok(Self::All),
            Value::Array(names) => {
                let names = names.into_iter().map(|name| name.as_str().map(str::to_owned).ok_or_else(wrong));
                names.collect::<Result<_, _>>().map(Self::Names)
            }
            Value::Object(permissions) => Ok(Self::Exactly(permissions)),
            _ => Err(wrong()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permissions(text: &str) -> Permissions {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn what_is_more_is_asked_and_what_is_less_is_not() {
        for (granted, wanted, expected) in [
            ("{}", "{}", "{}"),
            ("{}", r#"{"net":true}"#, r#"{"net":true}"#),
            ("{}", r#"{"net":false,"files":[],"run":null,"x":{}}"#, "{}"),
            (r#"{"net":true}"#, r#"{"net":true}"#, "{}"),
            (r#"{"net":true}"#, "{}", "{}"),
            (r#"{"net":true}"#, r#"{"net":["a"]}"#, "{}"),
            (r#"{"net":["a"]}"#, r#"{"net":true}"#, r#"{"net":true}"#),
            (r#"{"net":["a","b"]}"#, r#"{"net":["b"]}"#, "{}"),
            (r#"{"net":["a"]}"#, r#"{"net":["a","b"]}"#, r#"{"net":["a","b"]}"#),
            (r#"{"net":["a"]}"#, r#"{"net":"a"}"#, "{}"),
            (r#"{"files":{"read":"/data"}}"#, r#"{"files":{"read":"/data"}}"#, "{}"),
            (r#"{"files":{"read":"/data"}}"#, r#"{"files":{"read":"/"}}"#, r#"{"files":{"read":"/"}}"#),
            (r#"{"files":{"read":1}}"#, r#"{"files":{"read":1,"write":1}}"#, r#"{"files":{"read":1,"write":1}}"#),
            (r#"{"memory":100}"#, r#"{"memory":50}"#, "{}"),
            (r#"{"memory":100}"#, r#"{"memory":101,"net":true}"#, r#"{"memory":101,"net":true}"#),
        ] {
            assert_eq!(asked(&permissions(granted), &permissions(wanted)), permissions(expected), "{granted} {wanted}");
            // What was granted once is not asked again.
            let all = together(&permissions(granted), &permissions(wanted));
            for again in [granted, wanted] {
                assert!(asked(&all, &permissions(again)).is_empty(), "{granted} {wanted} {again}");
            }
        }
    }

    #[test]
    fn a_grant_is_for_what_it_names() {
        let asked = permissions(r#"{"files":["/a"],"net":true}"#);
        for (grant, left) in [
            ("null", "files net"),
            (r#""all""#, ""),
            (r#"["net"]"#, "files"),
            (r#"["net","files","more"]"#, ""),
            (r#"{"net":true}"#, "files"),
            (r#"{"net":true,"files":["/b"]}"#, "files"),
            (r#"{"net":true,"files":["/a","/b"]}"#, ""),
        ] {
            let grant: Grant = serde_json::from_str(grant).unwrap();
            assert_eq!(grant.leaves(&asked).join(" "), left, "{grant:?}");
            assert_eq!(Grant::try_from(Value::from(grant.clone())), Ok(grant));
        }
        for wrong in ["true", "1", r#""net""#, "[1]"] {
            assert!(serde_json::from_str::<Grant>(wrong).is_err(), "{wrong}");
        }
        assert_eq!("all".parse(), Ok(Grant::All));
        assert_eq!("net, files".parse(), Ok(Grant::Names(vec!["net".into(), "files".into()])));
        assert!("".parse::<Grant>().is_err() && "net,".parse::<Grant>().is_err());
        assert_eq!(words(&asked), [r#"files ["/a"]"#, "net"]);
    }
}
