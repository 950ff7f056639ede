//! SHA-256.

use std::io::{Error, Read, Result};

use goplug_pconf_schema::Sha256;
use sha2::Digest;

/// Takes bytes piece by piece, and tells their SHA-256.
#[derive(Default)]
pub struct Hasher(sha2::Sha256);

impl Hasher {
    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all of them.
    pub fn finish(self) -> Sha256 {
        Sha256::from(<[u8; 32]>::from(self.0.finalize()))
    }
}

/// Of what was read so far.
pub(crate) struct Hashed<R> {
    inner: R,
    digest: Hasher,
    bytes: u64,
}

impl<R: Read> Hashed<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self { inner, digest: Hasher::default(), bytes: 0 }
    }

    /// The bytes and their digest.
    pub(crate) fn finish(self) -> (u64, Sha256) {
        (self.bytes, self.digest.finish())
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
    let mut hasher = Hasher::default();
    hasher.update(bytes);
    hasher.finish()
}
