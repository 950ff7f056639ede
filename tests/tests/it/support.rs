//! How tests start things.

use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use goplug_pconf_schema::admin::{EventKind, PluginSummary, RegistryEvent, State};
use goplug_registry::{Error, Events, Latency, Registry, Wait};
use goplug_tests::{LONG, PluginDir, Process, Ready, wait_until};

pub(crate) const FIXTURE: &str = env!("CARGO_BIN_EXE_fixture");
pub(crate) const GOPLUGCTL: &str = env!("CARGO_BIN_EXE_test-goplugctl");
pub(crate) const GOPLUGD: &str = env!("CARGO_BIN_EXE_test-goplugd");
pub(crate) const GOPLUG_HOST: &str = env!("CARGO_BIN_EXE_test-goplug-host");
pub(crate) const APP: &str = env!("CARGO_BIN_EXE_app");
pub(crate) const TURNCOAT: &str = env!("CARGO_BIN_EXE_turncoat");
const EVIL: &str = env!("CARGO_BIN_EXE_evil");
pub(crate) const V0: &str = env!("CARGO_BIN_EXE_v0plugin");
pub(crate) const EXAMPLE: &str = env!("CARGO_BIN_EXE_example");
const READY: Ready = Ready::Line("ready");

/// The fixture plugin; `args` are its options and names.
pub(crate) fn fixture(dir: &PluginDir, args: &[&str]) -> Process {
    Process::start(command(FIXTURE).arg(dir.path()).args(args), READY)
}

/// A plugin of the original, by hand.
pub(crate) fn v0_plugin(dir: &PluginDir, namespace: &str, name: &str, args: &[&str]) -> Process {
    Process::start(command(V0).arg(dir.path()).args([namespace, name]).args(args), READY)
}

/// A plugin that breaks the protocol; `Evil/<name>`.
pub(crate) fn evil(dir: &PluginDir, name: &str, hello: &str, file: Option<&Path>) -> Process {
    let file = file.map(Path::as_os_str).unwrap_or_default();
    Process::start(command(EVIL).arg(dir.path()).args([name, hello]).arg(file), READY)
}

/// An application with an embedded registry, over the transport that this run is about.
pub(crate) fn app(dir: &PluginDir, args: &[&str]) -> Process {
    let mut run = command(APP);
    if let Some(transport) = std::env::var_os("GOPLUG_TRANSPORT") {
        run.env("GOPLUG_TRANSPORT", transport);
    }
    Process::start(run.arg(dir.path()).args(args), READY)
}

/// An example plugin, up when its file is there.
pub(crate) fn example_plugin(dir: &PluginDir, name: &str, pconf: &str) -> Process {
    let process = Process::start(command(EXAMPLE).arg(name).arg(dir.path()), Ready::Now);
    wait_until(&format!("{name} is published"), LONG, || dir.join(pconf).exists());
    process
}

/// Runs an example application to its end.
pub(crate) fn example_app(dir: &PluginDir, name: &str) -> String {
    let run = command(EXAMPLE).arg(name).arg(dir.path()).output().expect("the example");
    assert!(run.status.success(), "{name}: {}", String::from_utf8_lossy(&run.stderr));
    String::from_utf8_lossy(&run.stdout).into_owned()
}

/// The example in Python; `None` where there is no Python 3.11.
pub(crate) fn python_plugin(dir: &PluginDir) -> Option<Process> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/python/notifier.py");
    let probe = "import sys; sys.exit(sys.version_info < (3, 11))";
    let found = Command::new("python3").args(["-c", probe]).status().is_ok_and(|status| status.success());
    if !found {
        goplug_tests::skip("the plugin in Python", "no python3 of version 3.11 or later in PATH");
        return None;
    }
    // The interpreter itself: a launcher in between would be the child that is killed.
    let exact = Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output().expect("python3");
    let python = String::from_utf8_lossy(&exact.stdout).trim().to_owned();
    let process = Process::start(command(&python).arg(script).arg(dir.path()), Ready::Now);
    wait_until("the plugin in Python is published", LONG, || dir.join("Examplenotifier.pconf").exists());
    Some(process)
}

