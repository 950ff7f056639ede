//! Two rings in shared memory, through which frames travel instead of through the socket (`docs/protocol.md`). PURE.
//!
//! The memory is a sealed memfd: a page of positions and flags, then the bytes of the ring from the registry to the plugin,
//! then those of the ring back. Everything is in words of eight bytes in the machine's own order.

/// What both sides write into `features` when they speak this.
pub const FEATURE: &str = "shm/1";

/// How many bytes are before the first ring. The header of the ring to the plugin begins at 0, that of the ring back at
/// [`RING_HEADER_WORDS`].
pub const PAGE_BYTES: usize = 4096;
/// The smallest and the largest ring. Its length is a power of two, and the same in both directions.
pub const RING_BYTES: (u64, u64) = (4096, 16 * 1024 * 1024);

/// The words of a ring's header. Each word that is used has 128 bytes for itself: a cache line, and the one that a processor
/// likes to fetch with it.
pub const RING_HEADER_WORDS: usize = 64;
/// How many bytes were ever written. Set by the writer.
pub const TAIL_WORD: usize = 0;
/// How many bytes were ever read. Set by the reader.
pub const HEAD_WORD: usize = 16;
/// Not 0: the reader sleeps, and is to be woken when there is something to read.
pub const ASLEEP_WORD: usize = 32;
/// Not 0: the writer sleeps, and is to be woken when a quarter of the ring is free.
pub const WANTS_ROOM_WORD: usize = 48;

/// How long the memory is for rings of this length; `None` for a length that no ring has.
pub fn memory_bytes(ring_bytes: u64) -> Option<u64> {
    let fits = ring_bytes.is_power_of_two() && (RING_BYTES.0..=RING_BYTES.1).contains(&ring_bytes);
    fits.then(|| PAGE_BYTES as u64 + 2 * ring_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_has_a_power_of_two_of_bytes_within_limits() {
        assert_eq!(memory_bytes(4096), Some(3 * 4096));
        assert_eq!(memory_bytes(16 << 20), Some(4096 + (32 << 20)));
        for wrong in [0, 1, 2048, 4097, 3 << 20, 32 << 20, 1 << 63, u64::MAX] {
            assert_eq!(memory_bytes(wrong), None, "{wrong}");
        }
        // The headers of both rings are in the page.
        assert_eq!(2 * RING_HEADER_WORDS * 8, 1024);
        assert_eq!(WANTS_ROOM_WORD + 16, RING_HEADER_WORDS);
    }
}
