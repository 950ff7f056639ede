use super::*;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

fn options(directory: &Path) -> ScanOptions {
    let extension = ".pconf".to_owned();
    ScanOptions { directory: directory.to_owned(), extension, socket_dirs: Vec::new(), max_plugins: 16_384 }
}

fn put(directory: &Path, name: &str, plugin: &str) -> PathBuf {
    let path = directory.join(name);
    fs::write(&path, format!(r#"{{"Name":"{plugin}","Sock":"{plugin}.sock"}}"#)).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    path
}

fn names(snapshot: &Snapshot) -> Vec<String> {
    snapshot.entries.keys().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect()
}

/// Scans until every entry is known to be what its stamp says: once more after the clock must have ticked.
fn settled(options: &ScanOptions) -> Snapshot {
    let first = scan(options, None);
    let_the_clock_tick();
    scan(options, Some(&first))
}

/// Waits for the clock that stamps files, which nothing else can be asked about.
pub(in crate::discovery) fn let_the_clock_tick() {
    let begun = Instant::now();
    while begun.elapsed() < TICK {
        std::thread::yield_now();
    }
}

#[test]
fn the_extension_counts_and_dot_files_do_not() {
    for (name, taken) in [
        ("a.pconf", true),
        ("a.b.pconf", true),
        ("Ünï.pconf", true),
        ("a.PCONF", false),
        ("a.pconf~", false),
        ("a.pconf.swp", false),
        (".a.pconf", false),
        (".pconf", false),
        ("pconf", false),
        ("apconf", false),
    ] {
        assert_eq!(is_candidate(OsStr::new(name), ".pconf"), taken, "{name}");
    }
    assert!(is_candidate(OsStr::from_bytes(b"\xff.pconf"), ".pconf"), "any bytes make a name");
}

#[test]
fn only_the_top_level_is_read() {
    let directory = tempfile::tempdir().unwrap();
    put(directory.path(), "a.pconf", "a");
    put(directory.path(), ".hidden.pconf", "b");
    put(directory.path(), "b.conf", "b");
    fs::create_dir(directory.path().join("sub")).unwrap();
    put(&directory.path().join("sub"), "c.pconf", "c");
    let snapshot = scan(&options(directory.path()), None);
    assert_eq!((names(&snapshot), snapshot.directory), (vec!["a.pconf".to_owned()], Ok(())));
}

#[test]
fn what_did_not_change_is_not_read_again() {
    let directory = tempfile::tempdir().unwrap();
    let options = options(directory.path());
    put(directory.path(), "a.pconf", "a");
    fs::write(directory.path().join("b.pconf"), "{").unwrap();
    let before = settled(&options);
    let after = scan(&options, Some(&before));
    assert!(Arc::ptr_eq(&before.entries, &after.entries));
    put(directory.path(), "c.pconf", "c");
    let third = scan(&options, Some(&after));
    assert_eq!(names(&third), ["a.pconf", "b.pconf", "c.pconf"]);
    for name in ["a.pconf", "b.pconf"] {
        let path = directory.path().join(name);
        assert_eq!(third.entries[path.as_path()], before.entries[path.as_path()], "{name} keeps its age");
    }
}

#[test]
fn whatever_comes_and_goes_around_it_a_file_keeps_its_age() {
    let directory = tempfile::tempdir().unwrap();
    let options = options(directory.path());
    // A dash is lower than a letter and a dot is lower than both: the order is that of bytes, not of words.
    for name in ["a-b.pconf", "a.pconf", "c.pconf", "d.pconf", "f.pconf", "\u{fc}.pconf"] {
        put(directory.path(), name, "x");
    }
    let before = settled(&options);
    for name in ["a.pconf", "d.pconf"] {
        fs::remove_file(directory.path().join(name)).unwrap();
    }
    for name in ["Z.pconf", "a-a.pconf", "b.pconf", "e.pconf", "g.pconf"] {
        put(directory.path(), name, "y");
    }
    let after = scan(&options, Some(&before));
    let (old, new) = (
        ["a-b.pconf", "c.pconf", "f.pconf", "\u{fc}.pconf"],
        ["Z.pconf", "a-a.pconf", "b.pconf", "e.pconf", "g.pconf"],
    );
    assert_eq!(after.entries.len(), old.len() + new.len(), "{:?}", names(&after));
    for path in old.map(|name| directory.path().join(name)) {
        assert_eq!(after.entries[path.as_path()], before.entries[path.as_path()], "{}", path.display());
    }
    for path in new.map(|name| directory.path().join(name)) {
        assert!(!after.entries[path.as_path()].confirmed, "{} is new", path.display());
    }
}

#[test]
fn two_writings_within_one_tick_are_told_apart() {
    let directory = tempfile::tempdir().unwrap();
    let options = options(directory.path());
    let path = put(directory.path(), "a.pconf", "a");
    let mut before = scan(&options, None);
    put(directory.path(), "a.pconf", "b");
    // As if the clock had not ticked between the two: the stamp that was seen is the one that the file has now.
    let status = rustix::fs::stat(&path).unwrap();
    let entry = Arc::make_mut(&mut before.entries).get_mut(path.as_path()).unwrap();
    entry.stamp = stamp_of(&status);
    entry.first_read -= TICK;
    let after = scan(&options, Some(&before));
    assert_eq!(after.entries[path.as_path()].read.as_ref().unwrap().pconf.id.name(), "b");
}

#[test]
fn a_directory_that_cannot_be_read_keeps_what_was_known() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("plugins");
    let options = options(&directory);
    let missing = scan(&options, None);
    assert!(missing.directory.unwrap_err().ends_with("plugins does not exist"));
    fs::create_dir(&directory).unwrap();
    put(&directory, "a.pconf", "a");
    let good = scan(&options, None);
    fs::rename(&directory, parent.path().join("away")).unwrap();
    let lost = scan(&options, Some(&good));
    assert!(lost.directory.is_err());
    assert_eq!(names(&lost), ["a.pconf"]);
    fs::write(&directory, "a file").unwrap();
    assert!(scan(&options, None).directory.unwrap_err().contains("is not a directory"));
}

#[test]
fn a_flood_of_files_does_not_push_out_those_that_were_there() {
    let directory = tempfile::tempdir().unwrap();
    let mut options = options(directory.path());
    options.max_plugins = 3;
    put(directory.path(), "y.pconf", "y");
    put(directory.path(), "z.pconf", "z");
    let before = scan(&options, None);
    assert!(!before.truncated);
    for n in 0..20 {
        put(directory.path(), &format!("{n:02}.pconf"), "x");
    }
    let after = scan(&options, Some(&before));
    assert_eq!((names(&after), after.truncated), (vec!["00.pconf".into(), "y.pconf".into(), "z.pconf".into()], true));
    assert_eq!(names(&scan(&options, None)), ["00.pconf", "01.pconf", "02.pconf"]);
}

#[test]
fn a_directory_that_others_may_write_is_warned_about() {
    let directory = tempfile::tempdir().unwrap();
    for (mode, warned) in [(0o755, false), (0o775, true), (0o777, true), (0o1777, false)] {
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(!scan(&options(directory.path()), None).warnings.is_empty(), warned, "{mode:o}");
    }
}

#[test]
fn ten_thousand_idle_files_are_cheap() {
    let directory = tempfile::tempdir().unwrap();
    let options = options(directory.path());
    for n in 0..10_000 {
        put(directory.path(), &format!("{n}.pconf"), "x");
    }
    let before = settled(&options);
    let begun = Instant::now();
    let after = scan(&options, Some(&before));
    println!("a scan of 10,000 idle files took {:?}", begun.elapsed());
    assert!(Arc::ptr_eq(&before.entries, &after.entries));
    assert!(begun.elapsed() < Duration::from_secs(2), "a hang guard");
}
