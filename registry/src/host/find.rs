//! Where the program `goplug-host` is.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use goplug_pconf_schema::{Code, Fault, Reason};

const NAME: &str = "goplug-host";
/// The variable that names it.
const VARIABLE: &str = "GOPLUG_HOST";

/// The program `goplug-host`: what `GOPLUG_HOST` names, else beside the current program, else in `PATH`.
///
/// # Errors
/// `not_found`, with the places and what to do.
pub fn find() -> Result<PathBuf, Fault> {
    let own = std::env::current_exe().ok();
    let beside = own.as_deref().and_then(Path::parent);
    find_in(std::env::var_os(VARIABLE).as_deref(), beside, std::env::var_os("PATH").as_deref())
}

fn find_in(given: Option<&OsStr>, beside: Option<&Path>, path: Option<&OsStr>) -> Result<PathBuf, Fault> {
    let missing = |places: String| {
        let text = format!(
            "the program {NAME}, which runs plugins, was not found: {places}; \
             put it beside the program or in PATH (`cargo install --path {NAME}`), or name it in {VARIABLE}"
        );
        Err(Fault::new(Code::NotFound, text).with_reason(Reason::NoHost))
    };
    if let Some(given) = given.filter(|given| !given.is_empty()) {
        // What was asked for is not replaced by something else of that name.
        return match std::path::absolute(given) {
            Ok(path) if is_program(&path) => Ok(path),
            _ => missing(format!("{VARIABLE} is {}, which is no program", Path::new(given).display())),
        };
    }
    let folders = path.map(std::env::split_paths).into_iter().flatten().filter(|folder| folder.is_absolute());
    let all = beside.map(Path::to_owned).into_iter().chain(folders).map(|folder| folder.join(NAME));
    if let Some(found) = all.into_iter().find(|path| is_program(path)) {
        return Ok(found);
    }
    let beside = beside.map_or_else(
        || "beside the program".to_owned(),
        |folder| format!("beside the program in {}", folder.display()),
    );
    missing(format!("{VARIABLE} is not set, and it is neither {beside} nor in PATH"))
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|status| status.is_file() && status.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(folder: &Path, mode: u32) {
        std::fs::create_dir_all(folder).unwrap();
        std::fs::write(folder.join(NAME), "").unwrap();
        std::fs::set_permissions(folder.join(NAME), std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn the_first_of_three_places_counts_and_none_is_told_with_all_three() {
        let dir = tempfile::tempdir().unwrap();
        let (beside, one, two) = (dir.path().join("bin"), dir.path().join("one"), dir.path().join("two"));
        let path = std::env::join_paths([Path::new("relative"), &one, &two]).unwrap();
        let find = |given: Option<&Path>| find_in(given.map(Path::as_os_str), Some(&beside), Some(&path));
        let none = find(None).unwrap_err();
        assert_eq!(none.code, Code::NotFound);
        for part in [VARIABLE, "PATH", beside.to_str().unwrap(), "cargo install"] {
            assert!(none.message.contains(part), "{none}");
        }
        program(&two, 0o755);
        assert_eq!(find(None).unwrap(), two.join(NAME));
        program(&one, 0o644);
        assert_eq!(find(None).unwrap(), two.join(NAME), "it must be a program");
        program(&beside, 0o755);
        assert_eq!(find(None).unwrap(), beside.join(NAME));
        assert_eq!(find(Some(&two.join(NAME))).unwrap(), two.join(NAME));
        let wrong = find(Some(&dir.path().join("nowhere"))).unwrap_err();
        assert!(wrong.message.contains("nowhere, which is no program"), "{wrong}");
    }
}
