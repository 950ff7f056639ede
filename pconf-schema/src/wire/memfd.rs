//! Bodies that lie in standing segments of shared memory instead of in frames (`docs/protocol.md`). PURE.
//!
//! Whoever produces bodies owns segments and lends them: the other side maps them for reading, once, and gives each body back
//! when it has been read.

use super::frame::Broken;

/// What both sides write where they say what they speak: the plugin into the `features` of its hello, the registry into
/// [`FEATURES`].
pub const FEATURE: &str = "memfd/1";
/// The header of the request for the upgrade to frames in which a registry lists what it speaks besides.
pub const FEATURES: &str = "goplug-features";

/// How many segments one side of a connection may lend the other at a time.
pub const MAX_SEGMENTS: u16 = 16;
/// How many bytes all of them may have together.
pub const MAX_SEGMENT_BYTES: u64 = 256 * 1024 * 1024;
/// The length of a segment is a multiple of this.
pub const PAGE_BYTES: u64 = 4096;
/// Where in a segment a body may begin: at a multiple of this.
pub const ALIGNMENT: u64 = 8;

/// The length of [`Place::encode`].
pub const PLACE_BYTES: usize = 24;

/// Where a body lies: the payload of a frame that is `placed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The number of the segment, which its owner chose.
    pub segment: u64,
    /// Where in it the body begins.
    pub offset: u64,
    /// How many bytes the body has.
    pub length: u64,
}

impl Place {
    /// Three numbers, little-endian.
    pub fn encode(&self) -> [u8; PLACE_BYTES] {
        let mut bytes = [0; PLACE_BYTES];
        for (eight, number) in bytes.as_chunks_mut::<8>().0.iter_mut().zip([self.segment, self.offset, self.length]) {
            *eight = number.to_le_bytes();
        }
        bytes
    }

    /// Reads a place in a segment of `segment_bytes`, which `length_of` knows.
    ///
    /// # Errors
    /// Names the rule that was broken.
    pub fn decode(bytes: &[u8], length_of: impl FnOnce(u64) -> Option<u64>) -> Result<Self, Broken> {
        let (&[segment, offset, length], []) = bytes.as_chunks::<8>() else {
            return Err(Broken(format!("a place has {PLACE_BYTES} bytes, not {}", bytes.len())));
        };
        let [segment, offset, length] = [segment, offset, length].map(u64::from_le_bytes);
        let Some(whole) = length_of(segment) else {
            return Err(Broken(format!("a body in segment {segment}, which is not lent")));
        };
        let fits = offset.checked_add(length).is_some_and(|end| end <= whole);
        if !fits || !offset.is_multiple_of(ALIGNMENT) || length == 0 {
            let text = format!("{length} bytes from {offset} on, in segment {segment} of {whole} bytes");
            return Err(Broken(text));
        }
        Ok(Self { segment, offset, length })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_lies_within_its_segment() {
        let read = |place: Place| Place::decode(&place.encode(), |number| (number == 3).then_some(8192));
        for (segment, offset, length, fits) in [
            (3, 0, 8192, true),
            (3, 0, 1, true),
            (3, 8184, 8, true),
            (3, 8184, 9, false),
            (3, 0, 8193, false),
            (3, 4, 8, false),
            (3, 8192, 1, false),
            (3, 0, 0, false),
            (3, 8, u64::MAX, false),
            (3, u64::MAX - 7, 8, false),
            (0, 0, 1, false),
            (4, 0, 1, false),
        ] {
            let place = Place { segment, offset, length };
            assert_eq!(read(place).ok(), fits.then_some(place), "{place:?}");
        }
        assert!(Place::decode(&[0; 23], |_| Some(1)).is_err());
        assert!(Place::decode(&[0; 32], |_| Some(1)).is_err());
    }
}
