//! What the tables of a connection are made of. PURE.

use goplug_pconf_schema::wire::frame::Broken;

/// Bytes that the other side may send, and those that were taken since it was last told.
pub(super) struct Window {
    left: u64,
    taken: u64,
    step: u64,
}

impl Window {
    pub(super) fn new(left: u64, step: u64) -> Self {
        Self { left, taken: 0, step }
    }

    /// Takes `count` bytes; answers what is to be granted now.
    pub(super) fn take(&mut self, count: usize) -> Result<Option<u64>, Broken> {
        let count = count as u64;
        let Some(left) = self.left.checked_sub(count) else {
            return Err(Broken(format!("{count} bytes of a body, the credit is {}", self.left)));
        };
        (self.left, self.taken) = (left, self.taken + count);
        if self.taken < self.step {
            return Ok(None);
        }
        self.left += self.taken;
        Ok(Some(std::mem::take(&mut self.taken)))
    }
}
