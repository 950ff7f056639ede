//! What changed between what was applied and what was read: values in, values out.
//!
//! The view is a function of the directory, of how long half-written files have stood, and of promotions; never of the
//! order in which things were noticed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use goplug_pconf_schema::PluginId;

use super::{Entry, Found, HALF_WRITTEN, Installed, Refusal, Snapshot, Stamp};

/// One difference. Within one answer the order is: directory, settled, removed, replaced or changed, appeared, invalid,
/// conflict.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Change<F = Found> {
    /// A pair that was not there.
    Appeared { id: PluginId, found: Arc<F>, file: PathBuf },
    /// Another socket or another epoch: another process.
    Replaced { id: PluginId, found: Arc<F>, file: PathBuf },
    /// The same process; other keys, or the name of the file, are new.
    Changed { id: PluginId, found: Arc<F>, file: PathBuf },
    /// The same words were written again: a v0 plugin that was started again looks so, and is worth trying at once.
    Rewritten { id: PluginId },
    /// No file claims the pair any more.
    Removed { id: PluginId },
    /// A file cannot be used; again with each new reason.
    Invalid { file: PathBuf, refusal: Arc<Refusal> },
    /// A file that was reported as invalid or in conflict no longer is, or is gone; what it is now follows.
    Settled { file: PathBuf },
    /// Two files claim one pair.
    Conflict { id: PluginId, winner: PathBuf, loser: PathBuf },
    /// The directory cannot be read; what was known stays.
    DirectoryLost { reason: String },
    /// The directory can be read again.
    DirectoryBack,
}

/// What makes a file speak for a plugin: a `.pconf` for a process, a manifest for what is installed.
pub(crate) trait Claim: PartialEq {
    /// The pair.
    fn id(&self) -> &PluginId;
    /// Whether nothing but what is shown differs between this and `after`, the same file later.
    fn is_same(&self, after: &Self) -> bool;
}

impl Claim for Found {
    fn id(&self) -> &PluginId {
        &self.pconf.id
    }

    /// Other keys only change what is shown.
    fn is_same(&self, after: &Self) -> bool {
        self.socket == after.socket && self.pconf.epoch == after.pconf.epoch
    }
}

impl Claim for Installed {
    fn id(&self) -> &PluginId {
        &self.manifest.id
    }

    fn is_same(&self, after: &Self) -> bool {
        self.folder == after.folder && self.manifest == after.manifest
    }
}

/// What was applied. The default is empty: start-up is a diff from it. Cheap to clone.
#[derive(Debug)]
pub(crate) struct View<F = Found>(Arc<Inner<F>>);

#[derive(Debug)]
struct Inner<F> {
    files: BTreeMap<Arc<Path>, FileView<F>>,
    pairs: BTreeMap<PluginId, Pair>,
    lost: Option<String>,
    next_look: Option<Instant>,
    /// What `files` was made from, to see at once that nothing changed.
    source: Option<Arc<BTreeMap<Arc<Path>, Entry<F>>>>,
}

#[derive(Debug)]
enum FileView<F> {
    Claim { found: Arc<F>, stamp: Stamp },
    Invalid(Arc<Refusal>),
}

// By hand, since what the references lead to need be neither cloned nor made.
impl<F> Clone for View<F> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<F> Default for View<F> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<F> Default for Inner<F> {
    fn default() -> Self {
        Self { files: BTreeMap::new(), pairs: BTreeMap::new(), lost: None, next_look: None, source: None }
    }
}

impl<F> Clone for Inner<F> {
    fn clone(&self) -> Self {
        Self {
            files: self.files.clone(),
            pairs: self.pairs.clone(),
            lost: self.lost.clone(),
            next_look: self.next_look,
            source: self.source.clone(),
        }
    }
}

impl<F> Clone for FileView<F> {
    fn clone(&self) -> Self {
        match self {
            Self::Claim { found, stamp } => Self::Claim { found: Arc::clone(found), stamp: *stamp },
            Self::Invalid(refusal) => Self::Invalid(Arc::clone(refusal)),
        }
    }
}

