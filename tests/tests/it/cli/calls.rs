//! `execute`: bytes in, bytes out.

use super::{Transcript, the_fixture};

#[test]
fn execute_sends_bytes_and_prints_bytes() {
    let mut both = Transcript::quiet(the_fixture);
    both.unseen("load Test/Do");
    both.same_in_both_forms("execute Test/Do echo hello");
    both.same("execute Do echo hello -o name");
    both.same("exec Test/Do echo");
    both.same("call Test/Do echo hello -o yaml");
    both.same_words(&["execute", "Test/Do", "a b/c+d%ü", "a name with everything"], b"");
    both.same_words(&["execute", "Test/Do", "echo", "-"], b"from standard input");
    both.same_words(&["execute", "Test/Do", "add", "--json", r#"{"a": 1, "b": 2}"#], b"");
    both.same_words(&["execute", "Test/Do", "add", "--json", "-"], br#"{"a": 40, "b": 2}"#);
    both.same("execute Test/Do echo --hex 68_69");
    both.same("execute Test/Do echo --hex 6869 -o json");
    both.same("execute Test/Do echo --base64 aGk=");
    both.same("execute Test/Do echo --hex ff -o json");
    both.same("execute Test/Do stream 3");
    for target in both.each() {
        target.dir.write("body", b"\0\xff from a file");
    }
    let answer = both.same("execute Test/Do echo @{dir}/body -o json");
    assert!(answer.out.contains("AP8gZnJvbSBhIGZpbGU="));
    let all: Vec<u8> = (0..=255).collect();
    for target in both.each() {
        assert_eq!(target.run(&["execute", "Test/Do", "echo", "-"], &all).raw, all, "every byte passes, both ways");
        let big = target.run(&["execute", "Test/Do", "big", "5000000"], b"");
        assert_eq!((big.code, big.raw.len()), (0, 5_000_000));
    }
    both.is("execute");
}

#[test]
fn execute_many_times() {
    let mut both = Transcript::quiet(the_fixture);
    both.unseen("load Test/Do");
    both.same("execute Test/Do echo hello --count 20");
    both.same("execute Test/Do echo hello --count 40 --parallel 4 -o json");
    both.same("execute Test/Do fail no --count 5 -o json");
    both.same("execute Test/Do fail no --count 5 --fail-fast");
    // Each call is one call: 60 in parallel count to 61.
    both.unseen("execute Test/Do count --count 60 -P 8 --quiet");
    both.same("execute Test/Do count");
    both.same("execute Test/Do echo --count 0");
    both.same("execute Test/Do echo --parallel 5000");
    both.is("execute_many");
}

#[test]
fn execute_loads_when_it_is_told_to() {
    let mut both = Transcript::quiet(the_fixture);
    let [daemon, _] =
        both.differs("execute Test/Do echo x", "on a directory every call loads for itself; a daemon waits to be told");
    assert_eq!(daemon.code, 3);
    both.same("execute --load Test/Do echo x");
    both.same("execute --load Test/Do echo again");
    both.same("execute --load None/Such echo x");
    both.is("execute_load");
}

#[test]
fn the_time_limit_is_the_calls_deadline() {
    let mut both = Transcript::quiet(the_fixture);
    both.unseen("load Test/Do");
    for target in both.each() {
        let left = target.run(&["execute", "Test/Do", "remaining", "--timeout", "7s"], b"");
        let left: u64 = left.out.parse().unwrap_or_else(|error| panic!("{error}: {left:?}"));
        assert!((1..=7_000).contains(&left), "{left} ms are left of 7 s");
        // Plugin and registry both watch the clock, and either may be the one to say it.
        let late = target.run(&["execute", "Test/Do", "sleep", "60000", "--timeout", "50ms", "-o", "json"], b"");
        assert_eq!((late.code, late.out.as_str()), (7, ""), "{late:?}");
        assert!(late.err.contains("\"code\":\"deadline_exceeded\",\"exit\":7"), "{late:?}");
    }
    // The caller is whoever asks: goplugd passes on who it is, and the command line is itself.
    both.differs("execute Test/Do caller", "a daemon tells the plugin which user asked it");
    both.is("execute_deadline");
}
