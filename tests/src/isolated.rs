//! Tests in a process of their own.

use std::process::Command;

const INSIDE: &str = "GOPLUG_ISOLATED";

/// Runs `body` in a process of its own: for what a test measures of its own process, where other tests would disturb it.
///
/// `test` is the full name of the calling test, such as `leaks::all_is_given_back`. The test binary starts itself with
/// that one test; inside, `body` runs.
///
/// # Panics
/// When the inner run fails.
pub fn isolated(test: &str, body: impl FnOnce()) {
    if is_inside(test) {
        return body();
    }
    once_more(test, Command::new(std::env::current_exe().expect("the test binary")));
}

/// As [`isolated`], in a mount namespace of its own, as a user who may mount there: what is mounted is seen by `body` and
/// whatever it starts alone, and goes with it. Where no such namespace can be made the test is skipped, and says so.
///
/// # Panics
/// When the inner run fails.
pub fn in_mount_namespace(test: &str, body: impl FnOnce()) {
    if is_inside(test) {
        return body();
    }
    // As root, or as a user who is root in a namespace of users.
    let may_mount = |how: &&[&str]| {
        let probe = Command::new("unshare").args(*how).args(["mount", "-t", "tmpfs", "probe", "/tmp"]).output();
        probe.is_ok_and(|output| output.status.success())
    };
    let ways: [&[&str]; 2] = [&["-m"], &["-U", "-r", "-m"]];
    let Some(how) = ways.iter().find(|how| may_mount(how)) else {
        return crate::skip(test, "NOT AVAILABLE: `unshare -m` and `unshare -Urm` give no place to mount to");
    };
    let mut run = Command::new("unshare");
    run.args(*how).arg(std::env::current_exe().expect("the test binary"));
    once_more(test, run);
}

fn is_inside(test: &str) -> bool {
    std::env::var_os(INSIDE).is_some_and(|inside| inside == test)
}

fn once_more(test: &str, mut run: Command) {
    run.args(["--exact", test, "--test-threads=1", "--include-ignored"]).env(INSIDE, test);
    let run = run.output().expect("the test binary, once more");
    // Figures and seeds of the inner run are shown as if they were ours.
    say_again(&run.stderr, "");
    let errors = String::from_utf8_lossy(&run.stderr);
    let output = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success(), "{test} in a process of its own: {}\n{output}\n{errors}", run.status);
    assert!(output.contains("1 passed"), "no test `{test}`:\n{output}");
}

/// Prints the figures and seeds of an inner run, and what it skipped, each with `how` behind it.
pub fn say_again(errors: &[u8], how: &str) {
    let is_shown = |line: &&str| ["figure: ", "seed: ", "SKIPPED"].iter().any(|start| line.starts_with(start));
    let errors = String::from_utf8_lossy(errors);
    errors.lines().filter(is_shown).for_each(|line| crate::say(format_args!("{line}{how}")));
}
