//! `.goplug/staging` in a plugin directory: where folders are on their way in or out.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use goplug_pconf_schema::{Code, Fault};
use rustix::fs::{AtFlags, Dir, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};

use super::failed;
use crate::desired::{OWN_FOLDER, lock, open_or_make, own_folder};

pub(crate) const FOLDER: &str = "staging";
/// Deeper than anything that is copied: a bound for deleting what others put there.
const MAX_DEPTH: usize = 128;

/// The folder, held by a shared lock: while anybody holds it, nobody tidies up.
#[derive(Debug)]
pub(crate) struct Staging(OwnedFd);

impl Staging {
    /// Opens the folder, and makes it if it is not there. What killed processes left is removed, unless somebody is at work.
    pub(crate) fn open(directory: &Path) -> Result<Self, Fault> {
        let internal = |why: String| Fault::new(Code::Internal, why);
        let own = own_folder(directory).map_err(internal)?;
        let (folder, _) = open_or_make(own.as_fd(), FOLDER, Mode::RWXU)
            .map_err(failed(&format!("open or make {OWN_FOLDER}/{FOLDER}")))?;
        if rustix::fs::flock(&folder, FlockOperation::NonBlockingLockExclusive).is_ok() {
            for name in names(folder.as_fd()).map_err(failed(&format!("read {OWN_FOLDER}/{FOLDER}")))? {
                remove_tree(folder.as_fd(), &name, 0);
            }
        }
        lock(&folder, FlockOperation::NonBlockingLockShared).map_err(internal)?;
        Ok(Self(folder))
    }

    /// A fresh empty folder in it, and its name.
    pub(crate) fn make(&self) -> Result<(String, OwnedFd), Fault> {
        let name = fresh_name()?;
        rustix::fs::mkdirat(&self.0, &name, Mode::RWXU)
            .map_err(failed(&format!("make a folder in {OWN_FOLDER}/{FOLDER}")))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let folder = rustix::fs::openat(&self.0, &name, flags, Mode::empty())
            .map_err(failed(&format!("open a folder in {OWN_FOLDER}/{FOLDER}")))?;
        Ok((name, folder))
    }

    pub(crate) fn handle(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    pub(crate) fn path(&self, directory: &Path, name: &str) -> PathBuf {
        directory.join(OWN_FOLDER).join(FOLDER).join(name)
    }

    /// Removes a folder in it; what cannot be removed now is removed by the next one.
    pub(crate) fn remove(&self, name: &str) {
        if let Ok(name) = std::ffi::CString::new(name) {
            remove_tree(self.0.as_fd(), &name, 0);
        }
    }
}

/// A name that nobody else has.
pub(crate) fn fresh_name() -> Result<String, Fault> {
    let mut bytes = [0; 8];
    getrandom(&mut bytes, GetRandomFlags::empty()).map_err(failed("get a random number"))?;
    Ok(format!("{:016x}", u64::from_ne_bytes(bytes)))
}

fn names(folder: BorrowedFd<'_>) -> Result<Vec<std::ffi::CString>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(names)
}

/// Removes `name`, a file or a folder with all that is in it, and follows no link.
fn remove_tree(folder: BorrowedFd<'_>, name: &CStr, depth: usize) {
    match rustix::fs::unlinkat(folder, name, AtFlags::empty()) {
        Err(Errno::ISDIR | Errno::PERM) if depth < MAX_DEPTH => {}
        _ => return,
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    if let Ok(inner) = rustix::fs::openat(folder, name, flags, Mode::empty()) {
        for name in names(inner.as_fd()).unwrap_or_default() {
            remove_tree(inner.as_fd(), &name, depth + 1);
        }
    }
    _ = rustix::fs::unlinkat(folder, name, AtFlags::REMOVEDIR);
}
