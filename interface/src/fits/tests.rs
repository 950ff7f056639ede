use schemars::JsonSchema;
use serde_json::json;

use super::*;

/// What is told when the first is written and the second is read; empty when it fits.
fn told(written: &Value, read: &Value) -> String {
    misfit(written, read).unwrap_or_default()
}

#[test]
fn a_schema_fits_when_all_that_it_allows_can_be_read() {
    let object =
        |properties: Value, required: Value| json!({"type": "object", "properties": properties, "required": required});
    let table = [
        (json!({"type": "integer"}), json!({"type": "integer", "title": "other", "description": "words"}), ""),
        (json!({"type": "integer"}), json!({"type": "number"}), ""),
        (json!({"type": "number"}), json!({"type": "integer"}), "number is given, integer is expected"),
        (json!({"type": "string"}), json!(true), ""),
        (json!({"type": "string"}), json!({}), ""),
        (json!({}), json!({"type": "string"}), "anything is given, string is expected"),
        (json!({"type": "string"}), json!({"type": ["string", "null"]}), ""),
        (json!({"type": ["string", "null"]}), json!({"type": "string"}), "string or null is given, string is expected"),
        // Numbers.
        (json!({"type": "integer", "format": "uint8"}), json!({"type": "integer", "format": "uint64"}), ""),
        (
            json!({"type": "integer", "format": "int64"}),
            json!({"type": "integer", "format": "uint64", "minimum": 0}),
            "less than 0 may be given",
        ),
        (
            json!({"type": "integer", "format": "uint16"}),
            json!({"type": "integer", "format": "uint8", "maximum": 255}),
            "more than 255 may be given",
        ),
        (json!({"type": "integer", "minimum": 3}), json!({"type": "integer", "minimum": 2}), ""),
        (
            json!({"type": "string", "maxLength": 3}),
            json!({"type": "string", "maxLength": 2}),
            "`maxLength` 2 is expected",
        ),
        (json!({"type": "string"}), json!({"type": "string", "format": "uuid"}), "the format uuid is expected"),
        (json!({"type": "string"}), json!({"type": "string", "pattern": "^a"}), "`pattern` \"^a\" is expected"),
        // Objects.
        (object(json!({"a": {"type": "integer"}}), json!(["a"])), object(json!({}), json!([])), ""),
        (
            object(json!({"a": {"type": "integer"}}), json!([])),
            object(json!({"a": {"type": "integer"}}), json!(["a"])),
            "at `a`: it is required, and may be missing",
        ),
        (
            object(json!({"a": {"type": "integer"}}), json!([])),
            json!({"type": "object", "additionalProperties": false}),
            "at `a`: it is not expected",
        ),
        (
            object(json!({"a": object(json!({"b": {"type": "null"}}), json!([]))}), json!([])),
            object(json!({"a": object(json!({"b": {"type": "string"}}), json!([]))}), json!([])),
            "at `a.b`: null is given, string is expected",
        ),
        (
            json!({"type": "object", "additionalProperties": {"type": "string"}}),
            json!({"type": "object", "additionalProperties": {"type": "integer"}}),
            "at `*`: string is given, integer is expected",
        ),
        // Lists.
        (
            json!({"type": "array", "items": {"type": "array", "items": {"type": "null"}}}),
            json!({"type": "array", "items": {"type": "array", "items": {"type": "string"}}}),
            "at `[][]`: null is given, string is expected",
        ),
        (
            json!({"type": "array"}),
            json!({"type": "array", "items": {"type": "string"}}),
            "at `[]`: any item may be given",
        ),
        (
            json!({"type": "array", "prefixItems": [true, {"type": "null"}], "minItems": 2, "maxItems": 2}),
            json!({"type": "array", "prefixItems": [true, {"type": "string"}], "minItems": 2, "maxItems": 2}),
            "at `[1]`: null is given, string is expected",
        ),
        (
            json!({"type": "array", "items": true}),
            json!({"type": "array", "items": true, "uniqueItems": true}),
            "an item may be there twice",
        ),
        // Values and alternatives.
        (json!({"type": "string", "enum": ["a"]}), json!({"type": "string", "enum": ["b", "a"]}), ""),
        (json!({"enum": ["a", "c"]}), json!({"enum": ["b", "a"]}), "\"c\" may be given"),
        (json!({"type": "string"}), json!({"enum": ["a"]}), "any string may be given, certain values are expected"),
        (json!({"enum": ["a", "b"]}), json!({"oneOf": [{"const": "a"}, {"type": "string", "const": "b"}]}), ""),
        (json!({"enum": ["a", "b"]}), json!({"oneOf": [{"const": "a"}, {"const": "c"}]}), "\"b\" may be given"),
        (json!({"oneOf": [{"const": "a"}, {"const": "b"}]}), json!({"enum": ["b", "a"]}), ""),
        (json!({"const": 1}), json!({"type": "integer"}), ""),
        (json!({"const": 1.5}), json!({"type": "integer"}), "anything is given, integer is expected"),
        (
            object(json!({"a": {"type": "integer"}}), json!(["a"])),
            json!({"anyOf": [object(json!({"a": {"type": "string"}}), json!(["a"])), {"type": "null"}]}),
            "at `a`: integer is given, string is expected",
        ),
        (
            json!({"type": "boolean"}),
            json!({"anyOf": [{"type": "integer"}, {"type": "string"}]}),
            "boolean fits none of 2 alternatives",
        ),
        (json!({"$ref": "#/$defs/Gone"}), json!({"type": "null"}), "a reference leads nowhere"),
        (json!({"$ref": "#"}), json!({"type": "null"}), "a reference leads nowhere"),
    ];
    for (written, read, expected) in table {
        assert_eq!(told(&written, &read), expected, "{written} read as {read}");
    }
}

