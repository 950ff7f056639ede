use super::*;

fn end(bytes: &[u8]) -> Result<Option<usize>, Malformed> {
    HeadEnd::default().find(bytes)
}

#[test]
fn the_end_of_a_head_is_found_however_it_is_sliced() {
    let head = b"HTTP/1.1 200 OK\r\nA: b\r\n\r\nbody\r\n\r\n";
    let mut sliced = HeadEnd::default();
    for length in 0..25 {
        assert_eq!(sliced.find(&head[..length]), Ok(None), "{length} bytes");
    }
    assert_eq!(sliced.find(&head[..25]), Ok(Some(25)));
    assert_eq!(end(head), Ok(Some(25)));
}

#[test]
fn lines_without_cr_and_empty_first_lines_are_refused() {
    for head in
        ["GET / HTTP/1.1\nA: b\r\n\r\n", "GET / HTTP/1.1\r\nA: b\n\r\n", "GET / HTTP/1.1\r\n\n", "\n", "\r\n\r\n"]
    {
        assert!(end(head.as_bytes()).is_err(), "{head:?}");
    }
}

#[test]
fn a_head_has_16_kib_and_64_fields() {
    let sized = |bytes: usize| format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "x".repeat(bytes - 23)).into_bytes();
    assert_eq!(sized(MAX_HEAD_BYTES).len(), MAX_HEAD_BYTES);
    assert_eq!(end(&sized(MAX_HEAD_BYTES)), Ok(Some(MAX_HEAD_BYTES)));
    assert!(end(&sized(MAX_HEAD_BYTES + 1)).is_err());
    assert_eq!(end(&sized(MAX_HEAD_BYTES + 1)[..MAX_HEAD_BYTES - 1]), Ok(None));
    assert!(end(&[b'x'; MAX_HEAD_BYTES]).is_err(), "no line at all");

    let with = |fields: usize| format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(fields)).into_bytes();
    assert_eq!(parse_request(&with(64)).unwrap().fields.list.len(), 64);
    assert_eq!(parse_request(&with(65)), Err(Malformed("the head has more than 64 fields".to_owned())));
}

#[test]
fn requests_are_read() {
    let head = b"POST /a%20b?c HTTP/1.1\r\nHost: x\r\nContent-LENGTH: 12\r\nExpect: 100-Continue\r\n\
        Connection: keep-alive, Close\r\nX: caf\xe9\r\n\r\n";
    let head = parse_request(head).unwrap();
    assert_eq!((head.method.as_str(), head.target.as_str(), head.http10), ("POST", "/a%20b?c", false));
    assert_eq!(head.fields.length, Length::Exact(12));
    assert!(head.fields.close && head.fields.expects_continue);
    assert_eq!(crate::http::find(&head.fields.list, "content-length"), Some("12"));
    assert_eq!(crate::http::find(&head.fields.list, "x"), Some("caf\u{fffd}"));

    let old = parse_request(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    assert!(old.http10 && !old.fields.close);
    assert_eq!(old.fields.length.of_request(), Framing::Exact(0));
}

#[test]
fn replies_are_read() {
    let head = parse_reply(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n").unwrap();
    assert_eq!((head.status, head.reason.as_str(), head.http10), (200, "OK", false));
    assert_eq!(head.fields.length.of_reply("POST", 200), Framing::Chunked);
    assert_eq!(parse_reply(b"HTTP/1.1 200\r\n\r\n").unwrap().reason, "");
    assert_eq!(parse_reply(b"HTTP/1.0 404 Not Found At All\r\n\r\n").unwrap().reason, "Not Found At All");
    for (length, method, status, framing) in [
        (Length::Absent, "POST", 200, Framing::UntilClose),
        (Length::Exact(5), "POST", 200, Framing::Exact(5)),
        (Length::Exact(5), "HEAD", 200, Framing::Exact(0)),
        (Length::Chunked, "POST", 204, Framing::Exact(0)),
        (Length::Absent, "GET", 304, Framing::Exact(0)),
    ] {
        assert_eq!(length.of_reply(method, status), framing, "{length:?} {method} {status}");
    }
}

#[test]
fn what_two_readers_could_read_differently_is_refused_in_both_directions() {
    for fields in [
        "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n",
        "Content-Length: 1\r\nContent-Length: 1\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: \r\n",
        "Content-Length: +1\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: 1 1\r\n",
        "Content-Length: 1, 1\r\n",
        "Content-Length: 0x1\r\n",
        "Content-Length: \r\n",
        "Content-Length: 18446744073709551616\r\n",
        "Content-Length : 1\r\n",
        "A: b\r\n c\r\n",
        " A: b\r\n",
        "A: b\0c\r\n",
        "A: b\rc\r\n",
        "A\r\n",
    ] {
        let request = format!("POST / HTTP/1.1\r\n{fields}\r\n");
        let reply = format!("HTTP/1.1 200 OK\r\n{fields}\r\n");
        assert!(parse_request(request.as_bytes()).is_err(), "{request:?}");
        assert!(parse_reply(reply.as_bytes()).is_err(), "{reply:?}");
    }
    let longest = b"HTTP/1.1 200 OK\r\nContent-Length:  18446744073709551615 \r\n\r\n";
    assert_eq!(parse_reply(longest).unwrap().fields.length, Length::Exact(u64::MAX));
}

#[test]
fn first_lines_that_are_none_are_refused() {
    for line in
        ["GET  / HTTP/1.1", "GET / HTTP/2.0", "GET /", "GET / HTTP/1.1 x", "G(T / HTTP/1.1", "", "PRI * HTTP/2.0"]
    {
        assert!(parse_request(format!("{line}\r\n\r\n").as_bytes()).is_err(), "{line:?}");
    }
    for line in
        ["HTTP/1.1 99 x", "HTTP/1.1 099 x", "HTTP/1.1 2000 OK", "HTTP/2 200 OK", "HTTP/1.1 200 \u{7}", "garbage"]
    {
        assert!(parse_reply(format!("{line}\r\n\r\n").as_bytes()).is_err(), "{line:?}");
    }
    let coded = "Transfer-Encoding: chunked\r\n\r\n";
    assert!(parse_request(format!("POST / HTTP/1.0\r\n{coded}").as_bytes()).is_err());
    assert!(parse_reply(format!("HTTP/1.0 200 OK\r\n{coded}").as_bytes()).is_err());
}
