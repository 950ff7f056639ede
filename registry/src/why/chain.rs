//! The chain itself: values in, links out.

use goplug_pconf_schema::admin::{Link, LinkState, State, Why};
use goplug_pconf_schema::{Code, Fault, PluginId, Reason};

use super::{FileFinding, Findings, Knock, Near, Place, SlotFindings};
use crate::discovery::{Flaw, Found, Refusal};
use crate::words::{mend, quote, show, word};

/// The names of the links, in order.
const LINKS: [&str; 8] = ["directory", "file", "content", "pair", "socket", "peer", "hello", "loaded"];
/// Why nothing happens where nobody asks.
const AUTO_DISCOVER_OFF: &str = "auto-discover is off: nothing is loaded by itself";
/// The most near misses that are listed.
const MAX_NEAR: usize = 5;

/// What became of one link.
pub(super) enum Finding {
    Ok(String),
    Warning(String),
    /// What is wrong, and the command that mends it.
    Broken(String, Option<String>),
    Skipped(String),
}

use Finding::{Broken, Ok as Fine, Skipped, Warning};

pub(super) fn explain(findings: &Findings) -> Why {
    let plugin = plugin(findings);
    let state = findings.slot.as_ref().map(|slot| slot.state).or_else(|| refused(&findings.file));
    let loaded = state == Some(State::Loaded);
    let (mut links, mut fix, mut broken) = (Vec::new(), None, false);
    for name in LINKS {
        let finding = if broken { Skipped("not reached".into()) } else { look(name, findings, plugin.as_ref()) };
        let (state, detail) = match finding {
            Fine(detail) => (LinkState::Ok, detail),
            Warning(detail) => (LinkState::Warning, detail),
            Skipped(detail) => (LinkState::Skipped, detail),
            // Its connection stands: what is wrong now matters when it is lost.
            Broken(detail, command) if loaded => {
                fix = fix.or(command);
                (LinkState::Warning, detail)
            }
            Broken(detail, command) => {
                (broken, fix) = (true, command);
                (LinkState::Broken, detail)
            }
        };
        links.push(Link { name: name.to_owned(), state, detail });
    }
    Why { subject: findings.subject.clone(), plugin, state, callable: loaded, links, fix }
}

fn plugin(findings: &Findings) -> Option<PluginId> {
    match &findings.file {
        FileFinding::There { read: Ok(found), .. } => Some(found.pconf.id.clone()),
        FileFinding::There { read: Err(refusal), .. } => refusal.id.clone(),
        FileFinding::NotNamed { id, .. } => id.clone(),
        FileFinding::BadName(_)
        | FileFinding::Ambiguous(_)
        | FileFinding::Missing { .. }
        | FileFinding::Installed { .. } => None,
    }
}

/// The state in which a file is listed that is looked at and cannot be used.
fn refused(file: &FileFinding) -> Option<State> {
    match file {
        FileFinding::There { place: Place::Seen, read: Err(refusal), .. } => Some(refusal.kind.state()),
        _ => None,
    }
}

fn look(name: &str, findings: &Findings, plugin: Option<&PluginId>) -> Finding {
    let found = match &findings.file {
        FileFinding::There { read: Ok(found), .. } => Some(&**found),
        _ => None,
    };
    match name {
        "directory" => directory(findings),
        "file" => file(findings),
        "content" => content(findings),
        "pair" => pair(findings),
        "socket" => socket(findings),
        "peer" => peer(findings),
        "hello" => hello(findings, found),
        _ => life(findings, found, plugin),
    }
}

pub(super) fn directory(findings: &Findings) -> Finding {
    let directory = &findings.directory;
    let path = show(&directory.path);
    if let Err(reason) = &directory.read {
        let command = if directory.exists { "chmod u+rx" } else { "mkdir -p" };
        return Broken(reason.clone(), Some(format!("{command} {}", word(&directory.path))));
    }
    let mut warnings = directory.warnings.clone();
    if let Some(limit) = directory.truncated_at {
        warnings.push(format!("it holds more than {limit} files with this extension: the others are not looked at"));
    }
    if warnings.is_empty() { Fine(path) } else { Warning(format!("{path}: {}", warnings.join("; "))) }
}

