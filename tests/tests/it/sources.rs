//! Plugins from elsewhere: fetched, checked, built, installed as any other; or refused, and nothing is left.

mod git;
mod manifests;
mod server;

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use goplug_registry::{Code, Error, Fetch, Install, Locator, Registry, Upgrade};
use goplug_tests::{LONG, PluginDir, wait_until};

use crate::packages::{KEY, everything, package, trusting};
use crate::supervision::{Home, Hosts, runs};
use crate::support::{GOPLUG_HOST, GOPLUGCTL, command, fault, loaded, row, text};
pub(crate) use git::Repository;
pub(crate) use server::{Reply, Server};

fn locator(text: &str) -> Locator {
    text.parse().unwrap_or_else(|why| panic!("{text}: {why}"))
}

async fn fetch(registry: &Registry, address: &str, how: Fetch) -> Result<goplug_registry::Fetched, Error> {
    registry.fetch(&locator(address), how, |_| ()).await
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    use std::io::Write;
    let mut child =
        Command::new("sha256sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("sha256sum of coreutils");
    child.stdin.take().unwrap().write_all(bytes).unwrap();
    let said = child.wait_with_output().unwrap().stdout;
    String::from_utf8(said).unwrap().split(' ').next().unwrap().to_owned()
}

type Files = Vec<(PathBuf, Vec<u8>)>;

/// Whether `git` or `curl`, which do the work, are not there; then it is said so.
pub(crate) fn lacks_tools(what: &str) -> bool {
    let runs =
        |program: &str| Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success());
    let missing = ["git", "curl"].into_iter().find(|program| !runs(program));
    if let Some(program) = missing {
        goplug_tests::skip(what, format!("there is no `{program}` in PATH"));
    }
    missing.is_some()
}

/// What is below the plugin directory but its sources, and what is known of hosts.
fn left(home: &Home) -> (Files, Vec<(u32, u32)>) {
    (everything(home.dir.path()), home.hosts.recorded())
}

