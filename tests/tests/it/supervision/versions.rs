//! Several versions side by side: upgrade, rollback, pin; bad versions change nothing; notifications change over.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use goplug_registry::admin::Difference;
use goplug_registry::{Against, CallOptions, Code, Install, Registry, Subscribe, Upgrade};
use goplug_tests::{LONG, bound, figure, wait_for, wait_until};
use serde_json::{Value, json};

use super::{Home, fixture_manifest, pid, runs};
use crate::support::{event, fault, loaded, row};

/// What takes longer than this to come up is no bad upgrade that is rolled back at once.
const ROLLED_BACK_WITHIN: Duration = Duration::from_secs(1);

impl Home {
    /// The folder of a version that can be installed.
    fn source(&self, version: &str, args: &[&str], more: &Value) -> PathBuf {
        let mut more = more.clone();
        more["version"] = version.into();
        let args: Vec<_> = ["--version", version].iter().chain(args).copied().collect();
        // Below a folder that is not looked at.
        let name = format!(".sources/{version}");
        self.write(&name, &fixture_manifest(&self.dir, "Test/Do", &args, &more).to_string());
        self.dir.join(&name)
    }

    /// A registry with version 1.0.0 installed and loaded.
    async fn with_one(&self) -> Registry {
        let one = self.source("1.0.0", &[], &json!({}));
        let registry = self.watching().await;
        registry.install(&one, Install::default()).await.unwrap();
        loaded(&registry, "Test/Do").await;
        registry
    }

    fn link(&self) -> String {
        std::fs::read_link(self.dir.join("Test/Do")).unwrap().file_name().unwrap().to_str().unwrap().to_owned()
    }
}

fn folder_of(pid: u32) -> PathBuf {
    std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap()
}

