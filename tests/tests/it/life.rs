//! The life of a plugin: activation belongs to its process, and is adopted, never repeated.

use std::path::Path;
use std::time::{Duration, Instant};

use goplug_registry::admin::{EventKind, State};
use goplug_registry::{Code, Ran, Unload};
use goplug_tests::{LONG, PluginDir, bound, wait_until};
use rustix::process::Signal;

use crate::support::{
    app, elsewhere, event, event_of, fault, fixture, loaded, quiet, row, socket_in, state_of, text, watching,
};

fn lines(file: &Path) -> usize {
    std::fs::read_to_string(file).unwrap_or_default().lines().count()
}

#[tokio::test(flavor = "multi_thread")]
async fn load_unload_load_reload_keep_the_process() {
    let dir = PluginDir::new();
    let activations = dir.join("activations");
    let options = ["--activations", activations.to_str().unwrap(), "--output", "hi", "--stopper", "bye", "Test/Do"];
    let mut plugin = fixture(&dir, &options);
    let registry = quiet(&dir).await;
    let pid = plugin.pid().to_string();
    let check = async |count: usize| {
        assert_eq!(text(registry.execute("Test/Do", "pid", "").await.unwrap()), pid);
        assert_eq!(lines(&activations), count);
    };
    assert_eq!(registry.load("Test/Do").await.unwrap().output_base64, "aGk=");
    check(1).await;
    assert_eq!(fault(registry.load("Test/Do").await).code, Code::Conflict, "a second load");
    let unloaded = registry.unload("Test/Do", Unload::default()).await.unwrap();
    assert_eq!((unloaded.cancelled, unloaded.unacknowledged, unloaded.output_base64.as_str()), (0, 0, "Ynll"));
    assert!(registry.is_discovered("Test/Do") && !registry.is_loaded("Test/Do"));
    let error = fault(registry.execute("Test/Do", "echo", "").await);
    assert_eq!((error.code, error.ran), (Code::WrongState, Ran::No));
    assert!(plugin.is_alive());
    registry.load("Test/Do").await.unwrap();
    check(2).await;
    registry.reload("Test/Do").await.unwrap();
    check(3).await;
    registry.unload("Test/Do", Unload { stop: true, ..Unload::default() }).await.unwrap();
    assert_eq!(plugin.wait(LONG).code(), Some(0));
    assert_eq!(dir.names(), ["activations"], "file and socket are gone");
    registry.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_registry_adopts_what_runs() {
    let dir = PluginDir::new();
    let activations = dir.join("activations");
    let plugin = fixture(&dir, &["--activations", activations.to_str().unwrap(), "Test/Do"]);
    for _ in 0..5 {
        let mut app = app(&dir, &[]);
        assert_eq!(app.ask("loaded Test/Do"), "ok");
        assert_eq!(app.ask("execute Test/Do pid"), plugin.pid().to_string());
        app.kill();
    }
    assert_eq!(lines(&activations), 1, "the activator ran once");
}

/// Whoever calls by name while one process takes another's place never meets nobody.
#[tokio::test(flavor = "multi_thread")]
async fn a_successor_is_reachable_throughout() {
    let dir = PluginDir::new();
    let mut old = fixture(&dir, &["Test/Do"]);
    let registry = watching(&dir).await;
    loaded(&registry, "Test/Do").await;
    let (met, mut meets) = tokio::sync::watch::channel(Vec::new());
    let caller = {
        let registry = registry.clone();
        tokio::spawn(async move {
            while !met.is_closed() {
                let pid = text(registry.execute("Test/Do", "pid", "").await.unwrap());
                met.send_if_modified(|pids: &mut Vec<String>| {
                    let is_new = pids.last() != Some(&pid);
                    pids.extend(is_new.then_some(pid));
                    is_new
                });
            }
        })
    };
    let mut expected = vec![old.pid().to_string()];
    for _ in 0..5 {
        let new = fixture(&dir, &["Test/Do"]);
        expected.push(new.pid().to_string());
        let replaced = Instant::now();
        let heard = meets.wait_for(|pids| pids.last() == expected.last());
        tokio::time::timeout(LONG, heard).await.unwrap().unwrap();
        bound("successor_answers_after", replaced.elapsed(), Duration::from_millis(200));
        // The predecessor is drained and told to leave by the registry.
        assert_eq!(old.wait(LONG).code(), Some(0));
        old = new;
    }
    assert_eq!(*meets.borrow(), expected, "each took over once, in order");
    drop(meets);
    caller.await.unwrap();
    assert!(dir.join("TestDo.pconf").exists(), "no predecessor took the file of its successor away");
    registry.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_socket_is_never_replaced_and_a_dead_one_is() {
    let dir = PluginDir::new();
    let mut first = fixture(&dir, &["Test/Do"]);
    first.kill();
    assert_eq!(dir.names().len(), 2, "a killed plugin leaves its files: {:?}", dir.names());
    let _second = fixture(&dir, &["Test/Do"]);
    let registry = quiet(&dir).await;
    registry.load("Test/Do").await.unwrap();
    registry.close().await;

    // `ab`+`c` and `a`+`bc` would write one file: the second is refused while the first lives.
    let dir = PluginDir::new();
    let _first = fixture(&dir, &["ab/c"]);
    let second = std::process::Command::new(crate::support::FIXTURE).arg(dir.path()).arg("a/bc").output().unwrap();
    assert!(!second.status.success() && text(&second.stderr).contains("conflict"), "{second:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn death_is_seen_and_a_restarted_plugin_is_found() {
    let dir = PluginDir::new();
    let mut plugin = fixture(&dir, &["Test/Do"]);
    let registry = watching(&dir).await;
    loaded(&registry, "Test/Do").await;
    let mut worst = Duration::ZERO;
    for _ in 0..5 {
        let mut events = registry.events();
        let killed = Instant::now();
        plugin.kill();
        event(&mut events, "not loaded", |event| event.state.is_some_and(|state| state != State::Loaded)).await;
        worst = worst.max(killed.elapsed());
        let why = registry.why("Test/Do").await;
        assert!(!why.callable && why.broken().is_some(), "{why:?}");
        plugin = fixture(&dir, &["Test/Do"]);
        loaded(&registry, "Test/Do").await;
        assert_eq!(row(&registry, "Test/Do").unwrap().pid, Some(plugin.pid()));
    }
    bound("death_seen_after", worst, Duration::from_millis(20));
    registry.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_file_ends_the_connection_and_leaves_the_process() {
    let dir = PluginDir::new();
    let mut plugin = fixture(&dir, &["Test/Do"]);
    let registry = watching(&dir).await;
    loaded(&registry, "Test/Do").await;
    let mut events = registry.events();
    std::fs::rename(dir.join("TestDo.pconf"), dir.join("kept")).unwrap();
    event(&mut events, "gone", |event| event.state == Some(State::Gone)).await;
    assert_eq!(fault(registry.execute("Test/Do", "echo", "").await).code, Code::NotFound);
    assert!(plugin.is_alive());
    std::fs::rename(dir.join("kept"), dir.join("TestDo.pconf")).unwrap();
    loaded(&registry, "Test/Do").await;
    registry.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unload_drains_and_cancels_what_is_left() {
    let dir = PluginDir::new();
    let _plugin = fixture(&dir, &["Test/Do"]);
    let registry = quiet(&dir).await;
    let call = |ms: &'static str| {
        let registry = registry.clone();
        tokio::spawn(async move { registry.execute("Test/Do", "sleep", ms).await })
    };
    let under_way = async |count: u64| {
        goplug_tests::wait_for("calls are under way", LONG, || async {
            (registry.inspect("Test/Do").await.unwrap().in_flight == count).then_some(())
        })
        .await;
    };
    registry.load("Test/Do").await.unwrap();
    let short = call("300");
    under_way(1).await;
    let unloaded = registry.unload("Test/Do", Unload { drain: Some(LONG), stop: false }).await.unwrap();
    assert_eq!(unloaded.cancelled, 0);
    assert_eq!(text(short.await.unwrap().unwrap()), "slept", "calls under way may finish");

    registry.load("Test/Do").await.unwrap();
    let long = call("60000");
    under_way(1).await;
    // On the same connection: what is answered now came after it, so the plugin has it.
    registry.execute("Test/Do", "echo", "").await.unwrap();
    let unloaded =
        registry.unload("Test/Do", Unload { drain: Some(Duration::from_millis(50)), stop: false }).await.unwrap();
    assert_eq!(unloaded.cancelled, 1);
    fault(long.await.unwrap());
    registry.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_activator_is_tried_again_and_says_why() {
    let dir = PluginDir::new();
    let flag = dir.write("broken", "");
    let _plugin = fixture(&dir, &["--activator-fails", flag.to_str().unwrap(), "Test/Do"]);
    let registry = watching(&dir).await;
    let mut events = registry.events_after(0).unwrap();
    event(&mut events, "a failed start", |event| matches!(event.state, Some(State::Backoff | State::Failed))).await;
    let row = row(&registry, "Test/Do").unwrap();
    assert!(row.last_error.as_deref().is_some_and(|why| why.contains("no database")), "{row:?}");
    std::fs::remove_file(flag).unwrap();
    loaded(&registry, "Test/Do").await;
    registry.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lazy_plugin_waits_to_be_asked_for() {
    let dir = PluginDir::new();
    let activations = dir.join("activations");
    let _plugin = fixture(&dir, &["--lazy", "--activations", activations.to_str().unwrap(), "Test/Lazy"]);
    let registry = watching(&dir).await;
    let mut events = registry.events_after(0).unwrap();
    state_of(&mut events, "Test/Lazy", State::Discovered).await;
    registry.look().await;
    assert!(!registry.is_loaded("Test/Lazy") && !activations.exists());
    assert_eq!(fault(registry.execute("Test/Lazy", "echo", "").await).code, Code::WrongState);
    registry.load("Test/Lazy").await.unwrap();
    assert_eq!(text(registry.execute("Test/Lazy", "echo", "awake").await.unwrap()), "awake");
    registry.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_registries_share_one_plugin() {
    let dir = PluginDir::new();
    let activations = dir.join("activations");
    let _plugin = fixture(&dir, &["--activations", activations.to_str().unwrap(), "Test/Do"]);
    let (first, second) = (watching(&dir).await, watching(&dir).await);
    loaded(&first, "Test/Do").await;
    loaded(&second, "Test/Do").await;
    assert_eq!(lines(&activations), 1);
    assert_eq!(text(first.execute("Test/Do", "count", "").await.unwrap()), "1");
    assert_eq!(text(second.execute("Test/Do", "count", "").await.unwrap()), "2");
    first.unload("Test/Do", Unload::default()).await.unwrap();
    assert_eq!(fault(second.execute("Test/Do", "count", "").await).ran, Ran::No, "the other sees it");
    wait_until("the other shows it", LONG, || {
        row(&second, "Test/Do").is_some_and(|row| row.state == State::Discovered)
    });
    first.close().await;
    second.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_method_that_answers_wrong_state_unloads_nothing() {
    let dir = PluginDir::new();
    let refuse = |_cx: &_, _body| -> Result<&str, goplug_plugin_impl::Error> {
        Err(goplug_plugin_impl::Error::new(Code::WrongState, "not on a Sunday"))
    };
    let plugin =
        goplug_plugin_impl::Plugin::builder(dir.path()).name("moody").method("refuse", refuse).build().unwrap();
    let running = plugin.start().await.unwrap();
    let registry = quiet(&dir).await;
    registry.load("moody").await.unwrap();
    let mut events = registry.events();
    for _ in 0..20 {
        assert_eq!(fault(registry.execute("moody", "refuse", "").await).code, Code::WrongState);
        // Its supervisor has heard of it when it answers this.
        registry.look_at("moody").await.unwrap();
    }
    assert!(registry.is_loaded("moody"));
    assert_eq!(std::iter::from_fn(|| events.try_next()).find(|event| event.kind == EventKind::State), None);
    registry.close().await;
    running.stop(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_path_to_the_same_process_is_no_successor_and_stops_nothing() {
    let dir = PluginDir::new();
    let mut plugin = fixture(&dir, &["Test/Do"]);
    let registry = watching(&dir).await;
    loaded(&registry, "Test/Do").await;
    let mut events = registry.events();
    let pconf = dir.join("TestDo.pconf");
    let link = dir.join("link.sock");
    std::fs::hard_link(socket_in(&pconf), &link).unwrap();
    let text_ = elsewhere(&pconf, &link);
    goplug_tests::write_atomically(&pconf, text_.as_bytes());
    event_of(&mut events, EventKind::Replaced).await;
    for _ in 0..50 {
        assert_eq!(text(registry.execute("Test/Do", "pid", "").await.unwrap()), plugin.pid().to_string());
    }
    registry.close().await;
    assert!(plugin.is_alive(), "it was taken for its own predecessor");
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_drains_and_takes_the_files_away() {
    for signal in [Signal::TERM, Signal::INT] {
        let dir = PluginDir::new();
        let mut plugin = fixture(&dir, &["Test/Do"]);
        let registry = quiet(&dir).await;
        registry.load("Test/Do").await.unwrap();
        let call = {
            let registry = registry.clone();
            tokio::spawn(async move { registry.execute("Test/Do", "sleep", "200").await })
        };
        goplug_tests::wait_for("the call is under way", LONG, || async {
            (registry.inspect("Test/Do").await.unwrap().in_flight == 1).then_some(())
        })
        .await;
        // What is asked behind it is answered: the plugin has read it.
        registry.execute("Test/Do", "pid", "").await.unwrap();
        plugin.signal(signal);
        assert_eq!(text(call.await.unwrap().unwrap()), "slept", "{signal:?}");
        assert_eq!(plugin.wait(LONG).code(), Some(0), "{signal:?}");
        wait_until("the folder is empty", LONG, || dir.names().is_empty());
        registry.close().await;
    }
}
