//! What can be set, with units, defaults and reasons.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use goplug_pconf_schema::settings::Unsigned;
use goplug_pconf_schema::{Code, Fault};
use goplug_transport::Latency;

use crate::Registry;
use crate::discovery::runtime_folder;
use crate::tasks::Pending;

/// The extension of the files that are looked for, with its dot.
pub(crate) const DEFAULT_EXTENSION: &str = ".pconf";
/// The largest reply that is taken from a plugin.
pub(crate) const DEFAULT_MAX_REPLY_BYTES: usize = 64 * 1024 * 1024;
/// A bound for the view; more files are ignored and said so.
pub(crate) const DEFAULT_MAX_PLUGINS: usize = 16_384;
/// How long the view may be behind when every file event is lost.
pub(crate) const DEFAULT_RESCAN: Duration = Duration::from_secs(1);
/// Calls that may wait for a place per plugin; beyond it `overloaded`.
pub(crate) const MAX_QUEUED_CALLS: usize = 4_096;
/// Plugins that are connected and asked for their hello at once.
pub(crate) const MAX_CONCURRENT_STARTS: usize = 64;
/// Processes that are started at once: more would only wait for each other on the processor.
pub(crate) const MAX_CONCURRENT_LAUNCHES: usize = 8;
/// The longest deadline, drain or pause between scans.
pub(crate) const LONGEST: Duration = Duration::from_millis(goplug_pconf_schema::wire::call::MAX_DEADLINE_MS);
/// How long a connection may stay unused in a plugin's pool.
pub(crate) const POOL_IDLE: Duration = Duration::from_millis(1_000);

/// How a [`Registry`] behaves; made by [`Registry::builder`].
///
/// # Example: an application that loads plugins as they appear
/// ```no_run
/// # async fn example() -> Result<(), goplug_registry::Error> {
/// let registry = goplug_registry::Registry::builder("plugins").auto_discover(true).open().await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Builder {
    pub(crate) directory: PathBuf,
    pub(crate) auto_discover: bool,
    pub(crate) extension: String,
    pub(crate) socket_dirs: Vec<PathBuf>,
    pub(crate) allow_uids: Vec<u32>,
    pub(crate) max_reply_bytes: usize,
    pub(crate) max_plugins: usize,
    pub(crate) max_concurrent_calls: u32,
    pub(crate) rescan_interval: Duration,
    pub(crate) call_deadline: Duration,
    pub(crate) drain: Duration,
    pub(crate) caller: Option<Arc<str>>,
    pub(crate) fast_paths: bool,
    pub(crate) latency: Latency,
    pub(crate) hosts: Option<PathBuf>,
    pub(crate) host_program: Option<PathBuf>,
    pub(crate) pin_executables: bool,
    pub(crate) trust: Option<PathBuf>,
    pub(crate) trust_keys: Vec<String>,
    pub(crate) unsigned: Unsigned,
}

/// What a call takes from the options.
#[derive(Debug)]
pub(crate) struct CallDefaults {
    pub(crate) deadline: Duration,
    pub(crate) caller: Option<Arc<str>>,
    pub(crate) max_reply_bytes: usize,
    pub(crate) latency: Latency,
}

/// The options in force, and of those that every call needs a copy that is read without a hold on them. A call that is
/// made while they change may see some of the old ones and some of the new ones: none depends on another.
#[derive(Debug)]
pub(crate) struct Options {
    all: ArcSwap<Builder>,
    /// Held by whoever changes them: the copy is that of the last change.
    changing: Mutex<()>,
    deadline_ns: AtomicU64,
    max_reply_bytes: AtomicUsize,
    latency: AtomicU8,
    has_caller: AtomicBool,
}

impl Options {
    pub(crate) fn new(options: Builder) -> Self {
        let new = Self {
            all: ArcSwap::from_pointee(options),
            changing: Mutex::new(()),
            deadline_ns: AtomicU64::new(0),
            max_reply_bytes: AtomicUsize::new(0),
            latency: AtomicU8::new(0),
            has_caller: AtomicBool::new(false),
        };
        new.copy();
        new
    }

    pub(crate) fn load(&self) -> Guard<Arc<Builder>> {
        self.all.load()
    }

    pub(crate) fn load_full(&self) -> Arc<Builder> {
        self.all.load_full()
    }

    pub(crate) fn store(&self, options: Builder) {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        self.all.store(Arc::new(options));
        self.copy();
    }

    pub(crate) fn of_calls(&self) -> CallDefaults {
        CallDefaults {
            deadline: Duration::from_nanos(self.deadline_ns.load(Ordering::Relaxed)),
            caller: self.has_caller.load(Ordering::Relaxed).then(|| self.load().caller.clone()).flatten(),
            max_reply_bytes: self.max_reply_bytes.load(Ordering::Relaxed),
            latency: LATENCIES[usize::from(self.latency.load(Ordering::Relaxed))],
        }
    }

