//! What a registry costs with many plugins: until they are loaded, while they are idle, when they are called.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use goplug_benches::{
    Case, Exchange, FleetJob, Job, Manner, Measured, PluginProcess, ScaleJob, Scaled, Work, drive_as, own_cpu_ns,
};
use goplug_registry::{Registry, Wait};

use super::{InTurn, RUNTIME, name, raise_descriptors, start};

/// Processes that serve the plugins.
const PROCESSES: usize = 3;
/// Calls under way at once.
const IN_FLIGHT: usize = 64;
/// How many plugins are called when few are called.
const FEW: usize = 10;
/// Durations of calls that are kept.
const MAX_SAMPLES: usize = 6_400;
/// How long all plugins together may take to be loaded.
const LONGEST_LOAD: Duration = Duration::from_secs(60);
/// How long connections may take to be closed after the last call.
const LONGEST_QUIET: Duration = Duration::from_secs(10);
/// How often descriptors are counted while they are waited for.
const LOOK: Duration = Duration::from_millis(50);

/// Starts the plugins, loads them all, and measures.
pub(crate) fn host(job: &ScaleJob) -> Result<Scaled> {
    raise_descriptors()?;
    let like = FleetJob {
        dir: std::path::PathBuf::new(),
        first: 0,
        count: 0,
        runtime: RUNTIME,
        frugal: false,
        cpu: job.plugin_cpu,
    };
    let mut fleet = start(job.plugins, PROCESSES, &like)?;
    RUNTIME.build()?.block_on(measure(job, &mut fleet))
}

async fn measure(job: &ScaleJob, fleet: &mut PluginProcess) -> Result<Scaled> {
    let ids: Arc<[String]> = (0..job.plugins).map(|number| format!("Bench/{}", name(number))).collect();
    let (memory, descriptors) = (private_bytes()?, descriptors()?);
    let began = Instant::now();
    let registry = Registry::builder(fleet.dir()).auto_discover(true).open().await?;
    let discovered_ns = nanos(began)?;
    for id in &*ids {
        registry.wait_for(id, Wait::Loaded, LONGEST_LOAD).await?;
    }
    let loaded_ns = nanos(began)?;
    let idle = idle(job, fleet).await?;
    let (private_bytes_now, descriptors_now) = (private_bytes()?, self::descriptors()?);
    let few = ids[..ids.len().min(FEW)].into();
    let ten = calls(job, &registry, &few).await?;
    let all = if job.calls_all { Some(calls(job, &registry, &ids).await?) } else { None };
    until_quiet(descriptors_now).await?;
    let private_bytes_after = private_bytes()?.saturating_sub(memory);
    registry.close().await;
    Ok(Scaled {
        discovered_ns,
        loaded_ns,
        private_bytes: private_bytes_now.saturating_sub(memory),
        private_bytes_after,
        descriptors: descriptors_now.saturating_sub(descriptors),
        idle_ns: idle.0,
        idle_cpu_ns: idle.1,
        idle_plugins_cpu_ns: idle.2,
        ten,
        all,
    })
}

/// Time, our processor time and that of the plugins.
async fn idle(job: &ScaleJob, fleet: &mut PluginProcess) -> Result<(u64, u64, u64)> {
    // The first second belongs to what is still being put away from the start.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (theirs, ours, began) = (fleet.cpu_ns()?, own_cpu_ns(), Instant::now());
    tokio::time::sleep(Duration::from_millis(job.idle_ms)).await;
    let (idle, ours) = (nanos(began)?, own_cpu_ns() - ours);
    Ok((idle, ours, fleet.cpu_ns()? - theirs))
}

/// Calls to these plugins, each called at least once before any call is recorded.
async fn calls(job: &ScaleJob, registry: &Registry, ids: &Arc<[String]>) -> Result<Measured> {
    let case = Case { work: Work::Echo, size: 64, in_flight: IN_FLIGHT };
    let callers = || {
        let exchange = Exchange::new(case);
        let one = |next| InTurn {
            registry: registry.clone(),
            ids: Arc::clone(ids),
            next: next % ids.len(),
            step: IN_FLIGHT,
            exchange: exchange.clone(),
        };
        (0..IN_FLIGHT).map(one).collect()
    };
    let timed = |time_ms, min_calls| Job {
        subject: String::new(),
        case,
        warm_up_ms: time_ms / 10,
        time_ms,
        min_calls,
        plugin_cpu: job.plugin_cpu,
    };
    // Few durations are kept: their memory would be seen as the registry's.
    let manner = Manner { max_samples: MAX_SAMPLES, ..Manner::default() };
    drive_as(&timed(0, ids.len() as u64), manner, None, callers()).await?;
    drive_as(&timed(job.time_ms, 1), manner, None, callers()).await
}

/// Waits until connections that were made for calls are closed.
async fn until_quiet(before: u64) -> Result<()> {
    let until = Instant::now() + LONGEST_QUIET;
    loop {
        let now = descriptors()?;
        if now <= before {
            return Ok(());
        }
        ensure!(Instant::now() < until, "{now} descriptors instead of {before}, long after the last call");
        tokio::time::sleep(LOOK).await;
    }
}

/// Memory that nobody else has a part in, written to or not.
fn private_bytes() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup").context("the kernel does not tell our memory")?;
    let lines = text.lines().filter(|line| line.starts_with("Private_"));
    let kib = lines.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    Ok(kib.sum::<u64>() * 1024)
}

fn descriptors() -> Result<u64> {
    Ok(std::fs::read_dir("/proc/self/fd")?.count() as u64)
}

fn nanos(since: Instant) -> Result<u64> {
    Ok(u64::try_from(since.elapsed().as_nanos())?)
}
