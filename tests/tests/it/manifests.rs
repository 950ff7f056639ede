//! Plugins that are installed: folders with a `plugin.json`, found, shown and explained.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use goplug_registry::admin::{LinkState, State};
use goplug_registry::{Code, Registry, Wait};
use goplug_tests::{LONG, PluginDir, scaled};

use crate::support::{fault, fixture, quiet, row, watching};

/// Puts a plugin into the directory as an author would: the folder, its program, its manifest.
fn install(dir: &PluginDir, folder: &str, name: &str, namespace: &str, version: &str) {
    let path = dir.join(folder);
    std::fs::create_dir_all(&path).unwrap();
    std::fs::write(path.join("run"), "#!/bin/sh\n").unwrap();
    std::fs::set_permissions(path.join("run"), std::fs::Permissions::from_mode(0o755)).unwrap();
    write(&path, &manifest(name, namespace, version));
}

fn write(folder: &Path, text: &str) {
    goplug_tests::write_atomically(&folder.join("plugin.json"), text.as_bytes());
}

fn manifest(name: &str, namespace: &str, version: &str) -> String {
    format!(
        r#"{{"name":"{name}","namespace":"{namespace}","version":"{version}","description":"is told","lazy_load":true,
           "source":{{"mode":"local_exec","path":"run"}},"requires":["Test/Clock@^1.2"]}}"#
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_installed_and_does_not_run_is_stopped_and_says_so() {
    let dir = PluginDir::new();
    install(&dir, "Test/Do", "Do", "Test", "1.2.0");
    let registry = quiet(&dir).await;
    registry.rescan().await.unwrap();
    let shown = row(&registry, "Test/Do").unwrap();
    assert_eq!((shown.state, shown.version.as_deref(), shown.pconf), (State::Stopped, Some("1.2.0"), None));
    assert!(shown.manifest.unwrap().ends_with("Test/Do/plugin.json"));
    let detail = registry.inspect("Do").await.unwrap();
    let installed = detail.installed.unwrap();
    assert_eq!((installed.command, installed.requires), (vec!["./run".to_owned()], vec!["Test/Clock@^1.2".to_owned()]));
    for error in [fault(registry.execute("Test/Do", "Do", "x").await), fault(registry.ping("Test/Do").await.map(drop))]
    {
        assert_eq!(error.code, Code::WrongState, "{error:?}");
        assert!(error.message.contains("is stopped, no process of it runs"), "{error:?}");
    }
    assert!(registry.is_discovered("Do") && !registry.is_loaded("Do"));
    registry.wait_for("Test/Do", Wait::Discovered, LONG).await.unwrap();
    let why = registry.why("Do").await;
    let broken = why.broken().unwrap();
    assert_eq!((why.state, why.callable, broken.name.as_str()), (Some(State::Stopped), false, "process"), "{why:#?}");
    assert!(why.links.iter().take(5).all(|link| link.state == LinkState::Ok), "{why:#?}");
    let needs = fault(registry.load("Do").await);
    assert!(needs.message.contains("it requires `Test/Clock@^1.2`, which is not there"), "{needs:?}");
    registry.close().await;
}

