//! `bench`: what it tells, and how it ends.

use std::process::Stdio;

use goplug_registry::admin::PluginDetail;
use goplug_tests::{LONG, PluginDir, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::transcript::Target;
use super::{Transcript, the_fixture};
use crate::support::v0_plugin;

/// The report in JSON, and the exit code.
#[track_caller]
fn report(target: &Target, line: &str) -> (Value, i32) {
    let words: Vec<&str> = line.split(' ').chain(["-o", "json", "--warmup", "0s"]).collect();
    let answer = target.run(&words, b"");
    (serde_json::from_slice(&answer.raw).unwrap_or_else(|error| panic!("{error}: {answer:?}")), answer.code)
}

fn number(report: &Value, name: &str) -> f64 {
    report[name].as_f64().unwrap_or_else(|| panic!("no `{name}` in {report}"))
}

#[test]
fn bench_tells_what_it_measured() {
    let mut both = Transcript::quiet(the_fixture);
    both.unseen("load Test/Do");
    let why = "a daemon stands between";
    both.differs("bench Test/Do echo -t 100ms --warmup 10ms", why);
    both.differs("bench Do echo hello -t 100ms --warmup 0s -P 2 -o json", why);
    both.same("bench Test/Do echo -t 20ms --warmup 0s -o name");
    both.same("bench Test/Do nothing");
    both.same("bench None/Such echo");
    both.same("bench Test/Do echo @/nothing/there");
    both.same("bench Test/Do echo --size 67108864 -P 17");
    both.same("bench Test/Do echo --size 67108865");
    both.same("bench Test/Do echo -P 1025");
    both.same("bench Test/Do echo -t 61m");
    both.same("bench Test/Do echo -t 0s");
    both.is("bench");
}

#[test]
fn what_bench_says_adds_up() {
    let both = Transcript::new(&[], |dir: &PluginDir| {
        let mut plugins = the_fixture(dir);
        plugins.push(v0_plugin(dir, "Old", "Plugin", &[]));
        plugins
    });
    for (target, through_daemon) in both.each().into_iter().zip([true, false]) {
        for plugin in ["Test/Do", "Old/Plugin"] {
            assert_eq!(target.run(&["wait", plugin, "--for=discovered", "--timeout", "20s"], b"").code, 0);
        }
        let (one, code) = report(target, "bench Test/Do echo -t 200ms --size 1000 -P 4 --load");
        assert_eq!((code, &one["transport"], &one["throughDaemon"]), (0, &"frames".into(), &through_daemon.into()));
        assert_eq!((&one["parallel"], &one["requestBytes"], &one["failed"]), (&4.into(), &1000.into(), &0.into()));
        let seconds = number(&one, "elapsedNs") / 1e9;
        assert!((0.2..20.0).contains(&seconds), "{one}");
        let calls = number(&one, "calls");
        assert!(calls >= 4.0 && (number(&one, "callsPerSecond") * seconds / calls - 1.0).abs() < 0.001, "{one}");
        // Each byte goes there and comes back.
        assert!((number(&one, "bytesPerSecond") * seconds / calls - 2000.0).abs() < 1.0, "{one}");
        let times = ["p50Ns", "p90Ns", "p99Ns", "p999Ns", "maxNs"].map(|name| number(&one, name));
        assert!(times[0] > 0.0 && times.is_sorted(), "{one}");
        // Little's law: four callers that never rest, so the median is no more than twice what their rate says.
        assert!(times[0] <= 2.0 * 4e9 / number(&one, "callsPerSecond"), "{one}");

        let (old, code) = report(target, "bench Old/Plugin main.Echo hello -t 100ms -P 2 --load");
        assert_eq!((code, &old["transport"]), (0, &"v0".into()), "{old}");

        // A method that fails is measured, and its errors are counted.
        let (failing, code) = report(target, "bench Test/Do fail no -t 50ms -P 2");
        assert_eq!((code, &failing["errors"]["method_failed"]), (5, &failing["calls"]), "{failing}");
        let (first, code) = report(target, "bench Test/Do fail no -t 10m -P 1 --fail-fast");
        assert_eq!((code, &first["calls"]), (5, &1.into()), "{first}");
    }
}

/// A call that does not end does not hold up the end, and is not forgotten.
#[test]
fn calls_that_do_not_end_are_given_up_and_told() {
    let both = Transcript::quiet(the_fixture);
    both.unseen("load Test/Do");
    let (slow, code) = report(&both.daemon, "bench Test/Do sleep 2500 -t 10ms -P 3");
    assert_eq!((code, &slow["calls"], &slow["unfinished"]), (0, &0.into(), &3.into()), "{slow}");
}

/// Ctrl-C ends it early, and what was measured so far is told.
#[test]
fn ctrl_c_ends_a_bench_with_what_was_measured() {
    let both = Transcript::quiet(the_fixture);
    both.unseen("load Test/Do");
    let target = &both.daemon;
    let inspect = || -> PluginDetail {
        serde_json::from_slice(&target.run(&["inspect", "Test/Do", "-o", "json"], b"").raw).unwrap()
    };
    let interrupted = |method: &[&str], is_there: &dyn Fn(PluginDetail) -> bool| {
        let words = [&["bench", "Test/Do"], method, &["-t", "10m", "--warmup", "0s", "-P", "2", "-o", "json"]].concat();
        let child = target.command(&words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        wait_until("it calls", LONG, || is_there(inspect()));
        kill_process(Pid::from_child(&child), Signal::INT).unwrap();
        child.wait_with_output().unwrap()
    };
    // More than the one call that is made first.
    let output = interrupted(&["echo"], &|detail| detail.calls + detail.in_flight > 2);
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    assert_eq!((&report["interrupted"], &report["failed"]), (&true.into(), &0.into()), "{report}");
    assert!(number(&report, "calls") > 0.0 && number(&report, "elapsedNs") < 600e9, "{report}");

    // Within that first call nothing has been measured yet.
    let output = interrupted(&["sleep", "600000"], &|detail| detail.in_flight == 1);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(130), 0), "{output:?}");
}
