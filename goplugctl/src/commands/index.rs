//! `search`, `pull`, `push`: packages in a folder with an index, or behind an address. No plugin directory is touched.

use std::path::{Path, PathBuf};

use goplug_pconf_schema::{Code, Fault, IndexedPackage, Locator, PluginRef};
use goplug_registry::{Packages, push as put};
use serde::Serialize;

use crate::args::{Global, IndexArgs, PullArgs, PushArgs, SearchArgs};
use crate::failure::Failure;
use crate::output::style::Paint;
use crate::output::{Out, Style, Table, escape};
use crate::progress::Line;
use crate::target::Nowhere;

use super::source::locator;

/// The index that is used when none is named.
const INDEX: &str = "GOPLUG_INDEX";

/// Shows what an index holds.
///
/// # Errors
/// The index cannot be had or read.
pub(crate) async fn search(global: &Global, args: &SearchArgs) -> Result<(), Failure> {
    let what = "cannot search";
    let (_, packages) = open(global, &named(what, &args.index)?).await.map_err(|fault| Failure::new(what, fault))?;
    let mut found: Vec<&IndexedPackage> = packages.index.search(&args.text);
    if !args.all {
        // They are in order, the newest of each last.
        let newest = |at: usize| found.get(at + 1).is_none_or(|next| next.shown() != found[at].shown());
        found = (0..found.len()).filter(|at| newest(*at)).map(|at| found[at]).collect();
    }
    let names = || found.iter().map(|it| format!("{}@{}", it.shown(), it.version)).collect();
    let mut out = Out::stdout(global.output, global.quiet, global.color);
    Ok(out.show(&found, false, names, |style, wide| table(&found, style, wide))?)
}

fn table(found: &[&IndexedPackage], style: Style, wide: bool) -> String {
    let mut head = vec!["PLUGIN", "VERSION", "DESCRIPTION"];
    head.extend(wide.then_some("SIZE"));
    head.extend(wide.then_some("FILE"));
    let mut table = Table::new(head);
    for it in found {
        let description = it.description.clone().unwrap_or_default();
        let mut cells = vec![it.shown(), it.version.to_string(), description];
        if wide {
            cells.extend([it.size.to_string(), it.file.clone()]);
        }
        table.row(cells.into_iter().map(|cell| (cell, Paint::None)));
    }
    table.render(style)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Pulled<'a> {
    #[serde(flatten)]
    package: &'a IndexedPackage,
    written: String,
}

/// Gets a package out of an index.
///
/// # Errors
/// The index or the package cannot be had, or is not what the index says.
pub(crate) async fn pull(global: &Global, args: &PullArgs) -> Result<(), Failure> {
    let what = format!("cannot pull `{}`", escape(&args.plugin));
    let failed = |fault: Fault| Failure::new(&what, fault);
    let wanted =
        PluginRef::parse(&args.plugin).map_err(|error| failed(Fault::new(Code::InvalidArgument, error.to_string())))?;
    let (nowhere, packages) = open(global, &named(&what, &args.index)?).await.map_err(failed)?;
    let package = packages.index.find(&wanted).map_err(|fault| failed(fault).hint("goplugctl search --all"))?;
    let file = args.out.clone().unwrap_or_else(|| {
        let last = package.file.rsplit('/').next().unwrap_or(&package.file);
        PathBuf::from(last)
    });
    let line = Line::new(global.quiet);
    let pulling = nowhere.registry.pull(&packages, package, &file, |progress| line.tell(progress));
    line.during("fetching", pulling).await.map_err(failed)?;
    let written = file.display().to_string();
    let mut out = Out::stdout(global.output, global.quiet, global.color);
    let names = vec![written.clone()];
    Ok(out.changed(&[Pulled { package, written }], true, &names)?)
}

/// Puts a package into a folder and its index.
///
/// # Errors
/// It is no package, the index names another one of its version, or the folder cannot be written to.
pub(crate) fn push(global: &Global, args: &PushArgs) -> Result<(), Failure> {
    let shown = escape(&args.package.display().to_string());
    let pushed = put(&args.package, &args.folder, args.dry_run)
        .map_err(|fault| Failure::new(format!("cannot push {shown}"), fault))?;
    let names = vec![args.folder.join(&pushed.file).display().to_string()];
    let mut out = Out::stdout(global.output, global.quiet, global.color);
    if !args.dry_run {
        return Ok(out.changed(&[pushed], true, &names)?);
    }
    let text = format!("{} {} would be put in {}\n", pushed.shown(), pushed.version, escape(&names[0]));
    Ok(out.show(std::slice::from_ref(&pushed), true, || names.clone(), |_, _| text)?)
}

/// The index that is meant.
fn named(what: &str, args: &IndexArgs) -> Result<PathBuf, Failure> {
    let variable = || std::env::var_os(INDEX).filter(|value| !value.is_empty()).map(PathBuf::from);
    let missing = || Failure::usage(what, format!("no index is named: say --index, or set {INDEX}"));
    args.index.clone().or_else(variable).ok_or_else(missing)
}

async fn open(global: &Global, named: &Path) -> Result<(Nowhere, Packages), Fault> {
    let at = match locator(named)? {
        // A folder of packages may be called so.
        Locator::Git(repository) if Path::new(&repository.address).is_dir() => Locator::Path(repository.address.into()),
        at => at,
    };
    let nowhere = Nowhere::open().await?;
    let packages = Line::new(global.quiet).during("fetching", nowhere.registry.packages(&at)).await?;
    Ok((nowhere, packages))
}
