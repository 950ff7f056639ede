//! Which programs fetch and build, with which arguments and which environment. Pure.
//!
//! Nothing that somebody else wrote is an option here: addresses were checked by their text ([`Locator`]), stand behind `--` or
//! behind the option that they belong to, and no configuration of a user or of a machine is read.
//!
//! [`Locator`]: goplug_pconf_schema::Locator

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use goplug_pconf_schema::locator::{FileUrl, GitTransport, Repository};
use goplug_pconf_schema::wire::host::MAX_RING_BYTES;

/// The largest file that is fetched: what the largest package holds, uncompressed.
pub(super) const MAX_FETCH_BYTES: u64 = goplug_pconf_schema::contents::MAX_PACKED_BYTES;
/// How long a file may take: the largest one at 1 MiB/s.
const FETCH_LIMIT: Duration = Duration::from_secs(10 * 60);
/// How long a server may take until it takes the connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(20);
/// Without a byte for so long, it is given up.
const SILENCE: Duration = Duration::from_secs(30);
/// How often a server may send us on.
const MAX_REDIRECTS: u32 = 5;

/// How long a repository may take.
const CLONE_LIMIT: Duration = Duration::from_secs(10 * 60);
/// How long git may take for what is on this machine already.
const LOCAL_LIMIT: Duration = Duration::from_secs(60);
/// The agent that holds the keys of `ssh`; passed on to `git` alone.
pub(super) const SSH_AGENT: &str = "SSH_AUTH_SOCK";

/// Variables that are passed on to what fetches: how the network is reached, and whose certificates are believed.
pub(super) const NETWORK: [&str; 12] = [
    "PATH",
    "http_proxy",
    "https_proxy",
    "HTTPS_PROXY",
    "all_proxy",
    "ALL_PROXY",
    "no_proxy",
    "NO_PROXY",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
];

/// Variables that are passed on to what builds: the network, for what a build needs, and the tool chains.
pub(super) const BUILD: [&str; 11] = [
    "PATH",
    "http_proxy",
    "https_proxy",
    "HTTPS_PROXY",
    "all_proxy",
    "ALL_PROXY",
    "no_proxy",
    "NO_PROXY",
    "SSL_CERT_FILE",
    "RUSTUP_HOME",
    "RUSTUP_TOOLCHAIN",
];
/// What is kept of each stream of a program: the end of what a compiler says.
const RING_BYTES: usize = 256 * 1024;
/// The folders of a repository in the scratch folder: what is installed, and where it is built.
const PLUGIN: &str = "plugin";
const SOURCE: &str = "source";

/// A program to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Program {
    /// What it is for, in a word.
    pub(super) label: &'static str,
    /// A name in `PATH`, or a path seen from `workdir`.
    pub(super) name: String,
    pub(super) args: Vec<String>,
    /// All of its environment.
    pub(super) env: BTreeMap<String, String>,
    pub(super) workdir: PathBuf,
    pub(super) limit: Duration,
    /// The largest file that it may write.
    pub(super) max_file_bytes: Option<u64>,
    /// What is kept of each of its streams.
    pub(super) ring_bytes: usize,
}

/// Where things lie while something is fetched: all of it below one folder, which is removed.
#[derive(Debug, Clone)]
pub(super) struct Scratch(pub(super) PathBuf);

impl Scratch {
    /// An empty folder that programs take for the user's.
    pub(super) fn home(&self) -> PathBuf {
        self.0.join("home")
    }

    /// The file that was fetched.
    pub(super) fn file(&self) -> PathBuf {
        self.0.join("fetched.plg")
    }

    /// The repository that is fetched to.
    pub(super) fn repository(&self) -> PathBuf {
        self.0.join("repository.git")
    }

    /// The files of the commit, to be installed.
    pub(super) fn plugin(&self) -> PathBuf {
        self.0.join(PLUGIN)
    }

    /// The same files, to be built in.
    pub(super) fn source(&self) -> PathBuf {
        self.0.join(SOURCE)
    }

