//! Packages as processes meet them: verified, unpacked, run, followed by another one; nothing of them is run before.

mod downgrade;
mod granted;
mod policy;
mod verified;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use goplug_registry::{Code, Install, Registry, Upgrade};
use goplug_tests::{LONG, PluginDir, wait_until};
use serde_json::{Value, json};

use crate::changes::can_trace;
use crate::supervision::{Home, Hosts, install_fixture, runs};
use crate::support::{Daemon, GOPLUG_HOST, GOPLUGCTL, command, fault, goplugctl, loaded, row, text};

/// A key of `minisign` for tests, without a password.
pub(crate) const KEY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/test.key");
pub(crate) const PUBLIC: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/test.pub");

/// A package of the fixture, below a folder that is not looked at.
pub(crate) fn package(dir: &PluginDir, version: &str, args: &[&str], key: Option<&str>) -> PathBuf {
    package_with(dir, version, args, key, &json!({}))
}

/// The same, with these keys in its manifest.
fn package_with(dir: &PluginDir, version: &str, args: &[&str], key: Option<&str>, more: &Value) -> PathBuf {
    let args: Vec<_> = ["--version", version].iter().chain(args).copied().collect();
    let mut keys = more.clone();
    keys["version"] = version.into();
    install_fixture(dir, "Test/Do", &args, &keys);
    let folder = dir.join(&format!(".sources/{version}"));
    std::fs::create_dir_all(folder.parent().unwrap()).unwrap();
    std::fs::rename(dir.join("Test/Do"), &folder).unwrap();
    std::fs::remove_dir(dir.join("Test")).unwrap();
    let out = dir.join(&format!(".sources/{version}.plg"));
    let mut words = vec!["pack", folder.to_str().unwrap(), "--out", out.to_str().unwrap()];
    words.extend(key.iter().flat_map(|key| ["--key", key]));
    let packed = goplugctl(&words);
    assert_eq!(packed.code, 0, "{packed:?}");
    out
}

pub(crate) async fn trusting(home: &Home) -> Registry {
    let builder = home.builder().auto_discover(true).trust_dir(home.dir.join(".trust"));
    let registry = builder.open().await.unwrap();
    registry.trust_key(&std::fs::read_to_string(PUBLIC).unwrap(), "tests").await.unwrap();
    registry
}

#[tokio::test(flavor = "multi_thread")]
async fn signed_packages_are_installed_and_follow_one_another() {
    let home = Home::new();
    let one = package(&home.dir, "1.0.0", &[], Some(KEY));
    let two = package(&home.dir, "1.1.0", &[], Some(KEY));
    let bad = package(&home.dir, "1.2.0", &["--activator-exits"], Some(KEY));
    let unsigned = package(&home.dir, "1.3.0", &[], None);
    let registry = trusting(&home).await;
    let installed = registry.install(&one, Install::default()).await.unwrap();
    assert_eq!(installed.signed_by.as_deref(), std::fs::read_to_string(PUBLIC).unwrap().lines().last());
    loaded(&registry, "Test/Do").await;
    let version = async || text(registry.execute("Test/Do", "version", "").await.unwrap());
    assert!(version().await.starts_with("1.0.0 "));
    let first = row(&registry, "Test/Do").unwrap().pid.unwrap();

    registry.upgrade("Test/Do", Some(&two), Upgrade::default()).await.unwrap();
    assert!(version().await.starts_with("1.1.0 "));
    wait_until("the first one has ended", LONG, || !runs(first));
    assert_eq!(
        fault(registry.upgrade("Test/Do", Some(&unsigned), Upgrade::default()).await).code,
        Code::Denied,
        "nobody signed it"
    );
    fault(registry.upgrade("Test/Do", Some(&bad), Upgrade::default()).await);
    assert!(version().await.starts_with("1.1.0 "), "one that does not come up changes nothing");
    registry.rollback("Test/Do", false).await.unwrap();
    assert!(version().await.starts_with("1.0.0 "));

    // The same version with other files is another one that claims to be it.
    std::fs::write(home.dir.join(".sources/1.1.0/more"), "more").unwrap();
    let folder = home.dir.join(".sources/1.1.0");
    let again = home.dir.join(".sources/again.plg");
    let words = ["pack", folder.to_str().unwrap(), "--out", again.to_str().unwrap(), "--key", KEY];
    assert_eq!(goplugctl(&words).code, 0);
    let refused = fault(registry.install(&again, Install::default()).await);
    assert_eq!(refused.code, Code::Conflict, "{refused}");
    registry.stop_plugin("Test/Do").await.unwrap();
    registry.close().await;
}

