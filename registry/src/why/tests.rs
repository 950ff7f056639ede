use super::*;
use crate::discovery::{Flaw, RefusalKind};
use goplug_pconf_schema::admin::LinkState;
use goplug_pconf_schema::{Code, Pconf, Reason};
use std::path::Path;
use std::time::Instant;

/// A plugin that is loaded; each case breaks one thing.
fn healthy() -> Findings {
    Findings {
        subject: "n/a".into(),
        directory: DirectoryFinding {
            path: "/p".into(),
            exists: true,
            read: Ok(()),
            warnings: Vec::new(),
            truncated_at: None,
        },
        extension: ".pconf".into(),
        auto_discover: true,
        file: there(Ok(false)),
        rivals: Vec::new(),
        knock: None,
        allow_uids: Vec::new(),
        slot: Some(slot(State::Loaded)),
        process: None,
    }
}

/// A file that is lazy or not, or refused with a flaw.
fn there(read: Result<bool, Flaw>) -> FileFinding {
    let read = read.map(|lazy| {
        let mut pconf = Pconf::new(PluginId::parse("n/a").unwrap(), "a.sock");
        pconf.lazy_load = lazy;
        Arc::new(Found {
            pconf: Arc::new(pconf),
            socket: "/p/a.sock".into(),
            file_uid: 0,
            warnings: Vec::new(),
            is_tilotech: false,
            is_started: false,
        })
    });
    FileFinding::There { path: "/p/a.pconf".into(), place: Place::Seen, read: read.map_err(refusal), winner: None }
}

fn refusal(flaw: Flaw) -> Arc<Refusal> {
    let kind = RefusalKind::Invalid;
    let reason = "line 3 column 7: expected a comma".to_owned();
    Arc::new(Refusal { kind, flaw, reason, problems: Vec::new(), since: Instant::now(), id: None })
}

fn slot(state: State) -> SlotFindings {
    SlotFindings { state, protocol: Some(1), pid: Some(7), last_error: None, retry_in: None, unloaded: false }
}

/// A plugin in `state` after `fault`, whose socket answered.
fn down(state: State, fault: Option<Fault>) -> Findings {
    let us = rustix::process::geteuid().as_raw();
    let slot = SlotFindings { protocol: None, last_error: fault, ..slot(state) };
    Findings { slot: Some(slot), knock: Some(Knock::Answered { pid: 7, uid: us }), ..healthy() }
}

fn unloaded(findings: Findings) -> Findings {
    let slot = findings.slot.map(|slot| SlotFindings { unloaded: true, ..slot });
    Findings { slot, ..findings }
}

fn with_file(file: FileFinding) -> Findings {
    Findings { file, slot: None, ..healthy() }
}

fn with_knock(knock: Knock) -> Findings {
    Findings { knock: Some(knock), ..down(State::Backoff, None) }
}

fn misplaced(path: &str, place: Place) -> FileFinding {
    FileFinding::NotNamed { id: None, near: vec![Near::Misplaced { path: path.into(), place }] }
}

fn in_place(place: Place, path: &str) -> Findings {
    let FileFinding::There { read, .. } = there(Ok(false)) else { unreachable!("made above") };
    with_file(FileFinding::There { path: path.into(), place, read, winner: None })
}

#[test]
fn a_loaded_plugin_has_no_broken_link() {
    let why = explain(&healthy());
    assert!(why.callable && why.broken().is_none() && why.fix.is_none(), "{why:#?}");
    assert_eq!(why.plugin.unwrap().as_str(), "n/a");
    let names: Vec<_> = why.links.iter().map(|link| link.name.as_str()).collect();
    assert_eq!(names, ["directory", "file", "content", "pair", "socket", "peer", "hello", "loaded"]);
}