/// A daemon on its own socket, over one plugin directory.
pub(crate) struct Daemon {
    pub(crate) process: Process,
    pub(crate) home: PluginDir,
}

impl Daemon {
    /// Starts it and waits for its `READY=1`.
    pub(crate) fn start(plugins: &PluginDir, args: &[&str]) -> Self {
        Self::with(&[&["--plugin-dir", plugins.text()], args].concat())
    }

    /// As [`Daemon::start`], with these arguments and its socket only.
    pub(crate) fn with(args: &[&str]) -> Self {
        Self::at(PluginDir::new(), args, &[])
    }

    /// As [`Daemon::with`], in this home and with these variables.
    pub(crate) fn at(home: PluginDir, args: &[&str], variables: &[(&str, &Path)]) -> Self {
        // A daemon that was killed left it.
        _ = std::fs::remove_file(home.join("notify"));
        let notify = UnixDatagram::bind(home.join("notify")).expect("a datagram socket");
        notify.set_read_timeout(Some(LONG)).expect("a deadline");
        let mut run = command(GOPLUGD);
        run.arg0("goplugd").arg("--socket").arg(home.join("d/goplugd.sock"));
        run.envs(variables.iter().copied());
        run.args(args).env("NOTIFY_SOCKET", home.join("notify"));
        run.stderr(std::fs::File::create(home.join("log")).expect("a log"));
        let process = Process::start(&mut run, Ready::Now);
        let mut message = [0; 256];
        loop {
            let count = notify.recv(&mut message).expect("READY=1 in time");
            if String::from_utf8_lossy(&message[..count]).lines().any(|line| line == "READY=1") {
                return Self { process, home };
            }
        }
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.home.join("log")).expect("a log")
    }

    /// Its socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.home.join("d/goplugd.sock")
    }
}

/// What a run of the command line left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// `goplugctl`, with an environment that says nothing of targets, colours or widths.
pub(crate) fn goplugctl(args: &[&str]) -> Ran {
    let mut run = command(GOPLUGCTL);
    let output = run.arg0("goplugctl").args(args).stdin(std::process::Stdio::null()).output().expect("goplugctl");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ran { code: output.status.code().unwrap_or(-1), out: text(&output.stdout), err: text(&output.stderr) }
}

/// A command whose environment holds none of our own variables, but for what it trusts: that is none of the user's business.
pub(crate) fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    let ours = std::env::vars_os().map(|(name, _)| name).filter(|name| name.to_string_lossy().starts_with("GOPLUG_"));
    for name in ours.chain(["NO_COLOR".into(), "COLUMNS".into(), "XDG_RUNTIME_DIR".into()]) {
        command.env_remove(name);
    }
    // A plugin that panics because it was told to need not say where.
    command.env("XDG_STATE_HOME", state_home()).env("RUST_BACKTRACE", "0");
    command
        .env("GOPLUG_TRUST_DIR", Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("trust-{}", std::process::id())));
    command
}

/// The user's state folder as far as tests go: what they trust is none of the user's business. Those of test runs that have
/// ended go.
fn state_home() -> &'static Path {
    static HOME: LazyLock<PathBuf> = LazyLock::new(|| {
        let all = Path::new(env!("CARGO_TARGET_TMPDIR")).join("state");
        for entry in std::fs::read_dir(&all).into_iter().flatten().flatten() {
            if !Path::new("/proc").join(entry.file_name()).exists() {
                _ = std::fs::remove_dir_all(entry.path());
            }
        }
        let ours = all.join(std::process::id().to_string());
        // Whoever needs it makes it otherwise, or says why not.
        _ = std::fs::create_dir_all(&ours);
        ours
    });
    &HOME
}

