//! A shared object that crashes, hangs, or is none: told, and nobody else notices.

use std::time::Duration;

use goplug_registry::admin::State;
use goplug_registry::{CallOptions, Code};
use goplug_tests::{LONG, PluginDir, wait_for};
use serde_json::{Value, json};

use super::{FIXTURE_LABELS, compiled_text, fixture_object, manifest, put, rust_example};
use crate::daemon::process::Stage;
use crate::supervision::Home;
use crate::support::{GOPLUG_HOST, command, fault, loaded, row, text};

/// A daemon, a neighbour in its directory, and a library that dies in every way there is.
#[test]
fn a_crash_inside_leaves_the_daemon_and_the_neighbours_untouched() {
    let dir = PluginDir::new();
    let Some(object) = fixture_object(&dir) else { return };
    let stage = Stage::new(|dir| {
        put(&dir.join("Test/c"), &object, &manifest("Test/c", &FIXTURE_LABELS, &json!({"restart": {"max": 100}})));
        put(&dir.join("Test/rust"), &rust_example(), &manifest("Test/rust", &["greet"], &json!({})));
    });
    let loaded = |plugin: &str| {
        let reply = stage.get(&format!("/v1/plugins/{plugin}/wait?for=loaded&timeoutMs=20000"));
        assert_eq!(reply.status(), 200, "{reply:?}");
        stage.get(&format!("/v1/plugins/{plugin}")).json()["pid"].as_u64().unwrap()
    };
    let (mut crashing, neighbour) = (loaded("Test/c"), loaded("Test/rust"));
    for (label, ended) in [
        ("segfault", json!({"signal": 11})),
        ("abort", json!({"signal": 6})),
        ("exit", json!({"code": 3})),
        ("overflow", json!({"signal": 11})),
    ] {
        let reply = stage.post(&format!("/v1/plugins/Test/c/methods/{label}"));
        assert_eq!(reply.json()["code"], "plugin_gone", "{label}: {reply:?}");
        goplug_tests::wait_until("it is another process", LONG, || {
            let now = stage.get("/v1/plugins/Test/c").json();
            now["state"] == "loaded" && now["pid"].as_u64().is_some_and(|pid| pid != crashing)
        });
        crashing = loaded("Test/c");
        let exit = stage.get("/v1/plugins/Test/c").json()["process"]["lastExit"].clone();
        for (key, value) in ended.as_object().unwrap() {
            assert_eq!(exit[key], *value, "{label}: {exit}");
        }
        assert_eq!(loaded("Test/rust"), neighbour, "{label}");
        let greeted = stage.post("/v1/plugins/Test/rust/methods/Execute");
        assert_eq!(greeted.json()["code"], "method_failed", "{greeted:?}");
    }
}

/// A thread cannot be ended, but its process can: whoever comes next is served.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_never_returns_is_ended_with_its_process() {
    let dir = PluginDir::new();
    let Some(object) = fixture_object(&dir) else { return };
    let home = Home::new();
    let more = json!({"shared_object": {"labels": FIXTURE_LABELS, "grace": "200ms"}});
    put(&home.dir.join("Test/c"), &object, &manifest("Test/c", &[], &more));
    let registry = home.watching().await;
    loaded(&registry, "Test/c").await;
    let first = row(&registry, "Test/c").unwrap().pid;
    let options = CallOptions { deadline: Some(Duration::from_millis(200)), ..CallOptions::default() };
    let late = fault(registry.execute_with("Test/c", "hang", "", options).await);
    assert_eq!(late.code, Code::DeadlineExceeded, "{late:?}");
    let pid = async || {
        let reply = registry.execute("Test/c", "pid", "").await.ok()?;
        serde_json::from_slice::<Value>(&reply).unwrap()["values"]["pid"]
            .as_u64()
            .map(|pid| u32::try_from(pid).unwrap())
    };
    let second = wait_for("another process serves", LONG, pid).await;
    assert_ne!(Some(second), first);
    let exit = registry.inspect("Test/c").await.unwrap().process.unwrap().last_exit.unwrap();
    assert_eq!(exit.signal, Some(6), "{exit:?}");
    let words = exit.stderr.join("\n");
    assert!(words.contains("Execute with label `hang` has not returned 200ms after its call was over"), "{words}");
    registry.close().await;
}

