//! `completion`, `man`, `version`, `help`: about the program itself.

use std::path::Path;

use clap::CommandFactory;
use goplug_pconf_schema::{Code, Fault};
use serde::Serialize;

use crate::args::{Cli, CompletionArgs, Global, HelpArgs, ManArgs};
use crate::failure::Failure;
use crate::output::{Out, escape};

const NAMES: &str = include_str!("help/names.txt");
const TARGETS: &str = include_str!("help/targets.txt");
const OUTPUT: &str = include_str!("help/output.txt");
const EXIT_CODES: &str = include_str!("help/exit-codes.txt");

/// Prints the completion script.
///
/// # Errors
/// The output cannot be written.
pub(crate) fn completion(out: &mut Out, args: &CompletionArgs) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "goplugctl", &mut script);
    Ok(out.bytes(&script)?)
}

/// Writes one manual page per verb.
///
/// # Errors
/// The folder cannot be made or written.
pub(crate) fn man(out: &mut Out, args: &ManArgs) -> Result<(), Failure> {
    let shown = escape(&args.folder.display().to_string());
    let failed = |error: std::io::Error| {
        Failure::new(
            format!("cannot write manual pages into `{shown}`"),
            Fault::new(Code::InvalidArgument, error.to_string()),
        )
    };
    std::fs::create_dir_all(&args.folder).map_err(failed)?;
    let names = write_pages(&args.folder).map_err(failed)?;
    Ok(out.changed(&[serde_json::json!({ "folder": shown, "pages": names })], true, &names)?)
}

fn write_pages(folder: &Path) -> std::io::Result<Vec<String>> {
    let mut root = Cli::command();
    root.build();
    let mut names = Vec::new();
    let mut open = vec![root];
    while let Some(command) = open.pop() {
        open.extend(command.get_subcommands().cloned());
        let page = clap_mangen::Man::new(command);
        let name = page.get_filename();
        let mut bytes = Vec::new();
        page.render(&mut bytes)?;
        std::fs::write(folder.join(&name), bytes)?;
        names.push(name);
    }
    names.sort();
    Ok(names)
}

/// Prints the version of the program and of the protocol.
///
/// # Errors
/// The output cannot be written.
pub(crate) fn version(global: &Global) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Version {
        version: &'static str,
        protocol: u32,
    }
    let version = Version { version: env!("CARGO_PKG_VERSION"), protocol: goplug_pconf_schema::wire::PROTOCOL };
    let mut out = Out::stdout(global.output, global.quiet, global.color);
    let text = format!("goplugctl {}, protocol v{}\n", version.version, version.protocol);
    Ok(out.show(&[version], true, || vec![env!("CARGO_PKG_VERSION").to_owned()], |_, _| text)?)
}

/// Explains a verb or a topic.
///
/// # Errors
/// There is no such topic.
pub(crate) fn help(out: &mut Out, args: &HelpArgs) -> Result<(), Failure> {
    let mut command = Cli::command();
    let text = match args.topic.as_deref() {
        None => command.render_long_help().to_string(),
        Some("names") => NAMES.to_owned(),
        Some("targets") => TARGETS.to_owned(),
        Some("output") => OUTPUT.to_owned(),
        Some("exit-codes") => EXIT_CODES.to_owned(),
        Some(verb) => {
            command.build();
            let found = command.find_subcommand_mut(verb);
            let unknown = || {
                Failure::usage(format!("no help on `{}`", escape(verb)), "it is no verb and no topic")
                    .hint("goplugctl help")
            };
            found.ok_or_else(unknown)?.render_long_help().to_string()
        }
    };
    Ok(out.bytes(text.as_bytes())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_has_a_page() {
        let folder = tempfile::tempdir().unwrap();
        let names = write_pages(folder.path()).unwrap();
        for name in ["goplugctl.1", "goplugctl-list.1", "goplugctl-daemon-run.1"] {
            assert!(names.iter().any(|page| page == name), "{name}: {names:?}");
            assert!(std::fs::read_to_string(folder.path().join(name)).unwrap().contains("goplugctl"), "{name}");
        }
    }

    #[test]
    fn every_exit_code_is_explained() {
        for code in [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 130] {
            assert!(EXIT_CODES.lines().any(|line| line.trim_start().starts_with(&format!("{code} "))), "{code}");
        }
    }
}
