//! What runs of a package is what was installed: whatever lies at its place by now, nothing else runs.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use goplug_registry::admin::State;
use goplug_registry::{Code, Install, Reason, Registry};
use goplug_tests::{PluginDir, scaled};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde_json::{Value, json};

use crate::supervision::{Home, runs};
use crate::support::{FIXTURE, fault, goplugctl, loaded, row, text};

pub(super) const PLUGIN: &str = "Test/Do";
const TILOTECH: &str = env!("CARGO_BIN_EXE_tilotech");

/// A package, installed; what it runs must not leave a mark.
struct Installed {
    home: Home,
    registry: Registry,
    mark: PathBuf,
}

impl Installed {
    /// Of a package with `program`, some words, and what else its manifest says.
    async fn new(program: &[u8], more: &Value) -> Self {
        let home = Home::new();
        let package = pack(&home.dir, "1.0.0", program, more);
        let builder = home.builder().auto_discover(true).trust_dir(home.dir.join(".trust"));
        let registry = builder.open().await.unwrap();
        registry.install(&package, unsigned()).await.unwrap();
        let mark = home.dir.join(".sources/mark");
        Self { home, registry, mark }
    }

    fn folder(&self) -> PathBuf {
        self.home.dir.join(".goplug/versions/Test/Do/1.0.0")
    }

    /// A program that leaves a mark when it runs.
    fn evil(&self) -> String {
        format!("#!/bin/sh\necho ran >> {}\nexit 0\n", self.mark.display())
    }
}

pub(super) fn unsigned() -> Install {
    Install { allow_unsigned: true, ..Install::default() }
}

fn executable(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
}

/// Packs a plugin that is not started by itself, and never again when it has ended.
pub(super) fn pack(dir: &PluginDir, version: &str, program: &[u8], more: &Value) -> PathBuf {
    let folder = dir.join(&format!(".sources/{version}"));
    fs::create_dir_all(folder.join("data")).unwrap();
    let mut manifest = json!({
        "name": "Do", "namespace": "Test", "version": version, "lazy_load": true,
        "exec": {"command": "./do"}, "restart": {"policy": "never"},
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        manifest[key] = value.clone();
    }
    fs::write(folder.join("plugin.json"), manifest.to_string()).unwrap();
    fs::write(folder.join("data/words"), "one two").unwrap();
    executable(&folder.join("do"), program);
    let out = dir.join(&format!(".sources/{version}.plg"));
    let packed = goplugctl(&["pack", folder.to_str().unwrap(), "--out", out.to_str().unwrap()]);
    assert_eq!(packed.code, 0, "{packed:?}");
    out
}

/// Starts it again and again, while `meanwhile` does its work; how often it ran, and how often it was refused.
async fn started(installed: &Installed, starts: u64, meanwhile: impl FnMut() + Send + 'static) -> (u64, u64) {
    static DONE: AtomicBool = AtomicBool::new(false);
    DONE.store(false, Ordering::Relaxed);
    let mut meanwhile = meanwhile;
    let other = std::thread::spawn(move || {
        while !DONE.load(Ordering::Relaxed) {
            meanwhile();
        }
    });
    let (mut ran, mut refused) = (0, 0);
    for _ in 0..starts {
        let fault = fault(installed.registry.start_plugin(PLUGIN).await);
        match (fault.code, fault.reason) {
            (Code::Denied, Some(Reason::Altered)) => refused += 1,
            (Code::Unavailable, _) if fault.message.contains("is writing") => refused += 1,
            // It is no plugin, and has ended.
            _ if fault.message.contains("ended before") => ran += 1,
            _ => panic!("{fault:?}"),
        }
    }
    DONE.store(true, Ordering::Relaxed);
    other.join().unwrap();
    (ran, refused)
}

/// Somebody swaps the program with another one, or writes it in place, again and again: of all starts none runs another program
/// than the one that was installed.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_but_what_was_installed_runs() {
    let good = fs::read("/bin/true").unwrap();
    let installed = Installed::new(&good, &json!({})).await;
    let (program, other) = (installed.folder().join("do"), installed.home.dir.join(".sources/evil"));
    executable(&other, installed.evil().as_bytes());
    let (at, mut pause) = (program.clone(), 0);
    let (ran, refused) = started(&installed, scaled(100, 2_000), move || {
        renameat_with(CWD, &at, CWD, &other, RenameFlags::EXCHANGE).unwrap();
        // Between whichever two steps of a start; without a pause hardly any look would see the right one to its end.
        pause = (pause + 1_237) % 6_000;
        std::thread::sleep(Duration::from_micros(pause));
    })
    .await;
    println!("swapped: {ran} ran what was installed, {refused} were refused");
    assert!(!installed.mark.exists(), "an unverified program ran");
    assert!(ran > 0 && refused > 0);

    fs::remove_file(&program).unwrap();
    executable(&program, &good);
    let evil = installed.evil().into_bytes();
    let (ran, refused) = started(&installed, scaled(40, 500), move || {
        for (bytes, pause) in [(&evil, 5), (&good, 15)] {
            // While it runs nobody can.
            let Ok(mut file) = OpenOptions::new().write(true).open(&program) else { continue };
            file.write_all(bytes).unwrap();
            file.set_len(bytes.len() as u64).unwrap();
            drop(file);
            std::thread::sleep(Duration::from_millis(pause));
        }
    })
    .await;
    println!("written: {ran} ran what was installed, {refused} were refused");
    assert!(!installed.mark.exists(), "an unverified program ran");
    assert!(ran > 0 && refused > 0);
    installed.registry.close().await;
}

