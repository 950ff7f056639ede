//! The system calls of a verb, one by one: where it can be cut short.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::Stage;

/// A system call, as strace can be told to meet it: a thread makes this call for the nth time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Moment {
    pub(crate) call: String,
    pub(crate) nth: usize,
    /// Its line in the log of the rehearsal.
    pub(crate) text: String,
    /// Before it nothing of the plugin directory's own folder has been touched: the program is being loaded.
    pub(crate) is_early: bool,
}

impl Moment {
    /// It changes something on disk, or makes sure of it.
    pub(crate) fn changes(&self) -> bool {
        let changes = [
            "mkdir",
            "mkdirat",
            "write",
            "copy_file_range",
            "sendfile",
            "fchmod",
            "fsync",
            "fdatasync",
            "rename",
            "renameat",
            "renameat2",
            "symlinkat",
            "unlinkat",
            "ftruncate",
        ];
        changes.contains(&self.call.as_str()) || self.call == "openat" && self.text.contains("O_CREAT")
    }

    /// It gives something a name, or takes one away.
    pub(crate) fn names(&self) -> bool {
        let names = ["mkdir", "mkdirat", "rename", "renameat", "renameat2", "symlinkat", "unlinkat"];
        names.contains(&self.call.as_str())
    }
}

impl Stage {
    /// Every system call that the verb makes, in the order of a rehearsal, and how many of them cannot be told from an earlier
    /// one: of two threads that make a call for the nth time the first is met.
    pub(crate) fn moments(&self) -> (Vec<Moment>, usize) {
        let dir = self.fresh();
        let log = dir.path().with_extension("strace");
        let run = self.traced(dir.path(), &["-y", "-o", log.to_str().unwrap()]);
        assert!(run.status.success(), "{run:?}");
        let text = std::fs::read(&log).unwrap();
        std::fs::remove_file(&log).unwrap();
        // The folder has another name in the next run.
        let text = String::from_utf8_lossy(&text).replace(dir.text(), "DIR");
        let (mut counts, mut met) = (HashMap::new(), HashSet::new());
        let (mut moments, mut hidden, mut is_early) = (Vec::new(), 0, true);
        for line in text.lines() {
            let Some((pid, rest)) = line.split_once(' ') else { continue };
            let Some((call, _)) = rest.trim_start().split_once('(') else { continue };
            if !call.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_') {
                continue;
            }
            is_early &= !rest.contains(".goplug");
            let count = counts.entry((pid.to_owned(), call.to_owned())).or_insert(0);
            *count += 1;
            // It returns as another program, or not at all.
            if matches!(call, "execve" | "exit_group") {
                continue;
            }
            if met.insert((call.to_owned(), *count)) {
                moments.push(Moment { call: call.to_owned(), nth: *count, text: rest.trim().to_owned(), is_early });
            } else if !is_early {
                hidden += 1;
            }
        }
        (moments, hidden)
    }
}

/// Does `work` for all of them, several at once: most of it waits for the disk.
pub(crate) fn for_each<T: Sync>(all: &[T], work: impl Fn(&T) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while let Some(one) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                    work(one);
                }
            });
        }
    });
}
