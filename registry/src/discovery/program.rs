//! What a manifest names besides itself: is it there, and can it be run?

use std::path::Path;

use goplug_pconf_schema::Manifest;
use goplug_pconf_schema::manifest::SourceMode;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use super::shared_object::check_shared_object;
use crate::words::show;

/// Everything that is wrong with the program, the working folder and the hooks of `manifest`, whose folder is `folder`, each a
/// fragment that fits after the name of the file. Nothing is run. Blocking.
pub(crate) fn check_program(manifest: &Manifest, folder: &Path) -> Vec<String> {
    let mut flaws = Vec::new();
    match manifest.source.mode {
        SourceMode::LocalExec => flaws.extend(program(folder, &manifest.exec.command, "program")),
        SourceMode::LocalSo => {
            let path = &manifest.source.path;
            if Path::new(path).extension().is_none_or(|extension| extension != "so") {
                flaws.push(format!("shared object `{}` does not end in .so", goplug_pconf_schema::printable(path)));
            }
            match at(folder, path, "shared object") {
                Ok(status) if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile => {
                    flaws.push(format!("shared object {} is no file", show(&folder.join(path))));
                }
                Ok(_) => flaws.extend(check_shared_object(&folder.join(path))),
                Err(why) => flaws.push(why),
            }
        }
        SourceMode::RemoteGit | SourceMode::RemoteUrl => {}
    }
    if let Some(workdir) = &manifest.exec.workdir {
        match at(folder, workdir, "working folder") {
            Ok(status) if FileType::from_raw_mode(status.st_mode) != FileType::Directory => {
                flaws.push(format!("working folder {} is no folder", show(&folder.join(workdir))));
            }
            Ok(_) => {}
            Err(why) => flaws.push(why),
        }
    }
    let hooks = &manifest.hooks;
    for (name, hook) in [
        ("hook `pre_start`", &hooks.pre_start),
        ("hook `post_start`", &hooks.post_start),
        ("hook `pre_stop`", &hooks.pre_stop),
        ("hook `post_stop`", &hooks.post_stop),
    ] {
        flaws.extend(hook.first().and_then(|command| program(folder, command, name)));
    }
    flaws
}

/// The keys of what a flaw of [`check_program`] is about.
pub(crate) fn keys_of(flaw: &str) -> Option<[&'static str; 2]> {
    let kinds = [
        ("program ", ["exec", "command"]),
        ("shared object ", ["source", "path"]),
        ("working folder ", ["exec", "workdir"]),
        ("hook `pre_start`", ["hooks", "pre_start"]),
        ("hook `post_start`", ["hooks", "post_start"]),
        ("hook `pre_stop`", ["hooks", "pre_stop"]),
        ("hook `post_stop`", ["hooks", "post_stop"]),
    ];
    kinds.into_iter().find(|(kind, _)| flaw.starts_with(kind)).map(|(_, keys)| keys)
}

/// What is wrong with a program; one that is found in `PATH` is looked for when it is started.
fn program(folder: &Path, command: &str, what: &str) -> Option<String> {
    if !command.contains('/') {
        return None;
    }
    let path = show(&folder.join(command));
    match at(folder, command, what) {
        Err(why) => Some(why),
        Ok(status) if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile => {
            Some(format!("{what} {path} is no file"))
        }
        Ok(status) if status.st_mode & 0o111 == 0 => Some(format!("{what} {path} cannot be executed: chmod +x it")),
        Ok(_) => None,
    }
}

/// The status of `path`, which a link must not lead out of `folder` unless it is absolute.
fn at(folder: &Path, path: &str, what: &str) -> Result<Stat, String> {
    let shown = show(&folder.join(path));
    let failed = |error: Errno| match error {
        Errno::NOENT | Errno::NOTDIR => format!("{what} {shown} does not exist"),
        Errno::XDEV => format!("{what} {shown} leads out of the plugin's folder"),
        error => format!("{what} {shown} cannot be looked at: {error}"),
    };
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let root = rustix::fs::open(folder, flags | OFlags::DIRECTORY, Mode::empty()).map_err(failed)?;
    let resolve = if path.starts_with('/') { ResolveFlags::NO_MAGICLINKS } else { ResolveFlags::BENEATH };
    let opened = match rustix::fs::openat2(&root, path, flags, Mode::empty(), resolve) {
        // Forbidden by a filter of system calls.
        Err(Errno::NOSYS | Errno::PERM) => rustix::fs::openat(&root, path, flags | OFlags::NOFOLLOW, Mode::empty()),
        other => other,
    };
    rustix::fs::fstat(opened.map_err(failed)?).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use goplug_pconf_schema::manifest::Folder;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn every_flaw_of_what_is_named_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for (name, mode) in [("good", 0o755), ("plain", 0o644), ("a.so", 0o644)] {
            fs::write(at(name), "").unwrap();
            fs::set_permissions(at(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        fs::create_dir(at("data")).unwrap();
        symlink("/bin/sh", at("out")).unwrap();
        symlink("good", at("in")).unwrap();
        let flaws = |text: &str| {
            let text = format!(r#"{{"name":"x","version":"1.0.0",{text}}}"#);
            check_program(&Manifest::parse(text.as_bytes(), Folder::default()).unwrap(), folder.path()).join("; ")
        };
        for (text, expected) in [
            (r#""exec":{"command":"./good","workdir":"data"}"#, ""),
            (r#""exec":{"command":"./in"}"#, ""),
            (r#""exec":{"command":"/bin/sh"}"#, ""),
            (r#""exec":{"command":"python3"}"#, ""),
            (r#""exec":{"command":"./none"}"#, "program DIR/./none does not exist"),
            (r#""exec":{"command":"./plain"}"#, "program DIR/./plain cannot be executed: chmod +x it"),
            (r#""exec":{"command":"./data"}"#, "program DIR/./data is no file"),
            (r#""exec":{"command":"./out"}"#, "program DIR/./out leads out of the plugin's folder"),
            (r#""exec":{"command":"./good","workdir":"good"}"#, "working folder DIR/good is no folder"),
            (
                r#""exec":{"command":"./good","workdir":"no"},"hooks":{"pre_start":["./nix"],"post_stop":["sh"]}"#,
                "working folder DIR/no does not exist; hook `pre_start` DIR/./nix does not exist",
            ),
            (r#""source":{"mode":"local_so","path":"a.so"}"#, "shared object DIR/a.so is no ELF file"),
            (
                r#""source":{"mode":"local_so","path":"data"}"#,
                "shared object `data` does not end in .so; shared object DIR/data is no file",
            ),
            (
                r#""source":{"mode":"local_so","path":"b.dll"}"#,
                "shared object `b.dll` does not end in .so; shared object DIR/b.dll does not exist",
            ),
            (r#""source":{"mode":"remote_git","path":"https://example.org"}"#, ""),
        ] {
            assert_eq!(flaws(text).replace(folder.path().to_str().unwrap(), "DIR"), expected, "{text}");
        }
    }
}
