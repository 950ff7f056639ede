//! What is started before what: the order that `requires` asks for, and what stands against it. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use goplug_pconf_schema::PluginId;
use goplug_pconf_schema::manifest::Requirement;
use semver::Version;

/// A plugin, as far as the order goes.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    /// Its version; `None` for one that started itself and tells none.
    pub(crate) version: Option<Version>,
    pub(crate) requires: Vec<Requirement>,
}

/// Why a plugin cannot be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Obstacle {
    /// A plugin that it requires is not there.
    Missing(Requirement),
    /// It is there in another version.
    OutOfRange(Requirement, Option<Version>),
    /// It requires itself, by way of these, the first again at the end.
    Cycle(Vec<PluginId>),
    /// One that it requires cannot be started.
    Behind(PluginId),
}

/// What can be started, and what cannot.
#[cfg(test)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Order {
    /// Each behind everything that it requires; among equals by name.
    pub(crate) start: Vec<PluginId>,
    pub(crate) obstacles: BTreeMap<PluginId, Obstacle>,
}

/// Orders `members`, all plugins that there are.
#[cfg(test)]
fn order(members: &BTreeMap<PluginId, Member>) -> Order {
    let mut search = Search::new(members);
    for id in members.keys() {
        search.visit(id);
    }
    Order { start: search.start, obstacles: search.obstacles }
}

/// `id` and everything that must run before it, in the order of [`order`].
pub(crate) fn needed_by(id: &PluginId, members: &BTreeMap<PluginId, Member>) -> Result<Vec<PluginId>, Obstacle> {
    let mut search = Search::new(members);
    search.visit(id);
    search.obstacles.remove(id).map_or(Ok(search.start), Err)
}

struct Search<'a> {
    members: &'a BTreeMap<PluginId, Member>,
    /// Whether a plugin that was looked at can be started.
    marks: BTreeMap<PluginId, bool>,
    /// From where the search began to where it is.
    path: Vec<PluginId>,
    /// The same, to be asked quickly.
    on_path: BTreeSet<PluginId>,
    start: Vec<PluginId>,
    obstacles: BTreeMap<PluginId, Obstacle>,
}

/// A plugin that is looked at.
struct Frame {
    id: PluginId,
    /// Which of its requirements comes next.
    next: usize,
    /// It is on the path.
    entered: bool,
}

impl Frame {
    fn new(id: &PluginId) -> Self {
        Self { id: id.clone(), next: 0, entered: false }
    }
}

impl<'a> Search<'a> {
    fn new(members: &'a BTreeMap<PluginId, Member>) -> Self {
        Self {
            members,
            marks: BTreeMap::new(),
            path: Vec::new(),
            on_path: BTreeSet::new(),
            start: Vec::new(),
            obstacles: BTreeMap::new(),
        }
    }

    /// Finds out whether `id` can be started. Depth first, with the path in hand: a plugin that is met again on it closes a cycle. As deep
    /// as the longest chain, of which `frames` keeps the place instead of the stack.
    fn visit(&mut self, id: &PluginId) {
        let mut frames = vec![Frame::new(id)];
        while let Some(Frame { id, next, entered }) = frames.pop() {
            if !entered {
                if self.marks.contains_key(&id) {
                    continue;
                }
                self.path.push(id.clone());
                self.on_path.insert(id.clone());
            }
            let Some(member) = self.members.get(&id) else {
                self.path.pop();
                self.on_path.remove(&id);
                continue;
            };
            let obstacle = member.requires.get(next).and_then(|wanted| self.obstacle(wanted));
            match (obstacle, member.requires.get(next)) {
                (Some(obstacle), _) => {
                    self.obstacles.insert(id.clone(), obstacle);
                    self.leave(id, false);
                }
                (None, None) => self.leave(id, true),
                (None, Some(wanted)) if self.marks.get(&wanted.plugin) == Some(&true) => {
                    frames.push(Frame { id, next: next + 1, entered: true });
                }
                (None, Some(wanted)) => {
                    let inner = Frame::new(&wanted.plugin);
                    // Looked at again when the inner one is done, and then it is marked.
                    frames.push(Frame { id, next, entered: true });
                    frames.push(inner);
                }
            }
        }
    }

