//! What is written down of a version when it is installed, and forgotten when its plugin is removed. Blocking.

use std::path::{Path, PathBuf};

use goplug_pconf_schema::grants::{asked, together, words};
use goplug_pconf_schema::{
    Code, Fault, Grant, Known, KnownVersion, MAX_KNOWN_VERSIONS, PackageState, Permissions, PluginId, Reason, Sha256,
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
    /// What it asks to be allowed.
    pub wanted: Permissions,
    /// What is granted now; `None`: nothing is going to be installed, and nobody is asked.
    pub grant: Option<&'a Grant>,
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

    /// Refuses a version that was installed before with other content, whether it is still there or not, and one that asks for
    /// what nobody grants. Tells what has to be granted for it.
    pub(crate) fn check(&self, noted: &Noted<'_>) -> Result<Permissions, Fault> {
        let known = self.of(noted.id)?.unwrap_or_default();
        check(&known, noted)?;
        Ok(asked(&known.granted, &noted.wanted))
    }

    /// Writes down what is installed now, before it comes to its place; tells what was known before. Once one package is
    /// known, every version is: `others` are those that lie there already. Of a plugin of which only folders are installed
    /// nothing is written down but what it was granted.
    pub(crate) fn note(&self, noted: &Noted<'_>, others: &[Version]) -> Result<Option<Known>, Fault> {
        let known = self.of(noted.id)?;
        if known.is_none() && noted.contents.is_none() && asked(&Permissions::new(), &noted.wanted).is_empty() {
            return Ok(None);
        }
        let change = |state: &mut PackageState| -> Result<_, Refusal> {
            let before = state.of(&self.directory, noted.id).cloned();
            let mut known = before.clone().unwrap_or_default();
            check(&known, noted).map_err(Refusal)?;
            known.granted = together(&known.granted, &noted.wanted);
            if noted.contents.is_some() || !known.versions.is_empty() {
                let version = |contents, signed_by| KnownVersion { contents, signed_by, since: now_text() };
                if known.versions.is_empty() {
                    known.versions.extend(others.iter().map(|other| (other.clone(), version(None, None))));
                }
                known.versions.insert(noted.version.clone(), version(noted.contents, noted.signed_by.clone()));
            }
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

    /// Refuses a version that is older than the one that was current, where nothing is installed any more.
    pub(crate) fn check_first(&self, id: &PluginId, version: &Version) -> Result<(), Fault> {
        let Some(current) = self.of(id)?.and_then(|known| known.current).filter(|current| version < current) else {
            return Ok(());
        };
        let text = format!(
            "{version} is older than {current}, which plugin `{id}` was at when its files were removed by hand; \
             `goplugctl trust revoke {id}` forgets that"
        );
        Err(Fault::new(Code::WrongState, text).with_reason(Reason::Altered))
    }

    /// A version is going to be current, and may be an older one: from now on it may run. Tells which one was current.
    pub(crate) fn lower(&self, id: &PluginId, to: &Version) -> Result<Option<Version>, Fault> {
        let current = self.of(id)?.and_then(|known| known.current);
        if current.as_ref().is_some_and(|current| to < current) {
            self.made_current(id, Some(to))?;
        }
        Ok(current)
    }

    /// A version is the current one now: an older one does not run any more. Only of a plugin that came as a package.
    pub(crate) fn made_current(&self, id: &PluginId, version: Option<&Version>) -> Result<(), Fault> {
        let is_known = |known: &Known| !known.versions.is_empty() && known.current.as_ref() != version;
        if !self.of(id)?.is_some_and(|known| is_known(&known)) {
            return Ok(());
        }
        let change = |state: &mut PackageState| {
            if let Some(known) = state.of(&self.directory, id).filter(|known| is_known(known)) {
                let known = Known { current: version.cloned(), ..known.clone() };
                state.set(&self.directory, id, Some(known));
            }
        };
        store::update(&self.folder, change).map_err(internal)
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

fn check(known: &Known, noted: &Noted<'_>) -> Result<(), Fault> {
    let (id, version) = (noted.id, noted.version);
    let before = known.versions.get(version).and_then(|version| version.contents);
    if before.is_some() && before != noted.contents {
        let text = format!(
            "version {version} of plugin `{id}` was installed before with other content: give this one another version"
        );
        return Err(Fault::new(Code::Conflict, text).with_reason(Reason::Altered));
    }
    let asked = asked(&known.granted, &noted.wanted);
    let left = noted.grant.map(|grant| grant.leaves(&asked)).unwrap_or_default();
    if left.is_empty() {
        return Ok(());
    }
    let text =
        format!("version {version} of plugin `{id}` asks for what nobody has granted: {}", words(&asked).join(", "));
    let data = serde_json::json!({ "permissions": asked });
    Err(Fault::new(Code::Denied, text).with_reason(Reason::NotGranted).with_data(data))
}

fn internal(why: String) -> Fault {
    Fault::new(Code::Internal, format!("what was installed cannot be told: {why}"))
}
