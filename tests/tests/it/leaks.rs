//! Whatever happened, everything is given back.

use std::time::Duration;

use goplug_registry::{CallOptions, Subscribe};
use goplug_tests::{Baseline, PluginDir, fast_paths, isolated, live_tasks, scaled, tasks_are_back};

use crate::support::{builder, fixture, loaded, quiet, watching};

/// Threads that ran something blocking go after a while without work; here soon, so that they can be counted.
fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).thread_keep_alive(Duration::from_millis(200)).enable_all().build().unwrap()
}

#[test]
fn all_is_given_back() {
    isolated("leaks::all_is_given_back", || {
        let runtime = runtime();
        runtime.block_on(async {
            // Once before measuring: what is made once and kept (the watcher's thread pool, the resolver) is no leak.
            one_life().await;
            let (baseline, tasks) = (Baseline::now(), live_tasks());
            for _ in 0..scaled(5, 50) {
                one_life().await;
            }
            baseline.is_back();
            tasks_are_back(tasks).await;
        });
    });
}

/// A registry that sees plugins come, be called, be cancelled, subscribed to, die, and that is closed in the middle of it.
async fn one_life() {
    let dir = PluginDir::new();
    let mut dies = fixture(&dir, &["Test/Dies"]);
    let _many = fixture(&dir, &["--count", "10"]);
    let registry = watching(&dir).await;
    loaded(&registry, "Test/Dies").await;
    for n in 0..10 {
        loaded(&registry, &format!("Many/p{n}")).await;
    }
    let _subscription =
        registry.register_callback("Test/Dies", "events", Subscribe::default(), |_| async { Ok(()) }).await.unwrap();
    let feed = registry.observe("Many/p0", "events", None).await.unwrap();
    let deadline = CallOptions { deadline: Some(Duration::from_millis(5)), ..CallOptions::default() };
    for n in 0..50 {
        let plugin = format!("Many/p{}", n % 10);
        registry.execute(&plugin, "echo", "x").await.unwrap();
        let _ = registry.execute_with(&plugin, "sleep", "1000", deadline.clone()).await;
        let _ = tokio::time::timeout(Duration::from_millis(1), registry.execute(&plugin, "sleep", "1000")).await;
    }
    for n in 0..10 {
        // Each pool holds a connection when its registry is closed.
        registry.execute(&format!("Many/p{n}"), "echo", "x").await.unwrap();
    }
    dies.kill();
    drop(feed);
    registry.close().await;
}

/// Dropping every handle without `close` must end the tasks too: nobody can be made to call it.
#[test]
fn a_dropped_registry_leaves_nothing() {
    isolated("leaks::a_dropped_registry_leaves_nothing", || {
        let runtime = runtime();
        runtime.block_on(async {
            let dir = PluginDir::new();
            let _plugin = fixture(&dir, &["Test/Do"]);
            drop(watching(&dir).await);
            let (baseline, tasks) = (Baseline::now(), live_tasks());
            // Over HTTP a call leaves a connection behind that waits for the next one.
            for fast in [fast_paths(), false] {
                for _ in 0..3 {
                    let registry = builder(dir.path()).auto_discover(true).fast_paths(fast).open().await.unwrap();
                    loaded(&registry, "Test/Do").await;
                    registry.execute("Test/Do", "echo", "x").await.unwrap();
                    drop(registry);
                }
            }
            baseline.is_back();
            tasks_are_back(tasks).await;
        });
    });
}

/// Calls at the same time have a connection each over HTTP; when nobody calls, they go.
#[test]
fn connections_that_nobody_uses_are_closed() {
    isolated("leaks::connections_that_nobody_uses_are_closed", || {
        runtime().block_on(async {
            let dir = PluginDir::new();
            let _plugin = fixture(&dir, &["Test/Do"]);
            let registry = builder(dir.path()).fast_paths(false).open().await.unwrap();
            registry.load("Test/Do").await.unwrap();
            let baseline = Baseline::now();
            let calls = (0..16).map(|_| {
                let registry = registry.clone();
                tokio::spawn(async move { registry.execute("Test/Do", "sleep", "50").await.unwrap() })
            });
            for call in calls.collect::<Vec<_>>() {
                call.await.unwrap();
            }
            baseline.is_back();
            registry.close().await;
        });
    });
}

#[test]
fn an_idle_plugin_costs_a_socket_and_a_pidfd() {
    isolated("leaks::an_idle_plugin_costs_a_socket_and_a_pidfd", || {
        runtime().block_on(async {
            let dir = PluginDir::new();
            let _plugins = fixture(&dir, &["--count", "21"]);
            let registry = quiet(&dir).await;
            registry.load("Many/p0").await.unwrap();
            let baseline = Baseline::now();
            for n in 1..=20 {
                registry.load(&format!("Many/p{n}")).await.unwrap();
                registry.execute(&format!("Many/p{n}"), "echo", "x").await.unwrap();
            }
            baseline.with_descriptors(20 * 2).is_back();
            registry.close().await;
        });
    });
}
