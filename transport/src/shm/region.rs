//! The memory: a sealed memfd, mapped by both sides, as words.

use std::io;
use std::ops::Deref;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use goplug_pconf_schema::wire::shm::{PAGE_BYTES, RING_HEADER_WORDS, memory_bytes};
use rustix::fs::SealFlags;
use rustix::mm::ProtFlags;

use super::mapping::{Mapping, SEALS, check_memfd, new_memfd};
use super::ring::Place;

/// Memory that two processes have mapped; here it goes with the last of its clones.
#[derive(Debug, Clone)]
#[cfg_attr(not(feature = "memory"), allow(unreachable_pub))]
pub struct Region(Arc<Mapping>);

impl Region {
    /// New memory for two rings of this length, and the descriptor to pass on.
    ///
    /// # Errors
    /// As the operating system says, and for a length that no ring has.
    #[cfg_attr(not(feature = "memory"), allow(unreachable_pub))]
    pub fn create(ring_bytes: u64) -> io::Result<(Self, OwnedFd)> {
        let length = memory_bytes(ring_bytes).ok_or(io::ErrorKind::InvalidInput)?;
        let memfd = new_memfd("goplug-rings", length)?;
        rustix::fs::fcntl_add_seals(&memfd, SEALS | SealFlags::SEAL)?;
        Ok((Self::map(&memfd, length)?, memfd))
    }

    /// Maps what the other side has made.
    ///
    /// # Errors
    /// As the operating system says, and when it is not sealed memory of that length.
    #[cfg_attr(not(feature = "memory"), allow(unreachable_pub))]
    pub fn open(memfd: &OwnedFd, ring_bytes: u64) -> io::Result<Self> {
        let Some(length) = memory_bytes(ring_bytes) else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a ring of {ring_bytes} bytes")));
        };
        check_memfd(memfd, length)?;
        Self::map(memfd, length)
    }

    fn map(memfd: &OwnedFd, length: u64) -> io::Result<Self> {
        Ok(Self(Arc::new(Mapping::new(memfd.as_fd(), length, ProtFlags::READ | ProtFlags::WRITE)?)))
    }

    /// The ring to the plugin, and the ring back.
    pub(crate) fn places(&self) -> [Place; 2] {
        let page = PAGE_BYTES / size_of::<u64>();
        let words = (self.len() - page) / 2;
        [0, 1].map(|n| Place { header: n * RING_HEADER_WORDS, data: page + n * words, words })
    }
}

impl Deref for Region {
    type Target = [AtomicU64];

    #[inline]
    fn deref(&self) -> &[AtomicU64] {
        self.0.words()
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::MemfdFlags;
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
