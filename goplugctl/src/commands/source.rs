//! What `install` and `upgrade` are given: a path of this machine, or something to fetch and to build first. Both happen on
//! this side of a daemon, which is handed what came of it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use goplug_pconf_schema::locator::GitTransport;
use goplug_pconf_schema::{Code, Fault, Locator, Origin};
use goplug_registry::{Fetch, Fetched};
use serde::Serialize;

use crate::args::SourceArgs;
use crate::failure::Failure;
use crate::output::escape;
use crate::session::Session;
use crate::target::Directory;

/// How long a build may take; `--timeout` is for the whole command.
const BUILD_LIMIT: Duration = Duration::from_secs(30 * 60);

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
    /// Shows it.
    pub(super) fn show(&self, session: &mut Session) -> Result<(), Failure> {
        let (source, commit) = (escape(&self.origin.source), self.origin.commit.clone().unwrap_or_default());
        let text = format!("{source} at {commit} would be built by `{}`, and installed\n", line(&self.build));
        let names = || vec![self.origin.source.clone()];
        Ok(session.out.show(std::slice::from_ref(self), true, names, |_, _| text)?)
    }
}

/// Makes a path of what the command line names; `what` is what cannot be done without.
pub(super) async fn source(
    session: &mut Session,
    named: &Path,
    args: &SourceArgs,
    dry_run: bool,
) -> Result<Source, Fault> {
    let wrong = |why: String| Fault::new(Code::InvalidArgument, why);
    let here = std::env::current_dir().map_err(|error| wrong(format!("the current folder: {error}")))?;
    let locator = match named.to_str().map(str::parse::<Locator>) {
        Some(Ok(Locator::Git(repository))) if repository.transport == GitTransport::File => Locator::Git(repository),
        // What is there under this name is meant, whatever else the name could be.
        None => Locator::Path(named.to_owned()),
        Some(_) if named.exists() => Locator::Path(named.to_owned()),
        Some(read) => read.map_err(wrong)?,
    };
    let mut locator = locator.seen_from(&here);
    if let Locator::Path(path) = &mut locator {
        *path = std::path::absolute(&*path).map_err(|error| wrong(error.to_string()))?;
    }
    let directories = session.target.directories().await?;
    let first = directories.first().ok_or_else(|| Fault::new(Code::WrongState, "it serves no plugin directory"))?;
    let directory = Directory::open(Path::new(first), true).await?;
    let how = Fetch { sha256: args.sha256, ..Fetch::default() };
    let mut fetched = directory.fetch(&locator, how, |_| ()).await?;
    let mut would_build = None;
    if let (Some(command), Some(origin)) = (fetched.to_build(), fetched.origin()) {
        if dry_run {
            would_build = Some(WouldBuild { origin: origin.clone(), build: command.to_vec(), dry_run });
        } else {
            let commit = origin.commit.as_deref().unwrap_or_default();
            let what = format!("build {} at {commit} by `{}`", escape(&origin.source), line(command));
            let question = format!("{what}, which may do whatever you may do?");
            if !args.build && !session.consents(&question).await.unwrap_or(false) {
                let text = format!("nobody allowed to {what}, which may do whatever you may do: say --build");
                return Err(Fault::new(Code::Denied, text));
            }
            fetched = directory.build(fetched, BUILD_LIMIT, |_| ()).await?;
        }
    }
    Ok(Source {
        path: fetched.path().to_owned(),
        allow_unsigned: fetched.allows_unsigned(args.allow_unsigned),
        is_fetched: fetched.origin().is_some(),
        would_build,
        _fetched: Some(fetched),
    })
}

/// A command as people read it.
fn line(command: &[String]) -> String {
    escape(&command.join(" "))
}
