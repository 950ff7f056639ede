//! Commands and paths as a shell and a person take them.

use std::path::Path;

use goplug_pconf_schema::printable;

use crate::discovery::{Flaw, Refusal};

/// A path as it is shown.
pub(crate) fn show(path: &Path) -> String {
    printable(&path.to_string_lossy())
}

/// A word that a shell takes as one.
pub(crate) fn quote(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "_-./+@%:,=".contains(c);
    let word = printable(word);
    if !word.is_empty() && word.chars().all(plain) { word } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

/// A path as a word of a command.
pub(crate) fn word(path: &Path) -> String {
    quote(&path.to_string_lossy())
}

/// The command that mends a file.
pub(crate) fn mend(path: &Path, refusal: &Refusal) -> String {
    let file = word(path);
    match &refusal.flaw {
        Flaw::Symlink => format!("cp --remove-destination \"$(readlink -f {file})\" {file}"),
        Flaw::NotRegular("folder") => format!("rmdir {file}"),
        Flaw::NotRegular(_) => format!("rm {file}"),
        Flaw::Links(_) => format!("cp -p {file} {file}.new && mv {file}.new {file}"),
        Flaw::Owner(_) => format!("chown {} {file}", rustix::process::geteuid().as_raw()),
        Flaw::Mode(_) => format!("chmod o-w {file}"),
        Flaw::Closed => format!("chmod u+r {file}"),
        Flaw::ClosedFolder => format!("chmod u+rx {}", word(path.parent().unwrap_or(path))),
        Flaw::Unreadable => "goplugctl rescan".to_owned(),
        Flaw::NoVersion => format!("rm {}", word(path.parent().unwrap_or(path))),
        Flaw::Size(_) | Flaw::Text | Flaw::SocketPath | Flaw::SocketOutside | Flaw::Folder => {
            format!("goplugctl lint {file}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_safe_to_paste() {
        assert_eq!(quote("a b'c"), r"'a b'\''c'");
        assert_eq!(quote("$(rm)"), "'$(rm)'");
        assert_eq!(quote(""), "''");
        assert_eq!(quote("n/ä-1.x"), "n/ä-1.x");
    }
}
