//! The SHA-256 of a file that is open, remembered as long as the file stays as it is. Blocking.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read, Seek};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use goplug_package::Hashed;
use goplug_pconf_schema::Sha256;
use tokio::sync::Semaphore;

use crate::discovery::{Stamp, stamp_of};

/// The largest program that is read. Those that exist have a tenth of it.
pub(crate) const MAX_EXECUTABLE_BYTES: u64 = 1024 * 1024 * 1024;
/// Programs that are read at once: one on a file system that hangs keeps its place until it answers.
pub(crate) const MAX_AT_ONCE: usize = 4;
/// Digests that are remembered.
const REMEMBERED: usize = 256;
/// Packages whose files are remembered.
const REMEMBERED_PACKAGES: usize = 64;
/// A file that was changed more recently than that may be changed again without another time: the kernel's clock ticks.
const SETTLED: Duration = Duration::from_secs(2);
const PIECE: usize = 256 * 1024;

/// Digests of files that did not change.
#[derive(Debug)]
pub(crate) struct Digests {
    known: Mutex<VecDeque<(Stamp, Sha256)>>,
    /// The files of packages, by the digest of what names them all.
    packages: Mutex<VecDeque<(Sha256, Arc<[Stamp]>)>>,
    pub(super) places: Arc<Semaphore>,
}

impl Default for Digests {
    fn default() -> Self {
        Self { known: Mutex::default(), packages: Mutex::default(), places: Arc::new(Semaphore::new(MAX_AT_ONCE)) }
    }
}

impl Digests {
    /// The digest of a file that was not read yet, at most until `until`.
    ///
    /// # Errors
    /// Why it cannot be told, as a fragment: it is too large, cannot be read, changes meanwhile, or takes too long.
    pub(super) fn of(&self, file: &mut File, until: Instant) -> Result<Sha256, String> {
        let before = stamp(file)?;
        if let Some(digest) = self.remembered(&before) {
            return Ok(digest);
        }
        let begun = SystemTime::now();
        let digest = self.anew(file, until)?;
        if is_settled(&before, begun) {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.truncate(REMEMBERED - 1);
            known.push_front((before, digest));
        }
        Ok(digest)
    }

    /// As [`Digests::of`]; nothing is remembered, and nothing that is remembered is believed.
    #[allow(clippy::unused_self, reason = "the other way to ask")]
    pub(super) fn anew(&self, file: &mut File, until: Instant) -> Result<Sha256, String> {
        let before = stamp(file)?;
        let digest = read(file, until)?;
        if stamp(file)? == before { Ok(digest) } else { Err("it is being written".into()) }
    }

    /// How the files of a package were when all of them were what `contents`, the digest of its `MANIFEST`, promises.
    pub(super) fn package(&self, contents: &Sha256) -> Option<Arc<[Stamp]>> {
        let packages = self.packages.lock().unwrap_or_else(PoisonError::into_inner);
        packages.iter().find(|(known, _)| known == contents).map(|(_, stamps)| Arc::clone(stamps))
    }

    /// Remembers that, unless a file was changed just before it was read at `begun`.
    pub(super) fn remember_package(&self, contents: Sha256, stamps: &Arc<[Stamp]>, begun: SystemTime) {
        if !stamps.iter().all(|stamp| is_settled(stamp, begun)) {
            return;
        }
        let mut packages = self.packages.lock().unwrap_or_else(PoisonError::into_inner);
        packages.retain(|(known, _)| *known != contents);
        packages.truncate(REMEMBERED_PACKAGES - 1);
        packages.push_front((contents, Arc::clone(stamps)));
    }

    fn remembered(&self, stamp: &Stamp) -> Option<Sha256> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().find(|(known, _)| known == stamp).map(|(_, digest)| *digest)
    }
}