fn file(findings: &Findings) -> Finding {
    let directory = &findings.directory.path;
    match &findings.file {
        FileFinding::BadName(reason) => Broken(reason.clone(), Some("goplugctl list".into())),
        FileFinding::Ambiguous(ids) => {
            let names: Vec<_> = ids.iter().map(|id| quote(id.as_str())).collect();
            let first = names.first().map(|name| format!("goplugctl why {name}"));
            Broken(format!("the name fits {}: say which one", names.join(", ")), first)
        }
        FileFinding::NotNamed { id, near } => {
            let name = id.as_ref().map_or(findings.subject.as_str(), PluginId::as_str);
            let place = format!("at the top level of {}", show(directory));
            let what =
                format!("no file *{} {place} names `{}`", findings.extension, goplug_pconf_schema::printable(name));
            nearby(&what, near, findings, "start the plugin: it writes the file itself")
        }
        FileFinding::Missing { path, near } => {
            nearby(&format!("{} does not exist", show(path)), near, findings, "start the plugin that writes it")
        }
        // Has a chain of its own.
        FileFinding::Installed { path, .. } => Fine(show(path)),
        FileFinding::There { path, place, read, .. } => match place {
            Place::Seen => at_its_place(path, read.as_ref().err().map(|refusal| &**refusal)),
            place => out_of_place(path, *place, read.as_ref().ok().map(|found| &found.pconf.id), findings),
        },
    }
}

/// A file that was asked for and is not looked at. Nothing is moved over a file that is used.
fn out_of_place(path: &std::path::Path, place: Place, id: Option<&PluginId>, findings: &Findings) -> Finding {
    let what = format!("{} {}", show(path), misplaced(place, findings));
    match (findings.rivals.first(), id) {
        (Some(used), Some(id)) => {
            let text =
                format!("{what}; {} names `{}` already", show(used), goplug_pconf_schema::printable(id.as_str()));
            Broken(text, Some(format!("goplugctl why {}", quote(id.as_str()))))
        }
        _ => Broken(what, Some(put_right(path, place, findings))),
    }
}

fn at_its_place(path: &std::path::Path, refusal: Option<&Refusal>) -> Finding {
    match refusal {
        Some(refusal) if is_about_file(&refusal.flaw) => {
            Broken(format!("{} {}", show(path), refusal.reason), Some(mend(path, refusal)))
        }
        _ => Fine(show(path)),
    }
}

/// Whether the file itself is wrong, as opposed to what it says.
fn is_about_file(flaw: &Flaw) -> bool {
    !matches!(flaw, Flaw::Text | Flaw::SocketPath | Flaw::SocketOutside)
}

/// What is there instead of the file, with the command for the first that has one.
fn nearby(what: &str, near: &[Near], findings: &Findings, else_do: &str) -> Finding {
    if near.is_empty() {
        return Broken(format!("{what}: {else_do}"), Some("goplugctl list".into()));
    }
    let texts = near.iter().take(MAX_NEAR).map(|near| match near {
        Near::Misplaced { path, place } => format!("{} {}", show(path), misplaced(*place, findings)),
        Near::Unusable { path, refusal } => format!("{} {}", show(path), as_fragment(refusal)),
        Near::Similar(id) => format!("there is `{}`", goplug_pconf_schema::printable(id.as_str())),
    });
    let more = near.len().saturating_sub(MAX_NEAR);
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    let fix = near.first().map(|near| match near {
        Near::Misplaced { path, place } => put_right(path, *place, findings),
        Near::Unusable { path, refusal } => mend(path, refusal),
        Near::Similar(id) => format!("goplugctl why {}", quote(id.as_str())),
    });
    Broken(format!("{what}; {}{more}", texts.collect::<Vec<_>>().join("; ")), fix)
}

fn as_fragment(refusal: &Refusal) -> String {
    if refusal.flaw == Flaw::Text { format!("cannot be read: {}", refusal.reason) } else { refusal.reason.clone() }
}

fn misplaced(place: Place, findings: &Findings) -> String {
    let extension = &findings.extension;
    match place {
        Place::Seen => "is looked at".into(),
        Place::Hidden => "is not looked at: its name begins with a dot".into(),
        Place::Extension => format!("is not looked at: its name does not end in {extension}"),
        Place::SubFolder => "is not looked at: only the top level of the plugin directory is".into(),
        Place::Outside => format!("is not in the plugin directory {}", show(&findings.directory.path)),
        Place::BeyondLimit => "is not looked at: there are more files than the registry takes (max_plugins)".into(),
    }
}

/// The command that moves a file to where, and to a name under which, it is looked at. A file of another folder may be
/// anything: it is looked at there, and stays where it is.
fn put_right(path: &std::path::Path, place: Place, findings: &Findings) -> String {
    let extension = &findings.extension;
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    if place == Place::Outside {
        return match path.parent() {
            Some(folder) if name.ends_with(extension.as_str()) => {
                format!("goplugctl --dir {} why {}", word(folder), word(path))
            }
            _ => "goplugctl list".into(),
        };
    }
    let name = name.trim_start_matches('.');
    let name = match name.strip_suffix(extension.as_str()) {
        Some(_) => name.to_owned(),
        None => format!("{}{extension}", name.rsplit_once('.').map_or(name, |(stem, _)| stem)),
    };
    let target = findings.directory.path.join(name);
    if target == path {
        return "goplugctl list".into();
    }
    // There may be another file of that name.
    format!("mv -n {} {}", word(path), word(&target))
}

