//! Readers that are pushed to: over frames whoever notifies writes for them, and no task is in between.

use std::sync::{Arc, Mutex, PoisonError};

use goplug_pconf_schema::Fault;
use goplug_pconf_schema::wire::event::Position;
use goplug_transport::{NextNotice, NoticeSource, Outlet};

use super::Cell;
use super::stream::{Attached, Reader};
use super::window::Next;

/// Whom to tell that something has arrived.
#[derive(Default)]
pub(super) struct Outlets(Mutex<List>);

#[derive(Default)]
struct List {
    last: u64,
    /// Taken out as a whole, so that nothing is locked while an outlet is told.
    all: Arc<Vec<(u64, Outlet)>>,
}

impl Outlets {
    pub(super) fn tell(&self) {
        let all = Arc::clone(&self.lock().all);
        all.iter().for_each(|(_, outlet)| outlet.arrived());
    }

    fn add(&self, outlet: Outlet) -> u64 {
        let mut list = self.lock();
        list.last += 1;
        let number = list.last;
        Arc::make_mut(&mut list.all).push((number, outlet));
        number
    }

    fn remove(&self, number: u64) {
        Arc::make_mut(&mut self.lock().all).retain(|(other, _)| *other != number);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, List> {
        // Nothing that is done under the lock can panic half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An attached reader to whom `outlet` leads.
struct Pushed {
    attached: Attached,
    outlet: u64,
}

/// Has `reader` pushed to through `outlet`. What came before this is found by the first look.
pub(crate) fn push(reader: Reader, outlet: Outlet) -> Arc<dyn NoticeSource> {
    let attached = reader.into_attached();
    let outlet = attached.cell.outlets.add(outlet);
    Arc::new(Pushed { attached, outlet })
}

impl NoticeSource for Pushed {
    fn next(&self) -> NextNotice {
        match self.attached.next() {
            Next::Message { seq, key, dropped, data } => NextNotice::Message { seq, key, dropped, data },
            Next::Gap(from, to) => NextNotice::Gap(from, to),
            Next::Replaced => NextNotice::Replaced,
            Next::End => NextNotice::End,
            Next::Wait => NextNotice::Wait,
        }
    }

    fn acknowledge(&self, seq: u64) -> Result<(), Fault> {
        let Some(name) = self.attached.subscription() else { return Ok(()) };
        let epoch = self.attached.position(seq).epoch;
        self.attached.notifier.acknowledge_to(&self.attached.cell, name, &Position { epoch, seq })
    }
}

impl Drop for Pushed {
    fn drop(&mut self) {
        self.attached.cell.outlets.remove(self.outlet);
    }
}

impl Cell {
    /// Something has arrived: everybody who reads looks again.
    pub(super) fn announce(&self) {
        self.arrived.send_replace(());
        self.outlets.tell();
    }
}