    /// What the server said about it.
    pub(super) fn heads(&self) -> PathBuf {
        self.0.join("heads")
    }
}

/// Fetches a file. `passed` are the variables of [`NETWORK`] that there are.
pub(super) fn fetch_file(
    url: &FileUrl,
    max_bytes: u64,
    scratch: &Scratch,
    passed: BTreeMap<String, String>,
) -> Program {
    // Redirects of https stay on https: whoever asked for it is not sent where anybody can read and change things.
    let schemes = if url.address.starts_with("https:") { "=https" } else { "=http,https" };
    let seconds = |time: Duration| time.as_secs().to_string();
    let mut args = words(&["--disable", "--silent", "--show-error", "--fail", "--globoff", "--location"]);
    args.extend(words(&["--proto", schemes, "--proto-redir", schemes]));
    args.extend(words(&["--max-redirs", &MAX_REDIRECTS.to_string(), "--max-filesize", &max_bytes.to_string()]));
    args.extend(words(&["--connect-timeout", &seconds(CONNECT_LIMIT), "--max-time", &seconds(FETCH_LIMIT)]));
    args.extend(words(&["--speed-limit", "1", "--speed-time", &seconds(SILENCE)]));
    args.extend(words(&["--user-agent", concat!("goplug/", env!("CARGO_PKG_VERSION"))]));
    args.extend(words(&["--dump-header", &text(&scratch.heads()), "--output", &text(&scratch.file())]));
    args.extend(words(&["--url", &url.address]));
    Program {
        label: "fetch",
        name: "curl".into(),
        args,
        env: environment(scratch, passed),
        workdir: scratch.0.clone(),
        limit: FETCH_LIMIT + CONNECT_LIMIT,
        max_file_bytes: Some(max_bytes),
        ring_bytes: RING_BYTES,
    }
}

/// Fetches one commit, without the history behind it, to a repository of our own that has no hooks and no templates.
pub(super) fn fetch_commit(repository: &Repository, scratch: &Scratch) -> Vec<Program> {
    let init = ["init", "--bare", "--quiet", "--template=", "--", &text(&scratch.repository())];
    let mut fetch = words(&["fetch", "--quiet", "--depth=1", "--no-tags", "--no-recurse-submodules", "--no-auto-gc"]);
    fetch.extend(words(&["--", &repository.address, repository.reference.as_deref().unwrap_or("HEAD")]));
    vec![git(scratch, false, &words(&init), LOCAL_LIMIT), git(scratch, true, &fetch, CLONE_LIMIT)]
}

/// Tells which commit was fetched.
pub(super) fn name_commit(scratch: &Scratch) -> Program {
    git(scratch, true, &words(&["rev-parse", "--verify", "--quiet", "FETCH_HEAD^{commit}"]), LOCAL_LIMIT)
}

/// Whether git names a commit so.
pub(super) fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Lists every file of the commit.
pub(super) fn list_files(commit: &str, scratch: &Scratch) -> Program {
    let program = git(scratch, true, &words(&["ls-tree", "-r", "-l", "--full-tree", commit]), LOCAL_LIMIT);
    // All of it is looked at: none of its lines may be dropped.
    Program { ring_bytes: MAX_RING_BYTES, ..program }
}

/// Writes the files of the commit to the folder `plugin`. No hook runs for that, and no filter is known.
pub(super) fn write_files(commit: &str, scratch: &Scratch) -> Vec<Program> {
    vec![
        git(scratch, true, &words(&["read-tree", commit]), LOCAL_LIMIT),
        git(scratch, true, &checkout(scratch, PLUGIN), CLONE_LIMIT),
    ]
}

/// Writes them once more, to the folder `source`.
pub(super) fn write_source(scratch: &Scratch) -> Program {
    git(scratch, true, &checkout(scratch, SOURCE), CLONE_LIMIT)
}

fn checkout(scratch: &Scratch, folder: &str) -> Vec<String> {
    let tree = format!("--work-tree={}", text(&scratch.0));
    words(&["-c", "core.bare=false", &tree, "checkout-index", "--all", "--quiet", &format!("--prefix={folder}/")])
}

