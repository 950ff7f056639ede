//! A file that nobody can write while it is looked at.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// The same on every architecture of Linux; no crate of ours names it.
const F_SETSIG: libc::c_int = 10;

/// Holds off everybody who would write the file in place, until the last copy of this descriptor is closed: their `open`
/// waits, at most as long as `/proc/sys/fs/lease-break-time` says (45 s), then the hold is over. It does not keep another
/// file from taking the place of this one. `file` must be open for reading only.
///
/// # Errors
/// `WouldBlock`: somebody has it open for writing now. `PermissionDenied`: it is another user's, and we are not root.
/// `InvalidInput`: its file system knows no such thing.
#[allow(unsafe_code)]
pub fn hold_off_writers(file: &File) -> io::Result<()> {
    let fd = file.as_raw_fd();
    // SAFETY: both calls take a descriptor that is open as long as `file` is borrowed, and a number; no memory is touched.
    // The signal that tells of a waiting writer is by default the one that ends a process; this one is ignored by
    // default, and it is chosen before anybody can wait.
    let held = unsafe {
        libc::fcntl(fd, F_SETSIG, libc::SIGURG) == 0 && libc::fcntl(fd, libc::F_SETLEASE, libc::F_RDLCK) == 0
    };
    if held { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Write};
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_writer_waits_for_whoever_looks() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "one").unwrap();
        let writer = File::options().write(true).open(&path).unwrap();
        let file = File::open(&path).unwrap();
        match hold_off_writers(&file) {
            // Only some file systems can.
            Err(error) if error.kind() == ErrorKind::InvalidInput => return,
            refused => assert_eq!(refused.unwrap_err().kind(), ErrorKind::WouldBlock),
        }
        drop(writer);
        hold_off_writers(&file).unwrap();
        let begun = Instant::now();
        let writing = std::thread::spawn({
            let path = path.clone();
            move || {
                let mut file = File::options().write(true).open(path).unwrap();
                file.write_all(b"two").unwrap();
                Instant::now()
            }
        });
        // It cannot be seen that somebody waits; but whoever does not wait is done by then.
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(std::fs::read(&path).unwrap(), b"one");
        let copy = file.try_clone().unwrap();
        drop(file);
        assert_eq!(std::fs::read(&path).unwrap(), b"one", "a copy holds it, too");
        drop(copy);
        assert!(writing.join().unwrap() - begun >= Duration::from_millis(50));
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
    }
}
