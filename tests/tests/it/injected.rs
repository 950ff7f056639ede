//! System calls fail, in the command, in the host of a plugin and in the plugin itself: whatever fails has a name, or did no
//! harm, and nothing is left of it.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use goplug_registry::Registry;
use goplug_tests::{LONG, PluginDir, Random, deep, figure, seed, skip};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::supervision::{Hosts, install_fixture};
use crate::support::{GOPLUG_HOST, GOPLUGCTL, command};

/// What fails, and how it may fail on a machine that is full, old, or guarded.
const FAULTS: [(&str, &[&str]); 41] = [
    ("accept4", &["EMFILE", "ECONNABORTED", "ENOMEM"]),
    ("bind", &["EADDRINUSE", "EACCES", "ENOSPC"]),
    ("chdir", &["EACCES", "ENOENT"]),
    ("clone3", &["EAGAIN", "ENOMEM"]),
    ("connect", &["ECONNREFUSED", "EAGAIN", "EACCES"]),
    ("copy_file_range", &["EIO", "ENOSPC", "EXDEV"]),
    ("dup2", &["EMFILE"]),
    ("dup3", &["EMFILE"]),
    ("epoll_create1", &["EMFILE"]),
    ("epoll_ctl", &["ENOSPC", "ENOMEM"]),
    ("epoll_wait", &["EINTR"]),
    ("eventfd2", &["EMFILE"]),
    ("execve", &["EACCES", "ENOMEM", "E2BIG"]),
    ("fchmod", &["EPERM", "EROFS"]),
    ("fcntl", &["EMFILE"]),
    ("flock", &["EINTR", "ENOLCK"]),
    ("fsync", &["EIO", "ENOSPC"]),
    ("getdents64", &["EIO", "ENOENT"]),
    ("getrandom", &["ENOSYS"]),
    ("getsockopt", &["ENOPROTOOPT", "ENOBUFS"]),
    ("ioctl", &["ENOTTY", "EIO"]),
    ("kill", &["EPERM", "ESRCH"]),
    ("linkat", &["EPERM", "ENOSPC"]),
    ("listen", &["EADDRINUSE"]),
    ("mkdir", &["EACCES", "ENOSPC"]),
    ("mkdirat", &["EACCES", "ENOSPC"]),
    ("newfstatat", &["EACCES", "ENOMEM"]),
    ("openat", &["EMFILE", "ENFILE", "EACCES", "EIO", "ENOMEM"]),
    ("pidfd_open", &["EMFILE", "ENOSYS"]),
    ("pidfd_send_signal", &["EPERM", "ESRCH"]),
    ("pipe2", &["EMFILE", "ENFILE"]),
    ("poll", &["EINTR", "ENOMEM"]),
    ("prctl", &["EPERM", "EINVAL"]),
    ("read", &["EIO", "EINTR"]),
    ("recvfrom", &["ECONNRESET", "ENOMEM"]),
    ("rename", &["EACCES", "ENOSPC"]),
    ("sendto", &["EPIPE", "ENOBUFS"]),
    ("socket", &["EMFILE", "EACCES", "ENOBUFS"]),
    ("statx", &["EACCES", "ENOMEM"]),
    ("unlink", &["EACCES", "EROFS"]),
    ("write", &["ENOSPC", "EIO", "EINTR"]),
];

/// How long a verb may take, whatever fails: its own deadlines, and those of whoever it waits for.
const BOUND: Duration = Duration::from_secs(60);

/// One plugin directory, its folder of hosts, and the commands on them.
struct Stage {
    dir: PluginDir,
    hosts: Hosts,
    /// Which call fails how, and when; what strace tells of it.
    log: PathBuf,
}

#[derive(Debug)]
struct Ended {
    code: Option<i32>,
    said: String,
}

impl Stage {
    fn new() -> Self {
        let dir = PluginDir::new();
        install_fixture(&dir, "Test/Do", &[], &json!({"lazy_load": true}));
        let log = dir.join(".strace");
        Self { hosts: Hosts::new(), log, dir }
    }

    fn run(&self, mut run: Command, words: &[&str]) -> Ended {
        // Files, not pipes: who watches a process that goes on keeps them open.
        let said = self.dir.join(".said");
        let file = File::create(&said).unwrap();
        run.args(["--dir", self.dir.text()]).args(words);
        run.env("GOPLUG_HOSTS_DIR", self.hosts.folder()).env("GOPLUG_HOST", GOPLUG_HOST);
        run.env("RUST_BACKTRACE", "0").stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
        let mut child = run.process_group(0).spawn().unwrap();
        let began = Instant::now();
        let code = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status.code();
            }
            if began.elapsed() > BOUND {
                child.kill().unwrap();
                assert!(!self.is_possible(), "{words:?} hangs: {}", self.told());
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        Ended { code, said: String::from_utf8_lossy(&std::fs::read(&said).unwrap_or_default()).into_owned() }
    }

