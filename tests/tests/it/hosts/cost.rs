//! What a host costs: `cargo test --release -p goplug-tests --test it hosts::cost -- --nocapture`.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use goplug_tests::{PluginDir, Samples, bound, deep, figure, scaled};

use super::{kib, run, spec};

#[tokio::test]
async fn a_host_is_small_and_starts_fast() {
    let dir = PluginDir::new();
    let (mut hosted, mut bare) = (Samples::default(), Samples::default());
    for n in 0..scaled(20, 200) {
        let begin = Instant::now();
        let plugin = run(&spec(&dir, &format!("cost-{n}"), "/bin/sleep", &["1000"])).await;
        hosted.push(begin.elapsed());
        drop(plugin);
        let begin = Instant::now();
        let mut child = Command::new("/bin/sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap();
        bare.push(begin.elapsed());
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let (with, without) = (hosted.percentile(50), bare.percentile(50));
    bound("start under a host, more than without, p50", with.saturating_sub(without), Duration::from_millis(10));
    let plugin = run(&spec(&dir, "memory", "/bin/sleep", &["1000"])).await;
    plugin.status().await.unwrap();
    let host = plugin.record().host.pid;
    let rollup = std::fs::read_to_string(format!("/proc/{host}/smaps_rollup")).unwrap();
    let of = |name: &str| {
        let line = rollup.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    };
    let own = of("Private_Clean") + of("Private_Dirty");
    figure("memory of a host that no other process shares:", format_args!("{own} KiB"), "512 KiB");
    figure("resident, shared libraries included:", format_args!("{} KiB", kib(host, "VmRSS")), "4096 KiB");
    if deep() {
        assert!(own <= 512 && kib(host, "VmRSS") <= 4096, "{rollup}");
    }
}
