//! How plugins end: with everything that they started, and so that it is known.

use std::time::Duration;

use goplug_registry::Code;
use goplug_registry::host::{Adopted, HostPhase, adopt};
use goplug_tests::{Baseline, LONG, PluginDir, figure, isolated, note, scaled, wait_for, wait_until};

use super::{folder, gone, is_alive, kib, kill, marked, run, shell, text};
use crate::support::fault;

/// A script whose children fork twice and detach: into sessions of their own, their parents gone, deaf to SIGTERM.
const DETACHES: &str = "for n in 1 2 3; do (setsid sh -c 'trap \"\" TERM HUP; setsid sleep 1000 & sleep 1000' > /dev/null 2>&1 &) ; done; \
    echo detached; exec sleep 1000";

async fn says(hosted: &goplug_registry::host::Hosted, line: &str) {
    let says = || async { text(hosted).await.iter().any(|text| text == line).then_some(()) };
    wait_for(&format!("it says `{line}`"), LONG, says).await;
}

#[tokio::test]
async fn what_forks_twice_and_detaches_is_gone_after_a_stop() {
    let dir = PluginDir::new();
    let mut spec = shell(&dir, "tree", DETACHES);
    let mark = format!("tree-{}", std::process::id());
    spec.env.insert("MARK".to_owned(), mark.clone());
    let hosted = run(&spec).await;
    says(&hosted, "detached").await;
    wait_until("everything runs", LONG, || marked(&mark).len() >= 7);
    let status = hosted.stop(Duration::ZERO, Duration::from_secs(5)).await.unwrap();
    assert_eq!(marked(&mark), [0; 0], "the answer comes when nothing is left");
    let exit = status.record.exit.unwrap();
    assert_eq!((exit.signal, exit.asked, status.phase), (Some(15), true, HostPhase::Ended));
    assert_eq!(
        hosted.stop(Duration::ZERO, Duration::ZERO).await.unwrap().record.exit,
        Some(exit),
        "as often as one likes"
    );
}

#[tokio::test]
async fn what_it_started_ends_with_a_plugin_that_ends_by_itself() {
    let dir = PluginDir::new();
    let mut spec = shell(&dir, "alone", &DETACHES.replace("exec sleep 1000", "echo last words >&2; exit 7"));
    let mark = format!("alone-{}", std::process::id());
    spec.env.insert("MARK".to_owned(), mark.clone());
    let hosted = run(&spec).await;
    let exit = hosted.exited().await.unwrap();
    assert_eq!((exit.code, exit.signal, exit.asked, exit.out_of_memory), (Some(7), None, false, false));
    assert_eq!(exit.stderr, ["last words"]);
    wait_until("nothing is left", LONG, || marked(&mark).is_empty());
}

#[tokio::test]
async fn one_that_forks_as_fast_as_it_can_is_ended_too() {
    let dir = PluginDir::new();
    let mut spec = shell(&dir, "storm", "trap '' TERM; echo begins; while :; do (setsid sleep 1000 &) ; done");
    let mark = format!("storm-{}", std::process::id());
    spec.env.insert("MARK".to_owned(), mark.clone());
    let hosted = run(&spec).await;
    says(&hosted, "begins").await;
    let status = hosted.stop(Duration::ZERO, Duration::from_millis(100)).await.unwrap();
    assert_eq!(marked(&mark), [0; 0]);
    assert_eq!(status.record.exit.unwrap().signal, Some(9));
}

#[tokio::test]
async fn a_plugin_gets_its_time_and_a_hurry_shortens_it() {
    let dir = PluginDir::new();
    let polite =
        run(&shell(&dir, "polite", "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.01; done")).await;
    says(&polite, "up").await;
    let status = polite.stop(Duration::ZERO, LONG).await.unwrap();
    assert_eq!(status.record.exit.unwrap().code, Some(3));
    assert!(text(&polite).await.contains(&"bye".to_owned()));

    let deaf = run(&shell(&dir, "deaf", "trap '' TERM; echo up; while :; do sleep 0.01; done")).await;
    says(&deaf, "up").await;
    let patient = {
        let hosted = deaf.0.clone();
        tokio::spawn(async move { hosted.stop(LONG, LONG).await })
    };
    wait_for("it is stopping", LONG, || async {
        (deaf.status().await.unwrap().phase == HostPhase::Stopping).then_some(())
    })
    .await;
    assert!(is_alive(deaf.record().plugin.pid));
    deaf.stop(Duration::ZERO, Duration::ZERO).await.unwrap();
    assert_eq!(patient.await.unwrap().unwrap().record.exit.unwrap().signal, Some(9));
}

#[tokio::test]
async fn a_killed_host_takes_its_plugin_along() {
    let dir = PluginDir::new();
    let hosted = run(&shell(&dir, "killed", "exec sleep 1000")).await;
    let plugin = hosted.record().plugin.pid;
    assert!(is_alive(plugin));
    kill(hosted.record().host.pid);
    let took = gone(plugin);
    note("a plugin dies after its killed host:", format_args!("{took:.1?}"));
    assert_eq!(hosted.exited().await, None, "nobody saw how");
    assert_eq!(fault(hosted.status().await).code, Code::PluginGone);
    let adopted = adopt(&folder(&dir)).await.unwrap();
    assert!(matches!(&adopted[..], [Adopted::Lost(record)] if record.instance == "killed"), "{adopted:?}");
}

