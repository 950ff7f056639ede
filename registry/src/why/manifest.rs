//! The chain of a plugin that is installed and has no process: values in, links out.

use goplug_pconf_schema::admin::{Link, LinkState, State, Why};
use goplug_pconf_schema::{Reason, printable};

use super::chain::{Finding, directory};
use super::{FileFinding, Findings, ProcessFindings};
use crate::discovery::Flaw;
use crate::words::{mend, quote, show, word};

use Finding::{Broken, Ok as Fine, Skipped, Warning};

/// Says where `goplug-host` was looked for.
const DOCTOR: &str = "goplugctl doctor";

/// The answer, if the subject is such a plugin.
pub(super) fn explain(findings: &Findings) -> Option<Why> {
    let FileFinding::Installed { path, read, program, outside, winner, disabled } = &findings.file else { return None };
    let found = read.as_ref().ok();
    let plugin = match read {
        Ok(found) => Some(found.manifest.id.clone()),
        Err(refusal) => refusal.id.clone(),
    };
    let state = match read {
        _ if *outside || winner.is_some() => None,
        Ok(_) if findings.process.is_some() => findings.process.as_ref().map(|process| process.state),
        Ok(_) if *disabled => Some(State::Disabled),
        Ok(_) => Some(State::Stopped),
        Err(refusal) => Some(refusal.kind.state()),
    };
    let mut chain = Chain::default();
    chain.link("directory", || directory(findings));
    chain.link("manifest", || match read {
        _ if *outside => Broken(
            format!("{} is not looked at: it is no plugin of {}", show(path), show(&findings.directory.path)),
            None,
        ),
        Err(refusal) if refusal.flaw != Flaw::Text => {
            Broken(format!("{} {}", show(path), refusal.reason), Some(mend(path, refusal)))
        }
        _ => Fine(show(path)),
    });
    chain.link("content", || match (found, read) {
        (Some(found), _) => {
            let text = format!("names `{}`, version {}", printable(found.manifest.id.as_str()), found.manifest.version);
            let warnings = &found.warnings;
            if warnings.is_empty() { Fine(text) } else { Warning(format!("{text}; {}", warnings.join("; "))) }
        }
        (None, Err(refusal)) => Broken(refusal.reason.clone(), Some(mend(path, refusal))),
        (None, Ok(_)) => Skipped("not reached".into()),
    });
    chain.link("pair", || match winner {
        Some(winner) => Broken(
            format!("{} claims the same pair and is used: the lower path wins", show(winner)),
            Some(format!("rm -r {}", word(path.parent().unwrap_or(path)))),
        ),
        None => Fine("no other manifest claims it".into()),
    });
    chain.link("program", || match found.and_then(|found| found.manifest.not_runnable()) {
        Some(reason) => Broken(reason, None),
        None if program.is_empty() => Fine(found.map(|found| command(&found.manifest)).unwrap_or_default()),
        None => Broken(program.join("; "), Some(format!("goplugctl lint {}", word(path)))),
    });
    let name = found.map(|found| quote(found.manifest.id.as_str())).unwrap_or_default();
    let process = findings.process.as_ref();
    chain.link("process", || match process {
        Some(found) => running(found, &name),
        None if *disabled => Broken("it is disabled".into(), Some(format!("goplugctl enable {name}"))),
        None => Broken("it was not started".into(), Some(format!("goplugctl start {name}"))),
    });
    if let Some(found) = process.filter(|found| found.pid.is_some()) {
        chain.link("loaded", || loaded(found, &name));
    }
    let Chain { links, fix, broken } = chain;
    Some(Why { subject: findings.subject.clone(), plugin, state, callable: !broken, links, fix })
}

/// Whether its process runs, and what makes it run.
fn running(found: &ProcessFindings, name: &str) -> Finding {
    if let Some(pid) = found.pid {
        let kept = found.kept_by.map(|other| format!(", kept by {other}")).unwrap_or_default();
        return Fine(format!("pid {pid}{kept}"));
    }
    if let Some(other) = found.kept_by {
        return Broken(format!("it does not run; it is kept by {other}"), None);
    }
    let why = found.last_error.as_ref().map(|fault| format!(": {fault}")).unwrap_or_default();
    let does = |verb: &str| Some(format!("goplugctl {verb} {name}"));
    match found.state {
        State::Disabled => Broken("it is disabled".into(), does("enable")),
        State::Stopped if found.is_asleep => {
            Warning("it was stopped because nobody called it: a call starts it".into())
        }
        State::Denied => Broken(format!("it may not run{why}"), does("trust show")),
        State::Failed if is_without_host(found) => Broken(format!("it cannot be started{why}"), Some(DOCTOR.into())),
        State::Failed => Broken(format!("it was given up{why}"), does("logs")),
        State::Backoff => {
            let next = found.retry_in.map_or(0, |pause| pause.as_millis());
            Broken(format!("it is started again in {next} ms{why}"), does("logs"))
        }
        State::Starting => Broken("it is being started".into(), does("wait")),
        State::Draining => Broken("it is being stopped".into(), does("start")),
        _ => Broken(format!("it does not run{why}"), does("start")),
    }
}

/// Whether nothing can be started here.
fn is_without_host(found: &ProcessFindings) -> bool {
    found.last_error.as_ref().is_some_and(|fault| fault.reason == Some(Reason::NoHost))
}

/// Whether the process that runs is activated.
fn loaded(found: &ProcessFindings, name: &str) -> Finding {
    let why = found.last_error.as_ref().map(|fault| format!(": {fault}")).unwrap_or_default();
    match found.state {
        State::Loaded => Fine("it is active".into()),
        State::Backoff => {
            let next = found.retry_in.map_or(0, |pause| pause.as_millis());
            Broken(format!("it is tried again in {next} ms{why}"), Some(format!("goplugctl logs {name}")))
        }
        state => Broken(format!("it runs and is {state}{why}"), Some(format!("goplugctl load {name}"))),
    }
}

#[derive(Default)]
struct Chain {
    links: Vec<Link>,
    fix: Option<String>,
    broken: bool,
}

impl Chain {
    fn link(&mut self, name: &str, look: impl FnOnce() -> Finding) {
        let finding = if self.broken { Skipped("not reached".into()) } else { look() };
        let (state, detail) = match finding {
            Fine(detail) => (LinkState::Ok, detail),
            Warning(detail) => (LinkState::Warning, detail),
            Skipped(detail) => (LinkState::Skipped, detail),
            Broken(detail, fix) => {
                (self.broken, self.fix) = (true, fix);
                (LinkState::Broken, detail)
            }
        };
        self.links.push(Link { name: name.to_owned(), state, detail });
    }
}

fn command(manifest: &goplug_pconf_schema::Manifest) -> String {
    manifest.command_line().iter().map(|word| quote(word)).collect::<Vec<_>>().join(" ")
}
