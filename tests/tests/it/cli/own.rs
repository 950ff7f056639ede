//! What the program says of itself, and what it does for the daemon.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;

use goplug_tests::{LONG, PluginDir, Process, Ready, http, wait_until};

use super::transcript::{Answer, run};
use super::{Transcript, broken_file, the_fixture};
use crate::support::{GOPLUGCTL, command, fixture, goplugctl, socket_in};

fn said(dir: &PluginDir, words: &[&str]) -> Answer {
    run(words.iter().map(|word| word.replace("{dir}", dir.text())), b"", &[(dir.text().to_owned(), "[DIR]")])
}

#[test]
fn version_help_completion_man() {
    let mut both = Transcript::quiet(|_| Vec::new());
    both.same_in_both_forms("version");
    both.same("help names");
    both.same("help targets");
    both.same("help output");
    both.same("help exit-codes");
    both.same("help execute");
    both.same("help nonsense");
    both.same("help");
    both.same("completion nonsense");
    both.same("man {dir}/pages");
    for shell in ["bash", "zsh", "fish"] {
        let [daemon, directory] = both.each().map(|target| target.run(&["completion", shell], b""));
        assert_eq!(daemon, directory, "{shell}");
        assert!(
            daemon.code == 0 && daemon.out.contains("is-discovered") && daemon.out.contains("goplugctl"),
            "{shell}"
        );
    }
    both.same("completion bash -q");
    both.is("own");
}

