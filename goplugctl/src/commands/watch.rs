//! `list --watch`: the list, and then each row again when something about it has changed.
//!
//! An event is a hint to look again, and the list is the truth: what an event does not tell is shown a second later.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use goplug_pconf_schema::admin::{EventKind, PluginSummary, RegistryEvent, State};
use goplug_pconf_schema::{Code, Fault};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::list::{fitting, name_of, table};
use crate::args::ListArgs;
use crate::exit_code;
use crate::failure::Failure;
use crate::output::Format;
use crate::session::Session;

/// How far two looks are apart at least, however much happens.
const LOOK_APART: Duration = Duration::from_millis(100);
/// How far they are apart when no event comes.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What a row is about: a pair, or a file that makes none.
type Key = (String, Option<String>);
type Rows = BTreeMap<Key, PluginSummary>;

pub(super) async fn watch(session: &mut Session, args: &ListArgs) -> Result<(), Failure> {
    let failed = |fault| Failure::new("cannot watch the plugins", fault);
    let ended = || failed(Fault::new(Code::Unavailable, "the registry has ended"));
    let mut events = session.target.events(true).await.map_err(failed)?;
    let mut looks = interval(LOOK_APART);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut shown: Option<Rows> = None;
    let mut left = BTreeMap::new();
    loop {
        looks.tick().await;
        let known = session.target.list_anew().await.map_err(failed)?;
        let rows = selected(&args.plugins, &known)?;
        let changed = difference(shown.as_ref().unwrap_or(&Rows::new()), &rows, &left);
        print(session, &rows, &changed, shown.is_none())?;
        shown = Some(rows);
        left.clear();

        let mut next = timeout(LOOK_AGAIN, events.next()).await.ok();
        // What has happened together is looked at together.
        while let Some(event) = next {
            note(&mut left, event.ok_or_else(ended)?.map_err(failed)?);
            next = events.next().now_or_never();
        }
    }
}

/// The rows that are meant. A name that fits none may fit one later.
fn selected(names: &[String], known: &[PluginSummary]) -> Result<Rows, Failure> {
    let mut found = Vec::new();
    for name in names {
        match fitting(&format!("cannot watch `{name}`"), name, known, &[]) {
            Ok(rows) => found.extend(rows),
            Err(failure) if matches!(failure.exit(), exit_code::NOT_FOUND | exit_code::WRONG_STATE) => {}
            Err(failure) => return Err(failure),
        }
    }
    if names.is_empty() {
        found.extend_from_slice(known);
    }
    let key = |row: &PluginSummary| (name_of(row), row.pconf.clone().or_else(|| row.manifest.clone()));
    Ok(found.into_iter().map(|row| (key(&row), row)).collect())
}

/// What is new, other than it was, or gone; `left` tells when plugins went. Since when it is so is nothing by itself: who
/// only looks now and then knows it no better.
fn difference(before: &Rows, now: &Rows, left: &BTreeMap<String, String>) -> Vec<PluginSummary> {
    let is_as =
        |row: &PluginSummary, old: &PluginSummary| *old == PluginSummary { since: old.since.clone(), ..row.clone() };
    let changed = now.iter().filter(|(key, row)| !before.get(key).is_some_and(|old| is_as(row, old)));
    let mut changed: Vec<_> = changed.map(|(_, row)| row.clone()).collect();
    let is_there = |name: &str| now.keys().any(|(other, _)| other == name);
    for ((name, _), row) in before.iter().filter(|(key, _)| !now.contains_key(key)) {
        // A plugin whose next file is there has not gone.
        if !is_there(name) {
            let since = left.get(name).unwrap_or(&row.since).clone();
            changed.push(PluginSummary { state: State::Gone, since, pid: None, last_error: None, ..row.clone() });
        }
    }
    changed
}

fn note(left: &mut BTreeMap<String, String>, event: RegistryEvent) {
    if let (EventKind::Gone, Some(plugin)) = (event.kind, event.plugin) {
        left.insert(plugin.to_string(), event.time);
    }
}

fn print(session: &mut Session, rows: &Rows, changed: &[PluginSummary], first: bool) -> Result<(), Failure> {
    let format = session.out.format();
    if !matches!(format, Format::Table | Format::Wide) {
        for row in changed {
            session.out.item(format, row, || name_of(row), |_| String::new())?;
        }
        return Ok(());
    }
    if changed.is_empty() && !first {
        return Ok(());
    }
    // As wide as the whole list is now, so that rows stand below each other.
    let all: Vec<_> = changed.iter().chain(rows.values()).cloned().collect();
    let skipped = usize::from(!first);
    let lines = |text: String| text.split_inclusive('\n').skip(skipped).take(changed.len() + 1 - skipped).collect();
    Ok(session.out.show::<PluginSummary>(&[], false, Vec::new, |style, wide| lines(table(&all, style, wide)))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, state: State, pconf: &str) -> PluginSummary {
        PluginSummary {
            namespace: "n".into(),
            name: name.into(),
            version: None,
            state,
            lazy_load: false,
            pid: Some(7),
            socket: None,
            pconf: Some(pconf.into()),
            manifest: None,
            methods: None,
            protocol: None,
            since: "then".into(),
            last_error: None,
            versions: Vec::new(),
            pinned: None,
        }
    }

    fn rows(rows: &[PluginSummary]) -> Rows {
        selected(&[], rows).unwrap_or_default()
    }

    #[test]
    fn what_is_new_other_or_gone_is_shown_and_nothing_else() {
        let (a, b) = (row("a", State::Loaded, "a.pconf"), row("b", State::Loaded, "b.pconf"));
        let failed = row("b", State::Backoff, "b.pconf");
        let moved = row("b", State::Loaded, "c.pconf");
        let both = rows(&[a.clone(), b.clone()]);
        let left = BTreeMap::from([("n/b".to_owned(), "now".to_owned())]);
        for (case, now, expected) in [
            ("the same", rows(&[a.clone(), PluginSummary { since: "later".into(), ..b.clone() }]), vec![]),
            ("another state", rows(&[a.clone(), failed.clone()]), vec![failed]),
            ("another file", rows(&[a.clone(), moved.clone()]), vec![moved]),
            ("gone", rows(&[a]), vec![PluginSummary { state: State::Gone, since: "now".into(), pid: None, ..b }]),
        ] {
            assert_eq!(difference(&both, &now, &left), expected, "{case}");
        }
        assert_eq!(difference(&Rows::new(), &both, &left).len(), 2);
    }

    #[test]
    fn a_name_that_fits_none_may_fit_one_later_and_an_ambiguous_one_never() {
        let mut known = vec![row("a", State::Loaded, "a.pconf"), row("b", State::Loaded, "b.pconf")];
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        for (wanted, count) in [("a", 1), ("n/b", 1), ("n/*", 2), ("c", 0), ("m/c", 0), ("x*", 0), ("a@^1", 0)] {
            assert_eq!(selected(&names(&[wanted]), &known).unwrap_or_default().len(), count, "{wanted}");
        }
        known.push(PluginSummary { namespace: "m".into(), ..row("a", State::Loaded, "ma.pconf") });
        assert_eq!(selected(&names(&["a"]), &known).map_err(|failure| failure.exit()), Err(2));
    }
}