fn git(scratch: &Scratch, inside: bool, args: &[String], limit: Duration) -> Program {
    let mut all = Vec::new();
    if inside {
        all.push(format!("--git-dir={}", text(&scratch.repository())));
    }
    for setting in
        ["core.hooksPath=/dev/null", "core.fsmonitor=false", "core.askPass=", "credential.helper=", "gc.auto=0"]
    {
        all.extend(words(&["-c", setting]));
    }
    all.extend_from_slice(args);
    Program {
        label: "git",
        name: "git".into(),
        args: all,
        env: BTreeMap::new(),
        workdir: scratch.0.clone(),
        limit,
        max_file_bytes: Some(MAX_FETCH_BYTES),
        ring_bytes: RING_BYTES,
    }
}

/// The environment of `git`: no configuration but ours, nobody to ask, and no transport but that of the address.
pub(super) fn git_environment(
    repository: &Repository,
    scratch: &Scratch,
    passed: BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let mut env = environment(scratch, passed);
    if repository.transport != GitTransport::Ssh {
        env.remove(SSH_AGENT);
    }
    for (name, value) in [
        ("GIT_CONFIG_NOSYSTEM", "1"),
        ("GIT_CONFIG_GLOBAL", "/dev/null"),
        ("GIT_ATTR_NOSYSTEM", "1"),
        ("GIT_TERMINAL_PROMPT", "0"),
        ("GIT_ALLOW_PROTOCOL", repository.transport.as_str()),
        ("GIT_PROTOCOL_FROM_USER", "0"),
        // A host that is not known yet is not asked about, and so refused.
        ("GIT_SSH_COMMAND", "ssh -oBatchMode=yes -oStrictHostKeyChecking=yes -oPermitLocalCommand=no"),
        ("GIT_ADVICE", "0"),
    ] {
        env.insert(name.to_owned(), value.to_owned());
    }
    env
}

/// Builds, in the folder `source`. `rustup` is where the user's tool chains are: its home is none.
pub(super) fn build(
    command: &[String],
    scratch: &Scratch,
    limit: Duration,
    mut passed: BTreeMap<String, String>,
    rustup: Option<&Path>,
) -> Program {
    if let Some(folder) = rustup {
        passed.entry("RUSTUP_HOME".into()).or_insert_with(|| text(folder));
    }
    // Else go's cache can only be removed by whoever makes it writable first.
    passed.insert("GOFLAGS".into(), "-modcacherw".into());
    passed.insert("GIT_TERMINAL_PROMPT".into(), "0".into());
    let (name, args) = command.split_first().map(|(name, args)| (name.clone(), args.to_vec())).unwrap_or_default();
    Program {
        label: "build",
        name,
        args,
        env: environment(scratch, passed),
        workdir: scratch.source(),
        limit,
        max_file_bytes: None,
        ring_bytes: RING_BYTES,
    }
}

/// The environment of whatever is run: what is passed on, a home of its own, and a language in which its words are known.
pub(super) fn environment(scratch: &Scratch, mut passed: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let home = text(&scratch.home());
    for (name, value) in [("HOME", home.as_str()), ("TMPDIR", &home), ("LC_ALL", "C.UTF-8"), ("LANG", "C.UTF-8")] {
        passed.insert(name.to_owned(), value.to_owned());
    }
    passed
}

/// How large the file is that is being fetched, by what the server said of it last.
pub(super) fn announced(heads: &str) -> Option<u64> {
    let mut lengths = heads.lines().filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    });
    lengths.next_back()
}

pub(super) fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

