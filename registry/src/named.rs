//! A plugin by its name and a range of versions: `NAMESPACE/NAME@RANGE`.

use goplug_pconf_schema::{Fault, PluginId, PluginRef};

use crate::registry::{Inner, Known};
use crate::show;

/// The plugin that `text` means, if the version that is there will do. `missing`: that nothing is named so as a whole, which
/// is what counts when nothing behind the `@` is a range.
pub(crate) fn find(registry: &Inner, text: &str, missing: Fault) -> Result<Known, Fault> {
    let wanted = match PluginRef::parse(text) {
        Ok(wanted) => wanted,
        Err(why) => return Err(Fault { message: format!("{}; {why}", missing.message), ..missing }),
    };
    let known = registry.find_named(&wanted.name)?;
    let (id, version) = serving(&known);
    if wanted.admits(version.as_deref()) {
        return Ok(known);
    }
    let installed: Vec<_> = registry.finder().versions(&id).iter().map(ToString::to_string).collect();
    Err(wanted.mismatch(&id, version.as_deref(), &installed))
}

/// The name without its range, when there is one and nothing is named so as a whole.
pub(crate) fn without_range(registry: &Inner, text: &str) -> Option<String> {
    let wanted = PluginRef::parse(text).ok().filter(|wanted| wanted.range.is_some())?;
    registry.find_named(text).is_err().then_some(wanted.name)
}

/// Who it is, and in which version: that of the process that serves, else that of the manifest.
fn serving(known: &Known) -> (PluginId, Option<String>) {
    match known {
        Known::Slot(slot) => (slot.id.clone(), show::summary(slot).version),
        Known::Installed(plugin) => (plugin.id.clone(), Some(plugin.found.manifest.version.to_string())),
    }
}
