//! When a call is repeated by itself. Pure.

use std::time::Duration;

use goplug_pconf_schema::{Code, Fault, Ran};

/// Further attempts after the first.
pub(crate) const MAX_REPEATS: u32 = 2;

/// The pauses before the first and the second repeat, when the plugin names none.
const PAUSES: [Duration; 2] = [Duration::from_millis(5), Duration::from_millis(50)];

/// Before which further attempt the process has to be another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// After this pause, on whatever process serves then.
    After(Duration),
    /// Once another process serves, if its hello still calls the method idempotent.
    OnSuccessor,
}

/// Whether the call that ended with `fault` is repeated, after `repeats` repeats and with `left` until its deadline.
///
/// At most once on the wire: only what certainly did not run (`ran: no`) is repeated, and what may have run only if the
/// method is declared `idempotent`.
pub(crate) fn decide(fault: &Fault, idempotent: bool, repeats: u32, left: Duration) -> Option<Repeat> {
    let usual = *PAUSES.get(repeats as usize).filter(|_| repeats < MAX_REPEATS)?;
    let repeat = match fault.code {
        Code::Overloaded | Code::Unavailable if fault.ran == Ran::No => {
            Repeat::After(fault.retry_after_ms.map_or(usual, Duration::from_millis))
        }
        Code::PluginGone if fault.ran == Ran::No || idempotent => Repeat::OnSuccessor,
        _ => return None,
    };
    match repeat {
        Repeat::After(pause) if pause >= left => None,
        repeat => Some(repeat),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_did_not_run_or_may_run_twice_is_repeated() {
        let second = Duration::from_secs(1);
        let after = |ms| Some(Repeat::After(Duration::from_millis(ms)));
        for code in Code::ALL {
            let fault = Fault::new(code, "");
            let expected = match code {
                Code::Overloaded | Code::Unavailable => after(5),
                _ => None,
            };
            assert_eq!(decide(&fault, false, 0, second), expected, "{code}");
        }
        let gone = Fault::new(Code::PluginGone, "");
        assert_eq!(decide(&gone, true, 0, second), Some(Repeat::OnSuccessor));
        assert_eq!(decide(&gone.with_ran(Ran::No), false, 1, second), Some(Repeat::OnSuccessor));
        let busy = Fault::new(Code::Overloaded, "");
        assert_eq!(decide(&busy, true, 1, second), after(50));
        assert_eq!(decide(&busy, true, 2, second), None, "two repeats at most");
        assert_eq!(decide(&busy.clone().with_ran(Ran::Yes), true, 0, second), None, "it ran");
        assert_eq!(decide(&busy.clone().with_retry_after_ms(0), false, 0, second), after(0));
        assert_eq!(decide(&busy.with_retry_after_ms(1_000), false, 0, second), None, "the pause outlasts the deadline");
    }
}
