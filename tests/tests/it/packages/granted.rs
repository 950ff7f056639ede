//! Permissions are granted before anything is installed: what nobody has granted is asked, what was granted is not.

use std::path::{Path, PathBuf};

use goplug_registry::{Code, Grant, Install, Reason, Registry, Upgrade};
use goplug_tests::PluginDir;
use serde_json::{Value, json};

use crate::support::{fault, goplugctl};

const PLUGIN: &str = "test/do";

/// A folder whose manifest asks for `permissions`.
fn folder(dir: &PluginDir, version: &str, permissions: &Value) -> PathBuf {
    let folder = dir.join(&format!(".sources/{version}"));
    std::fs::create_dir_all(&folder).unwrap();
    let manifest = json!({
        "name": "do", "namespace": "test", "version": version, "permissions": permissions,
        "source": {"mode": "local_exec", "path": "do"}, "lazy_load": true,
    });
    std::fs::write(folder.join("plugin.json"), manifest.to_string()).unwrap();
    crate::cli::versions::program(&folder.join("do"), version);
    folder
}

fn package(dir: &PluginDir, version: &str, permissions: &Value) -> PathBuf {
    let folder = folder(dir, version, permissions);
    let out = folder.with_extension("plg");
    let packed = goplugctl(&["pack", folder.to_str().unwrap(), "--out", out.to_str().unwrap()]);
    assert_eq!(packed.code, 0, "{packed:?}");
    out
}

fn names(names: &[&str]) -> Grant {
    Grant::Names(names.iter().map(|name| (*name).to_owned()).collect())
}

async fn installed(registry: &Registry, source: &Path, grant: Grant) -> Result<Vec<String>, goplug_registry::Error> {
    let how = Install { allow_unsigned: true, grant, ..Install::default() };
    Ok(registry.install(source, how).await?.asked.keys().cloned().collect())
}

async fn upgraded(registry: &Registry, source: &Path, grant: Grant) -> Result<String, goplug_registry::Error> {
    let how = Upgrade { allow_unsigned: true, grant, ..Upgrade::default() };
    Ok(registry.upgrade(PLUGIN, Some(source), how).await?.to)
}

#[tokio::test(flavor = "multi_thread")]
async fn new_permissions_are_asked_and_fewer_are_not() {
    for make in [folder, package] {
        let dir = PluginDir::new();
        let registry = Registry::builder(dir.path()).trust_dir(dir.join(".trust")).open().await.unwrap();
        let one = make(&dir, "1.0.0", &json!({"files": ["/data"]}));
        let two = make(&dir, "1.1.0", &json!({"files": ["/data"], "net": true}));
        let three = make(&dir, "1.2.0", &json!({"net": ["example.org"]}));
        let four = make(&dir, "1.3.0", &json!({"files": ["/data", "/etc"], "net": true}));

        let refused = fault(installed(&registry, &one, Grant::Nothing).await);
        assert_eq!((refused.code, refused.reason), (Code::Denied, Some(Reason::NotGranted)), "{refused}");
        assert!(refused.message.contains(r#"files ["/data"]"#), "{refused}");
        assert_eq!(refused.data.unwrap()["permissions"], json!({"files": ["/data"]}));
        assert_eq!(fault(installed(&registry, &one, names(&["net"])).await).code, Code::Denied);
        assert!(!dir.join("test").exists() && !dir.join(".trust").exists(), "nothing was installed");
        let how = Install { allow_unsigned: true, dry_run: true, ..Install::default() };
        let dry = registry.install(&one, how).await.unwrap();
        assert_eq!(Value::Object(dry.asked), json!({"files": ["/data"]}), "shown, and nobody is asked");
        assert_eq!(installed(&registry, &one, names(&["files"])).await.unwrap(), ["files"]);

        let refused = fault(upgraded(&registry, &two, Grant::Nothing).await);
        assert_eq!(refused.reason, Some(Reason::NotGranted), "{refused}");
        assert!(refused.message.contains("net") && !refused.message.contains("files"), "{refused}");
        assert_eq!(upgraded(&registry, &two, Grant::All).await.unwrap(), "1.1.0");
        assert_eq!(upgraded(&registry, &three, Grant::Nothing).await.unwrap(), "1.2.0", "it asks for less");
        let exactly = json!({"files": ["/data", "/etc/ssl"]});
        let exactly = Grant::Exactly(exactly.as_object().unwrap().clone());
        assert_eq!(fault(upgraded(&registry, &four, exactly).await).reason, Some(Reason::NotGranted));
        assert_eq!(upgraded(&registry, &four, Grant::All).await.unwrap(), "1.3.0");

        let known = registry.trust_of(PLUGIN).await.unwrap().installed.unwrap();
        assert_eq!(Value::Object(known.granted), json!({"files": ["/data", "/etc"], "net": true}));
        // What lies in the plugin directory grants nothing, and a removal forgets.
        registry.remove(PLUGIN, false).await.unwrap();
        assert!(fault(installed(&registry, &one, Grant::Nothing).await).reason == Some(Reason::NotGranted));
        registry.close().await;
    }
}
