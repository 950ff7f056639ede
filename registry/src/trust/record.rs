//! What is written down of a version when it is installed, and forgotten when its plugin is removed. Blocking.

use std::path::{Path, PathBuf};

use goplug_pconf_schema::{
    Code, Fault, Known, KnownVersion, MAX_KNOWN_VERSIONS, PackageState, PluginId, Reason, Sha256,
};
use semver::Version;

use super::store;
use super::vet::directory_name;
use crate::event::now_text;

/// What is known of the plugins of one plugin directory.
#[derive(Debug, Clone)]
pub(crate) struct Records {
    folder: PathBuf,
    directory: String,
}

/// A version that is being installed.
#[derive(Debug)]
pub(crate) struct Noted<'a> {
    pub id: &'a PluginId,
    pub version: &'a Version,
    /// The digest of `MANIFEST` of its package; `None` of a folder.
    pub contents: Option<Sha256>,
    pub signed_by: Option<String>,
}

impl Records {
    pub(crate) fn new(folder: PathBuf, directory: &Path) -> Self {
        Self { folder, directory: directory_name(directory) }
    }

    /// What is known of a plugin; `None`: nothing was ever installed of it as a package.
    pub(crate) fn of(&self, id: &PluginId) -> Result<Option<Known>, Fault> {
        let state: PackageState = store::load(&self.folder).map_err(internal)?;
        Ok(state.of(&self.directory, id).cloned())
    }

    /// Refuses a version that was installed before with other content, whether it is still there or not.
    pub(crate) fn check(&self, noted: &Noted<'_>) -> Result<(), Fault> {
        check(self.of(noted.id)?.as_ref(), noted)
    }

    /// Writes down what is installed now, before it comes to its place; tells what was known before. Once one package is
    /// known, every version is: `others` are those that lie there already. Of a plugin of which only folders are installed
    /// nothing is written down.
    pub(crate) fn note(&self, noted: &Noted<'_>, others: &[Version]) -> Result<Option<Known>, Fault> {
        if noted.contents.is_none() && self.of(noted.id)?.is_none() {
            return Ok(None);
        }
        let change = |state: &mut PackageState| -> Result<_, Refusal> {
            let before = state.of(&self.directory, noted.id).cloned();
            check(before.as_ref(), noted).map_err(Refusal)?;
            let folder = KnownVersion { contents: None, signed_by: None, since: now_text() };
            let mut known = before.clone().unwrap_or_else(|| Known {
                versions: others.iter().map(|version| (version.clone(), folder.clone())).collect(),
            });
            let version =
                KnownVersion { contents: noted.contents, signed_by: noted.signed_by.clone(), since: now_text() };
            known.versions.insert(noted.version.clone(), version);
            if known.versions.len() > MAX_KNOWN_VERSIONS {
                let text = format!(
                    "{MAX_KNOWN_VERSIONS} versions of plugin `{0}` are known: `goplugctl trust revoke {0}` forgets them",
                    noted.id
                );
                return Err(Refusal(Fault::new(Code::Overloaded, text)));
            }
            state.set(&self.directory, noted.id, Some(known));
            Ok(before)
        };
        store::try_update(&self.folder, change).map_err(|Refusal(fault)| fault)
    }

    /// Puts back what was known before: nothing came to its place.
    pub(crate) fn undo(&self, id: &PluginId, before: Option<Known>) {
        let undone = store::update(&self.folder, |state: &mut PackageState| state.set(&self.directory, id, before));
        if let Err(why) = undone {
            tracing::warn!(plugin = %id, why, "what was written down of a version that was not installed stays");
        }
    }

    /// Forgets a plugin; tells what was known.
    pub(crate) fn forget(&self, id: &PluginId) -> Result<Option<Known>, Fault> {
        if self.of(id)?.is_none() {
            return Ok(None);
        }
        store::update(&self.folder, |state: &mut PackageState| state.set(&self.directory, id, None)).map_err(internal)
    }
}

struct Refusal(Fault);

impl From<String> for Refusal {
    fn from(why: String) -> Self {
        Self(internal(why))
    }
}

fn check(known: Option<&Known>, noted: &Noted<'_>) -> Result<(), Fault> {
    let before = known.and_then(|known| known.versions.get(noted.version)).and_then(|version| version.contents);
    if before.is_none() || before == noted.contents {
        return Ok(());
    }
    let text = format!(
        "version {} of plugin `{}` was installed before with other content: give this one another version",
        noted.version, noted.id
    );
    Err(Fault::new(Code::Conflict, text).with_reason(Reason::Altered))
}

fn internal(why: String) -> Fault {
    Fault::new(Code::Internal, format!("what was installed cannot be told: {why}"))
}
