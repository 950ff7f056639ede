//! Which program a plugin runs: what is shown of it, and that a pinned plugin runs no other.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use goplug_registry::admin::{EventKind, LinkState, State, TrustVerdict};
use goplug_registry::{Builder, Code, Reason, Registry};
use goplug_tests::{LONG, PluginDir, Process, Ready, skip, wait_for};

use crate::support::{FIXTURE, TURNCOAT, builder, command, event_of, fault, fixture, loaded, row, text};

/// A copy of a program with some bytes behind it, which nobody reads when it runs: the same program with another digest.
fn copy(program: &str, to: &Path, behind: &str) -> PathBuf {
    std::fs::copy(program, to).unwrap();
    let mut file = std::fs::File::options().append(true).open(to).unwrap();
    file.write_all(behind.as_bytes()).unwrap();
    to.to_owned()
}

fn start(program: &Path, dir: &PluginDir, name: &str) -> Process {
    Process::start(command(program.to_str().unwrap()).arg(dir.path()).arg(name), Ready::Line("ready"))
}

fn pinning(dir: &PluginDir, trust: &PluginDir) -> Builder {
    builder(dir.path()).pin_executables(true).trust_dir(trust.path())
}

fn digest(path: impl AsRef<Path>) -> String {
    let output = std::process::Command::new("sha256sum").arg("-b").arg(path.as_ref()).output().unwrap();
    text(&output.stdout)[..64].to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_of_a_plugin_is_shown_with_its_digest_loaded_or_not() {
    let dir = PluginDir::new();
    let plugin = fixture(&dir, &["Test/Do"]);
    let registry = builder(dir.path()).open().await.unwrap();
    registry.rescan().await.unwrap();
    for _ in 0..2 {
        let shown = registry.inspect("Test/Do").await.unwrap().executable.expect("a program");
        assert_eq!((shown.pid, shown.path.as_deref()), (plugin.pid(), Some(FIXTURE)));
        assert_eq!(shown.sha256.unwrap().to_string(), digest(FIXTURE));
        assert_eq!((shown.deleted, shown.interpreter, shown.problem), (false, false, None));
        assert_eq!(shown.command_line, [FIXTURE, dir.text(), "Test/Do"]);
        if !registry.is_loaded("Test/Do") {
            registry.load("Test/Do").await.unwrap();
        }
    }
    drop(plugin);
    wait_for("nobody listens", LONG, || async { (!registry.is_loaded("Test/Do")).then_some(()) }).await;
    assert_eq!(registry.inspect("Test/Do").await.unwrap().executable, None);
    registry.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_replaced_is_told_as_it_runs() {
    let dir = PluginDir::new();
    let program = copy(FIXTURE, &dir.join("program"), "one");
    let before = digest(&program);
    let _plugin = start(&program, &dir, "Test/Do");
    let other = copy(FIXTURE, &dir.join("other"), "two");
    std::fs::rename(&other, &program).unwrap();
    let registry = builder(dir.path()).open().await.unwrap();
    registry.load("Test/Do").await.unwrap();
    let shown = registry.inspect("Test/Do").await.unwrap().executable.unwrap();
    assert_eq!((shown.path.as_deref(), shown.deleted), (program.to_str(), true));
    assert_eq!(shown.sha256.unwrap().to_string(), before, "what runs, not what lies there now");
    registry.close().await;
}

/// The whole life of a pin: first use, the same again, another one, approved, back again, revoked.
#[tokio::test(flavor = "multi_thread")]
async fn a_pinned_plugin_runs_another_program_only_when_that_is_approved() {
    let (dir, trust) = (PluginDir::new(), PluginDir::new());
    let (one, two) = (copy(FIXTURE, &dir.join("one"), "one"), copy(FIXTURE, &dir.join("two"), "two"));
    let registry = pinning(&dir, &trust).auto_discover(true).open().await.unwrap();
    let mut events = registry.events();
    let plugin = start(&one, &dir, "Test/Do");
    loaded(&registry, "Test/Do").await;
    let pinned = event_of(&mut events, EventKind::Pinned).await;
    assert!(pinned.detail.unwrap().contains(one.to_str().unwrap()));
    let pins = registry.trusted().await.unwrap();
    assert_eq!((pins.len(), pins[0].pin.sha256.to_string()), (1, digest(&one)));
    assert!(!pins[0].pin.approved);
    let mode = std::fs::metadata(trust.join("trust.json")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    // The same again.
    drop(plugin);
    let plugin = start(&one, &dir, "Test/Do");
    loaded(&registry, "Test/Do").await;
    drop(plugin);

    // Another one, under the very same name and file.
    let mut events = registry.events();
    let plugin = start(&two, &dir, "Test/Do");
    let denied = |registry: &Registry| row(registry, "Test/Do").filter(|row| row.state == State::Denied);
    let shown = wait_for("it is refused", LONG, || async { denied(&registry) }).await;
    let why = shown.last_error.unwrap();
    for part in [one.to_str().unwrap(), two.to_str().unwrap(), &digest(&two)[..16], "goplugctl trust approve Test/Do"] {
        assert!(why.contains(part), "{why}");
    }
    let refused = event_of(&mut events, EventKind::Untrusted).await;
    assert_eq!(refused.plugin.unwrap().as_str(), "Test/Do");
    let error = fault(registry.execute("Test/Do", "echo", "x").await);
    assert_eq!((error.code, error.reason), (Code::Denied, Some(Reason::Untrusted)), "{error:?}");
    let error = fault(registry.load("Test/Do").await);
    assert_eq!((error.code, error.reason), (Code::Denied, Some(Reason::Untrusted)), "{error:?}");
    let why = registry.why("Test/Do").await;
    assert_eq!(why.broken().map(|link| link.name.as_str()), Some("peer"), "{why:#?}");
    assert_eq!(why.fix.as_deref(), Some("goplugctl trust approve Test/Do"));
    assert_eq!(registry.inspect("Test/Do").await.unwrap().active, None, "it was never activated");
    let found = registry.trust_of("Test/Do").await.unwrap();
    assert_eq!((found.verdict, found.enforced), (TrustVerdict::Changed, true));

    // Only what was looked at is approved.
    let wrong = digest(&one).parse().unwrap();
    assert_eq!(fault(registry.approve("Test/Do", Some(wrong)).await).code, Code::Conflict);
    let right = digest(&two).parse().unwrap();
    let approved = registry.approve("Test/Do", Some(right)).await.unwrap();
    assert_eq!((approved.verdict, approved.pin.unwrap().approved), (TrustVerdict::Trusted, true));
    loaded(&registry, "Test/Do").await;
    assert_eq!(text(registry.execute("Test/Do", "echo", "x").await.unwrap()), "x");

    // What was trusted once is not any more.
    drop(plugin);
    let plugin = start(&one, &dir, "Test/Do");
    wait_for("it is refused", LONG, || async { denied(&registry) }).await;
    registry.revoke("Test/Do").await.unwrap();
    assert_eq!(fault(registry.revoke("Test/Do").await).code, Code::NotFound);
    registry.load("Test/Do").await.unwrap();
    assert_eq!(registry.trusted().await.unwrap()[0].pin.sha256.to_string(), digest(&one));
    drop(plugin);
    registry.close().await;
}

/// Another registry on the same directory obeys the pins of the first, one of another directory has its own, and one that
/// does not pin obeys none.
#[tokio::test(flavor = "multi_thread")]
async fn pins_belong_to_a_directory_and_outlive_the_registry() {
    let (dir, elsewhere, trust) = (PluginDir::new(), PluginDir::new(), PluginDir::new());
    let (one, two) = (copy(FIXTURE, &dir.join("one"), "one"), copy(FIXTURE, &dir.join("two"), "two"));
    let plugin = start(&one, &dir, "Test/Do");
    let registry = pinning(&dir, &trust).open().await.unwrap();
    registry.load("Test/Do").await.unwrap();
    registry.close().await;
    drop(plugin);

    let _plugin = start(&two, &dir, "Test/Do");
    let registry = pinning(&dir, &trust).open().await.unwrap();
    assert_eq!(fault(registry.load("Test/Do").await).reason, Some(Reason::Untrusted));
    registry.close().await;
    let _other = start(&two, &elsewhere, "Test/Do");
    let registry = pinning(&elsewhere, &trust).open().await.unwrap();
    registry.load("Test/Do").await.unwrap();
    registry.close().await;
    let registry = builder(dir.path()).trust_dir(trust.path()).open().await.unwrap();
    registry.load("Test/Do").await.unwrap();
    assert_eq!(registry.trust_of("Test/Do").await.unwrap().verdict, TrustVerdict::NotAsked);
    registry.close().await;
}

/// A process that is active already is adopted only if it is the right one.
#[tokio::test(flavor = "multi_thread")]
async fn an_activation_of_another_program_is_not_adopted() {
    let (dir, trust) = (PluginDir::new(), PluginDir::new());
    let one = copy(FIXTURE, &dir.join("one"), "one");
    let registry = pinning(&dir, &trust).open().await.unwrap();
    let plugin = start(&one, &dir, "Test/Do");
    registry.load("Test/Do").await.unwrap();
    registry.close().await;
    drop(plugin);
    let _plugin = fixture(&dir, &["Test/Do"]);
    let careless = builder(dir.path()).open().await.unwrap();
    careless.load("Test/Do").await.unwrap();
    let registry = pinning(&dir, &trust).open().await.unwrap();
    registry.rescan().await.unwrap();
    registry.look().await;
    assert!(!registry.is_loaded("Test/Do"), "{:?}", row(&registry, "Test/Do"));
    careless.close().await;
    registry.close().await;
}

/// A hot replacement by another program: the old process goes on serving.
#[tokio::test(flavor = "multi_thread")]
async fn an_untrusted_successor_does_not_take_the_place() {
    let (dir, trust) = (PluginDir::new(), PluginDir::new());
    let (one, two) = (copy(FIXTURE, &dir.join("one"), "one"), copy(FIXTURE, &dir.join("two"), "two"));
    let registry = pinning(&dir, &trust).auto_discover(true).open().await.unwrap();
    let plugin = start(&one, &dir, "Test/Do");
    loaded(&registry, "Test/Do").await;
    let mut events = registry.events();
    let successor = start(&two, &dir, "Test/Do");
    event_of(&mut events, EventKind::Untrusted).await;
    let served = text(registry.execute("Test/Do", "pid", "").await.unwrap());
    assert_eq!(served, plugin.pid().to_string());
    registry.approve("Test/Do", None).await.unwrap();
    wait_for("the successor serves", LONG, || async {
        let served = registry.execute("Test/Do", "pid", "").await.ok()?;
        (text(served) == successor.pid().to_string()).then_some(())
    })
    .await;
    registry.close().await;
}

/// The connection stays, the process stays, and it runs something else by the time that it says that it is active.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_turns_into_another_program_is_not_used() {
    let (dir, trust) = (PluginDir::new(), PluginDir::new());
    let other = copy(TURNCOAT, &dir.join("other"), "x");
    let turncoat = || Process::start(command(TURNCOAT).arg(dir.path()).arg(&other), Ready::Line("ready"));
    // Nobody listens on its socket any more, and the registry may have noticed that before it is asked.
    let shown = wait_for("a look at what runs now", LONG, || async {
        let careless = builder(dir.path()).open().await.unwrap();
        let plugin = turncoat();
        careless.load("Evil/Turncoat").await.expect("whoever does not ask does not notice");
        let shown = careless.inspect("Evil/Turncoat").await.unwrap().executable.and_then(|shown| shown.path);
        careless.close().await;
        drop(plugin);
        shown
    });
    assert_eq!(shown.await.as_str(), other.to_str().unwrap());

    let _plugin = turncoat();
    let registry = pinning(&dir, &trust).open().await.unwrap();
    let error = fault(registry.load("Evil/Turncoat").await);
    assert_eq!((error.code, error.reason), (Code::Denied, Some(Reason::Untrusted)), "{error:?}");
    assert!(error.message.contains("turned into another program"), "{error:?}");
    registry.close().await;
}

/// What cannot be looked at is shown as such, and where programs are pinned, it is not used.
#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_cannot_be_told_is_not_trusted() {
    let (dir, trust) = (PluginDir::new(), PluginDir::new());
    let huge = copy(FIXTURE, &dir.join("huge"), "");
    std::fs::File::options().write(true).open(&huge).unwrap().set_len((1 << 30) + 1).unwrap();
    let _plugin = start(&huge, &dir, "Test/Do");
    let registry = pinning(&dir, &trust).open().await.unwrap();
    let error = fault(registry.load("Test/Do").await);
    assert_eq!((error.code, error.reason), (Code::Denied, Some(Reason::Untrusted)), "{error:?}");
    assert!(error.message.contains("the limit is 1073741824"), "{error:?}");
    let shown = registry.inspect("Test/Do").await.unwrap().executable.unwrap();
    assert_eq!((shown.path.as_deref(), shown.sha256), (huge.to_str(), None));
    assert!(shown.problem.unwrap().contains("the limit"));
    assert_eq!(fault(registry.approve("Test/Do", None).await).code, Code::Denied);
    assert_eq!(registry.trusted().await.unwrap(), []);
    registry.close().await;
}

/// A file of pins that cannot be believed lets nobody in, and stays as it is.
#[tokio::test(flavor = "multi_thread")]
async fn without_pins_that_can_be_believed_nobody_is_let_in() {
    let (dir, trust) = (PluginDir::new(), PluginDir::new());
    trust.write("trust.json", "{\"format\": 1, \"checksum\": \"0\", \"directories\": {}}");
    let _plugin = fixture(&dir, &["Test/Do"]);
    let registry = pinning(&dir, &trust).open().await.unwrap();
    let error = fault(registry.load("Test/Do").await);
    assert_eq!(error.reason, Some(Reason::Untrusted), "{error:?}");
    assert!(error.message.contains("its checksum is"), "{error:?}");
    assert_eq!(fault(registry.trusted().await).code, Code::Internal);
    assert_eq!(fault(registry.approve("Test/Do", None).await).code, Code::Internal);
    std::fs::remove_file(trust.join("trust.json")).unwrap();
    registry.load("Test/Do").await.unwrap();
    registry.close().await;
}

/// An interpreter's digest says nothing about its script, and that is said.
#[tokio::test(flavor = "multi_thread")]
async fn of_a_script_the_interpreter_is_told() {
    let dir = PluginDir::new();
    let Some(_plugin) = crate::support::python_plugin(&dir) else { return };
    let registry = builder(dir.path()).open().await.unwrap();
    registry.load("Example/notifier").await.unwrap();
    let shown = registry.inspect("Example/notifier").await.unwrap().executable.unwrap();
    assert!(shown.interpreter && shown.path.unwrap().contains("python"));
    assert!(shown.command_line.iter().any(|word| word.ends_with("notifier.py")), "{:?}", shown.command_line);
    registry.close().await;
}

/// A registry of another user may not look at a process of root: it says so instead of a digest.
#[test]
fn a_program_of_another_user_is_not_told() {
    if !rustix::process::geteuid().is_root() {
        return skip("the program of another user", "needs root to become another");
    }
    let dir = PluginDir::new();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let ctl = copy(crate::support::GOPLUGCTL, &dir.join("goplugctl"), "");
    std::fs::set_permissions(&ctl, std::fs::Permissions::from_mode(0o755)).unwrap();
    let _plugin = fixture(&dir, &["Test/Do"]);
    for name in dir.names().into_iter().filter(|name| name.ends_with(".sock")) {
        std::fs::set_permissions(dir.join(&name), std::fs::Permissions::from_mode(0o666)).unwrap();
    }
    let nobody = 65_534;
    let run = |words: &[&str]| {
        let mut run = command(ctl.to_str().unwrap());
        run.env("GOPLUG_PIN_EXECUTABLES", "1").env("GOPLUG_TRUST_DIR", dir.join("trust"));
        let output = run.arg("--dir").arg(dir.path()).args(words).uid(nobody).gid(nobody).output();
        output.map(|output| (output.status.code(), text(&output.stdout) + &text(&output.stderr)))
    };
    let Ok((_, shown)) = run(&["inspect", "Test/Do"]) else {
        return skip("programs as uid 65534", "a folder above the temporary folder is closed to others");
    };
    assert!(shown.contains("it is another user's"), "{shown}");
    let (code, shown) = run(&["load", "Test/Do"]).unwrap();
    assert_eq!(code, Some(8), "{shown}");
    assert!(shown.contains("cannot be told"), "{shown}");
}

/// Looking at programs takes nothing from calls, and a second look reads no file again.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_look_reads_nothing_again() {
    let dir = PluginDir::new();
    let large = copy(FIXTURE, &dir.join("large"), "");
    std::fs::File::options().write(true).open(&large).unwrap().set_len(512 << 20).unwrap();
    // A fresh file may be written again within the same tick of the kernel's clock, so it is not remembered.
    let old = std::time::SystemTime::now();
    let _plugin = start(&large, &dir, "Test/Do");
    let registry = builder(dir.path()).open().await.unwrap();
    registry.load("Test/Do").await.unwrap();
    wait_for("the file has settled", LONG, || async { (old.elapsed().unwrap().as_secs() > 2).then_some(()) }).await;
    let first = registry.inspect("Test/Do").await.unwrap().executable.unwrap();
    assert!(first.sha256.is_some(), "{first:?}");
    let begin = std::time::Instant::now();
    assert_eq!(registry.inspect("Test/Do").await.unwrap().executable.unwrap(), first);
    goplug_tests::bound("second_look_at_a_program", begin.elapsed(), Duration::from_millis(50));
    let links = registry.why("Test/Do").await.links;
    assert!(links.iter().all(|link| link.state != LinkState::Broken), "{links:#?}");
    registry.close().await;
}
