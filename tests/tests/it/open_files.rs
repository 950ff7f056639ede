//! Descriptors run out: what needs one fails with `overloaded` and says why, what needs none goes on, and nothing spins.

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use goplug_tests::http::{self, Wire};
use goplug_tests::{LONG, PluginDir, Process, Ready, wait_until};
use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::support::{Daemon, GOPLUGCTL, GOPLUGD, command, fixture};

const APP: &str = env!("CARGO_BIN_EXE_app");
/// What programs are started with here, below every hard limit.
const LOW: u64 = 200;
/// Standard input, output and error: whatever needs a new descriptor gets none.
const NONE_LEFT: u64 = 3;

/// Soft and hard limit of a process.
fn limits(process: &Process) -> (u64, u64) {
    let text = std::fs::read_to_string(format!("/proc/{}/limits", process.pid())).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let numbers: Vec<u64> = line.split_whitespace().map_while(|word| word.parse().ok()).collect();
    (numbers[0], numbers[1])
}

fn set_soft(process: &Process, soft: u64) {
    let new = Rlimit { current: Some(soft), maximum: Some(limits(process).1) };
    prlimit(Pid::from_raw(process.pid().cast_signed()), Resource::Nofile, new).unwrap();
}

/// Time on a processor so far.
fn cpu(process: &Process) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.pid())).unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let ticks: u64 = fields.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second())
}

/// `program` with a low soft limit.
fn limited(program: &str) -> Command {
    let mut command = command("sh");
    command.args(["-c", &format!("ulimit -Sn {LOW} && exec \"$0\" \"$@\""), program]);
    command
}

#[test]
fn programs_raise_their_limit_and_other_programs_keep_theirs() {
    let (dir, home) = (PluginDir::new(), PluginDir::new());
    let app = Process::start(limited(APP).arg(dir.path()), Ready::Line("ready"));
    let (soft, hard) = limits(&app);
    assert!(hard > LOW && soft == hard, "of an application: {soft} of {hard}");

    let socket = home.join("goplugd.sock");
    let mut run = limited(GOPLUGD);
    run.arg("--socket").arg(&socket).arg("--plugin-dir").arg(dir.path()).stderr(Stdio::null());
    let daemon = Process::start(&mut run, Ready::Now);
    wait_until("it is ready", LONG, || {
        http::once(&socket, "GET", "/readyz", &[], b"").is_ok_and(|reply| reply.status() == 200)
    });
    assert_eq!(limits(&daemon), (hard, hard), "of goplugd");

    // A program of somebody else may use select(2).
    let program = dir.write("goplugctl-limit", "#!/bin/sh\nulimit -Sn\n");
    std::fs::set_permissions(program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", dir.text(), std::env::var("PATH").unwrap_or_default());
    let Output { stdout, .. } = limited(GOPLUGCTL).arg("limit").env("PATH", path).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&stdout), format!("{LOW}\n"));
}

#[test]
fn without_a_descriptor_loads_and_calls_say_what_is_short() {
    let dir = PluginDir::new();
    let _plugins = [fixture(&dir, &["Test/One"]), fixture(&dir, &["Test/Two"])];
    let mut app = Process::start(command(APP).arg(dir.path()).arg("--no-auto"), Ready::Line("ready"));
    assert_eq!(app.ask("load Test/One"), "ok");
    let (soft, hard) = limits(&app);
    set_soft(&app, NONE_LEFT);
    // The one has no connection for its calls yet, the other none at all.
    for line in ["execute Test/One echo x", "load Test/Two"] {
        let answer = app.ask(line);
        let says = |part: &str| assert!(answer.contains(part), "{line}: {answer}");
        says("error overloaded: ");
        says("Too many open files");
        says(&format!("may have {NONE_LEFT} files open (hard limit: {hard})"));
        says(&format!("`ulimit -n {hard}`"));
    }
    set_soft(&app, soft);
    assert_eq!(app.ask("execute Test/One echo again"), "again");
    assert_eq!(app.ask("load Test/Two"), "ok");
}

/// The accept loop waits for better times: it burns no processor, keeps the connections that it has, and goes on.
#[test]
fn a_daemon_without_a_descriptor_waits_and_goes_on() {
    let dir = PluginDir::new();
    let _plugin = fixture(&dir, &["Test/Do"]);
    let daemon = Daemon::start(&dir, &["--auto-discover=false"]);
    let mut kept = Wire::connect(&daemon.socket()).unwrap();
    assert_eq!(kept.request("GET", "/readyz", &[], b"").unwrap().status(), 200);
    assert_eq!(kept.request("POST", "/v1/rescan", &[], b"").unwrap().status() / 100, 2);
    let (soft, _) = limits(&daemon.process);
    set_soft(&daemon.process, NONE_LEFT);

    let mut next = Wire::connect(&daemon.socket()).unwrap();
    next.send(b"GET /readyz HTTP/1.1\r\nHost: goplug\r\n\r\n").unwrap();
    let before = cpu(&daemon.process);
    next.read_timeout(Duration::from_secs(1)).unwrap();
    assert!(next.reply().is_err(), "there is no descriptor for it");
    let burnt = cpu(&daemon.process) - before;
    println!("measured: {} ms of processor time in a second without a descriptor", burnt.as_millis());
    assert!(burnt < Duration::from_millis(100), "the accept loop spins: {burnt:?} in a second");

    let refused = kept.request("POST", "/v1/plugins/Test/Do/load", &[], b"").unwrap();
    assert_eq!((refused.status(), refused.json()["code"].as_str()), (503, Some("overloaded")), "{refused:?}");
    assert!(refused.text().contains("may have 3 files open"), "{refused:?}");

    set_soft(&daemon.process, soft);
    next.read_timeout(LONG).unwrap();
    assert_eq!(next.reply().unwrap().status(), 200, "it was only late");
    let loaded = http::once(&daemon.socket(), "POST", "/v1/plugins/Test/Do/load", &[], b"").unwrap();
    assert_eq!(loaded.status(), 200, "{loaded:?}");
}
