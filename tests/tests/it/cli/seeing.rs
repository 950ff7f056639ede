//! Verbs that look: they change nothing and activate nothing.

use super::{Transcript, one_of_each};

#[test]
fn list_and_status() {
    let mut both = Transcript::quiet(one_of_each);
    both.unseen("load Test/Do");
    both.differs(
        "list Example/typed",
        "a daemon tells of a plugin that it did not load what it was told before; a directory is looked at now",
    );
    // Whoever inspects a plugin asks its process for the hello, which a daemon then knows.
    both.unseen("inspect --all");
    both.same_in_both_forms("list");
    both.same("ls");
    both.same("list -o wide");
    both.same("list -o name");
    both.same("list Example/*");
    both.same("list -o jsonl Do");
    both.same("list -o yaml broken.pconf");
    both.same_in_both_forms("list None/*");
    both.same("list None/Such");
    both.differs("status", "a directory has no daemon to tell of");
    both.differs("status -o json", "a directory has no daemon to tell of");
    both.same_in_both_forms("status Test/Do");
    both.same_in_both_forms("status Other/Do");
    both.same("status None/Such");
    both.is("list");
}

#[test]
fn inspect_and_cat() {
    let mut both = Transcript::quiet(one_of_each);
    both.unseen("load Test/Do");
    for plugin in ["Test/Do", "Example/typed", "Example/teller", "Example/lazy", "Old/Plugin", "Other/Do"] {
        both.same_in_both_forms(&format!("inspect {plugin}"));
    }
    both.same("inspect Example/* -o name");
    both.same("inspect None/Such");
    both.same("inspect None/Such Test/Do -o json");
    both.same("cat Test/Do");
    both.same("cat lazy");
    both.same("cat Other/Do -o name");
    both.same("cat None/Such");
    both.is("inspect");
}

#[test]
fn methods_and_callbacks() {
    let mut both = Transcript::quiet(one_of_each);
    // Of a v1 plugin they are known from its hello.
    both.same_in_both_forms("methods Example/typed");
    both.same("methods Example/typed -o wide");
    both.same("methods Example/lazy -o name");
    both.same("is-loaded Example/lazy");
    both.differs(
        "methods Old/Plugin",
        "a v0 plugin tells its methods only when activated; on a directory the verb does that, a daemon is told to",
    );
    both.unseen("execute --load Old/Plugin main.Do x");
    both.same_in_both_forms("methods Old/Plugin");
    both.same("methods Other/Do");
    both.same("methods None/Such");
    both.differs(
        "callbacks Example/teller",
        "on a directory the verb loads the plugin for itself, a daemon is told to",
    );
    both.unseen("execute --load Example/teller advance x");
    both.same_in_both_forms("callbacks Example/teller");
    both.same("callbacks Example/teller -o name");
    both.same("callbacks None/Such");
    both.is("methods");
}

#[test]
fn why_and_doctor() {
    let mut both = Transcript::quiet(one_of_each);
    both.unseen("load Test/Do");
    for target in both.each() {
        target.dir.write("misnamed.conf", r#"{"Name":"misnamed","Sock":"misnamed.sock"}"#);
    }
    for subject in [
        "Test/Do",
        "Example/typed",
        "Old/Plugin",
        "Other/Do",
        "broken.pconf",
        "{dir}/broken.pconf",
        "misnamed",
        "Do",
        "None/Such",
    ] {
        both.same_in_both_forms(&format!("why {subject}"));
    }
    both.same("why /nowhere/TestDo.pconf");
    both.same("why a/b/c");
    both.is("why");

    // What is below the first line is about the machine: the same on both, but not on every machine.
    let [daemon, directory] = both.each().map(|target| target.run(&["doctor"], b""));
    let rest = |text: &str| text.lines().skip(1).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(rest(&daemon.out), rest(&directory.out));
    let names = |text: &str| {
        text.lines().filter_map(|line| line.split_whitespace().nth(1)).map(str::to_owned).collect::<Vec<_>>()
    };
    let links = ["daemon", "directory", "owner", "mode", "path", "files", "watch", "sockets", "runtime", "open"];
    assert_eq!(names(&daemon.out)[..links.len()], links);
    assert!(
        daemon.out.starts_with("  ok  daemon  version [VERSION] answers at [HOME]/d/goplugd.sock, pid [pid]\n"),
        "{}",
        daemon.out
    );
    assert!(directory.out.starts_with("  -  daemon  not needed with a plugin directory\n"), "{}", directory.out);
    assert!(daemon.out.contains("1 of 7 files cannot be used: goplugctl lint [DIR]"), "{}", daemon.out);
}

/// What a daemon does by itself: it loads what is not lazy, remembers what failed, and keeps what happened.
#[test]
fn a_daemon_that_loads_by_itself() {
    let mut both = Transcript::new(&[], one_of_each);
    both.unseen("wait Test/Do");
    both.unseen("load Example/typed");
    both.is("auto_discover");
}