/// The names of what is on its way in.
fn staged(dir: &PluginDir) -> Vec<String> {
    let entries = std::fs::read_dir(dir.join(".goplug/staging")).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn packages_from_a_web_server_follow_one_another() {
    if lacks_tools("packages from a web server follow one another") {
        return;
    }
    let home = Home::new();
    let signed = std::fs::read(package(&home.dir, "1.0.0", &[], Some(KEY))).unwrap();
    let unsigned = std::fs::read(package(&home.dir, "1.1.0", &[], None)).unwrap();
    let server = Server::start();
    let one = server.put("/one.plg", Reply::File(signed.clone()));
    let two = server.put("/two.plg", Reply::File(unsigned.clone()));
    let moved = server.put("/moved", Reply::Redirect("/two.plg".into()));
    let registry = trusting(&home).await;

    let fetched = fetch(&registry, &one, Fetch::default()).await.unwrap();
    assert!(fetched.must_be_signed() && !fetched.allows_unsigned(true));
    let installed = registry.install(fetched.path(), Install::default()).await.unwrap();
    assert_eq!(installed.origin.as_ref(), fetched.origin());
    let known = fetched.origin().unwrap().sha256.unwrap().to_string();
    assert_eq!((fetched.origin().unwrap().source.as_str(), known), (one.as_str(), sha256(&signed)));
    drop(fetched);
    assert_eq!(staged(&home.dir), [""; 0], "what was fetched is gone with it");
    loaded(&registry, "Test/Do").await;
    let version = async || text(registry.execute("Test/Do", "version", "").await.unwrap());
    assert!(version().await.starts_with("1.0.0 "));

    // Nobody signed it, and whoever changed it on its way would have changed everything.
    let fetched = fetch(&registry, &two, Fetch::default()).await.unwrap();
    let how = Upgrade { allow_unsigned: fetched.allows_unsigned(true), ..Upgrade::default() };
    assert_eq!(fault(registry.upgrade("Test/Do", Some(fetched.path()), how).await).code, Code::Denied);
    drop(fetched);
    let expected = format!("{moved}#sha256={}", sha256(&unsigned));
    let fetched = fetch(&registry, &expected, Fetch::default()).await.unwrap();
    let how = Upgrade { allow_unsigned: fetched.allows_unsigned(false), ..Upgrade::default() };
    registry.upgrade("Test/Do", Some(fetched.path()), how).await.unwrap();
    drop(fetched);
    assert!(version().await.starts_with("1.1.0 "));
    let origin = async || registry.inspect("Test/Do").await.unwrap().installed.unwrap().origin.unwrap();
    assert_eq!(origin().await.source, moved);
    registry.rollback("Test/Do", false).await.unwrap();
    assert!(version().await.starts_with("1.0.0 "));
    registry.remove_version("Test/Do", "1.1.0", false).await.unwrap();
    let versions = home.dir.join(".goplug/versions/Test/Do");
    let mut names: Vec<_> = std::fs::read_dir(versions).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["1.0.0", "1.0.0.origin"], "what was written down of a version goes with it");
    registry.stop_plugin("Test/Do").await.unwrap();
    registry.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_what_cannot_be_had_nothing_is_left() {
    if lacks_tools("of what cannot be had nothing is left") {
        return;
    }
    let home = Home::new();
    let good = std::fs::read(package(&home.dir, "1.0.0", &[], None)).unwrap();
    let server = Server::start();
    let at = |path: &str, reply: Reply| server.put(path, reply);
    let registry = trusting(&home).await;
    let secret = home.dir.join(".sources/1.0.0.plg");
    let file = format!("file://{}", secret.display());
    let closed = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}/x.plg", listener.local_addr().unwrap())
    };
    let wrong = format!("{}#sha256={}", at("/good", Reply::File(good.clone())), sha256(b"something else"));
    let small = Fetch { max_bytes: 1 << 20, ..Fetch::default() };
    let cases = [
        (wrong, Code::Denied, "another file than expected"),
        (at("/cut", Reply::CutOff(good.clone())), Code::Unavailable, "cut off before its end"),
        (at("/endless", Reply::Endless), Code::TooLarge, "larger than 1048576 bytes"),
        (at("/announced", Reply::File(vec![0; 2 << 20])), Code::TooLarge, "larger than 1048576 bytes"),
        (server.url("/missing"), Code::NotFound, "the server answers 404"),
        (at("/secret", Reply::Status(403)), Code::Denied, "the server answers 403"),
        (at("/broken", Reply::Status(503)), Code::Unavailable, "the server answers 503"),
        (at("/to-file", Reply::Redirect(file)), Code::Denied, "sends us on to something that is not fetched"),
        (at("/to-ftp", Reply::Redirect("ftp://127.0.0.1/x".into())), Code::Denied, "is not fetched"),
        (at("/round", Reply::Redirect("/round".into())), Code::Denied, "again and again"),
        (closed, Code::Unavailable, "nobody answers there"),
        ("http://no-such-host.invalid/x.plg".to_owned(), Code::Unavailable, "not known here"),
    ];
    // The folder for what is under way is there after the first one.
    fault(fetch(&registry, &server.url("/missing"), small).await);
    let before = left(&home);
    for (address, code, words) in cases {
        let refused = fault(fetch(&registry, &address, small).await);
        assert_eq!(refused.code, code, "{address}: {refused}");
        assert!(refused.message.contains(words), "{address}: {refused}");
        assert_eq!(left(&home), before, "{address}");
    }
    let fetched = fetch(&registry, &server.url("/good"), small).await.unwrap();
    assert_eq!(
        fault(registry.install(fetched.path(), Install::default()).await).code,
        Code::Denied,
        "nobody signed it"
    );
    drop(fetched);
    assert_eq!(left(&home), before);
    assert_eq!(row(&registry, "Test/Do"), None);
    registry.close().await;
}

