//! Sizes, seeds, and the numbers that tests print and, in a deep run, assert.

use std::fmt::Display;
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A time bound of a short run is only a guard against hangs: the machine may be busy with other tests.
const GUARD: u32 = 20;

static SKIPPED: AtomicU64 = AtomicU64::new(0);

/// Whether everything runs at full size and figures are asserted: `GOPLUG_DEEP=1`.
pub fn deep() -> bool {
    std::env::var_os("GOPLUG_DEEP").is_some_and(|value| value == "1")
}

/// Whether what takes long is left out: `GOPLUG_TESTS=fast`.
pub fn fast() -> bool {
    std::env::var_os("GOPLUG_TESTS").is_some_and(|value| value == "fast")
}

/// The size of a run: `small` in CI, `full` in a deep run.
pub fn scaled(small: u64, full: u64) -> u64 {
    if deep() { full } else { small }
}

/// The seed of a random test, printed so that a failure can be repeated with `GOPLUG_SEED`.
///
/// # Panics
/// When `GOPLUG_SEED` is no number.
pub fn seed(test: &str) -> u64 {
    let given = std::env::var("GOPLUG_SEED").ok().map(|text| text.parse().expect("GOPLUG_SEED is a number"));
    let seed = given.unwrap_or_else(|| {
        let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        clock.as_nanos() as u64 ^ u64::from(std::process::id()) << 32
    });
    say(format!("seed: {test} GOPLUG_SEED={seed}"));
    seed
}

/// Prints a line that the test runner does not swallow.
pub fn say(line: impl Display) {
    // The macros are captured by the runner when a test passes; figures, seeds and skipped cases are shown always.
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// Prints a measured value and its goal.
pub fn figure(name: &str, value: impl Display, goal: impl Display) {
    say(format!("figure: {name} {value} (goal {goal})"));
}

/// Prints a measured value that has no goal.
pub fn note(name: &str, value: impl Display) {
    say(format!("figure: {name} {value}"));
}

/// Prints a measured time and asserts it: the goal itself in a deep run, else 20 times the goal.
///
/// # Panics
/// When it took longer.
#[track_caller]
pub fn bound(name: &str, measured: Duration, goal: Duration) {
    figure(name, format_args!("{measured:.2?}"), format_args!("{goal:.0?}"));
    let limit = if deep() { goal } else { goal * GUARD };
    assert!(measured <= limit, "{name}: {measured:?}, the limit is {limit:?}");
}

/// Counts and prints a case that cannot run here.
pub fn skip(what: &str, why: impl Display) {
    let count = SKIPPED.fetch_add(1, Ordering::Relaxed) + 1;
    say(format!("SKIPPED ({count}): {what}: {why}"));
}

/// Times, for percentiles.
#[derive(Debug, Default)]
pub struct Samples(Vec<Duration>);

impl Samples {
    /// Adds one.
    pub fn push(&mut self, sample: Duration) {
        self.0.push(sample);
    }

    /// The value that `percent` of the samples do not exceed.
    ///
    /// # Panics
    /// When there are no samples.
    pub fn percentile(&mut self, percent: usize) -> Duration {
        self.0.sort_unstable();
        self.0[(self.0.len() * percent / 100).min(self.0.len() - 1)]
    }
}

/// Whether registries of this run share memory with plugins that offer it.
pub fn shared_memory() -> bool {
    std::env::var_os("GOPLUG_TRANSPORT").is_some_and(|transport| transport == "shm")
}

/// Whether calls of this run go over frames where the plugin offers them.
pub fn fast_paths() -> bool {
    std::env::var_os("GOPLUG_TRANSPORT").is_none_or(|transport| transport != "http")
}
