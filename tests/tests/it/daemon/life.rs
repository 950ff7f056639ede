//! The daemon's own life, and that of plugins through its routes.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use goplug_pconf_schema::wire::event::from_base64;
use goplug_tests::{LONG, PluginDir, http, wait_until};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::{Stage, hello, problem};
use crate::support::{Daemon, GOPLUGD, command, fixture, socket_in};

#[test]
fn it_says_that_it_lives_and_that_it_is_ready() {
    let stage = Stage::new(&["Test/Do"]);
    for route in ["/healthz", "/readyz"] {
        let reply = stage.get(route);
        let status = reply.json();
        assert_eq!(reply.status(), 200);
        assert_eq!((&status["pid"], &status["autoDiscover"]), (&stage.daemon.process.pid().into(), &true.into()));
        assert_eq!((&status["directories"], &status["plugins"]), (&json!([stage.dir.path()]), &json!({"loaded": 1})));
    }
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let socket = stage.daemon.socket();
    assert_eq!((mode(&socket), mode(socket.parent().unwrap())), (0o600, 0o700));
}

/// Whoever reads the log sees what is wrong, once for each reason, and when it is over.
#[test]
fn the_log_tells_what_cannot_be_loaded() {
    let dir = PluginDir::new();
    let dead = dir.publish("Test", "Do", "dead.sock");
    dir.write("broken.pconf", "{ \"Name\" 1 }");
    let daemon = Daemon::start(&dir, &[]);
    let get = |target: &str| http::once(&daemon.socket(), "GET", target, &[], b"").unwrap();
    let tries = || get("/v1/events?after=0&follow=false").text().matches("\"state\":\"backoff\"").count();
    wait_until("it was tried three times", LONG, || tries() >= 3);
    wait_until("the broken file has stood for a second", LONG, || daemon.log().contains("broken.pconf"));
    let about = |word: &str| daemon.log().lines().filter(|line| line.contains(word)).count();
    assert_eq!((about("Test/Do"), about("broken.pconf")), (1, 1), "{}", daemon.log());
    assert!(daemon.log().contains("WARN") && about("the process that wrote the file is gone") == 1);
    std::fs::remove_file(dead).unwrap();
    let _plugin = fixture(&dir, &["Test/Do"]);
    assert_eq!(get("/v1/plugins/Test/Do/wait?for=loaded&timeoutMs=20000").status(), 200);
}

