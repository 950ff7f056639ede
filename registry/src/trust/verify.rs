//! Before an installed plugin is started: is what lies in its folder what was verified when it was installed?
//!
//! What is expected is not asked of the folder: the digest of its `MANIFEST` was written down elsewhere (`record`). A program
//! of the package is opened, held against writers, and read; this very descriptor is executed, whatever lies at its path by
//! then. The other files are compared before the start, and looked at once more when the process answers.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::OwnedFd;
use std::path::{Component, Path};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use goplug_package::Hashed;
use goplug_pconf_schema::contents::{CONTENTS_NAME, MAX_CONTENTS_BYTES, PackedFile};
use goplug_pconf_schema::manifest::{Folder, MANIFEST_NAME};
use goplug_pconf_schema::{Code, Contents, Fault, Manifest, Reason, Sha256, printable};
use goplug_transport::hold_off_writers;
use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::Digests;
use super::record::Records;
use crate::desired::OWN_FOLDER;
use crate::discovery::{Installed, Stamp, stamp_of};
use crate::install::staging;
use crate::installed::blocking;
use crate::options::Builder;

/// How long all files of a package may take to be read: 512 MiB from a slow disk.
const READ_LIMIT: Duration = Duration::from_secs(60);
/// How often, and after which pause, a program that somebody is writing is tried again; nothing tells when they are done.
const BUSY_TRIES: u32 = 10;
const BUSY_PAUSE: Duration = Duration::from_millis(20);

/// A version whose files are those that were installed.
#[derive(Debug)]
pub(crate) struct Verified {
    folder: OwnedFd,
    contents: Contents,
    /// Of each file of the contents, when it was compared.
    stamps: Arc<[Stamp]>,
    digests: Arc<Digests>,
}

impl Verified {
    /// Compares the files of a version with what was installed; `None` of what was not installed as a package.
    ///
    /// # Errors
    /// `denied` with [`Reason::Altered`] when it is something else; `internal` when what was installed cannot be told.
    ///
    /// # Cancel safety
    /// Safe: a look that has begun goes on, and changes nothing.
    pub(crate) async fn of(
        options: &Builder,
        digests: &Arc<Digests>,
        installed: &Arc<Installed>,
    ) -> Result<Option<Arc<Self>>, Fault> {
        // What a package was unpacked to, to be asked: it was verified on its way there, just now.
        if installed.folder.starts_with(options.directory.join(OWN_FOLDER).join(staging::FOLDER)) {
            return Ok(None);
        }
        let records = Records::new(options.trust_folder(), &options.directory);
        let (digests, installed) = (Arc::clone(digests), Arc::clone(installed));
        blocking(move || Ok(look(&records, digests, &installed)?.map(Arc::new))).await
    }

    /// Opens a program of the package so that exactly what was installed is run; `None` for a program of this machine: an
    /// absolute path, or a name without a slash, which is looked for in `PATH`.
    ///
    /// # Errors
    /// As [`Verified::of`]; `unavailable` while somebody is writing it.
    pub(crate) async fn open(self: &Arc<Self>, program: &str) -> Result<Option<File>, Fault> {
        if !program.contains('/') || program.starts_with('/') {
            return Ok(None);
        }
        let (this, program) = (Arc::clone(self), program.to_owned());
        blocking(move || this.open_program(&program).map(Some)).await
    }

    /// Whether every file is still the one that was compared, and untouched.
    ///
    /// # Errors
    /// `denied` with [`Reason::Altered`], with the first one that is not.
    pub(crate) async fn still_holds(self: &Arc<Self>) -> Result<(), Fault> {
        let this = Arc::clone(self);
        blocking(move || match this.moved() {
            None => Ok(()),
            Some(file) => Err(altered(&format!("`{}` was changed while it was started", printable(&file.path)))),
        })
        .await
    }

