//! The output of a plugin, as a stream that outlives the daemon: what was lost is asked for again, from where it was read.

use std::time::Duration;

use futures_util::stream::{self, BoxStream, Stream, StreamExt};
use goplug_pconf_schema::admin::LogEntry;
use goplug_pconf_schema::wire::call::escape;
use goplug_pconf_schema::wire::sse::SseEvent;
use goplug_pconf_schema::{Code, Fault};
use tokio::time::{Instant, sleep};

use super::Daemon;

/// The pause before a daemon that is not there is asked again.
const PAUSE: Duration = Duration::from_millis(100);
/// How long a daemon that answers again may say that it does not know the plugin: it may be reading its directories.
const SETTLED: Duration = Duration::from_secs(10);

/// The lines of one plugin.
pub(super) struct Lines {
    daemon: Daemon,
    path: String,
    follow: bool,
    /// The id of the last event.
    after: Option<String>,
    events: Option<BoxStream<'static, Result<SseEvent, Fault>>>,
    /// Since when the daemon has answered without knowing the plugin.
    unknown: Option<Instant>,
}

impl Lines {
    pub(super) fn new(daemon: Daemon, path: String, follow: bool) -> Self {
        Self { daemon, path, follow, after: None, events: None, unknown: None }
    }

    /// The lines from the oldest that is kept; the first connection must succeed.
    ///
    /// # Errors
    /// Why it did not.
    pub(super) async fn open(mut self) -> Result<impl Stream<Item = Result<LogEntry, Fault>> + use<>, Fault> {
        self.connect().await?;
        Ok(stream::unfold(self, |mut lines| async move { lines.next().await.map(|item| (item, lines)) }))
    }

    async fn connect(&mut self) -> Result<(), Fault> {
        let after = self.after.as_ref().map(|id| format!("&after={}", escape(id))).unwrap_or_default();
        let path = format!("{}?follow={}{after}", self.path, self.follow);
        self.events = Some(self.daemon.stream(path).await?);
        self.unknown = None;
        Ok(())
    }

    async fn next(&mut self) -> Option<Result<LogEntry, Fault>> {
        loop {
            match &mut self.events {
                None => {
                    if let Err(fault) = self.again().await {
                        self.follow = false;
                        return Some(Err(fault));
                    }
                }
                Some(events) => match events.next().await {
                    Some(Ok(event)) => {
                        if !event.id.is_empty() {
                            self.after = Some(event.id.clone());
                        }
                        return Some(read(&event));
                    }
                    // Not whole, and nobody wants to wait for the rest.
                    Some(Err(fault)) if !self.follow => return Some(Err(fault)),
                    None if !self.follow => return None,
                    Some(Err(_)) | None => self.events = None,
                },
            }
        }
    }

    /// Connects, however long that takes.
    async fn again(&mut self) -> Result<(), Fault> {
        loop {
            sleep(PAUSE).await;
            match self.connect().await {
                Ok(()) => return Ok(()),
                Err(fault) if fault.code == Code::NotFound => {
                    if self.unknown.get_or_insert_with(Instant::now).elapsed() > SETTLED {
                        return Err(fault);
                    }
                }
                Err(fault) if matches!(fault.code, Code::Unavailable | Code::PluginGone | Code::DeadlineExceeded) => {
                    self.unknown = None;
                }
                Err(fault) => return Err(fault),
            }
        }
    }
}

fn read(event: &SseEvent) -> Result<LogEntry, Fault> {
    let wrong = |error| Fault::new(Code::ProtocolError, format!("a line of the daemon is not understood: {error}"));
    serde_json::from_str(&event.data).map_err(wrong)
}
