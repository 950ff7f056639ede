//! Whether a file can be a plugin that is a shared object, told from its text: nothing of it is run.

use std::cell::Cell;
use std::fs::File;
use std::io::{Read, Seek};
use std::ops::Range;
use std::path::Path;

use object::read::{ReadCache, ReadCacheOps, ReadRef};
use object::{Architecture, Object, ObjectKind, ObjectSegment, ObjectSymbol, SymbolKind};

use crate::words::show;

/// The function that is called, and the number that says for which version of `goplug.h` it was built.
const ENTRY: &str = "Execute";
const ABI_SYMBOL: &str = "goplug_abi";
/// The version that goplug-host has.
const ABI: u32 = 1;

/// What is read of a file, of which only its tables are: there are hardly any larger ones, and those are left to the loader.
const MAX_BYTES: u64 = 16 << 20;
/// What a name that was read costs besides its bytes.
const NAME_BYTES: u64 = 64;
const MAGIC: &[u8] = b"\x7fELF";

/// What is wrong with the shared object at `path`, a fragment that fits after the name of the manifest. Blocking.
pub(crate) fn check_shared_object(path: &Path) -> Option<String> {
    let shown = show(path);
    match File::open(path) {
        Ok(file) => flaw(file).map(|why| format!("shared object {shown} {why}")),
        Err(error) => Some(format!("shared object {shown} cannot be read: {error}")),
    }
}

fn flaw<F: Read + Seek>(file: F) -> Option<String> {
    let bounded = Bounded { file: ReadCache::new(file), left: MAX_BYTES.into() };
    let found = flaw_of(&bounded);
    // What was not read cannot be judged.
    found.filter(|_| bounded.left.get() > 0)
}

fn flaw_of<F: ReadCacheOps>(bytes: &Bounded<F>) -> Option<String> {
    if bytes.read_bytes_at(0, MAGIC.len() as u64) != Ok(MAGIC) {
        return Some("is no ELF file".into());
    }
    let file = match object::File::parse(bytes) {
        Ok(file) => file,
        Err(error) => return Some(format!("is no whole ELF file: {error}")),
    };
    if let Some(here) = here().filter(|here| *here != file.architecture()) {
        return Some(format!("is for another machine: {:?}, this one is {here:?}", file.architecture()));
    }
    if file.kind() != ObjectKind::Dynamic {
        return Some("is no shared object: link it with -shared".into());
    }
    // Without sections nothing but the loader finds its symbols.
    file.sections().next()?;
    let find = |name: &str| {
        file.dynamic_symbols().find(|symbol| !symbol.is_undefined() && symbol.is_global() && symbol.name() == Ok(name))
    };
    if let Some(abi) = find(ABI_SYMBOL).and_then(|symbol| number_at(&file, symbol.address()))
        && abi != ABI
    {
        return Some(format!("was built for version {abi} of goplug.h, this goplug has version {ABI}"));
    }
    match find(ENTRY) {
        None => Some(format!("exports no function `{ENTRY}`")),
        Some(entry) if entry.kind() == SymbolKind::Data => Some(format!("exports `{ENTRY}`, which is no function")),
        Some(_) => None,
    }
}

/// A file of which a bounded amount is read and kept: a damaged one can ask for far more than it holds.
struct Bounded<F: ReadCacheOps> {
    file: ReadCache<F>,
    left: Cell<u64>,
}

impl<F: ReadCacheOps> Bounded<F> {
    fn charge(&self, bytes: u64) -> Result<(), ()> {
        self.left.set(self.left.get().saturating_sub(bytes));
        if self.left.get() == 0 { Err(()) } else { Ok(()) }
    }
}

impl<'a, F: ReadCacheOps> ReadRef<'a> for &'a Bounded<F> {
    fn len(self) -> Result<u64, ()> {
        (&self.file).len()
    }

    fn read_bytes_at(self, offset: u64, size: u64) -> Result<&'a [u8], ()> {
        self.charge(size)?;
        (&self.file).read_bytes_at(offset, size)
    }

    fn read_bytes_at_until(self, range: Range<u64>, delimiter: u8) -> Result<&'a [u8], ()> {
        let bytes = (&self.file).read_bytes_at_until(range, delimiter)?;
        self.charge(bytes.len() as u64 + NAME_BYTES)?;
        Ok(bytes)
    }
}

/// The number that is at an address once it is loaded; `None` when it is not in the file.
fn number_at<'a, F: ReadCacheOps>(file: &object::File<'a, &'a Bounded<F>>, address: u64) -> Option<u32> {
    let bytes = file.segments().find_map(|segment| segment.data_range(address, 4).ok().flatten())?;
    let bytes = <[u8; 4]>::try_from(bytes).ok()?;
    Some(if file.is_little_endian() { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) })
}

/// What this machine is, as far as it can be compared.
fn here() -> Option<Architecture> {
    match std::env::consts::ARCH {
        "x86_64" => Some(Architecture::X86_64),
        "aarch64" => Some(Architecture::Aarch64),
        "riscv64" => Some(Architecture::Riscv64),
        "powerpc64" => Some(Architecture::PowerPc64),
        "s390x" => Some(Architecture::S390x),
        "loongarch64" => Some(Architecture::LoongArch64),
        "arm" => Some(Architecture::Arm),
        "x86" => Some(Architecture::I386),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    fn flaw(bytes: &[u8]) -> Option<String> {
        super::flaw(Cursor::new(bytes))
    }

    #[test]
    fn what_is_no_shared_object_of_this_machine_is_told() {
        // This test itself: an executable that may be loaded anywhere, without the function.
        let own = std::fs::read("/proc/self/exe").unwrap();
        assert_eq!(flaw(&own).unwrap(), "exports no function `Execute`");
        let mut foreign = own.clone();
        // e_machine: MIPS.
        foreign[18..20].copy_from_slice(&8_u16.to_le_bytes());
        let why = flaw(&foreign).unwrap();
        assert!(why.starts_with("is for another machine: Mips") && why.contains(", this one is "), "{why}");
        let mut fixed = own.clone();
        // e_type: ET_EXEC.
        fixed[16..18].copy_from_slice(&2_u16.to_le_bytes());
        assert_eq!(flaw(&fixed).unwrap(), "is no shared object: link it with -shared");
        assert_eq!(flaw(b"").unwrap(), "is no ELF file");
        assert_eq!(flaw(b"#!/bin/sh\n").unwrap(), "is no ELF file");
        assert!(flaw(&own[..100]).unwrap().starts_with("is no whole ELF file"), "{:?}", flaw(&own[..100]));
        assert!(flaw(&own[..20]).unwrap().starts_with("is no whole ELF file"));
        let none = check_shared_object(Path::new("/no/such.so")).unwrap();
        assert!(none.contains("/no/such.so cannot be read"), "{none}");
    }

    /// Whatever the bytes are, it ends with a word.
    #[test]
    fn a_damaged_file_is_told_and_harms_nobody() {
        let own = std::fs::read("/proc/self/exe").unwrap();
        let head = &own[..own.len().min(4096)];
        for at in 0..head.len() {
            let mut bytes = head.to_vec();
            bytes[at] ^= 0xff;
            assert!(flaw(&bytes).is_some() || at >= 64, "{at}");
        }
    }
}
