//! Everything that a plugin started: found in `/proc`, killed through pidfds.
//!
//! A process whose parent ends becomes a child of its host (`PR_SET_CHILD_SUBREAPER`), so that everything that a plugin
//! ever started is below the host for as long as it lives, however often it forks and detaches.

use std::collections::{HashMap, HashSet};
use std::os::fd::OwnedFd;

use rustix::process::{Pid, PidfdFlags, Signal, getpid, pidfd_open, pidfd_send_signal};

/// Passes of one sweep: each finds what was started while the one before was at work.
const PASSES: u32 = 100;

/// What `/proc/PID/stat` says of a process, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    parent: u32,
    /// Since the boot, in ticks: with the number, what tells a process from a later one.
    started: u64,
    is_dead: bool,
}

/// Sends SIGKILL to every process below this one, until no new one is found or [`PASSES`] were made.
pub(crate) fn kill_all() {
    let own = getpid().as_raw_nonzero().get().unsigned_abs();
    let mut struck = HashSet::new();
    for _ in 0..PASSES {
        let all = snapshot();
        let below = descendants(&all, own);
        let mut is_new = false;
        for pid in &below {
            let Some(entry) = all.get(pid).filter(|entry| !entry.is_dead) else { continue };
            if let Some(pidfd) = pinned(*pid, entry, &below, own)
                && pidfd_send_signal(&pidfd, Signal::KILL).is_ok()
            {
                is_new |= struck.insert((*pid, entry.started));
            }
        }
        // Who was struck before is on its way out, and can start nothing any more.
        if !is_new {
            return;
        }
    }
}

/// The process, if it is still the one that was found: between the look and the descriptor its number may have passed to
/// a process of somebody else.
fn pinned(pid: u32, found: &Entry, below: &HashSet<u32>, own: u32) -> Option<OwnedFd> {
    let number = Pid::from_raw(i32::try_from(pid).ok()?)?;
    let pidfd = pidfd_open(number, PidfdFlags::empty()).ok()?;
    // Read after it was pinned. If the one that is pinned has ended meanwhile, this may speak of another one, and the
    // signal then reaches nobody.
    let now = entry(pid)?;
    let is_ours = now.parent == own || below.contains(&now.parent);
    (now.started == found.started && is_ours).then_some(pidfd)
}

/// Every process that there is.
fn snapshot() -> HashMap<u32, Entry> {
    let folder = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = folder.filter_map(|process| process.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| Some((pid, entry(pid)?))).collect()
}

fn entry(pid: u32) -> Option<Entry> {
    parse(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// `PID (NAME) STATE PPID … STARTTIME …`; the name may hold anything, so that the last `)` counts.
fn parse(stat: &str) -> Option<Entry> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    let started = fields.nth(17)?.parse().ok()?;
    Some(Entry { parent, started, is_dead: matches!(state, "Z" | "X" | "x") })
}

/// The processes below `root`.
fn descendants(all: &HashMap<u32, Entry>, root: u32) -> HashSet<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for (pid, entry) in all {
        children.entry(entry.parent).or_default().push(*pid);
    }
    let (mut below, mut open) = (HashSet::new(), vec![root]);
    while let Some(parent) = open.pop() {
        for &child in children.get(&parent).into_iter().flatten() {
            // A snapshot is not one moment: numbers may form a ring.
            if child != root && below.insert(child) {
                open.push(child);
            }
        }
    }
    below
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_anything() {
        let rest = "S 41 1 1 0 -1 4194560 100 0 0 0 1 2 3 4 20 0 1 0 98765 1000 200";
        for name in ["x", "a b", "a) S 1 (b", ")"] {
            let entry = parse(&format!("42 ({name}) {rest}")).unwrap();
            assert_eq!((entry.parent, entry.started, entry.is_dead), (41, 98765, false), "{name}");
        }
        assert!(parse(&format!("42 (x) {}", rest.replace('S', "Z"))).unwrap().is_dead);
        for broken in ["", "42", "42 (x", "42 (x) S", "42 (x) S y", "42 (x) S 41 1 1"] {
            assert_eq!(parse(broken), None, "{broken}");
        }
    }

    #[test]
    fn the_tree_is_everything_below_and_nothing_else() {
        let entry = |parent| Entry { parent, started: 0, is_dead: false };
        let all = [(1, 0), (10, 1), (11, 10), (12, 11), (13, 10), (20, 1), (21, 20), (30, 31), (31, 30)];
        let all = all.map(|(pid, parent)| (pid, entry(parent))).into_iter().collect();
        let sorted = |root| {
            let mut below: Vec<_> = descendants(&all, root).into_iter().collect();
            below.sort_unstable();
            below
        };
        assert_eq!(sorted(10), [11, 12, 13]);
        assert_eq!(sorted(30), [31]);
        assert_eq!(sorted(99), [0; 0]);
        assert!(snapshot().contains_key(&std::process::id()));
    }
}
