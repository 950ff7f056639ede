//! Several directories as one view: pure functions on what each of them says.

use std::collections::{BTreeMap, HashSet};

use goplug_registry::admin::{Link, LinkState, PluginSummary, State, Why};

/// The rows of all directories, sorted by namespace, name and file. Of one pair in several directories the row of the
/// first directory stands, unless the plugin is gone there; files without a usable pair are all kept.
pub(crate) fn rows(directories: Vec<Vec<PluginSummary>>) -> Vec<PluginSummary> {
    let mut rows: Vec<PluginSummary> = directories.into_iter().flatten().collect();
    // Stable: among equals the order of the directories stays.
    rows.sort_by(|a, b| {
        let key = |row: &PluginSummary| (row.state == State::Invalid, row.state == State::Gone);
        (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)).then_with(|| key(a).cmp(&key(b)))
    });
    let mut taken = HashSet::new();
    rows.retain(|row| row.state == State::Invalid || taken.insert((row.namespace.clone(), row.name.clone())));
    rows
}

/// How many rows there are in each state.
pub(crate) fn counts(rows: &[PluginSummary]) -> BTreeMap<State, u64> {
    let mut counts = BTreeMap::new();
    for row in rows {
        *counts.entry(row.state).or_default() += 1;
    }
    counts
}

/// The answer for a subject about which every directory was asked, in the order of the directories: the first that knows
/// the plugin, else the one that got furthest. Further directories with the same plugin are shown as a conflict.
pub(crate) fn why(answers: Vec<(String, Why)>) -> Option<Why> {
    let reached =
        |why: &Why| why.links.iter().filter(|link| matches!(link.state, LinkState::Ok | LinkState::Warning)).count();
    let rank = |(at, (_, why)): &(usize, &(String, Why))| {
        (why.plugin.is_some(), if why.plugin.is_some() { 0 } else { reached(why) }, usize::MAX - at)
    };
    let (best, _) = answers.iter().enumerate().max_by_key(rank)?;
    let others: Vec<String> = answers
        .iter()
        .enumerate()
        .filter(|(at, (_, why))| *at != best && why.plugin.is_some() && why.plugin == answers[best].1.plugin)
        .map(|(_, (directory, _))| directory.clone())
        .collect();
    let (directory, mut why) = answers.into_iter().nth(best)?;
    if !others.is_empty() {
        let detail = format!("the pair is in {} too; {directory} comes first and wins", others.join(", "));
        why.links.push(Link { name: "conflict".into(), state: LinkState::Warning, detail });
    }
    Some(why)
}

/// Says of a file that it loses to the same pair in an earlier directory.
pub(crate) fn shadow(why: &mut Why, winner: &str) {
    why.callable = false;
    let detail = format!(
        "the same pair is in {winner}, which comes first and wins: rename one of the two, or change the order of the directories"
    );
    why.links.push(Link { name: "conflict".into(), state: LinkState::Broken, detail });
}

#[cfg(test)]
mod tests {
    use super::*;
    use goplug_registry::PluginId;

    fn row(id: &str, state: State, pconf: &str) -> PluginSummary {
        let id = PluginId::parse(id).unwrap();
        PluginSummary {
            namespace: id.namespace().into(),
            name: id.name().into(),
            version: None,
            state,
            lazy_load: false,
            pid: None,
            socket: None,
            pconf: Some(pconf.into()),
            manifest: None,
            methods: None,
            protocol: None,
            since: String::new(),
            last_error: None,
            versions: Vec::new(),
            pinned: None,
        }
    }

    #[test]
    fn one_row_per_pair_the_first_directory_wins_and_invalid_files_all_stay() {
        use State::{Discovered, Gone, Invalid, Loaded};
        let first = vec![row("x/b", Discovered, "1b"), row("x/gone", Gone, "1g"), row("bad", Invalid, "1bad")];
        let second = vec![
            row("bad", Invalid, "2bad"),
            row("x/a", Loaded, "2a"),
            row("x/b", Loaded, "2b"),
            row("x/gone", Loaded, "2g"),
        ];
        let merged = rows(vec![first, second]);
        let files: Vec<&str> = merged.iter().filter_map(|row| row.pconf.as_deref()).collect();
        assert_eq!(files, ["1bad", "2bad", "2a", "1b", "2g"]);
        assert_eq!(counts(&merged), BTreeMap::from([(Discovered, 1), (Loaded, 2), (Invalid, 2)]));
    }

    fn answer(directory: &str, plugin: Option<&str>, links: &[LinkState]) -> (String, Why) {
        let links = links.iter().map(|state| Link { name: "l".into(), state: *state, detail: String::new() }).collect();
        let plugin = plugin.map(|plugin| PluginId::parse(plugin).unwrap());
        (directory.into(), Why { subject: directory.into(), plugin, state: None, callable: false, links, fix: None })
    }

    #[test]
    fn the_first_directory_that_knows_the_plugin_answers_and_names_the_others() {
        use LinkState::{Broken, Ok, Warning};
        for (answers, subject, conflict) in [
            (vec![answer("a", None, &[Ok, Ok, Ok]), answer("b", Some("p"), &[Broken])], "b", false),
            (vec![answer("a", Some("p"), &[Ok]), answer("b", Some("p"), &[Ok, Ok])], "a", true),
            (vec![answer("a", Some("x/p"), &[Ok]), answer("b", Some("y/p"), &[Ok])], "a", false),
            (vec![answer("a", None, &[Ok, Broken]), answer("b", None, &[Ok, Warning, Broken])], "b", false),
            (vec![answer("a", None, &[Ok]), answer("b", None, &[Ok])], "a", false),
        ] {
            let why = why(answers).unwrap();
            assert_eq!(
                (why.subject.as_str(), why.links.iter().any(|link| link.name == "conflict")),
                (subject, conflict)
            );
        }
        assert_eq!(why(Vec::new()), None);
    }
}
