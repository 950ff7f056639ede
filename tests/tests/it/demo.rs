//! The demo: every step checked, nothing left.

use std::time::{Duration, Instant};

use goplug_tests::{Process, Ready, bound};

use crate::support::{GOPLUGCTL, command, goplugctl};

#[test]
fn the_demo_runs_to_its_end_and_leaves_nothing() {
    let begin = Instant::now();
    let ran = goplugctl(&["demo"]);
    assert_eq!(ran.code, 0, "{}\n{}", ran.out, ran.err);
    bound("demo", begin.elapsed(), Duration::from_secs(5));
    for shown in ["goplugctl", "--unix-socket", "Test/Do", "10000", "panic", "line "] {
        assert!(ran.out.contains(shown), "`{shown}` is not in:\n{}", ran.out);
    }
}

/// The demo's own plugins must not outlive it, however it ends.
#[test]
fn a_killed_demo_leaves_no_process() {
    let mut demo = Process::start(command(GOPLUGCTL).arg("demo"), Ready::Now);
    let pid = demo.pid();
    let children = || std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let mut plugin = String::new();
    goplug_tests::wait_until("the demo's plugin runs", goplug_tests::LONG, || {
        // The spawning thread is the parent, whichever it was.
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        let found: String =
            tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok()).collect();
        plugin = found.split_whitespace().next().unwrap_or_default().to_owned();
        !plugin.is_empty() || !demo.is_alive()
    });
    let _ = children();
    demo.kill();
    if plugin.is_empty() {
        return goplug_tests::skip("a killed demo", "it was over before its plugin was seen");
    }
    goplug_tests::wait_until("the plugin has left", goplug_tests::LONG, || {
        !std::path::Path::new(&format!("/proc/{plugin}/exe")).exists()
    });
}
