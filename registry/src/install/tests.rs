use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

fn put(folder: &Path, name: &str, namespace: &str, version: &str) {
    fs::create_dir_all(folder.join("data/deep")).unwrap();
    let text =
        format!(r#"{{"name":"{name}","namespace":"{namespace}","version":"{version}","exec":{{"command":"./run"}}}}"#);
    fs::write(folder.join("plugin.json"), text).unwrap();
    fs::write(folder.join("run"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(folder.join("run"), fs::Permissions::from_mode(0o4777)).unwrap();
    fs::write(folder.join("data/deep/x"), vec![b'x'; 70_000]).unwrap();
    fs::set_permissions(folder.join("data/deep/x"), fs::Permissions::from_mode(0o600)).unwrap();
}

fn installed(directory: &Path, source: &Path) -> Result<Installation, Fault> {
    survey(directory, source).and_then(|source| install(directory, source))
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

/// Everything below our own folder.
fn own(directory: &Path) -> Vec<String> {
    let list =
        |path: PathBuf| fs::read_dir(path).map(|all| all.flatten().map(|one| one.file_name()).collect::<Vec<_>>());
    let staged = list(directory.join(desired::OWN_FOLDER).join(staging::FOLDER)).unwrap_or_default();
    staged.into_iter().map(|name| name.to_string_lossy().into_owned()).collect()
}

#[test]
fn a_folder_goes_in_whole_with_modes_of_ours_and_comes_out() {
    let (directory, source) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for (namespace, folder) in [("", "do"), ("test", "test/do")] {
        put(source.path(), "do", namespace, "1.2.3");
        let answer = installed(directory.path(), source.path()).unwrap();
        let folder = directory.path().join(folder);
        assert_eq!((answer.folder.as_str(), answer.version.as_str()), (folder.to_str().unwrap(), "1.2.3"));
        assert_eq!((answer.files, answer.dry_run), (5, false));
        assert_eq!(fs::read(folder.join("data/deep/x")).unwrap().len(), 70_000);
        let modes = ["", "run", "plugin.json", "data", "data/deep/x"].map(|name| mode(&folder.join(name)));
        assert_eq!(modes, [0o755, 0o755, 0o644, 0o755, 0o644]);
        let error = installed(directory.path(), &source.path().join("plugin.json")).unwrap_err();
        assert_eq!(error.code, Code::Conflict);
        assert!(error.message.contains("is installed already, version 1.2.3"), "{error}");
        assert_eq!(own(directory.path()), [""; 0]);
        let found = crate::discovery::examine_manifest(&folder.join("plugin.json")).unwrap().read.unwrap();
        remove(directory.path(), &answer.plugin, &found).unwrap();
        assert!(!folder.exists() && own(directory.path()).is_empty());
    }
    assert!(!directory.path().join("test").exists(), "the folder of the namespace went with the last plugin in it");
}

#[test]
fn what_is_neither_file_nor_folder_is_refused_by_name_along_with_the_rest() {
    let (directory, source) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    put(source.path(), "do", "", "1.0");
    symlink("/etc/passwd", source.path().join("link")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, source.path().join("data/pipe"), rustix::fs::FileType::Fifo, Mode::RWXU, 0)
        .unwrap();
    let error = installed(directory.path(), source.path()).unwrap_err();
    assert_eq!(error.code, Code::InvalidArgument);
    for part in ["`version` `1.0` is no SemVer", "write `1.0.0`", "data/pipe is a FIFO", "link is a symbolic link"] {
        assert!(error.message.contains(part), "{part}: {error}");
    }
    assert!(!directory.path().join("do").exists() && !directory.path().join(".goplug").exists());
}

#[test]
fn what_cannot_be_installed_says_why() {
    let (directory, source) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let refused = |source: &Path| {
        let error = installed(directory.path(), source).unwrap_err();
        (error.code, error.message)
    };
    assert_eq!(refused(&source.path().join("none")).0, Code::NotFound);
    let (code, text) = refused(source.path());
    assert!(code == Code::InvalidArgument && text.contains("plugin.json does not exist"), "{text}");
    put(source.path(), "do", "", "1.0.0");
    assert!(refused(&source.path().join("run")).1.contains("is no folder"));
    fs::remove_file(source.path().join("run")).unwrap();
    assert!(refused(source.path()).1.contains("run does not exist"));
    put(source.path(), "do", "taken", "1.0.0");
    put(&directory.path().join("taken"), "taken", "", "1.0.0");
    assert!(refused(source.path()).1.contains("is the folder of a plugin and cannot be that of a namespace"));
    assert!(refused(directory.path()).1.contains("the plugin directory lies in"));
    let deep = source.path().join(vec!["d"; 40].join("/"));
    fs::create_dir_all(deep).unwrap();
    assert_eq!(refused(source.path()).0, Code::TooLarge);
}

#[test]
fn left_overs_are_removed_by_the_next_one_and_not_under_somebodys_hands() {
    let (directory, source) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let at = directory.path();
    let busy = Staging::open(at).unwrap();
    let (name, _) = busy.make().unwrap();
    put(&busy.path(at, &name), "do", "", "1.0.0");
    put(source.path(), "other", "", "1.0.0");
    installed(at, source.path()).unwrap();
    assert_eq!(own(at), [name], "somebody is still at work on it");
    drop(busy);
    tidy_up(at);
    assert_eq!(own(at), [""; 0]);
}
