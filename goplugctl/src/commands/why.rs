//! `why`: the chain from a file to a callable plugin, its first broken link, and the command that mends it.

use std::path::Path;

use goplug_pconf_schema::PluginId;
use goplug_pconf_schema::admin::{Link, LinkState, Why};

use crate::args::WhyArgs;
use crate::exit_code;
use crate::failure::{Failure, at_target};
use crate::output::style::Paint;
use crate::output::{Style, Table, escape};
use crate::pick;
use crate::session::Session;

pub(super) async fn why(session: &mut Session, args: &WhyArgs) -> Result<(), Failure> {
    let subject = subject(&args.subject);
    let what = format!("cannot explain `{}`", args.subject);
    let failed = |fault| Failure::new(what.clone(), fault);
    if !subject.contains('/') {
        let known = session.target.known().await.map_err(failed)?;
        let name = pick::ranged(&what, &subject, &known).ok().flatten().map_or_else(|| subject.clone(), |it| it.name);
        // No plugin of that name is what there is to explain; two are a question.
        if let Err(failure) = pick::bare(&what, &name, &known)
            && failure.exit() == exit_code::USAGE
        {
            return Err(failure);
        }
    }
    let why = session.target.why(&subject).await.map_err(failed)?;
    if !why.callable {
        session.exit_with(exit_code::WRONG_STATE);
    }
    let name = || vec![why.plugin.as_ref().map_or_else(|| why.subject.clone(), PluginId::to_string)];
    let flags = session.flags.clone();
    Ok(session.out.show(std::slice::from_ref(&why), true, name, |style, _| text(&why, style, &flags))?)
}

/// What is asked for: a file of this folder by its whole path, since whoever answers may stand in another one.
fn subject(text: &str) -> String {
    let path = Path::new(text);
    let is_file = path.symlink_metadata().is_ok_and(|metadata| !metadata.is_dir());
    match std::path::absolute(path) {
        Ok(absolute) if is_file => absolute.display().to_string(),
        _ => text.to_owned(),
    }
}

/// `flags` lead a command of ours to where this answer is from.
fn text(why: &Why, style: Style, flags: &str) -> String {
    let who = why.plugin.as_ref().map_or(why.subject.as_str(), PluginId::as_str);
    let is_there = || why.broken().is_some_and(|broken| broken.name == "loaded");
    let state = match why.state {
        Some(state) => state.as_str(),
        None if is_there() => "not seen yet",
        None => "not found",
    };
    let verdict =
        if why.callable { style.paint(Paint::Good, "callable") } else { style.paint(Paint::Bad, "not callable") };
    let mut out = format!("{} is {state}, {verdict}\n{}", escape(who), chain(&why.links, style));
    if let Some(broken) = why.broken() {
        out.push_str(&format!("broken: {}: {}\n", escape(&broken.name), escape(&broken.detail)));
    }
    if let Some(fix) = &why.fix {
        out.push_str(&format!("fix: {}\n", escape(&at_target(fix, flags))));
    }
    out
}

/// The links of a chain, one line each.
pub(super) fn chain(links: &[Link], style: Style) -> String {
    let mut table = Table::new(["", "", "", ""]);
    for link in links {
        let (word, paint) = match link.state {
            LinkState::Ok => ("ok", Paint::Good),
            LinkState::Warning => ("warning", Paint::Notice),
            LinkState::Broken => ("BROKEN", Paint::Bad),
            LinkState::Skipped => ("-", Paint::Faint),
        };
        table.row([("", Paint::None), (word, paint), (&link.name, Paint::None), (&link.detail, Paint::None)]);
    }
    table.render(style)
}

#[cfg(test)]
mod tests {
    use goplug_pconf_schema::admin::State;

    use super::*;

    #[test]
    fn the_broken_link_and_its_fix_are_told_and_hostile_text_is_escaped() {
        let link = |name: &str, state, detail: &str| Link { name: name.into(), state, detail: detail.into() };
        let why = Why {
            subject: "x".into(),
            plugin: Some(PluginId::parse("Test/Do").unwrap()),
            state: Some(State::Backoff),
            callable: false,
            links: vec![
                link("file", LinkState::Ok, "readable"),
                link("socket", LinkState::Broken, "dead \u{1b}[2J"),
                link("hello", LinkState::Skipped, ""),
            ],
            fix: Some("start it again".into()),
        };
        let expected = "Test/Do is backoff, not callable\n  ok      file    readable\n  BROKEN  socket  dead \\u{1b}[2J\n  -       hello\n\
                        broken: socket: dead \\u{1b}[2J\nfix: start it again\n";
        assert_eq!(text(&why, Style::Plain, ""), expected);
    }

    #[test]
    fn files_are_named_whole_and_plugins_as_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.pconf");
        std::fs::write(&file, "{}").unwrap();
        assert_eq!(subject(&file.display().to_string()), file.display().to_string());
        for name in ["Test/Do", "nothing-of-that-name", "nothing.pconf"] {
            assert_eq!(subject(name), name);
        }
    }
}