#[tokio::test]
async fn how_it_ended_is_known_afterwards() {
    let dir = PluginDir::new();
    let mut spec = shell(&dir, "away", "echo last words >&2; exit 7");
    spec.linger_ms = 0;
    let hosted = run(&spec).await;
    // Nobody is there when it ends, and its host is gone when somebody comes.
    wait_until("the host is gone", LONG, || !hosted.is_hosted());
    let adopted = adopt(&folder(&dir)).await.unwrap();
    let [Adopted::Ended(record)] = &adopted[..] else { panic!("{adopted:?}") };
    let exit = record.exit.clone().unwrap();
    assert_eq!((exit.code, exit.stderr.clone()), (Some(7), vec!["last words".to_owned()]));
    assert_eq!(hosted.exited().await, Some(exit));
    goplug_registry::host::discard(&folder(&dir), record).unwrap();
    assert_eq!(std::fs::read_dir(folder(&dir)).unwrap().count(), 0);
}

#[tokio::test]
async fn a_signal_goes_by_way_of_the_host_and_a_terminated_host_stops_its_plugin() {
    let dir = PluginDir::new();
    let hosted = run(&shell(&dir, "signal", "trap 'echo usr1' USR1; echo up; while :; do sleep 0.01; done")).await;
    says(&hosted, "up").await;
    hosted.signal(10).await.unwrap();
    says(&hosted, "usr1").await;
    assert_eq!(fault(hosted.signal(99).await).code, Code::InvalidArgument);
    assert_eq!(fault(hosted.forget().await).code, Code::WrongState);
    let host = rustix::process::Pid::from_raw(hosted.record().host.pid.cast_signed()).unwrap();
    let pidfd = rustix::process::pidfd_open(host, rustix::process::PidfdFlags::empty()).unwrap();
    for signal in [rustix::process::Signal::HUP, rustix::process::Signal::PIPE] {
        rustix::process::pidfd_send_signal(&pidfd, signal).unwrap();
    }
    assert_eq!(hosted.status().await.unwrap().phase, HostPhase::Running);
    rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::TERM).unwrap();
    let exit = hosted.exited().await.unwrap();
    assert_eq!((exit.signal, exit.asked), (Some(15), true));
    assert_eq!(fault(hosted.signal(10).await).code, Code::WrongState);
    hosted.forget().await.unwrap();
    wait_until("the host is gone", LONG, || !hosted.is_hosted());
    assert_eq!(std::fs::read_dir(folder(&dir)).unwrap().count(), 0);
}

#[tokio::test]
async fn a_flood_blocks_nobody_and_costs_no_memory() {
    let dir = PluginDir::new();
    let hosted = run(&shell(&dir, "flood", "yes out & exec yes flood >&2")).await;
    let host = hosted.record().host.pid;
    wait_for("it has begun", LONG, || async { (hosted.status().await.unwrap().dropped_lines > 0).then_some(()) }).await;
    let (before, goal) = (kib(host, "VmRSS"), scaled(2_000_000, 50_000_000));
    let begin = std::time::Instant::now();
    let mut slowest = Duration::ZERO;
    let status = loop {
        let asked = std::time::Instant::now();
        let status = hosted.status().await.unwrap();
        slowest = slowest.max(asked.elapsed());
        assert!(begin.elapsed() < LONG * 10, "{status:?}");
        if status.lines > goal {
            break status;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    let grown = kib(host, "VmRSS").saturating_sub(before);
    figure("memory of a host that was flooded, more than before:", format_args!("{grown} KiB"), "1024 KiB");
    note("slowest status meanwhile:", format_args!("{slowest:.1?}"));
    assert!(grown <= 1024, "{grown} KiB");
    assert_eq!(status.cut_bytes, 0);
    let lines = hosted.logs(0).await.unwrap();
    // Each ring has room for a thousand of such lines.
    assert!((100..=2 * 65_536 / 64).contains(&lines.len()), "{}", lines.len());
    assert!(lines.is_sorted_by(|a, b| a.number < b.number));
    hosted.stop(Duration::ZERO, LONG).await.unwrap();
    let status = hosted.status().await.unwrap();
    let kept = u64::try_from(hosted.logs(0).await.unwrap().len()).unwrap();
    assert_eq!(status.lines - status.dropped_lines, kept, "every line is kept or counted: {status:?}");
}

#[test]
fn nothing_is_left_of_hosts_that_have_ended() {
    isolated("hosts::endings::nothing_is_left_of_hosts_that_have_ended", || {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(2).thread_keep_alive(Duration::from_millis(200)).enable_all();
        let runtime = builder.build().unwrap();
        runtime.block_on(async {
            let dir = PluginDir::new();
            let life = |n: u64| {
                let spec = shell(&dir, &format!("life-{n}"), "exec sleep 1000");
                async move {
                    let hosted = run(&spec).await;
                    hosted.stop(Duration::ZERO, LONG).await.unwrap();
                    hosted.forget().await.unwrap();
                }
            };
            life(0).await;
            let baseline = Baseline::now();
            for n in 1..=scaled(5, 200) {
                life(n).await;
            }
            // One whose future is dropped: neither host nor plugin is left.
            let spec = shell(&dir, "dropped", "exec sleep 1000");
            let _ = tokio::time::timeout(Duration::from_micros(200), async { drop(run(&spec).await) }).await;
            baseline.is_back();
        });
    });
}
