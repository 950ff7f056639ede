//! Whether what one schema lets through can be read by another. Pure.
//!
//! Enough of JSON Schema for what types become, and careful beyond it: keywords that are not known must be equal.

use std::collections::HashSet;

use serde_json::{Map, Value};

/// Steps that a comparison may take: schemas come from the other side, and alternatives multiply.
const MAX_STEPS: usize = 100_000;
/// The deepest nesting that is compared.
const MAX_DEPTH: usize = 64;
/// How often one reference may lead to another.
const MAX_REFERENCES: usize = 16;

/// Keywords that say nothing about which values there are.
const ANNOTATIONS: [&str; 13] = [
    "$schema",
    "$id",
    "$comment",
    "$defs",
    "definitions",
    "title",
    "description",
    "default",
    "examples",
    "deprecated",
    "readOnly",
    "writeOnly",
    "contentMediaType",
];
/// Keywords that are compared by their meaning.
const UNDERSTOOD: [&str; 15] = [
    "$ref",
    "type",
    "enum",
    "const",
    "anyOf",
    "oneOf",
    "properties",
    "required",
    "additionalProperties",
    "items",
    "prefixItems",
    "format",
    "minimum",
    "maximum",
    "uniqueItems",
];
/// Bounds from below and from above: what is written must keep within those of what is read.
const LEAST: [&str; 4] = ["exclusiveMinimum", "minLength", "minItems", "minProperties"];
const MOST: [&str; 4] = ["exclusiveMaximum", "maxLength", "maxItems", "maxProperties"];

/// The first place at which a value that `written` allows may be no value of `read`, and why; `None` when all are.
pub(crate) fn misfit(written: &Value, read: &Value) -> Option<String> {
    let mut pair = Pair { written, read, open: HashSet::new(), trail: Vec::new(), path: Vec::new(), steps: 0 };
    pair.check(written, read).err().map(|misfit| misfit.to_text())
}

struct Misfit {
    path: Vec<String>,
    why: String,
}

impl Misfit {
    fn to_text(&self) -> String {
        let path = self.path.concat();
        let path = path.strip_prefix('.').unwrap_or(&path);
        if path.is_empty() { self.why.clone() } else { format!("at `{path}`: {}", self.why) }
    }
}

struct Pair<'a> {
    written: &'a Value,
    read: &'a Value,
    /// Pairs of schemas, by address, that are being compared or have been: types may hold themselves.
    open: HashSet<(usize, usize)>,
    /// The same in the order in which they came.
    trail: Vec<(usize, usize)>,
    path: Vec<String>,
    steps: usize,
}

impl<'a> Pair<'a> {
    fn check(&mut self, written: &'a Value, read: &'a Value) -> Result<(), Misfit> {
        if self.path.len() > MAX_DEPTH {
            return self.fail("the schemas are nested too deep to be compared");
        }
        self.spend(1)?;
        let (Some(written), Some(read)) = (resolve(self.written, written), resolve(self.read, read)) else {
            return self.fail("a reference leads nowhere");
        };
        if is_anything(read) || written == &Value::Bool(false) {
            return Ok(());
        }
        let both = (std::ptr::from_ref(written) as usize, std::ptr::from_ref(read) as usize);
        if !self.open.insert(both) {
            return Ok(());
        }
        self.trail.push(both);
        if let Some(each) = alternatives(written) {
            return each.iter().try_for_each(|one| self.check(one, read));
        }
        if let Some(several) = alternatives(read) {
            return self.check_alternatives(written, several);
        }
        let (Some(written), Some(read)) = (written.as_object(), read.as_object()) else {
            let why = format!("{} is given, {} is expected", named(written), named(read));
            return self.fail(why);
        };
        self.check_values(written, read)?;
        self.check_types(written, read)?;
        self.check_bounds(written, read)?;
        self.check_object(written, read)?;
        self.check_array(written, read)?;
        self.check_others(written, read)
    }

    /// One of several must read it; of a list of values, each may be read by another.
    fn check_alternatives(&mut self, written: &'a Value, several: &'a [Value]) -> Result<(), Misfit> {
        if let Some(values) = values(written).filter(|values| values.len() > 1) {
            let root = self.read;
            self.spend(values.len().saturating_mul(several.len()))?;
            let unread = values.into_iter().find(|value| !several.iter().any(|one| holds(root, one, value)));
            return unread.map_or(Ok(()), |value| self.fail(format!("{value} may be given")));
        }
        let (mut why, mut tried) = (None, 0);
        for one in several {
            let (mark, depth) = (self.trail.len(), self.path.len());
            let Err(misfit) = self.check(written, one) else { return Ok(()) };
            self.spend(1)?;
            // What was taken for granted on the way need not be so.
            for both in self.trail.drain(mark..) {
                self.open.remove(&both);
            }
            self.path.truncate(depth);
            if one.get("type").and_then(Value::as_str) != Some("null") {
                (why, tried) = (Some(misfit), tried + 1);
            }
        }
        match why {
            // Null is no alternative to what should be there: what is wrong is inside the other.
            Some(misfit) if tried == 1 => Err(misfit),
            _ => self.fail(format!("{} fits none of {} alternatives", named(written), several.len())),
        }
    }

