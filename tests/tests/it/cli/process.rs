//! Verbs that act on the process of an installed plugin.

use goplug_tests::{LONG, PluginDir, Process, wait_until};
use serde_json::json;

use super::Transcript;
use crate::supervision::{install_fixture, runs};

fn installed(dir: &PluginDir) -> Vec<Process> {
    install_fixture(dir, "Test/Do", &["--stopper", "down"], &json!({}));
    install_fixture(dir, "Test/Lazy", &[], &json!({"lazy_load": true}));
    install_fixture(dir, "Test/Needs", &[], &json!({"requires": ["Test/Missing"], "lazy_load": true}));
    Vec::new()
}

/// The process of `Test/Do` on both targets.
fn pids(both: &Transcript) -> [u32; 2] {
    both.each().map(|target| {
        let answer = target.run(&["execute", "Test/Do", "pid"], b"");
        String::from_utf8(answer.raw).unwrap().parse().unwrap_or_else(|_| panic!("{}", answer.err))
    })
}

#[test]
fn start_stop_restart_enable_disable_logs() {
    let mut both = Transcript::quiet(installed);
    both.same("execute --timeout 5s Test/None x");
    both.same("logs Test/Do");
    both.same_in_both_forms("start Test/Do");
    let first = pids(&both);
    both.same("start Do");
    assert_eq!(pids(&both), first, "what runs goes on");
    both.same("list Test/Do");
    both.differs("status Test/Do", "a daemon remembers calls and starts");
    both.differs("inspect Test/Do", "a daemon remembers calls and starts");
    both.same("why Test/Do");
    both.same("remove Test/Do");
    both.same("logs Test/Do");
    both.same("logs Test/Do -o jsonl");
    both.same("restart Test/Do -q");
    let second = pids(&both);
    assert!(first.iter().all(|pid| !runs(*pid)) && second != first);
    both.same_in_both_forms("stop Test/Do");
    assert!(second.iter().all(|pid| !runs(*pid)), "nothing is left of it");
    both.same("is-loaded Test/Do");
    both.same("disable Test/Do Lazy");
    both.same("start Test/Do");
    both.same("why Test/Do");
    both.same("is-discovered --all");
    both.same("enable Test/L* --fail-fast");
    both.same("enable Test/Do -o json");
    both.same("start Test/Needs");
    both.same("start Test/Lazy None/Such");
    both.same("stop --all -q");
    both.is("process");
}

/// What fails says why, to whoever looks, also when nobody remembers that it was started.
#[test]
fn a_plugin_that_fails_is_explained() {
    let mut both = Transcript::quiet(|dir: &PluginDir| {
        let bad = |name: &str, script: &str| {
            let exec = json!({"command": "/bin/sh", "args": ["-c", script]});
            install_fixture(dir, name, &[], &json!({"exec": exec, "restart": {"policy": "never"}, "lazy_load": true}));
        };
        bad("Test/Bad", "echo one; echo two >&2; exit 3");
        let exec = json!({"command": "/no/such/program"});
        install_fixture(dir, "Test/None", &[], &json!({"exec": exec, "lazy_load": true}));
        install_fixture(dir, "Test/Do", &[], &json!({"restart": {"policy": "never"}, "lazy_load": true}));
        Vec::new()
    });
    both.same("start Test/Bad");
    both.differs("why Test/Bad", "a daemon remembers what it started");
    both.same("start Test/None");
    both.unseen("load Test/Do");
    for pid in pids(&both) {
        crate::hosts::kill(pid);
        wait_until("it has ended", LONG, || !runs(pid));
    }
    let [daemon, _] = both.each();
    wait_until("the daemon knows", LONG, || daemon.run(&["is-loaded", "Test/Do"], b"").out == "Test/Do failed\n");
    both.differs("status Test/Do", "a daemon remembers what it started");
    both.same("logs Test/Do");
    both.differs("execute Test/Do echo x", "a command on a directory starts for itself what it calls");
    both.same("remove --stop Test/Do");
    both.is("process_fails");
}