    fn open_program(&self, program: &str) -> Result<File, Fault> {
        let shown = printable(program);
        let listed = plain(program).and_then(|path| self.contents.file(&path));
        let listed =
            listed.ok_or_else(|| altered(&format!("its program `{shown}` is none of the files of its package")))?;
        let mut file = open(&self.folder, &listed.path)?;
        let held = hold(&file)?;
        let until = Instant::now() + READ_LIMIT;
        // Whoever can write it while it is read may write it unseen: nothing of it is remembered.
        let digest = if held { self.digests.of(&mut file, until) } else { self.digests.anew(&mut file, until) };
        match digest {
            Ok(digest) if digest == listed.sha256 => Ok(file),
            Ok(digest) => Err(differs(listed, &digest)),
            Err(why) => Err(altered(&format!("its program `{shown}` {why}"))),
        }
    }

    /// The first file that is another one than when it was compared.
    fn moved(&self) -> Option<&PackedFile> {
        let files = self.contents.files.iter().zip(self.stamps.iter());
        let mut files = files.filter(|(file, stamp)| stamp_at(&self.folder, &file.path).as_ref() != Some(*stamp));
        files.next().map(|(file, _)| file)
    }
}

fn look(records: &Records, digests: Arc<Digests>, installed: &Installed) -> Result<Option<Verified>, Fault> {
    let (manifest, folder) = (&installed.manifest, &installed.folder);
    let Some(known) = records.of(&manifest.id)? else { return Ok(None) };
    if known.versions.is_empty() {
        return Ok(None);
    }
    let current = known.current;
    let Some(known) = known.versions.get(&manifest.version) else {
        return Err(altered(&format!("version {} was put there, and not installed", manifest.version)));
    };
    if let Some(current) = current.filter(|current| manifest.version < *current) {
        return Err(altered(&format!(
            "version {} is older than {current}, which was made the current one",
            manifest.version
        )));
    }
    let Some(expected) = known.contents else { return Ok(None) };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = rustix::fs::open(folder, flags, Mode::empty())
        .map_err(|error| altered(&format!("its folder cannot be opened: {error}")))?;
    let (text, found) = read_small(&folder, CONTENTS_NAME)?;
    if found != expected {
        let text = format!("its {CONTENTS_NAME} has sha256 {}, installed was {}", short(&found), short(&expected));
        return Err(altered(&text));
    }
    let contents =
        Contents::parse(&text).map_err(|problems| altered(&format!("its {CONTENTS_NAME} {}", problems.join("; "))))?;
    let is_it = contents.id().is_ok_and(|id| id == manifest.id) && contents.version == manifest.version;
    if !is_it {
        return Err(altered(&format!("its {CONTENTS_NAME} is that of another version")));
    }
    check_manifest(&folder, &contents, manifest)?;
    let stamps = compare(&folder, &contents, expected, &digests)?;
    Ok(Some(Verified { folder, contents, stamps, digests }))
}

/// What is to be started was read from `plugin.json` some time ago: it must be what is installed.
fn check_manifest(folder: &OwnedFd, contents: &Contents, manifest: &Manifest) -> Result<(), Fault> {
    let (text, found) = read_small(folder, MANIFEST_NAME)?;
    let listed = contents.file(MANIFEST_NAME).ok_or_else(|| altered("it has no plugin.json"))?;
    if found != listed.sha256 {
        return Err(differs(listed, &found));
    }
    let namespace = Some(manifest.id.namespace()).filter(|namespace| !namespace.is_empty());
    let place = Folder { name: Some(manifest.id.name()), namespace };
    match Manifest::parse(&text, place) {
        Ok(read) if read == *manifest => Ok(()),
        _ => Err(altered(&format!("its {MANIFEST_NAME} said something else when it was looked at"))),
    }
}

/// Reads every file, unless all are as they were when they were read last.
fn compare(folder: &OwnedFd, contents: &Contents, expected: Sha256, digests: &Digests) -> Result<Arc<[Stamp]>, Fault> {
    if let Some(stamps) = digests.package(&expected) {
        let same = |(file, stamp): (&PackedFile, &Stamp)| stamp_at(folder, &file.path).as_ref() == Some(stamp);
        if contents.files.len() == stamps.len() && contents.files.iter().zip(stamps.iter()).all(same) {
            return Ok(stamps);
        }
    }
    let begun = SystemTime::now();
    let until = Instant::now() + READ_LIMIT;
    let mut stamps = Vec::with_capacity(contents.files.len());
    for listed in &contents.files {
        let mut file = open(folder, &listed.path)?;
        let stamp = stamp_of_file(&file)?;
        let told = |why: String| altered(&format!("`{}` {why}", printable(&listed.path)));
        let digest = digests.anew(&mut file, until).map_err(told)?;
        if digest != listed.sha256 {
            return Err(differs(listed, &digest));
        }
        stamps.push(stamp);
    }
    let stamps: Arc<[Stamp]> = stamps.into();
    digests.remember_package(expected, &stamps, begun);
    Ok(stamps)
}

