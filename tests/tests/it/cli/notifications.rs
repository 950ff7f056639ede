//! `listen` and `events`.

use std::process::Stdio;

use goplug_tests::{LONG, Process, Ready, wait_until};
use rustix::process::Signal;
use serde_json::Value;

use super::{Transcript, one_of_each, the_fixture};
use crate::support::fixture;

#[test]
fn listen_prints_what_is_notified() {
    let mut both = Transcript::quiet(the_fixture);
    both.unseen("load Test/Do");
    // With no subscription nothing is held back, and what was kept can be had again.
    both.same_words(&["execute", "Test/Do", "notify", "events 1 3", "--quiet", "-o", "json"], b"");
    let epochs = both.each().map(|target| {
        let pconf: Value = serde_json::from_slice(&std::fs::read(target.dir.join("TestDo.pconf")).unwrap()).unwrap();
        pconf["Epoch"].as_str().unwrap().to_owned()
    });
    for words in
        [vec!["-n", "3"], vec!["-n", "2", "-o", "table"], vec!["-n", "1", "--raw"], vec!["-n", "1", "-o", "name"]]
    {
        let answers = std::array::from_fn::<_, 2, _>(|n| {
            let after = format!("{}:0", epochs[n]);
            let line = ["listen", "Test/Do", "events", "--after", &after, "--timeout=20s"];
            both.each()[n].run(&[&line[..], &words].concat(), b"")
        });
        assert_eq!(answers[0].says(), answers[1].says(), "listen {words:?}");
        both.note(&[&["listen", "Test/Do", "events", "--after", "[EPOCH]:0"], &words[..]].concat(), &answers[0]);
    }
    both.same("listen Test/Do none -n 1");
    both.same_words(&["listen", "Test/Do", "\u{1b}[2J"], b"");
    both.same("listen None/Such events -n 1");
    both.same("listen Test/Do events --after nonsense");
    both.is("listen");
}

#[test]
fn whoever_listens_to_a_v0_plugin_is_told_what_may_be_missed() {
    let both = Transcript::quiet(one_of_each);
    both.unseen("load Old/Plugin");
    for target in both.each() {
        std::thread::scope(|scope| {
            let line = ["listen", "Old/Plugin", "main.callBack", "-n", "1", "--timeout=20s"];
            let listening = scope.spawn(move || target.run(&line, b""));
            // Answered when a poll has taken it.
            let told = target.run(&["execute", "Old/Plugin", "main.Notify", "main.callBack news"], b"");
            assert_eq!(told.code, 0, "{told:?}");
            let heard = listening.join().unwrap();
            let note = "note: `Old/Plugin` speaks v0: a notification that comes between two polls is lost\n";
            assert_eq!((heard.code, heard.err.as_str()), (0, note), "{heard:?}");
        });
    }
}

/// From now on, and without holding anybody back.
#[test]
fn listen_hears_what_is_notified_while_it_listens() {
    let both = Transcript::quiet(the_fixture);
    both.unseen("load Test/Do");
    for target in both.each() {
        assert_eq!(target.run(&["execute", "Test/Do", "notify", "events 1 3"], b"").code, 0);
        std::thread::scope(|scope| {
            let listening =
                scope.spawn(|| target.run(&["listen", "Test/Do", "events", "-n", "2", "--timeout=20s"], b""));
            wait_until("somebody listens", LONG, || {
                let callbacks = target.run(&["callbacks", "Test/Do", "-o", "json"], b"");
                let list: Value = serde_json::from_slice(&callbacks.raw).unwrap_or_default();
                list["callbacks"][0]["observers"] == 1
            });
            assert_eq!(target.run(&["execute", "Test/Do", "notify", "events 4 5"], b"").code, 0);
            let heard = listening.join().unwrap();
            let data: Vec<Value> =
                heard.out.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["data"].clone()).collect();
            assert_eq!((heard.code, data), (0, vec![Value::from("4"), Value::from("5")]), "{heard:?}");
        });
    }
}