fn version(registry: &Registry) -> Option<String> {
    row(registry, "Test/Do").unwrap().version
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_follow_one_another_and_each_keeps_its_folder() {
    let home = Home::new();
    let two = home.source("1.1.0", &[], &json!({}));
    let three = home.source("2.0.0", &[], &json!({}));
    let registry = home.with_one().await;
    let first = pid(&registry, "Test/Do").await;
    assert!(folder_of(first).ends_with(".goplug/versions/Test/Do/1.0.0"), "{:?}", folder_of(first));

    let done = registry.upgrade("Test/Do@^1", Some(&two), Upgrade::default()).await.unwrap();
    let second = pid(&registry, "Test/Do").await;
    assert_eq!((done.from.as_str(), done.to.as_str(), done.pid), ("1.0.0", "1.1.0", Some(second)));
    assert!(first != second && folder_of(second).ends_with("Do/1.1.0"));
    assert_eq!((version(&registry).as_deref(), home.link().as_str()), (Some("1.1.0"), "1.1.0"));
    wait_until("the process before has ended", LONG, || !runs(first));
    // What runs goes on when nothing is to be done.
    let again = registry.upgrade("Test/Do", None, Upgrade::default()).await.unwrap();
    assert_eq!((again.from, again.to), ("1.1.0".to_owned(), "1.1.0".to_owned()));
    assert_eq!(pid(&registry, "Test/Do").await, second);

    // Pinned, a newer one lies beside, whoever installs it.
    assert_eq!(fault(registry.pin("Do", Some("^2")).await).code, Code::Conflict);
    registry.pin("Do", Some("^1")).await.unwrap();
    let beside = registry.install(&three, Install::default()).await.unwrap();
    assert!(!beside.current && beside.note.unwrap().contains("pinned to `^1`"));
    assert_eq!(fault(registry.upgrade("Do", Some(&three), Upgrade::default()).await).code, Code::WrongState);
    assert_eq!(registry.upgrade("Do", None, Upgrade::default()).await.unwrap().to, "1.1.0");
    let shown = row(&registry, "Test/Do").unwrap();
    assert_eq!(
        (shown.versions, shown.pinned.as_deref()),
        (["1.0.0", "1.1.0", "2.0.0"].map(str::to_owned).to_vec(), Some("^1"))
    );
    let missing = fault(registry.get("Test/Do@^2"));
    assert!(missing.code == Code::WrongState && missing.message.contains("version 2.0.0 is installed"), "{missing:?}");

    // Without the pin it is the newest that an upgrade leads to; and back, and back again.
    registry.pin("Do", None).await.unwrap();
    let dry = registry.upgrade("Do", None, Upgrade { dry_run: true, ..Upgrade::default() }).await.unwrap();
    assert_eq!((dry.to.as_str(), home.link().as_str()), ("2.0.0", "1.1.0"));
    registry.upgrade("Do", None, Upgrade::default()).await.unwrap();
    let third = pid(&registry, "Test/Do").await;
    assert!(folder_of(third).ends_with("Do/2.0.0") && registry.get("Test/Do@^2").is_ok());
    for expected in ["1.1.0", "2.0.0", "1.1.0"] {
        assert_eq!(registry.rollback("Do", false).await.unwrap().to, expected);
        assert_eq!((version(&registry).as_deref(), home.link().as_str()), (Some(expected), expected));
    }
    let older = fault(registry.upgrade("Do", Some(&home.source("0.9.0", &[], &json!({}))), Upgrade::default()).await);
    assert!(older.code == Code::WrongState && older.message.contains("0.9.0 is older"), "{older:?}");

    assert_eq!(fault(registry.remove_version("Do", "1.1.0", false).await).code, Code::WrongState);
    registry.remove_version("Do", "1.0.0", false).await.unwrap();
    assert_eq!(row(&registry, "Test/Do").unwrap().versions, ["1.1.0", "2.0.0"]);
    assert_eq!(fault(registry.remove("Do", false).await).code, Code::WrongState);
    registry.stop_plugin("Do").await.unwrap();
    registry.remove("Do", false).await.unwrap();
    assert!(home.dir.join("Test").symlink_metadata().is_err());
    assert!(!home.dir.join(".goplug/versions/Test").exists());
    registry.close().await;
}

/// A folder that an operator has put there is upgraded as well: it becomes a version like the others.
#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_was_put_there_is_followed_by_a_version_and_comes_back() {
    let home = Home::new();
    let two = home.source("1.1.0", &[], &json!({}));
    home.install("Test/Do", &["--version", "1.0.0"], &json!({}));
    let registry = home.watching().await;
    loaded(&registry, "Test/Do").await;
    let before = pid(&registry, "Test/Do").await;
    registry.upgrade("Do", Some(&two), Upgrade::default()).await.unwrap();
    assert_eq!((home.link().as_str(), version(&registry).as_deref()), ("1.1.0", Some("1.1.0")));
    wait_until("the process before has ended", LONG, || !runs(before));
    registry.rollback("Do", false).await.unwrap();
    assert_eq!((home.link().as_str(), version(&registry).as_deref()), ("1.0.0", Some("1.0.0")));
    assert!(folder_of(pid(&registry, "Test/Do").await).ends_with(".goplug/versions/Test/Do/1.0.0"));
    registry.close().await;
}

/// Where no process runs there is nothing to try; a registry that comes later starts what is current.
#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_run_is_only_named() {
    let home = Home::new();
    let (one, two) = (home.source("1.0.0", &[], &json!({})), home.source("1.1.0", &[], &json!({})));
    let quiet = home.builder().open().await.unwrap();
    quiet.install(&one, Install::default()).await.unwrap();
    let done = quiet.upgrade("Do", Some(&two), Upgrade::default()).await.unwrap();
    assert_eq!((done.to.as_str(), done.pid, home.link().as_str()), ("1.1.0", None, "1.1.0"));
    let rule = Some("err>1%".parse().unwrap());
    let watched = quiet.upgrade("Do", None, Upgrade { rollback_on: rule, ..Upgrade::default() }).await;
    assert!(fault(watched).message.contains("a rule takes a daemon"));
    quiet.close().await;
    let registry = home.watching().await;
    loaded(&registry, "Test/Do").await;
    assert_eq!(version(&registry).as_deref(), Some("1.1.0"));
    // What is kept on disk is kept by a restart: the version before is known.
    assert_eq!(registry.rollback("Do", false).await.unwrap().to, "1.0.0");
    registry.close().await;
}

