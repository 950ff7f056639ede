//! What a registry that comes later finds: all that lives, by proof, and nothing else.

use std::io::{ErrorKind, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use goplug_registry::Code;
use goplug_registry::host::{Adopted, Record, adopt};
use goplug_tests::{LONG, PluginDir, Process, Ready, Samples, bound, scaled};

use super::{end_host, folder, is_alive, run, shell};
use crate::support::{APP, FIXTURE, GOPLUG_HOST, command, fault};

/// An application that starts plugins, with nothing of its own environment but where the host is.
fn starter(dir: &PluginDir) -> Process {
    let mut app = command(APP);
    app.arg(dir.path()).args(["--no-auto", "--hosts"]).arg(folder(dir)).env("GOPLUG_HOST", GOPLUG_HOST);
    Process::start(&mut app, Ready::Line("ready"))
}

#[tokio::test]
async fn a_killed_registry_leaves_plugins_that_are_adopted() {
    let dir = PluginDir::new();
    let count = scaled(6, 20);
    let sockets: Vec<_> = (0..count).map(|n| dir.join(&format!("{n}.sock"))).collect();
    let start = |app: &mut Process, n: usize| {
        // Every other one writes all the time, and would die of a closed pipe.
        let chatter = if n.is_multiple_of(2) { " --chatter" } else { "" };
        let name = format!("Host/p{n}");
        app.ask(&format!("start {} {FIXTURE} {}{chatter} {name}", sockets[n].display(), dir.text()))
    };
    let mut app = starter(&dir);
    let pids: Vec<_> = (0..sockets.len())
        .map(|n| {
            let answer = start(&mut app, n);
            answer.strip_prefix("started ").unwrap_or_else(|| panic!("{answer}")).to_owned()
        })
        .collect();
    let mut samples = Samples::default();
    for _ in 0..scaled(5, 100) {
        app.kill();
        let begin = Instant::now();
        let adopted = adopt(&folder(&dir)).await.unwrap();
        samples.push(begin.elapsed());
        let mut found: Vec<_> = adopted
            .iter()
            .map(|adopted| match adopted {
                Adopted::Lives(hosted) => hosted.record().plugin.pid.to_string(),
                other => panic!("{other:?}"),
            })
            .collect();
        let mut expected = pids.clone();
        found.sort();
        expected.sort();
        assert_eq!(found, expected, "all, and none started twice");
        app = starter(&dir);
        for (n, pid) in pids.iter().enumerate() {
            assert_eq!(start(&mut app, n), format!("adopted {pid}"));
            let call = app.ask(&format!("call {} pid x", sockets[n].display()));
            assert_eq!(&call, pid, "the very process is called");
        }
    }
    bound("adoption of all plugins, p99", samples.percentile(99), Duration::from_millis(500));
    for socket in &sockets {
        let answer = app.ask(&format!("terminate {}", socket.display()));
        assert!(answer.starts_with("it returned 0"), "{answer}");
    }
    assert_eq!(adopt(&folder(&dir)).await.unwrap().len(), 0, "and no record is left");
}

#[tokio::test]
async fn a_decoy_is_told_nothing_and_left_alone() {
    let dir = PluginDir::new();
    let hosted = run(&shell(&dir, "victim", "exec sleep 1000")).await;
    let record = hosted.record().clone();
    // The host dies, and its number and its path pass to somebody else: here to this very process.
    end_host(&hosted);
    hosted.exited().await;
    let (json, sock) = (folder(&dir).join("victim.json"), folder(&dir).join("victim.sock"));
    std::fs::remove_file(&sock).unwrap();
    let listener = UnixListener::bind(&sock).unwrap();
    let mut forged = record.clone();
    forged.host.pid = std::process::id();
    forged.plugin.pid = std::process::id();
    std::fs::write(&json, serde_json::to_vec(&forged).unwrap()).unwrap();

    let adopted = adopt(&folder(&dir)).await.unwrap();
    let [Adopted::Doubtful(doubtful)] = &adopted[..] else { panic!("{adopted:?}") };
    assert_eq!(doubtful.fault.code, Code::Denied);
    let inode = record.host.inode.unwrap();
    assert!(doubtful.fault.message.contains(&format!("inode {inode}")), "{}", doubtful.fault);
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    assert_eq!(stream.read(&mut [0; 16]).unwrap(), 0, "not a byte");
    // Whoever still holds the handle is not led astray either.
    assert_eq!(fault(hosted.stop(Duration::ZERO, Duration::ZERO).await).code, Code::PluginGone);
    let (mut stream, _) = listener.accept().unwrap();
    assert_eq!(stream.read(&mut [0; 16]).unwrap(), 0, "not a byte");

    // Of another boot: nobody is even looked at.
    forged.boot_id = "00000000-0000-0000-0000-000000000000".to_owned();
    std::fs::write(&json, serde_json::to_vec(&forged).unwrap()).unwrap();
    assert!(matches!(&adopt(&folder(&dir)).await.unwrap()[..], [Adopted::Lost(_)]));
    // No inode, as before Linux 6.9: no proof.
    forged.boot_id = record.boot_id.clone();
    forged.host.inode = None;
    std::fs::write(&json, serde_json::to_vec(&forged).unwrap()).unwrap();
    let adopted = adopt(&folder(&dir)).await.unwrap();
    let [Adopted::Doubtful(doubtful)] = &adopted[..] else { panic!("{adopted:?}") };
    assert_eq!(doubtful.fault.code, Code::Unavailable, "{}", doubtful.fault);
    listener.set_nonblocking(true).unwrap();
    drop(listener.accept().unwrap());
    assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock, "nor did the other boot's record");
}

