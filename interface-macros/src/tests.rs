//! Every way in which a trait may be no interface: what is said, and where.

use std::str::FromStr;

use proc_macro2::TokenStream;

use crate::interface_of;

const NAMED: &str = r#"name = "demo.math", version = "1.2.0""#;

/// The problems of an interface as `line:column the words it points at: what is wrong`.
fn problems(arguments: &str, item: &str) -> Vec<String> {
    let tokens = |text: &str| TokenStream::from_str(text).unwrap();
    let Err(error) = interface_of(tokens(arguments), tokens(item)) else { return Vec::new() };
    let place = |error: syn::Error| {
        let (begin, end) = (error.span().start(), error.span().end());
        let lines: Vec<_> = item.lines().chain([arguments]).collect();
        let line = lines.get(begin.line - 1).copied().unwrap_or_default();
        let line = if line.len() < end.column { arguments } else { line };
        let pointed = line.get(begin.column..if end.line == begin.line { end.column } else { line.len() });
        format!("{}:{} `{}`: {error}", begin.line, begin.column, pointed.unwrap_or_default())
    };
    error.into_iter().map(place).collect()
}

#[test]
fn what_is_wrong_with_a_method_is_told_where_it_is() {
    for (item, expected) in [
        (
            "async fn add(&self, text: &str) -> Result<u8, Error>;",
            "1:36 `&str`: an argument crosses a process boundary, so it cannot be a reference: use an owned type, such as \
             `String` for `&str`",
        ),
        ("async fn add(&self) -> u8;", "1:33 `u8`: a method returns a `Result`: a call may always fail"),
        ("async fn add(&self);", "1:19 `add`: a method returns a `Result`: a call may always fail"),
        (
            "fn add(a: u8) -> Result<u8, Error>;",
            "1:13 `add`: a method takes `&self`; a notification has no `self` and is marked `#[goplug(notification)]`",
        ),
        (
            "fn add(&mut self) -> Result<u8, Error>;",
            "1:13 `add`: a method takes `&self`; a notification has no `self` and is marked `#[goplug(notification)]`",
        ),
        (
            "fn add<T>(&self, of: T) -> Result<u8, Error>;",
            "1:16 `<T>`: a method of an interface has no generics: both sides must mean the same types",
        ),
        (
            "fn add(&self, of: impl Into<u8>) -> Result<u8, Error>;",
            "1:28 `impl Into<u8>`: an argument has a type of its own: both sides must mean the same",
        ),
        (
            "fn add(&self, (a, b): (u8, u8)) -> Result<u8, Error>;",
            "1:24 `(a, b)`: an argument is a plain name: it is the name of a field on the wire",
        ),
        (
            "fn add(&self) -> Result<u8, Error> { Ok(1) }",
            "1:45 `{ Ok(1) }`: a method of an interface has no body here: the plugin implements it",
        ),
        ("type Output;", "1:10 `type Output;`: an interface consists of methods and notifications only"),
        (
            "#[goplug(idempotend)] fn add(&self) -> Result<u8, Error>;",
            "1:19 `idempotend`: no such word; a method has `idempotent`, `serial`, `deadline_ms = …` and `name = \"…\"`, a \
             notification has `notification`, `state`, `lossy` and `name = \"…\"`",
        ),
        (
            "#[goplug(deadline_ms = 0)] fn add(&self) -> Result<u8, Error>;",
            "1:33 `0`: a deadline is 1 to 86400000 milliseconds",
        ),
        (
            "#[goplug(lossy)] fn add(&self) -> Result<u8, Error>;",
            "1:30 `add`: `lossy` is a class of notifications: `notification` is missing",
        ),
        (
            "#[goplug(name = \"\")] fn add(&self) -> Result<u8, Error>;",
            "1:26 `\"\"`: a name is 1 to 128 bytes without control characters, and not `.` or `..`",
        ),
        (
            "#[goplug(notification)] fn told(&self, of: u8);",
            "1:37 `told`: a notification has no `self` and takes one argument, its payload",
        ),
        (
            "#[goplug(notification)] async fn told(of: u8);",
            "1:43 `told`: a notification is a plain `fn` that returns nothing",
        ),
        (
            "#[goplug(notification, serial)] fn told(of: u8);",
            "1:45 `told`: `idempotent`, `serial` and `deadline_ms` are for methods, not for notifications",
        ),
        (
            "async fn add(&self, of: Stream<u8>, and: u8) -> Result<u8, Error>;",
            "1:34 `Stream<u8>`: a stream is the last argument, and the only one",
        ),
        (
            "fn add(&self) -> Result<Stream<u8>, Error>;",
            "1:13 `add`: a method that takes or gives a stream is `async fn`",
        ),
        (
            "#[goplug(idempotent)] async fn add(&self, of: Stream<u8>) -> Result<u8, Error>;",
            "1:41 `add`: a method that takes a stream is never repeated: what was read of it is gone",
        ),
        (
            "#[goplug(notification)] fn told(of: Stream<u8>);",
            "1:46 `Stream<u8>`: a notification is one value: send one for each item",
        ),
        (
            "fn a(&self) -> Result<(), Error>; #[goplug(name = \"a\")] fn b(&self) -> Result<(), Error>;",
            "1:60 `\"a\"`: method `a` is there twice",
        ),
        (
            "fn in_process(&self) -> Result<(), Error>;",
            "1:13 `in_process`: `in_process` is a function that is generated: call it otherwise and say `name = \
             \"in_process\"`",
        ),
        (
            "fn on_x(&self) -> Result<(), Error>; #[goplug(notification)] fn x(of: u8);",
            "1:13 `on_x`: `on_x` is generated for notification `x`",
        ),
    ] {
        assert_eq!(problems(NAMED, &format!("trait M {{ {item} }}")), [expected]);
    }
}

