//! Which events are written to the log: what somebody should look at, once, and that it is over.

use std::collections::HashMap;

use goplug_registry::PluginId;
use goplug_registry::admin::{EventKind, RegistryEvent, State};

/// What the log is told of an event.
#[derive(Debug, PartialEq, Eq)]
enum Entry {
    /// Somebody should look at it.
    Trouble,
    /// The trouble is over.
    Over,
}

/// The troubles that were told. A plugin is tried again and again, and fails for the same reason each time: that is told
/// once.
#[derive(Debug, Default)]
pub(super) struct Journal(HashMap<PluginId, String>);

impl Journal {
    /// Writes what is worth it.
    pub(super) fn tell(&mut self, event: &RegistryEvent) {
        let plugin = event.plugin.as_ref().map(PluginId::as_str);
        let (state, detail) = (event.state.map(State::as_str), event.detail.as_deref().unwrap_or_default());
        match self.entry(event) {
            Some(Entry::Trouble) => tracing::warn!(plugin, state, "{}: {detail}", word(event.kind)),
            Some(Entry::Over) => tracing::info!(plugin, state, "{}: {detail}", word(event.kind)),
            None => {}
        }
    }

    fn entry(&mut self, event: &RegistryEvent) -> Option<Entry> {
        match (event.kind, event.state, &event.plugin) {
            (EventKind::State, Some(State::Backoff | State::Failed | State::Denied | State::Invalid), Some(plugin)) => {
                let detail = event.detail.clone().unwrap_or_default();
                let before = self.0.insert(plugin.clone(), detail.clone());
                (before != Some(detail)).then_some(Entry::Trouble)
            }
            (EventKind::State, Some(State::Loaded), Some(plugin)) => self.0.remove(plugin).map(|_| Entry::Over),
            (EventKind::Gone, _, Some(plugin)) => {
                self.0.remove(plugin);
                None
            }
            (
                EventKind::Invalid
                | EventKind::Conflict
                | EventKind::Untrusted
                | EventKind::DirectoryLost
                | EventKind::DeadLetter,
                ..,
            ) => Some(Entry::Trouble),
            (EventKind::Resolved | EventKind::DirectoryBack, ..) => Some(Entry::Over),
            _ => None,
        }
    }
}

fn word(kind: EventKind) -> &'static str {
    match kind {
        EventKind::State => "a plugin changed its state",
        EventKind::Invalid => "a file cannot be used",
        EventKind::Conflict => "a second file claims a plugin's name",
        EventKind::Untrusted => "a process was refused",
        EventKind::DirectoryLost => "a plugin directory cannot be read",
        EventKind::DirectoryBack => "a plugin directory can be read again",
        EventKind::DeadLetter => "a notification was given up",
        EventKind::Resolved => "a file is in order again",
        _ => "something happened",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: EventKind, state: Option<State>, detail: &str) -> RegistryEvent {
        let plugin = PluginId::parse("n/a").ok();
        RegistryEvent { seq: 1, time: "now".into(), kind, plugin, state, detail: Some(detail.into()) }
    }

    #[test]
    fn trouble_is_told_once_and_when_it_is_over() {
        let mut journal = Journal::default();
        let state = |state, detail| event(EventKind::State, Some(state), detail);
        for (case, event, expected) in [
            ("the first start", state(State::Loaded, ""), None),
            ("it fails", state(State::Backoff, "refused"), Some(Entry::Trouble)),
            ("it is tried", state(State::Starting, "refused"), None),
            ("and fails again", state(State::Backoff, "refused"), None),
            ("for another reason", state(State::Failed, "no hello"), Some(Entry::Trouble)),
            ("it is loaded", state(State::Loaded, ""), Some(Entry::Over)),
            ("again", state(State::Loaded, ""), None),
            ("it fails", state(State::Backoff, "refused"), Some(Entry::Trouble)),
            ("it is gone", event(EventKind::Gone, None, ""), None),
            ("another comes", state(State::Loaded, ""), None),
            ("a bad file", event(EventKind::Invalid, None, "line 1"), Some(Entry::Trouble)),
            ("an event", event(EventKind::StreamOpened, None, ""), None),
        ] {
            assert_eq!(journal.entry(&event), expected, "{case}");
        }
    }
}
