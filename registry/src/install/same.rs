//! Is a folder what is installed already? What a plugin wrote beside its own files meanwhile does not count.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};

/// How much is compared at once.
const PIECE: usize = 64 * 1024;
/// As deep as is copied.
const MAX_DEPTH: usize = 32;

/// Whether every file of `source` is in the folder `there`, with the same bytes, and can be executed there if it can here.
pub(super) fn is_same(source: BorrowedFd<'_>, there: &Path) -> bool {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(there, flags, Mode::empty()).is_ok_and(|there| same_folders(source, there.as_fd(), 0).is_some())
}

fn same_folders(source: BorrowedFd<'_>, there: BorrowedFd<'_>, depth: usize) -> Option<()> {
    for entry in Dir::read_from(source).ok()? {
        let entry = entry.ok()?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let status = rustix::fs::statat(source, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        let is_folder = FileType::from_raw_mode(status.st_mode) == FileType::Directory;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let [one, other] = [source, there].map(|folder| rustix::fs::openat(folder, name, flags, Mode::empty()).ok());
        let (one, other) = (one?, other?);
        let found = rustix::fs::fstat(&other).ok()?;
        if FileType::from_raw_mode(found.st_mode) != FileType::from_raw_mode(status.st_mode) {
            return None;
        }
        if is_folder {
            (depth < MAX_DEPTH).then_some(())?;
            same_folders(one.as_fd(), other.as_fd(), depth + 1)?;
        } else {
            let runs = |mode| mode & 0o111 != 0;
            (found.st_size == status.st_size && runs(found.st_mode) == runs(status.st_mode)).then_some(())?;
            same_files(File::from(one), File::from(other))?;
        }
    }
    Some(())
}

fn same_files(mut one: File, mut other: File) -> Option<()> {
    let (mut a, mut b) = (vec![0; PIECE], vec![0; PIECE]);
    loop {
        let read = one.read(&mut a).ok()?;
        if read == 0 {
            return (other.read(&mut b).ok()? == 0).then_some(());
        }
        other.read_exact(&mut b[..read]).ok()?;
        (a[..read] == b[..read]).then_some(())?;
    }
}