/// The files of one pair; never empty.
#[derive(Debug, Clone, Default, PartialEq)]
struct Pair {
    /// By name.
    files: Vec<Arc<Path>>,
    /// Which of them is used.
    winner: usize,
    /// Those before the winner that were passed over because nobody answered there: if one is written again, its turn
    /// comes again.
    passed_over: Vec<(Arc<Path>, Stamp)>,
}

/// Compares `snapshot` with `view`; the new view, and what to do to get there.
pub(crate) fn diff(view: &View, snapshot: &Snapshot, now: Instant) -> (View, Vec<Change>) {
    diff_of(view, &snapshot.directory, &snapshot.entries, now)
}

/// The same for the manifests.
pub(crate) fn diff_manifests(
    view: &View<Installed>,
    snapshot: &Snapshot,
    now: Instant,
) -> (View<Installed>, Vec<Change<Installed>>) {
    diff_of(view, &snapshot.directory, &snapshot.manifests, now)
}

fn diff_of<F: Claim>(
    view: &View<F>,
    directory: &Result<(), String>,
    entries: &Arc<BTreeMap<Arc<Path>, Entry<F>>>,
    now: Instant,
) -> (View<F>, Vec<Change<F>>) {
    let old = &*view.0;
    if let Err(reason) = directory {
        let news = old.lost.is_none();
        let lost = Inner { lost: Some(reason.clone()), ..old.clone() };
        return (
            View(Arc::new(lost)),
            news.then(|| Change::DirectoryLost { reason: reason.clone() }).into_iter().collect(),
        );
    }
    let same = old.source.as_ref().is_some_and(|source| Arc::ptr_eq(source, entries));
    if same && old.lost.is_none() && old.next_look.is_none_or(|due| due > now) {
        return (view.clone(), Vec::new());
    }
    let new = read_view(old, entries, now);
    let mut changes = Vec::new();
    if old.lost.is_some() {
        changes.push(Change::DirectoryBack);
    }
    changes.extend(compare(old, &new));
    (View(Arc::new(new)), changes)
}

impl<F: Claim> View<F> {
    /// When to scan again although nothing happens, because a half-written file will have stood long enough.
    pub(crate) fn next_look(&self) -> Option<Instant> {
        self.0.next_look
    }

    /// All files that claim the pair, by name.
    pub(crate) fn claims(&self, id: &PluginId) -> Vec<PathBuf> {
        self.0.pairs.get(id).map(|pair| pair.files.iter().map(|file| file.to_path_buf()).collect()).unwrap_or_default()
    }

    /// The file of the pair that is used, and what it says.
    pub(crate) fn winner(&self, id: &PluginId) -> Option<(&Path, &Arc<F>)> {
        self.0.winner(id).map(|(file, found, _)| (&**file, found))
    }

    /// What `file` says, if it is a claim, whether or not it is used.
    pub(crate) fn found(&self, file: &Path) -> Option<&Arc<F>> {
        self.0.claim(file).map(|(found, _)| found)
    }

    /// Every pair with the file that is used.
    pub(crate) fn plugins(&self) -> impl Iterator<Item = (&PluginId, &Path, &Arc<F>)> {
        self.0.pairs.keys().filter_map(|id| self.winner(id).map(|(file, found)| (id, file, found)))
    }

    /// The files that cannot be used.
    pub(crate) fn invalid(&self) -> impl Iterator<Item = (&Path, &Arc<Refusal>)> {
        self.0.files.iter().filter_map(|(file, view)| match view {
            FileView::Invalid(refusal) => Some((&**file, refusal)),
            FileView::Claim { .. } => None,
        })
    }

    /// The files that claim a pair which another file holds: pair, winner, loser.
    pub(crate) fn conflicts(&self) -> impl Iterator<Item = (&PluginId, &Path, &Path)> {
        self.0.pairs.iter().flat_map(|(id, pair)| {
            let winner = &*pair.files[pair.winner];
            pair.losers().map(move |loser| (id, winner, &**loser))
        })
    }

