//! What the other side may send, checked. PURE.

use goplug_pconf_schema::wire::frame::Broken;

use crate::frame::grants::Grants;

/// Bytes that the other side may send, and when it is granted more.
pub(super) struct Window {
    left: u64,
    grants: Grants,
}

impl Window {
    pub(super) fn new(left: u64, step: u64) -> Self {
        Self { left, grants: Grants::new(step) }
    }

    /// Takes `count` bytes, behind which `rest_bytes` more are announced; answers what is to be granted now.
    pub(super) fn take(&mut self, count: usize, rest_bytes: u32) -> Result<Option<u64>, Broken> {
        let count = count as u64;
        let Some(left) = self.left.checked_sub(count) else {
            return Err(Broken(format!("{count} bytes of a body, the credit is {}", self.left)));
        };
        let granted = self.grants.take(count, rest_bytes);
        self.left = left + granted;
        Ok((granted > 0).then_some(granted))
    }
}
