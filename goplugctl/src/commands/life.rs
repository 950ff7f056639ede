//! `load`, `unload`, `reload`, `rescan`: verbs that change something.

use serde::Serialize;

use crate::args::{Plugins, UnloadArgs};
use crate::failure::Failure;
use crate::session::{Picked, Session};
use crate::target::Unload;

pub(super) async fn load(session: &mut Session, args: &Plugins) -> Result<(), Failure> {
    let picked = session.several("cannot load", args).await?;
    let mut done = Vec::new();
    for plugin in &picked.plugins {
        match session.target.load(plugin).await {
            Ok(activation) => done.push((plugin.to_string(), activation)),
            Err(fault) => session.failed(Failure::new(format!("cannot load `{plugin}`"), fault).about(plugin))?,
        }
    }
    show(session, &picked, done)
}

pub(super) async fn unload(session: &mut Session, args: &UnloadArgs) -> Result<(), Failure> {
    let picked = session.several("cannot unload", &args.plugins).await?;
    if args.stop && !picked.one && !session.confirm(&format!("end {} processes?", picked.plugins.len())).await? {
        return Ok(());
    }
    let how = Unload { drain: args.drain, stop: args.stop };
    let mut done = Vec::new();
    for plugin in &picked.plugins {
        match session.target.unload(plugin, how).await {
            Ok(unloaded) => done.push((plugin.to_string(), unloaded)),
            Err(fault) => session.failed(Failure::new(format!("cannot unload `{plugin}`"), fault).about(plugin))?,
        }
    }
    show(session, &picked, done)
}

pub(super) async fn reload(session: &mut Session, args: &Plugins) -> Result<(), Failure> {
    let picked = session.several("cannot reload", args).await?;
    let mut done = Vec::new();
    for plugin in &picked.plugins {
        match session.target.reload(plugin).await {
            Ok(activation) => done.push((plugin.to_string(), activation)),
            Err(fault) => session.failed(Failure::new(format!("cannot reload `{plugin}`"), fault).about(plugin))?,
        }
    }
    show(session, &picked, done)
}

pub(super) async fn rescan(session: &mut Session) -> Result<(), Failure> {
    let failed = |fault| Failure::new("cannot look at the plugin directory", fault);
    session.target.rescan().await.map_err(failed)?;
    let directories = session.target.directories().await.map_err(failed)?;
    let plugins = session.target.known().await.map_err(failed)?.len();
    let report = serde_json::json!({ "directories": directories, "plugins": plugins });
    Ok(session.out.changed(&[report], true, &directories)?)
}

/// Shows what was changed; the failures were told before.
pub(super) fn show<T: Serialize>(
    session: &mut Session,
    picked: &Picked,
    done: Vec<(String, T)>,
) -> Result<(), Failure> {
    let (names, results): (Vec<String>, Vec<T>) = done.into_iter().unzip();
    if picked.one && results.is_empty() {
        return Ok(());
    }
    Ok(session.out.changed(&results, picked.one, &names)?)
}
