//! Who may depend on whom, and the one address of each third-party crate (`ARCHITECTURE.md`).

mod names;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::steps::output;
use crate::{cargo, no_arguments, tree};

/// Our packages and those of ours that each may use, tests included.
const EDGES: [(&str, &[&str]); 16] = [
    ("goplug-pconf-schema", &[]),
    ("goplug-transport", &["goplug-pconf-schema"]),
    ("goplug-plugin-impl", &["goplug-pconf-schema", "goplug-transport"]),
    ("goplug-package", &["goplug-pconf-schema"]),
    ("goplug-registry", &["goplug-package", "goplug-pconf-schema", "goplug-transport"]),
    ("goplug-interface-macros", &[]),
    ("goplug-interface", &["goplug-pconf-schema", "goplug-plugin-impl", "goplug-registry", "goplug-interface-macros"]),
    ("goplugd", &["goplug-pconf-schema", "goplug-registry"]),
    ("goplugctl", &["goplug-package", "goplug-pconf-schema", "goplug-plugin-impl", "goplug-registry", "goplugd"]),
    ("goplug-shared-object", &[]),
    ("goplug-example-shared-object", &["goplug-shared-object"]),
    ("goplug-host", &["goplug-pconf-schema", "goplug-plugin-impl", "goplug-shared-object", "goplug-transport"]),
    ("goplug-examples", &["goplug-pconf-schema", "goplug-plugin-impl", "goplug-registry", "goplug-interface"]),
    (
        "goplug-tests",
        &[
            "goplug-pconf-schema",
            "goplug-plugin-impl",
            "goplug-registry",
            "goplug-interface",
            "goplug-package",
            "goplugctl",
            "goplugd",
            "goplug-host",
            "goplug-examples",
            "goplug-example-shared-object",
        ],
    ),
    (
        "goplug-benches",
        &["goplug-pconf-schema", "goplug-plugin-impl", "goplug-registry", "goplug-transport", "goplugd"],
    ),
    ("xtask", &["goplug-pconf-schema"]),
];

/// What the data crate must not even have somewhere below it: it can do nothing.
const NOT_BELOW_DATA: [&str; 5] = ["axum", "hyper", "mio", "notify", "tokio"];

/// Third-party crates as code names them, the package that may use each, and where in it the crate may be named.
const ADDRESSES: [(&str, &str, &[&str]); 15] = [
    ("notify", "goplug-registry", &["registry/src/discovery/watch"]),
    ("object", "goplug-registry", &["registry/src/discovery/shared_object.rs"]),
    ("libloading", "goplug-shared-object", &["shared-object/src/boundary/host.rs"]),
    ("sha2", "goplug-package", &["package/src/digest.rs", "package/tests/it"]),
    ("dashmap", "goplug-registry", &["registry/src/registry.rs"]),
    ("hyperlocal", "goplugctl", &["goplugctl/src/target/daemon"]),
    ("axum", "goplugd", &["goplugd/src/api", "goplugd/src/daemon.rs"]),
    ("serde_path_to_error", "goplug-plugin-impl", &["plugin-impl/src/typed.rs"]),
    ("syn", "goplug-interface-macros", &["interface-macros/src"]),
    ("signal_hook", "goplug-host", &["goplug-host/src/host.rs"]),
    ("tar", "goplug-package", &["package/src/archive.rs", "package/src/pack.rs"]),
    ("flate2", "goplug-package", &["package/src/stream.rs", "package/src/pack.rs", "package/tests/it"]),
    ("ruzstd", "goplug-package", &["package/src/stream.rs", "package/tests/it"]),
    ("minisign_verify", "goplug-package", &["package/src/keys.rs"]),
    ("httparse", "goplug-transport", &["transport/src/http"]),
];

pub(crate) fn run(root: &Path, rest: &[String]) -> Result<()> {
    no_arguments(rest)?;
    let packages = Packages::read(root)?;
    let mut wrong = packages.wrong_edges();
    wrong.extend(packages.below_data());
    wrong.extend(packages.wrong_users());
    wrong.extend(wrong_places(root)?);
    if !wrong.is_empty() {
        bail!("{}", wrong.join("\n"));
    }
    println!("{} packages, {} edges between them, {} addresses", EDGES.len(), packages.edge_count(), ADDRESSES.len());
    Ok(())
}

/// The graph as cargo resolves it, by name; of two versions of a crate both are meant.
struct Packages {
    /// What each package uses, tests included.
    uses: BTreeMap<String, BTreeSet<String>>,
    /// The members of the workspace.
    ours: BTreeSet<String>,
}

impl Packages {
    fn read(root: &Path) -> Result<Self> {
        // For this platform alone: crates of others need not even be on this machine.
        let host = host(root)?;
        let mut metadata = cargo(root);
        metadata.args(["metadata", "--format-version", "1", "--locked", "--filter-platform", &host]);
        let metadata: Value = serde_json::from_str(&output(&mut metadata)?).context("cargo metadata is no JSON")?;
        Self::from_metadata(&metadata).context("cargo metadata has another shape than expected")
    }

