//! Plugins that are fetched: from an address, or from a git repository, of which they are built.
//!
//! In reading order: this file (what can be asked for), `plan` (which programs run, with what; pure), `run` (one program, under a
//! `goplug-host`), `file` (from an address), `git` (from a repository; `listing`, pure, is what it may hold), `build` (`recipe`,
//! pure, is how), `index` (which packages there are to be fetched). What comes out is a package or a folder in
//! `.goplug/staging` of the plugin directory, which [`Registry::install`] and [`Registry::upgrade`] take as any other, and which
//! is gone with its [`Fetched`]. Which texts name what is `goplug_pconf_schema::Locator`.
//!
//! This crate speaks to no network: `curl` and `git` do.

mod build;
mod file;
mod git;
mod index;
mod listing;
mod plan;
mod recipe;
mod run;

use std::path::{Path, PathBuf};
use std::time::Duration;

use goplug_package::{Keys, Package};
use goplug_pconf_schema::admin::PluginDetail;
use goplug_pconf_schema::locator::{FileUrl, Repository};
use goplug_pconf_schema::manifest::{Folder, MANIFEST_NAME};
use goplug_pconf_schema::{Code, Fault, Locator, Manifest, Origin, Sha256};

pub use index::{Packages, push};

use crate::install::origin::{self, SLIP};
use crate::install::package::Staged;
use crate::install::staging::Staging;
use crate::installed::blocking;
use crate::lint::lint_manifest_of;
use crate::registry::Registry;
use crate::tasks::Pending;
use plan::Scratch;
use recipe::Recipe;

/// The signal of a process that writes more than it may.
const FILE_TOO_LARGE: i32 = 25;

/// How to fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fetch {
    /// What the file at an address must have; also when the address carries one.
    pub sha256: Option<Sha256>,
    /// The largest file that is fetched, in bytes; by default 512 MiB, what the largest package holds.
    pub max_bytes: u64,
}

impl Default for Fetch {
    fn default() -> Self {
        Self { sha256: None, max_bytes: plan::MAX_FETCH_BYTES }
    }
}

/// What is going on.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress {
    /// A file comes: what is there, of how much if the server says so.
    Fetching {
        /// Bytes that are there.
        bytes: u64,
        /// Bytes that it will have.
        total: Option<u64>,
    },
    /// A repository comes.
    Cloning,
    /// The build wrote a line.
    Building {
        /// As it came: it may hold anything.
        line: String,
    },
}

/// Whoever is told what is going on, some ten times a second.
pub(crate) type Tell<'a> = &'a (dyn Fn(Progress) + Send + Sync);
/// The same, owned.
type Told<'a> = Box<dyn Fn(Progress) + Send + Sync + 'a>;

/// What was fetched, to be installed from [`Fetched::path`]. Dropped, it is removed.
#[derive(Debug)]
pub struct Fetched {
    path: PathBuf,
    origin: Option<Origin>,
    must_be_signed: bool,
    to_build: Option<ToBuild>,
    /// The folder that it lies in; `None` for what was here already.
    _scratch: Option<Staged>,
}

/// What has to be run before it can be installed.
#[derive(Debug)]
struct ToBuild {
    repository: Repository,
    recipe: Recipe,
    scratch: Scratch,
}

impl Fetched {
    /// What [`Registry::build`] will run, a program and its arguments; `None`: it can be installed as it is. What is run is what
    /// the repository says: it may do whatever this user may do.
    pub fn to_build(&self) -> Option<&[String]> {
        self.to_build.as_ref().map(|build| build.recipe.command.as_slice())
    }

    /// The folder or the package; not to be installed before it is built.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where it came from; `None` for what was here already.
    pub fn origin(&self) -> Option<&Origin> {
        self.origin.as_ref()
    }

    /// Whether nothing but a signature can tell that it is what was meant: it came without a checksum. What came with one, or
    /// from a commit, is what was asked for, and may be unsigned.
    pub fn must_be_signed(&self) -> bool {
        self.must_be_signed
    }

    /// Whether it may be unsigned, if whoever installs it says `asked` of files of this machine.
    pub fn allows_unsigned(&self, asked: bool) -> bool {
        !self.must_be_signed && (asked || self.origin.is_some())
    }
}

