//! Reads heads. httparse does the syntax; what it lets pass although two readers could take it for two different
//! messages is refused here: bare line feeds, two lengths, a length together with a coding, codings but `chunked`.

use super::body::Framing;
use super::{MAX_FIELDS, MAX_HEAD_BYTES, Malformed};

/// Finds the end of a head that grows; never looks at a byte twice.
#[derive(Debug, Default)]
pub(crate) struct HeadEnd {
    seen: usize,
}

/// The first line of a reply with its fields.
#[cfg(feature = "client")]
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ReplyHead {
    pub(crate) status: u16,
    pub(crate) reason: String,
    pub(crate) http10: bool,
    pub(crate) fields: Fields,
}

/// The first line of a request with its fields.
#[cfg(feature = "server")]
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RequestHead {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) http10: bool,
    pub(crate) fields: Fields,
}

/// All fields, and what those say that concern the connection.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fields {
    /// In their order, names in lower case, values with bytes that are not UTF-8 replaced.
    pub(crate) list: Vec<(String, String)>,
    pub(crate) length: Length,
    /// `Connection: close`
    pub(crate) close: bool,
    /// `Expect: 100-continue`
    pub(crate) expects_continue: bool,
}

/// What a head says about the length of its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Length {
    Absent,
    Exact(u64),
    Chunked,
}

impl HeadEnd {
    /// The length of the head, if all of it is in `bytes`, which must begin with what earlier calls were given.
    pub(crate) fn find(&mut self, bytes: &[u8]) -> Result<Option<usize>, Malformed> {
        let within = &bytes[..bytes.len().min(MAX_HEAD_BYTES)];
        while let Some(offset) = within[self.seen..].iter().position(|byte| *byte == b'\n') {
            let line = &within[..self.seen + offset];
            self.seen += offset + 1;
            match line {
                [b'\r'] => return Malformed::because("the first line is empty"),
                [.., b'\r', b'\n', b'\r'] => return Ok(Some(self.seen)),
                [.., b'\r'] => {}
                _ => return Malformed::because("a line of the head ends in a bare line feed"),
            }
        }
        self.seen = within.len();
        if bytes.len() < MAX_HEAD_BYTES {
            return Ok(None);
        }
        Malformed::because(format!("the head is longer than {MAX_HEAD_BYTES} bytes"))
    }
}

/// Refuses what cannot become a reply, so that nobody waits for the rest of something that is no HTTP at all.
#[cfg(feature = "client")]
pub(crate) fn check_start_of_reply(bytes: &[u8]) -> Result<(), Malformed> {
    let start = b"HTTP/1.";
    let common = bytes.len().min(start.len());
    if bytes[..common] == start[..common] { Ok(()) } else { Malformed::because("it does not begin with `HTTP/1.`") }
}

/// Reads a whole head, as [`HeadEnd`] found it.
#[cfg(feature = "client")]
pub(crate) fn parse_reply(bytes: &[u8]) -> Result<ReplyHead, Malformed> {
    let mut raw = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut parsed = httparse::Response::new(&mut raw);
    whole(parsed.parse(bytes))?;
    let status = parsed.code.unwrap_or_default();
    if status < 100 {
        return Malformed::because(format!("status {status:03} does not exist"));
    }
    let http10 = parsed.version == Some(0);
    let fields = fields(parsed.headers, http10)?;
    Ok(ReplyHead { status, reason: parsed.reason.unwrap_or_default().to_owned(), http10, fields })
}

/// Reads a whole head, as [`HeadEnd`] found it.
#[cfg(feature = "server")]
pub(crate) fn parse_request(bytes: &[u8]) -> Result<RequestHead, Malformed> {
    let mut raw = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut parsed = httparse::Request::new(&mut raw);
    whole(parsed.parse(bytes))?;
    let http10 = parsed.version == Some(0);
    let fields = fields(parsed.headers, http10)?;
    let (method, target) = (parsed.method.unwrap_or_default(), parsed.path.unwrap_or_default());
    Ok(RequestHead { method: method.to_owned(), target: target.to_owned(), http10, fields })
}

impl Length {
    /// How the body of a reply ends.
    #[cfg(feature = "client")]
    pub(crate) fn of_reply(self, method: &str, status: u16) -> Framing {
        if method == "HEAD" || status == 204 || status == 304 {
            return Framing::Exact(0);
        }
        match self {
            Self::Absent => Framing::UntilClose,
            Self::Exact(length) => Framing::Exact(length),
            Self::Chunked => Framing::Chunked,
        }
    }

    /// How the body of a request ends.
    #[cfg(feature = "server")]
    pub(crate) fn of_request(self) -> Framing {
        match self {
            Self::Absent => Framing::Exact(0),
            Self::Exact(length) => Framing::Exact(length),
            Self::Chunked => Framing::Chunked,
        }
    }
}

fn whole(parsed: httparse::Result<usize>) -> Result<(), Malformed> {
    match parsed {
        Ok(httparse::Status::Complete(_)) => Ok(()),
        Ok(httparse::Status::Partial) => Malformed::because("the head ends before its fields do"),
        Err(httparse::Error::TooManyHeaders) => {
            Malformed::because(format!("the head has more than {MAX_FIELDS} fields"))
        }
        Err(error) => Malformed::because(error.to_string()),
    }
}

fn fields(raw: &[httparse::Header<'_>], http10: bool) -> Result<Fields, Malformed> {
    let mut fields =
        Fields { list: Vec::with_capacity(raw.len()), length: Length::Absent, close: false, expects_continue: false };
    let (mut lengths, mut codings) = (0, 0);
    for field in raw {
        let name = field.name.to_ascii_lowercase();
        match name.as_str() {
            "content-length" => {
                fields.length = Length::Exact(content_length(field.value)?);
                lengths += 1;
            }
            "transfer-encoding" => {
                if !field.value.eq_ignore_ascii_case(b"chunked") {
                    return Malformed::because("a transfer coding other than `chunked`");
                }
                codings += 1;
            }
            "connection" => fields.close |= field.value.split(|byte| *byte == b',').any(|token| is(token, b"close")),
            "expect" => fields.expects_continue |= is(field.value, b"100-continue"),
            _ => {}
        }
        fields.list.push((name, String::from_utf8_lossy(field.value).into_owned()));
    }
    match (lengths, codings) {
        (0 | 1, 0) => {}
        (0, 1) if http10 => return Malformed::because("a transfer coding in HTTP/1.0"),
        (0, 1) => fields.length = Length::Chunked,
        (0, _) => return Malformed::because("more than one Transfer-Encoding"),
        (_, 0) => return Malformed::because("more than one Content-Length"),
        _ => return Malformed::because("a Content-Length together with a Transfer-Encoding"),
    }
    Ok(fields)
}

/// Digits only: a sign, a space, a list or a number beyond 64 bits is what two readers take for two lengths.
fn content_length(value: &[u8]) -> Result<u64, Malformed> {
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    let number = std::str::from_utf8(value).ok().filter(|_| digits).and_then(|text| text.parse().ok());
    number.ok_or_else(|| Malformed("a Content-Length that is not a number of at most 64 bits".to_owned()))
}

fn is(value: &[u8], word: &[u8]) -> bool {
    value.trim_ascii().eq_ignore_ascii_case(word)
}

#[cfg(test)]
#[cfg(all(feature = "client", feature = "server"))]
mod tests;
