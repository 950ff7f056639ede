//! What is wrong with a `.pconf`, with a manifest, or with every one of a directory, said all at once.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use goplug_package::{Keys, Package, Signer};
use goplug_pconf_schema::manifest::{Folder, MANIFEST_NAME};
use goplug_pconf_schema::{Code, Fault, Manifest, Pconf, PconfProblem, PluginId, printable};
use serde::Serialize;

use crate::discovery::{
    Confinement, Flaw, ScanOptions, check_program, directory_facts, is_candidate, keys_of, read_anyway, scan,
};
use crate::options::{DEFAULT_EXTENSION, DEFAULT_MAX_PLUGINS};

/// What the names of packages end in: ours, and the original's.
const PACKAGES: [&str; 3] = [".plg", ".tar", ".tar.gz"];

/// What [`lint`] found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LintReport {
    /// One entry per file that was looked at, by name; when a directory was asked for and there is something to say about
    /// the directory itself, that comes first.
    pub files: Vec<LintedFile>,
}

/// One file, with what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LintedFile {
    /// The file as it was asked for.
    pub file: PathBuf,
    /// The plugin, when the text names one.
    pub plugin: Option<PluginId>,
    /// What keeps the file from being used.
    pub problems: Vec<LintNote>,
    /// What could be better.
    pub warnings: Vec<LintNote>,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LintNote {
    /// Counts from 1; absent when the finding is not about a place in the text.
    pub line: Option<usize>,
    /// Counts characters from 1.
    pub column: Option<usize>,
    /// What, which one, the limit and what to do: safe to show.
    pub message: String,
}

impl LintReport {
    /// Whether every file can be used; there may be warnings.
    pub fn is_usable(&self) -> bool {
        self.files.iter().all(|file| file.problems.is_empty())
    }
}

/// Looks at one file, which may be a package, at the folder of one plugin, or at every `.pconf` and every manifest of a plugin directory, and tells
/// every problem and every warning. No socket is touched and nothing is run. Blocking.
pub fn lint(path: &Path) -> LintReport {
    if !std::fs::metadata(path).is_ok_and(|status| status.is_dir()) {
        return lint_one(path);
    }
    let manifest = path.join(MANIFEST_NAME);
    match std::fs::symlink_metadata(&manifest) {
        Ok(_) => LintReport { files: vec![lint_manifest(&manifest, None)] },
        Err(_) => lint_directory(path),
    }
}

/// Reads the manifest of a folder that is to be installed, whatever the folder is named, or tells every problem.
pub(crate) fn lint_source(path: &Path) -> Result<Manifest, Vec<String>> {
    let mut file = LintedFile::new(path);
    // Whose file it was does not matter: the copy is ours.
    let Some(bytes) = file.read() else {
        return Err(file.problems.into_iter().map(|note| format!("{MANIFEST_NAME} {}", note.message)).collect());
    };
    let (manifest, problems) = understood(&bytes, path.parent().unwrap_or(path), Folder::default());
    match manifest {
        Some((manifest, _)) if problems.is_empty() => Ok(manifest),
        _ => Err(problems.iter().map(LintNote::in_manifest).collect()),
    }
}

/// What the manifest of a folder says, as far as it can be understood, and whether that is all of it; and everything that is wrong
/// with it and with what it names, in the order of the places.
fn understood(bytes: &[u8], folder: &Path, names: Folder<'_>) -> (Option<(Manifest, bool)>, Vec<LintNote>) {
    let (manifest, problems) = Manifest::understand(bytes, names);
    let mut notes: Vec<_> = problems.into_iter().map(LintNote::problem).collect();
    let is_whole = notes.is_empty();
    for flaw in manifest.iter().flat_map(|manifest| check_program(manifest, folder)) {
        let keys = keys_of(&flaw);
        let place = keys.and_then(|keys| Manifest::place_of(bytes, &keys));
        // A program that has no command of its own is the source's path.
        let place = place.or_else(|| Manifest::place_of(bytes, &["source", "path"]).filter(|_| keys.is_some()));
        let note =
            LintNote { line: place.map(|(line, _)| line), column: place.map(|(_, column)| column), message: flaw };
        // What is wrong as it is written is not looked for.
        let is_new =
            || place.is_some() && notes.iter().all(|known| (known.line, known.column) != (note.line, note.column));
        if is_whole || is_new() {
            notes.push(note);
        }
    }
    notes.sort_by_key(|note| (note.line, note.column));
    (manifest.map(|manifest| (manifest, is_whole)), notes)
}

