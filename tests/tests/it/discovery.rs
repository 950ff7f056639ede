//! Discovery: a file event is a hint, a scan is the truth.

use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

use goplug_registry::admin::{EventKind, PluginSummary, State};
use goplug_registry::{Code, Registry};
use goplug_tests::{LONG, PluginDir, Random, bound, fast, figure, scaled, seed, skip, wait_for, wait_until};
use rustix::process::Signal;

use crate::support::{
    app, elsewhere, event, event_of, fault, fixture, loaded, quiet, republish, row, socket_in, state_of, text, watching,
};

#[tokio::test(flavor = "multi_thread")]
async fn pairs_that_the_original_joined_are_two_plugins() {
    let plugins = PluginDir::new();
    let first = fixture(&plugins, &["ab/c"]);
    // The library refuses to write one file for both; two files for the two pairs are fine.
    std::fs::rename(plugins.join("abc.pconf"), plugins.join("first.pconf")).unwrap();
    let second = fixture(&plugins, &["a/bc"]);
    let registry = watching(&plugins).await;
    for (plugin, pid) in [("ab/c", first.pid()), ("a/bc", second.pid())] {
        loaded(&registry, plugin).await;
        assert_eq!(text(registry.execute(plugin, "pid", "").await.unwrap()), pid.to_string());
    }
    assert_eq!(registry.plugins().len(), 2);
    registry.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bare_name_that_fits_two_is_refused_with_both() {
    let dir = PluginDir::new();
    let _plugins = fixture(&dir, &["a/same", "b/same"]);
    let registry = watching(&dir).await;
    for plugin in ["a/same", "b/same"] {
        loaded(&registry, plugin).await;
    }
    let error = fault(registry.execute("same", "echo", "").await);
    assert_eq!(error.code, Code::Conflict);
    assert_eq!(error.data.as_deref(), Some(&serde_json::json!({"candidates": ["a/same", "b/same"]})), "{error:?}");
    assert_eq!(registry.search("a/*").unwrap().len(), 1);
    registry.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_watched_unless_asked() {
    let dir = PluginDir::new();
    let registry = quiet(&dir).await;
    let _plugin = fixture(&dir, &["Test/Do"]);
    assert!(registry.plugins().is_empty());
    registry.load("Test/Do").await.expect("an explicit load finds the pair on disk");
    registry.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_written_file_is_read_when_it_is_whole() {
    let dir = PluginDir::new();
    let plugin = PluginDir::new();
    let _plugin = fixture(&plugin, &["Test/Do"]);
    let registry =
        Registry::builder(dir.path()).auto_discover(true).socket_dirs([plugin.path().to_owned()]).open().await.unwrap();
    let mut events = registry.events_after(0).unwrap();
    let published = plugin.join("TestDo.pconf");
    let whole = elsewhere(&published, &socket_in(&published));
    dir.write("x.pconf", &whole[..whole.len() / 2]);
    let invalid = event_of(&mut events, EventKind::Invalid).await;
    let why = registry.why("x.pconf").await;
    let broken = why.broken().unwrap_or_else(|| panic!("{why:?}"));
    assert!(broken.detail.contains("line "), "line, column and reason: {broken:?}, {invalid:?}");
    dir.write("x.pconf", whole);
    loaded(&registry, "Test/Do").await;
    registry.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_live_files_for_one_pair_are_a_conflict_with_the_same_winner() {
    let dir = PluginDir::new();
    let _first = fixture(&dir, &["Test/Do"]);
    std::fs::rename(dir.join("TestDo.pconf"), dir.join("b.pconf")).unwrap();
    let second = fixture(&dir, &["Test/Do"]);
    std::fs::rename(dir.join("TestDo.pconf"), dir.join("a.pconf")).unwrap();
    for _ in 0..3 {
        let registry = watching(&dir).await;
        let mut events = registry.events_after(0).unwrap();
        event_of(&mut events, EventKind::Conflict).await;
        loaded(&registry, "Test/Do").await;
        assert_eq!(
            text(registry.execute("Test/Do", "pid", "").await.unwrap()),
            second.pid().to_string(),
            "the lower file name"
        );
        let detail = registry.inspect("Test/Do").await.unwrap();
        assert!(detail.conflicts.iter().any(|file| file.ends_with("b.pconf")), "{detail:?}");
        registry.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_directory_may_go_and_come_back() {
    let parent = PluginDir::new();
    let plugins = parent.join("plugins");
    let behind = PluginDir::new();
    let _plugin = fixture(&behind, &["Test/Do"]);
    let builder = Registry::builder(&plugins).auto_discover(true).socket_dirs([behind.path().to_owned()]);
    let registry = builder.open().await.expect("a missing directory may come");
    for _ in 0..3 {
        let mut events = registry.events();
        std::fs::create_dir(&plugins).unwrap();
        republish(&behind, &plugins, "TestDo.pconf", &socket_in(&behind.join("TestDo.pconf")));
        let begin = Instant::now();
        event_of(&mut events, EventKind::DirectoryBack).await;
        loaded(&registry, "Test/Do").await;
        bound("directory_back_after", begin.elapsed(), Duration::from_millis(1_500));
        std::fs::remove_dir_all(&plugins).unwrap();
        event_of(&mut events, EventKind::DirectoryLost).await;
        // Nobody took the plugin away: what is loaded stays callable.
        assert_eq!(text(registry.execute("Test/Do", "echo", "still").await.unwrap()), "still");
    }
    std::fs::create_dir(&plugins).unwrap();
    wait_for("an empty directory holds nothing", LONG, || async { (!registry.is_discovered("Test/Do")).then_some(()) })
        .await;
    registry.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_extension_and_other_keys_are_respected() {
    let dir = PluginDir::new();
    let _plugin = fixture(&dir, &["--version", "1.2.3", "Test/Do"]);
    std::fs::rename(dir.join("TestDo.pconf"), dir.join("TestDo.plugin")).unwrap();
    let registry = Registry::builder(dir.path()).auto_discover(true).extension(".plugin").open().await.unwrap();
    loaded(&registry, "Test/Do").await;
    let mut events = registry.events();
    let mut value: serde_json::Value =
        serde_json::from_slice(&std::fs::read(dir.join("TestDo.plugin")).unwrap()).unwrap();
    value["Colour"] = "blue".into();
    goplug_tests::write_atomically(&dir.join("TestDo.plugin"), value.to_string().as_bytes());
    event_of(&mut events, EventKind::Changed).await;
    assert_eq!(registry.inspect("Test/Do").await.unwrap().unknown["Colour"], "blue");
    assert!(registry.is_loaded("Test/Do"), "other keys change only what is shown");
    registry.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_can_be_followed_from_any_place() {
    let dir = PluginDir::new();
    let registry = watching(&dir).await;
    let _plugin = fixture(&dir, &["Test/Do"]);
    loaded(&registry, "Test/Do").await;
    let mut events = registry.events_after(0).unwrap();
    let first = state_of(&mut events, "Test/Do", State::Discovered).await;
    let last = state_of(&mut events, "Test/Do", State::Loaded).await;
    assert!(first.seq < last.seq && last.seq <= registry.version());
    let mut again = registry.events_after(last.seq - 1).unwrap();
    assert_eq!(again.next().await.unwrap(), last);
    registry.close().await;
}

/// While the registry is stopped, more happens than the kernel's queue holds; the periodic scan is out of the way.
#[test]
fn an_overflow_is_reported_and_mended() {
    if fast() {
        return skip("an overflow", "GOPLUG_TESTS=fast");
    }
    let dir = PluginDir::new();
    let _plugin = fixture(&dir, &["Test/Do"]);
    let mut app = app(&dir, &["--rescan-ms", "60000"]);
    assert_eq!(app.ask("loaded Test/Do"), "ok");
    app.signal(Signal::STOP);
    // Twice the queue's default: each file is at least a create and a close. Where the queue is longer, as many more.
    let queue = std::fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap_or_default();
    let junk = queue.trim().parse().unwrap_or(0).clamp(20_000, 200_000);
    for n in 0..junk {
        std::fs::File::create(dir.join(&format!("junk{n}"))).unwrap();
    }
    for n in 0..10_000 {
        std::fs::remove_file(dir.join(&format!("junk{n}"))).unwrap();
    }
    std::fs::rename(dir.join("TestDo.pconf"), dir.join("Moved.pconf")).unwrap();
    let _second = fixture(&dir, &["Test/New"]);
    app.signal(Signal::CONT);
    let begin = Instant::now();
    assert_eq!(app.ask("loaded Test/New"), "ok");
    let plugins: Vec<goplug_registry::admin::PluginSummary> = serde_json::from_str(&app.ask("plugins")).unwrap();
    bound("exact_after_overflow", begin.elapsed(), Duration::from_secs(2));
    let view: Vec<_> =
        plugins.iter().map(|row| format!("{} {}", row.id().unwrap(), row.pconf.as_deref().unwrap())).collect();
    let expected =
        [("Test/Do", "Moved"), ("Test/New", "TestNew")].map(|(id, stem)| format!("{id} {}/{stem}.pconf", dir.text()));
    assert_eq!(view, expected);
    // The kernel puts the overflow behind everything that fitted into its queue.
    let reported = wait_until("the overflow is reported", LONG, || app.ask("overflows") != "0");
    bound("overflow_reported_after", reported, Duration::from_secs(2));
}

/// What the directory holds in the end decides, whatever happened before: each file that a registry may read and that
/// parses is a plugin, under the lowest file name for its pair; every other `.pconf` is invalid.
#[tokio::test(flavor = "multi_thread")]
async fn random_file_operations_end_as_the_oracle_says() {
    let operations = scaled(500, 2_000);
    let seed = seed("random_file_operations");
    let mut random = Random::new(seed);
    let parent = PluginDir::new();
    let plugins = parent.join("plugins");
    std::fs::create_dir(&plugins).unwrap();
    let registry = Registry::builder(&plugins)
        .auto_discover(true)
        .rescan_interval(Duration::from_millis(200))
        .open()
        .await
        .unwrap();
    let (mut scans, mut files, mut slowest) = (0, 0, Duration::ZERO);
    for n in 1..=operations {
        operate(&mut random, &plugins);
        // Now and then the registry sees what is in between: the operations are faster than its own scans.
        if random.percent(5) {
            registry.rescan().await.unwrap();
            scans += 1;
        }
        // What one stretch leaves behind the next may cover up.
        if n % 100 == 0 {
            let _ = std::fs::create_dir(&plugins);
            std::fs::set_permissions(&plugins, std::fs::Permissions::from_mode(0o755)).unwrap();
            let begin = Instant::now();
            files += agreed(&registry, &plugins, seed).await;
            slowest = slowest.max(begin.elapsed());
        }
    }
    figure(
        "random_file_operations",
        format_args!(
            "{operations}, {scans} scans in between; each 100 operations exact after at most {slowest:.1?}, {files} files in all"
        ),
        "exact",
    );
    registry.close().await;
}

/// Waits until the registry sees what the oracle says, and tells how many files that are.
async fn agreed(registry: &Registry, plugins: &Path, seed: u64) -> usize {
    let (begin, expected) = (Instant::now(), oracle(plugins));
    let view = || {
        let shown = |row: PluginSummary| {
            let file = row.pconf.clone().unwrap_or_default();
            let refused = matches!(row.state, State::Invalid | State::Denied);
            let kind = if refused { "invalid".to_owned() } else { row.id().unwrap().to_string() };
            (file.rsplit('/').next().unwrap_or_default().to_owned(), kind)
        };
        registry.plugins().into_iter().map(shown).collect::<BTreeMap<_, _>>()
    };
    while view() != expected {
        assert!(begin.elapsed() < LONG, "seed {seed}: {:#?} instead of {expected:#?}", view());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    expected.len()
}

fn operate(random: &mut Random, plugins: &Path) {
    let file = |random: &mut Random| {
        plugins.join(format!("f{}.{}", random.below(12), random.pick(&["pconf", "pconf", "pconf", "tmp"])))
    };
    let (one, two) = (file(random), file(random));
    let pconf = format!(
        r#"{{"Name":"p{}","NameSpace":"R","Sock":"s{}.sock","LazyLoad":true}}"#,
        random.below(8),
        random.below(3)
    );
    let _ = match random.below(20) {
        0..=5 => std::fs::write(&one, &pconf),
        6..=7 => std::fs::write(&one, &pconf[..random.below(pconf.len())]),
        8..=10 => std::fs::rename(&one, &two),
        11..=14 => std::fs::remove_file(&one),
        15 => symlink(&two, &one),
        16 => std::fs::hard_link(&one, &two),
        17 => {
            let mode = *random.pick(&[0o600, 0o644, 0o666]);
            std::fs::set_permissions(&one, std::fs::Permissions::from_mode(mode))
        }
        18 if random.percent(10) => std::fs::remove_dir_all(plugins).and_then(|()| std::fs::create_dir(plugins)),
        18 => std::fs::create_dir(plugins.join(format!("d{}.pconf", random.below(3)))),
        _ => std::fs::remove_dir(plugins.join(format!("d{}.pconf", random.below(3)))),
    };
}

/// File name to `namespace/name`, or `invalid`.
fn oracle(plugins: &Path) -> BTreeMap<String, String> {
    use std::os::unix::fs::MetadataExt;
    let mut files = BTreeMap::new();
    let mut names: Vec<_> =
        std::fs::read_dir(plugins).unwrap().flatten().map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort();
    for name in names.into_iter().filter(|name| name.ends_with(".pconf")) {
        let path = plugins.join(&name);
        let meta = std::fs::symlink_metadata(&path).unwrap();
        let usable = meta.is_file() && meta.nlink() == 1 && meta.mode() & 0o002 == 0;
        let text = if usable { std::fs::read(&path).unwrap() } else { Vec::new() };
        let pair = goplug_pconf_schema::Pconf::parse(&text).ok().filter(|_| usable).map(|pconf| pconf.id.to_string());
        if pair.as_ref().is_some_and(|pair| files.values().any(|other| other == pair)) {
            continue;
        }
        files.insert(name, pair.unwrap_or_else(|| "invalid".to_owned()));
    }
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn files_beyond_the_limit_are_ignored_and_said_so() {
    let dir = PluginDir::new();
    for n in 0..20 {
        dir.publish("Dead", &format!("p{n:02}"), "nobody.sock");
    }
    let registry = Registry::builder(dir.path()).max_plugins(10).auto_discover(true).open().await.unwrap();
    let mut events = registry.events_after(0).unwrap();
    event(&mut events, "the limit", |event| event.detail.as_deref().is_some_and(|text| text.contains("10"))).await;
    assert_eq!(registry.plugins().len(), 10);
    assert!(row(&registry, "Dead/p00").is_some());
    registry.close().await;
}
