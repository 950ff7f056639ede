//! Archives of the original GoPlug: `plugin.conf` says what it is, `pluginmain` is the program.
//!
//! They have no digests and no signature, and their users made them with `tar`. What a package of ours has besides is made here.

use std::collections::BTreeMap;
use std::io::Read;

use goplug_pconf_schema::contents::{CONTENTS_NAME, Contents, PackedFile, SIGNATURE_NAME};
use goplug_pconf_schema::manifest::{Folder, MANIFEST_NAME};
use goplug_pconf_schema::{Fault, Manifest, printable};
use serde_json::{Value, json};

use crate::archive::{self, Dialect, Item, unreadable};
use crate::digest::{self, Hashed};
use crate::wrong;

const CONF: &str = "plugin.conf";
const PROGRAM: &str = "pluginmain";
const MAX_CONF_BYTES: u64 = 64 * 1024;

pub(crate) struct Original {
    pub(crate) contents: Contents,
    pub(crate) manifest: Manifest,
    /// `plugin.json` and `MANIFEST`.
    pub(crate) made: Vec<(&'static str, Vec<u8>)>,
    pub(crate) text: Vec<u8>,
}

/// Reads the archive to its end.
///
/// # Errors
/// It is none of the original's either.
pub(crate) fn read(stream: impl Read) -> Result<Original, Fault> {
    let (mut files, mut conf, mut has_program) = (Vec::new(), None, false);
    archive::read(stream, Dialect::Original, |item, bytes| {
        let (size, sha256) = match item.path.as_str() {
            MANIFEST_NAME | CONTENTS_NAME | SIGNATURE_NAME => {
                let text = format!(
                    "it holds `{}`, and its first file is not {CONTENTS_NAME}: make it with `goplugctl pack`",
                    item.path
                );
                return Err(wrong(text));
            }
            CONF => {
                let text = read_conf(item, bytes)?;
                let digest = digest::of(&text);
                conf = Some(text);
                (item.size, digest)
            }
            _ => {
                let mut hashed = Hashed::new(bytes);
                std::io::copy(&mut hashed, &mut std::io::sink()).map_err(|error| unreadable(&error))?;
                hashed.finish()
            }
        };
        has_program |= item.path == PROGRAM;
        files.push(PackedFile { path: item.path.clone(), size, sha256, executable: item.executable });
        Ok(())
    })?;
    let missing = match (&conf, has_program) {
        (None, _) => Some(format!("it holds neither {CONTENTS_NAME} nor {CONF}: it is no package")),
        (_, false) => Some(format!("it holds {CONF} and no {PROGRAM}")),
        _ => None,
    };
    if let Some(missing) = missing {
        return Err(wrong(missing));
    }
    let (plugin_json, manifest) = manifest(&conf.unwrap_or_default())?;
    let (path, size, sha256) = (MANIFEST_NAME.to_owned(), plugin_json.len() as u64, digest::of(&plugin_json));
    files.push(PackedFile { path, size, sha256, executable: false });
    let contents = Contents::new(&manifest.id, manifest.version.clone(), None, files);
    let text = contents.to_json();
    let contents = Contents::parse(&text).map_err(|problems| wrong(problems.join("; ")))?;
    Ok(Original { contents, manifest, made: vec![(MANIFEST_NAME, plugin_json), (CONTENTS_NAME, text.clone())], text })
}

fn read_conf(item: &Item, bytes: &mut dyn Read) -> Result<Vec<u8>, Fault> {
    if item.size > MAX_CONF_BYTES {
        return Err(wrong(format!("{CONF} has {} bytes, the limit is {MAX_CONF_BYTES}", item.size)));
    }
    let mut text = Vec::new();
    bytes.read_to_end(&mut text).map_err(|error| unreadable(&error))?;
    Ok(text)
}

/// The `plugin.json` that says what `plugin.conf` says; keys are compared without regard to case, as Go does.
fn manifest(conf: &[u8]) -> Result<(Vec<u8>, Manifest), Fault> {
    let conf: serde_json::Map<String, Value> = serde_json::from_slice(conf)
        .map_err(|error| wrong(format!("{CONF} cannot be read: {}", printable(&error.to_string()))))?;
    let conf: BTreeMap<String, Value> =
        conf.into_iter().map(|(key, value)| (key.to_ascii_lowercase(), value)).collect();
    let text = |key: &str| conf.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let manifest = json!({
        "namespace": text("namespace"),
        "name": text("name"),
        "version": semver(&text("version")),
        "source": { "mode": "local_exec", "path": PROGRAM },
        "lazy_load": conf.get("lazyload").and_then(Value::as_bool).unwrap_or(false),
    });
    let mut bytes = serde_json::to_vec_pretty(&manifest).map_err(|error| wrong(error.to_string()))?;
    bytes.push(b'\n');
    let manifest = Manifest::parse(&bytes, Folder::default()).map_err(|error| {
        let told: Vec<_> = error.problems.iter().map(|problem| format!("{CONF}: {}", problem.message)).collect();
        wrong(told.join("; "))
    })?;
    Ok((bytes, manifest))
}

/// The original's versions have as many parts as their authors liked, with zeros in front.
fn semver(version: &str) -> String {
    let parts: Vec<_> = version.trim_start_matches('v').split('.').map(str::parse::<u64>).collect();
    if parts.len() > 3 || parts.iter().any(Result::is_err) {
        return version.to_owned();
    }
    let part = |n: usize| parts.get(n).and_then(|part| part.as_ref().ok()).copied().unwrap_or(0);
    format!("{}.{}.{}", part(0), part(1), part(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_the_original_get_three_parts() {
        for (theirs, ours) in
            [("1", "1.0.0"), ("1.2", "1.2.0"), ("v0001.0002.3", "1.2.3"), ("1.0-rc", "1.0-rc"), ("1.2.3.4", "1.2.3.4")]
        {
            assert_eq!(semver(theirs), ours);
        }
    }
}
