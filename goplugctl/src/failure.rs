//! What is told when something fails: `error: WHAT: WHY`, then `hint: COMMAND`, and one JSON line for scripts.

use std::io;

use goplug_pconf_schema::{Code, Fault, PluginId, Ran, Reason};
use serde::Serialize;
use serde_json::Value;

use crate::exit_code;
use crate::output::escape;

/// A failure of one verb, or of one object of a verb.
#[derive(Debug)]
pub(crate) struct Failure {
    what: String,
    fault: Box<Fault>,
    plugin: Option<String>,
    hint: Option<String>,
    exit: u8,
    reader_left: bool,
}

impl Failure {
    /// `what` failed because of `fault`; `what` fits after "error: ", such as "cannot load `Test/Do`".
    pub(crate) fn new(what: impl Into<String>, mut fault: Fault) -> Self {
        if fault.message.is_empty() {
            fault.message = "no reason was given".into();
        }
        let exit = exit_code::of(fault.code);
        Self { what: what.into(), fault: Box::new(fault), plugin: None, hint: None, exit, reader_left: false }
    }

    /// The command line asks for something that makes no sense: exit code 2.
    pub(crate) fn usage(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self { exit: exit_code::USAGE, ..Self::new(what, Fault::new(Code::InvalidArgument, why)) }
    }

    /// The failure concerns this plugin; gives the hint that its code calls for, unless there is one.
    #[must_use]
    pub(crate) fn about(mut self, plugin: &PluginId) -> Self {
        self.plugin = Some(plugin.to_string());
        let name = escape(plugin.as_str());
        self.hint = self
            .hint
            .or_else(|| Some(mends(self.fault.reason?, plugin)))
            .or_else(|| default_hint(self.fault.code, &name));
        self
    }

    /// The command that helps.
    #[must_use]
    pub(crate) fn hint(mut self, command: impl Into<String>) -> Self {
        self.hint = Some(command.into());
        self
    }

    /// The same failure with exit code 2: the name, not the plugin, is the problem.
    #[must_use]
    pub(crate) fn into_usage(mut self) -> Self {
        self.exit = exit_code::USAGE;
        self
    }

    /// The exit code; 0 when the reader of our output left, which is no failure of ours.
    pub(crate) fn exit(&self) -> u8 {
        if self.reader_left { exit_code::DONE } else { self.exit }
    }

    /// Whether the reader of our output left: nothing is said, nothing goes on.
    pub(crate) fn reader_left(&self) -> bool {
        self.reader_left
    }

    /// What is written on stderr: the text for people and, if wanted, one line of JSON for scripts. `flags` are those with
    /// which the hint works where this failed.
    pub(crate) fn render(&self, json: bool, red: bool, flags: &str) -> String {
        let label = if red { "\u{1b}[1;31merror:\u{1b}[0m" } else { "error:" };
        let mut out = format!("{label} {}: {}\n", escape(&self.what), escape(&self.fault.message));
        if let Some(data) = &self.fault.data {
            out.push_str(&format!("data: {}\n", escape(&data.to_string())));
        }
        if let Some(hint) = &self.hint {
            out.push_str(&format!("hint: {}\n", at_target(hint, flags)));
        }
        if json {
            out.push_str(&self.json_line(flags));
        }
        out
    }

    /// The line for scripts alone.
    pub(crate) fn json_line(&self, flags: &str) -> String {
        let line = serde_json::to_string(&ErrorLine { error: self.document(flags) }).unwrap_or_default();
        crate::output::json::escape_controls(&line) + "\n"
    }

    fn document(&self, flags: &str) -> ErrorDocument<'_> {
        ErrorDocument {
            code: self.fault.code,
            exit: self.exit(),
            message: format!("{}: {}", self.what, self.fault.message),
            plugin: self.plugin.as_deref(),
            hint: self.hint.as_deref().map(|hint| at_target(hint, flags)),
            ran: self.fault.ran,
            reason: self.fault.reason,
            retry_after_ms: self.fault.retry_after_ms,
            data: self.fault.data.as_deref(),
        }
    }
}

impl From<io::Error> for Failure {
    /// Output that cannot be written.
    fn from(error: io::Error) -> Self {
        let reader_left = error.kind() == io::ErrorKind::BrokenPipe;
        Self { reader_left, ..Self::new("cannot write the output", Fault::new(Code::Internal, error.to_string())) }
    }
}

#[derive(Serialize)]
struct ErrorLine<'a> {
    error: ErrorDocument<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ErrorDocument<'a> {
    code: Code,
    exit: u8,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    plugin: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
    ran: Ran,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Reason>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a Value>,
}

