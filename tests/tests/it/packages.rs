//! Packages as processes meet them: verified, unpacked, run, followed by another one; nothing of them is run before.

mod granted;
mod verified;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use goplug_registry::{Code, Install, Registry, Upgrade};
use goplug_tests::{LONG, PluginDir, wait_until};
use serde_json::json;

use crate::supervision::{Home, install_fixture, runs};
use crate::support::{GOPLUGCTL, command, fault, goplugctl, loaded, row, text};

/// A key of `minisign` for tests, without a password.
pub(crate) const KEY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/test.key");
pub(crate) const PUBLIC: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/test.pub");

/// A package of the fixture, below a folder that is not looked at.
fn package(dir: &PluginDir, version: &str, args: &[&str], key: Option<&str>) -> PathBuf {
    let args: Vec<_> = ["--version", version].iter().chain(args).copied().collect();
    install_fixture(dir, "Test/Do", &args, &json!({ "version": version }));
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

async fn trusting(home: &Home) -> Registry {
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
fn everything(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
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

#[test]
fn an_installation_runs_nothing() {
    let probe = Command::new("strace").args(["-qq", "-o", "/dev/null", "true"]).status();
    if !probe.is_ok_and(|status| status.success()) {
        return goplug_tests::skip("an installation runs nothing", "strace is not there or may not trace");
    }
    let dir = PluginDir::new();
    let one = package(&dir, "1.0.0", &[], None);
    let log = dir.join(".trace");
    let mut trace = command("strace");
    trace.args(["-f", "-qq", "-e", "trace=execve,execveat", "-o", log.to_str().unwrap(), GOPLUGCTL]);
    trace.env("GOPLUG_TRUST_DIR", dir.join(".trust"));
    trace.args(["--dir", dir.text(), "install", "--allow-unsigned", one.to_str().unwrap()]);
    assert!(trace.status().unwrap().success());
    let log = std::fs::read_to_string(log).unwrap();
    let runs: Vec<_> = log.lines().filter(|line| line.contains("execve")).collect();
    // The first is the command itself.
    assert_eq!(runs.len(), 1, "{runs:?}");
    let mode = std::fs::metadata(dir.join("Test/Do/plugin.json")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o644);
}
