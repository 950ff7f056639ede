//! What a reply means. Pure.

use goplug_pconf_schema::wire::call::{CALL_ID, PROBLEM_JSON};
use goplug_pconf_schema::{Code, Fault, Ran, printable};
use goplug_transport::ReplyHead;

/// What is to be done with the body behind a head.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is the method's reply.
    Body,
    /// It is a problem document of this status.
    Problem,
    /// The plugin broke the protocol: close the connection.
    Broken(String),
}

/// Judges the head of a v1 reply to the call `call_id`.
pub(crate) fn v1(head: &ReplyHead, call_id: &str) -> Verdict {
    match head.header(CALL_ID) {
        Some(echoed) if echoed == call_id => {}
        Some(echoed) => {
            return Verdict::Broken(format!("the reply is for call `{}`, asked was `{call_id}`", printable(echoed)));
        }
        None => return Verdict::Broken("the reply carries no Goplug-Call-Id".into()),
    }
    if head.header("content-length").is_none() && head.header("transfer-encoding").is_none() {
        // It would end with the connection, and one that a crash cut off would look whole.
        return Verdict::Broken("the reply has neither a length nor chunks".into());
    }
    if head.status == 200 {
        return Verdict::Body;
    }
    let content_type = head.header("content-type").unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    if (400..600).contains(&head.status) && media_type.eq_ignore_ascii_case(PROBLEM_JSON) {
        return Verdict::Problem;
    }
    Verdict::Broken(format!("status {} {} without a problem document", head.status, printable(&head.reason)))
}

/// Reads the problem document of a v1 reply.
pub(crate) fn problem(status: u16, body: &[u8]) -> Fault {
    // Which case it is says only who decided it, and that was not the plugin.
    let told = Fault::from_problem(body).map(|fault| Fault { reason: None, ..fault });
    let mut fault = told.unwrap_or_else(|| {
        Fault::new(Code::ProtocolError, format!("status {status} with a problem document that cannot be read"))
    });
    if fault.message.is_empty() {
        fault.message = format!("the plugin answered `{}` and did not say why", fault.code);
    }
    fault
}

/// Judges the head of a v0 reply: only `200 OK`, to the letter, is success.
pub(crate) fn v0(head: &ReplyHead) -> Result<(), Fault> {
    if head.status == 200 && head.reason == "OK" {
        return Ok(());
    }
    let text = format!("the plugin answered `{} {}`", head.status, printable(&head.reason));
    Err(Fault::new(Code::MethodFailed, text).with_ran(Ran::Unknown))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(status: u16, reason: &str, headers: &[(&str, &str)]) -> ReplyHead {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        ReplyHead { status, reason: reason.to_owned(), headers }
    }

    #[test]
    fn v1_replies_are_bodies_problems_or_broken() {
        let length = ("content-length", "2");
        let problem = ("content-type", "application/problem+json; charset=utf-8");
        let id = (CALL_ID, "7");
        for (status, headers, expected) in [
            (200, vec![id], "Body"),
            (200, vec![], "Broken"),
            (200, vec![(CALL_ID, "8")], "Broken"),
            (200, vec![id, problem], "Body"),
            (201, vec![id], "Broken"),
            (302, vec![id, problem], "Broken"),
            (404, vec![id], "Broken"),
            (404, vec![id, problem], "Problem"),
            (503, vec![problem], "Broken"),
            (599, vec![id, problem], "Problem"),
        ] {
            let headers: Vec<_> = headers.into_iter().chain([length]).collect();
            let verdict = format!("{:?}", v1(&head(status, "x", &headers), "7"));
            assert!(verdict.starts_with(expected), "{status} {headers:?}: {verdict}");
        }
        assert!(matches!(v1(&head(200, "OK", &[id]), "7"), Verdict::Broken(_)), "no length");
        assert!(matches!(v1(&head(200, "OK", &[id, ("transfer-encoding", "chunked")]), "7"), Verdict::Body));
        assert_eq!(super::problem(500, b"{}").code, Code::ProtocolError);
        for (document, message) in [
            (&br#"{"code":"denied"}"#[..], "the plugin answered `denied` and did not say why"),
            (br#"{"code":"denied","detail":""}"#, "the plugin answered `denied` and did not say why"),
            (br#"{"code":"denied","title":"no"}"#, "no"),
        ] {
            assert_eq!(super::problem(403, document).message, message);
        }
    }

    #[test]
    fn v0_success_is_200_ok_to_the_letter() {
        assert!(v0(&head(200, "OK", &[])).is_ok());
        for (status, reason) in [(200, "ok"), (200, ""), (201, "OK"), (400, "Bad Request")] {
            assert_eq!(v0(&head(status, reason, &[])).unwrap_err().ran, Ran::Unknown);
        }
    }
}
