//! Who may be a plugin: files and processes that are not what they should be, each refused with its reason.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use goplug_registry::admin::{PluginSummary, State};
use goplug_registry::{Code, Ran, Registry};
use goplug_tests::{LONG, PluginDir, Process, Ready, bound, skip, wait_for};

use crate::support::{
    FIXTURE, GOPLUGCTL, command, elsewhere, evil, fault, fixture, loaded, quiet, row, socket_in, text, watching,
};

/// The user that owns nothing.
const NOBODY: u32 = 65534;
/// A user who is neither root nor that one.
const STRANGER: u32 = 54321;

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Every file of its own kind beside one healthy plugin, which must not wait for any of them.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_proper_file_is_refused_with_the_reason_and_blocks_nobody() {
    let dir = PluginDir::new();
    let good = r#"{"Name":"x","NameSpace":"Bad","Sock":"x.sock","LazyLoad":false}"#;
    let mode =
        |name: &str, mode| std::fs::set_permissions(dir.join(name), std::fs::Permissions::from_mode(mode)).unwrap();
    dir.write("elsewhere", good);
    symlink(dir.join("elsewhere"), dir.join("symlink.pconf")).unwrap();
    symlink("nowhere", dir.join("dangling.pconf")).unwrap();
    dir.write("two.pconf", good);
    std::fs::hard_link(dir.join("two.pconf"), dir.join("links")).unwrap();
    assert!(Command::new("mkfifo").arg(dir.join("fifo.pconf")).status().unwrap().success());
    let _socket = std::os::unix::net::UnixListener::bind(dir.join("socket.pconf")).unwrap();
    dir.write("all.pconf", good);
    mode("all.pconf", 0o666);
    dir.write("big.pconf", format!("{good}{}", " ".repeat(65 * 1024)));
    dir.write("text.pconf", "Name = x");
    dir.write("outside.pconf", good.replace("x.sock", "/etc/x.sock"));
    dir.write("abstract.pconf", good.replace("x.sock", "@x"));
    dir.write("long.pconf", good.replace("x.sock", &"x".repeat(108)));
    dir.write("noname.pconf", good.replace("\"x\"", "\"\""));
    dir.write("dash.pconf", good.replace("\"Bad\"", "\"-\""));
    dir.write("escape.pconf", good.replace("\"x\"", "\"\\u001b[31m\""));
    dir.write("empty.pconf", "");
    let mut cases = vec![
        ("symlink.pconf", "link"),
        ("dangling.pconf", "link"),
        ("two.pconf", "link"),
        ("fifo.pconf", "regular"),
        ("socket.pconf", "regular"),
        ("all.pconf", "writ"),
        ("big.pconf", "65536"),
        ("text.pconf", "line 1"),
        ("outside.pconf", "socket"),
        ("abstract.pconf", "abstract"),
        ("long.pconf", "107"),
        ("noname.pconf", "empty"),
        ("dash.pconf", "reserved"),
        ("escape.pconf", "control"),
        ("empty.pconf", "line"),
    ];
    if is_root() {
        let device = Command::new("mknod").arg(dir.join("device.pconf")).args(["c", "1", "3"]).status().unwrap();
        match device.success() {
            true => cases.push(("device.pconf", "regular")),
            false => skip("a device as .pconf", "mknod is not permitted"),
        }
        dir.write("foreign.pconf", good);
        std::os::unix::fs::chown(dir.join("foreign.pconf"), Some(NOBODY), None).unwrap();
        cases.push(("foreign.pconf", "65534"));
    } else {
        skip("a device, a file of another owner", "needs root");
    }

    let _plugin = fixture(&dir, &["Test/Do"]);
    let begin = Instant::now();
    let registry = watching(&dir).await;
    loaded(&registry, "Test/Do").await;
    bound("healthy_among_bad_files", begin.elapsed(), Duration::from_millis(500));
    let count = cases.len();
    for (file, reason) in cases {
        let why = registry.why(file).await;
        let broken = why.broken().unwrap_or_else(|| panic!("{file}: {why:#?}"));
        assert!(broken.detail.contains(reason), "{file}: {broken:?} does not say `{reason}`");
        assert!(!why.callable, "{file}");
    }
    wait_for("every one of them is listed", LONG, || async {
        // What does not parse is listed once it has stood for a second: until then somebody may be writing it.
        let refused = |row: &PluginSummary| matches!(row.state, State::Invalid | State::Denied);
        (registry.plugins().iter().filter(|row| refused(row)).count() >= count).then_some(())
    })
    .await;
    registry.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_entry_says_that_nobody_listens() {
    let dir = PluginDir::new();
    dir.publish("Test", "Dead", "dead.sock");
    let listener = std::os::unix::net::UnixListener::bind(dir.join("stale.sock")).unwrap();
    dir.publish("Test", "Stale", "stale.sock");
    drop(listener);
    let registry = watching(&dir).await;
    for (plugin, word) in [("Test/Dead", "dead.sock"), ("Test/Stale", "stale.sock")] {
        wait_for("it was tried", LONG, || async {
            row(&registry, plugin).filter(|row| row.last_error.is_some()).map(drop)
        })
        .await;
        let why = registry.why(plugin).await;
        let broken = why.broken().unwrap_or_else(|| panic!("{why:#?}"));
        assert!(broken.name.contains("socket") && broken.detail.contains(word), "{broken:?}");
        assert!(why.fix.is_some(), "{why:?}");
        let error = fault(registry.load(plugin).await);
        assert_eq!(error.code, Code::Unavailable, "{error:?}");
    }
    registry.close().await;
}

/// Files that we may read only because we are root are read; as another user the same file says `permission`.
#[test]
fn modes_and_owners_count_as_another_user_too() {
    if !is_root() {
        return skip("modes and owners as uid 65534", "needs root to become it");
    }
    let dir = PluginDir::new();
    let Some(ctl) = for_everybody(&dir, GOPLUGCTL) else { return };
    std::fs::create_dir(dir.join("p")).unwrap();
    std::os::unix::fs::chown(dir.join("p"), Some(NOBODY), Some(NOBODY)).unwrap();
    let good = r#"{"Name":"x","NameSpace":"Bad","Sock":"x.sock","LazyLoad":false}"#;
    for (file, owner, mode) in [
        ("secret", 0, 0o600),
        ("own", NOBODY, 0o600),
        ("locked", NOBODY, 0o000),
        ("roots", 0, 0o644),
        ("strange", STRANGER, 0o644),
        ("open", NOBODY, 0o666),
    ] {
        let path = dir.join(&format!("p/{file}.pconf"));
        std::fs::write(&path, good.replace("\"x\"", &format!("\"{file}\""))).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        std::os::unix::fs::chown(&path, Some(owner), Some(owner)).unwrap();
    }
    for (file, reason) in [
        ("secret.pconf", "ermission"),
        ("locked.pconf", "ermission"),
        ("strange.pconf", "belongs to uid 54321, expected 65534 or 0"),
        ("open.pconf", "written by everybody"),
    ] {
        let mut run = command(ctl.to_str().unwrap());
        let output = run.arg("--dir").arg(dir.join("p")).args(["why", file]).uid(NOBODY).gid(NOBODY).output().unwrap();
        let shown = text(&output.stdout) + &text(&output.stderr);
        assert!(shown.contains(reason), "{file} as {NOBODY}: {shown}");
    }
    let list = command(ctl.to_str().unwrap())
        .arg("--dir")
        .arg(dir.join("p"))
        .args(["list", "-o", "json"])
        .uid(NOBODY)
        .gid(NOBODY)
        .output()
        .unwrap();
    let rows: Vec<PluginSummary> =
        serde_json::from_slice(&list.stdout).unwrap_or_else(|error| panic!("{error}: {list:?}"));
    let refused = |row: &PluginSummary| matches!(row.state, State::Invalid | State::Denied);
    for name in ["own", "roots"] {
        assert!(
            rows.iter().any(|row| row.name == name && !refused(row)),
            "{name}: root's files and our own count: {rows:#?}"
        );
    }
    assert_eq!(rows.iter().filter(|row| refused(row)).count(), 4, "{rows:#?}");
}

/// A copy of a program that every user may run: the build folder may be closed to others.
fn for_everybody(dir: &PluginDir, program: &str) -> Option<std::path::PathBuf> {
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let copy = dir.join("program");
    std::fs::copy(program, &copy).unwrap();
    std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o755)).unwrap();
    let runs = Command::new(&copy).arg("--version").uid(NOBODY).gid(NOBODY).output();
    if runs.is_err() {
        skip("programs as uid 65534", "a folder above the temporary folder is closed to others");
        return None;
    }
    Some(copy)
}

