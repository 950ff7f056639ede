//! Waiting until something is so of a plugin.

use std::time::Duration;

use goplug_pconf_schema::admin::State;
use goplug_pconf_schema::{Code, Fault, Reason, printable};
use tokio::time::Instant;

use crate::callback::FeedItem;
use crate::options::LONGEST;
use crate::registry::{Known, Registry, no_process};
use crate::supervisor::{Slot, Wire};

/// What to wait for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wait {
    /// It can be called.
    Loaded,
    /// Its file was found.
    Discovered,
    /// Its file was removed, or never was there.
    Gone,
    /// It is loaded and notifies this callback; of a callback with a state, the state that it has already counts.
    Callback(String),
}

impl Registry {
    /// Waits until `what` is true of a plugin, at most `timeout`. Without auto-discover the directory is read again now and
    /// then meanwhile.
    ///
    /// # Example: not there yet, or never
    /// ```no_run
    /// use std::time::Duration;
    ///
    /// use goplug_registry::{Code, Registry, Wait};
    ///
    /// # async fn example(registry: &Registry) -> Result<(), goplug_registry::Error> {
    /// match registry.wait_for("Test/Do@^1.2", Wait::Loaded, Duration::from_secs(10)).await {
    ///     Err(fault) if fault.code == Code::DeadlineExceeded => println!("{:?}", registry.why("Test/Do").await.fix),
    ///     other => other?,
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `deadline_exceeded`; `conflict` for an ambiguous name.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn wait_for(&self, plugin: &str, what: Wait, timeout: Duration) -> Result<(), Fault> {
        // Nobody waits longer than that for a timer that could overflow.
        let timeout = timeout.min(LONGEST * 365);
        let until = Instant::now() + timeout;
        self.reach(plugin, &what, timeout, until).await?;
        let Wait::Callback(callback) = &what else { return Ok(()) };
        let notified = async {
            let mut feed = self.observe(plugin, callback, None).await?;
            while let Some(item) = feed.next().await {
                if matches!(item, FeedItem::Message(_)) {
                    return Ok(());
                }
            }
            Err(Fault::new(Code::Unavailable, "the registry is closed"))
        };
        tokio::time::timeout_at(until, notified).await.unwrap_or_else(|_| Err(self.not_in_time(plugin, &what)))
    }

    /// Waits until the plugin is as `what` requires: of a callback, that it serves and has it.
    async fn reach(&self, plugin: &str, what: &Wait, timeout: Duration, until: Instant) -> Result<(), Fault> {
        let mut events = self.events();
        loop {
            match self.inner.find(plugin) {
                Ok(Known::Slot(slot)) if is_so(&slot, what) => return Ok(()),
                Ok(Known::Installed(_)) if *what == Wait::Discovered => return Ok(()),
                Err(fault) if fault.code == Code::NotFound && *what == Wait::Gone => return Ok(()),
                // Another version of it may follow.
                Err(fault) if !matches!(fault.code, Code::NotFound | Code::WrongState) => return Err(fault),
                _ => {}
            }
            let auto = self.auto_discover();
            let pause = if auto { timeout } else { self.inner.shared.options.load().rescan_interval };
            let next = until.min(Instant::now() + pause);
            if tokio::time::timeout_at(next, events.next()).await.is_ok() {
                continue;
            }
            if Instant::now() >= until {
                return Err(self.not_in_time(plugin, what));
            }
            self.rescan().await?;
            if matches!(what, Wait::Loaded | Wait::Callback(_)) {
                _ = self.look_at(plugin).await;
            }
        }
    }

    /// Why a wait ended without what was waited for: what can be mended only by somebody is told.
    fn not_in_time(&self, plugin: &str, what: &Wait) -> Fault {
        let text = format!("plugin `{}` {} in time", printable(plugin), wording(what));
        let found = self.inner.find(plugin).ok().filter(|_| matches!(what, Wait::Loaded | Wait::Callback(_)));
        let fault = match found {
            Some(Known::Slot(slot)) => slot.not_callable(),
            Some(Known::Installed(plugin)) => no_process(&plugin),
            None => return Fault::new(Code::DeadlineExceeded, text),
        };
        let is_final = matches!(
            fault.reason,
            Some(Reason::Disabled | Reason::GivenUp | Reason::NoHost | Reason::Untrusted | Reason::Altered)
        );
        if !is_final {
            return Fault::new(Code::DeadlineExceeded, text);
        }
        Fault { reason: fault.reason, ..Fault::new(Code::DeadlineExceeded, format!("{text}: {fault}")) }
    }
}

fn is_so(slot: &Slot, what: &Wait) -> bool {
    let view = slot.view();
    match what {
        Wait::Loaded => view.state == State::Loaded,
        Wait::Discovered => true,
        Wait::Gone => false,
        // A v0 plugin does not tell which it has.
        Wait::Callback(name) => {
            slot.live().is_some_and(|live| live.wire == Wire::V0 || live.hello.callback(name).is_some())
        }
    }
}

fn wording(what: &Wait) -> String {
    match what {
        Wait::Loaded => "was not loaded".into(),
        Wait::Discovered => "was not discovered".into(),
        Wait::Gone => "was not gone".into(),
        Wait::Callback(name) => format!("was not loaded, or did not notify `{}`,", printable(name)),
    }
}
