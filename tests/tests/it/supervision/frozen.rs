//! A host that stands still: every verb ends, with an answer or with a reason, and when the host goes on everything is as before.

use std::time::{Duration, Instant};

use goplug_tests::{LONG, PluginDir, fast, note, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use super::{Home, runs};
use crate::support::{Daemon, GOPLUG_HOST, Ran, command};

/// A verb waits for the drain (5 s), for the end of a process (5 s and 10 s), for the answer of a host (2 s) several times over.
const BOUND: Duration = Duration::from_secs(60);

/// The host of the only plugin. It goes on when this is dropped.
struct Frozen(Pid);

impl Frozen {
    fn new(home: &Home) -> Self {
        let [(host, _)] = home.hosts.recorded()[..] else { panic!("one record: {:?}", home.hosts.recorded()) };
        let pid = Pid::from_raw(host.cast_signed()).unwrap();
        kill_process(pid, Signal::STOP).unwrap();
        wait_until("the host stands still", LONG, || {
            let status = std::fs::read_to_string(format!("/proc/{host}/status")).unwrap_or_default();
            status.contains("State:\tT")
        });
        Self(pid)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        _ = kill_process(self.0, Signal::CONT);
    }
}

/// The verb, on a daemon or on the directory; how long it took.
fn timed(home: &Home, target: &[&str], words: &[&str]) -> (Ran, Duration) {
    let mut run = command("timeout");
    run.args(["-k", "1", &BOUND.as_secs().to_string(), crate::support::GOPLUGCTL]);
    run.args(target).args(words).env("GOPLUG_HOSTS_DIR", home.hosts()).env("GOPLUG_HOST", GOPLUG_HOST);
    let began = Instant::now();
    let output = run.stdin(std::process::Stdio::null()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let ran = Ran { code: output.status.code().unwrap_or(-1), out: text(&output.stdout), err: text(&output.stderr) };
    (ran, began.elapsed())
}

/// Freezes the host of a plugin that runs, asks, lets it go on: the answer, and how long it took.
fn asked(words: &[&str], through_daemon: bool) -> (Ran, Duration) {
    let home = Home::new();
    home.install("Test/Do", &[], &json!({}));
    let hosts = home.hosts();
    let variables = [("GOPLUG_HOSTS_DIR", hosts.as_path()), ("GOPLUG_HOST", std::path::Path::new(GOPLUG_HOST))];
    let daemon = Daemon::at(PluginDir::new(), &["--plugin-dir", home.dir.text()], &variables);
    let socket = daemon.socket();
    let through: [&str; 2] = ["--socket", socket.to_str().unwrap()];
    wait_until("it is loaded", LONG, || timed(&home, &through, &["execute", "Test/Do", "pid"]).0.code == 0);
    let (_, plugin) = home.hosts.recorded()[0];
    let on_directory = ["--dir", home.dir.text()];
    let target = if through_daemon { through } else { on_directory };
    let daemon = through_daemon.then_some(daemon);
    let frozen = Frozen::new(&home);
    let (ran, took) = timed(&home, &target, words);
    let what = format!("{words:?} through a daemon: {through_daemon}: {ran:?} after {took:?}");
    assert!(took < BOUND, "{what}");
    assert!((0..=12).contains(&ran.code) && !ran.err.contains("panicked"), "{what}");
    assert!(ran.code == 0 || !ran.err.trim().is_empty() || words[0] == "why", "{what}");
    // What is only looked at, or called, needs no host.
    let needs_host = ["stop", "restart", "disable", "remove", "logs", "start", "upgrade"].contains(&words[0]);
    assert!(ran.code == 0 || needs_host || !through_daemon, "{what}");
    // Nobody starts a second process while nobody can tell what became of the first.
    assert!(home.hosts.recorded().len() == 1, "{what}: {:?}", home.hosts.recorded());
    drop(frozen);
    // When it goes on, whatever was asked of it is done, or can be asked again; and there is one process of the plugin, or none.
    let stopped = timed(&home, &target, &["stop", "Test/Do"]);
    assert!([0, 3, 4].contains(&stopped.0.code), "{what}, then {stopped:?}");
    wait_until("nothing is left of it", LONG, || !runs(plugin));
    drop(daemon);
    (ran, took)
}

#[test]
fn every_verb_ends_while_the_host_stands_still() {
    let looks: [&[&str]; 8] = [
        &["list"],
        &["inspect", "Test/Do"],
        &["status"],
        &["why", "Test/Do"],
        &["methods", "Test/Do"],
        &["ping", "Test/Do"],
        &["execute", "Test/Do", "pid"],
        &["doctor"],
    ];
    let changes: [&[&str]; 7] = [
        &["logs", "Test/Do"],
        &["start", "Test/Do"],
        &["stop", "Test/Do"],
        &["restart", "Test/Do"],
        &["disable", "Test/Do"],
        &["remove", "Test/Do", "--stop"],
        &["enable", "Test/Do"],
    ];
    let mut all: Vec<(&[&str], bool)> = looks.iter().chain(&changes).map(|words| (*words, true)).collect();
    if !fast() {
        all.extend(looks.iter().chain(&changes).map(|words| (*words, false)));
    }
    let slowest = std::sync::Mutex::new((Duration::ZERO, ""));
    crate::changes::for_each(&all, |(words, through_daemon)| {
        let (_, took) = asked(words, *through_daemon);
        let mut slowest = slowest.lock().unwrap();
        *slowest = (*slowest).max((took, words[0]));
    });
    let (took, verb) = slowest.into_inner().unwrap();
    note("frozen_host", format_args!("{} verbs ended, the slowest `{verb}` after {took:.2?}", all.len()));
}