fn content(findings: &Findings) -> Finding {
    match &findings.file {
        FileFinding::There { path, read: Err(refusal), .. } if refusal.flaw == Flaw::Text => {
            Broken(format!("{}: {}", show(path), refusal.reason), Some(mend(path, refusal)))
        }
        FileFinding::There { read: Ok(found), .. } => {
            let protocol = match found.pconf.protocol {
                Some(protocol) => format!("Protocol {protocol}"),
                None => "no Protocol: v0 or v1, the hello tells".into(),
            };
            let text = format!("names `{}`, {protocol}", goplug_pconf_schema::printable(found.pconf.id.as_str()));
            if found.warnings.is_empty() {
                Fine(text)
            } else {
                Warning(format!("{text}; {}", found.warnings.join("; ")))
            }
        }
        _ => Fine("read".into()),
    }
}

fn pair(findings: &Findings) -> Finding {
    let FileFinding::There { path, winner, .. } = &findings.file else { return Fine("alone".into()) };
    if let Some(winner) = winner {
        let text = format!("{} claims the same pair and is used: the lower name wins while both live", show(winner));
        return Broken(text, Some(format!("rm {}", word(path))));
    }
    if findings.rivals.is_empty() {
        return Fine("no other file claims it".into());
    }
    let rivals: Vec<_> = findings.rivals.iter().map(|rival| show(rival)).collect();
    Warning(format!("also claimed by {}, which is not used", rivals.join(", ")))
}

fn socket(findings: &Findings) -> Finding {
    let FileFinding::There { path, read, .. } = &findings.file else { return Fine("named".into()) };
    let found = match read {
        Ok(found) => found,
        Err(refusal) => return Broken(refusal.reason.clone(), Some(mend(path, refusal))),
    };
    let socket = show(&found.socket);
    // Who starts a plugin that starts itself is not known here.
    let leftover = |rest: &str| Some(format!("rm {}{rest}  # or start the plugin again", word(path)));
    match &findings.knock {
        None => Fine(socket),
        Some(Knock::Answered { .. }) => Fine(format!("somebody listens on {socket}")),
        Some(Knock::Missing) => Broken(
            format!("socket {socket} does not exist: the plugin has ended or has not bound it yet"),
            leftover(""),
        ),
        Some(Knock::Refused) => {
            let text = format!("nobody listens on {socket}: the plugin was killed, or its process has ended");
            Broken(text, leftover(&format!(" {}", word(&found.socket))))
        }
        Some(Knock::Denied) => {
            let us = rustix::process::geteuid().as_raw();
            Broken(format!("uid {us} may not connect to {socket}"), Some(format!("chown {us} {}", word(&found.socket))))
        }
        Some(Knock::Unusable(reason)) => Broken(reason.clone(), Some(format!("goplugctl lint {}", word(path)))),
    }
}

fn peer(findings: &Findings) -> Finding {
    let slot = findings.slot.as_ref();
    if let Some((fault, id)) = untrusted(findings) {
        return Broken(fault.to_string(), Some(format!("goplugctl trust approve {}", quote(id.as_str()))));
    }
    match findings.knock {
        Some(Knock::Answered { uid, pid }) => {
            let us = rustix::process::geteuid().as_raw();
            if uid == 0 || uid == us || findings.allow_uids.contains(&uid) {
                return Fine(format!("pid {pid}, uid {uid}"));
            }
            let text = format!("pid {pid} runs as uid {uid}; allowed are {us}, 0 and those of allow_uids");
            Broken(text, Some(format!("add {uid} to allow_uids in goplugd.toml, if that user is to be trusted")))
        }
        _ => match slot.and_then(|slot| slot.pid) {
            Some(pid) => Fine(format!("pid {pid}")),
            None => Skipped("not asked".into()),
        },
    }
}

/// Why a process was refused for its program.
fn untrusted(findings: &Findings) -> Option<(&Fault, &PluginId)> {
    let FileFinding::There { read: Ok(found), .. } = &findings.file else { return None };
    let fault = findings.slot.as_ref()?.last_error.as_ref()?;
    (fault.reason == Some(Reason::Untrusted)).then_some((fault, &found.pconf.id))
}

