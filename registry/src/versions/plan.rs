//! Which version is to be the current one: what install, upgrade, rollback, pin and remove lead to. Pure.

use goplug_pconf_schema::{Code, Fault, PluginId, Reason};
use semver::{Version, VersionReq};

/// What is known of the versions of one plugin.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Shelf {
    pub current: Current,
    /// Those that lie side by side, the lowest first; the current one is among them when a link names it.
    pub installed: Vec<Version>,
    /// Only these become the current one.
    pub pin: Option<VersionReq>,
    /// Which was the current one before.
    pub previous: Option<Version>,
}

/// What the plugin's place in the plugin directory holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Current {
    /// Nothing: the plugin is not installed.
    #[default]
    None,
    /// A link to one of the versions.
    Linked(Version),
    /// A folder that somebody put there.
    ByHand(Version),
}

/// What becomes of a version that was put beside the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Then {
    /// It is the current one from now on.
    Current,
    /// It only lies there; why.
    Beside(String),
}

impl Shelf {
    pub(crate) fn version(&self) -> Option<&Version> {
        match &self.current {
            Current::None => None,
            Current::Linked(version) | Current::ByHand(version) => Some(version),
        }
    }

    fn admits(&self, version: &Version) -> bool {
        self.pin.as_ref().is_none_or(|pin| pin.matches(version))
    }

    fn has(&self, version: &Version) -> bool {
        self.installed.contains(version) || self.version() == Some(version)
    }

    fn names(&self) -> String {
        let all: Vec<_> = self.installed.iter().map(ToString::to_string).collect();
        if all.is_empty() { "none".into() } else { all.join(", ") }
    }
}

/// A folder of version `new` is to be installed; `same`: whether it is what is installed in that version already.
pub(crate) fn install(shelf: &Shelf, id: &PluginId, new: &Version, same: Option<bool>) -> Result<Then, Fault> {
    let conflict = |text: String| {
        let data = serde_json::json!({ "version": new.to_string() });
        Err(Fault::new(Code::Conflict, text).with_data(data))
    };
    match (same, shelf.version()) {
        (Some(true), Some(current)) if current != new => {
            conflict(format!("plugin `{id}` is installed already, version {new} beside the current {current}"))
        }
        (Some(true), _) => conflict(format!("plugin `{id}` is installed already, version {new}")),
        (Some(false), _) => conflict(format!(
            "plugin `{id}` is installed already, version {new} with other content: give this one another version"
        )),
        (None, None) => Ok(Then::Current),
        (None, Some(_)) if !shelf.admits(new) => Ok(Then::Beside(pinned(shelf))),
        (None, Some(current)) if new < current => Ok(Then::Beside(format!("the current one, {current}, is newer"))),
        (None, Some(_)) => Ok(Then::Current),
    }
}

/// The version that an upgrade leads to: `wanted`, else the newest that is installed and may be; the current one when there
/// is nothing to do.
pub(crate) fn upgrade(
    shelf: &Shelf,
    id: &PluginId,
    wanted: Option<&Version>,
    downgrade: bool,
) -> Result<Version, Fault> {
    let current = shelf.version().ok_or_else(|| not_installed(id))?;
    let Some(wanted) = wanted else {
        // What is not finished is for whoever asks for it.
        let finished = |version: &&Version| version.pre.is_empty() || !current.pre.is_empty();
        let newest = shelf.installed.iter().filter(|version| shelf.admits(version)).filter(finished).max();
        return Ok(newest.filter(|newest| *newest > current).unwrap_or(current).clone());
    };
    let wrong = |why: String| Err(Fault::new(Code::WrongState, format!("plugin `{id}` stays at {current}: {why}")));
    if wanted != current && !shelf.admits(wanted) {
        return wrong(pinned(shelf)).map_err(|fault: Fault| fault.with_reason(Reason::Pinned));
    }
    if wanted < current && !downgrade {
        return wrong(format!("{wanted} is older, which has to be allowed (--downgrade)"));
    }
    Ok(wanted.clone())
}

