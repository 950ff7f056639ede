//! Archives made by hand, so that everything in them can be wrong.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use goplug_package::{Keys, Package};
use goplug_pconf_schema::contents::{Contents, PackedFile};
use goplug_pconf_schema::{Fault, PluginId, Sha256};
use sha2::Digest;

pub(crate) const PLUGIN_JSON: &str =
    r#"{"namespace": "test", "name": "do", "version": "1.2.0", "source": {"mode": "local_exec", "path": "bin/do"}}"#;
pub(crate) const PROGRAM: &str = "#!/bin/sh\nexec sleep 60\n";

/// One header and what follows it.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) header: [u8; 512],
    pub(crate) data: Vec<u8>,
}

impl Entry {
    pub(crate) fn file(path: &str, data: impl AsRef<[u8]>, mode: &str) -> Self {
        let data = data.as_ref().to_vec();
        let mut entry = Self { header: [0; 512], data };
        entry.put(0, path.as_bytes());
        entry.put(100, mode.as_bytes());
        for at in [108, 116, 329, 337] {
            entry.put(at, b"0000000");
        }
        let size = format!("{:011o}", entry.data.len());
        entry.put(124, size.as_bytes());
        entry.put(136, b"00000000000");
        entry.put(156, b"0");
        entry.put(257, b"ustar\x0000");
        entry.sum();
        entry
    }

    pub(crate) fn put(&mut self, at: usize, bytes: &[u8]) {
        self.header[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// Puts bytes and mends the checksum.
    pub(crate) fn with(mut self, at: usize, bytes: &[u8]) -> Self {
        self.put(at, bytes);
        self.sum();
        self
    }

    pub(crate) fn sum(&mut self) {
        self.put(148, b"        ");
        let sum: u32 = self.header.iter().map(|byte| u32::from(*byte)).sum();
        let sum = format!("{sum:06o}\0 ");
        self.put(148, sum.as_bytes());
    }
}

pub(crate) fn tar(entries: &[Entry]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in entries {
        bytes.extend_from_slice(&entry.header);
        bytes.extend_from_slice(&entry.data);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn packed(path: &str, data: impl AsRef<[u8]>, executable: bool) -> PackedFile {
    let sha256 = Sha256::from(<[u8; 32]>::from(sha2::Sha256::digest(data.as_ref())));
    PackedFile { path: path.into(), size: data.as_ref().len() as u64, sha256, executable }
}

pub(crate) fn contents() -> Contents {
    let id = PluginId::new("test", "do").unwrap();
    let files = vec![packed("plugin.json", PLUGIN_JSON, false), packed("bin/do", PROGRAM, true)];
    Contents::new(&id, "1.2.0".parse().unwrap(), None, files)
}

/// What is in order, unsigned.
pub(crate) fn entries() -> Vec<Entry> {
    vec![
        Entry::file("MANIFEST", contents().to_json(), "0000644"),
        Entry::file("bin/do", PROGRAM, "0000755"),
        Entry::file("plugin.json", PLUGIN_JSON, "0000644"),
    ]
}

pub(crate) fn open(bytes: &[u8]) -> Result<Package, Fault> {
    open_with(bytes, &Keys::default().allow_unsigned())
}

pub(crate) fn open_with(bytes: &[u8], keys: &Keys) -> Result<Package, Fault> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    Package::open(file, keys)
}

/// xorshift64*: the same numbers for the same seed.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % bound as u64) as usize
    }
}
