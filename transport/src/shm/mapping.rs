//! Memory of a sealed memfd in this process, as words.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::AtomicU64;

use rustix::fs::{FileType, MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};

/// The length stands: what was mapped stays there. (A file that a peer makes shorter kills whoever touches the rest.)
pub(super) const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW);
/// `f_type` of the file system of ordinary memory. (Huge pages are of another: there may be none left when one is touched,
/// which kills whoever does.)
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// A file in this process's memory, as long as this lives.
#[derive(Debug)]
pub(super) struct Mapping {
    words: NonNull<AtomicU64>,
    count: usize,
}

// SAFETY: a mapping may be used and removed from any thread, and what is in it are atomics.
#[allow(unsafe_code)]
unsafe impl Send for Mapping {}
// SAFETY: as above; nothing in it changes but through atomics.
#[allow(unsafe_code)]
unsafe impl Sync for Mapping {}

/// A new memfd of this length, which may still be sealed.
pub(super) fn new_memfd(name: &str, length: u64) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // NOEXEC_SEAL is of Linux 6.3.
    let memfd = match rustix::fs::memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL) {
        Err(rustix::io::Errno::INVAL) => rustix::fs::memfd_create(name, flags)?,
        made => made?,
    };
    rustix::fs::ftruncate(&memfd, length)?;
    Ok(memfd)
}

/// Checks that a descriptor that somebody else made is memory whose length is `length` and stands.
///
/// # Errors
/// Why it is not.
pub(super) fn check_memfd(memfd: &OwnedFd, length: u64) -> io::Result<()> {
    let wrong = |text: String| Err(io::Error::new(io::ErrorKind::InvalidData, text));
    let stat = rustix::fs::fstat(memfd)?;
    let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    if !is_file || u64::try_from(rustix::fs::fstatfs(memfd)?.f_type) != Ok(TMPFS_MAGIC) {
        return wrong("the descriptor is no memory".into());
    }
    // Before the length is looked at: only then does it stand.
    let seals = rustix::fs::fcntl_get_seals(memfd)?;
    if !seals.contains(SEALS) {
        return wrong(format!("the memory is not sealed: {seals:?}"));
    }
    let stat = rustix::fs::fstat(memfd)?;
    if u64::try_from(stat.st_size) != Ok(length) {
        return wrong(format!("the memory has {} bytes instead of {length}", stat.st_size));
    }
    Ok(())
}

impl Mapping {
    /// Maps all of a file whose length stands.
    #[allow(unsafe_code)]
    pub(super) fn new(memfd: BorrowedFd<'_>, length: u64, access: ProtFlags) -> io::Result<Self> {
        let length = usize::try_from(length).map_err(|_| io::ErrorKind::OutOfMemory)?;
        // SAFETY: the kernel chooses a place where nothing is; nothing that exists is touched.
        let start = unsafe { rustix::mm::mmap(ptr::null_mut(), length, access, MapFlags::SHARED, memfd, 0) }?;
        let words = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { words, count: length / size_of::<u64>() })
    }

    /// Maps for reading what somebody else has made.
    ///
    /// # Errors
    /// As [`check_memfd`], and as the operating system says.
    pub(super) fn of_others(memfd: &OwnedFd, length: u64) -> io::Result<Self> {
        check_memfd(memfd, length)?;
        Self::new(memfd.as_fd(), length, ProtFlags::READ)
    }

    /// Where it begins, for whoever knows that nobody else writes.
    pub(super) fn start(&self) -> NonNull<u8> {
        self.words.cast()
    }

    /// Its length in bytes.
    pub(super) fn len(&self) -> usize {
        self.count * size_of::<u64>()
    }

    /// What is in it; of a mapping for reading to be loaded only, and relaxed.
    #[inline]
    #[allow(unsafe_code)]
    pub(super) fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping has `count` words from `words` on, which is the beginning of a page and so aligned; it is
        // removed only when `self` is dropped, which this borrow outlives not; its length cannot change, because the file
        // is sealed. Every byte of it is a valid value. It is written at the same time by others, here and in another
        // process, but seen as atomics only, by us and by whoever keeps to the rules; a peer that does not keep to them
        // changes values, as any store of it would.
        unsafe { std::slice::from_raw_parts(self.words.as_ptr(), self.count) }
    }
}

impl Drop for Mapping {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        // SAFETY: this is the mapping that was made, whole, and nobody has a reference into it: those borrow from `self`.
        // A failure would only leave it where it is.
        _ = unsafe { rustix::mm::munmap(self.words.as_ptr().cast(), self.len()) };
    }
}
