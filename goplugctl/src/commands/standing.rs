//! `is-discovered`, `is-loaded`, `wait`: questions whose answer is the exit code.

use std::time::Duration;

use goplug_pconf_schema::PluginId;
use goplug_pconf_schema::admin::{PluginSummary, State};
use serde::Serialize;

use crate::args::{Plugins, WaitArgs};
use crate::exit_code;
use crate::failure::Failure;
use crate::output::escape;
use crate::session::Session;
use crate::target::Awaited;

/// How long `wait` waits when nothing is said.
const DEFAULT_WAIT: Duration = Duration::from_secs(30);

/// Answer of `is-discovered` and `is-loaded`, for scripts.
#[derive(Debug, Serialize)]
struct Standing {
    plugin: String,
    /// `null`: not known.
    state: Option<State>,
    discovered: bool,
    loaded: bool,
}

pub(super) async fn is_discovered(session: &mut Session, args: &Plugins) -> Result<(), Failure> {
    is(session, args, |standing| if standing.discovered { exit_code::DONE } else { exit_code::NOT_FOUND }).await
}

pub(super) async fn is_loaded(session: &mut Session, args: &Plugins) -> Result<(), Failure> {
    is(session, args, |standing| match (standing.discovered, standing.loaded) {
        (_, true) => exit_code::DONE,
        (true, false) => exit_code::WRONG_STATE,
        (false, false) => exit_code::NOT_FOUND,
    })
    .await
}

async fn is(session: &mut Session, args: &Plugins, exit: fn(&Standing) -> u8) -> Result<(), Failure> {
    let what = "cannot tell";
    let known = session.target.list().await.map_err(|fault| Failure::new(what, fault))?;
    let mut standings = Vec::new();
    for name in named(args, &known) {
        let found = crate::pick::any(what, &name, &known);
        match found {
            Ok(plugins) => standings.extend(plugins.iter().map(|plugin| standing(plugin, &known))),
            // Not to be there is an answer here, not an error.
            Err(failure) if is_missing(&failure) => standings.push(unknown(&name)),
            Err(failure) => session.failed(failure)?,
        }
    }
    for standing in &standings {
        session.exit_with(exit(standing));
    }
    let one = matches!(args.plugins.as_slice(), [name] if !crate::pick::is_glob(name));
    let word = |standing: &Standing| standing.state.map_or("unknown", State::as_str);
    let lines = |standing: &Standing| format!("{} {}\n", escape(&standing.plugin), word(standing));
    if session.out.is_quiet() || (one && standings.is_empty()) {
        return Ok(());
    }
    let names = || standings.iter().map(|standing| standing.plugin.clone()).collect();
    Ok(session.out.show(&standings, one, names, |_, _| standings.iter().map(lines).collect())?)
}

pub(super) async fn wait(session: &mut Session, args: &WaitArgs) -> Result<(), Failure> {
    let what = format!("cannot wait for `{}`", args.plugin);
    // A plugin that is not there yet can be waited for by its whole name; a bare one then has no namespace.
    let plugin = match session.one(&what, &args.plugin).await {
        Err(failure) if is_missing(&failure) => crate::pick::whole(&what, &args.plugin)?,
        other => other?,
    };
    let timeout = session.timeout.unwrap_or(DEFAULT_WAIT);
    let failed = |fault| Failure::new(format!("`{plugin}` is not {}", reached(&args.what)), fault).about(&plugin);
    session.target.wait(&plugin, &args.what, timeout).await.map_err(failed)?;
    Ok(session.out.changed(
        &[serde_json::json!({ "plugin": plugin, "reached": reached(&args.what) })],
        true,
        &[plugin.to_string()],
    )?)
}

/// It is not there, or not in a version that will do.
fn is_missing(failure: &Failure) -> bool {
    matches!(failure.exit(), exit_code::NOT_FOUND | exit_code::WRONG_STATE)
}

fn reached(what: &Awaited) -> String {
    match what {
        Awaited::Loaded => "loaded".into(),
        Awaited::Discovered => "discovered".into(),
        Awaited::Gone => "gone".into(),
        Awaited::Callback(name) => format!("notifying `{}`", escape(name)),
    }
}

fn named(args: &Plugins, known: &[PluginSummary]) -> Vec<String> {
    if args.all {
        return known.iter().filter_map(PluginSummary::id).map(|id| id.to_string()).collect();
    }
    args.plugins.clone()
}

fn standing(plugin: &PluginId, known: &[PluginSummary]) -> Standing {
    let states = known.iter().filter(|summary| summary.id().as_ref() == Some(plugin)).map(|summary| summary.state);
    // A second file of the same name may be invalid; the one that works counts.
    let state = states.min_by_key(|state| (*state == State::Invalid, *state != State::Loaded));
    let discovered = !matches!(state, None | Some(State::Gone | State::Invalid));
    Standing { plugin: plugin.to_string(), state, discovered, loaded: state == Some(State::Loaded) }
}

fn unknown(name: &str) -> Standing {
    Standing { plugin: name.to_owned(), state: None, discovered: false, loaded: false }
}
