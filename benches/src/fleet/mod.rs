//! Many plugins at once: their processes, and a registry that holds them all.

pub(crate) mod rates;
pub(crate) mod scale;

use anyhow::{Context, Result};
use bytes::Bytes;
use goplug_benches::{Caller, Exchange, FleetJob, PluginProcess, Runtime, placement, serve_control};
use goplug_plugin_impl::Plugin;
use goplug_registry::{Latency, Registry};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tempfile::TempDir;

/// Where 10,000 sockets and files are made without waiting for a disk.
const MEMORY: &str = "/dev/shm";

/// The name of plugin `number`.
fn name(number: usize) -> String {
    format!("P{number:05}")
}

fn latency(frugal: bool) -> Latency {
    if frugal { Latency::Frugal } else { Latency::Balanced }
}

/// A plugin directory of this measurement's own.
fn folder() -> Result<TempDir> {
    tempfile::tempdir_in(MEMORY).or_else(|_| tempfile::tempdir()).context("no folder for the plugins")
}

/// Starts `processes` that serve `plugins` between them.
fn start(plugins: usize, processes: usize, like: &FleetJob) -> Result<PluginProcess> {
    let dir = folder()?;
    let first = |process: usize| plugins * process / processes;
    let jobs: Vec<_> = (0..processes)
        .map(|process| FleetJob {
            dir: dir.path().to_owned(),
            first: first(process),
            count: first(process + 1) - first(process),
            ..like.clone()
        })
        .collect();
    let mut fleet = PluginProcess::none_yet(dir);
    fleet.add("fleet", &jobs)?;
    Ok(fleet)
}

/// What a process of the fleet does: serves its plugins until its host ends.
pub(crate) fn serve(job: &FleetJob) -> Result<()> {
    raise_descriptors()?;
    if let Some(cpu) = job.cpu {
        placement::pin(&[cpu])?;
    }
    job.runtime.build()?.block_on(async {
        let mut running = Vec::with_capacity(job.count);
        for number in job.first..job.first + job.count {
            let plugin = Plugin::builder(&job.dir)
                .namespace("Bench")
                .name(&name(number))
                .latency(latency(job.frugal))
                .method_async("echo", |_cx, body: Bytes| async move { Ok(body) })
                .build()?;
            running.push(plugin.start().await?);
        }
        serve_control()?;
        for plugin in running {
            plugin.wait().await;
        }
        Ok(())
    })
}

/// As many descriptors as we may have; answers how many.
pub(crate) fn raise_descriptors() -> Result<u64> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).context("cannot raise the descriptors")?;
    Ok(limit.maximum.unwrap_or(u64::MAX))
}

/// Calls plugins one after the other, by name, as an application does that holds no handles.
struct InTurn {
    registry: Registry,
    ids: std::sync::Arc<[String]>,
    next: usize,
    step: usize,
    exchange: Exchange,
}

impl Caller for InTurn {
    async fn call(&mut self) -> Result<()> {
        let id = &self.ids[self.next];
        self.next = (self.next + self.step) % self.ids.len();
        let reply = self.registry.execute(id, "echo", self.exchange.request.clone()).await?;
        self.exchange.check(&reply)
    }
}

/// The runtime that most applications have.
const RUNTIME: Runtime = Runtime::MultiThread;
