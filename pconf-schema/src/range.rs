//! A plugin by its name and, if wanted, by its version: `NAMESPACE/NAME@RANGE`.

use std::fmt;

use semver::{Version, VersionReq};

use crate::{Code, Fault, NameError, PluginId, printable};

/// A name as people write it, and the versions that will do. The last `@` begins the range.
///
/// # Example
/// ```
/// use goplug_pconf_schema::PluginRef;
/// let wanted = PluginRef::parse("Test/Do@^1.2")?;
/// assert_eq!(wanted.name, "Test/Do");
/// assert!(wanted.admits(Some("1.4.0")) && !wanted.admits(Some("2.0.0")) && !wanted.admits(None));
/// # Ok::<(), goplug_pconf_schema::NameError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginRef {
    /// What comes before the `@`, as it was written: `name` may fit several namespaces, `-/name` fits one.
    pub name: String,
    /// What comes behind it; `None`: any version, and none.
    pub range: Option<VersionReq>,
}

impl PluginRef {
    /// Reads a name with or without a range.
    ///
    /// # Errors
    /// A [`NameError`] for a name or a range that is none.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let (name, range) = match text.rsplit_once('@') {
            None => (text, None),
            Some((name, range)) => (name, Some(parse_range(range)?)),
        };
        PluginId::parse(name)?;
        Ok(Self { name: name.to_owned(), range })
    }

    /// A name and one whole version behind its last `@`, which is less than a range; `None` for anything else.
    pub fn split_version(text: &str) -> Option<(&str, &str)> {
        text.rsplit_once('@').filter(|(_, version)| Version::parse(version).is_ok())
    }

    /// The pair, a bare name taken for one of the empty namespace.
    ///
    /// # Errors
    /// None for what [`PluginRef::parse`] made.
    pub fn id(&self) -> Result<PluginId, NameError> {
        PluginId::parse(&self.name)
    }

    /// Whether a plugin of this version will do; one without a version, or with one that is no SemVer, only where no
    /// range is asked for.
    pub fn admits(&self, version: Option<&str>) -> bool {
        let Some(range) = &self.range else { return true };
        version.and_then(|version| Version::parse(version).ok()).is_some_and(|version| range.matches(&version))
    }

    /// Why the plugin `id` will not do: `serving` is the version that is there, `installed` are those that lie beside it.
    /// `wrong_state` when one of these would do, else `not_found`.
    pub fn mismatch(&self, id: &PluginId, serving: Option<&str>, installed: &[String]) -> Fault {
        let range = self.range.as_ref().map_or_else(|| "*".to_owned(), ToString::to_string);
        let there = match serving {
            Some(version) => format!("in version {}, which `{range}` does not admit", printable(version)),
            None => format!("and tells no version, so that `{range}` does not admit it"),
        };
        let text = format!("plugin `{id}` is there {there}");
        match installed.iter().rfind(|version| self.admits(Some(version))) {
            Some(other) => Fault::new(Code::WrongState, format!("{text}; version {other} is installed beside it")),
            None => Fault::new(Code::NotFound, text),
        }
    }
}

impl fmt::Display for PluginRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        self.range.as_ref().map_or(Ok(()), |range| write!(f, "@{range}"))
    }
}

/// Reads a range of versions as Cargo and npm write it, such as `^1.2`, `>=1, <3` or `*`.
pub(crate) fn parse_range(text: &str) -> Result<VersionReq, NameError> {
    if text.trim().is_empty() {
        return Err(NameError::new("the version range behind `@` is empty: write `@^1.2`, or `@*` for any version"));
    }
    VersionReq::parse(text).map_err(|error| {
        let shown = printable(text);
        NameError::new(format!(
            "`{shown}` behind the last `@` is no version range ({error}): write `^1.2`, `>=1, <3` or `*`"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_at_begins_the_range() {
        for (text, name, range) in [
            ("Do", "Do", None),
            ("Test/Do", "Test/Do", None),
            ("-/Do@*", "-/Do", Some("*")),
            ("Test/Do@^1.2", "Test/Do", Some("^1.2")),
            ("a@b@=2.0.0", "a@b", Some("=2.0.0")),
            ("Test/Do@>=1, <3", "Test/Do", Some(">=1, <3")),
            ("Do@1", "Do", Some("^1")),
        ] {
            let found = PluginRef::parse(text).unwrap();
            assert_eq!(
                (found.name.as_str(), found.range.clone()),
                (name, range.map(|range| VersionReq::parse(range).unwrap())),
                "{text}"
            );
            assert_eq!(PluginRef::parse(&found.to_string()).unwrap(), found, "{text}");
        }
    }

    #[test]
    fn what_is_no_name_or_no_range_is_refused() {
        for (text, reason) in [
            ("", "name is empty"),
            ("@1", "name is empty"),
            ("Do@", "range behind `@` is empty"),
            ("Do@x.y", "`x.y` behind the last `@` is no version range"),
            ("a/b/c@1", "holds a `/`"),
        ] {
            let error = PluginRef::parse(text).unwrap_err().to_string();
            assert!(error.contains(reason), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_mismatch_names_what_is_there() {
        let id = PluginId::parse("Test/Do").unwrap();
        let wanted = PluginRef::parse("Do@^2").unwrap();
        let installed = ["1.2.0", "2.0.0", "2.1.0"].map(str::to_owned);
        for (serving, installed, code, text) in [
            (Some("1.2.0"), &installed[..1], Code::NotFound, "is there in version 1.2.0, which `^2` does not admit"),
            (Some("1.2.0"), &installed[..], Code::WrongState, "does not admit; version 2.1.0 is installed beside it"),
            (None, &[], Code::NotFound, "plugin `Test/Do` is there and tells no version"),
        ] {
            let fault = wanted.mismatch(&id, serving, installed);
            assert_eq!(fault.code, code, "{fault}");
            assert!(fault.message.contains(text), "{fault}");
        }
    }

    #[test]
    fn versions_are_held_against_the_range() {
        for (range, version, fits) in [
            ("^1.2", Some("1.2.0"), true),
            ("^1.2", Some("1.1.9"), false),
            ("^1.2", Some("2.0.0"), false),
            ("^1.2", Some("1.3.0-rc.1"), false),
            ("~0.3.1", Some("0.3.9"), true),
            ("*", Some("9.9.9"), true),
            ("*", None, false),
            ("*", Some("latest"), false),
        ] {
            let wanted = PluginRef::parse(&format!("Do@{range}")).unwrap();
            assert_eq!(wanted.admits(version), fits, "{range} {version:?}");
        }
        assert!(PluginRef::parse("Do").unwrap().admits(None));
    }
}
