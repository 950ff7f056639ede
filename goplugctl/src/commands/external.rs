//! Verbs of others: `goplugctl-VERB` in `PATH`.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::process::Command;

use clap::CommandFactory;
use goplug_pconf_schema::nearest;

use crate::args::{Cli, Global, unshielded};
use crate::failure::Failure;
use crate::output::escape;

/// Becomes the program `goplugctl-VERB`; `--dir` and `--socket` reach it as `GOPLUG_DIR` and `GOPLUG_SOCKET`. Returns only
/// if there is no such program.
pub(crate) fn run(global: &Global, words: &[OsString]) -> Failure {
    let verb = words.first().cloned().unwrap_or_default();
    let mut program = OsString::from("goplugctl-");
    program.push(&verb);
    let mut command = Command::new(&program);
    command.args(words.iter().skip(1).map(|word| unshielded(word)));
    if let Some(directory) = &global.dir {
        command.env("GOPLUG_DIR", directory).env_remove("GOPLUG_SOCKET");
    }
    if let Some(socket) = &global.socket {
        command.env("GOPLUG_SOCKET", socket).env_remove("GOPLUG_DIR");
    }
    // A name with a slash would be a path, not a program in PATH.
    let is_name = !verb.is_empty() && !verb.to_string_lossy().contains('/');
    let error = is_name.then(|| command.exec());
    let shown = verb.to_string_lossy();
    let command = Cli::command();
    let verbs: Vec<&str> = command.get_subcommands().map(clap::Command::get_name).collect();
    let hint =
        nearest(&shown, &verbs).map_or_else(|| "goplugctl --help".to_owned(), |verb| format!("goplugctl {verb}"));
    let what = format!("unknown verb `{}`", escape(&shown));
    let why = match error {
        // A folder in PATH that may not be searched makes the kernel say that permission is denied.
        Some(error) if is_in_path(&program) => {
            format!("`{}` cannot be run: {error}", escape(&program.to_string_lossy()))
        }
        _ => format!("there is no `{}` in PATH either", escape(&program.to_string_lossy())),
    };
    Failure::usage(what, why).hint(hint)
}

fn is_in_path(program: &OsStr) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).exists())
}
