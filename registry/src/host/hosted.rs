//! A plugin that runs under a host, held by its host's identity.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use goplug_pconf_schema::wire::host::{Answer, Exit, LogLine, Record, Request, Status, control_path, record_path};
use goplug_pconf_schema::{Code, Fault};
use goplug_transport::Peer;

use super::adopt::read;
use super::talk::{HOST_LIMIT, TRIES, Talk};

/// How much longer than its own times a stop may take: a process in an uninterruptible wait dies when that is over.
const STOP_GRACE: Duration = Duration::from_secs(10);
/// The most lines that [`Hosted::logs`] gives.
const MAX_LOG_LINES: usize = 65_536;
/// The pause before a host that lives is asked again how its plugin ended.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// A plugin under its host. Clones are the same one; dropping them leaves it running.
#[derive(Debug, Clone)]
pub struct Hosted {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    folder: PathBuf,
    record: Record,
    /// The host, pinned.
    peer: Peer,
}

impl Hosted {
    pub(super) fn new(folder: PathBuf, record: Record, peer: Peer) -> Self {
        Self { inner: Arc::new(Inner { folder, record, peer }) }
    }

    /// What was written down when this handle was made.
    pub fn record(&self) -> &Record {
        &self.inner.record
    }

    /// The folder with the record and the control socket.
    pub fn folder(&self) -> &Path {
        &self.inner.folder
    }

    /// Whether the host still runs. It ends some time after its plugin.
    pub fn is_hosted(&self) -> bool {
        self.inner.peer.is_alive()
    }

    /// How the plugin is.
    ///
    /// # Errors
    /// `plugin_gone` when the host has ended; `unavailable` when it does not answer within 2 s.
    pub async fn status(&self) -> Result<Status, Fault> {
        self.ask(Request::Status, HOST_LIMIT).await
    }

    /// Lines of output with a number above `after` (0 for all) that are kept, at most 65,536.
    ///
    /// # Errors
    /// As [`Hosted::status`].
    pub async fn logs(&self, after: u64) -> Result<Vec<LogLine>, Fault> {
        let mut lines = Vec::new();
        let mut follow = self.open_logs(after, false).await?;
        let read = async {
            while lines.len() < MAX_LOG_LINES
                && let Some(line) = follow.next().await?
            {
                lines.push(line);
            }
            Ok(())
        };
        tokio::time::timeout(HOST_LIMIT * 5, read).await.unwrap_or_else(|_| Err(slow("its output")))?;
        Ok(lines)
    }

    /// Lines of output with a number above `after`, and those to come until nothing is left of the plugin.
    ///
    /// # Errors
    /// As [`Hosted::status`].
    pub async fn follow(&self, after: u64) -> Result<Follow, Fault> {
        self.open_logs(after, true).await
    }

    pub(crate) async fn open_logs(&self, after: u64, follow: bool) -> Result<Follow, Fault> {
        let mut talk = self.connect().await?;
        talk.send(&Request::Logs { after, follow }).await?;
        Ok(Follow { talk, waits: follow, is_done: false })
    }

    /// Ends the plugin and everything that it started: SIGTERM after `term_after`, SIGKILL to all `kill_after` later. May be
    /// called any number of times; returns when nothing is left.
    ///
    /// # Errors
    /// As [`Hosted::status`], and `deadline_exceeded` when something is left 10 s after the SIGKILL.
    ///
    /// # Cancel safety
    /// Dropping the future does not stop the stop.
    pub async fn stop(&self, term_after: Duration, kill_after: Duration) -> Result<Status, Fault> {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let request = Request::Stop { term_after_ms: ms(term_after), kill_after_ms: ms(kill_after) };
        let limit = term_after.saturating_add(kill_after).saturating_add(STOP_GRACE);
        let once = async || {
            let mut talk = self.connect().await?;
            talk.send(&request).await?;
            match tokio::time::timeout(limit, talk.answer()).await {
                Ok(answer) => status_in(answer?),
                Err(_) => Err(slow("the stop").with_retry_after_ms(1_000)),
            }
        };
        let mut answer = once().await;
        for _ in 1..TRIES {
            match &answer {
                // A connection that broke is no host that is gone, and a second stop does no harm.
                Err(fault) if fault.code == Code::PluginGone && self.inner.peer.is_alive() => answer = once().await,
                _ => break,
            }
        }
        answer
    }

