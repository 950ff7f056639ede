//! `index.json`: which packages lie in a folder or behind an address, so that they can be searched for. A file like any other: it
//! is made by `push`, and served by any web server.

use schemars::JsonSchema;
use semver::Version;
use serde::{Deserialize, Serialize};

use crate::contents::check_packed_path;
use crate::{Code, Fault, Manifest, PluginId, PluginRef, Sha256, printable};

/// The name of the file, beside the packages that it names.
pub const INDEX_NAME: &str = "index.json";
/// The largest file that is read: some 50,000 packages.
pub const MAX_INDEX_BYTES: usize = 16 * 1024 * 1024;
/// The format that is written, and the newest that is read.
const FORMAT: u32 = 1;

/// Which packages there are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Index {
    /// The format of this file: 1.
    pub format: u32,
    /// By namespace, name and version, the oldest first; each once.
    pub packages: Vec<IndexedPackage>,
}

/// One package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IndexedPackage {
    /// As in `plugin.json`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// As in `plugin.json`.
    pub name: String,
    /// As in `plugin.json`.
    #[schemars(with = "String")]
    pub version: Version,
    /// As in `plugin.json`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// As in `plugin.json`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<String>,
    /// The file, relative to the index, with `/` between the names.
    pub file: String,
    /// Of the file, in bytes.
    pub size: u64,
    /// Of the file, as 64 lower-case hexadecimal digits.
    #[schemars(with = "String")]
    pub sha256: Sha256,
}

impl Default for Index {
    fn default() -> Self {
        Self { format: FORMAT, packages: Vec::new() }
    }
}

impl Index {
    /// Reads the text of the file.
    ///
    /// # Errors
    /// `too_large`; `invalid_argument` with everything that is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Self, Fault> {
        let wrong = |why: String| Fault::new(Code::InvalidArgument, format!("the index {why}"));
        if bytes.len() > MAX_INDEX_BYTES {
            return Err(Fault::new(Code::TooLarge, format!("the index is larger than {MAX_INDEX_BYTES} bytes")));
        }
        let index: Self = serde_json::from_slice(bytes)
            .map_err(|error| wrong(format!("cannot be read: {}", printable(&error.to_string()))))?;
        if index.format != FORMAT {
            return Err(wrong(format!("has format {}, this version reads {FORMAT}", index.format)));
        }
        let problems: Vec<_> = index.packages.iter().flat_map(IndexedPackage::problems).take(20).collect();
        if problems.is_empty() { Ok(index) } else { Err(wrong(problems.join("; "))) }
    }

    /// The file's text.
    pub fn to_json(&self) -> Vec<u8> {
        let mut json = serde_json::to_vec_pretty(self).expect("strings and numbers are always JSON");
        json.push(b'\n');
        json
    }

    /// Takes a package in, in its order.
    ///
    /// # Errors
    /// `conflict` when there is another one of that version.
    pub fn add(&mut self, package: IndexedPackage) -> Result<(), Fault> {
        match self.packages.binary_search_by(|known| known.order().cmp(&package.order())) {
            Ok(at) if self.packages[at].sha256 == package.sha256 => self.packages[at] = package,
            Ok(_) => {
                let text = format!("{} {} is there already, with other content", package.shown(), package.version);
                return Err(Fault::new(Code::Conflict, text));
            }
            Err(at) => self.packages.insert(at, package),
        }
        Ok(())
    }

    /// The packages whose name, namespace or description hold `text`, whatever the case; all of them if it is empty.
    pub fn search(&self, text: &str) -> Vec<&IndexedPackage> {
        let wanted = text.to_lowercase();
        let has = |hay: &str| hay.to_lowercase().contains(&wanted);
        let fits = |it: &&IndexedPackage| {
            has(&it.shown()) || it.description.as_deref().is_some_and(has) || it.interfaces.iter().any(|one| has(one))
        };
        self.packages.iter().filter(fits).collect()
    }

    /// The newest package of the plugin that will do; one with a pre-release only if the range names it.
    ///
    /// # Errors
    /// `not_found`; `conflict` when a bare name fits plugins of several namespaces, with all of them.
    pub fn find(&self, wanted: &PluginRef) -> Result<&IndexedPackage, Fault> {
        let fits = |it: &&IndexedPackage| match wanted.name.split_once('/') {
            Some((namespace, name)) => it.name == name && it.namespace == namespace.trim_start_matches('-'),
            None => it.name == wanted.name,
        };
        let named: Vec<_> = self.packages.iter().filter(fits).collect();
        let mut spaces: Vec<_> = named.iter().map(|it| it.shown()).collect();
        spaces.dedup();
        if spaces.len() > 1 {
            let text = format!("`{}` is ambiguous: {}", printable(&wanted.name), spaces.join(", "));
            return Err(Fault::new(Code::Conflict, text));
        }
        let admitted = |it: &&&IndexedPackage| match &wanted.range {
            Some(range) => range.matches(&it.version),
            None => it.version.pre.is_empty(),
        };
        named.iter().filter(admitted).max_by(|one, other| one.version.cmp(&other.version)).copied().ok_or_else(|| {
            let there: Vec<_> = named.iter().map(|it| it.version.to_string()).collect();
            let there = if there.is_empty() { String::new() } else { format!(": there are {}", there.join(", ")) };
            Fault::new(
                Code::NotFound,
                format!("the index names no package of `{}`{there}", printable(&wanted.to_string())),
            )
        })
    }
}