impl Registry {
    /// Fetches what `source` names to the staging folder of the plugin directory. A path of this machine is taken as it is, unless
    /// its manifest says that it is elsewhere (`remote_git`, `remote_url`). Nothing of it is run. `told` hears what is going on.
    ///
    /// # Errors
    /// `invalid_argument` for a checksum of what has none; `unavailable`, `not_found`, `denied`, `too_large` or
    /// `deadline_exceeded` when it cannot be had, or is not what its checksum says; `not_found` also without `curl`, `git`
    /// or `goplug-host`; what the system refuses. Nothing is left then.
    ///
    /// # Cancel safety
    /// Dropping the future ends what it started, and removes what is there of it.
    pub fn fetch<'a>(
        &'a self,
        source: &'a Locator,
        how: Fetch,
        told: impl Fn(Progress) + Send + Sync + 'a,
    ) -> Pending<'a, Result<Fetched, Fault>> {
        self.begin_fetch(source, how, Box::new(told))
    }

    fn begin_fetch<'a>(
        &'a self,
        source: &'a Locator,
        how: Fetch,
        told: Told<'a>,
    ) -> Pending<'a, Result<Fetched, Fault>> {
        Box::pin(self.fetch_telling(source, how, told))
    }

    async fn fetch_telling(&self, source: &Locator, how: Fetch, told: Told<'_>) -> Result<Fetched, Fault> {
        match source {
            Locator::Path(_) | Locator::Git(_) if how.sha256.is_some() => {
                let text = "a checksum is for a file that is fetched from an address";
                Err(Fault::new(Code::InvalidArgument, text))
            }
            Locator::Path(path) => {
                let file = manifest_file(path);
                match blocking(move || Ok(lint_manifest_of(&file))).await? {
                    Some(manifest) if manifest.elsewhere().is_some() => self.follow(path, manifest, how, &told).await,
                    _ => Ok(Fetched {
                        path: path.clone(),
                        origin: None,
                        must_be_signed: false,
                        to_build: None,
                        _scratch: None,
                    }),
                }
            }
            Locator::Url(url) => self.fetch_file(url, how, &told).await,
            Locator::Git(repository) => self.fetch_commit(repository, None, &told).await,
        }
    }

    /// Builds what [`Registry::fetch`] got from a repository, within the time: runs [`Fetched::to_build`] in a folder of its own,
    /// with an environment of its own. `told` hears what it writes. What needs no build comes back as it is.
    ///
    /// # Errors
    /// `unavailable` when the build fails, with the last lines that it wrote in `data.output`; `deadline_exceeded`; `not_found`
    /// when its program is not there; `invalid_argument` when it does not make what the manifest names. What was fetched is
    /// removed then.
    ///
    /// # Cancel safety
    /// Dropping the future ends the build with everything that it started, and removes what was fetched.
    pub fn build<'a>(
        &'a self,
        fetched: Fetched,
        within: Duration,
        told: impl Fn(Progress) + Send + Sync + 'a,
    ) -> Pending<'a, Result<Fetched, Fault>> {
        self.begin_build(fetched, within, Box::new(told))
    }

    fn begin_build<'a>(
        &'a self,
        fetched: Fetched,
        within: Duration,
        told: Told<'a>,
    ) -> Pending<'a, Result<Fetched, Fault>> {
        Box::pin(self.build_telling(fetched, within, told))
    }

    async fn build_telling(&self, mut fetched: Fetched, within: Duration, told: Told<'_>) -> Result<Fetched, Fault> {
        let Some(ToBuild { repository, recipe, scratch }) = fetched.to_build.take() else { return Ok(fetched) };
        let options = self.inner.shared.options.load_full();
        git::write_source(&options, &repository, &scratch).await?;
        build::run_build(&options, &recipe, &scratch, within, &told).await?;
        if let Some(origin) = &mut fetched.origin {
            origin.built_with = recipe.command;
            write_slip(&scratch, origin).await?;
        }
        Ok(fetched)
    }

    async fn fetch_file(&self, url: &FileUrl, how: Fetch, tell: Tell<'_>) -> Result<Fetched, Fault> {
        if url.sha256.is_some() && how.sha256.is_some() && url.sha256 != how.sha256 {
            return Err(Fault::new(Code::InvalidArgument, "two checksums are given, and they differ"));
        }
        let expected = how.sha256.or(url.sha256);
        let (staged, scratch) = self.scratch().await?;
        let options = self.inner.shared.options.load_full();
        let sha256 = file::fetch(&options, url, Fetch { sha256: expected, ..how }, &scratch, tell).await?;
        // What is behind the `?` may be a secret.
        let source = url.address.split('?').next().unwrap_or_default().to_owned();
        let origin = Origin { source, sha256: Some(sha256), ..Origin::default() };
        write_slip(&scratch, &origin).await?;
        let (path, must_be_signed) = (scratch.file(), expected.is_none());
        Ok(Fetched { path, origin: Some(origin), must_be_signed, to_build: None, _scratch: Some(staged) })
    }

    /// `manifest` is that of who sent us there; the repository's own counts, if it has one.
    async fn fetch_commit(
        &self,
        repository: &Repository,
        manifest: Option<(PathBuf, Manifest)>,
        tell: Tell<'_>,
    ) -> Result<Fetched, Fault> {
        let (staged, scratch) = self.scratch().await?;
        let options = self.inner.shared.options.load_full();
        let commit = git::fetch(&options, repository, &scratch, tell).await?;
        let plugin = scratch.plugin();
        let named = repository.to_string();
        let recipe = blocking(move || {
            let file = plugin.join(MANIFEST_NAME);
            if let Some((from, _)) = manifest.as_ref().filter(|_| file.symlink_metadata().is_err()) {
                let copied = std::fs::create_dir_all(&plugin).and_then(|()| std::fs::copy(from, &file));
                copied.map_err(|error| internal("copy the manifest", &error))?;
            }
            let found =
                read_manifest(&file).map_err(|why| Fault { message: format!("{named}: {}", why.message), ..why })?;
            same_plugin(manifest.as_ref().map(|(_, manifest)| manifest), &found)?;
            Ok(recipe::recipe(&found, |name| plugin.join(name).is_file()))
        })
        .await?;
        let origin = Origin { source: repository.to_string(), commit: Some(commit), ..Origin::default() };
        write_slip(&scratch, &origin).await?;
        let path = scratch.plugin();
        let to_build =
            (!recipe.command.is_empty()).then(|| ToBuild { repository: repository.clone(), recipe, scratch });
        Ok(Fetched { path, origin: Some(origin), must_be_signed: false, to_build, _scratch: Some(staged) })
    }

    /// Fetches what a manifest of this machine says is elsewhere: it must be the same plugin in the same version.
    async fn follow(&self, path: &Path, manifest: Manifest, how: Fetch, tell: Tell<'_>) -> Result<Fetched, Fault> {
        match manifest.elsewhere() {
            Some(Locator::Git(repository)) => {
                let file = manifest_file(path);
                let repository = match Locator::Git(repository).seen_from(file.parent().unwrap_or(path)) {
                    Locator::Git(repository) => repository,
                    _ => return Err(Fault::new(Code::Internal, "a repository became something else")),
                };
                self.fetch_commit(&repository, Some((file, manifest)), tell).await
            }
            Some(Locator::Url(url)) => {
                let fetched = self.fetch_file(&url, how, tell).await?;
                let file = fetched.path.clone();
                blocking(move || {
                    let open = std::fs::File::open(&file).map_err(|error| internal("open what was fetched", &error))?;
                    let package = Package::open(open, &Keys::whoever())?;
                    same_plugin(Some(&manifest), package.manifest())
                })
                .await?;
                Ok(fetched)
            }
            _ => Err(Fault::new(Code::Internal, "its manifest names nothing elsewhere")),
        }
    }

    /// A fresh folder to fetch to, which is removed when it is dropped.
    async fn scratch(&self) -> Result<(Staged, Scratch), Fault> {
        let directory = self.absolute_directory()?;
        blocking(move || {
            let staging = Staging::open(&directory)?;
            let (name, _) = staging.make()?;
            let staged = Staged { staging, name };
            let scratch = Scratch(staged.staging.path(&directory, &staged.name));
            std::fs::create_dir(scratch.home())
                .map_err(|error| Fault::new(Code::Internal, format!("cannot make a folder to fetch to: {error}")))?;
            Ok((staged, scratch))
        })
        .await
    }
}

