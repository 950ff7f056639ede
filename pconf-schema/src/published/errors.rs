//! The table of all error codes, for people.

use std::fmt::Write as _;

use crate::{Code, Ran};

/// The table of `docs/errors.md`, in Markdown, one row per [`Code`].
pub fn error_table() -> String {
    let mut table = String::from(
        "| Code | Whose fault | Did it run? | May I retry? | What to do | HTTP | Exit |\n|---|---|---|---|---|---|---|\n",
    );
    for code in Code::ALL {
        let row = row(code);
        let ran = row.ran.unwrap_or(match code.ran() {
            Ran::No => "no",
            Ran::Yes => "yes",
            Ran::Unknown => "unknown",
        });
        let http = row.http.map_or(code.http_status().to_string(), |also| format!("{} ({also})", code.http_status()));
        let _ = writeln!(
            table,
            "| `{code}` | {} | {ran} | {} | {} | {http} | {} |",
            row.whose, row.retry, row.advice, row.exit
        );
    }
    table
}

struct Row {
    whose: &'static str,
    /// Where one word does not say it.
    ran: Option<&'static str>,
    retry: &'static str,
    advice: &'static str,
    /// Another status that carries the code.
    http: Option<&'static str>,
    /// The exit code of `goplugctl`; its own test compares.
    exit: u8,
}

fn row(code: Code) -> Row {
    let row = |whose, retry, advice, exit| Row { whose, ran: None, retry, advice, http: None, exit };
    match code {
        Code::InvalidArgument => Row {
            http: Some("405"),
            ..row("caller", "not as it is", "mend the name, header, path or document that the message names", 10)
        },
        Code::TooLarge => Row {
            ran: Some("no; of a reply: yes"),
            ..row("caller", "not as it is", "send less, or stream; of a reply: raise `max_reply_bytes`", 10)
        },
        Code::NotFound => {
            Row { http: Some("410"), ..row("caller", "no", "look at `goplugctl list` or `goplugctl methods`", 4) }
        }
        Code::WrongState => row("caller", "after a `load`", "`goplugctl load`, or `execute --load`", 3),
        Code::Conflict => row("caller", "no", "see what holds the name or is loaded already: `goplugctl why`", 9),
        Code::Denied => Row {
            http: Some("401"),
            ..row("policy", "no", "ask the operator: owner, mode, `allow_uids`, `socket_dirs`", 8)
        },
        Code::MethodFailed => {
            row("plugin", "as the plugin says", "read `data` and the message: they are the plugin's own", 5)
        }
        Code::Panicked => {
            row("plugin", "if the method may run twice", "report it to the plugin's author; the plugin lives on", 5)
        }
        Code::Overloaded => row(
            "host or plugin",
            "yes, after `retryAfterMs`",
            "send fewer calls at once; the registry has already tried again",
            6,
        ),
        Code::Unavailable => row(
            "host or plugin",
            "yes, after `retryAfterMs`",
            "`goplugctl why`; the registry has already tried again",
            6,
        ),
        Code::PluginGone => row(
            "plugin",
            "if the method may run twice",
            "look at the plugin's own log; the registry repeats `idempotent` methods by itself",
            12,
        ),
        Code::DeadlineExceeded => Row {
            ran: Some("unknown; `no` when it says so"),
            ..row("–", "if the method may run twice", "give more time, or make the method faster", 7)
        },
        Code::Cancelled => row("caller", "if the method may run twice", "nothing: you gave up", 130),
        Code::ProtocolError => {
            row("plugin", "no", "report it to the plugin's author with the message: it names the rule", 1)
        }
        Code::Internal => row("us", "no", "report it to us with the message and the log", 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_whole_row() {
        let table = error_table();
        assert_eq!(table.lines().count(), Code::ALL.len() + 2);
        for line in table.lines() {
            assert_eq!(line.matches('|').count(), 8, "{line}");
            assert!(!line.contains("|  |"), "{line}");
        }
        assert!(table.contains("| `not_found` | caller | no | no |"));
    }
}
