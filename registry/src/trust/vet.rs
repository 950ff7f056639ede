//! Before a process is activated: is its program the one that may run?

use std::path::Path;
use std::sync::PoisonError;

use goplug_pconf_schema::admin::{EventKind, Executable, TrustVerdict};
use goplug_pconf_schema::{Code, Fault, Pin, PluginId, Reason, Sha256, TrustState};
use goplug_transport::Peer;

use super::verdict::verdict;
use super::{attest, store};
use crate::event::now_text;
use crate::options::Builder;
use crate::supervisor::Shared;

/// The file that a process ran when its program was found to be the right one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Vetted {
    device: u64,
    inode: u64,
}

impl Vetted {
    /// Whether the process still runs that file: it may have turned into another program since.
    pub(crate) async fn still_holds(self, peer: &Peer) -> bool {
        let peer = peer.clone();
        crate::tasks::on_a_thread(move || peer.runs(self.device, self.inode)).await.unwrap_or(false)
    }
}

/// Compares the program of the process with the plugin's pin; the first one that comes is recorded.
///
/// # Errors
/// `denied` with [`Reason::Untrusted`] for another one, or one that cannot be told; `unavailable` when the process has ended.
pub(crate) async fn vet(shared: &Shared, options: &Builder, id: &PluginId, peer: &Peer) -> Result<Vetted, Fault> {
    let attested = attest(peer, &shared.trust.digests).await;
    if attested.is_gone {
        return Err(Fault::new(Code::Unavailable, "the process has ended"));
    }
    let shown = &attested.shown;
    let pin = pinned(options, id, shown).await.map_err(|why| {
        let text = format!("the programs that are trusted cannot be told: {why}");
        refuse(shared, id, None, untrusted(text))
    })?;
    let judged = verdict(true, pin.as_ref().map(|(pin, _)| pin.sha256), shown.sha256);
    match (judged, pin, attested.file) {
        (TrustVerdict::Trusted, Some((_, is_new)), Some((device, inode))) => {
            if is_new {
                let detail = shown.sha256.map(|digest| describe(shown.path.as_deref(), &digest));
                shared.events.record(EventKind::Pinned, Some(id), None, detail);
            }
            forget(shared, id);
            Ok(Vetted { device, inode })
        }
        (TrustVerdict::Changed, Some((pin, _)), _) => Err(refuse(shared, id, shown.sha256, changed(id, &pin, shown))),
        _ => {
            let why = shown.problem.as_deref().unwrap_or("it changes");
            Err(refuse(shared, id, None, untrusted(format!("which program it runs cannot be told: {why}"))))
        }
    }
}

/// What `turned`, a process that was vetted, is refused with once it runs something else.
pub(crate) fn turned(peer: &Peer) -> Fault {
    untrusted(format!("the process (pid {}) turned into another program while it was activated", peer.pid()))
}

/// The pin that counts, and whether it was recorded now.
async fn pinned(options: &Builder, id: &PluginId, shown: &Executable) -> Result<Option<(Pin, bool)>, String> {
    let (folder, directory, id) = (options.trust_folder(), directory_name(&options.directory), id.clone());
    let first = shown.sha256.map(|sha256| Pin {
        sha256,
        path: shown.path.clone().unwrap_or_default(),
        since: now_text(),
        approved: false,
    });
    let work = move || {
        if let Some(pin) = store::load::<TrustState>(&folder)?.of(&directory, &id) {
            return Ok(Some((pin.clone(), false)));
        }
        let Some(first) = first else { return Ok(None) };
        // Another registry may record one at the same time.
        let record = |state: &mut TrustState| match state.of(&directory, &id) {
            Some(pin) => (pin.clone(), false),
            None => {
                state.set(&directory, &id, Some(first.clone()));
                (first.clone(), true)
            }
        };
        store::update(&folder, record).map(Some)
    };
    crate::tasks::on_a_thread(work).await.map_err(|fault| fault.message)?
}

/// A plugin directory as pins know it.
pub(super) fn directory_name(directory: &Path) -> String {
    let absolute = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
    absolute.components().collect::<std::path::PathBuf>().to_string_lossy().into_owned()
}

fn changed(id: &PluginId, pin: &Pin, shown: &Executable) -> Fault {
    let now = shown.sha256.map(|digest| describe(shown.path.as_deref(), &digest)).unwrap_or_default();
    let (before, since) = (describe(Some(&pin.path), &pin.sha256), &pin.since);
    let text = format!("it runs another program than before: {now}; trusted since {since} is {before}");
    untrusted(format!("{text}: `goplugctl trust approve {id}` if that is right"))
        .with_data(serde_json::json!({ "runs": shown, "pin": pin }))
}

fn untrusted(text: String) -> Fault {
    Fault::new(Code::Denied, text).with_reason(Reason::Untrusted)
}

/// A path with the beginning of its digest, as long as nobody makes another file of it by chance.
fn describe(path: Option<&str>, digest: &Sha256) -> String {
    let digest = digest.to_string();
    format!("{} (sha256 {}…)", goplug_pconf_schema::printable(path.unwrap_or("?")), &digest[..16])
}

/// Tells of a refusal, once for each program.
fn refuse(shared: &Shared, id: &PluginId, seen: Option<Sha256>, fault: Fault) -> Fault {
    let mut refused = shared.trust.refused.lock().unwrap_or_else(PoisonError::into_inner);
    if refused.insert(id.clone(), seen) != Some(seen) {
        shared.events.record(EventKind::Untrusted, Some(id), None, Some(fault.message.clone()));
    }
    fault
}

fn forget(shared: &Shared, id: &PluginId) {
    shared.trust.refused.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
}
