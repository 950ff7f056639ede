//! How a process is stopped, and how one follows another.

use std::sync::Arc;
use std::time::Duration;

use goplug_pconf_schema::admin::State;
use goplug_pconf_schema::{Code, Fault};
use tokio::time::{Instant, timeout};

use super::launch::{Process, hook};
use crate::host::{self, Exit, Hosted};
use crate::started::forget;
use crate::supervisor::{Command, Shared, Slot};
use crate::trust::Verified;

/// How long a process that was told to leave, and got its SIGTERM, may take before everything of it is killed.
const KILL_AFTER: Duration = Duration::from_secs(5);
/// How long a process of a changed manifest may take until it is activated; then the one before goes on.
const ACTIVATED_WITHIN: Duration = Duration::from_secs(30);

/// Drains the plugin, asks it to stop, and ends everything that is left of its process.
pub(super) async fn part(
    slot: Option<Arc<Slot>>,
    process: Process,
    shared: Arc<Shared>,
) -> Result<Option<Exit>, Fault> {
    run_hook(&process, &shared, "pre_stop").await;
    if let Some(slot) = slot {
        let drain = shared.options.load().drain;
        let unload = slot.ask(|reply| Command::Unload { drain, stop: true, reply });
        // One that does not listen is ended all the same.
        _ = timeout(drain + KILL_AFTER * 2, unload).await;
    }
    let exit = kill(&process).await;
    run_hook(&process, &shared, "post_stop").await;
    exit
}

/// Ends the process of a plugin that is not installed any more.
pub(crate) async fn end_orphan(hosted: &Hosted) {
    if let Err(fault) = hosted.stop(Duration::ZERO, KILL_AFTER).await {
        tracing::warn!(instance = %hosted.record().instance, %fault, "a process whose manifest is gone could not be ended");
    }
    forget(hosted).await;
}

/// As [`kill`]; nobody will ask for its output again.
pub(super) async fn end(process: &Process) -> Result<Option<Exit>, Fault> {
    let exit = kill(process).await?;
    forget(&process.hosted).await;
    Ok(exit)
}

/// SIGTERM, later SIGKILL to everything; answers how it ended.
async fn kill(process: &Process) -> Result<Option<Exit>, Fault> {
    match process.hosted.stop(Duration::ZERO, KILL_AFTER).await {
        Ok(status) => Ok(status.record.exit),
        // The host is gone, and its plugin with it.
        Err(fault) if fault.code == Code::PluginGone => Ok(process.hosted.exited().await),
        Err(fault) => Err(fault),
    }
}

/// A hook that fails on the way out stops nothing.
async fn run_hook(process: &Process, shared: &Shared, name: &str) {
    let hooks = &process.installed.manifest.hooks;
    let words = if name == "pre_stop" { &hooks.pre_stop } else { &hooks.post_stop };
    if words.is_empty() {
        return;
    }
    let run = async {
        let options = shared.options.load_full();
        let verified = Verified::of(&options, &shared.trust.digests, &process.installed).await?;
        let program = options.host_program.clone().map_or_else(host::find, Ok)?;
        hook(&program, &options, &process.installed, verified.as_ref(), words, name).await
    };
    if let Err(fault) = run.await {
        tracing::warn!(plugin = %process.installed.manifest.id, %fault, "a hook failed");
    }
}

/// Waits until the supervisor serves with `new` if it serves at all.
///
/// # Errors
/// Why it does not: the old process is to go on then.
pub(super) async fn taken_over(slot: Arc<Slot>, new: Process) -> Result<(), Fault> {
    let mut views = slot.follow();
    let pid = new.hosted.record().plugin.pid;
    let until = Instant::now() + ACTIVATED_WITHIN;
    loop {
        let view = Arc::clone(&views.borrow_and_update());
        match slot.live() {
            // Nobody uses it: there is nothing to take over.
            None if !matches!(view.state, State::Starting | State::Backoff | State::Draining) => return Ok(()),
            Some(live) if live.peer.pid() == pid || live.pool.socket() == new.found.socket => return Ok(()),
            // The supervisor has tried the new one, and pauses.
            Some(_) if view.retry_at.is_some() => {
                let why = view.last_error.clone();
                return Err(why.unwrap_or_else(|| Fault::new(Code::Unavailable, "it could not be activated")));
            }
            _ => {}
        }
        match tokio::time::timeout_at(until, views.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Ok(()),
            Err(_) => {
                let text = format!("it was not activated within {ACTIVATED_WITHIN:?}");
                return Err(Fault::new(Code::Unavailable, text));
            }
        }
    }
}

/// Ends a predecessor when it has finished its calls and left by itself, or has had its time.
pub(super) async fn retire(old: Process, shared: Arc<Shared>) {
    // The supervisor drains it and tells it to stop.
    _ = timeout(shared.options.load().drain + KILL_AFTER, old.hosted.exited()).await;
    if let Err(fault) = end(&old).await {
        tracing::warn!(plugin = %old.installed.manifest.id, %fault, "the predecessor could not be ended");
    }
    run_hook(&old, &shared, "post_stop").await;
}
