//! What every language can do: every label, values both ways, a deadline, a cancel; one call after the other.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use goplug_registry::{CallOptions, Code, Registry};
use goplug_tests::{LONG, PluginDir, fast, skip, wait_for};
use serde_json::{Value, json};

use super::{FIXTURE_LABELS, LABELS, compiled, examples, fixture_object, headers, manifest, put, rust_example};
use crate::supervision::{Home, runs};
use crate::support::{fault, loaded, row, text};

async fn call(registry: &Registry, plugin: &str, method: &str, body: Value) -> Value {
    let reply = registry.execute(plugin, method, body.to_string()).await;
    serde_json::from_str(&text(reply.unwrap_or_else(|error| panic!("{method} {body}: {error:?}")))).unwrap()
}

/// How often the plugin has written that its `wait` was cancelled.
async fn cancelled(registry: &Registry, plugin: &str) -> usize {
    let mut logs = registry.logs(plugin, false).await.unwrap();
    let mut count = 0;
    while let Some(entry) = logs.next().await.unwrap() {
        count += usize::from(entry.text.starts_with("wait was cancelled after"));
    }
    count
}

/// Everything that the example promises, of `object`.
async fn serves_every_label(object: &Path, on_division_by_zero: Code) {
    let home = Home::new();
    put(&home.dir.join("Test/greeter"), object, &manifest("Test/greeter", &LABELS, &json!({})));
    let registry = home.watching().await;
    let plugin = "Test/greeter";
    loaded(&registry, plugin).await;
    let methods: Vec<_> = registry.methods(plugin).unwrap().methods.into_iter().map(|method| method.name).collect();
    assert_eq!(methods, ["greet", "divide", "wait", "Execute"]);

    let greeted = json!({"values": {"greeting": "hello you", "name": "you", "more": [1, {"a": null}]}});
    let values = json!({"name": "you", "more": [1, {"a": null}]});
    for (method, body) in [
        ("greet", json!({"values": values})),
        ("greet", json!({"label": "greet", "values": values})),
        ("Execute", json!({"label": "greet", "values": values})),
    ] {
        assert_eq!(call(&registry, plugin, method, body).await, greeted, "{method}");
    }
    let divided =
        call(&registry, plugin, "divide", json!({"values": {"number": -7, "by": 2, "quotient": "old"}})).await;
    assert_eq!(divided, json!({"values": {"number": -7, "by": 2, "quotient": -3}}));

    for (method, body, code, text) in [
        ("Execute", r#"{"label":"none"}"#, Code::MethodFailed, "label"),
        ("Execute", "", Code::MethodFailed, "label"),
        ("greet", r#"{"label":"wait"}"#, Code::InvalidArgument, "was called with label `wait`"),
        ("greet", r#"{"values":{"name":1}}"#, Code::MethodFailed, ""),
        ("greet", r#"{"valeus":{}}"#, Code::InvalidArgument, "unknown field `valeus`"),
        ("greet", "no JSON", Code::InvalidArgument, "is not the JSON it takes"),
        ("none", "{}", Code::NotFound, "none"),
    ] {
        let error = fault(registry.execute(plugin, method, body).await);
        assert!(error.code == code && error.message.contains(text), "{method} {body}: {error:?}");
    }

    // A deadline reaches it, ends the call, and is seen inside; the next call has not to wait for it.
    let options = CallOptions { deadline: Some(Duration::from_millis(400)), ..CallOptions::default() };
    let late = fault(registry.execute_with(plugin, "wait", "{}", options).await);
    assert_eq!(late.code, Code::DeadlineExceeded, "{late:?}");
    assert_eq!(call(&registry, plugin, "greet", json!({"values": values})).await, greeted);
    wait_for("it has seen the deadline", LONG, async || (cancelled(&registry, plugin).await == 1).then_some(())).await;
    // A caller that goes is seen, too.
    let dropped = tokio::time::timeout(Duration::from_millis(300), registry.execute(plugin, "wait", "{}")).await;
    assert!(dropped.is_err());
    wait_for("it has seen the cancel", LONG, async || (cancelled(&registry, plugin).await == 2).then_some(())).await;
    assert_eq!(call(&registry, plugin, "greet", json!({"values": values})).await, greeted);

    let error = fault(registry.execute(plugin, "divide", r#"{"values":{"number":1,"by":0}}"#).await);
    assert_eq!(error.code, on_division_by_zero, "{error:?}");
    let greet = async || registry.execute(plugin, "greet", json!({"values": values}).to_string()).await.ok();
    let back = wait_for("it serves again", LONG, greet).await;
    assert_eq!(serde_json::from_slice::<Value>(&back).unwrap(), greeted);

    // Often: what was started is also found by itself, before or after it is asked for.
    for _ in 0..10 {
        let pid = row(&registry, plugin).unwrap().pid.unwrap();
        registry.unload(plugin, goplug_registry::Unload::default()).await.unwrap();
        assert!(!runs(pid), "unloaded is freed");
        registry.load(plugin).await.unwrap();
    }
    assert_eq!(call(&registry, plugin, "greet", json!({"values": values})).await, greeted);
    registry.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_rust_and_a_panic_is_told() {
    serves_every_label(&rust_example(), Code::Panicked).await;
}

/// Where a division by zero is none, it is no reason to end either.
#[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
#[tokio::test(flavor = "multi_thread")]
async fn in_c() {
    let dir = PluginDir::new();
    let Some(object) = compiled(&dir, &examples().join("greeter.c"), &[]) else { return };
    serves_every_label(&object, Code::PluginGone).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_go() {
    if fast() {
        return;
    }
    let dir = PluginDir::new();
    let object = dir.join(".greeter.so");
    let mut go = Command::new("go");
    go.current_dir(examples()).args(["build", "-buildmode=c-shared", "-o"]).arg(&object).arg("greeter.go");
    go.env("CGO_CFLAGS", format!("-I{}", headers().display())).env("GO111MODULE", "off");
    if std::env::var_os("HOME").is_none() {
        go.env("GOCACHE", dir.join(".cache"));
    }
    match go.output() {
        Err(_) => return skip("a shared object in Go", "there is no go in PATH"),
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr)),
    }
    serves_every_label(&object, Code::Panicked).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn values_go_both_ways_as_c_wants_them() {
    let dir = PluginDir::new();
    let Some(object) = fixture_object(&dir) else { return };
    let home = Home::new();
    put(&home.dir.join("Test/c"), &object, &manifest("Test/c", &FIXTURE_LABELS, &json!({})));
    let registry = home.watching().await;
    loaded(&registry, "Test/c").await;
    // A number that no machine has, and the blanks of whoever wrote it: not a letter is changed.
    let body = r#"{"values":{"big":12345678901234567890.12345678901234567890,"deep":{"b": 1,"a" :2},"":1}}"#;
    let reply = text(registry.execute("Test/c", "values", body).await.unwrap());
    assert_eq!(
        reply,
        r#"{"values":{"abi":1,"bad":1,"big":12345678901234567890.12345678901234567890,"blank":0,"deep":{"b": 1,"a" :2},"missing":4,"nil":null,"size":56,"was missing":null}}"#
    );
    let returned = fault(registry.execute("Test/c", "returns", "").await);
    assert_eq!(
        (returned.code, returned.message.contains("Execute returned 77")),
        (Code::MethodFailed, true),
        "{returned:?}"
    );
    let said = fault(registry.execute("Test/c", "says", "").await);
    assert!(said.code == Code::MethodFailed && said.message.contains("no room left"), "{said:?}");
    registry.close().await;
}

/// By default one at a time, of whatever label, and always on the same thread.
#[tokio::test(flavor = "multi_thread")]
async fn calls_come_one_at_a_time_unless_the_manifest_says_otherwise() {
    let dir = PluginDir::new();
    let Some(object) = fixture_object(&dir) else { return };
    let home = Home::new();
    let labels = json!({"shared_object": {"labels": ["overlap"], "concurrent": true}});
    put(&home.dir.join("Test/one"), &object, &manifest("Test/one", &["overlap"], &json!({})));
    put(&home.dir.join("Test/many"), &object, &manifest("Test/many", &[], &labels));
    let registry = home.watching().await;
    for (plugin, is_serial) in [("Test/one", true), ("Test/many", false)] {
        loaded(&registry, plugin).await;
        let calls = (0..8).map(|n| {
            let (registry, plugin) = (registry.clone(), plugin.to_owned());
            let method = if n % 2 == 0 { "overlap" } else { "Execute" };
            tokio::spawn(async move { call(&registry, &plugin, method, json!({"label": "overlap"})).await })
        });
        let (mut most, mut threads) = (0, std::collections::BTreeSet::new());
        for one in calls.collect::<Vec<_>>() {
            let reply = one.await.unwrap();
            most = most.max(reply["values"]["most"].as_u64().unwrap());
            threads.insert(reply["values"]["thread"].as_i64().unwrap());
        }
        assert_eq!((most == 1, threads.len() == 1), (is_serial, is_serial), "{plugin}: {most} at once, {threads:?}");
    }
    registry.close().await;
}
