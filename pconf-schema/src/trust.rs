//! Which program each plugin that starts itself may run: `trust.json`, for all plugin directories of a user.
//!
//! The file is ours alone. It carries a checksum of what it says, so that a bit that flipped is found and never obeyed.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::checked::{self, checksum};
use crate::{PluginId, printable};

/// The largest file that is read: some 50,000 plugins.
pub const MAX_TRUST_BYTES: usize = 16 * 1024 * 1024;
/// The format that is written, and the only one that is read.
const FORMAT: u32 = 1;

/// The SHA-256 of a file, written as 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(into = "String", try_from = "String")]
#[schemars(with = "String")]
pub struct Sha256([u8; 32]);

/// The program that a plugin may run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Pin {
    /// Its digest: what counts.
    pub sha256: Sha256,
    /// Where it lay, for people.
    pub path: String,
    /// When it was recorded (RFC 3339).
    pub since: String,
    /// Whether an operator approved it; else it was the first that came.
    pub approved: bool,
}

/// Every pin, by plugin directory and plugin.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustState {
    directories: Directories,
}

/// By absolute path.
type Directories = BTreeMap<String, BTreeMap<PluginId, Pin>>;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    format: u32,
    checksum: String,
    directories: Directories,
}

impl TrustState {
    /// The program that `plugin` of `directory` may run; `None` when nobody has said.
    pub fn of(&self, directory: &str, plugin: &PluginId) -> Option<&Pin> {
        self.directories.get(directory)?.get(plugin)
    }

    /// Every pin of `directory`, by plugin.
    pub fn pins(&self, directory: &str) -> impl Iterator<Item = (&PluginId, &Pin)> {
        self.directories.get(directory).into_iter().flatten()
    }

    /// Pins `plugin` of `directory` to `pin` from now on, or to nothing; tells what it was pinned to before.
    pub fn set(&mut self, directory: &str, plugin: &PluginId, pin: Option<Pin>) -> Option<Pin> {
        let plugins = self.directories.entry(directory.to_owned()).or_default();
        let before = match pin {
            Some(pin) => plugins.insert(plugin.clone(), pin),
            None => plugins.remove(plugin),
        };
        self.directories.retain(|_, plugins| !plugins.is_empty());
        before
    }

    /// Reads a file of at most [`MAX_TRUST_BYTES`].
    ///
    /// # Errors
    /// Says why it cannot be believed: it is too large, empty, no JSON, of a later format, or not what was written.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let sums = |document: &Document| (checksum(&document.directories), document.checksum.clone());
        let document = checked::read(bytes, MAX_TRUST_BYTES, FORMAT, sums)?;
        Ok(Self { directories: document.directories })
    }

    /// The file's text.
    pub fn to_json(&self) -> Vec<u8> {
        let (checksum, directories) = (checksum(&self.directories), self.directories.clone());
        let document = Document { format: FORMAT, checksum, directories };
        checked::write(&document)
    }
}

impl From<[u8; 32]> for Sha256 {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl From<Sha256> for String {
    fn from(digest: Sha256) -> Self {
        digest.to_string()
    }
}

impl TryFrom<String> for Sha256 {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl FromStr for Sha256 {
    type Err = String;

    /// # Errors
    /// Says how a digest is written.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{}` is no SHA-256: write its 64 lower-case hex digits", printable(text));
        let nibble = |byte: u8| match byte {
            b'0'..=b'9' => Ok(byte - b'0'),
            b'a'..=b'f' => Ok(byte - b'a' + 10),
            _ => Err(wrong()),
        };
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        let mut bytes = [0; 32];
        if pairs.len() != bytes.len() || !rest.is_empty() {
            return Err(wrong());
        }
        for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
            *byte = nibble(*high)? << 4 | nibble(*low)?;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pin(n: u8) -> Pin {
        Pin {
            sha256: Sha256::from([n; 32]),
            path: format!("/bin/{n}"),
            since: "2026-01-01T00:00:00Z".into(),
            approved: n.is_multiple_of(2),
        }
    }

    fn some() -> TrustState {
        let mut state = TrustState::default();
        for n in 0..4 {
            let id = PluginId::new("Test", &format!("plugin-{n}")).unwrap();
            assert_eq!(state.set("/plugins", &id, Some(pin(n))), None);
            assert_eq!(state.of("/plugins", &id), Some(&pin(n)));
            assert_eq!(state.of("/other", &id), None);
        }
        state
    }

    #[test]
    fn what_is_written_is_read_and_what_is_forgotten_is_gone() {
        let mut state = some();
        assert_eq!(TrustState::parse(&state.to_json()).unwrap(), state);
        let ids: Vec<PluginId> = state.pins("/plugins").map(|(id, _)| id.clone()).collect();
        for id in &ids {
            assert!(state.set("/plugins", id, None).is_some());
            assert!(state.set("/plugins", id, None).is_none());
        }
        assert_eq!(state, TrustState::default());
    }

    #[test]
    fn a_digest_is_64_lower_case_hex_digits() {
        let text = "00ff".repeat(16);
        assert_eq!(text.parse::<Sha256>().unwrap().to_string(), text);
        for wrong in ["", "00", &text[1..], &text.to_uppercase(), &format!("{text}0"), &text.replace("00", "ä")] {
            assert!(wrong.parse::<Sha256>().unwrap_err().contains("64 lower-case"), "{wrong}");
        }
    }

    #[test]
    fn what_cannot_be_believed_is_refused_with_the_reason() {
        let huge = vec![b' '; MAX_TRUST_BYTES + 1];
        let written = String::from_utf8(some().to_json()).unwrap();
        let cases: [(&[u8], &str); 7] = [
            (b"", "is empty"),
            (b"{", "cannot be read"),
            (b"\0\0\0\0", "cannot be read"),
            (b"{\"format\": 2, \"anything\": []}", "has format 2, this version reads 1"),
            (&huge, "the limit is 16777216"),
            (&written.replacen("0101", "0102", 1).into_bytes(), "its checksum is"),
            (&written.replacen("\"approved\"", "\"more\": 1, \"approved\"", 1).into_bytes(), "cannot be read"),
        ];
        for (bytes, reason) in cases {
            let error = TrustState::parse(bytes).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }

    /// Whichever bit flips, the answer is the old state or a refusal, never another state.
    #[test]
    fn a_flipped_bit_is_never_obeyed() {
        let state = some();
        let bytes = state.to_json();
        let mut refused = 0;
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            match TrustState::parse(&flipped) {
                Ok(read) => assert_eq!(read, state, "bit {bit}"),
                Err(_) => refused += 1,
            }
        }
        assert!(refused > 1_000, "{refused}");
    }
}