/// The events of a daemon are all that happened since it started; those of a directory are what one look finds.
#[test]
fn events_tell_what_happened() {
    let mut both = Transcript::new(&[], one_of_each);
    assert_eq!(both.daemon.run(&["wait", "Test/Do"], b"").code, 0);
    let read = |text: &[u8]| -> Vec<Value> {
        String::from_utf8_lossy(text).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let [daemon, directory] = both.each().map(|target| target.run(&["events", "-o", "jsonl"], b""));
    let (daemon, directory) = (read(&daemon.raw), read(&directory.raw));
    let has = |events: &[Value], kind: &str, plugin: &str, state: &str| {
        events.iter().any(|event| event["kind"] == kind && event["plugin"] == plugin && event["state"] == state)
    };
    for events in [&daemon, &directory] {
        assert!(has(events, "discovered", "Example/lazy", "discovered"), "{events:#?}");
        assert!(has(events, "discovered", "Test/Do", "discovered"), "{events:#?}");
        assert!(events.iter().any(|event| event["kind"] == "invalid"), "{events:#?}");
        let seqs: Vec<u64> = events.iter().filter_map(|event| event["seq"].as_u64()).collect();
        assert!(seqs.is_sorted() && seqs.len() == events.len(), "{seqs:?}");
    }
    assert!(has(&daemon, "state", "Test/Do", "loaded"), "{daemon:#?}");
    assert!(!has(&directory, "state", "Test/Do", "loaded"), "looking activates nothing: {directory:#?}");
    for target in both.each() {
        let all: Vec<Value> = serde_json::from_slice(&target.run(&["events", "-o", "json"], b"").raw).unwrap();
        assert!(all.len() >= 5, "{all:#?}");
        let lines = target.run(&["events"], b"").out;
        assert!(lines.lines().any(|line| line == "[TIME] discovered Test/Do discovered [DIR]/TestDo.pconf"), "{lines}");
    }
    // On an empty directory nothing happened.
    both.same("events --follow --timeout=soon");
    both.is("events");
}

/// With `-f` it goes on, and says what comes.
#[test]
fn events_follow() {
    let both = Transcript::new(&[], |_| Vec::new());
    for target in both.each() {
        let mut following = Process::start(&mut target.command(&["events", "-f", "-o", "jsonl"]), Ready::Now);
        let _plugins = the_fixture(&target.dir);
        let event: Value = serde_json::from_str(&following.line()).unwrap();
        assert_eq!((&event["kind"], &event["plugin"]), (&"discovered".into(), &"Test/Do".into()), "{event}");
        following.signal(Signal::INT);
        assert_eq!(following.wait(LONG).code(), Some(130));
    }
}

/// With `-w` the list goes on: what is there, then each row again when it is another one.
#[test]
fn a_list_that_goes_on() {
    let both = Transcript::new(&[], the_fixture);
    for target in both.each() {
        // In a directory nothing is loaded by itself, and the daemon may have been quicker.
        target.run(&["load", "Test/Do"], b"");
        assert_eq!(target.run(&["wait", "Test/Do"], b"").code, 0);
        let mut list = Process::start(&mut target.command(&["list", "-w", "-o", "jsonl"]), Ready::Now);
        let mut row = || serde_json::from_str::<Value>(&list.line()).unwrap();
        let first = row();
        assert_eq!((&first["name"], &first["state"]), (&"Do".into(), &"loaded".into()), "{first}");
        assert_eq!(target.run(&["unload", "Test/Do"], b"").code, 0);
        let mut states = std::iter::repeat_with(|| row()["state"].clone());
        assert!(states.any(|state| state == "discovered"));
        assert_eq!(target.run(&["load", "Test/Do"], b"").code, 0);
        assert_eq!(target.run(&["unload", "Test/Do", "--stop"], b"").code, 0);
        loop {
            let next = row();
            assert_eq!(next["name"], "Do");
            if next["state"] == "gone" {
                break;
            }
        }
        let _another = fixture(&target.dir, &["Test/Other"]);
        assert_eq!(row()["name"], "Other");
        list.signal(Signal::INT);
        assert_eq!(list.wait(LONG).code(), Some(130));
    }
}

/// A reader that leaves ends what goes on, and is no failure.
#[test]
fn a_reader_that_leaves() {
    let both = Transcript::quiet(the_fixture);
    both.unseen("load Test/Do");
    for target in both.each() {
        for words in [&["events", "-f"][..], &["list", "-w"], &["listen", "Test/Do", "events"]] {
            let mut run = target.command(words).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
            drop(run.stdout.take());
            assert_eq!(run.wait().unwrap().code(), Some(0), "{words:?}");
        }
    }
}
