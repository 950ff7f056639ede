//! The daemon is killed again and again, or stands still for long: its plugins, and everybody else, notice nothing of it.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use goplug_tests::{LONG, Process, Ready, Samples, bound, figure, http, scaled, skip, wait_until};
use rustix::process::{Pid, Signal, WaitOptions, kill_process};
use serde_json::{Value, json};

use super::process::Stage;
use crate::hosts::kill;
use crate::supervision::{install_fixture, runs};
use crate::support::{APP, command};

fn names(count: u64) -> Vec<String> {
    (0..count).map(|n| format!("Test/p{n}")).collect()
}

/// The pid of each plugin that is loaded, by its name.
fn loaded(stage: &Stage) -> Vec<(String, u64)> {
    let rows = stage.get("/v1/plugins").json();
    let rows = rows.as_array().cloned().unwrap_or_default();
    let loaded = rows.iter().filter(|row| row["state"] == "loaded");
    let text = |row: &Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
    let mut pids: Vec<_> = loaded
        .filter_map(|row| Some((format!("{}/{}", text(row, "namespace"), text(row, "name")), row["pid"].as_u64()?)))
        .collect();
    pids.sort();
    pids
}

#[track_caller]
fn all_loaded(stage: &Stage, count: usize) -> Vec<(String, u64)> {
    wait_until("all are loaded", LONG, || loaded(stage).len() == count);
    loaded(stage)
}

fn last_exit(stage: &Stage, plugin: &str) -> Value {
    stage.get(&format!("/v1/plugins/{plugin}")).json()["process"]["lastExit"].clone()
}

#[test]
fn a_daemon_that_is_killed_finds_all_again_and_starts_none_twice() {
    let names = names(scaled(4, 20));
    let mut log = None;
    let mut stage = Stage::new(|dir| {
        let activations = dir.join("activations");
        for (n, name) in names.iter().enumerate() {
            // Every other one writes all the time, and would die of a closed pipe.
            let mut args = vec!["--activations", activations.to_str().unwrap()];
            args.extend((n % 2 == 0).then_some("--chatter"));
            install_fixture(dir, name, &args, &json!({}));
        }
        log = Some(activations);
    });
    let before = all_loaded(&stage, names.len());
    let mut samples = Samples::default();
    for round in 0..scaled(3, 100) {
        let mut began = Instant::now();
        stage = stage.killed_while(|_| began = Instant::now());
        let after = all_loaded(&stage, names.len());
        samples.push(began.elapsed());
        assert_eq!(after, before, "round {round}");
    }
    bound(
        &format!("a daemon finds {} plugins again, p99", names.len()),
        samples.percentile(99),
        Duration::from_millis(500),
    );
    for name in &names {
        let process = &stage.get(&format!("/v1/plugins/{name}")).json()["process"];
        assert_eq!((&process["starts"], &process["lastExit"]), (&json!(0), &Value::Null), "{name}");
    }
    let activated = std::fs::read_to_string(log.unwrap()).unwrap();
    let mut activated: Vec<u64> =
        activated.lines().map(|line| line.split(' ').next().unwrap().parse().unwrap()).collect();
    activated.sort_unstable();
    let mut pids: Vec<_> = before.iter().map(|(_, pid)| *pid).collect();
    pids.sort_unstable();
    assert_eq!(activated, pids, "each was activated once, and there was no other process");

    // How one ends that was found again is known: of a signal, by itself, and while nobody looked.
    let (first, second, third) = (&names[0], &names[1], &names[2]);
    kill(stage.loaded(first));
    stage.post(&format!("/v1/plugins/{second}/methods/abort"));
    wait_until("both ends are known", LONG, || [first, second].iter().all(|name| !last_exit(&stage, name).is_null()));
    assert_eq!(last_exit(&stage, first)["signal"], 9);
    assert_eq!(last_exit(&stage, second)["signal"], 6);
    let victim = stage.loaded(third);
    stage = stage.killed_while(|_| {
        kill(victim);
        wait_until("it has ended", LONG, || !runs(victim));
    });
    assert_ne!(stage.loaded(third), victim);
    assert_eq!(last_exit(&stage, third)["signal"], 9);
}