#[test]
fn lint_reads_files_and_touches_nothing() {
    let mut both = Transcript::quiet(|dir: &PluginDir| {
        broken_file(dir);
        dir.write("good.pconf", r#"{"Name":"good","NameSpace":"a","Sock":"good.sock","Url":"unix://agood","LazyLoad":false,"Protocol":1,"Epoch":"0123456789abcdef0123456789abcdef"}"#);
        dir.write("Odd.pconf", r#"{"Name":"Odd Name","Sock":"/etc/x.sock","sock":"/etc/y.sock",}"#);
        Vec::new()
    });
    both.same_in_both_forms("lint {dir}");
    both.same("lint {dir}/good.pconf");
    both.same("lint {dir}/broken.pconf -o name");
    both.same("lint {dir}/none.pconf");
    both.same("lint");
    both.is("lint");
}

/// A plugin's folder beside the plugin directory, which no scan sees.
fn sources(dir: &PluginDir) -> Vec<Process> {
    let put = |folder: &str, manifest: &str| {
        let path = dir.join(folder);
        std::fs::create_dir_all(&path).unwrap();
        std::fs::write(path.join("plugin.json"), manifest).unwrap();
        std::fs::write(path.join("run"), "#!/bin/sh\n").unwrap();
        std::fs::set_permissions(path.join("run"), std::fs::Permissions::from_mode(0o755)).unwrap();
    };
    put(
        ".sources/clock",
        r#"{"name":"clock","namespace":"test","version":"1.2.3","description":"tells the time","maintainers":["Ada"],
            "home":"https://example.org","source":{"mode":"local_exec","path":"run"},"exec":{"args":["--utc"]},
            "lazy_load":true,"requires":["test/base@^2"],"interfaces":["clock@1.0.0"],"extra":1}"#,
    );
    put(
        ".sources/bad",
        "{\"name\": \"b/d\", \"version\": \"1.0\",\n \"source\": {\"mode\": \"local_exe\", \"path\": \"../x\"}}",
    );
    std::os::unix::fs::symlink("/etc/passwd", dir.join(".sources/bad/link")).unwrap();
    put(".sources/shared", r#"{"name":"shared","version":"3.0.0","source":{"mode":"local_exec","path":"run.so"}}"#);
    std::fs::rename(dir.join(".sources/shared/run"), dir.join(".sources/shared/run.so")).unwrap();
    Vec::new()
}

#[test]
fn install_and_remove() {
    let mut both = Transcript::quiet(sources);
    both.same_in_both_forms("install {dir}/.sources/clock --dry-run");
    both.same("list");
    both.same_in_both_forms("install {dir}/.sources/clock");
    both.same("install {dir}/.sources/clock/plugin.json");
    both.same("install {dir}/.sources/bad");
    both.same("install {dir}/.sources/none");
    both.same("install {dir}/.sources/shared -q");
    both.same_in_both_forms("list");
    both.same_in_both_forms("inspect test/clock");
    both.same_in_both_forms("why test/clock");
    both.same("why shared");
    both.same("why {dir}/shared/plugin.json");
    both.same("cat shared");
    both.same("is-discovered test/clock");
    both.same("is-loaded test/clock");
    both.differs("execute test/clock Now", "a command on a directory starts for itself what it calls");
    both.same("load test/clock");
    both.same("lint {dir}");
    both.same("remove none");
    both.same_in_both_forms("remove test/clock --dry-run");
    both.same("remove test/clock");
    both.same("rm shared -o json");
    both.same("list");
    for target in both.each() {
        assert_eq!(target.dir.names(), [".goplug", ".sources"]);
    }
    both.is("install");
}

/// What runs is not taken away under it.
#[test]
fn a_plugin_that_runs_is_not_removed() {
    let mut both = Transcript::quiet(|dir: &PluginDir| {
        sources(dir);
        let folder = dir.join("fixture");
        std::fs::rename(dir.join(".sources/shared"), &folder).unwrap();
        let manifest =
            r#"{"name":"fixture","namespace":"Test","version":"7.0.0","source":{"mode":"local_exec","path":"run.so"}}"#;
        std::fs::write(folder.join("plugin.json"), manifest).unwrap();
        vec![fixture(dir, &["Test/fixture"])]
    });
    both.same("remove Test/fixture");
    for plugins in &mut both.plugins {
        plugins[0].terminate();
        plugins[0].wait(LONG);
    }
    both.unseen("rescan");
    both.same("remove Test/fixture");
    both.is("remove_running");
}

#[test]
fn lint_of_manifests() {
    let mut both = Transcript::quiet(sources);
    both.same_in_both_forms("lint {dir}/.sources/clock");
    both.same("lint {dir}/.sources/bad");
    both.same("lint {dir}/.sources/bad/plugin.json -o name");
    both.same("lint {dir}/.sources");
    both.is("lint_manifests");
}

/// `daemon run`, `status`, `stop`: the life of a daemon from the command line; plugins outlive it.
#[test]
fn the_daemon_from_the_command_line() {
    let (dir, home) = (PluginDir::new(), PluginDir::new());
    let mut plugins = the_fixture(&dir);
    let socket = home.join("goplugd.sock");
    let at = socket.to_str().unwrap();
    let mut command = command(GOPLUGCTL);
    command.arg0("goplugctl").args(["--socket", at, "daemon", "run", "--plugin-dir"]).arg(dir.path());
    let mut daemon = Process::start(command.stderr(std::process::Stdio::null()), Ready::Now);
    wait_until("it is ready", LONG, || {
        http::once(&socket, "GET", "/readyz", &[], b"").is_ok_and(|reply| reply.status() == 200)
    });
    assert_eq!(goplugctl(&["--socket", at, "wait", "Test/Do", "--timeout=20s"]).code, 0);

    let status = goplugctl(&["--socket", at, "daemon", "status"]);
    assert_eq!(status.code, 0, "{status:?}");
    assert!(
        status.out.contains(&format!("runs at {at}, pid {}, since", daemon.pid())) && status.out.contains("1 loaded\n"),
        "{status:?}"
    );
    let json: serde_json::Value =
        serde_json::from_str(&goplugctl(&["--socket", at, "daemon", "status", "-o", "json"]).out).unwrap();
    assert_eq!((json["pid"].as_u64(), json["directories"][0].as_str()), (Some(daemon.pid().into()), Some(dir.text())));

    // The variable counts when no flag does.
    let by_variable = {
        let mut run = crate::support::command(GOPLUGCTL);
        run.args(["list", "-o", "name"]).env("GOPLUG_SOCKET", at).output().unwrap()
    };
    assert_eq!(String::from_utf8_lossy(&by_variable.stdout), "Test/Do\n");

    let stop = goplugctl(&["--socket", at, "daemon", "stop"]);
    assert_eq!((stop.code, stop.out.as_str()), (0, format!("{at}\n").as_str()), "{stop:?}");
    assert_eq!(daemon.wait(LONG).code(), Some(0));
    let left: Vec<_> = home.names().into_iter().filter(|name| name.ends_with(".sock")).collect();
    assert_eq!(left, Vec::<String>::new(), "its socket is gone");
    assert!(plugins[0].is_alive(), "a plugin that started itself outlives the daemon");
    let hello = http::once(
        &dir.join(socket_in(&dir.join("TestDo.pconf")).to_str().unwrap()),
        "GET",
        "/_goplug/hello",
        &[],
        b"",
    )
    .unwrap();
    assert_eq!(hello.json()["active"], true);

    for verb in ["status", "stop"] {
        let nobody = goplugctl(&["--socket", at, "daemon", verb]);
        assert_eq!(nobody.code, 6, "{nobody:?}");
    }
    let usage = goplugctl(&["--socket", at, "daemon", "run", "--nonsense"]);
    assert_eq!(usage.code, 2, "{usage:?}");
}

#[test]
fn the_daemon_is_told_of_on_a_socket_only() {
    let mut both = Transcript::quiet(|_| Vec::new());
    both.differs("daemon status", "there is no daemon in a directory");
    both.differs("daemon stop --timeout 20s -q", "there is no daemon in a directory");
    both.is("daemon");
}

/// An unknown verb is a program `goplugctl-VERB`, which is told where to work.
#[test]
fn an_unknown_verb_is_looked_for_in_path() {
    let dir = PluginDir::new();
    let program = dir.write("goplugctl-hail", "#!/bin/sh\necho \"$GOPLUG_DIR|$GOPLUG_SOCKET|$*\"\nexit 7\n");
    std::fs::set_permissions(program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", dir.text(), std::env::var("PATH").unwrap_or_default());
    let mut run = command(GOPLUGCTL);
    let output =
        run.arg0("goplugctl").args(["--dir", "/plugins", "hail", "a", "b c"]).env("PATH", path).output().unwrap();
    assert_eq!(
        (output.status.code(), String::from_utf8_lossy(&output.stdout).as_ref()),
        (Some(7), "/plugins||a b c\n")
    );
    let answer = said(&dir, &["lisst"]);
    assert_eq!((answer.code, answer.out.as_str()), (2, ""), "{answer:?}");
    assert!(answer.err.contains("hint: goplugctl list"), "{answer:?}");
}
