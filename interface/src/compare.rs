//! Whether a plugin offers what an application wants, method by method. Pure.

use std::fmt;

use goplug_pconf_schema::printable;
use goplug_pconf_schema::wire::event::Class;
use goplug_pconf_schema::wire::hello::{CallbackInfo, MethodInfo};
use semver::{Comparator, Op, Version, VersionReq};
use serde_json::Value;

use crate::description::Description;
use crate::fits::misfit;

/// One way in which what is offered is not what is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mismatch {
    /// Another major version, or an earlier minor one.
    Version {
        /// What the application was built with.
        wanted: String,
        /// What the plugin implements.
        offered: String,
    },
    /// A method does not fit.
    Method {
        /// Its name.
        name: String,
        /// Why.
        problem: Problem,
    },
    /// A callback does not fit.
    Callback {
        /// Its name.
        name: String,
        /// Why.
        problem: Problem,
    },
}

/// What is wrong with a method or a callback.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// It is not there.
    Missing,
    /// The plugin would refuse a request that the application may send: where, and why.
    Request(String),
    /// The application could not read a reply that the plugin may send: where, and why.
    Reply(String),
    /// The request is a stream of items on one side only: whether the application sends one.
    StreamedRequest(bool),
    /// The reply is a stream of items on one side only: whether the application reads one.
    StreamedReply(bool),
    /// The application could not read a notification that the plugin may send: where, and why.
    Payload(String),
    /// A call that may have run is repeated by whoever wants it so, and must not be.
    NotIdempotent,
    /// Calls run at once that are wanted one at a time.
    NotSerial,
    /// Other promises.
    Class {
        /// What is wanted.
        wanted: Class,
        /// What is offered.
        offered: Class,
    },
}

/// Everything in which `offered` falls short of `wanted`; nothing when an application that was built with `wanted` can use
/// a plugin that implements `offered`.
///
/// Versions fit by the rules of SemVer: the same major version, and at least the minor one (before 1.0.0, the same minor
/// version and at least the patch). Schemas fit when every request that may be sent can be read, and every reply; a plugin
/// may take more and reply more than is wanted. What one side has no schema of is not compared, nor are errors: one that
/// is not known arrives as [`crate::Failed::Call`].
pub fn compare(wanted: &Description, offered: &Description) -> Vec<Mismatch> {
    let mut mismatches = Vec::new();
    if !version_fits(&wanted.version, &offered.version) {
        let (wanted, offered) = (wanted.version.clone(), offered.version.clone());
        mismatches.push(Mismatch::Version { wanted, offered });
    }
    for method in &wanted.methods {
        let other = offered.methods.iter().find(|other| other.name == method.name);
        let problems = other.map_or_else(|| vec![Problem::Missing], |other| of_method(method, other));
        let told = |problem| Mismatch::Method { name: method.name.clone(), problem };
        mismatches.extend(problems.into_iter().map(told));
    }
    for callback in &wanted.callbacks {
        let other = offered.callbacks.iter().find(|other| other.name == callback.name);
        let problems = other.map_or_else(|| vec![Problem::Missing], |other| of_callback(callback, other));
        let told = |problem| Mismatch::Callback { name: callback.name.clone(), problem };
        mismatches.extend(problems.into_iter().map(told));
    }
    mismatches
}

fn of_method(wanted: &MethodInfo, offered: &MethodInfo) -> Vec<Problem> {
    let (sends, takes) = ([&wanted.input_item, &wanted.input], [&offered.input_item, &offered.input]);
    let (gives, reads) = ([&offered.output_item, &offered.output], [&wanted.output_item, &wanted.output]);
    let request = one_sided(reads_stream(sends), takes).map(Problem::StreamedRequest);
    let request = request
        .or_else(|| both(&wanted.input, &offered.input).map(Problem::Request))
        .or_else(|| both(&wanted.input_item, &offered.input_item).map(in_an_item).map(Problem::Request));
    let reply = one_sided(reads_stream(reads), gives).map(Problem::StreamedReply);
    let reply = reply
        .or_else(|| both(&offered.output, &wanted.output).map(Problem::Reply))
        .or_else(|| both(&offered.output_item, &wanted.output_item).map(in_an_item).map(Problem::Reply));
    let idempotent = (wanted.idempotent && !offered.idempotent).then_some(Problem::NotIdempotent);
    let serial = (wanted.serial && !offered.serial).then_some(Problem::NotSerial);
    [request, reply, idempotent, serial].into_iter().flatten().collect()
}

