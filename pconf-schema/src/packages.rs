//! What was verified of each plugin when it was installed: `packages.json`, for all plugin directories of a user.
//!
//! It lies outside of every plugin directory: whoever may write there can replace a version with its `MANIFEST`, and not what
//! is written here. Like `trust.json` it carries a checksum of what it says.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use semver::Version;
use serde::{Deserialize, Serialize};

use crate::checked::{self, checksum};
use crate::{Permissions, PluginId, Sha256};

/// The largest file that is read: some 50,000 versions.
pub const MAX_PACKAGES_BYTES: usize = 16 * 1024 * 1024;
/// The most versions of a plugin that are remembered, those that are not installed any more among them.
pub const MAX_KNOWN_VERSIONS: usize = 1_000;
/// The format that is written, and the only one that is read.
const FORMAT: u32 = 1;

/// What is written down of a plugin.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Known {
    /// What it was granted, with all its versions.
    #[serde(default, skip_serializing_if = "Permissions::is_empty")]
    pub granted: Permissions,
    /// The version that was made current last: an older one does not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub current: Option<Version>,
    /// Every version that was installed, by its number. One that is not among them does not run, unless there are none.
    #[schemars(with = "BTreeMap<String, KnownVersion>")]
    pub versions: BTreeMap<Version, KnownVersion>,
}

/// What is written down of a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KnownVersion {
    /// The digest of the `MANIFEST` of its package; `null`: it came as a folder, and nothing of it is compared.
    pub contents: Option<Sha256>,
    /// The key that signed the package; `null`: nobody did.
    pub signed_by: Option<String>,
    /// When it was installed (RFC 3339).
    pub since: String,
}

/// What is known of every plugin, by plugin directory and plugin.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PackageState {
    directories: Directories,
}

/// By absolute path.
type Directories = BTreeMap<String, BTreeMap<PluginId, Known>>;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    format: u32,
    checksum: String,
    directories: Directories,
}

impl PackageState {
    /// What is known of `plugin` of `directory`; `None`: nothing, whatever lies there is nobody's promise.
    pub fn of(&self, directory: &str, plugin: &PluginId) -> Option<&Known> {
        self.directories.get(directory)?.get(plugin)
    }

    /// What is known of `plugin` of `directory` from now on, or nothing any more; tells what was known before.
    pub fn set(&mut self, directory: &str, plugin: &PluginId, known: Option<Known>) -> Option<Known> {
        let plugins = self.directories.entry(directory.to_owned()).or_default();
        let before = match known {
            Some(known) => plugins.insert(plugin.clone(), known),
            None => plugins.remove(plugin),
        };
        self.directories.retain(|_, plugins| !plugins.is_empty());
        before
    }

    /// Reads a file of at most [`MAX_PACKAGES_BYTES`].
    ///
    /// # Errors
    /// Says why it cannot be believed: it is too large, empty, no JSON, of a later format, or not what was written.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let sums = |document: &Document| (checksum(&document.directories), document.checksum.clone());
        let document = checked::read(bytes, MAX_PACKAGES_BYTES, FORMAT, sums)?;
        Ok(Self { directories: document.directories })
    }

    /// The file's text.
    pub fn to_json(&self) -> Vec<u8> {
        let (checksum, directories) = (checksum(&self.directories), self.directories.clone());
        let document = Document { format: FORMAT, checksum, directories };
        checked::write(&document)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> (PackageState, PluginId) {
        let id = PluginId::new("test", "do").unwrap();
        let version = |n: u8| KnownVersion {
            contents: (n > 1).then(|| Sha256::from([n; 32])),
            signed_by: (n > 2).then(|| "RWkey".to_owned()),
            since: "2026-01-01T00:00:00Z".into(),
        };
        let versions = (1..4).map(|n| (Version::new(u64::from(n), 0, 0), version(n))).collect();
        let granted = Permissions::from_iter([("net".to_owned(), true.into())]);
        let mut state = PackageState::default();
        assert_eq!(
            state.set("/plugins", &id, Some(Known { versions, granted, current: Some(Version::new(2, 0, 0)) })),
            None
        );
        (state, id)
    }

    #[test]
    fn what_is_written_is_read_and_what_is_forgotten_is_gone() {
        let (mut state, id) = some();
        assert_eq!(PackageState::parse(&state.to_json()).unwrap(), state);
        assert!(state.of("/plugins", &id).is_some() && state.of("/other", &id).is_none());
        assert!(state.set("/plugins", &id, None).is_some());
        assert_eq!(state, PackageState::default());
    }

    #[test]
    fn what_cannot_be_believed_is_refused_with_the_reason() {
        let written = String::from_utf8(some().0.to_json()).unwrap();
        for (bytes, reason) in [
            (String::new(), "is empty"),
            ("{".into(), "cannot be read"),
            (written.replacen("\"format\": 1", "\"format\": 2", 1), "this version reads 1"),
            (written.replacen("0303", "0304", 1), "its checksum is"),
            (written.replacen("\"signedBy\"", "\"more\": 1, \"signedBy\"", 1), "cannot be read"),
        ] {
            let error = PackageState::parse(bytes.as_bytes()).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }
}
