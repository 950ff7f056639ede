//! Packages behind an index: a folder, or the same folder behind a web server.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use goplug_package::{Hashed, Keys, Package, file_name};
use goplug_pconf_schema::locator::FileUrl;
use goplug_pconf_schema::{Code, Fault, INDEX_NAME, Index, IndexedPackage, Locator, MAX_INDEX_BYTES, Sha256};
use rustix::fs::{CWD, FlockOperation, RenameFlags};

use super::{Fetch, Progress, Told};
use crate::desired::lock;
use crate::installed::blocking;
use crate::registry::Registry;
use crate::tasks::Pending;
use crate::words::show;

/// An index that was read, and where the packages are that it names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packages {
    /// What it says.
    pub index: Index,
    base: Base,
}

/// What the files of an index are relative to.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Base {
    Folder(PathBuf),
    /// With a `/` at its end.
    Address(String),
}

impl Registry {
    /// Reads an index: the file, or the [`INDEX_NAME`] of a folder or of an address that ends in `/`. Nothing is changed in the
    /// plugin directory.
    ///
    /// # Errors
    /// `invalid_argument` for what is no index, or a repository; as [`Registry::fetch`].
    ///
    /// # Cancel safety
    /// As [`Registry::fetch`].
    pub fn packages<'a>(&'a self, at: &'a Locator) -> Pending<'a, Result<Packages, Fault>> {
        Box::pin(async move {
            match at {
                Locator::Git(_) => Err(Fault::new(Code::InvalidArgument, "an index is a file, a folder or an address")),
                Locator::Path(path) => {
                    let file = if path.is_dir() { path.join(INDEX_NAME) } else { path.clone() };
                    let base = Base::Folder(file.parent().unwrap_or(path).to_owned());
                    let index = blocking(move || read(&file)).await?;
                    Ok(Packages { index, base })
                }
                Locator::Url(url) => {
                    let name = if url.address.ends_with('/') { INDEX_NAME } else { "" };
                    let address = format!("{}{name}", url.address);
                    let base = address.rfind('/').map_or(address.as_str(), |end| &address[..=end]).to_owned();
                    let url = FileUrl { address, sha256: url.sha256 };
                    let how = Fetch { max_bytes: MAX_INDEX_BYTES as u64, ..Fetch::default() };
                    let fetched = self.fetch(&Locator::Url(url), how, |_| ()).await?;
                    let file = fetched.path().to_owned();
                    let index = blocking(move || read(&file)).await?;
                    Ok(Packages { index, base: Base::Address(base) })
                }
            }
        })
    }

    /// Writes a package of the index to a file that is not there yet, whole or not at all, and as the index says it is. Whether
    /// it can be trusted is for whoever installs it: the index vouches for the file, and nobody for the index.
    ///
    /// # Errors
    /// `denied` when it is another file than the index says; `conflict` when `to` is there; as [`Registry::fetch`].
    ///
    /// # Cancel safety
    /// As [`Registry::fetch`].
    pub fn pull<'a>(
        &'a self,
        packages: &'a Packages,
        package: &'a IndexedPackage,
        to: &'a Path,
        told: impl Fn(Progress) + Send + Sync + 'a,
    ) -> Pending<'a, Result<(), Fault>> {
        self.begin_pull(packages, package, to, Box::new(told))
    }

    fn begin_pull<'a>(
        &'a self,
        packages: &'a Packages,
        package: &'a IndexedPackage,
        to: &'a Path,
        told: Told<'a>,
    ) -> Pending<'a, Result<(), Fault>> {
        Box::pin(self.pull_telling(packages, package, to, told))
    }

    async fn pull_telling(
        &self,
        packages: &Packages,
        package: &IndexedPackage,
        to: &Path,
        told: Told<'_>,
    ) -> Result<(), Fault> {
        let (to, expected) = (to.to_owned(), package.sha256);
        match &packages.base {
            Base::Folder(folder) => {
                let from = folder.join(&package.file);
                blocking(move || copy(&from, &to, expected, false)).await
            }
            Base::Address(base) => {
                let url = FileUrl { address: format!("{base}{}", escaped(&package.file)), sha256: Some(expected) };
                let how = Fetch { max_bytes: package.size, ..Fetch::default() };
                let fetched = self.fetch(&Locator::Url(url), how, told).await?;
                let from = fetched.path().to_owned();
                blocking(move || copy(&from, &to, expected, false)).await
            }
        }
    }
}