/// The file is ours, the process behind the socket is not.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_of_another_user_is_denied_unless_allowed() {
    if !is_root() {
        return skip("a process of another user", "needs root to start one");
    }
    let dir = PluginDir::new();
    let Some(copy) = for_everybody(&dir, FIXTURE) else { return };
    let home = dir.join("theirs");
    std::fs::create_dir(&home).unwrap();
    std::os::unix::fs::chown(&home, Some(NOBODY), Some(NOBODY)).unwrap();
    let mut run = command(copy.to_str().unwrap());
    let plugin = Process::start(run.arg(&home).arg("Test/Theirs").uid(NOBODY).gid(NOBODY), Ready::Line("ready"));
    let published = home.join("TestTheirs.pconf");
    let plugins = dir.join("plugins");
    std::fs::create_dir(&plugins).unwrap();
    std::fs::write(plugins.join("TestTheirs.pconf"), elsewhere(&published, &socket_in(&published))).unwrap();
    std::fs::set_permissions(plugins.join("TestTheirs.pconf"), std::fs::Permissions::from_mode(0o644)).unwrap();

    let open = || Registry::builder(&plugins).socket_dirs([home.clone()]);
    let registry = open().open().await.unwrap();
    let error = fault(registry.load("Test/Theirs").await);
    assert_eq!(error.code, Code::Denied, "{error:?}");
    assert!(error.message.contains("65534"), "{error:?}");
    assert_eq!(row(&registry, "Test/Theirs").unwrap().state, State::Denied);
    registry.close().await;

    let registry = open().allow_uids([NOBODY]).open().await.unwrap();
    registry.load("Test/Theirs").await.unwrap();
    assert_eq!(row(&registry, "Test/Theirs").unwrap().pid, Some(plugin.pid()));
    registry.close().await;
}

