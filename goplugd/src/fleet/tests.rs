//! The directories of a fleet come and go.

use std::path::Path;

use goplug_pconf_schema::settings::Settings;

use super::*;
use crate::settings::registries;

fn settings(directories: &[&Path]) -> Settings {
    let plugin_dirs = directories.iter().map(|directory| directory.to_path_buf()).collect();
    Settings { plugin_dirs, auto_discover: false, ..Settings::default() }
}

#[tokio::test]
async fn a_reload_opens_closes_and_keeps_and_a_bad_one_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let [a, b, c] = ["a", "b", "c"].map(|name| folder.path().join(name));
    let fleet = Fleet::new();
    let apply = async |settings: Settings| fleet.apply(registries(&settings), Duration::ZERO).await;

    apply(settings(&[&a, &b])).await.unwrap();
    let kept = fleet.members()[1].clone();
    apply(settings(&[&b, &c])).await.unwrap();
    assert_eq!(fleet.directories(), [b.clone(), c.clone()]);
    assert!(Arc::ptr_eq(&kept, &fleet.members()[0]), "a directory that stayed was opened again");

    let bad = Settings { extension: "no dot".into(), ..settings(&[&a, &b]) };
    let problems = apply(bad).await.unwrap_err();
    assert!(problems[0].message.contains("no dot"), "{problems:?}");
    assert_eq!(fleet.directories(), [b, c]);

    fleet.close(Duration::ZERO).await;
    assert!(fleet.directories().is_empty());
}

#[tokio::test]
async fn a_fleet_without_the_plugin_says_so_and_reads_no_file_of_others() {
    let folder = tempfile::tempdir().unwrap();
    let fleet = Fleet::new();
    let absent = PluginId::parse("x/absent").unwrap();
    assert_eq!(fleet.load(&absent).await.unwrap_err().code, Code::NotFound);
    fleet.apply(registries(&settings(&[folder.path()])), Duration::ZERO).await.unwrap();
    assert_eq!(fleet.ping(&absent).await.unwrap_err().code, Code::NotFound);

    let inside = folder.path().join("absent.pconf");
    assert!(!fleet.why(&inside.to_string_lossy()).await.unwrap().callable);
    for outside in [
        "/etc/passwd".into(),
        folder.path().join("../x.pconf"),
        folder.path().join("sub/x.pconf"),
        folder.path().join(".."),
    ] {
        let refused = fleet.why(&outside.to_string_lossy()).await.unwrap_err();
        assert_eq!(refused.code, Code::NotFound, "{outside:?}");
    }
}