    fn copy(&self) {
        let options = self.load();
        let nanos = options.call_deadline.as_nanos();
        self.deadline_ns.store(u64::try_from(nanos).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.max_reply_bytes.store(options.max_reply_bytes, Ordering::Relaxed);
        let latency = LATENCIES.iter().zip(0..).find(|(latency, _)| **latency == options.latency);
        self.latency.store(latency.map_or(0, |(_, number)| number), Ordering::Relaxed);
        self.has_caller.store(options.caller.is_some(), Ordering::Relaxed);
    }
}

const LATENCIES: [Latency; 3] = [Latency::Balanced, Latency::Low, Latency::Frugal];

impl Builder {
    pub(crate) fn new(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            auto_discover: false,
            extension: DEFAULT_EXTENSION.to_owned(),
            socket_dirs: Vec::new(),
            allow_uids: Vec::new(),
            max_reply_bytes: DEFAULT_MAX_REPLY_BYTES,
            max_plugins: DEFAULT_MAX_PLUGINS,
            max_concurrent_calls: 256,
            rescan_interval: DEFAULT_RESCAN,
            call_deadline: Duration::from_millis(goplug_pconf_schema::wire::call::DEFAULT_DEADLINE_MS),
            drain: Duration::from_millis(goplug_pconf_schema::wire::life::DEFAULT_DRAIN_MS),
            caller: None,
            fast_paths: true,
            latency: Latency::default(),
            hosts: None,
            host_program: None,
            pin_executables: false,
            trust: None,
            trust_keys: Vec::new(),
            unsigned: Unsigned::default(),
        }
    }

    /// Whether the directory is watched, and every plugin that is not lazy is loaded when it appears (default: no, then
    /// nothing is watched and [`Registry::load`] finds the pair on disk).
    #[must_use]
    pub fn auto_discover(mut self, on: bool) -> Self {
        self.auto_discover = on;
        self
    }

    /// The extension of the files, with its dot (default `.pconf`).
    #[must_use]
    pub fn extension(mut self, extension: impl Into<String>) -> Self {
        self.extension = extension.into();
        self
    }

    /// Folders in which sockets may lie besides the plugin directory and the runtime folder (default: none).
    #[must_use]
    pub fn socket_dirs(mut self, dirs: impl IntoIterator<Item = PathBuf>) -> Self {
        self.socket_dirs = dirs.into_iter().collect();
        self
    }

    /// Users whose processes may be plugins besides our own user and root (default: none).
    #[must_use]
    pub fn allow_uids(mut self, uids: impl IntoIterator<Item = u32>) -> Self {
        self.allow_uids = uids.into_iter().collect();
        self
    }

    /// The largest reply in bytes; beyond it a call ends with `too_large` and `ran: yes` (default 64 MiB).
    #[must_use]
    pub fn max_reply_bytes(mut self, bytes: usize) -> Self {
        self.max_reply_bytes = bytes;
        self
    }

    /// The most files that are looked at (default 16,384).
    #[must_use]
    pub fn max_plugins(mut self, count: usize) -> Self {
        self.max_plugins = count;
        self
    }

    /// The most calls under way per plugin, if the plugin does not allow less (default 256); up to 4,096 more wait inside
    /// their deadlines.
    #[must_use]
    pub fn max_concurrent_calls(mut self, calls: u32) -> Self {
        self.max_concurrent_calls = calls.max(1);
        self
    }

    /// How often the directory is read even without a file event, 10 ms to a day (default 1 s).
    #[must_use]
    pub fn rescan_interval(mut self, interval: Duration) -> Self {
        self.rescan_interval = interval.clamp(Duration::from_millis(10), LONGEST);
        self
    }

    /// The deadline of a call that names none and whose method names none, at most a day (default 30 s).
    #[must_use]
    pub fn call_deadline(mut self, deadline: Duration) -> Self {
        self.call_deadline = deadline;
        self
    }

    /// Whether calls and notifications go over frames where the plugin offers them (default: yes); else over HTTP, which
    /// every plugin speaks. What they mean is the same.
    #[must_use]
    pub fn fast_paths(mut self, on: bool) -> Self {
        self.fast_paths = on;
        self
    }

    /// Whether a caller that waits for a reply looks for it before it sleeps (default: [`Latency::Balanced`]). While it
    /// looks, the thread that polls it does nothing else.
    #[must_use]
    pub fn latency(mut self, latency: Latency) -> Self {
        self.latency = latency;
        self
    }

