//! Which archives are read: regular files and folders in the plain format of POSIX, and nothing that any reader could take for
//! something else.
//!
//! Every reader of tar archives has its own idea of what is in between: of sizes that are there twice, of names that go on in
//! another record, of numbers that are not in octal. What is accepted here is listed identically by GNU tar and by Python's
//! `tarfile`; everything else is refused. `tar` reads the blocks; what they may say is decided here.

use std::io::Read;

use goplug_pconf_schema::contents::{MAX_PACKED_BYTES, MAX_PACKED_FILES, check_packed_path};
use goplug_pconf_schema::{Code, Fault, printable};
use tar::Archive;

use crate::wrong;

const BLOCK: usize = 512;

/// One file of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Item {
    /// Relative, checked.
    pub(crate) path: String,
    pub(crate) size: u64,
    pub(crate) executable: bool,
}

/// Which archives are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// Packages of ours.
    Strict,
    /// Archives of the original's users, who made them with `tar`: of its own format, too, and with names that begin with `./`.
    Original,
}

/// Reads the archive to its end, and shows every file to `each`, which need not read it to its end.
///
/// # Errors
/// What is wrong with the archive, or what `each` says.
pub(crate) fn read(
    stream: impl Read,
    dialect: Dialect,
    mut each: impl FnMut(&Item, &mut dyn Read) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let mut archive = Archive::new(stream);
    let (mut seen, mut bytes) = (Seen::default(), 0_u64);
    for entry in archive.entries().map_err(|error| unreadable(&error))?.raw(true) {
        let mut entry = entry.map_err(|error| unreadable(&error))?;
        let header = *entry.header().as_bytes();
        let Some((item, is_folder)) = item(&header, dialect)? else { continue };
        bytes = bytes.saturating_add(item.size);
        if bytes > MAX_PACKED_BYTES {
            return Err(Fault::new(Code::TooLarge, format!("it holds more than {MAX_PACKED_BYTES} bytes")));
        }
        seen.add(&item.path, is_folder)?;
        if !is_folder {
            each(&item, &mut entry)?;
        }
    }
    end(archive.into_inner())
}

/// Behind the first empty block there is another one, and then nothing but zeros.
fn end(mut rest: impl Read) -> Result<(), Fault> {
    let (mut block, mut zeros) = ([0; BLOCK], 0_usize);
    loop {
        let read = rest.read(&mut block).map_err(|error| unreadable(&error))?;
        if read == 0 {
            break;
        }
        if block[..read].iter().any(|byte| *byte != 0) {
            return Err(wrong("something follows the end of the archive"));
        }
        zeros += read;
    }
    if zeros < BLOCK {
        return Err(wrong("the archive is cut: its end is missing"));
    }
    Ok(())
}

/// The names so far, so that no name is there twice, and none is that of a file and of a folder.
#[derive(Default)]
struct Seen(std::collections::BTreeMap<String, bool>);

impl Seen {
    fn add(&mut self, path: &str, is_folder: bool) -> Result<(), Fault> {
        for (at, _) in path.match_indices('/') {
            if self.0.get(&path[..at]) == Some(&false) {
                return Err(wrong(format!(
                    "`{}` lies in `{}`, which is a file",
                    printable(path),
                    printable(&path[..at])
                )));
            }
        }
        let below = format!("{path}/");
        let is_parent = self.0.range(below.clone()..).next().is_some_and(|(next, _)| next.starts_with(&below));
        if self.0.insert(path.to_owned(), is_folder).is_some() || is_parent && !is_folder {
            return Err(wrong(format!("`{}` is there twice", printable(path))));
        }
        if self.0.len() > MAX_PACKED_FILES {
            return Err(Fault::new(Code::TooLarge, format!("it holds more than {MAX_PACKED_FILES} files and folders")));
        }
        Ok(())
    }
}

/// Where the fields of a header are: `ustar` of POSIX.1-1988.
mod field {
    use std::ops::Range;

    pub(super) const NAME: Range<usize> = 0..100;
    pub(super) const MODE: Range<usize> = 100..108;
    pub(super) const SIZE: Range<usize> = 124..136;
    /// Mode, owner, group, time, checksum: what every reader must be able to read.
    pub(super) const NUMBERS: [Range<usize>; 5] = [MODE, 108..116, 116..124, 136..148, 148..156];
    pub(super) const TYPE: usize = 156;
    pub(super) const LINK: Range<usize> = 157..257;
    pub(super) const MAGIC: Range<usize> = 257..265;
    pub(super) const DEVICES: Range<usize> = 329..345;
    pub(super) const PREFIX: Range<usize> = 345..500;
    pub(super) const REST: Range<usize> = 500..512;
}