    fn leave(&mut self, id: PluginId, startable: bool) {
        self.path.pop();
        self.on_path.remove(&id);
        if startable {
            self.start.push(id.clone());
        }
        self.marks.insert(id, startable);
    }

    /// What stands against a requirement, as far as is known by now.
    fn obstacle(&self, wanted: &Requirement) -> Option<Obstacle> {
        let Some(member) = self.members.get(&wanted.plugin) else { return Some(Obstacle::Missing(wanted.clone())) };
        if !fits(wanted, member.version.as_ref()) {
            return Some(Obstacle::OutOfRange(wanted.clone(), member.version.clone()));
        }
        let at = || self.path.iter().position(|id| *id == wanted.plugin);
        if let Some(at) = Some(&wanted.plugin).filter(|id| self.on_path.contains(id)).and_then(|_| at()) {
            return Some(Obstacle::Cycle(self.path[at..].iter().chain([&wanted.plugin]).cloned().collect()));
        }
        (self.marks.get(&wanted.plugin) == Some(&false)).then(|| self.behind(&wanted.plugin))
    }

    /// What stands against a plugin that requires `id`, which cannot be started: the same circle if it is on it.
    fn behind(&self, id: &PluginId) -> Obstacle {
        let (Some(Obstacle::Cycle(members)), Some(current)) = (self.obstacles.get(id), self.path.last()) else {
            return Obstacle::Behind(id.clone());
        };
        match members.iter().position(|member| member == current) {
            Some(at) => {
                // The last is the first again.
                let circle = members[at..members.len() - 1].iter().chain(&members[..at]);
                Obstacle::Cycle(circle.chain([current]).cloned().collect())
            }
            None => Obstacle::Behind(id.clone()),
        }
    }
}

