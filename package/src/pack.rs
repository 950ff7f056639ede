//! Makes a package of a plugin's folder. The same folder gives the same bytes.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use flate2::{Compression, GzBuilder};
use goplug_pconf_schema::contents::{
    CONTENTS_NAME, Contents, MAX_PACKED_BYTES, MAX_PACKED_DEPTH, MAX_PACKED_FILES, PackedFile, SIGNATURE_NAME,
    check_packed_path,
};
use goplug_pconf_schema::manifest::{Folder, MANIFEST_NAME};
use goplug_pconf_schema::{Code, Fault, Manifest, printable};
use tar::{Builder, EntryType, Header};

use crate::digest::Hashed;
use crate::{failed, wrong};

/// Signs the text of `MANIFEST`: what comes back is the text of a signature file of `minisign`.
pub type Sign<'a> = &'a mut dyn FnMut(&[u8]) -> Result<String, Fault>;

/// A folder that can be packed.
#[derive(Debug)]
pub struct Packing {
    folder: PathBuf,
    manifest: Manifest,
    contents: Contents,
}

impl Packing {
    /// Looks at everything in `folder`, and reads it for its digests. Empty folders are left out; so are `MANIFEST` and its
    /// signature at the top, of which a package has its own. Blocking.
    ///
    /// # Errors
    /// `not_found`: there is no such folder. `invalid_argument`, with everything that is wrong: `plugin.json` is not in order,
    /// or something is no regular file or has a name that a package cannot hold. `too_large`: it exceeds a limit.
    pub fn of(folder: &Path) -> Result<Self, Fault> {
        let path = folder.join(MANIFEST_NAME);
        let text = std::fs::read(&path)
            .map_err(|error| failed(&format!("read {}", printable(&path.to_string_lossy())), &error))?;
        let manifest = Manifest::parse(&text, Folder::default()).map_err(|error| {
            let placed = |it: &goplug_pconf_schema::PconfProblem| {
                format!("{MANIFEST_NAME}:{}:{}: {}", it.line, it.column, it.message)
            };
            wrong(error.problems.iter().map(placed).collect::<Vec<_>>().join("; "))
        })?;
        let mut walk = Walk { folder, files: Vec::new(), bytes: 0, refused: Vec::new() };
        walk.enter("", 0)?;
        if !walk.refused.is_empty() {
            walk.refused.truncate(20);
            return Err(wrong(walk.refused.join("; ")));
        }
        let contents = Contents::new(&manifest.id, manifest.version.clone(), manifest.permissions.clone(), walk.files);
        Contents::parse(&contents.to_json()).map_err(|problems| wrong(problems.join("; ")))?;
        Ok(Self { folder: folder.to_owned(), manifest, contents })
    }

    /// What `plugin.json` says.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// What the package will hold.
    pub fn contents(&self) -> &Contents {
        &self.contents
    }

    /// The name that its file usually has.
    pub fn file_name(&self) -> String {
        file_name(&self.manifest)
    }

    /// Writes the package to a file, which appears whole or not at all and takes the place of one that is there; its size.
    /// Blocking.
    ///
    /// # Errors
    /// As [`Packing::write`]; `denied`, `not_found`: the folder of the file cannot be written to, or is not there.
    pub fn save(&self, path: &Path, sign: Option<Sign<'_>>) -> Result<u64, Fault> {
        let shown = printable(&path.to_string_lossy());
        let name = path.file_name().ok_or_else(|| wrong(format!("{shown} names no file")))?.to_string_lossy();
        let beside = path.with_file_name(format!(".{name}.{}.part", std::process::id()));
        let making = |error: std::io::Error| failed(&format!("make {shown}"), &error);
        let out = File::options().read(true).write(true).create_new(true).open(&beside).map_err(making)?;
        let written = self
            .write(&out, sign)
            .and_then(|()| out.metadata().map_err(making))
            .and_then(|status| std::fs::rename(&beside, path).map(|()| status.len()).map_err(making));
        if written.is_err() {
            _ = std::fs::remove_file(&beside);
        }
        written
    }

    /// Writes the package to `out`, compressed with gzip, and syncs it. Blocking.
    ///
    /// # Errors
    /// `conflict`: a file is not what it was when the folder was looked at. `overloaded`: the disk is full. What `sign` says.
    pub fn write(&self, out: &File, sign: Option<Sign<'_>>) -> Result<(), Fault> {
        let text = self.contents.to_json();
        let writing = |error: std::io::Error| failed("write the package", &error);
        // No name and no time: they would differ from one run to the next.
        let gzip = GzBuilder::new().mtime(0).operating_system(255).write(out, Compression::best());
        let mut archive = Builder::new(gzip);
        append(&mut archive, CONTENTS_NAME, text.len() as u64, false, text.as_slice()).map_err(writing)?;
        if let Some(sign) = sign {
            let signature = sign(&text)?;
            append(&mut archive, SIGNATURE_NAME, signature.len() as u64, false, signature.as_bytes())
                .map_err(writing)?;
        }
        for listed in &self.contents.files {
            let file = open(&self.folder.join(&listed.path), &listed.path)?;
            let mut hashed = Hashed::new(file.take(listed.size));
            append(&mut archive, &listed.path, listed.size, listed.executable, &mut hashed).map_err(writing)?;
            if hashed.finish() != (listed.size, listed.sha256) {
                let text = format!("`{}` changed while it was packed: try again", printable(&listed.path));
                return Err(Fault::new(Code::Conflict, text));
            }
        }
        let mut out = archive.into_inner().and_then(flate2::write::GzEncoder::finish).map_err(writing)?;
        out.flush().and_then(|()| out.sync_all()).map_err(writing)?;
        out.seek(SeekFrom::Start(0)).map(drop).map_err(writing)
    }
}

