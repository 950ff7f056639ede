//! What goes on, in one line on standard error: on a terminal only, and gone when it is done.

use std::future::Future;
use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use goplug_registry::Progress;
use tokio::time::{MissedTickBehavior, interval};

use crate::output::escape;

/// How often the line is drawn.
const DRAW_EVERY: Duration = Duration::from_millis(100);
/// Nothing is shown of what takes no longer.
const PATIENCE: Duration = Duration::from_millis(200);
/// How wide the bar is.
const BAR: usize = 24;
/// Of a terminal that does not tell how wide it is.
const USUAL_WIDTH: usize = 80;

/// The line.
#[derive(Debug)]
pub(crate) struct Line {
    latest: Mutex<Option<Progress>>,
    shown: bool,
}

impl Line {
    /// Shown if somebody is there to see it, and wants to.
    pub(crate) fn new(quiet: bool) -> Self {
        Self { latest: Mutex::new(None), shown: !quiet && io::stderr().is_terminal() }
    }

    /// Takes the latest news; drawn by [`Line::during`].
    pub(crate) fn tell(&self, progress: Progress) {
        if self.shown {
            *self.latest.lock().unwrap_or_else(PoisonError::into_inner) = Some(progress);
        }
    }

    /// Awaits `work` and draws meanwhile what is told; `what` until there are news.
    pub(crate) async fn during<T>(&self, what: &str, work: impl Future<Output = T>) -> T {
        if !self.shown {
            return work.await;
        }
        *self.latest.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let began = Instant::now();
        let mut drawn = Drawn(false);
        let mut ticks = interval(DRAW_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tokio::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                _ = ticks.tick() => {
                    let elapsed = began.elapsed();
                    if elapsed >= PATIENCE {
                        let latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner).clone();
                        let text = render(latest.as_ref(), what, elapsed, width());
                        // Nobody can be told that this failed.
                        let _ = write!(io::stderr(), "\r\u{1b}[K{text}");
                        let _ = io::stderr().flush();
                        drawn.0 = true;
                    }
                }
            }
        }
    }
}

/// Wipes the line, also when whoever waits is dropped.
struct Drawn(bool);

impl Drop for Drawn {
    fn drop(&mut self) {
        if self.0 {
            let _ = write!(io::stderr(), "\r\u{1b}[K");
            let _ = io::stderr().flush();
        }
    }
}

fn width() -> usize {
    let told = rustix::termios::tcgetwinsize(io::stderr()).map(|size| usize::from(size.ws_col)).unwrap_or_default();
    if told == 0 { USUAL_WIDTH } else { told }
}

/// The line, at most `width` characters without the last column, where terminals begin a new line.
fn render(progress: Option<&Progress>, what: &str, elapsed: Duration, width: usize) -> String {
    let seconds = elapsed.as_secs();
    let text = match progress {
        Some(Progress::Fetching { bytes, total: Some(total) }) if *total > 0 => {
            let share = usize::try_from(u128::from(*bytes) * BAR as u128 / u128::from(*total)).unwrap_or(BAR).min(BAR);
            let (done, left) = ("#".repeat(share), "-".repeat(BAR - share));
            format!("fetching [{done}{left}] {} of {} {seconds} s", size(*bytes), size(*total))
        }
        Some(Progress::Fetching { bytes, .. }) => format!("fetching {} {seconds} s", size(*bytes)),
        Some(Progress::Building { line }) => format!("building {seconds} s: {}", escape(line.trim())),
        _ => format!("{what} {seconds} s"),
    };
    text.chars().take(width.saturating_sub(1)).collect()
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{} KiB", bytes / 1024),
        _ => format!("{}.{} MiB", bytes / 1_048_576, bytes % 1_048_576 * 10 / 1_048_576),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_how_far_it_is_and_drives_no_terminal() {
        let fetching = |bytes, total| Some(Progress::Fetching { bytes, total });
        let building = |line: &str| Some(Progress::Building { line: line.to_owned() });
        for (progress, width, expected) in [
            (None, 80, "installing 61 s"),
            (fetching(0, None), 80, "fetching 0 B 61 s"),
            (fetching(5 << 20, Some(10 << 20)), 80, "fetching [############------------] 5.0 MiB of 10.0 MiB 61 s"),
            (fetching(7, Some(3)), 80, "fetching [########################] 7 B of 3 B 61 s"),
            (fetching(1536, Some(0)), 80, "fetching 1 KiB 61 s"),
            (fetching(u64::MAX, Some(u64::MAX)), 20, "fetching [#########"),
            (building("  Compiling do\n"), 80, "building 61 s: Compiling do"),
            (building("a\u{1b}[2Jb"), 80, "building 61 s: a\\u{1b}[2Jb"),
            (building("äöü"), 17, "building 61 s: ä"),
        ] {
            assert_eq!(render(progress.as_ref(), "installing", Duration::from_secs(61), width), expected);
        }
    }
}
