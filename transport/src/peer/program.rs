//! Which program a process runs: the file itself, opened through the kernel, not a path that may lead elsewhere by now.
//!
//! `/proc/PID/…` is reached by number, and a number may pass to another process. So the number is asked of the pidfd, and
//! the process must still live when everything has been read: as long as it does, its number is nobody else's.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::{Peer, Process};

/// How much of a command line is read.
const MAX_COMMAND_LINE: u64 = 4_096;
/// How often a process that turns into another program while it is looked at is looked at again.
const LOOKS: usize = 3;
/// What the kernel writes behind the path of a file that is no longer there.
const DELETED: &[u8] = b" (deleted)";

/// The program of a process, at one moment.
#[derive(Debug)]
pub struct Program {
    /// The process.
    pub pid: u32,
    /// Where the file lies, as the kernel knows it; of another mount namespace the path means nothing here.
    pub path: PathBuf,
    /// The file is no longer at that path.
    pub deleted: bool,
    /// The file that runs, open for reading, or why it cannot be read.
    pub file: io::Result<File>,
    /// The words that the process was started with, as it shows them now, each ended by a NUL; at most 4 KiB.
    pub command_line: Vec<u8>,
}

impl Peer {
    /// Looks at the program that the process runs now. Blocking.
    ///
    /// # Errors
    /// `NotFound`: the process has ended; `Unsupported`: the kernel does not pin it, or it is not visible here;
    /// `PermissionDenied`: it is another user's; else what the kernel says.
    pub fn program(&self) -> io::Result<Program> {
        let pidfd = match &self.0.process {
            Process::Pinned { pidfd, .. } => pidfd,
            Process::Gone => return Err(gone()),
            Process::Unpinned => return Err(io::Error::new(io::ErrorKind::Unsupported, "the kernel gives no pidfd")),
        };
        let folder = PathBuf::from(format!("/proc/{}", pid_in_proc(pidfd)?));
        for _ in 0..LOOKS {
            let found = look(&folder);
            // Only now is it known whose files these were.
            if !self.is_alive() {
                return Err(gone());
            }
            if let Some((path, deleted, file, command_line)) = found? {
                let pid = self.pid();
                return Ok(Program { pid, path, deleted, file, command_line });
            }
        }
        Err(io::Error::new(io::ErrorKind::Interrupted, "it turns into another program again and again"))
    }

    /// Whether the process still runs the file of this device and inode. Blocking.
    pub fn runs(&self, device: u64, inode: u64) -> bool {
        let Process::Pinned { pidfd, .. } = &self.0.process else { return false };
        let Ok(pid) = pid_in_proc(pidfd) else { return false };
        let status = std::fs::metadata(format!("/proc/{pid}/exe"));
        status.is_ok_and(|status| (status.dev(), status.ino()) == (device, inode)) && self.is_alive()
    }
}

type Looked = (PathBuf, bool, io::Result<File>, Vec<u8>);

/// `None`: it turned into another program meanwhile.
fn look(folder: &Path) -> io::Result<Option<Looked>> {
    let exe = folder.join("exe");
    let path = std::fs::read_link(&exe)?;
    let before = std::fs::metadata(&exe)?;
    // Without waiting: whatever it is, it is no program that has to be waited for.
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(&exe);
    let mut command_line = Vec::new();
    // Words are a hint: without them the rest is worth as much.
    _ = File::open(folder.join("cmdline")).and_then(|file| file.take(MAX_COMMAND_LINE).read_to_end(&mut command_line));
    let after = std::fs::metadata(&exe)?;
    let is = |status: &std::fs::Metadata| (status.dev(), status.ino());
    let opened = match &file {
        Ok(file) => is(&file.metadata()?),
        Err(_) => is(&before),
    };
    if is(&before) != is(&after) || opened != is(&before) || std::fs::read_link(&exe)? != path {
        return Ok(None);
    }
    let (path, deleted) = place(path, is(&before));
    Ok(Some((path, deleted, file, command_line)))
}

/// Whether the kernel says that the file is no longer there, or its name merely ends so.
fn place(path: PathBuf, file: (u64, u64)) -> (PathBuf, bool) {
    let Some(bare) = path.as_os_str().as_bytes().strip_suffix(DELETED) else { return (path, false) };
    if std::fs::symlink_metadata(&path).is_ok_and(|status| (status.dev(), status.ino()) == file) {
        return (path, false);
    }
    (PathBuf::from(std::ffi::OsStr::from_bytes(bare)), true)
}

/// The number by which `/proc` knows the process behind a pidfd: it may be that of another namespace than ours.
fn pid_in_proc(pidfd: &OwnedFd) -> io::Result<u32> {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd()))?;
    let number = text.lines().find_map(|line| line.strip_prefix("Pid:")).and_then(|pid| pid.trim().parse().ok());
    match number {
        Some(-1_i64) => Err(gone()),
        Some(pid @ 1..) => u32::try_from(pid).map_err(|_| invisible()),
        _ => Err(invisible()),
    }
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "the process has ended")
}

fn invisible() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "the process is not visible in /proc")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;
    use std::os::unix::net::UnixListener;
    use std::process::{Command, Stdio};

    use tokio::net::UnixStream;

    use super::*;

    async fn own() -> Peer {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("s")).unwrap();
        let peer = Peer::of(&UnixStream::connect(folder.path().join("s")).await.unwrap()).unwrap();
        drop(listener);
        peer
    }

    #[tokio::test]
    async fn our_own_program_is_the_file_that_we_run() {
        let program = own().await.program().unwrap();
        let us = std::env::current_exe().unwrap();
        assert_eq!((program.pid, &program.path, program.deleted), (std::process::id(), &us, false));
        let (file, status) = (program.file.unwrap().metadata().unwrap(), std::fs::metadata(&us).unwrap());
        assert_eq!((file.dev(), file.ino()), (status.dev(), status.ino()));
        let first = std::env::args().next().unwrap();
        assert!(program.command_line.starts_with(first.as_bytes()));
        assert!(own().await.runs(status.dev(), status.ino()) && !own().await.runs(status.dev(), status.ino() + 1));
    }

    #[test]
    fn a_name_that_ends_as_the_kernel_says_it_is_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let odd = folder.path().join("tool (deleted)");
        std::fs::write(&odd, "").unwrap();
        let status = std::fs::metadata(&odd).unwrap();
        let file = (status.dev(), status.ino());
        assert_eq!(place(odd.clone(), file), (odd.clone(), false));
        assert_eq!(place(odd, (file.0, file.1 + 1)), (folder.path().join("tool"), true));
        assert_eq!(place("/bin/x".into(), file), ("/bin/x".into(), false));
    }

    /// A child whose program we choose, killed when it is dropped.
    struct Child(std::process::Child);

    impl Drop for Child {
        fn drop(&mut self) {
            _ = self.0.kill();
            _ = self.0.wait();
        }
    }

    #[test]
    fn a_file_that_was_replaced_is_read_as_it_runs() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sleeper");
        std::fs::copy("/bin/sleep", &path).unwrap();
        let mut command = Command::new(&path);
        let child = Child(command.arg("60").stdin(Stdio::null()).spawn().unwrap());
        let proc = PathBuf::from(format!("/proc/{}", child.0.id()));
        std::fs::write(folder.path().join("new"), "another").unwrap();
        std::fs::rename(folder.path().join("new"), &path).unwrap();
        let (shown, deleted, file, _) = look(&proc).unwrap().unwrap();
        assert_eq!((shown, deleted), (path, true));
        let mut bytes = Vec::new();
        file.unwrap().read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, std::fs::read("/bin/sleep").unwrap());
    }
}
