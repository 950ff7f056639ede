//! `trust`: which programs plugins that start themselves may run, and whose packages are taken.

use goplug_pconf_schema::admin::{Executable, Trust, TrustEntry, TrustVerdict, TrustedKey};
use goplug_pconf_schema::grants;
use goplug_pconf_schema::{Code, Fault, Pin};

use crate::args::{ApproveArgs, OnePlugin, TrustAddArgs, TrustRemoveArgs};
use crate::failure::Failure;
use crate::output::style::Paint;
use crate::output::{Style, Table, escape};
use crate::pick;
use crate::session::Session;

/// The largest file that is looked into for a key.
const MAX_KEY_FILE: u64 = 4 * 1024;

pub(super) async fn list(session: &mut Session) -> Result<(), Failure> {
    let failed = |fault| Failure::new("cannot list the programs that are trusted", fault);
    let entries = session.target.trusted().await.map_err(failed)?;
    let names = || entries.iter().map(|entry| entry.plugin.to_string()).collect();
    Ok(session.out.show(&entries, false, names, |style, wide| table(&entries, style, wide))?)
}

pub(super) async fn keys(session: &mut Session) -> Result<(), Failure> {
    let failed = |fault| Failure::new("cannot list the keys that are trusted", fault);
    let keys = session.target.trusted_keys().await.map_err(failed)?;
    let names = || keys.iter().map(|trusted| trusted.key.clone()).collect();
    let text = |style, _| {
        let mut table = Table::new(["KEY", "COMMENT"]);
        for TrustedKey { key, comment } in &keys {
            table.row([(key.clone(), Paint::None), (comment.clone(), Paint::None)]);
        }
        table.render(style)
    };
    Ok(session.out.show(&keys, false, names, text)?)
}

pub(super) async fn add(session: &mut Session, args: &TrustAddArgs) -> Result<(), Failure> {
    let failed = |fault| Failure::new(format!("cannot trust {}", escape(&args.key)), fault);
    // A file holds a comment and the key.
    let text = match std::fs::metadata(&args.key) {
        Ok(status) if status.is_file() && status.len() <= MAX_KEY_FILE => std::fs::read_to_string(&args.key)
            .map_err(|error| failed(Fault::new(Code::InvalidArgument, error.to_string())))?,
        _ => args.key.clone(),
    };
    let added = session.target.trust_key(&text, &args.comment).await.map_err(failed)?;
    let names = vec![added.key.clone()];
    Ok(session.out.changed(&[added], true, &names)?)
}

pub(super) async fn remove(session: &mut Session, args: &TrustRemoveArgs) -> Result<(), Failure> {
    let failed = |fault| {
        let what = format!("cannot stop trusting {}", escape(&args.key));
        Failure::new(what, fault).hint("goplugctl trust list --keys")
    };
    let removed = session.target.distrust_key(&args.key).await.map_err(failed)?;
    let names = vec![removed.key.clone()];
    Ok(session.out.changed(&[removed], true, &names)?)
}

pub(super) async fn show(session: &mut Session, args: &OnePlugin) -> Result<(), Failure> {
    let what = format!("cannot tell what `{}` may run", args.plugin);
    let plugin = session.one(&what, &args.plugin).await?;
    let failed = |fault| Failure::new(what.clone(), fault).about(&plugin);
    let trust = session.target.trust(&plugin).await.map_err(failed)?;
    let names = || vec![plugin.to_string()];
    Ok(session.out.show(std::slice::from_ref(&trust), true, names, |style, _| describe(&trust, style))?)
}

pub(super) async fn approve(session: &mut Session, args: &ApproveArgs) -> Result<(), Failure> {
    let what = format!("cannot approve what `{}` runs", args.plugin);
    let plugin = session.one(&what, &args.plugin).await?;
    let failed = |fault| Failure::new(what, fault).about(&plugin);
    let trust = session.target.approve(&plugin, args.sha256).await.map_err(failed)?;
    Ok(session.out.changed(&[trust], true, &[plugin.to_string()])?)
}

