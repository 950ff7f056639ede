//! The `.pconf` file: written whole or not at all, removed only while it is ours.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use goplug_pconf_schema::{Code, Fault, MAX_PCONF_BYTES, Pconf, PluginId};
use goplug_transport::SocketFile;
use tokio::net::UnixStream;
use tokio::time::timeout;

/// How long the socket of another plugin may take to accept before it counts as dead. A full backlog counts as alive.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);

/// The files of a running plugin.
#[derive(Debug)]
pub(crate) struct Publication {
    path: PathBuf,
    epoch: String,
    socket: SocketFile,
    is_removed: AtomicBool,
}

/// Where the plugin `id` publishes itself in `folder`: `<NameSpace><Name>.pconf`, as the original does.
pub(crate) fn pconf_path(folder: &Path, id: &PluginId) -> PathBuf {
    folder.join(format!("{}{}.pconf", id.namespace(), id.name()))
}

/// Refuses a path that another pair has published and still serves: `ab`+`c` and `a`+`bc` share one file name. Answers
/// with the socket that a dead predecessor of the same pair left behind, if its name is one that we give: a plugin that
/// is killed again and again must not fill the folder.
pub(crate) async fn check_free(path: &Path, id: &PluginId) -> Result<Option<PathBuf>, Fault> {
    let Some(other) = read(path).ok().and_then(|bytes| Pconf::parse(&bytes).ok()) else { return Ok(None) };
    let folder = path.parent().unwrap_or(Path::new("."));
    let Ok(socket) = other.socket_path(folder) else { return Ok(None) };
    if other.id == *id {
        let is_ours = other.epoch.as_deref().is_some_and(|epoch| socket == default_socket(folder, id, epoch));
        let is_dead = is_ours && UnixStream::connect(&socket).await.is_err_and(refused);
        return Ok(is_dead.then_some(socket));
    }
    let is_alive = match timeout(ANSWER_LIMIT, UnixStream::connect(&socket)).await {
        Ok(connected) => connected.map_or_else(|error| error.kind() == io::ErrorKind::WouldBlock, |_| true),
        Err(_) => true,
    };
    if is_alive {
        let (path, theirs) = (path.display(), &other.id);
        let text = format!("{path} belongs to the running plugin `{theirs}`; choose another name or namespace");
        return Err(Fault::new(Code::Conflict, text));
    }
    Ok(None)
}

/// Where a plugin listens unless it is told otherwise: a successor never meets its predecessor's socket.
pub(crate) fn default_socket(folder: &Path, id: &PluginId, epoch: &str) -> PathBuf {
    folder.join(format!("{}{}.{}.sock", id.namespace(), id.name(), epoch.get(..8).unwrap_or(epoch)))
}

fn refused(error: io::Error) -> bool {
    error.kind() == io::ErrorKind::ConnectionRefused
}

/// Writes `pconf` to `path`, if it is to be `written`: into a dot-file, which nobody discovers, synced, and renamed.
pub(crate) fn publish(path: PathBuf, pconf: &Pconf, socket: SocketFile, written: bool) -> Result<Publication, Fault> {
    let epoch = pconf.epoch.clone().unwrap_or_default();
    if !written {
        return Ok(Publication { path, epoch, socket, is_removed: AtomicBool::new(false) });
    }
    let file_name = path.file_name().unwrap_or_default().to_string_lossy();
    let draft = path.with_file_name(format!(".{file_name}.{}", epoch.get(..8).unwrap_or("draft")));
    write(&draft, &path, &pconf.to_json()).map_err(|error| {
        // It may not exist; what counts is told already.
        _ = fs::remove_file(&draft);
        let code = if error.kind() == io::ErrorKind::PermissionDenied { Code::Denied } else { Code::Internal };
        Fault::new(code, format!("cannot write {}: {error}", path.display()))
    })?;
    Ok(Publication { path, epoch, socket, is_removed: AtomicBool::new(false) })
}

impl Publication {
    pub(crate) fn pconf_path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn socket_path(&self) -> &Path {
        self.socket.path()
    }

    /// Removes the `.pconf` if its epoch is still ours, then the socket if it is still the one that we bound. A second
    /// time nothing happens.
    pub(crate) fn remove(&self) {
        if self.is_removed.swap(true, Ordering::AcqRel) {
            return;
        }
        let ours = read(&self.path).ok().and_then(|bytes| Pconf::parse(&bytes).ok());
        if ours.is_some_and(|pconf| pconf.epoch.as_deref() == Some(&self.epoch))
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!("cannot remove {}: {error}", self.path.display());
        }
        if let Err(error) = self.socket.remove_if_ours() {
            tracing::warn!("cannot remove {}: {error}", self.socket_path().display());
        }
    }
}

fn write(draft: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    // What a predecessor of the same epoch digits left half-written is nobody's.
    if let Err(error) = fs::remove_file(draft)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let mut file = File::options().write(true).create_new(true).mode(0o644).open(draft)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(draft, path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

/// Reads what may be a `.pconf`, without blocking on what is not even a file.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let flags = i32::try_from(flags.bits()).map_err(io::Error::other)?;
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut bytes = Vec::new();
    file.take(MAX_PCONF_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}
