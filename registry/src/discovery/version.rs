//! Where the versions of an installed plugin lie, and what names the current one.
//!
//! Each version is a folder that is never changed, `.goplug/versions/NAMESPACE/NAME/VERSION` (`-` for no namespace). The current
//! one is named at one place: a link `[NAMESPACE/]NAME` in the plugin directory, of exactly this form, relative. No other link is
//! followed: the text of it is compared, and what it means is opened name by name without following any.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use goplug_pconf_schema::PluginId;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use semver::Version;

use crate::desired::OWN_FOLDER;

/// Below our own folder.
pub(crate) const VERSIONS: &str = "versions";

/// The folder of all versions of a plugin, seen from the plugin directory.
pub(crate) fn shelf(id: &PluginId) -> PathBuf {
    let namespace = if id.namespace().is_empty() { "-" } else { id.namespace() };
    Path::new(OWN_FOLDER).join(VERSIONS).join(namespace).join(id.name())
}

/// Where the plugin is named, seen from the plugin directory.
pub(crate) fn place(id: &PluginId) -> PathBuf {
    Path::new(id.namespace()).join(id.name())
}

/// What the link of a plugin says when `version` is the current one.
pub(crate) fn link_text(id: &PluginId, version: &Version) -> PathBuf {
    let up = if id.namespace().is_empty() { "" } else { ".." };
    Path::new(up).join(shelf(id)).join(version.to_string())
}

/// The version that a link `name` names, in the plugin directory or in its folder `namespace`; `None` for any other link.
pub(crate) fn read_link(folder: BorrowedFd<'_>, namespace: Option<&str>, name: &OsStr) -> Option<(PluginId, Version)> {
    let text = rustix::fs::readlinkat(folder, name, Vec::new()).ok()?.into_string().ok()?;
    let id = PluginId::new(namespace.unwrap_or_default(), name.to_str()?).ok()?;
    let version = Version::parse(text.rsplit_once('/')?.1).ok()?;
    (link_text(&id, &version).to_str() == Some(text.as_str())).then_some((id, version))
}

/// Opens the folder of a version from the plugin directory, name by name. `look` is shown each folder on the way.
pub(crate) fn open_version(
    directory: BorrowedFd<'_>,
    id: &PluginId,
    version: &Version,
    mut look: impl FnMut(&OwnedFd) -> Result<(), Errno>,
) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let path = shelf(id).join(version.to_string());
    let mut folder: Option<OwnedFd> = None;
    for name in &path {
        let above = folder.as_ref().map_or(directory, AsFd::as_fd);
        let next = rustix::fs::openat(above, name, flags, Mode::empty())?;
        look(&next)?;
        folder = Some(next);
    }
    folder.ok_or(Errno::NOENT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn only_a_link_of_exactly_this_form_names_a_version() {
        let directory = tempfile::tempdir().unwrap();
        let folder = std::fs::File::open(directory.path()).unwrap();
        for (namespace, text, expected) in [
            (None, ".goplug/versions/-/do/1.2.3", Some("1.2.3")),
            (None, ".goplug/versions/-/do/1.2.3-rc.1+x", Some("1.2.3-rc.1+x")),
            (Some("test"), "../.goplug/versions/test/do/1.2.3", Some("1.2.3")),
            (None, "../.goplug/versions/-/do/1.2.3", None),
            (None, "./.goplug/versions/-/do/1.2.3", None),
            (None, ".goplug/versions/-/do/1.2.3/", None),
            (None, ".goplug//versions/-/do/1.2.3", None),
            (None, ".goplug/versions/-/do/1.2", None),
            (None, ".goplug/versions/-/do/..", None),
            (None, ".goplug/versions/-/other/1.2.3", None),
            (None, ".goplug/versions/test/do/1.2.3", None),
            (None, "/etc", None),
            (None, "/.goplug/versions/-/do/1.2.3", None),
            (Some("test"), ".goplug/versions/test/do/1.2.3", None),
            (Some("test"), "../../.goplug/versions/test/do/1.2.3", None),
            (Some("test"), "../.goplug/versions/-/do/1.2.3", None),
            (Some("test"), "../.goplug/staging/test/do/1.2.3", None),
        ] {
            symlink(text, directory.path().join("do")).unwrap();
            let read = read_link(folder.as_fd(), namespace, "do".as_ref());
            assert_eq!(read.map(|(_, version)| version.to_string()).as_deref(), expected, "{text}");
            std::fs::remove_file(directory.path().join("do")).unwrap();
        }
        assert!(read_link(folder.as_fd(), None, "none".as_ref()).is_none());
    }
}
