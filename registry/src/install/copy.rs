//! What is copied and what is refused: folders and regular files, without following links, within limits.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use goplug_pconf_schema::{Code, Fault};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};

use super::{error_of, failed, wrong};
use crate::words::show;

/// The most files and folders of one plugin: a large Python environment has so many.
const MAX_FILES: u64 = 20_000;
/// The most bytes of one plugin.
const MAX_BYTES: u64 = 2 << 30;
/// How deep folders may lie.
const MAX_DEPTH: usize = 32;
/// The most refused names that are told.
const MAX_TOLD: usize = 20;

/// What was seen or copied.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tally {
    /// Files and folders.
    pub(super) files: u64,
    pub(super) bytes: u64,
}

impl Tally {
    fn add(&mut self, bytes: u64) -> Result<(), Fault> {
        self.files += 1;
        self.bytes += bytes;
        if self.files > MAX_FILES {
            return Err(Fault::new(Code::TooLarge, format!("it holds more than {MAX_FILES} files and folders")));
        }
        if self.bytes > MAX_BYTES {
            return Err(Fault::new(Code::TooLarge, format!("it holds more than {MAX_BYTES} bytes")));
        }
        Ok(())
    }
}

/// Looks at everything in the folder, and tells every name that cannot be copied.
pub(super) fn survey(folder: BorrowedFd<'_>) -> Result<Tally, Fault> {
    let (mut tally, mut refused) = (Tally::default(), Vec::new());
    look(folder, Path::new(""), 0, &mut tally, &mut refused)?;
    if refused.is_empty() {
        return Ok(tally);
    }
    let more = refused.len().saturating_sub(MAX_TOLD);
    refused.truncate(MAX_TOLD);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    Err(wrong(format!("only files and folders can be copied, and {}{more}", refused.join(", "))))
}

fn look(
    folder: BorrowedFd<'_>,
    path: &Path,
    depth: usize,
    tally: &mut Tally,
    refused: &mut Vec<String>,
) -> Result<(), Fault> {
    for name in names(folder, path)? {
        let path = path.join(OsStr::from_bytes(name.as_bytes()));
        let status = rustix::fs::statat(folder, &name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(failed(&format!("look at {}", show(&path))))?;
        match FileType::from_raw_mode(status.st_mode) {
            FileType::RegularFile => tally.add(u64::try_from(status.st_size).unwrap_or(u64::MAX))?,
            FileType::Directory => {
                tally.add(0)?;
                check_depth(depth, &path)?;
                look(open_folder(folder, &name, &path)?.as_fd(), &path, depth + 1, tally, refused)?;
            }
            other => refused.push(format!("{} is a {}", show(&path), kind(other))),
        }
    }
    Ok(())
}

/// Copies everything in the folder `from` to the empty folder `to`, and syncs it.
pub(super) fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>, tally: &mut Tally) -> Result<(), Fault> {
    copy_folder(from, to, Path::new(""), 0, tally)
}

fn copy_folder(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    path: &Path,
    depth: usize,
    tally: &mut Tally,
) -> Result<(), Fault> {
    for name in names(from, path)? {
        let path = path.join(OsStr::from_bytes(name.as_bytes()));
        let status = rustix::fs::statat(from, &name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(failed(&format!("look at {}", show(&path))))?;
        match FileType::from_raw_mode(status.st_mode) {
            FileType::RegularFile => copy_file(from, to, &name, &path, tally)?,
            FileType::Directory => {
                tally.add(0)?;
                check_depth(depth, &path)?;
                let inner = open_folder(from, &name, &path)?;
                rustix::fs::mkdirat(to, &name, Mode::RWXU).map_err(failed(&format!("make {}", show(&path))))?;
                let copied = open_folder(to, &name, &path)?;
                copy_folder(inner.as_fd(), copied.as_fd(), &path, depth + 1, tally)?;
            }
            // It came after the survey.
            other => return Err(wrong(format!("{} is a {}", show(&path), kind(other)))),
        }
    }
    // Readable for whoever runs the plugin, writable for us alone, whatever the source was.
    rustix::fs::fchmod(to, Mode::from_raw_mode(0o755)).map_err(failed(&format!("set the mode of {}", show(path))))?;
    rustix::fs::fsync(to).map_err(failed(&format!("sync {}", show(path))))
}

fn copy_file(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    name: &CString,
    path: &Path,
    tally: &mut Tally,
) -> Result<(), Fault> {
    let shown = show(path);
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let source = rustix::fs::openat(from, name, flags, Mode::empty()).map_err(failed(&format!("open {shown}")))?;
    let status = rustix::fs::fstat(&source).map_err(failed(&format!("look at {shown}")))?;
    if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile {
        return Err(wrong(format!("{shown} is no regular file any more")));
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let target =
        rustix::fs::openat(to, name, flags, Mode::RUSR | Mode::WUSR).map_err(failed(&format!("make {shown}")))?;
    let mut target = File::from(target);
    // One byte more than allowed tells that there is more.
    let mut bytes = File::from(source).take(MAX_BYTES.saturating_sub(tally.bytes) + 1);
    let copied =
        std::io::copy(&mut bytes, &mut target).map_err(|error| failed(&format!("copy {shown}"))(error_of(&error)))?;
    tally.add(copied)?;
    let mode = if status.st_mode & 0o111 != 0 { 0o755 } else { 0o644 };
    rustix::fs::fchmod(&target, Mode::from_raw_mode(mode)).map_err(failed(&format!("set the mode of {shown}")))?;
    rustix::fs::fsync(&target).map_err(failed(&format!("sync {shown}")))
}

fn names(folder: BorrowedFd<'_>, path: &Path) -> Result<Vec<CString>, Fault> {
    let here = if path.as_os_str().is_empty() { PathBuf::from("the folder") } else { path.to_owned() };
    let what = format!("read {}", show(&here));
    let unreadable = failed(&what);
    let mut names = Vec::new();
    for entry in Dir::read_from(folder).map_err(&unreadable)? {
        let entry = entry.map_err(&unreadable)?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
        if names.len() as u64 > MAX_FILES {
            return Err(Fault::new(Code::TooLarge, format!("it holds more than {MAX_FILES} files and folders")));
        }
    }
    // So that what is told, and what is done, does not depend on the file system.
    names.sort();
    Ok(names)
}

fn open_folder(folder: BorrowedFd<'_>, name: &CString, path: &Path) -> Result<OwnedFd, Fault> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(folder, name, flags, Mode::empty()).map_err(failed(&format!("open {}", show(path))))
}

fn check_depth(depth: usize, path: &Path) -> Result<(), Fault> {
    if depth < MAX_DEPTH {
        Ok(())
    } else {
        Err(Fault::new(Code::TooLarge, format!("{} lies deeper than {MAX_DEPTH} folders", show(path))))
    }
}

fn kind(kind: FileType) -> &'static str {
    match kind {
        FileType::Symlink => "symbolic link",
        FileType::Fifo => "FIFO",
        FileType::Socket => "socket",
        FileType::CharacterDevice | FileType::BlockDevice => "device",
        _ => "special file",
    }
}