/// A registry over the transport that this run is about.
pub(crate) fn builder(dir: impl AsRef<std::path::Path>) -> goplug_registry::Builder {
    let latency = if goplug_tests::shared_memory() { Latency::Low } else { Latency::default() };
    let trust = state_home().join("goplug");
    Registry::builder(dir).fast_paths(goplug_tests::fast_paths()).latency(latency).trust_dir(trust)
}

/// A registry that finds and loads by itself.
pub(crate) async fn watching(dir: &PluginDir) -> Registry {
    builder(dir.path()).auto_discover(true).open().await.expect("a registry")
}

/// A registry that does only what it is told.
pub(crate) async fn quiet(dir: &PluginDir) -> Registry {
    builder(dir.path()).open().await.expect("a registry")
}

/// Waits until a plugin is loaded.
pub(crate) async fn loaded(registry: &Registry, plugin: &str) {
    if let Err(error) = registry.wait_for(plugin, Wait::Loaded, LONG).await {
        panic!("{error:?}; {:#?}", registry.why(plugin).await);
    }
}

/// Waits for the first event that fits, from the beginning of the registry's memory.
pub(crate) async fn event(events: &mut Events, what: &str, fits: impl Fn(&RegistryEvent) -> bool) -> RegistryEvent {
    let mut seen = Vec::new();
    let found = tokio::time::timeout(LONG, async {
        while let Some(event) = events.next().await {
            if fits(&event) {
                return Some(event);
            }
            seen.push(event);
        }
        None
    });
    match found.await {
        Ok(Some(event)) => event,
        _ => panic!("no event: {what}; seen {seen:#?}"),
    }
}

/// Waits for an event of a kind.
pub(crate) async fn event_of(events: &mut Events, kind: EventKind) -> RegistryEvent {
    event(events, &format!("{kind:?}"), |event| event.kind == kind).await
}

/// Waits for a state of a plugin.
pub(crate) async fn state_of(events: &mut Events, plugin: &str, state: State) -> RegistryEvent {
    let fits = |event: &RegistryEvent| {
        event.plugin.as_ref().is_some_and(|id| id.as_str() == plugin) && event.state == Some(state)
    };
    event(events, &format!("{plugin} is {state}"), fits).await
}

/// The plugin as `list` shows it.
pub(crate) fn row(registry: &Registry, plugin: &str) -> Option<PluginSummary> {
    registry.plugins().into_iter().find(|row| row.id().is_some_and(|id| id.as_str() == plugin))
}

/// Text of a reply.
pub(crate) fn text(bytes: impl AsRef<[u8]>) -> String {
    String::from_utf8_lossy(bytes.as_ref()).into_owned()
}

/// The failure of a call that must fail.
#[track_caller]
pub(crate) fn fault<T: std::fmt::Debug>(result: Result<T, Error>) -> Error {
    result.expect_err("a failure")
}

/// The socket that a `.pconf` names.
pub(crate) fn socket_in(pconf: &Path) -> PathBuf {
    let value: serde_json::Value = serde_json::from_slice(&std::fs::read(pconf).expect("a .pconf")).expect("JSON");
    pconf.with_file_name(value["Sock"].as_str().expect("a socket"))
}

/// Publishes the plugin of `from/file` in `to` too, with another socket: the way through a proxy.
pub(crate) fn republish(from: &PluginDir, to: &Path, file: &str, socket: &Path) {
    goplug_tests::write_atomically(&to.join(file), elsewhere(&from.join(file), socket).as_bytes());
}

/// The text of a `.pconf` with another socket.
pub(crate) fn elsewhere(pconf: &Path, socket: &Path) -> String {
    let mut value: serde_json::Value = serde_json::from_slice(&std::fs::read(pconf).expect("a .pconf")).expect("JSON");
    value["Sock"] = socket.to_str().into();
    value.to_string()
}
