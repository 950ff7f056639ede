//! Repositories: one commit is fetched, built once in a folder of its own, and installed.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

use goplug_registry::Fetched;
use serde_json::json;

use super::*;
use crate::supervision::fixture_manifest;
use crate::support::FIXTURE;

/// A repository with one branch, made file by file.
pub(crate) struct Repository {
    work: PluginDir,
}

impl Repository {
    pub(crate) fn new() -> Self {
        let it = Self { work: PluginDir::new() };
        it.git(&["init", "--quiet", "--initial-branch=main"]);
        it
    }

    pub(crate) fn path(&self) -> &Path {
        self.work.path()
    }

    pub(crate) fn git(&self, args: &[&str]) -> String {
        let mut git = Command::new("git");
        git.args(["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "protocol.file.allow=always"]);
        git.args(args).current_dir(self.path()).env("GIT_CONFIG_GLOBAL", "/dev/null");
        // The same files are the same commit.
        git.envs([("GIT_AUTHOR_DATE", "2026-01-01T00:00:00Z"), ("GIT_COMMITTER_DATE", "2026-01-01T00:00:00Z")]);
        let output = git.output().expect("git");
        assert!(output.status.success(), "git {args:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> &Self {
        let path = self.work.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        self
    }

    /// A plugin of that version, built by a script, with a tag.
    pub(crate) fn version(&self, version: &str, script: &str) -> String {
        let mut manifest = fixture_manifest(&self.work, "Test/Do", &["--version", version], &json!({}));
        manifest["version"] = version.into();
        manifest["source"] = json!({"mode": "local_exec", "path": "bin/do"});
        manifest["exec"]["command"] = "bin/do".into();
        // Of the plugin directory that it is installed in, which the fixture need not know.
        manifest["build"] = json!({"command": ["sh", "build.sh"]});
        self.write("plugin.json", &manifest.to_string()).write("build.sh", script);
        self.commit(version)
    }

    /// What is there, with a tag.
    pub(crate) fn commit(&self, tag: &str) -> String {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--message", tag]);
        self.git(&["tag", tag]);
        self.git(&["rev-parse", "HEAD"])
    }

    /// Another one without a work tree.
    pub(crate) fn bare(&self) -> PathBuf {
        let bare = self.work.join(".git/bare.git");
        if !bare.exists() {
            self.git(&["clone", "--quiet", "--bare", ".", bare.to_str().unwrap()]);
        }
        bare
    }

    pub(crate) fn url(&self, reference: &str) -> String {
        format!("git+file://{}#{reference}", self.bare().display())
    }
}

pub(super) fn good() -> String {
    format!("mkdir -p bin && cp {FIXTURE} bin/do && date >> bin/builds")
}

const SOON: Duration = Duration::from_secs(60);

async fn built(registry: &Registry, address: &str) -> Result<Fetched, Error> {
    let fetched = fetch(registry, address, Fetch::default()).await?;
    registry.build(fetched, SOON, |_| ()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_of_a_repository_are_built_once_and_follow_one_another() {
    if lacks_tools("commits of a repository are built once and follow one another") {
        return;
    }
    let repository = Repository::new();
    let first = repository.version("1.0.0", &good());
    let second = repository.version("1.1.0", &good());
    let home = Home::new();
    let registry = trusting(&home).await;

    let fetched = fetch(&registry, &repository.url("1.0.0"), Fetch::default()).await.unwrap();
    assert_eq!(fetched.to_build().unwrap(), ["sh", "build.sh"]);
    assert!(!fetched.path().join("bin").exists() && fetched.path().join("build.sh").exists(), "nothing has run yet");
    let fetched = registry.build(fetched, SOON, |_| ()).await.unwrap();
    assert!(fetched.to_build().is_none() && fetched.path().join("bin/do").exists());
    assert!(!fetched.path().join("bin/builds").exists(), "what the manifest does not name is not kept");
    let installed = registry.install(fetched.path(), Install::default()).await.unwrap();
    let origin = installed.origin.unwrap();
    assert_eq!((origin.commit.as_deref(), origin.built_with.join(" ").as_str()), (Some(&*first), "sh build.sh"));
    drop(fetched);
    assert_eq!(staged(&home.dir), [""; 0]);
    loaded(&registry, "Test/Do").await;
    let version = async || text(registry.execute("Test/Do", "version", "").await.unwrap());
    assert!(version().await.starts_with("1.0.0 "));

    // A branch, a tag, a commit, and what it calls HEAD lead to the same.
    for reference in ["#main", "#1.1.0", &format!("#{second}"), ""] {
        let address = repository.url("").trim_end_matches('#').to_owned() + reference;
        let fetched = fetch(&registry, &address, Fetch::default()).await.unwrap();
        assert_eq!(fetched.origin().unwrap().commit.as_deref(), Some(&*second), "{address}");
    }
    let fetched = built(&registry, &repository.url("main")).await.unwrap();
    registry.upgrade("Test/Do", Some(fetched.path()), Upgrade::default()).await.unwrap();
    drop(fetched);
    assert!(version().await.starts_with("1.1.0 "));
    let origin = async || registry.inspect("Test/Do").await.unwrap().installed.unwrap().origin.unwrap();
    assert_eq!(origin().await.commit, Some(second));
    registry.rollback("Test/Do", false).await.unwrap();
    assert!(version().await.starts_with("1.0.0 "));
    registry.stop_plugin("Test/Do").await.unwrap();
    // What was built is what runs, or nothing does.
    std::fs::write(home.dir.join("Test/Do/build.sh"), "another one").unwrap();
    assert_eq!(fault(registry.start_plugin("Test/Do").await).code, Code::Denied);
    registry.close().await;
    assert_eq!(staged(&home.dir), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_goes_wrong_leaves_nothing() {
    if lacks_tools("a build that goes wrong leaves nothing") {
        return;
    }
    let home = Home::new();
    let registry = trusting(&home).await;
    let marker = home.dir.join(".sources/pid");
    std::fs::create_dir_all(marker.parent().unwrap()).unwrap();
    let pid = marker.display();
    let second = Duration::from_secs(1);
    let cases = [
        (
            "echo first; echo it is broken >&2; exit 3".to_owned(),
            SOON,
            Code::Unavailable,
            "it returned 3: first | it is broken",
        ),
        ("kill -9 $$".to_owned(), SOON, Code::Unavailable, "signal 9 ended it"),
        (format!("echo $$ > {pid}; exec sleep 1000"), second, Code::DeadlineExceeded, "did not end within 1s"),
        ("true".to_owned(), SOON, Code::InvalidArgument, "did not make do"),
        // More than anybody keeps.
        ("yes | head -c 2000000; exit 1".to_owned(), SOON, Code::Unavailable, "it returned 1"),
        (format!("(setsid sleep 1000 & echo $! > {pid}); exit 1"), SOON, Code::Unavailable, "it returned 1"),
    ];
    fault(fetch(&registry, "git+file:///no/such/repository", Fetch::default()).await);
    for (script, within, code, words) in cases {
        let before = left(&home);
        _ = std::fs::remove_file(&marker);
        let repository = Repository::new();
        repository.version("1.0.0", &script);
        let fetched = fetch(&registry, &repository.url("main"), Fetch::default()).await.unwrap();
        let building = tokio::time::timeout(LONG, registry.build(fetched, within, |_| ()));
        let refused = fault(building.await.unwrap_or_else(|_| panic!("{script} goes on")));
        assert_eq!(refused.code, code, "{script}: {refused}");
        assert!(refused.message.contains(words), "{script}: {refused}");
        if let Ok(pid) = std::fs::read_to_string(&marker) {
            let pid = pid.trim().parse().unwrap();
            wait_until("what it started has ended", LONG, || !runs(pid));
        }
        assert_eq!(left(&home), before, "{script}");
        assert_eq!(staged(&home.dir), [""; 0], "{script}");
    }
    // What is left behind by a build that works has ended, too, and a link is no program.
    let repository = Repository::new();
    repository.version("1.0.0", &format!("mkdir bin; ln -s {FIXTURE} bin/do; (setsid sleep 1000 & echo $! > {pid})"));
    let fetched = built(&registry, &repository.url("main")).await.unwrap();
    let sleeper = std::fs::read_to_string(&marker).unwrap().trim().parse().unwrap();
    wait_until("what it started has ended", LONG, || !runs(sleeper));
    let refused = fault(registry.install(fetched.path(), Install::default()).await);
    assert!(refused.message.contains("do is a symbolic link"), "{refused}");
    drop(fetched);
    assert_eq!(row(&registry, "Test/Do"), None);
    assert_eq!((staged(&home.dir), home.hosts.recorded()), (Vec::new(), Vec::new()));
    registry.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_plugin_can_be_made_of_is_refused_before_anything_runs() {
    if lacks_tools("what no plugin can be made of is refused before anything runs") {
        return;
    }
    let home = Home::new();
    let registry = trusting(&home).await;
    let with = |change: &dyn Fn(&Repository)| {
        let repository = Repository::new();
        change(&repository);
        repository.version("1.0.0", &good());
        repository
    };
    let link = with(&|it| std::os::unix::fs::symlink("/etc/passwd", it.path().join("words")).unwrap());
    let other = Repository::new();
    other.version("1.0.0", "true");
    let submodule = with(&|it| drop(it.git(&["submodule", "--quiet", "add", other.path().to_str().unwrap(), "sub"])));
    let bare = Repository::new();
    bare.write("README.md", "nothing");
    bare.commit("nothing-at-all");
    let plain = with(&|_| ());
    for (address, code, words) in [
        (link.url("main"), Code::InvalidArgument, "words is a symbolic link"),
        (submodule.url("main"), Code::InvalidArgument, "sub is a submodule"),
        (bare.url("main"), Code::InvalidArgument, "holds no plugin.json"),
        (plain.url("nothing"), Code::NotFound, "no branch, tag or commit `nothing`"),
        (plain.url(&"0".repeat(40)), Code::NotFound, "no branch, tag or commit"),
        ("git+file:///no/such.git".to_owned(), Code::NotFound, "no such repository"),
        ("git+https://127.0.0.1:1/do.git".to_owned(), Code::Unavailable, "cannot be fetched"),
    ] {
        let refused = fault(fetch(&registry, &address, Fetch::default()).await);
        assert_eq!(refused.code, code, "{address}: {refused}");
        assert!(refused.message.contains(words), "{address}: {refused}");
        assert_eq!((staged(&home.dir), home.hosts.recorded()), (Vec::new(), Vec::new()), "{address}");
    }
    registry.close().await;
}

/// A repository may be anybody's: what its configuration, its hooks and its files tell git to run does not run.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_an_evil_repository_runs() {
    if lacks_tools("nothing of an evil repository runs") {
        return;
    }
    let home = Home::new();
    let registry = trusting(&home).await;
    let repository = Repository::new();
    let trap = repository.work.join(".git/sprung");
    let run = format!("touch {}", trap.display());
    let attributes = "* filter=evil diff=evil merge=evil ident\n";
    repository.write(".gitattributes", attributes).write(".gitconfig", "[core]\n\tfsmonitor = touch /tmp/x\n");
    repository.write(".lfsconfig", "[lfs]\n\turl = ext::sh\n");
    repository.version("1.0.0", &good());
    let bare = repository.bare();
    for hook in ["post-checkout", "pre-receive", "post-update", "reference-transaction", "update", "post-index-change"]
    {
        let file = bare.join("hooks").join(hook);
        std::fs::write(&file, format!("#!/bin/sh\n{run}\n")).unwrap();
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    let config = bare.join("config");
    let mut text = std::fs::read_to_string(&config).unwrap();
    text.push_str(&format!(
        "[core]\n\tfsmonitor = {run}\n\tsshCommand = {run}\n\tpager = {run}\n\taskPass = {run}\n\thooksPath = hooks\n\
         [filter \"evil\"]\n\tsmudge = {run}\n\tclean = {run}\n\trequired = true\n\
         [uploadpack]\n\tpackObjectsHook = {run}\n[diff \"evil\"]\n\tcommand = {run}\n[alias]\n\tfetch = !{run}\n"
    ));
    std::fs::write(&config, text).unwrap();
    let fetched = fetch(&registry, &repository.url("main"), Fetch::default()).await.unwrap();
    assert!(!trap.exists(), "the fetch ran something of the repository");
    assert_eq!(std::fs::read_to_string(fetched.path().join(".gitattributes")).unwrap(), attributes);
    drop(fetched);
    // And nobody is sent to a repository by what looks like an option, or like a program.
    for address in [
        format!("--upload-pack={run}"),
        format!("ext::sh -c {run}"),
        format!("git+ext::sh -c {run}"),
        "ssh://-oProxyCommand=touch/do.git".to_owned(),
        "-oProxyCommand=touch@host:do.git".to_owned(),
        format!("git+file://{}#--upload-pack=touch", bare.display()),
    ] {
        let (dir, hosts) = (PluginDir::new(), Hosts::new());
        let mut install = command(GOPLUGCTL);
        install.arg0("goplugctl").args(["--dir", dir.text(), "install", "--build", "--", &address]);
        install.env("GOPLUG_HOST", GOPLUG_HOST).env("GOPLUG_HOSTS_DIR", hosts.folder());
        let output = install.output().unwrap();
        assert_eq!(output.status.code(), Some(10), "{address}: {output:?}");
        assert!(!trap.exists() && dir.names().is_empty(), "{address}");
    }
    registry.close().await;
}

#[test]
fn a_build_gets_an_environment_of_its_own_and_must_be_asked_for() {
    if lacks_tools("a build gets an environment of its own and must be asked for") {
        return;
    }
    let repository = Repository::new();
    let (dir, hosts) = (PluginDir::new(), Hosts::new());
    let seen = repository.work.join(".git/seen");
    let script = format!("{}; env > {}; touch $HOME/here", good(), seen.display());
    repository.version("1.0.0", &script);
    let url = repository.url("1.0.0");
    let run = |words: &[&str]| {
        let mut run = command(GOPLUGCTL);
        run.arg0("goplugctl").args(["--dir", dir.text()]).args(words).stdin(Stdio::null());
        run.env("GOPLUG_HOST", GOPLUG_HOST).env("GOPLUG_HOSTS_DIR", hosts.folder());
        run.env("AWS_SECRET_ACCESS_KEY", "secret").env("SSH_AUTH_SOCK", "/run/agent").env("CARGO_HOME", "/home/a");
        run.output().unwrap()
    };
    let refused = run(&["install", &url]);
    assert_eq!(refused.status.code(), Some(8), "{refused:?}");
    let dry = run(&["install", &url, "--dry-run", "-y"]);
    assert!(dry.status.success(), "{dry:?}");
    assert!(!seen.exists() && dir.names() == [".goplug"] && staged(&dir).is_empty(), "nothing has run");
    let done = run(&["install", &url, "--build"]);
    assert!(done.status.success(), "{done:?}");
    let seen = std::fs::read_to_string(seen).unwrap();
    let value = |name: &str| seen.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    let names: Vec<_> = seen.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect();
    let known = [
        "GIT_TERMINAL_PROMPT",
        "GOFLAGS",
        "HOME",
        "LANG",
        "LC_ALL",
        "PATH",
        "RUSTUP_HOME",
        "RUSTUP_TOOLCHAIN",
        "TMPDIR",
        "http_proxy",
        "https_proxy",
        "HTTPS_PROXY",
        "all_proxy",
        "ALL_PROXY",
        "no_proxy",
        "NO_PROXY",
        "SSL_CERT_FILE",
        // The shell's own.
        "PWD",
        "OLDPWD",
        "SHLVL",
        "_",
    ];
    let others: Vec<_> = names.iter().filter(|name| !known.contains(name)).collect();
    assert!(others.is_empty(), "{others:?}");
    let home = value("HOME").unwrap();
    assert!(home.starts_with(dir.text()) && !Path::new(home).exists(), "{home}");
    assert!(staged(&dir).is_empty());
}

#[test]
fn without_git_or_curl_it_is_said_so() {
    let (dir, hosts, empty) = (PluginDir::new(), Hosts::new(), PluginDir::new());
    for (source, words) in [
        ("git+https://example.org/do", "there is no `git` in PATH"),
        ("https://example.org/do.plg", "there is no `curl` in PATH"),
    ] {
        let mut run = command(GOPLUGCTL);
        run.args(["--dir", dir.text(), "install", source]).env("PATH", empty.path());
        run.env("GOPLUG_HOST", GOPLUG_HOST).env("GOPLUG_HOSTS_DIR", hosts.folder());
        let output = run.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(4) && said.contains(words), "{output:?}");
        assert!(staged(&dir).is_empty());
    }
}
