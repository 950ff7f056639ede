//! `install` and `remove`: folders in, folders out.

use goplug_pconf_schema::admin::{Installation, Removal};
use goplug_pconf_schema::grants::words;
use goplug_pconf_schema::{Code, Fault, PluginRef, Reason};

use super::grant;
use crate::args::{InstallArgs, Plugins, RemoveArgs};
use crate::failure::Failure;
use crate::output::escape;
use crate::progress::Line;
use crate::session::Session;
use crate::target::{Change, Install};

use super::source::source;

pub(super) async fn install(session: &mut Session, args: &InstallArgs) -> Result<(), Failure> {
    let named = escape(&args.source.display().to_string());
    let what = format!("cannot install {named}");
    let fetched = source(session, &args.source, &args.how, args.dry_run).await;
    let is_there = args.source.exists();
    let source = fetched.map_err(|fault| refused(&what, fault, &named, is_there))?;
    let failed = |fault: Fault| match grant::option(&fault) {
        Some(option) => {
            let unsigned = if args.how.allow_unsigned { "--allow-unsigned " } else { "" };
            Failure::new(&what, fault).hint(format!("goplugctl install {unsigned}{option} {named}"))
        }
        None => refused(&what, fault, &named, is_there && !source.is_fetched),
    };
    if let Some(would_build) = &source.would_build {
        return would_build.show(&mut session.out, "installed");
    }
    let given = args.grant.clone().unwrap_or_default();
    let how = Install { allow_unsigned: source.allow_unsigned, grant: given, dry_run: args.dry_run };
    let installing = session.target.install(&source.path, how.clone());
    let answer = match Line::new(session.out.is_quiet()).during("installing", installing).await {
        Ok(answer) => answer,
        Err(fault) => match grant::ask(session, args.grant.as_ref(), &fault).await? {
            Some(grant) => session.target.install(&source.path, Install { grant, ..how }).await.map_err(failed)?,
            None => return Err(failed(fault)),
        },
    };
    let names = vec![answer.plugin.to_string()];
    if let (Some(note), false, false) = (&answer.note, answer.current, args.dry_run) {
        // Else it would be looked for in vain.
        let (plugin, version) = (&answer.plugin, &answer.version);
        session.say(&format!("{plugin} {version} lies beside and is not current: {}\n", escape(note)));
    }
    if !args.dry_run {
        grant::tell(session, answer.plugin.as_str(), &answer.asked);
        return Ok(session.out.changed(&[answer], true, &names)?);
    }
    let Installation { plugin, version, folder, files, bytes, .. } = &answer;
    let folder = escape(folder);
    let note = answer.note.as_ref().map(|note| {
        let word = if answer.current { "current" } else { "not current" };
        format!(", {word}: {}", escape(note))
    });
    let note = note.unwrap_or_default();
    let text = format!("{plugin} {version} would be installed in {folder}: {files} files, {bytes} bytes{note}\n");
    let asked = escape(&words(&answer.asked).join(", "));
    let text = if asked.is_empty() { text } else { format!("{text}it would have to be granted {asked}\n") };
    Ok(session.out.show(std::slice::from_ref(&answer), true, || names, |_, _| text)?)
}

/// The failure, with the command that helps; of what is not here no file can be looked at.
fn refused(what: &str, fault: Fault, named: &str, is_here: bool) -> Failure {
    let hint = match fault.code {
        _ if fault.reason == Some(Reason::Unsigned) && !is_here => {
            Some(format!("goplugctl install --sha256 HEX {named}"))
        }
        _ if fault.reason == Some(Reason::Unsigned) => Some(format!("goplugctl install --allow-unsigned {named}")),
        _ if fault.reason == Some(Reason::UntrustedKey) => Some("goplugctl trust add KEY".to_owned()),
        Code::InvalidArgument if is_here => Some(format!("goplugctl lint {named}")),
        Code::Conflict => Some("goplugctl list".to_owned()),
        _ => None,
    };
    let failure = Failure::new(what, fault);
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// One version of a plugin: what is behind the last `@` is a whole version, and no range.
fn split(name: &str) -> (&str, Option<&str>) {
    PluginRef::split_version(name).map_or((name, None), |(name, version)| (name, Some(version)))
}

pub(super) async fn remove(session: &mut Session, args: &RemoveArgs) -> Result<(), Failure> {
    let (plugins, versions): (Vec<_>, Vec<_>) = args.plugins.plugins.iter().map(|name| split(name)).unzip();
    let version = match versions.as_slice() {
        [version] => *version,
        several if several.iter().all(Option::is_none) => None,
        _ => return Err(Failure::usage("cannot remove", "a single version is removed alone: name one plugin")),
    };
    let plugins = plugins.into_iter().map(str::to_owned).collect();
    let picked = session.several("cannot remove", &Plugins { plugins, all: args.plugins.all }).await?;
    let asks = !picked.one && !args.dry_run;
    if asks && !session.confirm(&format!("remove {} plugins?", picked.plugins.len())).await? {
        return Ok(());
    }
    let (mut names, mut done) = (Vec::new(), Vec::new());
    for plugin in &picked.plugins {
        if args.stop && !args.dry_run && version.is_none() {
            // Whether it runs on is told by the removal.
            _ = session.target.change(plugin, Change::Stop).await;
        }
        match session.target.remove(plugin, version, args.dry_run).await {
            Ok(removal) => {
                names.push(plugin.to_string());
                done.push(removal);
            }
            Err(fault) => {
                session.failed(Failure::new(format!("cannot remove `{plugin}`"), fault).about(plugin))?;
            }
        }
    }
    if picked.one && done.is_empty() {
        return Ok(());
    }
    if args.dry_run {
        let line = |Removal { plugin, version, folder, .. }: &Removal| {
            format!("{plugin} {version} would be removed from {}\n", escape(folder))
        };
        let text = |_, _| done.iter().map(line).collect();
        return Ok(session.out.show(&done, picked.one, || names, text)?);
    }
    Ok(session.out.changed(&done, picked.one, &names)?)
}
