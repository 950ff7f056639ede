//! When the function is called: one call after the other, from one thread, or side by side; and what follows when it does not
//! return.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use goplug_pconf_schema::manifest::SharedObject;
use goplug_plugin_impl::{Code, Context, Error};
use goplug_shared_object::boundary::{Call, DONE, Library, PANICKED, Set};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;

use super::STACK_BYTES;
use super::values::{Reply, Values};

type Job = Box<dyn FnOnce() + Send>;

/// Calls the function of a shared object.
pub(crate) struct Executor {
    library: Library,
    grace: Duration,
    runtime: Handle,
    turn: Turn,
}

enum Turn {
    /// Whoever has the permit may send one job: the thread is free.
    Serial {
        permit: Arc<Semaphore>,
        thread: SyncSender<Job>,
    },
    Concurrent,
}

impl Executor {
    pub(crate) fn new(library: Library, rules: &SharedObject, runtime: Handle) -> Result<Self, String> {
        let turn = if rules.concurrent {
            Turn::Concurrent
        } else {
            let (thread, jobs) = sync_channel(1);
            let builder = thread::Builder::new().name("execute".into()).stack_size(STACK_BYTES);
            builder.spawn(move || work(&jobs)).map_err(|error| format!("no thread for the shared object: {error}"))?;
            Turn::Serial { permit: Arc::new(Semaphore::new(1)), thread }
        };
        Ok(Self { library, grace: rules.grace, runtime, turn })
    }

    /// Calls the function when it is its turn.
    ///
    /// # Errors
    /// What the function said.
    ///
    /// # Cancel safety
    /// A call that has begun goes on; it is told that nobody waits, and has the grace to return.
    pub(crate) async fn execute(&self, cx: Context, label: String, values: Values) -> Result<Reply, Error> {
        let under_way = UnderWay { cx: cx.clone(), runtime: self.runtime.clone(), kept: Mutex::default() };
        under_way.lock().values = values;
        let (library, (reply, answer)) = (self.library, oneshot::channel());
        let shown = label.clone();
        let run = move || {
            let returned = library.execute(&label, &under_way);
            // Nobody waits for it when this fails.
            _ = reply.send(under_way.outcome(returned));
        };
        match &self.turn {
            Turn::Concurrent => _ = tokio::task::spawn_blocking(run),
            Turn::Serial { permit, thread } => {
                let lost = || Error::new(Code::Internal, "the thread of the shared object has ended");
                // Never closed.
                let turn = Arc::clone(permit).acquire_owned().await.map_err(|_| lost())?;
                let job = Box::new(move || {
                    run();
                    drop(turn);
                });
                thread.try_send(job).map_err(|_| lost())?;
            }
        }
        let (mut answer, grace) = (answer, self.grace);
        let (told, waits) = oneshot::channel();
        self.runtime.spawn(async move {
            let returned = tokio::select! {
                returned = &mut answer => Some(returned),
                () = cx.cancelled() => timeout(grace, &mut answer).await.ok(),
            };
            match returned {
                // Nobody waits for it when this fails.
                Some(returned) => _ = told.send(returned),
                None => end(&shown, grace),
            }
        });
        let lost = || Error::new(Code::Internal, "the call was lost");
        waits.await.map_err(|_| lost())?.map_err(|_| lost())?
    }
}

fn work(jobs: &Receiver<Job>) {
    while let Ok(job) = jobs.recv() {
        job();
    }
}

/// A thread that does not return cannot be ended, but its process can.
fn end(label: &str, grace: Duration) -> ! {
    let label = goplug_pconf_schema::printable(label);
    eprintln!("Execute with label `{label}` has not returned {grace:?} after its call was over: the process ends");
    std::process::abort()
}

/// A call that is under way, as the shared object reaches it.
struct UnderWay {
    cx: Context,
    runtime: Handle,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    values: Values,
    message: String,
}

impl UnderWay {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn outcome(&self, returned: i32) -> Result<Reply, Error> {
        let Kept { values, message } = std::mem::take(&mut *self.lock());
        let text = if message.is_empty() { format!("Execute returned {returned}") } else { message };
        match returned {
            DONE => Ok(values.into_reply()),
            // It may see the deadline before anybody else does, and its failure is no other one.
            _ if self.cx.remaining().is_zero() => {
                Err(Error::new(Code::DeadlineExceeded, format!("the deadline has passed, and Execute says: {text}")))
            }
            PANICKED => Err(Error::new(Code::Panicked, text)),
            _ => Err(Error::new(Code::MethodFailed, text)),
        }
    }
}

impl Call for UnderWay {
    fn get(&self, key: &str, take: &mut dyn FnMut(&str)) {
        take(self.lock().values.get(key));
    }

    fn set(&self, key: &str, json: &str) -> Set {
        self.lock().values.set(key, json)
    }

    fn remaining(&self) -> Duration {
        self.cx.remaining()
    }

    fn cancelled(&self, within: Duration) -> bool {
        let limit = within.min(self.cx.remaining());
        if self.cx.is_cancelled() || limit.is_zero() {
            return self.cx.is_cancelled();
        }
        // Threads of the runtime may not wait for one of its futures, but none of them calls the function: see `execute`.
        // Made inside: there is no timer outside of the runtime.
        let told = self.runtime.block_on(async { timeout(limit, self.cx.cancelled()).await });
        told.is_ok() || self.cx.is_cancelled()
    }

    fn fail(&self, message: String) {
        self.lock().message = message;
    }
}
