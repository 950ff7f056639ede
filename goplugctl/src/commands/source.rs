//! What `install` and `upgrade` are given: a path of this machine, or something to fetch and to build first. Both happen on
//! this side of a daemon, which is handed what came of it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use goplug_pconf_schema::locator::GitTransport;
use goplug_pconf_schema::manifest::{Folder, MANIFEST_NAME};
use goplug_pconf_schema::{Code, Fault, Locator, MAX_PCONF_BYTES, Manifest, Origin};
use goplug_registry::{Fetch, Fetched};
use serde::Serialize;

use crate::args::SourceArgs;
use crate::failure::Failure;
use crate::output::{Out, escape};
use crate::progress::Line;
use crate::session::Session;
use crate::target::Directory;

/// How long a build may take; `--timeout` is for the whole command.
pub(super) const BUILD_LIMIT: Duration = Duration::from_secs(30 * 60);

/// Something that can be installed; what was fetched is removed with it.
pub(super) struct Source {
    /// Absolute: a daemon may stand in another folder.
    pub(super) path: PathBuf,
    /// Whether it may be unsigned.
    pub(super) allow_unsigned: bool,
    /// Whether it came from elsewhere.
    pub(super) is_fetched: bool,
    /// With `--dry-run`: what would be built, and cannot be looked at before.
    pub(super) would_build: Option<WouldBuild>,
    /// The folder that it lies in.
    _fetched: Option<Fetched>,
}

/// What a dry run tells of something that would be built.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct WouldBuild {
    origin: Origin,
    build: Vec<String>,
    dry_run: bool,
}

impl WouldBuild {
    /// What has to be built of what was fetched, if anything.
    pub(super) fn of(fetched: &Fetched) -> Option<Self> {
        let build = fetched.to_build()?.to_vec();
        fetched.origin().map(|origin| Self { origin: origin.clone(), build, dry_run: true })
    }

    /// Shows it; `then` is what would become of it.
    pub(super) fn show(&self, out: &mut Out, then: &str) -> Result<(), Failure> {
        let (source, commit) = (escape(&self.origin.source), self.origin.commit.clone().unwrap_or_default());
        let text = format!("{source} at {commit} would be built by `{}`, and {then}\n", shown(&self.build));
        let names = || vec![self.origin.source.clone()];
        Ok(out.show(std::slice::from_ref(self), true, names, |_, _| text)?)
    }
}

/// What the command line names, with absolute paths.
pub(super) fn locator(named: &Path) -> Result<Locator, Fault> {
    let wrong = |why: String| Fault::new(Code::InvalidArgument, why);
    let here = std::env::current_dir().map_err(|error| wrong(format!("the current folder: {error}")))?;
    let read = match named.to_str().map(str::parse::<Locator>) {
        Some(Ok(Locator::Git(repository))) if repository.transport == GitTransport::File => Locator::Git(repository),
        // What is there under this name is meant, whatever else the name could be.
        None => Locator::Path(named.to_owned()),
        Some(_) if named.exists() => Locator::Path(named.to_owned()),
        Some(read) => read.map_err(wrong)?,
    };
    match read.seen_from(&here) {
        Locator::Path(path) => Ok(Locator::Path(std::path::absolute(path).map_err(|error| wrong(error.to_string()))?)),
        read => Ok(read),
    }
}

/// Makes a path of what the command line names; `what` is what cannot be done without.
pub(super) async fn source(
    session: &mut Session,
    named: &Path,
    args: &SourceArgs,
    dry_run: bool,
) -> Result<Source, Fault> {
    let locator = locator(named)?;
    if let (Locator::Path(path), None) = (&locator, args.sha256)
        && !is_elsewhere(path)
    {
        // Nothing has to be asked of anybody.
        let (path, allow_unsigned) = (path.clone(), args.allow_unsigned);
        return Ok(Source { path, allow_unsigned, is_fetched: false, would_build: None, _fetched: None });
    }
    let directories = session.target.directories().await?;
    let first = directories.first().ok_or_else(|| Fault::new(Code::WrongState, "it serves no plugin directory"))?;
    let directory = Directory::open(Path::new(first), true).await?;
    let how = Fetch { sha256: args.sha256, ..Fetch::default() };
    let line = Line::new(session.out.is_quiet());
    let fetching = directory.fetch(&locator, how, |progress| line.tell(progress));
    let mut fetched = line.during("fetching", fetching).await?;
    let mut would_build = WouldBuild::of(&fetched);
    if let Some(WouldBuild { origin, build, .. }) = would_build.take_if(|_| !dry_run) {
        let commit = origin.commit.as_deref().unwrap_or_default();
        let what = format!("build {} at {commit} by `{}`", escape(&origin.source), shown(&build));
        let question = format!("{what}, which may do whatever you may do?");
        if !args.build && !session.consents(&question).await.unwrap_or(false) {
            let text = format!("nobody allowed to {what}, which may do whatever you may do: say --build");
            return Err(Fault::new(Code::Denied, text));
        }
        let building = directory.build(fetched, BUILD_LIMIT, |progress| line.tell(progress));
        fetched = line.during("building", building).await?;
    }
    Ok(Source {
        path: fetched.path().to_owned(),
        allow_unsigned: fetched.allows_unsigned(args.allow_unsigned),
        is_fetched: fetched.origin().is_some(),
        would_build,
        _fetched: Some(fetched),
    })
}

/// Whether the manifest at this path says that its plugin is elsewhere.
fn is_elsewhere(path: &Path) -> bool {
    let is_manifest = path.file_name().is_some_and(|name| name == MANIFEST_NAME);
    let file = if is_manifest { path.to_owned() } else { path.join(MANIFEST_NAME) };
    let is_small =
        |file: &Path| file.metadata().is_ok_and(|status| status.is_file() && status.len() <= MAX_PCONF_BYTES as u64);
    let text = is_small(&file).then(|| std::fs::read(&file).ok()).flatten();
    let manifest = text.and_then(|text| Manifest::parse(&text, Folder::default()).ok());
    manifest.is_some_and(|manifest| manifest.elsewhere().is_some())
}

/// A command as people read it.
fn shown(command: &[String]) -> String {
    escape(&command.join(" "))
}
