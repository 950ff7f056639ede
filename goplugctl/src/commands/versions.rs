//! `upgrade`, `rollback`, `pin`, `diff`: which version of an installed plugin is the current one.

use std::path::{Path, PathBuf};

use goplug_pconf_schema::admin::{Diff, Difference, Upgraded};
use goplug_pconf_schema::{Code, Fault, PluginId, Reason};
use serde_json::Value;

use super::grant;
use crate::args::{DiffArgs, PinArgs, RollbackArgs, UpgradeArgs};
use crate::exit_code;
use crate::failure::Failure;
use crate::output::style::Paint;
use crate::output::{Style, escape};
use crate::session::Session;
use crate::target::{Against, Upgrade};

use super::source::source;

pub(super) async fn upgrade(session: &mut Session, args: &UpgradeArgs) -> Result<(), Failure> {
    let what = |plugin: &str| format!("cannot upgrade `{plugin}`");
    let plugin = session.one(&what(&args.plugin), &args.plugin).await?;
    let failed = |fault: Fault| failed(what(plugin.as_str()), fault, &plugin);
    let source = match &args.source {
        Some(named) => {
            let fetched = source(session, named, &args.how, args.dry_run).await;
            Some(fetched.map_err(|fault| Failure::new(what(plugin.as_str()), fault))?)
        }
        None => None,
    };
    if let Some(would_build) = source.as_ref().and_then(|source| source.would_build.as_ref()) {
        return would_build.show(&mut session.out, "installed");
    }
    let allow_unsigned = source.as_ref().map_or(args.how.allow_unsigned, |source| source.allow_unsigned);
    let UpgradeArgs { rollback_on, downgrade, dry_run, .. } = *args;
    let path = source.as_ref().map(|source| source.path.as_path());
    let given = args.grant.clone().unwrap_or_default();
    let how = Upgrade { source: path, rollback_on, downgrade, allow_unsigned, grant: given, dry_run };
    let failed = |fault: Fault| {
        let hint = grant::option(&fault).map(|option| {
            let source = args.source.as_ref().map(|source| escape(&source.display().to_string())).unwrap_or_default();
            let unsigned = if args.how.allow_unsigned { "--allow-unsigned " } else { "" };
            format!("goplugctl upgrade {unsigned}{option} {plugin} {source}")
        });
        let failure = failed(fault);
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    };
    let done = match session.target.upgrade(&plugin, how.clone()).await {
        Ok(done) => done,
        Err(fault) => match grant::ask(session, args.grant.as_ref(), &fault).await? {
            Some(grant) => session.target.upgrade(&plugin, Upgrade { grant, ..how }).await.map_err(failed)?,
            None => return Err(failed(fault)),
        },
    };
    show(session, &done)
}

pub(super) async fn rollback(session: &mut Session, args: &RollbackArgs) -> Result<(), Failure> {
    let what = |plugin: &str| format!("cannot roll back `{plugin}`");
    let plugin = session.one(&what(&args.plugin), &args.plugin).await?;
    let failed = |fault: Fault| failed(what(plugin.as_str()), fault, &plugin);
    let done = session.target.rollback(&plugin, args.dry_run).await.map_err(failed)?;
    show(session, &done)
}

pub(super) async fn pin(session: &mut Session, args: &PinArgs) -> Result<(), Failure> {
    let what = |plugin: &str| format!("cannot pin `{plugin}`");
    let plugin = session.one(&what(&args.plugin), &args.plugin).await?;
    let failed = |fault: Fault| failed(what(plugin.as_str()), fault, &plugin);
    let done = session.target.pin(&plugin, args.range.as_deref()).await.map_err(failed)?;
    Ok(session.out.changed(&[done], true, &[plugin.to_string()])?)
}

pub(super) async fn diff(session: &mut Session, args: &DiffArgs) -> Result<(), Failure> {
    let what = |plugin: &str| format!("cannot compare `{plugin}`");
    let plugin = session.one(&what(&args.plugin), &args.plugin).await?;
    let failed = |fault: Fault| {
        let file = args.against.as_ref().map(|file| escape(&file.display().to_string())).unwrap_or_default();
        let unsigned = fault.reason == Some(Reason::Unsigned);
        let failure = failed(what(plugin.as_str()), fault, &plugin);
        match unsigned {
            true => failure.hint(format!("goplugctl diff {} {file} --allow-unsigned", escape(plugin.as_str()))),
            false => failure,
        }
    };
    let version = args.against.as_ref().and_then(|against| against.to_str()?.strip_prefix('@'));
    let folder = match (&args.against, version) {
        (Some(folder), None) => Some(absolute(folder).map_err(failed)?),
        _ => None,
    };
    let against = match (version, &folder) {
        (Some(version), _) => Against::Version(version),
        (None, Some(folder)) if args.allow_unsigned => Against::Unsigned(folder),
        (None, Some(folder)) => Against::Folder(folder),
        (None, None) => Against::Newest,
    };
    let found = session.target.diff(&plugin, against).await.map_err(failed)?;
    if !found.differences.is_empty() {
        session.exit_with(exit_code::DIFFERENT);
    }
    Ok(session.out.show(
        std::slice::from_ref(&found),
        true,
        || vec![plugin.to_string()],
        |style, _| text(&found, style),
    )?)
}

fn show(session: &mut Session, done: &Upgraded) -> Result<(), Failure> {
    let names = vec![done.plugin.to_string()];
    if !done.dry_run {
        return Ok(session.out.changed(std::slice::from_ref(done), true, &names)?);
    }
    let Upgraded { plugin, from, to, .. } = done;
    let text = match from == to {
        true => format!("{plugin} would stay at {from}\n"),
        false => format!("{plugin} would go from {from} to {to}\n"),
    };
    Ok(session.out.show(std::slice::from_ref(done), true, || names, |_, _| text)?)
}

fn text(diff: &Diff, style: Style) -> String {
    let head = match diff.from == diff.to {
        true => format!("{} {}: the current version\n", diff.plugin, diff.from),
        false => format!("{} {} -> {}\n", diff.plugin, diff.from, diff.to),
    };
    let mut out = escape(&head[..head.len() - 1]) + "\n";
    for Difference { path, before, after } in &diff.differences {
        let value = |value: &Value| escape(&value.to_string());
        let (paint, line) = match (before, after) {
            (None, Some(after)) => (Paint::Good, format!("+ {}: {}", escape(path), value(after))),
            (Some(before), None) => (Paint::Bad, format!("- {}: {}", escape(path), value(before))),
            (before, after) => {
                let [before, after] = [before, after].map(|side| side.as_ref().map(value).unwrap_or_default());
                (Paint::Notice, format!("~ {}: {before} -> {after}", escape(path)))
            }
        };
        out.push_str(&format!("  {}\n", style.paint(paint, &line)));
    }
    for note in &diff.notes {
        out.push_str(&format!("  {}\n", escape(note)));
    }
    out
}

/// A daemon may stand in another folder.
fn absolute(path: &Path) -> Result<PathBuf, Fault> {
    std::path::absolute(path).map_err(|error| Fault::new(Code::InvalidArgument, error.to_string()))
}

fn failed(what: String, fault: Fault, plugin: &PluginId) -> Failure {
    let name = escape(plugin.as_str());
    let hint = (fault.code == Code::Unavailable).then(|| format!("goplugctl logs {name}"));
    let failure = Failure::new(what, fault);
    match hint {
        Some(hint) => failure.hint(hint).about(plugin),
        None => failure.about(plugin),
    }
}
