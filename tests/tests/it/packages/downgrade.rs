//! An older version, or another one of the same number, takes nobody's place unless somebody says so; what was installed is
//! known even when somebody has removed it by hand.

use std::fs;
use std::os::unix::fs::symlink;

use goplug_registry::admin::State;
use goplug_registry::{Code, Install, Reason, Registry, Upgrade};
use goplug_tests::PluginDir;
use serde_json::json;

use super::verified::{PLUGIN, pack, unsigned};
use crate::supervision::Home;
use crate::support::{fault, row};

const TILOTECH: &str = env!("CARGO_BIN_EXE_tilotech");

fn upgrade(downgrade: bool) -> Upgrade {
    Upgrade { allow_unsigned: true, downgrade, ..Upgrade::default() }
}

async fn version(registry: &Registry) -> String {
    registry.rescan().await.unwrap();
    row(registry, PLUGIN).unwrap().version.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn six_ways_back_are_refused() {
    let (home, others) = (Home::new(), PluginDir::new());
    let program = fs::read(TILOTECH).unwrap();
    let package = |dir: &PluginDir, version: &str| pack(dir, version, &program, &json!({"wire": "tilotech"}));
    let (one, two) = (package(&home.dir, "1.0.0"), package(&home.dir, "2.0.0"));
    let another = pack(&others, "2.0.0", b"#!/bin/sh\n", &json!({}));
    let builder = home.builder().auto_discover(true).trust_dir(home.dir.join(".trust"));
    let registry = builder.open().await.unwrap();
    registry.install(&one, unsigned()).await.unwrap();
    registry.install(&two, unsigned()).await.unwrap();
    assert_eq!(version(&registry).await, "2.0.0");

    // 1: an older one, without a word about it.
    let older = fault(registry.upgrade(PLUGIN, Some(&one), upgrade(false)).await);
    assert!(older.code == Code::WrongState && older.message.contains("--downgrade"), "{older}");
    // 2 and 3: the same version with another digest.
    assert_eq!(fault(registry.install(&another, unsigned()).await).code, Code::Conflict);
    assert_eq!(fault(registry.upgrade(PLUGIN, Some(&another), upgrade(true)).await).code, Code::Conflict);

    // 4: somebody exchanges the link, which no registry did.
    let link = home.dir.join(PLUGIN);
    let point = |version: &str| {
        fs::remove_file(&link).unwrap();
        symlink(format!("../.goplug/versions/Test/Do/{version}"), &link).unwrap();
    };
    point("1.0.0");
    registry.rescan().await.unwrap();
    let denied = fault(registry.start_plugin(PLUGIN).await);
    assert_eq!((denied.code, denied.reason), (Code::Denied, Some(Reason::Altered)), "{denied}");
    assert!(denied.message.contains("1.0.0 is older than 2.0.0"), "{denied}");
    assert_eq!(row(&registry, PLUGIN).unwrap().state, State::Denied);
    point("2.0.0");
    registry.rescan().await.unwrap();
    registry.start_plugin(PLUGIN).await.unwrap();

    // Asked for, each way is open: to the older one, with a process or without, and forth again.
    assert_eq!(registry.rollback(PLUGIN, false).await.unwrap().to, "1.0.0");
    registry.stop_plugin(PLUGIN).await.unwrap();
    registry.start_plugin(PLUGIN).await.unwrap();
    assert_eq!(registry.upgrade(PLUGIN, Some(&two), upgrade(false)).await.unwrap().to, "2.0.0");
    assert_eq!(registry.upgrade(PLUGIN, Some(&one), upgrade(true)).await.unwrap().to, "1.0.0");
    assert_eq!(registry.upgrade(PLUGIN, None, upgrade(false)).await.unwrap().to, "2.0.0");
    registry.stop_plugin(PLUGIN).await.unwrap();

    // 5 and 6: somebody removes everything, and offers the same version with another digest, or an older one.
    fs::remove_dir_all(home.dir.join(".goplug/versions/Test")).unwrap();
    fs::remove_dir_all(home.dir.join("Test")).unwrap();
    registry.rescan().await.unwrap();
    for offered in [&another, &one] {
        for dry_run in [true, false] {
            let refused = fault(registry.install(offered, Install { dry_run, ..unsigned() }).await);
            assert_eq!(refused.reason, Some(Reason::Altered), "{offered:?}: {refused}");
            assert!(!home.dir.join("Test").exists());
        }
    }
    registry.install(&two, unsigned()).await.unwrap();
    registry.start_plugin(PLUGIN).await.unwrap();
    registry.stop_plugin(PLUGIN).await.unwrap();

    // Who removes it as it is meant to be removed begins anew.
    registry.remove(PLUGIN, false).await.unwrap();
    registry.install(&one, unsigned()).await.unwrap();
    assert_eq!(version(&registry).await, "1.0.0");
    registry.close().await;
}
