//! What is packed comes out again.

use std::fs;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use goplug_package::{Keys, Package, Packing};
use goplug_pconf_schema::Code;

use crate::raw::{self, PLUGIN_JSON, PROGRAM};

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("plugin.json"), PLUGIN_JSON).unwrap();
    fs::create_dir_all(folder.path().join("bin")).unwrap();
    fs::write(folder.path().join("bin/do"), PROGRAM).unwrap();
    fs::set_permissions(folder.path().join("bin/do"), fs::Permissions::from_mode(0o700)).unwrap();
    let deep = folder.path().join("share").join("x".repeat(90)).join("y".repeat(60));
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("größe"), vec![7; 100_000]).unwrap();
    fs::create_dir(folder.path().join("empty")).unwrap();
    folder
}

fn pack(folder: &Path) -> fs::File {
    let out = tempfile::tempfile().unwrap();
    Packing::of(folder).unwrap().write(&out, None).unwrap();
    out
}

#[test]
fn everything_of_a_folder_comes_out_again() {
    let source = folder();
    let mut package = Package::open(pack(source.path()), &Keys::default().allow_unsigned()).unwrap();
    assert_eq!(package.manifest().id.as_str(), "test/do");
    let target = tempfile::tempdir().unwrap();
    let handle = fs::File::open(target.path()).unwrap();
    let mut bytes = 0;
    package.unpack(handle.as_fd(), &mut |written| bytes += written).unwrap();
    for file in &package.contents().files {
        let (before, after) = (source.path().join(&file.path), target.path().join(&file.path));
        assert_eq!(fs::read(before).unwrap(), fs::read(&after).unwrap());
        let expected = if file.executable { 0o755 } else { 0o644 };
        assert_eq!(fs::metadata(after).unwrap().mode() & 0o7777, expected);
    }
    assert_eq!(package.contents().files.len(), 3);
    assert!(package.contents().file("bin/do").unwrap().executable);
    assert!(bytes > 100_000);
    assert!(target.path().join("MANIFEST").is_file() && !target.path().join("empty").exists());
}

#[test]
fn the_same_folder_gives_the_same_bytes() {
    let read = |folder: &Path| {
        let mut bytes = Vec::new();
        pack(folder).read_to_end(&mut bytes).unwrap();
        bytes
    };
    let (one, other) = (folder(), folder());
    // Neither the place, nor the times, nor the modes beyond "may be run" are in it.
    fs::set_permissions(other.path().join("bin/do"), fs::Permissions::from_mode(0o777)).unwrap();
    fs::write(other.path().join("plugin.json"), PLUGIN_JSON).unwrap();
    assert_eq!(read(one.path()), read(other.path()));
    fs::write(other.path().join("bin/do"), "another").unwrap();
    assert_ne!(read(one.path()), read(other.path()));
}

#[test]
fn what_a_package_cannot_hold_is_told_all_at_once() {
    let source = folder();
    symlink("/etc/passwd", source.path().join("link")).unwrap();
    fs::write(source.path().join("back\\slash"), "").unwrap();
    let refused = Packing::of(source.path()).unwrap_err();
    assert_eq!(refused.code, Code::InvalidArgument);
    assert!(refused.message.contains("link") && refused.message.contains("backslash"), "{refused}");
    fs::write(source.path().join("plugin.json"), r#"{"name": "do"}"#).unwrap();
    assert!(Packing::of(source.path()).unwrap_err().message.contains("plugin.json:"));
    assert_eq!(Packing::of(&source.path().join("nowhere")).unwrap_err().code, Code::NotFound);
}

#[test]
fn one_that_changes_while_it_is_packed_or_unpacked_is_noticed() {
    let source = folder();
    let packing = Packing::of(source.path()).unwrap();
    fs::write(source.path().join("bin/do"), PROGRAM.to_uppercase()).unwrap();
    let changed = packing.write(&tempfile::tempfile().unwrap(), None).unwrap_err();
    assert_eq!(changed.code, Code::Conflict, "{changed}");

    // What was verified is exchanged for another package, or for the same with other bytes.
    for exchange in [raw::tar(&raw::entries()[..2]), raw::tar(&raw::entries()), Vec::new()] {
        let file = pack(folder().path());
        let mut package = Package::open(file.try_clone().unwrap(), &Keys::default().allow_unsigned()).unwrap();
        file.set_len(0).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &exchange, 0).unwrap();
        let target = tempfile::tempdir().unwrap();
        let handle = fs::File::open(target.path()).unwrap();
        assert_eq!(package.unpack(handle.as_fd(), &mut |_| ()).unwrap_err().code, Code::InvalidArgument);
    }
}

#[test]
fn zstd_and_no_compression_are_read_too() {
    let plain = raw::tar(&raw::entries());
    raw::open(&plain).unwrap();
    raw::open(&raw::gzip(&plain)).unwrap();
    let zstd = ruzstd::encoding::compress_to_vec(plain.as_slice(), ruzstd::encoding::CompressionLevel::Fastest);
    assert_eq!(raw::open(&zstd).unwrap().manifest().id.as_str(), "test/do");
}