/// Takes a header apart; the second: whether it is a folder. `None`: it is the folder that everything lies in.
fn item(header: &[u8; BLOCK], dialect: Dialect) -> Result<Option<(Item, bool)>, Fault> {
    let name = text(&header[field::NAME]).ok_or_else(|| wrong("a name goes on behind its end, or is no UTF-8"))?;
    let prefix = text(&header[field::PREFIX]).ok_or_else(|| wrong("a name goes on behind its end, or is no UTF-8"))?;
    let shown = printable(name);
    let refuse = |why: &str| Err(wrong(format!("`{shown}` {why}")));
    let is_folder = match header[field::TYPE] {
        b'0' => false,
        b'5' => true,
        kind => return refuse(&format!("is {}: only files and folders can be in a package", kind_of(kind))),
    };
    let is_gnu = header[field::MAGIC] == *b"ustar  \0" && dialect == Dialect::Original && prefix.is_empty();
    if !is_gnu && header[field::MAGIC] != *b"ustar\x0000" {
        return refuse("is not in the format ustar, which `goplugctl pack` writes and `tar --format=ustar`");
    }
    if field::NUMBERS.into_iter().any(|range| octal(&header[range]).is_none()) {
        return refuse("has a number that is not in octal");
    }
    let unused = header[field::LINK].iter().chain(&header[field::REST]).any(|byte| *byte != 0);
    let devices = header[field::DEVICES].chunks(8).any(|number| number != [0; 8] && octal(number) != Some(0));
    if unused || devices {
        return refuse("has a link, a device or something else that a file has not");
    }
    let Some(size) = octal(&header[field::SIZE]) else { return refuse("has a size that is not in octal") };
    if is_folder && size != 0 {
        return refuse("is a folder and has a size");
    }
    let whole = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}/{name}") };
    let whole = match whole.strip_prefix("./") {
        Some("") if dialect == Dialect::Original && is_folder => return Ok(None),
        Some(rest) if dialect == Dialect::Original => rest.to_owned(),
        _ => whole,
    };
    let path = whole.strip_suffix('/').unwrap_or(&whole).to_owned();
    check_packed_path(&path).map_err(wrong)?;
    match (whole.ends_with('/'), is_folder) {
        (true, false) => return refuse("is a file whose name ends in a slash"),
        (false, true) => return refuse("is a folder whose name does not end in a slash"),
        _ => {}
    }
    let mode = octal(&header[field::MODE]).unwrap_or(0);
    Ok(Some((Item { path, size, executable: mode & 0o100 != 0 }, is_folder)))
}

/// What stands before the first zero; behind it there is nothing else.
fn text(field: &[u8]) -> Option<&str> {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    let (text, rest) = field.split_at(end);
    if rest.iter().any(|byte| *byte != 0) { None } else { str::from_utf8(text).ok() }
}

/// Octal digits, then zeros or spaces to the end, at least one.
fn octal(field: &[u8]) -> Option<u64> {
    let end = field.iter().position(|byte| matches!(byte, 0 | b' '))?;
    let (digits, rest) = field.split_at(end);
    if digits.is_empty() || rest.iter().any(|byte| !matches!(byte, 0 | b' ')) {
        return None;
    }
    u64::from_str_radix(str::from_utf8(digits).ok().filter(|text| !text.starts_with('+'))?, 8).ok()
}

fn kind_of(kind: u8) -> String {
    match kind {
        0 => "of the format before POSIX".into(),
        b'1' => "a hard link".into(),
        b'2' => "a symbolic link".into(),
        b'3' | b'4' => "a device".into(),
        b'6' => "a FIFO".into(),
        b'x' | b'g' | b'X' => "an extension of the format (pax)".into(),
        b'L' | b'K' => "a long name of GNU tar".into(),
        b'S' => "a file with holes".into(),
        other => format!("of the unknown type {other}"),
    }
}

/// The archive cannot be read on.
pub(crate) fn unreadable(error: &std::io::Error) -> Fault {
    let code = if error.kind() == std::io::ErrorKind::FileTooLarge { Code::TooLarge } else { Code::InvalidArgument };
    Fault::new(code, format!("the archive cannot be read: {}", printable(&error.to_string())))
}
