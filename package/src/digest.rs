//! SHA-256, as it is written in `MANIFEST`.

use std::io::{Error, Read, Result};

use goplug_pconf_schema::Sha256;
use sha2::Digest;

/// Of what was read so far.
pub(crate) struct Hashed<R> {
    inner: R,
    digest: sha2::Sha256,
    bytes: u64,
}

impl<R: Read> Hashed<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self { inner, digest: sha2::Sha256::new(), bytes: 0 }
    }

    /// The bytes and their digest.
    pub(crate) fn finish(self) -> (u64, Sha256) {
        (self.bytes, Sha256::from(<[u8; 32]>::from(self.digest.finalize())))
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
pub(crate) fn of(bytes: &[u8]) -> Sha256 {
    Sha256::from(<[u8; 32]>::from(sha2::Sha256::digest(bytes)))
}
