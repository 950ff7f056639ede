//! A body that is read piece by piece: what came and was not taken yet, and when more of it may be sent. PURE.

use std::collections::VecDeque;

use bytes::Bytes;
use goplug_pconf_schema::wire::frame::{Broken, CALL_CREDIT};

use super::grants::CALL_STEP;
use crate::pool::Pool;

/// Pieces below this are joined: many small ones would cost more memory than they have bytes.
const SMALL_BYTES: usize = 8 * 1024;
/// Small ones are joined to no more than this.
const JOINED_BYTES: usize = 64 * 1024;

/// One body on its way in. It never holds more than the credit that its sender was given.
#[derive(Debug)]
pub(super) struct Inflow {
    pieces: VecDeque<Bytes>,
    /// Small ones that came behind `pieces`.
    joined: Vec<u8>,
    /// What may still be sent.
    left: u64,
    /// What is to be granted: what was taken since more was granted last, and at first another window.
    taken: u64,
    /// Where large pieces are read to.
    pub(super) pool: Pool,
}

impl Inflow {
    pub(super) fn new() -> Self {
        // The first piece that is taken grants a second window: one is on its way while the other is read.
        Self {
            pieces: VecDeque::new(),
            joined: Vec::new(),
            left: CALL_CREDIT,
            taken: CALL_CREDIT,
            pool: Pool::default(),
        }
    }

    /// Takes note of a piece: read into a buffer of the pool, or as it came.
    ///
    /// # Errors
    /// When there was no credit for it.
    pub(super) fn arrived(&mut self, payload: Bytes, pooled: Option<Vec<u8>>) -> Result<(), Broken> {
        let count = pooled.as_ref().map_or(payload.len(), Vec::len) as u64;
        let Some(left) = self.left.checked_sub(count) else {
            return Err(Broken(format!("{count} bytes of a body, the credit is {}", self.left)));
        };
        self.left = left;
        if pooled.is_none() && payload.len() < SMALL_BYTES {
            self.joined.extend_from_slice(&payload);
            if self.joined.len() >= JOINED_BYTES {
                self.close_joined();
            }
            return Ok(());
        }
        self.close_joined();
        self.pieces.push_back(pooled.map_or(payload, |buffer| self.pool.wrap(buffer)));
        Ok(())
    }

    /// The next piece, with what is to be granted to the sender now, if anything.
    pub(super) fn take(&mut self) -> Option<(Bytes, u64)> {
        let piece = match self.pieces.pop_front() {
            Some(piece) => piece,
            None if self.joined.is_empty() => return None,
            None => std::mem::take(&mut self.joined).into(),
        };
        self.taken += piece.len() as u64;
        if self.taken < CALL_STEP {
            return Some((piece, 0));
        }
        let granted = std::mem::take(&mut self.taken);
        self.left += granted;
        Some((piece, granted))
    }

    /// Drops what nobody will read; no more is granted.
    pub(super) fn clear(&mut self) {
        (self.pieces, self.joined) = (VecDeque::new(), Vec::new());
    }

    fn close_joined(&mut self) {
        if !self.joined.is_empty() {
            self.pieces.push_back(std::mem::take(&mut self.joined).into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(length: usize) -> Bytes {
        vec![7; length].into()
    }

    /// Never more than the credit is held, and what was taken is granted again, in steps; with the first of it a second window.
    #[test]
    fn no_more_comes_than_was_granted() {
        let mut inflow = Inflow::new();
        for _ in 0..4 {
            inflow.arrived(piece(64 * 1024), None).unwrap();
        }
        assert!(inflow.arrived(piece(1), None).unwrap_err().0.contains("the credit is 0"));
        let granted: Vec<_> = std::iter::from_fn(|| inflow.take()).map(|(piece, more)| (piece.len(), more)).collect();
        assert_eq!(granted, [(65_536, 327_680), (65_536, 0), (65_536, 131_072), (65_536, 0)]);
        inflow.arrived(piece(1), Some(vec![7; 448 * 1024])).unwrap();
        assert!(inflow.arrived(piece(1), None).is_err());
    }

    /// Bytes come out in the order in which they came, however small their pieces were.
    #[test]
    fn small_pieces_are_joined_in_order() {
        let mut inflow = Inflow::new();
        let mut expected = Vec::new();
        for (number, length) in (0_u8..).zip([1, 0, 5, 8_191, 8_192, 3, 9_000, 1]) {
            let bytes = vec![number; length];
            expected.extend_from_slice(&bytes);
            inflow.arrived(bytes.into(), None).unwrap();
        }
        let pieces: Vec<_> = std::iter::from_fn(|| inflow.take()).map(|(piece, _)| piece).collect();
        assert_eq!(pieces.concat(), expected);
        assert_eq!(pieces.len(), 5);
        for _ in 0..100_000 {
            inflow.arrived(piece(1), None).unwrap();
        }
        assert_eq!(std::iter::from_fn(|| inflow.take()).count(), 2);
    }
}
