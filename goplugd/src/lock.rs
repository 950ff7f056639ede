//! One daemon per state folder.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::Duration;

use goplug_registry::{Code, Error};

/// The file in the state folder that the running daemon holds locked; it holds that daemon's pid.
const LOCK_FILE: &str = "goplugd.lock";
/// How often, and how far apart, a loser looks for the pid that the winner is just writing.
const PID_LOOKS: u32 = 20;
const PID_LOOK_EVERY: Duration = Duration::from_millis(5);

/// The right to be the daemon of a state folder, until it is dropped or the process dies.
#[derive(Debug)]
pub(crate) struct Lock(File);

impl Lock {
    /// Takes the lock of `state_dir`, which is made (mode 0700) if it is missing.
    ///
    /// # Errors
    /// `conflict` naming the pid of the daemon that holds it; `internal` when the folder cannot be used.
    pub(crate) fn take(state_dir: &Path) -> Result<Self, Error> {
        let failed = |what: &str, error: std::io::Error| {
            Error::new(
                Code::Internal,
                format!("{what} in the state folder {}: {error}: name another with --state-dir", state_dir.display()),
            )
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(state_dir)
            .map_err(|error| failed("cannot work", error))?;
        let path = state_dir.join(LOCK_FILE);
        // Not truncated: until the lock is ours the pid in it is somebody else's.
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
            .open(&path)
            .map_err(|error| failed("cannot open goplugd.lock", error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(held(&mut file, state_dir)),
            Err(TryLockError::Error(error)) => return Err(failed("cannot lock goplugd.lock", error)),
        }
        file.set_len(0)
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(|error| failed("cannot write goplugd.lock", error))?;
        Ok(Self(file))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // A pid that is no longer a daemon's shall not be named to the next loser. The file stays: removing a locked file
        // would let two daemons lock two files of one name.
        let _ = self.0.set_len(0);
    }
}

fn held(file: &mut File, state_dir: &Path) -> Error {
    let who = match holder(file) {
        Some(pid) => format!("goplugd with pid {pid}"),
        None => "another goplugd that is just starting".to_owned(),
    };
    let text =
        format!("{who} already runs on the state folder {}: stop it, or give another --state-dir", state_dir.display());
    Error::new(Code::Conflict, text)
}

/// The pid in the lock file, once it is there and alive: the winner writes it right after it has the lock.
fn holder(file: &mut File) -> Option<u32> {
    for look in 0..PID_LOOKS {
        if look > 0 {
            std::thread::sleep(PID_LOOK_EVERY);
        }
        let mut text = String::new();
        file.rewind().ok()?;
        file.take(32).read_to_string(&mut text).ok()?;
        let pid = text.strip_suffix('\n').and_then(|text| text.parse::<u32>().ok());
        if let Some(pid) = pid.filter(|pid| Path::new("/proc").join(pid.to_string()).exists()) {
            return Some(pid);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_told_the_pid_of_the_first_and_the_next_gets_the_folder() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("deep/state");
        let first = Lock::take(&state).unwrap();
        let refused = Lock::take(&state).unwrap_err();
        assert_eq!(refused.code, Code::Conflict);
        assert!(refused.message.contains(&format!("pid {}", std::process::id())), "{refused}");
        drop(first);
        Lock::take(&state).unwrap();
    }

    #[test]
    fn what_a_killed_daemon_left_behind_is_no_obstacle() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(LOCK_FILE), "4294967295\nrubbish beyond it").unwrap();
        drop(Lock::take(dir.path()).unwrap());
        assert_eq!(std::fs::read(dir.path().join(LOCK_FILE)).unwrap(), b"");
    }
}
