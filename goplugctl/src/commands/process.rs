//! `start`, `stop`, `restart`, `enable`, `disable`, `logs`: the processes of installed plugins.

use futures_util::StreamExt;

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
            Err(fault) => session.failed(Failure::new(format!("cannot {verb} `{plugin}`"), fault).about(plugin))?,
        }
    }
    show(session, &picked, done)
}

pub(super) async fn logs(session: &mut Session, args: &LogsArgs) -> Result<(), Failure> {
    let what = format!("cannot show the output of `{}`", args.plugin);
    let plugin = session.one(&what, &args.plugin).await?;
    let failed = |fault| Failure::new(format!("cannot show the output of `{plugin}`"), fault).about(&plugin);
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