/// Every file below `dir` but the sources and what is trusted, with its bytes.
pub(crate) fn everything(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            match entry.file_type().unwrap().is_dir() {
                true if entry.file_name() == ".sources" || entry.file_name() == ".trust" => {}
                true => open.push(path),
                false => all.push((path.clone(), std::fs::read(&path).unwrap_or_default())),
            }
        }
    }
    all.sort();
    all
}

/// Whatever byte of a package is another one: it is refused, and nothing of it is left.
#[test]
fn of_a_package_that_was_tampered_with_nothing_is_written() {
    let dir = PluginDir::new();
    let one = package(&dir, "1.0.0", &[], Some(KEY));
    let trust = dir.join(".trust");
    let run = |words: &[&str]| {
        let mut run = command(GOPLUGCTL);
        run.args(["--dir", dir.text()]).args(words).env("GOPLUG_TRUST_DIR", &trust);
        run.output().unwrap()
    };
    assert!(run(&["trust", "add", PUBLIC]).status.success());
    // The folder for what is under way is there after the first one.
    assert!(!run(&["install", dir.join(".sources/none.plg").to_str().unwrap()]).status.success());
    let unpacked = Command::new("gzip").arg("-dc").arg(&one).output().unwrap().stdout;
    let tampered = dir.join(".sources/tampered.plg");
    let before = everything(dir.path());
    let mut refused = 0;
    // Compressed, where hardly a byte can change unseen, and not.
    for good in [std::fs::read(&one).unwrap(), unpacked] {
        for at in (0..good.len()).step_by(good.len() / 40) {
            for cut in [false, true] {
                let mut bytes = good.clone();
                bytes[at] ^= 0x10;
                if cut {
                    bytes.truncate(at);
                }
                std::fs::write(&tampered, &bytes).unwrap();
                let output = run(&["install", tampered.to_str().unwrap()]);
                // Padding, and what gzip says of itself, mean nothing.
                if output.status.success() {
                    let manifest = std::fs::read(dir.join("Test/Do/plugin.json")).unwrap();
                    assert_eq!(manifest, std::fs::read(dir.join(".sources/1.0.0/plugin.json")).unwrap());
                    assert!(run(&["remove", "Test/Do"]).status.success());
                    continue;
                }
                let code = output.status.code();
                assert!(matches!(code, Some(8 | 10)), "byte {at}, cut {cut}: {output:?}");
                assert_eq!(everything(dir.path()), before, "byte {at}, cut {cut}");
                refused += 1;
            }
        }
    }
    assert!(refused > 100, "{refused}");
}

/// Every program that is run meanwhile, by this process or what it starts: the lines of strace.
fn executed(log: &Path) -> Vec<String> {
    let log = std::fs::read_to_string(log).unwrap_or_default();
    log.lines().filter(|line| line.contains("execve")).map(str::to_owned).collect()
}

/// A package whose manifest names programs for every occasion.
fn with_hooks(dir: &PluginDir, version: &str) -> PathBuf {
    let hook = json!(["/bin/sh", "-c", "exit 0"]);
    let hooks = json!({"pre_start": hook, "post_start": hook, "pre_stop": hook, "post_stop": hook});
    package_with(dir, version, &[], None, &json!({"lazy_load": true, "hooks": hooks}))
}

