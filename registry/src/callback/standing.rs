//! Subscriptions that outlive a process: the next one is told of them before it is activated, so that it has nobody to
//! whom it could publish without their knowing.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use goplug_pconf_schema::wire::call::{CALL_ID, EPOCH, HOST, subscription_path};
use goplug_pconf_schema::wire::event::Class;
use goplug_pconf_schema::wire::fault::MAX_PROBLEM_BYTES;
use goplug_pconf_schema::wire::hello::Hello;
use goplug_pconf_schema::{Code, Fault, PluginId};
use goplug_transport::{Connection, Error, Peer, Request};
use tokio::time::{Instant, timeout_at};

use crate::call::{Verdict, judge_v1, next_call_id, read_problem};

/// A callback, and the name of a subscription of it.
pub(crate) type Place = (String, String);

/// The subscriptions of a registry's applications, by plugin. A name may be there twice: the later feed has then ended the
/// earlier one, which may not know it yet.
#[derive(Debug, Default, Clone)]
pub(crate) struct Standing(Arc<Mutex<HashMap<PluginId, BTreeMap<Place, usize>>>>);

/// A subscription that stands until this is dropped.
#[derive(Debug)]
pub(crate) struct Stands {
    all: Standing,
    plugin: PluginId,
    place: Place,
}

impl Standing {
    /// A subscription stands from here on.
    pub(crate) fn add(&self, plugin: &PluginId, callback: &str, name: &str) -> Stands {
        let place = (callback.to_owned(), name.to_owned());
        *self.lock().entry(plugin.clone()).or_default().entry(place.clone()).or_default() += 1;
        Stands { all: self.clone(), plugin: plugin.clone(), place }
    }

    /// Those of a plugin.
    pub(crate) fn of(&self, plugin: &PluginId) -> Vec<Place> {
        self.lock().get(plugin).map(|places| places.keys().cloned().collect()).unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PluginId, BTreeMap<Place, usize>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Stands {
    fn drop(&mut self) {
        let mut all = self.all.lock();
        let Some(places) = all.get_mut(&self.plugin) else { return };
        if let Some(count) = places.get_mut(&self.place) {
            *count -= 1;
            if *count == 0 {
                places.remove(&self.place);
            }
        }
        if places.is_empty() {
            all.remove(&self.plugin);
        }
    }
}

/// Gives `places` to a process that is not active yet: each is attached and left again, and the process then holds it for
/// the feed, which attaches as soon as the process serves. Only class `event` is held for somebody who is away.
///
/// # Errors
/// The process could not be asked. What it refuses, the feed hears when it attaches.
pub(crate) async fn hold(
    places: &[Place],
    hello: &Hello,
    socket: &Path,
    peer: &Peer,
    deadline: Instant,
) -> Result<(), Fault> {
    let is_event = |callback: &str| hello.callback(callback).is_some_and(|info| info.class == Class::Event);
    for (callback, name) in places.iter().filter(|(callback, _)| is_event(callback)) {
        let lost = |error: Error| {
            let text = format!("subscription `{name}` of callback `{callback}` was not taken over: {error}");
            Fault::new(Code::Unavailable, text)
        };
        let mut connection = Connection::connect(socket, deadline).await.map_err(lost)?;
        if !connection.peer().same_process(peer) {
            return Err(Fault::new(Code::Unavailable, "another process listens on the socket by now"));
        }
        let target = subscription_path(callback, name);
        let asked = timeout_at(deadline, attach(&mut connection, &hello.epoch, &target));
        let late = |_| Fault::new(Code::Unavailable, format!("no answer to the subscription `{name}` in time"));
        if let Some(refusal) = asked.await.map_err(late)?.map_err(lost)? {
            tracing::debug!(plugin = %hello.name, %callback, subscription = %name, %refusal, "a place is not held");
        }
    }
    Ok(())
}

/// What the process has against it, if anything.
async fn attach(connection: &mut Connection, epoch: &str, target: &str) -> Result<Option<Fault>, Error> {
    let call_id = next_call_id();
    let headers = [(CALL_ID, call_id.as_str()), (EPOCH, epoch)];
    let request = Request { method: "GET", target, host: HOST, headers: &headers, content_type: None, body: b"" };
    let head = connection.open(&request).await?;
    Ok(match judge_v1(&head, &call_id) {
        Verdict::Body => None,
        Verdict::Problem => Some(read_problem(head.status, &connection.read_body(MAX_PROBLEM_BYTES).await?)),
        Verdict::Broken(why) => Some(Fault::new(Code::ProtocolError, why)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_stands_as_long_as_somebody_has_it() {
        let (all, plugin) = (Standing::default(), PluginId::new("Test", "Do").unwrap());
        let place = ("e".to_owned(), "a".to_owned());
        let first = all.add(&plugin, "e", "a");
        let second = all.add(&plugin, "e", "a");
        drop(first);
        assert_eq!(all.of(&plugin), [place]);
        drop(second);
        assert!(all.of(&plugin).is_empty() && all.lock().is_empty());
    }
}
