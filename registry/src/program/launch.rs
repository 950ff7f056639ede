//! Starting the process of an installed plugin: what it gets, and when it is ready.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use goplug_pconf_schema::manifest::{DEFAULT_READY, ManifestWire, SourceMode};
use goplug_pconf_schema::wire::host::plugin_path;
use goplug_pconf_schema::{Code, Fault, Manifest, Pconf, PluginId};
use tokio::time::{Instant, timeout};

use crate::discovery::{Found, Installed, check_shared_object};
use crate::host::{self, HostSpec, Hosted, ProcessLimits, Record};
use crate::options::Builder;
use crate::started::{Command, Unready, forget, wait_ready};
use crate::supervisor::Shared;
use crate::trust::Verified;

/// What the record of a process is labelled with, so that a later registry knows whose it is.
pub(crate) const LABEL_DIRECTORY: &str = "directory";
pub(crate) const LABEL_PLUGIN: &str = "plugin";
pub(crate) const LABEL_VERSION: &str = "version";

/// What makes `goplug-host` the process of a shared object, whose folder follows.
const SHARED_OBJECT: &str = "--shared-object";
/// How long a hook may take; then it is ended, and has failed.
const HOOK_LIMIT: Duration = Duration::from_secs(10);
/// How much of a plugin's name its files are called after.
const MAX_STEM: usize = 24;

/// A process that answers, and what is known of it.
#[derive(Debug, Clone)]
pub(crate) struct Process {
    pub hosted: Hosted,
    pub found: Arc<Found>,
    pub installed: Arc<Installed>,
    /// When it answered first.
    pub since: Instant,
}

/// One start: its name and its socket are known before its process is.
#[derive(Debug, Clone)]
pub(crate) struct Instance {
    pub name: String,
    pub socket: PathBuf,
}

impl Instance {
    /// A new one of `plugin`, whose files lie in `folder`.
    pub(crate) fn new(plugin: &str, folder: &Path) -> Self {
        let stem = stem(plugin);
        let mut random = [0; 4];
        // Without a random number the name may be taken, and the start says so.
        _ = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty());
        let name = format!("{stem}-{:08x}", u32::from_ne_bytes(random));
        let socket = plugin_path(folder, &name);
        Self { name, socket }
    }
}

/// What the names of a plugin's files begin with.
fn stem(plugin: &str) -> String {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    let stem: String = plugin.to_lowercase().chars().filter(|c| fits(*c)).take(MAX_STEM).collect();
    if stem.is_empty() { "plugin".to_owned() } else { stem }
}

/// Two processes of a plugin would run, if the host of one does not answer and another one is started; and one that nobody asked
/// to end would count as ended.
///
/// # Errors
/// `unavailable`: there is such a host; `denied`: nobody can tell, the folder of hosts cannot be read.
pub(crate) async fn check_none_is_hidden(options: &Builder, id: &PluginId) -> Result<(), Fault> {
    let (directory, wanted) = (options.directory.clone(), id.clone());
    let is_it = move |record: &Record| labelled(record, &directory).as_ref() == Some(&wanted);
    let silent = host::silent(&options.hosts(), &stem(id.name()), is_it).await?;
    let Some(record) = silent else { return Ok(()) };
    let (plugin, host) = (record.plugin.pid, record.host.pid);
    let text = format!(
        "pid {plugin} may be a process of it, whose goplug-host, pid {host}, does not answer: `kill -CONT {host}` if it was stopped"
    );
    Err(Fault::new(Code::Unavailable, text))
}