/// A command of ours with the flags that name where it works, unless it names that itself; any other as it is.
pub(crate) fn at_target(command: &str, flags: &str) -> String {
    match command.strip_prefix("goplugctl ") {
        Some(rest) if !flags.is_empty() && !["--dir ", "--socket "].iter().any(|flag| rest.contains(flag)) => {
            format!("goplugctl {flags} {rest}")
        }
        _ => command.to_owned(),
    }
}

/// The command that mends this case.
pub(crate) fn mends(reason: Reason, plugin: &PluginId) -> String {
    let plugin = escape(plugin.as_str());
    let verb = match reason {
        Reason::NotRunning => "start",
        Reason::Running => "stop",
        Reason::Disabled => "enable",
        Reason::GivenUp => "logs",
        Reason::Untrusted => "trust approve",
        Reason::NoVersion => "inspect",
        Reason::Altered => "trust show",
        Reason::Pinned => return format!("goplugctl pin {plugin} --clear"),
        Reason::NoHost => return "goplugctl doctor".into(),
        Reason::NotGranted => return "goplugctl install --grant all FILE".into(),
        Reason::Unsigned => return "goplugctl install --allow-unsigned FILE".into(),
        Reason::UntrustedKey => return "goplugctl trust add KEY".into(),
    };
    format!("goplugctl {verb} {plugin}")
}

/// The command that helps with a failure of this code, when nothing better is known.
fn default_hint(code: Code, plugin: &str) -> Option<String> {
    match code {
        Code::NotFound => Some("goplugctl list".into()),
        Code::WrongState
        | Code::Denied
        | Code::Overloaded
        | Code::Unavailable
        | Code::PluginGone
        | Code::ProtocolError => Some(format!("goplugctl why {plugin}")),
        Code::Conflict => Some(format!("goplugctl inspect {plugin}")),
        Code::InvalidArgument
        | Code::TooLarge
        | Code::MethodFailed
        | Code::Panicked
        | Code::DeadlineExceeded
        | Code::Cancelled
        | Code::Internal => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_told_to_people_and_to_scripts() {
        let plugin = PluginId::parse("Test/Do").unwrap();
        let failure =
            Failure::new("cannot load `Test/Do`", Fault::new(Code::NotFound, "no such plugin")).about(&plugin);
        assert_eq!(
            failure.render(false, false, ""),
            "error: cannot load `Test/Do`: no such plugin\nhint: goplugctl list\n"
        );
        let text = failure.render(true, false, "");
        let line: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        assert_eq!(line["error"]["code"], "not_found");
        assert_eq!(line["error"]["exit"], 4);
        assert_eq!(line["error"]["plugin"], "Test/Do");
        assert_eq!(line["error"]["hint"], "goplugctl list");
    }

    #[test]
    fn a_hint_works_where_the_verb_failed() {
        for (command, flags, expected) in [
            ("goplugctl why Test/Do", "", "goplugctl why Test/Do"),
            ("goplugctl why Test/Do", "--dir 'my plugins'", "goplugctl --dir 'my plugins' why Test/Do"),
            ("goplugctl --dir /q why /q/a.pconf", "--socket /s", "goplugctl --dir /q why /q/a.pconf"),
            ("write NAMESPACE/NAME", "--dir p", "write NAMESPACE/NAME"),
            ("rm /p/a.pconf", "--dir p", "rm /p/a.pconf"),
        ] {
            assert_eq!(at_target(command, flags), expected);
            let failure = Failure::new("w", Fault::new(Code::NotFound, "y")).hint(command);
            let text = failure.render(true, false, flags);
            assert!(text.contains(&format!("\nhint: {expected}\n")), "{text}");
            let line: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
            assert_eq!(line["error"]["hint"], expected);
        }
    }

    #[test]
    fn what_a_plugin_says_cannot_drive_the_terminal() {
        let fault =
            Fault::new(Code::MethodFailed, "a\u{1b}[2J\nerror: b\u{9b}").with_data(Value::from("\u{202e}\u{7f}"));
        let text = Failure::new("cannot execute `Do`", fault).render(true, false, "");
        assert!(!text.chars().any(|c| c != '\n' && (c.is_control() || c == '\u{202e}')), "{text:?}");
        assert_eq!(text.lines().count(), 3);
    }

    #[test]
    fn a_method_that_fails_without_a_word_is_no_empty_line() {
        let text = Failure::new("cannot execute `Do`", Fault::new(Code::MethodFailed, "")).render(false, false, "");
        assert_eq!(text, "error: cannot execute `Do`: no reason was given\n");
    }

    #[test]
    fn a_reader_that_left_is_no_failure() {
        let failure = Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert!(failure.reader_left());
        assert_eq!(failure.exit(), 0);
        assert_eq!(Failure::from(io::Error::from(io::ErrorKind::StorageFull)).exit(), 1);
    }
}
