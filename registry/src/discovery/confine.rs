//! Where a plugin's socket may lie: else a file could aim a privileged registry at any socket of the machine.

use std::path::{Component, Path, PathBuf};

use crate::words::show;

/// The folders in which sockets may lie.
#[derive(Debug, Clone, Default)]
pub(crate) struct Confinement {
    roots: Vec<PathBuf>,
}

impl Confinement {
    /// The plugin directory, the runtime folder (`$XDG_RUNTIME_DIR/goplug`, else `/run/goplug`) and `socket_dirs`, each also by the path
    /// that it has without symbolic links.
    pub(crate) fn new(directory: &Path, socket_dirs: &[PathBuf]) -> Self {
        let mut roots = Vec::new();
        let given = [directory.to_owned(), runtime_folder()];
        for root in given.iter().chain(socket_dirs) {
            let absolute = std::path::absolute(root).map(|path| normalised(&path));
            for path in absolute.into_iter().chain(std::fs::canonicalize(root)) {
                // The root folder would allow everything.
                if path.parent().is_some() && !roots.contains(&path) {
                    roots.push(path);
                }
            }
        }
        Self { roots }
    }

    /// Compares by text alone: the socket need not exist yet. `socket` is absolute.
    pub(crate) fn check(&self, socket: &Path) -> Result<(), String> {
        let socket = normalised(socket);
        if self.roots.iter().any(|root| socket.starts_with(root) && socket != *root) {
            return Ok(());
        }
        Err(format!("names the socket {}, which lies outside of {}", show(&socket), self.describe()))
    }

    /// Looks at the file system, to be asked right before connecting: the path must be a socket (or not exist yet), not a
    /// symbolic link, and its folder must lie inside without symbolic links too.
    pub(crate) fn check_on_disk(&self, socket: &Path) -> Result<(), String> {
        self.check(socket)?;
        let folder = socket.parent().unwrap_or(socket);
        // A folder that is not there is reported by connecting.
        if let Ok(real) = std::fs::canonicalize(folder)
            && !self.roots.iter().any(|root| real.starts_with(root))
        {
            return Err(format!(
                "socket folder {} leads to {}, outside of {}",
                show(folder),
                show(&real),
                self.describe()
            ));
        }
        match std::fs::symlink_metadata(socket) {
            Ok(status) if status.file_type().is_symlink() => {
                Err(format!("socket {} is a symbolic link: name the socket itself", show(socket)))
            }
            _ => Ok(()),
        }
    }

    /// The folders, for people.
    pub(crate) fn describe(&self) -> String {
        let folders: Vec<_> = self.roots.iter().map(|root| show(root)).collect();
        folders.join(", ")
    }
}

/// `$XDG_RUNTIME_DIR/goplug`, else `/run/goplug`: a folder of our own, since others put sockets beside it that no plugin's
/// file may aim us at.
pub(crate) fn runtime_folder() -> PathBuf {
    let given = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    given.filter(|path| path.is_absolute()).unwrap_or_else(|| PathBuf::from("/run")).join("goplug")
}

/// The path without `.` and `..`, by its text alone.
fn normalised(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => _ = out.pop(),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_lies_beneath_an_allowed_folder_or_is_refused() {
        let confinement = Confinement::new(Path::new("/srv/plugins"), &[PathBuf::from("/opt/sockets/")]);
        for (socket, allowed) in [
            ("/srv/plugins/a.sock", true),
            ("/srv/plugins/deep/er/a.sock", true),
            ("/srv/plugins/../plugins/a.sock", true),
            ("/opt/sockets/a.sock", true),
            ("/srv/plugins", false),
            ("/srv/plugins/../a.sock", false),
            ("/srv/plugins/x/../../a.sock", false),
            ("/srv/pluginsandmore/a.sock", false),
            ("/var/lib/docker.sock", false),
            ("/", false),
        ] {
            assert_eq!(confinement.check(Path::new(socket)).is_ok(), allowed, "{socket}");
        }
        let reason = confinement.check(Path::new("/etc/x.sock")).unwrap_err();
        assert!(reason.contains("/etc/x.sock") && reason.contains("/opt/sockets"), "{reason}");
    }

    #[test]
    fn symbolic_links_do_not_lead_out() {
        let plugins = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        let confinement = Confinement::new(plugins.path(), &[]);
        let _listener = std::os::unix::net::UnixListener::bind(outside.path().join("s")).unwrap();
        std::os::unix::fs::symlink(outside.path(), plugins.path().join("folder")).unwrap();
        std::os::unix::fs::symlink(outside.path().join("s"), plugins.path().join("link")).unwrap();
        let _own = std::os::unix::net::UnixListener::bind(plugins.path().join("own")).unwrap();
        let check = |name: &str| confinement.check_on_disk(&plugins.path().join(name));
        assert_eq!(check("own"), Ok(()));
        assert_eq!(check("not-there-yet"), Ok(()));
        assert!(check("link").unwrap_err().contains("symbolic link"));
        assert!(check("folder/s").unwrap_err().contains("outside of"));
    }
}
