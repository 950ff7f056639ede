//! What the file system says about a subject. Blocking.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use goplug_pconf_schema::manifest::MANIFEST_NAME;
use goplug_pconf_schema::{PluginId, nearest};

use super::{DirectoryFinding, FileFinding, Findings, Near, Place};
use crate::desired;
use crate::discovery::{
    Confinement, Entry, Flaw, Found, Installed, Refusal, ScanOptions, Snapshot, View, check_program, examine,
    examine_manifest, is_candidate, read_anyway, scan,
};

/// The most files outside of the view that are opened in search of a name.
const MAX_SEARCHED: usize = 2_000;

/// Looks for `subject`, the name of a plugin or a file, in the directory as it is now. `view` tells which of several files
/// is used; `previous` saves reading again what did not change. The caller fills in what only a registry knows.
pub(crate) fn gather(subject: &str, options: &ScanOptions, view: &View, previous: Option<&Snapshot>) -> Findings {
    let snapshot = scan(options, previous);
    let directory = std::path::absolute(&options.directory).unwrap_or_else(|_| options.directory.clone());
    let search = Search {
        options,
        snapshot: &snapshot,
        confinement: Confinement::new(&directory, &options.socket_dirs),
        view,
        directory,
    };
    let manifest = search.as_manifest(subject).and_then(|path| search.manifest(path));
    let file = match (manifest, search.as_file(subject)) {
        (Some(found), _) => found,
        (None, Some(path)) => search.file(path),
        (None, None) => search.plugin(subject),
    };
    let rivals = match &file {
        FileFinding::There { path, read: Ok(found), .. } => search.others(&found.pconf.id, path),
        _ => Vec::new(),
    };
    Findings {
        subject: goplug_pconf_schema::printable(subject),
        directory: DirectoryFinding {
            exists: search.directory.exists(),
            read: snapshot.directory.clone(),
            warnings: snapshot.warnings.clone(),
            truncated_at: snapshot.truncated.then_some(options.max_plugins),
            path: search.directory,
        },
        extension: options.extension.clone(),
        auto_discover: false,
        file,
        rivals,
        knock: None,
        allow_uids: Vec::new(),
        slot: None,
        process: None,
    }
}

struct Search<'a> {
    options: &'a ScanOptions,
    snapshot: &'a Snapshot,
    confinement: Confinement,
    view: &'a View,
    directory: PathBuf,
}

