//! A plugin is built, once, in the folder that it was fetched to.

use std::path::Path;
use std::time::Duration;

use goplug_pconf_schema::{Code, Fault, printable};

use super::plan::{Scratch, build};
use super::recipe::Recipe;
use super::run::{passed_on, run};
use super::{Progress, Tell, plan};
use crate::installed::blocking;
use crate::options::Builder;
use crate::words::show;

/// Runs what builds the plugin, and brings what it made to the plugin's folder.
///
/// # Errors
/// `unavailable` when it fails, with the last lines that it wrote; `deadline_exceeded` when it takes too long; `not_found`
/// without its program; `invalid_argument` when what it was to make is not there.
///
/// # Cancel safety
/// Dropping the future ends it, with everything that it started.
pub(super) async fn run_build(
    options: &Builder,
    recipe: &Recipe,
    scratch: &Scratch,
    within: Duration,
    tell: Tell<'_>,
) -> Result<(), Fault> {
    let shown = printable(&recipe.command.join(" "));
    let rustup = std::env::home_dir().map(|home| home.join(".rustup")).filter(|folder| folder.is_dir());
    let program = build(&recipe.command, scratch, within, passed_on(&plan::BUILD), rustup.as_deref());
    let ran = run(options, program, |line| tell(Progress::Building { line: line.text.clone() })).await?;
    if !ran.succeeded() {
        let words = ran.last_words();
        let said = words.iter().rev().take(5).rev().map(|line| printable(line)).collect::<Vec<_>>().join(" | ");
        let text = format!("the build `{shown}` failed: {}: {said}", ran.exit);
        return Err(Fault::new(Code::Unavailable, text).with_data(serde_json::json!({ "output": words })));
    }
    let (recipe, scratch) = (recipe.clone(), scratch.clone());
    blocking(move || {
        recipe.kept.iter().try_for_each(|path| keep(&scratch.source().join(path), &scratch.plugin().join(path), &shown))
    })
    .await
}

/// Moves what the build made. It may hold whatever it wants: what can be installed is looked at by the installation.
fn keep(made: &Path, kept: &Path, command: &str) -> Result<(), Fault> {
    if made.symlink_metadata().is_err() {
        let text = format!("the build `{command}` did not make {}", show(made.file_name().map_or(made, Path::new)));
        return Err(Fault::new(Code::InvalidArgument, text));
    }
    let moved = (|| {
        match kept.symlink_metadata() {
            Ok(status) if status.is_dir() => std::fs::remove_dir_all(kept)?,
            Ok(_) => std::fs::remove_file(kept)?,
            Err(_) => std::fs::create_dir_all(kept.parent().unwrap_or(kept))?,
        }
        std::fs::rename(made, kept)
    })();
    moved.map_err(|error: std::io::Error| Fault::new(Code::Internal, format!("cannot keep {}: {error}", show(kept))))
}