pub(super) fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch() -> Scratch {
        Scratch("/p/.goplug/staging/1".into())
    }

    #[test]
    fn a_file_is_fetched_by_schemes_that_do_not_lead_elsewhere() {
        for (address, schemes) in [("https://example.org/x", "=https"), ("http://127.0.0.1:1/x", "=http,https")] {
            let url = FileUrl { address: address.into(), sha256: None };
            let program = fetch_file(&url, 7, &scratch(), [("PATH".into(), "/bin".into())].into());
            let line = program.args.join(" ");
            // The first, else a file of the user's is read before it.
            assert!(line.starts_with("--disable "), "{line}");
            assert!(line.contains(&format!("--proto {schemes} --proto-redir {schemes} ")), "{line}");
            assert!(line.ends_with(&format!(" --url {address}")), "{line}");
            let names: Vec<_> = program.env.keys().map(String::as_str).collect();
            assert_eq!(names, ["HOME", "LANG", "LC_ALL", "PATH", "TMPDIR"]);
            assert_eq!(program.env["HOME"], "/p/.goplug/staging/1/home");
            assert_eq!(program.max_file_bytes, Some(7));
        }
    }

    #[test]
    fn git_takes_nothing_for_an_option_and_reads_no_configuration() {
        for (transport, address, reference) in [
            (GitTransport::File, "/srv/do.git", None),
            (GitTransport::Ssh, "git@example.org:do", Some("v1")),
            (GitTransport::Https, "https://example.org/do.git", Some("main")),
        ] {
            let reference = reference.map(str::to_owned);
            let repository = Repository { address: address.into(), transport, reference: reference.clone() };
            let programs = fetch_commit(&repository, &scratch());
            let line = programs[1].args.join(" ");
            let wanted = reference.as_deref().unwrap_or("HEAD");
            assert!(line.ends_with(&format!(" -- {address} {wanted}")), "{line}");
            for part in ["--depth=1", "--no-recurse-submodules", "core.hooksPath=/dev/null", "core.fsmonitor=false"] {
                assert!(line.contains(part), "{line}");
            }
            assert!(programs[0].args.contains(&"--template=".to_owned()));
            let passed = [("PATH", "/bin"), (SSH_AGENT, "/run/agent")].map(|(name, value)| (name.into(), value.into()));
            let env = git_environment(&repository, &scratch(), passed.into());
            assert_eq!(env["GIT_ALLOW_PROTOCOL"], transport.as_str());
            assert_eq!(env.contains_key(SSH_AGENT), transport == GitTransport::Ssh);
            for (name, value) in [("GIT_TERMINAL_PROMPT", "0"), ("GIT_CONFIG_GLOBAL", "/dev/null")] {
                assert_eq!(env[name], value);
            }
        }
        for (text, expected) in
            [("ab", false), (&"a".repeat(40), true), (&"a".repeat(64), true), (&"g".repeat(40), false)]
        {
            assert_eq!(is_commit(text), expected, "{text}");
        }
    }

    #[test]
    fn a_build_gets_what_is_listed_and_nothing_else() {
        let command = words(&["make", "all"]);
        let passed = || [("PATH".to_owned(), "/bin".to_owned())].into();
        let program = build(&command, &scratch(), LOCAL_LIMIT, passed(), Some(Path::new("/home/a/.rustup")));
        assert_eq!((program.name.as_str(), program.args.as_slice()), ("make", &words(&["all"])[..]));
        let names: Vec<_> = program.env.keys().map(String::as_str).collect();
        let expected = ["GIT_TERMINAL_PROMPT", "GOFLAGS", "HOME", "LANG", "LC_ALL", "PATH", "RUSTUP_HOME", "TMPDIR"];
        assert_eq!(names, expected);
        assert!(build(&command, &scratch(), LOCAL_LIMIT, passed(), None).env.keys().all(|name| name != "RUSTUP_HOME"));
    }

    #[test]
    fn the_size_that_counts_is_that_of_the_last_answer() {
        let heads = "HTTP/1.1 302 Found\r\nContent-Length: 5\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 700 \r\n\r\n";
        assert_eq!(announced(heads), Some(700));
        assert_eq!(announced("HTTP/1.1 200 OK\r\nContent-Length: many\r\n"), None);
        assert_eq!(announced(""), None);
    }
}
