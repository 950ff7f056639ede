//! `Registry::start`: a program, a socket, calls.

use std::os::unix::net::UnixListener;
use std::time::Duration;

use goplug_registry::host::Stream;
use goplug_registry::{Code, Command, Ran, Registry, Started};
use goplug_tests::{LONG, PluginDir, Process, Ready, wait_for};

use super::{folder, gone, is_alive, kill};
use crate::support::{APP, FIXTURE, GOPLUG_HOST, builder, command, fault, text};

async fn registry(dir: &PluginDir) -> Registry {
    builder(dir.path()).hosts_dir(folder(dir)).host_program(GOPLUG_HOST).open().await.unwrap()
}

fn fixture(dir: &PluginDir) -> Command {
    Command::new(FIXTURE).arg(dir.path()).arg("Host/Do")
}

async fn pid(started: &Started) -> u32 {
    // A call that meets the last moment of a process that was killed is not repeated: it may have run.
    let answer = wait_for("an answer", LONG, || async { started.execute("pid", "").await.ok() });
    text(answer.await).parse().unwrap()
}

/// Ends what a test that failed would leave behind.
struct Ended(Started);

impl Drop for Ended {
    fn drop(&mut self) {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                if let Some(hosted) = runtime.block_on(self.0.hosted()) {
                    super::end_host(&hosted);
                }
            });
        });
    }
}

#[tokio::test]
async fn a_started_plugin_is_called_ended_and_comes_back_with_the_next_call() {
    let dir = PluginDir::new();
    let registry = registry(&dir).await;
    let started = Ended(registry.start(fixture(&dir), dir.join("do.sock")).await.unwrap());
    let started = &started.0;
    assert_eq!(text(started.execute("echo", "hello").await.unwrap()), "hello");
    assert_eq!(started.plugin().await.unwrap().id().as_str(), "Host/Do");
    let first = pid(started).await;
    let hosted = started.hosted().await.unwrap();
    assert_eq!(hosted.record().plugin.pid, first, "the process that was started is the one that is called");
    // It may be called before it says so.
    wait_for("its output", LONG, || async {
        let lines = started.logs(0).await.unwrap();
        lines.iter().any(|line| line.text == "ready" && line.stream == Stream::Stdout).then_some(())
    })
    .await;

    let exit = started.terminate().await.unwrap().unwrap();
    assert_eq!((exit.code, exit.asked || exit.code == Some(0)), (Some(0), true), "{exit:?}");
    assert!(!is_alive(first));
    assert_eq!(started.terminate().await.unwrap(), None, "any number of times");
    assert_eq!(std::fs::read_dir(folder(&dir)).unwrap().count(), 0, "no record is left");

    let second = pid(started).await;
    assert!(second != first && is_alive(second));
    kill(second);
    gone(second);
    let third = pid(started).await;
    assert!(third != second && is_alive(third));
    kill(started.hosted().await.unwrap().record().host.pid);
    gone(third);
    let again = wait_for("an answer", LONG, || async { started.execute("echo", "again").await.ok() });
    assert_eq!(text(again.await), "again");
    // Many at once start one.
    started.terminate().await.unwrap();
    let pids = futures(started, 8).await;
    assert!(pids.iter().all(|pid| *pid == pids[0]), "{pids:?}");
    started.terminate().await.unwrap();
    registry.close().await;
}

