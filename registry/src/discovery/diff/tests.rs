use super::*;
use crate::discovery::{Flaw, RefusalKind};
use goplug_pconf_schema::Pconf;
use std::time::Duration;

/// One file of a given moment: its name and what is in it.
#[derive(Clone)]
struct File(&'static str, Content);

#[derive(Clone)]
enum Content {
    /// Pair, socket, epoch, description, and the inode: another one is another writing.
    Claim(&'static str, &'static str, &'static str, &'static str, u64),
    /// It does not parse since that many milliseconds.
    Half(u64),
    Denied(&'static str),
}

use Content::{Claim, Denied, Half};

fn a(socket: &'static str, epoch: &'static str) -> Content {
    Claim("n/a", socket, epoch, "", 1)
}

fn snapshot(files: &[File], now: Instant) -> Snapshot {
    let entries = files.iter().map(|File(name, content)| {
        let path: Arc<Path> = Path::new("/p").join(name).into();
        let mut stamp = Stamp::default();
        let refusal = |flaw, kind, reason: &str, age: u64| Refusal {
            kind,
            flaw,
            reason: reason.into(),
            problems: Vec::new(),
            since: now.checked_sub(Duration::from_millis(age)).unwrap(),
            id: None,
        };
        let read = match content {
            Claim(id, socket, epoch, description, ino) => {
                stamp.ino = *ino;
                let mut pconf = Pconf::new(PluginId::parse(id).unwrap(), *socket);
                pconf.epoch = Some((*epoch).into());
                pconf.description = Some((*description).into());
                let socket = Path::new("/p").join(socket);
                Ok(Arc::new(Found {
                    pconf: Arc::new(pconf),
                    socket,
                    file_uid: 0,
                    warnings: Vec::new(),
                    is_tilotech: false,
                    is_started: false,
                }))
            }
            Half(age) => Err(Arc::new(refusal(Flaw::Text, RefusalKind::Invalid, "half", *age))),
            Denied(reason) => Err(Arc::new(refusal(Flaw::Mode(0o666), RefusalKind::Denied, reason, 0))),
        };
        (path, Entry { stamp, read, first_read: now, confirmed: true })
    });
    Snapshot {
        directory: Ok(()),
        entries: Arc::new(entries.collect()),
        manifests: Arc::default(),
        folders: Arc::default(),
        truncated: false,
        warnings: Vec::new(),
    }
}

/// A change in one word and its names.
fn brief(change: &Change) -> String {
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    match change {
        Change::Appeared { id, file, .. } => format!("appeared {id} {}", name(file)),
        Change::Replaced { id, file, found } => format!("replaced {id} {} {}", name(file), name(&found.socket)),
        Change::Changed { id, file, .. } => format!("changed {id} {}", name(file)),
        Change::Rewritten { id } => format!("rewritten {id}"),
        Change::Removed { id } => format!("removed {id}"),
        Change::Invalid { file, refusal } => format!("invalid {} {}", name(file), refusal.reason),
        Change::Settled { file } => format!("settled {}", name(file)),
        Change::Conflict { id, winner, loser } => format!("conflict {id} {} {}", name(winner), name(loser)),
        Change::DirectoryLost { reason } => format!("lost {reason}"),
        Change::DirectoryBack => "back".into(),
    }
}

fn briefs(changes: &[Change]) -> Vec<String> {
    changes.iter().map(brief).collect()
}

fn id() -> PluginId {
    PluginId::parse("n/a").unwrap()
}

#[test]
fn every_step_from_one_moment_to_the_next() {
    let one = || vec![File("a.pconf", a("s", "1"))];
    let two = || vec![File("a.pconf", a("s", "1")), File("b.pconf", a("t", "2"))];
    #[expect(clippy::type_complexity, reason = "a table")]
    let table: Vec<(&str, Vec<File>, Vec<File>, Vec<&str>)> = vec![
        ("nothing", vec![], vec![], vec![]),
        ("start-up", vec![], one(), vec!["appeared n/a a.pconf"]),
        ("the same", one(), one(), vec![]),
        ("gone", one(), vec![], vec!["removed n/a"]),
        ("another socket", one(), vec![File("a.pconf", a("t", "1"))], vec!["replaced n/a a.pconf t"]),
        ("another epoch", one(), vec![File("a.pconf", a("s", "2"))], vec!["replaced n/a a.pconf s"]),
        ("another key", one(), vec![File("a.pconf", Claim("n/a", "s", "1", "new", 1))], vec!["changed n/a a.pconf"]),
        ("another file", one(), vec![File("z.pconf", a("s", "1"))], vec!["changed n/a z.pconf"]),
        ("written again", one(), vec![File("a.pconf", Claim("n/a", "s", "1", "", 2))], vec!["rewritten n/a"]),
        (
            "another pair in the same file",
            one(),
            vec![File("a.pconf", Claim("n/b", "s", "1", "", 1))],
            vec!["removed n/a", "appeared n/b a.pconf"],
        ),
        ("a second file", one(), two(), vec!["conflict n/a a.pconf b.pconf"]),
        ("both at once", vec![], two(), vec!["appeared n/a a.pconf", "conflict n/a a.pconf b.pconf"]),
        (
            "a lower second file takes over",
            vec![File("b.pconf", a("t", "2"))],
            two(),
            vec!["replaced n/a a.pconf s", "conflict n/a a.pconf b.pconf"],
        ),
        ("the loser goes", two(), one(), vec!["settled b.pconf"]),
        (
            "the winner goes",
            two(),
            vec![File("b.pconf", a("t", "2"))],
            vec!["settled b.pconf", "replaced n/a b.pconf t"],
        ),
        (
            "the loser claims another pair",
            two(),
            vec![File("a.pconf", a("s", "1")), File("b.pconf", Claim("n/b", "t", "2", "", 1))],
            vec!["settled b.pconf", "appeared n/b b.pconf"],
        ),
        ("half-written and new", vec![], vec![File("a.pconf", Half(10))], vec![]),
        ("half-written over a good one", one(), vec![File("a.pconf", Half(999))], vec![]),
        ("half-written for a second", vec![], vec![File("a.pconf", Half(1000))], vec!["invalid a.pconf half"]),
        (
            "a good one broken for a second",
            one(),
            vec![File("a.pconf", Half(1000))],
            vec!["removed n/a", "invalid a.pconf half"],
        ),
        ("broken, repaired", vec![File("a.pconf", Half(1000))], one(), vec!["settled a.pconf", "appeared n/a a.pconf"]),
        ("broken, being repaired", vec![File("a.pconf", Half(1000))], vec![File("a.pconf", Half(1))], vec![]),
        ("broken as before", vec![File("a.pconf", Half(1000))], vec![File("a.pconf", Half(5000))], vec![]),
        ("broken, removed", vec![File("a.pconf", Half(1000))], vec![], vec!["settled a.pconf"]),
        ("denied at once", one(), vec![File("a.pconf", Denied("open"))], vec!["removed n/a", "invalid a.pconf open"]),
        (
            "denied for another reason",
            vec![File("a.pconf", Denied("open"))],
            vec![File("a.pconf", Denied("alien"))],
            vec!["invalid a.pconf alien"],
        ),
        (
            "from conflict to invalid",
            two(),
            vec![File("a.pconf", a("s", "1")), File("b.pconf", Denied("open"))],
            vec!["settled b.pconf", "invalid b.pconf open"],
        ),
        (
            "from invalid to conflict",
            vec![File("a.pconf", a("s", "1")), File("b.pconf", Denied("open"))],
            two(),
            vec!["settled b.pconf", "conflict n/a a.pconf b.pconf"],
        ),
        (
            "the winner is denied",
            two(),
            vec![File("a.pconf", Denied("open")), File("b.pconf", a("t", "2"))],
            vec!["settled b.pconf", "replaced n/a b.pconf t", "invalid a.pconf open"],
        ),
    ];
    let now = Instant::now() + Duration::from_secs(60);
    for (case, before, after, expected) in table {
        let (view, _) = diff(&View::default(), &snapshot(&before, now), now);
        let (view, changes) = diff(&view, &snapshot(&after, now), now);
        assert_eq!(briefs(&changes), expected, "{case}");
        let (_, again) = diff(&view, &snapshot(&after, now), now);
        assert_eq!(briefs(&again), Vec::<String>::new(), "{case}, seen again");
    }
}

#[test]
fn a_half_written_file_says_when_to_look_again() {
    let now = Instant::now() + Duration::from_secs(60);
    let files = [File("a.pconf", Half(400)), File("b.pconf", Half(900)), File("c.pconf", Denied("x"))];
    let moment = snapshot(&files, now);
    let (view, changes) = diff(&View::default(), &moment, now);
    assert_eq!(briefs(&changes), ["invalid c.pconf x"]);
    assert_eq!(view.next_look(), Some(now + Duration::from_millis(100)));
    let (view, changes) = diff(&view, &moment, now + Duration::from_millis(100));
    assert_eq!(briefs(&changes), ["invalid b.pconf half"], "the same snapshot, later");
    assert_eq!(view.next_look(), Some(now + Duration::from_millis(600)));
    let (view, changes) = diff(&view, &moment, now + Duration::from_millis(600));
    assert_eq!(briefs(&changes), ["invalid a.pconf half"]);
    assert_eq!(view.next_look(), None);
}

#[test]
fn a_lost_directory_keeps_what_was_known() {
    let now = Instant::now();
    let good = snapshot(&[File("a.pconf", a("s", "1"))], now);
    let lost = Snapshot { directory: Err("is gone".into()), ..snapshot(&[], now) };
    let (view, _) = diff(&View::default(), &good, now);
    let (view, changes) = diff(&view, &lost, now);
    assert_eq!(briefs(&changes), ["lost is gone"]);
    assert_eq!((view.directory_lost(), view.plugins().count()), (Some("is gone"), 1));
    let (view, changes) = diff(&view, &lost, now);
    assert_eq!(briefs(&changes), Vec::<String>::new(), "said once");
    let (same, changes) = diff(&view, &good, now);
    assert_eq!(briefs(&changes), ["back"]);
    assert_eq!(same.directory_lost(), None);
    let (_, changes) = diff(&view, &snapshot(&[], now), now);
    assert_eq!(briefs(&changes), ["back", "removed n/a"]);
    let (_, changes) = diff(&View::default(), &lost, now);
    assert_eq!(briefs(&changes), ["lost is gone"], "missing at start");
}

#[test]
fn a_promotion_holds_until_a_passed_over_file_is_written_again() {
    let now = Instant::now();
    let files = |first: u64, third: &'static str| {
        snapshot(
            &[
                File("a.pconf", Claim("n/a", "s", "1", "", first)),
                File("b.pconf", a("t", "2")),
                File("c.pconf", a("u", third)),
            ],
            now,
        )
    };
    let (view, _) = diff(&View::default(), &files(1, "3"), now);
    let names: Vec<_> = view.claims(&id()).iter().map(|file| file.file_name().unwrap().to_owned()).collect();
    assert_eq!(names, ["a.pconf", "b.pconf", "c.pconf"]);

    let (view, changes) = view.promote(&id(), Path::new("/p/b.pconf"));
    let expected = [
        "settled b.pconf",
        "settled c.pconf",
        "replaced n/a b.pconf t",
        "conflict n/a b.pconf a.pconf",
        "conflict n/a b.pconf c.pconf",
    ];
    assert_eq!(briefs(&changes), expected);
    assert_eq!(view.winner(&id()).unwrap().0, Path::new("/p/b.pconf"));
    assert_eq!(view.conflicts().count(), 2);

    let (view, changes) = diff(&view, &files(1, "4"), now);
    assert_eq!(briefs(&changes), Vec::<String>::new(), "another file after the winner does not matter");
    let (view, changes) = diff(&view, &files(2, "4"), now);
    assert!(briefs(&changes).contains(&"replaced n/a a.pconf s".to_owned()), "{:?}", briefs(&changes));
    let (_, changes) = view.promote(&id(), Path::new("/p/not-there.pconf"));
    assert_eq!(briefs(&changes), Vec::<String>::new());
}

#[test]
fn a_new_lower_file_ends_a_promotion() {
    let now = Instant::now();
    let two = [File("b.pconf", a("s", "1")), File("c.pconf", a("t", "2"))];
    let (view, _) = diff(&View::default(), &snapshot(&two, now), now);
    let (view, _) = view.promote(&id(), Path::new("/p/c.pconf"));
    let three = [vec![File("a.pconf", a("u", "3"))], two.to_vec()].concat();
    let (view, _) = diff(&view, &snapshot(&three, now), now);
    assert_eq!(view.winner(&id()).unwrap().0, Path::new("/p/a.pconf"));
}

/// One manifest: its folder, its version and its description.
fn installed(folders: &[(&str, &str, &str)], now: Instant) -> Snapshot {
    let entries = folders.iter().map(|(folder, version, description)| {
        let folder = Path::new("/p").join(folder);
        let name = folder.file_name().unwrap().to_str().unwrap();
        let text = format!(
            r#"{{"name":"{name}","version":"{version}","description":"{description}","exec":{{"command":"./x"}}}}"#
        );
        let manifest = goplug_pconf_schema::Manifest::parse(text.as_bytes(), Default::default()).unwrap();
        let found = Installed { manifest: Arc::new(manifest), folder: folder.clone(), warnings: Vec::new() };
        let path: Arc<Path> = folder.join("plugin.json").into();
        (path, Entry { stamp: Stamp::default(), read: Ok(Arc::new(found)), first_read: now, confirmed: true })
    });
    Snapshot { manifests: Arc::new(entries.collect()), ..snapshot(&[], now) }
}

#[test]
fn manifests_are_compared_by_the_same_rules() {
    let now = Instant::now();
    let mut view = View::default();
    let mut step = |folders: &[(&str, &str, &str)]| {
        let (next, changes) = diff_manifests(&view, &installed(folders, now), now);
        view = next;
        let words = changes.into_iter().map(|change| match change {
            Change::Appeared { id, file, .. } => format!("appeared {id} {}", file.display()),
            Change::Replaced { id, found, .. } => format!("replaced {id} {}", found.manifest.version),
            Change::Removed { id } => format!("removed {id}"),
            Change::Conflict { id, loser, .. } => format!("conflict {id} {}", loser.display()),
            other => format!("{other:?}"),
        });
        words.collect::<Vec<_>>()
    };
    assert_eq!(step(&[("a", "1.0.0", "")]), ["appeared -/a /p/a/plugin.json"]);
    assert_eq!(step(&[("a", "1.0.0", "")]), [""; 0]);
    assert_eq!(step(&[("a", "1.1.0", "")]), ["replaced -/a 1.1.0"]);
    assert_eq!(step(&[("a", "1.1.0", ""), ("b/a", "2.0.0", "")]), ["conflict -/a /p/b/a/plugin.json"]);
    assert_eq!(step(&[("b/a", "2.0.0", "")]).last().unwrap(), "replaced -/a 2.0.0");
    assert_eq!(step(&[]), ["removed -/a"]);
}