    fn clean(&self, words: &[&str]) -> Ended {
        let mut run = command(GOPLUGCTL);
        run.arg0("goplugctl");
        self.run(run, words)
    }

    /// Runs the verb under strace, which follows the host and the plugin too, and stays as long as they do.
    fn traced(&self, words: &[&str], options: &[&str]) -> Ended {
        let mut run = command("strace");
        run.args(["-D", "-f", "-I", "1", "-qqq", "-o"]).arg(&self.log).args(options).arg(GOPLUGCTL);
        self.run(run, words)
    }

    /// Runs the verb while the `nth` of these calls fails in every thread of it, of the host, and of the plugin.
    fn injected(&self, words: &[&str], call: &str, errno: &str, nth: usize) -> Ended {
        let (trace, inject) = (format!("trace={call}"), format!("inject={call}:error={errno}:when={nth}"));
        self.traced(words, &["-e", &trace, "-e", &inject])
    }

    /// What is there before the verb: the plugin is called and stopped while it runs.
    fn before(verb: &[&str]) -> Self {
        let stage = Self::new();
        if verb[0] != "start" {
            for words in [["start", "Test/Do"], ["load", "Test/Do"]] {
                let ended = stage.clean(&words);
                assert_eq!(ended.code, Some(0), "{words:?}: {ended:?}");
            }
        }
        stage
    }

    /// From here on all works again, whatever has been left behind; a registry that watches takes away what hosts that died
    /// could not.
    fn after(&self, what: &str) {
        // What is still watched fails on: in the host and the plugin, which are stopped now.
        let ended = self.clean(&["stop", "Test/Do"]);
        assert!(is_clean(&ended) || !self.is_possible(), "{what}: {ended:?}: {}", self.told());
        self.let_go();
        for words in [["stop", "Test/Do"], ["remove", "Test/Do"]] {
            let ended = self.clean(&words);
            let is_done = ended.code == Some(0) || words[0] == "stop" && ended.code == Some(3);
            assert!(is_done, "{what}: {words:?} {ended:?}");
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let builder = Registry::builder(self.dir.path()).hosts_dir(self.hosts.folder());
            let builder = builder.host_program(Path::new(GOPLUG_HOST)).auto_discover(true);
            let registry = builder.open().await.unwrap();
            let began = Instant::now();
            while !self.left().is_empty() {
                assert!(began.elapsed() < LONG, "{what}: left are {:?}", self.left());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            registry.close().await;
        });
    }

