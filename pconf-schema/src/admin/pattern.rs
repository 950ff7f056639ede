//! Shell patterns over the names of plugins.

use glob::{MatchOptions, Pattern};

use super::PluginSummary;

/// A shell pattern (`*`, `?`, `[…]`). One without `/` is held against the name, one with it against `namespace/name`, with
/// `-` for the empty namespace.
#[derive(Debug, Clone)]
pub struct NamePattern(Pattern);

impl NamePattern {
    /// Whether a text is a pattern rather than a name.
    pub fn is_pattern(text: &str) -> bool {
        text.contains(['*', '?', '['])
    }

    /// Reads a pattern.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = |error: glob::PatternError| format!("`{}` is no pattern: {}", crate::printable(text), error.msg);
        Pattern::new(text).map(Self).map_err(wrong)
    }

    /// Whether a plugin fits; a file that names no plugin fits by its name only.
    pub fn fits(&self, plugin: &PluginSummary) -> bool {
        let options = MatchOptions { require_literal_separator: true, ..MatchOptions::default() };
        match (self.0.as_str().contains('/'), plugin.id()) {
            (true, Some(id)) => self.0.matches_with(id.as_str(), options),
            (true, None) => false,
            (false, _) => self.0.matches_with(&plugin.name, options),
        }
    }
}