/// In every name the last `@` begins the versions that will do; a plugin that is itself named so comes first.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_may_ask_for_versions() {
    let dir = PluginDir::new();
    install(&dir, "Test/Do", "Do", "Test", "1.2.0");
    install(&dir, "o@dd", "o@dd", "", "1.0.0");
    let registry = quiet(&dir).await;
    registry.rescan().await.unwrap();
    for name in ["Test/Do@^1.2", "Do@1", "Do@*", "Test/Do@>=1, <2", "o@dd", "-/o@dd", "o@dd@=1.0.0"] {
        assert!(registry.inspect(name).await.is_ok() && registry.is_discovered(name), "{name}");
    }
    for (name, text) in [
        ("Test/Do@^2", "plugin `Test/Do` is there in version 1.2.0, which `^2` does not admit"),
        ("Do@~1.1", "is there in version 1.2.0"),
        ("Test/No@^1", "there is no plugin `Test/No`"),
        ("Do@never", "`never` behind the last `@` is no version range"),
    ] {
        let error = fault(registry.inspect(name).await);
        assert!(error.code == Code::NotFound && error.message.contains(text), "{name}: {error:?}");
        assert!(!registry.is_discovered(name));
    }
    let why = registry.why("Test/Do@^2").await;
    assert_eq!((why.callable, why.subject.as_str()), (false, "Test/Do@^2"));
    let broken = why.links.iter().find(|link| link.state == LinkState::Broken);
    assert_eq!(broken.unwrap().name, "version", "{why:#?}");
    assert!(registry.why("Test/Do@^1").await.links.iter().all(|link| link.name != "version"));
    registry.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_and_a_pconf_of_one_pair_are_one_plugin() {
    let dir = PluginDir::new();
    install(&dir, "Do", "Do", "Test", "3.2.1");
    let registry = watching(&dir).await;
    assert_eq!(row(&registry, "Test/Do").unwrap().state, State::Stopped);
    let mut plugin = fixture(&dir, &["Test/Do"]);
    registry.wait_for("Test/Do", Wait::Loaded, LONG).await.unwrap();
    assert_eq!(registry.plugins().len(), 1, "{:#?}", registry.plugins());
    let detail = registry.inspect("Test/Do").await.unwrap();
    assert_eq!(detail.installed.unwrap().version, "3.2.1");
    assert!(detail.summary.manifest.is_some() && detail.summary.pconf.is_some());
    plugin.terminate();
    goplug_tests::wait_for("it is only installed again", LONG, || async {
        row(&registry, "Test/Do").filter(|row| row.state == State::Stopped && row.pconf.is_none()).map(drop)
    })
    .await;
    registry.close().await;
}

/// Half-written, wrong, replaced, removed: found by the events of the folders, without a request.
#[tokio::test(flavor = "multi_thread")]
async fn changes_in_folders_are_found() {
    let dir = PluginDir::new();
    // The periodic scan alone would take longer than the test.
    let registry = Registry::builder(dir.path())
        .auto_discover(true)
        .rescan_interval(Duration::from_secs(3600))
        .open()
        .await
        .unwrap();
    let until = async |what: &str, name: &str, state: Option<State>| {
        goplug_tests::wait_for(what, LONG, || async {
            let found = registry.plugins().into_iter().find(|row| row.name == name).map(|row| row.state);
            (found == state).then_some(())
        })
        .await;
    };
    install(&dir, "Do", "Do", "", "1.0.0");
    until("a new folder is found", "Do", Some(State::Stopped)).await;
    std::fs::write(dir.join("Do/plugin.json"), "{\"name\": \"Do\",\n \"version\": ").unwrap();
    until("half a manifest is told once it has stood", "Do", Some(State::Invalid)).await;
    let refused = registry.plugins().remove(0).last_error.unwrap();
    assert!(refused.contains("line 2 column 12: the file ends before the object does"), "{refused}");
    write(&dir.join("Do"), &manifest("Do", "", "1.1.0"));
    until("it is whole again", "Do", Some(State::Stopped)).await;
    assert_eq!(row(&registry, "-/Do").unwrap().version.as_deref(), Some("1.1.0"));
    std::fs::create_dir(dir.join("Test")).unwrap();
    install(&dir, "Test/Deep", "Deep", "Test", "1.0.0");
    until("a folder in a folder is found", "Deep", Some(State::Stopped)).await;
    std::fs::rename(dir.join("Test/Deep"), dir.join("Test/.away")).unwrap();
    until("a folder that is renamed is gone", "Deep", None).await;
    std::fs::remove_dir_all(dir.join("Do")).unwrap();
    until("a folder that is removed is gone", "Do", None).await;
    registry.close().await;
}

/// F15: folders that are filled before anybody can watch them.
#[tokio::test(flavor = "multi_thread")]
async fn folders_that_come_in_a_burst_are_all_found() {
    let dir = PluginDir::new();
    let registry = Registry::builder(dir.path())
        .auto_discover(true)
        .rescan_interval(Duration::from_secs(3600))
        .open()
        .await
        .unwrap();
    for round in 0..scaled(4, 200) {
        for n in 0..50 {
            install(&dir, &format!("Ns{round}/p{n}"), &format!("p{n}"), &format!("Ns{round}"), "1.0.0");
        }
        let namespace = format!("Ns{round}");
        goplug_tests::wait_for("all of them are found", LONG, || async {
            let found =
                registry.plugins().into_iter().filter(|row| row.namespace == namespace && row.state == State::Stopped);
            (found.count() == 50).then_some(())
        })
        .await;
        std::fs::remove_dir_all(dir.join(&namespace)).unwrap();
    }
    registry.close().await;
}
