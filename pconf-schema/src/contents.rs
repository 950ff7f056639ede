//! `MANIFEST`: what a package holds, with the digest of each file. It is what a package's signature signs.

use schemars::JsonSchema;
use semver::Version;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::manifest::MANIFEST_NAME;
use crate::{PluginId, Sha256, printable};

/// The name of the file, the first one in a package.
pub const CONTENTS_NAME: &str = "MANIFEST";
/// The name of its signature, the second one in a package that is signed.
pub const SIGNATURE_NAME: &str = "MANIFEST.minisig";
/// The largest contents that are read: 10,000 files with the longest paths.
pub const MAX_CONTENTS_BYTES: usize = 4 * 1024 * 1024;
/// The most files of a package.
pub const MAX_PACKED_FILES: usize = 10_000;
/// The most bytes of all files of a package together.
pub const MAX_PACKED_BYTES: u64 = 512 * 1024 * 1024;
/// How many folders deep a file of a package may lie.
pub const MAX_PACKED_DEPTH: usize = 32;
/// What an archive can name without an extension of the format.
const MAX_PATH_BYTES: usize = 255;
/// The format that is written, and the newest that is read.
const FORMAT: u32 = 1;
/// The most problems that are told.
const MAX_TOLD: usize = 20;

/// What a package holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Contents {
    /// The format of this file: 1.
    pub format: u32,
    /// As in `plugin.json`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// As in `plugin.json`.
    pub name: String,
    /// As in `plugin.json`.
    #[schemars(with = "String")]
    pub version: Version,
    /// As in `plugin.json`: what it asks to be allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permissions: Option<Value>,
    /// Every file but this one and its signature, by path.
    pub files: Vec<PackedFile>,
}

/// One file of a package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PackedFile {
    /// Relative to the plugin's folder, with `/` between the names.
    pub path: String,
    /// In bytes.
    pub size: u64,
    /// Of its bytes, as 64 lower-case hexadecimal digits.
    #[schemars(with = "String")]
    pub sha256: Sha256,
    /// Whether it may be run.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub executable: bool,
}

impl Contents {
    /// The contents of a package of this format. The files are put in order.
    pub fn new(id: &PluginId, version: Version, permissions: Option<Value>, mut files: Vec<PackedFile>) -> Self {
        files.sort_by(|one, other| one.path.cmp(&other.path));
        let (namespace, name) = (id.namespace().to_owned(), id.name().to_owned());
        Self { format: FORMAT, namespace, name, version, permissions, files }
    }

    /// Reads the text of the file.
    ///
    /// # Errors
    /// Everything that is wrong with it: it is too large, no JSON, of a later format, names no plugin, has paths that may not
    /// be used, or files that are not in order, which includes one that is named twice.
    pub fn parse(bytes: &[u8]) -> Result<Self, Vec<String>> {
        if bytes.len() > MAX_CONTENTS_BYTES {
            return Err(vec![format!("is {} bytes, the limit is {MAX_CONTENTS_BYTES}", bytes.len())]);
        }
        let contents: Self = serde_json::from_slice(bytes)
            .map_err(|error| vec![format!("cannot be read: {}", printable(&error.to_string()))])?;
        let problems = contents.problems();
        if problems.is_empty() { Ok(contents) } else { Err(problems) }
    }

    /// The file's text. The same contents have the same text.
    pub fn to_json(&self) -> Vec<u8> {
        let mut json = serde_json::to_vec_pretty(self).expect("strings and numbers are always JSON");
        json.push(b'\n');
        json
    }

    /// The plugin.
    ///
    /// # Errors
    /// Says why there is no plugin of this name.
    pub fn id(&self) -> Result<PluginId, String> {
        PluginId::new(&self.namespace, &self.name).map_err(|error| error.to_string())
    }

    /// Finds a file by its path.
    pub fn file(&self, path: &str) -> Option<&PackedFile> {
        self.files.binary_search_by(|file| file.path.as_str().cmp(path)).ok().map(|at| &self.files[at])
    }