/// A plugin that is not there any more is known by what is recorded of it.
pub(super) async fn revoke(session: &mut Session, args: &OnePlugin) -> Result<(), Failure> {
    let what = format!("cannot forget what `{}` may run", args.plugin);
    let recorded = session.target.trusted().await.map_err(|fault| Failure::new(&what, fault))?;
    let plugin = match args.plugin.contains('/') {
        true => pick::whole(&what, &args.plugin)?,
        false => pick::of(&what, &args.plugin, recorded.iter().map(|entry| &entry.plugin))
            .map_err(|failure| failure.hint("goplugctl trust list"))?,
    };
    let failed = |fault| Failure::new(what, fault).hint("goplugctl trust list").about(&plugin);
    let revocation = session.target.revoke(&plugin).await.map_err(failed)?;
    Ok(session.out.changed(&[revocation], true, &[plugin.to_string()])?)
}

fn table(entries: &[TrustEntry], style: Style, wide: bool) -> String {
    let mut head = vec!["PLUGIN", "SHA256", "BY", "SINCE", "PROGRAM"];
    head.extend(wide.then_some("DIRECTORY"));
    let mut table = Table::new(head);
    for TrustEntry { plugin, directory, pin } in entries {
        let digest = pin.sha256.to_string();
        let digest = if wide { digest } else { digest[..16].to_owned() };
        let cells = [plugin.to_string(), digest, by(pin).to_owned(), pin.since.clone(), pin.path.clone()];
        let cells = cells.into_iter().chain(wide.then(|| directory.clone()));
        table.row(cells.map(|cell| (cell, Paint::None)));
    }
    table.render(style)
}

fn by(pin: &Pin) -> &'static str {
    if pin.approved { "approval" } else { "first use" }
}

fn describe(trust: &Trust, style: Style) -> String {
    let mut table = Table::new(["", "", ""]);
    let mut line = |title: &str, value: String, paint: Paint| {
        table.row([(String::new(), Paint::None), (title.to_owned(), Paint::Faint), (value, paint)]);
    };
    let (words, paint) = match trust.verdict {
        TrustVerdict::NotAsked if trust.installed.as_ref().is_some_and(|known| !known.versions.is_empty()) => {
            ("every start compares it with what was installed", Paint::Good)
        }
        TrustVerdict::NotAsked => ("whatever it runs is used", Paint::None),
        TrustVerdict::Trusted => ("it runs what it may run", Paint::Good),
        TrustVerdict::First => ("nothing is recorded: what it runs when it is activated is", Paint::Notice),
        TrustVerdict::Changed => ("it runs another program than it may", Paint::Bad),
        TrustVerdict::Untold if trust.executable.is_none() => ("nobody listens on its socket", Paint::Faint),
        TrustVerdict::Untold => ("which program it runs cannot be told", Paint::Bad),
    };
    line("verdict", words.to_owned(), paint);
    if let Some(pin) = &trust.pin {
        line("may run", pin.path.clone(), Paint::None);
        line("sha256", pin.sha256.to_string(), Paint::None);
        line("since", format!("{}, {}", pin.since, by(pin)), Paint::None);
    }
    if let Some(known) = &trust.installed {
        for (version, installed) in known.versions.iter().rev() {
            let what = match (&installed.contents, &installed.signed_by) {
                (None, _) => "as a folder, not compared".to_owned(),
                (Some(digest), None) => format!("MANIFEST {digest}, not signed"),
                (Some(digest), Some(key)) => format!("MANIFEST {digest}, signed by {key}"),
            };
            line("installed", format!("{version}, {}: {what}", installed.since), Paint::None);
        }
        for granted in grants::words(&known.granted) {
            line("granted", granted, Paint::None);
        }
    }
    for (title, value, paint) in trust.executable.iter().flat_map(lines) {
        line(title, value, paint);
    }
    format!("{}\n{}", escape(trust.plugin.as_str()), table.render(style))
}

/// What is known of a program, for people.
pub(super) fn lines(executable: &Executable) -> Vec<(&'static str, String, Paint)> {
    let mut lines = Vec::new();
    if let Some(path) = &executable.path {
        let gone = if executable.deleted { ", which was removed or replaced since" } else { "" };
        lines.push(("runs", format!("{path}{gone}"), if executable.deleted { Paint::Notice } else { Paint::None }));
    }
    if let Some(digest) = executable.sha256 {
        let of = if executable.interpreter { " (of the interpreter, not of what it runs)" } else { "" };
        lines.push(("sha256", format!("{digest}{of}"), Paint::None));
    }
    if let Some(problem) = &executable.problem {
        lines.push(("program", problem.clone(), Paint::Notice));
    }
    if !executable.command_line.is_empty() {
        lines.push(("started as", executable.command_line.join(" "), Paint::None));
    }
    lines
}
