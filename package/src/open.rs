//! Opens a package: all of it is read and checked before anything of it is used.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use goplug_pconf_schema::contents::{
    CONTENTS_NAME, Contents, MAX_CONTENTS_BYTES, MAX_PACKED_BYTES, PackedFile, SIGNATURE_NAME,
};
use goplug_pconf_schema::manifest::{Folder, MANIFEST_NAME};
use goplug_pconf_schema::{Code, Fault, Manifest, Sha256, printable};

use crate::archive::{self, Dialect, Item, unreadable};
use crate::digest::{self, Hashed};
use crate::keys::{Keys, Signer};
use crate::original::{self, Original};
use crate::stream::unpacked;
use crate::{failed, wrong};

/// The largest signature that is read; `minisign` writes some 300 bytes.
const MAX_SIGNATURE_BYTES: usize = 4 * 1024;
/// The largest `plugin.json`, as in a plugin's folder.
const MAX_MANIFEST_BYTES: usize = goplug_pconf_schema::MAX_PCONF_BYTES;

/// A package that was read to its end and is in order.
#[derive(Debug)]
pub struct Package {
    pub(crate) file: File,
    pub(crate) size: u64,
    pub(crate) contents: Contents,
    manifest: Manifest,
    signer: Signer,
    digest: Sha256,
    pub(crate) dialect: Dialect,
    /// What the archive does not hold and the plugin's folder needs.
    pub(crate) made: Vec<(&'static str, Vec<u8>)>,
}

impl Package {
    /// Reads `file` from its beginning to its end and checks everything: that it is an archive that every reader reads alike,
    /// within the limits (10,000 files, 512 MiB, 200 times its own size, 32 folders deep); that one of `keys` signed `MANIFEST`; that
    /// the files are those of `MANIFEST`, each with its digest; that `plugin.json` is in order and says what `MANIFEST` says.
    /// Nothing is written. Blocking.
    ///
    /// # Errors
    /// `denied`: nobody whose key is trusted signed it. `too_large`: it exceeds a limit. `invalid_argument`: anything else is
    /// not in order. `internal`: the file cannot be read.
    pub fn open(mut file: File, keys: &Keys) -> Result<Self, Fault> {
        let size = file.metadata().map_err(|error| failed("look at the package", &error))?.len();
        file.seek(SeekFrom::Start(0)).map_err(|error| failed("read the package", &error))?;
        if is_original(&file, size)? {
            file.seek(SeekFrom::Start(0)).map_err(|error| failed("read the package", &error))?;
            return Self::open_original(file, size, keys);
        }
        file.seek(SeekFrom::Start(0)).map_err(|error| failed("read the package", &error))?;
        let mut check = Check::new(keys);
        archive::read(stream(&file, size)?, Dialect::Strict, |item, bytes| check.file(item, bytes))?;
        let Checked { contents, manifest, signer, digest } = check.finish()?;
        Ok(Self { file, size, contents, manifest, signer, digest, dialect: Dialect::Strict, made: Vec::new() })
    }

    fn open_original(file: File, size: u64, keys: &Keys) -> Result<Self, Fault> {
        // It has no signature at all.
        let signer = keys.signer(&[], None)?;
        let Original { contents, manifest, made, text } = original::read(stream(&file, size)?)?;
        let (digest, dialect) = (digest::of(&text), Dialect::Original);
        Ok(Self { file, size, contents, manifest, signer, digest, dialect, made })
    }

    /// What `plugin.json` says.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// What it holds.
    pub fn contents(&self) -> &Contents {
        &self.contents
    }

    /// Who signed it.
    pub fn signer(&self) -> &Signer {
        &self.signer
    }

    /// The digest of `MANIFEST`: two packages with the same one hold the same files.
    pub fn digest(&self) -> Sha256 {
        self.digest
    }
}

pub(crate) fn stream(file: &File, size: u64) -> Result<Box<dyn Read + '_>, Fault> {
    unpacked(file.take(MAX_PACKED_BYTES), size).map_err(|error| unreadable(&error))
}

/// Whether it begins as a package of ours does not: then it may be one of the original's.
fn is_original(file: &File, size: u64) -> Result<bool, Fault> {
    let mut first = None;
    let done = || Fault::new(Code::Internal, "enough was read");
    // Whatever is wrong with it is told by whoever reads it whole.
    _ = archive::read(stream(file, size)?, Dialect::Original, |item, _| {
        first.get_or_insert_with(|| item.path.clone());
        Err(done())
    });
    Ok(first.is_some_and(|path| path != CONTENTS_NAME))
}

struct Checked {
    contents: Contents,
    manifest: Manifest,
    signer: Signer,
    digest: Sha256,
}

/// What was seen so far. The files come in this order: `MANIFEST`, its signature if there is one, all others.
struct Check<'a> {
    keys: &'a Keys,
    /// `MANIFEST` as it is written.
    text: Option<Vec<u8>>,
    signature: Option<Vec<u8>>,
    /// Known once it is known who signed them.
    verified: Option<(Contents, Signer)>,
    manifest: Option<Manifest>,
    seen: BTreeSet<String>,
}

impl<'a> Check<'a> {
    fn new(keys: &'a Keys) -> Self {
        Self { keys, text: None, signature: None, verified: None, manifest: None, seen: BTreeSet::new() }
    }

