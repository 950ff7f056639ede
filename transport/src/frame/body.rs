//! A body that comes in several frames. PURE.

use bytes::Bytes;

/// Its bytes in one piece of memory that grows as they come. To keep the parts as they are and to join them at the end was
/// measured: it takes twice as long, because it needs twice the memory, and memory that is new to the process is dear.
#[derive(Debug, Default)]
pub(super) struct Body(Vec<u8>);

impl Body {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn push(&mut self, payload: &[u8]) {
        self.0.extend_from_slice(payload);
    }

    /// All of it.
    pub(super) fn finish(self) -> Bytes {
        self.0.into()
    }
}
