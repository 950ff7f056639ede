//! The tokio runtimes that applications have.

use anyhow::{Context, Result};

/// The runtime of the host, and of its plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Runtime {
    CurrentThread,
    /// As `#[tokio::main(worker_threads = 2)]`, callers in spawned tasks.
    MultiThread,
}

impl Runtime {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::CurrentThread => "current-thread",
            Self::MultiThread => "multi-thread",
        }
    }

    pub(crate) fn build(self) -> Result<tokio::runtime::Runtime> {
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