    /// Why the directory cannot be read.
    #[cfg(test)]
    pub(crate) fn directory_lost(&self) -> Option<&str> {
        self.0.lost.as_deref()
    }

    /// Uses `file` for the pair although it is not the lowest name: nobody answers at those before it, and somebody does
    /// here. Holds until a file before it is written again. No changes if `file` does not claim the pair.
    pub(crate) fn promote(&self, id: &PluginId, file: &Path) -> (Self, Vec<Change<F>>) {
        let mut new = Inner::clone(&self.0);
        let winner = new.pairs.get(id).and_then(|pair| pair.files.iter().position(|candidate| **candidate == *file));
        if let (Some(winner), Some(pair)) = (winner, new.pairs.get_mut(id)) {
            let before = pair.files[..winner].iter();
            pair.passed_over = before.filter_map(|file| Some((Arc::clone(file), self.0.claim(file)?.1))).collect();
            pair.winner = winner;
        }
        let changes = compare(&self.0, &new);
        (View(Arc::new(new)), changes)
    }
}

impl<F> Inner<F> {
    fn claim(&self, file: &Path) -> Option<(&Arc<F>, Stamp)> {
        match self.files.get(file)? {
            FileView::Claim { found, stamp } => Some((found, *stamp)),
            FileView::Invalid(_) => None,
        }
    }

    fn winner(&self, id: &PluginId) -> Option<(&Arc<Path>, &Arc<F>, Stamp)> {
        let pair = self.pairs.get(id)?;
        let file = &pair.files[pair.winner];
        self.claim(file).map(|(found, stamp)| (file, found, stamp))
    }
}

impl Pair {
    fn losers(&self) -> impl Iterator<Item = &Arc<Path>> {
        self.files.iter().enumerate().filter(|(n, _)| *n != self.winner).map(|(_, file)| file)
    }
}

fn read_view<F: Claim>(old: &Inner<F>, entries: &Arc<BTreeMap<Arc<Path>, Entry<F>>>, now: Instant) -> Inner<F> {
    let mut new = Inner { source: Some(Arc::clone(entries)), ..Inner::default() };
    for (file, entry) in &**entries {
        let seen = match &entry.read {
            Ok(found) => Some(FileView::Claim { found: Arc::clone(found), stamp: entry.stamp }),
            Err(refusal) if refusal.may_be_half_written() && now < refusal.since + HALF_WRITTEN => {
                let due = refusal.since + HALF_WRITTEN;
                new.next_look = Some(new.next_look.map_or(due, |earlier| earlier.min(due)));
                // What the file was before holds on.
                old.files.get(file).cloned()
            }
            Err(refusal) => Some(FileView::Invalid(Arc::clone(refusal))),
        };
        let Some(seen) = seen else { continue };
        if let FileView::Claim { found, .. } = &seen {
            // Entries come by path, so `files` is by path too.
            new.pairs.entry(found.id().clone()).or_default().files.push(Arc::clone(file));
        }
        new.files.insert(Arc::clone(file), seen);
    }
    keep_promotions(old, &mut new);
    new
}

fn keep_promotions<F>(old: &Inner<F>, new: &mut Inner<F>) {
    for (id, before) in old.pairs.iter().filter(|(_, pair)| pair.winner > 0) {
        let Some(pair) = new.pairs.get(id) else { continue };
        let Some(winner) = pair.files.iter().position(|file| *file == before.files[before.winner]) else { continue };
        let is_passed_over = |file: &Arc<Path>| {
            let stamp = new.claim(file).map(|(_, stamp)| stamp);
            before.passed_over.iter().any(|(path, old)| path == file && stamp.is_some_and(|new| new.same_content(old)))
        };
        if pair.files[..winner].iter().all(is_passed_over)
            && let Some(pair) = new.pairs.get_mut(id)
        {
            pair.winner = winner;
            pair.passed_over.clone_from(&before.passed_over);
        }
    }
}

