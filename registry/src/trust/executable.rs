//! The program behind a connection: its path, its digest, its words.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use goplug_pconf_schema::admin::Executable;
use goplug_transport::{Peer, Program};
use tokio::time::timeout;

use super::Digests;

/// How long looking at a program may take, reading it included: a gigabyte from a disk that is not slow.
pub(crate) const LOOK_LIMIT: Duration = Duration::from_secs(10);
/// Programs that run what others wrote, without the number of their version.
const INTERPRETERS: [&str; 24] = [
    "sh", "bash", "dash", "zsh", "ksh", "fish", "busybox", "python", "pypy", "perl", "ruby", "node", "nodejs", "deno",
    "bun", "php", "lua", "luajit", "tclsh", "Rscript", "java", "mono", "dotnet", "guile",
];

/// A program, and the file that it is.
#[derive(Debug, Clone)]
pub(crate) struct Attested {
    pub shown: Executable,
    /// Device and inode of the file whose digest was told.
    pub file: Option<(u64, u64)>,
    /// The process has ended.
    pub is_gone: bool,
}

/// Looks at the program that the process at the other end runs now.
///
/// # Cancel safety
/// Safe: a look that has begun goes on for at most [`LOOK_LIMIT`], unless a file system hangs, and changes nothing.
pub(crate) async fn attest(peer: &Peer, digests: &Arc<Digests>) -> Attested {
    let begin = Instant::now();
    let (digests, known) = (Arc::clone(digests), peer.clone());
    let look = async {
        let place = Arc::clone(&digests.places).acquire_owned().await;
        let look = move || {
            // Held until the file system has answered, whoever still waits for it.
            let _place = place;
            look(&known, &digests, begin + LOOK_LIMIT)
        };
        crate::tasks::on_a_thread(look).await
    };
    match timeout(LOOK_LIMIT, look).await {
        Ok(Ok(attested)) => attested,
        Ok(Err(_)) => untold(peer, "looking at it failed".into()),
        Err(_) => untold(peer, format!("it could not be looked at within {} s", LOOK_LIMIT.as_secs())),
    }
}

fn look(peer: &Peer, digests: &Digests, until: Instant) -> Attested {
    let program = match peer.program() {
        Ok(program) => program,
        Err(error) => {
            let text = match error.kind() {
                ErrorKind::PermissionDenied => "its program may not be looked at: it is another user's".into(),
                _ => error.to_string(),
            };
            let is_gone = error.kind() == ErrorKind::NotFound && !peer.is_alive();
            return Attested { is_gone, ..untold(peer, text) };
        }
    };
    let Program { pid, path, deleted, file, command_line } = program;
    let mut shown = Executable {
        pid,
        deleted,
        sha256: None,
        problem: None,
        interpreter: is_interpreter(&path),
        command_line: words(&command_line),
        path: Some(path.to_string_lossy().into_owned()),
    };
    let mut found = None;
    let digest = file.map_err(|error| format!("may not be read: {error}")).and_then(|mut file| {
        let status = file.metadata().map_err(|error| error.to_string())?;
        found = Some((status.dev(), status.ino()));
        digests.of(&mut file, until)
    });
    match digest {
        Ok(digest) => shown.sha256 = Some(digest),
        Err(why) => shown.problem = Some(format!("its program {why}")),
    }
    Attested { file: found.filter(|_| shown.sha256.is_some()), shown, is_gone: false }
}

fn untold(peer: &Peer, problem: String) -> Attested {
    let shown = Executable {
        pid: peer.pid(),
        path: None,
        deleted: false,
        sha256: None,
        problem: Some(problem),
        interpreter: false,
        command_line: Vec::new(),
    };
    Attested { shown, file: None, is_gone: false }
}

/// The words of a command line as the kernel keeps it.
fn words(command_line: &[u8]) -> Vec<String> {
    let text = command_line.strip_suffix(b"\0").unwrap_or(command_line);
    if text.is_empty() {
        return Vec::new();
    }
    text.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

/// By its name: the kernel does not tell a script from what it is given to.
fn is_interpreter(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let bare = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.' || c == '-');
    INTERPRETERS.contains(&bare)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interpreters_are_known_by_their_names_with_or_without_a_version() {
        for name in ["/bin/sh", "/usr/bin/python3.11", "/opt/node", "/usr/bin/perl5.36.0", "/usr/bin/lua5.4"] {
            assert!(is_interpreter(Path::new(name)), "{name}");
        }
        for name in ["/bin/shade", "/usr/bin/pythonic", "/bin/3", "/", "/opt/plugin"] {
            assert!(!is_interpreter(Path::new(name)), "{name}");
        }
    }

    #[test]
    fn words_are_split_as_the_kernel_keeps_them() {
        assert_eq!(words(b"sh\0-c\0\0x y\0"), ["sh", "-c", "", "x y"]);
        assert_eq!(words(b"cut o\xfff"), ["cut o\u{fffd}f"]);
        assert_eq!(words(b""), [""; 0]);
        assert_eq!(words(b"\0"), [""; 0]);
    }
}
