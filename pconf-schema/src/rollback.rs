//! When a new version is taken back: `err>1%`. Pure.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::{Code, printable};

/// The share of a version's calls that may fail in its first minute.
///
/// # Example
/// ```
/// use goplug_pconf_schema::RollbackOn;
/// let rule: RollbackOn = "err>1%".parse()?;
/// assert!(rule.is_bad(1_000, 11) && !rule.is_bad(1_000, 10) && !rule.is_bad(1, 1));
/// # Ok::<(), String>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RollbackOn {
    /// In thousandths of a percent.
    share: u32,
}

impl RollbackOn {
    /// How long a new version is watched.
    pub const WINDOW: Duration = Duration::from_secs(60);
    /// Fewer calls decide nothing: 1 of 1 is no share.
    pub const MIN_CALLS: u64 = 20;
    /// Fewer failures are an accident.
    pub const MIN_FAILED: u64 = 3;

    /// Whether a version is to be taken back of whose `calls`, that are over, `failed` failed.
    pub fn is_bad(self, calls: u64, failed: u64) -> bool {
        let enough = calls >= Self::MIN_CALLS && failed >= Self::MIN_FAILED;
        enough && u128::from(failed) * 100_000 > u128::from(calls) * u128::from(self.share)
    }

    /// Whether a call that ended so counts as one that the plugin failed: not when its caller asked for something that is not
    /// there or may not be, or went away.
    pub fn counts(code: Code) -> bool {
        match code {
            Code::MethodFailed
            | Code::Panicked
            | Code::PluginGone
            | Code::DeadlineExceeded
            | Code::ProtocolError
            | Code::Internal
            | Code::Unavailable
            | Code::Overloaded => true,
            Code::InvalidArgument
            | Code::NotFound
            | Code::WrongState
            | Code::Conflict
            | Code::Denied
            | Code::TooLarge
            | Code::Cancelled => false,
        }
    }
}

impl FromStr for RollbackOn {
    type Err = String;

    /// # Errors
    /// Says how a rule is written.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("`{}` is no rule: write `err>1%`, with at most three decimals, below 100%", printable(text));
        let number = text.strip_prefix("err>").and_then(|rest| rest.strip_suffix('%')).ok_or_else(wrong)?;
        let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
        let is_number = |text: &str| (1..=3).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
        if !is_number(whole) || !is_number(decimals) {
            return Err(wrong());
        }
        let share: u32 = format!("{whole}{decimals:0<3}").parse().map_err(|_| wrong())?;
        if share < 100_000 { Ok(Self { share }) } else { Err(wrong()) }
    }
}

impl fmt::Display for RollbackOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decimals = format!("{:03}", self.share % 1_000);
        let decimals = decimals.trim_end_matches('0');
        let point = if decimals.is_empty() { "" } else { "." };
        write!(f, "err>{}{point}{decimals}%", self.share / 1_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_and_written_back() {
        for text in ["err>1%", "err>0%", "err>0.5%", "err>12.125%", "err>99.999%"] {
            assert_eq!(text.parse::<RollbackOn>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "err>",
            "err>%",
            "err>1",
            "1%",
            "err<1%",
            "err>-1%",
            "err>100%",
            "err>1.%",
            "err>.5%",
            "err>1.2345%",
            "err> 1%",
            "err>1e1%",
        ] {
            assert!(text.parse::<RollbackOn>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_share_of_how_many_calls_is_bad() {
        for (rule, calls, failed, bad) in [
            ("err>1%", 0, 0, false),
            ("err>1%", 1, 1, false),
            ("err>1%", 19, 19, false),
            ("err>1%", 20, 2, false),
            ("err>1%", 20, 3, true),
            ("err>1%", 300, 3, false),
            ("err>1%", 299, 3, true),
            ("err>1%", 10_000, 100, false),
            ("err>1%", 10_000, 101, true),
            ("err>50%", 100, 50, false),
            ("err>50%", 100, 51, true),
            ("err>0%", 1_000_000, 2, false),
            ("err>0%", 1_000_000, 3, true),
            ("err>99.999%", u64::MAX, u64::MAX, true),
        ] {
            assert_eq!(rule.parse::<RollbackOn>().unwrap().is_bad(calls, failed), bad, "{rule}: {failed} of {calls}");
        }
    }

    #[test]
    fn the_faults_of_callers_do_not_count() {
        let counted: Vec<_> =
            Code::ALL.into_iter().filter(|code| RollbackOn::counts(*code)).map(Code::as_str).collect();
        let expected = [
            "method_failed",
            "panicked",
            "overloaded",
            "unavailable",
            "plugin_gone",
            "deadline_exceeded",
            "protocol_error",
            "internal",
        ];
        assert_eq!(counted.len(), expected.len());
        assert!(expected.iter().all(|code| counted.contains(code)), "{counted:?}");
    }
}
