//! The demo: green within its bounds, each step shown, nothing left of it; with `--keep` all goes on as it says.

use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use goplug_tests::{LONG, PluginDir, Process, Ready, bound, skip, wait_until};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::support::{GOPLUGCTL, command, text};

const STEPS: [&str; 13] = [
    "an empty directory",
    "a plugin starts, publishes its .pconf, and is found",
    "its methods",
    "a call by library and by curl: the same bytes",
    "ten thousand calls",
    "three notifications",
    "a method panics, and the next call works",
    "the plugin is killed",
    "it is started again, and called",
    "a broken .pconf",
    "unload and load",
    "stop",
    "nothing is left",
];

/// The demo, which makes its folder below `temp`.
fn demo(temp: &PluginDir, args: &[&str]) -> Command {
    let mut demo = command(GOPLUGCTL);
    demo.arg0("goplugctl").arg("demo").args(args).env("TMPDIR", temp.path());
    demo
}

/// Processes of the demo that were started below `temp`.
fn processes(temp: &PluginDir) -> Vec<Pid> {
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let ours = |pid: &i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = text(line);
        line.contains("__demo-plugin") && line.contains(temp.text())
    };
    pids.filter(ours).filter_map(Pid::from_raw).collect()
}

#[test]
fn every_step_is_shown_and_nothing_is_left() {
    let temp = PluginDir::new();
    let begin = Instant::now();
    let Output { status, stdout, stderr } = demo(&temp, &[]).output().unwrap();
    let (out, err) = (text(stdout), text(stderr));
    assert!(status.success(), "{status}\n{out}\n{err}");
    bound("demo", begin.elapsed(), Duration::from_secs(5));
    let mut rest = out.as_str();
    for (index, title) in STEPS.iter().enumerate() {
        let heading = format!("\n{}. {title}\n   $ ", index + 1);
        let at = rest.find(&heading).unwrap_or_else(|| panic!("no step {heading:?} with its command in {out}"));
        rest = &rest[at + heading.len()..];
    }
    for shown in [
        "\"Name\": \"Do\"",
        "--unix-socket",
        "10000 calls, 8 at once, 0 failed",
        "calls/s",
        "\"data\":\"three\"",
        "kill -KILL",
        "STILL HERE",
        "BACK AGAIN",
        "line 2",
        "fix: ",
        "unload --stop",
    ] {
        assert!(out.contains(shown), "{shown}: {out}");
    }
    let last = out.lines().last().unwrap_or_default();
    assert!(last.starts_with("all 13 steps were as they must be, "), "{last}");
    assert_eq!(temp.names(), Vec::<String>::new(), "no folder, no socket");
    assert_eq!(processes(&temp), []);
}

/// However it ends, its plugins end with it.
#[test]
fn nothing_runs_on_when_it_is_broken_off() {
    for signal in [Signal::INT, Signal::KILL] {
        let temp = PluginDir::new();
        let mut demo = Process::start(&mut demo(&temp, &[]), Ready::Now);
        while !demo.line().starts_with("3. ") {}
        demo.signal(signal);
        let status = demo.wait(LONG);
        wait_until("its plugin has ended", LONG, || processes(&temp).is_empty());
        if signal == Signal::INT {
            assert_eq!(status.code(), Some(130));
            assert_eq!(temp.names(), Vec::<String>::new());
        }
    }
}

/// A process that the demo left, ended at the latest when the test is over.
struct Kept(OwnedFd);

impl Kept {
    fn ends_within(&self, limit: Duration) -> bool {
        let timeout = Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: 0 };
        poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&timeout)).is_ok_and(|ready| ready > 0)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = pidfd_send_signal(&self.0, Signal::KILL);
        self.ends_within(LONG);
    }
}

#[test]
fn kept_plugins_go_on_and_the_printed_commands_work() {
    let temp = PluginDir::new();
    let output = demo(&temp, &["--keep"]).output().unwrap();
    let kept: Vec<Kept> =
        processes(&temp).into_iter().map(|pid| Kept(pidfd_open(pid, PidfdFlags::empty()).unwrap())).collect();
    let out = text(output.stdout);
    assert!(output.status.success(), "{out}\n{}", text(output.stderr));
    assert_eq!(kept.len(), 1, "{out}");
    let (_, last) = out.split_once("everything goes on; try\n").expect("what to try");
    let lines: Vec<&str> = last.lines().collect();
    let [call, why, curl, "and end it with", end] = lines[..] else { panic!("three commands and the end: {last}") };

    let bin = PluginDir::new();
    std::os::unix::fs::symlink(GOPLUGCTL, bin.join("goplugctl")).unwrap();
    let path = format!("{}:{}", bin.text(), std::env::var("PATH").unwrap_or_default());
    let shell = |line: &str| {
        let run = command("sh").args(["-c", line]).env("PATH", &path).output().unwrap();
        assert!(run.status.success(), "{line}: {run:?}");
        text(run.stdout)
    };
    assert_eq!(shell(call), "HELLO");
    assert!(shell(why).contains("Test/Do is loaded, callable"));
    match Command::new("curl").arg("--version").output() {
        Ok(_) => assert_eq!(shell(curl), "HELLO"),
        Err(error) => skip("the printed curl line", error),
    }
    shell(end);
    assert!(kept[0].ends_within(LONG), "the process was told to leave");
    assert_eq!(temp.names(), Vec::<String>::new());
}