    fn problems(&self) -> Vec<String> {
        if self.format != FORMAT {
            return vec![format!("has format {}, this version reads {FORMAT}", self.format)];
        }
        let mut problems: Vec<_> = self.id().err().into_iter().collect();
        if self.files.len() > MAX_PACKED_FILES {
            problems.push(format!("names {} files, the limit is {MAX_PACKED_FILES}", self.files.len()));
        }
        let bytes = self.files.iter().fold(0_u64, |sum, file| sum.saturating_add(file.size));
        if bytes > MAX_PACKED_BYTES {
            problems.push(format!("names files of {bytes} bytes together, the limit is {MAX_PACKED_BYTES}"));
        }
        for file in &self.files {
            problems.extend(check_packed_path(&file.path).err());
            if [CONTENTS_NAME, SIGNATURE_NAME].contains(&file.path.as_str()) {
                problems.push(format!("names `{}`, which cannot have a digest of itself", file.path));
            }
        }
        for pair in self.files.windows(2).filter(|pair| pair[0].path >= pair[1].path) {
            let (one, other) = (printable(&pair[0].path), printable(&pair[1].path));
            problems.push(format!("names `{other}` after `{one}`: files are named once, in the order of their paths"));
        }
        if self.file(MANIFEST_NAME).is_none() {
            problems.push(format!("names no {MANIFEST_NAME}"));
        }
        problems.truncate(MAX_TOLD);
        problems
    }
}

/// Whether a file of a package may have this path: relative, of plain names, at most 255 bytes and 32 folders deep.
///
/// # Errors
/// Says what is wrong with it.
pub fn check_packed_path(path: &str) -> Result<(), String> {
    let wrong = |why: &str| Err(format!("path `{}` {why}", printable(path)));
    if path.is_empty() {
        return Err("a path is empty".into());
    }
    if path.len() > MAX_PATH_BYTES {
        return wrong(&format!("has {} bytes, the limit is {MAX_PATH_BYTES}", path.len()));
    }
    // A backslash is a separator elsewhere, and other readers show it as something else.
    if path.chars().any(|char| char.is_control() || char == '\\') {
        return wrong("holds a control character or a backslash");
    }
    if path.starts_with('/') {
        return wrong("is absolute");
    }
    if path.split('/').any(|name| matches!(name, "" | "." | "..")) {
        return wrong("has a name that is empty, `.` or `..`");
    }
    if path.split('/').count() > MAX_PACKED_DEPTH + 1 {
        return wrong(&format!("lies deeper than {MAX_PACKED_DEPTH} folders"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    type Change = fn(&mut Contents);

    fn some() -> Contents {
        let file = |path: &str| PackedFile {
            path: path.into(),
            size: 3,
            sha256: Sha256::from([7; 32]),
            executable: path == "bin/do",
        };
        let id = PluginId::new("test", "do").unwrap();
        Contents::new(&id, Version::new(1, 2, 0), None, vec![file("plugin.json"), file("bin/do")])
    }

    #[test]
    fn what_is_written_is_read_again() {
        let text = some().to_json();
        assert_eq!(Contents::parse(&text).unwrap(), some());
        assert_eq!(some().file("bin/do").unwrap().size, 3);
        assert!(some().file("bin").is_none());
    }

    #[test]
    fn everything_that_is_wrong_is_told() {
        let cases: [(&str, Change); 8] = [
            ("has format 2", |it| it.format = 2),
            ("names no plugin.json", |it| drop(it.files.pop())),
            ("files are named once", |it| it.files.reverse()),
            ("files are named once", |it| it.files.insert(0, it.files[0].clone())),
            ("is absolute", |it| it.files[0].path = "/bin/do".into()),
            ("`.` or `..`", |it| it.files[0].path = "a/../../do".into()),
            ("cannot have a digest of itself", |it| it.files[0].path = CONTENTS_NAME.into()),
            ("the limit is 536870912", |it| it.files[0].size = u64::MAX),
        ];
        for (expected, change) in cases {
            let mut contents = some();
            change(&mut contents);
            let problems = Contents::parse(&contents.to_json()).unwrap_err();
            assert!(problems.iter().any(|problem| problem.contains(expected)), "{expected}: {problems:?}");
        }
        for name in ["", ".x", "../x"] {
            let contents = Contents { name: name.into(), ..some() };
            Contents::parse(&contents.to_json()).map(|read| read.name).unwrap_err();
        }
        assert!(Contents::parse(br#"{"format":1,"format":1}"#).unwrap_err()[0].contains("duplicate field"));
    }

    #[test]
    fn paths_stay_inside_and_are_plain() {
        for path in ["a", "a/b", "ä/b c", ".hidden", "a..b", &"x".repeat(255), &format!("{}a", "d/".repeat(32))] {
            check_packed_path(path).unwrap();
        }
        let long = "x".repeat(256);
        let deep = format!("{}a", "d/".repeat(33));
        for path in
            ["", "/", "/a", "a/", "a//b", ".", "./a", "..", "a/..", "a\0b", "a\nb", "a\\b", "a\u{85}b", &long, &deep]
        {
            assert!(check_packed_path(path).is_err(), "{path:?}");
        }
    }
}
