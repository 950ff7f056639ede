//! What a process holds, before and after: descriptors, threads, children, memory.

use std::time::{Duration, Instant};

/// What must be back when everything is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Baseline {
    /// What they are, for the one who looks for the leak.
    links: Vec<std::path::PathBuf>,
    descriptors: usize,
    threads: usize,
    children: usize,
    /// Mappings of memory that is shared with a plugin.
    shared: usize,
}

impl Baseline {
    /// How long what was used may take to be given back: 2 s in a deep run, else a guard at 20 times that.
    fn settle() -> Duration {
        Duration::from_secs(2) * if crate::deep() { 1 } else { 20 }
    }

    /// What this process holds now.
    pub fn now() -> Self {
        let links = links("/proc/self/fd");
        Self {
            descriptors: links.len(),
            threads: entries("/proc/self/task"),
            children: children(),
            shared: shared(),
            links,
        }
    }

    /// The same, with some descriptors more.
    #[must_use]
    pub fn with_descriptors(self, extra: usize) -> Self {
        Self { descriptors: self.descriptors + extra, ..self }
    }

    /// The same, with some mappings more of memory that is shared with a plugin.
    #[must_use]
    pub fn with_shared(self, extra: usize) -> Self {
        Self { shared: self.shared + extra, ..self }
    }

    /// Waits until this process holds no more than it did then.
    ///
    /// # Panics
    /// When it still does after 2 s, or 40 s in a run that is not deep.
    #[track_caller]
    pub fn is_back(&self) {
        let begin = Instant::now();
        loop {
            let now = Self::now();
            let is_back = now.descriptors <= self.descriptors && now.threads <= self.threads;
            if is_back && now.children <= self.children && now.shared <= self.shared {
                return crate::figure("given_back_after", format_args!("{:.2?}", begin.elapsed()), "2s");
            }
            assert!(begin.elapsed() < Self::settle(), "{now:#?}\ninstead of\n{self:#?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Tasks of this runtime that have not ended.
///
/// # Panics
/// Outside of a runtime.
pub fn live_tasks() -> usize {
    tokio::runtime::Handle::current().metrics().num_alive_tasks()
}

/// Waits until no more than `before` tasks of this runtime live.
///
/// # Panics
/// When more do after 2 s, or 40 s in a run that is not deep.
pub async fn tasks_are_back(before: usize) {
    let begin = Instant::now();
    while live_tasks() > before {
        assert!(begin.elapsed() < Baseline::settle(), "{} tasks live instead of {before}", live_tasks());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    crate::figure("tasks_ended_after", format_args!("{:.2?}", begin.elapsed()), "2s");
}

fn entries(folder: &str) -> usize {
    std::fs::read_dir(folder).map_or(0, Iterator::count)
}

fn links(folder: &str) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| std::fs::read_link(entry.path()).ok()).collect()
}

fn shared() -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    maps.lines().filter(|line| line.contains("memfd:goplug-")).count()
}

/// Children of every thread, dead ones that nobody reaped included.
fn children() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    lists.map(|list| list.split_whitespace().count()).sum()
}

/// Forgets the highest memory use so far and returns the present one in bytes.
pub fn peak_memory_reset() -> u64 {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    status_bytes(std::process::id(), "VmRSS:")
}

/// How far memory went above `before` since [`peak_memory_reset`], in bytes.
pub fn peak_memory_since(before: u64) -> u64 {
    status_bytes(std::process::id(), "VmHWM:").saturating_sub(before)
}

pub(crate) fn status_bytes(pid: u32, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
}
