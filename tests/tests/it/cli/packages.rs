//! Verbs about packages: made, looked at, installed, followed by another one; and whose are taken.

use goplug_tests::{PluginDir, Process};

use super::Transcript;
use crate::packages::{KEY, PUBLIC};

/// Two versions of a plugin without a process, below a folder that is not looked at.
fn sources(dir: &PluginDir) -> Vec<Process> {
    for version in ["1.0.0", "1.1.0"] {
        let folder = dir.join(&format!(".sources/{version}"));
        std::fs::create_dir_all(folder.join("data")).unwrap();
        let text = format!(
            r#"{{"name":"do","namespace":"test","version":"{version}","wire":"v0","source":{{"mode":"local_exec","path":"do"}}}}"#
        );
        std::fs::write(folder.join("plugin.json"), text).unwrap();
        super::versions::program(&folder.join("do"), version);
        std::fs::write(folder.join("data/words"), "one two").unwrap();
    }
    std::fs::create_dir_all(dir.join(".sources/broken")).unwrap();
    std::fs::write(dir.join(".sources/broken/plugin.json"), r#"{"name":"do"}"#).unwrap();
    std::fs::write(dir.join(".sources/no.plg"), "no archive").unwrap();
    std::fs::copy(KEY, dir.join(".sources/ours.key")).unwrap();
    std::fs::copy(PUBLIC, dir.join(".sources/ours.pub")).unwrap();
    Vec::new()
}

#[test]
fn pack_lint_install_trust() {
    let trust = PluginDir::new();
    let mut both = Transcript::with(&["--auto-discover=false"], sources, &[("GOPLUG_TRUST_DIR", trust.join("t"))]);
    both.same_in_both_forms("pack {dir}/.sources/1.0.0 --dry-run");
    both.same_in_both_forms("pack {dir}/.sources/1.0.0 --out {dir}/.sources/one.plg");
    both.same("pack {dir}/.sources/1.1.0 --out {dir}/.sources/two.plg --key {dir}/.sources/ours.key -o json");
    both.same("pack {dir}/.sources/broken");
    both.same("pack {dir}/.sources/none");
    both.same("pack {dir}/.sources/1.0.0 --key {dir}/.sources/none.key");
    both.same("pack {dir}/.sources/1.0.0 --key {dir}/.sources/no.plg");
    both.same_in_both_forms("lint {dir}/.sources/one.plg {dir}/.sources/two.plg {dir}/.sources/no.plg");

    both.same_in_both_forms("install {dir}/.sources/one.plg");
    both.same("install {dir}/.sources/no.plg");
    both.same_in_both_forms("install {dir}/.sources/one.plg --allow-unsigned --dry-run");
    both.same("install {dir}/.sources/one.plg --allow-unsigned -o json");
    both.same("install {dir}/.sources/one.plg --allow-unsigned");
    both.same("upgrade test/do {dir}/.sources/two.plg --allow-unsigned");
    both.same("trust list --keys");
    both.same("trust add RWnonsense");
    both.same("trust add {dir}/.sources/ours.pub --comment tests");
    both.same("trust add {dir}/.sources/ours.pub --comment tests -o json");
    both.same_in_both_forms("trust list --keys");
    both.same("diff test/do {dir}/.sources/two.plg");
    both.same("pack {dir}/.sources/1.1.0 --out {dir}/.sources/unsigned.plg");
    both.same("diff test/do {dir}/.sources/unsigned.plg");
    both.same("diff test/do {dir}/.sources/unsigned.plg --allow-unsigned");
    both.same("upgrade test/do {dir}/.sources/two.plg -o json");
    both.same("rollback test/do");
    both.same("install {dir}/.sources/two.plg");
    let key = std::fs::read_to_string(PUBLIC).unwrap().lines().last().unwrap().to_owned();
    both.differs(&format!("trust remove {key}"), "both have the same file, and one of them was first");
    both.same("upgrade test/do {dir}/.sources/two.plg");
    both.same("remove test/do");
    for target in both.each() {
        assert_eq!(target.dir.names(), [".goplug", ".sources"]);
    }
    both.is("packages");
}

/// Two versions, of which the second asks for more.
fn asking(dir: &PluginDir) -> Vec<Process> {
    for (version, permissions) in [("1.0.0", r#"{"files": {"read": "/data"}}"#), ("1.1.0", r#"{"net": true}"#)] {
        let folder = dir.join(&format!(".sources/{version}"));
        std::fs::create_dir_all(&folder).unwrap();
        let text = format!(
            r#"{{"name":"do","namespace":"test","version":"{version}","source":{{"mode":"local_exec","path":"do"}},"lazy_load":true,
                "permissions":{permissions}}}"#
        );
        std::fs::write(folder.join("plugin.json"), text).unwrap();
        super::versions::program(&folder.join("do"), version);
    }
    Vec::new()
}

#[test]
fn permissions() {
    let trust = PluginDir::new();
    let mut both = Transcript::with(&["--auto-discover=false"], asking, &[("GOPLUG_TRUST_DIR", trust.join("t"))]);
    both.same("pack {dir}/.sources/1.0.0 --out {dir}/.sources/one.plg");
    both.same("pack {dir}/.sources/1.1.0 --out {dir}/.sources/two.plg");
    both.same_in_both_forms("install --allow-unsigned {dir}/.sources/one.plg --dry-run");
    both.same_in_both_forms("install --allow-unsigned {dir}/.sources/one.plg");
    both.same("install --allow-unsigned --grant net {dir}/.sources/one.plg");
    both.same("install --allow-unsigned --grant net, {dir}/.sources/one.plg");
    both.same("install --allow-unsigned --grant files,net {dir}/.sources/one.plg");
    // Nobody is at the terminal.
    both.same_in_both_forms("upgrade --allow-unsigned test/do {dir}/.sources/two.plg");
    both.same("upgrade --allow-unsigned test/do {dir}/.sources/two.plg --grant all");
    both.same_in_both_forms("trust show test/do");
    both.same("trust revoke test/do");
    both.same("trust revoke test/do");
    both.same("upgrade test/do {dir}/.sources/1.0.0 --downgrade");
    both.same("remove test/do");
    both.is("permissions");
}