/// While the process that was met lives on, another one takes its socket's path: one that answers any call at once, whatever
/// it is asked and for whomever. Only the comparison of the processes keeps the calls from it.
#[tokio::test(flavor = "multi_thread")]
async fn every_connection_must_lead_to_the_same_process() {
    let (ours, theirs) = (PluginDir::new(), PluginDir::new());
    let _plugin = evil(&ours, "Do", "good", None);
    let _impostor = evil(&theirs, "Do", "impostor", None);
    let registry = quiet(&ours).await;
    registry.load("Evil/Do").await.unwrap();
    // No connection is kept behind this reply: every later call connects anew.
    let last = "HTTP/1.1 200 OK\r\nGoplug-Call-Id: CALLID\r\nConnection: close\r\nContent-Length: 6\r\n\r\nbefore";
    assert_eq!(text(registry.execute("Evil/Do", "raw", last).await.unwrap()), "before");
    let (socket, other) = (ours.join("Do.sock"), theirs.join("Do.sock"));
    swap(&socket, &other);
    let calls = (0..32).map(|n| {
        let registry = registry.clone();
        tokio::spawn(async move { registry.execute("Evil/Do", "good", format!("call {n}")).await })
    });
    for call in calls.collect::<Vec<_>>() {
        let error = fault(call.await.unwrap().map(text));
        assert_eq!((error.code, error.ran), (Code::Unavailable, Ran::No), "{error:?}");
    }
    swap(&socket, &other);
    wait_for("the plugin that was met answers again", LONG, || async {
        registry.execute("Evil/Do", "good", "after").await.ok().filter(|reply| text(reply) == "after")
    })
    .await;
    registry.close().await;
}

fn swap(one: &Path, other: &Path) {
    let spare = one.with_extension("spare");
    std::fs::rename(one, &spare).unwrap();
    std::fs::rename(other, one).unwrap();
    std::fs::rename(&spare, other).unwrap();
}