impl Search<'_> {
    /// The path of a subject that is a file: by its first or last characters, or because there is one of that name.
    fn as_file(&self, subject: &str) -> Option<PathBuf> {
        let here = self.directory.join(subject);
        let is_path = subject.starts_with(['/', '.']) || is_candidate(OsStr::new(subject), &self.options.extension);
        let is_there = !subject.is_empty() && !subject.contains('/') && std::fs::symlink_metadata(&here).is_ok();
        // A socket or a folder may well have the name of its plugin.
        let is_file = is_there && (is_path || std::fs::symlink_metadata(&here).is_ok_and(|status| status.is_file()));
        match (is_path, is_file) {
            (_, true) => Some(here),
            (true, false) if subject.contains('/') => std::path::absolute(subject).ok(),
            (true, false) => Some(here),
            (false, false) => None,
        }
    }

    /// Whether a subject is a manifest: by its name, or a folder that has one.
    fn as_manifest(&self, subject: &str) -> Option<PathBuf> {
        let is_path = subject.starts_with(['/', '.']) || subject.ends_with(MANIFEST_NAME);
        let path = match (is_path, subject.starts_with('/')) {
            (false, _) => return None,
            (true, true) => PathBuf::from(subject),
            (true, false) => self.directory.join(subject),
        };
        let file = if path.ends_with(MANIFEST_NAME) { path } else { path.join(MANIFEST_NAME) };
        std::fs::symlink_metadata(&file).is_ok().then_some(file)
    }

    fn manifest(&self, path: PathBuf) -> Option<FileFinding> {
        let entry = self.snapshot.manifests.get(path.as_path());
        let read = match entry {
            Some(entry) => entry.read.clone(),
            None => examine_manifest(&path)?.read,
        };
        let winner = match &read {
            Ok(found) => self.manifests_of(&found.manifest.id).next().filter(|winner| **winner != *path),
            Err(_) => None,
        };
        let program = read.as_ref().map(|found| check_program(&found.manifest, &found.folder)).unwrap_or_default();
        let desired = desired::load(&self.directory).unwrap_or_default();
        let disabled = read.as_ref().is_ok_and(|found| desired.of(&found.manifest.id).disabled);
        let winner = winner.map(Path::to_owned);
        Some(FileFinding::Installed { path, read, program, outside: entry.is_none(), winner, disabled })
    }

    /// The manifests of a pair, by path: the first is used.
    fn manifests_of(&self, id: &PluginId) -> impl Iterator<Item = &Path> {
        let names = move |entry: &Entry<Installed>| entry.read.as_ref().is_ok_and(|found| found.manifest.id == *id);
        self.snapshot.manifests.iter().filter(move |(_, entry)| names(entry)).map(|(path, _)| &**path)
    }

    /// The manifest of a plugin of which no `.pconf` is there, or of a folder of that name that cannot be used.
    fn installed(&self, subject: &str) -> Option<FileFinding> {
        let fits = |path: &Path, entry: &Entry<Installed>| match &entry.read {
            Ok(found) if subject.contains('/') => PluginId::parse(subject).is_ok_and(|id| id == found.manifest.id),
            Ok(found) => found.manifest.id.name() == subject,
            Err(_) => {
                let folder = path.parent().and_then(|folder| folder.strip_prefix(&self.directory).ok());
                folder.is_some_and(|folder| folder == Path::new(subject) || folder.ends_with(subject))
            }
        };
        let (path, _) = self.snapshot.manifests.iter().find(|(path, entry)| fits(path, entry))?;
        self.manifest(path.to_path_buf())
    }

    fn file(&self, path: PathBuf) -> FileFinding {
        let Some(examined) = examine(&path, &self.confinement) else {
            let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let near = self.nearby(&Wanted::Stem(stem));
            return FileFinding::Missing { path, near };
        };
        let place = self.place(&path);
        let winner = match &examined.read {
            Ok(found) if place == Place::Seen => self.winner(&found.pconf.id).filter(|winner| *winner != path),
            _ => None,
        };
        FileFinding::There { path, place, read: examined.read, winner }
    }

    fn plugin(&self, subject: &str) -> FileFinding {
        let id = match PluginId::parse(subject) {
            Ok(id) => id,
            Err(error) => return FileFinding::BadName(error.to_string()),
        };
        let bare = !subject.contains('/');
        let mut ids: Vec<_> =
            self.ids().filter(|other| if bare { other.name() == id.name() } else { **other == id }).collect();
        ids.sort();
        ids.dedup();
        let installed = if bare { self.same_name(id.name(), &ids) } else { Vec::new() };
        if !installed.is_empty() && installed.len() + ids.len() > 1 {
            return FileFinding::Ambiguous(ids.into_iter().cloned().chain(installed).collect());
        }
        match ids.as_slice() {
            [] => {
                if let Some(found) = self.installed(subject) {
                    return found;
                }
                let near =
                    self.nearby(&if bare { Wanted::Name(id.name().to_owned()) } else { Wanted::Pair(id.clone()) });
                FileFinding::NotNamed { id: (!bare).then_some(id), near }
            }
            [only] => self.used_file(only),
            several => FileFinding::Ambiguous(several.iter().map(|id| (*id).clone()).collect()),
        }
    }

    /// Installed plugins of that name that are none of `ids`.
    fn same_name(&self, name: &str, ids: &[&PluginId]) -> Vec<PluginId> {
        let usable = self.snapshot.manifests.values().filter_map(|entry| entry.read.as_ref().ok());
        let mut found: Vec<_> = usable.map(|found| found.manifest.id.clone()).collect();
        found.retain(|id| id.name() == name && !ids.contains(&id));
        found.sort();
        found.dedup();
        found
    }

    /// The file by which a pair that is there is known.
    fn used_file(&self, id: &PluginId) -> FileFinding {
        let path = self.winner(id).or_else(|| self.refused_with(id)).unwrap_or_default();
        let read = match self.snapshot.entries.get(path.as_path()) {
            Some(entry) => entry.read.clone(),
            None => return FileFinding::NotNamed { id: Some(id.clone()), near: Vec::new() },
        };
        FileFinding::There { path, place: Place::Seen, read, winner: None }
    }

    /// Every pair that a file names, usable or not.
    fn ids(&self) -> impl Iterator<Item = &PluginId> {
        self.snapshot.entries.values().filter_map(|entry| match &entry.read {
            Ok(found) => Some(&found.pconf.id),
            Err(refusal) => refusal.id.as_ref(),
        })
    }

    /// The file of the pair that is used: the view's, if it still says so, else the lowest.
    fn winner(&self, id: &PluginId) -> Option<PathBuf> {
        let claims = |path: &Path| self.snapshot.entries.get(path).is_some_and(|entry| names(entry, id).is_some());
        let applied = self.view.winner(id).map(|(file, _)| file.to_owned()).filter(|file| claims(file));
        applied.or_else(|| self.claims(id).next().map(Path::to_owned))
    }

    fn claims(&self, id: &PluginId) -> impl Iterator<Item = &Path> {
        self.snapshot.entries.iter().filter(|(_, entry)| names(entry, id).is_some()).map(|(path, _)| &**path)
    }

    fn others(&self, id: &PluginId, path: &Path) -> Vec<PathBuf> {
        self.claims(id).filter(|other| *other != path).map(Path::to_owned).collect()
    }

    fn refused_with(&self, id: &PluginId) -> Option<PathBuf> {
        let refused = |entry: &Entry| entry.read.as_ref().err().is_some_and(|refusal| refusal.id.as_ref() == Some(id));
        self.snapshot.entries.iter().find(|(_, entry)| refused(entry)).map(|(path, _)| path.to_path_buf())
    }

    fn place(&self, path: &Path) -> Place {
        let name = path.file_name().unwrap_or_default();
        let folder = path.parent().unwrap_or(path);
        let same =
            |a: &Path, b: &Path| a == b || matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b);
        if same(folder, &self.directory) {
            if is_candidate(name, &self.options.extension) {
                let known = self.snapshot.entries.contains_key(self.directory.join(name).as_path());
                if known || !self.snapshot.truncated { Place::Seen } else { Place::BeyondLimit }
            } else if name.as_bytes().starts_with(b".") {
                Place::Hidden
            } else {
                Place::Extension
            }
        } else if folder.starts_with(&self.directory) {
            Place::SubFolder
        } else {
            Place::Outside
        }
    }

    /// What may be meant: files that are not looked at and would name it, files that cannot be used and seem to be it,
    /// plugins with similar names.
    fn nearby(&self, wanted: &Wanted) -> Vec<Near> {
        let mut near = Vec::new();
        for path in self.not_looked_at() {
            let fits = match examine(&path, &self.confinement).map(|examined| examined.read) {
                Some(Ok(found)) => wanted.is(&found),
                Some(Err(refusal)) => wanted.seems(&path, &refusal),
                None => false,
            };
            if fits {
                near.push(Near::Misplaced { place: self.place(&path), path });
            }
        }
        let refused = self.snapshot.entries.iter().filter_map(|(path, entry)| Some((path, entry.read.as_ref().err()?)));
        let unusable = refused.filter(|(path, refusal)| wanted.seems(path, refusal));
        near.extend(
            unusable.map(|(path, refusal)| Near::Unusable { path: path.to_path_buf(), refusal: Arc::clone(refusal) }),
        );
        near.extend(self.similar(wanted).into_iter().map(Near::Similar));
        near
    }

    /// Files of the directory that discovery passes over, and those of its folders.
    fn not_looked_at(&self) -> Vec<PathBuf> {
        let mut paths = Vec::new();
        let mut folders = Vec::new();
        for entry in std::fs::read_dir(&self.directory).into_iter().flatten().flatten() {
            let Ok(kind) = entry.file_type() else { continue };
            if paths.len() + folders.len() >= MAX_SEARCHED {
                break;
            }
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() && !is_candidate(&entry.file_name(), &self.options.extension) {
                paths.push(entry.path());
            }
        }
        for folder in folders {
            let inside = std::fs::read_dir(&folder).into_iter().flatten().flatten();
            let files = inside.filter(|entry| is_candidate(&entry.file_name(), &self.options.extension));
            paths.extend(files.map(|entry| entry.path()).take(MAX_SEARCHED.saturating_sub(paths.len())));
        }
        paths.sort();
        paths
    }

    fn similar(&self, wanted: &Wanted) -> Vec<PluginId> {
        let mut ids: Vec<_> = self.ids().collect();
        ids.sort();
        ids.dedup();
        let name = wanted.name();
        let mut similar: Vec<PluginId> =
            ids.iter().filter(|id| id.name().eq_ignore_ascii_case(name)).map(|id| (*id).clone()).collect();
        let texts: Vec<_> = ids.iter().map(|id| if wanted.has_namespace() { id.as_str() } else { id.name() }).collect();
        if let Some(text) = nearest(wanted.text(), &texts)
            && let Some(at) = texts.iter().position(|other| *other == text)
            && !similar.contains(ids[at])
        {
            similar.push(ids[at].clone());
        }
        similar
    }
}

