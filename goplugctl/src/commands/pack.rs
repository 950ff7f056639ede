//! `pack`: the folder of a plugin becomes one file. No plugin is touched, and nothing is run.

use std::path::{Path, PathBuf};

use goplug_package::Packing;
use goplug_pconf_schema::{Code, Fault};
use minisign::{SecretKey, SecretKeyBox};
use serde::Serialize;

use crate::args::{Global, PackArgs};
use crate::failure::Failure;
use crate::output::{Out, escape};

/// The password of a secret key, for when nobody is there to type it.
const PASSWORD: &str = "GOPLUG_KEY_PASSWORD";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Packed {
    plugin: String,
    version: String,
    file: String,
    files: usize,
    /// Of the files that it holds.
    bytes: u64,
    signed: bool,
    dry_run: bool,
}

/// Packs a folder.
///
/// # Errors
/// The folder cannot be packed, the key cannot be used, the package cannot be written.
pub(crate) fn pack(global: &Global, args: &PackArgs) -> Result<(), Failure> {
    let shown = escape(&args.folder.display().to_string());
    let failed = |fault: Fault| {
        let lint = fault.code == Code::InvalidArgument;
        let failure = Failure::new(format!("cannot pack {shown}"), fault);
        if lint { failure.hint(format!("goplugctl lint {shown}")) } else { failure }
    };
    let packing = Packing::of(&args.folder).map_err(failed)?;
    let file = args.out.clone().unwrap_or_else(|| PathBuf::from(packing.file_name()));
    let plugin = packing.manifest().id.to_string();
    let version = packing.manifest().version.to_string();
    let key = match &args.key {
        Some(path) => Some(secret_key(path).map_err(|fault| {
            Failure::new(format!("cannot use the key {}", escape(&path.display().to_string())), fault)
        })?),
        None => None,
    };
    if !args.dry_run {
        let mut sign = |text: &[u8]| {
            let key = key.as_ref().ok_or_else(|| Fault::new(Code::Internal, "there is no key"))?;
            // No time in the comments: the same folder gives the same bytes.
            let comment = format!("{plugin} {version}");
            let signed = minisign::sign(None, key, text, Some(&comment), Some("signature of a GoPlug package"));
            signed
                .map(|signature| signature.into_string())
                .map_err(|error| Fault::new(Code::Internal, error.to_string()))
        };
        packing.save(&file, if key.is_some() { Some(&mut sign) } else { None }).map_err(failed)?;
    }
    let contents = packing.contents();
    let packed = Packed {
        plugin,
        version,
        file: file.display().to_string(),
        files: contents.files.len(),
        bytes: contents.files.iter().map(|file| file.size).sum(),
        signed: key.is_some(),
        dry_run: args.dry_run,
    };
    let mut out = Out::stdout(global.output, global.quiet, global.color);
    let names = vec![packed.file.clone()];
    if !args.dry_run {
        return Ok(out.changed(&[packed], true, &names)?);
    }
    let Packed { plugin, version, file, files, bytes, .. } = &packed;
    let text = format!("{plugin} {version} would be packed to {}: {files} files, {bytes} bytes\n", escape(file));
    Ok(out.show(std::slice::from_ref(&packed), true, || names, |_, _| text)?)
}

/// Reads a secret key; one with a password is asked for it.
fn secret_key(path: &Path) -> Result<SecretKey, Fault> {
    let text = std::fs::read_to_string(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Fault::new(Code::NotFound, "there is no such file"),
        _ => Fault::new(Code::Denied, error.to_string()),
    })?;
    let wrong = |error: minisign::PError| Fault::new(Code::InvalidArgument, error.to_string());
    let boxed = || SecretKeyBox::from_string(&text).map_err(wrong);
    match boxed()?.into_unencrypted_secret_key() {
        Ok(key) => Ok(key),
        // Without one it is asked for on the terminal.
        Err(_) => boxed()?.into_secret_key(std::env::var(PASSWORD).ok()).map_err(wrong),
    }
}
