//! Warm up, call for a while, record each call's duration and both processes' time.

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use rustix::time::{ClockId, clock_gettime};

use crate::stats::Samples;
use crate::{Job, Measured, PluginProcess};

/// Samples kept of a measurement, all callers together: 16 MiB.
const MAX_SAMPLES: usize = 1 << 22;

/// One of the callers of a measurement, with whatever it sends.
pub trait Caller: Send + 'static {
    /// Makes one call and checks its reply.
    fn call(&mut self) -> impl Future<Output = Result<()>> + Send;
}

/// Measures async callers: each is a task of its own, as the calls of a server are, and calls again and again.
///
/// # Errors
/// The first failure of a call.
pub async fn drive<C: Caller>(job: &Job, plugin: Option<&mut PluginProcess>, callers: Vec<C>) -> Result<Measured> {
    drive_as(job, Manner::default(), plugin, callers).await
}

/// What may be different from calling again and again and recording every call.
#[derive(Debug, Clone, Copy)]
pub struct Manner {
    /// Each caller begins a call at every tick, unless its last one is still under way; `None`: at once.
    pub every: Option<Duration>,
    /// Durations that are kept, all callers together; further calls are only counted.
    pub max_samples: usize,
}

impl Default for Manner {
    fn default() -> Self {
        Self { every: None, max_samples: MAX_SAMPLES }
    }
}

/// As [`drive`], in another manner.
///
/// # Errors
/// The first failure of a call.
pub async fn drive_as<C: Caller>(
    job: &Job,
    manner: Manner,
    plugin: Option<&mut PluginProcess>,
    callers: Vec<C>,
) -> Result<Measured> {
    let mut clocks = Clocks { plugin };
    let (callers, _) = rounds(Phase { every: manner.every, ..Phase::warm_up(job) }, callers).await?;
    let before = clocks.read()?;
    let (_, samples) = rounds(Phase::measured(job, manner), callers).await?;
    measured(samples, before, clocks.read()?)
}

async fn rounds<C: Caller>(phase: Phase, callers: Vec<C>) -> Result<(Vec<C>, Samples)> {
    let tasks = callers.into_iter().map(|mut caller| {
        let mut samples = Samples::new(phase.samples);
        tokio::spawn(async move {
            let mut ticks = phase.every.map(interval);
            let start = Instant::now();
            let mut before = start;
            loop {
                if let Some(ticks) = &mut ticks {
                    ticks.tick().await;
                    before = Instant::now();
                }
                caller.call().await?;
                let now = Instant::now();
                samples.record((now - before).as_nanos());
                before = now;
                if phase.is_over(now - start, &samples) {
                    return anyhow::Ok((caller, samples));
                }
            }
        })
    });
    let tasks: Vec<_> = tasks.collect();
    let (mut callers, mut all) = (Vec::new(), Samples::new(0));
    for task in tasks {
        let (caller, samples) = task.await.context("a caller's task ended")??;
        callers.push(caller);
        all.absorb(samples);
    }
    Ok((callers, all))
}

/// Measures blocking callers: one on this thread, several on a thread each.
///
/// # Errors
/// The first failure of a call.
pub fn drive_blocking<C>(job: &Job, plugin: Option<&mut PluginProcess>, callers: &mut [C]) -> Result<Measured>
where
    C: FnMut() -> Result<()> + Send,
{
    let mut clocks = Clocks { plugin };
    rounds_blocking(&Phase::warm_up(job), callers)?;
    let before = clocks.read()?;
    let samples = rounds_blocking(&Phase::measured(job, Manner::default()), callers)?;
    measured(samples, before, clocks.read()?)
}

fn rounds_blocking<C: FnMut() -> Result<()> + Send>(phase: &Phase, callers: &mut [C]) -> Result<Samples> {
    let mut all = Samples::new(0);
    if let [caller] = callers {
        all.absorb(round_blocking(phase, caller)?);
        return Ok(all);
    }
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            callers.iter_mut().map(|caller| scope.spawn(move || round_blocking(phase, caller))).collect();
        for thread in threads {
            all.absorb(thread.join().map_err(|_| anyhow!("a caller's thread panicked"))??);
        }
        Ok(all)
    })
}

fn round_blocking(phase: &Phase, caller: &mut impl FnMut() -> Result<()>) -> Result<Samples> {
    let mut samples = Samples::new(phase.samples);
    let start = Instant::now();
    let mut before = start;
    loop {
        caller()?;
        let now = Instant::now();
        samples.record((now - before).as_nanos());
        before = now;
        if phase.is_over(now - start, &samples) {
            return Ok(samples);
        }
    }
}

/// How long one caller goes on.
#[derive(Debug, Clone, Copy)]
struct Phase {
    time: Duration,
    min_calls: u64,
    samples: usize,
    /// The time from the beginning of a call to that of the next; `None`: at once.
    every: Option<Duration>,
}

/// What is missed is left out: a caller that was late does not make up for it.
fn interval(every: Duration) -> tokio::time::Interval {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    ticks
}

impl Phase {
    fn warm_up(job: &Job) -> Self {
        Self { time: Duration::from_millis(job.warm_up_ms), min_calls: 1, samples: 0, every: None }
    }

    fn measured(job: &Job, manner: Manner) -> Self {
        Self {
            time: Duration::from_millis(job.time_ms),
            min_calls: job.min_calls.div_ceil(job.case.in_flight as u64),
            samples: manner.max_samples / job.case.in_flight,
            every: manner.every,
        }
    }

    fn is_over(&self, elapsed: Duration, samples: &Samples) -> bool {
        elapsed >= self.time && samples.calls >= self.min_calls
    }
}

struct Clocks<'a> {
    plugin: Option<&'a mut PluginProcess>,
}

struct Reading {
    wall: Instant,
    host_cpu_ns: u64,
    plugin_cpu_ns: Option<u64>,
}

impl Clocks<'_> {
    fn read(&mut self) -> Result<Reading> {
        let plugin_cpu_ns = self.plugin.as_mut().map(|plugin| plugin.cpu_ns()).transpose()?;
        Ok(Reading { plugin_cpu_ns, host_cpu_ns: own_cpu_ns(), wall: Instant::now() })
    }
}

/// Processor time of this process, all threads together, those that ended too.
pub fn own_cpu_ns() -> u64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}

fn measured(mut samples: Samples, before: Reading, after: Reading) -> Result<Measured> {
    samples.sort();
    Ok(Measured {
        p50_ns: samples.percentile(500, 1).context("no call was recorded")?,
        p99_ns: samples.percentile(990, 100),
        p999_ns: samples.percentile(999, 1000),
        calls: samples.calls,
        wall_ns: u64::try_from((after.wall - before.wall).as_nanos())?,
        host_cpu_ns: after.host_cpu_ns - before.host_cpu_ns,
        plugin_cpu_ns: after.plugin_cpu_ns.zip(before.plugin_cpu_ns).map(|(after, before)| after - before),
    })
}
