//! SHA-256, as it is written in `MANIFEST`.

use std::fmt::Write as _;
use std::io::{Error, Read, Result};

use sha2::{Digest, Sha256};

/// Of what was read so far.
pub(crate) struct Hashed<R> {
    inner: R,
    digest: Sha256,
    bytes: u64,
}

impl<R: Read> Hashed<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self { inner, digest: Sha256::new(), bytes: 0 }
    }

    /// The bytes and their digest.
    pub(crate) fn finish(self) -> (u64, String) {
        (self.bytes, hex(&self.digest.finalize()))
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let read = self.inner.read(buffer)?;
        let bytes = buffer.get(..read).ok_or_else(|| Error::other("more was read than there is room for"))?;
        self.digest.update(bytes);
        self.bytes += read as u64;
        Ok(read)
    }
}

/// The digest of `bytes`.
pub(crate) fn of(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(digest: &[u8]) -> String {
    digest.iter().fold(String::with_capacity(64), |mut text, byte| {
        _ = write!(text, "{byte:02x}");
        text
    })
}