/// 20 of 20 bad versions change nothing: callers notice none of them, and what was current is so within a second.
#[tokio::test(flavor = "multi_thread")]
async fn twenty_bad_upgrades_change_nothing() {
    let home = Home::new();
    let registry = Arc::new(home.with_one().await);
    let before = pid(&registry, "Test/Do").await;
    let (over, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let (registry, over, calls) = (Arc::clone(&registry), Arc::clone(&over), Arc::clone(&calls));
            tokio::spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    // Not declared idempotent: never asked twice.
                    assert_eq!(registry.execute("Test/Do", "once", "x").await.unwrap(), "x");
                    calls.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            })
        })
        .collect();
    let fails = home.dir.join("fails");
    std::fs::write(&fails, "").unwrap();
    let hook = json!({"hooks": {"pre_start": ["/bin/false"]}});
    let script = |text: &str| json!({"exec": {"command": "/bin/sh", "args": ["-c", text]}});
    let missing = json!({"exec": {"command": "no-such-program-anywhere"}});
    let requires = json!({"requires": ["Test/Nobody@^1"]});
    let mut slowest = Duration::ZERO;
    for n in 0..20 {
        let (args, more): (&[&str], Value) = match n % 8 {
            0 => (&[], script("exit 1")),
            1 => (&["--activator-fails", fails.to_str().unwrap()], json!({})),
            2 => (&["--activator-exits"], json!({})),
            3 => (&[], hook.clone()),
            4 => (&[], missing.clone()),
            5 => (&[], requires.clone()),
            6 => (&[], script("kill -9 $$")),
            // It says that it is another plugin.
            _ => (&["Test/Another"], script("")),
        };
        let more = if n % 8 == 7 {
            json!({"exec": {"command": crate::support::FIXTURE, "args": [home.dir.text(), "Test/Another"]}})
        } else {
            more
        };
        let source = home.source(&format!("2.{n}.0"), args, &more);
        let began = Instant::now();
        let error = fault(registry.upgrade("Test/Do", Some(&source), Upgrade::default()).await);
        let took = began.elapsed();
        assert_ne!(error.message, "", "{n}");
        slowest = slowest.max(took);
        assert_eq!(home.link(), "1.0.0", "{n}: {error:?}");
        assert_eq!(pid(&registry, "Test/Do").await, before, "{n}: {error:?}");
        assert_eq!(version(&registry).as_deref(), Some("1.0.0"), "{n}");
    }
    over.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await.expect("no call failed");
    }
    let calls = calls.load(Ordering::Relaxed);
    assert!(calls > 100, "{calls}");
    bound("bad_upgrade_rolled_back", slowest, ROLLED_BACK_WITHIN);
    figure(
        "bad_upgrades",
        format_args!("20 of 20 rolled back, slowest {slowest:?}, {calls} calls, 0 failed"),
        "20 of 20 within 1 s",
    );
    // One that is good follows all the same.
    let good = home.source("3.0.0", &[], &json!({}));
    registry.upgrade("Test/Do", Some(&good), Upgrade::default()).await.unwrap();
    assert_ne!(pid(&registry, "Test/Do").await, before);
    registry.close().await;
}

/// One call, piece by piece.
async fn exchanged(registry: &Registry, method: &str) -> Result<(), goplug_registry::Error> {
    let mut call = registry.exchange("Test/Do", method, CallOptions::default()).await?;
    call.send("x").await?;
    call.finish().await?;
    while call.next().await?.is_some() {}
    Ok(())
}

