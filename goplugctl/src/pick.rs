//! Which plugins a name on the command line means.

use goplug_pconf_schema::admin::{NamePattern, PluginSummary};
use goplug_pconf_schema::{Code, Fault, PluginId, PluginRef};

use crate::failure::Failure;
use crate::output::escape;
use crate::output::text::quoted;

/// Whether a name is a pattern; what the range of its versions holds makes none.
pub(crate) fn is_glob(name: &str) -> bool {
    NamePattern::is_pattern(name.rsplit_once('@').map_or(name, |(name, _)| name))
}

/// The name and the versions that will do, of a text with an `@` that is not itself the name of a plugin.
///
/// # Errors
/// `invalid_argument`: what is behind the `@` is no range.
pub(crate) fn ranged(what: &str, text: &str, known: &[PluginSummary]) -> Result<Option<PluginRef>, Failure> {
    let is_name = |row: &PluginSummary| row.name == text || row.id().is_some_and(|id| id.as_str() == text);
    if !text.contains('@') || known.iter().any(is_name) {
        return Ok(None);
    }
    let wrong = |error: goplug_pconf_schema::NameError| Fault::new(Code::InvalidArgument, error.to_string());
    PluginRef::parse(text).map(Some).map_err(|error| Failure::new(what, wrong(error)))
}

/// The plugins that one name or glob means: at least one. `known` holds their versions if the name has a range.
///
/// # Errors
/// As [`bare`], [`whole`] and [`matching`]; `not_found` for a glob that fits none, and for a version that will not do.
pub(crate) fn any(what: &str, name: &str, known: &[PluginSummary]) -> Result<Vec<PluginId>, Failure> {
    let Some(wanted) = ranged(what, name, known)? else { return any_version(what, name, known) };
    let found = any_version(what, &wanted.name, known)?;
    let (mut fit, mut refusal) = (Vec::new(), None);
    for plugin in found {
        let row = known.iter().find(|row| row.id().as_ref() == Some(&plugin));
        let version = row.and_then(|row| row.version.as_deref());
        match row {
            Some(_) if wanted.admits(version) => fit.push(plugin),
            Some(row) => refusal = Some(wanted.mismatch(&plugin, version, &row.versions)),
            None => refusal = Some(Fault::new(Code::NotFound, format!("there is no plugin `{plugin}`"))),
        }
    }
    match refusal {
        Some(fault) if fit.is_empty() => Err(Failure::new(what, fault).hint("goplugctl list")),
        _ => Ok(fit),
    }
}

fn any_version(what: &str, name: &str, known: &[PluginSummary]) -> Result<Vec<PluginId>, Failure> {
    if !is_glob(name) {
        return if name.contains('/') { whole(what, name) } else { bare(what, name, known) }.map(|plugin| vec![plugin]);
    }
    let found: Vec<_> = matching(what, name, known)?.into_iter().filter_map(PluginSummary::id).collect();
    if found.is_empty() {
        let fault = Fault::new(Code::NotFound, format!("no plugin fits `{name}`"));
        return Err(Failure::new(what, fault).hint("goplugctl list"));
    }
    Ok(found)
}

/// `NAMESPACE/NAME`, whether it is known or not.
///
/// # Errors
/// `invalid_argument`: this cannot be a plugin's name.
pub(crate) fn whole(what: &str, name: &str) -> Result<PluginId, Failure> {
    PluginId::parse(name).map_err(|error| Failure::new(what, Fault::new(Code::InvalidArgument, error.to_string())))
}

/// A bare `NAME`, in whatever namespace.
///
/// # Errors
/// `not_found`; or exit code 2 with the candidates when several namespaces have it.
pub(crate) fn bare(what: &str, name: &str, known: &[PluginSummary]) -> Result<PluginId, Failure> {
    let ids: Vec<PluginId> = known.iter().filter_map(PluginSummary::id).collect();
    of(what, name, &ids)
}