const NO_STRACE: &str = "NOT AVAILABLE: strace is not there or may not trace";

#[test]
fn an_installation_runs_nothing() {
    if !can_trace() {
        return goplug_tests::skip("an installation runs nothing", NO_STRACE);
    }
    let dir = PluginDir::new();
    let [one, two] = ["1.0.0", "1.1.0"].map(|version| with_hooks(&dir, version));
    let (one, two, log) = (one.to_str().unwrap(), two.to_str().unwrap(), dir.join(".trace"));
    let verbs: [&[&str]; 5] = [
        &["install", "--allow-unsigned", one],
        &["upgrade", "Test/Do", "--allow-unsigned", two],
        &["rollback", "Test/Do"],
        &["remove", "Test/Do@1.1.0"],
        &["remove", "Test/Do"],
    ];
    for words in verbs {
        let mut trace = command("strace");
        trace.args(["-f", "-qq", "-e", "trace=execve,execveat", "-o", log.to_str().unwrap(), GOPLUGCTL]);
        trace.env("GOPLUG_TRUST_DIR", dir.join(".trust"));
        assert!(trace.args(["--dir", dir.text()]).args(words).status().unwrap().success(), "{words:?}");
        // The first is the command itself.
        let runs = executed(&log);
        assert_eq!(runs.len(), 1, "{words:?}: {runs:?}");
        if words[0] == "install" {
            let mode = std::fs::metadata(dir.join("Test/Do/plugin.json")).unwrap().permissions().mode();
            assert_eq!(mode & 0o7777, 0o644);
        }
    }
}

/// The same through a daemon, which runs nothing at all until it is asked to start the plugin.
#[test]
fn an_installation_through_a_daemon_runs_nothing() {
    if !can_trace() {
        return goplug_tests::skip("an installation through a daemon runs nothing", NO_STRACE);
    }
    let (dir, hosts) = (PluginDir::new(), Hosts::new());
    let sources = PluginDir::new();
    let [one, two] = ["1.0.0", "1.1.0"].map(|version| with_hooks(&sources, version));
    let folder = hosts.folder();
    let variables = [("GOPLUG_HOSTS_DIR", folder.as_path()), ("GOPLUG_HOST", Path::new(GOPLUG_HOST))];
    let daemon = Daemon::at(PluginDir::new(), &["--plugin-dir", dir.text()], &variables);
    let (log, pid) = (sources.join("trace"), daemon.process.pid());
    let mut trace = command("strace");
    trace.args(["-f", "-qq", "-e", "trace=execve,execveat", "-o", log.to_str().unwrap(), "-p", &pid.to_string()]);
    let mut trace = trace.spawn().unwrap();
    wait_until("every thread of the daemon is watched", LONG, || {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
        let mut texts = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("status")).ok());
        texts.all(|text| !text.contains("TracerPid:\t0\n"))
    });
    let socket = daemon.socket();
    let run = |words: &[&str]| {
        let ran = goplugctl(&[&["--socket", socket.to_str().unwrap()], words].concat());
        assert_eq!(ran.code, 0, "{words:?}: {ran:?}");
    };
    run(&["install", "--allow-unsigned", one.to_str().unwrap()]);
    run(&["upgrade", "Test/Do", "--allow-unsigned", two.to_str().unwrap()]);
    run(&["rollback", "Test/Do"]);
    assert_eq!(executed(&log), Vec::<String>::new());
    // It would have been seen: its host, the hooks, the program.
    run(&["start", "Test/Do"]);
    assert!(executed(&log).len() >= 4, "{:?}", executed(&log));
    run(&["stop", "Test/Do"]);
    let before = executed(&log).len();
    run(&["remove", "Test/Do"]);
    assert_eq!(executed(&log).len(), before);
    drop(daemon);
    trace.wait().unwrap();
}