    fn from_metadata(metadata: &Value) -> Option<Self> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let mut names = BTreeMap::new();
        for package in metadata["packages"].as_array()? {
            names.insert(text(&package["id"])?, text(&package["name"])?);
        }
        let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for node in metadata["resolve"]["nodes"].as_array()? {
            let used = node["dependencies"].as_array()?.iter().map(|id| names.get(id.as_str()?).cloned());
            uses.entry(names.get(node["id"].as_str()?)?.clone()).or_default().extend(used.collect::<Option<Vec<_>>>()?);
        }
        let ours = metadata["workspace_members"].as_array()?.iter().map(|id| names.get(id.as_str()?).cloned());
        Some(Self { uses, ours: ours.collect::<Option<_>>()? })
    }

    fn used_by(&self, package: &str) -> impl Iterator<Item = &String> {
        self.uses.get(package).into_iter().flatten()
    }

    fn edge_count(&self) -> usize {
        self.ours.iter().flat_map(|package| self.used_by(package)).filter(|used| self.ours.contains(*used)).count()
    }

    fn wrong_edges(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for package in &self.ours {
            let Some((_, allowed)) = EDGES.iter().find(|(name, _)| name == package) else {
                wrong.push(format!("package `{package}` is in no band: give it a line in xtask/src/edges.rs"));
                continue;
            };
            for used in self.used_by(package).filter(|used| self.ours.contains(*used)) {
                if !allowed.contains(&used.as_str()) {
                    wrong.push(format!("`{package}` must not depend on `{used}`"));
                }
            }
        }
        wrong
    }

    fn below_data(&self) -> Vec<String> {
        let mut below = BTreeSet::new();
        let mut open = vec!["goplug-pconf-schema"];
        while let Some(package) = open.pop() {
            for used in self.used_by(package) {
                if below.insert(used.as_str()) {
                    open.push(used);
                }
            }
        }
        let found = NOT_BELOW_DATA.into_iter().filter(|name| below.contains(name));
        found.map(|name| format!("`{name}` is below `goplug-pconf-schema`, which can do nothing")).collect()
    }

    fn wrong_users(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for (name, owner, _) in ADDRESSES {
            // Nobody runs the tests: they may make with it what is to be refused.
            for package in self.ours.iter().filter(|package| *package != owner && *package != "goplug-tests") {
                if self.used_by(package).any(|used| used.replace('-', "_") == name) {
                    wrong.push(format!("`{package}` must not depend on `{name}`: its one address is in `{owner}`"));
                }
            }
        }
        wrong
    }
}

/// Files of an owner that name its third-party crate elsewhere than at the crate's address.
fn wrong_places(root: &Path) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    for (name, _, places) in ADDRESSES {
        let package = places[0].split('/').next().unwrap_or_default();
        let mut files = Vec::new();
        tree::collect(&root.join(package), &mut files)?;
        for file in files.iter().filter(|file| file.extension().is_some_and(|extension| extension == "rs")) {
            let shown = file.strip_prefix(root).unwrap_or(file).to_string_lossy().into_owned();
            if places.iter().any(|place| shown.starts_with(place)) {
                continue;
            }
            let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {shown}"))?;
            for line in names::lines_naming(&text, name) {
                wrong.push(format!("{shown}:{line} names `{name}`, whose one address is {}", places.join(", ")));
            }
        }
    }
    Ok(wrong)
}

/// The platform that this machine builds for.
pub(crate) fn host(root: &Path) -> Result<String> {
    let text = output(cargo(root).arg("-vV"))?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("`cargo -vV` names no host")?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packages(uses: &[(&str, &[&str])]) -> Packages {
        let uses: BTreeMap<_, _> = uses
            .iter()
            .map(|(name, used)| ((*name).to_owned(), used.iter().map(|used| (*used).to_owned()).collect()))
            .collect();
        let ours = uses.keys().filter(|name| name.starts_with("goplug") || *name == "xtask").cloned().collect();
        Packages { uses, ours }
    }

    #[test]
    fn siblings_and_upward_edges_are_found() {
        let fine =
            packages(&[("goplug-registry", &["goplug-transport", "notify"]), ("goplug-transport", &["httparse"])]);
        assert_eq!((fine.wrong_edges(), fine.wrong_users(), fine.edge_count()), (vec![], vec![], 1));
        let wrong = packages(&[
            ("goplug-registry", &["goplug-plugin-impl"]),
            ("goplug-pconf-schema", &["goplugd"]),
            ("goplug-plugin-impl", &["dashmap"]),
            ("goplug-new", &[]),
            ("goplugd", &[]),
        ]);
        let edges = wrong.wrong_edges().join("\n");
        assert!(edges.contains("`goplug-registry` must not depend on `goplug-plugin-impl`"), "{edges}");
        assert!(
            edges.contains("`goplug-pconf-schema` must not depend on `goplugd`") || edges.contains("goplugd"),
            "{edges}"
        );
        assert!(edges.contains("`goplug-new` is in no band"), "{edges}");
        assert_eq!(wrong.wrong_users().len(), 1);
    }

    #[test]
    fn tokio_is_found_however_deep_below_the_data() {
        let deep = packages(&[("goplug-pconf-schema", &["a"]), ("a", &["b"]), ("b", &["tokio", "a"])]);
        assert_eq!(deep.below_data().len(), 1);
        assert_eq!(packages(&[("goplug-pconf-schema", &["a"]), ("goplugd", &["tokio"])]).below_data(), [""; 0]);
    }

    #[test]
    fn metadata_is_read_by_name() {
        let metadata = serde_json::json!({
            "packages": [{"id": "i1", "name": "goplugd"}, {"id": "i2", "name": "axum"}],
            "resolve": {"nodes": [{"id": "i1", "dependencies": ["i2"]}, {"id": "i2", "dependencies": []}]},
            "workspace_members": ["i1"],
        });
        let packages = Packages::from_metadata(&metadata).unwrap();
        assert_eq!(packages.used_by("goplugd").collect::<Vec<_>>(), ["axum"]);
        assert!(Packages::from_metadata(&serde_json::json!({})).is_none());
    }
}
