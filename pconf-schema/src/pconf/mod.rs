//! `.pconf`: the file by which a running plugin says "I am here" (`docs/pconf.md`).
//!
//! `json` turns the bytes into entries with their places, `fields` turns the entries into a [`Pconf`].

pub(crate) mod fields;
pub(crate) mod json;
mod socket;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use crate::PluginId;
use crate::wire::call;

/// The largest `.pconf` that is read.
pub const MAX_PCONF_BYTES: usize = 64 * 1024;
/// The longest path of a socket: the kernel's 108 bytes with the NUL that ends it.
pub const MAX_SOCKET_PATH_BYTES: usize = 107;

/// What a `.pconf` says, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Pconf {
    /// `NameSpace` and `Name`.
    pub id: PluginId,
    /// `Sock` as it is written; [`Pconf::socket_path`] resolves it.
    pub sock: String,
    /// `Url`; when missing or empty `unix://<NameSpace><Name>`.
    pub url: String,
    /// `LazyLoad`: the plugin waits to be asked for.
    pub lazy_load: bool,
    /// `Protocol`: the plugin promises to speak v1 or later; missing in the files of the original GoPlug.
    pub protocol: Option<u32>,
    /// `Epoch`: 32 lower-case hex digits, fresh at every start of the process.
    pub epoch: Option<String>,
    /// `Version`, a SemVer version.
    pub version: Option<String>,
    /// `Description`, one line for people.
    pub description: Option<String>,
    /// `Pid`: a hint for people, never trusted.
    pub pid: Option<u64>,
    /// Keys that mean nothing to us, as they are written.
    pub unknown: BTreeMap<String, Value>,
    /// What the file can be read in spite of, such as a key that is there twice.
    pub warnings: Vec<String>,
}

impl Pconf {
    /// The smallest file: everything optional has its default.
    pub fn new(id: PluginId, sock: impl Into<String>) -> Self {
        Self {
            url: format!("unix://{}{}", id.namespace(), id.name()),
            id,
            sock: sock.into(),
            lazy_load: false,
            protocol: None,
            epoch: None,
            version: None,
            description: None,
            pid: None,
            unknown: BTreeMap::new(),
            warnings: Vec::new(),
        }
    }

    /// Reads a file of at most [`MAX_PCONF_BYTES`], nested at most [`crate::wire::MAX_JSON_DEPTH`] deep.
    ///
    /// More is accepted than JSON allows: a byte order mark, `//`, `#` and `/* */` comments, a comma after the last entry,
    /// and anything after the first value. Keys are compared without regard to ASCII case; of two equal ones the last
    /// wins. `null` is as good as missing.
    ///
    /// # Errors
    /// Every problem of the file, with its place. A syntax error ends the search, as what follows cannot be understood.
    pub fn parse(bytes: &[u8]) -> Result<Self, PconfError> {
        fields::read(bytes)
    }

    /// The `Host` of requests to a v0 plugin: the authority of [`Pconf::url`] if it is `[A-Za-z0-9._-]+`, else `goplug`.
    pub fn host(&self) -> &str {
        let after = self.url.split_once("://").map_or("", |(_, rest)| rest);
        let authority = after.split(['/', '?', '#']).next().unwrap_or_default();
        let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if !authority.is_empty() && authority.bytes().all(fits) { authority } else { call::HOST }
    }

    /// The file as our plugin library writes it: strict JSON, indented, with a newline at its end. Unknown keys and
    /// warnings are not written.
    pub fn to_json(&self) -> Vec<u8> {
        let document = PconfDocument {
            name: self.id.name().to_owned(),
            name_space: self.id.namespace().to_owned(),
            url: self.url.clone(),
            sock: self.sock.clone(),
            lazy_load: self.lazy_load,
            protocol: self.protocol,
            epoch: self.epoch.clone(),
            version: self.version.clone(),
            description: self.description.clone(),
            pid: self.pid,
        };
        let mut json = serde_json::to_vec_pretty(&document).expect("strings, numbers and booleans are always JSON");
        json.push(b'\n');
        json
    }

    /// The socket's path: `Sock` if it is absolute, else `Sock` in `folder`, the folder of the file. `.` and `..` are
    /// resolved by their text alone, so that the answer can be compared with a folder; no file is looked at.
    ///
    /// # Errors
    /// Says why there is no such path: it is empty, abstract (`@` or NUL first), holds a NUL, or is longer than
    /// [`MAX_SOCKET_PATH_BYTES`].
    pub fn socket_path(&self, folder: &Path) -> Result<PathBuf, String> {
        socket::resolve(&self.sock, folder)
    }

    /// What could be better, beyond [`Pconf::warnings`]: none of it keeps the plugin from being used.
    pub fn lint(&self) -> Vec<String> {
        fields::lint(self)
    }
}

/// What is wrong with a file: at least one problem, in the order of the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PconfError {
    /// Every problem that was found.
    pub problems: Vec<PconfProblem>,
}

/// One problem and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PconfProblem {
    /// Counts from 1.
    pub line: usize,
    /// Counts characters from 1; a byte order mark is none.
    pub column: usize,
    /// What, which one, and the limit: a lowercase fragment without a dot, safe to show.
    pub message: String,
}

impl fmt::Display for PconfError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.problems.iter().enumerate() {
            write!(f, "{}{problem}", if n == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}

impl std::error::Error for PconfError {}

impl fmt::Display for PconfProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {} column {}: {}", self.line, self.column, self.message)
    }
}

/// A `.pconf` as it is written: "I am here". Keys are read without regard to ASCII case; others are kept and shown.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
#[schemars(rename = "Pconf")]
pub(crate) struct PconfDocument {
    /// The plugin's name: 1 to 128 bytes without `/`, control characters or a leading dot.
    #[schemars(length(min = 1, max = 128), pattern(r"^[^./][^/]*$"))]
    name: String,
    /// The namespace, empty by default; never `-`.
    #[serde(default)]
    #[schemars(length(max = 128), pattern(r"^([^./][^/]*)?$"))]
    name_space: String,
    /// `unix://` and a name; its authority is the `Host` of v0 requests. Default `unix://<NameSpace><Name>`.
    #[serde(default)]
    url: String,
    /// The socket: absolute, or relative to the folder of the file; at most 107 bytes, not abstract.
    #[schemars(length(min = 1), pattern(r"^[^@]"))]
    sock: String,
    /// Whether the plugin waits to be asked for.
    #[serde(default)]
    lazy_load: bool,
    /// The highest protocol version that the plugin speaks; missing in files of the original GoPlug.
    #[serde(skip_serializing_if = "Option::is_none")]
    protocol: Option<u32>,
    /// Fresh at every start of the process.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(pattern(r"^[0-9a-f]{32}$"))]
    epoch: Option<String>,
    /// The plugin's own version (SemVer 2).
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    /// One line for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    /// A hint for people, never trusted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u64>,
}

#[cfg(test)]
mod tests;
