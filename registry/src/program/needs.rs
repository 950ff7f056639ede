//! What has to run before a plugin is started.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use goplug_pconf_schema::{Code, Fault, Manifest, PluginId};
use semver::Version;
use tokio::time::timeout;

use super::Command;
use super::order::{Member, Obstacle, needed_by};
use crate::finder::InstalledPlugin;
use crate::registry::Inner;

/// How long everything that a plugin requires may take to be loaded.
const NEEDS_WITHIN: Duration = Duration::from_secs(20);

/// Sees to it that everything that `id` requires is loaded: starts what is installed, loads what started itself.
///
/// # Errors
/// `invalid_argument` for a cycle, told member by member; `unavailable` when one is missing, of another version, or does not
/// come up.
pub(super) async fn ready(registry: &Arc<Inner>, id: &PluginId, manifest: &Manifest) -> Result<(), Fault> {
    let mut members = members(registry);
    // That of the version that is to be started, which need not be the current one yet.
    members.insert(id.clone(), Member { version: Some(manifest.version.clone()), requires: manifest.requires.clone() });
    if members.get(id).is_none_or(|member| member.requires.is_empty()) {
        return Ok(());
    }
    let needed = needed_by(id, &members).map_err(|obstacle| {
        let code = if matches!(obstacle, Obstacle::Cycle(_)) { Code::InvalidArgument } else { Code::Unavailable };
        Fault::new(code, obstacle.to_string())
    })?;
    let load_all = async {
        for needed in needed.iter().filter(|needed| *needed != id) {
            load(registry, needed).await?;
        }
        Ok(())
    };
    let late = || Fault::new(Code::Unavailable, format!("what it requires was not loaded within {NEEDS_WITHIN:?}"));
    timeout(NEEDS_WITHIN, load_all).await.unwrap_or_else(|_| Err(late()))
}

/// Plugins that run and require `id`.
pub(super) fn dependants(registry: &Inner, id: &PluginId) -> u64 {
    let requires = |plugin: &InstalledPlugin| plugin.found.manifest.requires.iter().any(|needed| needed.plugin == *id);
    let running = registry.finder().installed().into_iter().filter(|plugin| registry.programs.runs(&plugin.id));
    running.filter(requires).count() as u64
}

async fn load(registry: &Arc<Inner>, id: &PluginId) -> Result<(), Fault> {
    let failed = |fault: Fault| {
        let text = format!("it requires plugin `{id}`, which is not loaded: {fault}");
        Fault { message: text, ..Fault::new(Code::Unavailable, "") }
    };
    if let Some(program) = registry.programs.get(id)
        && !program.is_running()
    {
        program.ask(Command::Start).await.map_err(failed)?;
    }
    let slot = registry.resolve(id.as_str()).map_err(failed)?;
    slot.load(false).await.map(drop).map_err(failed)
}

/// Every plugin that there is, as far as the order goes.
fn members(registry: &Inner) -> BTreeMap<PluginId, Member> {
    let version = |text: Option<&str>| text.and_then(|text| Version::parse(text).ok());
    let running = registry.all().into_iter().map(|slot| {
        let view = slot.view();
        (slot.id.clone(), Member { version: version(view.found.pconf.version.as_deref()), requires: Vec::new() })
    });
    let mut members: BTreeMap<_, _> = running.collect();
    members.extend(registry.finder().installed().into_iter().map(|plugin| {
        let manifest = &plugin.found.manifest;
        let member = Member { version: Some(manifest.version.clone()), requires: manifest.requires.clone() };
        (plugin.id, member)
    }));
    members
}
