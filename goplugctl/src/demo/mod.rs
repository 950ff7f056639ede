//! Everything at work in a fresh folder, with plugins of its own. Each step shows the command that does the same, the
//! real output and the time, and is checked.

pub(crate) mod plugin;

mod curl;
mod process;
mod script;
mod stage;

use std::time::{Duration, Instant};

use goplug_pconf_schema::{Code, Fault};

use crate::args::DemoArgs;
use crate::duration::show;
use crate::exit_code;
use crate::failure::Failure;
use stage::Stage;

/// How long one step may take before the demo gives up.
const STEP_LIMIT: Duration = Duration::from_secs(20);

/// Plays the demo.
///
/// # Errors
/// The first step whose result is not what it must be, by name: exit code 1.
///
/// # Cancel safety
/// Dropping the future ends every process that the demo started and removes its folder.
pub(crate) async fn run(args: &DemoArgs) -> Result<u8, Failure> {
    let begun = Instant::now();
    let mut stage = Stage::open(args.keep).await?;
    let steps = script::steps(args.keep);
    for (index, step) in steps.iter().enumerate() {
        stage.print(&format!("\n{}. {}\n", index + 1, step.title))?;
        let played = tokio::time::timeout(STEP_LIMIT, (step.play)(&mut stage)).await;
        let mismatch = match played {
            Ok(Ok(())) => continue,
            Ok(Err(mismatch)) => mismatch,
            Err(_) => stage::Mismatch::from(format!("not done after {} s", STEP_LIMIT.as_secs())),
        };
        let what = format!("step {} of the demo, \"{}\"", index + 1, step.title);
        return Err(mismatch.into_failure(what));
    }
    stage.print(&format!("\nall {} steps were as they must be, {}\n", steps.len(), show(begun.elapsed())))?;
    if args.keep {
        stage.keep().await?;
    }
    Ok(exit_code::DONE)
}

/// Something that keeps the demo from going on at all.
fn cannot(what: &str, error: impl std::fmt::Display) -> Failure {
    Failure::new(what, Fault::new(Code::Internal, error.to_string()))
}