fn hello(findings: &Findings, found: Option<&Found>) -> Finding {
    let Some(slot) = &findings.slot else { return Skipped("not asked".into()) };
    let is_down = matches!(slot.state, State::Failed | State::Backoff | State::Denied | State::Invalid);
    // One that is not to be loaded was looked at, and that is how it went.
    let is_refused = is_down || (slot.state == State::Discovered && slot.protocol.is_none());
    if let Some(fault) = slot.last_error.as_ref().filter(|fault| is_refused && is_about_hello(fault.code)) {
        return Broken(fault.to_string(), answered_wrongly(fault.code, findings, slot, found));
    }
    match slot.protocol {
        Some(0) => Fine("v0: no hello, the original GoPlug's protocol".into()),
        Some(protocol) => Fine(format!("v{protocol}, the names agree")),
        None => Skipped("not asked yet".into()),
    }
}

/// Whether a start failed on the hello, as opposed to the activator or the process.
fn is_about_hello(code: Code) -> bool {
    match code {
        Code::ProtocolError | Code::Conflict | Code::InvalidArgument | Code::TooLarge | Code::Denied => true,
        Code::NotFound
        | Code::WrongState
        | Code::MethodFailed
        | Code::Panicked
        | Code::Overloaded
        | Code::Unavailable
        | Code::PluginGone
        | Code::DeadlineExceeded
        | Code::Cancelled
        | Code::Internal => false,
    }
}

/// What helps when a process answers, and not as it should. To ask it again does not: it would say the same.
fn answered_wrongly(code: Code, findings: &Findings, slot: &SlotFindings, found: Option<&Found>) -> Option<String> {
    match (&findings.file, code) {
        (FileFinding::There { path, .. }, Code::InvalidArgument) => {
            Some(format!("rm {}  # or start the plugin again: it writes the file itself", word(path)))
        }
        _ => retry(slot, found).map(|load| format!("{load}  # when its author has mended the plugin")),
    }
}

fn retry(slot: &SlotFindings, found: Option<&Found>) -> Option<String> {
    let verb = if slot.state == State::Loaded { "reload" } else { "load" };
    found.map(|found| format!("goplugctl {verb} {}", quote(found.pconf.id.as_str())))
}

fn life(findings: &Findings, found: Option<&Found>, plugin: Option<&PluginId>) -> Finding {
    let Some(slot) = &findings.slot else {
        // To load it is to look for it.
        let load =
            plugin.filter(|_| !findings.auto_discover).map(|id| format!("goplugctl load {}", quote(id.as_str())));
        return match load {
            Some(load) => Broken(format!("{AUTO_DISCOVER_OFF}, and nothing was looked at yet"), Some(load)),
            None => Broken("the registry has not seen it yet".into(), Some("goplugctl rescan".into())),
        };
    };
    let because = slot.last_error.as_ref().map(|fault| format!(": {fault}")).unwrap_or_default();
    let wait = plugin.map(|id| format!("goplugctl wait {} --for=loaded", quote(id.as_str())));
    let load = retry(slot, found);
    match slot.state {
        State::Loaded => Fine("loaded, can be called".into()),
        State::Discovered => Broken(why_not_loaded(findings, slot, found), load),
        State::Starting => Broken("is being started".into(), wait),
        State::Draining => Broken("is being unloaded: takes no new calls".into(), load),
        State::Stopped => Broken("was told to stop; its file is still there".into(), load),
        State::Backoff => {
            let next =
                slot.retry_in.map(|pause| format!("; next try in {:.1} s", pause.as_secs_f64())).unwrap_or_default();
            Broken(format!("the last try failed{because}{next}"), load)
        }
        State::Failed => Broken(format!("failed{because}; tried again when its file changes or when asked"), load),
        State::Disabled => Broken("is switched off".into(), load),
        State::Denied => Broken(format!("is not trusted{because}"), load),
        State::Invalid => Broken(format!("its file cannot be used{because}"), load),
        State::Gone => Broken("its file was removed".into(), Some("goplugctl rescan".into())),
    }
}

fn why_not_loaded(findings: &Findings, slot: &SlotFindings, found: Option<&Found>) -> String {
    if slot.unloaded {
        "was unloaded when somebody asked: it is not loaded again until asked, or until its file changes".into()
    } else if !findings.auto_discover {
        AUTO_DISCOVER_OFF.into()
    } else if found.is_some_and(|found| found.pconf.lazy_load) {
        "is lazy (LazyLoad): it waits to be asked for".into()
    } else {
        let because = slot.last_error.as_ref().map(|fault| format!(": {fault}")).unwrap_or_default();
        format!("is not loaded{because}")
    }
}