    fn check_values(&mut self, written: &Map<String, Value>, read: &Map<String, Value>) -> Result<(), Misfit> {
        let Some(taken) = values_of(read) else { return Ok(()) };
        let Some(given) = values_of(written) else {
            return self.fail(format!("any {} may be given, certain values are expected", type_words(written)));
        };
        self.spend(given.len().saturating_mul(taken.len()))?;
        match given.into_iter().find(|value| !taken.contains(value)) {
            Some(value) => self.fail(format!("{value} may be given")),
            None => Ok(()),
        }
    }

    fn check_types(&self, written: &Map<String, Value>, read: &Map<String, Value>) -> Result<(), Misfit> {
        let taken = types(read);
        if taken.is_empty() || values_of(read).is_some() {
            return Ok(());
        }
        let given = types(written);
        let fits = |word: &&str| taken.contains(word) || (*word == "integer" && taken.contains(&"number"));
        let values = values_of(written).filter(|_| given.is_empty());
        let is_fine = match values {
            Some(values) => values.into_iter().all(|value| taken.iter().any(|word| is_of(value, word))),
            None => !given.is_empty() && given.iter().all(fits),
        };
        if is_fine {
            return Ok(());
        }
        self.fail(format!("{} is given, {} is expected", type_words(written), type_words(read)))
    }

    fn check_bounds(&self, written: &Map<String, Value>, read: &Map<String, Value>) -> Result<(), Misfit> {
        let number = |map: &Map<String, Value>, key: &str| map.get(key).and_then(Value::as_f64);
        let (given, taken) = (range(written), range(read));
        if taken.0.is_some_and(|least| given.0.is_none_or(|given| given < least)) {
            return self.fail(format!("less than {} may be given", taken.0.unwrap_or_default()));
        }
        if taken.1.is_some_and(|most| given.1.is_none_or(|given| given > most)) {
            return self.fail(format!("more than {} may be given", taken.1.unwrap_or_default()));
        }
        for (keys, is_least) in [(LEAST, true), (MOST, false)] {
            for key in keys {
                let Some(bound) = number(read, key) else { continue };
                let within = |given: f64| if is_least { given >= bound } else { given <= bound };
                if !number(written, key).is_some_and(within) {
                    return self.fail(format!("`{key}` {bound} is expected"));
                }
            }
        }
        let has = |map: &Map<String, Value>| map.get("uniqueItems") == Some(&Value::Bool(true));
        if has(read) && !has(written) {
            return self.fail("an item may be there twice");
        }
        let [given, taken] = [written, read].map(|map| map.get("format").and_then(Value::as_str));
        match taken.filter(|taken| given != Some(taken) && !is_number(taken)) {
            Some(taken) => self.fail(format!("the format {taken} is expected")),
            None => Ok(()),
        }
    }

    fn check_object(&mut self, written: &'a Map<String, Value>, read: &'a Map<String, Value>) -> Result<(), Misfit> {
        let (needed, always) = (names(read), names(written));
        self.spend(needed.len().saturating_mul(always.len()))?;
        if let Some(missing) = needed.iter().find(|name| !always.contains(*name)) {
            self.path.push(format!(".{missing}"));
            return self.fail("it is required, and may be missing");
        }
        let given = written.get("properties").and_then(Value::as_object);
        let taken = read.get("properties").and_then(Value::as_object);
        let rest = read.get("additionalProperties");
        for (name, schema) in given.into_iter().flatten() {
            let expected = taken.and_then(|taken| taken.get(name)).or(rest);
            self.path.push(format!(".{name}"));
            match expected {
                Some(Value::Bool(false)) => return self.fail("it is not expected"),
                Some(expected) => self.check(schema, expected)?,
                None => {}
            }
            self.path.pop();
        }
        let others = written.get("additionalProperties").filter(|schema| **schema != Value::Bool(false));
        if let (Some(others), Some(rest)) = (others, rest) {
            self.path.push(".*".to_owned());
            self.check(others, rest)?;
            self.path.pop();
        }
        Ok(())
    }

    fn check_array(&mut self, written: &'a Map<String, Value>, read: &'a Map<String, Value>) -> Result<(), Misfit> {
        let places = |map: &'a Map<String, Value>| map.get("prefixItems").and_then(Value::as_array);
        let (given, taken) = (places(written), places(read));
        if given.map(Vec::len) != taken.map(Vec::len) {
            return self.fail("a list of another length is expected");
        }
        for (at, (given, taken)) in given.into_iter().flatten().zip(taken.into_iter().flatten()).enumerate() {
            self.path.push(format!("[{at}]"));
            self.check(given, taken)?;
            self.path.pop();
        }
        let Some(taken) = read.get("items").filter(|items| !is_anything(items)) else { return Ok(()) };
        self.path.push("[]".to_owned());
        match written.get("items") {
            Some(given) => self.check(given, taken)?,
            // Of what is no list nothing is said.
            None if written.contains_key("prefixItems") || !types(written).contains(&"array") => {}
            None => return self.fail("any item may be given"),
        }
        self.path.pop();
        Ok(())
    }

