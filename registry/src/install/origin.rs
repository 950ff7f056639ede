//! Where a version came from: a slip beside what was fetched goes to a file beside the version, for people. Blocking.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::BorrowedFd;
use std::path::Path;

use goplug_package::{Hashed, Packing};
use goplug_pconf_schema::contents::CONTENTS_NAME;
use goplug_pconf_schema::{Fault, MAX_ORIGIN_BYTES, Origin, Sha256};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use semver::Version;

use super::staging::FOLDER;
use super::{error_of, failed};
use crate::desired::OWN_FOLDER;

/// The slip beside a folder or a package that was fetched.
pub(crate) const SLIP: &str = "origin.json";

/// What the slip says, if `source` was fetched to the staging folder of `directory`, which nobody else can write to.
pub(crate) fn of(directory: &Path, source: &Path) -> Option<Origin> {
    let fetched = source.parent()?;
    let staging = directory.canonicalize().ok()?.join(OWN_FOLDER).join(FOLDER);
    (fetched.parent()?.canonicalize().ok()? == staging).then(|| read(&fetched.join(SLIP)))?
}

/// Writes the list of all files of a folder in the staging folder, with their digests, to the folder: the `MANIFEST` that a
/// package would have. Its digest.
pub(crate) fn list(folder: &Path) -> Result<Sha256, Fault> {
    let text = Packing::of(folder)?.contents().to_json();
    let writing = failed("list the files of what was built");
    std::fs::write(folder.join(CONTENTS_NAME), &text).map_err(|error| writing(error_of(&error)))?;
    let mut hashed = Hashed::new(text.as_slice());
    std::io::copy(&mut hashed, &mut std::io::sink()).map_err(|error| writing(error_of(&error)))?;
    Ok(hashed.finish().1)
}

/// Where the version whose folder is `folder` came from, if that was written down.
pub(crate) fn of_version(folder: &Path) -> Option<Origin> {
    read(&folder.with_file_name(name(folder.file_name()?.to_str()?)))
}

/// Writes down where the version came from; forgets what was written down of another one of that number.
pub(crate) fn note(shelf: BorrowedFd<'_>, version: &Version, origin: Option<&Origin>) -> Result<(), Fault> {
    let name = name(&version.to_string());
    let Some(origin) = origin else {
        return match rustix::fs::unlinkat(shelf, &name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(failed("forget where the version came from")(error)),
        };
    };
    let writing = failed("write down where the version comes from");
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(shelf, &name, flags, Mode::from_raw_mode(0o644)).map_err(&writing)?;
    let mut file = File::from(file);
    file.write_all(&origin.to_json()).and_then(|()| file.sync_all()).map_err(|error| writing(error_of(&error)))
}

fn name(version: &str) -> String {
    format!("{version}.origin")
}

fn read(path: &Path) -> Option<Origin> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty()).ok()?);
    let mut bytes = Vec::new();
    file.take(MAX_ORIGIN_BYTES as u64 + 1).read_to_end(&mut bytes).ok()?;
    Origin::read(&bytes)
}
