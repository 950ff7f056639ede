//! From `Sock` to a path, by text alone.

use std::path::{Component, Path, PathBuf};

use super::MAX_SOCKET_PATH_BYTES;

/// What is wrong with `sock` whatever folder it is resolved in.
pub(super) fn check(sock: &str) -> Result<(), String> {
    if sock.is_empty() {
        return Err("`Sock` is empty: expected the path of a Unix socket".into());
    }
    let shown = crate::printable(sock);
    if sock.starts_with(['@', '\0']) {
        return Err(format!("`Sock` `{shown}` is an abstract socket, which has no owner: expected a path"));
    }
    if sock.contains('\0') {
        return Err(format!("`Sock` `{shown}` holds a NUL"));
    }
    Ok(())
}

/// The path of `sock`, seen from `folder`.
pub(super) fn resolve(sock: &str, folder: &Path) -> Result<PathBuf, String> {
    check(sock)?;
    let mut path = PathBuf::new();
    for component in folder.join(sock).components() {
        match component {
            Component::CurDir => {}
            // `..` of the root is the root; of a relative folder it must be kept.
            Component::ParentDir if path.file_name().is_some() => _ = path.pop(),
            Component::ParentDir if path.has_root() => {}
            other => path.push(other),
        }
    }
    let length = path.as_os_str().len();
    if length > MAX_SOCKET_PATH_BYTES {
        let shown = crate::printable(&path.to_string_lossy());
        return Err(format!("socket path is {length} bytes, the limit is {MAX_SOCKET_PATH_BYTES}: {shown}"));
    }
    if path.file_name().is_none() {
        return Err(format!("`Sock` `{}` names no file", crate::printable(sock)));
    }
    Ok(path)
}
