//! Verbs that change a plugin directory, for tests that cut them short: what there was before, what there is after, and how a
//! look at the directory tells the two, and nothing in between.

mod moments;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;

use goplug_tests::{LONG, PluginDir};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::{GOPLUGCTL, Ran, command, goplugctl};
pub(crate) use moments::{Moment, for_each};

const OLD: &str = "1.2.3";
const NEW: &str = "1.3.0";
const TRUST_DIR: &str = "GOPLUG_TRUST_DIR";
/// What is known of packages names the directory, which is another one each time: it is not compared.
const TRUST: &str = ".trust";

/// One verb, on a directory with a plugin `test/do` in these versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Install,
    InstallPackage,
    Upgrade,
    UpgradePackage,
    /// The version before is a folder that somebody put there.
    UpgradeByHand,
    Rollback,
    Remove,
    /// Of a version that is not the current one.
    RemoveVersion,
}

impl Change {
    pub(crate) const ALL: [Self; 8] = [
        Self::Install,
        Self::InstallPackage,
        Self::Upgrade,
        Self::UpgradePackage,
        Self::UpgradeByHand,
        Self::Rollback,
        Self::Remove,
        Self::RemoveVersion,
    ];

    fn words(self, sources: &PluginDir) -> Vec<String> {
        let at = |name: &str| sources.join(name).to_str().unwrap().to_owned();
        let words =
            |words: &[&str], more: Vec<String>| words.iter().map(|word| (*word).to_owned()).chain(more).collect();
        match self {
            Self::Install => words(&["install"], vec![at("one")]),
            Self::InstallPackage => words(&["install", "--allow-unsigned"], vec![at("one.plg")]),
            Self::Upgrade | Self::UpgradeByHand => words(&["upgrade", "test/do"], vec![at("two")]),
            Self::UpgradePackage => words(&["upgrade", "test/do", "--allow-unsigned"], vec![at("two.plg")]),
            Self::Rollback => words(&["rollback", "test/do"], Vec::new()),
            Self::Remove => words(&["remove", "test/do"], Vec::new()),
            Self::RemoveVersion => words(&["remove", "test/do@1.2.3"], Vec::new()),
        }
    }
}

/// A file: whether it may be run, and its bytes; a link: where it leads.
type Entry = (u32, Vec<u8>);
type Tree = BTreeMap<PathBuf, Entry>;

/// What a fresh look at the plugin directory finds: the current version and its files, and the other versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    current: Option<String>,
    versions: BTreeMap<String, Tree>,
}

/// A verb, the directory before it, and what it is afterwards when nobody cuts it short.
pub(crate) struct Stage {
    pub(crate) change: Change,
    sources: PluginDir,
    before: PluginDir,
    old: Seen,
    new: Seen,
    /// Every path with its content, when all is done and tidied up.
    after: Tree,
    before_tree: Tree,
}

/// One run, cut short or not.
#[derive(Debug)]
pub(crate) struct Cut {
    pub(crate) status: ExitStatus,
    pub(crate) said: String,
}

impl Cut {
    pub(crate) fn is_killed(&self) -> bool {
        self.status.signal() == Some(9) || self.status.code() == Some(128 + 9)
    }
}

impl Stage {
    pub(crate) fn new(change: Change) -> Self {
        let sources = PluginDir::new();
        for (name, version) in [("one", OLD), ("two", NEW)] {
            let folder = source(&sources, name, version);
            let (folder, file) = (folder.to_str().unwrap(), sources.join(&format!("{name}.plg")));
            done(&goplugctl(&["pack", folder, "--out", file.to_str().unwrap()]));
        }
        let before = PluginDir::new();
        let run = |words: &[&str]| done(&on(before.path(), words));
        let (one, two) = (sources.join("one"), sources.join("two"));
        match change {
            Change::Install | Change::InstallPackage => {}
            Change::UpgradeByHand => {
                std::fs::create_dir(before.join("test")).unwrap();
                copy(&one, &before.join("test/do"));
            }
            Change::Upgrade | Change::UpgradePackage | Change::Remove => run(&["install", one.to_str().unwrap()]),
            Change::Rollback | Change::RemoveVersion => {
                run(&["install", one.to_str().unwrap()]);
                run(&["install", two.to_str().unwrap()]);
            }
        }
        let old = look(before.path()).unwrap();
        let before_tree = everything(before.path());
        let mut stage = Self { change, sources, before, new: old.clone(), old, after: Tree::new(), before_tree };
        let dir = stage.fresh();
        done(&stage.run(dir.path()));
        stage.new = look(dir.path()).unwrap();
        stage.after = everything(dir.path());
        assert_ne!(stage.old, stage.new, "{change:?} changes nothing");
        stage
    }

    /// The directory as it was before, once more.
    pub(crate) fn fresh(&self) -> PluginDir {
        let dir = PluginDir::new();
        self.restore(dir.path());
        dir
    }

    /// The directory as it was before, in this empty folder.
    pub(crate) fn restore(&self, dir: &Path) {
        for entry in std::fs::read_dir(self.before.path()).unwrap().flatten() {
            copy(&entry.path(), &dir.join(entry.file_name()));
        }
    }