#[tokio::test]
async fn a_host_that_names_another_instance_is_refused() {
    let dir = PluginDir::new();
    let hosted = run(&shell(&dir, "one", "exec sleep 1000")).await;
    let mut record = hosted.record().clone();
    record.instance = "two".to_owned();
    std::fs::write(folder(&dir).join("two.json"), serde_json::to_vec(&record).unwrap()).unwrap();
    std::fs::hard_link(folder(&dir).join("one.sock"), folder(&dir).join("two.sock")).unwrap();
    let adopted = adopt(&folder(&dir)).await.unwrap();
    let [Adopted::Lives(one), Adopted::Doubtful(two)] = &adopted[..] else { panic!("{adopted:?}") };
    assert_eq!((one.record().instance.as_str(), two.fault.code), ("one", Code::Denied));
    assert!(is_alive(hosted.record().plugin.pid));
}

#[tokio::test]
async fn files_that_are_no_records_of_ours_are_told_with_their_reason() {
    let dir = PluginDir::new();
    assert_eq!(adopt(&folder(&dir)).await.unwrap().len(), 0, "no folder, no plugins");
    std::fs::create_dir(folder(&dir)).unwrap();
    std::fs::set_permissions(folder(&dir), std::fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(fault(adopt(&folder(&dir)).await).code, Code::Denied, "others reach it");
    std::fs::set_permissions(folder(&dir), std::fs::Permissions::from_mode(0o700)).unwrap();
    let path = |name: &str| folder(&dir).join(name);
    std::fs::write(path("a-garbage.json"), "{").unwrap();
    std::fs::write(path("b-writable.json"), "{}").unwrap();
    std::fs::set_permissions(path("b-writable.json"), std::fs::Permissions::from_mode(0o666)).unwrap();
    std::os::unix::fs::symlink("/dev/zero", path("c-link.json")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, path("d-fifo.json"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    std::fs::write(path("e-huge.json"), vec![b' '; 1 << 20]).unwrap();
    let golden = include_bytes!("../../../../pconf-schema/golden/host-record.json");
    assert!(Record::read(golden).is_some());
    std::fs::write(path("f-misnamed.json"), golden).unwrap();
    std::fs::write(path(".draft.json"), "half").unwrap();
    std::fs::write(path("other.txt"), "other").unwrap();
    let adopted = tokio::time::timeout(LONG, adopt(&folder(&dir))).await.unwrap().unwrap();
    let codes: Vec<_> = adopted
        .iter()
        .map(|adopted| match adopted {
            Adopted::Doubtful(doubtful) => (doubtful.path.file_name().unwrap().to_str().unwrap(), doubtful.fault.code),
            other => panic!("{other:?}"),
        })
        .collect();
    let (wrong, denied) = (Code::InvalidArgument, Code::Denied);
    assert_eq!(
        codes,
        [
            ("a-garbage.json", wrong),
            ("b-writable.json", denied),
            ("c-link.json", denied),
            ("d-fifo.json", denied),
            ("e-huge.json", wrong),
            ("f-misnamed.json", wrong),
        ]
    );
}