#[test]
fn each_link_breaks_with_its_reason_and_the_command_that_mends_it() {
    let fault = |code, text: &str| Some(Fault::new(code, text));
    let mut missing = healthy();
    (missing.directory.exists, missing.directory.read) = (false, Err("directory /p does not exist".into()));
    let mut closed = healthy();
    closed.directory.read = Err("directory /p cannot be opened: Permission denied".into());
    for findings in [&mut missing, &mut closed] {
        (findings.slot, findings.file) = (None, FileFinding::NotNamed { id: None, near: Vec::new() });
    }
    let mut loser = there(Ok(false));
    if let FileFinding::There { winner, .. } = &mut loser {
        *winner = Some("/p/0.pconf".into());
    }
    let similar = FileFinding::NotNamed { id: None, near: vec![Near::Similar(PluginId::parse("n/ab").unwrap())] };
    let unusable = Near::Unusable { path: "/p/a.pconf".into(), refusal: refusal(Flaw::Text) };
    let ids = ["m/a", "n/a"].map(|id| PluginId::parse(id).unwrap()).to_vec();
    let mut off = down(State::Discovered, None);
    off.auto_discover = false;
    let unseen = Findings { auto_discover: false, ..with_file(there(Ok(false))) };
    let lazy = Findings { file: there(Ok(true)), ..down(State::Discovered, None) };
    let mut backoff = down(State::Backoff, fault(Code::PluginGone, "it died"));
    backoff.slot.as_mut().unwrap().retry_in = Some(Duration::from_millis(2_500));
    let untrusted = Some(Fault::new(Code::Denied, "it runs another program").with_reason(Reason::Untrusted));
    let stranger = Knock::Answered { pid: 7, uid: 54_321 };

    let table: Vec<(&str, Findings, &str, &str, Option<&str>)> = vec![
        ("no directory", missing, "directory", "/p does not exist", Some("mkdir -p /p")),
        ("closed directory", closed, "directory", "Permission denied", Some("chmod u+rx /p")),
        (
            "nothing at all",
            with_file(FileFinding::NotNamed { id: None, near: Vec::new() }),
            "file",
            "no file *.pconf at the top level of /p names `n/a`",
            Some("goplugctl list"),
        ),
        (
            "wrong extension",
            with_file(misplaced("/p/a.conf", Place::Extension)),
            "file",
            "/p/a.conf is not looked at: its name does not end in .pconf",
            Some("mv -n /p/a.conf /p/a.pconf"),
        ),
        (
            "dot-file",
            with_file(misplaced("/p/.a.pconf", Place::Hidden)),
            "file",
            "begins with a dot",
            Some("mv -n /p/.a.pconf /p/a.pconf"),
        ),
        (
            "sub-folder",
            with_file(misplaced("/p/my folder/a.pconf", Place::SubFolder)),
            "file",
            "only the top level",
            Some("mv -n '/p/my folder/a.pconf' /p/a.pconf"),
        ),
        ("similar name", with_file(similar), "file", "there is `n/ab`", Some("goplugctl why n/ab")),
        (
            "half-written",
            with_file(FileFinding::NotNamed { id: None, near: vec![unusable] }),
            "file",
            "line 3 column 7",
            Some("goplugctl lint /p/a.pconf"),
        ),
        ("several", with_file(FileFinding::Ambiguous(ids)), "file", "fits m/a, n/a", Some("goplugctl why m/a")),
        (
            "no name",
            with_file(FileFinding::BadName("name is empty".into())),
            "file",
            "name is empty",
            Some("goplugctl list"),
        ),
        (
            "no such file",
            with_file(FileFinding::Missing { path: "/p/x.pconf".into(), near: Vec::new() }),
            "file",
            "/p/x.pconf does not exist",
            Some("goplugctl list"),
        ),
        (
            "asked for a file of the wrong extension",
            in_place(Place::Extension, "/p/a.conf"),
            "file",
            "does not end in .pconf",
            Some("mv -n /p/a.conf /p/a.pconf"),
        ),
        (
            "elsewhere",
            in_place(Place::Outside, "/q/a.pconf"),
            "file",
            "not in the plugin",
            Some("goplugctl --dir /q why /q/a.pconf"),
        ),
        (
            "no plugin's file",
            in_place(Place::Outside, "/etc/passwd"),
            "file",
            "not in the plugin",
            Some("goplugctl list"),
        ),
        (
            "a second one in a sub-folder",
            Findings { rivals: vec!["/p/a.pconf".into()], ..in_place(Place::SubFolder, "/p/q/a.pconf") },
            "file",
            "/p/a.pconf names `n/a` already",
            Some("goplugctl why n/a"),
        ),
        (
            "link",
            with_file(there(Err(Flaw::Symlink))),
            "file",
            "/p/a.pconf line",
            Some("cp --remove-destination \"$(readlink -f /p/a.pconf)\" /p/a.pconf"),
        ),
        ("mode", with_file(there(Err(Flaw::Mode(0o666)))), "file", "/p/a.pconf", Some("chmod o-w /p/a.pconf")),
        ("FIFO", with_file(there(Err(Flaw::NotRegular("FIFO")))), "file", "/p/a.pconf", Some("rm /p/a.pconf")),
        ("folder", with_file(there(Err(Flaw::NotRegular("folder")))), "file", "/p/a.pconf", Some("rmdir /p/a.pconf")),
        (
            "links",
            with_file(there(Err(Flaw::Links(2)))),
            "file",
            "",
            Some("cp -p /p/a.pconf /p/a.pconf.new && mv /p/a.pconf.new /p/a.pconf"),
        ),
        ("size", with_file(there(Err(Flaw::Size(70_000)))), "file", "", Some("goplugctl lint /p/a.pconf")),
        ("closed file", with_file(there(Err(Flaw::Closed))), "file", "", Some("chmod u+r /p/a.pconf")),
        ("closed folder", with_file(there(Err(Flaw::ClosedFolder))), "file", "", Some("chmod u+rx /p")),
        ("text", with_file(there(Err(Flaw::Text))), "content", "line 3 column 7", Some("goplugctl lint /p/a.pconf")),
        ("loser", with_file(loser), "pair", "/p/0.pconf claims the same pair and is used", Some("rm /p/a.pconf")),
        ("socket outside", with_file(there(Err(Flaw::SocketOutside))), "socket", "", Some("goplugctl lint /p/a.pconf")),
        (
            "no socket",
            with_knock(Knock::Missing),
            "socket",
            "does not exist",
            Some("rm /p/a.pconf  # or start the plugin again"),
        ),
        (
            "killed",
            with_knock(Knock::Refused),
            "socket",
            "nobody listens on /p/a.sock",
            Some("rm /p/a.pconf /p/a.sock  # or start the plugin again"),
        ),
        ("socket denied", with_knock(Knock::Denied), "socket", "may not connect", Some("chown")),
        (
            "link as socket",
            with_knock(Knock::Unusable("is a link".into())),
            "socket",
            "is a link",
            Some("goplugctl lint"),
        ),
        (
            "stranger",
            with_knock(stranger),
            "peer",
            "runs as uid 54321",
            Some("add 54321 to allow_uids in goplugd.toml"),
        ),
        (
            "another program",
            down(State::Denied, untrusted),
            "peer",
            "runs another program",
            Some("goplugctl trust approve n/a"),
        ),
        (
            "hello refused",
            down(State::Failed, fault(Code::ProtocolError, "the hello is no JSON")),
            "hello",
            "the hello is no JSON",
            Some("goplugctl load n/a  # when its author has mended the plugin"),
        ),
        (
            "looked at, another name",
            down(State::Discovered, fault(Code::InvalidArgument, "the process says that it is `n/b`")),
            "hello",
            "says that it is `n/b`",
            Some("rm /p/a.pconf  # or start the plugin again"),
        ),
        (
            "activator failed",
            down(State::Failed, fault(Code::MethodFailed, "no database")),
            "loaded",
            "failed: no database",
            Some("goplugctl load n/a"),
        ),
        ("not seen", with_file(there(Ok(false))), "loaded", "has not seen it yet", Some("goplugctl rescan")),
        ("never looked for", unseen, "loaded", "auto-discover is off", Some("goplugctl load n/a")),
        ("auto-discover off", off, "loaded", "auto-discover is off", Some("goplugctl load n/a")),
        ("lazy", lazy, "loaded", "is lazy", Some("goplugctl load n/a")),
        (
            "unloaded",
            unloaded(down(State::Discovered, None)),
            "loaded",
            "was unloaded when somebody asked",
            Some("goplugctl load n/a"),
        ),
        ("starting", down(State::Starting, None), "loaded", "being started", Some("goplugctl wait n/a --for=loaded")),
        ("draining", down(State::Draining, None), "loaded", "being unloaded", Some("goplugctl load n/a")),
        ("stopped", down(State::Stopped, None), "loaded", "told to stop", Some("goplugctl load n/a")),
        ("back-off", backoff, "loaded", "it died; next try in 2.5 s", Some("goplugctl load n/a")),
        ("disabled", down(State::Disabled, None), "loaded", "switched off", Some("goplugctl load n/a")),
        ("gone", down(State::Gone, None), "loaded", "was removed", Some("goplugctl rescan")),
    ];
    for (case, findings, link, words, fix) in table {
        let why = explain(&findings);
        let broken = why.broken().unwrap_or_else(|| panic!("{case}: nothing is broken: {why:#?}"));
        assert_eq!(broken.name, link, "{case}: {why:#?}");
        assert!(broken.detail.contains(words), "{case}: {}", broken.detail);
        let shown = why.fix.as_deref();
        assert!(shown.zip(fix).is_some_and(|(shown, fix)| shown.starts_with(fix)), "{case}: {shown:?}");
        assert!(!why.callable, "{case}");
        let after = why.links.iter().skip_while(|link| link.state != LinkState::Broken).skip(1);
        assert!(after.into_iter().all(|link| link.state == LinkState::Skipped), "{case}: {why:#?}");
    }
}