/// What a manifest says that can be read, wherever it lies and whatever it names.
pub(crate) fn lint_manifest_of(path: &Path) -> Option<Manifest> {
    Manifest::parse(&LintedFile::new(path).read()?, Folder::default()).ok()
}

/// `namespace`: the name of the folder above that of the manifest, if it must be that of its namespace.
fn lint_manifest(path: &Path, namespace: Option<&str>) -> LintedFile {
    let mut file = LintedFile::new(path);
    let Some(bytes) = file.read() else { return file };
    let folder = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let folder = folder.parent().unwrap_or(&folder);
    let name = folder.file_name().map(|name| name.to_string_lossy().into_owned());
    let (manifest, problems) = understood(&bytes, folder, Folder { name: name.as_deref(), namespace });
    if let Some((manifest, true)) = manifest {
        file.warnings.extend(manifest.warnings.iter().chain(&manifest.lint()).map(|text| LintNote::placed(text)));
        file.plugin = Some(manifest.id);
    }
    file.problems.extend(problems);
    file
}

/// A package: all of it is read, and nothing of it is written.
fn lint_package(path: &Path) -> LintedFile {
    let mut file = LintedFile::new(path);
    let opened = std::fs::File::open(path).map_err(|error| Fault::new(Code::Internal, error.to_string()));
    match opened.and_then(|opened| Package::open(opened, &Keys::whoever())) {
        Err(fault) => {
            let told = fault.data.as_ref().and_then(|data| data["problems"].as_array());
            let told = told.map(|all| all.iter().filter_map(|text| text.as_str().map(str::to_owned)).collect());
            told.unwrap_or_else(|| vec![fault.message]).into_iter().for_each(|problem| file.problem(problem));
        }
        Ok(package) => {
            let manifest = package.manifest();
            file.warnings.extend(manifest.warnings.iter().chain(&manifest.lint()).map(|text| LintNote::placed(text)));
            if *package.signer() == Signer::Nobody {
                file.warnings.push(LintNote::about_file("nobody signed it: `goplugctl pack --key`".into()));
            }
            file.plugin = Some(manifest.id.clone());
        }
    }
    file
}