impl IndexedPackage {
    /// The package that `manifest` is in.
    pub fn new(manifest: &Manifest, file: String, size: u64, sha256: Sha256) -> Self {
        Self {
            namespace: manifest.id.namespace().to_owned(),
            name: manifest.id.name().to_owned(),
            version: manifest.version.clone(),
            description: manifest.description.clone(),
            interfaces: manifest.interfaces.clone(),
            file,
            size,
            sha256,
        }
    }

    /// `NAMESPACE/NAME`.
    pub fn shown(&self) -> String {
        let namespace = if self.namespace.is_empty() { "-" } else { &self.namespace };
        format!("{}/{}", printable(namespace), printable(&self.name))
    }

    fn order(&self) -> (&str, &str, &Version) {
        (&self.namespace, &self.name, &self.version)
    }

    fn problems(&self) -> Vec<String> {
        let name = PluginId::new(&self.namespace, &self.name).err().map(|error| error.to_string());
        // It lies beside the index, or deeper: an index leads nowhere else.
        let strange = self
            .file
            .contains(['?', '#', '%', ':'])
            .then(|| format!("file `{}` is no plain path", printable(&self.file)));
        name.into_iter().chain(check_packed_path(&self.file).err()).chain(strange).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, version: &str) -> IndexedPackage {
        let id = PluginId::parse(name).unwrap();
        IndexedPackage {
            namespace: id.namespace().to_owned(),
            name: id.name().to_owned(),
            version: Version::parse(version).unwrap(),
            description: Some(format!("Does {version}")),
            interfaces: Vec::new(),
            file: format!("{}-{version}.plg", id.name()),
            size: 3,
            sha256: Sha256::from([7; 32]),
        }
    }

    fn some() -> Index {
        let mut index = Index::default();
        for (name, version) in [
            ("test/do", "1.10.0"),
            ("test/do", "1.2.0"),
            ("-/do", "3.0.0"),
            ("test/it", "1.0.0"),
            ("test/do", "2.0.0-rc.1"),
        ] {
            index.add(package(name, version)).unwrap();
        }
        index
    }

    #[test]
    fn packages_are_in_order_and_each_is_there_once() {
        let index = some();
        let order: Vec<_> = index.packages.iter().map(|it| format!("{} {}", it.shown(), it.version)).collect();
        assert_eq!(order, ["-/do 3.0.0", "test/do 1.2.0", "test/do 1.10.0", "test/do 2.0.0-rc.1", "test/it 1.0.0"]);
        assert_eq!(Index::parse(&index.to_json()).unwrap(), index);
        let mut again = index.clone();
        again.add(package("test/do", "1.2.0")).unwrap();
        assert_eq!(again, index);
        let other = IndexedPackage { sha256: Sha256::from([8; 32]), ..package("test/do", "1.2.0") };
        assert_eq!(again.add(other).unwrap_err().code, Code::Conflict);
    }

    #[test]
    fn the_newest_that_will_do_is_found() {
        let index = some();
        for (wanted, expected) in [
            ("test/do", Ok("1.10.0")),
            ("test/do@<1.5", Ok("1.2.0")),
            ("test/do@=2.0.0-rc.1", Ok("2.0.0-rc.1")),
            ("-/do", Ok("3.0.0")),
            ("it", Ok("1.0.0")),
            ("do", Err(Code::Conflict)),
            ("test/do@^3", Err(Code::NotFound)),
            ("test/no", Err(Code::NotFound)),
        ] {
            let found = index.find(&PluginRef::parse(wanted).unwrap());
            let found = found.map(|it| it.version.to_string()).map_err(|fault| fault.code);
            assert_eq!(found.as_deref().map_err(|code| *code), expected, "{wanted}");
        }
        for (text, count) in [("", 5), ("TEST/", 4), ("does 1.2", 1), ("nothing", 0)] {
            assert_eq!(index.search(text).len(), count, "{text}");
        }
    }

    #[test]
    fn an_index_leads_nowhere_else() {
        for file in ["/etc/passwd", "../x.plg", "a/../x", "https://example.org/x", "x?y", "x#y", "%2e%2e/x", ""] {
            let index =
                Index { packages: vec![IndexedPackage { file: file.into(), ..package("a/b", "1.0.0") }], format: 1 };
            assert_eq!(
                Index::parse(&index.to_json()).map_err(|fault| fault.code),
                Err(Code::InvalidArgument),
                "{file}"
            );
        }
        for text in ["", "{}", "[]", r#"{"format":2,"packages":[]}"#, r#"{"format":1,"packages":[],"more":1}"#] {
            assert!(Index::parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}