/// The name that the package of a plugin usually has: `NAMESPACE-NAME-VERSION.plg`.
pub fn file_name(manifest: &Manifest) -> String {
    let Manifest { id, version, .. } = manifest;
    let namespace = if id.namespace().is_empty() { String::new() } else { format!("{}-", id.namespace()) };
    format!("{namespace}{}-{version}.plg", id.name())
}

fn append(
    archive: &mut Builder<impl Write>,
    path: &str,
    size: u64,
    executable: bool,
    bytes: impl Read,
) -> std::io::Result<()> {
    let mut header = Header::new_ustar();
    header.set_entry_type(EntryType::Regular);
    header.set_path(path)?;
    header.set_size(size);
    header.set_mode(if executable { 0o755 } else { 0o644 });
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_device_major(0)?;
    header.set_device_minor(0)?;
    header.set_cksum();
    archive.append(&header, bytes)
}

struct Walk<'a> {
    folder: &'a Path,
    files: Vec<PackedFile>,
    bytes: u64,
    refused: Vec<String>,
}

impl Walk<'_> {
    fn enter(&mut self, inside: &str, depth: usize) -> Result<(), Fault> {
        let path = self.folder.join(inside);
        let unreadable =
            |error: std::io::Error| failed(&format!("read {}", printable(&path.to_string_lossy())), &error);
        for entry in std::fs::read_dir(&path).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            let Ok(name) = entry.file_name().into_string() else {
                self.refused.push(format!("`{}` is no UTF-8", printable(&entry.file_name().to_string_lossy())));
                continue;
            };
            let inner = if inside.is_empty() { name } else { format!("{inside}/{name}") };
            let kind = entry.file_type().map_err(unreadable)?;
            if kind.is_dir() && depth < MAX_PACKED_DEPTH {
                self.enter(&inner, depth + 1)?;
            } else if kind.is_file() {
                self.add(inner)?;
            } else {
                self.refused
                    .push(format!("`{}` is no regular file, or too deep: a package cannot hold it", printable(&inner)));
            }
        }
        Ok(())
    }

    fn add(&mut self, path: String) -> Result<(), Fault> {
        if [CONTENTS_NAME, SIGNATURE_NAME].contains(&path.as_str()) {
            return Ok(());
        }
        let plain = check_packed_path(&path).and_then(|()| {
            Header::new_ustar().set_path(&path).map_err(|_| format!("path `{}` is too long", printable(&path)))
        });
        if let Err(why) = plain {
            self.refused.push(why);
            return Ok(());
        }
        let file = open(&self.folder.join(&path), &path)?;
        let status = file.metadata().map_err(|error| failed(&format!("look at `{}`", printable(&path)), &error))?;
        self.bytes = self.bytes.saturating_add(status.len());
        if self.bytes > MAX_PACKED_BYTES {
            return Err(Fault::new(Code::TooLarge, format!("it holds more than {MAX_PACKED_BYTES} bytes")));
        }
        if self.files.len() >= MAX_PACKED_FILES {
            return Err(Fault::new(Code::TooLarge, format!("it holds more than {MAX_PACKED_FILES} files")));
        }
        let mut hashed = Hashed::new(file.take(MAX_PACKED_BYTES));
        std::io::copy(&mut hashed, &mut std::io::sink())
            .map_err(|error| failed(&format!("read `{}`", printable(&path)), &error))?;
        let (size, sha256) = hashed.finish();
        self.files.push(PackedFile { path, size, sha256, executable: status.mode() & 0o111 != 0 });
        Ok(())
    }
}

/// Opens a regular file without following a link and without waiting for the other end of a FIFO.
fn open(path: &Path, shown: &str) -> Result<File, Fault> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let flags = i32::try_from(flags.bits()).unwrap_or(0);
    let file = File::options().read(true).custom_flags(flags).open(path);
    let file = file.map_err(|error| failed(&format!("open `{}`", printable(shown)), &error))?;
    if file.metadata().is_ok_and(|status| status.is_file()) {
        Ok(file)
    } else {
        Err(wrong(format!("`{}` is no regular file", printable(shown))))
    }
}