fn lint_one(path: &Path) -> LintReport {
    let is_package = |name: &OsStr| PACKAGES.iter().any(|end| name.as_bytes().ends_with(end.as_bytes()));
    if path.file_name().is_some_and(is_package) {
        return LintReport { files: vec![lint_package(path)] };
    }
    if path.file_name().is_some_and(|name| name == MANIFEST_NAME) {
        return LintReport { files: vec![lint_manifest(path, None)] };
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = lint_file(path, folder, &Confinement::new(folder, &[]));
    if !path.file_name().is_some_and(|name| is_candidate(name, DEFAULT_EXTENSION)) {
        let text = format!("is not looked at: the name must end in {DEFAULT_EXTENSION} and not begin with a dot");
        file.warnings.push(LintNote::about_file(text));
    }
    LintReport { files: vec![file] }
}

fn lint_directory(directory: &Path) -> LintReport {
    let mut whole = LintedFile::new(directory);
    match directory_facts(directory) {
        Err(reason) => whole.problem(reason),
        Ok(facts) if facts.is_open_to_others() => {
            whole.warnings.push(LintNote::about_file(format!(
                "others may put files into it (mode {:04o}): chmod go-w",
                facts.mode
            )));
        }
        Ok(_) => {}
    }
    let mut paths = match list(directory) {
        Ok(paths) => paths,
        Err(error) => {
            if whole.problems.is_empty() {
                whole.problem(format!("cannot be read: {error}"));
            }
            Vec::new()
        }
    };
    paths.sort();
    if paths.len() > DEFAULT_MAX_PLUGINS {
        whole.problem(format!("holds {} files, the limit is {DEFAULT_MAX_PLUGINS}", paths.len()));
        paths.truncate(DEFAULT_MAX_PLUGINS);
    }
    let confinement = Confinement::new(directory, &[]);
    let mut files: Vec<_> = paths.iter().map(|path| lint_file(path, directory, &confinement)).collect();
    tell_conflicts(&mut files);
    let mut manifests = lint_manifests(directory);
    tell_conflicts(&mut manifests);
    files.append(&mut manifests);
    if files.is_empty() && whole.problems.is_empty() {
        let text = format!("holds no {MANIFEST_NAME}, no folder with one and no file *{DEFAULT_EXTENSION}");
        whole.warnings.push(LintNote::about_file(text));
    }
    let about_directory = !whole.problems.is_empty() || !whole.warnings.is_empty();
    LintReport { files: about_directory.then_some(whole).into_iter().chain(files).collect() }
}

/// The manifests where a registry looks for them.
fn lint_manifests(directory: &Path) -> Vec<LintedFile> {
    let options = ScanOptions {
        directory: directory.to_owned(),
        extension: DEFAULT_EXTENSION.to_owned(),
        socket_dirs: Vec::new(),
        max_plugins: DEFAULT_MAX_PLUGINS,
    };
    let snapshot = scan(&options, None);
    let absolute = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
    let mut files = Vec::new();
    for (path, entry) in &*snapshot.manifests {
        // As it was asked for.
        let inside = path.strip_prefix(&absolute).unwrap_or(path);
        let shown = directory.join(inside);
        let namespace = inside.components().nth(2).and_then(|_| inside.components().next());
        let namespace = namespace.map(|name| name.as_os_str().to_string_lossy().into_owned());
        let mut file = lint_manifest(&shown, namespace.as_deref());
        if let Err(refusal) = &entry.read
            && file.problems.is_empty()
        {
            file.problem(refusal.reason.clone());
        }
        files.push(file);
    }
    files
}

fn list(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if is_candidate(&entry.file_name(), DEFAULT_EXTENSION) {
            paths.push(entry.path());
        }
    }
    Ok(paths)
}

/// The lower file name wins while both sockets answer.
fn tell_conflicts(files: &mut [LintedFile]) {
    let mut holders = BTreeMap::<PluginId, PathBuf>::new();
    for file in files.iter_mut().filter(|file| file.problems.is_empty()) {
        let Some(id) = file.plugin.clone() else { continue };
        match holders.get(&id) {
            Some(holder) => {
                let holder = printable(&holder.to_string_lossy());
                file.problem(format!("claims `{id}`, which {holder} claims too: the lower name wins while both live"));
            }
            None => _ = holders.insert(id, file.file.clone()),
        }
    }
}

fn lint_file(path: &Path, folder: &Path, confinement: &Confinement) -> LintedFile {
    let mut file = LintedFile::new(path);
    let Some(bytes) = file.read() else { return file };
    match Pconf::parse(&bytes) {
        Err(error) => file.problems.extend(error.problems.into_iter().map(LintNote::problem)),
        Ok(pconf) => {
            file.warnings.extend(pconf.warnings.iter().chain(&pconf.lint()).map(|text| LintNote::placed(text)));
            let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
            match pconf.socket_path(&folder) {
                Err(reason) => file.problem(reason),
                // Whether it may lie there is up to the registry's settings.
                Ok(socket) => file.warnings.extend(confinement.check(&socket).err().map(|reason| {
                    LintNote::about_file(format!("{reason}: the registry needs its folder in socket_dirs"))
                })),
            }
            file.plugin = Some(pconf.id);
        }
    }
    file
}

impl LintedFile {
    fn new(path: &Path) -> Self {
        Self { file: path.to_owned(), plugin: None, problems: Vec::new(), warnings: Vec::new() }
    }

    /// The text, if there is one; what is wrong with the file itself is noted.
    fn read(&mut self) -> Option<Vec<u8>> {
        let Some((flaws, bytes)) = read_anyway(&self.file) else {
            self.problem("does not exist".into());
            return None;
        };
        for (flaw, reason) in flaws {
            if flaw != Flaw::Unreadable || self.problems.is_empty() {
                self.problem(reason);
            }
        }
        bytes
    }