/// Whoever ends the command ends what it started, whether that fetches or builds.
#[test]
fn an_interrupted_command_leaves_nothing() {
    if lacks_tools("an interrupted command leaves nothing") {
        return;
    }
    let server = Server::start();
    let silence = server.put("/silence", Reply::Silence);
    let repository = Repository::new();
    let marker = repository.path().join(".git/pid");
    repository.version("1.0.0", &format!("echo $$ > {}; sleep 1000", marker.display()));
    let build = repository.url("main");
    for (address, signal) in [
        (&silence, rustix::process::Signal::INT),
        (&silence, rustix::process::Signal::KILL),
        (&build, rustix::process::Signal::INT),
        (&build, rustix::process::Signal::KILL),
    ] {
        let (dir, hosts) = (PluginDir::new(), Hosts::new());
        _ = std::fs::remove_file(&marker);
        let mut run = command(GOPLUGCTL);
        run.args(["--dir", dir.text(), "install", "--build", address]).env("GOPLUG_HOST", GOPLUG_HOST);
        run.env("GOPLUG_HOSTS_DIR", hosts.folder()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = run.spawn().unwrap();
        wait_until("it is under way", LONG, || {
            let heads = |name: &String| dir.join(&format!(".goplug/staging/{name}/heads")).exists();
            staged(&dir).iter().any(heads) || std::fs::read_to_string(&marker).is_ok_and(|pid| pid.ends_with('\n'))
        });
        // A program runs before its host has written it down.
        wait_until("it is written down", LONG, || !hosts.recorded().is_empty());
        let started = hosts.recorded();
        rustix::process::kill_process(rustix::process::Pid::from_child(&child), signal).unwrap();
        let status = child.wait().unwrap();
        wait_until("what it started has ended", LONG, || {
            started.iter().all(|(host, program)| !runs(*host) && !runs(*program))
        });
        if signal == rustix::process::Signal::INT {
            assert_eq!(status.code(), Some(130));
        } else {
            // The next one tidies up.
            let mut next = command(GOPLUGCTL);
            next.args(["--dir", dir.text(), "install", &server.url("/missing")]).env("GOPLUG_HOST", GOPLUG_HOST);
            assert_eq!(next.env("GOPLUG_HOSTS_DIR", hosts.folder()).output().unwrap().status.code(), Some(4));
        }
        wait_until("nothing is on its way in", LONG, || staged(&dir).is_empty());
        wait_until("no record stays", LONG, || hosts.recorded().is_empty());
    }
}

/// On a terminal, which `script` of util-linux makes, it is told how far it is; elsewhere nothing is.
#[test]
fn on_a_terminal_it_is_told_how_far_it_is() {
    if lacks_tools("on a terminal it is told how far it is") {
        return;
    }
    if !Command::new("script").arg("--version").output().is_ok_and(|output| output.status.success()) {
        return goplug_tests::skip("progress on a terminal", "there is no `script`");
    }
    let server = Server::start();
    let address = server.put("/silence", Reply::Silence);
    let (dir, hosts) = (PluginDir::new(), Hosts::new());
    let line = format!("{GOPLUGCTL} --dir {} --timeout 2s install {address}", dir.text());
    let run = |program: &str, words: &[&str]| {
        let mut run = command(program);
        run.args(words).env("GOPLUG_HOST", GOPLUG_HOST).env("GOPLUG_HOSTS_DIR", hosts.folder());
        let output = run.stdin(Stdio::null()).output().unwrap();
        text([output.stdout, output.stderr].concat())
    };
    let shown = run("script", &["--quiet", "--return", "--command", &line, "/dev/null"]);
    assert!(shown.contains("fetching [") && shown.contains(" B of 10 B "), "{shown:?}");
    assert!(shown.contains("not done after 2000 ms"), "{shown:?}");
    let last = shown.rfind("fetching [").unwrap();
    assert!(shown[last..].contains("\r\u{1b}[K"), "the line is wiped: {shown:?}");
    let told = run("sh", &["-c", &line]);
    assert!(!told.contains("fetching [") && !told.contains('\r'), "{told:?}");
    assert!(staged(&dir).is_empty());
}
