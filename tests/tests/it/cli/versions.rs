//! Verbs about the versions of installed plugins.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use goplug_tests::{PluginDir, Process};
use serde_json::json;

use super::Transcript;
use crate::supervision::install_fixture;

/// A file that may be executed.
pub(crate) fn program(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// Three versions of a plugin without a process, and two of one that runs, below a folder that is not looked at.
fn sources(dir: &PluginDir) -> Vec<Process> {
    for (version, more) in [("1.0.0", ""), ("1.1.0", r#","idle_stop":"1h""#), ("2.0.0", r#","lazy_load":true"#)] {
        let folder = dir.join(&format!(".sources/{version}"));
        std::fs::create_dir_all(&folder).unwrap();
        let text = format!(
            r#"{{"name":"do","namespace":"test","version":"{version}","wire":"v0","source":{{"mode":"local_exec","path":"do"}}{more}}}"#
        );
        std::fs::write(folder.join("plugin.json"), text).unwrap();
        program(&folder.join("do"), version);
    }
    for (version, args, hooks) in [
        ("1.0.0", &[][..], json!({})),
        ("1.1.0", &["--more"], json!({})),
        // One that does not come up.
        ("1.2.0", &[], json!({"pre_start": ["/bin/false"]})),
    ] {
        let args: Vec<_> = ["--version", version].into_iter().chain(args.iter().copied()).collect();
        install_fixture(dir, "Test/live", &args, &json!({"version": version, "lazy_load": true, "hooks": hooks}));
        std::fs::rename(dir.join("Test/live"), dir.join(&format!(".sources/live-{version}"))).unwrap();
    }
    std::fs::remove_dir(dir.join("Test")).unwrap();
    Vec::new()
}

#[test]
fn versions_side_by_side() {
    let mut both = Transcript::quiet(sources);
    both.unseen("install {dir}/.sources/1.0.0");
    both.same("upgrade test/do");
    both.same_in_both_forms("install {dir}/.sources/1.1.0 --dry-run");
    both.same_in_both_forms("upgrade test/do {dir}/.sources/1.1.0 --dry-run");
    both.same_in_both_forms("diff test/do {dir}/.sources/1.1.0");
    both.same("upgrade test/do {dir}/.sources/1.1.0 -o json");
    both.same("install {dir}/.sources/1.1.0");
    both.same("diff do");
    both.same("diff do @1.0.0");
    both.same("diff do @7.0.0");
    both.same_in_both_forms("pin do ^1");
    both.same("pin do ^2");
    both.same("pin do one");
    both.same("install {dir}/.sources/2.0.0");
    both.same("upgrade do {dir}/.sources/2.0.0");
    both.same("upgrade do {dir}/.sources/live-1.0.0");
    both.same("inspect test/do@^1");
    both.same("inspect test/do@^2");
    both.same("inspect test/*@^2");
    both.same("list do@* -o json");
    both.same("status do@~1.1");
    both.same("why test/do@^2");
    both.same("pin do --clear");
    both.same("upgrade do");
    both.same("upgrade do {dir}/.sources/1.0.0");
    both.same("upgrade do {dir}/.sources/1.0.0 --downgrade");
    both.same_in_both_forms("rollback do --dry-run");
    both.same("rollback do");
    both.same("remove test/do@2.0.0");
    both.same("remove test/do@1.1.0 --dry-run");
    both.same("remove test/do@1.1.0 -o json");
    both.same("remove test/do@1.1.0");
    both.same("remove test/do@^1");
    both.same("remove test/do");
    both.same("rollback test/do");
    for target in both.each() {
        assert_eq!(target.dir.names(), [".goplug", ".sources"]);
    }
    both.is("versions");
}

#[test]
fn versions_of_a_plugin_that_runs() {
    let mut both = Transcript::quiet(sources);
    both.unseen("install {dir}/.sources/live-1.0.0");
    both.unseen("start Test/live");
    both.unseen("load Test/live");
    both.same("diff Test/live {dir}/.sources/live-1.1.0");
    both.same("upgrade Test/live {dir}/.sources/live-1.1.0");
    both.same("execute Test/live@^1.1 more hello");
    both.same("execute Test/live@^2 more hello");
    both.same("upgrade Test/live {dir}/.sources/live-1.2.0");
    both.same("execute Test/live@~1.1 more hello");
    both.same("upgrade Test/live --rollback-on err>1% --dry-run");
    both.same("rollback live");
    both.same("execute Test/live@=1.0.0 echo hello");
    both.same("stop Test/live -q");
    both.is("versions_running");
}
