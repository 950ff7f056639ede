//! Archives of the original GoPlug, made with `tar` as their users made them.

use std::fs;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;

use goplug_package::{Keys, Package, Signer};
use goplug_pconf_schema::Code;

use crate::raw;

fn tar(folder: &Path, arguments: &[&str]) -> Vec<u8> {
    let out = folder.with_extension("tar");
    let mut tar = Command::new("tar");
    tar.arg("-C").arg(folder).arg("-cf").arg(&out).args(arguments);
    assert!(tar.status().unwrap().success());
    fs::read(out).unwrap()
}

fn folder(conf: &str) -> (tempfile::TempDir, std::path::PathBuf) {
    let outer = tempfile::tempdir().unwrap();
    let folder = outer.path().join("plugin");
    fs::create_dir_all(folder.join("data")).unwrap();
    fs::write(folder.join("plugin.conf"), conf).unwrap();
    fs::write(folder.join("pluginmain"), "#!/bin/sh\n").unwrap();
    fs::write(folder.join("data/words"), "one two").unwrap();
    (outer, folder)
}

#[test]
fn they_install_however_they_were_made() {
    let (_outer, folder) = folder(r#"{"namespace": "Test", "NAME": "Do", "Version": "1.02", "LazyLoad": true}"#);
    for arguments in [
        &["."][..],
        &["--format=ustar", "."],
        &["--gzip", "."],
        &["--format=gnu", "plugin.conf", "pluginmain", "data"],
        &["--sort=name", "data", "pluginmain", "plugin.conf"],
    ] {
        let bytes = tar(&folder, arguments);
        assert_eq!(raw::open_with(&bytes, &Keys::default()).unwrap_err().code, Code::Denied, "{arguments:?}");
        let mut package = raw::open(&bytes).unwrap_or_else(|fault| panic!("{arguments:?}: {fault}"));
        assert_eq!(*package.signer(), Signer::Nobody);
        let manifest = package.manifest();
        assert_eq!((manifest.id.as_str(), manifest.version.to_string().as_str()), ("Test/Do", "1.2.0"));
        assert!(manifest.lazy_load && manifest.source.path == "pluginmain");
        let target = tempfile::tempdir().unwrap();
        package.unpack(fs::File::open(target.path()).unwrap().as_fd(), &mut |_| ()).unwrap();
        for file in ["plugin.json", "MANIFEST", "pluginmain", "data/words"] {
            assert!(target.path().join(file).is_file(), "{file}");
        }
    }
}

#[test]
fn what_is_none_of_them_is_told() {
    let conf = r#"{"name": "Do", "Version": "1.0"}"#;
    let (_outer, whole) = folder(conf);
    let cases: [(&str, &[&str]); 3] = [
        ("no pluginmain", &["plugin.conf"]),
        ("neither MANIFEST nor plugin.conf", &["pluginmain"]),
        ("extension of the format", &["--format=pax", "."]),
    ];
    for (why, arguments) in cases {
        let refused = raw::open(&tar(&whole, arguments)).unwrap_err();
        assert!(refused.message.contains(why), "{why}: {refused}");
    }
    let (_outer, without_name) = folder(r#"{"Version": "1.0"}"#);
    assert!(raw::open(&tar(&without_name, &["."])).unwrap_err().message.contains("plugin.conf: "));
    fs::write(whole.join("plugin.json"), raw::PLUGIN_JSON).unwrap();
    assert!(raw::open(&tar(&whole, &["."])).unwrap_err().message.contains("goplugctl pack"));
    std::os::unix::fs::symlink("/etc/passwd", whole.join("link")).unwrap();
    assert!(raw::open(&tar(&whole, &["."])).unwrap_err().message.contains("symbolic link"));
    drop(Package::open(fs::File::open("/dev/null").unwrap(), &Keys::default()).unwrap_err());
}
