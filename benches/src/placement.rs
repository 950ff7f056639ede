//! Where the two processes run.

use anyhow::{Context, Result};
use clap::ValueEnum;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde::{Deserialize, Serialize};

/// Where host and plugin run. On few cores this matters more than the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Placement {
    /// Both on the first cpu: the length of the path through the software, and very repeatable.
    OneCore,
    /// Host on the first, plugin on the second: each wait may halt a cpu and each message wake one.
    TwoCores,
    /// Wherever the kernel puts them, which may change from run to run.
    Unpinned,
}

impl Placement {
    /// As it is written in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::OneCore => "one core",
            Self::TwoCores => "two cores",
            Self::Unpinned => "unpinned",
        }
    }

    /// The cpus of host and plugin, of those that are `allowed`; `None` inside means any. `None` when there are too few.
    pub fn cpus(self, allowed: &[usize]) -> Option<(Option<usize>, Option<usize>)> {
        match self {
            Self::OneCore => allowed.first().map(|cpu| (Some(*cpu), Some(*cpu))),
            Self::TwoCores => Some((Some(*allowed.first()?), Some(*allowed.get(1)?))),
            Self::Unpinned => Some((None, None)),
        }
    }
}

/// The cpus that this thread may run on.
///
/// # Errors
/// When the kernel does not tell.
pub fn allowed() -> Result<Vec<usize>> {
    let set = sched_getaffinity(None).context("cannot read the cpus that we may use")?;
    Ok((0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect())
}

/// Lets this thread, and what it starts, run on these cpus only.
///
/// # Errors
/// When they are not allowed.
pub fn pin(cpus: &[usize]) -> Result<()> {
    let mut set = CpuSet::new();
    cpus.iter().for_each(|cpu| set.set(*cpu));
    sched_setaffinity(None, &set).with_context(|| format!("cannot run on cpus {cpus:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_cpu_is_too_few_for_two_cores_only() {
        assert_eq!(Placement::OneCore.cpus(&[3]), Some((Some(3), Some(3))));
        assert_eq!(Placement::TwoCores.cpus(&[3]), None);
        assert_eq!(Placement::TwoCores.cpus(&[3, 5, 6]), Some((Some(3), Some(5))));
        assert_eq!(Placement::Unpinned.cpus(&[3]), Some((None, None)));
    }
}