/// The schema of an item, and that of a whole body.
type Schemas<'a> = [&'a Option<Value>; 2];

fn reads_stream([item, _]: Schemas<'_>) -> bool {
    item.is_some()
}

/// Whether one side alone means a stream: then whether that is the application. Of a plugin that says nothing of its bodies
/// nothing is known.
fn one_sided(wants: bool, offered: Schemas<'_>) -> Option<bool> {
    let says_something = offered.iter().any(|schema| schema.is_some());
    (says_something && wants != reads_stream(offered)).then_some(wants)
}

fn in_an_item(why: String) -> String {
    format!("in an item: {why}")
}

fn of_callback(wanted: &CallbackInfo, offered: &CallbackInfo) -> Vec<Problem> {
    let (this, that) = (wanted.class, offered.class);
    let class = (this != that).then_some(Problem::Class { wanted: this, offered: that });
    let payload = both(&offered.payload, &wanted.payload).map(Problem::Payload);
    [class, payload].into_iter().flatten().collect()
}

fn both(written: &Option<Value>, read: &Option<Value>) -> Option<String> {
    misfit(written.as_ref()?, read.as_ref()?)
}

fn version_fits(wanted: &str, offered: &str) -> bool {
    let (Ok(wanted), Ok(offered)) = (Version::parse(wanted), Version::parse(offered)) else { return false };
    let at_least = Comparator {
        op: Op::Caret,
        major: wanted.major,
        minor: Some(wanted.minor),
        patch: Some(wanted.patch),
        pre: wanted.pre,
    };
    VersionReq { comparators: vec![at_least] }.matches(&offered)
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version { wanted, offered } => {
                write!(f, "version {} is offered, {wanted} is wanted", printable(offered))
            }
            Self::Method { name, problem } => write!(f, "method `{}` {problem}", printable(name)),
            Self::Callback { name, problem } => write!(f, "callback `{}` {problem}", printable(name)),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("is missing"),
            Self::Request(why) => write!(f, "would refuse a request: {}", printable(why)),
            Self::Reply(why) => write!(f, "may give a reply that cannot be read: {}", printable(why)),
            Self::StreamedRequest(true) => f.write_str("takes one request, a stream is wanted"),
            Self::StreamedRequest(false) => f.write_str("takes a stream, one request is wanted"),
            Self::StreamedReply(true) => f.write_str("gives one reply, a stream is wanted"),
            Self::StreamedReply(false) => f.write_str("gives a stream, one reply is wanted"),
            Self::Payload(why) => write!(f, "may send what cannot be read: {}", printable(why)),
            Self::NotIdempotent => f.write_str("is not idempotent"),
            Self::NotSerial => f.write_str("is not serial"),
            Self::Class { wanted, offered } => {
                let word = |class: &Class| format!("{class:?}").to_lowercase();
                write!(f, "is of class {}, {} is wanted", word(offered), word(wanted))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn math() -> Description {
        let method = |name: &str| MethodInfo {
            input: Some(json!({"type": "integer"})),
            output: Some(json!({"type": "integer"})),
            idempotent: true,
            serial: true,
            ..MethodInfo::named(name)
        };
        let payload = Some(json!({"type": "string"}));
        let told = CallbackInfo { name: "told".into(), class: Class::Event, description: None, payload };
        Description {
            name: "demo.math".into(),
            version: "1.2.0".into(),
            methods: vec![method("add"), method("divide")],
            callbacks: vec![told],
        }
    }

    #[test]
    fn what_is_offered_is_compared_method_by_method() {
        type Change = fn(&mut Description);
        let table: &[(Change, &[&str])] = &[
            (|_| {}, &[]),
            (|it| it.version = "1.2.1".into(), &[]),
            (|it| it.version = "1.3.0".into(), &[]),
            (|it| it.version = "1.1.9".into(), &["version 1.1.9 is offered, 1.2.0 is wanted"]),
            (|it| it.version = "2.0.0".into(), &["version 2.0.0 is offered, 1.2.0 is wanted"]),
            (|it| it.version = "none".into(), &["version none is offered, 1.2.0 is wanted"]),
            (|it| it.methods.reverse(), &[]),
            (|it| it.methods.push(MethodInfo::named("more")), &[]),
            (|it| drop(it.methods.remove(0)), &["method `add` is missing"]),
            (|it| it.methods.clear(), &["method `add` is missing", "method `divide` is missing"]),
            (|it| it.methods[1].idempotent = false, &["method `divide` is not idempotent"]),
            (|it| it.methods[1].serial = false, &["method `divide` is not serial"]),
            (|it| it.methods[0].input = None, &[]),
            (
                |it| it.methods[0].input = Some(json!({"type": "string"})),
                &["method `add` would refuse a request: integer is given, string is expected"],
            ),
            (
                |it| {
                    it.methods[0].output = Some(json!({"type": "null"}));
                    it.methods[1].output = Some(json!({"type": "number"}));
                },
                &[
                    "method `add` may give a reply that cannot be read: null is given, integer is expected",
                    "method `divide` may give a reply that cannot be read: number is given, integer is expected",
                ],
            ),
            (
                |it| {
                    it.methods[0].input_item = Some(json!({"type": "integer"}));
                    it.methods[1].output_item = it.methods[1].output.take();
                },
                &[
                    "method `add` takes a stream, one request is wanted",
                    "method `divide` gives a stream, one reply is wanted",
                ],
            ),
            (|it| it.callbacks[0].class = Class::Lossy, &["callback `told` is of class lossy, event is wanted"]),
            (
                |it| it.callbacks[0].payload = Some(json!({"type": "integer"})),
                &["callback `told` may send what cannot be read: integer is given, string is expected"],
            ),
            (|it| it.callbacks.clear(), &["callback `told` is missing"]),
        ];
        for (change, expected) in table {
            let mut offered = math();
            change(&mut offered);
            let told: Vec<_> = compare(&math(), &offered).iter().map(ToString::to_string).collect();
            assert_eq!(told, *expected);
        }
    }

    #[test]
    fn streams_are_compared_item_by_item() {
        type Change = fn(&mut MethodInfo);
        let table: &[(Change, &[&str])] = &[
            (|_| {}, &[]),
            (|it| it.input_item = Some(json!({"type": "number"})), &[]),
            (
                |it| it.input_item = Some(json!({"type": "string"})),
                &["method `add` would refuse a request: in an item: integer is given, string is expected"],
            ),
            (
                |it| it.output_item = Some(json!({"type": "number"})),
                &[
                    "method `add` may give a reply that cannot be read: in an item: number is given, integer is expected",
                ],
            ),
            (
                |it| (it.input, it.output) = (it.input_item.take(), it.output_item.take()),
                &[
                    "method `add` takes one request, a stream is wanted",
                    "method `add` gives one reply, a stream is wanted",
                ],
            ),
            // A plugin in another language that says nothing.
            (|it| (it.input, it.input_item, it.output_item) = (None, None, None), &[]),
        ];
        let mut wanted = math();
        let item = Some(json!({"type": "integer"}));
        let method = MethodInfo { input: None, output: None, ..wanted.methods[0].clone() };
        wanted.methods[0] = MethodInfo { input_item: item.clone(), output_item: item, ..method };
        for (change, expected) in table {
            let mut offered = wanted.clone();
            change(&mut offered.methods[0]);
            let told: Vec<_> = compare(&wanted, &offered).iter().map(ToString::to_string).collect();
            assert_eq!(told, *expected);
        }
    }

    #[test]
    fn versions_before_the_first_are_as_semver_says() {
        for (wanted, offered, fits) in [
            ("0.2.1", "0.2.1", true),
            ("0.2.1", "0.2.9", true),
            ("0.2.1", "0.3.0", false),
            ("1.2.0-rc.1", "1.2.0", true),
            ("1.2.0", "1.3.0-rc.1", false),
            ("1.2.0", "1.2.0+build", true),
        ] {
            assert_eq!(version_fits(wanted, offered), fits, "{wanted} {offered}");
        }
    }
}
