//! Killed at every system call: an installation, a removal, an upgrade, a rollback, and the file of what the operator wants,
//! leave the old or the new.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use goplug_tests::{PluginDir, deep, fast, note, skip};

use crate::support::GOPLUGCTL;

/// The system calls that change something, and those between them.
const CALLS: [&str; 11] = [
    "mkdirat",
    "mkdir",
    "openat",
    "write",
    "copy_file_range",
    "fchmod",
    "fsync",
    "renameat",
    "renameat2",
    "symlinkat",
    "unlinkat",
];
/// More than any of them is made once the work has begun.
const MOST: u32 = 400;

fn source(dir: &PluginDir) -> std::path::PathBuf {
    source_of(dir, ".source", "1.2.3")
}

fn source_of(dir: &PluginDir, name: &str, version: &str) -> std::path::PathBuf {
    let folder = dir.join(name);
    std::fs::create_dir_all(folder.join("data")).unwrap();
    let manifest = format!(
        r#"{{"name":"do","namespace":"test","version":"{version}","source":{{"mode":"local_exec","path":"run"}}}}"#
    );
    for (name, text) in [("plugin.json", manifest.as_str()), ("run", version), ("data/x", "xxx")] {
        std::fs::write(folder.join(name), text).unwrap();
    }
    std::fs::set_permissions(folder.join("run"), std::fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

/// Everything in the folder of the plugin, or nothing.
fn whole(folder: &Path) -> Option<bool> {
    let names = ["plugin.json", "run", "data/x"].map(|name| std::fs::read(folder.join(name)).ok());
    match names {
        [None, None, None] if !folder.exists() => Some(false),
        [Some(_), Some(_), Some(text)] if text == b"xxx" => Some(true),
        _ => None,
    }
}

/// Runs the verb under strace, which kills it at the `nth` call; whether it was killed.
fn killed(dir: &PluginDir, words: &[&str], call: &str, nth: u32) -> bool {
    let inject = format!("inject={call}:signal=KILL:when={nth}");
    let status = Command::new("strace")
        .args([
            "-f",
            "-qq",
            "-o",
            "/dev/null",
            "-e",
            &format!("trace={call}"),
            "-e",
            &inject,
            GOPLUGCTL,
            "--dir",
            dir.text(),
        ])
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    !status.success()
}

#[test]
fn killed_at_every_system_call_there_is_the_old_or_the_new() {
    let probe = Command::new("strace").args(["-qq", "-o", "/dev/null", "true"]).status();
    if !probe.is_ok_and(|status| status.success()) {
        return skip("killed at every system call", "strace is not there or may not trace");
    }
    let (mut kills, mut old, mut new) = (0, 0, 0);
    // Many calls are made before the work begins, when the program is loaded.
    let step = if fast() { 7 } else { 1 };
    for call in CALLS {
        for verb in ["install", "install a package", "remove"] {
            for nth in (1..MOST).step_by(step) {
                let dir = PluginDir::new();
                let source = source(&dir);
                if verb == "remove" {
                    assert!(
                        crate::support::goplugctl(&["--dir", dir.text(), "install", source.to_str().unwrap()]).code
                            == 0
                    );
                }
                let package = dir.join(".source.plg");
                let words: &[&str] = match verb {
                    "install" => &["install", source.to_str().unwrap()],
                    "remove" => &["remove", "test/do"],
                    _ => {
                        let (from, to) = (source.to_str().unwrap(), package.to_str().unwrap());
                        assert_eq!(crate::support::goplugctl(&["pack", from, "--out", to]).code, 0);
                        &["install", "--allow-unsigned", package.to_str().unwrap()]
                    }
                };
                let was_killed = killed(&dir, words, call, nth);
                let is_there = whole(&dir.join("test/do"));
                let is_there = is_there.unwrap_or_else(|| panic!("a mixture after {verb}, killed at {call} {nth}"));
                if !was_killed {
                    break;
                }
                kills += 1;
                *if is_there { &mut new } else { &mut old } += 1;
                // The next one is not hindered, and tidies up.
                let again = crate::support::goplugctl(&["--dir", dir.text(), "install", source.to_str().unwrap()]);
                assert_eq!(again.code, if is_there { 9 } else { 0 }, "after {verb}, killed at {call} {nth}: {again:?}");
                assert_eq!(whole(&dir.join("test/do")), Some(true));
            }
        }
    }
    note("killed_at_system_calls", format_args!("{kills} kills: {old} without the plugin, {new} with all of it"));
    assert!(kills > 20 && old > 0 && new > 0);
}

/// The version whose files are all there, and no other's.
fn whole_version(folder: &Path) -> Option<String> {
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).ok();
    let (manifest, program) = (read("plugin.json")?, read("run")?);
    let fits = manifest.contains(&format!("\"version\":\"{program}\"")) && read("data/x").as_deref() == Some("xxx");
    fits.then_some(program)
}

/// What an upgrade or a rollback leaves is one version or the other, whole, and the next one is not hindered by it.
#[test]
fn killed_at_every_system_call_the_current_version_is_the_old_or_the_new() {
    let probe = Command::new("strace").args(["-qq", "-o", "/dev/null", "true"]).status();
    if !probe.is_ok_and(|status| status.success()) {
        return skip("killed at every system call", "strace is not there or may not trace");
    }
    let (mut kills, mut old, mut new) = (0, 0, 0);
    // A folder that somebody put there, by another way to the same end.
    for (verb, by_hand) in [("upgrade", false), ("upgrade", true), ("rollback", false)] {
        for call in CALLS {
            // Few of those that name things are made, and each is another moment.
            let names = call.starts_with("rename") || matches!(call, "symlinkat" | "fsync" | "unlinkat");
            let step = if names || deep() { 1 } else { 13 };
            for nth in (1..MOST).step_by(step) {
                let dir = PluginDir::new();
                let run = |words: &[&str]| {
                    let ran = crate::support::goplugctl(&[&["--dir", dir.text()], words].concat());
                    assert_eq!(ran.code, 0, "{words:?} after {verb}, killed at {call} {nth}: {ran:?}");
                };
                let (one, two) = (source_of(&dir, ".one", "1.2.3"), source_of(&dir, ".two", "1.3.0"));
                let (one, two) = (one.to_str().unwrap(), two.to_str().unwrap());
                if by_hand {
                    std::fs::create_dir(dir.join("test")).unwrap();
                    std::fs::rename(one, dir.join("test/do")).unwrap();
                } else {
                    run(&["install", one]);
                }
                let (words, from, to): (&[&str], _, _) = match verb {
                    "upgrade" => (&["upgrade", "test/do", two], "1.2.3", "1.3.0"),
                    _ => {
                        run(&["install", two]);
                        (&["rollback", "test/do"], "1.3.0", "1.2.3")
                    }
                };
                let was_killed = killed(&dir, words, call, nth);
                let current = whole_version(&dir.join("test/do"));
                let current = current
                    .unwrap_or_else(|| panic!("a mixture after {verb}, killed at {call} {nth}, by hand: {by_hand}"));
                if !was_killed {
                    assert_eq!(current, to);
                    break;
                }
                kills += 1;
                match current.as_str() {
                    current if current == from => old += 1,
                    current if current == to => new += 1,
                    other => panic!("{other} after {verb}, killed at {call} {nth}"),
                }
                run(&["upgrade", "test/do", two]);
                assert_eq!(whole_version(&dir.join("test/do")).as_deref(), Some("1.3.0"));
                run(&["rollback", "test/do"]);
                assert_eq!(whole_version(&dir.join("test/do")).as_deref(), Some("1.2.3"));
            }
        }
    }
    note(
        "upgrades_killed_at_system_calls",
        format_args!("{kills} kills: {old} at the old version, {new} at the new one"),
    );
    assert!(kills > 20 && old > 0 && new > 0);
}

/// The file of what the operator wants: the old text or the new one, whatever it was killed at, and the next one writes it.
#[test]
fn what_is_wanted_is_the_old_or_the_new() {
    let probe = Command::new("strace").args(["-qq", "-o", "/dev/null", "true"]).status();
    if !probe.is_ok_and(|status| status.success()) {
        return skip(
            "what is wanted, killed at every system call",
            "NOT AVAILABLE: strace is not there or may not trace",
        );
    }
    let calls =
        ["mkdir", "mkdirat", "openat", "flock", "read", "write", "fsync", "rename", "renameat", "unlinkat", "close"];
    let (mut kills, mut old, mut new) = (0, 0, 0);
    let step = if deep() { 1 } else { 5 };
    for call in calls {
        for (verb, next) in [("disable", "enable"), ("enable", "disable")] {
            for nth in (1..MOST).step_by(step) {
                let dir = PluginDir::new();
                crate::supervision::install_fixture(&dir, "Test/Do", &[], &serde_json::json!({"lazy_load": true}));
                let run = |verb| crate::support::goplugctl(&["--dir", dir.text(), verb, "Test/Do"]).code;
                if verb == "enable" {
                    assert_eq!(run("disable"), 0);
                }
                let file = dir.join(".goplug/state.json");
                let before = std::fs::read(&file).ok();
                let was_killed = killed(&dir, &[verb, "Test/Do"], call, nth);
                let after = std::fs::read(&file).ok();
                let what =
                    format!("{verb}, killed at {call} {nth}: {:?}", after.as_deref().map(String::from_utf8_lossy));
                let wanted = after.as_deref().map(serde_json::from_slice::<serde_json::Value>);
                assert!(wanted.is_none_or(|wanted| wanted.is_ok()), "{what}");
                let is_old = before == after;
                // The other text is the one that the verb writes when nobody kills it.
                assert_eq!(run(verb), 0, "{what}");
                let whole = std::fs::read(&file).ok();
                assert!(is_old || after == whole, "{what}");
                assert!(!dir.join(".goplug/state.json.bad").exists(), "{what}");
                assert_eq!(run(next), 0, "{what}");
                if !was_killed {
                    break;
                }
                kills += 1;
                *if is_old { &mut old } else { &mut new } += 1;
            }
        }
    }
    note(
        "wanted_killed_at_system_calls",
        format_args!("{kills} kills: {old} with the text before, {new} with the next"),
    );
    assert!(kills > 20 && old > 0 && new > 0);
}
