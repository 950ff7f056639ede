//! The runtime of a program, or the reason why there is none.

use std::any::Any;
use std::panic::{set_hook, take_hook};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use goplug_registry::{Code, Error};
use tokio::runtime::{Builder, Runtime};

/// How long the first thread may take that reads files and waits for locks.
const FIRST_THREAD: Duration = Duration::from_secs(2);

/// Starts the runtime of a program. Where the system gives it no thread, tokio panics and never ends the threads that it has
/// already; then the program ends here, with the reason and the exit code 6.
///
/// # Errors
/// `overloaded` when the one more thread cannot be had that waits for files: what is asked of it would wait for ever.
/// `internal` when there is no runtime for another reason.
pub fn runtime() -> Result<Runtime, Error> {
    let started = end_if_it_panics(|| {
        let runtime = Builder::new_multi_thread().enable_all().build()?;
        let first = async { tokio::time::timeout(FIRST_THREAD, tokio::task::spawn_blocking(|| ())).await };
        let is_up = runtime.block_on(first).is_ok();
        Ok::<_, std::io::Error>((runtime, is_up))
    });
    let (runtime, is_up) =
        started.map_err(|error| Error::new(Code::Internal, format!("cannot start the runtime: {error}")))?;
    if is_up {
        return Ok(runtime);
    }
    runtime.shutdown_background();
    Err(Error::new(Code::Overloaded, "cannot start a thread: raise the limit of processes (`ulimit -u`)"))
}

/// Runs `work`; a panic of this thread ends the program, others are told as before.
fn end_if_it_panics<T>(work: impl FnOnce() -> T) -> T {
    let (ours, before) = (thread::current().id(), Arc::new(take_hook()));
    let others = Arc::clone(&before);
    set_hook(Box::new(move |panic| {
        if thread::current().id() != ours {
            return others(panic);
        }
        eprintln!(
            "error: cannot start the runtime: {}: raise the limit of processes (`ulimit -u`)",
            words(panic.payload())
        );
        std::process::exit(6);
    }));
    let done = work();
    drop(take_hook());
    set_hook(Box::new(move |panic| before(panic)));
    done
}

fn words(payload: &(dyn Any + Send)) -> &str {
    let owned = || payload.downcast_ref::<String>().map(String::as_str);
    payload.downcast_ref::<&str>().copied().or_else(owned).unwrap_or("the system refuses")
}
