//! Verbs that say which programs plugins may run.

use std::io::Write;
use std::path::PathBuf;

use goplug_tests::{PluginDir, Process, Ready};

use super::Transcript;
use crate::support::{FIXTURE, command};

/// A program of its own digest, and a process of it.
fn start(dir: &PluginDir, name: &str) -> Process {
    let program = dir.join(name);
    if !program.exists() {
        std::fs::copy(FIXTURE, &program).unwrap();
        std::fs::File::options().append(true).open(&program).unwrap().write_all(name.as_bytes()).unwrap();
    }
    Process::start(command(program.to_str().unwrap()).arg(dir.path()).arg("Test/Do"), Ready::Line("ready"))
}

#[test]
fn list_show_approve_revoke() {
    let trust = PluginDir::new();
    let variables = [("GOPLUG_TRUST_DIR", trust.join("t")), ("GOPLUG_PIN_EXECUTABLES", PathBuf::from("true"))];
    let mut both = Transcript::with(&["--auto-discover=false"], |dir| vec![start(dir, "one")], &variables);
    both.unseen("rescan");
    both.same_in_both_forms("trust list");
    both.same("trust show Test/Do");
    both.same("load Test/Do");
    both.same_in_both_forms("trust list");
    both.same("trust list -o wide");
    both.same_in_both_forms("trust show Do");

    // Another program, under the same name.
    for (at, plugins) in both.plugins.iter_mut().enumerate() {
        plugins.clear();
        plugins.push(start(if at == 0 { &both.daemon.dir } else { &both.directory.dir }, "two"));
    }
    both.unseen("rescan");
    both.same_in_both_forms("load Test/Do");
    both.same("execute --load Test/Do echo x");
    both.differs("list", "a daemon remembers what it refused");
    both.differs("why Test/Do", "a daemon remembers what it refused");
    both.differs("inspect Test/Do", "a daemon remembers what it refused");
    both.same("trust show Test/Do");
    both.same(&format!("trust approve Test/Do --sha256 {}", "0".repeat(64)));
    both.same("trust approve Test/Do --sha256 0");
    both.same("trust approve Do");
    // A daemon tries again what it refused, as soon as it may.
    for target in both.each() {
        target.run(&["load", "Test/Do"], b"");
    }
    both.same("trust list");
    both.same_in_both_forms("trust revoke Test/Do");
    both.same("trust revoke Do");
    both.same("trust approve None/Such");
    both.same("trust show None/Such");
    both.is("trust");
}
