//! Writes what a package holds to a folder that nobody else sees yet, and checks again what it writes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use goplug_pconf_schema::contents::{CONTENTS_NAME, SIGNATURE_NAME};
use goplug_pconf_schema::{Fault, Sha256, printable};
use rustix::fs::{Mode, OFlags};

use crate::archive::{self, Item, unreadable};
use crate::digest::Hashed;
use crate::open::{Package, listed, stream};
use crate::{failed, wrong};

impl Package {
    /// Writes every file, `MANIFEST` and its signature among them, to `folder`, which is empty and which only this process
    /// knows, and syncs it. `written` hears of every file's bytes. Owners and times are not those of the archive, modes are
    /// 0755 and 0644. Blocking.
    ///
    /// # Errors
    /// `invalid_argument`: the file is not what was opened, somebody changed it meanwhile. `overloaded`: the disk is full.
    /// `denied`, `internal`: the folder cannot be written. What was written until then stays: the caller removes the folder.
    pub fn unpack(&mut self, folder: BorrowedFd<'_>, written: &mut dyn FnMut(u64)) -> Result<(), Fault> {
        let Self { file, size, contents, dialect, .. } = self;
        file.seek(SeekFrom::Start(0)).map_err(|error| failed("read the package", &error))?;
        let mut folders = Folders { root: folder, open: BTreeMap::new() };
        let (mut files, mut text) = (0, None);
        archive::read(stream(file, *size)?, *dialect, |item, bytes| {
            let own = [CONTENTS_NAME, SIGNATURE_NAME].contains(&item.path.as_str());
            let listed = if own { None } else { Some(listed(contents, item)?) };
            let found = folders.write(item, bytes)?;
            match listed {
                Some(listed) if listed.sha256 != found => return Err(changed()),
                Some(_) => files += 1,
                None if item.path == CONTENTS_NAME => text = Some(found),
                None => {}
            }
            written(item.size);
            Ok(())
        })?;
        for (name, bytes) in &self.made {
            let item = Item { path: (*name).to_owned(), size: bytes.len() as u64, executable: false };
            let found = folders.write(&item, &mut bytes.as_slice())?;
            if *name == CONTENTS_NAME {
                text = Some(found);
            } else {
                files += 1;
            }
        }
        if files != contents.files.len() || text != Some(self.digest()) {
            return Err(changed());
        }
        folders.finish()
    }
}

fn changed() -> Fault {
    wrong("the package changed while it was unpacked: try again")
}

/// The folders that were made, each by its handle: nothing is looked up by a path with more than one name.
struct Folders<'a> {
    root: BorrowedFd<'a>,
    open: BTreeMap<String, OwnedFd>,
}

impl Folders<'_> {
    fn write(&mut self, item: &Item, bytes: &mut dyn Read) -> Result<Sha256, Fault> {
        let (parent, name) = item.path.rsplit_once('/').unwrap_or(("", &item.path));
        let parent = self.folder(parent)?;
        let shown = printable(&item.path);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(parent, name, flags, Mode::RUSR | Mode::WUSR);
        let mut file = File::from(file.map_err(|error| failed(&format!("make `{shown}`"), &error.into()))?);
        let mut hashed = Hashed::new(bytes);
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let read = hashed.read(&mut buffer).map_err(|error| unreadable(&error))?;
            if read == 0 {
                break;
            }
            file.write_all(&buffer[..read]).map_err(|error| failed(&format!("write `{shown}`"), &error))?;
        }
        let mode = if item.executable { 0o755 } else { 0o644 };
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))
            .and_then(|()| rustix::fs::fsync(&file))
            .map_err(|error| failed(&format!("write `{shown}`"), &error.into()))?;
        Ok(hashed.finish().1)
    }

    /// The folder of this path, which is made if it is not there.
    fn folder(&mut self, path: &str) -> Result<BorrowedFd<'_>, Fault> {
        if path.is_empty() {
            return Ok(self.root);
        }
        if !self.open.contains_key(path) {
            let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
            let above = self.folder(above)?;
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let made = rustix::fs::mkdirat(above, name, Mode::RWXU)
                .and_then(|()| rustix::fs::openat(above, name, flags, Mode::empty()))
                .map_err(|error| failed(&format!("make folder `{}`", printable(path)), &error.into()))?;
            self.open.insert(path.to_owned(), made);
        }
        self.open.get(path).map(AsFd::as_fd).ok_or_else(|| wrong("a folder is not there"))
    }

    /// Folders are for everybody to read; they are synced when all that is in them is there.
    fn finish(self) -> Result<(), Fault> {
        let inner = self.open.iter().map(|(path, folder)| (path.as_str(), folder.as_fd()));
        for (path, folder) in inner.chain([("the folder of plugin.json", self.root)]) {
            rustix::fs::fchmod(folder, Mode::from_raw_mode(0o755))
                .and_then(|()| rustix::fs::fsync(folder))
                .map_err(|error| failed(&format!("sync {}", printable(path)), &error.into()))?;
        }
        Ok(())
    }
}
