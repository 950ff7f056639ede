//! Verbs that look: they change nothing and activate nothing.

use goplug_tests::{LONG, wait_until};

use super::{Transcript, one_of_each};
use crate::support::fixture;

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
    both.same_in_both_forms("list None/Such");
    both.same("list such");
    both.same("list None/Such None/Other");
    both.same("list None/Such Test/Do -o name");
    both.same("list [");
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
    both.differs("methods Other/Do", "on a directory the verb tries to load what does not tell its methods");
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
    both.differs("why /nowhere/TestDo.pconf", "a daemon looks at no file outside of its directories, whoever asks");
    both.same("why a/b/c");
    both.is("why");
}

/// What no file says: nobody has looked for it, its process says something else, another version was asked for.
#[test]
fn why_beyond_the_file() {
    let mut both = Transcript::new(&["--auto-discover=false"], |dir| {
        vec![fixture(dir, &["--version", "1.3.1", "Test/Do"]), fixture(dir, &["Test/Math"])]
    });
    for target in both.each() {
        let text = std::fs::read_to_string(target.dir.join("TestMath.pconf")).unwrap();
        target.dir.write("TestOther.pconf", text.replace("\"Math\"", "\"Other\""));
    }
    // The daemon has not looked at its directory yet.
    both.differs("why Test/Do", "a directory is looked at for the question");
    both.differs("why Do", "a directory is looked at for the question");
    both.differs("is-discovered Do", "a bare name is one of those that were found");
    both.unseen("rescan");
    both.same_in_both_forms("why Test/Other");
    both.same("why Test/Do@^2");
    both.same("why Test/Do@^1");
    both.differs("why /etc/passwd", "a daemon looks at no file outside of its directories, whoever asks");
    both.same("list Test/Do@^1 Test/Do@^2");
    both.same("wait Test/Do@^2 --for=discovered --timeout 50ms");
    both.same("wait Test/Do@^1 --for=discovered --timeout 50ms");
    both.is("why_beyond_the_file");
}

/// A directory whose files end in something else.
#[test]
fn another_extension() {
    let both = Transcript::quiet(|_| Vec::new());
    let [_, directory] = both.each();
    directory.dir.write("x.plug", r#"{"Name":"x","Sock":"x.sock"}"#);
    let names = |extension: &str| {
        let run = directory.command(&["list", "-o", "name"]).env("GOPLUG_EXTENSION", extension).output().unwrap();
        (run.status.code(), String::from_utf8(run.stdout).unwrap())
    };
    assert_eq!(names(".plug"), (Some(0), "-/x\n".into()));
    assert_eq!(names(""), (Some(0), String::new()));
    assert_eq!(names("plug"), (Some(10), String::new()));
}

#[test]
fn doctor() {
    let mut both = Transcript::quiet(one_of_each);
    let [daemon, directory] = both.each().map(|target| target.run(&["doctor"], b""));
    assert_eq!((daemon.code, directory.code), (0, 0), "{daemon:?} {directory:?}");
    // Below the first line it is about the machine and the directory: the same on both, but not on every machine.
    let rest = |text: &str| text.lines().skip(1).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(rest(&daemon.out), rest(&directory.out));
    let names = |text: &str| {
        text.lines().filter_map(|line| line.split_whitespace().nth(1)).map(str::to_owned).collect::<Vec<_>>()
    };
    let links =
        ["daemon", "directory", "owner", "mode", "path", "files", "watch", "leftovers", "keeper", "sockets", "runtime"];
    assert_eq!(names(&daemon.out)[..links.len()], links);
    for mut answer in [daemon, directory] {
        let everywhere = answer.out.lines().filter(|line| {
            ["daemon", "directory", "owner", "mode", "files"]
                .iter()
                .any(|name| line.split_whitespace().nth(1) == Some(name))
        });
        answer.out = everywhere.map(|line| format!("{line}\n")).collect();
        both.note(&["doctor"], &answer);
    }
    both.is("doctor");
}

/// What a daemon does by itself and a look at a directory cannot: it loads, tries again, and remembers.
#[test]
fn a_daemon_that_loads_by_itself() {
    let mut both = Transcript::new(&[], one_of_each);
    for plugin in ["Test/Do", "Example/typed", "Example/teller", "Old/Plugin"] {
        assert_eq!(both.daemon.run(&["wait", plugin], b"").code, 0, "{plugin}");
    }
    wait_until("the daemon has looked at the lazy one", LONG, || {
        both.daemon.run(&["list", "Example/lazy"], b"").out.contains("  v1  ")
    });
    both.differs("list Test/Do Example/lazy Old/Plugin", "nobody loaded anything in the directory, the daemon did");
    both.unseen("inspect Test/Do Example/lazy Old/Plugin Example/teller");
    both.differs("is-loaded Example/*", "the daemon loaded all but the lazy one");
    both.differs("why Example/lazy", "in a directory nothing is loaded by itself, lazy or not");
    both.differs("why Old/Plugin", "a v0 plugin does not tell whether it is active");
    let [daemon, directory] = both.differs("status Other/Do", "a daemon goes on trying");
    assert!(daemon.out.starts_with("Other/Do [TRYING] since"), "{daemon:?}");
    assert!(directory.out.starts_with("Other/Do discovered"), "{directory:?}");
    both.is("auto_discover");
}
