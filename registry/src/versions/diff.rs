//! What another version would change, told before it is made current.

use std::path::PathBuf;
use std::sync::Arc;

use goplug_pconf_schema::admin::{Diff, Difference, differences, offered};
use goplug_pconf_schema::manifest::ManifestWire;
use goplug_pconf_schema::wire::hello::Hello;
use goplug_pconf_schema::{Code, Fault, Reason};
use semver::Version;

use super::{plan, shelf};
use crate::discovery::Installed;
use crate::install;
use crate::installed::blocking;
use crate::program::hello_of;
use crate::registry::Registry;
use crate::tasks::Pending;

/// What the current version of a plugin is compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Against {
    /// What an upgrade would make current.
    Newest,
    /// Another version that is installed.
    Version(String),
    /// A folder that could be installed, its `plugin.json`, or a package that a trusted key signed.
    Folder(PathBuf),
    /// As [`Against::Folder`]; a package will do that nobody signed. Its program is run for that.
    Unsigned(PathBuf),
}

impl Registry {
    /// What differs between the current version of a plugin and another one, in the manifest and in what the process says:
    /// methods, callbacks, interfaces, with their schemas. A version that does not serve is started aside for that, asked for
    /// its hello, not activated, and ended; its hooks do not run.
    ///
    /// # Errors
    /// As [`Registry::upgrade`]; a version that does not come up is no error: its manifest is compared, and a note says so.
    ///
    /// # Cancel safety
    /// Dropping the future ends what was started.
    pub fn diff<'a>(&'a self, plugin: &'a str, against: Against) -> Pending<'a, Result<Diff, Fault>> {
        Box::pin(async move {
            let (id, directory) = self.changeable(plugin).await?;
            let gone = || Fault::new(Code::NotFound, format!("plugin `{id}` is not installed any more"));
            let current = self.inner.finder().installed_as(&id).ok_or_else(gone)?.found;
            let (plugin, keys) = (id.clone(), self.keys(matches!(against, Against::Unsigned(_))).await?);
            // The second: what a package was unpacked to, which stays until it was asked.
            let other = blocking(move || {
                let found = shelf(&directory, &plugin)?;
                let version = match against {
                    Against::Folder(folder) | Against::Unsigned(folder) => {
                        let source = install::survey(&directory, &folder, &keys)?;
                        if source.manifest.id != plugin {
                            let text =
                                format!("it is the folder of plugin `{}`, not of `{plugin}`", source.manifest.id);
                            return Err(Fault::new(Code::InvalidArgument, text));
                        }
                        return Ok((Some(source.as_installed()), Some(source)));
                    }
                    Against::Newest => plan::upgrade(&found, &plugin, None, false)?,
                    Against::Version(text) => Version::parse(&text).map_err(|error| {
                        Fault::new(Code::InvalidArgument, format!("`{text}` is no version: {error}"))
                    })?,
                };
                let missing = || {
                    let there: Vec<_> = found.installed.iter().map(ToString::to_string).collect();
                    let text =
                        format!("version {version} of plugin `{plugin}` is not installed: {} are", there.join(", "));
                    Fault::new(Code::NotFound, text).with_reason(Reason::NoVersion)
                };
                if found.version() == Some(&version) {
                    return Ok((None, None));
                }
                super::shelf::read(&directory, &plugin, &version).map(|found| (Some(found), None)).ok_or_else(missing)
            });
            let (other, _unpacked) = other.await?;
            let other = other.unwrap_or_else(|| Arc::clone(&current));
            let (from, to) = (current.manifest.version.to_string(), other.manifest.version.to_string());
            let mut found = differences("manifest", &current.manifest.to_value(), &other.manifest.to_value());
            let mut notes = Vec::new();
            if !Arc::ptr_eq(&current, &other) {
                found.extend(self.offers(&current, &other, &mut notes).await);
            }
            Ok(Diff { plugin: id, from, to, differences: found, notes })
        })
    }

    async fn offers(
        &self,
        current: &Arc<Installed>,
        other: &Arc<Installed>,
        notes: &mut Vec<String>,
    ) -> Vec<Difference> {
        let slot = self.inner.slot(&current.manifest.id);
        let serving = slot.and_then(|slot| slot.live()).map(|live| live.hello.clone());
        // The process that serves may be of another version for a moment.
        let serving = serving.filter(|hello| {
            hello.version.as_deref().is_none_or(|version| version == current.manifest.version.to_string())
        });
        let before = match serving {
            Some(hello) if current.manifest.wire == ManifestWire::V1 => Some(hello),
            _ => self.asked(current, notes).await,
        };
        let Some(before) = before else { return Vec::new() };
        let Some(after) = self.asked(other, notes).await else { return Vec::new() };
        let [before, after] = [before, after].map(|hello| offered(&hello));
        ["callbacks", "interfaces", "methods"]
            .iter()
            .flat_map(|part| differences(part, &before[*part], &after[*part]))
            .collect()
    }

    async fn asked(&self, installed: &Arc<Installed>, notes: &mut Vec<String>) -> Option<Hello> {
        let manifest = &installed.manifest;
        let why = match manifest.not_runnable() {
            Some(why) => why,
            None if manifest.wire != ManifestWire::V1 => {
                format!("it speaks {}, which tells no methods before it is activated", manifest.wire.as_str())
            }
            None => match hello_of(&self.inner, Arc::clone(installed)).await {
                Ok(Some(hello)) => return Some(hello),
                Ok(None) => "it answers no hello".to_owned(),
                Err(fault) => format!("it does not come up: {fault}"),
            },
        };
        notes.push(format!("methods are not compared: version {}: {why}", manifest.version));
        None
    }
}