/// The version that was current before, or else the newest that is older than the current one.
pub(crate) fn rollback(shelf: &Shelf, id: &PluginId) -> Result<Version, Fault> {
    let current = shelf.version().ok_or_else(|| not_installed(id))?;
    let before = shelf.previous.as_ref().filter(|version| *version != current && shelf.installed.contains(version));
    let older = || shelf.installed.iter().filter(|version| *version < current).max();
    let Some(target) = before.or_else(older) else {
        let text = format!("plugin `{id}` has no version before {current}: installed are {}", shelf.names());
        return Err(Fault::new(Code::NotFound, text).with_reason(Reason::NoVersion));
    };
    if shelf.admits(target) {
        return Ok(target.clone());
    }
    let text = format!("plugin `{id}` stays at {current}, not {target}: {}", pinned(shelf));
    Err(Fault::new(Code::WrongState, text).with_reason(Reason::Pinned))
}

/// Whether one version may be taken out.
pub(crate) fn remove(shelf: &Shelf, id: &PluginId, version: &Version) -> Result<(), Fault> {
    if shelf.version() == Some(version) {
        let text = format!(
            "version {version} of plugin `{id}` is the current one: make another one current first, or remove the plugin"
        );
        return Err(Fault::new(Code::WrongState, text));
    }
    if shelf.has(version) {
        return Ok(());
    }
    let text = format!("version {version} of plugin `{id}` is not installed: {} are", shelf.names());
    Err(Fault::new(Code::NotFound, text).with_reason(Reason::NoVersion))
}

/// Whether the plugin may be pinned to `range`.
pub(crate) fn pin(shelf: &Shelf, id: &PluginId, range: &VersionReq) -> Result<(), Fault> {
    match shelf.version() {
        None => Err(not_installed(id)),
        Some(current) if range.matches(current) => Ok(()),
        Some(current) => {
            let text =
                format!("plugin `{id}` is at {current}, which `{range}` does not admit: upgrade or roll back first");
            Err(Fault::new(Code::Conflict, text))
        }
    }
}

fn pinned(shelf: &Shelf) -> String {
    shelf.pin.as_ref().map_or_else(String::new, |pin| format!("it is pinned to `{pin}`"))
}

