//! The plugin directory.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use goplug_pconf_schema::admin::Link;
use goplug_pconf_schema::{MAX_NAME_BYTES, MAX_SOCKET_PATH_BYTES};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::{broken, ok, skipped, warning};
use crate::desired;
use crate::discovery::{DirectoryFacts, ScanOptions, Watch, directory_facts, scan};
use crate::lease;
use crate::options::{DEFAULT_EXTENSION, DEFAULT_MAX_PLUGINS};
use crate::words::{show, word};

/// `/`, a dot, eight digits of the epoch, and `.sock`: what a socket's name has besides the plugin's.
const SOCKET_NAME_EXTRA: usize = 1 + 1 + 8 + 5;
/// Names up to this length are usual.
const USUAL_NAME_BYTES: usize = 32;
/// Sockets at which is knocked.
const MAX_KNOCKS: usize = 1_024;
/// File systems on which another machine's, or the host's, changes cause no event here: NFS, SMB, CIFS, FUSE, 9P.
const REMOTE: [i64; 5] = [0x6969, 0x517b, 0xff53_4d42, 0x6573_5546, 0x0102_1997];

/// Every check of the directory, and how many files it holds.
pub(super) fn check(directory: &Path) -> (Vec<Link>, usize) {
    let sockets = sockets(directory);
    let facts = match directory_facts(directory) {
        Ok(facts) => facts,
        Err(reason) => {
            let command = if directory.exists() { "chmod u+rx" } else { "mkdir -p" };
            let text = format!("{} {reason}: {command} {}", show(directory), word(directory));
            let rest = ["owner", "mode", "path", "files", "watch", "leftovers", "keeper"].map(skipped);
            return ([vec![broken("directory", text)], rest.to_vec(), vec![sockets]].concat(), 0);
        }
    };
    let (files, count, abandoned) = files(directory);
    let links = vec![
        ok("directory", show(directory)),
        owner(directory, &facts),
        mode(directory, &facts),
        path(directory),
        files,
        watch(directory),
        leftovers(directory, abandoned),
        keeper(directory),
        sockets,
    ];
    (links, count)
}

fn owner(directory: &Path, facts: &DirectoryFacts) -> Link {
    let us = rustix::process::geteuid().as_raw();
    if facts.uid == us || facts.uid == 0 {
        return ok("owner", format!("uid {}", facts.uid));
    }
    let text = format!("belongs to uid {}, who can replace every plugin: chown {us} {}", facts.uid, word(directory));
    warning("owner", text)
}

pub(super) fn mode(directory: &Path, facts: &DirectoryFacts) -> Link {
    let mode = facts.mode;
    if facts.is_open_to_others() {
        let text = format!("mode {mode:04o}: others may put plugins here, and rename or remove ours: chmod go-w");
        return warning("mode", format!("{text} {}", word(directory)));
    }
    if mode & 0o022 != 0 {
        return ok("mode", format!("mode {mode:04o}: others may put plugins here, and not touch ours (sticky)"));
    }
    ok("mode", format!("mode {mode:04o}"))
}

/// Whoever may write a folder on the way can put another plugin directory in the place of ours.
fn path(directory: &Path) -> Link {
    let us = rustix::process::geteuid().as_raw();
    for folder in directory.ancestors().skip(1) {
        let Ok(status) = std::fs::metadata(folder) else { continue };
        let mode = status.mode() & 0o7777;
        if status.uid() != us && status.uid() != 0 {
            let text = format!("{} belongs to uid {}, who can replace what is in it", show(folder), status.uid());
            return warning("path", format!("{text}: chown {us} {}", word(folder)));
        }
        if mode & 0o022 != 0 && mode & 0o1000 == 0 {
            let text =
                format!("{} may be written by others (mode {mode:04o}): chmod go-w {}", show(folder), word(folder));
            return warning("path", text);
        }
    }
    ok("path", "every folder above is ours or root's")
}

