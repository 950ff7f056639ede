//! A plugin that runs: started, published, and stopped by a request, a signal or its author.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use goplug_pconf_schema::wire::event::{CallbackStatus, Position};
use goplug_pconf_schema::wire::life::{DEFAULT_DRAIN_MS, Drained};
use goplug_pconf_schema::{Code, Fault};
use goplug_transport::{ServerLimits, bind, serve};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::notify::Notifier;
use crate::plugin::Plugin;
use crate::publish::{Publication, check_free, pconf_path, publish};
use crate::server::Server;
use crate::service::Service;

/// How long replies under way may take to be written once the plugin leaves.
const CLOSE_GRACE: Duration = Duration::from_secs(5);
/// Connections at once besides one for each call: event streams, polls, and idle ones.
const SPARE_CONNECTIONS: usize = 1024;
/// A started plugin. Dropping it ends it at once: files removed, connections closed, nothing drained.
#[derive(Debug)]
pub struct Running {
    service: Arc<Service>,
    publication: Arc<Publication>,
    server: JoinHandle<()>,
    gone: watch::Receiver<bool>,
}

impl Plugin {
    /// Binds the socket, serves it, and then publishes the `.pconf` (unless [`crate::PluginBuilder::publish`] says not to). Installs no signal handler; [`Plugin::run`] does.
    ///
    /// # Errors
    /// `conflict` when a living process has the socket, or another pair's living plugin the file; `invalid_argument`
    /// for a folder that does not exist or a path that is too long; `denied` for missing permission; `internal` for any
    /// other failure of the operating system.
    ///
    /// # Cancel safety
    /// A dropped future leaves no file behind.
    pub async fn start(self) -> Result<Running, Fault> {
        let Self { service, pconf, dir, socket, is_published } = self;
        let path = pconf_path(&dir, &pconf.id);
        let left_behind = if is_published { check_free(&path, &pconf.id).await? } else { None };
        let bound = bind(&socket)?;
        let (stop, stopped) = watch::channel(false);
        let calls = usize::try_from(service.hello().limits.max_concurrent_calls).unwrap_or(usize::MAX);
        let limits =
            ServerLimits { max_connections: calls.saturating_add(SPARE_CONNECTIONS), ..ServerLimits::default() };
        let server = Arc::new(Server::new(Arc::clone(&service)));
        // Weak: if the task below is dropped, the connections end with its server.
        let frames = Arc::downgrade(server.frames());
        let publication = match publish(path, &pconf, bound.file.clone(), is_published) {
            Ok(publication) => Arc::new(publication),
            Err(fault) => {
                // The socket is ours, so that nobody else can have removed it; a failure changes nothing for the caller.
                _ = bound.remove_if_ours();
                return Err(fault);
            }
        };
        if let Some(dead) = left_behind {
            // After the new file is there: until then the old one still leads registries to this path. If it is gone, fine.
            _ = std::fs::remove_file(dead);
        }
        let (left, gone) = watch::channel(false);
        let (mut leaving, files) = (service.leaving(), Arc::clone(&publication));
        let server = tokio::spawn(async move {
            let mut serving = std::pin::pin!(serve(bound.listener, server, limits, stopped));
            tokio::select! {
                () = &mut serving => {}
                () = becomes_true(&mut leaving) => {
                    files.remove();
                    stop.send_replace(true);
                    // Taken before the server can have ended, which would end them with replies unwritten.
                    let frames = frames.upgrade();
                    let frames = async {
                        if let Some(frames) = &frames {
                            frames.close(CLOSE_GRACE).await;
                        }
                    };
                    // Whatever is still open after this is closed by dropping it.
                    _ = tokio::join!(timeout(CLOSE_GRACE, serving), frames);
                }
            }
            files.remove();
            left.send_replace(true);
        });
        Ok(Running { service, publication, server, gone })
    }

