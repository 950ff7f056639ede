//! What a request's head says about the caller and the call. PURE.

use std::time::Duration;

use goplug_pconf_schema::wire::call;
use goplug_pconf_schema::{Code, Fault, printable};

use crate::context::Origin;

/// How the caller is to be answered, whatever is wrong with the request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Caller {
    /// Echoed by every reply.
    pub(crate) call_id: Option<String>,
    /// The caller speaks as the original GoPlug does, and compares every status with `200 OK`: an error is status 400
    /// with an empty body. That is a request for no path of v1, without any `Goplug-` field, whose `Host` is neither
    /// `goplug` nor `localhost`; v0 sends the authority of `Url` there. A person with curl and `http://localhost/` is told
    /// what is wrong.
    pub(crate) is_v0: bool,
}

/// What the head asks for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Terms {
    /// From the end of the head.
    pub(crate) deadline: Option<Duration>,
    pub(crate) origin: Origin,
}

type Fields = [(String, String)];

fn field<'a>(fields: &'a Fields, name: &str) -> Option<&'a str> {
    fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
}

impl Caller {
    /// Reads the target and the fields, whose names are in lower case.
    pub(crate) fn of(target: &str, fields: &Fields) -> Self {
        let host = field(fields, "host").unwrap_or("localhost");
        let name = host.split(':').next().unwrap_or_default();
        let is_ours = [call::HOST, "localhost"].iter().any(|ours| name.eq_ignore_ascii_case(ours));
        let has_goplug_field = fields.iter().any(|(field, _)| field.starts_with("goplug-"));
        let call_id = field(fields, call::CALL_ID).filter(|id| is_call_id(id)).map(str::to_owned);
        let is_v1 = is_ours || has_goplug_field || target.starts_with(call::path::PREFIX);
        Self { call_id, is_v0: !is_v1 }
    }
}

impl Terms {
    /// Reads the fields and checks them; `epoch` is ours. `any_epoch` is for the hello, by which a registry finds out.
    pub(crate) fn of(fields: &Fields, epoch: &str, any_epoch: bool) -> Result<Self, Fault> {
        if let Some(id) = field(fields, call::CALL_ID).filter(|id| !is_call_id(id)) {
            let most = call::MAX_CALL_ID_BYTES;
            let text = format!("goplug-call-id `{}` is not 1 to {most} visible ASCII characters", printable(id));
            return Err(Fault::new(Code::InvalidArgument, text));
        }
        if let Some(theirs) = field(fields, call::EPOCH).filter(|theirs| !any_epoch && *theirs != epoch) {
            let text = format!("epoch `{}` is over, this process is {epoch}; ask for its hello", printable(theirs));
            return Err(Fault::new(Code::Unavailable, text).with_retry_after_ms(0));
        }
        let deadline = field(fields, call::DEADLINE_MS).map(parse_deadline).transpose()?;
        if deadline == Some(Duration::ZERO) {
            let text = "the caller's time was over when the request came";
            return Err(Fault::new(Code::DeadlineExceeded, text).with_ran(goplug_pconf_schema::Ran::No));
        }
        let owned = |name| field(fields, name).map(str::to_owned);
        let origin = Origin {
            caller: owned(call::CALLER),
            traceparent: owned(call::TRACEPARENT),
            tracestate: owned(call::TRACESTATE),
            lender: None,
        };
        Ok(Self { deadline, origin })
    }
}

fn is_call_id(id: &str) -> bool {
    (1..=call::MAX_CALL_ID_BYTES).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic())
}

fn parse_deadline(text: &str) -> Result<Duration, Fault> {
    let is_number = !text.is_empty() && text.len() <= 20 && text.bytes().all(|b| b.is_ascii_digit());
    let ms = text.parse().ok().filter(|ms: &u64| is_number && *ms <= call::MAX_DEADLINE_MS);
    ms.map(Duration::from_millis).ok_or_else(|| {
        let most = call::MAX_DEADLINE_MS;
        let text = format!("goplug-deadline-ms `{}` is not a whole number from 0 to {most}", printable(text));
        Fault::new(Code::InvalidArgument, text)
    })
}

#[cfg(test)]
mod tests {
    use goplug_pconf_schema::Ran;

    use super::*;

    const EPOCH: &str = "0123456789abcdef0123456789abcdef";

    fn fields(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_v0_caller_is_told_from_a_registry_and_from_a_person() {
        for (target, pairs, is_v0) in [
            ("/main.Do", vec![("host", "TestDo")], true),
            ("/_goplug", vec![("host", "TestDo")], true),
            ("/_goplug/methods/main.Do", vec![("host", "TestDo")], false),
            ("/main.Do", vec![("host", "goplug")], false),
            ("/main.Do", vec![("host", "GoPlug:80")], false),
            ("/main.Do", vec![("host", "localhost")], false),
            ("/main.Do", vec![("host", "TestDo"), ("goplug-call-id", "1")], false),
            ("/main.Do", vec![("host", "TestDo"), ("goplug-deadline-ms", "1")], false),
            ("/main.Do", vec![], false),
        ] {
            assert_eq!(Caller::of(target, &fields(&pairs)).is_v0, is_v0, "{target} {pairs:?}");
        }
    }

    #[test]
    fn call_ids_are_checked_and_only_good_ones_are_echoed() {
        let long = "x".repeat(65);
        for (id, is_good) in [
            ("1", true),
            ("a~!-9", true),
            (&long[..64], true),
            (&long, false),
            ("", false),
            ("a b", false),
            ("ä", false),
        ] {
            let fields = fields(&[("goplug-call-id", id)]);
            assert_eq!(Caller::of("/Do", &fields).call_id.is_some(), is_good, "{id}");
            let code = Terms::of(&fields, EPOCH, false).err().map(|fault| fault.code);
            assert_eq!(code, (!is_good).then_some(Code::InvalidArgument), "{id}");
        }
    }

    #[test]
    fn deadlines_are_whole_milliseconds_up_to_a_day() {
        for (text, deadline) in [
            ("1", Ok(1)),
            ("86400000", Ok(86_400_000)),
            ("0007", Ok(7)),
            ("0", Err(Code::DeadlineExceeded)),
            ("86400001", Err(Code::InvalidArgument)),
            ("-1", Err(Code::InvalidArgument)),
            ("+1", Err(Code::InvalidArgument)),
            ("1.5", Err(Code::InvalidArgument)),
            ("", Err(Code::InvalidArgument)),
            ("99999999999999999999999", Err(Code::InvalidArgument)),
        ] {
            let terms = Terms::of(&fields(&[("goplug-deadline-ms", text)]), EPOCH, false);
            let read = terms.map(|terms| terms.deadline.unwrap().as_millis()).map_err(|fault| {
                assert_eq!(fault.ran, Ran::No);
                fault.code
            });
            assert_eq!(read, deadline, "{text}");
        }
    }

    #[test]
    fn a_call_for_another_process_did_not_run_and_may_be_repeated_at_once() {
        let other = fields(&[("goplug-epoch", "f")]);
        let fault = Terms::of(&other, EPOCH, false).unwrap_err();
        assert_eq!((fault.code, fault.ran, fault.retry_after_ms), (Code::Unavailable, Ran::No, Some(0)));
        assert!(Terms::of(&other, EPOCH, true).is_ok());
        assert!(Terms::of(&fields(&[("goplug-epoch", EPOCH)]), EPOCH, false).is_ok());
    }
}
