//! Plugins that live: started from their manifest, kept alive, stopped, adopted, followed by another version.

mod adoption;
mod endings;
mod frozen;
mod kills;
mod leases;
mod tilotech;
mod upgrades;
mod versions;

use std::path::PathBuf;

use goplug_registry::admin::State;
use goplug_registry::host::adopt;
use goplug_registry::{Builder, Code, Registry};
use goplug_tests::{LONG, PluginDir};
use serde_json::{Value, json};

use crate::support::{FIXTURE, GOPLUG_HOST, builder, event, fault, loaded, row, state_of, text};

/// A plugin directory, and the folder of its hosts.
pub(crate) struct Home {
    pub(crate) dir: PluginDir,
    pub(crate) hosts: Hosts,
}

/// A folder of hosts; what runs there is ended with it.
pub(crate) struct Hosts(PluginDir);

impl Home {
    pub(crate) fn new() -> Self {
        Self { dir: PluginDir::new(), hosts: Hosts::new() }
    }

    fn hosts(&self) -> PathBuf {
        self.hosts.folder()
    }

    pub(crate) fn builder(&self) -> Builder {
        builder(self.dir.path()).hosts_dir(self.hosts()).host_program(GOPLUG_HOST)
    }

    pub(crate) async fn watching(&self) -> Registry {
        self.builder().auto_discover(true).open().await.expect("a registry")
    }

    /// Puts the fixture's manifest there, with these keys besides.
    fn install(&self, name: &str, args: &[&str], more: &Value) {
        install_fixture(&self.dir, name, args, more);
    }

    /// Puts a manifest there that runs a shell script.
    fn install_script(&self, name: &str, script: &str, more: &Value) {
        self.install(name, &[], more);
        let file = self.dir.join(name).join("plugin.json");
        let mut manifest: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        manifest["exec"] = json!({"command": "/bin/sh", "args": ["-c", script]});
        self.write(name, &manifest.to_string());
    }

    fn write(&self, name: &str, text: &str) {
        write_manifest(&self.dir, name, text);
    }
}

/// Puts the fixture's manifest into a plugin directory, with these keys besides.
pub(crate) fn install_fixture(dir: &PluginDir, name: &str, args: &[&str], more: &Value) {
    write_manifest(dir, name, &fixture_manifest(dir, name, args, more).to_string());
}

/// The fixture's manifest, with these keys besides.
pub(crate) fn fixture_manifest(dir: &PluginDir, name: &str, args: &[&str], more: &Value) -> Value {
    let mut all = vec![dir.text(), name];
    all.extend(args);
    let (namespace, plain) = name.split_once('/').unwrap();
    let mut manifest = json!({
        "name": plain, "namespace": namespace, "version": "1.0.0",
        "source": {"mode": "local_exec", "path": FIXTURE},
        "exec": {"command": FIXTURE, "args": all},
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        manifest[key] = value.clone();
    }
    manifest
}

fn write_manifest(dir: &PluginDir, name: &str, text: &str) {
    let folder = dir.join(name);
    std::fs::create_dir_all(&folder).unwrap();
    goplug_tests::write_atomically(&folder.join("plugin.json"), text.as_bytes());
}

impl Hosts {
    pub(crate) fn new() -> Self {
        Self(PluginDir::new())
    }

    pub(crate) fn folder(&self) -> PathBuf {
        self.0.join("hosts")
    }

    /// What the records say: the pid of each host and of its plugin.
    pub(crate) fn recorded(&self) -> Vec<(u32, u32)> {
        let files = std::fs::read_dir(self.folder()).into_iter().flatten().flatten();
        let records = files.filter(|file| file.path().extension().is_some_and(|extension| extension == "json"));
        let records =
            records.filter_map(|file| serde_json::from_slice::<Value>(&std::fs::read(file.path()).ok()?).ok());
        let pid = |record: &Value, of: &str| u32::try_from(record[of]["pid"].as_u64().unwrap()).unwrap();
        records.map(|record| (pid(&record, "host"), pid(&record, "plugin"))).collect()
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        let folder = self.folder();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    for adopted in adopt(&folder).await.unwrap_or_default() {
                        if let goplug_registry::host::Adopted::Lives(hosted) = adopted {
                            let at_once = std::time::Duration::ZERO;
                            // One that has just ended by itself is as good.
                            _ = hosted.stop(at_once, at_once).await;
                            _ = hosted.forget().await;
                        }
                    }
                });
            });
        });
    }
}

async fn pid(registry: &Registry, plugin: &str) -> u32 {
    text(registry.execute(plugin, "pid", "").await.unwrap()).parse().unwrap()
}

