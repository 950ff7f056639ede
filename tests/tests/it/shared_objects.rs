//! Plugins that are shared objects: in Rust, C and Go; called, cancelled, unloaded, broken.

mod broken;
mod languages;
mod unloaded;

use std::path::{Path, PathBuf};
use std::process::Command;

use goplug_tests::{PluginDir, skip};
use serde_json::{Value, json};

/// The labels of the example.
const LABELS: [&str; 3] = ["greet", "divide", "wait"];
/// The labels of `fixture.c`.
const FIXTURE_LABELS: [&str; 10] =
    ["pid", "overlap", "values", "returns", "says", "segfault", "abort", "exit", "overflow", "hang"];

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/shared-object")
}

fn headers() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared-object/include")
}

/// The example in Rust, which cargo has built beside this test.
fn rust_example() -> PathBuf {
    let object = std::env::current_exe().unwrap().with_file_name("libgreeter.so");
    assert!(object.exists(), "{} is not there", object.display());
    object
}

/// What `cc` makes of a source; `None` where there is no C compiler.
fn compiled(dir: &PluginDir, source: &Path, flags: &[&str]) -> Option<PathBuf> {
    let object = dir.join(&format!(".{}.so", source.file_stem().unwrap().to_str().unwrap()));
    let mut cc = Command::new("cc");
    cc.args(["-std=gnu99", "-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC", "-pthread", "-I"]).arg(headers());
    let Ok(output) = cc.args(flags).arg("-o").arg(&object).arg(source).output() else {
        skip("a shared object in C", "there is no cc in PATH");
        return None;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(object)
}

/// As [`compiled`], of a text.
fn compiled_text(dir: &PluginDir, name: &str, text: &str) -> Option<PathBuf> {
    let source = dir.join(&format!(".{name}.c"));
    std::fs::write(&source, text).unwrap();
    compiled(dir, &source, &[])
}

fn fixture_object(dir: &PluginDir) -> Option<PathBuf> {
    compiled(dir, &Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/shared_objects/fixture.c"), &[])
}

/// The manifest of a shared object, with these keys besides.
fn manifest(name: &str, labels: &[&str], more: &Value) -> Value {
    let (namespace, plain) = name.split_once('/').unwrap();
    let mut manifest = json!({
        "name": plain, "namespace": namespace, "version": "1.0.0",
        "source": {"mode": "local_so", "path": "plugin.so"}, "shared_object": {"labels": labels},
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        manifest[key] = value.clone();
    }
    manifest
}

/// Puts a plugin into a folder as an author would.
fn put(folder: &Path, object: &Path, manifest: &Value) {
    std::fs::create_dir_all(folder).unwrap();
    std::fs::copy(object, folder.join("plugin.so")).unwrap();
    goplug_tests::write_atomically(&folder.join("plugin.json"), manifest.to_string().as_bytes());
}
