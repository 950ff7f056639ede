//! What calls cost that come now and then, from a host that must not burn the time between them.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use goplug_benches::{Case, Exchange, FleetJob, Job, Manner, Measured, RatesJob, Work, drive_as};
use goplug_registry::Registry;

use super::{InTurn, latency, name, start};

/// Starts the plugins, a process each, loads them and calls each at the job's rate.
pub(crate) fn host(job: &RatesJob) -> Result<Measured> {
    let like = FleetJob {
        dir: std::path::PathBuf::new(),
        first: 0,
        count: 0,
        runtime: job.runtime,
        frugal: job.frugal,
        cpu: job.plugin_cpu,
    };
    let mut fleet = start(job.plugins, job.plugins, &like)?;
    job.runtime.build()?.block_on(async {
        let registry = Registry::builder(fleet.dir()).latency(latency(job.frugal)).open().await?;
        let case = Case { work: Work::Echo, size: 64, in_flight: job.plugins };
        let mut callers = Vec::new();
        for number in 0..job.plugins {
            let id = format!("Bench/{}", name(number));
            registry.load(&id).await?;
            let ids = Arc::from([id]);
            callers.push(InTurn { registry: registry.clone(), ids, next: 0, step: 1, exchange: Exchange::new(case) });
        }
        let timed = Job {
            subject: String::new(),
            case,
            warm_up_ms: job.time_ms / 10,
            time_ms: job.time_ms,
            min_calls: 1,
            plugin_cpu: job.plugin_cpu,
        };
        let manner = Manner { every: Some(Duration::from_micros(job.every_us)), ..Manner::default() };
        let measured = drive_as(&timed, manner, Some(&mut fleet), callers).await?;
        registry.close().await;
        Ok(measured)
    })
}
