//! What goes out and what comes back.

use bytes::Bytes;

/// A request as it goes out. Nothing in it is encoded; it is only checked for what would break the framing.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The method, such as `POST`.
    pub method: &'a str,
    /// The request target: an absolute path with everything percent-encoded that must be.
    pub target: &'a str,
    /// The value of `Host`.
    pub host: &'a str,
    /// Further fields, in this order. `Host`, `Content-Type`, `Content-Length` and `Transfer-Encoding` are the
    /// connection's to write and refused here.
    pub headers: &'a [(&'a str, &'a str)],
    /// The value of `Content-Type`, if one is to be sent.
    pub content_type: Option<&'a str>,
    /// The body; an empty one is `Content-Length: 0`, which GET and HEAD leave out.
    pub body: &'a [u8],
}

/// The head of a reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplyHead {
    /// The status, 200 to 999.
    pub status: u16,
    /// The reason phrase, empty if there is none. A v0 client takes only `200 OK` as a success.
    pub reason: String,
    /// The fields in their order, names in lower case; bytes that are not UTF-8 are replaced.
    pub headers: Vec<(String, String)>,
}

impl ReplyHead {
    /// The value of the first field of this name, which is given in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        crate::http::find(&self.headers, name)
    }
}

/// A whole reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Status and fields.
    pub head: ReplyHead,
    /// The body, without its framing.
    pub body: Bytes,
}