#[test]
fn what_breaks_under_a_standing_connection_is_a_warning() {
    let why = explain(&Findings { file: there(Err(Flaw::Mode(0o666))), ..healthy() });
    assert!(why.callable && why.broken().is_none());
    assert_eq!(why.fix.as_deref(), Some("chmod o-w /p/a.pconf"));
}

#[test]
fn rivals_and_directory_warnings_are_mentioned() {
    let mut findings = healthy();
    findings.rivals = vec!["/p/z.pconf".into()];
    findings.directory.warnings = vec!["others may put files".into()];
    let why = explain(&findings);
    assert!(why.callable);
    let warnings: Vec<_> =
        why.links.iter().filter(|link| link.state == LinkState::Warning).map(|link| &link.name).collect();
    assert_eq!(warnings, ["directory", "pair"]);
}

mod on_disk {
    use super::*;
    use crate::discovery::{Confinement, ScanOptions, View, diff, scan};
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn put(&self, file: &str, text: &str) {
            let path = self.0.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        }

        fn plugin(&self, file: &str, namespace: &str, name: &str) {
            self.put(file, &format!(r#"{{"NameSpace":"{namespace}","Name":"{name}","Sock":"{name}.sock"}}"#));
        }

        fn path(&self, file: &str) -> String {
            self.0.path().join(file).to_str().unwrap().to_owned()
        }

        fn gather(&self, subject: &str) -> Findings {
            let extension = ".pconf".to_owned();
            let directory = self.0.path().to_owned();
            let options = ScanOptions { directory, extension, socket_dirs: Vec::new(), max_plugins: 100 };
            let snapshot = scan(&options, None);
            let (view, _) = diff(&View::default(), &snapshot, Instant::now());
            gather(subject, &options, &view, Some(&snapshot))
        }

        /// The first broken link's text and the command, with the folder left out.
        fn why(&self, subject: &str) -> (String, String, String) {
            let why = explain(&self.gather(subject));
            let broken = why.broken().expect("no registry holds it, so something is broken");
            let short = |text: &str| text.replace(&self.path(""), "");
            (broken.name.clone(), short(&broken.detail), short(&why.fix.unwrap_or_default()))
        }
    }

    #[test]
    fn a_name_finds_its_file() {
        let folder = Folder::new();
        folder.plugin("x.pconf", "n", "a");
        for subject in ["n/a", "a", "x.pconf", &folder.path("x.pconf")] {
            let findings = folder.gather(subject);
            let FileFinding::There { path, place: Place::Seen, read: Ok(_), winner: None } = &findings.file else {
                panic!("{subject}: {findings:#?}");
            };
            assert_eq!(path, Path::new(&folder.path("x.pconf")), "{subject}");
            assert_eq!(explain(&findings).plugin.unwrap().as_str(), "n/a");
        }
    }

    #[test]
    fn what_is_not_there_is_explained_by_what_is() {
        let folder = Folder::new();
        folder.plugin("ext.conf", "n", "ext");
        folder.plugin(".hidden.pconf", "n", "hidden");
        folder.plugin("deep/er.pconf", "n", "er");
        folder.put("nhalf.pconf", "{\"NameSpace\":\"n\",\n\"Name\":\"half\", \"So");
        folder.put("zzz.pconf", "{\"Name\":\"words\", ");
        folder.plugin("math.pconf", "n", "math");
        for (subject, words, fix) in [
            ("n/ext", "ext.conf is not looked at: its name does not end in .pconf", "mv -n ext.conf ext.pconf"),
            ("ext", "ext.conf is not looked at", "mv -n ext.conf ext.pconf"),
            ("n/hidden", "begins with a dot", "mv -n .hidden.pconf hidden.pconf"),
            ("n/er", "only the top level", "mv -n deep/er.pconf er.pconf"),
            ("n/half", "nhalf.pconf cannot be read: line 2", "goplugctl lint nhalf.pconf"),
            ("words", "zzz.pconf cannot be read", "goplugctl lint zzz.pconf"),
            ("n/maths", "there is `n/math`", "goplugctl why n/math"),
            ("other/math", "there is `n/math`", "goplugctl why n/math"),
            ("MATH", "there is `n/math`", "goplugctl why n/math"),
            ("n/utterly-unknown", "start the plugin", "goplugctl list"),
            ("missing.pconf", "missing.pconf does not exist", "goplugctl list"),
            ("math.conf", "names `math.conf`", "goplugctl list"),
            ("a/b/c", "holds a `/`", "goplugctl list"),
        ] {
            let (link, detail, command) = folder.why(subject);
            assert_eq!(link, "file", "{subject}: {detail}");
            assert!(detail.contains(words), "{subject}: {detail}");
            assert_eq!(command, fix, "{subject}");
        }
    }

    #[test]
    fn a_name_in_two_namespaces_and_a_pair_in_two_files_are_told() {
        let folder = Folder::new();
        folder.plugin("1.pconf", "m", "a");
        folder.plugin("2.pconf", "n", "a");
        assert!(folder.why("a").1.contains("fits m/a, n/a"));
        folder.plugin("3.pconf", "n", "a");
        assert_eq!(folder.gather("n/a").rivals, [PathBuf::from(folder.path("3.pconf"))]);
        let (link, detail, command) = folder.why("3.pconf");
        assert_eq!((link.as_str(), command.as_str()), ("pair", "rm 3.pconf"), "{detail}");
    }

    #[tokio::test]
    async fn a_knock_tells_who_is_at_home() {
        let folder = Folder::new();
        let confinement = Confinement::new(folder.0.path(), &[]);
        let at = |name: &str| PathBuf::from(folder.path(name));
        let live = tokio::net::UnixListener::bind(at("live")).unwrap();
        drop(std::os::unix::net::UnixListener::bind(at("dead")).unwrap());
        std::os::unix::fs::symlink("live", at("link")).unwrap();
        let us = rustix::process::geteuid().as_raw();
        assert_eq!(knock(&at("live"), confinement.clone()).await, Knock::Answered { pid: std::process::id(), uid: us });
        assert_eq!(knock(&at("dead"), confinement.clone()).await, Knock::Refused);
        assert_eq!(knock(&at("none"), confinement.clone()).await, Knock::Missing);
        assert!(
            matches!(knock(&at("link"), confinement).await, Knock::Unusable(reason) if reason.contains("symbolic"))
        );
        drop(live);
    }
}