    /// Starts, and returns when the plugin was stopped: by a `stop` request, or by SIGTERM or SIGINT, which drain for
    /// 10 s. A second signal removes the files and ends the process at once, with status 128 plus the signal's number.
    ///
    /// # Errors
    /// As [`Plugin::start`]; `internal` when signals cannot be handled.
    ///
    /// # Cancel safety
    /// Dropping the future ends the plugin at once, as dropping [`Running`] does.
    pub async fn run(self) -> Result<(), Fault> {
        let internal = |error: io::Error| Fault::new(Code::Internal, format!("cannot handle signals: {error}"));
        // Before the start: a signal right after it must not end the process with its files left behind.
        let mut signals = Signals::new().map_err(internal)?;
        let running = self.start().await?;
        let first = tokio::select! {
            () = running.wait() => return Ok(()),
            first = signals.next() => first,
        };
        tracing::info!("signal {first}: the plugin stops");
        tokio::select! {
            _ = running.stop_in_place(Duration::from_millis(DEFAULT_DRAIN_MS)) => Ok(()),
            second = signals.next() => {
                running.publication.remove();
                std::process::exit(128 + second);
            }
        }
    }

    /// As [`Plugin::run`], on a tokio runtime of its own: for a `main` that is not async. A blocking method that never
    /// returns does not keep the process from ending.
    ///
    /// # Errors
    /// As [`Plugin::run`].
    pub fn run_blocking(self) -> Result<(), Fault> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Fault::new(Code::Internal, format!("no runtime: {error}")))?;
        let result = runtime.block_on(self.run());
        runtime.shutdown_background();
        result
    }
}

impl Running {
    /// Sends notifications.
    pub fn notifier(&self) -> Notifier {
        self.service.notifier().clone()
    }

    /// As [`Notifier::notify`].
    ///
    /// # Errors
    /// As [`Notifier::notify`].
    ///
    /// # Cancel safety
    /// As [`Notifier::notify`].
    pub async fn notify(&self, callback: &str, data: impl Into<Bytes>) -> Result<Position, Fault> {
        self.service.notifier().notify(callback, data).await
    }

    /// Every callback with its subscriptions.
    #[doc(alias = "get_callbacks")]
    pub fn callbacks(&self) -> Vec<CallbackStatus> {
        self.service.notifier().callbacks()
    }

    /// Calls under way, blocking methods that are past their deadlines included.
    pub fn in_flight(&self) -> u32 {
        self.service.in_flight()
    }

    /// The file by which registries find the plugin.
    pub fn pconf_path(&self) -> &Path {
        self.publication.pconf_path()
    }

    /// The socket that it listens on.
    pub fn socket_path(&self) -> &Path {
        self.publication.socket_path()
    }

    /// 32 hex digits that tell this start of the plugin from every other.
    pub fn epoch(&self) -> &str {
        self.service.epoch()
    }

    /// Stops: no new calls, at most `drain` for those under way and for acknowledgements, the stopper, the end of the
    /// streams, the files removed, the socket closed.
    ///
    /// # Cancel safety
    /// The stop goes on without its caller; dropping the future drops the plugin too, which ends it at once.
    pub async fn stop(self, drain: Duration) -> Drained {
        self.stop_in_place(drain).await
    }

    /// Returns when the plugin was stopped by a request.
    ///
    /// # Cancel safety
    /// May be dropped and called again.
    pub async fn wait(&self) {
        becomes_true(&mut self.gone.clone()).await;
    }

    async fn stop_in_place(&self, drain: Duration) -> Drained {
        let (wound, leaving) = self.service.stop(drain).await;
        // Dropping it is the word to leave; if somebody else has it, theirs.
        drop(leaving);
        self.wait().await;
        wound.to_drained()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.service.notifier().end();
        self.publication.remove();
        self.server.abort();
    }
}

/// Returns when the value is true, or its sender gone: then there is nothing left to wait for.
async fn becomes_true(value: &mut watch::Receiver<bool>) {
    _ = value.wait_for(|value| *value).await;
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// The number of the next signal.
    async fn next(&mut self) -> i32 {
        tokio::select! {
            _ = self.terminate.recv() => SignalKind::terminate().as_raw_value(),
            _ = self.interrupt.recv() => SignalKind::interrupt().as_raw_value(),
        }
    }
}
