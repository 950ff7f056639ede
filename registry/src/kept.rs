//! What the keepers of processes add to what is known of plugins.

use goplug_pconf_schema::PluginId;
use goplug_pconf_schema::admin::{PluginSummary, ProcessDetail, State};
use goplug_pconf_schema::manifest::MANIFEST_NAME;

use crate::finder::InstalledPlugin;
use crate::registry::Inner;
use crate::supervisor::Slot;
use std::sync::Arc;

impl Inner {
    /// Whether the plugin is there because of its manifest: what becomes of a `.pconf` of it says nothing then.
    pub(crate) fn is_kept(&self, id: &PluginId) -> bool {
        let by_manifest = |slot: Arc<Slot>| slot.view().file.file_name().is_some_and(|name| name == MANIFEST_NAME);
        self.programs.get(id).is_some() && self.slot(id).is_some_and(by_manifest)
    }

    /// Everything that is installed, with what its keeper says.
    pub(crate) fn installed(&self) -> Vec<InstalledPlugin> {
        self.finder.installed().into_iter().map(|plugin| self.with_process(plugin)).collect()
    }

    pub(crate) fn with_process(&self, mut plugin: InstalledPlugin) -> InstalledPlugin {
        if let Some(program) = self.programs.get(&plugin.id) {
            let view = program.view();
            (plugin.state, plugin.last_error) = (view.state, view.last_error.clone());
        }
        plugin
    }

    /// The state of an installed plugin without a process, of which its supervisor may not have heard yet.
    pub(crate) fn kept_state(&self, id: &PluginId) -> Option<State> {
        let program = self.programs.get(id).filter(|program| !program.is_running())?;
        let is_served = self.slot(id).is_some_and(|slot| slot.live().is_some() || !self.is_kept(id));
        (!is_served).then(|| program.view().state)
    }

    /// Adds what the keeper of a plugin's process knows to its row.
    pub(crate) fn settle(&self, id: &PluginId, row: &mut PluginSummary) {
        row.state = self.kept_state(id).unwrap_or(row.state);
        row.pid = row.pid.or_else(|| self.programs.get(id)?.pid());
        row.versions = self.finder.versions(id).iter().map(ToString::to_string).collect();
        row.pinned = self.finder.pin(id).map(|range| range.to_string());
    }

    /// What is known of the process of an installed plugin that is started here.
    pub(crate) fn process_of(&self, id: &PluginId) -> Option<ProcessDetail> {
        self.programs.get(id).map(|program| program.detail())
    }
}
