//! A package is verified whole, then unpacked to the staging folder: from there it goes on as any other folder does.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use goplug_package::{Keys, Package, Signer};
use goplug_pconf_schema::{Fault, Sha256};
use rustix::fs::{FileType, Mode, OFlags};

use super::copy::Tally;
use super::staging::Staging;
use super::{failed, wrong};
use crate::words::show;

/// A folder on its way in; dropped, it is removed unless it came to its place.
#[derive(Debug)]
pub(crate) struct Staged {
    pub(crate) staging: Staging,
    pub(crate) name: String,
}

impl Drop for Staged {
    fn drop(&mut self) {
        self.staging.remove(&self.name);
    }
}

pub(super) struct Unpacked {
    pub(super) staged: Staged,
    pub(super) folder: PathBuf,
    pub(super) handle: OwnedFd,
    pub(super) tally: Tally,
    /// The digest of its `MANIFEST`.
    pub(super) contents: Sha256,
    /// The key that signed it.
    pub(super) signed_by: Option<String>,
}

/// The file at `path`, if it is one: then it must be a package.
pub(super) fn open(path: &Path) -> Result<Option<File>, Fault> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let Ok(file) = rustix::fs::open(path, flags, Mode::empty()) else { return Ok(None) };
    let status = rustix::fs::fstat(&file).map_err(failed(&format!("look at {}", show(path))))?;
    match FileType::from_raw_mode(status.st_mode) {
        FileType::RegularFile => Ok(Some(File::from(file))),
        FileType::Directory => Ok(None),
        _ => Err(wrong(format!("{} is neither a folder nor a package", show(path)))),
    }
}

/// Checks everything of the package, and only then writes what it holds.
pub(super) fn unpack(directory: &Path, file: File, keys: &Keys) -> Result<Unpacked, Fault> {
    let mut package = Package::open(file, keys)?;
    let staging = Staging::open(directory)?;
    let (name, handle) = staging.make()?;
    let staged = Staged { staging, name };
    package.unpack(handle.as_fd(), &mut |_| ())?;
    let files = &package.contents().files;
    let tally = Tally { files: files.len() as u64, bytes: files.iter().map(|file| file.size).sum() };
    let signed_by = match package.signer() {
        Signer::Trusted(key) => Some(key.as_str().to_owned()),
        Signer::Somebody | Signer::Nobody => None,
    };
    let contents = package.digest();
    Ok(Unpacked { contents, folder: staged.staging.path(directory, &staged.name), staged, handle, tally, signed_by })
}