    fn run(&self, dir: &Path) -> Ran {
        let words = self.change.words(&self.sources);
        on(dir, &words.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// The verb, with these options of strace.
    pub(crate) fn traced(&self, dir: &Path, options: &[&str]) -> Cut {
        let mut run = command("strace");
        run.args(["-f", "-qq"]).args(options).arg(GOPLUGCTL).arg("--dir").arg(dir).env(TRUST_DIR, dir.join(TRUST));
        self.ended(run)
    }

    /// The verb as it is.
    pub(crate) fn plain(&self, dir: &Path) -> Cut {
        let mut run = command(GOPLUGCTL);
        run.arg("--dir").arg(dir).env(TRUST_DIR, dir.join(TRUST));
        self.ended(run)
    }

    /// What does not end in time is killed: a failure in the runtime's own works, such as an eventfd that cannot be counted
    /// up, leaves nobody to wake it.
    fn ended(&self, mut run: Command) -> Cut {
        run.args(self.change.words(&self.sources)).stdin(Stdio::null());
        let child = run.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (pid, (ended, end)) = (child.id(), mpsc::channel());
        std::thread::spawn(move || ended.send(child.wait_with_output().unwrap()));
        let output = end.recv_timeout(LONG).unwrap_or_else(|_| {
            let below = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
            // strace ends with what it watches.
            let below: Vec<_> = below.split_whitespace().filter_map(|pid| pid.parse().ok()).collect();
            for pid in if below.is_empty() { vec![pid.cast_signed()] } else { below } {
                _ = Pid::from_raw(pid).map(|pid| kill_process(pid, Signal::KILL));
            }
            end.recv().unwrap()
        });
        Cut { status: output.status, said: String::from_utf8_lossy(&output.stderr).into_owned() }
    }

    /// Whether the directory is the new one; else it is the old one. Anything in between panics.
    pub(crate) fn is_new(&self, dir: &Path, what: &str) -> bool {
        let seen = look(dir).unwrap_or_else(|why| panic!("{what}: a mixture: {why}"));
        let known = |version: &String, tree: &Tree| {
            let versions = [&self.old, &self.new].map(|seen| seen.versions.get(version));
            versions.into_iter().flatten().any(|known| known == tree)
        };
        for (version, tree) in &seen.versions {
            assert!(known(version, tree), "{what}: version {version} is not whole: {tree:?}");
        }
        if self.old.current == self.new.current {
            assert!(seen == self.old || seen == self.new, "{what}: {seen:?}");
            return seen == self.new;
        }
        assert!(seen.current == self.old.current || seen.current == self.new.current, "{what}: {seen:?}");
        seen.current == self.new.current
    }

    /// The next one is not hindered, and nothing is left but what the verb leaves that nobody cut short.
    pub(crate) fn settles(&self, dir: &Path, is_new: bool, what: &str) {
        let run = |words: &[&str], code: i32| {
            let ran = on(dir, words);
            assert_eq!(ran.code, code, "{what}, then {words:?}: {ran:?}");
        };
        let one = self.sources.join("one");
        let one = one.to_str().unwrap();
        match (self.change, is_new) {
            (Change::Rollback, true) => run(&["rollback", "test/do"], 0),
            // What is not there any more is not looked for; the next installation takes away what is left of it.
            (Change::Remove | Change::RemoveVersion, true) => run(&["install", one], 0),
            _ => {}
        }
        let is_there = is_new && matches!(self.change, Change::Install | Change::InstallPackage);
        let again = self.run(dir);
        assert_eq!(again.code, if is_there { 9 } else { 0 }, "{what}, once more: {again:?}");
        let left = everything(dir);
        assert!(left == self.after, "{what}: left are {}", difference(&left, &self.after));
    }

    /// No file is there but what was there before, or what is there after the verb; beside it a version may lie that is whole.
    pub(crate) fn is_clean(&self, dir: &Path, is_new: bool, what: &str) {
        let files = |tree: &Tree| {
            let beside = |path: &Path| {
                let upgrades = [Change::Upgrade, Change::UpgradePackage, Change::UpgradeByHand].contains(&self.change);
                upgrades && path.starts_with(format!(".goplug/versions/test/do/{NEW}"))
            };
            let is_told = |path: &Path| !path.ends_with("state.json") && !beside(path);
            let all = tree.iter().filter(|(path, (mode, _))| mode & 0o170_000 != 0o040_000 && is_told(path));
            all.map(|(path, entry)| (path.clone(), entry.clone())).collect::<Tree>()
        };
        let (left, expected) = (files(&everything(dir)), files(if is_new { &self.after } else { &self.before_tree }));
        assert!(left == expected, "{what}: left are {}", difference(&left, &expected));
    }
}

/// What is there, file by file, and what `list` and `inspect` say; the reason when they do not agree.
pub(crate) fn look(dir: &Path) -> Result<Seen, String> {
    let place = dir.join("test/do");
    let mut seen = Seen { current: None, versions: BTreeMap::new() };
    let shelf = dir.join(".goplug/versions/test/do");
    for entry in std::fs::read_dir(&shelf).into_iter().flatten().flatten() {
        // A link is what is left of an exchange, and no version.
        if entry.file_type().unwrap().is_dir() {
            seen.versions.insert(entry.file_name().to_string_lossy().into_owned(), everything(&entry.path()));
        }
    }
    let list = on(dir, &["list", "-o", "json"]);
    let rows: Value = serde_json::from_str(&list.out).map_err(|error| format!("{error}: {list:?}"))?;
    let rows = rows.as_array().ok_or_else(|| format!("{list:?}"))?;
    let inspect = on(dir, &["inspect", "test/do", "-o", "json"]);
    match (rows.as_slice(), inspect.code, place.symlink_metadata()) {
        ([], 4, Err(_)) => Ok(seen),
        ([row], 0, Ok(status)) => {
            let version = row["version"].as_str().ok_or_else(|| row.to_string())?.to_owned();
            let tree = everything(&place);
            if !inspect.out.contains(&version) {
                return Err(format!("{inspect:?}"));
            }
            if status.is_symlink() {
                let known = seen.versions.get(&version);
                if known != Some(&tree) {
                    return Err(format!("{version} is {tree:?}, its folder {known:?}"));
                }
            } else {
                seen.versions.insert(version.clone(), tree);
            }
            seen.current = Some(version);
            Ok(seen)
        }
        _ => Err(format!("{list:?}, {inspect:?}, {}", place.symlink_metadata().is_ok())),
    }
}

/// Everything below a folder, with its content; but the file that tells other registries of one that runs, and what is trusted.
pub(crate) fn everything(folder: &Path) -> Tree {
    fn add(folder: &Path, inner: &Path, tree: &mut Tree) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let (path, inner) = (entry.path(), inner.join(entry.file_name()));
            let status = path.symlink_metadata().unwrap();
            let content = match status.file_type() {
                kind if kind.is_dir() => {
                    add(&path, &inner, tree);
                    Vec::new()
                }
                kind if kind.is_symlink() => std::fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes(),
                _ => std::fs::read(&path).unwrap(),
            };
            if !inner.ends_with("keeper.lock") && !inner.starts_with(TRUST) {
                tree.insert(inner, (status.permissions().mode(), content));
            }
        }
    }
    let mut tree = Tree::new();
    add(folder, Path::new(""), &mut tree);
    tree
}

