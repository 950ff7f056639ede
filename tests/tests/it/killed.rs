//! Killed at every system call: an installation, an upgrade, a rollback, a removal, and the file of what the operator wants,
//! leave the old or the new.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use goplug_tests::{PluginDir, deep, fast, note, skip};

use crate::changes::{Change, Moment, Stage, can_trace, for_each};
use crate::support::GOPLUGCTL;

/// More calls than any thread makes of one kind.
const MOST: u32 = 400;

/// Kills the verb at each of its system calls in turn, on a fresh directory each time.
fn killed_at_every_call(change: Change) {
    if !can_trace() {
        return skip(&format!("{change:?}, killed at every system call"), "strace is not there or may not trace");
    }
    let stage = Stage::new(change);
    let (moments, hidden) = stage.moments();
    let all = moments.len();
    // What is done before the work begins changes nothing; between two calls that change nothing nothing changes.
    let is_told = |moment: &&Moment| match () {
        () if deep() => true,
        () if fast() => (moment.names() || moment.call == "fsync") && !moment.is_early,
        () => moment.changes() && !moment.is_early,
    };
    let moments: Vec<_> = moments.iter().filter(is_told).cloned().collect();
    let [old, new, missed] = [const { AtomicU64::new(0) }; 3];
    for_each(&moments, |Moment { call, nth, text, .. }| {
        let what = format!("{change:?}, killed at {call} {nth}, such as {text}");
        let dir = stage.fresh();
        let (trace, inject) = (format!("trace={call}"), format!("inject={call}:signal=KILL:when={nth}"));
        let run = stage.traced(dir.path(), &["-o", "/dev/null", "-e", &trace, "-e", &inject]);
        let is_new = stage.is_new(dir.path(), &what);
        if run.is_killed() {
            _ = if is_new { &new } else { &old }.fetch_add(1, Ordering::Relaxed);
        } else {
            // Its threads shared the work in another way.
            assert!(run.status.success() && is_new, "{what}: {run:?}");
            _ = missed.fetch_add(1, Ordering::Relaxed);
        }
        stage.settles(dir.path(), is_new, &what);
    });
    let [old, new, missed] = [old, new, missed].map(AtomicU64::into_inner);
    let name = format!("{change:?}").to_lowercase();
    let rest = format_args!("{missed} not met, {} of {all} calls tried, {hidden} not told from others", moments.len());
    note(&format!("killed_at_system_calls_{name}"), format_args!("{old} old, {new} new; {rest}"));
    // Of the few that are tried otherwise, those at the end may be hidden behind another thread's.
    assert!(old > 0 && (new > 0 || !deep()), "nothing was killed in time");
}

#[test]
fn an_installation_is_there_whole_or_not_at_all() {
    killed_at_every_call(Change::Install);
}

#[test]
fn the_installation_of_a_package_is_there_whole_or_not_at_all() {
    killed_at_every_call(Change::InstallPackage);
}

#[test]
fn an_upgrade_leaves_the_old_version_or_the_new_one() {
    killed_at_every_call(Change::Upgrade);
}

#[test]
fn the_upgrade_with_a_package_leaves_the_old_version_or_the_new_one() {
    killed_at_every_call(Change::UpgradePackage);
}

#[test]
fn the_upgrade_of_a_folder_that_somebody_put_there_leaves_it_or_the_new_version() {
    killed_at_every_call(Change::UpgradeByHand);
}

#[test]
fn a_rollback_leaves_one_version_or_the_other() {
    killed_at_every_call(Change::Rollback);
}

#[test]
fn a_removal_leaves_everything_or_nothing() {
    killed_at_every_call(Change::Remove);
}

#[test]
fn the_removal_of_a_version_leaves_it_whole_or_not_at_all() {
    killed_at_every_call(Change::RemoveVersion);
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

/// The file of what the operator wants: the old text or the new one, whatever it was killed at, and the next one writes it.
#[test]
fn what_is_wanted_is_the_old_or_the_new() {
    if !can_trace() {
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