/// Writes down, beside what was fetched, where it came from.
async fn write_slip(scratch: &Scratch, origin: &Origin) -> Result<(), Fault> {
    let (slip, text) = (scratch.0.join(SLIP), origin.to_json());
    blocking(move || std::fs::write(slip, text).map_err(|error| internal("write down where it comes from", &error)))
        .await
}

/// The manifest that `path` is, or that lies in it.
fn manifest_file(path: &Path) -> PathBuf {
    if path.file_name().is_some_and(|name| name == MANIFEST_NAME) { path.to_owned() } else { path.join(MANIFEST_NAME) }
}

fn read_manifest(file: &Path) -> Result<Manifest, Fault> {
    let wrong = |why: String| Fault::new(Code::InvalidArgument, why);
    let bytes = std::fs::read(file).map_err(|_| wrong(format!("it holds no {MANIFEST_NAME} at its top")))?;
    Manifest::parse(&bytes, Folder::default()).map_err(|error| wrong(format!("its {MANIFEST_NAME}: {error}")))
}

/// Whoever names where a plugin is from must not be given another one.
fn same_plugin(wanted: Option<&Manifest>, found: &Manifest) -> Result<(), Fault> {
    let Some(wanted) = wanted else { return Ok(()) };
    if (&wanted.id, &wanted.version) == (&found.id, &found.version) {
        return Ok(());
    }
    let text = format!(
        "the manifest is of `{}` {}, and what is there is `{}` {}",
        wanted.id, wanted.version, found.id, found.version
    );
    Err(Fault::new(Code::InvalidArgument, text))
}

fn internal(what: &str, error: &std::io::Error) -> Fault {
    Fault::new(Code::Internal, format!("cannot {what}: {error}"))
}

/// With what was written down of where the installed version came from.
pub(crate) async fn with_origin(mut detail: PluginDetail) -> PluginDetail {
    if let Some(installed) = &mut detail.installed {
        let folder = PathBuf::from(&installed.folder);
        // A version of which nothing can be read came from somewhere all the same.
        installed.origin = blocking(move || Ok(origin::of_version(&folder))).await.unwrap_or_default();
    }
    detail
}