#[derive(JsonSchema)]
#[allow(dead_code, reason = "only its schema counts")]
struct Tree<T> {
    value: T,
    #[schemars(description = "below it")]
    branches: Vec<Tree<T>>,
    parent: Option<Box<Tree<T>>>,
    kind: Kind,
}

#[derive(JsonSchema)]
#[allow(dead_code, reason = "only its schema counts")]
enum Kind {
    Plain,
    Named { name: String },
    Both(u8, String),
}

#[test]
fn schemas_of_types_that_hold_themselves_are_compared() {
    let schema = |of: schemars::Schema| of.to_value();
    let (small, large) = (schema(schemars::schema_for!(Tree<u8>)), schema(schemars::schema_for!(Tree<u32>)));
    assert_eq!(told(&small, &small), "");
    assert_eq!(told(&small, &large), "");
    // Properties are in alphabetical order.
    assert_eq!(told(&large, &small), "at `value`: more than 255 may be given");
}

#[test]
fn a_hostile_schema_is_given_up() {
    let several: Vec<_> = (0..2000).map(|n| json!({"const": n})).collect();
    let values: Vec<_> = (0..2000).collect();
    assert_eq!(told(&json!({"enum": values}), &json!({"anyOf": several})), "the schemas are too large to be compared");
    // Each level has two alternatives, which fail only at the end.
    let mut levels = serde_json::Map::new();
    let mut one = json!({"type": "null"});
    for level in 0..25 {
        let items = json!({"type": "array", "items": {"$ref": format!("#/$defs/{}", level + 1)}});
        levels.insert(level.to_string(), json!({"anyOf": [items.clone(), items]}));
        one = json!({"type": "array", "items": one});
    }
    levels.insert("25".to_owned(), json!({"type": "string"}));
    let alternatives = json!({"$ref": "#/$defs/0", "$defs": levels});
    assert!(told(&one, &alternatives).ends_with("the schemas are too large to be compared"));
}
