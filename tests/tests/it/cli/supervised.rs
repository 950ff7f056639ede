//! What is told of installed plugins that do not run: `why`, `wait` and `doctor`.

use std::path::PathBuf;

use goplug_tests::{LONG, PluginDir, Process, wait_until};
use serde_json::json;

use super::Transcript;
use crate::supervision::install_fixture;

fn installed(dir: &PluginDir) -> Vec<Process> {
    let script = |name: &str, script: &str, restart: &serde_json::Value| {
        let exec = json!({"command": "/bin/sh", "args": ["-c", script]});
        install_fixture(dir, name, &[], &json!({"exec": exec, "restart": restart, "lazy_load": true}));
    };
    let slow = json!({"policy": "always", "backoff": {"first": "10m", "longest": "10m"}});
    script("Test/Falls", "echo it fell >&2; exit 3", &slow);
    script("Test/Fallen", "echo it fell >&2; exit 3", &json!({"policy": "never"}));
    install_fixture(dir, "Test/Off", &[], &json!({"lazy_load": true}));
    install_fixture(dir, "Test/Sleepy", &[], &json!({"idle_stop": "1s", "lazy_load": true}));
    Vec::new()
}

#[test]
fn why_and_wait_of_what_does_not_run() {
    let mut both = Transcript::quiet(installed);
    both.same_in_both_forms("why Test/Off");
    both.same("wait Test/Off --for=discovered");
    both.same("wait Test/Off --timeout 100ms");
    both.same("disable Test/Off");
    both.same_in_both_forms("why Test/Off");
    both.same("load Test/Off");
    both.differs("execute Test/Off echo x -o json", "a command on a directory tries to start what it calls");
    both.same("wait Test/Off --timeout 100ms");
    both.same("enable Test/Off");
    both.same("wait Test/None --for=gone");

    for plugin in ["Test/Falls", "Test/Fallen"] {
        for target in both.each() {
            assert_ne!(target.run(&["start", plugin], b"").code, 0, "{plugin}");
        }
    }
    both.differs("why Test/Falls", "a daemon goes on trying");
    both.differs("execute Test/Falls echo x", "a daemon goes on trying, a command on a directory tries once");
    both.differs("why Test/Fallen", "a daemon remembers what it gave up");
    both.same("load Test/Fallen");
    both.same("wait Test/Fallen --timeout 100ms");

    // Nobody calls it: it is stopped, which is no failure.
    let [daemon, _] = both.each();
    assert_eq!(daemon.run(&["start", "Test/Sleepy"], b"").code, 0);
    wait_until("it sleeps", LONG, || {
        daemon.run(&["status", "Test/Sleepy"], b"").out.starts_with("Test/Sleepy stopped")
    });
    both.differs("why Test/Sleepy", "a daemon stopped it, in a directory it was never started");
    both.is("supervised");
}

#[test]
fn a_machine_without_goplug_host() {
    let variables = [("GOPLUG_HOST", PathBuf::from("/nowhere/goplug-host"))];
    let mut both = Transcript::with(&["--auto-discover=false"], installed, &variables);
    both.unseen("rescan");
    both.same_in_both_forms("start Test/Off");
    both.differs("why Test/Off", "a daemon remembers why it could not start it");
    both.same("load Test/Off");
    for target in both.each() {
        // What an installation that was killed leaves behind, and a state that cannot be obeyed.
        let own = target.dir.join(".goplug");
        std::fs::create_dir_all(own.join("staging/0123456789abcdef")).unwrap();
        std::fs::write(own.join("state.json.bad"), "{").unwrap();
    }
    for mut answer in both.each().map(|target| target.run(&["doctor"], b"")) {
        let lines = answer.out.lines().filter(|line| {
            ["leftovers", "goplug-host"].iter().any(|name| line.split_whitespace().nth(1) == Some(name))
        });
        answer.out = lines.map(|line| format!("{line}\n")).collect();
        both.note(&["doctor"], &answer);
    }
    both.is("no_host");
}
