//! Each exit code, on both targets: what was wrong, why, what helps, and the same for scripts.

use super::transcript::run;
use super::{Transcript, one_of_each, the_fixture};
use goplug_tests::PluginDir;

#[test]
fn each_code_of_the_vocabulary() {
    let mut both = Transcript::quiet(the_fixture);
    for target in both.each() {
        target.dir.publish("Other", "Do", "dead.sock");
        target.dir.publish("Test", "Away", "away.sock");
        std::os::unix::fs::symlink("/nowhere/away.sock", target.dir.join("away.sock")).unwrap();
    }
    both.unseen("rescan");
    both.unseen("load Test/Do");
    // not_found: 4
    both.same_in_both_forms("execute None/Such echo");
    both.same_in_both_forms("execute Test/Do none");
    // An ambiguous name is a usage error: 2
    both.same_in_both_forms("inspect Do");
    both.same_in_both_forms("execute Do echo");
    // method_failed and panicked: 5
    both.same_in_both_forms("execute Test/Do fail because");
    both.same_words(&["execute", "Test/Do", "fail-with-data", r#"{"left": 3}"#, "-o", "json"], b"");
    both.same_in_both_forms("execute Test/Do panic oh");
    // unavailable: 6
    both.same_in_both_forms("load Other/Do");
    // denied: 8
    both.same_in_both_forms("load Test/Away");
    // conflict: 9
    both.same_in_both_forms("load Test/Do");
    // invalid_argument: 10
    both.same_in_both_forms("execute Test/Do add nonsense");
    both.same("execute Test/Do echo --hex f");
    both.same("execute Test/Do echo --base64 ?");
    both.same("execute Test/Do echo --json {");
    both.same("execute Test/Do echo @{dir}/none");
    both.same("inspect a/b/c");
    both.same("inspect [");
    // Usage: 2
    both.same("inspect");
    both.same_in_both_forms("execute Test/Do");
    both.same("execute Test/Do echo --json --hex 00");
    both.same("list --output=xml");
    both.same("unload --all Test/Do");
    both.same("nonsense");
    // wrong_state: 3
    both.unseen("unload Test/Do");
    both.same_in_both_forms("unload Test/Do");
    both.is("failures");
}

/// The process dies during the call: nobody knows whether the method ran to its end.
#[test]
fn a_plugin_that_dies_during_the_call() {
    let mut both = Transcript::quiet(the_fixture);
    both.unseen("load Test/Do");
    both.same("execute Test/Do abort -o json");
    both.is("failures_died");
}

/// Several objects: it goes on after an error, and the highest code is returned.
#[test]
fn of_several_the_highest_code_counts() {
    let mut both = Transcript::quiet(one_of_each);
    both.same("load Test/Do None/Such Other/Do Example/typed");
    both.same("load --fail-fast None/Such Example/teller");
    both.same("is-loaded Example/teller");
    both.is("failures_several");
}

/// A hint can be copied: it works where the command failed.
#[test]
fn a_hint_works_as_it_stands() {
    let both = Transcript::quiet(the_fixture);
    for (target, flag) in both.each().into_iter().zip(["--socket", "--dir"]) {
        let told = target.command(&["unload", "Test/Do", "-o", "json"]).output().unwrap();
        let told = String::from_utf8(told.stderr).unwrap();
        let hint = told.lines().find_map(|line| line.strip_prefix("hint: goplugctl ")).unwrap();
        assert!(hint.starts_with(flag) && hint.ends_with(" why Test/Do"), "{told}");
        let line: serde_json::Value = serde_json::from_str(told.lines().last().unwrap()).unwrap();
        assert_eq!(line["error"]["hint"], format!("goplugctl {hint}"));
        let helped = run(hint.split(' ').map(str::to_owned), b"", &[]);
        assert!(helped.code == 3 && helped.out.starts_with("Test/Do is discovered"), "{helped:?}");
        let fix = helped.out.lines().find_map(|line| line.strip_prefix("fix: goplugctl ")).unwrap();
        assert_eq!(run(fix.split(' ').map(str::to_owned), b"", &[]).code, 0, "{fix}");
    }
}

/// No target, two targets, a target that is not there.
#[test]
fn where_to_work() {
    let dir = PluginDir::new();
    let places = [(dir.text().to_owned(), "[DIR]")];
    let said = |words: &[&str]| {
        let answer = run(words.iter().map(|word| word.replace("{dir}", dir.text())), b"", &places);
        (answer.code, answer.out + &answer.err)
    };
    let (code, text) = said(&["--dir", "{dir}", "--socket", "{dir}/s", "list"]);
    assert_eq!(
        (code, text.as_str()),
        (2, "error: cannot tell where to work: --dir and --socket are both given: one is enough\n")
    );
    let (code, text) = said(&["--socket", "{dir}/s", "list"]);
    assert_eq!(code, 6, "{text}");
    assert!(text.contains("no daemon at `[DIR]/s`: there is no such socket"), "{text}");
    let (code, text) = said(&["--dir", "{dir}/none", "list"]);
    assert_eq!(code, 4, "{text}");
    assert!(text.contains("[DIR]/none"), "{text}");
    dir.write("file", "");
    let (code, text) = said(&["--dir", "{dir}/file", "list"]);
    assert_eq!(code, 10, "{text}");
    let (code, text) = said(&["--dir", "{dir}", "why", "None/Such"]);
    assert_eq!(code, 3, "{text}");
    let (code, text) = said(&["--dir", "{dir}", "list", "-o", "json"]);
    assert_eq!((code, text.as_str()), (0, "[]\n"), "an empty directory is no error");
    // Somebody listens who is no daemon.
    let _listener = std::os::unix::net::UnixListener::bind(dir.join("mute")).unwrap();
    let (code, text) = said(&["--socket", "{dir}/mute", "--timeout", "100ms", "list"]);
    assert_eq!(code, 7, "{text}");
    if std::path::Path::new("/run/goplug/goplugd.sock").exists() {
        return goplug_tests::skip("no target at all", "a daemon of this machine has its socket at the default place");
    }
    let (code, text) = said(&["list"]);
    assert_eq!(code, 6, "{text}");
    assert!(text.contains("--dir") && text.contains("--socket") && text.contains("GOPLUG_SOCKET"), "{text}");
}
