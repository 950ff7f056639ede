//! What a SUBSCRIBE and an EVENT say besides their payload.

use super::{Broken, MAX_META_BYTES};

const KEY: u8 = 6;
const DROPPED: u8 = 7;
const EPOCH: u8 = 8;

/// The metadata of notifications; unknown tags are skipped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NoticeMeta<'a> {
    /// Of an EVENT: the key of a `state` message, which may be empty.
    pub key: Option<&'a str>,
    /// Of an EVENT: how many `lossy` messages were dropped just before.
    pub dropped: u64,
    /// Of a SUBSCRIBE: the epoch in which its `arg` is a position. Without it no position is meant.
    pub epoch: Option<&'a str>,
}

impl<'a> NoticeMeta<'a> {
    /// Appends the metadata to `to`; answers how many bytes they are. What would go beyond [`MAX_META_BYTES`] is left
    /// out.
    pub fn encode(&self, to: &mut Vec<u8>) -> usize {
        let before = to.len();
        let dropped = (self.dropped > 0).then(|| self.dropped.to_le_bytes());
        let dropped = dropped.as_ref().map(<[u8; 8]>::as_slice);
        let entries = [(KEY, self.key.map(str::as_bytes)), (DROPPED, dropped), (EPOCH, self.epoch.map(str::as_bytes))];
        for (tag, value) in entries {
            let Some(value) = value else { continue };
            let room = MAX_META_BYTES.saturating_sub(to.len() - before + 4);
            if let (true, Ok(length)) = (value.len() <= room, u16::try_from(value.len())) {
                to.extend_from_slice(&[tag, 0]);
                to.extend_from_slice(&length.to_le_bytes());
                to.extend_from_slice(value);
            }
        }
        to.len() - before
    }

    /// Reads metadata.
    ///
    /// # Errors
    /// Names the rule that was broken.
    pub fn decode(mut bytes: &'a [u8]) -> Result<Self, Broken> {
        let mut meta = Self::default();
        while !bytes.is_empty() {
            let (tag, value, rest) = super::entry(bytes)?;
            bytes = rest;
            let text =
                || std::str::from_utf8(value).map_err(|_| Broken(format!("entry {tag} of the metadata is no text")));
            match tag {
                KEY => meta.key = Some(text()?),
                EPOCH => meta.epoch = Some(text()?),
                DROPPED => {
                    let number = value.try_into().map(u64::from_le_bytes);
                    meta.dropped = number.map_err(|_| Broken(format!("entry {tag} of the metadata is no number")))?;
                }
                _ => {}
            }
        }
        Ok(meta)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_a_notification_is_read_back() {
        let epoch = "0123456789abcdef0123456789abcdef";
        for meta in [
            NoticeMeta::default(),
            NoticeMeta { key: Some(""), ..NoticeMeta::default() },
            NoticeMeta { key: Some("a\nb"), dropped: u64::MAX, ..NoticeMeta::default() },
            NoticeMeta { epoch: Some(epoch), ..NoticeMeta::default() },
        ] {
            let mut bytes = vec![9];
            assert_eq!(meta.encode(&mut bytes), bytes.len() - 1);
            bytes.extend_from_slice(&[3, 0, 1, 0, 0xff]);
            assert_eq!(NoticeMeta::decode(&bytes[1..]), Ok(meta), "other tags are skipped");
        }
    }

    #[test]
    fn metadata_that_is_none_is_refused() {
        for bytes in [&[6][..], &[6, 0, 1, 0], &[6, 1, 0, 0], &[6, 0, 1, 0, 0xff], &[7, 0, 1, 0, 1], &[8, 0, 9, 9]] {
            assert!(NoticeMeta::decode(bytes).is_err(), "{bytes:?}");
        }
    }
}
