//! Plugins from an address and from a repository, on both targets.

use goplug_tests::{PluginDir, Process};

use super::Transcript;
use crate::packages::{KEY, PUBLIC};
use crate::sources::{Reply, Repository, Server};
use crate::support::goplugctl;

fn nothing(_: &PluginDir) -> Vec<Process> {
    Vec::new()
}

/// The same bytes on every machine, so that digests and commits stand in snapshots.
fn manifest(version: &str) -> String {
    format!(
        r#"{{"name":"do","namespace":"test","version":"{version}","lazy_load":true,
"source":{{"mode":"local_exec","path":"bin/do"}},"build":{{"command":["sh","build.sh"]}}}}"#
    )
}

const SCRIPT: &str = "echo building; mkdir -p bin; echo '#!/bin/sh' > bin/do; chmod +x bin/do";

/// Two packages behind a server: one that is signed, one that is not.
fn served(work: &PluginDir) -> Server {
    let server = Server::start();
    for (version, key) in [("1.0.0", None), ("1.1.0", Some(KEY))] {
        let folder = work.join(version);
        std::fs::create_dir_all(folder.join("bin")).unwrap();
        std::fs::write(folder.join("plugin.json"), manifest(version)).unwrap();
        std::fs::write(folder.join("bin/do"), "#!/bin/sh\n").unwrap();
        std::fs::set_permissions(folder.join("bin/do"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let out = work.join(&format!("{version}.plg"));
        let mut words = vec!["pack", folder.to_str().unwrap(), "--out", out.to_str().unwrap()];
        words.extend(key.iter().flat_map(|key| ["--key", key]));
        assert_eq!(goplugctl(&words).code, 0);
        server.put(&format!("/{version}.plg"), Reply::File(std::fs::read(out).unwrap()));
    }
    server.put("/cut.plg", Reply::CutOff(vec![0; 10]));
    server
}

#[test]
fn install_from_an_address() {
    let (trust, work) = (PluginDir::new(), PluginDir::new());
    let server = served(&work);
    let sum = crate::sources::sha256(&std::fs::read(work.join("1.0.0.plg")).unwrap());
    let mut both = Transcript::with(&["--auto-discover=false"], nothing, &[("GOPLUG_TRUST_DIR", trust.join("t"))]);
    both.mask(&server.url(""), "[SERVER]");
    both.mask(work.text(), "[WORK]");
    both.mask(&sum, "[SUM]");
    let (one, two) = (server.url("/1.0.0.plg"), server.url("/1.1.0.plg"));
    both.same(&format!("install {}", server.url("/none.plg")));
    both.same_in_both_forms(&format!("install {}", server.url("/cut.plg")));
    both.same(&format!("install {one} --allow-unsigned"));
    both.same(&format!("install {one} --sha256 {}", "0".repeat(64)));
    both.same(&format!("install {one}#sha256=12"));
    both.same(&format!("install {one}#sha256={sum} --dry-run"));
    both.same(&format!("install {one} --sha256 {sum} -o json"));
    both.same(&format!("install {one} --sha256 {sum}"));
    both.same("inspect test/do");
    both.same(&format!("upgrade test/do {two}"));
    both.same(&format!("trust add {} --comment tests", copied(&work)));
    both.same(&format!("upgrade test/do {two} -o json"));
    both.same("rollback test/do");
    both.same("remove test/do");
    for target in both.each() {
        assert_eq!(target.dir.names(), [".goplug"]);
        assert!(std::fs::read_dir(target.dir.join(".goplug/staging")).unwrap().next().is_none());
    }
    both.is("install_from_an_address");
}

fn copied(work: &PluginDir) -> String {
    let key = work.join("ours.pub");
    std::fs::copy(PUBLIC, &key).unwrap();
    key.to_str().unwrap().to_owned()
}

#[test]
fn install_from_a_repository() {
    let repository = Repository::new();
    for (version, script) in [("1.0.0", SCRIPT), ("1.1.0", SCRIPT), ("2.0.0", "echo one; echo two >&2; exit 7")] {
        repository.write("plugin.json", &manifest(version)).write("build.sh", script);
        repository.commit(version);
    }
    let mut both = Transcript::with(&["--auto-discover=false"], nothing, &[]);
    both.mask(repository.bare().to_str().unwrap(), "[REPOSITORY]");
    let at = |reference: &str| format!("{}#{reference}", repository.bare().display());
    both.same(&format!("install {}", at("1.0.0")));
    both.same_in_both_forms(&format!("install {} --dry-run", at("1.0.0")));
    both.same(&format!("install {} --build -o json", at("1.0.0")));
    both.same("inspect test/do");
    both.same(&format!("upgrade test/do {} --dry-run", at("main~1")));
    both.same(&format!("upgrade test/do {} -y", at("1.1.0")));
    both.same("rollback test/do");
    both.same_in_both_forms(&format!("upgrade test/do {} --build", at("2.0.0")));
    both.same(&format!("install {} --build", at("none")));
    both.same("install ext::sh");
    both.same("install -- --upload-pack=x");
    both.same("install git+http://example.org/do");
    both.same(&format!("install {} --sha256 {}", at("1.0.0"), "0".repeat(64)));
    both.same("list");
    both.same("remove test/do");
    for target in both.each() {
        assert_eq!(target.dir.names(), [".goplug"]);
        assert!(std::fs::read_dir(target.dir.join(".goplug/staging")).unwrap().next().is_none());
    }
    both.is("install_from_a_repository");
}
