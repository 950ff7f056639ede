//! `list` and `status`: what is there, and in which state.

use std::collections::BTreeMap;

use goplug_pconf_schema::admin::{DaemonStatus, PluginSummary, ProcessDetail, State};
use goplug_pconf_schema::{Code, Fault};
use serde::Serialize;

use super::watch::watch;
use crate::args::{ListArgs, OptionalPlugin};
use crate::failure::Failure;
use crate::output::style::{Paint, of_state};
use crate::output::{Style, Table, escape};
use crate::pick;
use crate::session::Session;

pub(super) async fn list(session: &mut Session, args: &ListArgs) -> Result<(), Failure> {
    if args.watch {
        return watch(session, args).await;
    }
    let failed = |fault| Failure::new("cannot list plugins", fault);
    let known = session.target.list().await.map_err(failed)?;
    // Only whoever names plugins may be told where they are not.
    let directories =
        if args.plugins.is_empty() { Vec::new() } else { session.target.directories().await.map_err(failed)? };
    let (mut shown, mut missed) = (Vec::new(), false);
    for name in &args.plugins {
        match fitting(&format!("cannot list `{name}`"), name, &known, &directories) {
            Ok(found) => shown.extend(found),
            Err(failure) if args.plugins.len() == 1 => return Err(failure),
            Err(failure) => {
                session.failed(failure)?;
                missed = true;
            }
        }
    }
    if args.plugins.is_empty() {
        shown = known;
    }
    shown.sort_by(|a, b| (&a.namespace, &a.name, &a.pconf).cmp(&(&b.namespace, &b.name, &b.pconf)));
    shown.dedup();
    let names = || shown.iter().map(name_of).collect();
    // A head over no rows would say that there are no plugins; what was said already is that they have other names.
    let text = |style, wide| if missed && shown.is_empty() { String::new() } else { table(&shown, style, wide) };
    Ok(session.out.show(&shown, false, names, text)?)
}

/// The rows that one name means.
pub(super) fn fitting(
    what: &str,
    name: &str,
    known: &[PluginSummary],
    directories: &[String],
) -> Result<Vec<PluginSummary>, Failure> {
    if pick::ranged(what, name, known)?.is_some() {
        let ids = pick::any(what, name, known)?;
        return Ok(known.iter().filter(|row| row.id().is_some_and(|id| ids.contains(&id))).cloned().collect());
    }
    if pick::is_glob(name) {
        return Ok(pick::matching(what, name, known)?.into_iter().cloned().collect());
    }
    named(what, name, known, directories)
}

pub(super) async fn status(session: &mut Session, args: &OptionalPlugin) -> Result<(), Failure> {
    if let Some(name) = &args.plugin {
        return status_of(session, name).await;
    }
    let failed = |fault| Failure::new("cannot tell the status", fault);
    let plugins = session.target.list().await.map_err(failed)?;
    let directories = session.target.directories().await.map_err(failed)?;
    let daemon = session.target.status().await.map_err(failed)?;
    let mut counts = BTreeMap::new();
    for plugin in &plugins {
        *counts.entry(plugin.state).or_insert(0) += 1;
    }
    let trouble = |plugin: &&PluginSummary| plugin.last_error.is_some();
    let problems = plugins.iter().filter(trouble).map(Problem::of).collect();
    let status = Status { directories, daemon, total: plugins.len(), plugins: counts, problems };
    let names = || plugins.iter().map(name_of).collect();
    Ok(session.out.show(std::slice::from_ref(&status), true, names, |style, _| status_text(&status, style))?)
}

async fn status_of(session: &mut Session, name: &str) -> Result<(), Failure> {
    let what = format!("cannot tell the status of `{name}`");
    let plugin = session.one(&what, name).await?;
    let detail = session.target.inspect(&plugin).await.map_err(|fault| Failure::new(what, fault).about(&plugin))?;
    let summary = &detail.summary;
    let text = |style: Style, _| {
        let mut line = format!("{plugin} {}", style.paint(of_state(summary.state), summary.state.as_str()));
        line.push_str(&format!(" since {}", escape(&summary.since)));
        if let Some(pid) = summary.pid {
            line.push_str(&format!(", pid {pid}"));
        }
        line.push_str(&format!(", {} calls, {} under way\n", detail.calls, detail.in_flight));
        if let Some(error) = &summary.last_error {
            line.push_str(&format!("  {}\n", escape(error)));
        }
        if summary.versions.len() > 1 || summary.pinned.is_some() {
            let version = summary.version.as_deref().unwrap_or("-");
            line.push_str(&format!("  version {}, installed {}\n", escape(version), escape(&installed(summary))));
        }
        if let Some(process) = &detail.process {
            line.push_str(&process_text(process));
        }
        line
    };
    Ok(session.out.show(std::slice::from_ref(&detail), true, || vec![plugin.to_string()], text)?)
}

/// The process of an installed plugin: the one that runs, and how the last one ended.
fn process_text(process: &ProcessDetail) -> String {
    let mut out = String::new();
    if let Some(running) = running(process) {
        out.push_str(&format!("  process {}\n", escape(&running)));
    }
    if let Some(exit) = &process.last_exit {
        out.push_str(&format!("  the last one ended {}: {exit}\n", escape(&exit.time)));
        out.extend(exit.stderr.iter().map(|line| format!("    {}\n", escape(line))));
    }
    out
}