    /// Nothing fails from here on.
    fn let_go(&self) {
        let log = self.log.to_str().unwrap();
        let cmdline = |pid: u32| std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let is_ours = |pid: &u32| {
            let words = String::from_utf8_lossy(&cmdline(*pid)).into_owned();
            words.starts_with("strace\0") && words.split('\0').any(|word| word == log)
        };
        let watching = || {
            let processes = std::fs::read_dir("/proc").unwrap().flatten();
            processes.filter_map(|process| process.file_name().to_str()?.parse::<u32>().ok()).find(is_ours)
        };
        let began = Instant::now();
        while let Some(pid) = watching() {
            // It lets go of everybody that it watches, and ends.
            if let Some(pid) = Pid::from_raw(pid.cast_signed()) {
                _ = kill_process(pid, Signal::TERM);
            }
            assert!(began.elapsed() < LONG, "strace goes on");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// How often each call is made by one thread of the verb, at most.
    fn rehearsed(verb: &[&str]) -> Vec<(&'static str, usize)> {
        let stage = Self::before(verb);
        let names = FAULTS.map(|(call, _)| call);
        let ended = stage.traced(verb, &["-e", &format!("trace={}", names.join(","))]);
        assert_eq!(ended.code, Some(0), "{verb:?}: {ended:?}");
        stage.after("the rehearsal");
        let log = std::fs::read_to_string(&stage.log).unwrap();
        let most = |name: &&str| {
            let mut counts = HashMap::new();
            for line in log.lines() {
                let mut words = line.split_whitespace();
                let pid = words.next().unwrap_or_default();
                let is_it = words.next().is_some_and(|call| call.starts_with(&format!("{name}(")));
                *counts.entry(pid).or_insert(0) += usize::from(is_it);
            }
            counts.into_values().max().unwrap_or(0)
        };
        names.iter().map(|name| (*name, most(name))).filter(|(_, most)| *most > 0).collect()
    }

    fn told(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        log.lines().filter(|line| line.contains("INJECTED")).collect::<Vec<_>>().join("\n")
    }

    /// No kernel refuses to count up an eventfd, and the runtime relies on it.
    fn is_possible(&self) -> bool {
        !self.told().contains(r#""\1\0\0\0\0\0\0\0", 8)"#)
    }

    /// Everything that there is of this stage: processes that know its folders, and files of hosts.
    fn left(&self) -> Vec<String> {
        let marks = [self.dir.text().to_owned(), self.hosts.folder().to_str().unwrap().to_owned()];
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let pids = processes.filter_map(|process| process.file_name().to_str()?.parse::<u32>().ok());
        let knows = |pid: &u32| {
            let read = |name: &str| std::fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
            let text = String::from_utf8_lossy(&[read("cmdline"), read("environ")].concat()).into_owned();
            marks.iter().any(|mark| text.contains(mark))
        };
        let own = std::process::id();
        let pids = pids.filter(|pid| *pid != own).filter(knows).map(|pid| format!("process {pid}"));
        let files = std::fs::read_dir(self.hosts.folder()).into_iter().flatten().flatten();
        pids.chain(files.map(|file| file.path().display().to_string())).collect()
    }
}

/// A named error, or success. What fails before `main` is told by whoever loads programs.
fn is_clean(ended: &Ended) -> bool {
    let before_main =
        |said: &str| said.contains("error while loading shared libraries") || said.starts_with("strace: exec");
    match ended.code {
        Some(0) => true,
        Some(1..=12) => !ended.said.trim().is_empty() && !ended.said.contains("panicked"),
        Some(127 | 1..) => before_main(&ended.said),
        _ => false,
    }
}

fn can_trace() -> bool {
    let probe = ["-f", "--seccomp-bpf", "-qqq", "-e", "trace=write", "-o", "/dev/null", "true"];
    let probe = Command::new("strace").args(probe).status();
    probe.is_ok_and(|status| status.success())
}

const VERBS: [&[&str]; 4] =
    [&["start", "Test/Do"], &["execute", "Test/Do", "pid"], &["stop", "Test/Do"], &["disable", "Test/Do"]];

/// One failure: what became of it, and whether it happened at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Told,
    Harmless,
    Missed,
}

fn fail_once(verb: &[&str], call: &str, errno: &str, nth: usize, seed: u64) -> Outcome {
    let stage = Stage::before(verb);
    let ended = stage.injected(verb, call, errno, nth);
    let what = || format!("seed {seed}: {verb:?} with {call} {errno} when={nth}: {}", stage.told());
    let is_possible = stage.is_possible();
    assert!(is_clean(&ended) || !is_possible, "{}: {ended:?}", what());
    // What is wanted was changed whole or not at all.
    if let Ok(wanted) = std::fs::read(stage.dir.join(".goplug/state.json")) {
        assert!(serde_json::from_slice::<serde_json::Value>(&wanted).is_ok(), "{}", what());
    }
    stage.after(&what());
    match ended.code {
        _ if !is_possible || stage.told().is_empty() => Outcome::Missed,
        Some(0) => Outcome::Harmless,
        _ => Outcome::Told,
    }
}

#[test]
fn what_fails_has_a_name_and_leaves_nothing() {
    if !can_trace() {
        return skip("injected errors of system calls", "NOT AVAILABLE: strace is not there or may not trace");
    }
    if !deep() {
        return skip("injected errors of system calls", "takes long: GOPLUG_DEEP=1");
    }
    let (goal, seed) = (500, seed("injected"));
    let rehearsed = VERBS.map(Stage::rehearsed);
    let random = Mutex::new(Random::new(seed));
    // Round by round, so that each verb has its share whatever the others do.
    let next = |verb: usize| {
        let mut random = random.lock().unwrap_or_else(PoisonError::into_inner);
        let (call, most) = rehearsed[verb][random.below(rehearsed[verb].len())];
        let errnos = FAULTS.iter().find(|(name, _)| *name == call).unwrap().1;
        (call, errnos[random.below(errnos.len())], 1 + random.below(most))
    };
    let (told, harmless, missed) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    // A verb mostly waits, for the host that leaves last.
    std::thread::scope(|scope| {
        for (verb, words) in VERBS.iter().enumerate() {
            let (next, told, harmless, missed) = (&next, &told, &harmless, &missed);
            scope.spawn(move || {
                while count(told) + count(harmless) < goal {
                    assert!(count(missed) < 10 * goal, "strace injects nothing");
                    let (call, errno, nth) = next(verb);
                    let counter = match fail_once(words, call, errno, nth, seed) {
                        Outcome::Told => told,
                        Outcome::Harmless => harmless,
                        Outcome::Missed => missed,
                    };
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    figure(
        "injected_errors",
        format_args!("{} told, {} did no harm ({} did not happen)", count(&told), count(&harmless), count(&missed)),
        "each a named error or success, nothing left",
    );
}
