//! Where an installed version came from: written down beside it, for people.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Sha256;

/// The largest text that is read.
pub const MAX_ORIGIN_BYTES: usize = 64 * 1024;

/// Where a version that was fetched came from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Origin {
    /// The address or the repository, as it was asked for.
    pub source: String,
    /// Of a file: its digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub sha256: Option<Sha256>,
    /// Of a repository: the commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// Of a repository: the program and its arguments that it was built with; empty if there was nothing to build.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub built_with: Vec<String>,
}

impl Origin {
    /// Reads a text of at most [`MAX_ORIGIN_BYTES`]; `None` if it is none.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        (bytes.len() <= MAX_ORIGIN_BYTES).then(|| serde_json::from_slice(bytes).ok())?
    }

    /// The text.
    pub fn to_json(&self) -> Vec<u8> {
        let mut json = serde_json::to_vec_pretty(self).expect("strings are always JSON");
        json.push(b'\n');
        json
    }
}
