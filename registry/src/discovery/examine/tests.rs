use super::*;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::Duration;

const GOOD: &str = r#"{"Name": "a", "NameSpace": "n", "Sock": "a.sock"}"#;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    /// A good file with mode 0644, whatever the umask.
    fn good(&self, name: &str) -> std::path::PathBuf {
        let path = self.path(name);
        fs::write(&path, GOOD).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        path
    }

    /// Examines on a thread of its own, so that a test about blocking ends.
    fn examine(&self, name: &str) -> Result<Arc<Found>, Arc<Refusal>> {
        let (path, confinement) = (self.path(name), Confinement::new(self.0.path(), &[]));
        let (answer, wait) = std::sync::mpsc::channel();
        std::thread::spawn(move || answer.send(examine(&path, &confinement)));
        wait.recv_timeout(Duration::from_secs(10))
            .expect("examining a file never blocks")
            .expect("the file is there")
            .read
    }

    fn refusal(&self, name: &str) -> Refusal {
        Refusal::clone(&self.examine(name).expect_err(name))
    }
}

#[test]
fn a_good_file_is_found() {
    let folder = Folder::new();
    folder.good("x.pconf");
    let found = folder.examine("x.pconf").unwrap();
    assert_eq!(found.pconf.id.as_str(), "n/a");
    assert_eq!(found.socket, folder.path("a.sock"));
    assert_eq!(found.file_uid, rustix::process::geteuid().as_raw());
    assert_eq!(found.warnings, Vec::<String>::new());
    assert!(examine(&folder.path("missing"), &Confinement::default()).is_none());
}

#[test]
fn what_is_no_regular_file_is_refused_and_never_waited_for() {
    let folder = Folder::new();
    folder.good("good");
    symlink("good", folder.path("link")).unwrap();
    symlink("nowhere", folder.path("dangling")).unwrap();
    fs::create_dir(folder.path("dir")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, folder.path("fifo"), FileType::Fifo, 0o644.into(), 0).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(folder.path("socket")).unwrap();
    for (name, flaw, words) in [
        ("link", Flaw::Symlink, "is a symbolic link"),
        ("dangling", Flaw::Symlink, "is a symbolic link"),
        ("dir", Flaw::NotRegular("folder"), "is a folder: a .pconf must be a regular file"),
        ("fifo", Flaw::NotRegular("FIFO"), "is a FIFO"),
        ("socket", Flaw::NotRegular("socket"), "is a socket"),
    ] {
        let refusal = folder.refusal(name);
        assert_eq!(refusal.flaw, flaw, "{name}");
        assert!(refusal.reason.contains(words), "{name}: {}", refusal.reason);
        assert!(!refusal.may_be_half_written(), "{name} is reported at once");
    }
}

#[test]
fn a_file_that_is_exchanged_after_it_was_looked_at_is_refused_too() {
    let folder = Folder::new();
    folder.good("good");
    symlink("good", folder.path("link")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, folder.path("fifo"), FileType::Fifo, 0o644.into(), 0).unwrap();
    for (name, flaw) in [("link", Flaw::Symlink), ("fifo", Flaw::NotRegular("FIFO"))] {
        let path = folder.path(name);
        let (answer, wait) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            answer.send(open_and_read(A_PCONF, rustix::fs::CWD, &path, Trust::Checked).map(|_| ()))
        });
        let opened = wait.recv_timeout(Duration::from_secs(10)).expect("opening a file never blocks");
        assert_eq!(opened.unwrap_err().0, flaw, "{name}");
    }
}

#[test]
fn a_device_is_refused_unopened() {
    let folder = Folder::new();
    // The terminal device of major 5, minor 0: opening it has an effect on a process without a terminal.
    let made = rustix::fs::mknodat(
        rustix::fs::CWD,
        folder.path("device"),
        FileType::CharacterDevice,
        0o644.into(),
        rustix::fs::makedev(5, 0),
    );
    if made.is_err() {
        println!("SKIPPED: only root may make a device");
        return;
    }
    assert_eq!(folder.refusal("device").flaw, Flaw::NotRegular("device"));
}

