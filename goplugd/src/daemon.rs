//! The daemon's life: start, reload on SIGHUP, drain and leave on SIGTERM or SIGINT.

use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use goplug_pconf_schema::settings::Settings;
use goplug_registry::{Code, Error};
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::accept::{self, Admission};
use crate::api::{Api, App};
use crate::settings::{self, Layers};
use crate::socket;

/// What ends a daemon whose end was already asked for.
const SECOND_SIGNAL: u8 = 130;

/// Runs until a signal ends it.
///
/// # Errors
/// When it cannot start: the socket or a plugin directory cannot be used.
pub(crate) async fn run(layers: Layers, settings: Settings) -> Result<ExitCode, Error> {
    let mut signals = Signals::install()?;
    let listening = match socket::handed_over()? {
        Some(listening) => listening,
        None => socket::bind(&layers.socket(&settings))?,
    };
    let (stop, stopped) = watch::channel(false);
    let app = Arc::new(App::new(stopped.clone()));
    let current = Arc::new(Current { layers, settings: Mutex::new(settings), admission: Arc::default() });
    let drain = {
        let current = Arc::clone(&current);
        move || settings::drain(&current.settings())
    };
    // Answers `healthz` while the directories are being read; `readyz` says no until they are.
    let server =
        accept::serve(listening.listener, Api::new(Arc::clone(&app)), Arc::clone(&current.admission), stopped, drain);
    let server = tokio::spawn(server);
    let started = tokio::select! {
        started = current.start(&app) => started.map(|()| true),
        () = signals.end() => Ok(false),
    };
    if let Ok(true) = started {
        app.set_ready();
        tell_systemd(&[NotifyState::Ready]);
        tracing::info!(pid = std::process::id(), "ready");
        while signals.next().await == Told::Reload {
            tokio::select! {
                () = current.reload(&app) => {}
                () = signals.end() => break,
            }
        }
    }
    tell_systemd(&[NotifyState::Stopping]);
    stop.send_replace(true);
    let drain = settings::drain(&current.settings());
    let leave = async {
        // A panic of the accept loop was reported when it happened; the rest of the end still has to be done.
        let _ = server.await;
        app.fleet.close(drain).await;
    };
    let code = tokio::select! {
        () = leave => ExitCode::SUCCESS,
        () = signals.end() => ExitCode::from(SECOND_SIGNAL),
    };
    drop(listening.file);
    started.map(|_| code)
}

/// The configuration in force.
struct Current {
    layers: Layers,
    settings: Mutex<Settings>,
    admission: Arc<Admission>,
}

impl Current {
    fn settings(&self) -> Settings {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn start(&self, app: &App) -> Result<(), Error> {
        let settings = self.settings();
        self.apply(app, &settings).await.map_err(|problems| Error::new(Code::InvalidArgument, problems.join("\n")))
    }

    /// Reads the configuration again and applies the difference; a bad one changes nothing, and every problem is logged.
    async fn reload(&self, app: &App) {
        let since = NotifyState::monotonic_usec_now().ok();
        tell_systemd(&[Some(NotifyState::Reloading), since].into_iter().flatten().collect::<Vec<_>>());
        let problems = match self.layers.load() {
            Ok(new) => {
                for key in settings::fixed_until_restart(&self.settings(), &new) {
                    tracing::warn!(key, "changed in the configuration: takes effect at the next start");
                }
                self.apply(app, &new).await.err().unwrap_or_default()
            }
            Err(problems) => problems,
        };
        for problem in &problems {
            tracing::error!("configuration: {problem}");
        }
        match problems.len() {
            0 => tracing::info!("configuration read again"),
            count => tracing::error!(problems = count, "the configuration stays as it was"),
        }
        tell_systemd(&[NotifyState::Ready]);
    }

    async fn apply(&self, app: &App, new: &Settings) -> Result<(), Vec<String>> {
        let texts = |problems: Vec<Error>| problems.into_iter().map(|problem| problem.message).collect::<Vec<_>>();
        app.fleet.apply(settings::registries(new), settings::drain(&self.settings())).await.map_err(texts)?;
        app.set_auto_discover(new.auto_discover);
        self.admission.allow(&new.allow_uids);
        *self.settings.lock().unwrap_or_else(PoisonError::into_inner) = new.clone();
        Ok(())
    }
}

/// What a signal tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    End,
    Reload,
}

/// The signals that mean something to a daemon.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn install() -> Result<Self, Error> {
        let install =
            |kind| signal(kind).map_err(|error| Error::new(Code::Internal, format!("cannot handle signals: {error}")));
        Ok(Self {
            terminate: install(SignalKind::terminate())?,
            interrupt: install(SignalKind::interrupt())?,
            hang_up: install(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.terminate.recv() => Told::End,
            _ = self.interrupt.recv() => Told::End,
            _ = self.hang_up.recv() => Told::Reload,
        }
    }

    async fn end(&mut self) {
        // Leaves SIGHUP alone: one that comes during a reload is for the next one.
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Does nothing when no systemd listens.
fn tell_systemd(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "cannot notify systemd");
    }
}
