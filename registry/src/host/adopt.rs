//! Finding again what an earlier registry left running, and proving that it is that.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use goplug_pconf_schema::wire::host::{
    Answer, MAX_RECORD_BYTES, Record, Request, control_path, is_instance, plugin_path, record_path,
};
use goplug_pconf_schema::{Code, Fault};
use rustix::fs::{Mode, OFlags};

use super::hosted::Hosted;
use super::talk::{HOST_LIMIT, TRIES, Talk};

/// Hosts that are asked at once.
const AT_ONCE: usize = 64;
/// The most records that are looked at.
const MAX_RECORDS: usize = 16_384;

/// What became of one record.
#[derive(Debug, Clone)]
pub enum Adopted {
    /// Its host answers and is proven. If the plugin itself has ended, its record has an `exit`.
    Lives(Hosted),
    /// Host and plugin are gone; the record tells how the plugin ended.
    Ended(Record),
    /// Host and plugin are gone, and nobody knows how: the host was killed, or the machine was started anew.
    Lost(Record),
    /// Left alone: nothing was sent to any process.
    Doubtful(Doubtful),
}

/// Why a record was left alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doubtful {
    /// The record's file.
    pub path: PathBuf,
    /// `denied`: the file, or the process behind its control socket, is another's than it should be; `invalid_argument`:
    /// the file is no record; `unavailable`: the host does not answer, or this kernel gives no proof (before Linux 6.9).
    pub fault: Fault,
}

/// Looks at every record in `folder` and connects to the hosts that live; in the order of the names. A folder that is
/// missing holds none.
///
/// A host is proven when the kernel names, behind its control socket, the very process that the record names, by the inode
/// of its pidfd, in the same boot, of the same user; and it says that it is that instance. A pid proves nothing.
///
/// # Errors
/// `denied` when others can write in the folder, or it cannot be read.
pub async fn adopt(folder: &Path) -> Result<Vec<Adopted>, Fault> {
    let owned = folder.to_owned();
    let listed = crate::tasks::on_a_thread(move || list(&owned)).await;
    let (boot_id, files) = listed.map_err(|error| Fault::new(Code::Internal, error.to_string()))??;
    let mut all = Vec::with_capacity(files.len());
    for some in files.chunks(AT_ONCE) {
        let tasks: Vec<_> = some
            .iter()
            .map(|(path, read)| {
                let (folder, boot_id, path, read) = (folder.to_owned(), boot_id.clone(), path.clone(), read.clone());
                tokio::spawn(async move {
                    let met = match read {
                        Ok(record) => meet_patiently(&folder, &boot_id, record).await,
                        Err(fault) => Err(fault),
                    };
                    met.unwrap_or_else(|fault| Adopted::Doubtful(Doubtful { path, fault }))
                })
            })
            .collect();
        for task in tasks {
            all.extend(task.await);
        }
    }
    Ok(all)
}

/// The first of these hosts that lives and does not answer: stopped, or traced, or starved. Nobody can tell what became of its plugin.
///
/// `stem`: what the names of their records begin with; others are not read.
///
/// # Errors
/// As [`adopt`].
///
/// # Cancel safety
/// Safe: it changes nothing.
pub(crate) async fn silent(
    folder: &Path,
    stem: &str,
    is_it: impl Fn(&Record) -> bool + Send + 'static,
) -> Result<Option<Record>, Fault> {
    let (owned, prefix) = (folder.to_owned(), format!("{stem}-"));
    let listed = crate::tasks::on_a_thread(move || {
        let (boot_id, files) = list_of(&owned, |name| name.starts_with(&prefix))?;
        let records = files.into_iter().filter_map(|(_, read)| read.ok());
        let here = records.filter(|record| record.exit.is_none() && record.boot_id == boot_id && is_it(record));
        Ok::<_, Fault>(here.collect::<Vec<_>>())
    });
    for record in listed.await.map_err(|error| Fault::new(Code::Internal, error.to_string()))?? {
        let is_silent = |fault: &Fault| fault.code == Code::Unavailable;
        let told = match Talk::connect(&control_path(folder, &record.instance)).await {
            Ok(mut talk) if proven(&record, &talk).is_ok() => talk.ask(&Request::Status, HOST_LIMIT).await.map(drop),
            // Another process than the record's is none of it.
            Ok(_) => Ok(()),
            Err(fault) => Err(fault),
        };
        if told.as_ref().is_err_and(is_silent) {
            return Ok(Some(record));
        }
    }
    Ok(None)
}

