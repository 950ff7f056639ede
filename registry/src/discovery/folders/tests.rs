use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;
use crate::discovery::scan::tests::let_the_clock_tick;
use crate::discovery::{Flaw, ScanOptions, Snapshot, scan};

fn put(directory: &Path, folder: &str, text: &str) {
    let folder = directory.join(folder);
    fs::create_dir_all(&folder).unwrap();
    for folder in folder.ancestors().take_while(|folder| *folder != directory) {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    }
    fs::write(folder.join(MANIFEST_NAME), text).unwrap();
    fs::set_permissions(folder.join(MANIFEST_NAME), fs::Permissions::from_mode(0o644)).unwrap();
}

fn manifest(namespace: &str, name: &str) -> String {
    format!(r#"{{"name":"{name}","namespace":"{namespace}","version":"1.0.0","exec":{{"command":"./run"}}}}"#)
}

fn look(directory: &Path, previous: Option<&Snapshot>) -> Snapshot {
    let (directory, extension) = (directory.to_owned(), ".pconf".to_owned());
    scan(&ScanOptions { directory, extension, socket_dirs: Vec::new(), max_plugins: 4 }, previous)
}

/// Each manifest by its folder, and the plugin or the reason why it is none.
fn seen(directory: &Path, snapshot: &Snapshot) -> Vec<String> {
    let read = |entry: &Entry<Installed>| match &entry.read {
        Ok(found) => found.manifest.id.to_string(),
        Err(refusal) => format!("{:?}: {}", refusal.kind, refusal.reason),
    };
    let folder = |path: &Path| path.parent().unwrap().strip_prefix(directory).unwrap().display().to_string();
    snapshot.manifests.iter().map(|(path, entry)| format!("{} {}", folder(path), read(entry))).collect()
}

#[test]
fn two_levels_are_looked_at_and_no_more() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    put(at, "do", &manifest("", "do"));
    put(at, "test/do", &manifest("test", "do"));
    put(at, "named", &manifest("elsewhere", "named"));
    put(at, "test/deep/er", &manifest("", "er"));
    put(at, "do/inner", &manifest("", "inner"));
    put(at, ".hidden", &manifest("", "hidden"));
    put(at, "test/.hidden", &manifest("test", ".hidden"));
    let snapshot = look(at, None);
    assert_eq!(seen(at, &snapshot), ["do -/do", "named elsewhere/named", "test/do test/do"]);
    let folders: Vec<_> =
        snapshot.folders.iter().map(|folder| folder.strip_prefix(at).unwrap().to_str().unwrap()).collect();
    assert_eq!(folders, ["do", "named", "test", "test/deep", "test/do"]);
}

#[test]
fn what_is_not_to_be_trusted_is_refused_with_its_reason() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    put(at, "other", &manifest("", "do"));
    put(at, "ns/do", &manifest("", "do"));
    put(at, "open", &manifest("", "open"));
    fs::set_permissions(at.join("open"), fs::Permissions::from_mode(0o777)).unwrap();
    put(at, "written", &manifest("", "written"));
    fs::set_permissions(at.join("written/plugin.json"), fs::Permissions::from_mode(0o666)).unwrap();
    assert_eq!(
        seen(at, &look(at, None)),
        [
            "ns/do Invalid: line 1 column 26: namespace conflict: the folder is named `ns`, the file says ``: rename one of the two",
            "open Denied: lies in a folder that may be written by everybody (mode 0777): chmod o-w it",
            "other Invalid: line 1 column 9: name conflict: the folder is named `other`, the file says `do`: rename one of the two",
            "written Denied: may be written by everybody (mode 0666): chmod o-w",
        ]
    );
}

#[test]
fn links_lead_nowhere() {
    let (directory, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let at = directory.path();
    put(outside.path(), "out", &manifest("", "out"));
    symlink(outside.path().join("out"), at.join("out")).unwrap();
    fs::create_dir(at.join("in")).unwrap();
    symlink(outside.path().join("out/plugin.json"), at.join("in/plugin.json")).unwrap();
    fs::create_dir(at.join("fifo")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, at.join("fifo/plugin.json"), FileType::Fifo, Mode::RWXU, 0).unwrap();
    assert_eq!(
        seen(at, &look(at, None)),
        [
            "fifo Invalid: is a FIFO: a plugin.json must be a regular file",
            "in Denied: is a symbolic link: a plugin.json must be a regular file",
        ]
    );
}

#[test]
fn what_did_not_change_is_not_read_again() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    put(at, "a", &manifest("", "a"));
    let first = look(at, None);
    let_the_clock_tick();
    let second = look(at, Some(&first));
    let third = look(at, Some(&second));
    assert!(Arc::ptr_eq(&second.manifests, &third.manifests));
    put(at, "a", &manifest("", "a").replace("1.0.0", "1.1.0"));
    let fourth = look(at, Some(&third));
    assert_eq!(fourth.manifests.values().next().unwrap().read.as_ref().unwrap().manifest.version.to_string(), "1.1.0");
    fs::remove_dir_all(at.join("a")).unwrap();
    assert!(look(at, Some(&fourth)).manifests.is_empty());
}