/// A version that comes up and fails its calls is taken back by its rule, and only then.
#[tokio::test(flavor = "multi_thread")]
async fn a_version_whose_calls_fail_is_taken_back() {
    let home = Home::new();
    let registry = home.with_one().await;
    let rule = |text: &str| Upgrade { rollback_on: Some(text.parse().unwrap()), ..Upgrade::default() };
    // Faults of callers are none of the plugin's.
    let fine = home.source("1.1.0", &[], &json!({}));
    registry.upgrade("Do", Some(&fine), rule("err>1%")).await.unwrap();
    for _ in 0..60 {
        _ = fault(registry.execute("Test/Do", "no-such-method", "").await);
        _ = registry.execute("Test/Do", "echo", "x").await.unwrap();
    }
    assert_eq!(version(&registry).as_deref(), Some("1.1.0"));

    let mut slowest = Duration::ZERO;
    // The last ones are found out by calls whose bodies go piece by piece.
    for n in 0..6 {
        let is_streamed = n >= 4;
        let bad = home.source(&format!("2.{n}.0"), &["--broken"], &json!({}));
        let mut events = registry.events();
        registry.upgrade("Do", Some(&bad), rule("err>1%")).await.unwrap();
        assert_eq!(version(&registry), Some(format!("2.{n}.0")));
        let began = Instant::now();
        let mut failed = 0;
        let back = async {
            while version(&registry).as_deref() != Some("1.1.0") {
                failed += u64::from(match is_streamed {
                    false => registry.execute("Test/Do", "once", "x").await.is_err(),
                    true => exchanged(&registry, "once").await.is_err(),
                });
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(LONG, back).await.expect("the version before");
        slowest = slowest.max(began.elapsed());
        assert!(failed >= 3, "{failed}");
        event(&mut events, "it is told", |event| {
            event
                .detail
                .as_ref()
                .is_some_and(|text| text.contains("is taken back, 1.1.0 serves again") && text.contains("err>1%"))
        })
        .await;
        assert_eq!(
            (home.link().as_str(), registry.execute("Test/Do", "once", "x").await.unwrap()),
            ("1.1.0", "x".into())
        );
    }
    bound("failing_version_taken_back", slowest, ROLLED_BACK_WITHIN);
    figure(
        "failing_versions",
        format_args!("6 of 6 taken back, slowest {slowest:?} after the first call"),
        "within 1 s",
    );
    registry.close().await;
}

/// Whoever hears is told of the new epoch and of no gap; what the plugin was told is acknowledged was heard.
#[tokio::test(flavor = "multi_thread")]
async fn notifications_change_over_without_a_gap() {
    let home = Home::new();
    let registry = Arc::new(home.with_one().await);
    let heard: Arc<Mutex<Vec<String>>> = Arc::default();
    let list = Arc::clone(&heard);
    let handler = move |notice: goplug_registry::Notice| {
        list.lock().unwrap().extend(notice.position.map(|position| position.to_string()));
        async { Ok(()) }
    };
    let how = Subscribe { name: Some("listener".into()) };
    let subscription = registry.register_callback("Test/Do", "events", how, handler).await.unwrap();
    let mut observer = registry.observe("Test/Do", "events", None).await.unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let (again, ended) = (Arc::clone(&registry), Arc::clone(&over));
    let notifier = tokio::spawn(async move {
        let mut positions = Vec::new();
        while !ended.load(Ordering::Relaxed) {
            let answer = again.execute("Test/Do", "notify-acked", "events").await.expect("no call failed");
            positions.push(String::from_utf8(answer.to_vec()).unwrap());
        }
        positions
    });
    let mut epochs = HashSet::new();
    for n in 1..=goplug_tests::scaled(4, 20) {
        let next = home.source(&format!("1.{n}.0"), &[], &json!({}));
        registry.upgrade("Test/Do", Some(&next), Upgrade::default()).await.unwrap();
        let enough = heard.lock().unwrap().len() + 20;
        wait_for("notifications of the new process", LONG, || async {
            (heard.lock().unwrap().len() >= enough).then_some(())
        })
        .await;
    }
    over.store(true, Ordering::Relaxed);
    let acknowledged = notifier.await.unwrap();
    let heard = heard.lock().unwrap().clone();
    let lost: Vec<_> = acknowledged.iter().filter(|position| !heard.contains(position)).collect();
    assert!(lost.is_empty(), "acknowledged and not heard: {lost:?} of {}", acknowledged.len());
    // Each epoch in one piece, without a number missing.
    let mut last: Option<(String, u64)> = None;
    for position in &heard {
        let (epoch, seq) = position.split_once(':').unwrap();
        let seq: u64 = seq.parse().unwrap();
        match &last {
            Some((before, at)) if before == epoch => assert_eq!(seq, at + 1, "{position}"),
            _ => assert!(epochs.insert(epoch.to_owned()), "{epoch} came back"),
        }
        last = Some((epoch.to_owned(), seq));
    }
    let (mut messages, mut changes) = (0_u64, 0);
    while let Ok(Some(item)) = tokio::time::timeout(Duration::from_millis(200), observer.next()).await {
        let shown = format!("{item:?}");
        assert!(!shown.starts_with("Gap"), "{shown}");
        changes += u64::from(shown.starts_with("Epoch"));
        messages += 1;
    }
    assert!(messages > 0 && changes > 0, "{changes} changes in {messages} items");
    drop(subscription);
    figure(
        "notifications_across_upgrades",
        format_args!("{} acknowledged, {} epochs", acknowledged.len(), epochs.len()),
        "0 lost",
    );
    registry.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_version_changes_is_told_before() {
    let home = Home::new();
    let registry = home.with_one().await;
    let before = pid(&registry, "Test/Do").await;
    let paths = |found: &[Difference]| found.iter().map(|one| one.path.clone()).collect::<Vec<_>>();
    let activated = home.dir.join("activated");
    let args = ["--more", "--activations", activated.to_str().unwrap()];
    let two = home.source("1.1.0", &args, &json!({"idle_stop": "1h"}));
    let diff = registry.diff("Test/Do", Against::Folder(two.clone())).await.unwrap();
    assert_eq!((diff.from.as_str(), diff.to.as_str(), diff.notes.len()), ("1.0.0", "1.1.0", 0), "{diff:?}");
    let found = paths(&diff.differences);
    for path in [
        "manifest/version",
        "manifest/idle_stop",
        "manifest/exec/args",
        "methods/more",
        "methods/add/input/properties/a/format",
    ] {
        assert!(found.iter().any(|found| found == path), "{path}: {found:#?}");
    }
    assert_eq!(found.len(), 5, "{found:#?}");
    assert!(!activated.exists(), "it was asked, not activated");
    assert_eq!((pid(&registry, "Test/Do").await, home.link().as_str()), (before, "1.0.0"));

    registry.upgrade("Do", Some(&two), Upgrade::default()).await.unwrap();
    let back = registry.diff("Do", Against::Version("1.0.0".into())).await.unwrap();
    assert_eq!((back.from.as_str(), paths(&back.differences)), ("1.1.0", found));
    assert!(registry.diff("Do", Against::Newest).await.unwrap().differences.is_empty());
    assert_eq!(fault(registry.diff("Do", Against::Version("9.0.0".into())).await).code, Code::NotFound);
    let broken = home.source("1.2.0", &[], &json!({"exec": {"command": "/bin/sh", "args": ["-c", "echo oh; exit 1"]}}));
    let diff = registry.diff("Do", Against::Folder(broken)).await.unwrap();
    assert!(diff.notes[0].contains("version 1.2.0: it does not come up"), "{diff:?}");
    let processes = || {
        std::fs::read_dir(home.hosts())
            .unwrap()
            .flatten()
            .filter(|entry| Path::new(&entry.path()).extension().is_some_and(|kind| kind == "json"))
            .count()
    };
    wait_until("nothing is left of what was only asked", LONG, || processes() == 1);
    registry.close().await;
}