async fn futures(started: &Started, count: usize) -> Vec<u32> {
    let mut pids = Vec::new();
    let mut calls: Vec<_> = (0..count).map(|_| Box::pin(pid(started))).collect();
    std::future::poll_fn(|cx| {
        calls.retain_mut(|call| match call.as_mut().poll(cx) {
            std::task::Poll::Ready(pid) => {
                pids.push(pid);
                false
            }
            std::task::Poll::Pending => true,
        });
        if calls.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    pids
}

#[tokio::test]
async fn it_outlives_the_registry_and_the_next_one_finds_it() {
    let dir = PluginDir::new();
    let socket = dir.join("do.sock");
    let first = registry(&dir).await;
    let started = first.start(fixture(&dir), &socket).await.unwrap();
    let process = pid(&started).await;
    drop(started);
    first.close().await;
    drop(first);
    let second = registry(&dir).await;
    let found = Ended(second.start(fixture(&dir), &socket).await.unwrap());
    assert!(found.0.was_adopted().await);
    assert_eq!(pid(&found.0).await, process);
    let other = fault(second.start(Command::new("/bin/sleep").arg("1000"), &socket).await);
    assert!(other.code == Code::Conflict && other.message.contains(&format!("pid {process}")), "{other:?}");
    assert!(is_alive(process));
    found.0.terminate().await.unwrap();
}

#[tokio::test]
async fn one_that_does_not_become_ready_is_ended_and_its_last_words_are_told() {
    let dir = PluginDir::new();
    let registry = registry(&dir).await;
    let socket = dir.join("x.sock");
    let says = Command::new("/bin/sh").args(["-c", "echo one >&2; echo 'no database at db:5432' >&2; exit 3"]);
    let error = fault(registry.start(says, &socket).await);
    assert_eq!((error.code, error.ran), (Code::Unavailable, Ran::No));
    assert!(error.message.contains("it returned 3: one | no database at db:5432"), "{error:?}");
    assert_eq!(error.data.unwrap()["stderr"], serde_json::json!(["one", "no database at db:5432"]));

    let mark = format!("silent-{}", std::process::id());
    let silent = Command::new("/bin/sh")
        .args(["-c", "echo waiting >&2; exec sleep 1000"])
        .env("MARK", &mark)
        .ready_within(Duration::from_millis(300));
    let error = fault(registry.start(silent.clone(), &socket).await);
    assert!(error.message.contains("did not answer on") && error.message.ends_with(": waiting"), "{error:?}");
    assert_eq!(super::marked(&mark), [0; 0], "it was ended");
    // One that is ready and fails to activate is not left running without a handle.
    let flag = dir.write("fails", "");
    let fails = fixture(&dir).arg("--activator-fails").arg(&flag).env("MARK", &mark);
    let error = fault(registry.start(fails, &socket).await);
    assert!(error.message.contains("no database"), "{error:?}");
    assert_eq!(super::marked(&mark), [0; 0], "it was ended");
    // A future that is dropped leaves nothing behind.
    let start = registry.start(silent.ready_within(LONG), &socket);
    assert!(tokio::time::timeout(Duration::from_millis(200), start).await.is_err());
    wait_for("it is ended", LONG, || async { super::marked(&mark).is_empty().then_some(()) }).await;
    wait_for("no record is left", LONG, || async {
        (std::fs::read_dir(folder(&dir)).unwrap().count() == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_socket_of_others_is_not_touched() {
    let dir = PluginDir::new();
    let registry = registry(&dir).await;
    let taken = dir.join("taken.sock");
    let _listener = UnixListener::bind(&taken).unwrap();
    let error = fault(registry.start(fixture(&dir), &taken).await);
    assert!(error.code == Code::Conflict && error.message.contains("belongs to pid"), "{error:?}");
    let file = dir.write("file.sock", "precious");
    let error = fault(registry.start(fixture(&dir), &file).await);
    assert!(error.code == Code::Conflict && error.message.contains("is no socket"), "{error:?}");
    assert_eq!(std::fs::read(file).unwrap(), b"precious");
    let error = fault(registry.start(fixture(&dir), "/etc/x.sock").await);
    assert!(error.code == Code::Denied && error.message.contains("socket_dirs"), "{error:?}");
    let error = fault(registry.start(fixture(&dir), dir.join(&"x".repeat(200))).await);
    assert!(error.code == Code::InvalidArgument && error.message.contains("the limit is 107"), "{error:?}");
}

/// A whole application: what it has in its environment, a plugin does not; without a host it says what is missing.
#[test]
fn an_application_passes_on_what_is_allowed_and_says_when_the_host_is_missing() {
    let dir = PluginDir::new();
    let mut app = command(APP);
    app.arg(dir.path()).args(["--no-auto", "--hosts"]).arg(folder(&dir));
    app.env("CANARY", "secret").env("LC_TIME", "C").env("HOME", "/home/of-somebody");
    let start = format!("start {} {FIXTURE} {} Host/Env", dir.join("env.sock").display(), dir.text());
    let mut without = Process::start(app.env("PATH", "/nowhere"), Ready::Line("ready"));
    let answer = without.ask(&start);
    for part in ["error not_found: ", "goplug-host", "GOPLUG_HOST", "PATH", "cargo install"] {
        assert!(answer.contains(part), "{answer}");
    }
    let mut with = Process::start(app.env("GOPLUG_HOST", GOPLUG_HOST), Ready::Line("ready"));
    let answer = with.ask(&start);
    let pid = answer.strip_prefix("started ").unwrap_or_else(|| panic!("{answer}"));
    let environment = std::fs::read_to_string(format!("/proc/{pid}/environ")).unwrap();
    let mut names: Vec<_> = environment.split_terminator('\0').map(|line| line.split_once('=').unwrap().0).collect();
    names.sort_unstable();
    for name in ["GOPLUG_PLUGIN_SOCKET", "HOME", "LC_TIME", "PATH", "PLUGIN_SOCKET"] {
        assert!(names.contains(&name), "{names:?}");
    }
    let allowed = |name: &&str| {
        name.starts_with("LC_")
            || ["GOPLUG_PLUGIN_SOCKET", "PLUGIN_SOCKET", "HOME", "LANG", "LANGUAGE", "LOGNAME"].contains(name)
            || ["PATH", "TMPDIR", "TZ", "USER", "XDG_RUNTIME_DIR"].contains(name)
    };
    assert!(names.iter().all(allowed), "{names:?}");
    assert!(with.ask(&format!("terminate {}", dir.join("env.sock").display())).starts_with("it returned 0"));
}

/// The same from threads without a runtime.
#[test]
fn without_async_a_plugin_is_started_called_and_ended() {
    let dir = PluginDir::new();
    let registry = Registry::builder(dir.path()).hosts_dir(folder(&dir)).host_program(GOPLUG_HOST);
    let registry = registry.open_blocking().unwrap();
    let started = registry.start(fixture(&dir), dir.join("do.sock")).unwrap();
    assert_eq!(text(started.execute("echo", "hello").unwrap()), "hello");
    let pid: u32 = text(started.execute("pid", "").unwrap()).parse().unwrap();
    assert_eq!(started.plugin().unwrap().id().as_str(), "Host/Do");
    assert!(!started.was_adopted() && is_alive(pid));
    assert!(started.terminate().unwrap().is_some());
    assert!(!is_alive(pid), "nothing is left of it");
    assert_eq!(started.terminate().unwrap(), None);
    assert_eq!(text(started.execute("echo", "again").unwrap()), "again", "the next call starts it");
    started.terminate().unwrap();
    registry.close();
}