/// Any version will do for `*`, and none, too.
fn fits(wanted: &Requirement, version: Option<&Version>) -> bool {
    wanted.range.comparators.is_empty() || version.is_some_and(|version| wanted.range.matches(version))
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(wanted) => write!(f, "it requires `{}@{}`, which is not there", wanted.plugin, wanted.range),
            Self::OutOfRange(wanted, Some(version)) => {
                write!(f, "it requires `{}@{}`, which is there in version {version}", wanted.plugin, wanted.range)
            }
            Self::OutOfRange(wanted, None) => {
                write!(f, "it requires `{}@{}`, which tells no version", wanted.plugin, wanted.range)
            }
            Self::Cycle(members) => {
                let names: Vec<_> = members.iter().map(PluginId::as_str).collect();
                write!(f, "plugins require each other in a circle: {}", names.join(" -> "))
            }
            Self::Behind(id) => write!(f, "it requires `{id}`, which cannot be started"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(lines: &[&str]) -> BTreeMap<PluginId, Member> {
        let id = |name: &str| PluginId::new("", name).unwrap();
        let member = |line: &&str| {
            let mut words = line.split(' ');
            let (name, version) = words.next().unwrap().split_once('=').unwrap();
            let requires = words.map(|word| {
                let (name, range) = word.split_once('@').unwrap();
                Requirement { plugin: id(name), range: range.parse().unwrap() }
            });
            (id(name), Member { version: version.parse().ok(), requires: requires.collect() })
        };
        lines.iter().map(member).collect()
    }

    fn shown(lines: &[&str]) -> (String, Vec<String>) {
        let order = order(&members(lines));
        let start = order.start.iter().map(PluginId::name).collect::<Vec<_>>().join(" ");
        (start, order.obstacles.iter().map(|(id, obstacle)| format!("{}: {obstacle}", id.name())).collect())
    }

    #[test]
    fn what_is_required_comes_first_and_what_stands_against_it_is_named() {
        for (lines, start, obstacles) in [
            (vec!["b=1.0.0", "a=1.0.0"], "a b", vec![]),
            (vec!["a=1.0.0 b@^1", "b=1.2.0 c@*", "c=- "], "c b a", vec![]),
            (vec!["a=1.0.0 c@^1 b@^1", "b=1.0.0 d@^1", "c=1.0.0 d@^1", "d=1.0.0"], "d c b a", vec![]),
            (
                vec!["a=1.0.0 b@^1", "c=1.0.0 a@^1", "d=1.0.0"],
                "d",
                vec!["a: it requires `-/b@^1`, which is not there", "c: it requires `-/a`, which cannot be started"],
            ),
            (vec!["a=1.0.0 b@^2", "b=1.9.0"], "b", vec!["a: it requires `-/b@^2`, which is there in version 1.9.0"]),
            (vec!["a=1.0.0 b@^2", "b=?"], "b", vec!["a: it requires `-/b@^2`, which tells no version"]),
            (vec!["a=1.0.0 a@*"], "", vec!["a: plugins require each other in a circle: -/a -> -/a"]),
            (
                vec!["a=1.0.0 b@*", "b=1.0.0 c@*", "c=1.0.0 b@*", "d=1.0.0"],
                "d",
                vec![
                    "a: it requires `-/b`, which cannot be started",
                    "b: plugins require each other in a circle: -/b -> -/c -> -/b",
                    "c: plugins require each other in a circle: -/b -> -/c -> -/b",
                ],
            ),
        ] {
            let lines: Vec<_> = lines.iter().map(|line| line.trim()).collect();
            assert_eq!(
                shown(&lines),
                (start.to_owned(), obstacles.into_iter().map(str::to_owned).collect()),
                "{lines:?}"
            );
        }
    }

    #[test]
    fn one_plugin_needs_only_its_own() {
        let all = members(&["a=1.0.0 b@*", "b=1.0.0", "c=1.0.0 a@*", "d=1.0.0 none@*"]);
        let id = |name: &str| PluginId::new("", name).unwrap();
        assert_eq!(needed_by(&id("a"), &all).unwrap(), [id("b"), id("a")]);
        assert!(matches!(needed_by(&id("d"), &all), Err(Obstacle::Missing(_))));
    }

    /// Long chains and dense tangles end, and every plugin is either behind all that it requires or has an obstacle.
    #[test]
    fn random_graphs_are_ordered_or_explained() {
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut random = move |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % below
        };
        for round in 0..200 {
            let count = 1 + random(30);
            let id = |n: u64| PluginId::new("", &format!("p{n}")).unwrap();
            let all: BTreeMap<_, _> = (0..count)
                .map(|n| {
                    let wanted = (0..random(4)).map(|_| {
                        // A few are not there.
                        Requirement { plugin: id(random(count + 1)), range: semver::VersionReq::STAR }
                    });
                    (id(n), Member { version: None, requires: wanted.collect() })
                })
                .collect();
            let found = order(&all);
            assert_eq!(found.start.len() + found.obstacles.len(), all.len(), "round {round}");
            for (at, id) in found.start.iter().enumerate() {
                assert!(
                    all[id].requires.iter().all(|wanted| found.start[..at].contains(&wanted.plugin)),
                    "round {round}"
                );
            }
            for obstacle in found.obstacles.values() {
                match obstacle {
                    Obstacle::Cycle(path) => assert!(
                        path.first() == path.last()
                            && path
                                .windows(2)
                                .all(|two| all[&two[0]].requires.iter().any(|wanted| wanted.plugin == two[1])),
                        "{obstacle}"
                    ),
                    Obstacle::Missing(wanted) => assert!(!all.contains_key(&wanted.plugin)),
                    Obstacle::Behind(id) => assert!(found.obstacles.contains_key(id)),
                    Obstacle::OutOfRange(..) => panic!("any version will do"),
                }
            }
        }
        let chain: BTreeMap<_, _> = (0..16_384)
            .map(|n| {
                let next = PluginId::new("", &format!("p{:05}", n + 1)).unwrap();
                let requires = if n < 16_383 {
                    vec![Requirement { plugin: next, range: semver::VersionReq::STAR }]
                } else {
                    Vec::new()
                };
                (PluginId::new("", &format!("p{n:05}")).unwrap(), Member { version: None, requires })
            })
            .collect();
        assert_eq!(needed_by(chain.keys().next().unwrap(), &chain).unwrap().len(), 16_384);
    }
}