/// Whether writers are held off; an error as long as there is one.
fn hold(file: &File) -> Result<bool, Fault> {
    for _ in 0..BUSY_TRIES {
        match hold_off_writers(file) {
            Ok(()) => return Ok(true),
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(BUSY_PAUSE),
            // Another user's file, which ours cannot write; or a file system that knows no such thing.
            Err(_) => return Ok(false),
        }
    }
    Err(Fault::new(Code::Unavailable, "somebody is writing its program"))
}

fn open(folder: &OwnedFd, path: &str) -> Result<File, Fault> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let opened = match rustix::fs::openat2(folder, path, flags, Mode::empty(), resolve) {
        // Forbidden by a filter of system calls. What counts is what is in the file.
        Err(Errno::NOSYS | Errno::PERM) => rustix::fs::openat(folder, path, flags, Mode::empty()),
        other => other,
    };
    let file = opened.map(File::from);
    let file = file.map_err(|error| altered(&format!("`{}` cannot be opened: {error}", printable(path))))?;
    if file.metadata().is_ok_and(|status| status.is_file()) {
        return Ok(file);
    }
    Err(altered(&format!("`{}` is no file", printable(path))))
}

/// The bytes of a file of the package that is read whole, and their digest.
fn read_small(folder: &OwnedFd, path: &str) -> Result<(Vec<u8>, Sha256), Fault> {
    let mut hashed = Hashed::new(open(folder, path)?.take(MAX_CONTENTS_BYTES as u64 + 1));
    let mut bytes = Vec::new();
    hashed.read_to_end(&mut bytes).map_err(|error| altered(&format!("`{path}` cannot be read: {error}")))?;
    Ok((bytes, hashed.finish().1))
}

fn stamp_of_file(file: &File) -> Result<Stamp, Fault> {
    rustix::fs::fstat(file).map(|status| stamp_of(&status)).map_err(|error| altered(&error.to_string()))
}

fn stamp_at(folder: &OwnedFd, path: &str) -> Option<Stamp> {
    rustix::fs::statat(folder, path, AtFlags::SYMLINK_NOFOLLOW).ok().map(|status| stamp_of(&status))
}

/// How a package names the file: without `.` and `..`, of which no name remains a link in a package.
fn plain(program: &str) -> Option<String> {
    let mut names: Vec<&str> = Vec::new();
    for component in Path::new(program).components() {
        match component {
            Component::Normal(name) => names.push(name.to_str()?),
            Component::CurDir => {}
            Component::ParentDir => _ = names.pop()?,
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(names.join("/"))
}

fn differs(listed: &PackedFile, found: &Sha256) -> Fault {
    let (path, installed) = (printable(&listed.path), short(&listed.sha256));
    altered(&format!("`{path}` has sha256 {}, installed was {installed}", short(found)))
}

/// As much of a digest as nobody makes another file of by chance.
fn short(digest: &Sha256) -> String {
    format!("{}…", &digest.to_string()[..16])
}

fn altered(why: &str) -> Fault {
    Fault::new(Code::Denied, format!("it is not what was installed: {why}")).with_reason(Reason::Altered)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_named_as_the_package_names_it() {
        for (program, expected) in [
            ("./do", Some("do")),
            ("bin/./do", Some("bin/do")),
            ("bin/../do", Some("do")),
            ("../do", None),
            ("a/../../do", None),
            ("/bin/sh", None),
        ] {
            assert_eq!(plain(program).as_deref(), expected, "{program}");
        }
    }
}