#[test]
fn all_problems_are_told_at_once() {
    let item = "trait M {\n    fn a(&self, x: &u8) -> Result<(), Error>;\n    fn b(&self);\n}";
    let all = problems(r#"name = "m", version = "1.0""#, item);
    assert_eq!(all.len(), 3, "{all:#?}");
}

#[test]
fn what_is_wrong_with_the_attribute_or_the_trait() {
    for (arguments, item, expected) in [
        ("", "trait M {}", "an interface has a name and a version"),
        (r#"name = "m""#, "trait M {}", "an interface has a name and a version"),
        (r#"name = "m", version = "1.2""#, "trait M {}", "a version is three numbers, such as `1.2.0` (SemVer)"),
        (r#"name = "m", version = "1.02.0""#, "trait M {}", "a version is three numbers"),
        (r#"name = "m", version = 1"#, "trait M {}", "a text in quotes is expected"),
        (r#"name = "m", nature = "x""#, "trait M {}", "no such argument; there are `name` and `version`"),
        (NAMED, "struct M;", "an interface is made of a trait"),
        (NAMED, "trait M<T> {}", "an interface has no generics"),
    ] {
        let told = problems(arguments, item);
        assert!(told.len() == 1 && told[0].contains(expected), "{arguments} {item}: {told:?}");
    }
}

#[test]
fn an_interface_that_is_right_is_expanded() {
    let item = "pub trait Math { async fn all(&self, a: u8, of: Stream<u8>) -> Result<Stream<u8>, Error>; async fn add(&self, a: u8, b: u8) -> Result<u8, Error>; fn one(&self, of: Context, a: u8) -> \
                Result<u8>; #[goplug(notification, state)] fn changed(to: u8); }";
    let arguments = TokenStream::from_str(r#"name = "m", version = "1.2.0-rc.1+x""#).unwrap();
    let text = interface_of(arguments, TokenStream::from_str(item).unwrap()).unwrap().to_string();
    for part in ["MathClient", "MathServer", "MathNotifier", "MathInterfaceAddBody", "on_changed_as", "in_process"] {
        assert!(text.contains(part), "{part} is missing: {text}");
    }
    syn::parse_str::<syn::File>(&text).unwrap();
}
