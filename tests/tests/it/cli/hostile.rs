//! What a plugin says is shown, never obeyed.

use goplug_tests::PluginDir;

use super::Transcript;
use super::transcript::Answer;
use crate::support::{evil, fixture};

#[test]
fn text_of_plugins_drives_no_terminal() {
    let mut both = Transcript::quiet(|dir: &PluginDir| {
        dir.write("bell.pconf", "{\"Name\":\"bell\",\"Sock\":\"\u{7}\u{1b}[2J.sock\",\"\u{9b}key\":\"\u{202e}\"}");
        dir.write(
            "plain.pconf",
            r#"{"Name":"plain","Sock":"plain.sock","Description":"\u001b]0;owned\u0007","Odd\u001b[31m":"\u009b2J"}"#,
        );
        vec![
            evil(dir, "hostile", "escape", None),
            evil(dir, "grumpy", "activate-fails", None),
            fixture(dir, &["--version", "1.2.3", "Test/Do"]),
        ]
    });
    both.unseen("load Test/Do");
    let harmless = |line: &str, answer: Answer| {
        let text = String::from_utf8(answer.raw).unwrap();
        assert!(!text.chars().any(|c| c.is_control() && c != '\n' || c == '\u{202e}'), "{line}: {text:?}");
    };
    for format in ["table", "wide", "json", "yaml"] {
        for verb in ["inspect -/plain", "why bell.pconf", "why plain"] {
            let line = format!("{verb} -o {format}");
            harmless(&line, both.same(&line));
        }
        for target in both.each() {
            let answer = target.run(&["inspect", "Evil/hostile", "-o", format], b"");
            assert!(answer.out.contains("owned"), "the description of its hello: {answer:?}");
            harmless(format, answer);
            harmless(format, target.run(&["list", "-o", format], b""));
        }
    }
    both.same_in_both_forms("load Evil/grumpy");
    both.same_words(&["execute", "Test/Do", "fail", "a\u{1b}[2J\r\nerror: b\u{9b}", "-o", "json"], b"");
    both.same_words(&["execute", "Test/Do", "fail-with-data", r#"{"\u001b[2J": "\u202e"}"#], b"");
    both.same_words(&["execute", "Test/Do", "\u{1b}[2J", "x"], b"");
    both.same_words(&["inspect", "\u{7}x/y"], b"");
    // A reply is bytes and passes as it is, unless it goes to a terminal.
    let reply = both.same_words(&["execute", "Test/Do", "echo", "--hex", "1b5b324a", "-o", "json"], b"");
    assert!(reply.out.contains("\\u001b[2J"), "{reply:?}");
    both.is("hostile");
}
