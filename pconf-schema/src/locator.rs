//! Where a plugin is to be had from, as it is written: a path, an address, a repository. By its text alone.
//!
//! What is read here ends up in the arguments of `git` and `curl`, so that only plain forms are read: a text that begins with
//! `-`, names a transport that runs a program (`ext::`), or carries a password is refused.

use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use crate::{Sha256, printable};

/// The longest text that is read.
const MAX_BYTES: usize = 2_048;
/// The longest name of a branch, a tag or a commit.
const MAX_REFERENCE_BYTES: usize = 200;
/// Begins the checksum behind an address.
const CHECKSUM: &str = "sha256=";

/// Where a plugin is to be had from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Locator {
    /// A file or a folder of this machine.
    Path(PathBuf),
    /// A file to fetch.
    Url(FileUrl),
    /// A repository to build from.
    Git(Repository),
}

/// A file that is fetched, `https://HOST/PATH` or `http://HOST/PATH`, with `#sha256=HEX` behind it or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileUrl {
    /// Without the checksum.
    pub address: String,
    /// What the file must have.
    pub sha256: Option<Sha256>,
}

/// A git repository, with `#REFERENCE` behind it or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    /// As `git` takes it: a URL, `USER@HOST:PATH`, or a path.
    pub address: String,
    /// How it is reached.
    pub transport: GitTransport,
    /// A branch, a tag or a commit; else what the repository calls `HEAD`.
    pub reference: Option<String>,
}

/// How a repository is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GitTransport {
    /// `https://`.
    Https,
    /// `ssh://`, or `USER@HOST:PATH`.
    Ssh,
    /// A path of this machine.
    File,
}

impl GitTransport {
    /// As git calls it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Https => "https",
            Self::Ssh => "ssh",
            Self::File => "file",
        }
    }
}

impl FromStr for Locator {
    type Err = String;

    /// Reads `https://HOST/FILE[#sha256=HEX]`, a repository (`git+https://HOST/PATH[#REFERENCE]`, `https://HOST/PATH.git`,
    /// `ssh://USER@HOST/PATH`, `USER@HOST:PATH`, a path that ends in `.git`, `git+file:///PATH`), or else a path.
    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("it is empty: name a file, a folder, an address or a repository".into());
        }
        if text.len() > MAX_BYTES {
            return Err(format!("it has {} bytes, the limit is {MAX_BYTES}", text.len()));
        }
        if text.starts_with('-') {
            return Err(format!(
                "`{0}` begins with `-`, as an option does: a file of that name is `./{0}`",
                printable(text)
            ));
        }
        if let Some(rest) = text.strip_prefix("git+") {
            return match scheme(rest) {
                Some(("file", path)) => local(path),
                Some((name @ ("https" | "ssh"), behind)) => remote(name, behind, rest),
                _ => Err(format!(
                    "`{}` is no repository: `git+` stands before https://, ssh:// or file:///",
                    printable(text)
                )),
            };
        }
        match scheme(text) {
            Some(("https", behind)) if names_repository(behind) => remote("https", behind, text),
            Some((name @ ("http" | "https"), behind)) => file(name, behind, text),
            Some(("ssh", behind)) => remote("ssh", behind, text),
            Some(("file", path)) if names_repository(path) => local(path),
            Some(("file", path)) => Ok(Self::Path(absolute(path)?)),
            Some((other, _)) => Err(format!("`{}://` is not fetched: use https, http, or ssh", printable(other))),
            None if is_helper(text) => Err(format!(
                "`{}` names a program as a transport, which is never run: use https, ssh or a path",
                printable(text)
            )),
            None if is_scp(text) => scp(text),
            None if names_repository(text) => {
                let (path, reference) = split_reference(text)?;
                Ok(Self::Git(Repository { address: path.to_owned(), transport: GitTransport::File, reference }))
            }
            None => Ok(Self::Path(PathBuf::from(text))),
        }
    }
}