/// What is looked for.
enum Wanted {
    Pair(PluginId),
    Name(String),
    /// The stem of a file's name.
    Stem(String),
}

impl Wanted {
    fn name(&self) -> &str {
        match self {
            Self::Pair(id) => id.name(),
            Self::Name(name) | Self::Stem(name) => name,
        }
    }

    fn text(&self) -> &str {
        match self {
            Self::Pair(id) => id.as_str(),
            Self::Name(name) | Self::Stem(name) => name,
        }
    }

    fn has_namespace(&self) -> bool {
        matches!(self, Self::Pair(_))
    }

    fn is(&self, found: &Found) -> bool {
        match self {
            Self::Pair(id) => found.pconf.id == *id,
            Self::Name(name) | Self::Stem(name) => found.pconf.id.name() == name,
        }
    }

    /// Whether a file that cannot be used seems to be it: by the name that it says, its own name, or its words.
    fn seems(&self, path: &Path, refusal: &Refusal) -> bool {
        if let Some(id) = &refusal.id {
            return match self {
                Self::Pair(wanted) => id == wanted,
                Self::Name(name) | Self::Stem(name) => id.name() == name,
            };
        }
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().to_lowercase();
        let stem = stem.trim_start_matches('.');
        let name = self.name().to_lowercase();
        let joined = match self {
            Self::Pair(id) => format!("{}{}", id.namespace(), id.name()).to_lowercase(),
            Self::Name(_) | Self::Stem(_) => name.clone(),
        };
        if stem == name || stem == joined {
            return true;
        }
        if matches!(refusal.flaw, Flaw::NotRegular(_) | Flaw::Symlink) {
            return false;
        }
        let text = read_anyway(path).and_then(|(_, bytes)| bytes).unwrap_or_default();
        String::from_utf8_lossy(&text).contains(&format!("\"{}\"", self.name()))
    }
}

fn names<'a>(entry: &'a Entry, id: &PluginId) -> Option<&'a Arc<Found>> {
    entry.read.as_ref().ok().filter(|found| found.pconf.id == *id)
}