    fn problem(&mut self, message: String) {
        self.problems.push(LintNote::about_file(message));
    }
}

impl LintNote {
    fn about_file(message: String) -> Self {
        Self { line: None, column: None, message }
    }

    /// As it is told of the manifest of a folder.
    fn in_manifest(&self) -> String {
        match (self.line, self.column) {
            (Some(line), Some(column)) => format!("{MANIFEST_NAME}:{line}:{column}: {}", self.message),
            _ => self.message.clone(),
        }
    }

    fn problem(problem: PconfProblem) -> Self {
        Self { line: Some(problem.line), column: Some(problem.column), message: problem.message }
    }

    /// A warning of a reader, which begins with its place when it has one.
    fn placed(text: &str) -> Self {
        let place = text.strip_prefix("line ").and_then(|rest| {
            let (place, message) = rest.split_once(": ")?;
            let (line, column) = place.split_once(" column ")?;
            Some((line.parse().ok()?, column.parse().ok()?, message))
        });
        match place {
            Some((line, column, message)) => {
                Self { line: Some(line), column: Some(column), message: message.to_owned() }
            }
            None => Self::about_file(text.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn put(path: &Path, text: &str, mode: u32) {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn problems(file: &LintedFile) -> Vec<&str> {
        file.problems.iter().map(|note| note.message.as_str()).collect()
    }

    #[test]
    fn every_problem_of_a_file_is_told_with_its_place() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.pconf");
        put(&path, "{\"Name\": \".a\",\n  \"LazyLoad\": 7 }", 0o666);
        let report = lint(&path);
        assert!(!report.is_usable());
        let file = &report.files[0];
        assert!(file.problems[0].message.contains("chmod o-w"), "{file:?}");
        let lines: Vec<_> = file.problems.iter().filter_map(|note| note.line).collect();
        assert!(lines.contains(&1) && lines.contains(&2), "{file:?}");
    }

    #[test]
    fn warnings_keep_their_places() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("A.pconf");
        put(&path, "{\"Name\": \"Big\", \"Sock\": \"/elsewhere/s\",\n \"name\": \"Big\"}", 0o644);
        let report = lint(&path);
        assert!(report.is_usable(), "{report:?}");
        let file = &report.files[0];
        assert_eq!(file.plugin.as_ref().unwrap().as_str(), "-/Big");
        assert!(file.warnings.iter().any(|note| note.line.is_some()), "a key that is there twice: {file:?}");
        assert!(file.warnings.iter().any(|note| note.message.contains("socket_dirs")), "{file:?}");
        assert!(file.warnings.iter().any(|note| note.message.contains("[a-z0-9]")), "{file:?}");
    }

    #[test]
    fn a_directory_is_looked_at_as_a_whole() {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
        for name in ["a.pconf", "b.pconf", "c.txt"] {
            put(&directory.path().join(name), r#"{"Name":"a","Sock":"a.sock"}"#, 0o644);
        }
        fs::create_dir(directory.path().join("d.pconf")).unwrap();
        let report = lint(directory.path());
        let names: Vec<_> = report.files.iter().skip(1).map(|file| file.file.file_name().unwrap()).collect();
        assert_eq!(names, ["a.pconf", "b.pconf", "d.pconf"]);
        assert!(report.files[0].warnings[0].message.contains("chmod go-w"));
        assert_eq!(problems(&report.files[1]), Vec::<&str>::new());
        assert!(problems(&report.files[2])[0].contains("claims `-/a`"));
        assert_eq!(problems(&report.files[3]), ["is a folder: a .pconf must be a regular file"]);
    }

    #[test]
    fn what_is_not_there_or_not_looked_at_is_said() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(problems(&lint(&directory.path().join("x.pconf")).files[0]), ["does not exist"]);
        let path = directory.path().join("x.conf");
        put(&path, r#"{"Name":"a","Sock":"a.sock"}"#, 0o644);
        assert!(lint(&path).files[0].warnings.iter().any(|note| note.message.contains("must end in .pconf")));
    }
}