/// As [`bare`], among these.
///
/// # Errors
/// As there.
pub(crate) fn of<'a>(
    what: &str,
    name: &str,
    known: impl IntoIterator<Item = &'a PluginId>,
) -> Result<PluginId, Failure> {
    whole(what, name)?;
    let candidates: Vec<PluginId> = known.into_iter().filter(|plugin| plugin.name() == name).cloned().collect();
    match candidates.as_slice() {
        [] => {
            let fault = Fault::new(Code::NotFound, format!("no plugin is named `{name}`"));
            // Somebody may have to look for it first, and another may be meant.
            Err(Failure::new(what, fault).hint(format!("goplugctl why {}", escape(&quoted(name)))))
        }
        [one] => Ok(one.clone()),
        several => {
            let names: Vec<_> = several.iter().map(PluginId::as_str).collect();
            let text = format!("`{name}` is the name of {} plugins: {}", several.len(), names.join(", "));
            let fault = Fault::new(Code::Conflict, text).with_data(serde_json::json!({ "candidates": names }));
            Err(Failure::new(what, fault).into_usage().hint("write NAMESPACE/NAME"))
        }
    }
}

/// Everything that fits a glob. One without `/` is held against the name, one with it against `NAMESPACE/NAME`.
///
/// # Errors
/// `invalid_argument`: the glob cannot be read.
pub(crate) fn matching<'a>(
    what: &str,
    glob: &str,
    known: &'a [PluginSummary],
) -> Result<Vec<&'a PluginSummary>, Failure> {
    let pattern = NamePattern::parse(glob);
    let pattern = pattern.map_err(|why| Failure::new(what, Fault::new(Code::InvalidArgument, why)))?;
    Ok(known.iter().filter(|plugin| pattern.fits(plugin)).collect())
}

#[cfg(test)]
mod tests {
    use goplug_pconf_schema::admin::State;

    use super::*;

    fn known(ids: &[(&str, &str)]) -> Vec<PluginSummary> {
        let summary = |(namespace, name): &(&str, &str)| PluginSummary {
            namespace: (*namespace).into(),
            name: (*name).into(),
            version: None,
            state: State::Discovered,
            lazy_load: false,
            pid: None,
            socket: None,
            pconf: None,
            manifest: None,
            methods: None,
            protocol: None,
            since: String::new(),
            last_error: None,
            versions: Vec::new(),
            pinned: None,
        };
        ids.iter().map(summary).collect()
    }

    fn found(name: &str) -> Result<Vec<String>, u8> {
        let names =
            [("a", "math"), ("b", "math"), ("a", "text"), ("", "solo"), ("-", "bad"), ("a", "ver"), ("a", "o@dd")];
        let mut known = known(&names);
        known[5].version = Some("1.3.1".into());
        let ids = any("cannot look", name, &known).map_err(|failure| failure.exit())?;
        Ok(ids.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn names_and_globs_mean_plugins() {
        let ok = |ids: &[&str]| Ok(ids.iter().map(ToString::to_string).collect::<Vec<_>>());
        for (name, expected) in [
            ("text", ok(&["a/text"])),
            ("solo", ok(&["-/solo"])),
            ("a/math", ok(&["a/math"])),
            ("x/unknown", ok(&["x/unknown"])),
            ("math", Err(2)),
            ("none", Err(4)),
            ("", Err(10)),
            ("a/b/c", Err(10)),
            ("m*", ok(&["a/math", "b/math"])),
            ("a/*", ok(&["a/math", "a/text", "a/ver", "a/o@dd"])),
            ("*", ok(&["a/math", "b/math", "a/text", "-/solo", "a/ver", "a/o@dd"])),
            ("z*", Err(4)),
            ("[", Err(10)),
            ("text@*", Err(4)),
            ("ver@^1.2", ok(&["a/ver"])),
            ("a/ver@~1.3", ok(&["a/ver"])),
            ("a/ver@^2", Err(4)),
            ("x/ver@^1", Err(4)),
            ("a/*@>=1, <2", ok(&["a/ver"])),
            ("a/*@^2", Err(4)),
            ("ver@never", Err(10)),
            ("o@dd", ok(&["a/o@dd"])),
        ] {
            assert_eq!(found(name), expected, "{name}");
        }
    }

    #[test]
    fn an_ambiguous_name_is_refused_with_the_candidates() {
        let failure = bare("cannot look", "math", &known(&[("a", "math"), ("b", "math")])).unwrap_err();
        assert!(failure.render(false, false, "").contains("a/math, b/math"));
    }
}
