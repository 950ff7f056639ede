//! Packages: plugins handed over in one file, `.plg` (`docs/packages.md`).
//!
//! A package is a compressed tar archive: `MANIFEST` with the digest of every file, its signature, and the files, `plugin.json`
//! among them. Whoever made it is not trusted: [`Package::open`] reads all of it, within limits, and checks everything before
//! anything is written; [`Package::unpack`] writes to a folder that the caller made, and checks again what it writes. Nothing
//! in it is ever run here. In reading order: `open` (what is checked), `archive` (which archives
//! are read at all), `stream` (what is unpacked, within which limits), `keys` (who is trusted),
//! `unpack`, `original` (archives of the original GoPlug), `pack` (how one is made: the same folder gives the same bytes).
//!
//! ```
//! use goplug_package::{Keys, Package, Packing};
//!
//! let folder = tempfile::tempdir().unwrap();
//! let manifest = r#"{"name": "do", "version": "1.2.0", "source": {"mode": "local_exec", "path": "do"}}"#;
//! std::fs::write(folder.path().join("plugin.json"), manifest).unwrap();
//! std::fs::write(folder.path().join("do"), "#!/bin/sh\n").unwrap();
//!
//! let out = tempfile::tempfile().unwrap();
//! Packing::of(folder.path()).unwrap().write(&out, None).unwrap();
//!
//! // Nobody signed it: whoever takes it has to say so.
//! let refused = Package::open(out.try_clone().unwrap(), &Keys::default()).unwrap_err();
//! assert_eq!(refused.code, goplug_pconf_schema::Code::Denied);
//! let package = Package::open(out, &Keys::default().allow_unsigned()).unwrap();
//! assert_eq!(package.manifest().version.to_string(), "1.2.0");
//! ```

mod archive;
mod digest;
mod keys;
mod open;
mod original;
mod pack;
mod stream;
mod unpack;

pub use digest::Hashed;
pub use keys::{Key, Keys, Signer};
pub use open::Package;
pub use pack::{Packing, Sign, file_name};

use goplug_pconf_schema::{Code, Fault};

/// What somebody else wrote is not as it has to be.
fn wrong(text: impl Into<String>) -> Fault {
    Fault::new(Code::InvalidArgument, text.into())
}

/// A file or a folder of ours could not be read or written.
fn failed(what: &str, error: &std::io::Error) -> Fault {
    let code = match error.kind() {
        std::io::ErrorKind::NotFound => Code::NotFound,
        std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => Code::Denied,
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Code::Overloaded,
        _ => Code::Internal,
    };
    Fault::new(code, format!("{what}: {error}"))
}
