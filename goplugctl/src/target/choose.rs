//! Which target the command line means: `--dir`, `--socket`, their variables, or a daemon at a default socket.

use std::env;
use std::ffi::OsString;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use goplug_pconf_schema::{Code, Fault};

use crate::failure::Failure;
use crate::output::escape;
use crate::output::text::quoted;

/// A place where verbs can work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// A plugin directory, without a daemon.
    Directory(PathBuf),
    /// The socket of a daemon.
    Socket(PathBuf),
}

/// What was said about the place.
#[derive(Debug, Default)]
pub(crate) struct Said {
    pub(crate) dir: Option<PathBuf>,
    pub(crate) socket: Option<PathBuf>,
    pub(crate) dir_variable: Option<OsString>,
    pub(crate) socket_variable: Option<OsString>,
}

/// Flags count before variables, variables before the default sockets.
///
/// # Errors
/// Both ways are named at once (exit 2), or none is and no daemon answers (exit 6).
pub(crate) fn choose(dir: Option<PathBuf>, socket: Option<PathBuf>) -> Result<Place, Failure> {
    let variable = |name| env::var_os(name).filter(|value| !value.is_empty());
    let said = Said { dir, socket, dir_variable: variable("GOPLUG_DIR"), socket_variable: variable("GOPLUG_SOCKET") };
    match named(said)? {
        Some(place) => Ok(place),
        None => running_daemon(&default_sockets()),
    }
}

/// The flags with which another command works in the same place: those that were given. A variable is there for that one
/// too.
pub(crate) fn flags(dir: Option<&Path>, socket: Option<&Path>) -> String {
    let flag = |name: &str, path: &Path| format!("{name} {}", escape(&quoted(&path.display().to_string())));
    match (dir, socket) {
        (Some(path), None) => flag("--dir", path),
        (None, Some(path)) => flag("--socket", path),
        (None, None) | (Some(_), Some(_)) => String::new(),
    }
}

fn named(said: Said) -> Result<Option<Place>, Failure> {
    let directory = |path: PathBuf| Ok(Some(Place::Directory(path)));
    let socket = |path: PathBuf| Ok(Some(Place::Socket(path)));
    let both = |names: &str| {
        Err(Failure::usage("cannot tell where to work", format!("{names} are both given: one is enough")))
    };
    match (said.dir, said.socket) {
        (Some(_), Some(_)) => return both("--dir and --socket"),
        (Some(path), None) => return directory(path),
        (None, Some(path)) => return socket(path),
        (None, None) => {}
    }
    match (said.dir_variable, said.socket_variable) {
        (Some(_), Some(_)) => both("GOPLUG_DIR and GOPLUG_SOCKET"),
        (Some(path), None) => directory(path.into()),
        (None, Some(path)) => socket(path.into()),
        (None, None) => Ok(None),
    }
}

/// Where a daemon listens when nothing else was said, the likelier first.
pub(crate) fn default_sockets() -> Vec<PathBuf> {
    let runtime = env::var_os("XDG_RUNTIME_DIR").filter(|value| !value.is_empty());
    let folders = runtime.map(PathBuf::from).into_iter().chain([PathBuf::from("/run")]);
    folders.map(|folder| folder.join("goplug/goplugd.sock")).collect()
}

fn running_daemon(sockets: &[PathBuf]) -> Result<Place, Failure> {
    if let Some(path) = sockets.iter().find(|path| UnixStream::connect(path).is_ok()) {
        return Ok(Place::Socket(path.clone()));
    }
    let shown: Vec<_> = sockets.iter().map(|path| format!("`{}`", escape(&path.display().to_string()))).collect();
    let text = format!(
        "no daemon answers at {}: name a plugin directory with --dir DIR (or GOPLUG_DIR), or a daemon's socket with --socket PATH (or GOPLUG_SOCKET)",
        shown.join(" or ")
    );
    Err(Failure::new("nowhere to work", Fault::new(Code::Unavailable, text))
        .hint("goplugctl daemon run --plugin-dir DIR"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(parts: [Option<&str>; 4]) -> Said {
        let [dir, socket, dir_variable, socket_variable] = parts;
        Said {
            dir: dir.map(Into::into),
            socket: socket.map(Into::into),
            dir_variable: dir_variable.map(Into::into),
            socket_variable: socket_variable.map(Into::into),
        }
    }

    #[test]
    fn flags_count_before_variables_and_one_of_a_kind_is_enough() {
        let directory = |path: &str| Some(Place::Directory(path.into()));
        let socket = |path: &str| Some(Place::Socket(path.into()));
        for (parts, place) in [
            ([Some("d"), None, None, Some("s")], directory("d")),
            ([None, Some("s"), Some("d"), None], socket("s")),
            ([None, None, Some("d"), None], directory("d")),
            ([None, None, None, Some("s")], socket("s")),
            ([None; 4], None),
        ] {
            assert_eq!(named(said(parts)).unwrap(), place, "{parts:?}");
        }
        for parts in [[Some("d"), Some("s"), None, None], [None, None, Some("d"), Some("s")]] {
            assert_eq!(named(said(parts)).unwrap_err().exit(), 2, "{parts:?}");
        }
    }

    #[test]
    fn without_any_both_ways_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let failure = running_daemon(&[folder.path().join("no.sock")]).unwrap_err();
        assert_eq!(failure.exit(), 6);
        let text = failure.render(false, false, "");
        assert!(text.contains("--dir") && text.contains("--socket") && text.contains("no.sock"), "{text}");

        let path = folder.path().join("yes.sock");
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert_eq!(running_daemon(std::slice::from_ref(&path)).unwrap(), Place::Socket(path));
    }
}