/// What is to be said of the files, how many there are, and which of them nobody stands behind.
fn files(directory: &Path) -> (Link, usize, Option<String>) {
    let options = ScanOptions {
        directory: directory.to_owned(),
        extension: DEFAULT_EXTENSION.to_owned(),
        socket_dirs: Vec::new(),
        max_plugins: DEFAULT_MAX_PLUGINS,
    };
    let snapshot = scan(&options, None);
    let count = snapshot.entries.len();
    let refused = snapshot.entries.values().filter(|entry| entry.read.is_err()).count();
    let lint = format!("goplugctl lint {}", word(directory));
    let link = if let Err(reason) = &snapshot.directory {
        broken("files", format!("{reason}: chmod u+rx {}", word(directory)))
    } else if snapshot.truncated {
        warning("files", format!("more than {DEFAULT_MAX_PLUGINS} files *{DEFAULT_EXTENSION}: raise max_plugins"))
    } else if refused > 0 {
        warning("files", format!("{refused} of {count} files cannot be used: {lint}"))
    } else {
        ok("files", format!("{count} files, all can be used"))
    };
    let found = snapshot.entries.iter().filter_map(|(path, entry)| Some((&**path, entry.read.as_ref().ok()?)));
    let abandoned: Vec<_> = found.take(MAX_KNOCKS).filter(|(_, found)| is_abandoned(&found.socket)).collect();
    let told = abandoned.first().map(|(path, _)| {
        let count = abandoned.len();
        let files = if count == 1 { "1 file names a socket".into() } else { format!("{count} files name sockets") };
        format!("{files} on which nobody listens, such as {}: goplugctl why {}", show(path), word(path))
    });
    (link, count, told)
}

/// Whether a socket is not there, or its process is not. Nothing is sent, and nothing waits.
fn is_abandoned(socket: &Path) -> bool {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let knock = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
        .and_then(|ours| rustix::net::connect(ours, &SocketAddrUnix::new(socket)?));
    matches!(knock, Err(Errno::NOENT | Errno::CONNREFUSED))
}

/// Tries what the registry will do.
fn watch(directory: &Path) -> Link {
    let (_watch, signals) = Watch::new(directory, DEFAULT_EXTENSION);
    if let Some(problem) = signals.problem() {
        return warning("watch", problem);
    }
    let kind = rustix::fs::statfs(directory).map(|status| status.f_type);
    if kind.is_ok_and(|kind| REMOTE.contains(&kind)) {
        return warning("watch", "a network file system: other machines' changes are found by the periodic scan only");
    }
    ok("watch", "file events arrive")
}

/// What our own folder holds besides what is in use.
/// `abandoned`: the files that nobody stands behind.
pub(super) fn leftovers(directory: &Path, abandoned: Option<String>) -> Link {
    let own = directory.join(desired::OWN_FOLDER);
    let mut found = Vec::from_iter(abandoned);
    if let Err(why) = desired::load(directory) {
        let file = own.join("state.json");
        found.push(format!("{} {why}: mv {} {}", show(&file), word(&file), word(&file.with_extension("json.bad"))));
    }
    let bad = own.join("state.json.bad");
    if bad.symlink_metadata().is_ok() {
        let text = format!("{} could not be obeyed, so that what was wanted of plugins is forgotten", show(&bad));
        found.push(format!("{text}: rm {}", word(&bad)));
    }
    let staged = std::fs::read_dir(own.join("staging")).map_or(0, |entries| entries.flatten().count());
    if staged > 0 {
        let place = show(&own.join("staging"));
        found.push(format!(
            "{staged} folders in {place}, on their way or left by who was killed: the next install tidies up"
        ));
    }
    if found.is_empty() { ok("leftovers", "none") } else { warning("leftovers", found.join("; ")) }
}

/// Which registry starts and stops the plugins' processes.
pub(super) fn keeper(directory: &Path) -> Link {
    let text = match lease::keeper(directory) {
        Some(pid) => {
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            let name = goplug_pconf_schema::printable(name.trim());
            format!("{name}, pid {pid}, starts and stops the plugins' processes")
        }
        None => "nobody keeps the plugins' processes now: whoever starts one does".to_owned(),
    };
    ok("keeper", text)
}

fn sockets(directory: &Path) -> Link {
    judge_socket_room(directory, MAX_SOCKET_PATH_BYTES.checked_sub(directory.as_os_str().len() + SOCKET_NAME_EXTRA))
}

/// `room`: bytes left for namespace and name.
pub(super) fn judge_socket_room(directory: &Path, room: Option<usize>) -> Link {
    let length = directory.as_os_str().len();
    let limit = format!("the path of a socket is at most {MAX_SOCKET_PATH_BYTES} bytes");
    match room {
        None | Some(0) => {
            let text = format!("the directory's path is {length} bytes, {limit}: use a shorter directory");
            broken("sockets", text)
        }
        Some(room) if room < USUAL_NAME_BYTES => {
            let text = format!("{room} bytes are left for namespace and name ({limit}): use a shorter directory");
            warning("sockets", text)
        }
        Some(room) => ok("sockets", format!("{} bytes are left for namespace and name", room.min(2 * MAX_NAME_BYTES))),
    }
}
