use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;
use goplug_package::Keys;

/// Nothing is known of any package.
fn records(directory: &Path) -> Records {
    Records::new(directory.join("../no-such-trust"), directory)
}

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
    let source = survey(directory, source, &Keys::default())?;
    let (shelf, then, asked) = plan(directory, &source, &records(directory), Some(&Grant::Nothing))?;
    let answer = source.answer(directory, then == Then::Current, None, asked, false);
    let (id, version) = (source.manifest.id.clone(), source.manifest.version.clone());
    install(directory, source, &records(directory), &Grant::Nothing)?;
    if answer.current {
        Turn::take(directory)?.point(directory, &id, &version, &shelf.current)?;
    }
    Ok(answer)
}

fn link(directory: &Path, place: &str) -> String {
    fs::read_link(directory.join(place)).unwrap().to_str().unwrap().to_owned()
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
        let real =
            directory.path().join(if namespace.is_empty() { ".goplug/versions/-" } else { ".goplug/versions/test" });
        assert_eq!((Path::new(&answer.folder), answer.version.as_str()), (&*real.join("do/1.2.3"), "1.2.3"));
        assert_eq!(folder.canonicalize().unwrap(), real.join("do/1.2.3").canonicalize().unwrap());
        assert_eq!((answer.files, answer.dry_run), (5, false));
        assert_eq!(fs::read(folder.join("data/deep/x")).unwrap().len(), 70_000);
        let modes = ["", "run", "plugin.json", "data", "data/deep/x"].map(|name| mode(&folder.join(name)));
        assert_eq!(modes, [0o755, 0o755, 0o644, 0o755, 0o644]);
        let error = installed(directory.path(), &source.path().join("plugin.json")).unwrap_err();
        assert_eq!(error.code, Code::Conflict);
        assert!(error.message.contains("is installed already, version 1.2.3"), "{error}");
        assert_eq!(own(directory.path()), [""; 0]);
        remove(directory.path(), &answer.plugin, &folder, &records(directory.path())).unwrap();
        assert!(folder.symlink_metadata().is_err() && own(directory.path()).is_empty() && !real.exists());
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
    assert!(refused(&source.path().join("run")).1.contains("the archive cannot be read"));
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

#[test]
fn versions_lie_side_by_side_and_one_link_names_the_current_one() {
    let (directory, source) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (at, id) = (directory.path(), PluginId::parse("test/do").unwrap());
    let put_version = |version: &str| {
        put(source.path(), "do", "test", version);
        installed(at, source.path())
    };
    let (one, two) = (Version::new(1, 0, 0), Version::new(1, 1, 0));
    assert!(put_version("1.0.0").unwrap().current && put_version("1.1.0").unwrap().current);
    assert!(!put_version("0.9.0").unwrap().current, "an older one lies beside");
    assert_eq!(link(at, "test/do"), "../.goplug/versions/test/do/1.1.0");
    let shelf = versions::shelf(at, &id).unwrap();
    assert_eq!((shelf.current.clone(), shelf.previous), (Current::Linked(two.clone()), Some(one.clone())));
    assert_eq!(shelf.installed.len(), 3);

    // What somebody else did meanwhile is not undone.
    let turn = Turn::take(at).unwrap();
    let error = turn.point(at, &id, &one, &Current::Linked(one.clone())).unwrap_err();
    assert!(error.code == Code::Conflict && error.message.contains("changed meanwhile"), "{error}");
    assert_eq!(turn.point(at, &id, &Version::new(3, 0, 0), &shelf.current).unwrap_err().code, Code::Conflict);
    turn.point(at, &id, &one, &shelf.current).unwrap();
    drop(turn);
    assert_eq!(link(at, "test/do"), "../.goplug/versions/test/do/1.0.0");
    assert_eq!(versions::shelf(at, &id).unwrap().previous, Some(two.clone()));

    // The same version again, as it is and changed; what the plugin itself wrote does not count.
    fs::write(at.join("test/do/cache"), "x").unwrap();
    assert!(put_version("1.0.0").unwrap_err().message.ends_with("is installed already, version 1.0.0"));
    fs::write(source.path().join("data/deep/x"), vec![b'y'; 70_000]).unwrap();
    let survey = survey(at, source.path(), &Keys::default()).unwrap();
    let other = plan(at, &survey, &records(at), None).unwrap_err();
    assert!(other.code == Code::Conflict && other.message.contains("with other content"), "{other}");

    assert_eq!(remove_version(at, &id, &one).unwrap_err().code, Code::WrongState);
    remove_version(at, &id, &two).unwrap();
    assert_eq!(versions::shelf(at, &id).unwrap().installed.len(), 2);
    assert_eq!(versions::all(at)[&id].len(), 2);
}

#[test]
fn a_folder_that_somebody_put_there_becomes_a_version_when_another_one_follows() {
    let (directory, source) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (at, id) = (directory.path(), PluginId::parse("do").unwrap());
    put(&at.join("do"), "do", "", "1.0.0");
    let by_hand = versions::shelf(at, &id).unwrap();
    assert_eq!((by_hand.current, by_hand.installed.len()), (Current::ByHand(Version::new(1, 0, 0)), 0));
    put(source.path(), "do", "", "1.0.0");
    assert_eq!(installed(at, source.path()).unwrap_err().code, Code::Conflict);
    // Whoever was killed in between left a link.
    fs::create_dir_all(at.join(".goplug/versions/-/do")).unwrap();
    for path in [".goplug", ".goplug/versions", ".goplug/versions/-", ".goplug/versions/-/do"] {
        fs::set_permissions(at.join(path), fs::Permissions::from_mode(0o755)).unwrap();
    }
    symlink("nowhere", at.join(".goplug/versions/-/do/1.0.0")).unwrap();
    put(source.path(), "do", "", "1.1.0");
    installed(at, source.path()).unwrap();
    assert_eq!(link(at, "do"), ".goplug/versions/-/do/1.1.0");
    let shelf = versions::shelf(at, &id).unwrap();
    assert_eq!((shelf.installed.len(), shelf.previous.clone()), (2, Some(Version::new(1, 0, 0))));
    assert_eq!(plan::rollback(&shelf, &id).unwrap(), Version::new(1, 0, 0));
    assert!(at.join(".goplug/versions/-/do/1.0.0/run").is_file());

    // A link of somebody else's, and a folder of another plugin, are left alone.
    fs::remove_file(at.join("do")).unwrap();
    symlink("/etc", at.join("do")).unwrap();
    assert!(installed(at, source.path()).unwrap_err().message.contains("is no plugin that can be used"));
}
