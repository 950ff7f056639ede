//! `build`: a repository becomes a package, in the way in which `install` would build it. No plugin directory is touched.

use goplug_pconf_schema::locator::{GitTransport, Repository};
use goplug_pconf_schema::{Code, Fault, Locator};
use goplug_registry::Fetch;

use crate::args::{BuildArgs, Global, PackArgs};
use crate::failure::Failure;
use crate::output::{Out, escape};
use crate::progress::Line;
use crate::target::Nowhere;

use super::pack::pack;
use super::source::{BUILD_LIMIT, WouldBuild, locator};

/// Builds a repository, and packs what came of it.
///
/// # Errors
/// It cannot be had, built or packed.
pub(crate) async fn build(global: &Global, args: &BuildArgs) -> Result<(), Failure> {
    let what = format!("cannot build {}", escape(&args.source.display().to_string()));
    let failed = |fault: Fault| Failure::new(&what, fault);
    let repository = match locator(&args.source).map_err(failed)? {
        Locator::Git(repository) => repository,
        // What is committed there: so it is what others get.
        Locator::Path(path) if path.join(".git").exists() => {
            let address = path.to_string_lossy().into_owned();
            Repository { address, transport: GitTransport::File, reference: None }
        }
        _ => {
            let fault = Fault::new(Code::InvalidArgument, "it is no git repository: a folder is packed as it is");
            return Err(failed(fault).hint(format!("goplugctl pack {}", escape(&args.source.display().to_string()))));
        }
    };
    let nowhere = Nowhere::open().await.map_err(failed)?;
    let line = Line::new(global.quiet);
    let source = Locator::Git(repository);
    let fetching = nowhere.registry.fetch(&source, Fetch::default(), |progress| line.tell(progress));
    let fetched = line.during("fetching", fetching).await.map_err(failed)?;
    if args.dry_run {
        let mut out = Out::stdout(global.output, global.quiet, global.color);
        return match WouldBuild::of(&fetched) {
            Some(would_build) => would_build.show(&mut out, "packed"),
            None => pack(global, &packing(args, fetched.path())),
        };
    }
    let building = nowhere.registry.build(fetched, BUILD_LIMIT, |progress| line.tell(progress));
    let fetched = line.during("building", building).await.map_err(failed)?;
    pack(global, &packing(args, fetched.path()))
}

fn packing(args: &BuildArgs, folder: &std::path::Path) -> PackArgs {
    let (out, key) = (args.out.clone(), args.key.clone());
    PackArgs { folder: folder.to_owned(), out, key, dry_run: args.dry_run }
}
