use bytes::Bytes;

use super::*;
use crate::server::ServerBody;

const REQUEST: Request<'_> =
    Request { method: "POST", target: "/a", host: "goplug", headers: &[], content_type: None, body: b"" };

fn written(request: Request<'_>) -> Result<String, Malformed> {
    let mut out = b"left over".to_vec();
    request_head(&mut out, &request).map(|()| String::from_utf8(out).unwrap())
}

#[test]
fn requests_are_written() {
    assert_eq!(written(REQUEST).unwrap(), "POST /a HTTP/1.1\r\nHost: goplug\r\nContent-Length: 0\r\n\r\n");
    let full = Request {
        headers: &[("Goplug-Call-Id", "7"), ("X", "")],
        content_type: Some("application/json"),
        body: b"12345",
        ..REQUEST
    };
    assert_eq!(
        written(full).unwrap(),
        "POST /a HTTP/1.1\r\nHost: goplug\r\nGoplug-Call-Id: 7\r\nX: \r\nContent-Type: application/json\r\n\
         Content-Length: 5\r\n\r\n"
    );
    assert_eq!(written(Request { method: "GET", ..REQUEST }).unwrap(), "GET /a HTTP/1.1\r\nHost: goplug\r\n\r\n");
}

#[test]
fn a_request_that_would_break_the_framing_is_refused() {
    for bad in [
        Request { method: "", ..REQUEST },
        Request { method: "GET /", ..REQUEST },
        Request { target: "", ..REQUEST },
        Request { target: "/a b", ..REQUEST },
        Request { target: "/a\r\nX: y", ..REQUEST },
        Request { target: "/\u{e9}", ..REQUEST },
        Request { host: "a\r\nb", ..REQUEST },
        Request { headers: &[("A", "b\nc")], ..REQUEST },
        Request { headers: &[("A", "b\0c")], ..REQUEST },
        Request { headers: &[("A:", "b")], ..REQUEST },
        Request { headers: &[("", "b")], ..REQUEST },
        Request { headers: &[("content-length", "5")], ..REQUEST },
        Request { headers: &[("Transfer-Encoding", "chunked")], ..REQUEST },
        Request { content_type: Some("a\rb"), ..REQUEST },
    ] {
        assert!(written(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn answers_are_written_without_fields_that_would_split_them() {
    let response = ServerResponse {
        status: 200,
        reason: "OK",
        headers: vec![("Goplug-Call-Id", "7".to_owned()), ("X", "a\r\nY: b".to_owned()), ("Bad Name", "c".to_owned())],
        content_type: Some("text/plain".into()),
        body: ServerBody::Full(Bytes::new()),
        close: false,
        written: None,
    };
    let head = |announce, close| {
        let mut out = b"left over".to_vec();
        response_head(&mut out, &response, announce, close);
        String::from_utf8(out).unwrap()
    };
    let start = "HTTP/1.1 200 OK\r\nGoplug-Call-Id: 7\r\nContent-Type: text/plain\r\n";
    assert_eq!(head(Announce::Length(3), false), format!("{start}Content-Length: 3\r\n\r\n"));
    assert_eq!(head(Announce::Chunked, false), format!("{start}Transfer-Encoding: chunked\r\n\r\n"));
    assert_eq!(head(Announce::Nothing, true), format!("{start}Connection: close\r\n\r\n"));
}
