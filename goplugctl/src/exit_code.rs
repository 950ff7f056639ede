//! Exit codes: the one place where an error code becomes one.

use goplug_pconf_schema::Code;

/// Done, or true.
pub(crate) const DONE: u8 = 0;
/// Something that nobody expected.
pub(crate) const UNEXPECTED: u8 = 1;
/// The command line itself is wrong.
pub(crate) const USAGE: u8 = 2;
/// Wrong state, or false.
pub(crate) const WRONG_STATE: u8 = 3;
/// No such thing.
pub(crate) const NOT_FOUND: u8 = 4;
/// The method ran and failed.
pub(crate) const FAILED: u8 = 5;
/// Not reachable or not available: it did not run.
pub(crate) const UNAVAILABLE: u8 = 6;
/// The time limit passed.
pub(crate) const TIMEOUT: u8 = 7;
/// Not allowed.
pub(crate) const DENIED: u8 = 8;
/// In conflict with what is there.
pub(crate) const CONFLICT: u8 = 9;
/// The input cannot be used.
pub(crate) const INVALID: u8 = 10;
/// There are differences.
pub(crate) const DIFFERENT: u8 = 11;
/// The plugin died during the call: nobody knows whether it ran to its end.
pub(crate) const GONE: u8 = 12;
/// Ctrl-C.
pub(crate) const INTERRUPTED: u8 = 130;

/// The exit code of an error.
pub(crate) fn of(code: Code) -> u8 {
    match code {
        Code::InvalidArgument | Code::TooLarge => INVALID,
        Code::NotFound => NOT_FOUND,
        Code::WrongState => WRONG_STATE,
        Code::Conflict => CONFLICT,
        Code::Denied => DENIED,
        Code::MethodFailed | Code::Panicked => FAILED,
        Code::Overloaded | Code::Unavailable => UNAVAILABLE,
        Code::PluginGone => GONE,
        Code::DeadlineExceeded => TIMEOUT,
        Code::Cancelled => INTERRUPTED,
        Code::ProtocolError | Code::Internal => UNEXPECTED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_the_exit_code_that_scripts_rely_on() {
        let table = [
            (Code::InvalidArgument, 10),
            (Code::TooLarge, 10),
            (Code::NotFound, 4),
            (Code::WrongState, 3),
            (Code::Conflict, 9),
            (Code::Denied, 8),
            (Code::MethodFailed, 5),
            (Code::Panicked, 5),
            (Code::Overloaded, 6),
            (Code::Unavailable, 6),
            (Code::PluginGone, 12),
            (Code::DeadlineExceeded, 7),
            (Code::Cancelled, 130),
            (Code::ProtocolError, 1),
            (Code::Internal, 1),
        ];
        assert_eq!(table.map(|(code, _)| code), Code::ALL);
        for (code, exit) in table {
            assert_eq!(of(code), exit, "{code}");
        }
    }

    #[test]
    fn the_documented_table_says_the_same() {
        let document = include_str!("../../docs/errors.md");
        for code in Code::ALL {
            let row =
                document.lines().find(|line| line.starts_with(&format!("| `{code}` |"))).expect("a row of the table");
            assert!(row.ends_with(&format!("| {} |", of(code))), "{row}");
        }
    }
}