type Tamper = fn(&Installed);

/// Whatever of a package is another one, or missing, or put there: it is not started, and everybody is told why.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_altered_is_denied() {
    let cases: [(&str, Tamper); 9] = [
        ("`do` has sha256", |it| fs::write(it.folder().join("do"), it.evil()).unwrap()),
        ("`data/words` has sha256", |it| fs::write(it.folder().join("data/words"), "one tw0").unwrap()),
        ("`data/words` cannot be opened", |it| fs::remove_file(it.folder().join("data/words")).unwrap()),
        ("`do` cannot be opened", |it| {
            let evil = it.home.dir.join(".sources/evil");
            executable(&evil, it.evil().as_bytes());
            fs::remove_file(it.folder().join("do")).unwrap();
            symlink(evil, it.folder().join("do")).unwrap();
        }),
        ("`plugin.json` has sha256", |it| {
            let file = it.folder().join("plugin.json");
            let mut manifest: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
            manifest["exec"] = json!({"command": "/bin/sh", "args": ["-c", it.evil()]});
            fs::write(file, manifest.to_string()).unwrap();
        }),
        // A package of the same version that is in order, with its MANIFEST.
        ("its MANIFEST has sha256", |it| {
            let elsewhere = unpacked(it, "1.0.0");
            fs::remove_dir_all(it.folder()).unwrap();
            fs::rename(elsewhere, it.folder()).unwrap();
        }),
        ("its MANIFEST has sha256", |it| {
            fs::remove_file(it.home.dir.join(PLUGIN)).unwrap();
            fs::rename(unpacked(it, "1.0.0"), it.home.dir.join(PLUGIN)).unwrap();
        }),
        ("version 1.5.0 was put there", |it| {
            fs::rename(unpacked(it, "1.5.0"), it.folder().with_file_name("1.5.0")).unwrap();
            fs::remove_file(it.home.dir.join(PLUGIN)).unwrap();
            symlink("../.goplug/versions/Test/Do/1.5.0", it.home.dir.join(PLUGIN)).unwrap();
        }),
        ("version 7.0.0 was put there", |it| {
            let folder = it.home.dir.join(PLUGIN);
            fs::remove_file(&folder).unwrap();
            fs::create_dir(&folder).unwrap();
            let manifest = json!({"name": "Do", "namespace": "Test", "version": "7.0.0", "lazy_load": true,
                "exec": {"command": "./do"}});
            fs::write(folder.join("plugin.json"), manifest.to_string()).unwrap();
            executable(&folder.join("do"), it.evil().as_bytes());
        }),
    ];
    for (expected, tamper) in cases {
        let installed = Installed::new(&fs::read(TILOTECH).unwrap(), &json!({"wire": "tilotech"})).await;
        let registry = &installed.registry;
        registry.start_plugin(PLUGIN).await.unwrap();
        registry.stop_plugin(PLUGIN).await.unwrap();
        tamper(&installed);
        registry.rescan().await.unwrap();
        let refused = fault(registry.start_plugin(PLUGIN).await);
        assert_eq!((refused.code, refused.reason), (Code::Denied, Some(Reason::Altered)), "{expected}: {refused:?}");
        assert!(refused.message.contains(expected), "{expected}: {refused}");
        assert_eq!(row(registry, PLUGIN).unwrap().state, State::Denied, "{expected}");
        assert_eq!(fault(registry.execute(PLUGIN, "hello", "").await).code, Code::Denied, "{expected}");
        let why = registry.why(PLUGIN).await;
        // A link is told of before anything is started.
        let link = why.links.iter().find(|link| link.detail.contains(expected) || link.detail.contains("leads out"));
        let link = link.unwrap_or_else(|| panic!("{expected}: {why:?}"));
        assert!(!why.callable, "{expected}: {why:?}");
        if link.name == "process" {
            assert_eq!(why.fix.as_deref(), Some("goplugctl trust show Test/Do"), "{expected}");
        }
        assert!(!installed.mark.exists(), "{expected}: it ran");

        // What is installed anew is what counts.
        registry.remove(PLUGIN, false).await.unwrap();
        registry.install(installed.home.dir.join(".sources/1.0.0.plg"), unsigned()).await.unwrap();
        registry.start_plugin(PLUGIN).await.unwrap();
        registry.stop_plugin(PLUGIN).await.unwrap();
        registry.close().await;
    }
}

