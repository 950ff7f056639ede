//! Random file operations: whatever happened between two looks, scan and diff end at what is there.

use super::scan::tests::let_the_clock_tick;
use super::*;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

const OPERATIONS: u32 = 2_000;

/// A small generator (xorshift), so that a seed gives the same run for ever.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// What a registry would hold after carrying out the changes: pair to file and socket, the invalid files, the losers.
#[derive(Debug, Default, PartialEq)]
struct Model {
    plugins: BTreeMap<String, (String, String)>,
    invalid: BTreeSet<String>,
    losers: BTreeSet<String>,
}

impl Model {
    fn apply(&mut self, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::Appeared { id, found, file } => {
                    let old = self.plugins.insert(id.to_string(), (name(&file), name(&found.socket)));
                    assert_eq!(old, None, "{id} appeared twice");
                }
                Change::Replaced { id, found, file } | Change::Changed { id, found, file } => {
                    let old = self.plugins.insert(id.to_string(), (name(&file), name(&found.socket)));
                    assert!(old.is_some(), "{id} changed without having appeared");
                }
                Change::Rewritten { id } => assert!(self.plugins.contains_key(id.as_str()), "{id} is not there"),
                Change::Removed { id } => assert!(self.plugins.remove(id.as_str()).is_some(), "{id} was not there"),
                Change::Invalid { file, .. } => {
                    assert!(!self.losers.contains(&name(&file)), "in conflict before: must be settled first");
                    self.invalid.insert(name(&file));
                }
                Change::Conflict { loser, .. } => {
                    assert!(!self.invalid.contains(&name(&loser)), "invalid before: must be settled first");
                    self.losers.insert(name(&loser));
                }
                Change::Settled { file } => {
                    let was = (self.invalid.remove(&name(&file)), self.losers.remove(&name(&file)));
                    assert_ne!(was, (false, false), "settled what was no trouble");
                }
                Change::DirectoryLost { .. } | Change::DirectoryBack => {}
            }
        }
    }

    /// What is there, read afresh and without the code under test; `None` if there is no directory.
    fn oracle(directory: &Path) -> Option<Self> {
        let mut model = Self::default();
        let listed = fs::read_dir(directory).ok()?.map(|entry| name(&entry.unwrap().path())).collect::<BTreeSet<_>>();
        for file in listed.iter().filter(|file| file.ends_with(".pconf") && !file.starts_with('.')) {
            let path = directory.join(file);
            let status = fs::symlink_metadata(&path).unwrap();
            let usable = status.is_file() && status.nlink() == 1 && status.mode() & 0o002 == 0;
            match usable.then(|| Pconf::parse(&fs::read(&path).unwrap()).ok()).flatten() {
                None => _ = model.invalid.insert(file.clone()),
                Some(pconf) if model.plugins.contains_key(pconf.id.as_str()) => _ = model.losers.insert(file.clone()),
                Some(pconf) => _ = model.plugins.insert(pconf.id.to_string(), (file.clone(), pconf.sock)),
            }
        }
        Some(model)
    }
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

/// One operation; that it may fail, because what it needs is not there, is part of the game.
fn operate(random: &mut Random, directory: &Path) {
    let any_path = |random: &mut Random| {
        let names = ["a.pconf", "b.pconf", "c.pconf", "d.pconf", "e.conf", ".f.pconf", "sub/g.pconf", "sub"];
        directory.join(names[random.below(names.len() as u64) as usize])
    };
    let (path, other) = (any_path(random), any_path(random));
    let text = format!(
        r#"{{"Name":"p{}","Sock":"{}.sock","Epoch":"{:032x}","Description":"{}"}}"#,
        random.below(4),
        random.below(3),
        random.below(2),
        random.below(3)
    );
    match random.below(24) {
        0..6 => _ = fs::write(&path, &text),
        6..9 => _ = fs::write(&path, &text[..random.below(text.len() as u64) as usize]),
        9..11 => {
            let temporary = directory.join(".temporary");
            _ = fs::write(&temporary, &text).and_then(|()| fs::rename(&temporary, &path));
        }
        11..14 => _ = fs::rename(&path, &other),
        14..16 => _ = fs::remove_file(&path),
        16 => _ = fs::hard_link(&path, &other),
        17 => _ = symlink(&other, &path),
        18..20 => {
            let mode = [0o644, 0o600, 0o664, 0o666][random.below(4) as usize];
            _ = fs::set_permissions(&path, fs::Permissions::from_mode(mode));
        }
        20 => _ = fs::create_dir(&path),
        21 => _ = fs::remove_dir(&path),
        22 if random.below(10) == 0 => _ = fs::remove_dir_all(directory),
        _ => _ = fs::create_dir(directory),
    }
}

fn run(seed: u64) {
    println!("seed {seed}");
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("plugins");
    fs::create_dir(&directory).unwrap();
    let extension = ".pconf".to_owned();
    let options = ScanOptions { directory: directory.clone(), extension, socket_dirs: Vec::new(), max_plugins: 100 };
    let (mut random, mut model, mut view, mut last) = (Random(seed), Model::default(), View::default(), None);
    let mut look = |model: &mut Model, later: Duration| {
        let snapshot = scan(&options, last.as_ref());
        let (next, changes) = diff(&view, &snapshot, Instant::now() + later);
        (view, last) = (next, Some(snapshot));
        model.apply(changes);
        view.clone()
    };
    for n in 1..=OPERATIONS {
        operate(&mut random, &directory);
        if random.below(3) == 0 {
            look(&mut model, Duration::ZERO);
        }
        if n % 50 == 0 {
            let_the_clock_tick();
            let before = Model { plugins: model.plugins.clone(), ..Model::default() };
            let view = look(&mut model, 2 * HALF_WRITTEN);
            match Model::oracle(&directory) {
                Some(oracle) => assert_eq!(model, oracle, "seed {seed}, after {n} operations"),
                None => assert_eq!(model.plugins, before.plugins, "seed {seed}: a lost directory keeps its plugins"),
            }
            let shown: Vec<_> = view.plugins().map(|(id, file, _)| (id.to_string(), name(file))).collect();
            let held: Vec<_> = model.plugins.iter().map(|(id, (file, _))| (id.clone(), file.clone())).collect();
            assert_eq!(shown, held);
        }
    }
}

#[test]
fn random_operations_end_at_what_is_there() {
    match std::env::var("GOPLUG_TEST_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => run(seed),
        None => [0x5eed_0001, 0x5eed_0002].into_iter().for_each(run),
    }
}
