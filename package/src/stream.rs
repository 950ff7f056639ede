//! What is compressed is unpacked within limits: a file of a kilobyte can hold terabytes.

use std::io::{BufRead, BufReader, Error, ErrorKind, Read, Result};

use flate2::bufread::GzDecoder;
use goplug_pconf_schema::contents::MAX_PACKED_BYTES;
use ruzstd::decoding::StreamingDecoder;

/// Headers and padding of 10,000 files come to their bytes.
const MAX_UNPACKED: u64 = MAX_PACKED_BYTES + 32 * 1024 * 1024;
/// So many times more may come out than went in …
const MAX_RATIO: u64 = 200;
/// … beyond this, which a handful of empty headers has, too.
const FREE: u64 = 4 * 1024 * 1024;
const BUFFER: usize = 64 * 1024;

/// Reads the archive in `file`, which is compressed with gzip or zstd, or not at all.
///
/// # Errors
/// The file cannot be read.
pub(crate) fn unpacked<'a, R: Read + 'a>(file: R, size: u64) -> Result<Box<dyn Read + 'a>> {
    let mut file = BufReader::with_capacity(BUFFER, file);
    let start = file.fill_buf()?;
    let limit = size.saturating_mul(MAX_RATIO).clamp(FREE, MAX_UNPACKED);
    Ok(match start {
        [0x1f, 0x8b, ..] => Box::new(Limited { inner: Gzip(GzDecoder::new(file)), left: limit, limit }),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            let decoder = StreamingDecoder::new(file).map_err(broken)?;
            Box::new(Limited { inner: Zstd(decoder), left: limit, limit })
        }
        _ => Box::new(Limited { inner: file, left: MAX_UNPACKED, limit: MAX_UNPACKED }),
    })
}

/// One member, and nothing behind it: what other readers would take for more of the archive.
struct Gzip<R>(GzDecoder<R>);

impl<R: BufRead> Read for Gzip<R> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let read = self.0.read(buffer)?;
        if read == 0 && !buffer.is_empty() && !self.0.get_mut().fill_buf()?.is_empty() {
            return Err(Error::new(ErrorKind::InvalidData, "something follows the compressed archive"));
        }
        Ok(read)
    }
}

struct Zstd<R: BufRead>(StreamingDecoder<R, ruzstd::decoding::FrameDecoder>);

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let read = self.0.read(buffer).map_err(broken)?;
        if read == 0 && !buffer.is_empty() && !self.0.get_mut().fill_buf()?.is_empty() {
            return Err(Error::new(ErrorKind::InvalidData, "something follows the compressed archive"));
        }
        Ok(read)
    }
}

fn broken(error: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::InvalidData, error.to_string())
}

struct Limited<R> {
    inner: R,
    left: u64,
    limit: u64,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let read = self.inner.read(buffer)?;
        match self.left.checked_sub(read as u64) {
            Some(left) => self.left = left,
            None => {
                let text =
                    format!("more than {} bytes come out of it, which a package of this size may not hold", self.limit);
                return Err(Error::new(ErrorKind::FileTooLarge, text));
            }
        }
        Ok(read)
    }
}
