use super::*;
use crate::discovery::DirectoryFacts;
use std::fs;
use std::os::unix::fs::PermissionsExt;

fn find<'a>(links: &'a [Link], name: &str) -> &'a Link {
    links.iter().find(|link| link.name == name).unwrap_or_else(|| panic!("no check {name}: {links:#?}"))
}

#[tokio::test]
async fn a_good_directory_passes() {
    let directory = tempfile::tempdir().unwrap();
    let links = doctor(directory.path()).await;
    let names: Vec<_> = links.iter().map(|link| link.name.as_str()).collect();
    let expected = [
        "directory",
        "owner",
        "mode",
        "path",
        "files",
        "watch",
        "leftovers",
        "keeper",
        "sockets",
        "runtime",
        "open files",
        "goplug-host",
        "kernel",
        "pidfd",
        "identity",
    ];
    assert_eq!(names, expected);
    for name in ["directory", "owner", "mode", "files", "kernel"] {
        assert_eq!(find(&links, name).state, LinkState::Ok, "{links:#?}");
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_directory_is_told_with_the_command() {
    let parent = tempfile::tempdir().unwrap();
    let missing = parent.path().join("plug ins");
    let links = doctor(&missing).await;
    let first = find(&links, "directory");
    assert_eq!(first.state, LinkState::Broken);
    assert!(first.detail.ends_with("plug ins'") && first.detail.contains("mkdir -p '"), "{first:?}");
    assert_eq!(find(&links, "files").state, LinkState::Skipped);
    assert_eq!(
        find(&links, "pidfd").state,
        find(&doctor(parent.path()).await, "pidfd").state,
        "the machine is looked at"
    );

    fs::create_dir(&missing).unwrap();
    fs::set_permissions(&missing, fs::Permissions::from_mode(0o777)).unwrap();
    fs::write(missing.join("a.pconf"), "{").unwrap();
    let links = doctor(&missing).await;
    assert!(find(&links, "mode").detail.contains("chmod go-w"), "{links:#?}");
    assert!(find(&links, "files").detail.starts_with("1 of 1 files cannot be used: goplugctl lint"), "{links:#?}");
    let inner = missing.join("inner");
    fs::create_dir(&inner).unwrap();
    assert!(find(&doctor(&inner).await, "path").detail.contains("chmod go-w"));
}

#[test]
fn what_was_left_behind_is_told_with_what_takes_it_away() {
    let directory = tempfile::tempdir().unwrap();
    let own = directory.path().join(".goplug");
    assert_eq!(folder::leftovers(directory.path(), None).state, LinkState::Ok);
    fs::create_dir_all(own.join("staging/one")).unwrap();
    fs::set_permissions(&own, fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(own.join("state.json"), "{").unwrap();
    fs::write(own.join("state.json.bad"), "{").unwrap();
    let link = folder::leftovers(directory.path(), None);
    assert_eq!(link.state, LinkState::Warning);
    for part in ["state.json cannot be read", ": mv ", ": rm ", "1 folders in"] {
        assert!(link.detail.contains(part), "{link:?}");
    }
}

#[tokio::test]
async fn a_file_that_nobody_stands_behind_is_a_leftover() {
    let directory = tempfile::tempdir().unwrap();
    let put = |name: &str| {
        let text = format!("{{\"Name\":\"{name}\",\"Sock\":\"{name}.sock\"}}");
        fs::write(directory.path().join(format!("{name}.pconf")), text).unwrap();
    };
    put("live");
    let _live = std::os::unix::net::UnixListener::bind(directory.path().join("live.sock")).unwrap();
    assert_eq!(find(&doctor(directory.path()).await, "leftovers").state, LinkState::Ok);
    put("dead");
    drop(std::os::unix::net::UnixListener::bind(directory.path().join("dead.sock")).unwrap());
    put("none");
    let links = doctor(directory.path()).await;
    let link = find(&links, "leftovers");
    assert_eq!(link.state, LinkState::Warning);
    assert!(link.detail.starts_with("2 files name sockets on which nobody listens, such as "), "{link:?}");
    assert!(link.detail.ends_with("/dead.pconf") && link.detail.contains(": goplugctl why "), "{link:?}");
}

#[test]
fn limits_are_judged() {
    for (soft, hard, plugins, state, words) in [
        (None, None, 10_000, LinkState::Ok, "no limit"),
        (Some(1_024), Some(1_024), 96, LinkState::Ok, "need about 1024"),
        (Some(1_024), Some(1_048_576), 97, LinkState::Warning, "ulimit -n 1032"),
        (Some(1_024), Some(4_096), 10_000, LinkState::Warning, "LimitNOFILE=80256"),
        (Some(1_024), None, 10_000, LinkState::Warning, ": ulimit -n 80256"),
    ] {
        let link = machine::judge_open_files(soft, hard, plugins);
        assert_eq!(link.state, state, "{link:?}");
        assert!(link.detail.contains(words), "{link:?}");
    }
    for (room, state, words) in [
        (None, LinkState::Broken, "at most 107 bytes: use a shorter directory"),
        (Some(0), LinkState::Broken, "use a shorter directory"),
        (Some(31), LinkState::Warning, "31 bytes are left"),
        (Some(32), LinkState::Ok, "32 bytes are left"),
    ] {
        let link = folder::judge_socket_room(Path::new("/p"), room);
        assert_eq!(link.state, state, "{link:?}");
        assert!(link.detail.contains(words), "{link:?}");
    }
    for (mode, state) in
        [(0o755, LinkState::Ok), (0o775, LinkState::Warning), (0o777, LinkState::Warning), (0o1777, LinkState::Ok)]
    {
        assert_eq!(folder::mode(Path::new("/p"), &DirectoryFacts { uid: 0, mode }).state, state, "{mode:o}");
    }
}
