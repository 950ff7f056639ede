use super::*;
use std::fs;

/// Longer than any of these waits takes; reached only if the signal never comes.
const GUARD: Duration = Duration::from_secs(20);

async fn expect_dirty(signals: &WatchSignals, why: &str) {
    tokio::time::timeout(GUARD, signals.dirty()).await.unwrap_or_else(|_| panic!("no signal: {why}"));
}

fn is_dirty_event(kind: EventKind, path: Option<&str>) -> bool {
    let (_, handler) = handler();
    let event = Event::new(kind);
    handler.matters(&match path {
        Some(path) => event.add_path(path.into()),
        None => event,
    })
}

fn handler() -> (Arc<Shared>, Handler) {
    let shared = Arc::new(Shared::default());
    let dead = Arc::new(AtomicBool::new(false));
    let handler = Handler { directory: "/p".into(), extension: ".pconf".into(), shared: Arc::clone(&shared), dead };
    (shared, handler)
}

#[test]
fn only_events_that_may_change_the_view_count() {
    use notify::event::{CreateKind, DataChange, ModifyKind, RemoveKind};
    let write = EventKind::Modify(ModifyKind::Data(DataChange::Any));
    for (kind, path, counts) in [
        (EventKind::Create(CreateKind::File), Some("/p/a.pconf"), true),
        (EventKind::Create(CreateKind::File), Some("/p/a.sock"), false),
        (EventKind::Create(CreateKind::File), Some("/p/.a.pconf"), false),
        (write, Some("/p/a.pconf"), true),
        (write, Some("/p/plugin.log"), false),
        (EventKind::Access(AccessKind::Open(AccessMode::Any)), Some("/p/a.pconf"), false),
        (EventKind::Access(AccessKind::Close(AccessMode::Read)), Some("/p/a.pconf"), false),
        (EventKind::Access(AccessKind::Close(AccessMode::Write)), Some("/p/a.pconf"), true),
        (EventKind::Remove(RemoveKind::Folder), Some("/p"), true),
        (EventKind::Other, None, true),
    ] {
        assert_eq!(is_dirty_event(kind, path), counts, "{kind:?} {path:?}");
    }
}

#[tokio::test]
async fn an_overflow_is_counted_and_an_error_means_look_again() {
    let (shared, mut handler) = handler();
    let signals = WatchSignals(shared);
    handler.handle_event(Ok(Event::new(EventKind::Other).set_flag(notify::event::Flag::Rescan)));
    assert_eq!(signals.overflows(), 1);
    expect_dirty(&signals, "overflow").await;
    handler.handle_event(Err(notify::Error::generic("lost")));
    expect_dirty(&signals, "error").await;
}

#[tokio::test]
async fn a_new_file_sets_the_flag() {
    let directory = tempfile::tempdir().unwrap();
    let (_watch, signals) = Watch::new(directory.path(), ".pconf");
    assert_eq!(signals.problem(), None);
    expect_dirty(&signals, "a new watch").await;
    fs::write(directory.path().join("a.pconf"), "{}").unwrap();
    expect_dirty(&signals, "a new file").await;
}

#[tokio::test]
async fn a_directory_that_is_missing_vanishes_and_comes_back_is_watched_again() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("plugins");
    let (mut watch, signals) = Watch::new(&directory, ".pconf");
    assert_eq!(signals.problem(), None, "a missing directory is the scan's to report");
    for round in 0..20 {
        fs::create_dir(&directory).unwrap();
        watch.rearm();
        expect_dirty(&signals, "armed").await;
        fs::write(directory.join("a.pconf"), "{}").unwrap();
        expect_dirty(&signals, "a file in the new directory").await;
        match round % 3 {
            0 => fs::remove_dir_all(&directory).unwrap(),
            1 => fs::rename(&directory, parent.path().join(format!("away-{round}"))).unwrap(),
            // Exchanged between two looks.
            _ => {
                fs::remove_dir_all(&directory).unwrap();
                continue;
            }
        }
        watch.rearm();
        expect_dirty(&signals, "the watcher that ended").await;
    }
}

#[tokio::test]
async fn a_watcher_whose_thread_died_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let (mut watch, signals) = Watch::new(directory.path(), ".pconf");
    expect_dirty(&signals, "a new watch").await;
    watch.armed.as_ref().unwrap().dead.store(true, Ordering::Release);
    watch.rearm();
    assert!(watch.armed.is_none(), "it died young: not at once");
    watch.retry_at = None;
    watch.rearm();
    expect_dirty(&signals, "a new watch").await;
    let armed = watch.armed.as_mut().unwrap();
    armed.dead.store(true, Ordering::Release);
    armed.since -= SHORT_LIFE;
    watch.rearm();
    expect_dirty(&signals, "a new watch").await;
    assert!(!watch.armed.as_ref().unwrap().dead.load(Ordering::Acquire));
}

#[test]
fn a_refusal_of_the_kernel_names_the_limit() {
    let emfile = io::Error::from(rustix::io::Errno::MFILE);
    assert!(explain(&notify::Error::io(emfile)).contains("max_user_instances"));
    assert!(explain(&notify::Error::new(ErrorKind::MaxFilesWatch)).contains("max_user_watches"));
}
