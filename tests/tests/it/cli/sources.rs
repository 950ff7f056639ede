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
    if crate::sources::lacks_tools("install from an address") {
        return;
    }
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
    if crate::sources::lacks_tools("install from a repository") {
        return;
    }
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

#[test]
fn packages_in_an_index() {
    if crate::sources::lacks_tools("packages in an index") {
        return;
    }
    let (work, hosts) = (PluginDir::new(), crate::supervision::Hosts::new());
    let server = served(&work);
    let mut both = Transcript::with(&["--auto-discover=false"], nothing, &[("GOPLUG_HOSTS_DIR", hosts.folder())]);
    both.mask(&server.url(""), "[SERVER]");
    both.mask(work.text(), "[WORK]");
    // A signature is not the same twice, and compressed not as long.
    let size = std::fs::metadata(work.join("1.1.0.plg")).unwrap().len();
    // Nowhere else: a digest may hold the same digits.
    both.mask(&format!("\"size\": {size},"), "\"size\": [SIZE],");
    both.mask(&format!("  {size}  "), "  [SIZE]  ");
    std::fs::write(work.join("no.plg"), "no package").unwrap();
    both.same("search --index {dir}/packages");
    for target in both.each() {
        std::fs::create_dir(target.dir.join("packages")).unwrap();
    }
    let (one, two) = (work.join("1.0.0.plg"), work.join("1.1.0.plg"));
    let (one, two) = (one.display(), two.display());
    both.same_in_both_forms(&format!("push {one} {{dir}}/packages --dry-run"));
    both.same(&format!("push {one} {{dir}}/packages"));
    both.same(&format!("push {one} {{dir}}/packages -o json"));
    both.same(&format!("push {two} {{dir}}/packages"));
    both.same(&format!("push {two} {{dir}}/nowhere"));
    both.same("push {dir}/packages/none.plg {dir}/packages");
    both.same(&format!("push {} {{dir}}/packages", work.join("no.plg").display()));
    // Another package that says that it is the same one.
    std::fs::write(work.join("1.0.0/more"), "more").unwrap();
    let folder = work.join("1.0.0").display().to_string();
    assert_eq!(goplugctl(&["pack", &folder, "--out", &work.join("other.plg").display().to_string()]).code, 0);
    both.same(&format!("push {} {{dir}}/packages", work.join("other.plg").display()));
    both.same_in_both_forms("search --index {dir}/packages");
    both.same("search DO --all -o wide --index {dir}/packages/index.json");
    both.same("search nothing --index {dir}/packages -o json");
    both.same("search");
    both.same("search --index {dir}/packages/test-do-1.0.0.plg");
    both.same("pull test/do --index {dir}/packages --out {dir}/newest.plg");
    both.same("pull test/do --index {dir}/packages --out {dir}/newest.plg");
    both.same("pull do@^1.0,<1.1 --index {dir}/packages --out {dir}/older.plg -o json");
    both.same("pull test/do@^2 --index {dir}/packages --out {dir}/none.plg");
    both.same("pull test/none --index {dir}/packages --out {dir}/none.plg");
    // The same behind a web server.
    let packages = both.directory.dir.join("packages");
    let file = |name: &str| Reply::File(std::fs::read(packages.join(name)).unwrap());
    server.put("/packages/index.json", file("index.json"));
    server.put("/packages/test-do-1.0.0.plg", file("test-do-1.0.0.plg"));
    server.put("/packages/test-do-1.1.0.plg", Reply::File(b"something else".to_vec()));
    let index = server.url("/packages/");
    both.same(&format!("search do --index {index}"));
    both.same(&format!("pull do@=1.0.0 --index {index} --out {{dir}}/fetched.plg"));
    both.same(&format!("pull do --index {index} --out {{dir}}/none.plg"));
    both.same(&format!("search --index {}", server.url("/none/")));
    both.same("install {dir}/fetched.plg --allow-unsigned");
    both.same("remove test/do");
    for target in both.each() {
        let names = [".goplug", "fetched.plg", "newest.plg", "older.plg", "packages"];
        assert_eq!(target.dir.names(), names);
        for (ours, theirs) in [("newest.plg", "1.1.0.plg"), ("fetched.plg", "1.0.0.plg")] {
            assert_eq!(std::fs::read(target.dir.join(ours)).unwrap(), std::fs::read(work.join(theirs)).unwrap());
        }
    }
    both.is("packages_in_an_index");
}

#[test]
fn build_makes_a_package_of_what_is_committed() {
    if crate::sources::lacks_tools("build makes a package of what is committed") {
        return;
    }
    let repository = Repository::new();
    repository.write("plugin.json", &manifest("1.0.0")).write("build.sh", SCRIPT);
    repository.commit("1.0.0");
    repository.write("plugin.json", "not committed");
    let mut both = Transcript::with(&["--auto-discover=false"], nothing, &[]);
    both.mask(repository.path().to_str().unwrap(), "[REPOSITORY]");
    let folder = repository.path().display();
    both.same_in_both_forms(&format!("build {folder} --dry-run"));
    both.same(&format!("build {folder} --out {{dir}}/do.plg"));
    both.same(&format!("build {}#1.0.0 --out {{dir}}/again.plg -o json", repository.bare().display()));
    both.same("build {dir}");
    both.same("build https://example.org/do.plg");
    both.same(&format!("build {}#none", repository.bare().display()));
    both.same("install {dir}/do.plg --allow-unsigned");
    both.same("remove test/do");
    for target in both.each() {
        let read = |name: &str| std::fs::read(target.dir.join(name)).unwrap();
        assert!(read("do.plg") == read("again.plg"), "the same commit is the same package");
        assert_eq!(target.dir.names(), [".goplug", "again.plg", "do.plg"]);
    }
    both.is("build");
}

#[test]
fn run_calls_the_one_method() {
    if crate::sources::lacks_tools("run calls the one method") {
        return;
    }
    let mut both = Transcript::quiet(super::one_of_each);
    both.same("run Test/Do");
    both.same(r#"run Test/Do --values {"a":1} -o json"#);
    both.same("run Test/Do --values {");
    both.same("run Test/Do --method nope");
    both.same("run Example/typed");
    both.same(r#"run Example/typed --method divide --values {"dividend":3,"divisor":2}"#);
    both.same("run No/Such");
    both.is("run");
    let mut many = Transcript::quiet(super::the_fixture);
    many.same("run Test/Do");
    many.is("run_one_of_many");
}
