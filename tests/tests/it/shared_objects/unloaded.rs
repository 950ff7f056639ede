//! Installed, followed by another version, unloaded: the process is gone, and the daemon as it was.

use std::path::Path;

use goplug_tests::{LONG, PluginDir, note, scaled, wait_until};
use serde_json::json;

use super::{LABELS, manifest, put, rust_example};
use crate::daemon::process::Stage;
use crate::supervision::runs;
use crate::support::goplugctl;

fn mapped(pid: u32, what: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap().contains(what)
}

#[test]
fn unloading_really_frees_it() {
    let stage = Stage::new(|dir| {
        put(&dir.join("Test/so"), &rust_example(), &manifest("Test/so", &LABELS, &json!({"lazy_load": true})));
    });
    let daemon = stage.daemon.process.pid();
    let resident = || crate::hosts::kib(daemon, "VmRSS");
    let life = || {
        stage.does("Test/so", "load");
        let pid = u32::try_from(stage.get("/v1/plugins/Test/so").json()["pid"].as_u64().unwrap()).unwrap();
        assert!(mapped(pid, "plugin.so") && !mapped(daemon, "plugin.so"));
        stage.does("Test/so", "unload");
        assert!(!runs(pid), "the process is gone when the verb is done");
        let shown = stage.get("/v1/plugins/Test/so").json();
        assert_eq!((&shown["state"], &shown["pid"]), (&json!("stopped"), &json!(null)), "{shown}");
    };
    // What is made once and kept is no leak.
    for _ in 0..3 {
        life();
    }
    let (before, rounds) = (resident(), scaled(10, 200));
    for _ in 0..rounds {
        life();
    }
    let grown = resident().saturating_sub(before);
    note(&format!("growth of a daemon of {before} KiB in {rounds} loads and unloads"), format!("{grown} KiB"));
    // A leaked library, or a leaked life of one, would be far more than what the allocator keeps.
    assert!(grown <= 4 * 1024, "{grown} KiB");
}

/// As the operator does it: a package in, another version, back, out; and a restart, and its output.
#[test]
fn a_package_is_installed_upgraded_rolled_back_and_removed() {
    let sources = PluginDir::new();
    let (one, two) = (sources.join("one"), sources.join("two"));
    let version = |version: &str, labels: &[&str]| manifest("Test/so", labels, &json!({"version": version}));
    put(&one, &rust_example(), &version("1.0.0", &LABELS[..1]));
    put(&two, &rust_example(), &version("1.1.0", &LABELS));
    let stage = Stage::new(|_| {});
    let socket = stage.daemon.socket();
    let ctl = |words: &[&str]| {
        let ran = goplugctl(&[&["--socket", socket.to_str().unwrap()], words].concat());
        assert_eq!(ran.code, 0, "{words:?}: {ran:?}");
        ran.out
    };
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let package = text(&sources.join("one.plg"));
    ctl(&["pack", &text(&one), "--out", &package]);
    ctl(&["install", "--allow-unsigned", &package]);
    ctl(&["wait", "Test/so"]);
    let greet = |method: &str| ctl(&["execute", "Test/so", method, r#"{"label":"greet","values":{"name":"you"}}"#]);
    let greeted = r#"{"values":{"greeting":"hello you","name":"you"}}"#;
    assert_eq!(greet("greet").trim_end(), greeted);
    let pid = || stage.get("/v1/plugins/Test/so").json()["pid"].as_u64().map(|pid| u32::try_from(pid).unwrap());
    let first = pid().unwrap();

    ctl(&["upgrade", "Test/so", &text(&two)]);
    assert_eq!(greet("Execute").trim_end(), greeted);
    assert!(ctl(&["inspect", "Test/so"]).contains("1.1.0"));
    let second = pid().unwrap();
    assert_ne!(first, second);
    wait_until("the process before is gone", LONG, || !runs(first));
    let divided = ctl(&["execute", "Test/so", "divide", r#"{"values":{"number":6,"by":3}}"#]);
    assert!(divided.contains("\"quotient\":2"), "{divided}");

    ctl(&["rollback", "Test/so"]);
    wait_until("the process before is gone", LONG, || !runs(second));
    let unknown = goplugctl(&["--socket", socket.to_str().unwrap(), "execute", "Test/so", "divide", "{}"]);
    assert!(unknown.code != 0 && unknown.err.contains("divide"), "{unknown:?}");

    let third = pid().unwrap();
    ctl(&["restart", "Test/so"]);
    assert!(!runs(third) && runs(pid().unwrap()));
    ctl(&["logs", "Test/so"]);
    ctl(&["stop", "Test/so"]);
    ctl(&["remove", "Test/so"]);
    assert_eq!(pid(), None);
}
