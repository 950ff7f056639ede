//! What the compiler says of an interface that cannot be: at which place, and in whose words.
//!
//! With the compiler itself and the library as it was built for this test. What the attribute finds by itself has a table of
//! its own, in `interface-macros/src/tests.rs`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use goplug_tests::PluginDir;

use crate::support::command;

/// What every case begins with, in one line.
const BEGIN: &str = r#"#![allow(unused_imports)] use goplug_interface::{Client, Error, Implement, Stream, interface}; pub struct Plain; pub type MyResult = u8;"#;
const FINE: &str = r#"
    #[interface(name = "m", version = "1.0.0")]
    pub trait Math { async fn add(&self, a: u8, b: u8) -> Result<u8, Error>; }
    pub fn both(_: MathClient, _: MathServer<u8>) {}"#;

#[test]
fn an_interface_that_cannot_be_is_told_in_our_words_at_its_place() {
    let Some(compiler) = Compiler::find() else {
        return goplug_tests::skip("compile errors", "no rustc in PATH that reads the libraries of this test");
    };
    let cannot_travel = "error[E0277]: `Plain` cannot travel in an interface";
    for (case, place, expected) in [
        // The argument, of one and of several; the reply; the payload.
        (interface("async fn add(&self, of: Plain) -> Result<u8, Error>;"), "Plain", cannot_travel),
        (interface("async fn add(&self, a: u8, b: Plain) -> Result<u8, Error>;"), "Plain", cannot_travel),
        (interface("async fn add(&self) -> Result<Plain, Error>;"), "Plain", cannot_travel),
        (interface("#[goplug(notification)] fn told(of: Plain);"), "Plain", cannot_travel),
        // An item of a stream, taken or given.
        (interface("async fn add(&self, of: Stream<Plain>) -> Result<u8, Error>;"), "Plain", cannot_travel),
        (interface("async fn add(&self) -> Result<Stream<Plain>, Error>;"), "Plain", cannot_travel),
        (
            interface("fn add(&self, of: Stream<u8>) -> Result<u8, Error>;"),
            "add",
            "error: a method that takes or gives a stream is `async fn`",
        ),
        (
            interface("async fn add(&self) -> Result<u8, Plain>;"),
            "Plain",
            "error[E0277]: `Plain` cannot travel as the error of a method",
        ),
        (
            interface("async fn add(&self, of: &str) -> Result<u8, Error>;"),
            "&str",
            "error: an argument crosses a process boundary, so it cannot be a reference: use an owned type, such as `String` for `&str`",
        ),
        (
            interface("async fn add(&self) -> MyResult;"),
            "MyResult",
            "error[E0277]: a method of an interface returns a `Result`",
        ),
        (
            FINE.to_owned() + "impl Math for Plain {}",
            "impl Math for Plain",
            "error[E0046]: not all trait items implemented, missing: `add`",
        ),
        (
            FINE.to_owned()
                + "impl Math for Plain { async fn add(&self, a: u8, b: u16) -> Result<u8, Error> { Ok(a) } }",
            "u16",
            "error[E0053]: method `add` has an incompatible type for trait",
        ),
        (
            FINE.to_owned()
                + "impl Math for Plain { async fn add(&self, a: u8, _: u8) -> Result<u8, Error> \
                   { let x = std::rc::Rc::new(a); std::future::ready(()).await; Ok(*x) } }",
            "Result<u8, Error> {",
            "error: future cannot be sent between threads safely",
        ),
    ] {
        let source = format!("{BEGIN}\n{}\n", case.replace('\n', " "));
        let line = source.lines().nth(1).unwrap();
        let column = line.rfind(place).unwrap() + 1;
        let told = compiler.errors(&source);
        let wanted = format!("case.rs:2:{column}: {expected}");
        assert!(told.iter().any(|line| line.starts_with(&wanted)), "{wanted} is not in\n{}", told.join("\n"));
        assert!(told.iter().all(|line| !line.contains("__goplug")), "{}", told.join("\n"));
    }
}

fn interface(item: &str) -> String {
    format!(r#"#[interface(name = "m", version = "1.0.0")] pub trait Math {{ {item} }} "#)
}

/// The compiler, with the library that this test was built with.
struct Compiler {
    library: PathBuf,
    dir: PluginDir,
}

impl Compiler {
    /// Of the builds of the library that are there, the latest one that can do all.
    fn find() -> Option<Self> {
        let built = std::env::current_exe().ok()?.parent()?.to_owned();
        let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let is_library =
            |path: &PathBuf| name(path).starts_with("libgoplug_interface-") && name(path).ends_with(".rlib");
        let entries = std::fs::read_dir(built).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
        let mut libraries: Vec<_> = entries.filter(is_library).collect();
        let age = |path: &PathBuf| path.metadata().and_then(|file| file.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
        libraries.sort_by_key(|path| std::cmp::Reverse(age(path)));
        let compilers = libraries.into_iter().map(|library| Self { library, dir: PluginDir::new() });
        compilers.into_iter().find(|compiler| compiler.errors(&format!("{BEGIN}{FINE}")).is_empty())
    }

    /// The errors of a source, one line each.
    fn errors(&self, source: &str) -> Vec<String> {
        std::fs::write(self.dir.join("case.rs"), source).unwrap();
        let mut rustc: Command = command("rustc");
        rustc.current_dir(self.dir.path()).args(["--edition", "2024", "--crate-type", "lib", "--emit", "metadata"]);
        rustc.args(["--error-format", "short", "case.rs", "--extern"]).arg({
            let mut library = std::ffi::OsString::from("goplug_interface=");
            library.push(&self.library);
            library
        });
        let mut dependencies = std::ffi::OsString::from("dependency=");
        dependencies.push(self.library.parent().unwrap_or(Path::new(".")));
        let Ok(run) = rustc.arg("-L").arg(dependencies).output() else { return vec!["no rustc".to_owned()] };
        let text = String::from_utf8_lossy(&run.stderr).into_owned();
        let errors: Vec<_> = text.lines().filter(|line| line.contains("error")).map(str::to_owned).collect();
        if run.status.success() { Vec::new() } else { errors }
    }
}
