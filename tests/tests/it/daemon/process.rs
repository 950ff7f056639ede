//! The processes of installed plugins through the daemon's routes, and across its death.

use std::os::unix::process::CommandExt;
use std::path::Path;

use goplug_tests::{LONG, PluginDir, Process, Ready, http, wait_until};
use serde_json::{Value, json};

use super::problem;
use crate::supervision::{Hosts, install_fixture, runs};
use crate::support::{Daemon, GOPLUG_HOST, GOPLUGCTL, command};

/// A daemon whose plugins are installed; the hosts are ended after it.
pub(crate) struct Stage {
    pub(crate) daemon: Daemon,
    pub(crate) dir: PluginDir,
    pub(crate) hosts: Hosts,
}

impl Stage {
    pub(crate) fn new(plugins: impl FnOnce(&PluginDir)) -> Self {
        let (dir, hosts) = (PluginDir::new(), Hosts::new());
        plugins(&dir);
        let daemon = start(PluginDir::new(), &dir, &hosts);
        Self { daemon, dir, hosts }
    }

    /// Kills the daemon and starts another one in its place.
    pub(crate) fn killed(self) -> Self {
        self.killed_while(|_| {})
    }

    /// As [`Stage::killed`]; this happens between the two.
    pub(crate) fn killed_while(self, happens: impl FnOnce(&PluginDir)) -> Self {
        let Self { daemon: Daemon { mut process, home }, dir, hosts } = self;
        process.kill();
        happens(&dir);
        let daemon = start(home, &dir, &hosts);
        Self { daemon, dir, hosts }
    }

    pub(crate) fn get(&self, target: &str) -> http::Reply {
        http::once(&self.daemon.socket(), "GET", target, &[], b"").expect("an answer")
    }

    pub(crate) fn post(&self, target: &str) -> http::Reply {
        http::once(&self.daemon.socket(), "POST", target, &[], b"").expect("an answer")
    }

    #[track_caller]
    pub(crate) fn does(&self, plugin: &str, verb: &str) -> Value {
        let reply = self.post(&format!("/v1/plugins/{plugin}/{verb}"));
        assert_eq!(reply.status(), 200, "{verb}: {reply:?}");
        reply.json()
    }

    pub(crate) fn loaded(&self, plugin: &str) -> u32 {
        let reply = self.get(&format!("/v1/plugins/{plugin}/wait?for=loaded&timeoutMs=20000"));
        assert_eq!(reply.status(), 200, "{reply:?}");
        self.post(&format!("/v1/plugins/{plugin}/methods/pid")).text().parse().unwrap()
    }
}

fn start(home: PluginDir, dir: &PluginDir, hosts: &Hosts) -> Daemon {
    let folder = hosts.folder();
    let variables = [("GOPLUG_HOSTS_DIR", folder.as_path()), ("GOPLUG_HOST", Path::new(GOPLUG_HOST))];
    Daemon::at(home, &["--plugin-dir", dir.text()], &variables)
}

/// The lines of a stream that has ended.
fn lines(reply: &http::Reply) -> Vec<Value> {
    let text = reply.text();
    text.lines().filter_map(|line| Some(serde_json::from_str(line.strip_prefix("data: ")?).unwrap())).collect()
}

#[test]
fn start_stop_restart_enable_disable_and_logs() {
    let stage = Stage::new(|dir| install_fixture(dir, "Test/Do", &[], &json!({})));
    let first = stage.loaded("Test/Do");
    let again = stage.does("Test/Do", "start");
    assert_eq!(again, json!({"plugin": "Test/Do", "state": "loaded", "pid": first}));
    let restarted = stage.does("Test/Do", "restart");
    let second = u32::try_from(restarted["pid"].as_u64().unwrap()).unwrap();
    assert!(!runs(first) && runs(second));
    assert_eq!(stage.loaded("Test/Do"), second);

    let logs = stage.get("/v1/plugins/Test/Do/logs?follow=false");
    let said = lines(&logs);
    assert_eq!((&said[0]["number"], &said[0]["text"], &said[0]["pid"]), (&json!(1), &json!("ready"), &json!(second)));
    let id = logs.text().lines().find_map(|line| line.strip_prefix("id: ").map(str::to_owned)).unwrap();
    assert!(id.ends_with(":1"), "{id}");
    let rest = stage.get(&format!("/v1/plugins/Test/Do/logs?follow=false&after={id}"));
    assert_eq!(lines(&rest).len(), said.len() - 1, "what was read is not told again");
    problem(&stage.get("/v1/plugins/Test/Do/logs?after=nonsense"), 400, "invalid_argument");
    problem(&stage.get("/v1/plugins/Test/None/logs"), 404, "not_found");

    assert_eq!(stage.does("Test/Do", "stop"), json!({"plugin": "Test/Do", "state": "stopped", "pid": null}));
    assert!(!runs(second));
    let detail = stage.get("/v1/plugins/Test/Do").json();
    assert_eq!((&detail["process"]["starts"], &detail["process"]["lastExit"]["code"]), (&json!(2), &json!(0)));
    problem(&stage.post("/v1/plugins/Test/Do/methods/pid"), 409, "wrong_state");
    assert_eq!(stage.does("Test/Do", "disable")["state"], "disabled");
    problem(&stage.post("/v1/plugins/Test/Do/start"), 409, "wrong_state");
    stage.does("Test/Do", "enable");
    // It would have been started by itself, and is.
    stage.loaded("Test/Do");
    for verb in ["start", "logs"] {
        assert_eq!(stage.get(&format!("/v1/plugins/Test/Do/{verb}?follow=false")).status() == 200, verb == "logs");
    }
}

/// Whatever becomes of the daemon: the plugins go on, none is started twice, and who reads their output misses nothing.
#[test]
fn plugins_and_readers_outlive_a_daemon_that_is_killed() {
    let names: Vec<_> = (0..4).map(|n| format!("Test/p{n}")).collect();
    let mut stage = Stage::new(|dir| {
        for name in &names {
            install_fixture(dir, name, &["--chatter"], &json!({}));
        }
    });
    let before: Vec<_> = names.iter().map(|name| stage.loaded(name)).collect();
    let socket = stage.daemon.socket();
    let mut run = command(GOPLUGCTL);
    run.arg0("goplugctl").arg("--socket").arg(&socket).args(["logs", "-f", "Test/p0", "-o", "jsonl"]);
    let mut reader = Process::start(&mut run, Ready::Now);
    let mut next = move || serde_json::from_str::<Value>(&reader.line()).unwrap();
    let number = |line: &Value| line["number"].as_u64().unwrap();
    let mut last = number(&next());
    for _ in 0..3 {
        stage = stage.killed();
        let after: Vec<_> = names.iter().map(|name| stage.loaded(name)).collect();
        assert_eq!(after, before, "none was started again");
        for name in &names {
            assert_eq!(stage.get(&format!("/v1/plugins/{name}")).json()["process"]["starts"], 0);
        }
        // Everything until now was read by the new daemon.
        let now = lines(&stage.get("/v1/plugins/Test/p0/logs?follow=false")).last().map(number).unwrap();
        while last < now {
            let line = next();
            assert!(number(&line) > last && line["pid"] == before[0], "{last}, then {line}");
            last = number(&line);
        }
    }
    let pid = u32::try_from(stage.does("Test/p0", "restart")["pid"].as_u64().unwrap()).unwrap();
    wait_until("the next process is heard", LONG, || next()["pid"] == pid);
}
