//! `start`, `stop`, `restart`, `enable`, `disable`, `logs`: the processes of installed plugins.

use futures_util::StreamExt;
use goplug_pconf_schema::{Code, Fault, PluginId};

use super::life::show;
use crate::args::{LogsArgs, Plugins};
use crate::failure::Failure;
use crate::output::{Format, escape};
use crate::session::Session;
use crate::target::Change;

pub(super) async fn change(session: &mut Session, args: &Plugins, change: Change) -> Result<(), Failure> {
    let verb = change.as_str();
    let picked = session.several(&format!("cannot {verb}"), args).await?;
    let ends = matches!(change, Change::Stop | Change::Disable);
    if ends && !picked.one && !session.confirm(&format!("{verb} {} plugins?", picked.plugins.len())).await? {
        return Ok(());
    }
    let mut done = Vec::new();
    for plugin in &picked.plugins {
        match session.target.change(plugin, change).await {
            Ok(changed) => done.push((plugin.to_string(), changed)),
            Err(fault) => session.failed(failed(format!("cannot {verb} `{plugin}`"), fault, plugin))?,
        }
    }
    show(session, &picked, done)
}

pub(super) async fn logs(session: &mut Session, args: &LogsArgs) -> Result<(), Failure> {
    let what = format!("cannot show the output of `{}`", args.plugin);
    let plugin = session.one(&what, &args.plugin).await?;
    let failed = |fault| failed(format!("cannot show the output of `{plugin}`"), fault, &plugin);
    let mut items = session.target.logs(&plugin, args.follow).await.map_err(failed)?;
    let format = session.out.format();
    if !args.follow && format == Format::Json {
        let mut all = Vec::new();
        while let Some(entry) = items.next().await {
            all.push(entry.map_err(failed)?);
        }
        return Ok(session.out.show(&all, false, Vec::new, |_, _| String::new())?);
    }
    while let Some(entry) = items.next().await {
        let entry = entry.map_err(failed)?;
        session.out.item(format, &entry, || plugin.to_string(), |_| escape(&entry.text))?;
    }
    Ok(())
}

/// What helps with a process that does not do as it is told.
fn failed(what: String, fault: Fault, plugin: &PluginId) -> Failure {
    let hint = mends(&fault, plugin);
    let failure = Failure::new(what, fault);
    match hint {
        Some(hint) => failure.hint(hint).about(plugin),
        None => failure.about(plugin),
    }
}

/// The command that mends the state of an installed plugin's process, where the message tells of it.
pub(super) fn mends(fault: &Fault, plugin: &PluginId) -> Option<String> {
    let state = fault.message.strip_prefix(&format!("plugin `{plugin}` is "))?;
    let about_process = ["no process of it runs", "start it first", "enable it first"];
    let about_process = about_process.iter().any(|words| state.contains(words));
    let verb = match state.split([' ', ',', ':']).next()? {
        "disabled" => "enable",
        "failed" => "logs",
        "stopped" | "discovered" if about_process && fault.code == Code::WrongState => "start",
        _ => return None,
    };
    (about_process || verb == "logs").then(|| format!("goplugctl {verb} {}", escape(plugin.as_str())))
}