/// Starts a process and waits until it answers on its socket; with its hooks.
///
/// # Errors
/// `unavailable` when a process of it may run that cannot be asked for; `not_found`, `denied` or `invalid_argument` when it can
/// never run so, with the reason `altered` when it is not what was installed; else why it did not come up.
///
/// # Cancel safety
/// Dropping the future ends the process.
pub(crate) async fn launch(shared: &Shared, installed: Arc<Installed>, instance: Instance) -> Result<Process, Fault> {
    let options = shared.options.load_full();
    let verified = Verified::of(&options, &shared.trust.digests, &installed).await?;
    let verified = verified.as_ref();
    let program = options.host_program.clone().map_or_else(host::find, Ok)?;
    check_none_is_hidden(&options, &installed.manifest.id).await?;
    hook(&program, &options, &installed, verified, &installed.manifest.hooks.pre_start, "pre_start").await?;
    let spec = spec(&options, program_of(&installed, &program).await?, &installed, &instance)?;
    let opened = open(verified, own_program(&installed)).await?;
    let hosted = host::launch_opened(&program, spec, opened).await?;
    let guard = Unready::new(hosted.clone());
    wait_ready(&hosted, &instance.socket, DEFAULT_READY).await?;
    if let Some(verified) = verified {
        verified.still_holds().await?;
    }
    hook(&program, &options, &installed, verified, &installed.manifest.hooks.post_start, "post_start").await?;
    guard.release();
    Ok(process(hosted, installed))
}

/// The program as it was installed; `None`: whatever lies at its path is run.
pub(super) async fn open(verified: Option<&Arc<Verified>>, program: &str) -> Result<Option<File>, Fault> {
    match verified {
        Some(verified) => verified.open(program).await,
        None => Ok(None),
    }
}

/// What is known of a process that runs.
pub(crate) fn process(hosted: Hosted, installed: Arc<Installed>) -> Process {
    let (manifest, socket) = (&installed.manifest, hosted.record().socket.clone());
    let pconf = Pconf {
        lazy_load: manifest.lazy_load,
        protocol: (manifest.wire == ManifestWire::V1).then_some(goplug_pconf_schema::wire::PROTOCOL),
        version: Some(
            hosted.record().labels.get(LABEL_VERSION).cloned().unwrap_or_else(|| manifest.version.to_string()),
        ),
        description: manifest.description.clone(),
        ..Pconf::new(manifest.id.clone(), socket.to_string_lossy())
    };
    let found = Found {
        pconf: Arc::new(pconf),
        socket,
        file_uid: rustix::process::geteuid().as_raw(),
        warnings: installed.warnings.clone(),
        is_tilotech: manifest.wire == ManifestWire::Tilotech,
        is_started: true,
    };
    Process { hosted, found: Arc::new(found), installed, since: Instant::now() }
}

/// Runs a hook of the manifest, if there is one, and waits for its end.
///
/// # Errors
/// Why it failed: it could not be run, did not end in time, or did not return 0.
pub(crate) async fn hook(
    program: &Path,
    options: &Builder,
    installed: &Installed,
    verified: Option<&Arc<Verified>>,
    words: &[String],
    name: &str,
) -> Result<(), Fault> {
    let Some((first, rest)) = words.split_first() else { return Ok(()) };
    let folder = options.hosts();
    let instance = Instance::new(&format!("hook-{}", installed.manifest.id.name()), &folder);
    let command = command(installed, first).args(rest);
    let mut spec = command.spec(&instance.name, &instance.socket, folder)?;
    spec.linger_ms = 0;
    let opened = open(verified, first).await?;
    let hosted = host::launch_opened(program, spec, opened).await?;
    let guard = Unready::new(hosted.clone());
    let exit = timeout(HOOK_LIMIT, hosted.exited()).await;
    guard.release();
    let failed = |text: String| Fault::new(Code::Unavailable, format!("its hook `{name}` {text}"));
    match exit {
        Ok(exit) => {
            forget(&hosted).await;
            match exit {
                Some(exit) if exit.code == Some(0) => Ok(()),
                Some(exit) => Err(failed(format!("failed: {exit}{}", last_words(&exit.stderr)))),
                None => Err(failed("was lost with its host".into())),
            }
        }
        Err(_) => {
            // Whatever cannot be ended now is found by its record.
            _ = hosted.stop(Duration::ZERO, Duration::ZERO).await;
            forget(&hosted).await;
            Err(failed(format!("did not end within {HOOK_LIMIT:?}, and was ended")))
        }
    }
}

