//! Buffers that pieces of one body are read to, again and again: memory that is new to the process is dear.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use goplug_pconf_schema::wire::frame::MAX_PAYLOAD_BYTES;

/// Buffers that wait to be used again; more are given back to the allocator.
const MAX_IDLE: usize = 4;

/// The buffers of one body. A piece keeps its own until it is dropped, wherever that is.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    idle: Arc<Idle>,
}

type Idle = Mutex<Vec<Vec<u8>>>;

/// A piece in a buffer of the pool.
struct Piece {
    buffer: Vec<u8>,
    home: Weak<Idle>,
}

impl Pool {
    /// An empty buffer with room for the largest piece.
    pub(crate) fn buffer(&self) -> Vec<u8> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        idle.unwrap_or_else(|| Vec::with_capacity(MAX_PAYLOAD_BYTES))
    }

    /// What `buffer` holds, without a copy. The buffer comes back when the last of it is dropped.
    pub(crate) fn wrap(&self, buffer: Vec<u8>) -> Bytes {
        Bytes::from_owner(Piece { buffer, home: Arc::downgrade(&self.idle) })
    }
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        let Some(home) = self.home.upgrade() else { return };
        let mut idle = home.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MAX_IDLE && self.buffer.capacity() >= MAX_PAYLOAD_BYTES {
            let mut buffer = std::mem::take(&mut self.buffer);
            buffer.clear();
            idle.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A buffer is used again when its piece is gone, and never before.
    #[test]
    fn a_buffer_comes_back_when_its_piece_is_dropped() {
        let pool = Pool::default();
        let mut buffer = pool.buffer();
        buffer.extend_from_slice(b"abc");
        let place = buffer.as_ptr();
        let piece = pool.wrap(buffer);
        let part = piece.slice(1..);
        drop(piece);
        let other = pool.buffer();
        assert_ne!(other.as_ptr(), place, "somebody still reads it");
        assert_eq!(part, "bc");
        drop(part);
        let again = pool.buffer();
        assert_eq!((again.as_ptr(), again.len()), (place, 0));
        let piece = pool.wrap(again);
        drop(pool);
        drop(piece);
    }
}
