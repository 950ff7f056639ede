//! Files of ours that carry a checksum of what they say, so that a bit that flipped is found and never obeyed.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::printable;

/// Only this is read first: what a later format says besides is not ours to judge.
#[derive(Deserialize)]
struct Head {
    format: u32,
}

/// Reads such a file of at most `limit` bytes; `sums` tells the checksum of what it says, and the one that it carries.
///
/// # Errors
/// Says why it cannot be believed: it is too large, empty, no JSON, of a later format, or not what was written.
pub(crate) fn read<D: DeserializeOwned>(
    bytes: &[u8],
    limit: usize,
    format: u32,
    sums: impl FnOnce(&D) -> (String, String),
) -> Result<D, String> {
    if bytes.len() > limit {
        return Err(format!("is {} bytes, the limit is {limit}", bytes.len()));
    }
    if bytes.is_empty() {
        return Err("is empty".into());
    }
    let unreadable = |error: serde_json::Error| format!("cannot be read: {}", printable(&error.to_string()));
    let head: Head = serde_json::from_slice(bytes).map_err(unreadable)?;
    if head.format != format {
        return Err(format!("has format {}, this version reads {format}", head.format));
    }
    let document: D = serde_json::from_slice(bytes).map_err(unreadable)?;
    let (expected, found) = sums(&document);
    if found != expected {
        return Err(format!("is not what was written: its checksum is {expected}, it says {}", printable(&found)));
    }
    Ok(document)
}

/// The text of such a file.
pub(crate) fn write(document: &impl Serialize) -> Vec<u8> {
    let mut json = serde_json::to_vec_pretty(document).expect("strings, numbers and booleans are always JSON");
    json.push(b'\n');
    json
}

/// FNV-1a of what it says, written without the spaces that mean nothing. It guards against accidents, not against people:
/// whoever may write the file may write the sum.
pub(crate) fn checksum(content: &impl Serialize) -> String {
    let text = serde_json::to_vec(content).expect("strings, numbers and booleans are always JSON");
    let sum =
        text.iter().fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3));
    format!("{sum:016x}")
}