#[test]
fn owner_mode_links_and_size_are_checked() {
    let folder = Folder::new();
    let mode = |name: &str, mode| {
        fs::set_permissions(folder.good(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    mode("0666", 0o666);
    mode("0602", 0o602);
    mode("0664", 0o664);
    fs::hard_link(folder.good("linked"), folder.path("other")).unwrap();
    let exactly = format!("{GOOD}{}", " ".repeat(MAX_PCONF_BYTES - GOOD.len()));
    fs::write(folder.good("exactly"), &exactly).unwrap();
    fs::write(folder.good("larger"), format!("{exactly} ")).unwrap();
    for (name, kind, flaw, words) in [
        ("0666", RefusalKind::Denied, Flaw::Mode(0o666), "may be written by everybody (mode 0666): chmod o-w"),
        ("0602", RefusalKind::Denied, Flaw::Mode(0o602), "mode 0602"),
        ("linked", RefusalKind::Denied, Flaw::Links(2), "has 2 links"),
        ("larger", RefusalKind::Invalid, Flaw::Size(65_537), "is 65537 bytes, the limit is 65536"),
    ] {
        let refusal = folder.refusal(name);
        assert_eq!((refusal.kind, &refusal.flaw), (kind, &flaw), "{name}");
        assert!(refusal.reason.contains(words), "{name}: {}", refusal.reason);
    }
    assert_eq!(folder.examine("exactly").unwrap().pconf.id.as_str(), "n/a");
    let warnings = &folder.examine("0664").unwrap().warnings;
    assert!(warnings.iter().any(|text| text.contains("written by group")), "{warnings:?}");
}

#[test]
fn a_file_of_another_owner_is_refused() {
    let folder = Folder::new();
    let path = folder.good("alien");
    if std::os::unix::fs::chown(&path, Some(65_533), None).is_err() {
        println!("SKIPPED: only root may give a file away");
        return;
    }
    let refusal = folder.refusal("alien");
    assert_eq!((refusal.kind, &refusal.flaw), (RefusalKind::Denied, &Flaw::Owner(65_533)));
    assert!(refusal.reason.starts_with("belongs to uid 65533, expected 0"), "{}", refusal.reason);
}

#[test]
fn a_file_that_we_may_not_open_is_denied() {
    let folder = Folder::new();
    fs::set_permissions(folder.good("closed"), fs::Permissions::from_mode(0o000)).unwrap();
    match folder.examine("closed") {
        Err(refusal) => assert_eq!(refusal.flaw, Flaw::Closed),
        Ok(_) => println!("SKIPPED: root opens every file"),
    }
}

#[test]
fn the_text_and_the_socket_are_checked() {
    let folder = Folder::new();
    let write = |name: &str, text: &str| fs::write(folder.good(name), text).unwrap();
    write("empty", "");
    write("half", "{\"Name\": \"a\",\n  \"So");
    write("long", &format!(r#"{{"Name":"a","Sock":"{}"}}"#, "x".repeat(200)));
    write("abstract", r#"{"Name":"a","Sock":"@a"}"#);
    write("outside", r#"{"Name":"a","Sock":"/var/lib/other/docker.sock"}"#);
    write("escapes", r#"{"Name":"a","Sock":"sub/../../x.sock"}"#);
    for (name, kind, pending) in [
        ("empty", RefusalKind::Invalid, true),
        ("half", RefusalKind::Invalid, true),
        ("long", RefusalKind::Invalid, false),
        ("outside", RefusalKind::Denied, false),
        ("escapes", RefusalKind::Denied, false),
    ] {
        let refusal = folder.refusal(name);
        assert_eq!((refusal.kind, refusal.may_be_half_written()), (kind, pending), "{name}: {}", refusal.reason);
    }
    assert_eq!(folder.refusal("abstract").kind, RefusalKind::Invalid);
    assert_eq!(folder.refusal("half").problems[0].line, 2);
    assert_eq!(folder.refusal("outside").id.unwrap().as_str(), "-/a");
    assert!(folder.refusal("outside").reason.contains("socket_dirs"));
}