/// The process that runs, in words.
pub(super) fn running(process: &ProcessDetail) -> Option<String> {
    let (since, host) = (process.since.as_ref()?, process.host_pid?);
    let starts = match process.starts {
        0 => "found running".to_owned(),
        1 => "started once".to_owned(),
        count => format!("started {count} times"),
    };
    let kept = process.kept_by.map(|pid| format!(", kept by the registry in pid {pid}")).unwrap_or_default();
    Some(format!("since {since}, host pid {host}, {starts}{kept}"))
}

/// Answer of `status` without a plugin.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    directories: Vec<String>,
    daemon: Option<DaemonStatus>,
    total: usize,
    plugins: BTreeMap<State, u64>,
    problems: Vec<Problem>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Problem {
    plugin: String,
    state: State,
    last_error: Option<String>,
}

impl Problem {
    fn of(plugin: &PluginSummary) -> Self {
        Self { plugin: name_of(plugin), state: plugin.state, last_error: plugin.last_error.clone() }
    }
}

/// `namespace/name`; of a file that makes no plugin, what is known of its name.
pub(super) fn name_of(plugin: &PluginSummary) -> String {
    plugin.id().map_or_else(|| plugin.name.clone(), |id| id.to_string())
}

/// The one plugin with this name; an invalid file is found by the name that `list` shows.
fn named(
    what: &str,
    name: &str,
    known: &[PluginSummary],
    directories: &[String],
) -> Result<Vec<PluginSummary>, Failure> {
    let by_name = |wanted: &str| known.iter().filter(|plugin| name_of(plugin) == wanted).cloned().collect::<Vec<_>>();
    let found = by_name(name);
    if !found.is_empty() {
        return Ok(found);
    }
    let bare = name.strip_prefix("-/").unwrap_or(name);
    let id = if bare.contains('/') { pick::whole(what, name)? } else { pick::bare(what, bare, known)? };
    let found = by_name(id.as_str());
    if found.is_empty() {
        // A daemon may have no directory at all.
        let place = if directories.is_empty() { "any directory".to_owned() } else { directories.join(", ") };
        let text = format!("there is no plugin `{id}` in {place}: `goplugctl list` shows what is there");
        let hint = format!("goplugctl why {}", escape(id.as_str()));
        return Err(Failure::new(what, Fault::new(Code::NotFound, text)).hint(hint).about(&id));
    }
    Ok(found)
}

pub(super) fn table(plugins: &[PluginSummary], style: Style, wide: bool) -> String {
    let mut head = vec!["PLUGIN", "STATE", "VERSION", "PROTOCOL", "METHODS", "PID"];
    if wide {
        head.extend(["INSTALLED", "LAZY", "SINCE", "SOCKET", "PCONF"]);
    }
    head.push("LAST ERROR");
    let mut table = Table::new(head);
    for plugin in plugins {
        let dash = || "-".to_owned();
        let mut row = vec![
            (name_of(plugin), Paint::None),
            (plugin.state.to_string(), of_state(plugin.state)),
            (plugin.version.clone().unwrap_or_else(dash), Paint::None),
            (plugin.protocol.map_or_else(dash, |number| format!("v{number}")), Paint::None),
            (plugin.methods.as_ref().map_or_else(dash, |methods| methods.len().to_string()), Paint::None),
            (plugin.pid.map_or_else(dash, |pid| pid.to_string()), Paint::None),
        ];
        if wide {
            let lazy = if plugin.lazy_load { "lazy" } else { "-" };
            let path = |path: &Option<String>| path.clone().unwrap_or_else(dash);
            let file = plugin.pconf.clone().or_else(|| plugin.manifest.clone());
            row.extend(
                [installed(plugin), lazy.to_owned(), plugin.since.clone(), path(&plugin.socket), path(&file)]
                    .map(|cell| (cell, Paint::None)),
            );
        }
        row.push((plugin.last_error.clone().unwrap_or_default(), Paint::Faint));
        table.row(row);
    }
    table.render(style)
}

/// Its versions, and which may become current.
fn installed(plugin: &PluginSummary) -> String {
    let versions = if plugin.versions.is_empty() { "-".to_owned() } else { plugin.versions.join(",") };
    plugin.pinned.as_ref().map_or(versions.clone(), |range| format!("{versions} pinned to {range}"))
}

fn status_text(status: &Status, style: Style) -> String {
    let mut out = String::new();
    for directory in &status.directories {
        out.push_str(&format!("directory {}\n", escape(directory)));
    }
    if let Some(daemon) = &status.daemon {
        out.push_str(&format!(
            "daemon {} pid {} since {}\n",
            escape(&daemon.version),
            daemon.pid,
            escape(&daemon.since)
        ));
    }
    let counted = |(state, count): (&State, &u64)| format!("{count} {}", style.paint(of_state(*state), state.as_str()));
    let counts: Vec<_> = status.plugins.iter().map(counted).collect();
    out.push_str(&format!(
        "{} {}{}{}\n",
        status.total,
        if status.total == 1 { "plugin" } else { "plugins" },
        if counts.is_empty() { "" } else { ": " },
        counts.join(", ")
    ));
    for problem in &status.problems {
        let state = style.paint(of_state(problem.state), problem.state.as_str());
        let why = escape(problem.last_error.as_deref().unwrap_or_default());
        out.push_str(&format!("  {} {state}: {why}\n", escape(&problem.plugin)));
    }
    out
}
