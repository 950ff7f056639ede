//! What the operator wants of each plugin, whatever runs at the moment: `state.json`.
//!
//! The file is ours alone. It carries a checksum of what it says, so that a bit that flipped is found and never obeyed.

use std::collections::BTreeMap;

use semver::{Version, VersionReq};
use serde::{Deserialize, Serialize};

use crate::PluginId;
use crate::checked::{self, checksum};

/// The largest state file that is read: some 100,000 plugins.
pub const MAX_DESIRED_BYTES: usize = 16 * 1024 * 1024;
/// The format that is written, and the newest that is read.
const FORMAT: u32 = 1;

/// What is wanted of one plugin.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Desired {
    /// It is not to run, and not to be called.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub disabled: bool,
    /// Only these versions may become the current one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pinned: Option<VersionReq>,
    /// The version that was the current one before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Version>,
}

/// What is wanted of every plugin; one that is not named is enabled, in its current version.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DesiredState {
    plugins: BTreeMap<PluginId, Desired>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    format: u32,
    checksum: String,
    plugins: BTreeMap<PluginId, Desired>,
}

impl DesiredState {
    /// What is wanted of `plugin`.
    pub fn of(&self, plugin: &PluginId) -> Desired {
        self.plugins.get(plugin).cloned().unwrap_or_default()
    }

    /// Wants `desired` of `plugin` from now on; whether that is something new.
    pub fn set(&mut self, plugin: &PluginId, desired: Desired) -> bool {
        let before = match desired == Desired::default() {
            true => self.plugins.remove(plugin),
            false => self.plugins.insert(plugin.clone(), desired.clone()),
        };
        before.unwrap_or_default() != desired
    }

    /// Every plugin of which something is wanted.
    pub fn iter(&self) -> impl Iterator<Item = (&PluginId, &Desired)> {
        self.plugins.iter()
    }

    /// Reads a state file of at most [`MAX_DESIRED_BYTES`].
    ///
    /// # Errors
    /// Says why it cannot be obeyed: it is too large, empty, no JSON, of a later format, or not what was written.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let sums = |document: &Document| (checksum(&document.plugins), document.checksum.clone());
        let document = checked::read(bytes, MAX_DESIRED_BYTES, FORMAT, sums)?;
        Ok(Self { plugins: document.plugins })
    }

    /// The file's text.
    pub fn to_json(&self) -> Vec<u8> {
        let document = Document { format: FORMAT, checksum: checksum(&self.plugins), plugins: self.plugins.clone() };
        checked::write(&document)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> DesiredState {
        let mut state = DesiredState::default();
        for n in 0..5 {
            let id = PluginId::new("Test", &format!("plugin-{n}")).unwrap();
            let pinned = (n > 2).then(|| VersionReq::parse(&format!("^1.{n}")).unwrap());
            let desired = Desired { disabled: n % 2 == 0, pinned, previous: (n > 3).then(|| Version::new(1, n, 0)) };
            assert_eq!(state.set(&id, desired.clone()), desired != Desired::default());
            assert_eq!(state.of(&id), desired);
        }
        state
    }

    #[test]
    fn what_is_written_is_read_and_the_default_is_not_written() {
        let mut state = some();
        assert_eq!(DesiredState::parse(&state.to_json()).unwrap(), state);
        let id = PluginId::new("Test", "plugin-0").unwrap();
        assert!(state.set(&id, Desired::default()) && !state.set(&id, Desired::default()));
        assert!(!String::from_utf8(state.to_json()).unwrap().contains("plugin-0"));
        assert_eq!(DesiredState::parse(&DesiredState::default().to_json()).unwrap(), DesiredState::default());
    }

    #[test]
    fn what_cannot_be_obeyed_is_refused_with_the_reason() {
        let huge = vec![b' '; MAX_DESIRED_BYTES + 1];
        let written = String::from_utf8(some().to_json()).unwrap();
        let cases: [(&[u8], &str); 7] = [
            (b"", "is empty"),
            (b"{", "cannot be read"),
            (b"\0\0\0\0", "cannot be read"),
            (b"{\"format\": 2, \"anything\": []}", "has format 2, this version reads 1"),
            (b"{\"format\": 1, \"checksum\": \"\", \"plugins\": {}, \"more\": 1}", "cannot be read"),
            (&huge, "the limit is 16777216"),
            (&written.replacen("true", "false", 1).into_bytes(), "its checksum is"),
        ];
        for (bytes, reason) in cases {
            let error = DesiredState::parse(bytes).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }

    /// F83: whichever bit flips, the answer is the old state or a refusal, never another state.
    #[test]
    fn a_flipped_bit_is_never_obeyed() {
        let state = some();
        let bytes = state.to_json();
        let mut refused = 0;
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            match DesiredState::parse(&flipped) {
                Ok(read) => assert_eq!(read, state, "bit {bit}"),
                Err(_) => refused += 1,
            }
        }
        assert!(bytes.len() * 8 > 1_000 && refused > 1_000, "{refused} of {} flips", bytes.len() * 8);
    }
}