/// Whether the file was changed so long before that another change cannot have the same time.
fn is_settled(stamp: &Stamp, begun: SystemTime) -> bool {
    let begun = begun.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    stamp.ctime_ns + SETTLED.as_nanos().cast_signed() < i128::try_from(begun.as_nanos()).unwrap_or(i128::MAX)
}

fn stamp(file: &File) -> Result<Stamp, String> {
    rustix::fs::fstat(file).map(|status| stamp_of(&status)).map_err(|error| format!("cannot be looked at: {error}"))
}

fn read(file: &mut File, until: Instant) -> Result<Sha256, String> {
    let too_large = |bytes: u64| format!("is {bytes} bytes or more, the limit is {MAX_EXECUTABLE_BYTES}");
    let unreadable = |error: std::io::Error| format!("cannot be read: {error}");
    let size = file.metadata().map_err(unreadable)?.len();
    if size > MAX_EXECUTABLE_BYTES {
        return Err(too_large(size));
    }
    file.rewind().map_err(unreadable)?;
    let (mut hashed, mut piece, mut count) = (Hashed::new(file), vec![0; PIECE], 0);
    loop {
        if Instant::now() >= until {
            return Err("could not be read in time".into());
        }
        match hashed.read(&mut piece) {
            Ok(0) => return Ok(hashed.finish().1),
            Ok(length) => {
                count += length as u64;
                if count > MAX_EXECUTABLE_BYTES {
                    return Err(too_large(count));
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(unreadable(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    const LATER: Duration = Duration::from_secs(60);

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[test]
    fn the_digest_is_that_of_the_standard() {
        let digests = Digests::default();
        for (text, expected) in [
            ("", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
            ("abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        ] {
            let digest = digests.of(&mut file(text.as_bytes()), Instant::now() + LATER).unwrap();
            assert_eq!(digest.to_string(), expected);
        }
    }

    #[test]
    fn what_was_written_just_now_is_read_again() {
        let (digests, until) = (Digests::default(), Instant::now() + LATER);
        let mut file = file(b"one");
        let first = digests.of(&mut file, until).unwrap();
        let stamp = stamp(&file).unwrap();
        assert_eq!(digests.remembered(&stamp), None);
        file.rewind().unwrap();
        file.write_all(b"two").unwrap();
        assert_ne!(digests.of(&mut file, until).unwrap(), first);
    }

    #[test]
    fn what_is_old_is_remembered_as_long_as_it_stays_as_it_is() {
        let (digests, until) = (Digests::default(), Instant::now() + LATER);
        let mut old = File::open("/proc/self/exe").unwrap();
        // Whoever has just built it has to build it again to see this.
        if stamp(&old).unwrap().ctime_ns / 1_000_000_000 + 3 > i128::from(now_seconds()) {
            return;
        }
        let digest = digests.of(&mut old, until).unwrap();
        assert_eq!(digests.remembered(&stamp(&old).unwrap()), Some(digest));
        let other = Stamp { ctime_ns: 7, ..stamp(&old).unwrap() };
        assert_eq!(digests.remembered(&other), None);
        assert!(digests.of(&mut old, Instant::now()).is_ok(), "nothing is read again");
    }

    #[test]
    fn what_is_too_large_or_takes_too_long_is_refused() {
        let digests = Digests::default();
        let huge = tempfile::tempfile().unwrap();
        huge.set_len(MAX_EXECUTABLE_BYTES + 1).unwrap();
        let refused = |file: File, until| digests.of(&mut { file }, until).unwrap_err();
        assert!(refused(huge, Instant::now() + LATER).contains("the limit is 1073741824"));
        assert!(refused(file(b"x"), Instant::now()).contains("in time"));
        let (_reader, writer) = std::io::pipe().unwrap();
        let writer = File::from(std::os::fd::OwnedFd::from(writer));
        assert!(refused(writer, Instant::now() + LATER).contains("cannot be read"));
    }

    fn now_seconds() -> u64 {
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
    }
}