fn not_installed(id: &PluginId) -> Fault {
    Fault::new(Code::WrongState, format!("plugin `{id}` is not installed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v(text: &str) -> Version {
        Version::parse(text).unwrap()
    }

    /// `current | installed | pin | previous`; a current one in parentheses was put there by hand.
    fn shelf(text: &str) -> Shelf {
        let mut parts = text.split('|').map(str::trim);
        let current = match parts.next().unwrap() {
            "" => Current::None,
            hand if hand.starts_with('(') => Current::ByHand(v(hand.trim_matches(['(', ')']))),
            link => Current::Linked(v(link)),
        };
        let installed = parts.next().unwrap_or_default().split_whitespace().map(v).collect();
        let pin = parts.next().filter(|pin| !pin.is_empty()).map(|pin| VersionReq::parse(pin).unwrap());
        Shelf { current, installed, pin, previous: parts.next().map(v) }
    }

    fn id() -> PluginId {
        PluginId::parse("test/do").unwrap()
    }

    fn told<T: ToString>(result: Result<T, Fault>) -> String {
        result.map_or_else(|fault| format!("{}: {}", fault.code, fault.message), |value| value.to_string())
    }

    #[track_caller]
    fn begins(found: &str, expected: &str, case: &str) {
        assert!(found.contains(expected) && !expected.is_empty(), "{case}: {found:?}, expected {expected:?}");
    }

    #[test]
    fn what_becomes_of_a_folder_that_is_installed() {
        for (given, new, same, expected) in [
            ("", "1.0.0", None, "current"),
            ("1.0.0|1.0.0", "1.1.0", None, "current"),
            ("(1.0.0)", "1.1.0", None, "current"),
            ("1.1.0|1.1.0", "1.0.0", None, "beside: the current one, 1.1.0, is newer"),
            ("1.1.0|1.1.0|~1.1", "1.2.0", None, "beside: it is pinned to `~1.1`"),
            ("1.1.0|1.1.0|~1.1", "1.1.7", None, "current"),
            ("1.0.0|1.0.0", "1.1.0-rc.1", None, "current"),
            ("1.0.0|1.0.0", "1.0.0", Some(true), "conflict: plugin `test/do` is installed already, version 1.0.0"),
            ("1.0.0|1.0.0", "1.0.0", Some(false), "version 1.0.0 with other content"),
            ("1.1.0|1.0.0 1.1.0", "1.0.0", Some(true), "version 1.0.0 beside the current 1.1.0"),
        ] {
            let then = install(&shelf(given), &id(), &v(new), same).map(|then| match then {
                Then::Current => "current".to_owned(),
                Then::Beside(why) => format!("beside: {why}"),
            });
            begins(&told(then), expected, given);
        }
    }

    #[test]
    fn what_an_upgrade_leads_to() {
        for (given, wanted, downgrade, expected) in [
            ("1.0.0|1.0.0 1.1.0 2.0.0", None, false, "2.0.0"),
            ("1.0.0|1.0.0 1.1.0 2.0.0|^1", None, false, "1.1.0"),
            ("1.0.0|1.0.0 1.1.0 2.0.0-rc.1", None, false, "1.1.0"),
            ("2.0.0-rc.1|1.1.0 2.0.0-rc.1 2.0.0-rc.2", None, false, "2.0.0-rc.2"),
            ("2.0.0|1.0.0 2.0.0", None, false, "2.0.0"),
            ("2.0.0|1.0.0 2.0.0|=1.0.0", None, false, "2.0.0"),
            ("(1.0.0)|1.1.0", None, false, "1.1.0"),
            ("(1.0.0)", None, false, "1.0.0"),
            ("1.0.0|1.0.0 2.0.0", Some("2.0.0"), false, "2.0.0"),
            ("1.0.0|1.0.0", Some("1.0.0"), false, "1.0.0"),
            ("2.0.0|1.0.0 2.0.0", Some("1.0.0"), false, "wrong_state: plugin `test/do` stays at 2.0.0: 1.0.0 is older"),
            ("2.0.0|1.0.0 2.0.0", Some("1.0.0"), true, "1.0.0"),
            ("1.0.0|1.0.0|^1", Some("2.0.0"), false, "it is pinned to `^1`"),
            ("", None, false, "wrong_state: plugin `test/do` is not installed"),
        ] {
            let wanted = wanted.map(v);
            let found = told(upgrade(&shelf(given), &id(), wanted.as_ref(), downgrade));
            begins(&found, expected, &format!("{given} {wanted:?}"));
        }
    }

    #[test]
    fn what_a_rollback_leads_to() {
        for (given, expected) in [
            ("2.0.0|1.0.0 1.1.0 2.0.0||1.0.0", "1.0.0"),
            ("1.0.0|1.0.0 1.1.0 2.0.0||2.0.0", "2.0.0"),
            ("2.0.0|1.0.0 1.1.0 2.0.0", "1.1.0"),
            // It was written down, and the link was not exchanged any more.
            ("2.0.0|1.0.0 1.1.0 2.0.0||2.0.0", "1.1.0"),
            ("2.0.0|1.0.0 2.0.0||1.1.0", "1.0.0"),
            (
                "2.0.0|2.0.0 2.1.0",
                "not_found: plugin `test/do` has no version before 2.0.0: installed are 2.0.0, 2.1.0",
            ),
            ("2.0.0|1.0.0 2.0.0|^2", "wrong_state: plugin `test/do` stays at 2.0.0, not 1.0.0: it is pinned to `^2`"),
            ("(2.0.0)|1.0.0", "1.0.0"),
            ("", "is not installed"),
        ] {
            begins(&told(rollback(&shelf(given), &id())), expected, given);
        }
    }

    #[test]
    fn what_may_be_removed_and_pinned() {
        for (given, version, expected) in [
            ("2.0.0|1.0.0 2.0.0", "1.0.0", "done"),
            ("2.0.0|1.0.0 2.0.0", "2.0.0", "wrong_state: version 2.0.0 of plugin `test/do` is the current one"),
            (
                "2.0.0|1.0.0 2.0.0",
                "3.0.0",
                "not_found: version 3.0.0 of plugin `test/do` is not installed: 1.0.0, 2.0.0",
            ),
            ("(2.0.0)", "2.0.0", "is the current one"),
        ] {
            begins(&told(remove(&shelf(given), &id(), &v(version)).map(|()| "done")), expected, given);
        }
        for (given, range, expected) in [
            ("1.2.0|1.2.0", "^1", "done"),
            ("1.2.0|1.2.0", "^2", "conflict: plugin `test/do` is at 1.2.0, which `^2` does not admit"),
            ("", "^2", "is not installed"),
        ] {
            let range = VersionReq::parse(range).unwrap();
            begins(&told(pin(&shelf(given), &id(), &range).map(|()| "done")), expected, given);
        }
    }
}
