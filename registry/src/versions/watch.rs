//! The first minute of a new version: when its calls fail, the one before is made current again.

use std::sync::{Arc, Weak};
use std::time::Duration;

use goplug_pconf_schema::admin::{EventKind, State};
use goplug_pconf_schema::{Fault, PluginId, RollbackOn};
use semver::Version;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::installed::blocking;
use crate::registry::{Inner, Registry};
use crate::supervisor::Live;

/// How often its calls are counted.
const COUNT_EVERY: Duration = Duration::from_millis(20);

/// Counts the calls of version `to` from now on, and goes back to `from` when `rule` says so.
pub(super) fn watch(registry: &Arc<Inner>, id: PluginId, from: Version, to: Version, rule: RollbackOn) {
    let (weak, mut closed) = (Arc::downgrade(registry), registry.shared.closed.subscribe());
    registry.shared.tasks.spawn(async move {
        tokio::select! {
            _ = closed.wait_for(|closed| *closed) => {}
            () = follow(weak, id, from, to, rule) => {}
        }
    });
}

async fn follow(registry: Weak<Inner>, id: PluginId, from: Version, to: Version, rule: RollbackOn) {
    let until = Instant::now() + RollbackOn::WINDOW;
    let mut ticks = interval(COUNT_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Its processes one after another: one that died takes its count with it.
    let mut lives: Vec<Arc<Live>> = Vec::new();
    while Instant::now() < until {
        ticks.tick().await;
        let Some(inner) = registry.upgrade() else { return };
        // Somebody else has made another one current, or has removed it.
        if inner.finder().installed_as(&id).is_none_or(|there| there.found.manifest.version != to) {
            return;
        }
        if let Some(live) = inner.slot(&id).and_then(|slot| slot.live())
            && !lives.iter().any(|known| Arc::ptr_eq(known, &live))
        {
            lives.push(live);
        }
        let counts = lives.iter().map(|live| live.verdicts());
        let (calls, failed) = counts.fold((0, 0), |sum, count| (sum.0 + count.0, sum.1 + count.1));
        let gave_up = inner.programs.get(&id).is_some_and(|program| program.view().state == State::Failed);
        if !gave_up && !rule.is_bad(calls, failed) {
            continue;
        }
        let why = if gave_up { "it was given up".to_owned() } else { format!("{failed} of {calls} calls failed") };
        let text = match go_back(&Registry { inner: Arc::clone(&inner) }, &id, &to, &from).await {
            Ok(()) => format!("version {to} is taken back, {from} serves again: {why}, the rule is {rule}"),
            Err(fault) => format!("version {to} cannot be taken back, although {why}: {fault}"),
        };
        return inner.shared.events.record(EventKind::Changed, Some(&id), inner.state_of(&id), Some(text));
    }
}

async fn go_back(registry: &Registry, id: &PluginId, from: &Version, to: &Version) -> Result<(), Fault> {
    let (directory, plugin) = (registry.absolute_directory()?, id.clone());
    let shelf = blocking(move || super::shelf(&directory, &plugin)).await?;
    if shelf.version() != Some(from) {
        return Ok(());
    }
    registry.switch(id, &shelf, to).await
}