#[test]
fn a_half_written_manifest_is_a_text_that_may_heal() {
    let directory = tempfile::tempdir().unwrap();
    put(directory.path(), "a", "{\"name\": ");
    let snapshot = look(directory.path(), None);
    let refusal = snapshot.manifests.values().next().unwrap().read.as_ref().unwrap_err();
    assert_eq!(refusal.flaw, Flaw::Text);
    assert!(refusal.may_be_half_written() && refusal.problems[0].line == 1);
}

#[test]
fn a_flood_of_folders_is_cut_off_and_told() {
    let directory = tempfile::tempdir().unwrap();
    for n in 0..6 {
        put(directory.path(), &format!("p{n}"), &manifest("", &format!("p{n}")));
    }
    let snapshot = look(directory.path(), None);
    assert!(snapshot.truncated && snapshot.manifests.len() == 4);
}

#[test]
fn the_link_that_names_a_version_is_followed_and_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    put(at, ".goplug/versions/-/do/1.0.0", &manifest("", "do"));
    put(at, ".goplug/versions/test/do/1.0.0", &manifest("test", "do"));
    fs::create_dir(at.join("test")).unwrap();
    fs::set_permissions(at.join("test"), fs::Permissions::from_mode(0o755)).unwrap();
    symlink(".goplug/versions/-/do/1.0.0", at.join("do")).unwrap();
    symlink("../.goplug/versions/test/do/1.0.0", at.join("test/do")).unwrap();
    // Leads to the same, in another form; is the name of another plugin; leads to a version that is not there.
    symlink("./.goplug/versions/-/do/1.0.0", at.join("same")).unwrap();
    symlink(".goplug/versions/-/do/1.0.0", at.join("other")).unwrap();
    symlink("../.goplug/versions/test/gone/1.0.0", at.join("test/gone")).unwrap();
    let snapshot = look(at, None);
    let expected = ["do -/do", "test/do test/do", "test/gone Invalid: names version 1.0.0, which is not installed"];
    assert_eq!(seen(at, &snapshot), expected);
    let real = snapshot.manifests[at.join("do/plugin.json").as_path()].read.as_ref().unwrap().folder.clone();
    assert_eq!(real, at.join(".goplug/versions/-/do/1.0.0"), "what runs keeps the folder of its version");

    // A link on the way is none of ours, and neither is a folder that everybody may write.
    fs::rename(at.join(".goplug/versions/-"), at.join(".goplug/versions/moved")).unwrap();
    symlink("moved", at.join(".goplug/versions/-")).unwrap();
    fs::set_permissions(at.join(".goplug/versions/test"), fs::Permissions::from_mode(0o777)).unwrap();
    let seen = seen(at, &look(at, Some(&snapshot)));
    assert_eq!(seen[0], "do Invalid: names version 1.0.0, which is not installed");
    assert!(seen[1].starts_with("test/do Denied: lies in a folder that may be written by everybody"), "{seen:?}");
}

/// Root may look into every folder; what becomes of one that is closed to us does not depend on who closes it.
#[test]
fn a_plugin_in_a_folder_that_was_closed_has_not_gone() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    put(at, "do", &manifest("", "do"));
    put(at, "test/do", &manifest("test", "do"));
    let known = look(at, None);
    let mut search = Search { before: &known.manifests, found: Vec::new(), folders: Vec::new(), reused: true };
    assert!(!search.keep_closed(&at.join("d")) && search.found.is_empty() && search.reused);
    assert!(search.keep_closed(&at.join("test")) && search.keep_closed(&at.join("do")) && !search.reused);
    let found = Arc::new(search.found.into_iter().collect());
    let why = "Denied: lies in a folder that cannot be looked into: permission denied";
    let closed = Snapshot { manifests: found, ..known };
    assert_eq!(seen(at, &closed), [format!("do {why}"), format!("test/do {why}")]);
    assert_eq!(seen(at, &look(at, Some(&closed))), ["do -/do", "test/do test/do"]);
}
