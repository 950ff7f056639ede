//! Figures that are promised: measured always, asserted in full in a deep run.

use std::time::{Duration, Instant};

use goplug_plugin_impl::Plugin;
use goplug_registry::Wait;
use goplug_tests::{LONG, PluginDir, Samples, bound, note, scaled};

use crate::support::{fixture, loaded, quiet, watching};

/// From before the rename that publishes the file to the first reply, one plugin after another.
#[tokio::test(flavor = "multi_thread")]
async fn publish_to_callable() {
    let (dir, mut samples) = (PluginDir::new(), Samples::default());
    let registry = watching(&dir).await;
    let mut running = Vec::new();
    for n in 0..scaled(50, 200) {
        let plugin = Plugin::builder(dir.path()).namespace("Many").name(&format!("p{n}"));
        let plugin = plugin.method_async("echo", |_cx, body| async move { Ok(body) }).build().unwrap();
        let name = format!("Many/p{n}");
        // The file is published a moment later: what `start` takes before and behind that counts as well.
        let published = Instant::now();
        running.push(plugin.start().await.unwrap());
        registry.wait_for(&name, Wait::Loaded, LONG).await.unwrap();
        registry.execute(&name, "echo", "x").await.unwrap();
        samples.push(published.elapsed());
    }
    note("publish_to_callable_p50", format_args!("{:.2?}", samples.percentile(50)));
    bound("publish_to_callable_p99", samples.percentile(99), Duration::from_millis(50));
    registry.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_plugins_at_once() {
    let count = scaled(200, 1_000);
    let dir = PluginDir::new();
    let registry = watching(&dir).await;
    let begin = Instant::now();
    let _plugins = fixture(&dir, &["--count", &count.to_string()]);
    for n in 0..count {
        loaded(&registry, &format!("Many/p{n}")).await;
    }
    note("plugins_at_once", count);
    bound("all_loaded_after", begin.elapsed(), Duration::from_secs(10));
    registry.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sequential_calls() {
    let dir = PluginDir::new();
    let _plugin = fixture(&dir, &["Test/Do"]);
    let registry = quiet(&dir).await;
    registry.load("Test/Do").await.unwrap();
    let (handle, mut samples) = (registry.get("Test/Do").unwrap(), Samples::default());
    let begin = Instant::now();
    for _ in 0..scaled(5_000, 50_000) {
        let begin = Instant::now();
        handle.execute("echo", "0123456789abcdef").await.unwrap();
        samples.push(begin.elapsed());
    }
    note("calls_per_second", format_args!("{:.0}", scaled(5_000, 50_000) as f64 / begin.elapsed().as_secs_f64()));
    note("call_p50", format_args!("{:.1?}", samples.percentile(50)));
    note("call_p99", format_args!("{:.1?}", samples.percentile(99)));
    registry.close().await;
}