impl fmt::Display for Locator {
    /// As it is read again.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => write!(f, "{}", path.display()),
            Self::Url(FileUrl { address, sha256: None }) => f.write_str(address),
            Self::Url(FileUrl { address, sha256: Some(sha256) }) => write!(f, "{address}#{CHECKSUM}{sha256}"),
            Self::Git(repository) => repository.fmt(f),
        }
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.transport {
            GitTransport::File => write!(f, "git+file://{}", self.address)?,
            _ if self.address.contains("://") => write!(f, "git+{}", self.address)?,
            _ => f.write_str(&self.address)?,
        }
        self.reference.iter().try_for_each(|reference| write!(f, "#{reference}"))
    }
}

impl Locator {
    /// With paths seen from `folder`.
    #[must_use]
    pub fn seen_from(self, folder: &Path) -> Self {
        match self {
            Self::Path(path) => Self::Path(folder.join(path)),
            Self::Git(repository) if repository.transport == GitTransport::File => {
                let address = folder.join(&repository.address).to_string_lossy().into_owned();
                Self::Git(Repository { address, ..repository })
            }
            other => other,
        }
    }
}

/// `NAME://` and what is behind it.
fn scheme(text: &str) -> Option<(&str, &str)> {
    let (name, behind) = text.split_once("://")?;
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '.' | '-');
    (!name.is_empty() && name.chars().all(fits)).then_some((name, behind))
}

/// `NAME::` is a program `git-remote-NAME`.
fn is_helper(text: &str) -> bool {
    text.split('/').next().is_some_and(|first| first.contains("::"))
}

/// `USER@HOST:PATH`.
fn is_scp(text: &str) -> bool {
    text.split_once(':').is_some_and(|(before, _)| before.contains('@') && !before.contains('/'))
}

fn names_repository(text: &str) -> bool {
    let path = text.split(['#', '?']).next().unwrap_or_default();
    path.trim_end_matches('/').ends_with(".git")
}

fn file(name: &str, behind: &str, text: &str) -> Result<Locator, String> {
    let (address, fragment) = split_fragment(text);
    check_authority(behind, false)?;
    check_plain(address)?;
    let sha256 = match fragment {
        None => None,
        Some(fragment) => {
            let digits = fragment.strip_prefix(CHECKSUM).ok_or_else(|| {
                format!("`#{}` is no checksum: write `#sha256=` and 64 hex digits", printable(fragment))
            })?;
            Some(digits.parse().map_err(|_| format!("`{}` is no SHA-256: write 64 hex digits", printable(digits)))?)
        }
    };
    if name == "http" && address.contains('?') && sha256.is_none() {
        return Err("an http:// address with a query needs a checksum".into());
    }
    Ok(Locator::Url(FileUrl { address: address.to_owned(), sha256 }))
}

fn remote(name: &str, behind: &str, text: &str) -> Result<Locator, String> {
    let (address, reference) = split_reference(text)?;
    let transport = if name == "ssh" { GitTransport::Ssh } else { GitTransport::Https };
    check_authority(behind, transport == GitTransport::Ssh)?;
    check_plain(address)?;
    Ok(Locator::Git(Repository { address: address.to_owned(), transport, reference }))
}

fn local(text: &str) -> Result<Locator, String> {
    let (path, reference) = split_reference(text)?;
    let address = absolute(path)?.to_string_lossy().into_owned();
    Ok(Locator::Git(Repository { address, transport: GitTransport::File, reference }))
}

fn scp(text: &str) -> Result<Locator, String> {
    let (address, reference) = split_reference(text)?;
    let (authority, path) = address.split_once(':').unwrap_or((address, ""));
    check_authority(authority, true)?;
    check_plain(address)?;
    if path.is_empty() || path.starts_with('-') {
        return Err(format!("`{}` names no path of a repository", printable(text)));
    }
    Ok(Locator::Git(Repository { address: address.to_owned(), transport: GitTransport::Ssh, reference }))
}

fn split_fragment(text: &str) -> (&str, Option<&str>) {
    text.split_once('#').map_or((text, None), |(address, fragment)| (address, Some(fragment)))
}

