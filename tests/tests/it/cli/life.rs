//! Verbs that act on an activation, and questions whose answer is the exit code.

use goplug_tests::LONG;

use super::{Transcript, one_of_each, the_fixture};

#[test]
fn load_unload_reload_rescan_ping() {
    let mut both = Transcript::quiet(the_fixture);
    let pids = both.plugins.each_ref().map(|plugins| plugins[0].pid());
    both.same("load Test/Do");
    both.same("load Test/Do");
    both.same("unload Test/Do");
    both.same("unload Test/Do");
    both.same("load Test/Do -o json");
    both.same("reload Test/Do");
    both.same("reload Test/Do -o json");
    both.same("unload Test/Do --drain 1s -o json");
    both.same("load Test/Do --quiet");
    both.same("load Do None/Such -o json");
    both.same("load --fail-fast None/Such Do");
    both.same_in_both_forms("rescan");
    both.same_in_both_forms("ping Test/Do");
    both.same("ping Test/Do -c 2");
    both.same("ping Test/Do -c 2 -o json");
    both.same("ping --all -o name");
    for (target, pid) in both.each().into_iter().zip(pids) {
        let now = target.run(&["execute", "Test/Do", "pid"], b"");
        assert_eq!(String::from_utf8(now.raw).unwrap(), pid.to_string(), "the same process throughout");
    }
    both.same("unload --stop Test/Do");
    for plugins in &mut both.plugins {
        assert_eq!(plugins[0].wait(LONG).code(), Some(0));
    }
    for target in both.each() {
        assert_eq!(target.dir.names(), Vec::<String>::new(), "socket and file are gone");
    }
    both.unseen("wait Test/Do --for gone");
    both.same("load Test/Do");
    both.is("life");
}

#[test]
fn v0_plugins_are_stopped_by_an_unload() {
    let mut both = Transcript::quiet(one_of_each);
    both.same("load Old/Plugin -o json");
    both.same("ping Old/Plugin -o name");
    both.same("callbacks Old/Plugin");
    both.same("unload Old/Plugin");
    for plugins in &mut both.plugins {
        assert_eq!(plugins[4].wait(LONG).code(), Some(0));
    }
    both.is("life_v0");
}

#[test]
fn questions_whose_answer_is_the_exit_code() {
    let mut both = Transcript::quiet(one_of_each);
    both.unseen("load Test/Do");
    both.same_in_both_forms("is-discovered Test/Do");
    both.same_in_both_forms("is-discovered None/Such");
    both.same("is-discovered Do");
    both.same("is-discovered typed Example/lazy");
    both.same("is-discovered --quiet None/Such");
    both.same_in_both_forms("is-loaded Test/Do");
    both.same_in_both_forms("is-loaded Example/lazy");
    both.same("is-loaded Other/Do");
    both.same("is-loaded None/Such");
    both.same("is-loaded Test/Do Example/lazy None/Such -o json");
    both.same_in_both_forms("wait Test/Do");
    both.same("wait Test/Do --for discovered");
    both.same("wait Test/Do --for=nonsense");
    both.same("wait None/Such --for=gone -o json");
    both.same("wait None/Such --timeout 50ms");
    both.same("wait Example/lazy --timeout 50ms -o json");
    both.same("wait Test/Do --for=callback=none --timeout 50ms");
    both.unseen("load Example/teller");
    both.same("wait Example/teller --for=callback=news --timeout 50ms");
    both.is("questions");
}

/// It waits for a notification: that there is such a callback is known without waiting.
#[test]
fn wait_ends_with_a_notification() {
    let both = Transcript::quiet(one_of_each);
    both.unseen("load Example/teller");
    let words = ["wait", "Example/teller", "--for=callback=news", "--timeout=20s"];
    std::thread::scope(|scope| {
        let waiting = both.each().map(|target| scope.spawn(|| target.run(&words, b"")));
        for (target, waiting) in both.each().into_iter().zip(&waiting) {
            // It may not have begun to listen yet.
            while !waiting.is_finished() {
                assert_eq!(target.run(&["execute", "Example/teller", "announce", "x"], b"").code, 0);
            }
        }
        for waiting in waiting {
            let answer = waiting.join().unwrap();
            assert_eq!((answer.code, answer.out.as_str()), (0, "Example/teller\n"), "{answer:?}");
        }
    });
}

/// Somebody waits, and what he waits for comes.
#[test]
fn wait_ends_when_it_is_so() {
    let both = Transcript::quiet(|_| Vec::new());
    std::thread::scope(|scope| {
        let waiting = both
            .each()
            .map(|target| scope.spawn(|| target.run(&["wait", "Test/Do", "--for=discovered", "--timeout=20s"], b"")));
        let plugins = both.each().map(|target| the_fixture(&target.dir));
        for waiting in waiting {
            let answer = waiting.join().unwrap();
            assert_eq!((answer.code, answer.out.as_str()), (0, "Test/Do\n"), "{answer:?}");
        }
        let waiting = both
            .each()
            .map(|target| scope.spawn(|| target.run(&["wait", "Test/Do", "--for=gone", "--timeout=20s"], b"")));
        for mut plugin in plugins.into_iter().flatten() {
            plugin.terminate();
        }
        assert!(waiting.into_iter().all(|waiting| waiting.join().unwrap().code == 0));
    });
}