/// The numbers of a plugin and of its host pass to processes that have nothing to do with it, while no daemon runs.
#[test]
fn whoever_got_the_numbers_of_a_plugin_and_its_host_is_left_alone() {
    const NAME: &str = "daemon::outlived::whoever_got_the_numbers_of_a_plugin_and_its_host_is_left_alone";
    let unshare = || {
        let mut unshare = Command::new("unshare");
        unshare.args(["--pid", "--fork", "--mount-proc", "--kill-child"]);
        unshare
    };
    if std::env::var_os("GOPLUG_IN_A_NAMESPACE").is_none() {
        if !unshare().arg("true").status().is_ok_and(|status| status.success()) {
            return skip(NAME, "NOT AVAILABLE: no pid namespace can be made here (root, or `unshare` is missing)");
        }
        let own = std::env::current_exe().unwrap();
        let mut inside = unshare();
        inside.arg(own).args(["--exact", NAME, "--test-threads=1"]).env("GOPLUG_IN_A_NAMESPACE", "1");
        let inside = inside.output().unwrap();
        let said = String::from_utf8_lossy(&inside.stdout);
        assert!(inside.status.success() && said.contains("1 passed"), "{said}");
        return;
    }
    let mut stage = Stage::new(|dir| install_fixture(dir, "Test/Do", &[], &json!({})));
    let pid = stage.loaded("Test/Do");
    let [(host, plugin)] = stage.hosts.recorded()[..] else { panic!("{:?}", stage.hosts.recorded()) };
    assert_eq!(plugin, pid);
    let mut decoys = Vec::new();
    stage = stage.killed_while(|dir| {
        kill(host);
        // Here we are the one to whom orphans come.
        wait_until("host and plugin are reaped", LONG, || {
            for pid in [host, plugin] {
                _ = rustix::process::waitpid(Pid::from_raw(pid.cast_signed()), WaitOptions::NOHANG);
            }
            [host, plugin].iter().all(|pid| !Path::new(&format!("/proc/{pid}")).exists())
        });
        for number in [plugin, host] {
            // Threads take numbers, too.
            let decoy = (0..100).find_map(|_| {
                std::fs::write("/proc/sys/kernel/ns_last_pid", (number - 1).to_string()).unwrap();
                let decoy = Process::start(command(APP).arg(dir.path()).arg("--no-auto"), Ready::Line("ready"));
                (decoy.pid() == number).then_some(decoy)
            });
            decoys.push(decoy.expect("a process of that number"));
        }
    });
    let next = stage.loaded("Test/Do");
    assert!(next != plugin && next != host, "{next}");
    stage.does("Test/Do", "restart");
    stage.does("Test/Do", "stop");
    for decoy in &mut decoys {
        assert!(decoy.is_alive() && decoy.ask("overflows").starts_with('0'), "pid {}", decoy.pid());
    }
}

/// A daemon that was stopped for long finds answers that it could not read, and timers that are long over. It must not take its
/// own absence for a plugin's.
#[test]
fn a_daemon_that_stood_still_calls_no_plugin_hung() {
    let still = Duration::from_secs(scaled(5, 30));
    let names = names(4);
    // As impatient as a manifest may be.
    let health = |timeout: &str| json!({"health": {"interval": "100ms", "timeout": timeout, "failures": 1}});
    let stage = Stage::new(|dir| {
        for (n, name) in names.iter().enumerate() {
            let more = [health("100ms"), json!({}), health("100ms"), health("800ms")][n].clone();
            install_fixture(dir, name, &[], &more);
        }
    });
    let before = all_loaded(&stage, names.len());
    let (socket, plugin) = (stage.daemon.socket(), names[0].clone());
    // Calls whose time is over before they are answered: their plugins are pinged.
    let callers: Vec<_> = (0..4)
        .map(|n| {
            let (socket, target) = (socket.clone(), format!("/v1/plugins/{plugin}/methods/sleep"));
            let millis = still.as_millis() as u64 / 2 + n * 100;
            std::thread::spawn(move || {
                let body = (millis * 4).to_string();
                let mut wire = http::Wire::connect(&socket)?;
                // A daemon that stands still answers nobody.
                wire.read_timeout(4 * still + LONG)?;
                wire.request("POST", &target, &[("Goplug-Deadline-Ms", &millis.to_string())], body.as_bytes())
            })
        })
        .collect();
    wait_until("the calls are under way", LONG, || {
        stage.get(&format!("/v1/plugins/{plugin}")).json()["inFlight"] == callers.len()
    });
    // The last one stands still with the daemon, as when the machine sleeps: the ping that is on its way then is answered late.
    let sleeper = Pid::from_raw(before[3].1 as i32).unwrap();
    for _ in 0..scaled(1, 2) {
        kill_process(sleeper, Signal::STOP).unwrap();
        std::thread::sleep(Duration::from_millis(300));
        stage.daemon.process.signal(Signal::STOP);
        wait_until("it stands still", LONG, || stage.daemon.process.is_stopped());
        std::thread::sleep(still);
        stage.daemon.process.signal(Signal::CONT);
        // Time enough for a rash verdict.
        std::thread::sleep(Duration::from_millis(50));
        kill_process(sleeper, Signal::CONT).unwrap();
    }
    for caller in callers {
        let reply = caller.join().unwrap().expect("an answer");
        assert_eq!(reply.status(), 504, "{reply:?}");
    }
    // Long enough for a verdict of everybody, the patient ones too.
    let looked = Instant::now();
    while looked.elapsed() < Duration::from_secs(4) {
        assert_eq!(loaded(&stage), before, "{}", stage.get("/v1/plugins").text());
        std::thread::sleep(Duration::from_millis(50));
    }
    for name in &names {
        let process = &stage.get(&format!("/v1/plugins/{name}")).json()["process"];
        assert_eq!((&process["starts"], &process["lastExit"]), (&json!(1), &Value::Null), "{name}");
    }
    figure("registry_stopped", format_args!("{still:?}, 0 of {} plugins judged", names.len()), "0 false verdicts");
}