/// A package in order that leaves a mark, unpacked as an installation elsewhere does it.
fn unpacked(it: &Installed, version: &str) -> PathBuf {
    let elsewhere = PluginDir::new();
    let package = pack(&elsewhere, version, it.evil().as_bytes(), &json!({}));
    let trust = elsewhere.join(".trust");
    let ran = crate::support::command(crate::support::GOPLUGCTL)
        .args(["-d", elsewhere.text(), "install", "--allow-unsigned", package.to_str().unwrap()])
        .env("GOPLUG_TRUST_DIR", trust)
        .status();
    assert!(ran.unwrap().success());
    let to = it.home.dir.join(&format!(".sources/unpacked-{version}"));
    fs::rename(elsewhere.join(&format!(".goplug/versions/Test/Do/{version}")), &to).unwrap();
    to
}

/// What is executed by its descriptor is shown, called and run as any other program is.
#[tokio::test(flavor = "multi_thread")]
async fn programs_and_scripts_run_as_they_are() {
    let installed = Installed::new(&fs::read(TILOTECH).unwrap(), &json!({"wire": "tilotech"})).await;
    let registry = &installed.registry;
    registry.start_plugin(PLUGIN).await.unwrap();
    registry.load(PLUGIN).await.unwrap();
    assert_eq!(text(registry.execute(PLUGIN, "hello", r#""you""#).await.unwrap()), r#""hello you""#);
    let program = fs::canonicalize(installed.folder().join("do")).unwrap();
    let shown = registry.inspect(PLUGIN).await.unwrap().executable.unwrap();
    assert_eq!(shown.path.as_deref(), program.to_str());
    assert!(!shown.deleted && shown.sha256.is_some(), "{shown:?}");
    assert!(shown.command_line[0].ends_with("/Test/Do/1.0.0/do"), "{shown:?}");
    let pid = row(registry, PLUGIN).unwrap().pid.unwrap();
    let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let open: Vec<_> = open.filter_map(|fd| fs::read_link(fd.path()).ok()).collect();
    assert!(!open.contains(&program), "{open:?}");
    // While it runs it cannot be written, and when it has ended nobody holds it.
    assert!(OpenOptions::new().write(true).open(&program).is_err());
    registry.stop_plugin(PLUGIN).await.unwrap();
    assert!(!runs(pid));
    OpenOptions::new().write(true).open(&program).unwrap();
    registry.close().await;

    let script = format!("#!/bin/sh\n. data/words.sh\necho \"$words $0\" >&2\nexec {FIXTURE} \"$@\"\n");
    let home = Home::new();
    let args = [home.dir.text(), PLUGIN];
    let more = json!({"exec": {"command": "./do", "args": args}});
    let package = pack(&home.dir, "1.0.0", script.as_bytes(), &more);
    fs::write(home.dir.join(".sources/1.0.0/data/words.sh"), "words=hello").unwrap();
    let folder = home.dir.join(".sources/1.0.0");
    let packed = goplugctl(&["pack", folder.to_str().unwrap(), "--out", package.to_str().unwrap()]);
    assert_eq!(packed.code, 0, "{packed:?}");
    let registry = home.builder().auto_discover(true).trust_dir(home.dir.join(".trust")).open().await.unwrap();
    registry.install(&package, unsigned()).await.unwrap();
    registry.start_plugin(PLUGIN).await.unwrap();
    registry.load(PLUGIN).await.unwrap();
    loaded(&registry, PLUGIN).await;
    assert_eq!(text(registry.execute(PLUGIN, "echo", "a script").await.unwrap()), "a script");
    let pid = row(&registry, PLUGIN).unwrap().pid.unwrap();
    registry.stop_plugin(PLUGIN).await.unwrap();
    assert!(!runs(pid));
    File::options().write(true).open(home.dir.join(".goplug/versions/Test/Do/1.0.0/do")).unwrap();
    registry.close().await;
}
