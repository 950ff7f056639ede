//! The memory: a sealed memfd, mapped by both sides, as words.

use std::io;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use goplug_pconf_schema::wire::shm::{PAGE_BYTES, RING_HEADER_WORDS, memory_bytes};
use rustix::fs::{FileType, MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};

use super::ring::Place;

/// Its length stands: what was mapped stays there. (A file that a peer makes shorter kills whoever touches the rest.)
const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW);

/// Memory that two processes have mapped; here it goes with the last of its clones.
#[derive(Debug, Clone)]
#[cfg_attr(not(feature = "memory"), allow(unreachable_pub))]
pub struct Region(Arc<Mapping>);

#[derive(Debug)]
struct Mapping {
    words: NonNull<AtomicU64>,
    count: usize,
}

// SAFETY: a mapping may be used and removed from any thread, and what is in it are atomics.
#[allow(unsafe_code)]
unsafe impl Send for Mapping {}
// SAFETY: as above; nothing in it changes but through atomics.
#[allow(unsafe_code)]
unsafe impl Sync for Mapping {}

impl Region {
    /// New memory for two rings of this length, and the descriptor to pass on.
    ///
    /// # Errors
    /// As the operating system says, and for a length that no ring has.
    #[cfg_attr(not(feature = "memory"), allow(unreachable_pub))]
    pub fn create(ring_bytes: u64) -> io::Result<(Self, OwnedFd)> {
        let length = memory_bytes(ring_bytes).ok_or(io::ErrorKind::InvalidInput)?;
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        // NOEXEC_SEAL is of Linux 6.3.
        let memfd = match rustix::fs::memfd_create("goplug-rings", flags | MemfdFlags::NOEXEC_SEAL) {
            Err(rustix::io::Errno::INVAL) => rustix::fs::memfd_create("goplug-rings", flags)?,
            made => made?,
        };
        rustix::fs::ftruncate(&memfd, length)?;
        rustix::fs::fcntl_add_seals(&memfd, SEALS | SealFlags::SEAL)?;
        Ok((Self(Arc::new(Mapping::new(memfd.as_fd(), length)?)), memfd))
    }

    /// Maps what the other side has made.
    ///
    /// # Errors
    /// As the operating system says, and when it is not sealed memory of that length.
    #[cfg_attr(not(feature = "memory"), allow(unreachable_pub))]
    pub fn open(memfd: &OwnedFd, ring_bytes: u64) -> io::Result<Self> {
        let wrong = |text: String| Err(io::Error::new(io::ErrorKind::InvalidData, text));
        let Some(length) = memory_bytes(ring_bytes) else { return wrong(format!("a ring of {ring_bytes} bytes")) };
        let stat = rustix::fs::fstat(memfd)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return wrong("the descriptor is no memory".into());
        }
        // First of all: only then does the length stand.
        let seals = rustix::fs::fcntl_get_seals(memfd)?;
        if !seals.contains(SEALS) {
            return wrong(format!("the memory is not sealed: {seals:?}"));
        }
        let stat = rustix::fs::fstat(memfd)?;
        if u64::try_from(stat.st_size) != Ok(length) {
            return wrong(format!("the memory has {} bytes instead of {length}", stat.st_size));
        }
        Ok(Self(Arc::new(Mapping::new(memfd.as_fd(), length)?)))
    }

    /// The ring to the plugin, and the ring back.
    pub(crate) fn places(&self) -> [Place; 2] {
        let page = PAGE_BYTES / size_of::<u64>();
        let words = (self.0.count - page) / 2;
        [0, 1].map(|n| Place { header: n * RING_HEADER_WORDS, data: page + n * words, words })
    }
}

impl Deref for Region {
    type Target = [AtomicU64];

    #[inline]
    #[allow(unsafe_code)]
    fn deref(&self) -> &[AtomicU64] {
        // SAFETY: the mapping has `count` words from `words` on, which is the beginning of a page and so aligned; it is
        // removed only when `self.0` is dropped, which this borrow outlives not; its length cannot change, because the file
        // is sealed. Every byte of it is a valid value. It is written at the same time by others, here and in another
        // process, but seen as atomics only, by us and by whoever keeps to the rules; a peer that does not keep to them
        // changes values, as any store of it would.
        unsafe { std::slice::from_raw_parts(self.0.words.as_ptr(), self.0.count) }
    }
}

impl Mapping {
    #[allow(unsafe_code)]
    fn new(memfd: BorrowedFd<'_>, length: u64) -> io::Result<Self> {
        let length = usize::try_from(length).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: the kernel chooses a place where nothing is; nothing that exists is touched.
        let start = unsafe { rustix::mm::mmap(ptr::null_mut(), length, access, MapFlags::SHARED, memfd, 0) }?;
        let words = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { words, count: length / size_of::<u64>() })
    }
}

impl Drop for Mapping {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        // SAFETY: this is the mapping that was made, whole, and nobody has a reference into it: those borrow from a `Region`.
        // A failure would only leave it where it is.
        _ = unsafe { rustix::mm::munmap(self.words.as_ptr().cast(), self.count * size_of::<u64>()) };
    }
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;

    const RING: u64 = 64 * 1024;

    /// The length stands for whoever has the descriptor, and nobody can take that back.
    #[test]
    fn nobody_changes_the_length_or_the_seals() {
        let (region, memfd) = Region::create(RING).unwrap();
        assert_eq!(region.len() as u64 * 8, 4096 + 2 * RING);
        for length in [0, 4096, 1 << 30] {
            assert_eq!(rustix::fs::ftruncate(&memfd, length), Err(Errno::PERM), "{length}");
        }
        assert_eq!(rustix::fs::fcntl_add_seals(&memfd, SealFlags::WRITE), Err(Errno::PERM));
        let theirs = Region::open(&memfd, RING).unwrap();
        region[7].store(8, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(theirs[7].load(std::sync::atomic::Ordering::Relaxed), 8);
        let [there, back] = theirs.places();
        assert_eq!((there.header, there.data, back.header, back.data), (0, 512, 64, 512 + 8192));
    }

    #[test]
    fn memory_that_is_not_sealed_or_of_another_length_is_refused() {
        let why = |memfd: &OwnedFd, ring| Region::open(memfd, ring).unwrap_err().to_string();
        let (_, good) = Region::create(RING).unwrap();
        assert!(why(&good, RING / 2).contains("instead of"));
        assert!(why(&good, 3).contains("a ring of 3 bytes"));
        let made = |seals| {
            let memfd = rustix::fs::memfd_create("x", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
            rustix::fs::ftruncate(&memfd, 4096 + 2 * RING).unwrap();
            rustix::fs::fcntl_add_seals(&memfd, seals).unwrap();
            memfd
        };
        for seals in [SealFlags::empty(), SealFlags::SHRINK, SealFlags::GROW, SealFlags::SEAL] {
            assert!(why(&made(seals), RING).contains("not sealed"), "{seals:?}");
        }
        assert!(Region::open(&made(SEALS), RING).is_ok());
        let socket = std::os::unix::net::UnixStream::pair().unwrap().0.into();
        assert!(why(&socket, RING).contains("no memory"));
        let file = std::fs::File::open("/proc/self/exe").unwrap().into();
        assert!(Region::open(&file, RING).is_err(), "a file on a disk");
    }
}