/// The last lines that a process wrote, as they are quoted.
pub(crate) fn last_words(stderr: &[String]) -> String {
    const QUOTED: usize = 5;
    let lines: Vec<_> =
        stderr.iter().rev().take(QUOTED).rev().map(|line| goplug_pconf_schema::printable(line)).collect();
    if lines.is_empty() { String::new() } else { format!(": {}", lines.join(" | ")) }
}

/// The program of the plugin itself: of a shared object, `host`, which opens it.
///
/// # Errors
/// `invalid_argument` for a shared object that can never be opened.
pub(super) async fn program_of(installed: &Installed, host: &Path) -> Result<Command, Fault> {
    let Manifest { exec, source, .. } = &*installed.manifest;
    if source.mode != SourceMode::LocalSo {
        return Ok(command(installed, &exec.command).args(&exec.args));
    }
    let path = installed.folder.join(&source.path);
    let flaw = crate::tasks::on_a_thread(move || check_shared_object(&path)).await;
    let flaw = flaw.map_err(|error| Fault::new(Code::Internal, error.to_string()))?;
    match flaw {
        Some(why) => Err(Fault::new(Code::InvalidArgument, why)),
        None => Ok(command(installed, &host.to_string_lossy()).arg(SHARED_OBJECT).arg(&installed.folder)),
    }
}

/// The program that is a file of the plugin; of a shared object none is.
pub(super) fn own_program(installed: &Installed) -> &str {
    let Manifest { exec, source, .. } = &*installed.manifest;
    if source.mode == SourceMode::LocalSo { "" } else { &exec.command }
}

fn spec(options: &Builder, command: Command, installed: &Installed, instance: &Instance) -> Result<HostSpec, Fault> {
    let manifest = &installed.manifest;
    let mut spec = command.spec(&instance.name, &instance.socket, options.hosts())?;
    spec.labels = [
        (LABEL_DIRECTORY, absolute(&options.directory)),
        (LABEL_PLUGIN, manifest.id.to_string()),
        (LABEL_VERSION, manifest.version.to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    Ok(spec)
}

/// A program of the plugin with everything that its processes get.
fn command(installed: &Installed, program: &str) -> Command {
    let (manifest, folder) = (&installed.manifest, &installed.folder);
    // A name without a slash is looked for in PATH.
    let path = if program.contains('/') { folder.join(program) } else { PathBuf::from(program) };
    let limits = &manifest.limits;
    let mut command = Command::new(path)
        .workdir(manifest.exec.workdir.as_ref().map_or_else(|| folder.clone(), |workdir| folder.join(workdir)))
        .plugin(manifest.id.clone())
        .env("GOPLUG_PLUGIN_NAME", manifest.id.name())
        .env("GOPLUG_PLUGIN_NAMESPACE", manifest.id.namespace())
        .env("GOPLUG_PLUGIN_VERSION", manifest.version.to_string());
    let usual = command.process_limits();
    command = command.limits(ProcessLimits {
        open_files: limits.open_files.or(usual.open_files),
        memory_bytes: limits.memory,
        processes: limits.processes,
        ..usual
    });
    manifest.exec.env.iter().fold(command, |command, (name, value)| command.env(name, value))
}

fn absolute(directory: &Path) -> String {
    std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned()).to_string_lossy().into_owned()
}

/// Which plugin a record belongs to, of those that `directory` holds.
pub(crate) fn labelled(record: &Record, directory: &Path) -> Option<PluginId> {
    let labels = &record.labels;
    let here = labels.get(LABEL_DIRECTORY).is_some_and(|label| *label == absolute(directory));
    here.then(|| labels.get(LABEL_PLUGIN)).flatten().and_then(|id| PluginId::parse(id).ok())
}