#[test]
fn load_unload_reload_and_stop() {
    let mut stage = Stage::new(&["--output", "up", "--stopper", "down", "Test/Do"]);
    let post = |stage: &Stage, verb: &str, body: &str| stage.post(&format!("/v1/plugins/Test/Do/{verb}"), &[], body);
    let output = |reply: &http::Reply| {
        String::from_utf8(from_base64(reply.json()["outputBase64"].as_str().unwrap()).unwrap()).unwrap()
    };
    assert_eq!(problem(&post(&stage, "load", ""), 409, "conflict")["ran"], "no");
    let unloaded = post(&stage, "unload", "");
    assert_eq!((unloaded.status(), output(&unloaded).as_str()), (200, "down"));
    problem(&post(&stage, "unload", ""), 409, "wrong_state");
    problem(&stage.execute("echo", ""), 409, "wrong_state");
    let loaded = post(&stage, "load", "");
    assert_eq!((loaded.status(), output(&loaded).as_str()), (200, "up"));
    assert_eq!(output(&post(&stage, "reload", "")), "up");
    assert_eq!(stage.execute("pid", "").text(), stage.plugin.pid().to_string(), "the same process throughout");
    for wrong in ["nonsense", "{\"drain\":1}", "{\"drainMs\":-1}", "{\"drainMs\":86400001}"] {
        problem(&post(&stage, "unload", wrong), 400, "invalid_argument");
    }
    // A drain that is over cuts the call off, and says so.
    let socket = stage.daemon.socket();
    let call = std::thread::spawn(move || {
        http::once(&socket, "POST", "/v1/plugins/Test/Do/methods/sleep", &[], b"60000").unwrap()
    });
    stage.until_in_flight(1);
    let unloaded = post(&stage, "unload", r#"{"drainMs":20}"#);
    assert_eq!(unloaded.json()["cancelled"], 1, "{unloaded:?}");
    assert_ne!(call.join().unwrap().status(), 200);
    assert_eq!(post(&stage, "load", "").status(), 200);
    assert_eq!(post(&stage, "unload", r#"{"stop":true}"#).status(), 200);
    assert_eq!(stage.plugin.wait(LONG).code(), Some(0));
    assert_eq!(stage.get("/v1/plugins/Test/Do/wait?for=gone&timeoutMs=20000").status(), 200);
    problem(&stage.get("/v1/plugins/Test/Do"), 404, "not_found");
}

#[test]
fn there_is_one_instance() {
    let stage = Stage::new(&["Test/Do"]);
    let second = |args: &[&str]| {
        let output = command(GOPLUGD).arg("--plugin-dir").arg(stage.dir.path()).args(args).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let socket = stage.daemon.socket();
    let (code, text) = second(&["--socket", socket.to_str().unwrap()]);
    assert_eq!(code, Some(9), "{text}");
    assert!(text.contains(&stage.daemon.process.pid().to_string()), "it names the one that runs: {text}");
    // Another state folder does not help: the socket is taken.
    let state = PluginDir::new();
    let (code, text) = second(&["--socket", socket.to_str().unwrap(), "--state-dir", state.text()]);
    assert_eq!(code, Some(9), "{text}");
    assert_eq!(stage.execute("echo", "undisturbed").text(), "undisturbed");
}

#[test]
fn sigterm_drains_and_leaves_plugins_running_and_active() {
    let mut stage = Stage::new(&["Test/Do"]);
    let (socket, plugin) =
        (stage.daemon.socket(), stage.dir.join(socket_in(&stage.dir.join("TestDo.pconf")).to_str().unwrap()));
    let under_way = socket.clone();
    let call = std::thread::spawn(move || {
        http::once(&under_way, "POST", "/v1/plugins/Test/Do/methods/sleep", &[], b"300").unwrap()
    });
    stage.until_in_flight(1);
    assert_eq!(stage.daemon.process.terminate().code(), Some(0));
    assert_eq!(call.join().unwrap().text(), "slept", "a call under way finishes");
    assert!(!socket.exists());
    assert!(stage.plugin.is_alive());
    assert_eq!(hello(&plugin)["active"], true);
    let successor = Daemon::start(&stage.dir, &[]);
    let adopted = http::once(&successor.socket(), "GET", "/v1/plugins/Test/Do/wait?timeoutMs=20000", &[], b"").unwrap();
    assert_eq!(adopted.status(), 200, "the next daemon takes it over: {adopted:?}");
}

#[test]
fn sighup_applies_the_difference() {
    let (first, second, config) = (PluginDir::new(), PluginDir::new(), PluginDir::new());
    let _plugins = [fixture(&first, &["Test/One"]), fixture(&second, &["Test/Two"])];
    let write = |dirs: &[&PluginDir], auto: bool| {
        let dirs: Vec<_> = dirs.iter().map(|dir| dir.text()).collect();
        goplug_tests::write_atomically(
            &config.join("goplugd.toml"),
            format!("plugin_dirs = {dirs:?}\nauto_discover = {auto}\n").as_bytes(),
        );
    };
    write(&[&first], true);
    let daemon = Daemon::with(&["--config", config.join("goplugd.toml").to_str().unwrap()]);
    let get = |target: &str| http::once(&daemon.socket(), "GET", target, &[], b"").unwrap();
    let told = |what: &str, directories: Value, auto: bool| {
        daemon.process.signal(Signal::HUP);
        wait_until(what, LONG, || {
            let status = get("/healthz").json();
            status["directories"] == directories && status["autoDiscover"] == auto
        });
    };
    assert_eq!(get("/v1/plugins/Test/One/wait?timeoutMs=20000").status(), 200);
    problem(&get("/v1/plugins/Test/Two"), 404, "not_found");

    write(&[&first, &second], true);
    told("both directories", json!([first.path(), second.path()]), true);
    assert_eq!(get("/v1/plugins/Test/Two/wait?timeoutMs=20000").status(), 200);

    write(&[&second], false);
    told("the second directory only", json!([second.path()]), false);
    wait_until("the first one's plugin is gone", LONG, || get("/v1/plugins/Test/One").status() == 404);
    let socket = first.join(socket_in(&first.join("TestOne.pconf")).to_str().unwrap());
    assert_eq!(hello(&socket)["active"], true, "it was left as it was");
    let _third = fixture(&second, &["Test/Three"]);
    let rescan = http::once(&daemon.socket(), "POST", "/v1/rescan", &[], b"").unwrap();
    assert!(rescan.json()["version"].as_u64() > Some(0), "{rescan:?}");
    assert_eq!(get("/v1/plugins/Test/Three").json()["state"], "discovered", "nothing is loaded by itself any more");

    // What cannot be understood changes nothing.
    goplug_tests::write_atomically(&config.join("goplugd.toml"), b"plugin_dirs = 3\n");
    daemon.process.signal(Signal::HUP);
    write(&[&second], true);
    told("discovery again", json!([second.path()]), true);
    assert_eq!(get("/v1/plugins/Test/Three/wait?timeoutMs=20000").status(), 200);
}

#[test]
fn of_one_pair_in_two_directories_the_first_wins() {
    let (first, second) = (PluginDir::new(), PluginDir::new());
    let mut winner = fixture(&first, &["Test/Do"]);
    let loser = fixture(&second, &["Test/Do"]);
    let daemon = Daemon::with(&["--plugin-dir", first.text(), "--plugin-dir", second.text()]);
    let ask = |verb: &str, target: &str| http::once(&daemon.socket(), verb, target, &[], b"").unwrap();
    assert_eq!(ask("GET", "/v1/plugins/Test/Do/wait?timeoutMs=20000").status(), 200);
    wait_until("the first is used", LONG, || {
        ask("POST", "/v1/plugins/Test/Do/methods/pid").text() == winner.pid().to_string()
    });
    let list = ask("GET", "/v1/plugins").json();
    assert_eq!(list.as_array().map(Vec::len), Some(1), "{list:#?}");
    let detail = ask("GET", "/v1/plugins/Test/Do").json();
    assert_eq!(detail["conflicts"], json!([second.join("TestDo.pconf")]), "{detail:#?}");
    let why = ask("GET", &format!("/v1/why?subject={}", second.join("TestDo.pconf").display())).json();
    assert_eq!((&why["callable"], why["links"].to_string().contains(first.text())), (&false.into(), true), "{why:#?}");
    let why = ask("GET", "/v1/why?subject=Test/Do").json();
    assert_eq!(why["callable"], true, "{why:#?}");

    winner.terminate();
    wait_until("the second takes its place", LONG + Duration::from_secs(1), || {
        ask("POST", "/v1/plugins/Test/Do/methods/pid").text() == loser.pid().to_string()
    });
}