/// Copies a package to a folder and names it in the folder's index, which is made if it is not there; what any web server
/// then serves is an index for [`Registry::packages`]. With `dry_run` everything is checked and nothing is done. Blocking.
///
/// # Errors
/// `invalid_argument` for what is no package; `conflict` when the index names another one of its version; what the system
/// refuses.
pub fn push(package: &Path, folder: &Path, dry_run: bool) -> Result<IndexedPackage, Fault> {
    let shown = show(package);
    let open = File::open(package).map_err(|error| failed(&format!("read {shown}"), &error))?;
    let manifest = Package::open(open, &Keys::whoever())?.manifest().clone();
    let (size, sha256) = digest(package)?;
    let pushed = IndexedPackage::new(&manifest, file_name(&manifest), size, sha256);
    let writing = |error: std::io::Error| failed(&format!("write the index of {}", show(folder)), &error);
    let turn = OwnedFd::from(File::open(folder).map_err(writing)?);
    lock(&turn, FlockOperation::NonBlockingLockExclusive).map_err(|why| Fault::new(Code::Overloaded, why))?;
    let at = folder.join(INDEX_NAME);
    let mut index = if at.exists() { read(&at)? } else { Index::default() };
    index.add(pushed.clone())?;
    if dry_run {
        return Ok(pushed);
    }
    // The file first: an index never names what is not there.
    copy(package, &folder.join(&pushed.file), sha256, true)?;
    whole(&at, true, |out| out.write_all(&index.to_json()).map_err(writing))?;
    rustix::fs::fsync(&turn).map_err(|error| writing(error.into()))?;
    Ok(pushed)
}

fn read(file: &Path) -> Result<Index, Fault> {
    let unreadable = |error: std::io::Error| failed(&format!("read the index {}", show(file)), &error);
    let mut bytes = Vec::new();
    let open = File::open(file).map_err(unreadable)?;
    open.take(MAX_INDEX_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    Index::parse(&bytes)
}

fn digest(file: &Path) -> Result<(u64, Sha256), Fault> {
    let unreadable = |error: std::io::Error| failed(&format!("read {}", show(file)), &error);
    let mut hashed = Hashed::new(File::open(file).map_err(unreadable)?);
    std::io::copy(&mut hashed, &mut std::io::sink()).map_err(unreadable)?;
    Ok(hashed.finish())
}

/// Copies a file that must have this digest; one that is there is replaced or not.
fn copy(from: &Path, to: &Path, expected: Sha256, replace: bool) -> Result<(), Fault> {
    let mut hashed = Hashed::new(File::open(from).map_err(|error| failed(&format!("read {}", show(from)), &error))?);
    whole(to, replace, |out| {
        std::io::copy(&mut hashed, out).map_err(|error| failed(&format!("make {}", show(to)), &error))?;
        let found = hashed.finish().1;
        if found == expected {
            return Ok(());
        }
        let text =
            format!("{} is another file than the index says: its SHA-256 is {found}, not {expected}", show(from));
        Err(Fault::new(Code::Denied, text))
    })
}

/// Writes a file, which appears whole or not at all.
fn whole(to: &Path, replace: bool, write: impl FnOnce(&mut File) -> Result<(), Fault>) -> Result<(), Fault> {
    let making = |error: std::io::Error| failed(&format!("make {}", show(to)), &error);
    let name = to.file_name().unwrap_or_default().to_string_lossy();
    let part = to.with_file_name(format!(".{name}.{}.part", std::process::id()));
    let mut out = File::options().write(true).create_new(true).open(&part).map_err(making)?;
    let flags = if replace { RenameFlags::empty() } else { RenameFlags::NOREPLACE };
    let written = write(&mut out)
        .and_then(|()| out.sync_all().map_err(making))
        .and_then(|()| rustix::fs::renameat_with(CWD, &part, CWD, to, flags).map_err(|error| making(error.into())));
    if written.is_err() {
        _ = std::fs::remove_file(&part);
    }
    written
}

/// A path as an address has it.
fn escaped(path: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/+".contains(&byte);
    path.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

fn failed(what: &str, error: &std::io::Error) -> Fault {
    let code = match error.kind() {
        std::io::ErrorKind::NotFound => Code::NotFound,
        std::io::ErrorKind::AlreadyExists => Code::Conflict,
        std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => Code::Denied,
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Code::Overloaded,
        _ => Code::Internal,
    };
    Fault::new(code, format!("cannot {what}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_appears_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        std::fs::write(&from, "some").unwrap();
        let (_, right) = digest(&from).unwrap();
        assert_eq!(copy(&from, &to, Sha256::from([0; 32]), false).unwrap_err().code, Code::Denied);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        copy(&from, &to, right, false).unwrap();
        assert_eq!(copy(&from, &to, right, false).unwrap_err().code, Code::Conflict);
        copy(&from, &to, right, true).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
        assert_eq!(escaped("a b/ä.plg"), "a%20b/%C3%A4.plg");
    }
}
