//! Two registries of one directory: one keeps the processes, the other one sees and calls them.

use goplug_registry::Code;
use goplug_registry::admin::State;
use goplug_tests::{LONG, Process, Ready, wait_for, wait_until};
use rustix::process::Signal;
use serde_json::json;

use super::{Home, pid, runs};
use crate::support::{APP, GOPLUG_HOST, command, fault, loaded, row};

/// An application that watches the directory, in a process of its own.
fn keeper(home: &Home) -> Process {
    let mut app = command(APP);
    app.arg(home.dir.path()).arg("--hosts").arg(home.hosts()).env("GOPLUG_HOST", GOPLUG_HOST);
    Process::start(&mut app, Ready::Line("ready"))
}

#[tokio::test(flavor = "multi_thread")]
async fn only_one_registry_keeps_the_processes_of_a_directory() {
    let home = Home::new();
    // Each start of a process of it leaves a line.
    let starts = home.dir.join("starts");
    let count = || std::fs::read_to_string(&starts).unwrap_or_default().lines().count();
    home.install("Test/Do", &["--activations", starts.to_str().unwrap()], &json!({}));
    let mut first = keeper(&home);
    wait_until("it is started", LONG, || first.ask("loaded Test/Do") == "ok" && count() == 1);
    let second = home.builder().auto_discover(true).rescan_interval(std::time::Duration::from_millis(100));
    let second = second.open().await.unwrap();
    loaded(&second, "Test/Do").await;
    let before = pid(&second, "Test/Do").await;
    let says_who = format!("pid {}", first.pid());
    let kept = second.inspect("Do").await.unwrap().process.unwrap();
    assert_eq!((kept.kept_by, kept.pid), (Some(first.pid()), Some(before)));
    assert!(format!("{:?}", second.why("Do").await.links).contains(&says_who));
    // One that only looks has never asked for it, and says so too; so does whoever looks after the machine.
    let third = home.builder().open().await.unwrap();
    third.rescan().await.unwrap();
    assert_eq!(third.inspect("Do").await.unwrap().process.unwrap().kept_by, Some(first.pid()));
    third.close().await;
    let checks = goplug_registry::doctor(home.dir.path()).await;
    let keeper = checks.iter().find(|check| check.name == "keeper").unwrap();
    assert!(keeper.detail.contains(&says_who), "{keeper:?}");
    let refusals = [
        second.start_plugin("Do").await,
        second.stop_plugin("Do").await,
        second.restart_plugin("Do").await,
        second.disable("Do").await,
        second.enable("Do").await,
    ];
    for refusal in refusals {
        let refusal = fault(refusal);
        assert!(refusal.code == Code::Conflict && refusal.message.contains(&says_who), "{refusal:?}");
    }
    assert!(runs(before) && row(&second, "Test/Do").unwrap().state == State::Loaded);

    // It dies: the one that keeps it starts it, once, and the other one calls that.
    crate::hosts::kill(before);
    let next = wait_for("another process", LONG, || async {
        let answer = second.execute("Test/Do", "pid", "").await.ok()?;
        crate::support::text(answer).parse::<u32>().ok().filter(|pid| *pid != before)
    });
    let next = next.await;
    assert_eq!(first.ask("loaded Test/Do"), "ok");
    assert_eq!(first.ask("execute Test/Do pid x"), next.to_string());
    assert_eq!(count(), 2, "it was started once again");

    // The one that keeps it stands still, and keeps it all the same; killed, it makes room.
    first.signal(Signal::STOP);
    assert_eq!(fault(second.stop_plugin("Do").await).code, Code::Conflict);
    first.kill();
    wait_for("the second keeps it", LONG, || async {
        second.inspect("Do").await.unwrap().process.unwrap().kept_by.is_none().then_some(())
    })
    .await;
    assert_eq!(pid(&second, "Test/Do").await, next, "it was not started again for that");
    crate::hosts::kill(next);
    loaded(&second, "Test/Do").await;
    wait_until("it is started by the second", LONG, || count() == 3);
    second.stop_plugin("Do").await.unwrap();
    second.close().await;
}
