//! Sees to it that a handler inside which time passes does not hold its connection. One thread for the whole process,
//! which sleeps while nothing is called.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use super::connection::Connection;

/// How often it looks.
const TICK: Duration = Duration::from_millis(2);
/// A handler that has been running for longer loses the connection.
const OVERRUN: Duration = Duration::from_micros(200);

static CONNECTIONS: Mutex<Vec<Weak<Connection>>> = Mutex::new(Vec::new());
static WATCHER: OnceLock<Thread> = OnceLock::new();
static IS_PARKED: AtomicBool = AtomicBool::new(false);

/// Nanoseconds since this process first asked.
pub(super) fn stamp(now: Instant) -> u64 {
    static BASE: OnceLock<Instant> = OnceLock::new();
    let since = now.saturating_duration_since(*BASE.get_or_init(|| now));
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Watches a connection for as long as it lives.
///
/// # Errors
/// When there is no thread for it.
pub(super) fn watch(connection: &Arc<Connection>) -> io::Result<()> {
    let mut connections = CONNECTIONS.lock().unwrap_or_else(PoisonError::into_inner);
    if WATCHER.get().is_none() {
        let thread = thread::Builder::new().name("goplug-watcher".into()).spawn(run)?;
        // The lock is held: nobody else can have set it.
        _ = WATCHER.set(thread.thread().clone());
    }
    connections.retain(|other| other.strong_count() > 0);
    connections.push(Arc::downgrade(connection));
    Ok(())
}

/// To be called after the beginning of a run was noted, under the connection's lock: from then on somebody looks. When the
/// watcher's last look before it parks took that lock earlier, what it did before, the flag, is seen here; when later, it saw
/// the run.
pub(super) fn rouse() {
    if IS_PARKED.load(Ordering::SeqCst)
        && IS_PARKED.swap(false, Ordering::SeqCst)
        && let Some(thread) = WATCHER.get()
    {
        thread.unpark();
    }
}

fn run() {
    loop {
        thread::sleep(TICK);
        if look() {
            continue;
        }
        IS_PARKED.store(true, Ordering::SeqCst);
        // A run that began before the flag was set did not rouse us.
        if look() {
            IS_PARKED.store(false, Ordering::SeqCst);
        }
        while IS_PARKED.load(Ordering::SeqCst) {
            thread::park();
        }
    }
}

/// Starts a thread for each connection whose handler takes long; answers whether any was active lately.
fn look() -> bool {
    let now = stamp(Instant::now());
    let since = |began: u64| Duration::from_nanos(now.saturating_sub(began));
    let mut is_active = false;
    let connections = CONNECTIONS.lock().unwrap_or_else(PoisonError::into_inner);
    for connection in connections.iter().filter_map(Weak::upgrade) {
        let (run, began, is_running) = connection.run();
        is_active |= is_running || since(began) < TICK * 2;
        if is_running && since(began) > OVERRUN {
            // Without a thread it is tried again at the next tick.
            _ = Connection::spawn(&connection, Some(run));
        }
    }
    is_active
}