    fn file(&mut self, item: &Item, bytes: &mut dyn Read) -> Result<(), Fault> {
        match (&self.text, item.path.as_str()) {
            (None, CONTENTS_NAME) => self.text = Some(small(item, bytes, MAX_CONTENTS_BYTES)?),
            (None, _) => {
                return Err(wrong(format!("its first file is `{}` instead of {CONTENTS_NAME}", printable(&item.path))));
            }
            (Some(_), SIGNATURE_NAME) if self.verified.is_none() => {
                self.signature = Some(small(item, bytes, MAX_SIGNATURE_BYTES)?);
                self.verify()?;
            }
            _ => {
                if self.verified.is_none() {
                    self.verify()?;
                }
                self.content(item, bytes)?;
            }
        }
        Ok(())
    }

    /// Who signed comes before what is signed is looked at.
    fn verify(&mut self) -> Result<(), Fault> {
        let text = self.text.as_deref().unwrap_or_default();
        let signer = self.keys.signer(text, self.signature.as_deref())?;
        let contents = Contents::parse(text).map_err(|problems| all_of(CONTENTS_NAME, &problems))?;
        self.verified = Some((contents, signer));
        Ok(())
    }

    fn content(&mut self, item: &Item, bytes: &mut dyn Read) -> Result<(), Fault> {
        let Some((contents, _)) = &self.verified else { return Ok(()) };
        let listed = listed(contents, item)?;
        let found = if item.path == MANIFEST_NAME {
            let text = small(item, bytes, MAX_MANIFEST_BYTES)?;
            self.manifest = Some(check_manifest(&text, contents)?);
            digest::of(&text)
        } else {
            let mut hashed = Hashed::new(bytes);
            std::io::copy(&mut hashed, &mut std::io::sink()).map_err(|error| unreadable(&error))?;
            hashed.finish().1
        };
        if found != listed.sha256 {
            let path = printable(&item.path);
            return Err(wrong(format!("`{path}` is not what {CONTENTS_NAME} says: its SHA-256 is {found}")));
        }
        self.seen.insert(item.path.clone());
        Ok(())
    }

    fn finish(mut self) -> Result<Checked, Fault> {
        if self.text.is_none() {
            return Err(wrong("it is an empty archive"));
        }
        if self.verified.is_none() {
            self.verify()?;
        }
        let Some((contents, signer)) = self.verified else { return Err(wrong("it is an empty archive")) };
        if let Some(missing) = contents.files.iter().find(|file| !self.seen.contains(&file.path)) {
            return Err(wrong(format!("`{}` is missing, which {CONTENTS_NAME} names", printable(&missing.path))));
        }
        let Some(manifest) = self.manifest else { return Err(wrong(format!("it holds no {MANIFEST_NAME}"))) };
        let digest = digest::of(self.text.as_deref().unwrap_or_default());
        Ok(Checked { contents, manifest, signer, digest })
    }
}

/// What `MANIFEST` says of the file, which has the size and the mode that it says.
pub(crate) fn listed<'a>(contents: &'a Contents, item: &Item) -> Result<&'a PackedFile, Fault> {
    let path = printable(&item.path);
    let listed = contents.file(&item.path);
    let listed = listed.ok_or_else(|| wrong(format!("it holds `{path}`, which {CONTENTS_NAME} does not name")))?;
    if item.size != listed.size {
        let text = format!("`{path}` has {} bytes, {CONTENTS_NAME} says {}", item.size, listed.size);
        return Err(wrong(text));
    }
    if item.executable != listed.executable {
        return Err(wrong(format!("whether `{path}` may be run is not what {CONTENTS_NAME} says")));
    }
    Ok(listed)
}

fn check_manifest(text: &[u8], contents: &Contents) -> Result<Manifest, Fault> {
    let manifest = Manifest::parse(text, Folder::default()).map_err(|error| {
        let told: Vec<_> =
            error.problems.iter().map(|it| format!("{}:{}: {}", it.line, it.column, it.message)).collect();
        all_of(MANIFEST_NAME, &told)
    })?;
    let same = contents.id().is_ok_and(|id| id == manifest.id)
        && contents.version == manifest.version
        && contents.permissions == manifest.permissions;
    if same {
        Ok(manifest)
    } else {
        Err(wrong(format!("{MANIFEST_NAME} has another name, version or permissions than {CONTENTS_NAME}")))
    }
}

/// The whole of a file that must be small.
fn small(item: &Item, bytes: &mut dyn Read, limit: usize) -> Result<Vec<u8>, Fault> {
    if item.size > limit as u64 {
        let text = format!("`{}` has {} bytes, the limit is {limit}", printable(&item.path), item.size);
        return Err(Fault::new(Code::TooLarge, text));
    }
    let mut text = Vec::new();
    bytes.read_to_end(&mut text).map_err(|error| unreadable(&error))?;
    Ok(text)
}

fn all_of(file: &str, problems: &[String]) -> Fault {
    let told: Vec<_> = problems.iter().map(|problem| format!("{file} {problem}")).collect();
    wrong(told.join("; ")).with_data(serde_json::json!({ "problems": told }))
}