fn difference(found: &Tree, expected: &Tree) -> String {
    let beyond = found.iter().filter(|(path, entry)| expected.get(*path) != Some(*entry));
    let missing = expected.keys().filter(|path| !found.contains_key(*path));
    let beyond = beyond.map(|(path, (mode, bytes))| format!("{path:?} {mode:o} {}", String::from_utf8_lossy(bytes)));
    format!("{:#?}, missing {:?}", beyond.collect::<Vec<_>>(), missing.collect::<Vec<_>>())
}

/// A verb on a plugin directory, whose trust folder lies in it.
fn on(dir: &Path, words: &[&str]) -> Ran {
    let mut run = command(GOPLUGCTL);
    run.arg("--dir").arg(dir).args(words).env(TRUST_DIR, dir.join(TRUST)).stdin(Stdio::null());
    let output = run.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ran { code: output.status.code().unwrap_or(-1), out: text(&output.stdout), err: text(&output.stderr) }
}

/// The folder of a plugin that can be installed; its program is never run.
fn source(dir: &PluginDir, name: &str, version: &str) -> PathBuf {
    let folder = dir.join(name);
    std::fs::create_dir_all(folder.join("data")).unwrap();
    let manifest = format!(
        r#"{{"name":"do","namespace":"test","version":"{version}","source":{{"mode":"local_exec","path":"run"}}}}"#
    );
    for (name, text, mode) in
        [("plugin.json", manifest.as_str(), 0o644), ("run", version, 0o755), ("data/x", "xxx", 0o644)]
    {
        std::fs::write(folder.join(name), text).unwrap();
        std::fs::set_permissions(folder.join(name), std::fs::Permissions::from_mode(mode)).unwrap();
    }
    folder
}

fn copy(from: &Path, to: &Path) {
    let status = from.symlink_metadata().unwrap();
    if status.is_symlink() {
        return std::os::unix::fs::symlink(std::fs::read_link(from).unwrap(), to).unwrap();
    }
    if status.is_file() {
        return std::fs::copy(from, to).map(drop).unwrap();
    }
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        copy(&entry.path(), &to.join(entry.file_name()));
    }
    std::fs::set_permissions(to, status.permissions()).unwrap();
}

fn done(ran: &Ran) {
    assert_eq!(ran.code, 0, "{ran:?}");
}

/// Whether strace is there and may trace.
pub(crate) fn can_trace() -> bool {
    let probe = Command::new("strace").args(["-f", "-qq", "-o", "/dev/null", "true"]).status();
    probe.is_ok_and(|status| status.success())
}