/// Told by lint, install, `why` and the start, in words; nothing of the object has run by then.
#[tokio::test(flavor = "multi_thread")]
async fn what_can_never_work_is_told_before_anything_of_it_runs() {
    let dir = PluginDir::new();
    let mark = dir.join("opened");
    let opens = format!(
        "#include <stdio.h>\n__attribute__((constructor)) static void opened(void) \
         {{ FILE *f = fopen(\"{}\", \"w\"); if (f) fclose(f); }}\n",
        mark.display()
    );
    let Some(none) = compiled_text(&dir, "none", &format!("{opens}int Other(void) {{ return 0; }}")) else { return };
    let abi = format!("{opens}const unsigned goplug_abi = 2; int Execute(const void *c) {{ return c != 0; }}");
    let later = compiled_text(&dir, "later", &abi).unwrap();
    let datum = compiled_text(&dir, "datum", &format!("{opens}int Execute = 1;")).unwrap();
    let script = dir.join(".script.so");
    std::fs::write(&script, "#!/bin/sh\n").unwrap();
    let foreign = dir.join(".foreign.so");
    let mut bytes = std::fs::read(&none).unwrap();
    // e_machine: IA-64, of which none is left.
    bytes[18..20].copy_from_slice(&50_u16.to_ne_bytes());
    std::fs::write(&foreign, bytes).unwrap();

    let home = Home::new();
    let registry = home.builder().open().await.unwrap();
    for (name, object, expected) in [
        ("none", none, "plugin.so exports no function `Execute`"),
        ("later", later, "plugin.so was built for version 2 of goplug.h, this goplug has version 1"),
        ("datum", datum, "plugin.so exports `Execute`, which is no function"),
        ("script", script, "plugin.so is no ELF file"),
        ("foreign", foreign, "plugin.so is for another machine"),
    ] {
        let plugin = format!("Test/{name}");
        let source = dir.join(name);
        put(&source, &object, &manifest(&plugin, &[], &json!({})));
        let lint = goplug_registry::lint(&source);
        assert!(lint.files[0].problems[0].message.contains(expected), "{name}: {lint:?}");
        let refused = fault(registry.install(&source, goplug_registry::Install::default()).await);
        assert!(refused.code == Code::InvalidArgument && refused.message.contains(expected), "{name}: {refused:?}");

        put(&home.dir.join(&plugin), &object, &manifest(&plugin, &[], &json!({})));
        let error = fault(registry.load(&plugin).await);
        assert!(error.code == Code::InvalidArgument && error.message.contains(expected), "{name}: {error:?}");
        let why = registry.why(&plugin).await;
        let broken = why.broken().unwrap();
        assert!(broken.name == "program" && broken.detail.contains(expected), "{name}: {why:?}");
        assert_eq!(why.state, Some(State::Failed), "{name}");
    }
    assert!(!mark.exists(), "nothing of them has run");
    registry.close().await;
}

/// What only the loader can find out is in the last words.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_loader_says_is_told() {
    let dir = PluginDir::new();
    let text = "int nobody_has_this(void); int Execute(const void *c) { return c ? nobody_has_this() : 0; }";
    let Some(object) = compiled_text(&dir, "unresolved", text) else { return };
    let home = Home::new();
    let more = json!({"restart": {"policy": "never"}});
    put(&home.dir.join("Test/c"), &object, &manifest("Test/c", &[], &more));
    let registry = home.builder().open().await.unwrap();
    let error = fault(registry.load("Test/c").await);
    assert!(
        error.message.contains("plugin.so cannot be opened") && error.message.contains("nobody_has_this"),
        "{error:?}"
    );
    let why = registry.why("Test/c").await;
    assert!(why.broken().unwrap().detail.contains("nobody_has_this"), "{why:?}");
    registry.close().await;
}

/// By hand, as who looks for a mistake does it.
#[test]
fn a_folder_that_is_none_is_told_on_the_command_line() {
    let run = |args: &[&str]| {
        let output = command(GOPLUG_HOST).args(args).output().unwrap();
        (output.status.code(), text(&output.stderr))
    };
    let (code, words) = run(&["--shared-object"]);
    assert!(code == Some(1) && words.contains("takes the folder of a plugin"), "{words}");
    let (code, words) = run(&["--shared-object", "/no/such"]);
    assert!(code == Some(1) && words.contains("/no/such/plugin.json: No such file"), "{words}");
}