/// Whether a process of that number runs, and is no zombie.
pub(crate) fn runs(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or_default().trim_start().starts_with('Z'))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_is_all_it_takes() {
    let home = Home::new();
    let registry = home.watching().await;
    home.install("Test/Do", &[], &json!({}));
    loaded(&registry, "Test/Do").await;
    assert_eq!(text(registry.execute("Test/Do", "echo", "hello").await.unwrap()), "hello");
    let shown = row(&registry, "Test/Do").unwrap();
    assert_eq!((shown.state, shown.pconf, shown.version.as_deref()), (State::Loaded, None, Some("1.0.0")));
    assert!(shown.manifest.unwrap().ends_with("Test/Do/plugin.json"));
    let first = pid(&registry, "Test/Do").await;

    // The plugin's own `.pconf` is the same plugin.
    goplug_tests::wait_until("its .pconf", LONG, || home.dir.join("TestDo.pconf").exists());
    registry.rescan().await.unwrap();
    assert_eq!(registry.plugins().len(), 1);
    assert_eq!(pid(&registry, "Test/Do").await, first);

    registry.stop_plugin("Do").await.unwrap();
    assert!(!runs(first));
    assert_eq!(row(&registry, "Test/Do").unwrap().state, State::Stopped);
    let error = fault(registry.execute("Test/Do", "echo", "x").await);
    assert_eq!(error.code, Code::WrongState, "{error:?}");
    registry.start_plugin("Do").await.unwrap();
    let second = pid(&registry, "Test/Do").await;
    registry.restart_plugin("Do").await.unwrap();
    let third = pid(&registry, "Test/Do").await;
    assert!(!runs(second) && runs(third) && first != second && second != third);

    // Whoever takes the manifest away takes the plugin.
    std::fs::remove_dir_all(home.dir.join("Test/Do")).unwrap();
    let mut events = registry.events();
    state_of(&mut events, "Test/Do", State::Gone).await;
    goplug_tests::wait_until("the process has ended", LONG, || !runs(third));
    registry.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lazy_one_waits_to_be_loaded_and_a_disabled_one_for_ever() {
    let home = Home::new();
    home.install("Test/Lazy", &[], &json!({"lazy_load": true}));
    home.install("Test/Off", &[], &json!({}));
    let registry = home.watching().await;
    loaded(&registry, "Test/Off").await;
    let before = pid(&registry, "Test/Off").await;
    assert_eq!(row(&registry, "Test/Lazy").unwrap().state, State::Stopped);
    registry.load("Lazy").await.unwrap();
    assert_eq!(text(registry.execute("Test/Lazy", "echo", "hello").await.unwrap()), "hello");

    registry.disable("Off").await.unwrap();
    assert!(!runs(before));
    assert_eq!(fault(registry.start_plugin("Off").await).code, Code::WrongState);
    assert_eq!(row(&registry, "Test/Off").unwrap().state, State::Disabled);
    registry.close().await;

    // Kept on disk; and the one that runs goes on.
    let registry = home.watching().await;
    assert_eq!(row(&registry, "Test/Off").unwrap().state, State::Disabled);
    registry.enable("Off").await.unwrap();
    loaded(&registry, "Test/Off").await;
    registry.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_required_runs_first_and_a_circle_is_named() {
    let home = Home::new();
    home.install("Test/A", &[], &json!({"requires": ["Test/B@^1.0"], "lazy_load": true}));
    home.install("Test/B", &[], &json!({"requires": ["Test/C"], "lazy_load": true}));
    home.install("Test/C", &[], &json!({"lazy_load": true}));
    home.install("Test/X", &[], &json!({"requires": ["Test/Y"], "lazy_load": true}));
    home.install("Test/Y", &[], &json!({"requires": ["Test/X"], "lazy_load": true}));
    home.install("Test/Old", &[], &json!({"requires": ["Test/C@^2.0"], "lazy_load": true}));
    let registry = home.watching().await;
    registry.load("A").await.unwrap();
    for name in ["Test/A", "Test/B", "Test/C"] {
        assert!(registry.is_loaded(name), "{name}");
    }
    let circle = fault(registry.start_plugin("X").await);
    assert!(circle.message.contains("Test/X -> Test/Y -> Test/X"), "{circle:?}");
    assert_eq!(row(&registry, "Test/X").unwrap().state, State::Failed);
    let old = fault(registry.start_plugin("Old").await);
    assert!(old.message.contains("Test/C@^2.0"), "{old:?}");
    registry.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_one_sleeps_and_the_next_call_wakes_it() {
    let home = Home::new();
    home.install("Test/Nap", &[], &json!({"idle_stop": "1s"}));
    let registry = home.watching().await;
    loaded(&registry, "Test/Nap").await;
    let first = pid(&registry, "Test/Nap").await;
    let mut events = registry.events();
    state_of(&mut events, "Test/Nap", State::Stopped).await;
    assert!(!runs(first));
    assert_ne!(pid(&registry, "Test/Nap").await, first, "the call starts it");
    registry.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hooks_run_around_it_and_one_that_fails_keeps_it_from_starting() {
    let home = Home::new();
    let log = home.dir.join("log");
    let say = |word: &str| json!(["/bin/sh", "-c", format!("echo {word} >> {}", log.display())]);
    home.install(
        "Test/Hooked",
        &[],
        &json!({"hooks": {"pre_start": say("a"), "post_start": say("b"), "pre_stop": say("c"), "post_stop": say("d")}}),
    );
    let refuse = json!({"hooks": {"pre_start": ["/bin/sh", "-c", "echo no room >&2; exit 3"]}, "lazy_load": true});
    home.install("Test/Refused", &[], &refuse);
    let registry = home.watching().await;
    loaded(&registry, "Test/Hooked").await;
    registry.stop_plugin("Hooked").await.unwrap();
    assert_eq!(std::fs::read_to_string(&log).unwrap().split_whitespace().collect::<String>(), "abcd");
    let refused = fault(registry.start_plugin("Refused").await);
    assert!(refused.message.contains("`pre_start`") && refused.message.contains("no room"), "{refused:?}");
    registry.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn its_output_is_read_across_restarts() {
    let home = Home::new();
    home.install("Test/Talk", &[], &json!({}));
    let registry = home.watching().await;
    loaded(&registry, "Test/Talk").await;
    let mut logs = registry.logs("Talk", true).await.unwrap();
    let next = |logs: goplug_registry::Logs| async move {
        let mut logs = logs;
        let line = tokio::time::timeout(LONG, logs.next()).await.unwrap().unwrap().unwrap();
        (line.text, logs.pid(), logs)
    };
    let (line, first, again) = next(logs).await;
    assert_eq!(line, "ready");
    logs = again;
    let killed = first.unwrap();
    crate::hosts::kill(killed);
    let (line, second, _) = next(logs).await;
    assert_eq!(line, "ready");
    assert!(second.is_some() && second != first);
    let mut events = registry.events_after(0).unwrap();
    let told =
        event(&mut events, "its end", |event| event.detail.as_ref().is_some_and(|text| text.contains("signal 9")));
    assert!(told.await.detail.unwrap().contains(&killed.to_string()));
    registry.close().await;
}

/// The whole life of an installed plugin, from a thread without a runtime.
#[test]
fn without_async_a_plugin_is_installed_started_followed_and_removed() {
    let home = Home::new();
    let source = PluginDir::new();
    install_fixture(&source, "Test/Do", &[], &json!({"lazy_load": true}));
    let manifest = source.join("Test/Do/plugin.json");
    let text_of = std::fs::read_to_string(&manifest).unwrap().replace(source.text(), home.dir.text());
    std::fs::write(&manifest, text_of).unwrap();
    let registry = home.builder().open_blocking().unwrap();
    assert_eq!(
        registry.install(source.join("Test/Do"), goplug_registry::Install::default()).unwrap().plugin.as_str(),
        "Test/Do"
    );
    let id = registry.start_plugin("Test/Do").unwrap();
    let first = registry.process(&id).pid.unwrap();
    let mut logs = registry.logs("Test/Do", true).unwrap();
    let (_, line) = logs.next().unwrap().unwrap();
    assert_eq!((line.text.as_str(), line.pid), ("ready", first));
    registry.restart_plugin("Test/Do").unwrap();
    let (_, line) = logs.next().unwrap().unwrap();
    assert_ne!(line.pid, first);
    assert_eq!(registry.disable("Test/Do").unwrap(), id);
    assert_eq!(registry.inspect("Test/Do").unwrap().summary.state, State::Disabled);
    registry.enable("Test/Do").unwrap();
    registry.start_plugin("Test/Do").unwrap();
    registry.stop_plugin("Test/Do").unwrap();
    assert_eq!(registry.process(&id).pid, None);
    registry.remove("Test/Do", false).unwrap();
    registry.wait_for("Test/Do", goplug_registry::Wait::Gone, LONG).unwrap();
    registry.close();
}