fn split_reference(text: &str) -> Result<(&str, Option<String>), String> {
    let (address, reference) = split_fragment(text);
    if let Some(reference) = reference {
        check_reference(reference)?;
    }
    Ok((address, reference.map(str::to_owned)))
}

/// `/PATH`, of a `file://` address: a host in front of it would be somebody else's.
fn absolute(path: &str) -> Result<PathBuf, String> {
    let wrong = |why: &str| Err(format!("`file://{}` {why}", printable(path)));
    if !path.starts_with('/') {
        return wrong("names a host or no absolute path: write file:///PATH");
    }
    if path.contains(|c: char| c.is_control() || matches!(c, '?' | '%')) {
        return wrong("holds `?`, `%` or a control character: write the path itself");
    }
    if Path::new(path).components().any(|part| part == Component::ParentDir) {
        return wrong("holds `..`: write the path without it");
    }
    Ok(PathBuf::from(path))
}

/// What stands before the first `/`: `[USER@]HOST[:PORT]`.
fn check_authority(behind: &str, may_have_user: bool) -> Result<(), String> {
    let authority = behind.split(['/', '#', '?']).next().unwrap_or_default();
    let shown = printable(authority);
    let host = match authority.rsplit_once('@') {
        None => authority,
        Some((user, _)) if user.contains(':') => {
            return Err("it carries a password, which every process here can see".into());
        }
        Some(_) if !may_have_user => return Err(format!("`{shown}` carries the name of a user: leave it out")),
        Some((user, host)) if is_word(user, "._-") => {
            let _ = user;
            host
        }
        Some(_) => return Err(format!("`{shown}` names no user")),
    };
    let bracketed = host.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    let (name, port) = match bracketed {
        Some((inner, rest)) => (inner, rest.strip_prefix(':').or(if rest.is_empty() { None } else { Some("x") })),
        None => host.split_once(':').map_or((host, None), |(name, port)| (name, Some(port))),
    };
    let is_name = match bracketed {
        Some(_) => name.parse::<std::net::Ipv6Addr>().is_ok(),
        None => is_word(name, ".-"),
    };
    if !is_name || port.is_some_and(|port| port.parse::<u16>().is_err()) {
        return Err(format!("`{shown}` names no host"));
    }
    Ok(())
}

/// Letters, digits and some others, the first a letter or a digit.
fn is_word(text: &str, others: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || others.contains(c))
}

fn check_plain(address: &str) -> Result<(), String> {
    match address.chars().find(|c| !c.is_ascii_graphic() || "\"'`\\<>^{|}$".contains(*c)) {
        Some(c) => Err(format!("it holds `{}`, which an address has as %XX", printable(&c.to_string()))),
        None => Ok(()),
    }
}

