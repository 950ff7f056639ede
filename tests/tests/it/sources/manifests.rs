//! A manifest that says where its plugin is: followed, once, to the same plugin in the same version.

use serde_json::json;

use super::git::{Repository, good};
use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_leads_to_its_plugin_and_to_no_other() {
    if lacks_tools("a manifest leads to its plugin and to no other") {
        return;
    }
    let home = Home::new();
    let package = std::fs::read(package(&home.dir, "1.0.0", &[], None)).unwrap();
    let server = Server::start();
    let address = server.put("/do.plg", Reply::File(package.clone()));
    let repository = Repository::new();
    repository.version("1.0.0", &good());
    let registry = trusting(&home).await;
    let folder = home.dir.join(".sources/pointer");
    std::fs::create_dir_all(&folder).unwrap();
    let write = |version: &str, source: serde_json::Value| {
        let text = json!({"name": "Do", "namespace": "Test", "version": version, "source": source});
        std::fs::write(folder.join("plugin.json"), text.to_string()).unwrap();
        folder.to_str().unwrap().to_owned()
    };
    let url = |sum: &str| json!({"mode": "remote_url", "path": address, "sha256": sum});
    let git = json!({"mode": "remote_git", "path": repository.url("main")});
    let (sum, other) = (sha256(&package), sha256(b"other"));
    for (version, source, code, words) in [
        ("1.0.0", url(&other), Code::Denied, "another file than expected"),
        ("1.1.0", url(&sum), Code::InvalidArgument, "what is there is `Test/Do` 1.0.0"),
        ("1.1.0", git.clone(), Code::InvalidArgument, "what is there is `Test/Do` 1.0.0"),
    ] {
        let refused = fault(fetch(&registry, &write(version, source), Fetch::default()).await);
        assert!(refused.code == code && refused.message.contains(words), "{refused}");
        assert_eq!(staged(&home.dir), [""; 0]);
    }
    for source in [url(&sum), git] {
        let fetched = fetch(&registry, &write("1.0.0", source), Fetch::default()).await.unwrap();
        let fetched = registry.build(fetched, Duration::from_secs(60), |_| ()).await.unwrap();
        let how = Install { allow_unsigned: fetched.allows_unsigned(false), ..Install::default() };
        registry.install(fetched.path(), how).await.unwrap();
        loaded(&registry, "Test/Do").await;
        assert!(text(registry.execute("Test/Do", "version", "").await.unwrap()).starts_with("1.0.0 "));
        registry.stop_plugin("Test/Do").await.unwrap();
        registry.remove("Test/Do", false).await.unwrap();
    }
    registry.close().await;
}
