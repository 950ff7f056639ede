//! Paths and programs inside of a plugin's folder, by their text alone.

use std::path::{Component, Path};

use crate::printable;

/// What is wrong with `path`, a path that is absolute or leads to something inside of the plugin's folder.
pub(super) fn check_path(path: &str) -> Result<(), String> {
    if path.is_empty() {
        return Err("is empty: name a file of the plugin's folder".into());
    }
    check_text(path)?;
    let mut depth = 0_i32;
    for component in Path::new(path).components() {
        match component {
            Component::RootDir | Component::Prefix(_) => return Ok(()),
            Component::CurDir => {}
            Component::ParentDir => depth -= 1,
            Component::Normal(_) => depth += 1,
        }
        if depth < 0 {
            return Err(format!(
                "`{}` leads out of the plugin's folder: use a path inside, or an absolute one",
                printable(path)
            ));
        }
    }
    Ok(())
}

/// As [`check_path`], for what must not be absolute.
pub(super) fn check_inside(path: &str) -> Result<(), String> {
    if path.starts_with('/') {
        return Err(format!("`{}` is absolute: use a path inside of the plugin's folder", printable(path)));
    }
    check_path(path)
}

/// What is wrong with `command`, a path when it holds a `/`, else a name to be found in `PATH`.
pub(super) fn check_command(command: &str) -> Result<(), String> {
    if command.is_empty() {
        return Err("is empty: name a program, such as `./run` in the plugin's folder or `python3` in PATH".into());
    }
    match command {
        "." | ".." => Err(format!("`{command}` is a folder: name a program")),
        _ if command.ends_with('/') => Err(format!("`{}` is a folder: name a program", printable(command))),
        _ if command.contains('/') => check_path(command),
        _ => check_text(command),
    }
}

/// What is wrong with an argument or a value of a variable.
pub(super) fn check_text(text: &str) -> Result<(), String> {
    if text.contains('\0') {
        Err(format!("`{}` holds a NUL, which no process can be given", printable(text)))
    } else {
        Ok(())
    }
}

/// What is wrong with the name of a variable.
pub(super) fn check_variable(name: &str) -> Result<(), String> {
    let fits = |(at, c): (usize, char)| c == '_' || c.is_ascii_alphabetic() || (at > 0 && c.is_ascii_digit());
    if name.is_empty() || !name.chars().enumerate().all(fits) {
        return Err(format!("`{}` is no name of a variable: expected [A-Za-z_][A-Za-z0-9_]*", printable(name)));
    }
    if name.starts_with("GOPLUG_") || name == "PLUGIN_SOCKET" {
        return Err(format!("`{name}` is set by the registry: use another name"));
    }
    Ok(())
}