    /// Ends the plugin and everything that it started, and waits for it at most 2 s: for whoever is being dropped and cannot
    /// await. What cannot be ended so is ended with its starter, or found by its record.
    pub(crate) fn end_now(&self) {
        let control = control_path(&self.inner.folder, &self.inner.record.instance);
        let Ok(mut stream) = std::os::unix::net::UnixStream::connect(control) else { return };
        let peer = rustix::net::sockopt::socket_peercred(&stream);
        // While the process that we hold lives, nobody else has its pid.
        let is_host = peer.is_ok_and(|peer| peer.pid.as_raw_nonzero().get().unsigned_abs() == self.inner.peer.pid());
        if !is_host || !self.inner.peer.is_alive() {
            return;
        }
        let mut line = serde_json::to_vec(&Request::Stop { term_after_ms: 0, kill_after_ms: 0 }).unwrap_or_default();
        line.push(b'\n');
        let limited = [stream.set_read_timeout(Some(HOST_LIMIT)), stream.set_write_timeout(Some(HOST_LIMIT))];
        if limited.iter().all(Result::is_ok) && stream.write_all(&line).is_ok() {
            // Any answer is the end; none within the limit is as good as we can do.
            _ = stream.read(&mut [0; 1]);
        }
        _ = std::fs::remove_file(record_path(&self.inner.folder, &self.inner.record.instance));
    }

    /// Sends a signal to the plugin's process, by way of its host.
    ///
    /// # Errors
    /// `wrong_state` when it has ended; `invalid_argument` for no signal; as [`Hosted::status`].
    pub async fn signal(&self, number: i32) -> Result<(), Fault> {
        self.ask(Request::Signal { number }, HOST_LIMIT).await.map(drop)
    }

    /// Returns when the plugin's process has ended, with how; `None` when nobody knows, because its host was killed.
    ///
    /// # Cancel safety
    /// Safe; any number of callers may wait.
    pub async fn exited(&self) -> Option<Exit> {
        loop {
            if let Ok(status) = self.wait().await
                && status.record.exit.is_some()
            {
                return status.record.exit;
            }
            // The host ends after its plugin, by itself or not. What it wrote down stays. While it lives it is asked again.
            if tokio::time::timeout(ASK_AGAIN, self.inner.peer.exited()).await.is_ok() {
                break;
            }
        }
        self.read_record().await?.exit
    }

    async fn wait(&self) -> Result<Status, Fault> {
        let mut talk = self.connect().await?;
        talk.send(&Request::Wait).await?;
        status_in(talk.answer().await?)
    }

    async fn read_record(&self) -> Option<Record> {
        let path = record_path(&self.inner.folder, &self.inner.record.instance);
        let record = crate::tasks::on_a_thread(move || read(&path)).await.ok()?.ok()?;
        (record.host == self.inner.record.host).then_some(record)
    }

    /// The plugin has ended and nobody will ask again: removes the record, and the host ends.
    ///
    /// # Errors
    /// `wrong_state` while something of it runs; as [`Hosted::status`].
    pub async fn forget(&self) -> Result<(), Fault> {
        self.ask(Request::Forget, HOST_LIMIT).await.map(drop)
    }

    async fn ask(&self, request: Request, limit: Duration) -> Result<Status, Fault> {
        status_in(self.connect().await?.ask(&request, limit).await?)
    }

    /// A connection to this host and no other: whoever took the path over is told nothing.
    async fn connect(&self) -> Result<Talk, Fault> {
        let record = &self.inner.record;
        let gone = || Fault::new(Code::PluginGone, format!("the host of instance {} has ended", record.instance));
        let talk = match Talk::connect(&control_path(&self.inner.folder, &record.instance)).await {
            Err(fault) if fault.code == Code::NotFound => return Err(gone()),
            talk => talk?,
        };
        if talk.peer.same_process(&self.inner.peer) { Ok(talk) } else { Err(gone()) }
    }
}

fn status_in(answer: Answer) -> Result<Status, Fault> {
    match answer {
        Answer::Status(status) => Ok(*status),
        _ => Err(Fault::new(Code::ProtocolError, "the host answered with something else than a status")),
    }
}

fn slow(what: &str) -> Fault {
    Fault::new(Code::DeadlineExceeded, format!("the host takes too long for {what}"))
}

/// Lines of output, one by one.
#[derive(Debug)]
pub struct Follow {
    talk: Talk,
    /// For lines that are not written yet.
    waits: bool,
    is_done: bool,
}

impl Follow {
    /// The next line; `None` when there will be no more.
    ///
    /// # Errors
    /// `plugin_gone` when the host has ended before it could tell; `unavailable` when it does not tell within 2 s what it has.
    ///
    /// # Cancel safety
    /// Safe: no line is lost.
    pub async fn next(&mut self) -> Result<Option<LogLine>, Fault> {
        if self.is_done {
            return Ok(None);
        }
        let answer = match self.waits {
            true => self.talk.answer().await,
            false => self.talk.answer_within(HOST_LIMIT).await,
        };
        match answer? {
            Answer::Line(line) => Ok(Some(line)),
            Answer::End { .. } => {
                self.is_done = true;
                Ok(None)
            }
            _ => Err(Fault::new(Code::ProtocolError, "the host answered with something else than a line")),
        }
    }
}
