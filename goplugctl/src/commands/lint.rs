//! `lint`: `.pconf` files and manifests, read only. No plugin is touched.

use goplug_registry::lint as check;

use crate::args::{Global, LintArgs};
use crate::exit_code;
use crate::failure::Failure;
use crate::output::style::Paint;
use crate::output::{Out, Style, escape};

/// Checks files and folders; exit code 10 if one of them cannot be used.
///
/// # Errors
/// The output cannot be written.
pub(crate) fn lint(global: &Global, args: &LintArgs) -> Result<u8, Failure> {
    let mut out = Out::stdout(global.output, global.quiet, global.color);
    let reports: Vec<_> = args.paths.iter().map(|path| check(path)).collect();
    let usable = reports.iter().all(goplug_registry::LintReport::is_usable);
    let files: Vec<_> = reports.into_iter().flat_map(|report| report.files).collect();
    let text = |style: Style, _| {
        let mut text = String::new();
        for file in &files {
            let name = escape(&file.file.display().to_string());
            let problems = file.problems.iter().map(|note| (note, Paint::Bad, "error"));
            let warnings = file.warnings.iter().map(|note| (note, Paint::Notice, "warning"));
            for (note, paint, word) in problems.chain(warnings) {
                let place = [note.line, note.column]
                    .into_iter()
                    .flatten()
                    .map(|number| format!(":{number}"))
                    .collect::<String>();
                text.push_str(&format!("{name}{place}: {}: {}\n", style.paint(paint, word), escape(&note.message)));
            }
            if file.problems.is_empty() && file.warnings.is_empty() {
                text.push_str(&format!("{name}: {}\n", style.paint(Paint::Good, "ok")));
            }
        }
        text
    };
    let names = || files.iter().map(|file| file.file.display().to_string()).collect();
    out.show(&files, false, names, text)?;
    Ok(if usable { exit_code::DONE } else { exit_code::INVALID })
}