/// Removes the record of a plugin that has [`Adopted::Ended`] or is [`Adopted::Lost`], and what is left of its sockets in
/// this folder. A record that is there anew, of another host, stays.
///
/// # Errors
/// When the files cannot be removed.
pub fn discard(folder: &Path, record: &Record) -> std::io::Result<()> {
    let path = record_path(folder, &record.instance);
    if read(&path).is_ok_and(|now| now.host != record.host) {
        return Ok(());
    }
    let sockets = [control_path, plugin_path].map(|path| path(folder, &record.instance));
    for file in sockets.into_iter().chain([path]) {
        match std::fs::remove_file(file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

type Listed = (String, Vec<(PathBuf, Result<Record, Fault>)>);

fn list(folder: &Path) -> Result<Listed, Fault> {
    list_of(folder, |_| true)
}

fn list_of(folder: &Path, is_wanted: impl Fn(&str) -> bool) -> Result<Listed, Fault> {
    let denied = |why: String| Fault::new(Code::Denied, format!("the folder of hosts {} {why}", folder.display()));
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned();
    let status = match std::fs::symlink_metadata(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok((boot_id, Vec::new())),
        status => status.map_err(|error| denied(format!("cannot be looked at: {error}")))?,
    };
    let own = rustix::process::geteuid().as_raw();
    if !status.is_dir() || status.uid() != own || status.mode() & 0o077 != 0 {
        let mode = status.mode() & 0o7777;
        let text = format!("(uid {}, mode {mode:04o}) is no folder of uid {own} with mode 0700", status.uid());
        return Err(denied(text));
    }
    let entries = std::fs::read_dir(folder).map_err(|error| denied(format!("cannot be read: {error}")))?;
    let entries = entries.flatten().filter(|entry| entry.file_name().to_str().is_some_and(&is_wanted));
    let mut paths: Vec<_> = entries.map(|entry| entry.path()).filter(|path| is_record(path)).collect();
    paths.sort();
    paths.truncate(MAX_RECORDS);
    Ok((boot_id, paths.into_iter().map(|path| (path.clone(), read(&path))).collect()))
}

fn is_record(path: &Path) -> bool {
    let stem = path.file_stem().and_then(|stem| stem.to_str());
    path.extension().is_some_and(|extension| extension == "json") && stem.is_some_and(is_instance)
}

/// The record in a file that only we can have written.
pub(super) fn read(path: &Path) -> Result<Record, Fault> {
    let wrong = |code, why: &str| Fault::new(code, format!("{} {why}", path.display()));
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::empty())
        .map_err(|error| wrong(Code::Denied, &format!("cannot be opened: {}", std::io::Error::from(error))))?;
    let file = File::from(file);
    let status = file.metadata().map_err(|error| wrong(Code::Denied, &format!("cannot be looked at: {error}")))?;
    if !status.is_file() || status.uid() != rustix::process::geteuid().as_raw() || status.mode() & 0o022 != 0 {
        return Err(wrong(Code::Denied, "is no file of ours that only we can write"));
    }
    let mut bytes = Vec::new();
    let most = u64::try_from(MAX_RECORD_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    file.take(most)
        .read_to_end(&mut bytes)
        .map_err(|error| wrong(Code::Denied, &format!("cannot be read: {error}")))?;
    let record = Record::read(&bytes).ok_or_else(|| wrong(Code::InvalidArgument, "is no record of a host"))?;
    if path.file_stem().and_then(|stem| stem.to_str()) != Some(&record.instance) {
        return Err(wrong(Code::InvalidArgument, "names another instance than its file"));
    }
    Ok(record)
}

/// A connection that broke says nothing of the host.
async fn meet_patiently(folder: &Path, boot_id: &str, record: Record) -> Result<Adopted, Fault> {
    let mut met = meet(folder, boot_id, record.clone()).await;
    for _ in 1..TRIES {
        if !matches!(&met, Err(fault) if fault.code == Code::PluginGone) {
            break;
        }
        met = meet(folder, boot_id, record.clone()).await;
    }
    met
}

async fn meet(folder: &Path, boot_id: &str, record: Record) -> Result<Adopted, Fault> {
    let gone = |record: Record| if record.exit.is_some() { Adopted::Ended(record) } else { Adopted::Lost(record) };
    // Everything of an earlier boot is gone; its numbers, inodes too, may belong to others now.
    if record.boot_id != boot_id {
        return Ok(gone(record));
    }
    // Not a path that the file names: what is in a file is data.
    let control = control_path(folder, &record.instance);
    let mut talk = match Talk::connect(&control).await {
        Err(fault) if fault.code == Code::NotFound => {
            // It may have ended between our look at its record and this one.
            let record = read(&record_path(folder, &record.instance)).unwrap_or(record);
            return Ok(gone(record));
        }
        talk => talk?,
    };
    proven(&record, &talk)?;
    let Answer::Status(status) = talk.ask(&Request::Status, HOST_LIMIT).await? else {
        return Err(Fault::new(Code::ProtocolError, "the host answered with something else than a status"));
    };
    if status.record.instance != record.instance || status.record.host != record.host {
        return Err(Fault::new(Code::Denied, "the host says that it is another one than its record names"));
    }
    Ok(Adopted::Lives(Hosted::new(folder.to_owned(), status.record, talk.peer)))
}

/// Whether the process that the kernel names is the one of the record; before a byte is sent to it.
fn proven(record: &Record, talk: &Talk) -> Result<(), Fault> {
    let (named, found) = (record.host, &talk.peer);
    let own = rustix::process::geteuid().as_raw();
    if found.uid() != own {
        let text = format!("the process on the control socket runs as uid {}, not {own}", found.uid());
        return Err(Fault::new(Code::Denied, text));
    }
    match (named.inode, found.inode()) {
        (Some(named), Some(found)) if named == found => Ok(()),
        (Some(inode), Some(other)) => {
            let text = format!(
                "the process on the control socket is not the recorded one (pid {} inode {inode}), but pid {} inode {other}: left alone",
                named.pid,
                found.pid()
            );
            Err(Fault::new(Code::Denied, text))
        }
        _ => {
            let text = format!("nothing proves that pid {} is the recorded host: that needs Linux 6.9", found.pid());
            Err(Fault::new(Code::Unavailable, text))
        }
    }
}