    /// How long an unload waits for calls and acknowledgements, at most a day (default 10 s).
    #[must_use]
    pub fn drain(mut self, drain: Duration) -> Self {
        self.drain = drain;
        self
    }

    /// What plugins are told about who calls (`Goplug-Caller`); visible ASCII (default: nothing).
    #[must_use]
    pub fn caller(mut self, caller: impl Into<String>) -> Self {
        self.caller = Some(caller.into().into());
        self
    }

    /// Where the records and control sockets of plugins that are started lie: a folder of mode 0700, made if it is missing
    /// (default: `hosts` in the runtime folder, `$XDG_RUNTIME_DIR/goplug`, else `/run/goplug`).
    #[must_use]
    pub fn hosts_dir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.hosts = Some(folder.into());
        self
    }

    /// The program `goplug-host`, for applications that bring their own (default: it is looked for, see
    /// [`crate::host::find`]).
    #[must_use]
    pub fn host_program(mut self, program: impl Into<PathBuf>) -> Self {
        self.host_program = Some(program.into());
        self
    }

    /// Whether a plugin that starts itself may run only the program that it ran when it was activated first, or that was
    /// [approved](Registry::approve) since (default: no). A process that runs another one is not activated: it is `denied`.
    #[must_use]
    pub fn pin_executables(mut self, on: bool) -> Self {
        self.pin_executables = on;
        self
    }

    /// The folder of the file in which these programs are recorded, `trust.json`; made, with mode 0700, when the first is.
    /// It may serve any number of plugin directories, and must not lie where a plugin may write (default:
    /// `$XDG_STATE_HOME/goplug`, else `~/.local/state/goplug`, else `/var/lib/goplug`).
    #[must_use]
    pub fn trust_dir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.trust = Some(folder.into());
        self
    }

    /// Public keys of minisign, 56 characters each, whose packages are taken besides those of [`Registry::trusted_keys`]
    /// (default: none). One that is no key makes every installation of a package `invalid_argument`.
    #[must_use]
    pub fn trust_keys(mut self, keys: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.trust_keys = keys.into_iter().map(Into::into).collect();
        self
    }

    /// What becomes of a package that nobody signed (default: it is taken with [`Install::allow_unsigned`]).
    ///
    /// [`Install::allow_unsigned`]: crate::Install::allow_unsigned
    #[must_use]
    pub fn unsigned(mut self, unsigned: Unsigned) -> Self {
        self.unsigned = unsigned;
        self
    }

    pub(crate) fn trust_folder(&self) -> PathBuf {
        let given = self.trust.clone().unwrap_or_else(crate::trust::default_folder);
        std::path::absolute(&given).unwrap_or(given)
    }

    /// Where sockets may lie besides the plugin directory and the runtime folder: also where the processes listen that we
    /// start.
    pub(crate) fn socket_folders(&self) -> Vec<PathBuf> {
        self.socket_dirs.iter().cloned().chain([self.hosts()]).collect()
    }

    pub(crate) fn hosts(&self) -> PathBuf {
        let given = self.hosts.clone().unwrap_or_else(|| runtime_folder().join("hosts"));
        std::path::absolute(&given).unwrap_or(given)
    }

    /// Opens the registry: with auto-discover, everything that is in the directory now is known when this returns (and is
    /// being loaded).
    ///
    /// # Errors
    /// `invalid_argument` for settings that cannot work. A directory that is missing is no error: it may come.
    ///
    /// # Cancel safety
    /// Dropping the future closes what was opened.
    pub fn open(self) -> Pending<'static, Result<Registry, Fault>> {
        Box::pin(async move {
            self.check()?;
            Registry::begin(self).await
        })
    }

    pub(crate) fn check(&self) -> Result<(), Fault> {
        let extension = self.extension.as_str();
        if extension.len() < 2 || !extension.starts_with('.') || extension.contains('/') {
            let shown = goplug_pconf_schema::printable(extension);
            return Err(Fault::new(
                Code::InvalidArgument,
                format!("extension `{shown}` is not a dot and a word: use `.pconf`"),
            ));
        }
        if self.directory.as_os_str().is_empty() {
            return Err(Fault::new(Code::InvalidArgument, "the plugin directory is empty: name a folder"));
        }
        for (what, time) in [("call deadline", self.call_deadline), ("drain", self.drain)] {
            if time > LONGEST {
                return Err(Fault::new(Code::InvalidArgument, format!("the {what} is {time:?}, the limit is a day")));
            }
        }
        if self.caller.as_deref().is_some_and(|caller| !caller.bytes().all(|b| b.is_ascii_graphic())) {
            return Err(Fault::new(Code::InvalidArgument, "the caller's name is not visible ASCII"));
        }
        Ok(())
    }
}