fn compare<F: Claim>(old: &Inner<F>, new: &Inner<F>) -> Vec<Change<F>> {
    let mut changes = Vec::new();
    let (old_conflicts, new_conflicts) = (conflicts(old), conflicts(new));
    for (file, trouble) in troubles(old, &old_conflicts) {
        let goes_on = match (trouble, trouble_of(new, &new_conflicts, file)) {
            (Trouble::Invalid(_), Some(Trouble::Invalid(_))) => true,
            (Trouble::Conflict(before), Some(Trouble::Conflict(after))) => before == after,
            _ => false,
        };
        if !goes_on {
            changes.push(Change::Settled { file: file.to_path_buf() });
        }
    }
    let gone = old.pairs.keys().filter(|id| !new.pairs.contains_key(id));
    changes.extend(gone.map(|id| Change::Removed { id: id.clone() }));
    let mut appeared = Vec::new();
    for id in new.pairs.keys() {
        let Some((file, found, stamp)) = new.winner(id) else { continue };
        let (id, found, path) = (id.clone(), Arc::clone(found), file.to_path_buf());
        match old.winner(&id) {
            None => appeared.push(Change::Appeared { id, found, file: path }),
            Some((_, before, _)) if !before.is_same(&found) => {
                changes.push(Change::Replaced { id, found, file: path });
            }
            Some((before_file, before, _)) if before_file != file || *before != found => {
                changes.push(Change::Changed { id, found, file: path });
            }
            Some((_, _, before)) if !stamp.same_content(&before) => changes.push(Change::Rewritten { id }),
            Some(_) => {}
        }
    }
    changes.append(&mut appeared);
    for (file, trouble) in troubles(new, &new_conflicts) {
        match (trouble, trouble_of(old, &old_conflicts, file)) {
            (Trouble::Invalid(now), Some(Trouble::Invalid(before))) if before.says_the_same(now) => {}
            (Trouble::Conflict(now), Some(Trouble::Conflict(before))) if before == now => {}
            (Trouble::Invalid(refusal), _) => {
                changes.push(Change::Invalid { file: file.to_path_buf(), refusal: Arc::clone(refusal) });
            }
            (Trouble::Conflict((id, winner)), _) => {
                let (winner, loser) = (winner.to_path_buf(), file.to_path_buf());
                changes.push(Change::Conflict { id: id.clone(), winner, loser });
            }
        }
    }
    changes
}

/// From the loser to its pair and the winner.
type Conflicts<'a> = BTreeMap<&'a Path, (&'a PluginId, &'a Path)>;

#[derive(Clone, Copy)]
enum Trouble<'a> {
    Invalid(&'a Arc<Refusal>),
    Conflict((&'a PluginId, &'a Path)),
}

fn conflicts<F>(view: &Inner<F>) -> Conflicts<'_> {
    let pairs = view.pairs.iter().filter(|(_, pair)| pair.files.len() > 1);
    pairs
        .flat_map(|(id, pair)| {
            let winner = &*pair.files[pair.winner];
            pair.losers().map(move |loser| (&**loser, (id, winner)))
        })
        .collect()
}

/// Every file in trouble: the invalid ones by name, then those in conflict by name.
fn troubles<'a, F>(view: &'a Inner<F>, conflicts: &'a Conflicts<'a>) -> impl Iterator<Item = (&'a Path, Trouble<'a>)> {
    let invalid = view.files.iter().filter_map(|(file, seen)| match seen {
        FileView::Invalid(refusal) => Some((&**file, Trouble::Invalid(refusal))),
        FileView::Claim { .. } => None,
    });
    invalid.chain(conflicts.iter().map(|(file, conflict)| (*file, Trouble::Conflict(*conflict))))
}

fn trouble_of<'a, F>(view: &'a Inner<F>, conflicts: &'a Conflicts<'a>, file: &Path) -> Option<Trouble<'a>> {
    match view.files.get(file)? {
        FileView::Invalid(refusal) => Some(Trouble::Invalid(refusal)),
        FileView::Claim { .. } => conflicts.get(file).map(|conflict| Trouble::Conflict(*conflict)),
    }
}

#[cfg(test)]
mod tests;