/// Whether a branch, a tag or a commit may be called so: what git itself allows, without what it understands as an expression.
///
/// # Errors
/// Says what is wrong.
pub fn check_reference(text: &str) -> Result<(), String> {
    let fits = is_word(text, "._/+-") && text.len() <= MAX_REFERENCE_BYTES;
    let strange = ["..", "//", "/.", "/-"].iter().any(|part| text.contains(part));
    let ends = ["/", ".", ".lock"].iter().any(|end| text.ends_with(end));
    if fits && !strange && !ends {
        return Ok(());
    }
    Err(format!("`{}` is no name of a branch or a tag, and no commit", printable(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "00000000000000000000000000000000000000000000000000000000000000ff";

    #[test]
    fn what_is_read_is_told_in_a_form_that_is_read_again() {
        for (text, expected) in [
            ("do.plg", "path do.plg"),
            ("./-x", "path ./-x"),
            ("a:b", "path a:b"),
            ("a/b::c", "path a/b::c"),
            ("ä b", "path ä b"),
            ("file:///a/do.plg", "path /a/do.plg"),
            ("https://example.org/do.plg", "url https://example.org/do.plg"),
            ("http://127.0.0.1:8080/a%20b?c=d", "refused"),
            ("http://[::1]:80/x", "url http://[::1]:80/x"),
            ("https://example.org/do.git", "https https://example.org/do.git"),
            ("https://example.org/do.git/#v1.0", "https https://example.org/do.git/ at v1.0"),
            ("git+https://example.org/a/do#main", "https https://example.org/a/do at main"),
            ("ssh://git@example.org:22/do", "ssh ssh://git@example.org:22/do"),
            ("git+ssh://example.org/do#feature/x", "ssh ssh://example.org/do at feature/x"),
            ("git@example.org:a/do.git#v1", "ssh git@example.org:a/do.git at v1"),
            ("/srv/do.git", "file /srv/do.git"),
            ("do.git#v1+2", "file do.git at v1+2"),
            ("file:///srv/do.git#v1", "file /srv/do.git at v1"),
            ("git+file:///srv/do", "file /srv/do"),
        ] {
            let read = text.parse::<Locator>();
            let shown = match &read {
                Ok(Locator::Path(path)) => format!("path {}", path.display()),
                Ok(Locator::Url(url)) => format!("url {}", url.address),
                Ok(Locator::Git(Repository { address, transport, reference })) => {
                    let at = reference.as_ref().map(|reference| format!(" at {reference}")).unwrap_or_default();
                    format!("{} {address}{at}", transport.as_str())
                }
                Err(_) => "refused".to_owned(),
            };
            assert_eq!(shown, expected, "{text}: {read:?}");
            if let Ok(read) = read.map(|read| read.seen_from(Path::new("/here"))) {
                assert_eq!(read.to_string().parse(), Ok(read), "{text}");
            }
        }
        let checked: Locator = format!("https://example.org/x#sha256={HEX}").parse().unwrap();
        assert!(matches!(&checked, Locator::Url(FileUrl { sha256: Some(_), .. })), "{checked:?}");
        assert_eq!(checked.to_string().parse(), Ok(checked));
    }

    #[test]
    fn whatever_could_be_more_than_an_address_is_refused() {
        let long = format!("https://example.org/{}", "x".repeat(MAX_BYTES));
        for text in [
            "",
            "-x",
            "--upload-pack=touch /tmp/x",
            "ext::sh -c touch% /tmp/x",
            "fd::7",
            "git+ext::sh",
            "git+http://example.org/do",
            "git+-x://a",
            "git://example.org/do.git",
            "ftp://example.org/do.plg",
            "gopher://x",
            "git+file://host/do",
            "file://host/do.plg",
            "file:///a/../b",
            "git+file:///a/../b",
            "https://-oProxyCommand=x/do.git",
            "ssh://-oProxyCommand=x/do",
            "ssh://git@-oProxyCommand=x/do",
            "ssh://-x@example.org/do",
            "-oProxyCommand=x@host:do",
            "git@-oProxyCommand=x:do",
            "git@example.org:-x",
            "git@example.org:",
            "https://user:secret@example.org/do.git",
            "https://user@example.org/do.git",
            "ssh://git:secret@example.org/do",
            "https://user@example.org/do.plg",
            "https:///do.plg",
            "https://example.org:99999/do.plg",
            "https://exa mple.org/do.plg",
            "https://example.org/a b",
            "https://example.org/a\nb",
            "https://example.org/{a,b}[1-9]",
            "https://example.org/$(x)",
            "https://example.org/x#sha256=12",
            "https://example.org/x#v1",
            "https://example.org/do.git#--upload-pack=x",
            "https://example.org/do.git#a..b",
            "https://example.org/do.git#a:b",
            "https://example.org/do.git#+a:b",
            "https://example.org/do.git#a@{1}",
            "https://example.org/do.git#a^",
            "https://example.org/do.git#",
            "https://example.org/do.git#refs/heads/x.lock",
            "do.git#-x",
            &long,
        ] {
            let refused = text.parse::<Locator>();
            assert!(refused.is_err(), "{text}: {refused:?}");
        }
    }
}
