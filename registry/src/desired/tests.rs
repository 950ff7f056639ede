use std::fs;
use std::os::unix::fs::PermissionsExt;

use goplug_pconf_schema::{Desired, PluginId};

use super::*;

fn id(n: u32) -> PluginId {
    PluginId::new("Test", &format!("p{n}")).unwrap()
}

fn disable(directory: &Path, n: u32) -> Option<String> {
    let off = Desired { disabled: true, ..Desired::default() };
    update(directory, |state| state.set(&id(n), off)).unwrap()
}

#[test]
fn nothing_is_written_until_somebody_wants_something() {
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(load(directory.path()), Ok(DesiredState::default()));
    assert!(!directory.path().join(OWN_FOLDER).exists());
    assert_eq!(disable(directory.path(), 1), None);
    assert!(load(directory.path()).unwrap().of(&id(1)).disabled);
    let path = directory.path().join(OWN_FOLDER).join(FILE);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    let before = fs::metadata(&path).unwrap().modified().unwrap();
    assert_eq!(disable(directory.path(), 1), None);
    assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), before, "the same again is not written");
}

#[test]
fn what_cannot_be_obeyed_is_kept_and_replaced() {
    for (text, reason) in [
        ("", "is empty"),
        ("{", "cannot be read"),
        ("{\"format\": 9}", "has format 9"),
        ("{\"format\": 1, \"checksum\": \"0\", \"plugins\": {}}", "checksum"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        disable(directory.path(), 1);
        let path = directory.path().join(OWN_FOLDER).join(FILE);
        fs::write(&path, text).unwrap();
        assert!(load(directory.path()).unwrap_err().contains(reason), "{text}");
        assert!(disable(directory.path(), 2).unwrap().contains(reason), "{text}");
        let state = load(directory.path()).unwrap();
        assert!(state.of(&id(2)).disabled && !state.of(&id(1)).disabled);
        assert_eq!(fs::read_to_string(path.with_file_name(BAD)).unwrap(), text);
    }
}

#[test]
fn what_others_may_write_is_not_obeyed() {
    let directory = tempfile::tempdir().unwrap();
    disable(directory.path(), 1);
    let path = directory.path().join(OWN_FOLDER).join(FILE);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    assert!(load(directory.path()).unwrap_err().contains("may be written by others"));
    fs::set_permissions(path.parent().unwrap(), fs::Permissions::from_mode(0o777)).unwrap();
    assert!(own_folder(directory.path()).unwrap_err().contains("chmod 700"));
}

#[test]
fn writers_take_turns() {
    let directory = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        for n in 0..16 {
            let path = directory.path();
            scope.spawn(move || disable(path, n));
        }
    });
    assert_eq!(load(directory.path()).unwrap().iter().count(), 16);
}
