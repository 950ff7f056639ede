//! When a plugin that was started can be met.

use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::time::Duration;

use goplug_pconf_schema::wire::call::{HELLO_MS, HOST, path};
use goplug_pconf_schema::wire::hello::{Hello, MAX_HELLO_BYTES};
use goplug_pconf_schema::{Code, Fault, PluginId, printable};
use goplug_transport::{Connection, ErrorKind, Request};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::host::{Exit, Hosted};

/// The first and the longest pause between two looks for the socket: that somebody listens at a path has no event.
const PAUSES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(20));
/// How many of its last lines a plugin that did not become ready is quoted with.
const QUOTED_LINES: usize = 5;

/// A process that was started and that nobody has yet: dropped, it is ended.
pub(crate) struct Unready(Option<Hosted>);

impl Unready {
    pub(crate) fn new(hosted: Hosted) -> Self {
        Self(Some(hosted))
    }

    /// It is somebody's now.
    pub(crate) fn release(mut self) {
        self.0 = None;
    }
}

impl Drop for Unready {
    fn drop(&mut self) {
        // Without a runtime nothing is waited for any more, and the process is found by its record.
        if let (Some(hosted), Ok(runtime)) = (self.0.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(async move {
                // Whatever cannot be ended now is found by its record.
                _ = hosted.stop(Duration::ZERO, Duration::ZERO).await;
                _ = hosted.forget().await;
            });
        }
    }
}

/// Makes room for a plugin: removes the socket file of a dead predecessor, which many plugins cannot do by themselves.
pub(crate) async fn clear(socket: &Path) -> Result<(), Fault> {
    let conflict = |why: &str| Err(Fault::new(Code::Conflict, format!("the socket {} {why}", socket.display())));
    match std::fs::symlink_metadata(socket) {
        Err(_) => return Ok(()),
        Ok(status) if !status.file_type().is_socket() => {
            return conflict("is there and is no socket: use another path");
        }
        Ok(_) => {}
    }
    match Connection::connect(socket, Instant::now() + Duration::from_millis(HELLO_MS)).await {
        Err(error) if error.kind == ErrorKind::Refused => match std::fs::remove_file(socket) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                conflict(&format!("was left by a dead process and cannot be removed: {error}"))
            }
            _ => Ok(()),
        },
        Err(error) if error.kind == ErrorKind::Missing => Ok(()),
        Ok(connection) => {
            let pid = connection.peer().pid();
            conflict(&format!("belongs to pid {pid}, which was not started here: stop it, or use another path"))
        }
        Err(error) => conflict(&format!("cannot be used: {error}")),
    }
}

/// Waits until something answers on the socket.
pub(crate) async fn wait(hosted: &Hosted, socket: &Path, limit: Duration) -> Result<(), Fault> {
    let answers = async {
        let mut pause = PAUSES.0;
        while hello(socket).await.is_err() {
            sleep(pause).await;
            pause = PAUSES.1.min(pause * 2);
        }
    };
    let program = hosted.record().program.display();
    let (text, exit) = tokio::select! {
        biased;
        ready = timeout(limit, answers) => match ready {
            Ok(()) => return Ok(()),
            Err(_) => {
                let status = hosted.stop(Duration::ZERO, Duration::ZERO).await;
                let exit = status.ok().and_then(|status| status.record.exit);
                (format!("{program} did not answer on {} within {limit:?}, and was ended", socket.display()), exit)
            }
        },
        exit = hosted.exited() => {
            let how = exit.as_ref().map_or_else(|| "its host was killed".to_owned(), Exit::to_string);
            (format!("{program} ended before it answered on {}: {how}", socket.display()), exit)
        }
    };
    let stderr = exit.map(|exit| exit.stderr).unwrap_or_default();
    let quoted: Vec<_> = stderr.iter().rev().take(QUOTED_LINES).rev().map(|line| printable(line)).collect();
    let text = if quoted.is_empty() { text } else { format!("{text}: {}", quoted.join(" | ")) };
    Err(Fault::new(Code::Unavailable, text).with_data(serde_json::json!({"stderr": stderr})))
}

/// Asks for the name: `None` of who answers something else than a hello, and so is of v0.
pub(crate) async fn hello(socket: &Path) -> Result<Option<PluginId>, Fault> {
    let failed = |why: String| Fault::new(Code::Unavailable, why);
    let deadline = Instant::now() + Duration::from_millis(HELLO_MS);
    let mut connection = Connection::connect(socket, deadline).await.map_err(|error| failed(error.to_string()))?;
    let request =
        Request { method: "GET", target: path::HELLO, host: HOST, headers: &[], content_type: None, body: &[] };
    let late = || failed(format!("no answer to the hello within {HELLO_MS} ms"));
    match timeout_at(deadline, connection.exchange(&request, MAX_HELLO_BYTES)).await.map_err(|_| late())? {
        Ok(reply) if reply.head.status == 200 => {
            let hello = Hello::read(&reply.body).ok();
            Ok(hello.and_then(|hello| PluginId::new(&hello.namespace, &hello.name).ok()))
        }
        Ok(_) => Ok(None),
        Err(error) if matches!(error.kind, ErrorKind::Protocol | ErrorKind::TooLarge) => Ok(None),
        Err(error) => Err(failed(error.to_string())),
    }
}
