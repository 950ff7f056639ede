//! The tokio runtimes that applications have.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// The runtime of the host, and of its plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Runtime {
    /// As `#[tokio::main(flavor = "current_thread")]`.
    CurrentThread,
    /// As `#[tokio::main(worker_threads = 2)]`, callers in spawned tasks.
    MultiThread,
}

impl Runtime {
    /// As it is written in names of subjects.
    pub fn name(self) -> &'static str {
        match self {
            Self::CurrentThread => "current-thread",
            Self::MultiThread => "multi-thread",
        }
    }

    /// A runtime of this kind.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn build(self) -> Result<tokio::runtime::Runtime> {
        let mut builder = match self {
            Self::CurrentThread => tokio::runtime::Builder::new_current_thread(),
            Self::MultiThread => tokio::runtime::Builder::new_multi_thread(),
        };
        if self == Self::MultiThread {
            builder.worker_threads(2);
        }
        builder.enable_all().build().context("no runtime")
    }
}
