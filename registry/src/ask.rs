//! `why`: joins what the disk says with what a supervisor knows and what a knock at the socket tells.

use std::sync::Arc;
use std::time::{Duration, Instant};

use goplug_pconf_schema::PluginId;
use goplug_pconf_schema::admin::{Link, LinkState, State, Why};
use tokio::time::timeout;

use crate::discovery::Confinement;
use crate::finder::scan_options;
use crate::named;
use crate::registry::Inner;
use crate::show;
use crate::supervisor::{Command, Slot, Wire};
use crate::why::{FileFinding, Findings, ProcessFindings, SlotFindings, explain, gather, knock};
use crate::words::quote;

/// How long a plugin that is not loaded may take to be looked at.
const LOOK: Duration = Duration::from_secs(4);

/// Explains `subject`. Activates nothing.
pub(crate) async fn why(registry: &Inner, subject: &str) -> Why {
    let Some(name) = named::without_range(registry, subject) else { return why_named(registry, subject).await };
    let mut why = why_named(registry, &name).await;
    if let Some(id) = why.plugin.clone()
        && registry.find(id.as_str()).is_ok()
        && let Err(fault) = registry.find(subject)
    {
        // Whatever else there is to say: it is not what was asked for.
        let last = why.links.len().saturating_sub(1);
        if why.links.iter().take(last).all(|link| link.state != LinkState::Broken) {
            // To load it would not help.
            why.fix = Some(format!("goplugctl inspect {}", quote(id.as_str())));
            for link in why.links.iter_mut().skip(last).filter(|link| link.state == LinkState::Broken) {
                (link.state, link.detail) = (LinkState::Skipped, "not reached".into());
            }
        }
        why.links.insert(last, Link { name: "version".into(), state: LinkState::Broken, detail: fault.message });
        why.callable = false;
    }
    Why { subject: goplug_pconf_schema::printable(subject), ..why }
}

async fn why_named(registry: &Inner, subject: &str) -> Why {
    let options = registry.shared.options.load_full();
    let view = registry.finder().view();
    let (words, scan_options_) = (subject.to_owned(), scan_options(&options));
    let work = crate::tasks::on_a_thread(move || gather(&words, &scan_options_, &view, None));
    let Ok(mut findings) = work.await else {
        return failed(subject);
    };
    let kept = match &findings.file {
        FileFinding::There { read: Ok(found), winner: None, .. } => {
            registry.programs.get(&found.pconf.id).and_then(|program| registry.finder().installed_as(&program.id))
        }
        _ => None,
    };
    if let Some(installed) = kept {
        // The plugin's own `.pconf` is there because its manifest is.
        let (file, scan_options, view) =
            (show::text(&installed.file), scan_options(&options), registry.finder().view());
        let work = crate::tasks::on_a_thread(move || gather(&file, &scan_options, &view, None));
        let Ok(found) = work.await else { return failed(subject) };
        findings = Findings { subject: findings.subject, ..found };
    }
    findings.auto_discover = options.auto_discover;
    findings.allow_uids.clone_from(&options.allow_uids);
    if let FileFinding::Installed { read: Ok(found), outside: false, winner: None, .. } = &findings.file {
        findings.process = process_findings(registry, &found.manifest.id).await;
    }
    if let FileFinding::There { read: Ok(found), winner: None, .. } = &findings.file {
        let found = Arc::clone(found);
        let slot = registry.resolve(found.pconf.id.as_str()).ok();
        if let Some(slot) = &slot {
            // A plugin that does not serve may answer now; nothing is activated by that.
            if slot.live().is_none() {
                _ = timeout(LOOK, slot.ask(Command::Look)).await;
            }
            findings.slot = Some(findings_of(slot));
        }
        if slot.is_none_or(|slot| slot.view().state != State::Loaded) {
            let confinement = Confinement::new(&findings.directory.path, &options.socket_folders());
            findings.knock = Some(knock(&found.socket, confinement).await);
        }
    }
    explain(&findings)
}

async fn process_findings(registry: &Inner, id: &PluginId) -> Option<ProcessFindings> {
    let program = registry.programs.get(id)?;
    let slot = registry.slot(id);
    if let Some(slot) = slot.as_ref().filter(|slot| program.is_running() && slot.live().is_none()) {
        // It may be active already; nothing is activated by that.
        _ = timeout(LOOK, slot.ask(Command::Look)).await;
    }
    let (view, served) = (program.view(), slot.map(|slot| slot.view()).filter(|_| program.is_running()));
    let retry_at = served.as_ref().map_or(view.retry_at, |served| served.retry_at);
    Some(ProcessFindings {
        state: served.as_ref().map_or(view.state, |served| served.state),
        pid: program.pid(),
        last_error: served.as_ref().map_or_else(|| view.last_error.clone(), |served| served.last_error.clone()),
        retry_in: retry_at.map(|at| at.saturating_duration_since(Instant::now())),
        is_asleep: view.is_asleep,
        kept_by: view.kept_by,
    })
}

fn findings_of(slot: &Slot) -> SlotFindings {
    let view = slot.view();
    let seen = view.seen.as_deref();
    SlotFindings {
        state: view.state,
        protocol: seen.and_then(|seen| Wire::number(seen.wire)),
        pid: seen.map(|seen| seen.pid),
        last_error: view.last_error.clone(),
        retry_in: view.retry_at.map(|at| at.saturating_duration_since(Instant::now())),
        unloaded: view.unloaded,
    }
}

fn failed(subject: &str) -> Why {
    let subject = goplug_pconf_schema::printable(subject);
    Why { subject, plugin: None, state: None, callable: false, links: Vec::new(), fix: None }
}
