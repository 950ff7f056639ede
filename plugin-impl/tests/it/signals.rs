//! Signals need a process of their own: this test binary, told to be a plugin.

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use goplug_plugin_impl::Plugin;

use crate::raw::{PATIENCE, Wire};

const FOLDER: &str = "GOPLUG_TEST_PLUGIN_DIR";

/// Not a test: what the child runs. Without the variable it returns at once.
#[test]
fn child() {
    let Some(dir) = std::env::var_os(FOLDER).map(PathBuf::from) else { return };
    let note = dir.join("stopped");
    Plugin::builder(&dir)
        .name("p")
        .stopper(move || {
            std::fs::write(&note, "yes").unwrap();
            "bye"
        })
        .method("hang", |_, _| {
            std::thread::sleep(Duration::from_secs(3600));
            Ok("")
        })
        .build()
        .unwrap()
        .run_blocking()
        .unwrap();
}

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It has ended already unless the test failed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn spawn(dir: &Path) -> Process {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "signals::child", "--nocapture"]).env(FOLDER, dir);
    Process(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
}

impl Process {
    fn signal(&self, name: &str) {
        let line = format!("kill -{name} {}", self.0.id());
        assert!(Command::new("sh").args(["-c", &line]).status().unwrap().success());
    }

    fn wait(&mut self) -> ExitStatus {
        until("the child does not end", || self.0.try_wait().unwrap())
    }
}

/// Looks until there is something to see.
fn until<T>(failure: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < deadline, "{failure}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn socket(dir: &Path) -> PathBuf {
    let pconf = dir.join("p.pconf");
    until("the child does not publish itself", || pconf.exists().then_some(()));
    let pconf = goplug_pconf_schema::Pconf::parse(&std::fs::read(pconf).unwrap()).unwrap();
    pconf.socket_path(dir).unwrap()
}

fn files(dir: &Path) -> usize {
    std::fs::read_dir(dir).unwrap().count()
}

#[tokio::test]
async fn a_signal_drains_stops_and_removes_the_files() {
    for name in ["TERM", "INT"] {
        let dir = tempfile::tempdir().unwrap();
        let mut child = spawn(dir.path());
        let mut wire = Wire::connect(&socket(dir.path())).await;
        assert_eq!(wire.ask("POST /_goplug/activate", "", "").await.status(), 200);
        child.signal(name);
        assert_eq!(child.wait().code(), Some(0), "{name}");
        assert_eq!(std::fs::read_to_string(dir.path().join("stopped")).unwrap(), "yes");
        assert_eq!(files(dir.path()), 1, "only the stopper's note is left");
    }
}

#[tokio::test]
async fn a_second_signal_ends_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = spawn(dir.path());
    let path = socket(dir.path());
    let mut wire = Wire::connect(&path).await;
    assert_eq!(wire.ask("POST /_goplug/activate", "", "").await.status(), 200);
    wire.request("POST /hang", "", "").await;
    let mut probe = Wire::connect(&path).await;
    let code = async |probe: &mut Wire| {
        let reply = probe.ask("POST /hang", "Goplug-Deadline-Ms: 20\r\n", "").await;
        reply.json()["code"].as_str().unwrap().to_owned()
    };
    assert_eq!(code(&mut probe).await, "deadline_exceeded");
    child.signal("TERM");
    while code(&mut probe).await != "unavailable" {}
    let start = Instant::now();
    child.signal("TERM");
    let status = child.wait();
    assert_eq!((status.code(), status.signal()), (Some(128 + 15), None));
    assert!(start.elapsed() < Duration::from_secs(5), "it waited for the drain");
    assert_eq!(files(dir.path()), 0);
}

#[tokio::test]
async fn a_stop_ends_the_process_although_a_method_hangs() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = spawn(dir.path());
    let path = socket(dir.path());
    let mut wire = Wire::connect(&path).await;
    assert_eq!(wire.ask("POST /_goplug/activate", "", "").await.status(), 200);
    let hung = wire.ask("POST /hang", "Goplug-Deadline-Ms: 20\r\n", "").await;
    assert_eq!(hung.problem().1, "deadline_exceeded");
    let stopped = wire.ask("POST /_goplug/stop", "", r#"{"drainMs":50}"#).await;
    assert_eq!(stopped.json()["cancelled"], 1);
    assert_eq!(child.wait().code(), Some(0));
}