    fn check_others(&self, written: &Map<String, Value>, read: &Map<String, Value>) -> Result<(), Misfit> {
        let is_known = |key: &str| {
            [&ANNOTATIONS[..], &UNDERSTOOD, &LEAST, &MOST].iter().any(|keys| keys.contains(&key))
                || key.starts_with("x-")
        };
        match read.iter().find(|(key, value)| !is_known(key) && written.get(*key) != Some(value)) {
            Some((key, value)) => self.fail(format!("`{key}` {value} is expected")),
            None => Ok(()),
        }
    }

    fn spend(&mut self, steps: usize) -> Result<(), Misfit> {
        self.steps = self.steps.saturating_add(steps);
        if self.steps > MAX_STEPS { self.fail("the schemas are too large to be compared") } else { Ok(()) }
    }

    fn fail<T>(&self, why: impl Into<String>) -> Result<T, Misfit> {
        Err(Misfit { path: self.path.clone(), why: why.into() })
    }
}

/// The schema that a reference leads to.
fn resolve<'a>(root: &'a Value, mut schema: &'a Value) -> Option<&'a Value> {
    for _ in 0..MAX_REFERENCES {
        let Some(reference) = schema.get("$ref") else { return Some(schema) };
        schema = root.pointer(reference.as_str()?.strip_prefix('#')?)?;
    }
    None
}

fn is_anything(schema: &Value) -> bool {
    match schema {
        Value::Bool(anything) => *anything,
        Value::Object(map) => map.keys().all(|key| ANNOTATIONS.contains(&key.as_str())),
        _ => false,
    }
}

fn alternatives(schema: &Value) -> Option<&[Value]> {
    schema.get("anyOf").or_else(|| schema.get("oneOf"))?.as_array().map(Vec::as_slice)
}

fn values(schema: &Value) -> Option<Vec<&Value>> {
    values_of(schema.as_object()?)
}

fn values_of(schema: &Map<String, Value>) -> Option<Vec<&Value>> {
    match (schema.get("const"), schema.get("enum")) {
        (Some(value), _) => Some(vec![value]),
        (None, Some(values)) => values.as_array().map(|values| values.iter().collect()),
        (None, None) => None,
    }
}

/// Whether `value` is one of the values that `schema` names.
fn holds(root: &Value, schema: &Value, value: &Value) -> bool {
    let Some(schema) = resolve(root, schema).and_then(Value::as_object) else { return false };
    match values_of(schema) {
        Some(values) => values.contains(&value),
        None => {
            schema.keys().all(|key| key == "type" || ANNOTATIONS.contains(&key.as_str()))
                && types(schema).iter().any(|word| is_of(value, word))
        }
    }
}

fn types(schema: &Map<String, Value>) -> Vec<&str> {
    match schema.get("type") {
        Some(Value::String(word)) => vec![word],
        Some(Value::Array(words)) => words.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

fn is_of(value: &Value, word: &str) -> bool {
    match value {
        Value::Null => word == "null",
        Value::Bool(_) => word == "boolean",
        Value::Number(number) => word == "number" || word == "integer" && !number.is_f64(),
        Value::String(_) => word == "string",
        Value::Array(_) => word == "array",
        Value::Object(_) => word == "object",
    }
}

fn names(schema: &Map<String, Value>) -> Vec<&str> {
    let required = schema.get("required").and_then(Value::as_array);
    required.into_iter().flatten().filter_map(Value::as_str).collect()
}

fn type_words(schema: &Map<String, Value>) -> String {
    let words = types(schema);
    if words.is_empty() { "anything".to_owned() } else { words.join(" or ") }
}

fn named(schema: &Value) -> String {
    schema.as_object().map_or_else(|| "something else".to_owned(), type_words)
}

/// The least and the largest number.
fn range(schema: &Map<String, Value>) -> (Option<f64>, Option<f64>) {
    let bound = |key: &str| schema.get(key).and_then(Value::as_f64);
    let format = schema.get("format").and_then(Value::as_str).and_then(format_range);
    let least = bound("minimum").into_iter().chain(format.map(|range| range.0)).reduce(f64::max);
    let most = bound("maximum").into_iter().chain(format.map(|range| range.1)).reduce(f64::min);
    (least, most)
}

fn format_range(format: &str) -> Option<(f64, f64)> {
    let bits = |bits: &str| match bits {
        "8" | "16" | "32" | "64" | "128" => bits.parse::<i32>().ok(),
        "" => Some(64),
        _ => None,
    };
    if let Some(rest) = format.strip_prefix("uint") {
        return bits(rest).map(|bits| (0.0, 2_f64.powi(bits)));
    }
    let bits = bits(format.strip_prefix("int")?)?;
    Some((-(2_f64.powi(bits - 1)), 2_f64.powi(bits - 1)))
}

/// Formats that are a range, or that JSON does not tell apart.
fn is_number(format: &str) -> bool {
    matches!(format, "double" | "float") || format_range(format).is_some()
}

#[cfg(test)]
mod tests;
